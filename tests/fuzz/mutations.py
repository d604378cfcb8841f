"""Mutations of what comes from outside, and how a case is told: seeded by its name, so that a case is run again by its number.

A case that fails prints its name and the bytes that were read, packed for one line: `bytes_of` makes them bytes again. A build runs
a fixed number of cases; `DRAFTSCOPE_FUZZ=20` runs twenty times as many.
"""

import base64
import copy
import gzip
import math
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any, TypeVar

from decoding.checks import Quoted
from decoding.runs.failures import shows_the_machine, told
from tests.hostile import PAYLOAD

MORE = max(1, int(os.environ.get("DRAFTSCOPE_FUZZ", "1")))
SHOWN = 6_000  # characters of a case's bytes
NUMBERS = (
    0, -1, 1, 2, 63, 2**31 - 1, 2**31, 2**53, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), 2**64, 10**30, 0.5, -0.0, 1.0, 1.01, 1.5,
    5e-324, 1e-320, 1e6, 1e308, -1e308, math.nan, math.inf, -math.inf,
)  # fmt: skip
TEXTS = (
    "", " ", "\n", "\x00", "\ufeff", "\u202eabc", "e" + "\u0301" * 400, "\U0001f600" * 40, "a" * 3_000, "</script><!--", PAYLOAD,
    "%s{}{0}", "../../../etc/passwd", "/etc/passwd", "file:///etc/passwd", "{{ 7 * 7 }}", "nan", "True", "-1", "1e999", "null",
    "plain", "eagle",
)  # fmt: skip
T = TypeVar("T")


# -- cases -----------------------------------------------------------------------------------------------------------------


def cases(kind: str, count: int) -> Iterator[tuple[str, Random]]:
    """So many names and their dice."""
    for number in range(count * MORE):
        yield (name := f"{kind} {number}"), Random(name)


@contextmanager
def case(name: str, data: object) -> Iterator[None]:
    """Whatever goes wrong inside is told with the case that it happened to."""
    try:
        yield
    except Exception as error:
        raise AssertionError(f"case “{name}”: {type(error).__name__}: {error}\n{packed(data)}") from error


def opened(door: Callable[[], T], secret: str = "") -> T | None:
    """What a door lets in; None if it refuses with a sentence, in which a visitor of a public server finds no place of the machine.

    Args:
        secret: what no such sentence may hold.
    """
    try:
        return door()
    except ValueError as error:
        check_sentence(error, secret)
        return None


def check_sentence(error: ValueError, secret: str = "") -> None:
    """The sentence is one, and a public server shows nothing of itself with it."""
    assert str(error).strip(), "a refusal without a word"
    before = os.environ.get("DRAFTSCOPE_MODE")
    os.environ["DRAFTSCOPE_MODE"] = "public"
    try:
        said = told(error)
    finally:
        os.environ.pop("DRAFTSCOPE_MODE") if before is None else os.environ.update(DRAFTSCOPE_MODE=before)
    assert isinstance(error, Quoted) or not shows_the_machine(said), said  # it quotes who asked, whatever that looks like
    assert not secret or secret not in said, said


def packed(data: object) -> str:
    """Bytes, or whatever else a case is, for one line."""
    data = data if isinstance(data, bytes) else repr(data).encode("utf-8", "backslashreplace")
    text = base64.b85encode(zlib.compress(data, 9)).decode()
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({len(text):,} characters)"


def bytes_of(text: str) -> bytes:
    """What `packed` printed, as it was.

    >>> bytes_of(packed(b"abc"))
    b'abc'
    """
    return zlib.decompress(base64.b85decode(text))


# -- bytes -----------------------------------------------------------------------------------------------------------------


def damaged(data: bytes, dice: Random) -> bytes:
    """Bytes with one to four faults of a disk, a network or a hand."""
    for _ in range(dice.randint(1, 4)):
        data = dice.choice(FAULTS)(data, dice)
    return data


def flipped(data: bytes, dice: Random) -> bytes:
    if not data:
        return data
    place = dice.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << dice.randrange(8)]) + data[place + 1 :]


def truncated(data: bytes, dice: Random) -> bytes:
    return data[: dice.randint(0, len(data))]


def cut(data: bytes, dice: Random) -> bytes:
    """Without a part."""
    start = dice.randint(0, len(data))
    return data[:start] + data[start + dice.randint(0, 64) :]


def doubled(data: bytes, dice: Random) -> bytes:
    start = dice.randint(0, len(data))
    return data[: start + dice.randint(0, 64)] + data[start:]


def inserted(data: bytes, dice: Random) -> bytes:
    start = dice.randint(0, len(data))
    return data[:start] + dice.choice(PARTS) + data[start:]


FAULTS = (flipped, flipped, truncated, cut, doubled, inserted)
PARTS = (
    b"\x00", b"\xff" * 8, b"\xed\xa0\x80", b"\xc3", b'"', b"\\ud800", b"[" * 3_000, b'{"a":' * 3_000, b"1e999", b"-", b"9" * 400,
    b"NaN", b"Infinity", b"</script>", b"\r\n\r\n", b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\x1f\x8b\x08", b"(dp0\n.",
    b"\x80\x04\x95",
)  # fmt: skip
BOMBS = {  # name -> a small file of much, or of something else
    "a gzip bomb": gzip.compress(b" " * 60_000_000, 9),
    "gzip in gzip": gzip.compress(gzip.compress(gzip.compress(b"{}"))),
    "a gzip of nothing": gzip.compress(b""),
    "gzip members": gzip.compress(b"{}") * 2_000,
    "a zstd frame": b"\x28\xb5\x2f\xfd\xa4" + (2**27).to_bytes(4, "little") + b"\x02\x00\x01\x20" * 2_000,
    "a zip": b"PK\x03\x04" + bytes(200),
    "a pickle": b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.",
    "nested lists": b"[" * 200_000,
    "nested objects": b'{"a":' * 200_000,
    "nested MessagePack": b"\x91" * 200_000,
    "a long MessagePack list": b"\xdd\xff\xff\xff\xff",
    "long MessagePack bytes": b"\xc6\xff\xff\xff\xff",
    "a long number": b"9" * 2_000_000,
    "a long string": b'"' + b"a" * 2_000_000,
    "nothing": b"",
}  # fmt: skip


# -- plain data --------------------------------------------------------------------------------------------------------------


def value(dice: Random) -> Any:
    """Something that hardly ever fits."""
    kind = dice.randrange(8)
    if kind < 3:
        return dice.choice(NUMBERS)
    if kind < 6:
        return dice.choice(TEXTS)
    if kind == 6:
        return dice.choice((None, True, False, [], {}, [[]], {"": {}}, [None] * 2_000))
    deep: Any = []
    for _ in range(dice.choice((20, 100))):
        deep = [deep] if dice.random() < 0.5 else {"a": deep}
    return deep


def changed(data: Any, dice: Random) -> Any:
    """A copy of plain data (dicts, lists and what they hold) with one to three changes at places anywhere in it."""
    data = copy.deepcopy(data)
    for _ in range(dice.randint(1, 3)):
        holder, key = place_in(data, dice)
        if holder is None:
            return value(dice)
        change(data, holder, key, dice)
    return data


def place_in(data: Any, dice: Random) -> tuple[Any, Any]:
    """A place anywhere in plain data: what holds it, and its key or index there; (None, None) for data without any."""
    holder, key = None, None
    while isinstance(data, (dict, list)) and data:
        if holder is not None and dice.random() < 0.15:
            break
        holder, key = data, dice.choice(list(data) if isinstance(data, dict) else range(len(data)))
        data = data[key]
    return holder, key


def change(data: Any, holder: Any, key: Any, dice: Random) -> None:
    """One change in place."""
    what = dice.randrange(6)
    if what == 0:
        del holder[key]
    elif what == 1 and isinstance(holder, dict):
        holder[dice.choice(TEXTS)] = holder.pop(key) if dice.random() < 0.5 else holder[key]
    elif what == 1:
        holder.insert(dice.randint(0, len(holder)), copy.deepcopy(holder[key]))
    elif what == 2:
        other, where = place_in(data, dice)
        holder[key] = copy.deepcopy(other[where])
    elif what == 3:
        holder[key] = [holder[key]] if dice.random() < 0.5 else {"a": holder[key]}
    else:
        holder[key] = value(dice)
