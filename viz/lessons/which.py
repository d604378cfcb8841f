"""Lesson 7: which method when."""

from viz.lessons.costs import KINDS, TASKS, best_of, calls_of
from viz.lessons.lesson import CALL, GUESS, JUDGE, Card, Lesson, Place, Question, Runs
from viz.lessons.places import most_kept
from viz.lessons.say import counted, listed
from viz.words import number

PROGRAM, TEXT = TASKS


def which(runs: Runs) -> Lesson:
    return Lesson(
        "Which method when",
        "You can name four kinds of guessers, and say which one you would try first.",
        (copy(runs), small(runs), heads(runs), itself(runs), program(runs), text(runs)),
    )


def copy(runs: Runs) -> Card:
    run = f"{TEXT}_copy"
    trace = runs[run]
    at = most_kept(trace)
    step = trace.steps[at]
    return Card(
        "Copy",
        "No model guesses here. The program looks for the last words further up in the text, and proposes what stood behind them "
        f"there. That costs nothing.\n\nAsked to correct a text, the answer repeats most of it: this call gave "
        f"{counted(len(step.tokens), 'token')}.",
        Place(run, at, JUDGE),
        ("tree",),
        show=CALL,
    )


def small(runs: Runs) -> Card:
    return told(
        runs,
        "A small model",
        "small",
        "The usual way, and that of the first lessons: a small model of the same family guesses a chain. It knows what the large "
        "one knows, only worse. It has to be called once for every guess.",
    )


def heads(runs: Runs) -> Card:
    return told(
        runs,
        "Heads",
        "heads",
        "A head is a small part that was trained to sit on the large model. It sees what the large model was thinking when it "
        "wrote the last token, and guesses from that. It is cheap and good, but somebody has to train it for this very model.",
    )


def itself(runs: Runs) -> Card:
    return told(
        runs,
        "The model itself",
        "self",
        "The large model guesses with its own first layers and leaves the rest out. Nothing else has to fit into the memory. The "
        "later layers then check what the first ones guessed.",
    )


def told(runs: Runs, title: str, end: str, words: str) -> Card:
    """A kind of guesser at the call that gave most on the program."""
    run = f"{PROGRAM}_{end}"
    trace = runs[run]
    at = most_kept(trace)
    step = trace.steps[at]
    gave = f"Here one call gave {counted(len(step.tokens), 'token')}: {listed(trace, step.tokens)}."
    return Card(title, f"{words}\n\n{gave}", Place(run, at, JUDGE), ("tree",), show=CALL)


def program(runs: Runs) -> Card:
    return asked(runs, PROGRAM, "Who wins on a program?", "All four were asked to write the same small program.")


def text(runs: Runs) -> Card:
    return asked(
        runs,
        TEXT,
        "Who wins on a text to correct?",
        "And all four were asked to correct the same text, of which most stays as it is.",
    )


def asked(runs: Runs, task: str, title: str, words: str) -> Card:
    found = calls_of(runs, task)
    kinds = list(KINDS)[1:]
    best = best_of(runs, task)
    by_name = {lane.name: lane for lane in found}
    order = sorted(found, key=lambda lane: lane.value)
    counts = ", ".join(f"{lane.name} {lane.value:.0f}" for lane in order)
    run = f"{task}_{KINDS[best]}"
    plain = by_name["alone"].value
    ends = {
        PROGRAM: "New text is what models and heads are made for.",
        TEXT: "If the answer repeats what is there already, look for a copy first: it costs nothing. So it depends on the text.",
    }
    return Card(
        title,
        f"{words} No die was thrown, so all wrote the very same {sum(len(step.tokens) for step in runs[run].steps)} tokens. "
        f"Alone, the large model took {plain:.0f} calls.",
        Place(run, most_kept(runs[run]), GUESS),
        (),
        Question(
            "fewest",
            "Which kind of guesser needed the fewest calls?",
            tuple(kinds),
            kinds.index(best),
            f"The calls: {counts}. The best gave {number(plain / by_name[best].value)} tokens per call. {ends[task]}",
            Place(run, most_kept(runs[run]), JUDGE),
            ("tree",),
        ),
        picture=f"methods:{task}",
        show=(),
    )
