"""`deploy/unread.py`: browsers that read slowly, or nothing."""

import asyncio
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

import pytest
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.web.server.starlette.starlette_websocket import StarletteSessionClient

from decoding.limits import PUBLIC
from deploy import serve
from deploy.buckets import now
from deploy.pace import Pace
from deploy.unread import EACH, HEARS, WHOLE, Unread
from tests.deploy.test_ticks import page

MB = 2**20


@dataclass(eq=False)
class Page:
    """As much of a tab as is looked at."""

    names: list[str]


def of(*addresses: str) -> list[Page]:
    return [Page([f"address {address}", f"visitor {number}"]) for number, address in enumerate(addresses)]


@pytest.fixture
def entered():
    """What lies there for some tabs, and those that were cut off."""

    def entered(*tabs) -> tuple[Unread, list]:
        unread, ended = Unread(), []
        for tab in tabs:
            unread.enter(tab, partial(ended.append, tab))
        return unread, ended

    return entered


def test_a_tab_that_reads_nothing_is_cut_off(entered):
    """It had the server hold as many copies of a long run as it asked for."""
    slow, other = tabs = of("a", "b")
    unread, ended = entered(*tabs)
    for _ in range(EACH // MB):
        unread.said(slow, MB)
        unread.said(other, MB)
        unread.was_read(other)
    assert not ended
    unread.said(slow, 1)
    unread.said(slow, 1)  # its connection is about to go
    assert ended == [slow] and not unread._bytes


def test_what_was_read_counts_no_more(entered):
    (tab,) = of("a")
    unread, ended = entered(tab)
    for size in (3 * MB, 5 * MB):
        unread.said(tab, size)
    unread.was_read(tab)
    assert unread._bytes == unread._tabs[tab].bytes == 5 * MB
    unread.was_read(tab)
    unread.was_read(tab)  # what Streamlit has not said, such as that the connection is there
    assert unread._bytes == 0
    unread.said(tab, MB)
    unread.leave(tab)
    unread.leave(tab)
    assert unread._bytes == 0 and not ended


def test_of_all_the_fullest_where_most_lies_is_cut_off(entered):
    """Not whoever comes last: ten addresses fill what there is, and another visitor goes on."""
    count = WHOLE // (8 * MB)
    *crowd, alone = tabs = of(*["a"] * count, "b")
    unread, ended = entered(*tabs)
    for tab in crowd:
        unread.said(tab, 8 * MB - 1)
    unread.said(alone, 20 * MB)
    assert ended and set(ended) <= set(crowd) and unread._bytes <= WHOLE
    unread.said(alone, MB)
    assert alone not in ended


def test_what_streamlit_says_is_heard_before_it_is_read():
    """The end of a script that nobody read kept a place for a second; of three such places there were none for others."""

    async def story():
        async def never(data: bytes) -> None:
            await asyncio.Event().wait()

        heard = []
        browser = {"headers": {}, "cookies": {}, "client": None, "send_bytes": never}
        client = StarletteSessionClient(SimpleNamespace(scope={HEARS: heard.append}, **browser))
        said = [ForwardMsg(script_finished=status) for status in (0, 1)]
        for message in said:
            client.write_forward_msg(message)
            await asyncio.sleep(0)
        await client.aclose()
        nobodys = StarletteSessionClient(SimpleNamespace(scope={}, **browser))
        nobodys.write_forward_msg(said[0])
        await nobodys.aclose()
        return heard == said

    assert asyncio.run(story())


def test_a_place_is_free_when_its_script_has_ended_whoever_reads_that(played):
    """Through all of what stands in front of Streamlit, which sends to a browser that reads nothing."""

    async def story():
        pace, heard = Pace(), []
        door = serve.Messages(None, pace)

        async def app(scope, receive, send):
            began = page()
            began.new_session.initialize.session_id = scope["client"][0]
            await receive()
            for message in (began, ForwardMsg(script_finished=ForwardMsg.FINISHED_SUCCESSFULLY)):
                scope[HEARS](message)
            await send({"type": "websocket.send", "bytes": began.SerializeToString()})

        async def receive():
            return {"type": "websocket.receive", "bytes": press.SerializeToString()}

        async def send(message):
            heard.append(message)
            await asyncio.Event().wait()

        press = serve.BackMsg()
        press.rerun_script.query_string = ""
        door.app = app
        slow = [
            asyncio.create_task(door({"type": "websocket", "headers": [], "client": (f"192.0.2.{i}", 1)}, receive, send))
            for i in range(PUBLIC.whole.scripts)
        ]
        while len(heard) < len(slow):
            await asyncio.sleep(0.01)
        began = now()
        await pace.enter(None, "198.51.100.1").turn(page=True)
        waited = now() - began
        for task in slow:
            task.cancel()
        return waited

    assert played(story) == 0
