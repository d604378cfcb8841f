"""The columns of a comparison, side by side: of each run its current tree, its tally and its text.

Everything here that changes with a step stands in one fragment, timed only while something moves.
"""

import html
from collections.abc import Callable, Sequence
from itertools import islice
from statistics import median
from time import monotonic

import streamlit as st

from decoding.methods import METHODS
from decoding.trace import Trace
from pages.parts.compare.comparison import Runs, comparison, is_lossless
from pages.parts.compare.race import Column, Race, names
from pages.parts.compare.race_bar import buttons, progress
from pages.parts.compare.recording import is_recording, recording
from pages.parts.compare.share import share
from pages.parts.compare.sidebar import compare_sidebar, say_columns, wanted
from pages.parts.compare.small_tree import draw_small_tree
from pages.parts.shared.controls import say
from pages.parts.shared.following import followed
from pages.parts.shared.session import Session
from viz.runs.differences import exactness, reference
from viz.runs.tally import depths, tally
from viz.runs.timing import milliseconds_words
from viz.runs.track import HOW_TO_READ_TRACK, track_html
from viz.runs.winner import HERE, winner_words
from viz.step.picture import CSS as PICTURE_CSS
from viz.step.picture import MIDDLE, guidance_html, picture_html
from viz.step.small_tree import HEIGHT
from viz.step.text import CSS, committed, legend_html, origins, strip, strip_html
from viz.tokens import as_markdown
from viz.words import narrate, stage

CHARTS = 1.0  # seconds
LONGEST = 160  # tokens of text in a column
PER_ROW = {2: 2, 3: 3, 4: 4, 5: 3, 6: 3}
NOMINAL = {2: 520, 3: 350, 4: 260}  # px of a column of so many
STYLE = f"""
<style>
.ds-col-head {{ font-weight: 600; margin: 0; line-height: 1.35; overflow-wrap: anywhere; }}
.ds-exact {{ font-size: 0.8rem; font-weight: 600; border: 1px solid; border-radius: 1rem; padding: 0 0.5rem;
  white-space: nowrap; display: inline-block; }}
.ds-exact.good {{ background: #0072B2; border-color: #0072B2; color: #FFFFFF; }}
.ds-exact.bad {{ background: #B04A00; border-color: #B04A00; color: #FFFFFF; }}
.ds-col-state {{ opacity: 0.75; font-size: 0.82rem; margin: 0; min-height: 1.3em; }}
.ds-col-tally {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(3.6rem, 1fr)); gap: 0 0.3rem; margin: 0.2rem 0 0 0;
  font-size: 0.8rem; }}
.ds-col-tally b {{ display: block; font-size: 1.02rem; line-height: 1.2; }}
.ds-col-say {{ font-size: 0.84rem; margin: 0; min-height: 3.9em; line-height: 1.3; overflow-wrap: anywhere; }}
.ds-col-none {{ height: {HEIGHT}px; opacity: 0.7; font-size: 0.86rem; margin: 0; }}
.ds-col-text {{ height: 7.5rem; margin-top: 0.4rem;
  mask-image: linear-gradient(transparent, black 0.7rem); overflow-y: auto;
  display: flex; flex-direction: column-reverse; }}
.ds-col-text .ds-strip {{ font-size: 0.84rem; line-height: 1.5rem; }}
</style>
"""


def columns(session: Session, race: Race) -> None:
    """The view: rail, columns, and the comparison of what they show."""
    compare_sidebar(session, race)
    followed(race, "compare_view", lambda line: draw(session, race, line), lambda: progress(race))


def draw(session: Session, race: Race, line: Callable[[], None]) -> None:
    asked = wanted(session, race)
    st.html(f'<p class="ds-say" role="status" aria-live="polite">{html.escape(sentence(race))}</p>')
    titles = names([column.settings for column in race.columns] or asked)
    runs = [(title, part) for title, e in zip(titles, race.columns, strict=False) if (part := race.part(e)) and part.steps]
    place = st.empty()  # always there: a browser may keep what stood below it, where that moves
    rounds = {title: e.rounds for title, e in zip(titles, race.columns, strict=False) if e.rounds}
    if len(runs) == len(race.columns) and (found := winner_words(runs, rounds, machine(race))):
        place.html(f'<p class="ds-say ds-verdict">{html.escape(found)}</p>')
    notices(session, race, asked)
    buttons(race, lambda: wanted(session, race))
    line()
    track(race, titles)
    board(race, titles, asked)
    if runs:
        st.html(f'<p class="ds-dim">{html.escape(stage(trace.header for _, trace in runs))}</p>')
        st.html(legend_html(origins(*(trace for _, trace in runs))))
        comparison(charted(race, runs), "compare")
    share(session, race)


def machine(race: Race) -> str:
    """Where the times were taken."""
    return "on the machine that recorded it" if is_recording(race) else HERE


def track(race: Race, titles: Sequence[str]) -> None:
    """All columns on one clock, in a place that is always there."""
    place = st.empty()
    named = list(zip(titles, race.columns, strict=False))
    lanes = track_html([(title, e.trace) for title, e in named if e.trace], {title: race.shown(e) for title, e in named})
    if lanes:
        place.html(f'{lanes}<p class="ds-dim">{html.escape(HOW_TO_READ_TRACK)}</p>')


def charted(race: Race, runs: Runs) -> Runs:
    """What the charts show: while something moves they follow once a second, for they cost more than all the columns."""
    if not race.moving or race.charted is None or monotonic() - race.charted_at >= CHARTS:
        race.charted, race.charted_at = runs, monotonic()
    return race.charted


def sentence(race: Race) -> str:
    """Where the comparison stands, in one sentence."""
    if not race.columns:
        return "Choose the columns on the left, then press Step or Play."
    if race.mode == "race" and race.goal is not None:
        return "The runs are being recorded, one after the other; then the race is replayed."
    parts = [part for column in race.columns if (part := race.part(column))]
    brought = ", ".join(str(sum(len(step.tokens) for step in part.steps)) for part in parts)
    calls = [len(part.steps) for part in parts]
    if race.mode == "race":
        return f"After {race.clock / 1000:.2f} of {race.longest / 1000:.2f} seconds: {brought or 'no'} tokens."
    if not any(calls):
        return "The prompt, before the first step."
    if len(set(calls)) == 1:
        return f"After {calls[0]} target {'call' if calls[0] == 1 else 'calls'} each: {brought} tokens."
    tokens = {sum(len(step.tokens) for step in part.steps) for part in parts}
    if len(tokens) == 1:
        return f"{tokens.pop():,} tokens each, in {', '.join(map(str, calls))} target calls."
    return f"After {', '.join(map(str, calls))} target calls: {brought} tokens."


def notices(session: Session, race: Race, asked: Sequence) -> None:
    """What is recorded, what was wrong with a link, and what is stale."""
    recording(session, race)
    for note in race.notes:
        st.warning(as_markdown(note), icon=":material/info:")
    if race.problem:
        st.error(as_markdown(race.problem), icon=":material/error:")
    if not race.columns or race.matches(asked):
        return

    def put_back() -> None:
        say(session, race.columns[0].settings)
        say_columns(race, [column.settings for column in race.columns])

    with st.container(horizontal=True, vertical_alignment="center", border=True, key="compare_stale"):
        st.markdown(
            "**The settings have changed** since these runs were made. Step and Play use the new ones; columns that "
            "stayed as they were keep their runs.",
            width="stretch",
        )
        st.button("Put the settings back", key="compare_put_back", on_click=put_back)


def board(race: Race, titles: Sequence[str], asked: Sequence) -> None:
    """The columns, in one or two rows."""
    st.html(CSS + STYLE)
    many = len(titles)
    per_row = PER_ROW[many]
    numbers = iter(range(many))
    while row := list(islice(numbers, per_row)):
        for cell, i in zip(st.columns(per_row, gap="small"), row, strict=False):
            with cell, st.container(border=True, gap="small", key=f"compare_cell_{i}"):
                if race.columns:
                    column(race, race.columns[i], titles[i], i, NOMINAL[per_row])
                else:
                    reason = asked[i].problem()
                    blank(titles[i], reason or METHODS[asked[i].method].idea, "cannot run" if reason else "not started")


def blank(title: str, words: str, state: str) -> None:
    """A column with nothing to draw."""
    st.html(
        f'<p class="ds-col-head">{html.escape(title)}</p><p class="ds-col-state">{html.escape(state)}</p>'
        f'<p class="ds-col-none">{html.escape(words)}</p>'
    )


def column(race: Race, column: Column, title: str, number: int, width: int) -> None:
    """One run: what it is and how it stands, its tree, what the step did, its text."""
    if column.problem and not column.count:
        blank(title, column.problem, "cannot run")
        return
    part, step = race.part(column), race.step_of(column)
    if part is None:
        blank(title, METHODS[column.settings.method].idea, state_words(race, column))
        return
    state = html.escape(state_words(race, column))
    head = f'<p class="ds-col-head">{html.escape(title)} {badge(race, column)}</p>'
    st.html(f'{head}<p class="ds-col-state">{state}</p>{tally_html(part, column.rounds)}')
    if step is None:
        st.html('<p class="ds-col-none">The prompt, before the first step.</p>')
    else:
        deepest = max((max(depths(s), default=0) for s in part.steps[-24:]), default=0)
        draw_small_tree(
            step, part.token_bytes, f"compare_tree_{number}", part.root(len(part.steps) - 1), width, max(6, deepest + 2)
        )
    said = narrate(step, len(part.steps), part.token_bytes) if step else ""
    st.html(f'<p class="ds-col-say">{html.escape(said)}</p>{written_html(part)}')


def badge(race: Race, column: Column) -> str:
    """Whether its text is the one that it ought to be, so far as it is shown."""
    parts = [(e, part) for e in race.columns if (part := race.part(e)) and part.steps]
    mine = next((part for e, part in parts if e is column), None)
    if mine is None or len(parts) < 2:
        return ""
    first = parts[reference([("", part) for _, part in parts])][1]
    if mine is first:
        word, about = "reference", "The other columns are held against this one."
    else:
        word, about = exactness(first, mine, lossless=is_lossless(first) and is_lossless(mine))
    kind = "good" if word.startswith(("exact", "reference", "same")) else "bad" if word.startswith("mismatch") else "open"
    mark = {"good": "✓ ", "bad": "✗ ", "open": ""}[kind]
    return f'<span class="ds-exact {kind}" title="{html.escape(about)}">{mark}{html.escape(word)}</span>'


def state_words(race: Race, column: Column) -> str:
    """How a run stands."""
    shown = race.shown(column)
    step = race.step_of(column)
    if column.problem:
        return f"stopped after step {column.count}: {column.problem}"
    if step is not None and step.ending:
        return f"finished after {shown} target calls: {step.ending}"
    calls = f"{shown} target {'call' if shown == 1 else 'calls'}"
    if column.busy:
        return calls + (", in line" if column.live.held else ", working")
    return calls + (f" of {column.count} recorded" if column.count > shown else "")


def tally_html(part: Trace, rounds: Sequence[float] = ()) -> str:
    """tau, alpha and the rest, in one line; what they mean stands in the titles.

    Args:
        rounds: milliseconds of every round, where it was measured several times: then their median stands in place of this run's.
    """
    total = tally(part.steps)
    cells = (
        ("tau", number(total.tau), "tokens committed / target calls; plain decoding has 1"),
        ("alpha", number(total.alpha), "accepted / judged"),
        ("tokens", str(total.tokens), "committed so far, the target's own included"),
        (
            "ms",
            f"{median(rounds) if rounds else sum(total.ms.values()):,.0f}",
            f"{milliseconds_words(rounds)}, of {len(rounds)} rounds measured in turn behind a warm-up"
            if rounds
            else "milliseconds of all steps shown, measured once; reading the prompt and loading models is not counted",
        ),
    )
    inside = "".join(f'<span title="{html.escape(about)}">{name} <b>{value}</b></span>' for name, value, about in cells)
    return f'<p class="ds-col-tally">{inside}</p>'


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def written_html(part: Trace) -> str:
    """What the run wrote so far: its text, or the picture of an image family."""
    if part.header.raster is None:
        return text_html(part)
    return f"{PICTURE_CSS}{guidance_html(part)}{picture_html(part, len(part.steps) - 1, MIDDLE)}"


def text_html(part: Trace) -> str:
    """The end of the text, the newest tokens boxed; the box stays at its end."""
    left_out = "… " if len(committed(part)) > LONGEST else ""
    inside = strip_html(strip(part, window=slice(-LONGEST, None)), len(part.steps) - 1, legend=False)
    return f'<div class="ds-col-text" tabindex="0" role="region" aria-label="The text so far">{inside}{left_out}</div>'
