"""Distillation of the draft model: what the target says about the training text, kept on disk, and the losses against it.

The target reads the text once; the draft model then sees it many times at the price of its own calls alone. Of every
distribution the 64 most probable tokens are kept (they hold more than 97 % of the probability), and the rest as one.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel

from decoding.training.precision import quick

KEPT = 64  # tokens of every distribution
ROWS = 4  # windows the target reads at once
LESSON = 512  # tokens of a window for learners that see few of them; long enough for what a page shows
FEW = 4096  # tokens of their batches: many small steps


class Lessons:
    """Windows of one domain and the target's distributions on them, in files that a stopped run goes on with.

    Args:
        tokens: the domain's token stream; `most` of its tokens are used, in windows of `length` at equal distances.
        folder: for the files: `ids` (n, length, KEPT) of the kind of `tokens`, `p` the same in float16, `done` windows so far.
    """

    def __init__(self, tokens: np.ndarray, folder: Path, length: int, most: float) -> None:
        windows = len(tokens) // length
        chosen = np.linspace(0, windows - 1, min(windows, int(most) // length)).astype(np.int64)
        self.tokens = tokens[: windows * length].reshape(windows, length)[chosen]
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.ids = self._array("ids", tokens.dtype)
        self.p = self._array("p", np.float16)

    def _array(self, name: str, dtype: type) -> np.memmap:
        path = self.folder / f"{name}.npy"
        if path.exists():
            return np.load(path, mmap_mode="r+")
        return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(*self.tokens.shape, KEPT))

    def write(self, target: PreTrainedModel, title: str) -> None:
        """Let the target read every window that it has not read yet."""
        mark = self.folder / "done"
        first = int(mark.read_text()) if mark.exists() else 0
        starts = range(first, len(self.tokens), ROWS)
        for start in tqdm(starts, desc=f"target reads {title}", mininterval=10):
            ids = torch.from_numpy(self.tokens[start : start + ROWS].astype(np.int64)).to(target.device)
            with torch.no_grad(), quick(ids.device):
                p, top = target(ids, use_cache=False).logits.float().softmax(-1).topk(KEPT)
            self.ids[start : start + ROWS] = top.cpu().numpy().astype(self.ids.dtype)
            self.p[start : start + ROWS] = p.cpu().numpy().astype(np.float16)
            mark.write_text(str(start + ROWS))

    def rows(self, which: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """(rows, length) tokens, (rows, length, KEPT) ids and (rows, length, KEPT) probabilities."""
        tokens, ids = (torch.from_numpy(part[which].astype(np.int64)) for part in (self.tokens, self.ids))
        return tokens, ids, torch.from_numpy(self.p[which].astype(np.float32))


def taught(target: PreTrainedModel, streams: Mapping[str, np.ndarray], folder: Path, length: int, most: float) -> list[Lessons]:
    """The lessons of every domain, read by the target as far as they are not there yet.

    Args:
        streams: domain -> its tokens, of which `most` are used.
    """
    lessons = [Lessons(tokens, folder / name, length, most) for name, tokens in streams.items()]
    for name, lesson in zip(streams, lessons, strict=True):
        lesson.write(target, name)
    return lessons


def mixed(lessons: Sequence[Lessons], seed: tuple[int, ...], tokens: int, shares: Sequence[float], length: int) -> list[Tensor]:
    """A batch of `tokens` tokens, the domains mixed by `shares`, as in `Lessons.rows`, in windows of `length` tokens.

    Shorter windows are parts of those that the target read, so that it knows more of what stands before than the learner does.
    Its mean over all beginnings is what the learner can know; that is what it learns.
    """
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(tokens // lessons[0].tokens.shape[1], shares)
    parts = [lesson.rows(rng.choice(len(lesson.tokens), n)) for lesson, n in zip(lessons, counts, strict=True)]
    columns = [torch.cat(column) for column in zip(*parts, strict=True)]
    return [column.reshape(-1, length, *column.shape[2:]) for column in columns]


def kept_log_q(logits: Tensor, ids: Tensor) -> Tensor:
    """Log probabilities of the tokens in `ids`: (rows, length, vocab) logits -> (rows, length, KEPT)."""
    logits = logits.float()
    return logits.gather(-1, ids) - logits.logsumexp(-1, keepdim=True)


def divergence(log_q: Tensor, p: Tensor) -> Tensor:
    """KL(p || q) over the kept tokens and the rest as one, in nats: a lower bound of the full divergence."""
    residual_p = (1 - p.sum(-1)).clamp_min(1e-6)
    residual_q = (1 - log_q.exp().sum(-1)).clamp_min(1e-6)
    kept = (p * (p.clamp_min(1e-8).log() - log_q)).sum(-1)
    return (kept + residual_p * (residual_p.log() - residual_q.log())).mean()


def disagreement(log_q: Tensor, p: Tensor) -> Tensor:
    """1 - sum_v min(p, q) over the kept tokens: the chance of a rejection.

    The total variation of DistillSpec (Zhou et al. 2024, section 4).
    """
    return 1 - torch.minimum(p, log_q.exp()).sum(-1).mean()
