"""Method: what a decoding method is to the rest of the program, and Drafter: what it must be able to do.

A method is one file in `decoding.methods` that ends in `METHOD = Method(...)`. Its parameters are the fields of a frozen
dataclass, made with `param`; the pages derive their controls from them and `checked` refuses what does not fit.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

from torch import Generator, Tensor

from decoding.checks import Quoted
from decoding.draft import Draft, TargetOutput
from decoding.sample import Sampling
from decoding.verify import Accept, Verification


@dataclass(frozen=True, eq=False)
class Observed:
    """Numbers that are known once a draft of n nodes was judged; the step has them beside those of the draft."""

    scores: Mapping[str, Tensor] = field(default_factory=dict)  # (n,) each, NaN for nodes that have no such number
    facts: Mapping[str, float | Tensor] = field(default_factory=dict)  # numbers, or tensors of one that are still on the device
    grids: Mapping[str, Tensor] = field(default_factory=dict)  # uint8, of any shape: what is known of every token of the text


NOTHING = Observed()


class Drafter:
    """Guesses what comes next, and learns from what was kept. Owns no randomness: it is handed in."""

    aux_hidden_layers: tuple[int, ...] = ()  # target layers it wants to see
    reads_prompt = False  # True: `begin` gets a row for every prompt token but the last, part by part
    reads_prompt_hidden = (
        False  # True: `begin` gets the states at `aux_hidden_layers` of every prompt token but the last; logits of the last of them
    )
    context: int | None = None  # positions it can read; None = as many as the target

    def begin(self, tokens: Sequence[int], output: TargetOutput | None) -> None:
        """Called after the prompt was read; `tokens` is the whole prompt. Before that, if `reads_prompt`, with each part of it that
        was read, and (len(tokens), ...) logits.

        Args:
            output: with one row of logits, and (len(tokens) - 1, ...) states if `reads_prompt_hidden`. None if that is not set or
                the prompt is a single token.
        """

    def propose(self, tokens: Sequence[int], rng: Generator) -> Draft:
        """Draft below `tokens`, the committed text."""
        raise NotImplementedError

    def observe(self, draft: Draft, output: TargetOutput, verification: Verification) -> Observed | None:
        """Called after every step; `verification.path` holds the nodes that were committed. What it makes of them for the trace is
        returned, if there is anything; the draft is left as it is."""


class Requirement(Protocol):
    """Something that a family must have for a method."""

    words: str  # "a draft model"
    part: str  # of the family, that it is or reads: "target" or "draft"

    def lacking(self, method: Any, family: Any) -> str:
        """Why the family has it not, as a sentence; "" if it has."""
        ...

    def parameters(self, method: "Method", family: Any) -> int:
        """How many numbers were trained for it."""
        ...


def always(values: Mapping[str, Any], greedy: bool) -> bool:
    return True


def never(values: Mapping[str, Any], greedy: bool) -> bool:
    return False


def as_it_is(target: Any, params: Any) -> Any:
    return target


@dataclass(frozen=True)
class Method:
    """Everything a page, a script or a test asks of a method."""

    key: str
    title: str
    paper: str  # address
    authors: str  # and venue
    year: int
    group: str  # a key of `decoding.methods.GROUPS`: where its guesses come from
    line: str  # what it does in one line, for a menu
    idea: str  # one or two sentences
    algorithm: tuple[str, ...]  # one step after the other
    lossless: str  # why, and for which drafts
    params: type
    build: Callable[[Any, Any, Sampling], tuple[Drafter, Accept]]  # (family, parameters, sampling)
    requirements: tuple[Requirement, ...] = ()  # what a family must have, asked in this order
    wrap: Callable[[Any, Any], Any] = as_it_is  # (target, parameters) -> what the loop reads with: the target, or one in its place
    lossless_with: Callable[[Mapping[str, Any], bool], bool] = always  # (parameters, greedy); a name that is missing: its default

    def missing(self, family: Any) -> str:
        """Why this family cannot serve the method, or ""; the family may be a stand-in (`decoding.models.requirements`)."""
        return next((reason for one in self.requirements if (reason := one.lacking(self, family))), "")

    def requires(self, kind: type) -> bool:
        """Whether one of its requirements is of this kind."""
        return any(isinstance(one, kind) for one in self.requirements)

    def parameters(self, family: Any) -> int:
        """How many numbers were trained for it beside the target's."""
        return sum(one.parameters(self, family) for one in self.requirements)

    @property
    def is_lossless(self) -> bool:
        """With the parameters it comes with, at any temperature."""
        return self.lossless_with({}, False)

    def checked(self, values: Mapping[str, Any]) -> Any:
        """The method's parameters, defaults filled in.

        Raises:
            ValueError: an unknown name, a value of the wrong kind, or one outside its range.
        """
        return checked_params(self.title, self.params, values)


def checked_params(title: str, kind: type, values: Mapping[str, Any]) -> Any:
    """Parameters of `kind`, a dataclass of `param`, for what is called `title`; ValueError as in `Method.checked`."""
    known = {f.name: f for f in fields(kind)}
    for name, value in values.items():
        if name not in known:
            raise Quoted(f"{title} has no parameter {name!r}; it has {', '.join(known) or 'none'}.")
        check_value(known[name], value)
    return kind(**values)


def param(
    default: Any, label: str, help: str, *, low: Any = None, high: Any = None, choices: tuple = (), longest: int | None = None
) -> Any:
    """A parameter: a dataclass field with what a page needs to draw a control. A free text says how many characters it may have."""
    rules = {"label": label, "help": help, "low": low, "high": high, "choices": choices, "longest": longest}
    return field(default=default, metadata=rules)


def check_value(spec: dataclasses.Field, value: Any) -> None:
    """Refuse `value` for the parameter `spec` with a sentence (ValueError)."""
    rules, label, kind = spec.metadata, spec.metadata["label"], type(spec.default)
    if rules["choices"]:
        if value not in rules["choices"]:
            raise Quoted(f"{label} must be one of {', '.join(map(str, rules['choices']))}; it is {value!r}.")
        return
    if isinstance(value, bool) != (kind is bool) or not isinstance(value, (kind, int) if kind is float else kind):
        raise Quoted(f"{label} must be of kind {kind.__name__}; it is {value!r}.")
    if kind is str:
        if len(value) > rules["longest"]:
            raise ValueError(f"{label} may have {rules['longest']} characters; it has {len(value):,}.")
        if any(0xD800 <= ord(c) <= 0xDFFF for c in value):
            raise Quoted(f"{label} holds half of a character, which no text can; it is {value!r}.")
        return
    if kind is not bool and not rules["low"] <= value <= rules["high"]:
        raise ValueError(f"{label} must lie between {rules['low']} and {rules['high']}; it is {value}.")
