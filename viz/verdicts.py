"""Verdicts in words: why a guess was kept or refused, for somebody who does not read inequalities.

The numbers themselves are in `viz.words.judgement`; both say the same. Plain text; escape it where it goes. How a sentence names a
token and says a probability is its `Manner`: the stepper marks the tokens, and says each sentence in per cent and in decimals.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from decoding.score_names import JUDGE_ONLY, JUDGE_SCORE, TYPICAL_P, TYPICAL_THRESHOLD
from decoding.trace import Node, Step
from viz.tokens import quoted
from viz.words import comparison, not_judged_reason, number, one_hot

KEPT = {"accepted": "kept", "rejected": "refused", "not judged": "not judged"}
NARROW = "\N{NARROW NO-BREAK SPACE}"
LEAST = 0.001  # a share that is smaller is called so
NEAR = 0.03  # a die that falls so close to what decides is just above or just below it
SMALL_MODEL = "draft model"  # what the sources of nodes begin with that a model of its own drafted


def percent(share: float) -> str:
    """A probability as people say it; number and sign stay on one line.

    >>> [percent(share).replace(NARROW, " ") for share in (0.89, 0.0042, 0.99963, 0.0, 1.0, 2e-6)]
    ['89 %', '0.4 %', '99.96 %', '0 %', '100 %', 'less than 0.1 %']
    """
    if 0 < share < LEAST:
        return f"less than 0.1{NARROW}%"
    if 0.99995 <= share < 1:
        return f"nearly 100{NARROW}%"
    digits = 1 if 0 < share < 0.0995 and not (100 * share).is_integer() else 2 if 0.995 <= share < 1 else 0
    return f"{100 * share:.{digits}f}".removesuffix(".0") + f"{NARROW}%"


@dataclass(frozen=True)
class Manner:
    """How a sentence names tokens and says probabilities."""

    token: Callable[[int, Mapping[int, bytes]], str] = quoted
    share: Callable[[float], str] = percent


def in_words(step: Step, index: int, token_bytes: Mapping[int, bytes], manner: Manner = Manner()) -> str:
    """One to three sentences on the verdict of a node."""
    node = step.nodes[index]
    this = manner.token(node.token, token_bytes)
    if node.verdict == "not judged":
        return f"Nobody judged {this}: {not_judged_reason(node, step)}."
    for score, says in RULES.items():
        if score in node.scores and (said := says(node, this, manner)):
            return said + instead(step, index, token_bytes, manner)
    if node.u is None:
        return drawn_by_target(step, node, this, token_bytes, manner)
    if all(map(one_hot, (node, *step.nodes))):
        return favourite(step, node, this, token_bytes, manner)
    if (node.u * (1.0 if node.q is None else node.q) < node.p) != (node.verdict == "accepted"):
        return own_rule(node, this, manner)
    return die(step, index, this, manner) + instead(step, index, token_bytes, manner)


def own_rule(node: Node, this: str, manner: Manner) -> str:
    return f"The method has a rule of its own here; the large model gives {this} {manner.share(node.p)}: {KEPT[node.verdict]}."


def guesser(node: Node) -> str:
    """Who guessed a node."""
    return "The small model" if node.source.startswith(SMALL_MODEL) else "The drafter"


def die(step: Step, index: int, this: str, manner: Manner) -> str:
    """The usual rule: kept with a chance of p / q."""
    node = step.nodes[index]
    assert node.u is not None
    gives = f"the large one gives it {manner.share(node.p)}"
    if guesser(node) != "The small model":
        gives = f"the large model gives it {manner.share(node.p)}"
    if any(other.parent == node.parent and other.verdict == "rejected" for other in step.nodes[:index]):
        gives = f"the large model, less what the guesses refused before it have used up, gives it {manner.share(node.p)}"
    if node.q is None:
        sure, chance = f"{guesser(node)} chose {this} outright", node.p
    else:
        sure = f"{guesser(node)} was {manner.share(node.q)} sure of {this}"
        chance = min(1.0, node.p / node.q) if node.q else 1.0
    if chance >= 1:
        return f"{sure}, and {gives}, no less: kept, whatever the die says."
    if node.p <= 0:
        return f"{sure}, but {gives}: refused, whatever the die says."
    fell, sign, needed = comparison(node.u, chance, 2).split(" ")
    side = "below" if sign == "<" else "exactly" if node.u == chance else "above"
    just = "just " if side != "exactly" and abs(node.u - chance) < NEAR else ""
    return f"{sure}; {gives}. The die says {fell}, {just}{side} {needed}: {KEPT[node.verdict]}."


def instead(step: Step, index: int, token_bytes: Mapping[int, bytes], manner: Manner) -> str:
    """What the target wrote where this guess was the last that it would not have."""
    node = step.nodes[index]
    wrote = correction_at(step, node.parent)
    if node.verdict != "rejected" or wrote is None:
        return ""
    last = max(i for i, other in enumerate(step.nodes) if other.parent == node.parent and other.verdict == "rejected")
    return f" The large model writes {manner.token(wrote, token_bytes)}." if last == index else ""


def correction_at(step: Step, parent: int) -> int | None:
    """The token that the target put below a node, -1 the root, in place of what was drafted there."""
    end = step.path[-1] if step.path else -1
    return step.tokens[-1] if step.origins and step.origins[-1] == "correction" and parent == end else None


def drawn_by_target(step: Step, node: Node, this: str, token_bytes: Mapping[int, bytes], manner: Manner) -> str:
    """The target drew first, and a guess is kept if it is what was drawn."""
    row = step.rows[node.parent + 1] if step.rows else None
    drawn = row.sampled if row else None
    gives = manner.share(node.p)
    if node.verdict == "accepted" and drawn in (None, node.token):
        return f"The large model drew {this}, to which it gives {gives}, and the guess was the same: kept."
    if node.verdict == "rejected" and drawn != node.token:
        other = "another token" if drawn is None else manner.token(drawn, token_bytes)
        return f"The large model, which gives {this} {gives}, drew {other} here: refused."
    return own_rule(node, this, manner)


def favourite(step: Step, node: Node, this: str, token_bytes: Mapping[int, bytes], manner: Manner) -> str:
    """A greedy run: only the target's likeliest token will do."""
    if node.verdict == "accepted":
        return f"{this} is the large model's favourite here too: kept."
    kept = next((other.token for other in step.nodes if other.parent == node.parent and other.verdict == "accepted"), None)
    wanted = correction_at(step, node.parent) if kept is None else kept
    named = "" if wanted is None else f"; that is {manner.token(wanted, token_bytes)}"
    return f"{this} is not the large model's favourite here{named}: refused."


def typical(node: Node, this: str, manner: Manner) -> str:
    """Typical acceptance: plausible enough or not."""
    p, enough = node.scores.get(TYPICAL_P, node.p), manner.share(node.scores[TYPICAL_THRESHOLD])
    gives = f"The large model gives {this} {manner.share(p)}"
    if p > node.scores[TYPICAL_THRESHOLD] and node.verdict == "rejected":
        return f"{gives}, where {enough} is enough, but another path is longer: refused."
    return f"{gives}; more than {enough} is enough here: {KEPT[node.verdict]}."


def overruled(node: Node, this: str, manner: Manner) -> str:
    """Judge Decoding where the judge spoke; "" where the usual rule did."""
    if not node.scores[JUDGE_ONLY] or node.u is None:
        return ""
    score = number(node.scores.get(JUDGE_SCORE, 0))
    return f"By the usual rule {this} would be refused; the judge finds it right all the same, with a score of {score}: kept."


RULES: dict[str, Callable[[Node, str, Manner], str]] = {  # a score that only one rule leaves at its nodes -> what that rule says
    TYPICAL_THRESHOLD: typical,
    JUDGE_ONLY: overruled,
}
