"""The home page's contents; needs no torch, so that it is there at once."""

import html

import streamlit as st

from pages.parts.shared import recorded_run as demo
from pages.parts.shared.scrolled import scrolled
from pages.parts.shared.setup import PLOT_CONFIG, dark
from viz.step.boxes import extent_of
from viz.step.text import CSS, strip, strip_html
from viz.step.tree import tree_alt, tree_figure
from viz.tokens import as_markdown
from viz.words import GLOSSARY, narrate

WIDTH = 680  # px of the tree at least
SENTENCES = (
    "A large language model writes one token per call, and the call is what takes the time. Speculative decoding lets something "
    "cheap guess several tokens ahead, as a tree; the large model reads all guesses in one call and keeps those it agrees with. "
    "Draftscope shows every guess, every die and every verdict, on real models, one call at a time."
)
STYLE = """
<style>
.ds-hero { font-size: 2.4rem; line-height: 1.15; margin: 0.4rem 0 0.6rem 0; padding: 0; }
.ds-lead { font-size: 1.12rem; line-height: 1.6; max-width: 62rem; margin: 0; }
.ds-list { line-height: 1.7; margin: 0; padding-left: 1.2rem; }
.ds-words { display: grid; grid-template-columns: max-content 1fr; gap: 0.25rem 1.2rem; margin: 0; line-height: 1.5; }
.ds-words dt { font-weight: 600; } .ds-words dd { margin: 0; }
</style>
"""


def home() -> None:
    st.html(f'{STYLE}<h1 class="ds-hero">See speculative decoding happen</h1><p class="ds-lead">{SENTENCES}</p>')
    with st.container(horizontal=True, key="begin"):
        if st.button("Open the stepper", type="primary", icon=":material/skip_next:", key="open_step"):
            st.switch_page("pages/1_Step.py")
        if st.button("Read about the methods", icon=":material/menu_book:", key="open_methods"):
            st.switch_page("pages/4_Methods.py")
    picture()
    left, right = st.columns(2, gap="large")
    with left:
        st.html(
            "<h3>How to start</h3><ol class='ds-list'><li>Open the stepper: it shows a recorded run, paused where a guess was "
            "turned down.</li><li>Choose an example or write a prompt on the left.</li><li>Press <b>Step</b> (or the right arrow "
            "key): a draft model guesses, the target judges, the text grows.</li><li>Click a box of the tree to see p, q, the die "
            "u and the verdict.</li><li>Change the method, the temperature, the tree, and start again.</li></ol>"
        )
    with right:
        words = "".join(f"<dt>{html.escape(word)}</dt><dd>{html.escape(text)}</dd>" for word, text in GLOSSARY.items())
        st.html("<h3>Words</h3>")
        with st.expander("What target, drafter, bonus, correction, residual and the others mean", key="glossary"):
            st.html(f'<dl class="ds-words">{words}</dl>')


def picture() -> None:
    """One step of the recorded run: what was asked, the text and its tree."""
    trace, index = demo.recorded(), demo.pause_at()
    if trace is None or index < 0:
        return
    step = trace.steps[index]
    with st.container(border=True, key="first_picture"):
        st.html(f'<p class="ds-say">{html.escape(narrate(step, index + 1, trace.token_bytes))}</p>')
        asked = trace.header.messages[-1].content if trace.header.messages else ""
        written = [span for span in strip(trace, index) if not asked or span["step"] is not None]
        said = f'<p class="ds-dim">Asked: {html.escape(asked)}</p>' if asked else ""
        st.html(CSS + said + strip_html(written, index))
        figure = tree_figure(step, trace.token_bytes, dark=dark(), root=trace.root(index), width=WIDTH, extent=extent_of([step]))
        with scrolled("first_tree_scroll", WIDTH):
            st.plotly_chart(figure, key="first_tree", config=PLOT_CONFIG, alt=tree_alt(step, trace.token_bytes))
        st.caption(
            f"From a recorded run of {as_markdown(demo.title())} that ships with the app. Blue was kept, orange turned down, grey "
            "never judged."
        )
