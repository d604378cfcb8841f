"""The text, token by token: a component whose tokens are buttons that lead to the step they came from.

Tokens reach the page as data and are written with textContent, never as HTML. Also carries the letter twins of the arrow keys
(J, K): a Streamlit button has one shortcut only.
"""

from typing import Any
from zlib import crc32

import streamlit as st

from decoding.trace import Trace
from pages.parts.shared.session import Session
from pages.parts.shared.setup import first_told, numbered
from viz.step.text import CSS, around, committed, describe, legend_html, origins, strip

STYLE = (
    CSS.replace("<style>", "").replace("</style>", "")
    + """
.ds-box { max-height: 11.2rem; overflow-y: auto; padding: 0.15rem 0.4rem; border: 1px solid var(--st-border-color, #8884);
  border-radius: 0.5rem; color: var(--st-text-color); }
button.ds-tok { font: inherit; color: inherit; border: none; background-color: transparent; cursor: pointer; line-height: 1.35;
  white-space: pre-wrap; }
button.ds-accepted { background-color: rgba(0,114,178,0.22); }
button.ds-correction { background-color: rgba(240,228,66,0.38); }
button.ds-bonus { background-color: rgba(86,180,233,0.30); }
button.ds-plain { background-color: rgba(200,196,186,0.30); }
.ds-later { opacity: 0.42; }
button.ds-tok:hover { filter: brightness(0.92); }
button.ds-tok:focus-visible { outline: 3px solid var(--st-primary-color); outline-offset: 1px; }
"""
)

SCRIPT = """
const GLYPHS = "␣↵⇥";

function drawn(box, data) {  // the tokens as elements, to be marked and listened to afterwards
  const list = document.createElement("div");
  list.className = "ds-strip"; list.setAttribute("role", "group"); list.setAttribute("aria-label", "The text, token by token");
  if (data.before) list.append("… ");
  let group = null, holder = list;
  const close = () => { if (group !== null) { const whole = document.createElement("span"); whole.className = "ds-whole";
    whole.textContent = "= " + group.whole; holder.append(whole); } group = null; holder = list; };
  for (const t of data.tokens) {
    if (group !== null && t.group !== group.group) close();
    if (t.group !== null && group === null) { group = t; holder = document.createElement("span");
      holder.className = "ds-joined"; list.append(holder); }
    if (t.text && GLYPHS.includes(t.text[0])) holder.append(document.createElement("wbr"));
    const token = document.createElement(t.step === null ? "span" : "button");
    token.className = "ds-tok ds-" + t.origin + (t.half ? " ds-half" : "") + (t.special ? " ds-special" : "");
    token.title = t.title;
    for (const c of t.text) {
      if (!GLYPHS.includes(c)) { token.append(c); continue; }
      const space = document.createElement("span");
      space.className = "ds-ws"; space.textContent = c; token.append(space);
    }
    if (t.step !== null) { token.type = "button"; token.dataset.step = t.step; token.setAttribute("aria-label", t.title); }
    holder.append(token);
    for (const c of t.text) if (c === "↵") holder.append(document.createElement("br"));
  }
  close();
  if (data.behind) list.append(" …");
  if (!data.tokens.length) list.append("no text yet");
  list.onclick = (e) => { const token = e.target.closest("button"); if (token) box.trigger("step", +token.dataset.step); };
  list.onkeydown = (e) => {  // arrows walk over the tokens, Tab leaves them
    const buttons = [...list.querySelectorAll("button")], i = buttons.indexOf(e.target);
    const to = { ArrowRight: i + 1, ArrowLeft: i - 1, Home: 0, End: buttons.length - 1 }[e.key];
    if (e.key === " " || e.key === "Enter") { e.stopPropagation(); return; }
    if (i < 0 || to === undefined) return;
    e.preventDefault(); e.stopPropagation();
    const next = buttons[Math.min(Math.max(to, 0), buttons.length - 1)];
    buttons.forEach(b => b.tabIndex = -1); next.tabIndex = 0; next.focus();
  };
  return list;
}

function marked(box, list, now) {  // the tokens of the step that is shown, and the faded ones behind it
  const buttons = [...list.querySelectorAll("button")];
  for (const token of buttons) {
    const step = +token.dataset.step;
    token.classList.toggle("ds-now", step === now); token.classList.toggle("ds-later", step > now);
    if (step === now) token.setAttribute("aria-current", "step"); else token.removeAttribute("aria-current");
    if (token.tabIndex !== -1) token.tabIndex = -1;
  }
  const shown = buttons.filter(b => +b.dataset.step === now);
  const home = shown[0] || buttons[0];
  if (!home) return;
  home.tabIndex = 0;
  const last = shown[shown.length - 1] || home;
  const over = last.offsetTop + last.offsetHeight - box.offsetTop - box.clientHeight + 12;
  if (over > box.scrollTop || home.offsetTop - box.offsetTop < box.scrollTop) box.scrollTop = Math.max(0, over);
}

export default function({ data, parentElement, setTriggerValue }) {
  const box = parentElement.querySelector(".ds-box");
  if (!box.isConnected || parentElement.number > data.number) return;  // see `numbered`
  parentElement.number = data.number;
  box.trigger = setTriggerValue;
  if (box.dataset.key !== data.key || !box.querySelector(".ds-strip")) {  // a step back or forward leaves the tokens as they are
    box.replaceChildren(drawn(box, data)); box.dataset.key = data.key;
  }
  marked(box, box.querySelector(".ds-strip"), data.now);
  const letters = (e) => {
    const at = e.composedPath()[0];
    if (e.ctrlKey || e.metaKey || e.altKey || e.repeat) return;
    if (at.closest && at.closest("input, textarea, select, [contenteditable=true], [role=combobox]")) return;
    const key = { j: "back", k: "step" }[e.key.toLowerCase()];
    if (key) setTriggerValue("letter", { key, at: performance.timeOrigin + performance.now() });  // see `first_told`
  };
  // this function runs again with every new data, in the same element or in another one, and its clean-up may come late, never,
  // or while the element is still there: the listener has one place on the page
  document.removeEventListener("keydown", window.draftscopeLetters);
  window.draftscopeLetters = letters;
  document.addEventListener("keydown", letters);
  return () => { if (!box.isConnected) document.removeEventListener("keydown", letters); };
}
"""

component = st.components.v2.component("draftscope_strip", html='<div class="ds-box"></div>', css=STYLE, js=SCRIPT)


def text_strip(session: Session, on_letter) -> None:
    """Prompt and text, the tokens of later steps faded; a click leads to the token's step.

    Args:
        on_letter: called with "back" or "step" when J or K was pressed.
    """

    def to_step() -> None:
        chosen = st.session_state["strip"].step
        if isinstance(chosen, int) and not isinstance(chosen, bool):
            session.playing = False
            session.go(chosen)

    def by_letter() -> None:
        if (key := first_told("strip", st.session_state["strip"].letter)) in ("back", "step"):
            on_letter(key)

    data = numbered("strip", payload(session.trace, session.cursor))
    component(key="strip", data=data, on_step_change=to_step, on_letter_change=by_letter)


def payload(trace: Trace | None, cursor: int) -> dict[str, Any]:
    """What the component draws: the tokens around the step that is shown, and a key that changes when they do."""
    if trace is None:
        return {"tokens": [], "key": "", "now": cursor, "before": False, "behind": False}
    window = around(trace, cursor)
    spans = strip(trace, window=window)
    tokens = tuple(  # not a list: Streamlit imports pandas to ask whether that is a table
        {"text": s["text"], "origin": s["origin"], "step": s["step"], "title": describe(s), "half": s["half"],
         "special": s["special"], "group": s["group"], "whole": s["whole"]}
        for s in spans
    )  # fmt: skip
    behind = len(committed(trace)) > window.stop
    key = f"{crc32(repr(tokens).encode()):x} {behind}"
    return {"tokens": tokens, "key": key, "now": cursor, "before": window.start > 0, "behind": behind}


def legend(trace: Trace) -> None:
    """The origins in the text and what they mean."""
    st.html(CSS + legend_html(origins(trace)))
