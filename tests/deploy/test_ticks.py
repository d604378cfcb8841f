"""`deploy/ticks.py`: which ticks of a page's timers go by."""

import asyncio

import pytest
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

from decoding.limits import PUBLIC
from deploy.buckets import now
from deploy.pace import Pace
from deploy.serve import asked, told


def timer(fragment: str, interval: float) -> ForwardMsg:
    message = ForwardMsg()
    message.auto_rerun.fragment_id, message.auto_rerun.interval = fragment, interval
    return message


def ended(fragment: str) -> ForwardMsg:
    message = ForwardMsg()
    message.stop_auto_rerun.fragment_ids.append(fragment)
    return message


def page() -> ForwardMsg:
    message = ForwardMsg()
    message.new_session.main_script_path = "/srv/app.py"
    return message


def tick(fragment: str, auto: bool = True) -> dict:
    message = BackMsg()
    message.rerun_script.fragment_id, message.rerun_script.is_auto_rerun = fragment, auto
    return {"type": "websocket.receive", "bytes": message.SerializeToString()}


class Network:
    """What a browser has sent, until it is taken."""

    def __init__(self, *messages: dict) -> None:
        self.messages = [*messages, {"type": "websocket.disconnect"}]

    async def receive(self) -> dict:
        return self.messages.pop(0)


async def went_by(tab, *messages: dict) -> list[dict]:
    """What Streamlit gets of these, which were all sent before the first one was taken."""
    network, found = Network(*messages), []
    while (message := await asked(network.receive, tab))["type"] != "websocket.disconnect":
        found.append(message)
        tab.ended()
    return found


@pytest.fixture(autouse=True)
def every_fragment(monkeypatch):
    """A page that has all that is asked for."""
    monkeypatch.setattr("deploy.serve.has_fragment", lambda session, fragment: True)


@pytest.mark.parametrize(
    ("said", "count"),
    [
        ([timer("a", 0.2)], 1),
        ([], 20),  # told to an earlier connection of the same page
        ([timer("b", 0.2)], 20),
        ([timer("a", 0.2), page()], 0),
        ([timer("a", 0.2), ended("a")], 0),
        ([timer("a", 0.2), page(), timer("a", 0.2)], 1),
    ],
)
def test_ticks_that_piled_up_are_one(played, said, count):
    """Or none, if their timer is no more. A press behind them is passed on, and at once."""

    async def story():
        tab = Pace().enter("key", "here")
        for message in said:
            told(tab, message)
        press = tick("a", auto=False)
        found = await went_by(tab, *[tick("a")] * 20, press)
        return len(found) - 1, found[-1] == press, now()

    assert played(story) == (count, True, 0)


def test_ticks_in_time_all_go_by(played):
    """As a browser's timer sends them, a little early or late."""

    async def story():
        tab, count = Pace().enter("key", "here"), 0
        told(tab, timer("a", 0.2))
        for number in range(50):
            count += len(await went_by(tab, tick("a")))
            await asyncio.sleep(0.2 + 0.05 * (-1) ** number)
        return count

    assert played(story) == 50


def test_a_press_waits_for_no_ticks(played):
    """All places are taken for a while, in which a timer ticks on."""

    async def story():
        pace = Pace()
        others = [pace.enter("key", "here") for _ in range(PUBLIC.visitor.scripts)]
        for other in others:
            await other.turn(page=False)
        tab = pace.enter("key", "here")
        told(tab, timer("a", 0.1))
        loop = asyncio.get_running_loop()
        for other in others:
            loop.call_later(0.5, other.ended)
        found = await went_by(tab, *[tick("a")] * 50, tick("a", auto=False))
        return len(found), now()

    count, at = played(story)
    assert count == 2 and at == pytest.approx(0.5)
