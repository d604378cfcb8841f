"""What the gallery shows of a method; everything comes from the method itself."""

from __future__ import annotations

import html
from dataclasses import fields
from typing import TYPE_CHECKING

import pandas as pd
import streamlit as st

from decoding.methods import METHODS
from pages.parts.shared.address import parameters
from pages.parts.shared.examples import EXAMPLES
from pages.parts.shared.settings import Settings, family_named
from viz.tokens import as_markdown

if TYPE_CHECKING:
    from decoding.method import Method

SUITS = {"prompt_lookup": "repeat", "token_recycling": "read"}  # an example that shows the method at its best


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
    st.html('<p class="ds-dim">Every method drafts a tree of guesses, has it read in one target call, and keeps what fits.</p>')
    st.dataframe(pd.DataFrame(rows), hide_index=True, key="methods_table", height="content")


def needed(method: Method) -> str:
    """What it works with beside the target."""
    return ", ".join(one.words for one in method.requirements) or "nothing but the target"


def card(method: Method) -> None:
    """One method."""
    reason = method.missing(family_named("embedded", None))
    with st.container(border=True, key=f"card_{method.key}"):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"#### {as_markdown(method.title)}", width="stretch")
            st.badge("lossless" if method.is_lossless else "not lossless", color="green" if method.is_lossless else "orange",
                     icon=":material/check:" if method.is_lossless else ":material/warning:")  # fmt: skip
            for one in method.requirements:
                st.badge(one.words, color="gray")
            st.button("Open in Step", key=f"open_{method.key}", type="primary", icon=":material/skip_next:", disabled=bool(reason),
                      on_click=choose, args=(method.key,))  # fmt: skip
        st.markdown(as_markdown(method.idea))
        left, right = st.columns([0.55, 0.45], gap="large")
        with left:
            steps = "".join(f"<li>{html.escape(line)}</li>" for line in method.algorithm)
            st.html(f"<b>One step</b><ol style='margin:0.2rem 0 0 0;padding-left:1.3rem;line-height:1.6'>{steps}</ol>")
        with right:
            st.markdown(f"**Lossless: {'yes' if method.is_lossless else 'no'}.** {as_markdown(method.lossless)}")
            st.markdown(f"**Paper.** [{as_markdown(method.authors)}]({method.paper})")
            st.markdown("**Embedded models.** " + (as_markdown(reason) if reason else "They serve it: nothing to download."))
        if table := parameter_rows(method):
            st.dataframe(pd.DataFrame(table), hide_index=True, height="content", key=f"params_{method.key}")
        else:
            st.caption("No parameters.")
    if st.session_state.get("go_to_step") == method.key:
        del st.session_state["go_to_step"]
        st.switch_page("pages/1_Step.py", query_params=link(method.key))


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
