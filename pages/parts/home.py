"""The home page's contents; needs no torch, so that it is there at once."""

import html

import streamlit as st

from decoding.models.catalogue import MODELS
from decoding.trace import Trace
from pages.parts.shared import recorded_run as demo
from pages.parts.shared.address import parameters
from pages.parts.shared.session import go_to_step
from pages.parts.shared.settings import settings_of
from pages.parts.shared.setup import PAGES, dark, numbered
from viz.lanes.lanes import lanes, result, script, style
from viz.lanes.pictures import picture_lanes, picture_result, picture_script
from viz.style import COLOR
from viz.tokens import as_markdown
from viz.words import GLOSSARY

HEAD = "A language model writes <em>one word per call.</em><br>Let something cheap guess ahead."
LEAD = (
    "The large model is slow because every word is a call of its own. Something cheap, a small model or a look at what was "
    "said before, guesses a few words; the large one checks all of them in a single call and keeps those that it agrees with. "
    "Nothing is lost: it writes what it would have written anyway."
)
HOW = ("one call, one word", "guess by copying, check once")
DRAWN = "A picture is a text of pixels."
DRAWN_LEAD = (
    "Where every pixel is a token, the same loop draws. Here nobody else guesses at all: the model reads two rows of guesses in "
    "one call and keeps those that it would have drawn; what it says of the others are the guesses of the next call."
)
DRAWN_HOW = ("one call, one pixel", "a window of guesses per call")
DRAWN_KEYS = (("ghost", "guessed"), ("ghost accepted", "✓ kept"), ("ghost rejected", "✗ struck"))
DRAWN_STEP = 5  # at which Step opens
DRAWN_TICK = 320  # ms of a call
DOORS = (  # title, what it is, page, key
    (
        "See it",
        "One call at a time: every guess, every die, every verdict, recorded or on your own prompt.",
        "pages/1_Step.py",
    ),
    ("Teach it", "Seven short lessons with questions, for yourself or in front of a class.", "pages/0_Learn.py"),
    ("Debug a drafter", "Why are its tokens turned down? A verdict over many prompts, then the charts.", "pages/3_Drafter.py"),
)
STYLE = """
<style>
.ds-hero { font-size: clamp(1.7rem, 4.2vw, 3.1rem); line-height: 1.12; font-weight: 800; letter-spacing: -0.02em;
  margin: 0.2rem 0 0.5rem 0; padding: 0; }
.ds-hero em { font-style: normal; color: var(--ds-word); }
.ds-drawn { font-size: clamp(1.4rem, 3vw, 2.1rem); line-height: 1.15; font-weight: 750; letter-spacing: -0.01em;
  margin: 1.6rem 0 0.3rem 0; padding: 0; }
.ds-lead { font-size: 1.15rem; line-height: 1.55; max-width: 46rem; margin: 0; opacity: 0.86; }
.ds-asked { font-size: 1.05rem; margin: 0.4rem 0 0 0; max-width: 70rem; overflow-wrap: anywhere; }
.ds-words { display: grid; grid-template-columns: max-content 1fr; gap: 0.25rem 1.2rem; margin: 0; line-height: 1.5; }
.ds-words dt { font-weight: 600; } .ds-words dd { margin: 0; }
</style>
"""
PLACE = '<div class="lanes-place"></div>'
component = st.components.v2.component("draftscope_lanes", html=PLACE, css=style(), js=script())
picture_component = st.components.v2.component("draftscope_pictures", html=PLACE, css=style(), js=picture_script())


def home() -> None:
    word = COLOR["bonus" if dark() else "accepted"]
    st.html(f'{STYLE}<h1 class="ds-hero" style="--ds-word: {word}">{HEAD}</h1><p class="ds-lead">{LEAD}</p>')
    pair = demo.pair()
    if pair is not None:
        race(*pair)
    if st.button("Show me one call", type="primary", icon=":material/arrow_forward:", key="open_step"):
        st.switch_page("pages/1_Step.py")
    if (drawn := demo.picture_pair()) is not None:
        picture_race(*drawn)
    doors()
    words = "".join(f"<dt>{html.escape(word)}</dt><dd>{html.escape(text)}</dd>" for word, text in GLOSSARY.items())
    with st.expander("What target, drafter, bonus, correction, residual and the others mean", key="glossary"):
        st.html(f'<dl class="ds-words">{words}</dl>')


def race(ordinary: Trace, speculative: Trace) -> None:
    """Two recorded runs write the same text on one clock."""
    asked = ordinary.header.messages[-1].content
    st.html(f'<p class="ds-asked"><b>Asked:</b> {html.escape(asked)}</p>')
    named = zip(("Ordinary", "Speculative"), HOW, (ordinary, speculative), strict=True)
    component(key="lanes", data=numbered("lanes", {"lanes": lanes(list(named)), "result": result(ordinary, speculative)}))
    st.caption(
        f"Two recorded runs of {as_markdown(MODELS[ordinary.header.family].title)}, replayed; no model is running. One tick is one "
        "call of the large model: on a GPU a call takes about as long for ten words as for one. Correcting a text suits a copying "
        "guesser well; Compare shows methods that do worse, with measured times."
    )


def picture_race(ordinary: Trace, speculative: Trace) -> None:
    """Two recorded runs draw the same picture on one clock, once it is in sight; and the way to one that is drawn here."""
    head = speculative.header
    st.html(f'<h2 class="ds-drawn">{html.escape(DRAWN)}</h2><p class="ds-lead">{html.escape(DRAWN_LEAD)}</p>')
    named = zip(("Ordinary", "Speculative"), DRAWN_HOW, (ordinary, speculative), strict=True)
    played = {"lanes": picture_lanes(list(named)), "result": picture_result(ordinary, speculative), "keys": DRAWN_KEYS}
    picture_component(key="pictures", data=numbered("pictures", played | {"tick": DRAWN_TICK, "waits": True}))
    st.caption(
        f"Two recorded runs of {as_markdown(MODELS[head.family].title)}, asked for {as_markdown(head.prompt)} at temperature 0, "
        "replayed; no model is running. One tick is one call."
    )
    if st.button("Draw one, call by call", icon=":material/grid_on:", key="open_picture"):
        go_to_step(parameters(settings_of(head), DRAWN_STEP, None))


def doors() -> None:
    """Three ways in."""
    for place, (title, what, page) in zip(st.columns(len(DOORS), gap="medium"), DOORS, strict=True):
        if page not in PAGES:
            continue
        with place, st.container(border=True, key=f"door_{title.split()[0].lower()}", height="stretch"):
            st.markdown(f"#### {as_markdown(title)}\n{as_markdown(what)}")
            if st.button("Open", key=f"open_{title}", icon=":material/arrow_forward:"):
                st.switch_page(page)
