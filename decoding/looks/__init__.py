"""Looks: what lenses see, as frozen plain data. No torch, so that a look can be drawn, kept and exported where there is none.

The look of the lens X stands in `decoding/looks/X.py` as a subclass of `Look` with `tag="X"`, named `LOOK` there too. Tokens are
ids; their bytes go along in `token_bytes`. What is read back is untrusted: strict types and caps, as for a trace.
"""

from importlib import import_module
from pkgutil import iter_modules
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from decoding.trace import MAX_VOCABULARY, Count, Milliseconds, Piece, Place, Share, Text, Token, Values, Word

__all__ = ["MAX_LOOK", "Count", "Cursor", "Look", "Share", "Text", "Token", "Word", "decode_look", "encode_look"]

SCHEMA = 1
MAX_LOOK = 2 * 2**20  # bytes of one
MAX_NOTES = 16


class Cursor(NamedTuple):
    """Where one looks: an index of `Trace.steps`, or -1 for the prompt, and what of that step."""

    step: int
    node: int | None = None  # of Step.nodes; len(nodes) is the final token; -1 or None: the root, behind which the step begins


class Look(msgspec.Struct, frozen=True, kw_only=True, tag_field="lens", tag=""):
    """What every look has. A lens fills in `rows_read`, `token_bytes` and `notes`; the rest is whoever runs it (`LensRun`)."""

    family: Word = ""
    params: Values = {}
    step: Place = -1  # index in the trace; -1 is the prompt
    node: Place | None = None  # of that step; None: what the step wrote first
    rows_read: Count = 0  # by the target
    ms: Milliseconds = 0.0
    done: bool = False  # nothing follows
    notes: Annotated[tuple[Word, ...], Meta(max_length=MAX_NOTES)] = ()  # what whoever looks at it should know, in sentences
    token_bytes: Annotated[dict[Token, Piece], Meta(max_length=MAX_VOCABULARY)] = {}  # of every token that it names
    schema: Count = SCHEMA

    @property
    def key(self) -> str:
        """Of the lens."""
        return str(self.__struct_config__.tag)


class Tag(msgspec.Struct):
    """As much of a look as says whose it is."""

    lens: Word
    schema: Count = 0


def encode_look(look: Look) -> bytes:
    """Look -> MessagePack."""
    return msgspec.msgpack.encode(look)


def decode_look(data: bytes) -> Look:
    """MessagePack -> Look; untrusted input.

    Raises:
        ValueError: too large, damaged, of a lens or a schema that is not known.
    """
    if len(data) > MAX_LOOK:
        raise ValueError(f"The look has {len(data):,} bytes; at most {MAX_LOOK:,} are read.")
    try:
        tag = msgspec.msgpack.decode(data, type=Tag)
        if tag.lens not in {module.name for module in iter_modules(__path__)} or tag.schema != SCHEMA:
            raise ValueError(f"There is no lens “{tag.lens[:40]}” whose looks of schema {tag.schema} could be read.")
        return msgspec.msgpack.decode(data, type=import_module(f"{__name__}.{tag.lens}").LOOK)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
        raise ValueError(f"This is not a look of Draftscope, or it is damaged: {error}") from error
