"""The app with the headers that browsers want of a public server: `streamlit run deploy/serve.py`. What it shows is `app.py`.

Nothing from another site is loaded, so a picture that got into a page by a hole would not be fetched. `DRAFTSCOPE_FRAMES` names the
sites that may show the app inside of their own pages, parted by blanks; none without it.
"""

import os
import sys
from pathlib import Path

import streamlit as st
from starlette.middleware import Middleware
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send


def headers(frames: str) -> dict[str, str]:
    """Streamlit's own scripts need eval (Plotly) and code that is made in the page (components)."""
    rules = {
        "default-src": "'self'",
        "script-src": "'self' 'unsafe-inline' 'unsafe-eval' blob:",
        "style-src": "'self' 'unsafe-inline'",
        "img-src": "'self' data: blob:",
        "font-src": "'self' data:",
        "connect-src": "'self'",
        "worker-src": "'self' blob:",
        "object-src": "'none'",
        "base-uri": "'self'",
        "form-action": "'self'",
        "frame-ancestors": frames or "'none'",
    }
    found = {
        "content-security-policy": "; ".join(f"{name} {value}" for name, value in rules.items()),
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "permissions-policy": "camera=(), microphone=(), geolocation=()",
    }
    return found if frames else found | {"x-frame-options": "DENY"}


class SecurityHeaders:
    """Adds them to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.added = [(k.encode(), v.encode()) for k, v in headers(os.environ.get("DRAFTSCOPE_FRAMES", "").strip()).items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                there = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *((k, v) for k, v in self.added if k not in there)]
            await send(message)

        await self.app(scope, receive, sent if scope["type"] == "http" else send)


ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # Streamlit adds the folder of this file, and the packages lie beside `app.py`

from deploy.readiness import Readiness  # noqa: E402

app = st.App(ROOT / "app.py", middleware=[Middleware(SecurityHeaders)], routes=[Route("/ready", Readiness().answer)])
