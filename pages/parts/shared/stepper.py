"""The stepper on a page: one component that shows a run call by call. What it draws is made by `viz/stepper`; it moves by itself.

Back, Next, Play, phases and looking around are the browser's own and run no script. A page hands over the trace and gets the
selection; a growing run is sent step by step, each once: the browser says how many it has with whatever it says. A long one goes in
parts, of which the browser asks for the next, so that no script of a page draws all of it at once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import time_ns
from typing import Any, Literal, NamedTuple

import streamlit as st

from decoding.trace import Trace
from pages.parts.shared.heard import heard
from pages.parts.shared.setup import first_told
from viz.stepper.assets import script, style
from viz.stepper.data import CHECK, GUESS, JUDGE, NOTHING, PARTS, WRITE, run_key, stepper_data

__all__ = ["CHECK", "GUESS", "JUDGE", "WRITE", "Selection", "stepper"]

Mode = Literal["full", "small"]
SMALL = ("text", "tree")  # of them in the small stepper
PART = 2_000  # nodes of the steps that are sent at once: some hundredths of a second

component = st.components.v2.component("draftscope_stepper", html='<div class="stp-place"></div>', css=style(), js=script())


class Selection(NamedTuple):
    """Where the reader stands."""

    step: int  # index of the call; -1 is the prompt
    phase: int = WRITE
    node: int | None = None  # pinned: of Step.nodes, -1 the root, len(nodes) the final token; None: the page's choice


@dataclass
class Sent:
    """What a stepper has been told, and what it said."""

    run: str = ""
    have: int = 0  # steps that the browser says it has
    cursor: Selection | None = None  # where the page last wanted it to stand
    order: int = 0  # counts how often that was
    at: Selection = Selection(-1)
    placed: Selection = Selection(-1)  # where it was sent last
    made: tuple[Any, dict] | None = None  # what was sent last, and what it was made of
    number: int = 0
    said: Any = None


def stepper(
    trace: Trace | None,
    *,
    cursor: Selection | tuple[int, ...] | int = -1,
    key: str,
    lights: Sequence[str] = (),
    large: bool = False,
    controls: bool = True,
    mode: Mode = "full",
    show: Sequence[str] | None = None,
    keys: bool = True,
    run: object = 0,
    more: bool = False,
    busy: bool = False,
    again: bool = False,
    empty: str = "",
    on_move: Callable[[Selection], None] | None = None,
    on_ask: Callable[[], None] | None = None,
) -> Selection:
    """Draw it; returns where the reader stands.

    Args:
        trace: None: there is no run yet.
        cursor: where to stand: (step, phase, node), the last two may be missing. The stepper goes there when this changes from one
            call to the next; in between the reader moves as they like.
        key: of the component; one run of the page may have several.
        lights: what to point at: "sentence", "phases", "phase:2", "text", "tree", "node:0", "why", "die", "bars", "calls",
            "next", "play".
        large: type for a projector.
        controls: with the bar below; without it the page moves the cursor.
        show: of PARTS what is drawn; None: all that the mode has.
        keys: whether it listens to the keys of the page (arrows, J, K, P, 1 to 4): one stepper on a page may.
        run: what tells runs with the same header apart.
        more: whether another step can be asked for behind the last one; `on_ask` is called when it is.
        busy: whether one is being made.
        again: the step that is asked for next is the first one of another run.
        empty: said before the first step.
        on_move: called with the selection when the reader has come to rest somewhere, and before `on_ask`.
    """
    sent: Sent = st.session_state.setdefault(f"{key}.stepper", Sent())
    name = "" if trace is None else run_key(trace, (run, trace.steps[0].times if trace.steps else None))
    if name != sent.run or not sent.order:
        st.session_state[f"{key}.stepper"] = sent = Sent(run=name, order=time_ns() // 1_000_000, number=sent.number)
    wanted = Selection(*(cursor if isinstance(cursor, tuple) else (cursor,)))
    if wanted not in (sent.cursor, sent.at):  # a page that only says what it was told moves nobody
        sent.at = sent.placed = wanted
        sent.order += 1
    sent.cursor = wanted

    def at_changed() -> None:
        before = sent.at
        if take(sent, heard(key, "at")) and on_move is not None and sent.at != before:
            on_move(sent.at)  # else it only said how much it has, and the page may have gone on since

    def asked() -> None:
        told = heard(key, "ask")
        what = first_told(key, told)
        if what is None:
            return
        here = take(sent, told)
        if here and on_move is not None:
            on_move(sent.at)
        if what == "resend":
            sent.have = told["have"] if told.get("run") == sent.run and sane(told.get("have")) else 0
        elif on_ask is not None:
            on_ask()

    parts = SMALL if mode == "small" else PARTS
    shown = set(parts if show is None else show) - (set() if controls else {"transport"})
    options = {
        "run": name, "key": key, "mode": mode, "large": large, "lights": sorted(lights), "keys": keys and controls,
        "show": {part: part in shown for part in PARTS}, "order": sent.order, "at": list(sent.placed),
        "more": more, "busy": busy, "again": again, "empty": empty,
    }  # fmt: skip
    component(key=key, data=numbered(sent, payload(sent, trace), options), on_at_change=at_changed, on_ask_change=asked)
    return sent.at


def payload(sent: Sent, trace: Trace | None) -> dict:
    """Steps that the browser does not have; made once."""
    if trace is None:
        return NOTHING
    of = (sent.have, len(trace.steps))
    if sent.made is None or sent.made[0] != of:
        sent.made = of, stepper_data(trace, sent.have, most=PART)
    return sent.made[1]


def numbered(sent: Sent, made: dict, options: dict) -> dict[str, Any]:
    """With a number that grows whenever something is new: a browser that is still loading the code may take calls in any order."""
    said = (sent.have, made["from"] + len(made["steps"]), repr(options))
    if said != sent.said:
        sent.said, sent.number = said, max(sent.number + 1, time_ns() // 1000)
    return made | options | {"number": sent.number}


def sane(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def take(sent: Sent, told: object) -> bool:
    """What the browser says of itself: untrusted, and possibly about a run that is no longer shown; whether it was taken."""
    if not isinstance(told, dict) or told.get("run") != sent.run or told.get("order") != sent.order:
        return False
    step, phase, node, have = (told.get(name) for name in ("step", "phase", "node", "have"))
    if not isinstance(step, int) or isinstance(step, bool) or not -1 <= step < 2**31 or phase not in range(4):
        return False
    if node is not None and not (isinstance(node, int) and -1 <= node < 2**31):
        return False
    sent.at = Selection(step, int(phase), node)
    if sane(have):
        sent.have = have
    return True
