"""What heads learn from: windows of text, and the target's hidden states on them, computed once and kept on disk.

A third of the windows each is text that was given, text that the target drew behind the beginning of a given one, and text that it
wrote greedily; with a file of `decoding.training.outputs` the drawn text is taken from there. What was given as a beginning, and
what stands behind the end of a text, is read but not learned (Medusa, Cai et al. 2024, section 2.2: loss on responses only).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from decoding.family import Family
from decoding.target import PRE_NORM, Target
from decoding.training.corpus import Domain
from decoding.training.outputs import continued
from decoding.training.precision import quick

KINDS = ("given", "sampled", "greedy")  # of text, in turn
ROWS = 32  # windows that the target writes and reads at once
PROMPT = 32  # tokens given where the target writes
CHARACTERS = 8  # taken per token wanted
HALF = 65_504  # the largest float16


@dataclass(frozen=True)
class Batch:
    """Some windows, on the target's device."""

    tokens: Tensor  # (rows, length)
    counts: Tensor  # (rows, length) bool: a token that may be learned
    states: dict[int, Tensor]  # tap -> (rows, length, width) float32: behind the token at the same place


class Pool:
    """Windows with their states, in files that a stopped run goes on with.

    Args:
        folder: for the files: `tokens`, `counts`, one per tap, and `done`, the windows so far.
        windows: how many; a multiple of ROWS is made of it.
        length: tokens of a window; the target's context at most.
        taps: layers to keep, as in `Target.forward`.
    """

    def __init__(self, folder: Path, target: Target, windows: int, length: int, taps: Iterable[int]) -> None:
        self.windows = max(1, round(windows / ROWS)) * ROWS
        self.length = min(length, target.context)
        self.folder = folder / f"{self.windows}x{self.length}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.device = target.device
        self.tokens = self._array("tokens", np.int32)
        self.counts = self._array("counts", np.bool_)
        self.states = {tap: self._array(f"layer {tap}", np.float16, target.model.config.hidden_size) for tap in sorted(set(taps))}

    def _array(self, name: str, dtype: type, *more: int) -> np.memmap:
        path, shape = self.folder / f"{name}.npy", (self.windows, self.length, *more)
        if path.exists():
            return np.load(path, mmap_mode="r+", allow_pickle=False)
        return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)

    def fill(self, family: Family, texts: "Texts", kinds: Sequence[str] = KINDS) -> None:
        """Make every window that is not there yet."""
        mark = self.folder / ("done " + " ".join(map(str, self.states)))  # other taps need another reading
        first = int(mark.read_text()) if mark.exists() else 0
        for start in tqdm(range(first, self.windows, ROWS), desc=f"target reads, {self.folder.parent.name}", mininterval=5):
            number = start // ROWS
            tokens, counts = texts.windows(family, kinds[number % len(kinds)], number, self.length)
            rows = slice(start, start + ROWS)
            self.tokens[rows], self.counts[rows] = tokens, counts
            found = states(family.target, torch.from_numpy(tokens).to(self.device), self.states)
            for tap, values in found.items():
                self.states[tap][rows] = values.clamp(-HALF, HALF).half().cpu().numpy()
            mark.write_text(str(start + ROWS))

    def rows(self, which: np.ndarray) -> Batch:
        """The windows of these numbers."""

        def moved(values: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(values[which])).to(self.device)

        return Batch(moved(self.tokens).long(), moved(self.counts), {tap: moved(v).float() for tap, v in self.states.items()})

    def batch(self, step: int, rows: int) -> Batch:
        """`rows` windows; the same ones for the same step."""
        return self.rows(np.random.default_rng(step).integers(self.windows, size=rows))

    def parts(self, rows: int) -> Iterator[Batch]:
        """All windows, a few at a time."""
        for start in range(0, self.windows, rows):
            yield self.rows(np.arange(start, min(start + rows, self.windows)))


@torch.inference_mode()
def states(target: Target, ids: Tensor, taps: Iterable[int]) -> dict[int, Tensor]:
    """(rows, length) tokens -> tap -> (rows, length, width) states, from plain passes without a cache."""
    taps, found = tuple(taps), {}
    note = lambda layer, inputs, output: found.update({PRE_NORM: output[0] if isinstance(output, tuple) else output})  # noqa: E731
    handle = target.last_layer.register_forward_hook(note) if PRE_NORM in taps else None
    few = {"logits_to_keep": 1} if target.keeps_logits else {}
    try:
        with quick(ids.device):
            out = target.model(ids, use_cache=False, output_hidden_states=True, **few)
    finally:
        if handle is not None:
            handle.remove()
    return {tap: (found[tap] if tap == PRE_NORM else out.hidden_states[tap]).float() for tap in taps}


# -- texts -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Texts:
    """Where windows come from."""

    parts: tuple[tuple[float, tuple[str, ...]], ...]  # (share, texts) of every domain
    seed: int
    written: np.ndarray | None = None  # tokens that the target drew before, every text in front of an end token

    @classmethod
    def of(cls, domains: Iterable[Domain], held_out: bool, written: np.ndarray | None = None) -> "Texts":
        parts = tuple((d.share, d.held_out if held_out else d.train) for d in domains)
        return cls(parts, int(held_out), written)

    def windows(self, family: Family, kind: str, number: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        """(ROWS, length) tokens, int64, and bool: which of them may be learned. The same ones for the same number."""
        rng = np.random.default_rng((self.seed, number))
        if kind == "sampled" and self.written is not None:
            return cut(self.written, rng, length, min(family.target.ends, default=0))
        given = length if kind == "given" else min(PROMPT, length // 2)
        start = np.stack([self.excerpt(family, rng, given) for _ in range(ROWS)])
        counts = np.zeros((ROWS, length), dtype=bool)
        if kind == "given":
            counts[:, 1:] = True
            return start, counts
        text, valid = continued(family.target, start, length - given, greedy=kind == "greedy", seed=number)
        counts[:, given:] = valid
        return text.astype(np.int64), counts

    def excerpt(self, family: Family, rng: np.random.Generator, length: int) -> np.ndarray:
        """(length,) tokens: half of the time from the beginning of a text, otherwise from somewhere in it; the next one follows."""
        shares = np.array([share for share, _ in self.parts])
        found: list[int] = []
        while len(found) < length:
            texts = self.parts[rng.choice(len(self.parts), p=shares / shares.sum())][1]
            text = texts[rng.integers(len(texts))]
            size = CHARACTERS * (length - len(found))
            start = 0 if rng.random() < 0.5 else int(rng.integers(max(1, len(text) - size)))
            found += family.tokenizer(text[start : start + size])["input_ids"]
        return np.array(found[:length])


def cut(tokens: np.ndarray, rng: np.random.Generator, length: int, end: int) -> tuple[np.ndarray, np.ndarray]:
    """(ROWS, length) windows of texts that stand one behind the other, each behind an end token, and bool: all but that one."""
    starts = rng.integers(1, len(tokens) - length, size=ROWS)
    found = np.stack([np.concatenate(([end], tokens[s : s + length - 1])) for s in starts]).astype(np.int64)
    counts = np.ones(found.shape, dtype=bool)
    counts[:, 0] = False
    return found, counts
