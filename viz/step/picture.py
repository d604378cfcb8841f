"""The picture of an image family as its calls fill it in: one frame per call, and all calls below each other.

Knows a trace whose header has a raster, and how far to show it. A pixel that is there is solid. What the call in sight did has a
border and the mark of its state, a corrected pixel also the refused colour, small and crossed out; guesses that are still open are
hatched. Everything as escaped HTML without a script, so that a stored run is drawn without its model.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from decoding.trace import Raster, Step, Trace
from viz.runs.tally import guesses_of
from viz.style import GRID, LOOKS, MONO, tint
from viz.tokens import as_html, full_name, name

LARGE, MIDDLE, SMALL = 320, 208, 144  # px of the longer side of a picture
EARLIER, GIVEN, OPEN = "earlier", "given", "open"  # states of a pixel that the call in sight did not write
MEANINGS = {EARLIER: "written by an earlier call", GIVEN: "given with the prompt", OPEN: "guessed, still open"}
BY_THE_TARGET = {"bonus": "drawn by the target behind them", "plain": "drawn by the target"}
SYMBOLS = "0123456789abcdefghijklmnopqrstuvwxyz"  # of colours in the picture as text
ROWS = 48  # calls drawn below each other, the last ones
TALL = 250  # px of all of them, of which a row takes THIN to THICK
THIN, THICK = 4, 12


@dataclass(frozen=True)
class Pixel:
    """One place of the picture after a call."""

    place: int  # in raster order
    token: int
    state: str  # EARLIER, GIVEN, OPEN or what the call in sight made of it: a key of LOOKS
    step: int | None  # index of the step that wrote it
    refused: int | None = None  # the guess that stood here and was turned down


def pixels(trace: Trace, cursor: int) -> list[Pixel]:
    """All that is known of the picture after step index `cursor` (-1: what the prompt gave), in raster order.

    Raises:
        ValueError: the trace is of a family that writes text.
    """
    raster = raster_of(trace)
    given = trace.header.prompt_tokens[len(raster.asks) :]
    found = [Pixel(place, token, GIVEN, None) for place, token in enumerate(given)]
    for number, step in enumerate(trace.steps[: cursor + 1]):
        found += written(step, number, len(found), number == cursor)
    if 0 <= cursor < len(trace.steps):
        found += still_open(trace.steps[cursor], len(found))
    return found[: raster.pixels]


def guidance_html(trace: Trace) -> str:
    """A badge for a run whose target was guided, which is another law than the target's own; "" for any other."""
    scale = trace.header.sampling.guidance
    if scale == 1:
        return ""
    about = "Logits u + s (c - u), c behind the words, u behind any. Every method is exact for this law; guidance 1 has another."
    return f'<p class="ds-guided"><b title="{about}">guidance {scale:g}</b> another law than that of the target alone</p>'


def raster_of(trace: Trace) -> Raster:
    if trace.header.raster is None:
        raise ValueError(f"The run of {trace.header.family[:200]!r} wrote text, of which there is no picture.")
    return trace.header.raster


def written(step: Step, number: int, start: int, now: bool) -> Iterator[Pixel]:
    """The pixels that a step wrote, from the place `start` on."""
    end = step.path[-1] if step.path else -1
    turned_down = next((node.token for node in step.nodes if node.parent == end and node.verdict == "rejected"), None)
    for i, (token, origin) in enumerate(zip(step.tokens, step.origins, strict=False)):
        refused = turned_down if origin == "correction" and now else None
        yield Pixel(start + i, token, origin if now else EARLIER, number, refused)


def still_open(step: Step, start: int) -> Iterator[Pixel]:
    """The guesses behind what a step wrote, which the next call makes anew; `start` is the place of the first."""
    for i, node in sorted(guesses_of(step).items()):
        if i >= len(step.tokens):
            yield Pixel(start + i - len(step.tokens), step.nodes[node].token, OPEN, None)


# -- one frame ---------------------------------------------------------------------------------------------------------


def picture_html(trace: Trace, cursor: int, longer: int = LARGE) -> str:
    """The frame of a call. Put `CSS` on the page once.

    Args:
        longer: px of the longer side.
    """
    return grid_html(trace, pixels(trace, cursor), longer, picture_alt(trace, cursor))


def beside_html(trace: Trace, cursor: int, longer: int = SMALL) -> str:
    """How far plain decoding is after as many calls: one pixel each, here those of this very picture."""
    raster = raster_of(trace)
    given = len(trace.header.prompt_tokens) - len(raster.asks)
    there = [pixel for pixel in pixels(trace, cursor) if pixel.state != OPEN][: max(given, 0) + cursor + 1]
    plain = [Pixel(pixel.place, pixel.token, EARLIER, None) for pixel in there]
    return grid_html(trace, plain, longer, f"Plain decoding after as many calls: {len(plain)} of {raster.pixels} pixels.")


def grid_html(trace: Trace, found: Sequence[Pixel], longer: int, alt: str) -> str:
    raster = raster_of(trace)
    side = max(4, longer // max(raster.width, raster.height))
    cells = "".join(cell_html(pixel, trace) for pixel in found) + "<span></span>" * (raster.pixels - len(found))
    style = f"grid-template-columns:repeat({raster.width},{side}px);grid-auto-rows:{side}px;font-size:{max(7, side * 0.45):.0f}px"
    return f'<div class="ds-picture" role="img" aria-label="{as_html(alt)}" style="{style}">{cells}</div>'


def cell_html(pixel: Pixel, trace: Trace) -> str:
    look = LOOKS.get(pixel.state)
    inside = f"<b>{look.mark}</b>" if look else ""
    if pixel.refused is not None and look:
        inside += f'<i style="{painted(pixel.refused, trace)}"></i>'
    return (
        f'<span class="ds-px-{as_html(pixel.state)}" style="{painted(pixel.token, trace)}" '
        f'title="{as_html(describe(pixel, trace))}">{inside}</span>'
    )


def painted(token: int, trace: Trace) -> str:
    """The colour of a token; nothing for one that is no pixel."""
    palette = raster_of(trace).palette
    return f"background-color:{as_html(palette[token])}" if token < len(palette) else "background:none"


def describe(pixel: Pixel, trace: Trace) -> str:
    """What is known of a pixel, as plain text."""
    row, column = divmod(pixel.place, raster_of(trace).width)
    state = f"{pixel.state}: {LOOKS[pixel.state].meaning}" if pixel.state in LOOKS else MEANINGS[pixel.state]
    call = "" if pixel.step is None else f", call {pixel.step + 1}"
    instead = "" if pixel.refused is None else f", in place of {full_name(pixel.refused, trace.token_bytes)}"
    odd = "" if pixel.token < len(raster_of(trace).palette) else ", which is no pixel"
    what = full_name(pixel.token, trace.token_bytes)
    return f"row {row + 1}, column {column + 1}: {what}{odd}, {state}{instead}{call}"


def legend_html(trace: Trace, cursor: int) -> str:
    """The states in sight, each as it is drawn."""
    states = dict.fromkeys(pixel.state for pixel in pixels(trace, cursor))
    words = {state: f"{LOOKS[state].mark} {state}" if state in LOOKS else MEANINGS[state] for state in states}
    keys = "".join(
        f'<span><span class="ds-px-{as_html(state)} ds-px-key"></span> {as_html(said)}</span>' for state, said in words.items()
    )
    return f'<div class="ds-px-keys">{keys}</div>'


# -- all calls ---------------------------------------------------------------------------------------------------------


def trajectory_html(trace: Trace, cursor: int) -> str:
    """A row per call, a column per pixel in raster order: what every call wrote is solid, what it left open pale. The border
    between them moves to the right, and its steps are the pixels of a call."""
    raster = raster_of(trace)
    rows, done = [], max(0, len(trace.header.prompt_tokens) - len(raster.asks))
    shown = range(max(0, cursor + 1 - ROWS), cursor + 1)
    for number, step in enumerate(trace.steps[: cursor + 1]):
        if number in shown:
            row = number - shown.start + 1
            found = (*written(step, number, done, True), *still_open(step, done + len(step.tokens)))
            rows += [thin_html(pixel, trace, row, number) for pixel in found if pixel.place < raster.pixels]
        done += len(step.tokens)
    high = max(THIN, min(THICK, TALL // max(1, len(shown))))
    style = f"grid-template-columns:repeat({raster.pixels},minmax(0,1fr));grid-template-rows:repeat({len(shown)},{high}px)"
    alt = as_html(pace_words(trace, cursor))
    return f'<div class="ds-trajectory" role="img" aria-label="{alt}" style="{style}">{"".join(rows)}</div>'


def thin_html(pixel: Pixel, trace: Trace, row: int, call: int) -> str:
    return (
        f'<span class="ds-px-{as_html(pixel.state)}" style="grid-area:{row}/{pixel.place + 1};{painted(pixel.token, trace)}" '
        f'title="in call {call + 1}, {as_html(describe(pixel, trace))}"></span>'
    )


# -- the same in words -------------------------------------------------------------------------------------------------


def picture_alt(trace: Trace, cursor: int) -> str:
    """What the frame shows, as plain text."""
    raster, found = raster_of(trace), pixels(trace, cursor)
    counts = Counter(pixel.state for pixel in found)
    there = len(found) - counts[OPEN]
    what = f"{trace.header.prompt[:200]}, {raster.width} x {raster.height} pixels"
    if cursor < 0:
        return f"{what}: nothing is drawn yet." if not there else f"{what}: {there} are given."
    did = [f"{counts['accepted']} accepted"] if counts["accepted"] else []
    did += [f"{label(p.refused, trace)} corrected to {label(p.token, trace)}" for p in found if p.refused is not None]
    did += [f"{counts[state]} {said}" for state, said in BY_THE_TARGET.items() if counts[state]]
    left = f" {counts[OPEN]} guesses are open." if counts[OPEN] else ""
    return f"{what}: {there} of {raster.pixels} after {cursor + 1} calls. Call {cursor + 1}: {', '.join(did) or 'corrected'}.{left}"


def label(token: int, trace: Trace) -> str:
    return name(token, trace.token_bytes)


def pace_words(trace: Trace, cursor: int) -> str:
    """Pixels per call so far, as plain text."""
    steps = trace.steps[: cursor + 1]
    written_ = sum(len(step.tokens) for step in steps)
    if not steps:
        return "No call yet."
    single = sum(len(step.tokens) == 1 for step in steps)
    calls = f"{len(steps)} call" + "s" * (len(steps) != 1)
    return (
        f"{written_} pixels in {calls}, {written_ / len(steps):.1f} a call; {single} of the calls gave a single one, as every call "
        "of plain decoding does."
    )


def picture_text(trace: Trace, cursor: int) -> str:
    """The picture in letters, a row a line: the number of its colour, "?" for a guess, "." where nothing is."""
    raster = raster_of(trace)
    letters = ["?" if pixel.state == OPEN else symbol(pixel.token, raster) for pixel in pixels(trace, cursor)]
    letters += ["."] * (raster.pixels - len(letters))
    return "\n".join("".join(letters[start : start + raster.width]) for start in range(0, raster.pixels, raster.width))


def symbol(token: int, raster: Raster) -> str:
    return SYMBOLS[token % len(SYMBOLS)] if token < len(raster.palette) else "!"


def picture_table(trace: Trace, cursor: int) -> pd.DataFrame:
    """A row of the table per row of the picture: what stands there, with the mark of what the call in sight did."""
    raster = raster_of(trace)
    shown = [f"{mark_of(pixel)} {full_name(pixel.token, trace.token_bytes)}".strip() for pixel in pixels(trace, cursor)]
    shown += [""] * (raster.pixels - len(shown))
    table = {"row": list(range(1, raster.height + 1))}
    return pd.DataFrame(table | {str(column + 1): shown[column :: raster.width] for column in range(raster.width)})


def mark_of(pixel: Pixel) -> str:
    return LOOKS[pixel.state].mark if pixel.state in LOOKS else "?" if pixel.state == OPEN else ""


def borders() -> str:
    """A border in the colour of the state, and inside it a light line, so that it is seen on every colour."""
    return "\n".join(
        f".ds-px-{state} {{ box-shadow: inset 0 0 0 3px {look.line}, inset 0 0 0 4px #fff; }}"
        for state, look in LOOKS.items()
        if look.filled
    )


HATCH = f"repeating-linear-gradient(135deg,{tint('#808080', 0.55)} 0 2px,transparent 2px 6px)"
CSS = f"""
<style>
.ds-pictures {{ container-type: inline-size; }}
.ds-pictures > div {{ display: grid; grid-template-columns: auto auto minmax(14rem, 1fr); gap: 0.8rem 1.6rem; align-items: end; }}
.ds-pictures figure {{ margin: 0; min-width: 0; }}
.ds-pictures figcaption {{ font-size: 0.84rem; opacity: 0.8; line-height: 1.35; margin-top: 0.3rem; max-width: 34rem; }}
@container (max-width: 760px) {{ .ds-pictures figure.calls {{ grid-column: 1 / -1; }}
  .ds-pictures > div {{ grid-template-columns: auto minmax(0, 1fr); gap: 0.8rem 1rem; }} }}
@container (max-width: 500px) {{ .ds-pictures > div {{ grid-template-columns: minmax(0, 1fr); }} }}
.ds-px-keys {{ display: flex; flex-wrap: wrap; gap: 0.1rem 1.1rem; margin-top: 0.5rem; font-size: 0.86rem; }}
.ds-guided {{ font-size: 0.86rem; margin: 0 0 0.5rem; }}
.ds-guided b {{ background: #B04A00; color: #FFFFFF; border-radius: 1rem; padding: 0.05rem 0.5rem; font-weight: 600; }}
.ds-picture, .ds-trajectory {{ display: grid; width: fit-content; background: {tint("#808080", 0.10)}; border: 1px solid {GRID}; }}
.ds-picture > span {{ position: relative; display: block; font-family: {MONO}; line-height: 1; }}
.ds-picture b {{ position: absolute; left: 18%; top: 18%; color: #1f2328; font-size: 1em;
  text-shadow: 0 0 2px #fff, 0 0 2px #fff, 0 0 3px #fff; }}
.ds-picture i {{ position: absolute; right: 4px; bottom: 4px; width: 38%; height: 38%; border: 1px solid {LOOKS["rejected"].line};
  background-image: linear-gradient(to top right, transparent 44%, {LOOKS["rejected"].line} 44% 56%, transparent 56%); }}
{borders()}
.ds-px-open {{ background-image: {HATCH}; opacity: 0.72; outline: 1px dotted #999; outline-offset: -1px; }}
.ds-trajectory {{ width: 100%; gap: 1px 0; }}
.ds-trajectory > span {{ box-shadow: none; outline: none; border-bottom: 2px solid {tint("#808080", 0.35)}; }}
.ds-trajectory > .ds-px-accepted {{ border-bottom-color: {LOOKS["accepted"].line}; }}
.ds-trajectory > .ds-px-correction {{ border-bottom-color: {LOOKS["rejected"].line}; }}
.ds-trajectory > .ds-px-bonus {{ border-bottom-color: {LOOKS["bonus"].line}; }}
.ds-trajectory > .ds-px-open {{ background-image: none; opacity: 0.4; border-bottom: none; }}
.ds-px-key {{ display: inline-block; width: 1em; height: 1em; vertical-align: -0.15em; background-color: #b6b6b6; }}
</style>
"""
