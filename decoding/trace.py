"""What a run did, as frozen plain data: stored, compared with `==`, exported and replayed without a model.

No torch here. Everything the pages draw is a function of a Trace and a cursor; `viz` imports this file and nothing else of
`decoding`. Rows and nodes count alike everywhere: row 0 is the position right behind the committed text (the root), row
i + 1 the position behind node i, so node i stands at row `parent + 1`.

A trace has no circles, so the garbage collector is told not to look at its parts (`gc=False`). They are most of what a server has
in memory, and everybody waits while it looks.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from decoding import old_names

SCHEMA = 2  # what was written before is read through `decoding.old_names`
MAX_GRID = 2**17  # bytes of a grid
MAX_GRIDS = 8  # of a step
MAX_BYTES = 200 * 2**20  # of an encoded trace that is read back
MAX_TOKENS = 4096  # the highest limit that a run may have
MAX_NODES = 1024  # of a step; more than any method drafts
MAX_ROW = 64  # tokens of a row, beside those of nodes
MAX_PRUNED = 16_384  # candidates of a step that were left out
MAX_KINDS = 128  # of scores of all nodes, of facts of a step, of parameters
MAX_PIECE = 1024  # bytes of a token
MAX_VOCABULARY = 2**20  # different tokens that occur, and tokens of a prompt
MAX_TEXT = 2**20  # characters of a prompt or a message
MAX_WORD = 1000  # characters of a name
MAX_TURNS = 1000  # messages of a chat
MAX_SIDE = 64  # pixels of a picture
MAX_COLOURS = 256
MAX_BELIEVED = 2**53  # the largest number of a parameter, or of a score that counts

# what is read is held against these; what is made here keeps to them
Token = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Place = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]  # of a node in its step; -1 is the root
Count = Annotated[int, Meta(ge=0, le=2**53)]
Whole = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Share = Annotated[float, Meta(ge=0, le=1.01)]  # a probability, and what rounding adds to it
Bits = Annotated[float, Meta(ge=-1, le=1e6)]
Milliseconds = Annotated[float, Meta(ge=0, le=1e12)]
Word = Annotated[str, Meta(max_length=MAX_WORD)]
Text = Annotated[str, Meta(max_length=MAX_TEXT)]
Piece = Annotated[bytes, Meta(max_length=MAX_PIECE)]
Value = Whole | float | bool | Word
Values = Annotated[dict[Word, Value], Meta(max_length=MAX_KINDS)]
Numbers = Annotated[dict[Word, float], Meta(max_length=MAX_KINDS)]
Colour = Annotated[str, Meta(pattern="^#[0-9a-f]{6}$")]
Side = Annotated[int, Meta(ge=1, le=MAX_SIDE)]
Grids = Annotated[dict[Word, Annotated[bytes, Meta(max_length=MAX_GRID)]], Meta(max_length=MAX_GRIDS)]
Tokens = Annotated[tuple[Token, ...], Meta(max_length=MAX_VOCABULARY)]
Verdict = Literal["accepted", "rejected", "not judged"]
Origin = Literal["accepted", "bonus", "correction", "plain"]
T = TypeVar("T")
N = TypeVar("N", int, float)
Ending = Literal["", "end of text", "stop token", "token limit", "context limit", "context limit of the draft model"]


class Node(msgspec.Struct, frozen=True, gc=False):
    """One drafted token and what the target made of it."""

    token: Token
    parent: Place  # index in Step.nodes; -1 hangs below the root
    q: Share | None  # probability of the token under the distribution it was drawn from; None for a chosen node
    p: Share  # target probability it is judged with: after its elder siblings were rejected
    u: Share | None  # the uniform it is judged with, accepted if u * q < p; None where the target drew a token instead
    verdict: Verdict
    source: Word  # where it came from: "draft model", "prompt", "table", ...
    scores: Numbers  # method-specific numbers


class Pruned(msgspec.Struct, frozen=True, gc=False):
    """A candidate that the drafter looked at and did not submit; for the pictures only."""

    token: Token
    parent: Place  # index in Step.nodes; -1 hangs below the root
    score: float  # by which it was left out


class Row(msgspec.Struct, frozen=True, gc=False):
    """The distributions at one position, cut to the tokens that matter: the top of p, the top of q, and all that was drawn.

    The tuples run side by side, p descending. Probabilities are those after temperature, top-k and top-p; in a greedy run,
    where those are one-hot, p and q are shown at temperature 1 (what the nodes were judged with stands in the nodes).
    """

    tokens: tuple[Token, ...]
    p: tuple[Share, ...]
    q: tuple[Share, ...] | None  # the drafter's; None where it drafted nothing or has no distribution
    residual: tuple[Share, ...]  # what p leaves after every child was rejected; p itself without children
    entropy: Bits  # of p, in bits
    overlap: Share | None  # sum of min(p, q) over the whole vocabulary; 1 - overlap is the total variation distance
    kl: Bits | None  # KL(p || q) in bits, q floored at 1e-9
    sampled: Token | None  # the token the target drew here, where the rule draws first and matches then


Rows = Annotated[tuple[Row | None, ...], Meta(max_length=MAX_NODES + 1)]


class Times(msgspec.Struct, frozen=True, gc=False):
    """Milliseconds of one step."""

    propose: Milliseconds
    read: Milliseconds
    accept: Milliseconds
    commit: Milliseconds

    @property
    def total(self) -> float:
        return self.propose + self.read + self.accept + self.commit


class Step(msgspec.Struct, frozen=True, gc=False):
    """One target call: the draft tree, the verdicts, and the tokens that were committed."""

    nodes: Annotated[tuple[Node, ...], Meta(max_length=MAX_NODES)]  # parents before children, siblings in the order they were drawn
    rows: Rows  # len(nodes) + 1; None where nothing was drafted or drawn; () if recording was off
    path: tuple[Place, ...]  # the accepted nodes, in order
    tokens: tuple[Token, ...]  # committed: the tokens of the path, then the final one; cut where the text ended
    origins: tuple[Origin, ...]  # one per token
    draft_calls: Count  # calls of the drafter's model
    times: Times
    ending: Ending  # why the run ended with this step; "" if it goes on
    pruned: Annotated[tuple[Pruned, ...], Meta(max_length=MAX_PRUNED)] = ()
    facts: Numbers = {}  # method-specific numbers that belong to no node: what was measured, how many rows were read
    grids: Grids = {}  # method-specific small numbers of the text so far, a byte each: one per token, or one per layer and token

    def occurring(self) -> Iterator[int]:
        """Every token the step names, with repeats."""
        yield from self.tokens
        for node in (*self.nodes, *self.pruned):
            yield node.token
        for row in self.rows:
            if row is not None:
                yield from row.tokens

    @property
    def end_row(self) -> int:
        """The row the walk stopped at: where the bonus or correction was drawn."""
        return self.path[-1] + 1 if self.path else 0


class SamplingData(msgspec.Struct, frozen=True, gc=False):
    temperature: float
    top_k: Count  # 0 = off
    top_p: float  # 1 = off
    guidance: float = 1.0  # 1 = off


class Message(msgspec.Struct, frozen=True, gc=False):
    """One turn of a chat."""

    role: Word  # "system", "user" or "assistant"
    content: Text


class Raster(msgspec.Struct, frozen=True, gc=False):
    """Of an image family: a text is a prompt of a few words and behind it the pixels of a picture, row by row from the top.

    The first tokens of the vocabulary are the colours of the palette, in its order; tokens behind them are words and no pixels.
    """

    width: Side
    height: Side
    palette: Annotated[tuple[Colour, ...], Meta(min_length=2, max_length=MAX_COLOURS)]
    asks: Annotated[tuple[Annotated[tuple[Word, ...], Meta(min_length=1, max_length=MAX_COLOURS)], ...], Meta(max_length=8)]
    # the words that can stand at each place of a prompt

    @property
    def pixels(self) -> int:
        return self.width * self.height


class Header(msgspec.Struct, frozen=True, gc=False):
    """Everything needed to repeat the run. What has a default was not written by the first versions of this schema."""

    method: Word
    params: Values
    family: Annotated[str, Meta(max_length=4 * MAX_WORD)]  # which can be made of two paths
    sampling: SamplingData
    seed: Whole
    prompt: Text  # of a chat: the text that the model's template made of the messages
    prompt_tokens: Tokens
    max_tokens: Count
    device: Word
    dtype: Word
    versions: Annotated[dict[Word, Word], Meta(max_length=MAX_KINDS)]
    schema: Count = SCHEMA
    messages: Annotated[tuple[Message, ...], Meta(max_length=MAX_TURNS)] = ()  # of a chat
    template_options: Values = {}
    special_tokens: Tokens = ()  # of the tokenizer: marks such as the end of a turn, which are no text
    stop: Tokens = ()  # tokens of one's own that end the run
    ignore_end: bool = False  # the end of the text did not end it
    raster: Raster | None = None  # of an image family: what its tokens look like, so that a picture needs no model


def number_in(said: Mapping[str, Value], name: str, usual: N) -> N:
    """A parameter, or a score, that a picture needs, as a number of the kind of `usual`; that itself if none is there that could
    be.

    >>> number_in({"a": 3}, "a", 0.5), number_in({"b": "x"}, "b", 2), number_in({"c": 1e308}, "c", 2)
    (3.0, 2, 2)
    """
    value = said.get(name)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= MAX_BELIEVED:
        return type(usual)(value)
    return usual


class Trace(msgspec.Struct, frozen=True, gc=False):
    """All of a run. The bytes of a token may be half a character."""

    header: Header
    token_bytes: Annotated[dict[Token, Piece], Meta(max_length=MAX_VOCABULARY)]  # of every token that occurs
    steps: Annotated[tuple[Step, ...], Meta(max_length=MAX_TOKENS)]

    @property
    def is_plain(self) -> bool:
        """Whether the target wrote alone, one token per call: what all other runs are held against."""
        return self.header.method == "plain"

    def tokens_before(self, step: int) -> tuple[int, ...]:
        """The text in front of a step, by its index: the prompt, and what the steps before it committed."""
        return self.header.prompt_tokens + tuple(token for done in self.steps[: max(step, 0)] for token in done.tokens)

    def root(self, step: int) -> int | None:
        """The token that a step drafted behind, by its index; None where there is no text."""
        return next(reversed(self.tokens_before(step)), None)

    def text_bytes(self) -> bytes:
        """The committed text without the prompt."""
        return b"".join(self.token_bytes.get(t, b"") for step in self.steps for t in step.tokens)

    @property
    def answer(self) -> str:
        """The committed text without special tokens: what becomes the assistant's turn of a chat."""
        special = set(self.header.special_tokens)
        tokens = (t for step in self.steps for t in step.tokens if t not in special)
        return b"".join(self.token_bytes.get(t, b"") for t in tokens).decode("utf-8", "replace")


def encode(trace: Trace) -> bytes:
    """Trace -> MessagePack."""
    return msgspec.msgpack.encode(trace)


class Version(msgspec.Struct):
    """As much of a header as says how to read the rest."""

    schema: Count = old_names.OLD_SCHEMA


class Versioned(msgspec.Struct):
    header: Version


def decode_trace(data: bytes) -> Trace:
    """MessagePack -> Trace; untrusted input.

    Raises:
        ValueError: too large, damaged, of a later schema, or with numbers that cannot be (a parent behind its child, an unknown
            node in the path, rows that do not fit the nodes).
    """
    if len(data) > MAX_BYTES:
        raise ValueError(f"The trace has {len(data):,} bytes; at most {MAX_BYTES:,} are read.")
    try:
        schema = msgspec.msgpack.decode(data, type=Versioned).header.schema
        if schema == old_names.OLD_SCHEMA:
            trace = convert(old_names.trace(msgspec.msgpack.decode(data, strict=False)), Trace)
        else:
            check_schema(schema)
            trace = msgspec.msgpack.decode(data, type=Trace)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
        raise ValueError(f"This is not a Draftscope trace, or it is damaged: {error}") from error
    return check_steps(trace)


def convert(data: object, kind: type[T]) -> T:
    """Plain data of schema 1, its names renewed, as what it is now; msgspec.ValidationError if it is not.

    A header that is renewed says so: it is written in the new schema from then on.
    """
    made = msgspec.convert(data, kind, str_keys=True)
    if isinstance(made, Trace):
        return msgspec.structs.replace(made, header=msgspec.structs.replace(made.header, schema=SCHEMA))
    return msgspec.structs.replace(made, schema=SCHEMA) if isinstance(made, Header) else made


def check_schema(schema: int) -> None:
    """Refuse what a later version wrote (ValueError)."""
    if schema != SCHEMA:
        raise ValueError(f"The trace has schema {schema}; this version reads schema {old_names.OLD_SCHEMA} and {SCHEMA}.")


def check_steps(trace: Trace) -> Trace:
    """The trace itself; ValueError if a step's shape cannot be."""
    for number, step in enumerate(trace.steps):
        if problem := impossible(step):
            raise ValueError(f"Step {number + 1} of the trace cannot be: {problem}.")
    if (kinds := len({name for step in trace.steps for node in step.nodes for name in node.scores})) > MAX_KINDS:
        raise ValueError(f"The nodes of the trace have scores of {kinds:,} names; a method gives them at most {MAX_KINDS:,}.")
    return trace


def impossible(step: Step) -> str:
    """What is wrong with the shape of a step, or ""."""
    nodes, rows = len(step.nodes), [row for row in step.rows if row is not None]
    if any(not -1 <= node.parent < i for i, node in enumerate(step.nodes)):
        return "a node stands before its parent"
    if any(not -1 <= candidate.parent < nodes for candidate in step.pruned):
        return "a candidate that was left out hangs below a node that is not there"
    if any(not 0 <= i < nodes for i in step.path):
        return "its path names a node that is not there"
    if any(step.nodes[i].parent != before for before, i in zip((-1, *step.path), step.path, strict=False)):
        return "its path is not a chain from the root"
    if any(step.nodes[i].token != token for i, token in zip(step.path, step.tokens, strict=False)):
        return "its tokens are not those of its path"
    if step.rows and len(step.rows) != nodes + 1:
        return f"{len(step.rows)} rows for {nodes} nodes"
    if len(step.tokens) != len(step.origins):
        return f"{len(step.tokens)} tokens but {len(step.origins)} origins"
    if not max(1, len(step.path)) <= len(step.tokens) <= len(step.path) + 1:
        return f"{len(step.tokens)} tokens for a path of {len(step.path)}"
    if any(len(part) != len(row.tokens) for row in rows for part in (row.p, row.residual, row.q) if part is not None):
        return "a row whose columns differ in length"
    if any(len(row.tokens) > MAX_ROW + nodes for row in rows):
        return "a row of more tokens than a row has"
    if step.rows and any(step.rows[row] is None for row in (step.end_row, *(node.parent + 1 for node in step.nodes))):
        return "a node, or the last token, without the row that it stands at"
    return ""
