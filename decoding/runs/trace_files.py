"""Traces as files: JSON (gzip) out and in, and tables of nodes and steps for other tools.

What comes in is untrusted: strictly typed, capped before and while it is unpacked, refused with a sentence.
"""

import gzip
import io
import zlib

import msgspec
import pandas as pd

from decoding.trace import MAX_BYTES, SCHEMA, Node, Row, Step, Trace, check_steps

MAX_UPLOAD = 50 * 2**20  # bytes of a file as it comes
FORMAT = "draftscope-trace"


class Parcel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the JSON file holds."""

    format: str
    trace: Trace


def to_json(trace: Trace) -> bytes:
    """Trace -> gzipped JSON; the same trace always gives the same bytes."""
    return gzip.compress(msgspec.json.encode(Parcel(FORMAT, trace)), mtime=0)


def from_json(data: bytes) -> Trace:
    """Gzipped or plain JSON -> Trace.

    Raises:
        ValueError: too large (also once unpacked), damaged, truncated, another format or version, or numbers that cannot be.
    """
    if len(data) > MAX_UPLOAD:
        raise ValueError(f"The file has {len(data):,} bytes; at most {MAX_UPLOAD:,} are read.")
    text = unpacked(data) if data[:2] == b"\x1f\x8b" else data
    try:
        parcel = msgspec.json.decode(text, type=Parcel)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
        raise ValueError(f"This is not a Draftscope trace, or it is damaged: {error}") from error
    if parcel.format != FORMAT:
        raise ValueError(f"The file says it is {parcel.format[:40]!r}, not {FORMAT!r}.")
    if parcel.trace.header.schema != SCHEMA:
        raise ValueError(f"The trace has schema {parcel.trace.header.schema}; this version reads schema {SCHEMA}.")
    return check_steps(parcel.trace)


def unpacked(data: bytes) -> bytes:
    """Gunzip at most MAX_BYTES; a small file may unpack to any size."""
    machine = zlib.decompressobj(wbits=31)
    try:
        text = machine.decompress(data, MAX_BYTES + 1)
    except zlib.error as error:
        raise ValueError(f"The file is damaged: {error}.") from error
    if len(text) > MAX_BYTES:
        raise ValueError(f"The file unpacks to more than {MAX_BYTES:,} bytes; that is not read.")
    if not machine.eof:
        raise ValueError("The file is cut short.")
    return text


def nodes_frame(trace: Trace) -> pd.DataFrame:
    """One line per drafted node of all steps, with the numbers of the row it stands at."""
    lines = [
        {"step": number, "node": i, **node_line(step, node, trace.pieces)}
        for number, step in enumerate(trace.steps)
        for i, node in enumerate(step.nodes)
    ]
    return pd.DataFrame(lines)


def node_line(step: Step, node: Node, pieces: dict[int, bytes]) -> dict:
    row: Row | None = step.rows[node.parent + 1] if step.rows else None
    line = {name: getattr(node, name) for name in ("parent", "token", "q", "p", "u", "verdict", "source")}
    line["text"] = pieces.get(node.token, b"").decode("utf-8", "backslashreplace")
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
            "text": b"".join(trace.pieces.get(t, b"") for t in step.tokens).decode("utf-8", "backslashreplace"),
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
