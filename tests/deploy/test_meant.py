"""A server that nobody told what it is for, behind a proxy."""

import asyncio

import pytest

from deploy.meant import BROUGHT, Meant
from deploy.serve import LAYERS


def answer(kind: str, *names: str) -> list[dict]:
    """What is sent to a browser that comes with such headers; nothing if it is let in."""
    sent: list[dict] = []

    async def app(scope, receive, send) -> None:
        return None

    async def receive() -> dict:
        return {}

    async def send(message: dict) -> None:
        sent.append(message)

    headers = [(name.encode(), b"192.0.2.1") for name in names]
    asyncio.run(Meant(app)({"type": kind, "headers": headers}, receive, send))
    return sent


@pytest.mark.parametrize("name", BROUGHT)
@pytest.mark.parametrize(("mode", "let_in"), [("", False), (" ", False), ("local", True), ("public", True)])
def test_a_proxy_brings_nobody_until_the_mode_is_said(monkeypatch, name, mode, let_in):
    """Every stranger could name folders of the server, and nobody was told."""
    monkeypatch.setenv("DRAFTSCOPE_MODE", mode)
    page, socket = answer("http", name), answer("websocket", name)
    if let_in:
        assert not page and not socket
    else:
        assert page[0]["status"] == 403 and b"DRAFTSCOPE_MODE=public" in page[1]["body"]
        assert socket == [{"type": "websocket.close", "code": 1008}]


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_whoever_comes_by_themselves_is_let_in(monkeypatch, kind):
    monkeypatch.delenv("DRAFTSCOPE_MODE", raising=False)
    assert not answer(kind, "host", "user-agent")


def test_it_is_the_first_that_a_server_asks():
    assert LAYERS[0] is Meant
