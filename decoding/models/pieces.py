"""Functions of a few rows, such as what a drafter's head does before its attention and behind it, through the door of
`decoding.models.graphs`: with graphs they are captured once per bucket of rows and replayed, without they are simply called.

Attention looks at as many keys as there are and runs as it is, between two pieces. Whoever drafts keeps the pieces of its run;
their graphs go when it goes.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from decoding.models.graphs import Body, Graphs, bucket, recorded, uncaptured

Function = Callable[..., tuple[Tensor, ...]]


class Piece:
    """A function over buffers that stay where they are; rows beyond those that were given hold whatever was there before."""

    def __init__(self, function: Function, rows: tuple[Tensor, ...], beside: tuple[Tensor, ...], more: tuple, size: int) -> None:
        self.rows = tuple(part.new_zeros(size, *part.shape[1:]) for part in rows)
        self.beside = tuple(map(torch.zeros_like, beside))
        self._function, self._more = function, more
        self.found: tuple[Tensor, ...] = ()
        self.run: Body = self.body

    def body(self) -> None:
        self.found = self._function(*self.rows, *self.beside, *self._more)

    def write(self, rows: tuple[Tensor, ...], beside: tuple[Tensor, ...]) -> None:
        for buffer, part in zip(self.rows, rows, strict=True):
            buffer[: len(part)] = part
        for buffer, part in zip(self.beside, beside, strict=True):
            buffer.copy_(part)


class Pieces:
    """Those of one run.

    Args:
        graphs: of the target; None: nothing is captured.
    """

    def __init__(self, graphs: Graphs | None) -> None:
        self.graphs = graphs
        self.problem = ""  # why nothing is captured any more; the target's own passes may be, all the same
        self.kept: dict[tuple, Piece] = {}

    @torch.inference_mode()
    def __call__(
        self, function: Function, *rows: Tensor, beside: tuple[Tensor, ...] = (), more: tuple[int, ...] = ()
    ) -> tuple[Tensor, ...]:
        """`function(*rows, *beside, *more)`.

        Args:
            function: the same object, or method of the same object, every time; what it puts out has as many rows as it was given,
                and no row depends on another. It copies nothing to or from the host.
            rows: (n, ...) each.
            beside: what all rows are read with; each of one shape throughout.
            more: numbers that decide what is computed.
        """
        n = len(rows[0])
        if self.graphs is None or not self.graphs.takes(n):
            return function(*rows, *beside, *more)
        with self.graphs.lock:
            key = function, bucket(n), more
            if (piece := self.kept.get(key)) is not None:
                piece.write(rows, beside)
                piece.run()
            else:
                piece = self.kept[key] = Piece(function, rows, beside, more, bucket(n))
                piece.write(rows, beside)
                capture = uncaptured if self.problem else self.graphs.capture
                piece.run, problem = recorded(capture, piece.body, f"a part of a head over {bucket(n):,} rows")
                self.problem = self.problem or problem
            return tuple(part[:n].clone() for part in piece.found)  # the next call writes over them
