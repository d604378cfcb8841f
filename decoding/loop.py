"""The one loop: propose, read, judge, commit; one Step per target call.

`decode` is a generator, so a page can stop between any two steps. It knows models by what it asks of them alone (`Target`, which
`decoding.models.target` is); the door for scripts, pages and benchmarks is `decoding.runs.run.Run`.
"""

from collections import abc
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol

import torch
from torch import Generator, Tensor

from decoding import record
from decoding.draft import Draft, TargetOutput
from decoding.limits import check_nodes
from decoding.method import NOTHING, Drafter
from decoding.sample import Sampling
from decoding.trace import Ending, Origin, Pruned, Step, Times
from decoding.verify import Accept, Verification, check_numbers


class Cache(Protocol):
    """What the target remembers of one text."""

    def keep(self, rows: Sequence[int]) -> None:
        """Commit these of the rows that were read last, in this order; forget the others."""
        ...


class Target(Protocol):
    """What the loop asks of a model; it holds no state of any run."""

    @property
    def context(self) -> int: ...  # positions

    @property
    def ends(self) -> frozenset[int]: ...  # end-of-text tokens

    @property
    def device(self) -> torch.device: ...

    def new_cache(self) -> Cache:
        """An empty one, for one text."""
        ...

    def extend_with_hidden(
        self, cache: Any, tokens: Sequence[int], aux_hidden_layers: Sequence[int], *, every_row: bool
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """Read and commit tokens: logits of the last one or of every one, and the states at these layers."""
        ...

    def read(
        self, cache: Any, tokens: Sequence[int], draft: Draft, sampling: Sampling, aux_hidden_layers: Sequence[int]
    ) -> TargetOutput:
        """Read the root, the last of `tokens`, and every node of the draft in one call; commits nothing."""
        ...


@torch.inference_mode()
def decode(
    target: Target,
    drafter: Drafter,
    accept: Accept,
    prompt: Sequence[int],
    *,
    sampling: Sampling,
    rng: Generator,
    max_tokens: int,
    recorded: bool = True,
    stop: frozenset[int] = frozenset(),
    prefill: "Prefill | None" = None,
) -> abc.Generator[Step, None, None]:
    """Yield one Step per target call until the text ends.

    Args:
        prompt: token ids, at least one; the last one is the first root.
        stop: those of the target's `ends` that are none of its own: somebody wants the run to stop there.
        rng: a CPU generator; every uniform of the run comes from it, in the order propose, judge.
        recorded: False leaves `Step.rows` empty.
        prefill: of this target, drafter and prompt, of which a part may have been read; None: a new one.
    """
    prefill = prefill or Prefill(target, prompt, drafter, sampling)
    cache = prefill.cache
    tokens = list(prompt)
    context, full = context_of(target, drafter)
    limits = Limits(target.ends, len(prompt) + max_tokens, context, full, stop)
    drafter.begin(tokens, prefill.output())
    ending: Ending = ""
    while not ending:
        started = perf_counter()
        draft = limits.fitting(drafter.propose(tokens, rng), len(tokens))
        check_numbers(draft)
        check_nodes(len(draft))
        proposed = synced_time(target, recorded)
        output = draft.reading.read(target, cache, tokens, draft, sampling, drafter.aux_hidden_layers)
        read = synced_time(target, recorded)
        verification = accept(draft, output, torch.rand(draft.uniforms + 1, generator=rng))
        judged = perf_counter()
        new, origins, ending = limits.committed(draft, verification, len(tokens))
        kept = verification.cut(min(len(verification.path), len(new) - 1))  # the last token has no row yet: it is the next root
        cache.keep([0, *(node + 1 for node in kept.path)])
        observed = drafter.observe(draft, output, kept) or NOTHING
        tokens += new
        committed = verification.ended(draft, len(new))
        nodes, rows, facts, grids = record.recorded(draft, output, committed, observed, greedy=sampling.greedy, full=recorded)
        times = Times(*(1000 * t for t in (proposed - started, read - proposed, judged - read, perf_counter() - judged)))
        pruned = tuple(Pruned(*candidate) for candidate in draft.pruned) if recorded else ()
        step = Step(nodes, rows, committed.path, tuple(new), origins, draft.calls, times, ending, pruned, facts, grids)
        del draft, output, observed  # rows over all of the vocabulary: a run may stand here for long
        yield step


def synced_time(target: Target, recorded: bool) -> float:
    """The time; on a GPU the work that was queued is waited for, or all of it would be booked on the next phase."""
    if recorded and target.device.type == "cuda":
        torch.cuda.synchronize(target.device)
    return perf_counter()


def context_of(target: Target, drafter: Drafter) -> tuple[int, Ending]:
    """How many tokens a text may have, prompt and all, and how it ends there: whose context that is."""
    if drafter.context is None or drafter.context >= target.context:
        return target.context, "context limit"
    return drafter.context, "context limit of the draft model"


class Prefill:
    """All of the prompt but the root, read into a new cache: at once, or part by part where others wait for the device.

    A drafter that wants every row gets those of each part as it is read: the logits of prompts that are half read would fill the
    memory.
    """

    def __init__(self, target: Target, prompt: Sequence[int], drafter: Drafter, sampling: Sampling) -> None:
        self.cache = target.new_cache()
        self._target, self._drafter, self._sampling, self._left = target, drafter, sampling, prompt[:-1]
        self._hidden: dict[int, list[Tensor]] = {layer: [] for layer in drafter.aux_hidden_layers if drafter.reads_prompt_hidden}
        self._logits: Tensor | None = None  # after the last token

    @torch.inference_mode()
    def read(self, rows: int | None = None) -> bool:
        """Read so many more tokens, or all; whether that was a turn's work, more than half of `rows`."""
        end = len(self._left) if rows is None else rows
        part, self._left = self._left[:end], self._left[end:]
        if part:
            every_row = self._drafter.reads_prompt
            self._logits, hidden = self._target.extend_with_hidden(self.cache, part, tuple(self._hidden), every_row=every_row)
            for layer, states in hidden.items():
                self._hidden[layer].append(states)
            if every_row:
                self._drafter.begin(part, self._output(self._logits, hidden))
        return rows is not None and len(part) > rows // 2

    def output(self) -> TargetOutput | None:
        """A TargetOutput of every state, if the drafter wants one; what is left is read first."""
        self.read()
        if self._logits is None or not self._drafter.reads_prompt_hidden:
            return None
        return self._output(self._logits, {layer: torch.cat(states) for layer, states in self._hidden.items()})

    def _output(self, logits: Tensor, hidden: dict[int, Tensor]) -> TargetOutput:
        return TargetOutput(logits, self._sampling.probabilities(logits), hidden)


@dataclass(frozen=True)
class Limits:
    """Where a text ends: an end-of-text token, the token limit, the context; exactly there, also inside an accepted path."""

    ends: frozenset[int]
    tokens: int  # prompt and all
    context: int
    full: Ending = "context limit"  # how a text ends that fills it
    stop: frozenset[int] = frozenset()  # those of `ends` at which somebody wants it to stop

    def fitting(self, draft: Draft, length: int) -> Draft:
        """The draft without nodes beyond the context; behind `length` tokens a node of depth d is at length + d - 1."""
        fits = draft.depths <= self.context - length
        return draft if fits.all() else draft.cut(fits)

    def committed(self, draft: Draft, verification: Verification, length: int) -> tuple[list[int], tuple[Origin, ...], Ending]:
        """The tokens of a step, where each came from, and why the run ends with it ("" if it does not)."""
        new = [*(draft.tokens[node] for node in verification.path), verification.token]
        last: Origin = "plain" if not len(draft) else "correction" if draft.children(verification.row - 1) else "bonus"
        origins: tuple[Origin, ...] = ("accepted",) * len(verification.path) + (last,)
        ends = [i for i, token in enumerate(new) if token in self.ends][:1]
        reasons: list[tuple[int, Ending]] = [(i + 1, "stop token" if new[i] in self.stop else "end of text") for i in ends]
        reasons.extend([(self.tokens - length, "token limit"), (self.context - length, self.full)])
        count, ending = min(reasons, key=lambda reason: reason[0])
        if count > len(new):
            return new, origins, ""
        return new[:count], origins[:count], ending
