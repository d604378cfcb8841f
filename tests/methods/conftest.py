"""A place to train a head from the command line: no heads anywhere, a tiny target, and text to learn from."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from decoding.models import heads
from tests import toys

SIZES = {"tokens": 1536, "held-out": 768, "window": 48, "rows": 4}


@dataclass(frozen=True)
class Workshop:
    folder: Path

    def target(self, kind: str = "llama", seed: int = 9, **config) -> str:
        """The folder of a random target."""
        toys.save(self.folder / "target", toys.causal_lm(kind, seed=seed, **config), toys.tokenizer())
        return str(self.folder / "target")

    def command(self, key: str, target: str, *more: str, **sizes) -> list[str]:
        """What `python -m decoding.training` is called with, for a moment of training."""
        where = {"family": target, "data": self.folder / "texts", "work": self.folder / "work", "device": "cpu"}
        named = where | SIZES | {name.replace("_", "-"): value for name, value in sizes.items()}
        return [key, *(f"--{name}={value}" for name, value in named.items()), "--kinds", "given", *more]


@pytest.fixture
def workshop(tmp_path, monkeypatch) -> Workshop:
    monkeypatch.setenv("DRAFTSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(heads, "find", heads.find.real)
    (tmp_path / "texts").mkdir()
    for i in range(20):
        (tmp_path / "texts" / f"{i:02}.txt").write_text(toys.TEXT * (1 + i % 3))
    return Workshop(tmp_path)
