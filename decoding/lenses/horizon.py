"""The horizon: how much longer a sentence or an answer will be, as the target's own state knows it.

Ding et al., EMNLP 2025, https://arxiv.org/abs/2410.03103, section 3: behind the t-th of M tokens a linear map of the hidden state
is to foretell y = (M - t) / M. Along the text of a run: that share as it was, as counting tokens foretells it, as it is read out of
the target's states, and the probability of the end. Where an estimate of the tokens left, t y / (1 - y), caps the drafts of the
run, so many drafted tokens would have been spared, and so many that were kept lost.

Departures: the targets were never trained for it (`decoding.training.infilling` does that to a small model, and measures it): what
is read was fitted on frozen states, and the end is that of a sentence or an answer and not that of a gap. The cap is ours; it reads
the state in front of the token that a call drafts behind, because that token's own state is not there before the call.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil

import msgspec
from torch import Tensor

from decoding.lens import BLOCK, Cost, Cursor, Lens, place_of
from decoding.looks.horizon import MOST, MOST_CALLS, At, Call, Held, HorizonLook
from decoding.method import param
from decoding.models.family import Family
from decoding.models.horizons import ANSWER, SENTENCE, Probe, ending_tokens, probe_of, sentence_lengths, tokens_left
from decoding.trace import Step, Trace

READERS = {"position": "position", "state": "state", "state and position": "both", "head": "head"}  # -> field of At
ENDED = ("end of text", "stop token")


@dataclass(frozen=True)
class Params:
    unit: str = param(SENTENCE, "Until", "The end of the sentence, or that of all that is written.", choices=(SENTENCE, ANSWER))
    by: str = param(
        "state",
        "Read by",
        "Counting tokens, a layer's state, the two together, or the head of the paper on the last state.",
        choices=tuple(READERS),
    )
    slack: int = param(2, "Slack of the cap", "Tokens that a draft may be longer than what is foretold.", low=0, high=16)


@dataclass(frozen=True)
class Along:
    """The text and where its units are."""

    tokens: tuple[int, ...]  # prompt and run, without the token that ended it
    first: int  # of the tokens that are shown
    t: tuple[int, ...]  # of every shown token: the how-manieth of its unit
    left: tuple[int | None, ...]  # tokens of the unit behind it


def look(family: Family, trace: Trace, cursor: Cursor, params: Params) -> Iterator[HorizonLook]:
    """What was learned is opened here, before the first look."""
    probe = probe_of(family.name, family.target, params.unit)
    along = along_of(family, trace, params.unit)
    ending = ending_tokens(family, params.unit).to(family.target.device)
    before = common(place_of(trace, cursor).context, along.tokens)
    base = HorizonLook(
        unit=params.unit,
        by=params.by,
        layer=probe.layer,
        slack=params.slack,
        said=probe.said,
        at=max(-1, before - 1 - along.first),
        held=held(probe),
        notes=notes(trace, params.unit, along),
    )
    return looks(family, trace, along, probe, ending, base)


def along_of(family: Family, trace: Trace, unit: str) -> Along:
    """The written text and its units; ValueError where nothing is written."""
    tokens, first = trace.tokens_before(len(trace.steps)), len(trace.header.prompt_tokens)
    ended = bool(trace.steps) and trace.steps[-1].ending in ENDED
    tokens = tokens[:-1] if ended else tokens
    if len(tokens) == first:
        raise ValueError("The run has written nothing yet; the horizon is read along what is written.")
    if unit == ANSWER:
        sizes, rest = [], len(tokens) - first
        places = [(i + 1, rest) for i in range(rest)]
    else:
        pieces, begin = family.token_bytes(tokens), first if trace.header.messages else 0  # an answer begins with a sentence
        sizes, rest = sentence_lengths([pieces[token] for token in tokens[begin:]])
        places = [(i + 1, size) for size in (*sizes, rest) for i in range(size)][first - begin :]
    known = len(places) if ended else len(places) - min(rest, len(places))
    first, places, known = (first + max(0, len(places) - MOST)), places[-MOST:], known - max(0, len(places) - MOST)
    return Along(
        tokens[: family.target.context],
        first,
        tuple(t for t, _ in places),
        tuple(size - t if i < known else None for i, (t, size) in enumerate(places)),
    )


def common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two texts begin with alike."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def notes(trace: Trace, unit: str, along: Along) -> tuple[str, ...]:
    if unit == ANSWER and along.left[-1] is None:
        return ("The run was stopped before its end, so that nothing can be held against what is foretold.",)
    return ()


def held(probe: Probe) -> tuple[Held, ...]:
    """What was measured on text that the readers never saw; a figure that cannot be is left out."""
    found = []
    for name in READERS:
        measured = probe.figures.get(name, {})
        values = [value for key in ("mae", "beyond", "next") if isinstance(value := measured.get(key), (int, float))]
        if len(values) == 3 and all(abs(value) <= 1 for value in values):
            found.append(Held(name, *values))
    return tuple(found)


def looks(family: Family, trace: Trace, along: Along, probe: Probe, ending: Tensor, base: HorizonLook) -> Iterator[HorizonLook]:
    """The text grows block by block; then come the calls."""
    target, cache = family.target, family.target.new_cache()
    layers, rows = sorted({probe.layer, target.last_hidden}), []
    for start in range(0, len(along.tokens), BLOCK):
        block = along.tokens[start : start + BLOCK]
        logits, states = target.extend_with_hidden(cache, block, layers, every_row=True)
        end = logits.softmax(-1)[:, ending].sum(-1)
        shown = range(max(0, along.first - start), len(block))
        rows += [behind(along, probe, start + i - along.first, states, i, float(end[i])) for i in shown]
        named = family.token_bytes({row.token for row in rows})
        base = msgspec.structs.replace(base, text=tuple(rows), rows_read=start + len(block), token_bytes=named)
        yield base
    yield msgspec.structs.replace(base, calls=tuple(calls(trace, along, rows, base)))


def behind(along: Along, probe: Probe, shown: int, states: dict[int, Tensor], row: int, end: float) -> At:
    """What is read behind a shown token: its states stand at `row` of (rows, width) ones."""
    state, last = (states[layer][row].double().cpu().numpy() for layer in (probe.layer, max(states)))
    t = along.t[shown]
    return At(
        token=along.tokens[along.first + shown],
        t=t,
        left=along.left[shown],
        position=probe.by_position(t),
        state=probe.by_state(state),
        both=probe.by_both(state, t),
        head=probe.by_head(last),
        end=min(1.0, end),
    )


# -- the cap -----------------------------------------------------------------------------------------------------------


def calls(trace: Trace, along: Along, rows: Sequence[At], base: HorizonLook) -> Iterator[Call]:
    """Every call of the run that drafted behind a shown token or at the beginning of the text."""
    root = len(trace.header.prompt_tokens) - 1 - along.first
    for step in trace.steps[-MOST_CALLS:]:
        if -1 <= root < len(rows):
            yield call(step, root, rows, base)
        root += len(step.tokens)


def call(step: Step, root: int, rows: Sequence[At], base: HorizonLook) -> Call:
    """A draft behind the shown token `root`, and what a cap does to it."""
    depths = depths_of(step)
    cap, end = cap_at(root, rows, base), end_of(root, rows, base)
    kept = set(step.path)
    below = [i for i, depth in enumerate(depths) if cap is not None and depth > cap]
    return Call(
        at=root,
        drafted=len(depths),
        deepest=max(depths, default=0),
        accepted=len(kept),
        cap=cap,
        spared=sum(i not in kept for i in below),
        lost=sum(i in kept for i in below),
        past=sum(end is not None and depth > end for depth in depths),
    )


def depths_of(step: Step) -> list[int]:
    """Of every node, 1 for a child of the root."""
    found: list[int] = []
    for node in step.nodes:
        found.append(1 if node.parent < 0 else found[node.parent] + 1)
    return found


def cap_at(root: int, rows: Sequence[At], base: HorizonLook) -> int | None:
    """How deep to draft behind a token, from what stands behind the one in front of it; None: no such token is of the same unit.

    An answer's end token is drafted too, a sentence's last token is one of its own.
    """
    if root < 1 or rows[root].t != rows[root - 1].t + 1:
        return None
    before = rows[root - 1]
    left = tokens_left(before.t, getattr(before, READERS[base.by])) - 1 + (base.unit == ANSWER)
    return max(1, ceil(left) + base.slack)


def end_of(root: int, rows: Sequence[At], base: HorizonLook) -> int | None:
    """How deep the unit goes on behind a token, its end token counted; None: it is not known."""
    left = rows[root].left if root >= 0 else None
    return None if left is None else left + (base.unit == ANSWER)


def cost(trace: Trace, cursor: Cursor, params: Params) -> Cost:
    return Cost(len(trace.tokens_before(len(trace.steps))), "The text is read once.")


LENS = Lens(
    key="horizon",
    title="Horizon length",
    paper="https://arxiv.org/abs/2410.03103",
    authors="Ding et al., EMNLP 2025",
    year=2024,
    scope="text",
    asks="How much longer will this sentence be, and does the model know?",
    idea=(
        "A model that plans ahead should know how far it still has to go. A linear map of its state is asked at every token which "
        "share of the sentence, or of the answer, is still to come; counting tokens is asked the same."
    ),
    reading=(
        "Every line falls from 1 to 0 in a sentence; the thick grey one is what came. The state knows something if its line keeps "
        "closer to that one than the dashed line of counting."
    ),
    checks=(
        "Counting is what must be beaten: held out, the state with the position is to be off by .02 less, and what the position "
        "does not explain is to rank with the tokens left by .3 or more. Both numbers stand above the picture."
    ),
    ours=(
        "The paper trains a model for it, on gaps in code; here what its states hold anyway is read out, at sentences and answers. "
        "The cap on drafts is ours, and it is reckoned on the run as it was: nothing is decoded anew."
    ),
    params=Params,
    look=look,
    cost=cost,
)
