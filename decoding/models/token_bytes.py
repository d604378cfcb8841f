"""The bytes of a token. Tokens are bytes, not characters: a byte-level piece can be half a character.

A token's bytes are the same wherever it stands, so that a text is those of its tokens in a row: spaces that a tokenizer draws from
the neighbours (WordPiece) belong to the piece that begins a word.
"""

import json
from collections.abc import Callable
from typing import Any

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast


def token_bytes_maker(tokenizer: PreTrainedTokenizerBase) -> Callable[[int], bytes]:
    """A function from token id to its bytes, for byte-level, byte-fallback, WordPiece and other tokenizers."""
    special = set(tokenizer.all_special_ids)
    added = set(tokenizer.added_tokens_decoder)  # spelled as they stand in a text
    parts = {part["type"]: part for part in decoders(tokenizer)}
    byte_level = "ByteLevel" in parts
    inside = parts.get("WordPiece", {}).get("prefix")  # before a piece that begins no word
    end = parts.get("BPEDecoder", {}).get("suffix")  # behind one that ends a word
    back = byte_of_character()

    def piece(token: int) -> bytes:
        text = tokenizer.convert_ids_to_tokens([token])[0]
        if text is None:
            return b""
        if token in special:
            return text.encode()
        if byte_level and token in added:
            return text.encode()
        if byte_level:
            return bytes(back[c] for c in text) if all(c in back for c in text) else text.encode()
        if len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
            return bytes([int(text[3:5], 16)])
        if inside and token not in added:
            return text.removeprefix(inside).encode() if text.startswith(inside) else f" {text}".encode()
        if end and text.endswith(end):
            return f"{text.removesuffix(end)} ".encode()
        return text.replace("\u2581", " ").encode()

    return piece


def decoders(tokenizer: PreTrainedTokenizerBase) -> list[dict[str, Any]]:
    """What the tokenizer's decoder is made of; nothing for one without a fast backend."""
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        return []
    found = tokenizer.backend_tokenizer.decoder  # by itself: all of the tokenizer as text takes a tenth of a second
    decoder = json.loads(found.__getstate__()) if found is not None else {}
    return [part for part in (decoder, *decoder.get("decoders", ())) if "type" in part]


def byte_of_character() -> dict[str, int]:
    """The inverse of GPT-2's printable spelling of bytes: printable bytes are themselves, the others count up from U+0100.

    >>> back = byte_of_character(); back["A"], back["\u0120"]
    (65, 32)
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
