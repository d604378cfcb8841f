"""Two or more runs that draw one picture, as lanes on one clock: the data that pictures.js plays behind lanes.js.

The clock ticks once per target call, as that of the texts does. A frame is what one call did: the guesses it was given, what became
of each, and the pixels that it wrote.
"""

from collections.abc import Sequence
from functools import cache
from typing import TypedDict

from decoding.trace import Raster, Step, Trace
from viz.lanes.lanes import FOLDER, in_fewer_calls, line_of, script


class Frame(TypedDict):
    """One call of a lane."""

    guesses: list[list[str]]  # [colour, verdict], from the first pixel on that is not there yet
    tokens: list[list[str]]  # [colour, origin] of what it wrote


class PictureLane(TypedDict):
    """One run."""

    name: str
    how: str
    says: str  # what is drawn, in words
    width: int
    height: int
    calls: list[Frame]


@cache
def picture_script() -> str:
    """An ECMAScript module whose default export plays pictures: `({data, parentElement})`."""
    return "\n".join([script(), (FOLDER / "pictures.js").read_text("utf-8")])


def picture_lanes(named: Sequence[tuple[str, str, Trace]]) -> list[PictureLane]:
    """What is played, of (name, how it works, run).

    Raises:
        ValueError: a run is of a family that writes text.
    """
    return [picture_lane(name, how, trace) for name, how, trace in named]


def picture_lane(name: str, how: str, trace: Trace) -> PictureLane:
    raster = trace.header.raster
    if raster is None:
        raise ValueError("The run wrote text, of which there is no picture.")
    return {
        "name": name,
        "how": how,
        "says": f"{trace.header.prompt[:200]}, {raster.width} x {raster.height} pixels, in {len(trace.steps)} calls",
        "width": raster.width,
        "height": raster.height,
        "calls": [frame(step, raster) for step in trace.steps],
    }


def frame(step: Step, raster: Raster) -> Frame:
    return {
        "guesses": [[colour(node.token, raster), node.verdict] for node in line_of(step)],
        "tokens": [[colour(token, raster), origin] for token, origin in zip(step.tokens, step.origins, strict=True)],
    }


def colour(token: int, raster: Raster) -> str:
    """ "" of a token that is no pixel."""
    return raster.palette[token] if token < len(raster.palette) else ""


def picture_result(ordinary: Trace, speculative: Trace) -> str:
    """What came of it, in a sentence; plain text.

    Raises:
        ValueError: the pictures differ, so that the calls cannot be compared.
    """
    return in_fewer_calls(ordinary, speculative, "pixels", "the model")
