"""Dynamic tokenization: the words of a prompt read as one token each, merge by merge, and how far the target's next word moves.

Feher, Vulić and Minixhofer, ACL 2025, https://arxiv.org/abs/2411.18553: adjacent tokens inside words are merged, the most frequent
pair first, and the model reads one embedding in place of several, which a hypernetwork predicts (ZeTT: Minixhofer, Ponti and Vulić,
NeurIPS 2024, https://arxiv.org/abs/2405.07883). Compared is the row behind the text, KL(p || p_m), for a network that was trained
for this target, where there is one, and for the mean of the pieces.

Departures: there is no output vocabulary for merged words, so nothing is generated with them; merges are counted in this text alone
(`decoding.models.word_merges`); the network is small (`decoding.models.hypernetwork`); and a merged text is read with both readings
of its positions: numbered anew, as a text of other tokens would be, or each group at the position of its last piece.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import msgspec
import torch
from torch import Tensor, nn

from decoding.lens import BLOCK, Cost, Cursor, Lens, place_of
from decoding.looks.dynamic_tokenization import (
    MEAN,
    MOST,
    MOST_WORDS,
    NETWORK,
    ORIGINAL,
    RENUMBERED,
    SHOWN,
    Alone,
    DynamicTokenizationLook,
    Read,
    Row,
    groups,
)
from decoding.method import param
from decoding.models.family import Family
from decoding.models.heads import command
from decoding.models.hypernetwork import KEY, opened, read_in_place
from decoding.models.target import Target
from decoding.models.word_merges import fused_at
from decoding.trace import Trace

POSITIONS = (RENUMBERED, ORIGINAL)
Spans = list[tuple[int, int]]


@dataclass(frozen=True)
class Params:
    positions: str = param(
        RENUMBERED,
        "Positions",
        "Of merged words: numbered anew, or that of their last piece. The line shows both; the words alone are read with this one.",
        choices=POSITIONS,
    )
    points: int = param(6, "Points", "At so many numbers of merges the target reads the text.", low=2, high=32)
    words: int = param(6, "Words alone", "So many words are merged one at a time, the most frequent first.", low=0, high=MOST_WORDS)
    tokens: int = param(192, "Tokens", "At most so many tokens before the place are read, the last ones.", low=16, high=MOST)


@dataclass
class Reader:
    """One text, read by a target as often as it is asked to."""

    target: Target
    embedded: Tensor  # (n, width) of its tokens
    rows: int = 0  # that were read so far
    said: Tensor = field(default_factory=lambda: torch.empty(0))  # (vocab,) log p behind what was read last

    def read(self, spans: Spans, how: str, network: nn.Module | None) -> Iterator[None]:
        """Read it with these groups, in blocks, in a cache of its own."""
        rows, places = read_in_place(self.embedded, spans, network), positions(spans, how)
        cache = self.target.new_cache()
        for start in range(0, len(rows), BLOCK):
            part = rows[start : start + BLOCK]
            logits, _ = self.target.forward(cache, None, places[start : start + BLOCK], embeddings=part, last_only=True)
            cache.keep(range(len(part)))
            self.rows += len(part)
            self.said = logits[0].log_softmax(-1)
            yield


def positions(spans: Sequence[tuple[int, int]], how: str) -> list[int]:
    """Of every group: its number, or the position of its last token.

    >>> positions([(0, 1), (1, 4), (4, 5)], RENUMBERED), positions([(0, 1), (1, 4), (4, 5)], ORIGINAL)
    ([0, 1, 2], [0, 3, 4])
    """
    return [i if how == RENUMBERED else end - 1 for i, (_, end) in enumerate(spans)]


def look(family: Family, trace: Trace, cursor: Cursor, params: Params) -> Iterator[DynamicTokenizationLook]:
    """The network is opened here, before the first look."""
    ways: dict[str, nn.Module | None] = {MEAN: None}
    if (network := opened(family.target)) is not None:
        ways = {NETWORK: network} | ways
    context = place_of(trace, cursor).context
    tokens = context[-params.tokens :]
    pieces = family.token_bytes(tokens)
    fused = fused_at(tokens, [pieces[token] for token in tokens])
    base = DynamicTokenizationLook(
        tokens=tokens,
        left_out=len(context) - len(tokens),
        fused=fused,
        positions=params.positions,
        notes=notes(family, len(context) - len(tokens), NETWORK in ways),
        token_bytes=pieces,
    )
    return looks(family, base, ways, params)


def notes(family: Family, left_out: int, trained: bool) -> tuple[str, ...]:
    found = [f"{left_out:,} tokens before these were left out."] if left_out else []
    if not trained:
        found.append(
            f"The paper's embeddings come from a network that is trained for a target, and there is none for {family.name}: these "
            f"are averages of the pieces. This makes one: {command(KEY, family.name)} --data DIR."
        )
    return tuple(found)


def looks(
    family: Family, base: DynamicTokenizationLook, ways: dict[str, nn.Module | None], params: Params
) -> Iterator[DynamicTokenizationLook]:
    """The row behind the text as it is; the same at every number of merges; then each word alone."""
    target, tokens = family.target, base.tokens
    reader = Reader(target, target.embedded(target.ids(tokens)))
    yield base
    last = max(base.fused, default=0)
    for _ in reader.read(groups(base.fused, 0), RENUMBERED, None):
        yield msgspec.structs.replace(base, rows_read=reader.rows)
    truth = reader.said
    base = named(family, msgspec.structs.replace(base, top=top(truth)))
    for merges in marks(last, params.points):
        spans = groups(base.fused, merges)
        for how in POSITIONS:
            for way, network in ways.items():
                for _ in reader.read(spans, how, network) if merges else ():
                    yield msgspec.structs.replace(base, rows_read=reader.rows)
                found = Read(merges, way, how, divergence(truth, reader.said), same(truth, reader.said), top(reader.said))
                base = named(family, msgspec.structs.replace(base, reads=(*base.reads, found)))
    for word, times in words(base, params.words):
        spans = alone(base, word)
        for way, network in ways.items():
            for _ in reader.read(spans, params.positions, network):
                yield msgspec.structs.replace(base, rows_read=reader.rows)
            base = msgspec.structs.replace(base, words=(*base.words, Alone(word, times, way, divergence(truth, reader.said))))
    yield msgspec.structs.replace(base, rows_read=reader.rows)


def named(family: Family, look: DynamicTokenizationLook) -> DynamicTokenizationLook:
    """With the bytes of all tokens that it names so far."""
    tokens = {row.token for rows in (look.top, *(read.top for read in look.reads)) for row in rows}
    return msgspec.structs.replace(look, token_bytes=family.token_bytes({*look.tokens, *tokens}))


def marks(last: int, points: int) -> list[int]:
    """At which numbers of merges the text is read: none, all, and some between at equal distances.

    >>> marks(20, 5), marks(2, 8), marks(0, 8)
    ([0, 5, 10, 15, 20], [0, 1, 2], [0])
    """
    return sorted({round(i * last / (points - 1)) for i in range(points)})


def words(look: DynamicTokenizationLook, most: int) -> list[tuple[tuple[int, ...], int]]:
    """What is merged at the end, with how often it occurs: the most frequent first, of those the longer, then the earlier."""
    spans = groups(look.fused, max(look.fused, default=0))
    found = Counter(look.tokens[start:end] for start, end in spans if end - start > 1)
    return sorted(found.items(), key=lambda entry: (-entry[1], -len(entry[0])))[:most]


def alone(look: DynamicTokenizationLook, word: tuple[int, ...]) -> Spans:
    """The groups where only this word is merged, wherever it is at the end."""
    found: Spans = []
    for start, end in groups(look.fused, max(look.fused, default=0)):
        found += [(start, end)] if look.tokens[start:end] == word else [(i, i + 1) for i in range(start, end)]
    return found


def divergence(p: Tensor, q: Tensor) -> float:
    """KL(p || q) in nats of (vocab,) log-probabilities; ids that no token has count nothing."""
    there = p.isfinite()
    p, q = p[there].double(), q[there].double()
    return max(0.0, float((p.exp() * (p - q)).sum()))


def same(p: Tensor, q: Tensor) -> bool:
    return int(p.argmax()) == int(q.argmax())


def top(p: Tensor) -> tuple[Row, ...]:
    """The most probable tokens of (vocab,) log-probabilities."""
    values, tokens = p.exp().topk(min(SHOWN, len(p)))
    return tuple(Row(token, value) for token, value in zip(tokens.tolist(), values.tolist(), strict=True))


# -- what it takes -----------------------------------------------------------------------------------------------------


def cost(trace: Trace, cursor: Cursor, params: Params) -> Cost:
    """As if there were a network; without one it is about half."""
    tokens = place_of(trace, cursor).context[-params.tokens :]
    lengths, words = sizes(tokens, tuple(trace.token_bytes.get(token, b"") for token in tokens), params.points)
    merged = 2 * len(POSITIONS) * sum(lengths) + 2 * min(words, params.words) * len(tokens)
    return Cost(len(tokens) + merged, f"Its words can be merged into {lengths[-1]:,} tokens." if lengths else "")


@lru_cache(maxsize=64)
def sizes(tokens: tuple[int, ...], pieces: tuple[bytes, ...], points: int) -> tuple[tuple[int, ...], int]:
    """The lengths of the merged texts that are read, the shortest last, and how many words there are; a page asks often."""
    fused = fused_at(tokens, pieces)
    spans = groups(fused, max(fused, default=0))
    lengths = tuple(len(groups(fused, merges)) for merges in marks(max(fused, default=0), points) if merges)
    return lengths, len({tokens[start:end] for start, end in spans if end - start > 1})


def lacks(family: Family) -> str:
    """Why the words of a family cannot be read as one token each; "" if they can."""
    if family.raster is not None:
        return f"Dynamic tokenization merges the tokens of words, and {family.name} draws pictures."
    if getattr(family.target.model.config, "hidden_size_per_layer_input", None):
        return f"The target of {family.name} reads more of a token than one embedding, so none can stand for several."
    return ""


LENS = Lens(
    key="dynamic_tokenization",
    title="Dynamic tokenization",
    paper="https://arxiv.org/abs/2411.18553",
    authors="Feher, Vulić and Minixhofer, ACL 2025",
    year=2025,
    scope="prompt",
    asks="What is lost when every word of the prompt is read as one token?",
    idea=(
        "A model reads words in the pieces that its vocabulary happens to have. Merge the pieces of this text, the most frequent "
        "pair first, hand the model one embedding in place of several, and the text gets shorter; what comes next should stay the "
        "same."
    ),
    reading=(
        "Move the slider: boxes fuse, and the line says how far the row behind the text has moved from what the target says of the "
        "unmerged one. Below stands which word alone moves it how far."
    ),
    checks="No merge moves nothing: at 0 the difference is 0. The bytes of the text stay the same at every merge.",
    ours=(
        "The paper predicts merged embeddings by a large hypernetwork and has encoders and models of 7 billion read them; ours has "
        "a million numbers, is trained for the embedded target alone, and predicts no output embeddings, so nothing is written "
        "with merged words. Elsewhere the mean of the pieces stands in, which is not in the paper. One row is one sample, and may "
        "go either way: over all rows of held-out text the network loses a fifth to a quarter less than the mean."
    ),
    params=Params,
    look=look,
    cost=cost,
    lacks=lacks,
)
