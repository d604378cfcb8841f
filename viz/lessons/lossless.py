"""Lesson 4: why the text stays exactly the same."""

from viz.lessons.costs import differences
from viz.lessons.draws import COUNT, Bars, bars_of, leftover, meets, variation
from viz.lessons.lesson import CHECK, JUDGE, WRITE, Card, Lesson, Place, Question, Runs
from viz.lessons.places import varied
from viz.lessons.say import nearest, share

RUN, ALONE, GUESSED = "story", "greedy_plain", "greedy_small"
LEAST = 0.01  # a total variation that is smaller cannot be seen in the bars


def lossless(runs: Runs) -> Lesson:
    return Lesson(
        "Why the text stays the same",
        "You can say what it means that nothing is lost, and how it is tested.",
        (greedy(runs), by_chance(runs), honest(runs), lazy(runs), why(runs)),
    )


def bars(runs: Runs) -> Bars:
    """The position that is drawn from ten thousand times."""
    trace = runs[RUN]
    step, row = varied(trace)
    found = trace.steps[step].rows[row]
    assert found is not None
    return bars_of(found, trace.token_bytes)


def place(runs: Runs, phase: int) -> Place:
    """A guess at that position."""
    step, row = varied(runs[RUN])
    nodes = runs[RUN].steps[step].nodes
    return Place(RUN, step, phase, next(i for i, node in enumerate(nodes) if node.parent == row - 1))


def greedy(runs: Runs) -> Card:
    one, other = runs[ALONE], runs[GUESSED]
    count, total = differences(one, other), sum(len(step.tokens) for step in one.steps)
    options = (0, max(1, total // 10), max(2, total // 3))
    found = "none" if not count else f"{count:,}"
    return Card(
        "Without chance",
        "A model can write without a die: it always takes its likeliest token. This is called greedy. Then a guess is kept only "
        "if it is the very token that the large model would write.\n\nThe same question was answered twice: by the large model "
        "alone, and with a small model that guesses.",
        Place(GUESSED, len(other.steps) - 1, WRITE),
        (),
        Question(
            "differ",
            f"In how many of the {total} tokens do the two texts differ?",
            ("none", f"about {options[1]}", f"about {options[2]}"),
            nearest(count, options),
            f"In {found}. The text is the same, token for token, after {len(other.steps)} calls instead of {len(one.steps)}.",
            Place(GUESSED, len(other.steps) - 1, WRITE),
        ),
        picture="texts",
        show=(),
    )


def by_chance(runs: Runs) -> Card:
    found = bars(runs)
    likely = max(range(len(found.p) - 1), key=lambda i: found.p[i])
    return Card(
        "With chance",
        "With a die, two runs differ, as two throws of a die differ. That is no fault. What has to stay the same is how often "
        f"each token comes at each place.\n\nTake this place. The large model alone would write {found.names[likely]} in "
        f"{share(found.p[likely])} of all cases: the bar marked p. The small model thinks otherwise: q. It guesses. Will the "
        "large model's shares come out all the same?",
        place(runs, CHECK),
        ("bars",),
    )


def honest(runs: Runs) -> Card:
    found = bars(runs)
    off = variation(meets(found.p, found.q, leftover(found.p, found.q)), found.p)
    return Card(
        "Draw ten thousand times",
        f"Do it {COUNT:,} times: a guess from q, a die, and after a refusal a token from what is left over. Count what comes "
        "out.\n\nThe outline is p. The filled bars are the draws by the rule.",
        place(runs, JUDGE),
        (),
        Question(
            "meets",
            "Where will the bars of the rule end?",
            ("on p", "on q", "between the two"),
            0 if off < LEAST else 2,
            "On p. What is still missing is chance: it shrinks the longer one draws, as the number under the bars shows.",
            place(runs, JUDGE),
        ),
        picture="draws",
        show=(),
    )


def lazy(runs: Runs) -> Card:
    found = bars(runs)
    ends = meets(found.p, found.q, found.p)
    off = variation(ends, found.p)
    much = max(range(len(ends) - 1), key=lambda i: ends[i] - found.p[i])
    return Card(
        "A rule that is nearly right",
        "The lower bars are drawn by another rule, with the same guesses and the same die. After a refusal it draws from the large "
        "model's shares once more, instead of from what is left over. That sounds fair, and it is a mistake that programs have "
        "made.",
        place(runs, JUDGE),
        (),
        Question(
            "meets",
            "Do these bars meet p too, if one only draws long enough?",
            ("yes", "no, some tokens come too often"),
            0 if off < LEAST else 1,
            f"No. {found.names[much]} comes in {share(ends[much])} of all cases instead of {share(found.p[much])}, however long "
            f"one draws. Altogether {share(off)} of the draws are wrong. Nobody would notice by reading the text.",
            place(runs, JUDGE),
        ),
        picture="draws:both",
        show=(),
    )


def why(runs: Runs) -> Card:
    found = bars(runs)
    over = max(range(len(found.p) - 1), key=lambda i: found.q[i] - found.p[i])
    under = max(range(len(found.p) - 1), key=lambda i: found.p[i] - found.q[i])
    met = min(found.p[under], found.q[under])
    rest = leftover(found.p, found.q)[under]
    refused = 1 - sum(map(min, found.p, found.q))
    return Card(
        "Why it comes out right",
        f"{found.names[over]} is guessed in {share(found.q[over])} of the cases. The die keeps just so many that "
        f"{share(found.p[over])} remain: that is p.\n\n{found.names[under]} is guessed and kept in {share(met)} of the cases. "
        f"That is too few. But in {share(refused)} of all cases a guess is refused, and then {found.names[under]} is drawn with "
        f"{share(rest)}: {share(met)} + {share(refused)} of {share(rest)} = {share(met + refused * rest)}. Again p.\n\nIt holds "
        "for every token, whatever the small model guesses. A bad guesser makes it slow, never wrong.",
        place(runs, JUDGE),
        ("bars",),
        show=("sentence", "bars"),
    )
