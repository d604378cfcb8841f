"""The small draft tree of a column: a component that draws the elements of `viz.step.small_tree` in place."""

from collections.abc import Mapping

import streamlit as st

from decoding.trace import Step
from pages.parts.shared.setup import numbered
from viz.step.small_tree import HEIGHT, small_tree
from viz.step.tree import tree_alt

STYLE = """
.ds-small { display: block; width: 100%; height: auto; color: var(--st-text-color); }
.ds-small text { paint-order: stroke; stroke: var(--st-background-color); stroke-width: 3px; }
"""

SCRIPT = """
const SVG = "http://www.w3.org/2000/svg";
const KNOWN = ["d", "x", "y", "fill", "stroke", "stroke-width", "stroke-dasharray", "font-size", "font-family"];
export default function({ data, parentElement }) {
  if (parentElement.number > data.number) return;  // see `numbered`
  parentElement.number = data.number;
  const svg = parentElement.querySelector("svg");
  svg.setAttribute("viewBox", `0 0 ${data.width} ${data.height}`);
  svg.setAttribute("aria-label", data.alt);
  svg.replaceChildren(...data.elements.map(e => {
    const element = document.createElementNS(SVG, e.tag === "text" ? "text" : "path");
    for (const name of KNOWN) if (e[name] !== undefined && e[name] !== "") element.setAttribute(name, e[name]);
    if (e.text) element.textContent = e.text;
    if (e.title) { const title = document.createElementNS(SVG, "title"); title.textContent = e.title;
      element.append(title); }
    return element;
  }));
}
"""

component = st.components.v2.component(
    "draftscope_small_tree", html='<svg class="ds-small" role="img"></svg>', css=STYLE, js=SCRIPT
)


def draw_small_tree(step: Step, token_bytes: Mapping[int, bytes], key: str, root: int | None, width: int, columns: int) -> None:
    """The tree of a step; tokens reach the page as data and are written with textContent."""
    elements = small_tree(step, token_bytes, root, width, columns)
    data = {"elements": elements, "width": width, "height": HEIGHT, "alt": tree_alt(step, token_bytes)}
    component(key=key, data=numbered(key, data))
