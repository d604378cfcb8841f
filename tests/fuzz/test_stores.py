"""A store's file that is damaged, or that somebody wrote: a sentence, or what is in it can be listed, read and exported."""

import sqlite3
from contextlib import suppress
from pathlib import Path
from random import Random

import msgspec
from streamlit.testing.v1 import AppTest

from decoding.runs.store import FILE, Query, Store
from decoding.runs.study import Plan, results
from tests.conftest import PATIENCE, ROOT
from tests.fuzz.mutations import TEXTS, case, cases, changed, damaged, opened, value
from tests.fuzz.odd_traces import mutable, plain
from tests.fuzz.views import files_of
from tests.hostile import clean

DAMAGED, WRITTEN = 40, 40
PACKED = ("header", "pieces", "data")
COLUMNS = (*PACKED, "text", "steps", "tokens", "created", "ended", "method", "family", "study")
OLD = Path(__file__).parent.parent / "data" / "store-schema-1.sqlite"


def read_all(folder: Path, secret: str) -> None:
    """What pages do with a store."""
    store = opened(lambda: Store(folder), secret)
    if store is None:
        return
    for look in (
        store.entries,
        store.count,
        store.families,
        lambda: store.entries(Query(words="the % _", ended=True)),
        store.give_back,
    ):
        opened(look, secret)
    for entry in opened(store.entries, secret) or ():
        trace = opened(lambda entry=entry: store.open(entry.id), secret)
        if trace is not None:
            files_of(trace, folder)
    opened(lambda: results(store, Plan("toy", "plain", ())), secret)
    opened(lambda: store.rename(1, "a", "b"), secret)
    opened(lambda: store.delete(1), secret)


def test_damaged_files(tmp_path):
    for name, dice in cases("store", DAMAGED):
        folder = tmp_path / name.replace(" ", "_")
        folder.mkdir()
        (folder / FILE).write_bytes(damaged(OLD.read_bytes(), dice))
        with case(name, (folder / FILE).read_bytes()):
            read_all(folder, str(tmp_path))


def test_what_somebody_wrote_into_it(recorded, tmp_path, monkeypatch):
    """Rows of the tables with other values: times, counts, headers and steps. Now and then the pages look at it."""
    for number, (name, dice) in enumerate(cases("written", WRITTEN)):
        folder = tmp_path / name.replace(" ", "_")
        store = Store(folder)
        store.keep(recorded(dice.choice(("eagle", "plain", "medusa"))), "a", "b")
        with sqlite3.connect(store.path) as db:
            write(db, dice)
        db.close()
        with case(name, store.path.read_bytes()):
            if number % 4 == 0:
                monkeypatch.setenv("DRAFTSCOPE_HOME", str(folder))
                clean(AppTest.from_file(ROOT / "app.py", default_timeout=PATIENCE).switch_page("pages/5_Traces.py").run())
                saved = AppTest.from_file(ROOT / "app.py", default_timeout=PATIENCE).switch_page("pages/2_Compare.py")
                saved.session_state["compare_view"] = "saved"
                clean(saved.run())
            read_all(folder, str(tmp_path))


def write(db: sqlite3.Connection, dice: Random) -> None:
    """Change one to three values of different columns."""
    for column in dice.sample(COLUMNS, dice.randint(1, 3)):
        table = "steps" if column == "data" else "traces"
        new = packed(db.execute(f"SELECT {column} FROM {table}").fetchone()[0], dice) if column in PACKED else value(dice)
        if not isinstance(new, (bytes, str, float, int)) or (isinstance(new, int) and abs(new) >= 2**63):
            new = dice.choice(TEXTS)
        with suppress(sqlite3.IntegrityError):  # NaN is NULL there
            db.execute(f"UPDATE {table} SET {column} = ?", (new,))


def packed(before: bytes, dice: Random) -> bytes:
    """MessagePack of something else, or cut short."""
    with suppress(OverflowError, TypeError, ValueError, RecursionError):
        if dice.random() < 0.8:
            return msgspec.msgpack.encode(changed(mutable(msgspec.msgpack.decode(before, strict=False)), dice))
    return before[: dice.randint(0, len(before))]


def test_the_old_store_opens(tmp_path):
    (tmp_path / FILE).write_bytes(OLD.read_bytes())
    assert [plain(Store(tmp_path).open(entry.id)) for entry in Store(tmp_path).entries()]
