"""A race track: one lane per run on one clock, one bar per target call, as wide as its milliseconds, as high as the tokens it gave.

Knows traces and a moment. Times are those of the steps; reading the prompt is not in them.
"""

from collections.abc import Mapping
from itertools import accumulate

from decoding.trace import Trace
from viz.runs.compare import duration
from viz.runs.lines import Runs, pairs
from viz.style import LOOKS, tint
from viz.tokens import as_html

HOW_TO_READ_TRACK = (
    "One clock for all lanes, in measured milliseconds. A bar is one target call, as wide as the time it took with its draft and "
    "as high as the tokens it gave; a filled one is done."
)
MOST = 400  # bars of a lane; a longer run is cut into as many
STYLE = f"""
<style>
.ds-track {{ display: grid; grid-template-columns: minmax(7rem, max-content) 1fr minmax(8.5rem, max-content); gap: 0.35rem 0.8rem;
  align-items: end; font-size: 0.88rem; margin: 0; }}
.ds-track b {{ font-weight: 600; overflow-wrap: anywhere; align-self: center; }}
.ds-track > span {{ font-variant-numeric: tabular-nums; align-self: center; }}
.ds-lane {{ display: flex; align-items: flex-end; height: 2.1rem; border-bottom: 1.5px solid #8A8F98; }}
.ds-lane i {{ box-sizing: border-box; min-width: 0; border: 1px solid {LOOKS["accepted"].line};
  background: {tint("#0072B2", 0.1)}; }}
.ds-lane i.done {{ background: {LOOKS["accepted"].color}; border-color: #3A94C8; }}
@media (max-width: 640px) {{ .ds-track {{ grid-template-columns: 1fr auto; }} .ds-track b {{ grid-column: 1; }}
  .ds-track > span {{ grid-column: 2; grid-row: auto; }} .ds-lane {{ grid-column: 1 / -1; }} }}
</style>
"""


def track_html(runs: Runs, shown: Mapping[str, int]) -> str:
    """The lanes; "" without a step.

    Args:
        runs: as far as they are recorded.
        shown: how many steps of each are done at the moment that is shown, by name.
    """
    listed = [(label, trace) for label, trace in pairs(runs) if trace.steps]
    longest = max((duration(trace) for _, trace in listed), default=0.0)
    if not longest:
        return ""
    most = max(len(step.tokens) for _, trace in listed for step in trace.steps)
    lanes = "".join(lane(label, trace, shown.get(label, len(trace.steps)), longest, most) for label, trace in listed)
    return f'{STYLE}<div class="ds-track">{lanes}</div>'


def lane(label: str, trace: Trace, shown: int, longest: float, most: int) -> str:
    """A name, its bars, and what it came to."""
    shown = min(shown, len(trace.steps))
    words = lane_words(trace, shown)
    bars = "".join(
        f'<i class="{"done" * (end <= shown)}" style="width:{100 * ms / longest:.3f}%;height:{100 * tokens / most:.0f}%"></i>'
        for ms, tokens, end in bundles(trace)
    )
    alt = as_html(f"{label}: {words} of {duration(trace):,.0f} ms")
    return f'<b>{as_html(label)}</b><div class="ds-lane" role="img" aria-label="{alt}">{bars}</div><span>{as_html(words)}</span>'


def bundles(trace: Trace) -> list[tuple[float, float, int]]:
    """(milliseconds, tokens per call, steps up to its end) of every bar: one per step, or of several steps in a long run."""
    size = -(-len(trace.steps) // MOST)
    parts = [trace.steps[i : i + size] for i in range(0, len(trace.steps), size)]
    ends = accumulate(len(part) for part in parts)
    return [
        (sum(step.times.total for step in part), sum(len(step.tokens) for step in part) / len(part), end)
        for part, end in zip(parts, ends, strict=True)
    ]


def lane_words(trace: Trace, shown: int) -> str:
    """Calls and milliseconds so far."""
    ms = sum(step.times.total for step in trace.steps[:shown])
    calls = f"{shown:,} call" if shown == 1 else f"{shown:,} calls"
    return f"{calls}, {ms:,.0f} ms"
