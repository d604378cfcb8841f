"""Chat: messages -> the text that a model's template makes of them, and what can be told of a chat without a model. No torch.

A template is a program that comes with a model. Those of the models that come with the app run here, in the sandbox of
transformers; another's runs in such a sandbox in a process of its own. Either is ended when it takes too long or writes too much,
and whatever it raises is a sentence.
"""

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec

from decoding.checks import Quoted
from decoding.limits import limits
from decoding.models import apart
from decoding.models.apart import RENDERING
from decoding.models.catalogue import MODELS, NAMED
from decoding.trace import Message

ROLES = ("system", "user", "assistant")
EXAMPLE = "[{'role': 'user', 'content': 'Hello'}]"
MAX_MESSAGES = 200
MAX_CHAT = 100_000  # characters of all messages together
MAX_RENDERED = 4 * MAX_CHAT  # characters that a template may write
MAX_SECONDS = 5.0  # that it may take here
SANDBOX = "decoding.models.template_sandbox"
MAX_OPTIONS, MAX_OPTION = 16, 200  # how many, and characters of one
MAX_CONFIG = 16 * 2**20  # bytes of a tokenizer_config.json that is looked into
OPTION = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
# what `apply_chat_template` and the sandbox call their own: an option of such a name would change more than the text
TAKEN = {
    "self", "conversation", "conversations", "messages", "tools", "documents", "chat_template", "add_generation_prompt",
    "continue_final_message", "tokenize", "sanitize_control_tokens", "padding", "truncation", "max_length", "return_tensors",
    "return_dict", "return_assistant_tokens_mask", "tokenizer_kwargs", "kwargs",
}  # fmt: skip
KINDS = (bool, int, float, str)  # of options
WORDS = {"true": True, "on": True, "false": False, "off": False}  # how an option is switched in writing

Option = bool | int | float | str


# -- messages and options, checked --------------------------------------------------------------------------------------


def is_chat(prompt: Any) -> bool:
    """Whether a prompt is meant as messages: a list that holds anything but numbers."""
    listed = isinstance(prompt, Sequence) and not isinstance(prompt, (str, bytes))
    return listed and any(isinstance(part, (Mapping, Message)) for part in prompt)


def checked_messages(given: Sequence[object]) -> tuple[Message, ...]:
    """The messages of a chat that the model is to answer.

    Raises:
        ValueError: none at all or too many, another kind, an unknown role, an empty one, half of a character, a system message that
            is not the first, a last one that is not the user's, more characters than are read.
    """
    if not given:
        raise ValueError(f"A chat needs at least one message, as {EXAMPLE}.")
    if len(given) > MAX_MESSAGES:
        raise ValueError(f"The chat has {len(given):,} messages; at most {MAX_MESSAGES:,} are read.")
    found = tuple(checked_message(part, number) for number, part in enumerate(given, 1))
    if (count := sum(len(message.content) for message in found)) > MAX_CHAT:
        raise ValueError(f"The messages have {count:,} characters; at most {MAX_CHAT:,} are read.")
    if late := [number for number, message in enumerate(found, 1) if message.role == "system" and number > 1]:
        raise ValueError(f"Message {late[0]} is a system message; only the first message may be one.")
    if found[-1].role != "user":
        raise ValueError(f"The last message is the {found[-1].role}'s; it must be the user's, for the model to answer.")
    return found


def checked_message(given: object, number: int) -> Message:
    """One of them; ValueError with its number if it is none."""
    fields = msgspec.structs.asdict(given) if isinstance(given, Message) else given
    if not isinstance(fields, Mapping) or set(fields) != {"role", "content"}:
        raise Quoted(f"Message {number} must have a role and a content, as in {EXAMPLE}; it is {short(given)}.")
    role, content = fields["role"], fields["content"]
    if role not in ROLES:
        raise Quoted(f"Message {number} has the role {short(role)}; there are {', '.join(ROLES)}.")
    if not isinstance(content, str):
        raise Quoted(f"The content of message {number} must be text; it is {short(content)}.")
    if role != "assistant" and not content.strip():  # a model may answer nothing
        raise ValueError(f"Message {number} ({role}) is empty. Write something, or leave it out.")
    if alone := [c for c in content if 0xD800 <= ord(c) <= 0xDFFF]:
        raise ValueError(f"Message {number} holds half of a character (U+{ord(alone[0]):04X}), which no text can; take it out.")
    return Message(role, content)


def short(value: object) -> str:
    return text if len(text := repr(value)) <= 80 else f"{text[:80]}…"


def checked_options(given: object) -> dict[str, Option]:
    """Options of a template, as `{"enable_thinking": False}`.

    Raises:
        ValueError: no mapping, too many, a name that is none or means something else, a value of another kind.
    """
    if not isinstance(given, Mapping):
        raise Quoted(f"Template options are given by name, as {{'enable_thinking': False}}; they are {short(given)}.")
    if len(given) > MAX_OPTIONS:
        raise ValueError(f"There are {len(given):,} template options; at most {MAX_OPTIONS} are read.")
    for name, value in given.items():
        if not isinstance(name, str) or not OPTION.fullmatch(name):
            raise Quoted(f"A template option is named like a variable, as enable_thinking; it is {short(name)}.")
        if name in TAKEN:
            raise Quoted(f"The name {name!r} is taken: a template option cannot be called so.")
        if not isinstance(value, KINDS) or (isinstance(value, str) and len(value) > MAX_OPTION):
            raise Quoted(f"The template option {name} must be a word, a number, True or False; it is {short(value)}.")
    return dict(given)


def read_options(text: str) -> dict[str, Option]:
    """What a field or a link says; ValueError for what cannot be.

    >>> read_options("enable_thinking=false, effort=low, budget=100")
    {'enable_thinking': False, 'effort': 'low', 'budget': 100}
    """
    found: dict[str, Option] = {}
    if len(text) > (most := MAX_OPTIONS * 2 * MAX_OPTION):
        raise ValueError(f"The template options have {len(text):,} characters; at most {most:,} are read.")
    for part in filter(None, map(str.strip, text.split(","))):
        name, sign, value = part.partition("=")
        if not sign:
            raise Quoted(f"Template options are written NAME=VALUE, parted by commas; one is {short(part)}.")
        found[name.strip()] = option(value.strip())
    return checked_options(found)


def option(text: str) -> Option:
    """A written value, of the kind that it looks like."""
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    if re.fullmatch(r"-?[0-9]{1,15}", text):
        return int(text)
    return float(text) if re.fullmatch(r"-?[0-9]{1,15}\.[0-9]{1,15}", text) else text


def write_options(options: Mapping[str, Option]) -> str:
    """
    >>> write_options({"enable_thinking": False, "effort": "low"})
    'enable_thinking=false, effort=low'
    """
    return ", ".join(f"{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in options.items())


# -- templates ------------------------------------------------------------------------------------------------------------


def has_template(source: str) -> bool | None:
    """Whether a target has a chat template, from the files of its folder alone; None where that cannot be told."""
    if source in MODELS:
        return MODELS[source].chat
    if not limits().allows(source):
        return False
    folder = Path(source) if os.path.isdir(source) else hub_folder(source)
    if folder is None:
        return None
    if (folder / "chat_template.jinja").is_file() or (folder / "chat_template.json").is_file():
        return True
    config = folder / "tokenizer_config.json"
    try:
        if config.stat().st_size > MAX_CONFIG:
            return None
        found = json.loads(config.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):  # loading the model says what is wrong with it
        return False
    return isinstance(found, dict) and bool(found.get("chat_template"))


def hub_folder(source: str) -> Path | None:
    """Where the files of a Hub id lie on this machine; nothing is fetched."""
    from huggingface_hub import try_to_load_from_cache  # not at the top: most targets are no Hub ids
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(source, "config.json")
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None


class Endless(Exception):
    """A template took too long or wrote too much."""


class Refusal(Exception):
    """A template does not take the messages, in its own words."""


def rendered(tokenizer: Any, messages: Sequence[Message], options: Mapping[str, Option], name: str) -> str:
    """The text that the template makes of the messages, with the beginning of the answer.

    Args:
        tokenizer: of the target, with a template.
        name: of the family, for sentences.

    Raises:
        ValueError: what the template says against them, or that it does not end.
    """
    chat = [{"role": message.role, "content": message.content} for message in messages]
    try:
        text = (filled_here if comes_with_us(name) else filled_apart)(tokenizer, chat, options)
    except Endless as error:
        raise ValueError(f"The chat template of {name} {error}; it was ended.") from None
    except Refusal as error:
        raise ValueError(f"The chat template of {name} does not take these messages: {said(error)}") from error
    if len(text) > MAX_RENDERED:
        raise ValueError(f"The chat template of {name} writes {len(text):,} characters; at most {MAX_RENDERED:,} are read.")
    return text


def comes_with_us(name: str) -> bool:
    """Whether the target of a family is shipped, or fetched by its checksum.

    >>> comes_with_us("smollm2 + embedded"), comes_with_us("Qwen/Qwen3-1.7B"), comes_with_us("smollm2x")
    (True, False, False)
    """
    return name in NAMED or name.startswith(tuple(f"{one} + " for one in NAMED))


def filled_here(tokenizer: Any, chat: list[dict[str, str]], options: Mapping[str, Option]) -> str:
    """Fill in a template in this thread (Endless, Refusal)."""
    try:
        with watched():
            return tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True, **options)
    except Endless:
        raise
    except Exception as error:  # it is somebody's program: it may raise anything
        raise Refusal(str(error) or type(error).__name__) from error


def filled_apart(tokenizer: Any, chat: list[dict[str, str]], options: Mapping[str, Option]) -> str:
    """The same in a process of its own, which can be ended whatever it does; who listens to the progress may end it, too."""
    values = {"messages": chat, "add_generation_prompt": True, **tokenizer.special_tokens_map, **options}
    try:
        asked = {"template": tokenizer.get_chat_template(), "values": values, "most": MAX_RENDERED}
    except ValueError as error:  # there are several, and none is the usual one
        raise Refusal(str(error)) from error
    steps = apart.run(SANDBOX, [str(RENDERING.seconds)], RENDERING, json.dumps(asked).encode())
    end = apart.end_of(steps, "filling in the chat template in a process of its own")
    if end.code == 0:
        answer = json.loads(end.answer)
        if "refused" in answer:
            raise Refusal(answer["refused"])
        return answer["text"]
    if end.code == 1:
        raise Endless(end.last_line)
    if end.code is None or end.late:
        raise Endless(f"takes longer than {RENDERING.seconds} seconds")
    raise Endless(f"ends the process that fills it in (signal {-end.code}), out of memory as a rule")


def said(error: Exception) -> str:
    """The first line of an error, without what a terminal would take for a command."""
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
    return "".join(c if c.isprintable() else " " for c in line)


@contextmanager
def watched() -> Iterator[None]:
    """End a template that runs on (Endless): jinja makes Python of it, whose lines can be followed in this thread."""
    end, written = monotonic() + MAX_SECONDS, 0

    def follow(frame, event, _):
        return line if frame.f_code.co_filename == "<template>" else None

    def line(frame, event, value):
        nonlocal written
        if monotonic() > end:
            raise Endless(f"takes longer than {MAX_SECONDS:g} seconds")
        if event == "return" and isinstance(value, str):  # a part that it yields
            written += len(value)
            if written > 2 * MAX_RENDERED:  # a macro's text counts twice: in it, and where it is put
                raise Endless(f"writes more than {MAX_RENDERED:,} characters")
        return line

    before = sys.gettrace()
    sys.settrace(follow)
    try:
        yield
    finally:
        sys.settrace(before)
