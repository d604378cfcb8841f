"""Run: one prompt, one method, one seed; the door for scripts, pages and benchmarks.

run = Run(load("embedded"), method="speculative_sampling", prompt="Once upon a time")
for step in run: ...
run.trace
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol, TypeGuard

import torch
import transformers
from torch import Generator

from decoding.checks import Quoted
from decoding.limits import check_params, check_prompt, check_prompt_tokens, check_tokens, limits
from decoding.loop import Prefill, context_of, decode
from decoding.method import Method
from decoding.methods import METHODS
from decoding.models.chat import Option, checked_messages, checked_options, is_chat
from decoding.models.ends import Stop
from decoding.models.family import Family
from decoding.models.guided_target import GuidedTarget
from decoding.models.rasters import OPEN
from decoding.models.requirements import DraftModel, head_of
from decoding.sample import Sampling
from decoding.trace import MAX_TOKENS, Header, Message, SamplingData, Step, Trace
from decoding.verify import NotFinite


class Run:
    """One prompt, one method, one seed: an iterator of Steps that also keeps them as a Trace.

    Args:
        prompt: text, messages as [{"role": "user", "content": "Hello"}] for a family with a chat template, or the family's token
            ids, of which the trace then shows the text.
        template_options: of the chat template, as {"enable_thinking": False}.
        stop: tokens at which the run ends too, each by its id or by a text that is one token.
        ignore_end: the end of the text does not end the run.

    Raises:
        ValueError: an unknown method, a parameter or setting out of range, an empty prompt, one that does not fit the context,
            a method this family cannot serve, guidance where there is nothing to guide away from. Nothing is computed before
            everything is checked.
    """

    def __init__(
        self,
        family: Family,
        method: str,
        params: Mapping[str, Any] | None = None,
        prompt: str | Sequence[int] | Sequence[Mapping[str, str] | Message] = "",
        sampling: Sampling | None = None,
        seed: int = 0,
        max_tokens: int = 64,
        record: bool = True,
        template_options: Mapping[str, Option] | None = None,
        stop: Stop | Sequence[Stop] = (),
        ignore_end: bool = False,
    ) -> None:
        if method not in METHODS:
            raise Quoted(f"There is no method {method!r}; there are {', '.join(METHODS)}.")
        chosen = METHODS[method]
        if reason := chosen.missing(family):
            raise ValueError(reason)
        check_limits(max_tokens, seed)
        check_server(max_tokens, prompt, params or {})
        messages = checked_messages(prompt) if is_chat(prompt) else ()
        options = checked_options({} if template_options is None else template_options)
        check_kinds(() if messages else prompt, params, sampling, ignore_end)
        stops = family.stop_tokens(stop)
        ending = family.ending_at(stops, ignore_end=ignore_end)
        sampling = sampling or Sampling()
        values = chosen.checked(params or {})
        drafter, accept = chosen.build(ending, values, sampling)
        target = chosen.wrap(ending.target, values)
        if sampling.guidance != 1:
            check_guidable(family, chosen, own=target is ending.target)
            target = GuidedTarget(target, sampling.guidance, family.untold)
        limit, full = context_of(target, drafter)
        text, tokens = read_prompt(family, prompt, messages, options, limit, full.removeprefix("context limit"))
        check_prompt_tokens(len(tokens), at_once=getattr(target, "reads_at_once", False))
        self.family: Family | None = family  # None once it was let go
        self.notes = family.notes + (family.prompt_notes(prompt) if isinstance(prompt, str) else ())  # for who looks at the run
        self.header = Header(
            method=method,
            params=asdict(values),
            family=family.name,
            sampling=SamplingData(**asdict(sampling)),
            seed=seed,
            prompt=text,
            prompt_tokens=tokens,
            max_tokens=max_tokens,
            device=str(family.target.device),
            dtype=str(family.target.dtype).removeprefix("torch."),
            versions={"torch": str(torch.__version__), "transformers": transformers.__version__},
            messages=messages,
            template_options=options if messages else {},
            special_tokens=family.special_tokens,
            stop=stops,
            ignore_end=ignore_end,
            raster=family.raster,
        )
        self.steps: list[Step] = []
        self.token_bytes: dict[int, bytes] = family.token_bytes((*tokens, *stops))
        rng = Generator().manual_seed(seed)
        own = frozenset() if ignore_end else family.target.ends
        self._prefill: Prefill | None = Prefill(target, tokens, drafter, sampling)  # None once it was read
        self._decode = decode(
            target, drafter, accept, tokens, sampling=sampling, rng=rng, max_tokens=max_tokens, recorded=record,
            stop=frozenset(stops) - own, prefill=self._prefill,
        )  # fmt: skip

    def __iter__(self) -> "Run":
        return self

    def turn(self) -> Step | None:
        """The next step, or None where no more than a part of the prompt was read, as much as this server reads at once."""
        if self._prefill is not None and self._prefill.read(limits().rows):
            return None
        return next(self)

    def __next__(self) -> Step:
        if (family := self.family) is None:
            raise StopIteration
        self._prefill = None
        try:
            step = next(self._decode)
        except NotFinite as error:
            whose = head_name(self.header.method) if error.model == "drafter" else error.model
            raise ValueError(not_finite(whose, family.name, len(self.steps) + 1, self.header.dtype)) from error
        self.token_bytes.update(family.token_bytes(t for t in step.occurring() if t not in self.token_bytes))
        self.steps.append(step)
        return step

    @property
    def ended(self) -> bool:
        return bool(self.steps and self.steps[-1].ending)

    def let_go(self) -> None:
        """Drop the models and what the loop keeps of them; what was done stays, and no step can follow."""
        self._decode.close()
        self.family = self._prefill = None

    @property
    def trace(self) -> Trace:
        """Everything so far, frozen."""
        steps = tuple(self.steps)  # first: another thread may add a step now, and token bytes come before their step
        return Trace(self.header, dict(self.token_bytes), steps)

    @property
    def text(self) -> str:
        """The committed text without the prompt."""
        return self.trace.text_bytes().decode("utf-8", "replace")


class Place(Protocol):
    """Where runs of a family are made, beside this process."""

    def run(self, method: str, *given: Any, **more: Any) -> Any: ...


def begin(where: Family | Place, method: str, *given: Any, **more: Any) -> Any:
    """A run of a family, wherever that is; what follows the method are the arguments of `Run`."""
    return Run(where, method, *given, **more) if isinstance(where, Family) else where.run(method, *given, **more)


def read_prompt(
    family: Family, prompt: Any, messages: tuple[Message, ...], options: Mapping[str, Option], limit: int, whose: str
) -> tuple[str, tuple[int, ...]]:
    """The text of a prompt and its token ids; ValueError if the family cannot take it, or has no room below `limit` tokens, the
    context of `whose`."""
    if messages:
        return family.encode_chat(messages, options, limit, whose)
    if isinstance(prompt, str):
        return prompt, family.encode(prompt, limit, whose)
    tokens = family.checked(prompt, limit, whose)
    return family.text(tokens), tokens


def check_limits(max_tokens: object, seed: object) -> None:
    """Refuse what is no number of tokens or no seed (ValueError)."""
    if not whole(max_tokens) or not 1 <= max_tokens <= MAX_TOKENS:
        raise Quoted(f"The token limit must lie between 1 and {MAX_TOKENS:,}; it is {max_tokens!r}.")
    if not whole(seed) or not 0 <= seed < 2**63:
        raise Quoted(f"The seed must be a whole number from 0 to 2^63 - 1; it is {seed!r}.")


def check_server(max_tokens: int, prompt: Any, params: object) -> None:
    """Refuse what goes beyond the limits of this server (ValueError)."""
    check_tokens(max_tokens)
    if isinstance(prompt, str):
        check_prompt(len(prompt))
    elif is_chat(prompt):
        check_prompt(sum(len(message.content) for message in checked_messages(prompt)))
    if isinstance(params, Mapping):
        check_params(params)


def whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def check_kinds(prompt: object, params: object, sampling: object, ignore_end: object) -> None:
    """Refuse a prompt, parameters, a sampling or a switch of another kind than they can be (ValueError)."""
    if not isinstance(prompt, str) and not (isinstance(prompt, Sequence) and all(map(whole, prompt))):
        raise Quoted(f"The prompt must be text, messages or a list of token ids; it is {prompt!r}.")
    if params is not None and not isinstance(params, Mapping):
        raise Quoted(f"Parameters must be given by name, as {{'length': 5}}; they are {params!r}.")
    if sampling is not None and not isinstance(sampling, Sampling):
        raise Quoted(f"The sampling must be a Sampling, as Sampling(temperature=0.7); it is {sampling!r}.")
    if not isinstance(ignore_end, bool):
        raise Quoted(f"ignore_end must be True or False; it is {ignore_end!r}.")


def check_guidable(family: Family, method: Method, *, own: bool) -> None:
    """Refuse guidance where there is nothing to guide away from, or for a method that reads the target otherwise (ValueError).

    Args:
        own: the loop would read with the family's target itself.
    """
    if family.raster is None:
        raise ValueError(f"{family.name} writes text. Guidance other than 1 is for families that draw pictures.")
    if not family.untold:
        raise ValueError(
            f"{family.name} cannot be guided: one place of its prompts has no word {OPEN!r}, so it has never drawn without being "
            "told what. Set guidance to 1."
        )
    if not own or head_of(method):
        raise ValueError(f"{method.title} reads the target in a way of its own, which cannot be guided. Set guidance to 1.")


def head_name(method: str) -> str:
    """What drafts in a method: its head if it has one and no draft model."""
    needs = METHODS[method]
    return f"{needs.title} head" if head_of(needs) and not needs.requires(DraftModel) else "drafter"


def not_finite(model: str, family: str, step: int, dtype: str) -> str:
    """What happened, where, and what to try."""
    advice = {
        "float16": "float16 ends at 65,504 and overflowed: try bfloat16, or float32.",
        "bfloat16": "Try float32; if it is the same there, the weights are damaged.",
    }.get(dtype, "The weights may be damaged.")
    return f"The {model} of {family} put out numbers that are not finite in step {step} ({dtype}). {advice}"
