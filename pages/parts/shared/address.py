"""A link that reopens the same run: settings, step and node, as the address bar carries them.

Whoever wrote a link is not trusted: every value is checked before it is used, one that does not fit is reported in a sentence
and left out, and a model that is named in a link is never loaded.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any
from urllib.parse import urlencode

from decoding import old_names
from decoding.limits import check_params, limits
from decoding.methods import METHODS
from decoding.models.catalogue import NAMED
from decoding.models.chat import checked_messages, has_template, read_options
from decoding.models.ends import read_stops
from decoding.models.rasters import raster_named
from decoding.sample import Sampling
from decoding.trace import MAX_TOKENS, Message
from pages.parts.shared.examples import CHAT_EXAMPLES, EXAMPLES
from pages.parts.shared.settings import LEAST_TOP_P, MAX_PROMPT, MAX_SEED, MAX_STOP, Settings
from viz.tokens import plain

VERSION = "1"
LONGEST = 4_000  # characters of a prompt that a link carries; browsers and proxies cut longer addresses
DRAFTS = ("embedded", "embedded-hyper")  # draft models that a link may name
STREAMLITS = {"embed", "embed_options"}
NUMBERS = {"top_k": (0, 1000), "seed": (0, MAX_SEED), "tokens": (1, MAX_TOKENS)}
FIELD = {"tokens": "max_tokens", "stop": "stop_tokens"}  # name in the link -> name in the settings
ASKED = {"prompt", "example", "chat"}  # what says what is asked


@dataclass(frozen=True)
class Place:
    """What a link asks for."""

    settings: Settings
    step: int | None = None  # counts from 1; 0 is the prompt; None: only the settings
    node: int | None = None
    complaints: tuple[str, ...] = field(default=())


def parameters(settings: Settings, step: int, node: int | None) -> dict[str, str]:
    """The link's parameters; ValueError if the prompt is too long for one."""
    found = {"v": VERSION} | (chat_parameters(settings) if settings.messages else prompt_parameters(settings))
    found |= {"method": settings.method} | {f"p.{name}": str(value) for name, value in settings.full_params.items()}
    found |= {"temperature": f"{settings.temperature:g}", "top_k": str(settings.top_k), "top_p": f"{settings.top_p:g}"}
    found |= {"guidance": f"{settings.guidance:g}"} if settings.guidance != 1 else {}
    found |= {"target": settings.target} if settings.target in set(NAMED) - {Settings().target} else {}
    found |= {"draft": settings.draft} if settings.draft in DRAFTS else {}
    found |= {"seed": str(settings.seed), "tokens": str(settings.max_tokens), "step": str(step)}
    found |= {"stop": settings.stop_tokens} if settings.stop_tokens.strip() else {}
    found |= {"ignore_end": "True"} if settings.ignore_end else {}
    return found | ({} if node is None else {"node": str(node)})


def prompt_parameters(settings: Settings) -> dict[str, str]:
    if len(settings.prompt) > LONGEST:
        raise ValueError(f"The prompt has {len(settings.prompt):,} characters; a link carries at most {LONGEST:,}.")
    example = next((key for key, e in EXAMPLES.items() if e.prompt == settings.prompt), None)
    return {"example": example} if example else {"prompt": settings.prompt}


def chat_parameters(settings: Settings) -> dict[str, str]:
    pairs = [[message.role, message.content] for message in checked_messages(settings.messages)]
    chat = json.dumps(pairs, ensure_ascii=False, separators=(",", ":"))
    if len(chat) > LONGEST:
        raise ValueError(f"The messages have {len(chat):,} characters; a link carries at most {LONGEST:,}.")
    return {"chat": chat} | ({"template": settings.template} if settings.template else {})


def left_out(settings: Settings) -> str:
    """What of the models a link cannot carry, in a sentence; "" if it carries all."""
    if settings.target not in NAMED:
        return "The link does not carry your own models: opened elsewhere it runs on the embedded family."
    if settings.draft not in (None, *DRAFTS):
        return "The link does not carry your own draft model: opened elsewhere it runs with the one that the target brings."
    return ""


def address(base: str, params: Mapping[str, str]) -> str:
    return f"{base.split('?')[0]}?{urlencode(params)}"


def parse(query: Mapping[str, str]) -> Place | None:
    """What the address asks for; None if it says nothing."""
    query = {key: value for key, value in query.items() if key not in STREAMLITS}
    if not query:
        return None
    if query.get("v", VERSION) != VERSION:
        return Place(Settings(), complaints=(f"The link is of version {shown(query['v'])}; this page reads version {VERSION}.",))
    complaints: list[str] = []
    settings = Settings()
    for part in (prompt_of, chat_of, method_of, params_of, sampling_of, numbers_of, ends_of):
        settings = part(query, settings, complaints)
    if (target := query.get("target")) in NAMED:
        settings = replace(settings, target=target)
    if "tokens" not in query and (raster := raster_named(settings.target)) is not None:
        settings = replace(settings, max_tokens=raster.pixels)  # a run draws all of them
    if not ASKED & query.keys() and has_template(settings.target):  # as on a page that nobody has written on yet
        settings = replace(settings, prompt="", messages=(Message("user", next(iter(CHAT_EXAMPLES.values())).prompt),))
    if (draft := query.get("draft")) in DRAFTS:
        settings = replace(settings, draft=draft)
    complaints += unknown(query, settings)
    step = check_int(query, "step", 0, MAX_TOKENS, complaints)
    if settings.messages and has_template(settings.target) is False:
        step = None
        complaints.append(
            f"The link carries a chat, and {settings.target} has no chat template. Choose a model that has one under Model: the "
            "messages are kept for it."
        )
    node = check_int(query, "node", -1, 4096, complaints)
    return Place(settings, step, node, tuple(complaints))


def shown(text: str) -> str:
    """A value from the address for a sentence: visible, short, in quotes."""
    return f"“{plain(text, 40)}”"


def prompt_of(query: Mapping[str, str], settings: Settings, complaints: list[str]) -> Settings:
    if "prompt" in query:
        most = limits().prompt or MAX_PROMPT
        if query["prompt"].strip() and len(query["prompt"]) <= most:
            return replace(settings, prompt=query["prompt"].replace("\r\n", "\n"))
        complaints.append(f"The prompt in the link is empty or longer than {most:,} characters; it was left out.")
    elif "example" in query:
        if query["example"] in EXAMPLES:
            return replace(settings, prompt=EXAMPLES[query["example"]].prompt)
        complaints.append(f"There is no example {shown(query['example'])}; there are {', '.join(EXAMPLES)}.")
    return settings


def chat_of(query: Mapping[str, str], settings: Settings, complaints: list[str]) -> Settings:
    """The messages of a chat, and the options of its template."""
    if "chat" not in query:
        return settings
    try:
        settings = replace(settings, messages=read_chat(query["chat"]), prompt="")
    except ValueError as error:
        complaints.append(f"The chat in the link was left out. {readable(error)}")
        return settings
    try:
        read_options(template := query.get("template", ""))
    except ValueError as error:
        complaints.append(f"template: {shown(query['template'])} was left out. {readable(error)}")
        return settings
    return replace(settings, template=template)


def read_chat(text: str) -> tuple[Message, ...]:
    """Messages as a link carries them: a JSON list of pairs of role and content."""
    if len(text) > (most := limits().prompt or MAX_PROMPT):
        raise ValueError(f"It has {len(text):,} characters; at most {most:,} are read.")
    try:
        pairs = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError("It is not a list of messages.") from error
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise ValueError("It is not a list of messages.")
    return checked_messages([{"role": role, "content": content} for role, content in pairs])


def method_of(query: Mapping[str, str], settings: Settings, complaints: list[str]) -> Settings:
    if "method" not in query or query["method"] in METHODS:
        return replace(settings, method=query.get("method", settings.method))
    complaints.append(f"There is no method {shown(query['method'])}; there are {', '.join(METHODS)}.")
    return settings


def params_of(query: Mapping[str, str], settings: Settings, complaints: list[str]) -> Settings:
    """Each parameter by itself, so that a bad one does not take the good ones with it."""
    given = {key.removeprefix("p."): query[key] for key in query if key.startswith("p.")}
    if not given:  # the method, and torch with it, is not asked for nothing
        return settings
    method, kinds = METHODS[settings.method], {f.name: f for f in fields(METHODS[settings.method].params)}
    good: dict[str, Any] = {}
    for name, text in old_names.params(settings.method, given).items():
        if name not in kinds:
            complaints.append(f"{method.title} has no parameter {shown(name)}.")
            continue
        try:
            value = converted(text, kinds[name].default)
            method.checked({name: value})
            check_params({name: value})
        except ValueError as error:
            complaints.append(f"{kinds[name].metadata['label']}: {shown(text)} was left out. {readable(error)}")
        else:
            good[name] = value
    return replace(settings, params=good)


def readable(error: ValueError) -> str:
    return plain(str(error), 200)


def sampling_of(query: Mapping[str, str], settings: Settings, complaints: list[str]) -> Settings:
    for name in ("temperature", "top_p", "guidance"):
        if name in query:
            try:
                value = converted(query[name], 1.0)
                Sampling(**{name: value})
                if name == "top_p" and value < LEAST_TOP_P:
                    raise ValueError(f"The least that this page offers is {LEAST_TOP_P}.")
                settings = replace(settings, **{name: value})
            except ValueError as error:
                complaints.append(f"{name}: {shown(query[name])} was left out. {readable(error)}")
    return settings


def numbers_of(query: Mapping[str, str], settings: Settings, complaints: list[str]) -> Settings:
    most = {"tokens": limits().tokens or MAX_TOKENS}
    found = {name: check_int(query, name, low, most.get(name, high), complaints) for name, (low, high) in NUMBERS.items()}
    return replace(settings, **{FIELD.get(name, name): value for name, value in found.items() if value is not None})


def ends_of(query: Mapping[str, str], settings: Settings, complaints: list[str]) -> Settings:
    """Stop tokens, and whether the end of the text ends the run."""
    found: dict[str, Any] = {}
    for name, read in (("stop", stop_of), ("ignore_end", lambda text: converted(text, False))):
        if name in query:
            try:
                found[FIELD.get(name, name)] = read(query[name])
            except ValueError as error:
                complaints.append(f"{name}: {shown(query[name])} was left out. {readable(error)}")
    return replace(settings, **found)


def stop_of(text: str) -> str:
    """Stop tokens as they are written; ValueError for what cannot be."""
    if len(text) > MAX_STOP:
        raise ValueError(f"It has {len(text):,} characters; at most {MAX_STOP:,} are read.")
    read_stops(text)
    return text.replace("\r\n", "\n") if text.strip() else ""


def check_int(query: Mapping[str, str], name: str, low: int, high: int, complaints: list[str]) -> int | None:
    """A whole number within its range, or None and a complaint."""
    if name not in query:
        return None
    try:
        value = converted(query[name], 0)
        if low <= value <= high:
            return value
    except ValueError:
        pass
    complaints.append(f"{name}: {shown(query[name])} is not a whole number from {low:,} to {high:,}; it was left out.")
    return None


def converted(text: str, example: Any) -> Any:
    """Text -> a value of the kind of `example`; ValueError if it is none.

    >>> converted("True", False), converted("12", 0), converted("0.5", 1.0), converted("3-2", "4-2")
    (True, 12, 0.5, '3-2')
    """
    if isinstance(example, bool):
        if text not in ("True", "False"):
            raise ValueError("It must be True or False.")
        return text == "True"
    if isinstance(example, int):
        if not re.fullmatch(r"-?[0-9]{1,18}", text):
            raise ValueError("It must be a whole number.")
        return int(text)
    if isinstance(example, float):
        if not re.fullmatch(r"-?[0-9]{0,9}\.?[0-9]{1,18}(e-?[0-9]{1,2})?", text):
            raise ValueError("It must be a number.")
        return float(text)
    return text


def unknown(query: Mapping[str, str], settings: Settings) -> Iterator[str]:
    """Parts of a link that mean nothing here."""
    known = {"v", "example", "prompt", "chat", "template", "method", "temperature", "top_p", "guidance", "step", "node", *NUMBERS}
    known |= {"stop", "ignore_end"}
    for name, value in query.items():
        if name in ("target", "draft"):
            if value not in (NAMED if name == "target" else DRAFTS):
                yield (
                    f"The link names the model {shown(value)}. Models named in links are never loaded; the embedded family is "
                    "used. Choose the model under Model if you trust it."
                )
        elif name not in known and not name.startswith("p."):
            yield f"The link has a part {shown(name)} that this page does not know."
