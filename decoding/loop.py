"""The one loop: propose, read, judge, commit; one Step per target call.

`decode` is a generator, so a page can stop between any two steps. `Run` is the door for scripts, pages and benchmarks:

    run = Run(load("embedded"), method="speculative_sampling", prompt="Once upon a time")
    for step in run: ...
    run.trace
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

import torch
import transformers
from torch import Generator

from decoding import record
from decoding.draft import Draft
from decoding.method import Drafter
from decoding.methods import METHODS
from decoding.models.cache import TreeCache
from decoding.models.family import Family
from decoding.models.target import Target, TargetOutput
from decoding.sample import Sampling
from decoding.trace import Ending, Header, Origin, Pruned, SamplingData, Step, Times, Trace
from decoding.verify import Accept, Verification

MAX_TOKENS = 4096  # of one run


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
) -> Iterator[Step]:
    """Yield one Step per target call until the text ends.

    Args:
        prompt: token ids, at least one; the last one is the first root.
        rng: a CPU generator; every uniform of the run comes from it, in the order propose, judge.
        recorded: False leaves `Step.rows` empty.
    """
    cache = TreeCache()
    tokens = list(prompt)
    limits = Limits(target.ends, len(prompt) + max_tokens, context_of(target, drafter))
    drafter.begin(tokens, prefill(target, cache, tokens, drafter, sampling))
    ending: Ending = ""
    while not ending:
        started = perf_counter()
        draft = limits.fitting(drafter.propose(tokens, rng), len(tokens))
        proposed = synced_time(target, recorded)
        output = target.read(cache, tokens, draft, sampling, drafter.aux_hidden_layers)
        read = synced_time(target, recorded)
        verification = accept(draft, output, torch.rand(draft.uniforms + 1, generator=rng))
        judged = perf_counter()
        new, origins, ending = limits.committed(draft, verification, len(tokens))
        kept = verification.cut(min(len(verification.path), len(new) - 1))  # the last token has no row yet: it is the next root
        cache.keep([0, *(node + 1 for node in kept.path)])
        drafter.observe(draft, output, kept)
        tokens += new
        rows = record.rows(draft, output, verification, greedy=sampling.greedy) if recorded else ()
        times = Times(*(1000 * t for t in (proposed - started, read - proposed, judged - read, perf_counter() - judged)))
        nodes = record.nodes(draft, verification)
        path = verification.path[: len(new)]
        pruned = tuple(Pruned(*candidate) for candidate in draft.pruned) if recorded else ()
        yield Step(nodes, rows, path, tuple(new), origins, draft.calls, times, ending, pruned, draft.facts)


def synced_time(target: Target, recorded: bool) -> float:
    """The time; on a GPU the work that was queued is waited for, or all of it would be booked on the next phase."""
    if recorded and target.device.type == "cuda":
        torch.cuda.synchronize(target.device)
    return perf_counter()


def context_of(target: Target, drafter: Drafter) -> int:
    return target.context if drafter.context is None else min(target.context, drafter.context)


def prefill(target: Target, cache: TreeCache, tokens: Sequence[int], drafter: Drafter, sampling: Sampling) -> TargetOutput | None:
    """Read all of the prompt but the root; a TargetOutput of every row, or of every state, only if the drafter wants one."""
    if len(tokens) < 2:
        return None
    aux_hidden_layers = drafter.aux_hidden_layers if drafter.reads_prompt_hidden else ()
    logits, hidden = target.extend_with_hidden(cache, tokens[:-1], aux_hidden_layers, every_row=drafter.reads_prompt)
    wanted = drafter.reads_prompt or drafter.reads_prompt_hidden
    return TargetOutput(logits, sampling.probabilities(logits), hidden) if wanted else None


@dataclass(frozen=True)
class Limits:
    """Where a text ends: an end-of-text token, the token limit, the context; exactly there, also inside an accepted path."""

    ends: frozenset[int]
    tokens: int  # prompt and all
    context: int

    def fitting(self, draft: Draft, length: int) -> Draft:
        """The draft without nodes beyond the context; behind `length` tokens a node of depth d is at length + d - 1."""
        fits = draft.depths <= self.context - length
        return draft if fits.all() else draft.cut(fits)

    def committed(self, draft: Draft, verification: Verification, length: int) -> tuple[list[int], tuple[Origin, ...], Ending]:
        """The tokens of a step, where each came from, and why the run ends with it ("" if it does not)."""
        new = [*(draft.tokens[node] for node in verification.path), verification.token]
        last: Origin = "plain" if not len(draft) else "correction" if draft.children(verification.row - 1) else "bonus"
        origins: tuple[Origin, ...] = ("accepted",) * len(verification.path) + (last,)
        ends = [i + 1 for i, token in enumerate(new) if token in self.ends][:1]
        reasons: list[tuple[int, Ending]] = [(count, "end of text") for count in ends]
        reasons += [(self.tokens - length, "token limit"), (self.context - length, "context limit")]
        count, ending = min(reasons, key=lambda reason: reason[0])
        if count > len(new):
            return new, origins, ""
        return new[:count], origins[:count], ending


class Run:
    """One prompt, one method, one seed: an iterator of Steps that also keeps them as a Trace.

    Args:
        prompt: text, or the family's token ids, of which the trace then shows the text.

    Raises:
        ValueError: an unknown method, a parameter or setting out of range, an empty prompt, one that does not fit the context,
            a method this family cannot serve. Nothing is computed before everything is checked.
    """

    def __init__(
        self,
        family: Family,
        method: str,
        params: Mapping[str, Any] | None = None,
        prompt: str | Sequence[int] = "",
        sampling: Sampling | None = None,
        seed: int = 0,
        max_tokens: int = 64,
        record: bool = True,
    ) -> None:
        if method not in METHODS:
            raise ValueError(f"There is no method {method!r}; there are {', '.join(METHODS)}.")
        chosen = METHODS[method]
        if reason := chosen.missing(family):
            raise ValueError(reason)
        if not 1 <= max_tokens <= MAX_TOKENS:
            raise ValueError(f"The token limit must lie between 1 and {MAX_TOKENS:,}; it is {max_tokens}.")
        if not 0 <= seed < 2**63:
            raise ValueError(f"The seed must be a whole number from 0 to 2^63 - 1; it is {seed}.")
        sampling = sampling or Sampling()
        values = chosen.checked(params or {})
        drafter, accept = chosen.build(family, values, sampling)
        limit = context_of(family.target, drafter)
        tokens = family.encode(prompt, limit) if isinstance(prompt, str) else family.checked(prompt, limit)
        self.family = family
        self.header = Header(
            method=method,
            params=asdict(values),
            family=family.name,
            sampling=SamplingData(**asdict(sampling)),
            seed=seed,
            prompt=prompt if isinstance(prompt, str) else family.text(tokens),
            prompt_tokens=tokens,
            max_tokens=max_tokens,
            device=str(family.target.device),
            dtype=str(family.target.dtype).removeprefix("torch."),
            versions={"torch": str(torch.__version__), "transformers": transformers.__version__},
        )
        self.steps: list[Step] = []
        self.token_bytes: dict[int, bytes] = family.token_bytes(tokens)
        rng = Generator().manual_seed(seed)
        self._decode = decode(
            family.target, drafter, accept, tokens, sampling=sampling, rng=rng, max_tokens=max_tokens, recorded=record
        )

    def __iter__(self) -> "Run":
        return self

    def __next__(self) -> Step:
        step = next(self._decode)
        self.token_bytes.update(self.family.token_bytes(t for t in step.occurring() if t not in self.token_bytes))
        self.steps.append(step)
        return step

    @property
    def ended(self) -> bool:
        return bool(self.steps and self.steps[-1].ending)

    @property
    def trace(self) -> Trace:
        """Everything so far, frozen."""
        steps = tuple(self.steps)  # first: another thread may add a step now, and pieces come before their step
        return Trace(self.header, dict(self.token_bytes), steps)

    @property
    def text(self) -> str:
        """The committed text without the prompt."""
        return self.trace.text_bytes().decode("utf-8", "replace")
