"""Nobody whom a proxy brings gets the local mode, in which everything is allowed, by a word that was forgotten."""

import os

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

BROUGHT = ("x-forwarded-for", "x-forwarded-proto", "forwarded")
SAID = (
    "This server does not know whom it is for, and a proxy has brought you here. Whoever runs it sets DRAFTSCOPE_MODE=public, or "
    "DRAFTSCOPE_MODE=local if everybody who comes may do everything on its machine.\n"
)


class Meant:
    """Refuses what a proxy brings until `DRAFTSCOPE_MODE` is set."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        unsaid = not os.environ.get("DRAFTSCOPE_MODE", "").strip()
        if not unsaid or scope["type"] not in ("http", "websocket") or not any(name in Headers(scope=scope) for name in BROUGHT):
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await PlainTextResponse(SAID, 403)(scope, receive, send)
        else:
            await receive()
            await send({"type": "websocket.close", "code": 1008})
