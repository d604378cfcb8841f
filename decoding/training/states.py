"""What heads learn from: windows of text, and the target's hidden states on them, computed once and kept on disk.

A third of the windows each is text that was given, text that the target drew behind the beginning of a given one, and text that it
wrote greedily; with a file of `decoding.training.outputs` the drawn text is taken from there. What was given as a beginning, and
what stands behind the end of a text, is read but not learned (Medusa, Cai et al. 2024, section 2.2: loss on responses only).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from decoding.models.family import Family
from decoding.models.target import PRE_NORM, Target
from decoding.models.writing import continued
from decoding.training.corpus import Domain
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
    states: dict[int, Tensor]  # layer -> (rows, length, width) float32: behind the token at the same place
    seed: int = 0  # of whatever a loss draws
    labels: Tensor = field(
        default_factory=lambda: torch.empty(0, dtype=torch.long)
    )  # (rows, length) of the tokens among the logits

    def __post_init__(self) -> None:
        if not self.labels.numel():
            object.__setattr__(self, "labels", self.tokens)


class Pool:
    """Windows with their states, in files that a stopped run goes on with.

    Args:
        folder: for the files: `tokens`, `counts`, states per layer, and `done` per layer, the windows so far. Heads that read
            other layers share the text.
        windows: how many; a multiple of ROWS is made of it.
        length: tokens of a window; the target's context at most.
        aux_hidden_layers: layers to keep, as in `Target.forward`.
    """

    def __init__(self, folder: Path, target: Target, windows: int, length: int, aux_hidden_layers: Iterable[int]) -> None:
        self.windows = max(1, round(windows / ROWS)) * ROWS
        self.length = min(length, target.context)
        self.folder = folder / f"{self.windows}x{self.length}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.device = target.device
        self.tokens = self._array("tokens", np.int32)
        self.counts = self._array("counts", np.bool_)
        self.states = {
            aux_layer: self._array(f"layer {aux_layer}", np.float16, target.model.config.hidden_size)
            for aux_layer in sorted(set(aux_hidden_layers))
        }

    def _array(self, name: str, dtype: type, *more: int) -> np.memmap:
        path, shape = self.folder / f"{name}.npy", (self.windows, self.length, *more)
        if path.exists():
            return np.load(path, mmap_mode="r+", allow_pickle=False)
        return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)

    def fill(self, family: Family, texts: "Windows", kinds: Sequence[str] = KINDS) -> None:
        """Make every window that is not there yet. Text that was made for other aux hidden layers is read again, not made again."""
        lacking = {aux_layer: first for aux_layer in self.states if (first := self._done(aux_layer)) < self.windows}
        made = max((int(mark.read_text()) for mark in self.folder.glob("done *")), default=0)
        starts = range(min(lacking.values(), default=self.windows), self.windows, ROWS)
        for start in tqdm(starts, desc=f"target reads, {self.folder.parent.name}", mininterval=5):
            rows, number = slice(start, start + ROWS), start // ROWS
            if start >= made:
                self.tokens[rows], self.counts[rows] = texts.windows(family, kinds[number % len(kinds)], number, self.length)
            found = states(family.target, torch.from_numpy(self.tokens[rows]).long().to(self.device), lacking)
            for aux_layer, values in found.items():
                self.states[aux_layer][rows] = values.clamp(-HALF, HALF).half().cpu().numpy()
                self._mark(aux_layer).write_text(str(max(start + ROWS, lacking[aux_layer])))

    @property
    def lacking_windows(self) -> int:
        """How many windows are to be read; all layers that lack one are read in the same pass."""
        return max((self.windows - self._done(aux_layer) for aux_layer in self.states), default=0)

    @property
    def lacking_bytes(self) -> int:
        """What is still to be written to the disk; files may be sparse until then."""
        return sum((self.windows - self._done(aux_layer)) * values[0].nbytes for aux_layer, values in self.states.items())

    def _mark(self, aux_layer: int) -> Path:
        return self.folder / f"done {aux_layer}"

    def _done(self, aux_layer: int) -> int:
        return int(self._mark(aux_layer).read_text()) if self._mark(aux_layer).exists() else 0

    def rows(self, which: np.ndarray, seed: int = 0) -> Batch:
        """The windows of these numbers."""

        def moved(values: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(values[which])).to(self.device)

        states = {aux_layer: moved(values).float() for aux_layer, values in self.states.items()}
        return Batch(moved(self.tokens).long(), moved(self.counts), states, seed)

    def batch(self, step: int, rows: int) -> Batch:
        """`rows` windows; the same ones for the same step."""
        return self.rows(np.random.default_rng(step).integers(self.windows, size=rows), step)

    def parts(self, rows: int) -> Iterator[Batch]:
        """All windows, a few at a time."""
        for start in range(0, self.windows, rows):
            yield self.rows(np.arange(start, min(start + rows, self.windows)))


@torch.inference_mode()
def states(target: Target, ids: Tensor, aux_hidden_layers: Iterable[int]) -> dict[int, Tensor]:
    """(rows, length) tokens -> layer -> (rows, length, width) states, from plain passes without a cache."""
    aux_hidden_layers, found = tuple(aux_hidden_layers), {}
    note = lambda layer, inputs, output: found.update({PRE_NORM: output[0] if isinstance(output, tuple) else output})  # noqa: E731
    handle = target.last_layer.register_forward_hook(note) if PRE_NORM in aux_hidden_layers else None
    few = {"logits_to_keep": 1} if target.keeps_logits else {}
    try:
        with quick(ids.device):
            out = target.model(ids, use_cache=False, output_hidden_states=True, **few)
    finally:
        if handle is not None:
            handle.remove()
    return {
        aux_layer: (found[aux_layer] if aux_layer == PRE_NORM else out.hidden_states[aux_layer]).float()
        for aux_layer in aux_hidden_layers
    }


def prepared(target: Target) -> None:
    """Frozen, and its weights as they lie in their file: for many rows that is quicker than how they lie for drafting."""
    target.model.requires_grad_(False)
    for values in target.model.parameters():
        values.data = values.data.contiguous()


SEEN = 64  # tokens read to see how large states are


def sizes_of_states(target: Target) -> Tensor:
    """(width,) the root mean square of every entry of the states behind the final norm, over tokens from all of the vocabulary."""
    ids = torch.arange(SEEN, device=target.device) * 997 % target.vocab
    return states(target, ids[None], (target.last_hidden,))[target.last_hidden][0].square().mean(0).sqrt()


class Windows(Protocol):
    """Where windows come from."""

    def windows(self, family: Family, kind: str, number: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        """(ROWS, length) tokens, int64, and bool: which of them may be learned. The same ones for the same number."""
        ...


# -- texts -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Texts:
    """Windows of plain text."""

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
