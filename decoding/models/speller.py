"""Speller: a byte-level tokenizer of the library as the byte view must know it: the bytes of its tokens, its spelling of a text,
and the place behind which the spelling may still change."""

from collections.abc import Sequence
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

from transformers import PreTrainedTokenizerFast

from decoding.models.byte_view import SHORT, Cover
from decoding.models.token_bytes import decoders, token_bytes_maker

_lock = Lock()
_covers: "WeakKeyDictionary[Any, tuple[int, Cover]]" = WeakKeyDictionary()  # by tokenizer


class Speller:
    """Of a family's tokenizer; `lacking` says beforehand whether it can be one."""

    def __init__(self, tokenizer: Any, vocab: int) -> None:
        self._backend = tokenizer.backend_tokenizer  # which does not hold the tokenizer
        self.pieces = pieces_of(tokenizer, vocab)

    def encode(self, texts: Sequence[bytes]) -> list[list[int]]:
        said = [text.decode() for text in texts]
        return [one.ids for one in self._backend.encode_batch(said, add_special_tokens=False)]

    def border(self, text: bytes) -> int:
        """Where the last pre-token begins; behind a very short one the one before, which it may still join ("'", "l": "'ll")."""
        whole = text.decode("utf-8", "ignore")
        parts = self._backend.pre_tokenizer.pre_tokenize_str(whole)
        starts = [len(whole[:first].encode()) for _, (first, _) in parts] or [0]
        back = 2 if len(text) - starts[-1] < SHORT and len(starts) > 1 else 1
        return starts[-back]


def lacking(family: Any) -> str:
    """Why a family's tokenizer has no byte view, as a sentence; "" if it has one."""
    tokenizer = family.tokenizer
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        return f"The tokenizer of {family.name} is no fast one of the library, so its spellings cannot be tried."
    if "ByteLevel" not in {part["type"] for part in decoders(tokenizer)} or tokenizer.backend_tokenizer.pre_tokenizer is None:
        return f"The tokenizer of {family.name} does not write bytes (byte-level BPE), and others have no byte view here yet."
    return ""


def pieces_of(tokenizer: Any, vocab: int) -> tuple[bytes, ...]:
    """(vocab,) the bytes of each token; b"" for marks, added tokens and ids that no token has."""
    back = token_bytes_maker(tokenizer)
    known = set(tokenizer.get_vocab().values()) - set(tokenizer.added_tokens_decoder) - set(tokenizer.all_special_ids)
    return tuple(back(token) if token in known else b"" for token in range(vocab))


def cover_of(tokenizer: Any, vocab: int) -> Cover:
    """The cover of a family's tokenizer, made once."""
    with _lock:
        known = _covers.get(tokenizer)
        if known is None or known[0] != vocab:
            known = _covers[tokenizer] = vocab, Cover.by(Speller(tokenizer, vocab))
        return known[1]
