"""When guessing pays: what recorded runs would be worth at a cost of the drafter, what they took, and how they compare."""

from dataclasses import dataclass
from statistics import median

from decoding.trace import Step, Trace
from viz.lessons.lesson import Runs
from viz.runs.tally import Tally, modelled_speedup, tally
from viz.tokens import as_html
from viz.verdicts import percent
from viz.words import number

COSTS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)  # of a call of the drafter, in calls of the large model
COST = 0.2  # that the slider begins with
LANES = {  # what is weighed -> its run
    "a small model's chain": "story",
    "the same, at a high temperature": "hot",
    "a small model that knows other texts": "stranger",
    "the small model's tree": "multi_candidate",
    "a head that sees the large model's states": "eagle",
}
KINDS = {"alone": "plain", "copy": "copy", "small model": "small", "heads": "heads", "itself": "self"}  # drafter -> end of the name
TASKS = {"greedy": "a program", "fix": "a text to correct"}  # begin of the name -> what was asked for


@dataclass(frozen=True)
class Lane:
    name: str
    value: float
    words: str


def tau_of(trace: Trace) -> float:
    return tally(trace.steps).tau or 0.0


def alpha_of(trace: Trace) -> float:
    return tally(trace.steps).alpha or 0.0


def worth(total: Tally, c: float) -> float:
    """The modelled speed-up at cost ratio c; 0 of a run without a step."""
    return modelled_speedup(total.tau, total.calls_per_step or 0, c) if total.tau else 0.0


def ms_of(trace: Trace) -> float:
    """Milliseconds per token that a run took."""
    return sum(step.times.total for step in trace.steps) / max(1, sum(len(step.tokens) for step in trace.steps))


def reading(steps: tuple[Step, ...]) -> float:
    """Milliseconds of the large model's call, in the middle."""
    return median(step.times.read for step in steps)


def lanes(runs: Runs, c: float) -> list[Lane]:
    """Every run at a cost ratio, the best first."""
    found = []
    for name, run in LANES.items():
        total = tally(runs[run].steps)
        words = f"{number(total.tau or 0)} tokens per call, {total.calls_per_step or 0:g} calls of the drafter"
        found.append(Lane(name, worth(total, c), words))
    return sorted(found, key=lambda lane: -lane.value)


def lanes_html(runs: Runs, c: float) -> str:
    """Bars of the modelled speed-up, a line where plain decoding is."""
    found = lanes(runs, c)
    top = max(2.2, *(lane.value for lane in found))
    rows = "".join(
        f'<div class="lsn-lane {"pays" if lane.value > 1 else "loses"}"><span class="lsn-lane-name">{as_html(lane.name)}'
        f"<small>{as_html(lane.words)}</small></span>"
        f'<span class="lsn-track"><i style="width:{100 * lane.value / top:.2f}%"></i>'
        f'<em style="left:{100 / top:.2f}%"></em></span>'
        f"<b>{lane.value:.2f} × as fast</b></div>"
        for lane in found
    )
    return (
        f'<div class="lsn-lanes" role="group" aria-label="Modelled speed-up of each">{rows}'
        '<p class="lsn-note">The line is ordinary decoding. Modelled from the measured tokens per call: reading all guesses is '
        "taken to cost as much as reading one token, as on a graphics card that is not busy.</p></div>"
    )


def calls_of(runs: Runs, task: str) -> list[Lane]:
    """Calls of the large model for one text by every kind of drafter."""
    found = []
    for kind, end in KINDS.items():
        trace = runs[f"{task}_{end}"]
        found.append(Lane(kind, len(trace.steps), f"{number(tau_of(trace))} tokens per call"))
    return found


def calls_html(runs: Runs, task: str, only_plain: bool = False) -> str:
    """Bars of the calls for one text, shorter is better; with `only_plain` the others are still open."""
    found = calls_of(runs, task)
    top = max(lane.value for lane in found)
    rows = "".join(call_html(lane, top, only_plain and i > 0) for i, lane in enumerate(found))
    title = TASKS[task][0].upper() + TASKS[task][1:]
    note = "The same text by all of them, token for token: no die was thrown. Fewer calls are better."
    return f'<div class="lsn-lanes"><h4>{as_html(title)}</h4>{rows}</div><p class="lsn-note">{note}</p>'


def call_html(lane: Lane, top: float, hidden: bool) -> str:
    if hidden:
        name = f'<span class="lsn-lane-name">{as_html(lane.name)}</span>'
        return f'<div class="lsn-lane calls">{name}<span class="lsn-track"></span><b>?</b></div>'
    width = f"{100 * lane.value / top:.2f}%"
    return (
        f'<div class="lsn-lane calls"><span class="lsn-lane-name">{as_html(lane.name)}<small>{as_html(lane.words)}</small></span>'
        f'<span class="lsn-track"><i style="width:{width}"></i></span><b>{lane.value:.0f} calls</b></div>'
    )


def best_of(runs: Runs, task: str) -> str:
    """The kind of drafter that needed the fewest calls."""
    return min(calls_of(runs, task), key=lambda lane: lane.value).name


def differences(one: Trace, other: Trace) -> int:
    """Tokens in which two texts differ, place by place, with those that only one of them has."""
    a, b = ([token for step in trace.steps for token in step.tokens] for trace in (one, other))
    return sum(x != y for x, y in zip(a, b, strict=False)) + abs(len(a) - len(b))


def texts_html(one: Trace, other: Trace | None) -> str:
    """Two texts side by side, with the calls that each took; the other one may still be open."""
    parts = [text_html("The large model alone", one)]
    if other is not None:
        parts.append(text_html("With a small model that guesses", other))
    return f'<div class="lsn-texts">{"".join(parts)}</div>'


def text_html(name: str, trace: Trace) -> str:
    count = sum(len(step.tokens) for step in trace.steps)
    return (
        f'<figure class="lsn-text"><figcaption>{as_html(name)}: {count} tokens, <b>{len(trace.steps)} calls</b></figcaption>'
        f"<pre>{as_html(trace.answer)}</pre></figure>"
    )


def drafting_share(trace: Trace) -> str:
    """The share of a run's time that went into guessing."""
    total = sum(step.times.total for step in trace.steps)
    return percent(sum(step.times.propose for step in trace.steps) / total) if total else percent(0)
