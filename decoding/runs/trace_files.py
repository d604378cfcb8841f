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
from decoding.sizes import sizes_of
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
    check_trace(sizes_of(trace))
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
    """One line per drafted node of all steps, with the numbers of the row it stands at. Column by column: pandas goes through a
    list of lines as one piece of work, for which all visitors wait."""
    lines = [(number, i, step, node) for number, step in enumerate(trace.steps) for i, node in enumerate(step.nodes)]
    nodes, rows = [node for *_, node in lines], [row_of(step, node) for _, _, step, node in lines]
    text = {token: piece.decode("utf-8", "backslashreplace") for token, piece in trace.token_bytes.items()}
    columns = {"step": [number for number, *_ in lines], "node": [i for _, i, *_ in lines]}
    columns |= {name: [getattr(node, name) for node in nodes] for name in ("parent", "token", "q", "p", "u", "verdict", "source")}
    columns |= {"text": [text.get(node.token, "") for node in nodes]}
    columns |= {name: [getattr(row, name, None) for row in rows] for name in ("entropy", "overlap", "kl")}
    names = dict.fromkeys(name for node in nodes for name in node.scores)
    return pd.DataFrame(columns | {f"score: {name}": [node.scores.get(name) for node in nodes] for name in names})


def row_of(step: Step, node: Node) -> Row | None:
    """The row at which a node was judged, where it was recorded."""
    return step.rows[node.parent + 1] if step.rows else None


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
