"""Infini-gram as a lens: what plain counting knows, beside the target.

Liu et al., COLM 2024, https://arxiv.org/abs/2401.17377, sections 2, 4 and 5. For every token of a text: the longest match of what
stands before it in a datastore, how often that stands there, and the share of the token behind it, beside the target's p; and at
the cursor all next tokens, beside p and q. Interpolated with the target, P = λ P∞ + (1 − λ) p, they give
the perplexities of the paper.

Departures: the store is that of the family's methods, not a trillion tokens; λ is one for all tokens (the paper has another one for
sparse ones), and what is said of it is measured on the very text it was chosen on.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec
import torch
from torch import Tensor

from decoding.lens import Cost, Cursor, Lens, place_of, read_on, read_rows
from decoding.looks.infinigram import MOST, At, InfinigramLook, Next
from decoding.method import param
from decoding.models.family import Family
from decoding.retrieval.default_datastore import held_out_file
from decoding.retrieval.search import WHERE, Sources, sources_of
from decoding.trace import Trace

TOP = 8  # next tokens by share, and as many by p
SHOWN = 64  # tokens of a match
A_LOOK = 24  # look-ups between two looks
RUN, HELD_OUT = "this run", "held-out Python"


@dataclass(frozen=True)
class Params:
    text: str = param(
        RUN,
        "Text",
        "Whose tokens are counted: those of this run, or a file of the standard library that neither target nor store has seen.",
        choices=(RUN, HELD_OUT),
    )
    where: str = param("datastore", "Look in", "The datastore, the text so far, or both as one.", choices=WHERE)
    length: int = param(256, "Tokens", "So many tokens of the text, the last ones of a run.", low=2, high=MOST)


def look(family: Family, trace: Trace, cursor: Cursor, params: Params) -> Iterator[InfinigramLook | None]:
    """The store is opened here, before the first look."""
    sources = sources_of(family, params.where)
    said, tokens = text_of(family, trace, params)
    return looks(family, trace, cursor, sources, params.where, said, tokens[: family.target.context], min(params.length, MOST))


def text_of(family: Family, trace: Trace, params: Params) -> tuple[str, tuple[int, ...]]:
    """What the text is, and its tokens: of a run all of them, so that what stands before is known."""
    if params.text == RUN:
        return "this run", trace.tokens_before(len(trace.steps))
    name, text = held_out_file(trace.header.seed)
    tokens = family.tokenizer(text[: 16 * MOST], add_special_tokens=False, verbose=False)["input_ids"]
    return f"{name}, held out", tuple(tokens[: params.length])


def looks(
    family: Family, trace: Trace, cursor: Cursor, sources: Sources, where: str, said: str, tokens: Sequence[int], length: int
) -> Iterator[InfinigramLook | None]:
    """First the cursor, then the text from its beginning on; tokens that were not looked up yet have n = 0."""
    here = place_of(trace, cursor)
    context = here.context[-family.target.context :]
    row = yield from read_on(family.target, context)
    found = at_cursor(family, trace, cursor, sources_like(sources), context, row.softmax(-1))
    if where != "text so far":
        found = msgspec.structs.replace(found, store=store_words(sources), size=len(sources.store))
    first = max(1, len(tokens) - length)
    notes = (f"Only the last {length:,} of {len(tokens):,} tokens are shown.",) if first > 1 else ()
    found = msgspec.structs.replace(found, said=said, notes=found.notes + notes)
    yield found
    rows: list[At] = []
    read = len(context)
    for start, logits in counted(read_rows(family.target, tokens)):
        read += len(logits)
        rows += target_rows(tokens, start, logits, first)
        yield with_text(family, found, rows, read)
    mine = sources_like(sources)
    for i, row in enumerate(rows):
        rows[i] = looked_up(mine, tokens, first + i, row)
        if i % A_LOOK == A_LOOK - 1:
            yield with_text(family, found, rows, read)
    yield with_text(family, found, rows, read)


def sources_like(sources: Sources) -> Sources:
    """The same store with a text of its own."""
    return Sources(sources.store, sources.ends, sources.with_text)


def store_words(sources: Sources) -> str:
    """What is in the store."""
    return ", ".join(f"{source.name} ({source.tokens:,} tokens)" for source in sources.store.sources)


def counted(blocks: Iterator[Tensor]) -> Iterator[tuple[int, Tensor]]:
    """(rows before, block) for every block."""
    before = 0
    for block in blocks:
        yield before, block
        before += len(block)


def target_rows(tokens: Sequence[int], start: int, logits: Tensor, first: int) -> list[At]:
    """What (rows, vocab) logits behind the tokens from `start` on say of the token that follows each."""
    kept = [i for i in range(len(logits)) if first <= start + i + 1 < len(tokens)]
    logs = logits[kept].double().log_softmax(-1)
    entropy = (-(logs.exp() * logs.masked_fill(logs.isinf(), 0)).sum(-1) / torch.log(torch.tensor(2.0))).tolist()
    told = [tokens[start + i + 1] for i in kept]
    p = logs[torch.arange(len(kept)), torch.tensor(told, dtype=torch.long)].exp().tolist() if kept else []
    return [At(token, 0, 0, 0.0, False, mine, bits) for token, mine, bits in zip(told, p, entropy, strict=True)]


def looked_up(sources: Sources, tokens: Sequence[int], place: int, row: At) -> At:
    """The same token with what the store counts behind the tokens before it."""
    sources.follow(tokens[:place])
    match = sources.longest(place)
    after = sources.next(match)
    counts = dict(zip(after.tokens, after.counts, strict=True))
    share = counts.get(row.token, 0) / after.total if after.total else 0.0
    return msgspec.structs.replace(row, n=match.n + 1, count=match.count, share=share, sparse=len(counts) == 1)


def with_text(family: Family, found: InfinigramLook, rows: Sequence[At], read: int) -> InfinigramLook:
    named = found.token_bytes | family.token_bytes({row.token for row in rows})
    return msgspec.structs.replace(found, text=tuple(rows), rows_read=read, token_bytes=named)


def at_cursor(family: Family, trace: Trace, cursor: Cursor, sources: Sources, context: Sequence[int], p: Tensor) -> InfinigramLook:
    """The longest match at the end of `context`, and what may follow, beside (vocab,) p."""
    sources.follow(context)
    match = sources.longest(len(context))
    after = sources.next(match)
    shares = {t: count / after.total for t, count in zip(after.tokens, after.counts, strict=True)} if after.total else {}
    by_share = sorted(shares, key=lambda t: (-shares[t], t))[:TOP]
    by_p = p.topk(min(TOP, len(p))).indices.tolist()
    q = drafted_with(trace, cursor)
    names = dict.fromkeys((*by_share, *by_p))
    rows = [Next(t, shares.get(t, 0.0), float(p[t]), q.get(t) if q else None) for t in names]
    title = sources.store.title(int(sources.store.suffixes[match.low])) if match.n and match.high > match.low else ""
    matched = tuple(context[len(context) - match.n :])[-SHOWN:]
    return InfinigramLook(
        matched=matched,
        n=match.n + 1,
        count=match.count,
        title=title[:200],
        following=tuple(sorted(rows, key=lambda row: (-row.share, -row.p))),
        rows_read=len(context),
        token_bytes=family.token_bytes({*names, *matched}),
        notes=() if after.total else ("Nothing is known to follow here: the store is empty.",),
    )


def drafted_with(trace: Trace, cursor: Cursor) -> dict[int, float]:
    """The drafter's q where the cursor stands, as far as the trace has it."""
    if not 0 <= cursor.step < len(trace.steps):
        return {}
    step = trace.steps[cursor.step]
    node = cursor.node
    row = 0 if node is None or node < 0 else step.end_row if node == len(step.nodes) else step.nodes[node].parent + 1
    found = step.rows[row] if row < len(step.rows) else None
    return dict(zip(found.tokens, found.q, strict=True)) if found is not None and found.q is not None else {}


def cost(trace: Trace, cursor: Cursor, params: Params) -> Cost:
    text = len(trace.tokens_before(len(trace.steps))) if params.text == RUN else params.length
    return Cost(len(place_of(trace, cursor).context) + text, f"{min(params.length, text):,} look-ups in the store.")


LENS = Lens(
    key="infinigram",
    title="Infini-gram",
    paper="https://arxiv.org/abs/2401.17377",
    authors="Liu et al., COLM 2024",
    year=2024,
    scope="text",
    asks="Has this been written before, and would plain counting have known it?",
    idea=(
        "An n-gram model without a limit on n: the longest end of the text that occurs anywhere in millions of tokens says by its "
        "counts what comes next. Laid beside the target it shows what is a copy and what the model knows by itself."
    ),
    reading=(
        "The darker a token of the text, the longer the match in front of it; underlined ones are the only continuation the store "
        "has. The bars are what counting and the two models expect at the cursor."
    ),
    checks="The shares of all next tokens sum to 1: no smoothing, and backing off only where nothing was found at all.",
    ours=(
        "The paper counts in a trillion tokens; here it is the datastore of the methods that copy. One λ serves all tokens, and it "
        "is chosen on the text that is shown."
    ),
    params=Params,
    look=look,
    cost=cost,
)
