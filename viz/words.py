"""Sentences: what happened to a node, what a step did, what the words mean. Plain text; escape it where it goes.

Knows traces and tallies. Whatever it says was recorded: where a verdict does not follow from the numbers of the node,
it says that the method has a rule of its own instead of printing an inequality that is false.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import takewhile

from decoding.score_names import JOINT, JUDGE_ONLY, JUDGE_SCORE, OWN, TYPICAL_P, TYPICAL_THRESHOLD, WENT_ON
from decoding.trace import MAX_TOKENS, Header, Node, Step
from viz.runs.tally import Tally, modelled_speedup
from viz.tokens import name, plain, quoted, word

GLOSSARY = {
    "target": "The model whose text we want. p is its distribution after temperature, top-k and top-p.",
    "drafter": "Whatever guesses tokens. q is the distribution each guess was drawn from, after the same processors.",
    "draft": "A tree of guessed tokens. A chain is a thin tree; plain decoding has an empty one.",
    "root": "The end of the committed text; the draft hangs below it.",
    "step": "One target call: propose, read, judge, commit.",
    "accepted": "The verdict on a drafted token that the target keeps.",
    "rejected": "The verdict on a drafted token that the target read and turned down.",
    "not judged": "A drafted token that was never judged: its parent was not accepted, or a sibling won.",
    "bonus": "The token the target adds after a fully accepted path.",
    "correction": "The token the target puts in place of a rejected one.",
    "residual": "max(p − q, 0), scaled to sum to 1: what the correction is drawn from.",
    "u": "The uniform random number a token was judged with: accepted if u × q < p.",
    "tau": "Tokens that join the text per target call, the target's own token included; plain decoding has 1.",
    "alpha": "Of the drafted tokens that were judged, the share that was accepted.",
    "lossless": "The output follows the target's distribution exactly; greedy: token for token, up to numerics.",
    "family": "A tokenizer, a target, and the drafts and heads that fit it.",
    "alive": "A token of the text that a layer of a pruned target still sees at this call.",
    "aux cache": "Where a pruned target keeps what a token was when it stopped, so that a later call can go on from there.",
}


@dataclass(frozen=True)
class Metric:
    """A number the pages show, and what it is."""

    formula: str
    meaning: str


METRICS = {
    "tau": Metric("tokens committed / target calls", "Mean tokens per target call, the target's own token included; plain is 1."),
    "alpha": Metric(
        "accepted / judged", "Share of the drafted tokens the target looked at that it kept; not judged ones do not count."
    ),
    "yield": Metric("accepted / drafted", "Share of all drafted tokens that were kept; not judged ones count as lost."),
    "wasted": Metric("drafted − accepted", "Drafted tokens that did not reach the text."),
    "calls saved": Metric("1 − target calls / tokens", "Share of the target calls of plain decoding that were not needed."),
    "tokens per second": Metric(
        "tokens / seconds of all steps",
        "Measured on the machine the run was made on: the four phases of its steps, nothing else.",
    ),
    "modelled speed-up": Metric(
        "tau / (1 + c × drafter calls per step)",
        "Not measured: follows from tau and the cost ratio c = t(drafter call) / t(target call).",
    ),
}


def prompt_end(prompt: str) -> str:
    """What the end of a typed prompt does to the text that follows; "" where there is nothing to say. Plain text.

    >>> prompt_end("He said: ")
    'The prompt ends in a space. Most words bring their own, so behind one the model has few good ways on: take it away.'
    >>> prompt_end("He said:")
    ''
    """
    if prompt[-1:] in (" ", "\t", "\N{NO-BREAK SPACE}"):
        return "The prompt ends in a space. Most words bring their own, so behind one the model has few good ways on: take it away."
    if not (last := ending(prompt, str.isalnum)):
        return ""
    return f"The model takes “{plain(last, 20)}” as it stands: of a word that was cut inside it seldom writes the rest."


def ending(text: str, fits: Callable[[str], bool]) -> str:
    """The longest end of a text all of whose characters fit. A pattern may begin anywhere: where a long word does not end the text,
    it takes time of the square of that word's length, in which nothing else of the process goes on.

    >>> ending("say yes2", str.isalnum), ending("yes!", str.isalnum)
    ('yes2', '')
    """
    return "".join(takewhile(fits, reversed(text)))[::-1]


def score_words(name: str) -> str:
    """How a method's own number of a node is called in a list where q is what the node was drawn from.

    >>> score_words("q"), score_words("joint q"), score_words("rank")
    ("the head's own probability", 'product of those down the path', 'rank')
    """
    return word(OWN_WORDS.get(name, name))


OWN_WORDS = {OWN: "the head's own probability", JOINT: "product of those down the path"}


def number(x: float, digits: int = 3) -> str:
    """A probability for a sentence: `digits` significant ones, at least two decimals, no exponent above 0.0001.

    >>> number(0.2), number(0.155), number(1.0), number(0.000012345)
    ('0.20', '0.155', '1.00', '1.23e-05')
    """
    short = f"{x:.{digits}g}"
    if "e" in short or "n" in short:  # an exponent, or nan and inf
        return short
    whole, _, decimals = short.partition(".")
    return f"{whole}.{decimals.ljust(2, '0')}"


def node_name(
    step: Step, node: int, token_bytes: Mapping[int, bytes], say: Callable[[int, Mapping[int, bytes]], str] = name
) -> str:
    """A node by its token, -1 as "the root"; plain text."""
    return "the root" if node < 0 else say(step.nodes[node].token, token_bytes)


def comparison(left: float, right: float, least: int = 3) -> str:
    """'0.155 < 0.20', with as many digits as it takes to see the difference, at least so many."""
    sign = "<" if left < right else "≥"
    for digits in range(least, 17):
        a, b = number(left, digits), number(right, digits)
        if a != b or left == right:
            break
    return f"{a} {sign} {b}"


def judgement(node: Node, token_bytes: Mapping[int, bytes] | None = None, step: Step | None = None) -> str:
    """Why the node has its verdict, with its numbers: '0.31 × 0.50 = 0.155 < 0.20: accepted' is u × q against p.

    With `step`, a node that was not judged says which reason it was, and a drawn token that rejected the node is named.
    """
    if node.verdict == "not judged":
        return f"never looked at: {not_judged_reason(node, step)}"
    for score, says in RULES.items():
        if score in node.scores and (said := says(node)):
            return said
    if node.u is None:
        return sampled_judgement(node, token_bytes or {}, step)
    if all(one_hot(other) for other in (node, *(step.nodes if step else ()))):
        return greedy_judgement(node, token_bytes or {})
    weight = 1.0 if node.q is None else node.q
    if (node.u * weight < node.p) != (node.verdict == "accepted"):
        return f"the method's own rule, p = {number(node.p)}: {node.verdict}"
    factors = "" if node.q is None else f"{number(node.u)} × {number(node.q)} = "
    return f"{factors}{comparison(node.u * weight, node.p)}: {node.verdict}"


def not_judged_reason(node: Node, step: Step | None) -> str:
    if step is None:
        return "its parent was not accepted, or an elder sibling was"
    if node.parent >= 0 and step.nodes[node.parent].verdict != "accepted":
        return "its parent was not accepted"
    if any(other.parent == node.parent and other.verdict == "accepted" for other in step.nodes):
        return "a sibling was accepted"
    return "the walk ended before it"


def one_hot(node: Node) -> bool:
    """Whether the node can be one of a greedy run. A single one of a sampled run can look so too: the last sibling that is left."""
    return node.p in (0, 1) and node.q in (None, 0, 1)


def greedy_judgement(node: Node, token_bytes: Mapping[int, bytes]) -> str:
    """With one-hot p the uniforms do not matter."""
    is_or_not = "is" if node.p == 1 else "is not"
    return f"greedy: {quoted(node.token, token_bytes)} {is_or_not} the target's choice here: {node.verdict}"


def sampled_judgement(node: Node, token_bytes: Mapping[int, bytes], step: Step | None) -> str:
    """The target drew a token first; the child that carries it, if any, is accepted."""
    row = step.rows[node.parent + 1] if step and step.rows else None
    sampled = row.sampled if row else None
    this = quoted(node.token, token_bytes)
    if node.verdict == "accepted":
        if sampled is not None and sampled != node.token:
            return f"the method's own rule, p = {number(node.p)}: accepted"
        return f"the target drew {this} here: accepted"
    if sampled == node.token:
        return f"the method's own rule, p = {number(node.p)}: rejected"
    return f"the target drew {'another token' if sampled is None else quoted(sampled, token_bytes)} here, not {this}: rejected"


def typical_judgement(node: Node) -> str:
    """Typical acceptance: plausible enough or not; of several paths that are, the longest is kept."""
    p, threshold = node.scores.get(TYPICAL_P, node.p), node.scores[TYPICAL_THRESHOLD]
    passes = p > threshold
    lost = ", but it is not on the longest path" if passes and node.verdict == "rejected" else ""
    return f"p {number(p)} {'>' if passes else '≤'} threshold {number(threshold)}{lost}: {node.verdict}"


def judge_judgement(node: Node) -> str:
    """Judge Decoding, where the judge overruled the standard rule; "" where it did not."""
    if not node.scores[JUDGE_ONLY] or node.u is None:
        return ""
    score = number(node.scores.get(JUDGE_SCORE, 0))
    return f"{comparison(node.u * (node.q or 0), node.p)}, but the judge scores it {score}: accepted"


RULES: dict[str, Callable[[Node], str]] = {  # a score that only one rule leaves at its nodes -> what that rule says
    TYPICAL_THRESHOLD: typical_judgement,
    JUDGE_ONLY: judge_judgement,
}


def stage(headers: Iterable[Header]) -> str:
    """What model ran, where, and in which number format; of several runs whatever differs, once."""
    found = dict.fromkeys((model_name(header.family), header.device, header.dtype) for header in headers)
    return "; ".join(f"{model} on {plain(device, 20)} in {plain(dtype, 20)}" for model, device, dtype in found)


def model_name(family: str) -> str:
    """A family as people call it: of the models that are folders or files their last part.

    >>> model_name("/home/ada/models/llama + HF/draft")
    'llama + HF/draft'
    """
    parts = (part.rstrip("/").rpartition("/")[2] if part[:1] in ("/", ".", "~") else part for part in family.split(" + "))
    return plain(" + ".join(parts))


def narrate(step: Step, number: int, token_bytes: Mapping[int, bytes]) -> str:
    """One sentence on what a step did; `number` counts from 1."""
    accepted = sum(node.verdict == "accepted" for node in step.nodes)
    ends = f" The run ends here: {step.ending}." if step.ending else ""
    return f"Step {number}: {kept(accepted, len(step.nodes))}{final_words(step, token_bytes)}.{went_on(step)}{ends}"


def went_on(step: Step) -> str:
    """That the run went on with this step on another machine; "" if it did not."""
    if not 0 < (count := step.facts.get(WENT_ON, 0)) <= MAX_TOKENS:
        return ""
    tokens = "token" if count == 1 else "tokens"
    return (
        f" The machine was lost here: the run went on from its {count:,.0f} {tokens} on another one, with other random numbers "
        "than its seed alone gives."
    )


def kept(accepted: int, drafted: int) -> str:
    if not drafted:
        return "nothing was drafted"
    tokens = "token" if drafted == 1 else "tokens"
    if accepted == drafted:
        return "the only drafted token accepted" if drafted == 1 else f"all {drafted} drafted tokens accepted"
    return f"{accepted or 'none'} of {drafted} drafted {tokens} accepted"


def final_words(step: Step, token_bytes: Mapping[int, bytes]) -> str:
    """What the target added, if anything: the text may end inside the accepted path."""
    if not step.origins or step.origins[-1] == "accepted":
        return ""
    token = quoted(step.tokens[-1], token_bytes)
    if step.origins[-1] == "plain":
        return f", the target wrote {token}"
    return f", then a {step.origins[-1]} {token}"


def filled(metric: str, tally: Tally) -> str:
    """The formula of a metric with the run's numbers: 'tau = tokens committed / target calls = 12 / 4 = 3.00'.

    Raises:
        KeyError: not a metric of a tally (the modelled speed-up needs a cost ratio: `filled_speedup`).
    """
    seconds = sum(tally.ms.values()) / 1000
    numbers = {
        "tau": (f"{tally.tokens} / {tally.target_calls}", tally.tau),
        "alpha": (f"{tally.accepted} / {tally.judged}", tally.alpha),
        "yield": (f"{tally.accepted} / {tally.drafted}", tally.accepted_per_drafted),
        "wasted": (f"{tally.drafted} − {tally.accepted}", tally.wasted),
        "calls saved": (f"1 − {tally.target_calls} / {tally.tokens}", tally.calls_saved),
        "tokens per second": (f"{tally.tokens} / {seconds:.3f}", tally.tokens_per_second),
    }
    sum_, value = numbers[metric]
    if value is None:
        return f"{metric} = {METRICS[metric].formula}: nothing to divide by yet"
    return f"{metric} = {METRICS[metric].formula} = {sum_} = {value if isinstance(value, int) else f'{value:.2f}'}"


def filled_speedup(tally: Tally, c: float) -> str:
    """The modelled speed-up with its numbers; c is the cost of a drafter call in target calls."""
    if tally.tau is None or tally.calls_per_step is None:
        return "modelled speed-up: no step was run yet"
    value = modelled_speedup(tally.tau, tally.calls_per_step, c)
    formula = METRICS["modelled speed-up"].formula
    return f"modelled speed-up = {formula} = {tally.tau:.2f} / (1 + {number(c)} × {tally.calls_per_step:.2f}) = {value:.2f}"
