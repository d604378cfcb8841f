"""Tokens to text and back, across two tokenizers: what a draft model with other tokens is told, and what it wrote, in the target's.

Everything is compared in bytes, because a token may be half a character: text that a tokenizer would alter on the way (letter case,
spaces, normal forms) gives no tokens here, never others than were meant. Special tokens are no text.
"""

import codecs
from collections.abc import Sequence
from functools import cache, cached_property

from transformers import PreTrainedTokenizerBase

from decoding.models.token_bytes import token_bytes_maker

OVERLAP = 12  # tokens in front of a border that are encoded again, so that what is merged across it is seen
ANCHORS = (b"", b"\n", b"-")  # put in front of a text that is to begin in the middle of a word, where one would gain a space


class Spelling:
    """A tokenizer as a way of writing: the bytes of its tokens, its special ones, and the tokens of a text."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.bytes_of = cache(token_bytes_maker(tokenizer))
        added = tokenizer.added_tokens_decoder
        special = {token: entry.content for token, entry in added.items() if entry.special}
        named = zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True)
        self.special: dict[int, str] = special | dict(named)  # id -> its name

    def encode(self, text: str) -> list[int]:
        """Its tokens, without any in front or behind."""
        return self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"] if text else []

    def said(self, tokens: Sequence[int]) -> bytes:
        return b"".join(map(self.bytes_of, tokens))

    @cached_property
    def front(self) -> list[int]:
        """What it puts in front of a text: the token of its beginning, or nothing."""
        whole, bare = self.tokenizer("a")["input_ids"], self.encode("a")
        places = [i for i in range(len(whole)) if whole[i : i + len(bare)] == bare]
        return whole[: places[0]] if bare and places else []

    def gained(self, start: bytes) -> bool:
        """Whether the first space of a text was put there by the tokenizer; `start` is how the text begins."""
        spaces = len(start) - len(start.lstrip(b" "))
        return spaces > 0 and self.said(self.encode(" " * (spaces - 1) + "a")) == b" " * spaces + b"a"

    def overlap(self, tokens: Sequence[int]) -> bytes:
        """The end of a text: its last few tokens, as far back as they are characters and none is special."""
        for start in range(max(0, len(tokens) - OVERLAP), len(tokens)):
            end = self.said(tokens[start:])
            if self.special.keys().isdisjoint(tokens[start:]) and begun(end):
                return end
        return b""

    def continued(self, tokens: Sequence[int], new: bytes) -> list[int]:
        """The tokens that say `new` behind `tokens`, without half a character at the end; [] if there are none that begin there.

        First as the tokenizer would write the whole; where it would merge across the border, as it writes `new` alone.
        """
        for before in (self.overlap(tokens), *ANCHORS):
            if found := self._behind(before, new):
                return found
        return []

    def _behind(self, before: bytes, new: bytes) -> list[int]:
        text = whole(before + new)
        goal = text.encode()
        if len(goal) <= len(before):
            return []
        tokens = self.encode(text)
        said = self.said(tokens)
        gained = len(said) - len(goal)
        if said[gained:] != goal or said[:gained] not in (b"", b" "):
            return []
        place, border = 0, gained + len(before)
        for i, token in enumerate(tokens):
            if place >= border:
                return tokens[i:] if place == border else []
            place += len(self.bytes_of(token))
        return []


def begun(data: bytes) -> bool:
    """Whether these are characters, the last one perhaps not yet whole.

    >>> begun("a\u20ac".encode()[:-1]), begun("a\u20ac".encode()[2:])
    (True, False)
    """
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError:
        return False
    return True


def whole(data: bytes) -> str:
    """The text up to the first byte that is no part of a whole character.

    >>> whole("so f\u00e9".encode()[:-1])
    'so f'
    """
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        return data[: error.start].decode()


def retold(tokens: Sequence[int], one: Spelling, other: Spelling) -> tuple[list[int], bytes]:
    """A text in the tokens of another tokenizer, with what that puts in front; and the half character that it ends in, left out.

    A special token becomes the other's of the same name, or nothing. Bytes that are no character become U+FFFD.
    """
    names = {name: token for token, name in other.special.items()}
    found, run = list(other.front), bytearray()
    for token in tokens:
        if token not in one.special:
            run += one.bytes_of(token)
        elif (same := names.get(one.special[token])) is not None:
            found += other.encode(bytes(run).decode("utf-8", "replace"))
            run.clear()
            if found != other.front or found[-1:] != [same]:  # the beginning is told once
                found.append(same)
    if found == other.front and one.gained(bytes(run)):
        del run[0]
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    return found + other.encode(decoder.decode(bytes(run))), decoder.getstate()[0]
