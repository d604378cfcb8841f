"""A server that nobody told what it is for, behind a proxy."""

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from deploy.meant import BROUGHT, Meant
from deploy.serve import LAYERS


@pytest.fixture
def site():
    async def talk(socket) -> None:
        await socket.accept()
        await socket.close()

    routes = [Route("/", lambda request: PlainTextResponse("the app")), WebSocketRoute("/stream", talk)]
    return TestClient(Starlette(routes=routes, middleware=[Middleware(Meant)]))


@pytest.mark.parametrize("name", BROUGHT)
@pytest.mark.parametrize(("mode", "let_in"), [("", False), (" ", False), ("local", True), ("public", True)])
def test_a_proxy_brings_nobody_until_the_mode_is_said(site, monkeypatch, name, mode, let_in):
    """Every stranger could name folders of the server, and nobody was told."""
    monkeypatch.setenv("DRAFTSCOPE_MODE", mode)
    answer = site.get("/", headers={name: "192.0.2.1"})
    assert (answer.text == "the app") == let_in
    assert let_in or answer.status_code == 403 and "DRAFTSCOPE_MODE=public" in answer.text
    if not let_in:
        with pytest.raises(WebSocketDisconnect), site.websocket_connect("/stream", headers={name: "192.0.2.1"}):
            pass


def test_whoever_comes_by_themselves_is_let_in(site, monkeypatch):
    monkeypatch.delenv("DRAFTSCOPE_MODE", raising=False)
    assert site.get("/").text == "the app"


def test_it_is_the_first_that_a_server_asks():
    assert LAYERS[0] is Meant
