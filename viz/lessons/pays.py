"""Lesson 6: when it does not pay."""

from viz.lessons.costs import LANES, alpha_of, drafting_share, ms_of, tau_of, worth
from viz.lessons.lesson import CALL, CHECK, GUESS, JUDGE, Card, Lesson, Place, Question, Runs
from viz.lessons.places import kept, none_kept
from viz.lessons.say import counted, listed, nearest, share
from viz.runs.tally import tally
from viz.step.boxes import ROOT
from viz.words import number

RUN, STRANGER, HOT = "story", "stranger", "hot"
DEAR = 0.5  # calls of the large model that a call of a drafter costs, for the question
SAME = 0.03  # of a speed-up that is called none


def pays(runs: Runs) -> Lesson:
    return Lesson(
        "When it does not pay",
        "You can say what guessing costs, and name cases in which it makes things slower.",
        (free(runs), slider(runs), stranger(runs), hot(runs), measured(runs)),
    )


def free(runs: Runs) -> Card:
    trace = runs[RUN]
    total = tally(trace.steps)
    step = trace.steps[none_kept(trace)]
    return Card(
        "Guessing is not free",
        f"Before each call the large model waits for {total.calls_per_step or 0:g} calls of the small one. In this run "
        f"{drafting_share(trace)} of the time went into guessing.\n\nAnd in a call like this one it was in vain: "
        f"{counted(len(step.nodes), 'guess')}, none kept, one token.",
        Place(RUN, none_kept(trace), JUDGE),
        ("tree",),
        show=CALL,
    )


def slider(runs: Runs) -> Card:
    total = tally(runs[RUN].steps)
    value = worth(total, DEAR)
    right = 1 if abs(value - 1) < SAME else 0 if value > 1 else 2
    return Card(
        "What a guess may cost",
        f"Suppose a call of the small model costs a share c of a call of the large one. This run gave {number(total.tau or 0)} "
        "tokens per call. Then it is faster by\n\ntokens per call / (1 + c × calls of the small model).\n\nMove the slider and "
        "see who falls behind the line.",
        Place(RUN, none_kept(runs[RUN])),
        (),
        Question(
            "pays",
            f"If a call of the small model costs {share(DEAR)} of a large one, is “{next(iter(LANES))}” still faster than no "
            "guessing?",
            ("faster", "as fast", "slower"),
            right,
            f"{number(total.tau or 0)} / (1 + {number(DEAR)} × {total.calls_per_step or 0:g}) = {number(value, 2)} times as fast. "
            "A drafter has to be many times cheaper than the large model, or right very often.",
            Place(RUN, none_kept(runs[RUN])),
        ),
        picture="cost",
        show=(),
    )


def stranger(runs: Runs) -> Card:
    trace = runs[STRANGER]
    at = none_kept(trace)
    step = trace.steps[at]
    tau = tau_of(trace)
    options = (1.0, 2.0, 3.0)
    return Card(
        "A guesser that knows other texts",
        "This small model has read children's stories and nothing else. Now it guesses for a large model that writes a program. It "
        f"proposes {listed(trace, (node.token for node in step.nodes))}.",
        Place(STRANGER, at, CHECK, ROOT),
        ("tree",),
        Question(
            "tau",
            "How many tokens does a call give with this guesser?",
            ("hardly more than one", "about two", "about three"),
            nearest(tau, options),
            f"{number(tau)} tokens per call: {share(alpha_of(trace))} of the judged guesses were kept. The text is none the "
            "worse, it only takes longer. A guesser has to have read what the large model writes.",
            Place(STRANGER, at, JUDGE),
            ("tree",),
        ),
        show=CALL,
    )


def hot(runs: Runs) -> Card:
    usual, warm = runs["speculative_sampling"], runs[HOT]
    shares = alpha_of(usual), alpha_of(warm)
    right = 0 if shares[1] > shares[0] + 0.02 else 2 if shares[1] < shares[0] - 0.02 else 1
    at = none_kept(warm)
    step = warm.steps[at]
    return Card(
        "A high temperature",
        f"The temperature says how daring a model is. Usually it was {usual.header.sampling.temperature:g} here, and now it is "
        f"{warm.header.sampling.temperature:g}: rare tokens come more often. Both models become less sure, and so does the "
        "guessing.",
        Place(HOT, at, GUESS, ROOT),
        ("tree", "text"),
        Question(
            "alpha",
            f"At {usual.header.sampling.temperature:g} the large model kept {share(shares[0])} of the guesses it judged. And now?",
            ("more", "about as many", "fewer"),
            right,
            f"{share(shares[1])}. Here {kept(step) or 'none'} of {counted(len(step.nodes), 'guess')} "
            f"{'was' if kept(step) == 1 else 'were'} kept. The flatter the shares, the less two models agree.",
            Place(HOT, at, JUDGE),
            ("tree",),
        ),
        show=CALL,
    )


def measured(runs: Runs) -> Card:
    one, several = ms_of(runs["plain"]), ms_of(runs["speculative_sampling"])
    right = 1 if abs(one / several - 1) < SAME else 0 if several < one else 2
    return Card(
        "And measured?",
        "So much for what could be. These runs were made on a plain processor with few cores. Such a machine has to compute for "
        "every place that it reads: reading several costs several times as much. A graphics card mostly waits for its memory, and "
        "reads them nearly for free.",
        Place("speculative_sampling", 0, JUDGE),
        ("tree",),
        Question(
            "measured",
            f"The large model alone took {one:.0f} thousandths of a second for a token. With guesses it was, on this machine …",
            ("faster", "as fast", "slower"),
            right,
            f"{several:.0f} thousandths of a second for a token. So look at both: tokens per call say how good the guesses are, "
            "only a clock says whether they pay. It depends on what it costs to read several places at once.",
            Place("speculative_sampling", 0, JUDGE),
            ("tree",),
        ),
        show=CALL,
    )
