"""What the app and the machines of a cluster say to each other: plain data in MessagePack, the trace's own steps among it.

Nothing is pickled, and what comes back is held against the types and limits of a trace, as an uploaded file is. No torch here.
"""

from __future__ import annotations

from typing import Any

import msgspec

from decoding.trace import SCHEMA, Header, Message, SamplingData, Step, Token, Word, impossible

Models = tuple[str, str | None, str, str]  # target, draft model, device, number format


class Order(msgspec.Struct, frozen=True):
    """One run, as it is asked for. The prompt is a text, a chat, or token ids: one of the three is there."""

    models: Models
    method: str
    params: dict[str, Any]
    sampling: SamplingData
    seed: int
    max_tokens: int
    text: str = ""
    messages: tuple[Message, ...] = ()
    tokens: tuple[int, ...] = ()
    record: bool = True
    template: dict[str, bool | int | float | str] | None = None
    stop: tuple[int | str, ...] = ()
    ignore_end: bool = False


class Begun(msgspec.Struct, frozen=True, tag=True):
    """A run was made."""

    header: Header
    token_bytes: dict[Token, bytes]
    notes: tuple[str, ...]


class Taken(msgspec.Struct, frozen=True, tag=True):
    """A step was taken."""

    step: Step
    token_bytes: dict[Token, bytes]  # of the tokens that had not occurred before


class Over(msgspec.Struct, frozen=True, tag=True):
    """There is no further step."""


class Failed(msgspec.Struct, frozen=True, tag=True):
    """What went wrong, in a sentence."""

    said: str
    kind: str  # "refused", "quoted" (it holds nothing but what the user wrote), or "broken"


class Known(msgspec.Struct, frozen=True, tag=True):
    """What is to be known of a family before runs of it are asked for."""

    name: str
    chats: bool
    missing: dict[Word, str]  # method -> why the family cannot serve it, or ""
    parameters: dict[Word, int]  # method that it can serve -> how many numbers were trained for it
    notes: tuple[str, ...] = ()


class Ready(msgspec.Struct, frozen=True, tag=True):
    """A machine has started, with this version of the trace."""

    schema: int = SCHEMA


class Doing(msgspec.Struct, frozen=True, tag=True):
    """How far something long is; a total of 0 is not known."""

    stage: str
    done: int = 0
    total: int = 0


Answer = Begun | Taken | Over | Failed | Known | Ready | Doing


def encode(value: Any) -> bytes:
    return msgspec.msgpack.encode(value)


def decode(data: bytes, kind: Any) -> Any:
    """Bytes -> a value of this kind; ValueError for what is none, or a step that cannot be."""
    try:
        found = msgspec.msgpack.decode(data, type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise ValueError(f"A machine of the cluster sent what cannot be read: {error}.") from error
    if isinstance(found, Taken) and (problem := impossible(found.step)):
        raise ValueError(f"A machine of the cluster sent a step that cannot be: {problem}.")
    return found
