"""LensRun: one look of a lens at one place of a run, as a job of the worker: `next` yields looks until the last one is there.

It shares the line with runs, can be stopped between two looks, and ends with the tab that asked for it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from time import perf_counter
from typing import Any

import msgspec
import torch

from decoding.checks import Quoted
from decoding.lens import Cursor, place_of
from decoding.lenses import LENSES
from decoding.limits import check_look
from decoding.looks import Look
from decoding.models.family import Family
from decoding.runs.turns import InTurns
from decoding.trace import Trace

OVER: Any = object()  # in place of a look


class LensRun(InTurns[Look]):
    """An iterator of looks; the last is `look`.

    Raises:
        ValueError: an unknown lens, a parameter out of range, a place that the run does not have, a family that cannot serve the
            lens or did not write the run, or more rows than this server reads for a look. Nothing is computed before.
    """

    def __init__(
        self,
        family: Family,
        lens: str,
        trace: Trace,
        step: int = -1,
        node: int | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> None:
        if lens not in LENSES:
            raise Quoted(f"There is no lens {lens!r}; there are {', '.join(LENSES)}.")
        chosen, cursor = LENSES[lens], Cursor(step, node)
        values = chosen.checked(params or {})
        place_of(trace, cursor)
        check_tokens(family, trace)
        if reason := chosen.missing(family) or chosen.lacks(family):
            raise ValueError(reason)
        check_look(chosen.cost(trace, cursor, values).rows)
        self.look: Look | None = None
        self.steps = range(0)  # one for every look so far; they are not kept
        self._said = {"family": trace.header.family, "params": asdict(values), "step": step, "node": node}
        self._looks: Iterator[Look | None] = chosen.look(family, trace, cursor, values)
        self._seconds = 0.0

    def __iter__(self) -> "LensRun":
        return self

    @torch.inference_mode()
    def turn(self) -> Look | None:
        """The next look, or None where nothing is to be seen yet; with the last one it is known that nothing follows."""
        if self.ended:
            raise StopIteration
        began = perf_counter()
        more = next(self._looks, OVER)
        self._seconds += perf_counter() - began
        if more is None:
            return None
        if (new := self.look if more is OVER else more) is None:  # there is none at all
            raise StopIteration
        self.look = msgspec.structs.replace(new, **self._said, done=more is OVER, ms=1000 * self._seconds)
        self.steps = range(len(self.steps) + 1)
        return self.look

    @property
    def ended(self) -> bool:
        return self.look is not None and self.look.done

    def let_go(self) -> None:
        """Drop the models; what was seen stays."""
        getattr(self._looks, "close", lambda: None)()
        self._looks = iter(())


def check_tokens(family: Family, trace: Trace) -> None:
    """Refuse a run whose tokens are not those of the family (ValueError)."""
    tokens = (*trace.header.prompt_tokens, *(token for step in trace.steps for token in step.occurring()))
    if (largest := max(tokens, default=0)) >= family.target.vocab:
        raise ValueError(f"The run has the token {largest:,}; the target has {family.target.vocab:,} tokens.")
    own = family.token_bytes(trace.token_bytes.keys() & set(tokens))
    for token, piece in own.items():
        if piece != trace.token_bytes[token]:
            raise Quoted(
                f"The token {token:,} is {trace.token_bytes[token]!r} in this run and {piece!r} in the family {family.name}: the "
                "run was made with another tokenizer."
            )
