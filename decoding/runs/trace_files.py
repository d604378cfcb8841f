"""Traces as files: JSON (gzip) out and in, and tables of nodes and steps for other tools.

What comes in is untrusted: strictly typed, capped before and while it is unpacked, refused with a sentence.
"""

import gzip
import io
import zlib

import msgspec
import pandas as pd

from decoding import old_names
from decoding.checks import Quoted
from decoding.limits import check_brackets, check_trace, check_upload, limits
from decoding.trace import MAX_BYTES, Node, Row, Step, Trace, Versioned, check_schema, check_steps, convert

MAX_RATIO, MAX_SMALL = 50, 16 * 2**20  # how much more a packed file may unpack to, and bytes that it may in any case
MAX_UPLOAD = 50 * 2**20  # bytes of a file as it comes
FORMAT = "draftscope-trace"


class TraceFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the JSON file holds."""

    format: str
    trace: Trace


class VersionedFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: str
    trace: Versioned


def to_json(trace: Trace) -> bytes:
    """Trace -> gzipped JSON; the same trace always gives the same bytes."""
    return gzip.compress(msgspec.json.encode(TraceFile(FORMAT, trace)), mtime=0)


def from_json(data: bytes) -> Trace:
    """Gzipped or plain JSON -> Trace.

    Raises:
        ValueError: too large (also once unpacked), damaged, truncated, another format or version, numbers that cannot be, or more
            than this server opens.
    """
    if len(data) > MAX_UPLOAD:
        raise ValueError(f"The file has {len(data):,} bytes; at most {MAX_UPLOAD:,} are read.")
    check_upload(len(data))
    most = min(limits().unpacked or MAX_BYTES, max(MAX_SMALL, MAX_RATIO * len(data)), MAX_BYTES)
    text = unpacked(data, most) if data[:2] == b"\x1f\x8b" else data
    try:
        found = msgspec.json.decode(text, type=VersionedFile)
        if found.format != FORMAT:
            raise Quoted(f"The file says it is {found.format[:40]!r}, not {FORMAT!r}.")
        trace = read(text, found.trace.header.schema)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
        raise Quoted(f"This is not a Draftscope trace, or it is damaged: {error}") from error
    check_trace(len(trace.steps), trace.largest, trace.said, trace.length)
    return check_steps(trace)


def read(text: bytes, schema: int) -> Trace:
    """The trace of a file; msgspec's errors for what does not fit, ValueError for a later schema."""
    if schema == old_names.OLD_SCHEMA:
        check_brackets(text)
        data = msgspec.json.decode(text)
        return convert(old_names.trace(data["trace"]), Trace)
    check_schema(schema)
    return msgspec.json.decode(text, type=TraceFile).trace


def unpacked(data: bytes, most: int, what: str = "The file") -> bytes:
    """Gunzip at most so many bytes; a small file may unpack to any size. ValueError if it is more, damaged or cut short."""
    machine = zlib.decompressobj(wbits=31)
    try:
        text = machine.decompress(data, most + 1)
    except zlib.error as error:
        raise ValueError(f"{what} is damaged: {error}.") from error
    if len(text) > most:
        raise ValueError(f"{what} unpacks to more than {most:,} bytes; that is not read.")
    if not machine.eof:
        raise ValueError(f"{what} is cut short.")
    return text


def nodes_frame(trace: Trace) -> pd.DataFrame:
    """One line per drafted node of all steps, with the numbers of the row it stands at."""
    lines = [
        {"step": number, "node": i, **node_line(step, node, trace.token_bytes)}
        for number, step in enumerate(trace.steps)
        for i, node in enumerate(step.nodes)
    ]
    return pd.DataFrame(lines)


def node_line(step: Step, node: Node, token_bytes: dict[int, bytes]) -> dict:
    row: Row | None = step.rows[node.parent + 1] if step.rows else None
    line = {name: getattr(node, name) for name in ("parent", "token", "q", "p", "u", "verdict", "source")}
    line["text"] = token_bytes.get(node.token, b"").decode("utf-8", "backslashreplace")
    line |= {name: getattr(row, name, None) for name in ("entropy", "overlap", "kl")}
    return line | {f"score: {name}": value for name, value in node.scores.items()}


def steps_frame(trace: Trace) -> pd.DataFrame:
    """One line per step."""
    return pd.DataFrame(
        {
            "step": number,
            "drafted": len(step.nodes),
            "accepted": step.origins.count("accepted"),
            "tokens": len(step.tokens),
            "text": b"".join(trace.token_bytes.get(t, b"") for t in step.tokens).decode("utf-8", "backslashreplace"),
            "draft_calls": step.draft_calls,
            **{f"{phase}_ms": getattr(step.times, phase) for phase in step.times.__struct_fields__},
            "ending": step.ending,
        }
        for number, step in enumerate(trace.steps)
    )


def to_parquet(frame: pd.DataFrame) -> bytes:
    out = io.BytesIO()
    frame.to_parquet(out, index=False)
    return out.getvalue()
