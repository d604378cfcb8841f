"""Letter keys for what has an arrow key already: a button has one shortcut only, and sliders eat arrows."""

from collections.abc import Callable, Mapping

import streamlit as st

from pages.parts.shared.heard import heard
from pages.parts.shared.setup import first_told

SCRIPT = """
export default function({ data, parentElement, setTriggerValue }) {
  const letters = (e) => {
    const at = e.composedPath()[0];
    if (e.ctrlKey || e.metaKey || e.altKey || e.repeat) return;
    if (at.closest && at.closest("input, textarea, select, [contenteditable=true], [role=combobox]")) return;
    const key = e.key.toLowerCase();
    if (data.letters.includes(key)) setTriggerValue("letter", { key, at: performance.timeOrigin + performance.now() });
  };
  // this function runs again with every new data, and the clean-up of an older run may come after the newer one, while the
  // element is still there: one listener at a time, until the element is gone
  const box = parentElement;
  if (box.letters) document.removeEventListener("keydown", box.letters);
  box.letters = letters;
  document.addEventListener("keydown", letters);
  return () => { if (!box.isConnected) document.removeEventListener("keydown", box.letters); };
}
"""

component = st.components.v2.component("draftscope_letters", html="<span></span>", js=SCRIPT)


def letters(key: str, actions: Mapping[str, Callable[[], None]]) -> None:
    """Call `actions[letter]` when the letter is pressed, unless somebody is writing."""

    def pressed() -> None:
        if (letter := first_told(key, heard(key, "letter"))) in actions:
            actions[letter]()

    component(key=key, data={"letters": list(actions)}, on_letter_change=pressed, height=1)
