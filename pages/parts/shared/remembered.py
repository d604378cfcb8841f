"""What a tab remembers of its controls, from page to page."""

from collections.abc import Container
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import streamlit as st

SAID = "draftscope_controls_said"  # in the session's state


@dataclass(eq=False)
class Remembered:
    """Values of widgets, which forget them on another page, and boxes that the page itself may change."""

    values: dict[str, Any] = field(default_factory=dict)  # of the controls
    boxes: dict[str, tuple[Any, int]] = field(default_factory=dict)  # box -> what it shows, and which box it is
    opened: str = ""  # the link this tab has opened
    notes: tuple[str, ...] = ()  # what was wrong with it

    def box(self, name: str, shows: Any) -> str:
        """Key of a box that shows `shows`: another box whenever the page, not the visitor, changed what it shows.

        A box that the page sets goes wrong: a click that comes before the browser has the new value sends the old one along,
        which counts as a change of the box.
        """
        before, number = self.boxes.get(name, (shows, 0))
        self.boxes[name] = (shows, number + (before != shows))
        return f"{name}.{self.boxes[name][1]}"

    def other_boxes(self, known: Container[str]) -> None:
        """Let all boxes be others, none of those that are `known`, which show something else."""
        for name, (shows, number) in self.boxes.items():
            self.boxes[name] = (shows, next(n for n in count(number + 1) if f"{name}.{n}" not in known))

    def box_says(self, name: str, value: Any) -> None:
        """The visitor chose `value` in the box."""
        self.boxes[name] = (value, self.boxes[name][1])


def controls_said() -> int:
    """How often the page itself, not the visitor, has changed what the controls say."""
    return st.session_state.get(SAID, 0)


def say_control(key: str, value: Any) -> None:
    """Let a control say something, before it is drawn or in a callback."""
    st.session_state[key] = value
    st.session_state[SAID] = controls_said() + 1
