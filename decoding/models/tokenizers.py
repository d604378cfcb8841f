"""Tokenizers: opened without any code of a folder, and proved where transformers has to guess.

A folder with nothing but a `tokenizer.model` of sentencepiece says too little: the class that transformers takes for it may cut a
text in other pieces than the model was trained on, without a word. There its pieces are compared with those of sentencepiece.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, LlamaTokenizer, PreTrainedTokenizerBase

PIECES, WHOLE = "tokenizer.model", "tokenizer.json"
SAID = "tokenizer_config.json"
PROBES = ("the cat sat on the mat", "It was 12 o'clock.", "a b", "caf\u00e9")
SPACES = ("the  cat", "the cat ")  # which sentencepiece may take out, and transformers leaves


def open_tokenizer(source: str, name: str) -> tuple[PreTrainedTokenizerBase, tuple[str, ...]]:
    """The tokenizer of a model, and notes.

    Args:
        source: the folder that it is opened from.
        name: what the model is called in sentences.

    Raises:
        ValueError: it is a sentencepiece model that transformers cuts differently, or the package for it is lacking.
    """
    folder = Path(source)
    if not (folder / PIECES).is_file() or (folder / WHOLE).is_file():
        return AutoTokenizer.from_pretrained(source, trust_remote_code=False), ()
    pieces = sentencepieces(folder / PIECES)
    if pieces is None:
        return AutoTokenizer.from_pretrained(source, trust_remote_code=False), ()
    found = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    if cuts_alike(found, pieces):
        return found, space_notes(name, found, pieces)
    begins, says = pieces.bos_id() >= 0, (folder / SAID).is_file()
    found = LlamaTokenizer.from_pretrained(source, **({} if says else {"add_bos_token": begins}))
    if not cuts_alike(found, pieces):
        raise ValueError(
            f"{PIECES} is cut by transformers into other pieces than by sentencepiece, so that the model would read words that it "
            f"does not know. Where it was made, tokenizer.save_pretrained writes a {WHOLE} that says how."
        )
    start = f"texts begin with {found.bos_token}" if begins else "nothing is put before a text"
    assumed = f"{name!r} has a {PIECES} and no {SAID}, and is taken for a tokenizer like Llama's: {start}."
    return found, (() if says else (assumed,)) + space_notes(name, found, pieces)


def check_usable(tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer whose settings it cannot work with (ValueError, or whatever the library raises)."""
    if not isinstance(most := tokenizer.model_max_length, (int, float)):
        raise ValueError(f"model_max_length in {SAID} is {str(most)[:80]}, which is no number of tokens.")
    tokenizer.decode(tokenizer(PROBES[0])["input_ids"])


def sentencepieces(file: Path) -> Any:
    """The model in a file of sentencepiece; None for a file of another kind. ValueError if the package is lacking."""
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError as error:
        raise ValueError(f"its only tokenizer is {PIECES}, for which the package sentencepiece is lacking here.") from error
    try:
        return SentencePieceProcessor(str(file))
    except (OSError, RuntimeError):
        return None


def space_notes(source: str, tokenizer: PreTrainedTokenizerBase, pieces: Any) -> tuple[str, ...]:
    """A sentence for a tokenizer that keeps spaces which the model was trained without."""
    if cuts_alike(tokenizer, pieces, SPACES):
        return ()
    return (f"The {PIECES} of {source!r} takes out spaces at the end and next to others; here they are kept.",)


def cuts_alike(tokenizer: PreTrainedTokenizerBase, pieces: Any, texts: Sequence[str] = PROBES) -> bool:
    """Whether both cut a few texts into the same pieces."""
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if tokenizer.convert_ids_to_tokens(ids) != pieces.encode(text, out_type=str):
            return False
    return True
