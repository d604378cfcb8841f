"""Saved traces in SQLite: one row per trace, one MessagePack blob per step.

Write-ahead logging, so that several app processes may read and write at once, and a process that is killed loses at most the
step it was writing. The folder is the user's; what is read from it is checked like any other trace.
"""

import os
import shutil
import sqlite3
import time
from codecs import getincrementaldecoder
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from copy import copy
from dataclasses import dataclass
from pathlib import Path

import msgspec

from decoding import old_names
from decoding.limits import check_kept, check_trace, limits
from decoding.sizes import sizes, sizes_of
from decoding.trace import Header, Piece, Step, Token, Trace, Version, check_schema, check_steps, convert

FILE = "traces.sqlite"
LIST_LIMIT = 200  # rows of one page of the list
PATIENCE = 10.0  # seconds that one waits for others who write
LOCKED = "is locked"  # what SQLite says then
VERSION = 1  # of the tables; files from before there was a number have 0, and the same tables
RESERVE, RESERVED = "traces.reserve", 256 * 1024  # a file that is given up on a full disk, and its bytes
WORDS = {  # of SQLite, and ours
    "disk is full": "the disk is full",
    "disk I/O error": "the disk is full, or damaged",
    LOCKED: "another program is writing there and does not finish",
    "readonly": "they may only be read there",
    "unable to open": "the file cannot be opened there",
    "not a database": "the file holds something else",
    "malformed": "the file is damaged",
}
MAX_NAME, MAX_NOTE = 200, 4000  # characters
UTF8, REPLACED = getincrementaldecoder("utf-8"), "\N{REPLACEMENT CHARACTER}".encode()

TABLES = """
CREATE TABLE IF NOT EXISTS traces (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, note TEXT NOT NULL, study TEXT NOT NULL, created REAL NOT NULL,
    method TEXT NOT NULL, family TEXT NOT NULL, prompt TEXT NOT NULL, text TEXT NOT NULL,
    steps INTEGER NOT NULL, tokens INTEGER NOT NULL, ended INTEGER NOT NULL, header BLOB NOT NULL, pieces BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS newest ON traces (created DESC);
CREATE INDEX IF NOT EXISTS by_study ON traces (study);
CREATE TABLE IF NOT EXISTS steps (
    trace INTEGER NOT NULL REFERENCES traces (id) ON DELETE CASCADE, number INTEGER NOT NULL, pieces BLOB NOT NULL,
    data BLOB NOT NULL, PRIMARY KEY (trace, number)
);
"""
MOST_COUNTED, LATEST = 2**53, 2**37  # of a number in the list; seconds since 1970, some four thousand years
COLUMNS = "id, name, note, study, created, method, family, prompt, text, steps, tokens, ended"


@dataclass(frozen=True)
class Entry:
    """One line of the list of traces."""

    id: int
    name: str
    note: str
    study: str  # the debug run it belongs to, or ""
    created: float  # seconds since 1970
    method: str
    family: str
    prompt: str
    text: str
    steps: int
    tokens: int
    ended: bool

    @property
    def tau(self) -> float | None:
        return self.tokens / self.steps if self.steps else None


SEARCHED = ("name", "note", "prompt", "text")
LONGEST_SEARCH, MOST_WORDS = 200, 10  # characters and words that are looked for at once


@dataclass(frozen=True)
class Query:
    """What to look for; empty fields match everything."""

    words: str = ""  # every word must occur in name, note, prompt or text
    method: str = ""
    family: str = ""
    study: str | None = None  # "" = only traces that belong to no debug run
    since: float | None = None  # seconds since 1970
    until: float | None = None
    ended: bool | None = None  # only runs that went to their end, or only others


def default_folder() -> Path:
    """`$DRAFTSCOPE_HOME`, or `.draftscope` in the home folder."""
    return Path(os.environ.get("DRAFTSCOPE_HOME") or Path.home() / ".draftscope")


class Locked(ValueError):
    """Others write, and did not finish for as long as one could wait."""


class Gone(ValueError):
    """The trace is not there any more."""

    def __init__(self, trace: int) -> None:
        super().__init__(f"There is no trace {trace}; it may have been deleted.")


class Changed(ValueError):
    """Name or note are others than whoever wants to change them has seen."""


class Store:
    """The traces of one folder. Cheap to make; every call opens its own connection, so threads may share it.

    Raises:
        ValueError: the folder cannot be written, or holds something else under the store's name.
    """

    def __init__(
        self,
        folder: Path | None = None,
        later: bool = False,
        first: Callable[[], None] = lambda: None,
        room: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Args:
            later: that nothing is written before there is a trace to keep; until then it is an empty store.
            first: asked before anything is written then; a ValueError of it is the store's.
            room: asked before every trace that is kept, and before many of them are begun, likewise.
        """
        self._first, self._room, self._patience = first, room, PATIENCE
        self.folder = folder or default_folder()
        self.path = self.folder / FILE
        if not later or self.path.exists():
            self._make()

    def hurried(self, seconds: float) -> "Store":
        """The same, for those who cannot wait longer than so long for others who write; what they write then raises Locked."""
        store = copy(self)
        store._patience = seconds
        return store

    def _make(self) -> None:
        """The folder and the file in it, unless they are there."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                self._set_up()
            except sqlite3.OperationalError:  # on a full disk there is no room to look at it either
                if not self._release():
                    raise
                self._set_up()
        except (OSError, ValueError, RuntimeError, sqlite3.Error) as error:
            raise ValueError(f"Traces cannot be kept {self._where}: {why(error)}.") from error

    def _set_up(self) -> None:
        """Tables, if there are none, and something to give up once the disk is full; ValueError for a later version's."""
        with self._connected() as db:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version > VERSION:
                raise ValueError(f"a later version of Draftscope made it (version {version}; this one knows {VERSION})")
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # of a file that is new
            db.execute("PRAGMA journal_mode = WAL")
            db.executescript(TABLES)
            if version < VERSION:
                db.execute(f"PRAGMA user_version = {VERSION}")
        with suppress(OSError):
            reserve = self.folder / RESERVE
            if shutil.disk_usage(self.folder).free > 4 * RESERVED and not reserve.exists():
                reserve.write_bytes(bytes(RESERVED))

    def _release(self) -> bool:
        """Give up what was put by; whether there was any."""
        try:
            (self.folder / RESERVE).unlink()
        except OSError:
            return False
        return True

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """A connection whose statements are one transaction; waits for others who write."""
        db = sqlite3.connect(self.path, timeout=self._patience)
        try:
            db.execute("PRAGMA foreign_keys = ON")
            db.execute("PRAGMA synchronous = NORMAL")
            db.create_function("holds", -1, holds, deterministic=True)
            with db:
                yield db
        finally:
            db.close()

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """The same; what is wrong with the file or the disk as a sentence (ValueError), and nothing is changed then. Without a file
        an empty one, of which nothing stays."""
        try:
            if not self.path.exists():
                with closing(sqlite3.connect(":memory:")) as db:
                    db.executescript(TABLES)
                    db.create_function("holds", -1, holds, deterministic=True)
                    yield db
                return
            with self._connected() as db:
                yield db
        except sqlite3.Error as error:
            kind = Locked if LOCKED in str(error) else ValueError
            raise kind(f"The traces {self._where} could not be read or written: {why(error)}.") from error

    @property
    def _where(self) -> str:
        """The place, for those whose machine it is."""
        return "of this visitor" if limits().public else f"in {str(self.folder)!r}"

    # -- writing --

    def begun(self) -> None:
        """Have its file be there from now on. A ValueError where this server keeps no more."""
        self._room()
        if not self.path.exists():
            self._first()
            self._make()

    def begin(self, header: Header, token_bytes: dict[int, bytes], name: str, note: str = "", study: str = "") -> int:
        """A new trace without steps; returns its id. A ValueError where this server keeps no more."""
        return self.keep(Trace(header, token_bytes, ()), name, note, study)

    def append(self, trace: int, steps: Sequence[Step], token_bytes: dict[int, bytes]) -> None:
        """More steps of a trace, in one transaction.

        Args:
            token_bytes: at least those of the tokens that occur in `steps`.
        """
        check_trace(sizes(steps, token_bytes))
        self._room()
        with self._open() as db:
            append(db, trace, steps, token_bytes)
            check_filled(db)

    def keep(self, trace: Trace, name: str, note: str = "", study: str = "") -> int:
        """A whole trace, in one transaction; returns its id. A ValueError where this server keeps no more."""
        check_trace(sizes_of(trace))
        instead: list[int] = []
        if limits().public:
            count, most = self.count(), limits().kept
            if most is not None and count >= most:
                instead = self._halves(name, study)
            check_kept(count - len(instead), filled := self.filled)
            check_kept(0, filled + weight(trace))  # more than it will be is not even begun
        self.begun()
        with self._open() as db:
            for half in instead:
                db.execute("DELETE FROM traces WHERE id = ?", (half,))
            new = insert(db, trace.header, trace.token_bytes, name, note, study)
            append(db, new, trace.steps, trace.token_bytes)
            check_filled(db)
            return new

    def _halves(self, name: str, study: str) -> list[int]:
        """What a study has left of a run that it begins anew: where no more runs may be kept, it makes room for that."""
        sql = "SELECT id FROM traces WHERE study != '' AND study = ? AND name = ? AND NOT ended"
        with self._open() as db:
            return [number for (number,) in db.execute(sql, (study, name))]

    def settle(self, trace: int) -> int:
        """Of all runs of a study under the name of `trace`, keep the first that went to its end; returns its id.

        A study may run in two places at once, and one that was killed leaves the steps it had: they go once there is a whole one.
        """
        same = "study = (SELECT study FROM traces WHERE id = ?) AND name = (SELECT name FROM traces WHERE id = ?)"
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            found = db.execute(f"SELECT MIN(id) FROM traces WHERE ended AND study != '' AND {same}", (trace, trace)).fetchone()[0]
            if found is None:
                return trace
            db.execute(f"DELETE FROM traces WHERE id != ? AND {same}", (found, trace, trace))
            return found

    def rename(self, trace: int, name: str, note: str, seen: tuple[str, str] | None = None) -> None:
        """Another name and another note.

        Args:
            seen: the name and the note that they are to replace, as far as anybody knows.

        Raises:
            Gone: it was deleted.
            Changed: they were others, and stay.
        """
        wanted = clipped(name, MAX_NAME, "name"), clipped(note, MAX_NOTE, "note")
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            found = db.execute("SELECT name, note FROM traces WHERE id = ?", (trace,)).fetchone()
            if found is None:
                raise Gone(trace)
            if seen is not None and tuple(map(said, found)) not in (seen, wanted):
                raise Changed(f"The name and the note of trace {trace} were changed meanwhile.")
            db.execute("UPDATE traces SET name = ?, note = ? WHERE id = ?", (*wanted, trace))

    def delete(self, trace: int) -> None:
        """Take a trace away, and give its room back to the disk. On a full one that needs room too: what is written twice goes
        first, then what was put by for this."""
        self._delete("WHERE id = ?", (trace,))
        self.give_back()

    def _delete(self, where: str, values: tuple[float, ...]) -> int:
        """Returns how many went."""

        def once() -> int:
            with self._open() as db:
                return db.execute(f"DELETE FROM traces {where}", values).rowcount

        try:
            return once()
        except ValueError:
            self.give_back()
            self._release()
            return once()

    def give_back(self) -> None:
        """Give the disk what the files do not need; another program that reads just now may be in the way, which does no harm."""
        if not self.path.exists():
            return
        with suppress(sqlite3.Error), self._connected() as db:
            db.execute("PRAGMA incremental_vacuum").fetchall()
            db.commit()
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def forget(self, before: float | None = None) -> int:
        """Delete all traces, or those kept before a time (seconds since 1970), and give their room back; returns how many."""
        count = self._delete("", ()) if before is None else self._delete("WHERE created < ?", (before,))
        if count:
            with suppress(sqlite3.Error), closing(sqlite3.connect(self.path, timeout=10, isolation_level=None)) as db:
                db.execute("VACUUM")  # nothing of them stays in the file, also in one from before; it stands in no transaction
            self.give_back()
        return count

    # -- reading --

    @property
    def filled(self) -> int:
        """Bytes of what is kept, without what is being written beside it."""
        if not self.path.exists():
            return 0
        with self._open() as db:
            return pages_of(db)

    def entries(self, query: Query | None = None, page: int = 0, limit: int = LIST_LIMIT) -> list[Entry]:
        """The newest first."""
        where, values = conditions(query or Query())
        with self._open() as db:
            sql = f"SELECT {COLUMNS} FROM traces {where} ORDER BY created DESC, id DESC LIMIT ? OFFSET ?"
            return [entry_of(row) for row in db.execute(sql, (*values, limit, page * limit))]

    def found(self, query: Query) -> list[int]:
        """The ids of all that match, the newest first: a search looks through every text, and so should be made once."""
        where, values = conditions(query)
        with self._open() as db:
            return [number for (number,) in db.execute(f"SELECT id FROM traces {where} ORDER BY created DESC, id DESC", values)]

    def entries_of(self, traces: Sequence[int]) -> list[Entry]:
        """Those with these ids, in this order; one that was deleted meanwhile is left out."""
        with self._open() as db:
            sql = f"SELECT {COLUMNS} FROM traces WHERE id IN ({', '.join('?' * len(traces))})"
            there = {entry.id: entry for entry in map(entry_of, db.execute(sql, tuple(traces)))}
        return [there[trace] for trace in traces if trace in there]

    def count(self, query: Query | None = None) -> int:
        where, values = conditions(query or Query())
        with self._open() as db:
            return db.execute(f"SELECT COUNT(*) FROM traces {where}", values).fetchone()[0]

    def finished(self, study: str) -> int:
        """Prompts of a study whose runs went to their end."""
        with self._open() as db:
            return db.execute("SELECT COUNT(DISTINCT name) FROM traces WHERE ended AND study = ?", (study,)).fetchone()[0]

    def families(self) -> list[str]:
        """The names of all families that occur."""
        with self._open() as db:
            return [name for (name,) in db.execute("SELECT DISTINCT family FROM traces ORDER BY family") if isinstance(name, str)]

    def open(self, trace: int) -> Trace:
        """The whole trace.

        Raises:
            ValueError: there is none with this id, or it is damaged.
        """
        with self._open() as db:
            found = db.execute("SELECT header, pieces FROM traces WHERE id = ?", (trace,)).fetchone()
            rows = db.execute("SELECT pieces, data FROM steps WHERE trace = ? ORDER BY number", (trace,)).fetchall()
        if found is None:
            raise Gone(trace)
        try:
            header = header_of(found[0])
            token_bytes = TOKEN_BYTES.decode(found[1])
            for own, _ in rows:
                token_bytes |= TOKEN_BYTES.decode(own)
            steps = tuple(step_of(data) for _, data in rows)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise ValueError(f"Trace {trace} is damaged: {error}") from error
        return check_steps(Trace(header, token_bytes, steps))


def insert(
    db: sqlite3.Connection, header: Header, token_bytes: dict[int, bytes], name: str, note: str = "", study: str = ""
) -> int:
    """A new trace without steps; returns its id."""
    values = (
        clipped(name, MAX_NAME, "name"),
        clipped(note, MAX_NOTE, "note"),
        study,
        time.time(),
        header.method,
        header.family,
        header.prompt,
        "",
        0,
        0,
        0,
        msgspec.msgpack.encode(header),
        msgspec.msgpack.encode(token_bytes),
    )
    marks = ", ".join("?" * len(values))
    cursor = db.execute(
        "INSERT INTO traces (name, note, study, created, method, family, prompt, text, steps, tokens, ended, header, pieces) "
        f"VALUES ({marks})",
        values,
    )
    assert cursor.lastrowid is not None  # a line was inserted
    return cursor.lastrowid


def append(db: sqlite3.Connection, trace: int, steps: Sequence[Step], token_bytes: dict[int, bytes]) -> None:
    """More steps of a trace; Gone if there is none."""
    found = db.execute("SELECT steps, substr(CAST(text AS BLOB), -3) FROM traces WHERE id = ?", (trace,)).fetchone()
    if found is None:
        raise Gone(trace)
    begun = unfinished(db, trace) if found[1] == REPLACED and steps else b""
    for number, step in enumerate(steps, found[0]):
        own = {token: token_bytes[token] for token in set(step.occurring()) if token in token_bytes}
        data = (trace, number, msgspec.msgpack.encode(own), msgspec.msgpack.encode(step))
        db.execute("INSERT INTO steps VALUES (?, ?, ?, ?)", data)
    if steps:  # once: the whole line is written with each change of it
        tokens = sum(len(step.tokens) for step in steps)
        text = (begun + bytes_of(steps, token_bytes)).decode("utf-8", "replace")
        if begun:
            so_far = said(db.execute("SELECT text FROM traces WHERE id = ?", (trace,)).fetchone()[0])
            db.execute("UPDATE traces SET text = ? WHERE id = ?", (so_far[:-1], trace))  # what stands there for the character
        db.execute(
            "UPDATE traces SET steps = steps + ?, tokens = tokens + ?, text = text || ?, ended = ? WHERE id = ?",
            (len(steps), tokens, text, bool(steps[-1].ending), trace),
        )


def bytes_of(steps: Sequence[Step], token_bytes: dict[int, bytes]) -> bytes:
    return b"".join(token_bytes.get(t, b"") for step in steps for t in step.tokens)


def unfinished(db: sqlite3.Connection, trace: int) -> bytes:
    """The bytes that the last steps of a trace end with, which may become a character yet. It is of four bytes at most, so that few
    steps are read."""
    ending, rows = b"", db.execute("SELECT pieces, data FROM steps WHERE trace = ? ORDER BY number DESC", (trace,))
    with suppress(msgspec.MsgspecError, ValueError):  # of a damaged step none
        for pieces, data in rows:
            ending = bytes_of([step_of(data)], TOKEN_BYTES.decode(pieces)) + ending
            if len(ending) >= 3:
                break
    return begun_character(ending)


def begun_character(said: bytes) -> bytes:
    """What a text ends with that may become a character yet.

    >>> begun_character("Ü".encode()), begun_character("aÜ".encode()[:-1]), begun_character(b"a\\xff")
    (b'', b'\\xc3', b'')
    """
    decoder = UTF8("replace")
    decoder.decode(said)
    return decoder.getstate()[0]


def weight(trace: Trace) -> int:
    """Bytes that a trace will fill, at least."""
    steps = sum(len(msgspec.msgpack.encode(step)) + len(bytes_of([step], trace.token_bytes)) for step in trace.steps)
    return len(msgspec.msgpack.encode(trace.header)) + steps


def check_filled(db: sqlite3.Connection) -> None:
    """Refused (ValueError) if a store fills more than it may, with what is not written yet, which goes back then."""
    if limits().public:
        check_kept(0, pages_of(db))


def pages_of(db: sqlite3.Connection) -> int:
    """Bytes that a store fills, with what its transaction has written so far."""
    count, free, size = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size"))
    return (count - free) * size


def why(error: Exception) -> str:
    """What is wrong with a file or a disk, in words for people."""
    said = str(error)
    return next((words for part, words in WORDS.items() if part in said), said)


TOKEN_BYTES = msgspec.msgpack.Decoder(dict[Token, Piece])
STEP = msgspec.msgpack.Decoder(Step)


def header_of(data: bytes) -> Header:
    """Msgspec's errors for what does not fit, ValueError for a later schema."""
    schema = msgspec.msgpack.decode(data, type=Version).schema
    if schema == old_names.OLD_SCHEMA:
        return convert(old_names.header(msgspec.msgpack.decode(data)), Header)
    check_schema(schema)
    return msgspec.msgpack.decode(data, type=Header)


def step_of(data: bytes) -> Step:
    """A step in the names of today or those of schema 1; a run that was begun before may have both."""
    try:
        return STEP.decode(data)
    except msgspec.ValidationError:
        return convert(old_names.step(msgspec.msgpack.decode(data)), Step)


def entry_of(row: Sequence[object]) -> Entry:
    """A line of the list. A value that is none of ours, in a file that somebody changed, becomes nothing: the list is still there.

    >>> found = entry_of((1, "a", 7, "", "x", "plain", "", "", "", 2**60, -1, 1))
    >>> found.id, found.name, found.note, found.created, found.method, found.steps, found.ended
    (1, 'a', '', 0.0, 'plain', 0, True)
    """
    number, name, note, study, created, method, family, prompt, text, steps, tokens, ended = row
    when = float(created) if isinstance(created, (int, float)) and 0 <= created <= LATEST else 0.0
    return Entry(
        counted(number), said(name), said(note), said(study), when, said(method), said(family), said(prompt), said(text),
        counted(steps), counted(tokens), bool(ended),
    )  # fmt: skip


def said(value: object) -> str:
    return value if isinstance(value, str) else ""


def holds(words: str, *texts: object) -> bool:
    """Whether every word, in lower case and on a line of its own, is in one of the texts, in any case: SQLite's own `lower` knows
    the letters of English alone.

    >>> holds("übung\\nstrasse", "Eine ÜBUNG", 7, "in der Straße"), holds("übung", "Ubung")
    (True, False)
    """
    folded = [said(text).casefold() for text in texts]
    return all(any(word in text for text in folded) for word in words.split("\n"))


def counted(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value <= MOST_COUNTED else 0


def conditions(query: Query) -> tuple[str, list]:
    """The WHERE clause of a query and its values. LIKE would take time of a text's length times a word's.

    Raises:
        ValueError: there is too much to look for.
    """
    words, parts, values = query.words.split(), [], []
    if len(query.words) > LONGEST_SEARCH or len(words) > MOST_WORDS:
        raise ValueError(
            f"A search has at most {LONGEST_SEARCH:,} characters and {MOST_WORDS:,} words; this one has {len(query.words):,} and "
            f"{len(words):,}."
        )
    if words:
        parts.append(f"holds(?, {', '.join(SEARCHED)})")
        values.append("\n".join(word.casefold() for word in words))
    exact = (("method = ?", query.method or None), ("family = ?", query.family or None), ("study = ?", query.study))
    for clause, value in (*exact, ("ended = ?", query.ended), ("created >= ?", query.since), ("created <= ?", query.until)):
        if value is not None:
            parts.append(clause)
            values.append(value)
    return ("WHERE " + " AND ".join(parts) if parts else ""), values


def clipped(text: str, limit: int, what: str) -> str:
    if len(text) > limit:
        raise ValueError(f"The {what} has {len(text):,} characters; at most {limit:,} are kept.")
    return text
