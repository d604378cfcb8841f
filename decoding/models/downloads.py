"""Downloads: one file over HTTP, slice by slice, taken up again where it stopped, and checked.

What is not whole yet lies beside its place under the ending `.part`; the file itself is there only when it is whole and is what it
should be. Only the standard library: nothing heavy is imported to know what there is to fetch.
"""

import base64
import hashlib
import os
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from http.client import HTTPException
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from time import monotonic
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit, urlunsplit

from decoding.models.progress import Progress, said

SLICE = 2**20  # bytes between two looks
PATIENCE = 20  # seconds without a byte
QUICK = 3  # seconds for an answer that somebody waits for
LEAST, WINDOW = 1000, 30  # bytes a second at least, on the average of so many seconds of waiting
TRIES = 4  # in a row that bring nothing
PAUSE = 0.5  # seconds before another try, times the tries so far
SPARE = 64 * 2**20  # bytes of a disk that are left alone
CERTIFICATES = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE")  # where they are said to be, if not where Python looks
T = TypeVar("T")
BROKEN = (OSError, HTTPException)  # what a connection that breaks raises, in whichever layer


class Denied(ValueError):
    """The server answered, and will not give it; `code` is what it says."""

    def __init__(self, sentence: str, code: int) -> None:
        super().__init__(sentence)
        self.code = code


def opened(url: str, headers: Mapping[str, str] | None = None, timeout: float = PATIENCE) -> Any:
    """The answer to a request, as a file; a name and a password in the address are sent as the server asks for them."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    request = urllib.request.Request(urlunsplit(parts._replace(netloc=host)), headers=dict(headers or {}))
    if parts.username:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        # which is not handed on to another host that the answer leads to
        request.add_unredirected_header("Authorization", f"Basic {base64.b64encode(pair).decode()}")
    file = next((place for name in CERTIFICATES if (place := os.environ.get(name)) and os.path.isfile(place)), None)
    return urllib.request.urlopen(request, timeout=timeout, context=ssl.create_default_context(cafile=file))


def download(
    url: str, place: Path, size: int, sha256: str = "", headers: Mapping[str, str] | None = None, stage: str = "downloading"
) -> Iterator[Progress]:
    """Bring a file to `place`; a step for every slice.

    Args:
        size: its bytes.
        sha256: checksum it must have, in hexadecimal; "" if none is known.

    Raises:
        ValueError: it cannot be had, is another one, or the disk is full. What came so far is kept unless it is wrong.
    """
    if place.is_file() and place.stat().st_size == size:
        return
    part = place.with_name(place.name + ".part")
    there = part.stat().st_size if part.is_file() else 0
    if there > size:
        part.unlink()
        there = 0
    check_room(place.parent, size - there, place.name)
    yield Progress(stage, there, size)
    yield from filled(url, part, size, headers or {}, stage)
    yield from checked(part, place, size, sha256)


def filled(url: str, part: Path, size: int, headers: Mapping[str, str], stage: str) -> Iterator[Progress]:
    """Append to `part` until it has `size` bytes; a connection that breaks is made again, a few times without gain at most."""
    tries, there = 0, part.stat().st_size if part.is_file() else 0
    while there < size:
        try:
            for count in slices(url, part, there, size, headers):
                there, tries = count, 0
                yield Progress(stage, there, size)
            problem: Exception | str = "the connection ended early"
        except urllib.error.HTTPError as error:
            sentence = f"{shown(url)} cannot be downloaded: the server says {error.code} {error.reason}."
            raise Denied(sentence, error.code) from error
        except BROKEN as error:
            problem = getattr(error, "reason", error)
        tries += there < size
        if tries >= TRIES:
            raise ValueError(
                f"{shown(url)} cannot be downloaded: {problem}. {said(there)} of {said(size)} are here; the same command goes on."
            )
        time.sleep(PAUSE * tries if tries > 1 else 0)


def slices(url: str, part: Path, there: int, size: int, headers: Mapping[str, str]) -> Iterator[int]:
    """Write what comes behind the first `there` bytes; yields how many there are."""
    ranged = {**headers, "Range": f"bytes={there}-"} if there else dict(headers)
    with answered(partial(opened, url, ranged), PATIENCE) as answer:
        if there and answer.status != 206:  # this server sends all of it again
            there = 0
        with part.open("r+b" if there else "wb") as file:
            file.seek(there)
            waited, before, start = 0.0, there, monotonic()
            while there < size and (data := answer.read1(min(SLICE, size - there))):
                file.write(data)
                there += len(data)
                waited += monotonic() - start
                if waited > WINDOW:
                    check_pace(url, (there - before) / waited)
                    waited, before = 0.0, there
                yield there
                start = monotonic()  # not before: whoever takes the slices may rest


def check_pace(url: str, pace: float) -> None:
    """Refuse to wait any longer for what does not come (ValueError)."""
    if pace < LEAST:
        raise ValueError(
            f"{shown(url)} cannot be downloaded: the server sends {said(pace)} a second. What came is kept; try again later."
        )


def answered(ask: Callable[[], T], wait: float) -> T:
    """What `ask` finds, or raises; a look-up of a name that hangs, or a server that says one letter at a time, is given up:
    TimeoutError."""
    answers: Queue[tuple[Any, Exception | None]] = Queue()

    def run() -> None:
        try:
            answers.put((ask(), None))
        except Exception as error:  # handed to the one who waits
            answers.put((None, error))

    Thread(target=run, name="draftscope-answer", daemon=True).start()
    try:
        found, problem = answers.get(timeout=wait)
    except Empty:
        raise TimeoutError(f"no answer within {wait:g} s") from None
    if problem is not None:
        raise problem
    return found


def checked(part: Path, place: Path, size: int, sha256: str) -> Iterator[Progress]:
    """Compare the checksum and give the file its name; ValueError, and it is thrown away, if it is another."""
    found, done = hashlib.sha256(), 0
    if sha256:
        with part.open("rb") as file:
            while data := file.read(8 * SLICE):
                found.update(data)
                done += len(data)
                yield Progress("checking", done, size)
        if found.hexdigest() != sha256:
            part.unlink()
            raise ValueError(
                f"{place.name} came with the checksum {found.hexdigest()[:16]}... instead of {sha256[:16]}...; it was thrown away."
            )
    os.replace(part, place)


def check_room(folder: Path, needed: int, what: str) -> None:
    """Refuse what the disk does not hold (ValueError); `folder` need not be there yet."""
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    if (free := shutil.disk_usage(there).free) < needed + SPARE:
        raise ValueError(f"{what} needs {said(needed)} in {str(folder)!r}; the disk has {said(free)} left.")


def shown(url: str) -> str:
    """An address without name, password and question."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
