"""Token bytes -> text that can be seen: visible spaces, named control characters, half characters as bytes.

Knows no trace. Everything here is plain text except `as_html`, `as_plotly` and `as_markdown`, which make plain text
safe for the place it goes to: a token is whatever a model wrote, or whatever an uploaded file claims it wrote.
"""

import html
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

Say = Callable[[int, Mapping[int, bytes]], str]  # how a sentence names a token

SPACE, NEWLINE, TAB, EMPTY = "␣", "↵", "⇥", "∅"
GLYPHS = {" ": SPACE, "\n": NEWLINE, "\t": TAB}
HIDDEN = {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp", "Zs"}  # Unicode categories that draw nothing, or turn text around


def visible(character: str) -> str:
    """What stands for one character; `character` may be a byte smuggled in by surrogateescape.

    >>> visible(" "), visible("a"), visible("\\u202e"), visible("\\udce2")
    ('␣', 'a', '<U+202E>', '<0xE2>')
    """
    code = ord(character)
    if character in GLYPHS:
        return GLYPHS[character]
    if 0xDC80 <= code <= 0xDCFF:
        return f"<0x{code - 0xDC00:02X}>"
    category = unicodedata.category(character)
    if category in HIDDEN:
        return f"<U+{code:04X}>"
    return f"◌{character}" if category in ("Mn", "Me") else character  # a lone accent would climb on its neighbour


def characters(piece: bytes) -> list[str]:
    """One entry per character, or per byte that belongs to none; accents stay on the letter they follow."""
    text = piece.decode("utf-8", "surrogateescape")
    if text.isascii() and text.isprintable():  # as most are
        return list(text.replace(" ", SPACE))
    shown: list[str] = []
    for character in text:
        if shown and len(shown[-1]) == 1 and unicodedata.category(character) in ("Mn", "Me"):
            shown[-1] += character
        else:
            shown.append(visible(character))
    return shown


def shorten(shown: Sequence[str], limit: int) -> str:
    """Join, leaving out the middle where there are more than `limit` columns; never cuts inside `<0xNN>`.

    >>> shorten("understanding", 7), shorten("understanding", 4), shorten(["<0xE2>", "a"], 8)
    ('und…ing', 'und…', '<0xE2>a')
    """
    if sum(map(len, shown)) <= limit or len(shown) < 2:
        return "".join(shown)
    head, tail, room = [], [], limit - 1
    left, right = 0, len(shown) - 1
    while left <= right:
        front = limit <= 5 or sum(map(len, head)) <= sum(map(len, tail))  # of so few the first say the most
        part = shown[left] if front else shown[right]
        if len(part) > room and (head or tail):
            break
        (head if front else tail).append(part)
        room -= len(part)
        left, right = (left + 1, right) if front else (left, right - 1)
    return "".join(head) + "…" + "".join(reversed(tail))


def label(piece: bytes, limit: int = 12) -> str:
    """A piece as a short label, at most about `limit` columns wide; plain text, not yet escaped.

    >>> label(b" the"), label(b"\\n\\n"), label(b"\\xe2\\x82"), label(b"")
    ('␣the', '↵↵', '<0xE2><0x82>', '∅')
    """
    end = 8 * limit + 16  # bytes: more than are shown of a beginning or an end
    shown = characters(piece) if len(piece) <= 2 * end else characters(piece[:end]) + characters(piece[-end:])
    return shorten(shown, limit) or EMPTY


def full(piece: bytes) -> str:
    """A piece in full, every character visible; plain text."""
    return "".join(characters(piece)) or EMPTY


def name(token: int, token_bytes: Mapping[int, bytes], limit: int = 12) -> str:
    """The label of a token id; `#id` where the trace does not carry its bytes."""
    return label(token_bytes[token], limit) if token in token_bytes else f"#{token}"


def full_name(token: int, token_bytes: Mapping[int, bytes]) -> str:
    """A token id in full; `#id` where the trace does not carry its bytes."""
    return full(token_bytes[token]) if token in token_bytes else f"#{token}"


def quoted(token: int, token_bytes: Mapping[int, bytes]) -> str:
    """The label for a sentence: in quotes where its end would be taken for the sentence's.

    >>> quoted(0, {0: b" was"}), quoted(0, {0: b"."})
    ('␣was', '“.”')
    """
    shown = name(token, token_bytes)
    return shown if shown[-1].isalnum() else f"“{shown}”"


def plain(text: str, limit: int = 60) -> str:
    """A string from a trace (a source, the name of a score), made visible and cut."""
    ends = text if len(text) <= 2 * limit else text[:limit] + text[-limit:]  # of what lies between nothing is shown
    return shorten([" " if c == " " else visible(c) for c in ends], limit)


@lru_cache(maxsize=4096)
def word(text: str) -> str:
    """`plain` of a short string that stands at every node of a trace, and is looked through once."""
    return plain(text)


def is_half(piece: bytes) -> bool:
    """Whether a piece holds bytes that are no character by themselves."""
    try:
        piece.decode("utf-8")
    except UnicodeDecodeError:
        return True
    return False


@dataclass(frozen=True)
class Group:
    """Pieces `start` up to, not including, `stop` that only make sense together; most groups hold one piece."""

    start: int
    stop: int
    text: str  # of all of them, every character visible


def joined(token_bytes: Sequence[bytes]) -> list[Group]:
    """Group the pieces so that no character is torn apart.

    >>> [(g.start, g.stop, g.text) for g in joined([b"a", b"\\xc3", b"\\xa9", b"b"])]
    [(0, 1, 'a'), (1, 3, 'é'), (3, 4, 'b')]
    """
    between = {0}  # byte offsets at which a character, or a byte that belongs to none, begins
    at = 0
    for character in b"".join(token_bytes).decode("utf-8", "surrogateescape"):
        at += len(character.encode("utf-8", "surrogateescape"))
        between.add(at)
    starts, at = [], 0
    for index, piece in enumerate(token_bytes):
        if at in between:
            starts.append(index)
        at += len(piece)
    return [Group(i, j, full(b"".join(token_bytes[i:j]))) for i, j in pairwise([*starts, len(token_bytes)])]


def as_html(text: str) -> str:
    """Plain text -> HTML, for an element or a quoted attribute."""
    return html.escape(text, quote=True)


def as_plotly(text: str) -> str:
    """Plain text -> what Plotly draws as that text.

    Plotly reads tags, entities (but not &quot;) and, where MathJax is loaded, $...$ in every label and hover text.
    """
    return html.escape(text, quote=False).replace("$", "&#36;")


def as_markdown(text: str) -> str:
    """Plain text -> Markdown that shows that text: no tags, links, maths or Streamlit directives; half of a character, which cannot
    be sent to a browser, becomes a question mark."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", text.encode("utf-8", "replace").decode())
