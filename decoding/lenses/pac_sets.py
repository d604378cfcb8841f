"""PAC prediction sets: a draft with holes, cut so that what the target writes is inside with a promised probability.

Khakhar, Mell and Bastani, ICML 2023, https://arxiv.org/abs/2302.08703. A syntax tree over a predicted line of code is cut where it
costs most, until what is left holds for all but epsilon of the texts of its kind; how much must be cut is calibrated.

Departures: the prediction is the draft model's and the truth what the target itself writes (both greedily), so that the set is a
certified draft. Text has words, phrases and a sentence for a tree. The kept nodes are found by an exact dynamic programme from the
largest budget down (`decoding.prediction_sets.pruning`), not by a solver over all budgets at once.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from math import log
from pathlib import Path
from typing import NamedTuple

import msgspec

from decoding.lens import BLOCK, Cost, Cursor, Lens, place_of
from decoding.looks.pac_sets import Cut, Drafted, PacSetsLook, Part
from decoding.method import param
from decoding.models.cache_folder import cache_folder
from decoding.models.family import Family
from decoding.models.heads import Fingerprint, fingerprint
from decoding.models.requirements import DRAFT_MODEL
from decoding.models.target import Target
from decoding.prediction_sets.calibration import BUDGETS, holds_up_to
from decoding.prediction_sets.pruning import as_flags, nested
from decoding.prediction_sets.trees import Tree, code_tree, costs, text_tree
from decoding.trace import Trace

TEXT, CODE = "text", "code"
DRAFT_TOKENS, TRUE_TOKENS = 16, 24  # at most: of a draft, and of what the target writes, whose tokens may be shorter
HOLES = (1, 2, 3, 4)
SHIPPED = Path(__file__).parent.parent / "embedded" / "pac_sets.json"
END = {TEXT: re.compile(rb"[.!?\n]"), CODE: re.compile(rb"\n")}
A_LOOK = 4  # tokens between two looks
DELTA = 0.05  # how likely the calibration itself may mislead
COMMAND = "python -m decoding.training pac_sets --family {} --data DIR"


@dataclass(frozen=True)
class Params:
    kind: str = param(TEXT, "Tree", "Words in phrases in a sentence, or the syntax tree of a line of Python.", choices=(TEXT, CODE))
    holes: int = param(2, "Holes", "At most so many holes.", low=HOLES[0], high=HOLES[-1])
    confidence: float = param(0.8, "Confidence", "The promise that the picture opens with.", low=0.5, high=0.98)


class Written(NamedTuple):
    """What a model wrote, greedily."""

    tokens: tuple[int, ...]
    probabilities: tuple[float, ...]  # of each, at temperature 1
    said: bytes  # of the tokens, up to where it ended
    ended: bool  # a line or a sentence is complete


def look(family: Family, trace: Trace, cursor: Cursor, params: Params) -> Iterator[PacSetsLook]:
    """The calibration is opened here, before the first look."""
    known = calibration_of(family, params.kind)
    holds = known["holds"][str(params.holes)]
    base = PacSetsLook(
        kind=params.kind,
        confidence=params.confidence,
        delta=DELTA,
        calibration=tuple(holds["calibration"]),
        held_out=tuple(holds["held out"]),
        said=known["said"],
        runs=params.kind == TEXT,
    )
    return looks(family, place_of(trace, cursor).context, params, base)


def looks(family: Family, context: Sequence[int], params: Params, base: PacSetsLook) -> Iterator[PacSetsLook]:
    """First the draft, then the target's own text, then the tree with what is kept at every budget."""
    assert family.draft is not None  # it is required
    context = tuple(context[-(min(family.target.context, family.draft.context) - TRUE_TOKENS) :])
    draft, truth = Written((), (), b"", False), Written((), (), b"", False)
    yield base
    for draft in written(family, family.draft, context, params.kind, DRAFT_TOKENS):
        yield msgspec.structs.replace(base, drafted=tuple(Drafted(t, 0.0, False) for t in draft.tokens), token_bytes={})
    rows = 0
    for truth in written(family, family.target, context, params.kind, TRUE_TOKENS):
        rows = len(context) + max(0, len(truth.tokens) - 1)
        yield msgspec.structs.replace(base, rows_read=rows, truth=shown(truth.said))
    yield with_tree(family, context, params, msgspec.structs.replace(base, rows_read=rows), draft, truth)


def shown(said: bytes) -> str:
    return said.decode("utf-8", "replace")


def written(family: Family, model: Target, context: Sequence[int], kind: str, most: int) -> Iterator[Written]:
    """What a model writes greedily up to the end of its sentence or line, a few tokens at a time."""
    own, tokens, shares = model.new_cache(), [], []
    for start in range(0, len(context) - BLOCK, BLOCK):
        model.extend(own, context[start : start + BLOCK])
        yield Written((), (), b"", False)
    fed = context[own.committed :]
    while True:
        probs = model.extend(own, fed)[0].softmax(-1)
        token = int(probs.argmax())
        if token in family.target.ends:
            ended = True
            break
        tokens.append(token)
        shares.append(float(probs[token]))
        said = said_by(family, tokens)
        ended = END[kind].search(said.lstrip() if kind == TEXT else said) is not None
        if ended or len(tokens) == most:
            break
        if len(tokens) % A_LOOK == 0:
            yield Written(tuple(tokens), tuple(shares), said, False)
        fed = (token,)
    yield Written(tuple(tokens), tuple(shares), up_to_end(said_by(family, tokens), kind), ended)


def said_by(family: Family, tokens: Sequence[int]) -> bytes:
    pieces = family.token_bytes(tokens)
    return b"".join(pieces[token] for token in tokens)


def up_to_end(said: bytes, kind: str) -> bytes:
    """Of code the line without what comes behind it; of text everything."""
    return said.split(b"\n")[0] if kind == CODE else said


def tree_of(kind: str, source: bytes, ended: bool) -> Tree:
    return code_tree(source, ended) if kind == CODE else text_tree(source, ended)


def line_so_far(family: Family, context: Sequence[int]) -> bytes:
    """What stands in the line that the context ends in."""
    return said_by(family, context[-BLOCK:]).rsplit(b"\n", 1)[-1]


def judged(
    family: Family, context: Sequence[int], kind: str, draft: Written, truth: Written
) -> tuple[Tree, list[float], Tree, int]:
    """The draft's tree, what its nodes cost, the truth's tree, and the bytes that stood in the line already."""
    before = line_so_far(family, context) if kind == CODE else b""
    tree = tree_of(kind, before + draft.said, draft.ended)
    return tree, costs(tree, list(spans(family, len(before), draft))), tree_of(kind, before + truth.said, truth.ended), len(before)


def spans(family: Family, at: int, draft: Written) -> Iterator[tuple[int, int, float]]:
    """Where each drafted token stands, and -log q."""

    pieces = family.token_bytes(draft.tokens)
    for token, q in zip(draft.tokens, draft.probabilities, strict=True):
        yield at, at + len(pieces[token]), -log(max(q, 1e-30))
        at += len(pieces[token])


def with_tree(
    family: Family, context: Sequence[int], params: Params, base: PacSetsLook, draft: Written, truth: Written
) -> PacSetsLook:
    tree, prices, true_tree, given = judged(family, context, params.kind, draft, truth)
    sets = nested(tree, prices, BUDGETS, params.holes)
    cuts, before = [], None
    for budget, kept in zip(BUDGETS, sets, strict=True):
        if kept != before:
            cuts.append(Cut(budget, bytes(as_flags(kept, len(tree)))))
        before = kept
    agree = [a == b for a, b in zip(draft.tokens, truth.tokens, strict=False)]
    same = next((i for i, one in enumerate(agree) if not one), len(agree))
    notes = base.notes
    if params.kind == CODE and len(tree) == 1:
        notes = (*notes, "The drafted line is no Python that can be parsed by itself: it is kept whole, or not at all.")
    return msgspec.structs.replace(
        base,
        source=tree.source,
        given=given,
        drafted=tuple(
            Drafted(token, q, i < same) for i, (token, q) in enumerate(zip(draft.tokens, draft.probabilities, strict=True))
        ),
        parts=tuple(
            Part(parent, *span, cost, kind_of(tree, node))
            for node, (parent, span, cost) in enumerate(zip(tree.parents, tree.spans, prices, strict=True))
        ),
        cuts=tuple(cuts),
        ended=draft.ended,
        truth=shown(truth.said),
        holds=holds_up_to(tree, prices, true_tree, params.holes),
        notes=notes,
        token_bytes=family.token_bytes(sorted(set(draft.tokens))),
    )


def kind_of(tree: Tree, node: int) -> str:
    """What a node is called."""
    if tree.runs:
        return "sentence" if not node else "phrase" if tree.children[node] else "word"
    return tree.labels[node].split(" ")[0] if len(tree) > 1 else "line"


# -- calibrations ------------------------------------------------------------------------------------------------------


def own_file() -> Path:
    """Where calibrations of other families are kept on this machine."""
    return cache_folder() / "pac_sets.json"


@cache
def read_file(file: Path, changed: int) -> dict:
    return json.loads(file.read_text("utf-8"))


def calibrations() -> dict:
    """Family -> kind -> what was measured: the shipped ones, and those made on this machine."""
    found: dict = {}
    for file in (SHIPPED, own_file()):
        if file.is_file():
            found = {**found, **read_file(file, file.stat().st_mtime_ns)}
    return found


def models_of(family: Family) -> list[dict]:
    """What a calibration belongs to: fingerprints of the target and the draft model, as plain numbers."""
    assert family.draft is not None
    marks = [fingerprint(one.model) for one in (family.target, family.draft)]
    return [{"shapes": mark.shapes, "values": [float(f"{value:.6g}") for value in mark.values]} for mark in marks]


def fits(family: Family, made_with: Sequence[dict]) -> bool:
    """Whether these are the models that are loaded."""
    assert family.draft is not None
    marks = [Fingerprint(one["shapes"], tuple(one["values"])) for one in made_with]
    own = [fingerprint(one.model) for one in (family.target, family.draft)]
    return len(marks) == len(own) and all(mark.fits(other) for mark, other in zip(marks, own, strict=True))


def calibration_of(family: Family, kind: str) -> dict:
    """What was measured of a family's drafts; ValueError if nothing was, or of other weights: nothing could be promised then."""
    name, known = family.name, calibrations().get(family.name, {})
    if kind not in known:
        instead = f" Its {' and '.join(known)} is." if known else ""
        raise ValueError(
            f"No {kind} of the family {name} was calibrated on, so nothing can be promised of it.{instead} This does it, from a "
            f"folder of held-out text: {COMMAND.format(name)}."
        )
    if not fits(family, known[kind].get("models", ())):
        raise ValueError(
            f"The {kind} of the family {name} was calibrated with another target or draft model than those that are loaded, so "
            f"nothing can be promised of these. This does it anew: {COMMAND.format(name)}."
        )
    return known[kind]


def cost(trace: Trace, cursor: Cursor, params: Params) -> Cost:
    return Cost(len(place_of(trace, cursor).context) + TRUE_TOKENS, f"The draft model writes up to {DRAFT_TOKENS} tokens.")


LENS = Lens(
    key="pac_sets",
    title="PAC prediction sets",
    paper="https://arxiv.org/abs/2302.08703",
    authors="Khakhar, Mell, Bastani; ICML 2023",
    year=2023,
    scope="text",
    asks="Which part of a draft can be promised, and how much must stay open?",
    idea=(
        "A draft is cut to a text with holes where it costs most, and stands for every text that fills them. How much must be cut "
        "is learnt from drafts whose truth is known, so that the promise holds with a stated confidence."
    ),
    reading=(
        "Framed parts are kept, ?? is a hole. A higher confidence opens more holes. The curve has how many of the calibration's "
        "drafts fail at each budget; the line is how many may."
    ),
    checks="Of n drafts k may fail: the largest k that a binomial stays at or below with probability delta (n 200, 10 %: 12).",
    ours=(
        "The draft model predicts and the target's own greedy text is the truth. Phrases and words for text, budgets taken from "
        "the largest down, and one calibration per family. A text of another kind than the calibration's is promised nothing."
    ),
    params=Params,
    look=look,
    cost=cost,
    requirements=(DRAFT_MODEL,),
)
