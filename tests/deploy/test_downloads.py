"""`deploy/downloads.py`: whoever reads slowly has the server hold a piece, not a file."""

import asyncio

import pytest
from streamlit.web.server.starlette.starlette_gzip_middleware import SelectiveGZipMiddleware

from deploy.downloads import AT_ONCE, PIECE, Downloads, Response

FILE = bytes(range(256)) * 4_000  # of a megabyte
PLAIN = [(b"accept-encoding", b"gzip"), (b"range", b"bytes=0-")]


@pytest.fixture(autouse=True)
def public(monkeypatch):
    monkeypatch.setenv("DRAFTSCOPE_MODE", "public")


async def streamlit(scope, receive, send) -> None:
    """Serves the file, packed or in part if it is asked to."""
    part = any(name == b"range" for name, _ in scope["headers"])
    await Response(FILE[:-1] if part else FILE, media_type="text/html")(scope, receive, send)


def scope_of(path: str, address: str = "here") -> dict:
    return {"type": "http", "method": "GET", "path": path, "headers": PLAIN, "client": (address, 1), "query_string": b""}


def got(path: str) -> list[dict]:
    sent = []

    async def send(message):
        sent.append(message)

    asyncio.run(Downloads(SelectiveGZipMiddleware(streamlit))(scope_of(path), None, send))
    return sent


@pytest.mark.parametrize("path", ["/media/0a1b.html", "/base/media/0a1b.html"])
def test_a_file_comes_whole_and_in_pieces(path):
    """Neither packed nor cut out, which makes another copy for each who asks."""
    start, *bodies = got(path)
    assert b"content-encoding" not in dict(start["headers"]) and b"".join(one["body"] for one in bodies) == FILE
    assert all(len(one["body"]) <= PIECE for one in bodies) and len(bodies) > 9
    assert [one.get("more_body", False) for one in bodies] == [True] * (len(bodies) - 1) + [False]


def test_other_answers_come_in_pieces_too():
    assert all(len(one["body"]) <= PIECE for one in got("/static/js/x.js")[1:])


def test_a_piece_waits_until_the_one_before_is_on_its_way():
    """The server's `send` returns when enough was read."""
    read, sent = asyncio.Event(), []

    async def send(message):
        sent.append(message)
        if message["type"] == "http.response.body":
            await read.wait()

    async def story() -> int:
        task = asyncio.create_task(Downloads(streamlit)(scope_of("/media/a.html"), None, send))
        for _ in range(20):
            await asyncio.sleep(0)
        held = len(sent)
        read.set()
        await task
        return held

    assert asyncio.run(story()) == 2


def test_one_address_has_so_many_under_way():
    never, sent = asyncio.Event(), []

    async def send(message):
        sent.append(message)
        if message.get("status") == 200:
            await never.wait()

    async def story() -> list[int]:
        door = Downloads(streamlit)
        tasks = [asyncio.create_task(door(scope_of("/media/a.html"), None, send)) for _ in range(AT_ONCE + 2)]
        tasks.append(asyncio.create_task(door(scope_of("/media/a.html", "there"), None, send)))
        await asyncio.sleep(0)
        seen = [one["status"] for one in sent if "status" in one]
        never.set()
        await asyncio.gather(*tasks)
        sent.clear()
        await door(scope_of("/media/a.html"), None, send)
        return [*seen, sent[0]["status"]]

    assert asyncio.run(story()) == [200] * AT_ONCE + [429] * 2 + [200, 200]


def test_on_a_server_of_ones_own_all_is_as_it_was(monkeypatch):
    monkeypatch.setenv("DRAFTSCOPE_MODE", "local")
    assert b"content-encoding" in dict(got("/media/0a1b.html")[0]["headers"])
