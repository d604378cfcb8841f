"""Lesson 5: a tree."""

from viz.lessons.costs import tau_of
from viz.lessons.lesson import CALL, CHECK, GUESS, JUDGE, WRITE, Card, Lesson, Place, Question, Runs, token
from viz.lessons.places import second_sibling
from viz.lessons.say import counted, listed, share
from viz.runs.tally import depths
from viz.step.boxes import ROOT, final_index
from viz.words import number

RUN, CHAIN, TREE = "eagle", "speculative_sampling", "multi_candidate"
MOST = 5  # options


def tree(runs: Runs) -> Lesson:
    return Lesson(
        "A tree",
        "You can say why several guesses are made for one place, and what happens to those that nobody needs.",
        (several(runs), sibling(runs), used_up(runs), idle(runs), worth(runs)),
    )


def family(runs: Runs) -> tuple[int, int, list[int]]:
    """(step, kept node, all guesses for its place) of the step that is shown."""
    at, k = second_sibling(runs[RUN])
    nodes = runs[RUN].steps[at].nodes
    return at, k, [i for i, node in enumerate(nodes) if node.parent == nodes[k].parent]


def several(runs: Runs) -> Card:
    trace, (at, _, _) = runs[RUN], family(runs)
    step = trace.steps[at]
    return Card(
        "More than one guess for a place",
        f"One wrong guess, and the rest of a chain is worth nothing. So why guess only once? Here {len(step.nodes)} tokens are "
        f"guessed, up to {max(depths(step))} ahead. Where the way forks, several tokens stand for the same place.\n\nRead it from "
        "left to right: every path is one way the text could go on.",
        Place(RUN, at, GUESS, ROOT),
        ("tree",),
        show=CALL,
    )


def sibling(runs: Runs) -> Card:
    trace, (at, k, siblings) = runs[RUN], family(runs)
    step = trace.steps[at]
    asked = siblings[:MOST]
    if k not in asked:
        asked = [*asked[:-1], k]
    parent = step.nodes[k].parent
    where = f"behind {token(trace, step.nodes[parent].token)}" if parent >= 0 else "for the first place"
    judged = [step.nodes[i] for i in siblings if step.nodes[i].verdict != "not judged"]
    gives = (f"{token(trace, node.token)} {share(node.p)}" for node in judged)
    return Card(
        "Still one call",
        "The large model reads the whole tree in one call. A mask takes care that every guess sees only the text and its own "
        f"path, as if the other paths were not there.\n\nThe guesses {where}: "
        f"{listed(trace, (step.nodes[i].token for i in siblings))}.",
        Place(RUN, at, CHECK, parent),
        tuple(f"node:{i}" for i in asked),
        Question(
            "sibling",
            f"Which of the guesses {where} will be kept?",
            tuple(token(trace, step.nodes[i].token) for i in asked),
            asked.index(k),
            f"{token(trace, step.nodes[k].token)} is kept. Judged one after the other, with the large model's share each: "
            f"{', '.join(gives)}.",
            Place(RUN, at, JUDGE, k),
            (f"node:{k}",),
        ),
        show=CALL,
    )


def used_up(runs: Runs) -> Card:
    trace, (at, k, siblings) = runs[RUN], family(runs)
    step = trace.steps[at]
    refused = [i for i in siblings if i < k and step.nodes[i].verdict == "rejected"]
    first = token(trace, step.nodes[refused[0]].token)
    return Card(
        "One after the other",
        f"Siblings are judged in turn. First {first}: refused. Then the next one, but with what the large model has left over "
        f"now, the residual of the lesson before. So {token(trace, step.nodes[k].token)} was judged with "
        f"{share(step.nodes[k].p)}.\n\nThat is why it stays exact: every refused guess uses up its share before the next one is "
        "looked at.",
        Place(RUN, at, JUDGE, refused[0]),
        (f"node:{refused[0]}", f"node:{k}"),
        show=CALL,
    )


def idle(runs: Runs) -> Card:
    trace, (at, _, _) = runs[RUN], family(runs)
    step = trace.steps[at]
    count = sum(node.verdict == "not judged" for node in step.nodes)
    return Card(
        "Guesses that nobody judged",
        f"{counted(count, 'guess')} of {len(step.nodes)} are grey. They hang below a refused guess, or beside a kept one. They "
        f"were read in the same call, for nothing.\n\nStill {counted(len(step.tokens), 'token')} for one call: "
        f"{listed(trace, step.tokens)}.",
        Place(RUN, at, WRITE, final_index(step)),
        ("tree", "text"),
        show=CALL,
    )


def worth(runs: Runs) -> Card:
    chain, wide = runs[CHAIN], runs[TREE]
    sizes = [max(len(step.nodes) for step in trace.steps) for trace in (chain, wide)]
    taus = tau_of(chain), tau_of(wide)
    options = ("the chain", "the tree", "both the same")
    right = 2 if abs(taus[0] - taus[1]) < 0.02 else int(taus[1] > taus[0])
    return Card(
        "Chain or tree",
        f"The same small model guessed for the same question in two ways: a chain of {sizes[0]}, and a tree of {sizes[1]} guesses.",
        Place(TREE, best_step(runs), GUESS, ROOT),
        ("tree",),
        Question(
            "tau",
            "Which gave more tokens per call?",
            options,
            right,
            f"The chain gave {number(taus[0])}, the tree {number(taus[1])} tokens per call. But the tree asks the large model to "
            f"read {sizes[1] + 1} places at once instead of {sizes[0] + 1}. Whether that pays is the next lesson.",
            Place(TREE, best_step(runs), JUDGE),
            ("tree",),
        ),
        show=("sentence", "tree"),
    )


def best_step(runs: Runs) -> int:
    """The call of the tree that gave most."""
    steps = runs[TREE].steps
    return max(range(len(steps)), key=lambda i: (len(steps[i].tokens), -i))
