"""Settings: everything the controls say, as plain data, checked before anything is made of it."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from decoding.limits import check_models, check_params, check_prompt, check_tokens, limits
from decoding.methods import METHODS
from decoding.models.catalogue import HEADS, MODELS
from decoding.models.chat import checked_messages, has_template, read_options, write_options
from decoding.models.ends import read_stops, write_stops
from decoding.models.fetching import fetched, of_package
from decoding.models.names import DRAFTS_OF
from decoding.models.places import is_gguf
from decoding.models.rasters import raster_named
from decoding.runs.cluster import Maker, Member
from decoding.sample import Sampling
from decoding.trace import Header, Message
from pages.parts.shared.examples import CHAT_EXAMPLES, EXAMPLES

if TYPE_CHECKING:
    from decoding.runs.remote_run import RemoteRun
    from decoding.runs.run import Run

MAX_SEED = 2**53 - 1  # what a browser's number can hold
LEAST_TOP_P = 0.05  # where the slider begins
MAX_PROMPT = 20_000  # characters in the box and in a link
MAX_STOP = 2_000  # of all stop tokens as they are written


@dataclass(frozen=True)
class Settings:
    """One run, as it is asked for."""

    prompt: str = EXAMPLES["once"].prompt  # "" in a chat
    method: str = "speculative_sampling"
    params: Mapping[str, Any] = field(default_factory=dict)  # of the method; what is missing has its default
    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 1.0
    guidance: float = 1.0  # of an image family; 1 = off
    seed: int = 0
    max_tokens: int = 64
    target: str = "embedded"
    draft: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    messages: tuple[Message, ...] = ()  # of a chat; () = the prompt is a plain text
    template: str = ""  # options of the chat template, as they are written
    stop_tokens: str = ""  # tokens at which the run ends too, as they are written
    ignore_end: bool = False

    @property
    def full_params(self) -> dict[str, Any]:
        """All parameters of the method; a ValueError for one that does not fit."""
        return asdict(METHODS[self.method].checked(self.params))

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.temperature, self.top_k, self.top_p, self.guidance)

    @property
    def models(self) -> tuple[str, str | None, str, str]:
        return self.target, self.draft, self.device, self.dtype

    @property
    def to_fetch(self) -> str:
        """The model of the catalogue that has to be brought to this machine first; "" if all are here, or nothing can be told."""
        return next((name for name in (self.target, self.draft) if name and is_to_fetch(name)), "")

    def on_embedded(self) -> "Settings":
        """The same with the embedded family, which takes no chat: the last words of it as a text, or the usual example in the place
        of an example that is a question."""
        said = self.messages[-1].content if self.messages else self.prompt
        asked = self.messages and said in {example.prompt for example in CHAT_EXAMPLES.values()}
        plain = {"messages": (), "template": "", "prompt": Settings().prompt if asked else said}
        return replace(self, target=Settings().target, draft=None, **plain)

    def problem(self) -> str:
        """What is wrong with them, as far as it can be told without a model; "" if nothing is."""
        try:
            check_models(self.target, self.draft, self.device, self.dtype)
            check_tokens(self.max_tokens)
            check_prompt(sum(len(message.content) for message in self.messages) or len(self.prompt))
            if reason := models_problem(self.target, self.draft):
                return reason
            if reason := METHODS[self.method].missing(family_named(self.target, self.draft)):
                return reason
            if self.messages:
                check_chat(self)
            elif not self.prompt.strip():
                return "The prompt is empty. Write a few words for the target to continue."
            check_params(self.full_params)
            _ = self.sampling, read_stops(self.stop_tokens)
        except ValueError as error:
            return str(error)
        return ""

    def maker(self, context: tuple[int, ...] = ()) -> Maker:
        """What builds the run, here or on a member of a cluster; called on the worker's thread, where the models are loaded.

        Args:
            context: tokens to go on from in place of the prompt's.
        """

        def make(member: Member | None) -> "Run | RemoteRun":
            from decoding.models.family_cache import family
            from decoding.runs.run import begin

            return begin(
                family(*self.models) if member is None else member.family(self.models),
                self.method,
                self.full_params,
                context or self.messages or self.prompt,
                self.sampling,
                self.seed,
                self.max_tokens,
                template_options=read_options(self.template) if self.messages else None,
                stop=read_stops(self.stop_tokens),
                ignore_end=self.ignore_end,
            )

        return Maker(self.models, make)

    def instead(self, method: str, params: Mapping[str, Any] | None = None, tokens: int | None = None) -> "Settings":
        """The same with another method.

        Args:
            tokens: at most so many, at least one, to go no further than a run that it is compared with.
        """
        limit = self.max_tokens if tokens is None else max(1, min(tokens, self.max_tokens))
        return replace(self, method=method, params=params or {}, max_tokens=limit)

    def same_run(self, other: "Settings") -> bool:
        return replace(self, params=self.full_params) == replace(other, params=other.full_params)


def check_chat(settings: Settings) -> None:
    """Refuse a chat that cannot be, as far as it can be told without a model (ValueError)."""
    if has_template(settings.target) is False:
        raise ValueError(f"This is a chat, and {settings.target!r} has no chat template: choose a model that has one under Model.")
    checked_messages(settings.messages)
    read_options(settings.template)


def is_to_fetch(name: str) -> bool:
    """Whether a name is one of the catalogue whose model is not on this machine; not of what this server does not offer."""
    return limits().allows(name) and bool(of_package(name)) and not fetched(name)


def models_problem(target: str, draft: str | None) -> str:
    """What is wrong with the names of the models, before anything is loaded; "" if nothing can be told."""
    try:
        check_models(target, draft)
    except ValueError as error:
        return str(error)
    for what, name in (("target", target), ("draft model", draft)):
        if name == "":
            return f"Name the folder or the Hub id of the {what}."
        if name is not None and is_to_fetch(name):
            if not limits().downloads:
                return f"This demo does not have {MODELS[name].title}; choose another model under Model."
            return (
                f"{MODELS[name].title} is not on this machine yet. The button under Model brings it, or, in a terminal: "
                f"draftscope fetch {name}"
            )
        if name is not None and is_gguf(name):
            if not os.path.isfile(name):
                return f"There is no file {name!r} for the {what}."
            continue
        path = name is not None and (os.path.isabs(name) or name.startswith((".", "~")) or name.count("/") > 1)
        if path and not os.path.isdir(name):
            return f"There is no folder {name!r} for the {what}."
    return ""


def family_named(target: str, draft: str | None) -> SimpleNamespace:
    """Enough of a family for `Method.missing`, without loading it; whether the tokenizers agree is known once it was."""
    from decoding.models.family_cache import loaded

    name = target if draft is None else f"{target} + {draft}"
    known = loaded(target, draft)
    other = known.other_draft if known else None
    heads = published(draft)
    draft = None if heads else draft
    sources = {"target": target, "draft": draft or DRAFTS_OF.get(target)}
    model = object() if sources["draft"] and not other else None
    return SimpleNamespace(name=name, draft=model, other_draft=other, sources=sources, heads=heads, raster=raster_named(target))


def models_notes(target: str, draft: str | None) -> tuple[str, ...]:
    """What is to be known of these models, as far as they were loaded."""
    from decoding.models.family_cache import loaded

    known = loaded(target, draft)
    return known.notes if known else ()


def published(draft: str | None) -> dict[str, Path]:
    """What the name of a draft model stands for if it is a published head: its method, and its folder or Hub id."""
    from decoding.models.published_heads import method_of

    if not limits().allows(draft):
        return {}
    folder = draft and (fetched(draft) or draft)
    try:
        method = method_of(folder and str(folder)) or HEADS.get(draft or "", "")
    except ValueError:  # loading it says why
        return {}
    return {method: Path(folder)} if folder and method else {}


def settings_of(header: Header) -> Settings:
    """The settings a trace of a family of the catalogue was made with."""
    sampling = header.sampling
    target, _, draft = header.family.partition(" + ")
    return Settings(
        target=target,
        draft=draft or None,
        prompt="" if header.messages else header.prompt,
        messages=header.messages,
        template=write_options(header.template_options),
        method=header.method,
        params=dict(header.params),
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        guidance=sampling.guidance,
        seed=header.seed,
        max_tokens=header.max_tokens,
        stop_tokens=write_stops(header.stop),
        ignore_end=header.ignore_end,
    )
