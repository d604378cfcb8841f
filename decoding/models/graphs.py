"""Passes of fixed shape: on a GPU they are captured once as a CUDA graph and replayed, so that a layer costs no launches.

A pass over n rows behind a text runs over as many rows as the next bucket has, and over as many keys and values as the next bucket
of those. What it reads lies in buffers that stay where they are and are written in place: the rows, their positions, the mask, and
where keys and values go. Rows beyond the draft see the text and themselves; their keys are written behind those of the draft, where
no row of the draft sees them and the next pass writes over them. The text itself lies in a `Room`, which texts take turns in:
whoever comes in brings its rows, whoever leaves takes them along.

The same runs without graphs wherever tensors can be (`static`), and is tested there; capture and replay alone are CUDA's. The
memory of graphs and rooms is bounded: the one that was used least recently goes first.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from threading import RLock
from weakref import ref

import numpy as np
import torch
from torch import Tensor

from decoding.models.cache import TreeCache
from decoding.models.plain_forward import PlainForward
from decoding.models.progress import tell

MODES = ("auto", "off", "static")  # graphs on cuda; none; fixed shapes without graphs, wherever the model is
ROWS = (1, 8, 16, 32, 64, 128, 256, 512)  # buckets of a pass; longer ones, pieces of a prompt, take the ordinary way
FIRST_KEYS = 256  # of the buckets of keys, each twice the one before
SHARE = 0.1  # of a GPU's memory that graphs and rooms may take
HOST_BYTES = 2**30  # the same where there is none
WARM_UP = 3  # passes before the capture: libraries set themselves up in them
Body = Callable[[], None]
Capture = Callable[[Body], Body]  # what runs a body once -> what runs the same again, over the same buffers


def bucket(rows: int) -> int:
    """The smallest bucket of at least so many rows.

    >>> [bucket(rows) for rows in (1, 2, 8, 9, 512)]
    [1, 8, 8, 16, 512]
    """
    return next(size for size in ROWS if size >= rows)


def capacity(keys: int) -> int:
    """The smallest bucket of at least so many keys.

    >>> [capacity(keys) for keys in (1, 256, 257, 3000)]
    [256, 256, 512, 4096]
    """
    return FIRST_KEYS * 2 ** max(0, -(-keys // FIRST_KEYS) - 1).bit_length()


def uncaptured(body: Body) -> Body:
    """No graph: the body itself."""
    body()
    return body


def recorded(capture: Capture, body: Body, what: str) -> tuple[Body, str]:
    """Run a body for the first time: what runs it again, and why that is no graph; "" if it is, or none was wanted."""
    problem = ""
    if capture is not uncaptured:
        tell(f"capturing {what}")
        try:
            return capture(body), ""
        except RuntimeError as error:  # of CUDA, whatever it was
            problem = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return uncaptured(body), problem


class CudaGraphs:
    """Captures into one pool of memory: what one graph needs in between, another may use as well, because no two run at once and
    what they put out is copied before another runs."""

    def __init__(self) -> None:
        self.pool = torch.cuda.graph_pool_handle()

    def __call__(self, body: Body) -> Body:
        current, side = torch.cuda.current_stream(), torch.cuda.Stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                body()
        current.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"):
            body()
        graph.replay()
        return graph.replay


class Room:
    """Keys and values of all layers for one text of at most `capacity` rows, pads included."""

    def __init__(self, plain: PlainForward, capacity: int, lock: AbstractContextManager) -> None:
        shape = (len(plain.layers), 2, 1, plain.groups, capacity, plain.width)
        # zeros: a row that nobody has written is hidden by a weight of zero, and zero times what is no number is none
        self.buffer = torch.zeros(shape, dtype=plain.embedding.dtype, device=plain.embedding.device)
        self.keys, self.values = ([layer[part] for layer in self.buffer] for part in (0, 1))
        self.lock = lock
        self._guest: ref[TreeCache] | None = None

    def holds(self, cache: TreeCache) -> bool:
        """Whether every layer of the cache lies here: one that grew by itself has left."""
        return len(cache.layers) == len(self.keys) and all(
            layer.is_initialized and layer.keys is keys for layer, keys in zip(cache.layers, self.keys, strict=True)
        )

    def enter(self, cache: TreeCache) -> None:
        """Bring the rows of this cache here, and send away whoever is here."""
        guest = None if self._guest is None else self._guest()
        if guest is not None and guest is not cache and guest.room is self:
            self.leave(guest)
        if not self.holds(cache):
            for layer, keys, values in zip(cache.layers, self.keys, self.values, strict=True):
                if layer.is_initialized and layer.keys is not keys:
                    keys[:, :, : layer.length] = layer.keys[:, :, : layer.length]
                    values[:, :, : layer.length] = layer.values[:, :, : layer.length]
                layer.settle(keys, values)
        cache.room, self._guest = self, ref(cache)

    def leave(self, cache: TreeCache) -> None:
        """What of this cache lies here gets a place of its own."""
        for layer, keys in zip(cache.layers, self.keys, strict=True):
            if layer.is_initialized and layer.keys is keys:
                layer.settle(layer.keys.clone(), layer.values.clone())
        cache.room = None

    def keep(self, cache: TreeCache, rows: Tensor | None, count: int) -> bool:
        """As `Layer.keep`, of all layers at once; False, and nothing done, if they lie here no more."""
        with self.lock:  # another thread may bring another text in
            if not self.holds(cache):
                return False
            end = cache.committed + count
            if rows is not None:
                self.buffer[..., cache.committed : end, :] = self.buffer.index_select(-2, rows.to(self.buffer.device))
            for layer in cache.layers:
                layer.length = end
            return True


class Pass:
    """One pass of fixed shape: its buffers, and what it puts out."""

    def __init__(self, plain: PlainForward, room: Room, rows: int, wanted: tuple[int, ...]) -> None:
        like = plain.embedding
        self.rows = like.new_zeros(rows, like.shape[1])
        self.positions = torch.zeros(rows, dtype=torch.long, device=like.device)
        self.places = torch.arange(rows, device=like.device)  # of keys and values
        self.mask = like.new_zeros(1, 1, rows, room.buffer.shape[-2])
        self.least = torch.finfo(like.dtype).min
        self.room = room
        self.tables = plain.cos, plain.sin  # held: a graph reads these even when the model has longer ones
        self._steps = torch.arange(rows, device=like.device)
        self._plain, self._wanted = plain, wanted
        self.normed, self.hidden = like, {}  # put out

    def body(self) -> None:
        self.normed, self.hidden = self._plain(self.rows, self.positions, self.mask, self._store, self._wanted)

    def _store(self, number: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        whole = self.room.keys[number], self.room.values[number]
        for buffer, fresh in zip(whole, (keys, values), strict=True):
            buffer.index_copy_(2, self.places, fresh)
        return whole

    def write(self, rows: Tensor, positions: Tensor, before: int, visible: Tensor | None) -> None:
        """Fill the buffers; `visible` as in `Target.forward`."""
        n, size = len(rows), len(self.rows)
        self.rows[:n] = rows
        self.positions[:n] = positions
        self.places.copy_(self._steps + before)
        mask = self.mask[0, 0]
        mask.fill_(self.least)
        seen = torch.ones(n, n, dtype=torch.bool, device=mask.device).tril() if visible is None else visible.to(mask.device)
        start = before + n - seen.shape[1]
        mask[:, :start] = 0
        mask[:n, start : before + n].masked_fill_(seen, 0)
        if size > n:
            mask[n:, :before] = 0
            mask[n:, before : before + size].diagonal(n).fill_(0)

    @property
    def bytes(self) -> int:
        return sum(part.nbytes for part in (self.rows, self.positions, self.places, self.mask, self.normed, *self.hidden.values()))


@dataclass
class Kept:
    """A pass that can be run again."""

    made: Pass
    run: Body
    bytes: int


class Graphs:
    """The passes of one model. One text at a time is read with it; others wait."""

    def __init__(self, plain: PlainForward, capture: Capture = uncaptured, most: float | None = None) -> None:
        self.plain, self.capture = plain, capture
        self.most = limit(plain.embedding.device) if most is None else most  # bytes
        self.problem = ""  # why nothing is captured any more
        self.kept: OrderedDict[tuple[int, int, tuple[int, ...]], Kept] = OrderedDict()
        self.rooms: dict[int, Room] = {}
        self.lock = RLock()

    def takes(self, rows: int) -> bool:
        return rows <= ROWS[-1]

    def read(
        self, cache: TreeCache, rows: Tensor, positions: Tensor, visible: np.ndarray | Tensor | None, wanted: Sequence[int]
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """As `PlainForward.__call__`, behind everything in the cache.

        Args:
            cache: with as many layers as the model has.
            visible: as in `Target.forward`.
        """
        with self.lock:
            n, before = len(rows), cache.length
            key = bucket(n), capacity(before + bucket(n)), tuple(sorted(set(wanted)))
            self.plain.reach(key[1] - 1)
            room = self.room(key[1])
            room.enter(cache)
            seen = None if visible is None else torch.as_tensor(visible)
            found = self.kept.get(key)
            if found is None or found.made.room is not room:
                found = self.kept[key] = self.captured(key, room, (rows, positions, before, seen))
            else:
                found.made.write(rows, positions, before, seen)
                found.run()
            self.kept.move_to_end(key)
            self.bound(key)
            for layer in cache.layers:
                layer.length = before + n
            made = found.made  # what it put out is copied: the next pass writes over it
            return made.normed[:n].clone(), {layer: states[:n].clone() for layer, states in made.hidden.items()}

    def room(self, capacity: int) -> Room:
        if capacity not in self.rooms:
            self.rooms[capacity] = Room(self.plain, capacity, self.lock)
        return self.rooms[capacity]

    def captured(self, key: tuple[int, int, tuple[int, ...]], room: Room, given: tuple) -> Kept:
        """A pass over these inputs, run for the first time."""
        made = Pass(self.plain, room, key[0], key[2])
        made.write(*given)
        capture = uncaptured if self.problem else self.capture
        run, problem = recorded(capture, made.body, f"a pass over {key[0]:,} rows and {key[1]:,} keys")
        self.problem = self.problem or problem
        return Kept(made, run, made.bytes)

    @property
    def bytes(self) -> int:
        """What buffers and rooms take."""
        return sum(one.bytes for one in self.kept.values()) + sum(room.buffer.nbytes for room in self.rooms.values())

    def bound(self, newest: tuple[int, int, tuple[int, ...]]) -> None:
        """Forget what was used least recently until the rest fits, but for the newest; a room goes with its last pass. A text that
        lies in one keeps it for as long as it needs it."""
        while self.bytes > self.most and len(self.kept) > 1:
            oldest = next(iter(self.kept))
            assert oldest != newest
            del self.kept[oldest]
            if all(key[1] != oldest[1] for key in self.kept):
                del self.rooms[oldest[1]]


def limit(device: torch.device) -> float:
    """Bytes that the graphs of one model may take."""
    return SHARE * torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else HOST_BYTES
