"""Who the visitor of a public server is: nobody but whoever has a random key. On a server of one's own there is one owner.

The key lies in the browser. `deploy/serve.py` sets it as a cookie that no script can read; a browser that refuses that, or a server
that was started in another way, has it as a plain cookie and in the local storage, written by the page. The first visit makes one.
A link carries it to another browser, which asks before it takes it: a link from a stranger must not make their folder yours.
"""

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import streamlit as st
from streamlit import runtime
from streamlit.runtime import Runtime

from decoding.limits import limits
from decoding.runs import visitors
from decoding.runs.store import Store, default_folder
from decoding.runs.visitors import CHECK, COOKIE, FRAMED, IN_STATE, ROUTE, WHETHER, is_key, network, new_key, store_of
from pages.parts.shared.heard import heard
from viz.tokens import as_markdown

NAME = COOKIE
KEY = IN_STATE
ADDRESS = "visitor.address"  # in the session's state
OFFERED = "visitor.offered"  # in the session's state: a key that came with a link
BEFORE = "visitor.before"  # likewise: how many runs the visitor had kept under another key, and that key
GIVEN = "visitor.given"  # likewise: one that the browser is given, and that is the visitor's when it has it
ASKED = "visitor.asked"  # likewise: how often this tab has asked for what it kept before it was reloaded; -1: no more
MOST_ASKED, PAUSE = 20, 5  # times, and seconds between two
PARAMETER = "visitor"  # of "my link"
SCRIPT = (Path(__file__).parent / "visitor.js").read_text(encoding="utf-8")
component = st.components.v2.component("draftscope_visitor", html="<span></span>", js=SCRIPT)


def cookie() -> str | None:
    """The key that the browser sent when this tab was opened."""
    try:
        return st.context.cookies.get(NAME)
    except (AttributeError, KeyError, TypeError):
        return None


def address() -> str:
    """What counts as the visitor's address, from which this tab was opened; "" for one of this machine, or if nobody knows."""
    if not st.session_state.get(ADDRESS):  # a script that outlives its connection does not know any more
        try:
            found = st.context.ip_address
        except (AttributeError, RuntimeError):
            found = None
        st.session_state[ADDRESS] = network(found) if isinstance(found, str) else ""
    return st.session_state[ADDRESS]


def key() -> str:
    """The visitor's key; a new one on the first visit."""
    if KEY not in st.session_state:
        sent = cookie()
        st.session_state[KEY] = sent if is_key(sent) else new_key()
    return st.session_state[KEY]


def remember_visitor(tab: str, found_again: Callable[[str], bool]) -> None:
    """Have the browser keep the key, and look at what a link offers; on every page of a public server, nothing on one's own.

    Args:
        tab: what this session is called by in the browser's tab.
        found_again: told what it was called before the tab was reloaded; whether to tell it again in a while.
    """
    if not limits().public:
        return
    if is_key(offered := st.query_params.get(PARAMETER, "")) and offered != key():
        st.session_state[OFFERED] = offered
    if PARAMETER in st.query_params:
        del st.query_params[PARAMETER]  # whoever looks at the screen, or is sent the address, must not get it

    def known() -> None:
        given = st.session_state.pop(GIVEN, None)
        if is_key(found := heard("visitor", "known")):
            if given == found != key():
                remember_before(key())
            st.session_state[KEY] = found
        elif given is None and found is not None:  # whatever lies there is no key: it is written over
            st.session_state["visitor.over"] = True

    def was() -> None:  # the browser's key is another one since the connection came again
        if is_key(found := heard("visitor", "was")) and found != key():
            remember_before(found)

    def refused() -> None:
        if (given := st.session_state.pop(GIVEN, None)) is not None:
            st.session_state[OFFERED], st.session_state["visitor.refused"] = given, True

    def forgotten() -> None:
        if heard("visitor", "forgotten") in (True, key()):
            st.session_state["visitor.forgotten"] = key()

    def old() -> None:
        if is_key(found := heard("visitor", "old")) and found != key():
            st.session_state[GIVEN if not kept_so_far() else OFFERED] = found

    def again() -> None:
        times = max(0, st.session_state.get(ASKED, 0)) + 1
        later = is_key(found := heard("visitor", "tab")) and found_again(found)
        st.session_state[ASKED] = times if later and times < MOST_ASKED else -1

    data = {"name": NAME, "key": key(), "seconds": visitors.remembered(), "give": st.session_state.get(GIVEN)}
    data |= {
        "over": bool(st.session_state.get("visitor.over")),
        "tab": tab,
        "asked": st.session_state.get(ASKED, 0),
        "pause": 1000 * PAUSE,
    }
    served = visitors.by_server and is_key(cookie())  # else the browser refused the server's, as it may inside of another page
    data |= {"sent": cookie() if served else None, "served": served, "route": ROUTE.lstrip("/"), "check": CHECK}
    data |= {"framed": FRAMED, "whether": WHETHER, "offered": OFFERED in st.session_state, "forgotten": is_forgotten()}
    callbacks = {"on_known_change": known, "on_refused_change": refused, "on_old_change": old, "on_tab_change": again}
    component(key="visitor", data=data, height=1, **callbacks, on_forgotten_change=forgotten, on_was_change=was)
    if OFFERED in st.session_state:
        offer()
    elif BEFORE in st.session_state:
        before(*st.session_state[BEFORE])
    if is_forgotten() and (own := kept_so_far()):
        runs = "run" if own == 1 else "runs"
        words = (
            f"This browser does not know the {own:,} {runs} that this tab has kept any more: it has been given others, or keeps "
            "nothing. The link below leads to them, and nothing else does."
        )
        st.warning(as_markdown(words), icon=":material/key_off:")
        folded(my_link())
        st.button("Have this browser know them again", key="visitor_again", on_click=give_again)


def give_again() -> None:
    """The browser is given the key of this tab, which it had lost for another one."""
    del st.session_state["visitor.forgotten"]
    st.session_state[GIVEN] = key()


def offer() -> None:
    """Asks whether this browser is to have the kept runs that a link leads to."""

    def take(wanted: bool) -> None:
        offered = st.session_state.pop(OFFERED, None)
        st.session_state.pop("visitor.refused", None)
        if wanted and is_key(offered):
            st.session_state[GIVEN] = offered

    with st.container(horizontal=True, vertical_alignment="center", border=True, key="visitor_offer"):
        st.markdown(
            "**This link carries the kept runs of another browser.** Take them if it is a link of your own: this browser shows "
            "those from then on and no longer its own, and what you keep can be seen there.",
            width="stretch",
        )
        st.button("Take them", key="visitor_take", on_click=take, args=(True,))
        st.button("No", key="visitor_leave", on_click=take, args=(False,))
    if st.session_state.get("visitor.refused"):
        st.warning("The server did not take the key of that link: nothing has changed. Try again.", icon=":material/sync_problem:")
    own = kept_so_far()  # also of none the link: more may be kept until the button is pressed
    said = f"This browser has kept {own:,} of its own so far. They stay under this link alone, so copy it before you take others."
    st.caption(as_markdown(said))
    folded(my_link())


def remember_before(old: str) -> None:
    """The browser has another key than this one, which it had before: if runs lie there, the page says how to come back."""
    if own := kept_by(old):
        st.session_state[BEFORE] = own, old


def before(own: int, old: str) -> None:
    """The way back, for whoever did not mean to go."""

    def back() -> None:
        del st.session_state[BEFORE]
        st.session_state[GIVEN] = old

    runs = "1 run" if own == 1 else f"{own:,} runs"
    with st.container(horizontal=True, vertical_alignment="center", border=True, key="visitor_before"):
        st.markdown(
            as_markdown(f"This browser had kept {runs} of its own. The link below leads back, and nothing else does."),
            width="stretch",
        )
        st.button("Go back to them", key="visitor_before_back", on_click=back)
        st.button("I have it", key="visitor_before_done", on_click=lambda: st.session_state.pop(BEFORE, None))
    folded(my_link(old))


def kept_so_far() -> int:
    """How many runs the visitor has kept; 0 if that cannot be told."""
    return kept_by(key())


def kept_by(whose: str) -> int:
    """How many runs lie under a key."""
    with suppress(ValueError, sqlite3.Error):
        return store_of(root(), whose, limits().kept_days, address()).count()
    return 0


def is_apart() -> bool:
    """Whether a session is its visitor's alone, as on `deploy/serve.py`. Streamlit by itself gives it to whoever knows its name,
    which stands in the addresses of uploads. Where there is no server, there is nobody else."""
    return visitors.by_server or not (runtime.exists() and type(runtime.get_instance()) is Runtime)  # a test has another


def is_forgotten() -> bool:
    """Whether the browser knows this tab's key no more: it keeps none, as some do inside of another site's page, or has another."""
    return st.session_state.get("visitor.forgotten") == key()


def folded(link: str) -> None:
    """A link that is a key: whoever looks at the screen, or at a projector's, must not get it unasked."""
    with st.expander("Show the link", icon=":material/visibility:"):
        st.code(link, language=None, wrap_lines=True)


def my_link(whose: str | None = None) -> str:
    """The address that carries the key to another browser, or another one."""
    return f"{(st.context.url or '').split('?')[0]}?{PARAMETER}={whose or key()}"


def own_store() -> Store:
    """The store of the visitor of a public server; ValueError if it cannot be written."""
    return store_of(root(), key(), limits().kept_days, address())


def root() -> Path:
    return default_folder().expanduser()
