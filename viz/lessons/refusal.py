"""Lesson 3: a refusal and its dice."""

from viz.lessons.lesson import CHECK, JUDGE, WRITE, Card, Lesson, Place, Question, Runs, token
from viz.lessons.places import border, die_keeps, die_refuses, liked_more, node_at
from viz.lessons.say import VERDICTS, die, edge, exactly, share, side, verdict
from viz.step.boxes import final_index
from viz.verdicts import KEPT

RUN = "story"


def refusal(runs: Runs) -> Lesson:
    return Lesson(
        "A refusal and its dice",
        "You can say when a guess is kept, what the die is for, and where the other token comes from.",
        (too_sure(runs), the_die(runs), other_die(runs), instead(runs), generous(runs)),
    )


def too_sure(runs: Runs) -> Card:
    trace, place = runs[RUN], die_keeps(runs[RUN])
    node = node_at(trace, place)
    this = token(trace, node.token)
    return Card(
        "Too sure",
        f"The small model was {share(node.q)} sure of {this}. The large model would write it with {share(node.p)}.\n\n"
        f"If such guesses were always kept, {this} would come too often. If they were always refused, too rarely. So it has to be "
        "kept now and then: just as often as is right.",
        Place(RUN, place[0], CHECK, place[1]),
        ("bars",),
    )


def the_die(runs: Runs) -> Card:
    trace, place = runs[RUN], die_keeps(runs[RUN])
    node = node_at(trace, place)
    return Card(
        "The die",
        f"How often is right? {exactly(node.p)} divided by {exactly(node.q)} is {edge(node)}. So in {share(border(node))} "
        f"of such cases the guess is kept.\n\nA die decides: a random number between 0 and 1. Below {edge(node)} the guess is "
        "kept.",
        Place(RUN, place[0], CHECK, place[1]),
        ("bars",),
        asked(runs, place, f"The die says {die(node)}, and the border is {edge(node)}. What happens?"),
    )


def other_die(runs: Runs) -> Card:
    trace, place = runs[RUN], die_refuses(runs[RUN])
    node = node_at(trace, place)
    return Card(
        "Another throw",
        f"Another call of the same run. The small model was {share(node.q)} sure of {token(trace, node.token)}; the large one "
        f"gives it {share(node.p)}. The border is {exactly(node.p)} / {exactly(node.q)} = {edge(node)}.",
        Place(RUN, place[0], CHECK, place[1]),
        ("bars",),
        asked(runs, place, f"The die says {die(node)}. What happens to {token(trace, node.token)}?"),
    )


def asked(runs: Runs, place: tuple[int, int], ask: str) -> Question:
    trace = runs[RUN]
    node = node_at(trace, place)
    return Question(
        "verdict",
        ask,
        VERDICTS,
        verdict(node),
        f"{die(node)} is {side(node)} {edge(node)}: {token(trace, node.token)} is {KEPT[node.verdict]}.",
        Place(RUN, place[0], JUDGE, place[1]),
        ("die",),
    )


def instead(runs: Runs) -> Card:
    trace, (at, k) = runs[RUN], die_refuses(runs[RUN])
    step = trace.steps[at]
    wrong, own = token(trace, step.nodes[k].token), token(trace, step.tokens[-1])
    return Card(
        "What comes instead",
        f"{wrong} is out, and the large model writes {own}. But not from all of its own shares: {wrong} had its chance already, "
        "as a guess.\n\nIt draws from what is left over: only tokens to which the large model gives more than the small one did. "
        "They are the yellow bars. This is called the residual.",
        Place(RUN, at, WRITE, final_index(step)),
        ("bars",),
    )


def generous(runs: Runs) -> Card:
    trace, place = runs[RUN], liked_more(runs[RUN])
    node = node_at(trace, place)
    return Card(
        "And the other way round",
        f"Here the small model was only {share(node.q)} sure of {token(trace, node.token)}, and the large model gives it "
        f"{share(node.p)}: more than that.",
        Place(RUN, place[0], CHECK, place[1]),
        ("bars",),
        Question(
            "verdict",
            f"The die falls high, on {die(node)}. What happens?",
            VERDICTS,
            verdict(node),
            f"{KEPT[node.verdict].capitalize()}: the large model wants it more often than it is guessed, so every guess of it is "
            "needed. The die could have said anything.",
            Place(RUN, place[0], JUDGE, place[1]),
            ("die",),
        ),
    )
