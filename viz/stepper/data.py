"""A trace as the plain data that the stepper draws: JSON, nothing computed from it but places on the screen.

A step is a closed thing that never changes, so a page that shows a growing run sends each step once, and a long run in parts.
Tokens are hostile until proven otherwise: they travel as data, with every character visible, and stepper.js writes them as text
nodes only.

    head      what is true of all of the run: its method, its models, the prompt
    count     steps that there are
    steps     one `step_data` each: nodes, distributions, committed tokens, sentences
    names     token id (as text, which is what JSON has for keys) -> [short, in full], of all tokens that occur in those steps; in a
              picture -> [short, in full, colour], of those that are pixels
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, islice
from zlib import crc32

from decoding.trace import Header, Node, Row, Step, Trace
from viz.methods import silence
from viz.runs.tally import depths
from viz.step.boxes import ROOT, final_index, has_final
from viz.step.probabilities import shown, threshold
from viz.step.text import in_messages
from viz.style import PHASES
from viz.tokens import full, is_half, joined, label, plain, word
from viz.verdicts import SMALL_MODEL, Manner, in_words, percent
from viz.words import judgement, narrate, number, score_words

GUESS, CHECK, JUDGE, WRITE = range(4)  # the phases of a step
PARTS = ("sentence", "phases", "text", "tree", "bars", "table", "transport")  # what a stepper can show
VERDICTS = ("accepted", "rejected", "not judged")
ORIGINS = ("accepted", "bonus", "correction", "plain")
SHORT = 16  # characters of a token in a box
MOST_SCORES = 12  # of a node that are put in words
BARS = 8  # tokens shown at a position
LIGHT = 4_000  # nodes of a run; where there are more, positions that nothing was judged at go without bars
TALKS = 1_000  # steps of a run; of longer ones it is not said why nothing was guessed, for each such step asks for its whole text
MARK, END = "\x02", "\x03"  # around the id of a token in a sentence: no token that is shown holds a control character


def marked(token: int, _: Mapping[int, bytes]) -> str:
    return f"{MARK}{token}{END}"


NOTHING: dict = {  # what is drawn where there is no run
    "head": {"facts": "", "method": "", "prompt": [], "special": [], "greedy": False, "limit": 0, "picture": False},
    "from": 0,
    "count": 0,
    "steps": [],
    "names": {},
    "joined": [],
}
MANNERS = (Manner(marked, percent), Manner(marked, lambda share: number(share, 2)))  # in per cent, and in decimals


def stepper_data(trace: Trace, start: int = 0, every_row: bool | None = None, most: int | None = None) -> dict:
    """All that is drawn of a trace from step index `start` on.

    Args:
        every_row: the bars of positions too at which nothing was judged; None: unless the run is long.
        most: nodes of the steps that are drawn, of which there is one at least; None: all there are.
    """
    if every_row is None:
        every_row = sum(len(step.nodes) for step in trace.steps) <= LIGHT
    steps = trace.steps[start:] if most is None else trace.steps[start : start + fitting(trace.steps[start:], most)]
    drawn = [step_data(step, start + i, trace.token_bytes, every_row, silent(trace, start + i)) for i, step in enumerate(steps)]
    used = {token for step, data in zip(steps, drawn, strict=True) for token in occurring(step, data)}
    used |= set(trace.header.prompt_tokens) if not start else set()
    return {
        "head": head_data(trace) if not start else None,
        "from": start,
        "count": len(trace.steps),
        "steps": drawn,
        "names": names_of(used, trace.token_bytes, trace.header.raster.palette if trace.header.raster else ()),
        "joined": joints(trace),
    }


def fitting(steps: Sequence[Step], most: int) -> int:
    """How many of the first steps have no more nodes than that; one at least."""
    return max(1, sum(nodes <= most for nodes in accumulate(len(step.nodes) for step in steps)))


def silent(trace: Trace, index: int) -> str:
    """Why nothing was guessed at a step; "" where something was."""
    return silence(trace, index, marked) if not trace.steps[index].nodes and len(trace.steps) <= TALKS else ""


def occurring(step: Step, drawn: dict) -> Iterable[int]:
    """The tokens that are named in what is drawn of a step, its `step_data`: of a row that has hundreds those with bars."""
    yield from step.tokens
    for node in step.nodes:
        yield node.token
    for tokens, *_, sampled, _ in drawn["rows"].values():
        yield from tokens
        if sampled >= 0:
            yield sampled


def names_of(tokens: Iterable[int], token_bytes: Mapping[int, bytes], palette: Sequence[str] = ()) -> dict[str, list[str]]:
    """How each token is written, short and in full; by its id where the trace does not carry its bytes. Behind it the colour of one
    that is a pixel."""
    return {str(token): [*written(token, token_bytes), *palette[token : token + 1]] for token in sorted(tokens)}


def written(token: int, token_bytes: Mapping[int, bytes]) -> tuple[str, str]:
    return (label(token_bytes[token], SHORT), full(token_bytes[token])) if token in token_bytes else (f"#{token}", f"#{token}")


def head_data(trace: Trace) -> dict:
    """What the stepper says of the whole run."""
    head = trace.header
    special = set(head.special_tokens)
    return {
        "facts": facts(head),
        "method": plain(head.method).replace("_", " "),
        "prompt": [[token, 0 if said else 1] for token, said in zip(head.prompt_tokens, in_messages(trace), strict=True)],
        "special": sorted(special),
        "greedy": not head.sampling.temperature,
        "limit": head.max_tokens,
        "picture": head.raster is not None,
    }


def facts(head: Header) -> str:
    """The header in a line; plain text."""
    params = ", ".join(f"{plain(key)} {plain(str(value))}" for key, value in head.params.items())
    method = plain(head.method).replace("_", " ") + (f" ({params})" if params else "")
    chosen = head.sampling
    sampling = "greedy" if not chosen.temperature else f"temperature {chosen.temperature:g}"
    sampling += f", top-k {chosen.top_k}" * bool(chosen.top_k) + f", top-p {chosen.top_p:g}" * (chosen.top_p < 1)
    sampling += f", guidance {chosen.guidance:g}" * (chosen.guidance != 1)
    where = f"{plain(head.device)}, {plain(head.dtype)}"
    return " · ".join([method, plain(head.family), sampling, f"seed {head.seed}", where])


def joints(trace: Trace) -> list[list]:
    """[first, last + 1, what they spell] of the tokens of the text that are no characters by themselves."""
    tokens = trace.tokens_before(len(trace.steps))
    pieces = [trace.token_bytes.get(token, b"") for token in tokens]
    if not any(map(is_half, pieces)):
        return []
    return [[group.start, group.stop, group.text] for group in joined(pieces) if group.stop - group.start > 1]


def run_key(trace: Trace, runs: object = 0) -> str:
    """A name of a run that another one does not have.

    Args:
        runs: what tells apart runs with the same header, such as a counter.
    """
    head = trace.header
    said = (
        head.method,
        head.params,
        head.family,
        head.seed,
        head.prompt_tokens,
        head.sampling,
        head.max_tokens,
        head.versions,
        runs,
    )
    return f"{crc32(repr(said).encode()):08x}"


class Strings:
    """Each string once; everything else holds its place in the list."""

    def __init__(self) -> None:
        self.places: dict[str, int] = {}

    def __call__(self, text: str) -> int:
        return self.places.setdefault(text, len(self.places))


def step_data(step: Step, i: int, token_bytes: Mapping[int, bytes], every_row: bool = True, why: str = "") -> dict:
    """One step.

    nodes   [parent, token, verdict, p, q, u, border, sentence, sentence in decimals, numbers, source]; the sentences and what
            follows them are places in `strings`; border is the u below which the node is kept
    rows    place of the row -> [tokens, p, q or 0, residual or 0, the drawn token or -1, what is spread], at most the first few
    tokens  [token, origin, node or -1] of what was committed
    """
    strings = Strings()
    judged = {node.parent for node in step.nodes if node.verdict != "not judged"} | {step.end_row - 1, ROOT}
    wanted = [r for r, row in enumerate(step.rows) if row is not None and (every_row or r - 1 in judged)]
    return {
        "nodes": [node_data(step, k, token_bytes, strings) for k in range(len(step.nodes))],
        "rows": {str(r): row_data(step, r) for r in wanted},
        "recorded": bool(step.rows),
        "tokens": committed(step),
        "end": step.end_row,
        "final": [strings(text) for text in final_words(step)] if has_final(step) else None,
        "say": sentences(step, why),
        "line": narrate(step, i + 1, token_bytes),
        "ending": step.ending,
        "ms": {phase: round(getattr(step.times, phase), 3) for phase in PHASES},
        "calls": step.draft_calls,
        "open": opening(step),
        "depth": max(depths(step), default=0),
        "strings": list(strings.places),
    }


def node_data(step: Step, index: int, token_bytes: Mapping[int, bytes], strings: Strings) -> list:
    """See `step_data`."""
    node = step.nodes[index]
    judged = node.verdict != "not judged" and node.u is not None
    border = threshold(node) if judged else None
    says = [strings(in_words(step, index, token_bytes, manner)) for manner in MANNERS]
    numbers = strings(judgement(node, token_bytes, step))
    told = [node.parent, node.token, VERDICTS.index(node.verdict), short(node.p), short(node.q), short(node.u), short(border)]
    return [*told, *says, numbers, strings(source(node.source, node.scores))]


def short(value: float | None) -> float | None:
    """Five digits are enough for a screen; JSON knows no infinity.

    >>> short(0.123456789), short(float("nan")), short(None)
    (0.12346, None, None)
    """
    return None if value is None or not math.isfinite(value) else float(f"{value:.5g}")


def source(name: str, scores: Mapping[str, float]) -> str:
    """Where a node came from, and the method's own numbers."""
    said = [f"{score_words(key)} {number(value)}" for key, value in islice(scores.items(), MOST_SCORES)]
    more = [f"{len(scores) - MOST_SCORES} more"] if len(scores) > MOST_SCORES else []
    return ", ".join([f"from {word(name)}", *said, *more])


def committed(step: Step) -> list[list[int]]:
    """Every token that joined the text, and which node it was."""
    nodes = [*step.path, final_index(step)]
    return [
        [token, ORIGINS.index(origin), nodes[k] if k < len(nodes) else -1]
        for k, (token, origin) in enumerate(zip(step.tokens, step.origins, strict=True))
    ]


def row_data(step: Step, r: int) -> list:
    """The likeliest, and everything drafted there."""
    row = step.rows[r]
    assert row is not None
    children = {node.token for node in step.nodes if node.parent == r - 1}
    kept = set(shown(row, row.sampled, BARS)) | {k for k, token in enumerate(row.tokens) if token in children}
    order = sorted(kept)[: 2 * BARS]
    return [
        [row.tokens[k] for k in order],
        columns(row.p, order),
        columns(row.q, order) if row.q is not None else 0,
        columns(row.residual, order) if differs(row.residual, row.p) else 0,
        -1 if row.sampled is None else row.sampled,
        spread(row),
    ]


def differs(residual: Sequence[float], p: Sequence[float]) -> bool:
    """Whether something was taken off p: where nothing was refused the residual is p, up to rounding.

    >>> differs([0.41, 0.2], [0.41000001, 0.2]), differs([0.5, 0.0], [0.3, 0.2])
    (False, True)
    """
    return any(abs(a - b) > 1e-5 for a, b in zip(residual, p, strict=True))


def spread(row: Row) -> str:
    """How sure the two are here, and how alike."""
    said = [f"entropy of p {number(row.entropy, 2)} bits"]
    if row.overlap is not None:
        said.append(f"total variation {number(1 - row.overlap, 2)}")
    if row.kl is not None:
        said.append(f"KL(p || q) {number(row.kl, 2)} bits")
    return ", ".join(said)


def columns(values: Sequence[float], order: Sequence[int]) -> list[float | None]:
    return [short(values[k]) for k in order]


def opening(step: Step) -> int:
    """The node that is looked at first: a rejection teaches most, of several the one whose die came nearest to the border, then
    the token the target added."""
    rejected = [i for i, node in enumerate(step.nodes) if node.verdict == "rejected"]
    if rejected:
        return min(rejected, key=lambda i: nearness(step.nodes[i]))
    if has_final(step):
        return final_index(step)
    return step.path[-1] if step.path else ROOT


def nearness(node: Node) -> float:
    """How far from the border the die of a node fell; 1 where it decided nothing."""
    border = threshold(node)
    return abs(node.u - border) if node.u is not None and 0 < border < 1 else 1.0


# -- sentences ----------------------------------------------------------------------------------------------------------


def sentences(step: Step, why: str = "") -> dict[str, str]:
    """What each phase says: guess, check, judge (where no node is looked at) and write; the tokens in it are marked."""
    drafted, kept = len(step.nodes), sum(node.verdict == "accepted" for node in step.nodes)
    return {
        "guess": guess_words(step, why),
        "check": check_words(drafted),
        "judge": f"{kept or 'None'} of {drafted} {plural('guess', drafted)} kept." if drafted else "There is nothing to judge.",
        "write": write_words(step) + f" Nothing was guessed: {why}." * bool(why),
    }


def plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}es" if word.endswith("s") else f"{word}s"


def who(nodes: Sequence[Node]) -> str:
    """Who guessed."""
    return "The small model" if nodes and nodes[0].source.startswith(SMALL_MODEL) else "The drafter"


def guess_words(step: Step, why: str = "") -> str:
    """Guess: what was drafted; `why` is the reason where that is nothing."""
    count = len(step.nodes)
    if not count:
        return f"Nothing was guessed: {why or 'the large model goes on alone'}."
    if all(node.parent == i - 1 for i, node in enumerate(step.nodes)):
        some = " ".join(f"{MARK}{node.token}{END}" for node in step.nodes[:12])
        return f"{who(step.nodes)} guesses {count} {plural('token', count)} ahead: {some}{' …' if count > 12 else ''}"
    firsts = [node for node in step.nodes if node.parent == ROOT]
    some = ", ".join(f"{MARK}{node.token}{END}" for node in firsts[:4])
    more = " or another" if len(firsts) > 4 else ""
    return f"{who(step.nodes)} guesses {count} tokens as a tree, up to {max(depths(step))} ahead, beginning with {some}{more}."


def check_words(drafted: int) -> str:
    """Check: one call."""
    if not drafted:
        return "One call of the large model."
    if drafted == 1:
        return "One call of the large model reads the guess and the text's end together."
    return f"One call of the large model reads all {drafted} guesses at once."


def write_words(step: Step) -> str:
    """Write: what the text gained."""
    count = len(step.tokens)
    kept = len(step.tokens) - has_final(step)
    gained = f"{count} {plural('token', count)} for one call"
    if not has_final(step):
        return f"{gained}: the text ends inside the guesses." if step.ending else f"{gained}."
    last = f"{MARK}{step.tokens[-1]}{END}"
    if step.origins[-1] == "plain":
        return f"One token for one call: {last}."
    own = {"bonus": f"{last}, which the same call gives on top", "correction": f"{last} of the large model's own"}[step.origins[-1]]
    return f"{gained}: {kept} kept {plural('guess', kept)} and {own}." if kept else f"{gained}: {own}."


def final_words(step: Step) -> tuple[str, str]:
    """On the token that the target added: why it is there, and what it was drawn from."""
    last, origin = f"{MARK}{step.tokens[-1]}{END}", step.origins[-1]
    accepted = len(step.tokens) - 1
    if origin == "bonus":
        all_of = f"all {accepted} guesses on the path were" if accepted > 1 else "the guess was"
        return f"Because {all_of} kept, the same call gives one more token: {last}.", "Drawn from p behind the last kept guess."
    if origin == "correction":
        return (
            f"The large model writes {last} where its guesses were refused.",
            "Drawn from the residual: max(p − q, 0), scaled to 1.",
        )
    return f"The large model writes {last}; nothing was guessed.", "Drawn from p: nothing was drafted."


def unmarked(text: str, names: Mapping[str, Sequence[str]]) -> str:
    """A sentence without its marks; plain text."""
    return re.sub(f"{MARK}([0-9]+){END}", lambda found: names[found[1]][0], text)
