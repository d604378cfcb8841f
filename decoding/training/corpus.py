"""The training text: three domains, each split into documents to learn from and documents held out.

A corpus folder holds `fairytales.jsonl`, `tinystories-slice.txt`, `gsm8k-train.jsonl` and `gsm8k-test.jsonl`; the third
domain, Python source, is the standard library of the running interpreter, so nothing has to be fetched for it.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from decoding.retrieval.python_source import HOLD_OUT_EVERY, python_source


@dataclass(frozen=True)
class Domain:
    """Documents of one kind of text."""

    name: str
    share: float  # of every training batch
    train: tuple[str, ...]
    held_out: tuple[str, ...]


def read(folder: Path) -> tuple[Domain, ...]:
    """All three domains; a missing file raises FileNotFoundError with its path."""
    return (
        Domain("stories", 0.4, *stories(folder)),
        Domain("mathematics", 0.3, *mathematics(folder)),
        Domain("python", 0.3, *python_source()),
    )


def domains(folder: Path | None) -> tuple[Domain, ...]:
    """All three domains of a corpus folder; for any other folder, or None, what `documents` finds there as one domain."""
    if folder is not None and (folder / "gsm8k-train.jsonl").exists():
        return read(folder)
    return (Domain("text", 1.0, *documents(folder)),)


def stories(folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    rows = [json.loads(line) for line in (folder / "fairytales.jsonl").read_text("utf-8").splitlines()]
    simple = (folder / "tinystories-slice.txt").read_text("utf-8")
    # In the slice a blank line ends a paragraph and a single line break ends a story.
    simple_stories = [text.strip() for text in re.split(r"(?<!\n)\n(?!\n)", simple)]
    train = [f"{row['title']}\n\n{row['text']}" for row in rows if row["split"] == "train"]
    held_out = [f"{row['title']}\n\n{row['text']}" for row in rows if row["split"] != "train"]
    return (*train, *(text for text in simple_stories if text)), tuple(held_out)


def mathematics(folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return tuple(
        tuple(
            f"Question: {row['question']}\nAnswer: {row['answer']}"
            for row in map(json.loads, (folder / f"gsm8k-{split}.jsonl").read_text("utf-8").splitlines())
        )
        for split in ("train", "test")
    )


def documents(folder: Path | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Texts to learn from and texts held out, for what is trained on any family.

    Args:
        folder: a corpus folder as above; or one with `*.txt` files, every 20th held out; None: Python source alone.
    """
    if folder is None:
        return python_source()
    if (folder / "gsm8k-train.jsonl").exists():
        domains = read(folder)
        return tuple(t for d in domains for t in d.train), tuple(t for d in domains for t in d.held_out)
    texts = [file.read_text("utf-8", errors="ignore") for file in sorted(folder.rglob("*.txt"))]
    if len(texts) < HOLD_OUT_EVERY:
        raise ValueError(f"{str(folder)!r} holds {len(texts)} text files; at least {HOLD_OUT_EVERY} are needed to hold some out.")
    return tuple(t for i, t in enumerate(texts) if i % HOLD_OUT_EVERY and t), tuple(t for t in texts[::HOLD_OUT_EVERY] if t)
