"""Tokens that a run is to stop at beside the end of the text: how they are given and written, and which tokens they are.

A stop is the id of a token or a text that is one token; text of several is refused, for a run ends at tokens.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from decoding.checks import Quoted

Stop = int | str  # a token's id, or a text that is one token

MAX_STOPS = 32
LONGEST = 100  # characters of one
ID = re.compile(r"#([0-9]{1,9})")
ESCAPES = {r"\n": "\n", r"\t": "\t", r"\r": "\r", r"\s": " ", r"\#": "#", "\\\\": "\\"}
ESCAPE = re.compile(r"\\[ntrs#\\]")


def checked_stops(stop: Any) -> tuple[Stop, ...]:
    """Stops as a run keeps them; a lone one counts as one. ValueError for what is none."""
    given: Iterable[Any] = [stop] if isinstance(stop, int | str) else stop
    if not isinstance(given, Sequence | set | frozenset):
        raise Quoted(f"Stop tokens are given as a list of ids and texts; it is {stop!r}.")
    for one in given:
        if isinstance(one, bool) or not isinstance(one, int | str):
            raise Quoted(f"A stop token is an id or a text; one is {one!r}.")
        if one == "" or isinstance(one, str) and len(one) > LONGEST:
            raise ValueError(f"The text of a stop token has 1 to {LONGEST} characters; one has {len(str(one)):,}.")
    found = tuple(dict.fromkeys(given))
    if len(found) > MAX_STOPS:
        raise ValueError(f"A run has at most {MAX_STOPS} stop tokens; there are {len(found):,}.")
    return found


def stop_ids(
    stop: Sequence[Stop], vocab: int, encode: Callable[[str], Sequence[int]], bytes_of: Mapping[bytes, Sequence[int]]
) -> tuple[int, ...]:
    """The ids of checked stops, ascending.

    A text is the token that it is encoded as, and every token with exactly these bytes: some tokenizers write the same text
    otherwise at the beginning of a word.

    Args:
        encode: text -> its tokens, without any in front or behind.
        bytes_of: the bytes of a token -> all tokens that are these.

    Raises:
        ValueError: an id that is no token, a text of several tokens.
    """
    found: set[int] = set()
    for one in stop:
        if isinstance(one, int):
            if not 0 <= one < vocab:
                raise ValueError(f"The stop token {one} does not exist; the target has {vocab:,} tokens.")
            found.add(one)
            continue
        tokens, same = list(encode(one)), bytes_of.get(one.encode("utf-8", "replace"), [])
        if len(tokens) != 1 and not same:
            ids = f" ({', '.join(map(str, tokens[:8]))}{', …' if len(tokens) > 8 else ''})" if tokens else ""
            raise Quoted(
                f"A run stops at single tokens, and {one!r} is {len(tokens)} tokens for this model{ids}. Name one of them."
            )
        found.update(same, tokens if len(tokens) == 1 else ())
    return tuple(sorted(found))


def read_stops(text: str) -> tuple[Stop, ...]:
    r"""What a field or a link says, a stop per line: a text, with \n, \t and \s for line break, tab and space, or #7 for token 7.

    >>> read_stops("\\n\n.\n#7\n\\#7")
    ('\n', '.', 7, '#7')
    """
    return read_each(line for line in text.replace("\r\n", "\n").split("\n") if line.strip())


def read_each(written: Iterable[str]) -> tuple[Stop, ...]:
    """Stops that are written one by one; ValueError for what cannot be."""
    return checked_stops([stop_of(one) for one in written])


def stop_of(line: str) -> Stop:
    if match := ID.fullmatch(line.strip()):
        return int(match[1])
    return ESCAPE.sub(lambda found: ESCAPES[found[0]], line)


def write_stops(stop: Sequence[Stop]) -> str:
    """A stop per line, as `read_stops` reads them.

    >>> print(write_stops(["\\n", " the", 7]))
    \\n
    \\sthe
    #7
    """
    return "\n".join(f"#{one}" if isinstance(one, int) else written(one) for one in stop)


def written(text: str) -> str:
    for mark, character in reversed(ESCAPES.items()):  # the backslash first, before others bring more of them
        if character != " ":
            text = text.replace(character, mark)
    body = text.strip(" ")
    before, after = len(text) - len(text.lstrip(" ")), len(text) - len(text.rstrip(" "))
    return r"\s" * len(text) if not body else r"\s" * before + body + r"\s" * after
