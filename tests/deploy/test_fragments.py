"""What is asked of a page that has no such fragment, or of one whose browser is gone, keeps no place in which others could run."""

import asyncio
from threading import current_thread
from types import SimpleNamespace

import pytest
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

from decoding.limits import PUBLIC
from deploy import fragments
from deploy.buckets import now
from deploy.pace import Pace
from deploy.places import HOLD, SOON
from deploy.serve import asked, told
from tests.deploy.test_ticks import Network, page, tick

OWN = PUBLIC.visitor


class Sessions:
    """Streamlit's, as far as it is asked."""

    def __init__(self, **known: set[str]) -> None:
        self.known = known

    def get_active_session_info(self, session: str):
        own = self.known.get(session)
        runner = SimpleNamespace(_script_thread=current_thread())
        return (
            None if own is None else SimpleNamespace(session=SimpleNamespace(has_fragment=own.__contains__, _scriptrunner=runner))
        )


@pytest.fixture
def sessions(monkeypatch) -> Sessions:
    found = Sessions(mine={"a", "b"}, other={"c"})
    monkeypatch.setattr(fragments.runtime, "exists", lambda: True)
    monkeypatch.setattr(fragments.runtime, "get_instance", lambda: SimpleNamespace(_session_mgr=found))
    return found


def begun(session: str) -> ForwardMsg:
    message = page()
    message.new_session.initialize.session_id = session
    return message


@pytest.mark.parametrize(
    ("session", "fragment", "goes_by"), [("mine", "a", 1), ("mine", "c", 0), ("mine", "z", 0), ("gone", "a", 0), ("", "a", 0)]
)
def test_a_fragment_that_the_page_does_not_have_takes_no_place(played, sessions, session, fragment, goes_by):
    async def story():
        tab, network = Pace().enter("key", "here"), Network(tick(fragment, auto=False))
        tab.session, tab.drawn = session, True
        passed = (await asked(network.receive, tab))["type"] == "websocket.receive"
        return passed, [tab in places for places, _ in tab._places]

    assert played(story) == (goes_by, [bool(goes_by)] * 3)


@pytest.mark.parametrize("auto", [True, False])
@pytest.mark.parametrize("session", ["gone", ""])
def test_a_page_whose_session_is_gone_is_drawn_anew(played, sessions, session, auto):
    """After a restart, or a night, nothing that was pressed on it was heard: the browser asks for a fragment, which is no more."""

    async def story():
        tab, network = Pace().enter("key", "here"), Network(tick("a", auto=auto), tick("a", auto=auto))
        tab.session = session
        first, second = [await asked(network.receive, tab) for _ in range(2)]
        return BackMsg.FromString(first["bytes"]).rerun_script, second["type"]

    woken, then = played(story)
    assert (woken.fragment_id, woken.is_auto_rerun) == ("", False) and then != "websocket.receive"


def test_messages_for_no_fragment_hold_up_nobody(played, sessions):
    """Many of them from many tabs, while one visitor steps."""

    async def story():
        pace, waits = Pace(), []
        for number in range(36):
            bad = pace.enter(f"bad{number // 6}", "there")
            bad.session = "mine"
            network = Network(*[tick("z", auto=False)] * 1000)
            asyncio.get_running_loop().create_task(asked(network.receive, bad))
        good = pace.enter("good", "here")
        good.session = "mine"
        for _ in range(20):
            began = now()
            await asked(Network(tick("a", auto=False)).receive, good)
            waits.append(now() - began)
            good.ended()
            await asyncio.sleep(0.3)
        return max(waits)

    assert played(story) == 0


def test_a_fragment_that_goes_while_its_message_waits_gives_its_place_to_the_next(played, sessions):
    async def story():
        pace = Pace()
        tabs = [pace.enter("key", "here") for _ in range(OWN.scripts + 2)]
        for tab in tabs:
            tab.session = "mine"
        for tab in tabs[: OWN.scripts]:
            await tab.turn(page=False)
        late, last = (
            asyncio.create_task(asked(Network(tick(name, auto=False)).receive, tab))
            for name, tab in zip("ba", tabs[-2:], strict=True)
        )
        await asyncio.sleep(0.1)
        sessions.known["mine"] -= {"b"}
        tabs[0].ended()
        await asyncio.sleep(0)
        return (await late)["type"], (await last)["type"], now()

    assert played(story) == ("websocket.disconnect", "websocket.receive", pytest.approx(0.1))


class Wire(Network):
    """A connection of the server."""

    def __init__(self, *messages: dict) -> None:
        super().__init__(*messages)
        self.transport = SimpleNamespace(is_closing=lambda: self.closed)
        self.closed = False


def test_what_a_closed_tab_had_asked_for_is_not_run(played, sessions):
    async def story():
        pace = Pace()
        first = [pace.enter("key", "here") for _ in range(OWN.scripts)]
        for tab in first:
            await tab.turn(page=False)
        wire, tab = Wire(*[tick("", auto=False)] * 20), pace.enter("key", "here")
        waits = asyncio.create_task(asked(wire.receive, tab))
        await asyncio.sleep(0.1)
        wire.closed = True
        first[0].ended()
        return (await waits)["type"], now(), [tab in places for places, _ in tab._places]

    assert played(story) == ("websocket.disconnect", pytest.approx(0.1), [False] * 3)


@pytest.mark.parametrize(("session", "waits"), [("mine", HOLD), ("gone", SOON)])
def test_the_place_of_a_script_that_ended_without_a_word_is_free(played, sessions, session, waits):
    """Of sixty pages whose browsers were gone each kept one for a second: nobody tells them that their scripts have ended."""

    async def story():
        pace = Pace()
        tabs = [pace.enter("key", "here") for _ in range(OWN.scripts + 1)]
        for tab in tabs:
            tab.session = session
        for tab in tabs:
            await tab.turn(page=False)
        return now()

    assert played(story) == pytest.approx(waits, abs=0.01)


def test_a_script_that_runs_keeps_its_place_when_a_later_message_is_dropped(played, sessions):
    async def story():
        tab = Pace().enter("key", "here")
        told(tab, begun("mine"))
        await tab.turn(page=True)
        tab.began()
        await asked(Network(tick("z", auto=False)).receive, tab)
        return [tab in places for places, _ in tab._places]

    assert played(story) == [True] * 3


def test_where_streamlit_cannot_be_asked_all_goes_by(monkeypatch):
    monkeypatch.setattr(fragments.runtime, "exists", lambda: False)
    assert fragments.has_fragment("any", "a")
