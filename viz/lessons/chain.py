"""Lesson 2: one draft chain."""

from viz.lessons.costs import tau_of
from viz.lessons.lesson import CALL, CHECK, GUESS, JUDGE, WRITE, Card, Lesson, Place, Question, Runs, token
from viz.lessons.places import all_kept, kept, none_kept, well_kept
from viz.lessons.say import counted, how_many_kept, listed
from viz.step.boxes import ROOT, final_index
from viz.words import number

RUN, PROGRAM = "story", "speculative_sampling"


def chain(runs: Runs) -> Lesson:
    return Lesson(
        "One chain of guesses",
        "You can say what is guessed, what is checked, and why nothing is lost.",
        (guess(runs), check(runs), write(runs), stumble(runs), luck(runs), nothing_lost(runs)),
    )


def guess(runs: Runs) -> Card:
    trace, at = runs[RUN], well_kept(runs[RUN])
    step = trace.steps[at]
    return Card(
        "Guess",
        f"A second, much smaller model runs ahead. It is quick and not very clever. It guesses the next {len(step.nodes)} tokens: "
        f"{listed(trace, (node.token for node in step.nodes))}.\n\nThey hang behind the text like beads on a string. None of them "
        "is written yet.",
        Place(RUN, at, GUESS, ROOT),
        ("tree",),
        show=CALL,
    )


def check(runs: Runs) -> Card:
    trace, at = runs[RUN], well_kept(runs[RUN])
    step = trace.steps[at]
    count, wrong = kept(step), refused(runs, at)
    return Card(
        "Check",
        f"Now comes the large model, once. In one call it reads all {len(step.nodes)} guesses and says, for each place, how likely "
        "every token would be if it wrote by itself.\n\nIt keeps guesses from the left, up to the first one that it refuses.",
        Place(RUN, at, CHECK, ROOT),
        ("tree",),
        Question(
            "kept",
            f"How many of these {len(step.nodes)} guesses will it keep?",
            how_many_kept(step),
            count,
            f"It keeps {count}, and refuses {token(trace, step.nodes[wrong].token)}.",
            Place(RUN, at, JUDGE, wrong),
            ("tree",),
        ),
        show=CALL,
    )


def refused(runs: Runs, at: int) -> int:
    return next(i for i, node in enumerate(runs[RUN].steps[at].nodes) if node.verdict == "rejected")


def write(runs: Runs) -> Card:
    trace, at = runs[RUN], well_kept(runs[RUN])
    step = trace.steps[at]
    wrong = step.nodes[refused(runs, at)].token
    return Card(
        "Write",
        f"The kept guesses become text. In place of {token(trace, wrong)} the large model writes {token(trace, step.tokens[-1])}: "
        f"it has looked at that place anyway, in the same call.\n\n{counted(len(step.tokens), 'token')} for one call. Without "
        f"guessing they would have taken {counted(len(step.tokens), 'call')}.",
        Place(RUN, at, WRITE, final_index(step)),
        ("text",),
        show=CALL,
    )


def stumble(runs: Runs) -> Card:
    trace, at = runs[RUN], none_kept(runs[RUN])
    step = trace.steps[at]
    return Card(
        "Another call",
        "It does not always go so well. Here is another call of the same run: "
        f"{listed(trace, (node.token for node in step.nodes))}.",
        Place(RUN, at, CHECK, ROOT),
        ("tree",),
        Question(
            "kept",
            f"How many of these {len(step.nodes)} guesses will the large model keep?",
            how_many_kept(step),
            kept(step),
            f"None. {token(trace, step.nodes[0].token)} was refused, and what hangs behind a refused guess falls with it. Still "
            f"the call was not in vain: the large model wrote its own token, {token(trace, step.tokens[-1])}.",
            Place(RUN, at, JUDGE, 0),
            (f"node:{refused(runs, at)}",),
        ),
        show=CALL,
    )


def luck(runs: Runs) -> Card:
    trace, at = runs[PROGRAM], all_kept(runs[PROGRAM])
    step = trace.steps[at]
    return Card(
        "When all are right",
        f"A call of another run, which writes a program. All {len(step.nodes)} guesses were kept. Then the large model adds "
        f"{token(trace, step.tokens[-1])} behind them: it has looked at the place behind the last guess too.\n\nSo "
        f"{counted(len(step.nodes), 'guess')} can give {counted(len(step.tokens), 'token')}, and never fewer than one.",
        Place(PROGRAM, at, WRITE),
        ("tree", "text"),
        show=CALL,
    )


def nothing_lost(runs: Runs) -> Card:
    trace = runs[RUN]
    last = len(trace.steps) - 1
    total = sum(len(one.tokens) for one in trace.steps)
    fewest, most = (pick(len(one.tokens) for one in trace.steps) for pick in (min, max))
    return Card(
        "Nothing is lost",
        "A wrong guess costs nothing but the time of guessing: a call gives at least one token, as it did without "
        f"guessing.\n\nOver the whole run: {total} tokens in {len(trace.steps)} calls, between {fewest} and {most} each. That is "
        f"{number(tau_of(trace))} tokens per call. People call this number tau.\n\nEvery token of the text was either approved by "
        "the large model or written by it.",
        Place(RUN, last, WRITE, final_index(trace.steps[last])),
        ("text",),
        show=("sentence", "text"),
    )
