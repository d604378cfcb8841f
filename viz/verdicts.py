"""Verdicts in words: why a guess was kept or turned down, for somebody who does not read inequalities.

The numbers themselves are in `viz.words.judgement`; both say the same. Plain text; escape it where it goes.
"""

from collections.abc import Callable, Mapping

from decoding.score_names import JUDGE_ONLY, JUDGE_SCORE, TYPICAL_P, TYPICAL_THRESHOLD
from decoding.trace import Node, Step
from viz.tokens import quoted
from viz.words import comparison, not_judged_reason, number, one_hot

KEPT = {"accepted": "kept", "rejected": "turned down", "not judged": "not judged"}
LEAST = 0.001  # a share that is smaller is called so


def in_words(step: Step, index: int, token_bytes: Mapping[int, bytes]) -> str:
    """One or two sentences on the verdict of a node."""
    node = step.nodes[index]
    this = quoted(node.token, token_bytes)
    if node.verdict == "not judged":
        return f"Nobody judged {this}: {not_judged_reason(node, step)}."
    for score, says in RULES.items():
        if score in node.scores and (said := says(node, this)):
            return said + instead(step, node, token_bytes)
    if node.u is None:
        return drawn_by_target(step, node, this, token_bytes)
    if all(map(one_hot, (node, *step.nodes))):
        return favourite(step, node, this, token_bytes)
    if (node.u * (1.0 if node.q is None else node.q) < node.p) != (node.verdict == "accepted"):
        return f"The method has a rule of its own here; the target gives {this} {percent(node.p)}: {KEPT[node.verdict]}."
    return die(step, node, this) + instead(step, node, token_bytes)


def percent(share: float) -> str:
    """A probability as people say it.

    >>> percent(0.89), percent(0.0042), percent(0.99963), percent(0.0), percent(1.0), percent(2e-6)
    ('89 %', '0.4 %', '99.96 %', '0 %', '100 %', 'less than 0.1 %')
    """
    if 0 < share < LEAST:
        return "less than 0.1 %"
    if 0.99995 <= share < 1:
        return "nearly 100 %"
    digits = 1 if 0 < share < 0.0995 and not (100 * share).is_integer() else 2 if 0.995 <= share < 1 else 0
    return f"{100 * share:.{digits}f}".removesuffix(".0") + " %"


def die(step: Step, node: Node, this: str) -> str:
    """The usual rule: kept with a chance of p / q."""
    assert node.u is not None
    gives = f"the target gives it {percent(node.p)}"
    if any(other.parent == node.parent and other.verdict == "rejected" for other in before(step, node)):
        gives = f"the target, less what the guesses turned down before it have used up, gives it {percent(node.p)}"
    if node.q is None:
        sure, chance = f"The drafter chose {this} outright", node.p
    else:
        sure, chance = f"The drafter was {percent(node.q)} sure of {this}", min(1.0, node.p / node.q) if node.q else 1.0
    if chance >= 1:
        return f"{sure}, and {gives}, no less: kept, whatever the die says."
    if node.p <= 0:
        return f"{sure}, but {gives}: turned down, whatever the die says."
    fell, sign, needed = comparison(node.u, chance).split(" ")
    side = "below" if sign == "<" else "not below"
    return f"{sure}; {gives}. The die fell on {fell}, {side} {needed}: {KEPT[node.verdict]}."


def before(step: Step, node: Node) -> list[Node]:
    """The nodes that stand in front of this one."""
    place = next(i for i, other in enumerate(step.nodes) if other is node)
    return list(step.nodes[:place])


def instead(step: Step, node: Node, token_bytes: Mapping[int, bytes]) -> str:
    """What the target wrote where this guess was the one that it would not have."""
    wrote = correction_at(step, node.parent)
    if node.verdict != "rejected" or wrote is None:
        return ""
    last = max(i for i, other in enumerate(step.nodes) if other.parent == node.parent and other.verdict == "rejected")
    return f" The target writes {quoted(wrote, token_bytes)} instead." if step.nodes[last] is node else ""


def correction_at(step: Step, parent: int) -> int | None:
    """The token that the target put below a node, -1 the root, in place of what was drafted there."""
    end = step.path[-1] if step.path else -1
    return step.tokens[-1] if step.origins and step.origins[-1] == "correction" and parent == end else None


def drawn_by_target(step: Step, node: Node, this: str, token_bytes: Mapping[int, bytes]) -> str:
    """The target drew first, and a guess is kept if it is what was drawn."""
    row = step.rows[node.parent + 1] if step.rows else None
    drawn = row.sampled if row else None
    if node.verdict == "accepted" and drawn in (None, node.token):
        return f"The target drew {this}, to which it gives {percent(node.p)}, and the guess was the same: kept."
    if node.verdict == "rejected" and drawn != node.token:
        other = "another token" if drawn is None else quoted(drawn, token_bytes)
        return f"The target, which gives {this} {percent(node.p)}, drew {other} here: turned down."
    return f"The method has a rule of its own here; the target gives {this} {percent(node.p)}: {KEPT[node.verdict]}."


def favourite(step: Step, node: Node, this: str, token_bytes: Mapping[int, bytes]) -> str:
    """A greedy run: only the target's likeliest token will do."""
    if node.verdict == "accepted":
        return f"{this} is the target's favourite here too: kept."
    kept = next((other.token for other in step.nodes if other.parent == node.parent and other.verdict == "accepted"), None)
    wanted = correction_at(step, node.parent) if kept is None else kept
    named = "" if wanted is None else f"; that is {quoted(wanted, token_bytes)}"
    return f"{this} is not the target's favourite here{named}: turned down."


def typical(node: Node, this: str) -> str:
    """Typical acceptance: plausible enough or not."""
    p, enough = node.scores.get(TYPICAL_P, node.p), node.scores[TYPICAL_THRESHOLD]
    if p > enough and node.verdict == "rejected":
        return f"The target gives {this} {percent(p)}, where {percent(enough)} is enough, but another path is longer: turned down."
    return f"The target gives {this} {percent(p)}; more than {percent(enough)} is enough here: {KEPT[node.verdict]}."


def overruled(node: Node, this: str) -> str:
    """Judge Decoding where the judge spoke; "" where the usual rule did."""
    if not node.scores[JUDGE_ONLY] or node.u is None:
        return ""
    score = number(node.scores.get(JUDGE_SCORE, 0))
    return f"By the usual rule {this} would be turned down; the judge finds it right all the same, with a score of {score}: kept."


RULES: dict[str, Callable[[Node, str], str]] = {  # a score that only one rule leaves at its nodes -> what that rule says
    TYPICAL_THRESHOLD: typical,
    JUDGE_ONLY: overruled,
}
