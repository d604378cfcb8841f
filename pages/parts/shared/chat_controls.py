"""The controls of a chat: whether it is one, the system's words, the turns, options of the template. They say; they run nothing.

All are boxes of `Remembered`, which the page may change as well as the visitor. Whether a model has a template is told from its
files; nothing is loaded.
"""

from collections.abc import Sequence
from typing import Any

import streamlit as st

from decoding.models.chat import MAX_MESSAGES, has_template
from decoding.trace import Message
from pages.parts.shared.examples import CHAT_EXAMPLES
from pages.parts.shared.remembered import Remembered
from viz.tokens import as_markdown

MAX_TURN = 20_000  # characters of a box
OWN = "my own messages"
WHY = "The messages go to the model in the form that it was trained on, by its chat template. Off: it goes on from a plain text."
SYSTEM_HELP = "What the model is told beforehand; empty: what its template says by itself, if anything."
OPTIONS_HELP = "Some templates have switches, such as enable_thinking=false. Written NAME=VALUE, parted by commas."


# -- what they say ------------------------------------------------------------------------------------------------------


def written(owner: Remembered, name: str, default: Any) -> Any:
    """What a box says: what was put there since it was drawn, else what the page or the visitor put there last."""
    shows, number = owner.boxes.get(name, (default, 0))
    now = st.session_state.get(f"{name}.{number}", shows)
    return now if now != shows else owner.values.get(name, default)


def chat_on(owner: Remembered, target: str, name: str = "chat") -> bool:
    """Whether a chat is wanted: until the visitor says, if the target has a template."""
    there = has_template(target)
    return there is not False and written(owner, name, there is True)


def roles(owner: Remembered) -> tuple[str, ...]:
    """Who speaks, turn by turn, behind the system."""
    return owner.values.get("roles", ("user",))


def turn_of(owner: Remembered, number: int) -> str:
    return written(owner, f"turn.{number}", next(iter(CHAT_EXAMPLES.values())).prompt if number == 0 else "")


def messages_of(owner: Remembered) -> tuple[Message, ...]:
    """The messages as they are written; not checked."""
    system = written(owner, "system", "")
    first = (Message("system", system),) if system.strip() else ()
    return (*first, *(Message(role, turn_of(owner, number)) for number, role in enumerate(roles(owner))))


def asked(owner: Remembered) -> tuple[Message, ...]:
    """The messages that the model is to answer: a turn of the user that is still to be written, and the answer in front of it, do
    not count yet."""
    messages = messages_of(owner)
    to_come = len(roles(owner)) > 2 and not messages[-1].content.strip()
    return messages[:-2] if to_come else messages


def template_of(owner: Remembered) -> str:
    return written(owner, "template", "").strip()


def say_messages(owner: Remembered, messages: Sequence[Message]) -> None:
    """Let the boxes say these messages."""
    systems = [message.content for message in messages if message.role == "system"]
    others = [message for message in messages if message.role != "system"]
    owner.values["system"] = "\n\n".join(systems)
    owner.values["roles"] = tuple(message.role for message in others)
    owner.values |= {f"turn.{number}": message.content for number, message in enumerate(others)}


def say_chat(owner: Remembered, messages: Sequence[Message], template: str, target: str) -> None:
    """Let the controls say a run: a chat with these messages, or none; where nobody would expect one it is left open."""
    owner.values.pop("chat", None)
    if messages:
        owner.values |= {"chat": True, "template": template}
        say_messages(owner, messages)
    elif has_template(target):
        owner.values["chat"] = False


# -- drawn --------------------------------------------------------------------------------------------------------------


def chat_toggle(owner: Remembered, target: str, name: str = "chat") -> bool:
    """The switch, for a model that has a template or may have one; says whether a chat is wanted."""
    if has_template(target) is False:
        return False
    on = chat_on(owner, target, name)
    key = owner.box(name, on)

    def take() -> None:
        if (chosen := st.session_state.get(key, on)) != on:
            owner.values[name] = chosen
            owner.box_says(name, chosen)

    st.toggle("Chat", on, key=key, on_change=take, help=WHY)
    return on


def text_box(owner: Remembered, name: str, label: str, shows: str, height: int = 96, help: str | None = None) -> None:
    """A box whose text the page may change too; see `Remembered.box`.

    Args:
        label: one of ours: a screen reader says it as it is written, escapes and all.
    """
    key = owner.box(name, shows)

    def take() -> None:
        if (new := st.session_state.get(key, shows)) != shows:
            owner.values[name] = new
            owner.box_says(name, new)

    st.text_area(label, shows, key=key, height=height, max_chars=MAX_TURN, on_change=take, help=help and as_markdown(help))


def chat_controls(owner: Remembered) -> None:
    """Examples, system, turns and options of the template."""
    example_menu(owner)
    text_box(owner, "system", "System", written(owner, "system", ""), 68, SYSTEM_HELP)
    speakers = roles(owner)
    for number, role in enumerate(speakers):
        counted = f", turn {speakers[: number + 1].count(role)}" if speakers.count(role) > 1 else ""
        text_box(owner, f"turn.{number}", f"{role.capitalize()}{counted}", turn_of(owner, number))
    if len(speakers) > 1:
        st.button(
            "Remove the last turn", key="chat_remove", icon=":material/undo:", on_click=remove, args=(owner,),
            help="The last message of the user, and the answer in front of it.",
        )  # fmt: skip
    text_box(owner, "template", "Template options", written(owner, "template", ""), 68, OPTIONS_HELP)


def example_menu(owner: Remembered) -> None:
    """Puts a message into an otherwise empty chat."""
    alone = turn_of(owner, 0) if roles(owner) == ("user",) else None
    shown = next((key for key, example in CHAT_EXAMPLES.items() if example.prompt == alone), OWN)
    key = owner.box("chat_example", shown)
    menu = [OWN, *CHAT_EXAMPLES]

    def take() -> None:
        chosen = st.session_state.get(key, shown)
        if chosen != shown and chosen in CHAT_EXAMPLES:
            owner.values |= {"roles": ("user",), "turn.0": CHAT_EXAMPLES[chosen].prompt}
            owner.box_says("chat_example", chosen)

    st.selectbox(
        "Example", menu, menu.index(shown), key=key, on_change=take,
        format_func=lambda key: CHAT_EXAMPLES[key].title if key in CHAT_EXAMPLES else OWN, help="Begins a new chat.",
    )  # fmt: skip
    if shown in CHAT_EXAMPLES:
        st.caption(CHAT_EXAMPLES[shown].look)


def remove(owner: Remembered) -> None:
    """Back to the message of the user before the last one."""
    left = roles(owner)[:-1]
    while len(left) > 1 and left[-1] != "user":
        left = left[:-1]
    owner.values["roles"] = left


def go_on(owner: Remembered, messages: Sequence[Message], answer: str) -> None:
    """The answer of the model becomes a turn, and a new box for the user follows."""
    say_messages(owner, (*messages, Message("assistant", answer), Message("user", "")))


def goes_on(owner: Remembered, messages: Sequence[Message], answer: str) -> bool:
    """Whether the controls hold this chat and its answer already."""
    whole = (*messages, Message("assistant", answer))
    return messages_of(owner)[: len(whole)] == whole


def full(messages: Sequence[Message]) -> bool:
    """Whether no other question and answer fit into the chat."""
    return len(messages) + 2 > MAX_MESSAGES
