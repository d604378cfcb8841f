"""What a target that prunes its prompt remembers of one text: keys and values of the rows that a layer has read, and of those that
stopped before it where they stopped, so that they can go on from there (LazyLLM's aux cache).

Rows stand at their place: row i of every buffer belongs to token i of the text, and behind the text those of a draft. The layers
between two prunings are a *stage*: within it all rows go the same way, so one mark per row and stage says who was there.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from decoding.models.cache import FIRST_ROWS, TreeCache
from decoding.models.ledger import note as in_ledger


class Places:
    """(…, places, width) in a buffer that doubles when it is full; what was never written is never asked for."""

    def __init__(self) -> None:
        self.buffer: Tensor | None = None

    def write(self, at: np.ndarray, rows: Tensor) -> None:
        """Put (…, n, width) at n places."""
        end = int(at.max()) + 1
        if self.buffer is None:
            self.buffer = rows.new_empty(*rows.shape[:-2], max(FIRST_ROWS, end), rows.shape[-1])
        while end > self.buffer.shape[-2]:
            self.buffer = torch.cat((self.buffer, torch.empty_like(self.buffer)), -2)
        if one_piece(at):
            self.buffer[..., int(at[0]) : end, :] = rows
        else:
            self.buffer.index_copy_(self.buffer.ndim - 2, torch.as_tensor(at).to(rows.device), rows)

    def read(self, at: np.ndarray) -> Tensor:
        """(…, n, width) at n places; a view where they stand side by side."""
        assert self.buffer is not None, "nothing was written"
        if one_piece(at):
            return self.buffer[..., int(at[0]) : int(at[-1]) + 1, :]
        return self.buffer.index_select(-2, torch.as_tensor(at).to(self.buffer.device))

    def move(self, start: int, at: np.ndarray) -> None:
        """What stands at these places stands from `start` on, in this order."""
        self.write(np.arange(start, start + len(at)), self.read(at).clone())


def one_piece(at: np.ndarray) -> bool:
    """Whether ascending places stand side by side."""
    return int(at[-1]) - int(at[0]) + 1 == len(at)


class LazyCache:
    """The loop's cache of such a target.

    `computed[stage, place]`: whether the layers of this stage have read the row there. Between a stage and the next it stands in
    `states`: every row that has read the one and not the other is an entry of the aux cache; stage 0 begins with the embeddings.
    """

    def __init__(self, layers: int, stages: int, full: TreeCache | None = None) -> None:
        self.keys = [Places() for _ in range(layers)]
        self.values = [Places() for _ in range(layers)]
        self.states = [Places() for _ in range(stages)]
        self.computed = np.zeros((stages, FIRST_ROWS), dtype=bool)
        self.known = 0  # places whose embedding is there
        self.committed = 0  # rows of text that were read, or noted to be read when they are wanted
        self.frozen: list[np.ndarray] = []  # of a target that prunes once: who was alive in stage 1, 2, ... behind the prompt
        self.prompt = 0  # tokens of that prompt
        self.full = full  # keys and values of the whole target, where both are compared
        in_ledger(self)

    @property
    def nbytes(self) -> int:
        """Without those of the whole target, which tells its own."""
        places = (*self.keys, *self.values, *self.states)
        return sum(buffer.nbytes for place in places if (buffer := place.buffer) is not None)

    def note(self, embedded: Tensor) -> np.ndarray:
        """Rows behind the committed ones, by their (n, width) embeddings; nothing is computed. Returns their places."""
        places = np.arange(self.committed, self.committed + len(embedded))
        self.states[0].write(places, embedded)
        self.known = int(places[-1]) + 1
        while self.known > self.computed.shape[1]:
            self.computed = np.concatenate((self.computed, np.zeros_like(self.computed)), 1)
        self.computed[:, self.committed : self.known] = False
        return places

    def todo(self, stage: int, alive: np.ndarray) -> np.ndarray:
        """Those of the places that this stage has not read yet; RuntimeError if one of them is nowhere: neither in the stage before
        nor in the aux cache."""
        wanted = alive[~self.computed[stage, alive]]
        there = self.computed[stage - 1, wanted] if stage else wanted < self.known
        if not there.all():
            lost = int(wanted[~there][0])
            raise RuntimeError(f"Token {lost} is wanted in stage {stage + 1}, and where it stopped is not known.")
        return wanted

    def waiting(self, upto: int) -> int:
        """Entries of the aux cache: of the first places those that have read a stage and not the next one."""
        read = self.computed[:, :upto]
        return int((read[:-1] & ~read[1:]).sum())

    @torch.inference_mode()
    def keep(self, rows: Sequence[int]) -> None:
        """Commit these of the rows that were read last, in this order; all layers have read them. Forget the others."""
        kept = self.committed + np.asarray(list(rows), dtype=np.int64)
        end = self.committed + len(kept)
        if len(kept) and not np.array_equal(kept, np.arange(self.committed, end)):
            for buffer in (*self.keys, *self.values):
                buffer.move(self.committed, kept)
        self.computed[:, end:] = False
        self.committed = self.known = end
        if self.full is not None:
            self.full.keep(rows)


class Stage:
    """One stage of one call, in the place of the cache that the layers write to: their new rows go where they belong, and what they
    see is who is alive.

    Args:
        rows: the places of the rows that go through.
        seen: the places of the rows that are seen, those included.
    """

    def __init__(self, cache: LazyCache, rows: np.ndarray, seen: np.ndarray) -> None:
        self.cache, self.rows, self.seen = cache, rows, seen
        self.keys = torch.empty(0)  # (1, heads, k, head width) of the layer that was run last, as `seen`

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args, **kwargs) -> tuple[Tensor, Tensor]:
        """As a layer calls it: (1, heads, rows, head width) in, (1, heads, seen, head width) out."""
        keys, values = self.cache.keys[layer_idx], self.cache.values[layer_idx]
        keys.write(self.rows, key_states)
        values.write(self.rows, value_states)
        self.keys = keys.read(self.seen)
        return self.keys, values.read(self.seen)
