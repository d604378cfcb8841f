"""What the gallery shows of a method: what it says of itself, and what was recorded of it."""

from __future__ import annotations

import html
from dataclasses import fields
from typing import TYPE_CHECKING

import pandas as pd
import streamlit as st

from decoding.methods import GROUPS, METHODS
from decoding.runs.method_runs import DOMAINS, MOST, Shown
from pages.parts.shared import recorded_run as demo
from pages.parts.shared.address import parameters
from pages.parts.shared.examples import EXAMPLES
from pages.parts.shared.session import go_to_step
from pages.parts.shared.settings import Settings, family_named
from viz.step.small_tree import small_tree_svg
from viz.tokens import as_markdown

if TYPE_CHECKING:
    from decoding.method import Method

LOOKED_AT = "method_looked_at"  # in the session's state: whose details are asked for
SUITS = {"prompt_lookup": "repeat", "token_recycling": "class"}  # an example that shows the method at its best
WIDTH = 320  # px of a card
STYLE = """
<style>
.ds-group { font-size: 1.25rem; font-weight: 700; padding: 0; margin: 0.9rem 0 0 0; }
.ds-group + p { margin: 0.1rem 0 0.2rem 0; }
.ds-card h3 { font-size: 1.08rem; font-weight: 700; padding: 0; margin: 0 0 0.2rem 0; line-height: 1.3; }
.ds-card p { margin: 0; line-height: 1.45; font-size: 0.95rem; }
.ds-card .ds-tau { margin-top: 0.5rem; } .ds-card .ds-tau b { font-size: 1.35rem; font-variant-numeric: tabular-nums; }
</style>
"""


def gallery() -> None:
    """The methods idea by idea: a card each, with a tree that was recorded and the tokens per call that were measured."""
    st.html(STYLE)
    runs = demo.method_runs()
    if runs:
        st.html(f'<p class="ds-dim">{html.escape(measured())}</p>')
    for group, keys in METHODS.grouped().items():
        about = GROUPS[group]
        st.html(f'<h2 class="ds-group">{html.escape(about.title)}</h2><p>{html.escape(about.line)}</p>')
        with st.container(horizontal=True, gap="medium", key=f"group_{group.replace(' ', '_')}"):
            for key in keys:
                card(METHODS[key], runs.get(key))
    with st.expander("All of them in one table", key="methods_table_box", on_change="rerun") as box:
        if box.open:
            overview()
    opened()


def measured() -> str:
    """What the numbers of the cards are."""
    return (
        "Every tree is one recorded call of the embedded family at temperature 1. The numbers are tokens per call of the large "
        f"model (tau), measured on {len(DOMAINS)} prompts ({', '.join(DOMAINS)}), up to {MOST} tokens behind each, with the "
        "method's default parameters."
    )


def card(method: Method, shown: Shown | None) -> None:
    """One method: a line, its tree, what it brought, and two ways on."""
    reason = method.missing(family_named("embedded", None))
    with st.container(border=True, key=f"card_{method.key}", width=WIDTH, height="stretch"):
        line = METHODS.line(method.key)
        said = f"<h3>{html.escape(method.title)}</h3><p>{html.escape(line[:1].upper() + line[1:])}</p>"
        st.html(f'<div class="ds-card">{said}</div>')
        if shown is not None:
            tree = small_tree_svg(shown.trace, 0)  # escaped; inside of a block of HTML nothing is read as Markdown
            st.markdown(f"<div>{tree}</div>", unsafe_allow_html=True)
            st.html(f'<div class="ds-card">{told(shown)}</div>')
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            lossless_badge(method)
            for one in method.requirements:
                st.badge(one.words, color="gray")
        with st.container(horizontal=True, gap="small", vertical_alignment="bottom", height="stretch"):
            st.button(f"About {as_markdown(method.title)}", key=f"details_{method.key}", on_click=look_at, args=(method.key,))
            st.button("Open in Step", key=f"open_{method.key}", icon=":material/skip_next:", disabled=bool(reason),
                      help=as_markdown(reason) or None, on_click=choose, args=(method.key,))  # fmt: skip
    if st.session_state.get("go_to_step") == method.key:
        del st.session_state["go_to_step"]
        go_to_step(link(method.key))


def lossless_badge(method: Method) -> None:
    st.badge("lossless" if method.is_lossless else "not lossless", color="green" if method.is_lossless else "orange",
             icon=":material/check:" if method.is_lossless else ":material/warning:")  # fmt: skip


def told(shown: Shown) -> str:
    """What a method brought; HTML."""
    greedy, sampled = shown.taus
    return f'<p class="ds-tau"><b>{greedy:.1f}</b> tokens per call, {sampled:.1f} at temperature 1</p>'


def look_at(key: str) -> None:
    st.session_state[LOOKED_AT] = key


def opened() -> None:
    """The details of the method that was asked for, over the page."""
    key = st.session_state.pop(LOOKED_AT, None)
    if key in METHODS:
        st.dialog(as_markdown(METHODS[key].title), width="large")(details)(METHODS[key])


def details(method: Method) -> None:
    """All that a method says of itself."""
    reason = method.missing(family_named("embedded", None))
    st.markdown(as_markdown(method.idea))
    steps = "".join(f"<li>{html.escape(line)}</li>" for line in method.algorithm)
    st.html(f"<b>One step</b><ol style='margin:0.2rem 0 0 0;padding-left:1.3rem;line-height:1.6'>{steps}</ol>")
    st.markdown(f"**Lossless: {'yes' if method.is_lossless else 'no'}.** {as_markdown(method.lossless)}")
    st.markdown(f"**Paper.** [{as_markdown(method.authors)}]({method.paper})")
    st.markdown("**Embedded models.** " + (as_markdown(reason) if reason else "They serve it: nothing to download."))
    if table := parameter_rows(method):
        st.dataframe(pd.DataFrame(table), hide_index=True, height="content", key=f"params_{method.key}")
    else:
        st.caption("No parameters.")
    if st.button("Open in Step", key="details_open", type="primary", icon=":material/skip_next:", disabled=bool(reason)):
        go_to_step(link(method.key))


def overview() -> None:
    """All methods in one table."""
    rows = [
        {
            "method": method.title,
            "year": method.year,
            "lossless": "yes" if method.is_lossless else "no",
            "needs": needed(method),
            "embedded models serve it": "yes" if not method.missing(family_named("embedded", None)) else "no",
            "by": method.authors,
        }
        for method in METHODS.values()
    ]
    st.dataframe(pd.DataFrame(rows), hide_index=True, key="methods_table", height="content")


def needed(method: Method) -> str:
    """What it works with beside the target."""
    return ", ".join(one.words for one in method.requirements) or "nothing but the target"


def choose(key: str) -> None:
    st.session_state["go_to_step"] = key


def link(key: str) -> dict[str, str]:
    """The address of the first step of this method, with its default parameters."""
    return parameters(Settings(method=key, prompt=EXAMPLES[SUITS.get(key, "once")].prompt), 1, None)


def parameter_rows(method: Method) -> list[dict[str, str]]:
    rows = []
    for spec in fields(method.params):
        rules = spec.metadata
        values = ", ".join(map(str, rules["choices"])) if rules["choices"] else f"{rules['low']} to {rules['high']}"
        values = "on or off" if isinstance(spec.default, bool) else values
        rows.append({"parameter": rules["label"], "default": str(spec.default), "values": values, "meaning": rules["help"]})
    return rows
