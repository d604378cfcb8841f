"""A trial in a process of its own: the tokenizer and the template of a model from outside, before this process opens them.

    python -m decoding.models.probe FOLDER

Both are programs that come with a model. A broken tokenizer makes its library panic or abort, an endless one takes all time and all
memory; what happens to the process here happens to nobody else. Its weights are safetensors, which hold numbers only.
"""

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from decoding.models import apart
from decoding.models.apart import TRIAL, Ended, fail, limited
from decoding.models.model_folder import SAID, SIZES, TEMPLATES, WORDS, largest

PIECES, TEMPLATE = "tokenizer.model", "chat_template.jinja"
KEPT = 64  # folders whose trial is remembered
RUNS = 400  # how often one character is repeated
TEXTS = ("", "The cat sat on the mat.", "caf\u00e9 \u4e2d\u6587 \U0001f600 \u0301", " \t\n \r\n", "<|endoftext|></s>[INST]")

_tried: dict[tuple[Any, ...], str] = {}  # what a folder's files are -> what is wrong with them, or ""


def check(folder: Path) -> None:
    """Refuse a folder whose tokenizer or template breaks what opens it (ValueError). Remembered as long as its files are the same.

    Whoever listens to the progress may end it, and the process with it.
    """
    key = marks(folder)
    if key not in _tried:
        found = tried(folder)
        while len(_tried) >= KEPT:
            _tried.pop(next(iter(_tried)), None)
        _tried[key] = found
    if _tried[key]:
        raise ValueError(_tried[key])


def marks(folder: Path) -> tuple[Any, ...]:
    """What tells the files of a tokenizer from others."""
    files = sorted(file for file in folder.iterdir() if largest(file.name) and not file.name.endswith(".safetensors"))
    found = [(file.name, file.stat()) for file in files if file.is_file()]
    return str(folder), *((name, stat.st_size, stat.st_mtime_ns, stat.st_ino) for name, stat in found)


def tried(folder: Path) -> str:
    """What a process that opens a folder finds wrong, or what becomes of it, in words; "" if nothing."""
    steps = apart.run(__name__, [str(folder.resolve())], TRIAL)
    return outcome(apart.end_of(steps, f"trying the tokenizer of {folder.name} in a process of its own"))


def outcome(end: Ended) -> str:
    """What the end of the process means."""
    if end.code == 0:
        return ""
    if end.code is None:
        return f"its tokenizer or chat template was not ready after {TRIAL.patience:g} seconds; the trial was ended."
    if end.code == 1:
        return end.last_line
    if end.spent:
        return f"its tokenizer or chat template takes more than {TRIAL.seconds} seconds or all memory; it was ended."
    return (
        f"its tokenizer or chat template ends the process that opens it (signal {-end.code}), out of memory as a rule; at most "
        f"{TRIAL.memory // 2**30} GB are given."
    )


# -- in the process ----------------------------------------------------------------------------------------------------


def main() -> None:
    """Try a folder; the last line says what is wrong with it."""
    limited(TRIAL)
    folder = Path(sys.argv[1])
    try:
        try_tokenizer(folder)
        if found := templates(folder):
            from decoding.models.template_trial import try_template  # not at the top: jinja is not needed to start the process

            for template in found:
                try_template(template)
    except MemoryError:
        fail(f"its tokenizer or chat template takes more than {TRIAL.memory // 2**30} GB of memory.")
    except BaseException as error:  # a panic of the library is no Exception
        said = str(error) or type(error).__name__
        fail(said if said.startswith("its ") else f"its tokenizer or chat template cannot be used: {said}")


def try_tokenizer(folder: Path) -> None:
    """Open and use it the way a run does: texts to tokens, every token to its text."""
    encode, decode, size = opened(folder)
    runs = [chr(c) * RUNS + end for c in range(32, 127) for end in ("", "!" if chr(c) != "!" else "?")]
    for text in (*TEXTS, *runs):
        decode(encode(text))
    for token in range(0, size, 256):
        decode(list(range(token, min(size, token + 256))))


def opened(folder: Path) -> tuple[Callable[[str], list[int]], Callable[[list[int]], str], int]:
    """How to encode, how to decode, and how many tokens there are."""
    if (folder / WORDS).is_file():
        from tokenizers import Tokenizer

        words = Tokenizer.from_file(str(folder / WORDS))
        json.loads(words.to_str())
        return lambda text: words.encode(text).ids, words.decode, words.get_vocab_size()
    if (folder / PIECES).is_file():
        from sentencepiece import SentencePieceProcessor

        with suppress(OSError, RuntimeError):  # a file of another kind, as tiktoken's
            pieces = SentencePieceProcessor(str(folder / PIECES))
            return pieces.encode, pieces.decode, pieces.vocab_size()
    return lambda text: [], lambda ids: "", 0


def templates(folder: Path) -> list[str]:
    """Every chat template of a folder."""
    files = (folder / TEMPLATE, *folder.glob(f"{TEMPLATES}/*.jinja"))
    found = [file.read_text("utf-8") for file in files if file.is_file()]
    if (folder / SAID).is_file() and (folder / SAID).stat().st_size <= SIZES[SAID]:
        said = json.loads((folder / SAID).read_text("utf-8"))
        own = said.get("chat_template") if isinstance(said, dict) else None
        listed = [one.get("template") for one in own if isinstance(one, dict)] if isinstance(own, list) else [own]
        found += [one for one in listed if isinstance(one, str)]
    return found


if __name__ == "__main__":
    main()
