"""The app with the headers that browsers want of a public server: `streamlit run deploy/serve.py`. What it shows is `app.py`.

The key that says who a visitor is comes as a cookie that no script can read, with the first page. Nothing from another site is
loaded, so a picture that got into a page by a hole would not be fetched. `DRAFTSCOPE_FRAMES` names the sites that may show the app
inside of their own pages, parted by blanks; none without it.
"""

import os
import re
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import cache, partial
from pathlib import Path
from time import thread_time

import streamlit as st
from google.protobuf.message import DecodeError
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from streamlit import config
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # Streamlit adds the folder of this file, and the packages lie beside `app.py`

from decoding.limits import limits  # noqa: E402  the path comes first
from decoding.runs import visitors  # noqa: E402
from decoding.runs.log import log  # noqa: E402
from decoding.runs.visitors import CHECK, COOKIE, FRAMED, ROUTE, WHETHER, is_key, new_key  # noqa: E402
from deploy import arriving, lines, making, overlong, unread, wires, working  # noqa: E402
from deploy.asking import address_of, key_in, whose  # noqa: E402
from deploy.downloads import Downloads  # noqa: E402
from deploy.fragments import has_fragment  # noqa: E402
from deploy.lingering import linger  # noqa: E402
from deploy.meant import Meant  # noqa: E402
from deploy.pace import Pace, Tab  # noqa: E402
from deploy.readiness import Readiness  # noqa: E402
from deploy.requests import Requests  # noqa: E402
from deploy.unread import HEARS, Unread  # noqa: E402
from deploy.uploads import FILES, Uploads  # noqa: E402
from pages.parts.shared import resting  # noqa: E402
from pages.parts.shared.loading import importing  # noqa: E402

HOST = "__Host-"  # what the cookie's name begins with over https: browsers take it from no other host of the same domain
PLAIN = re.compile(rb"[\w.-]+=[^\"\\]{0,1000}", re.ASCII)  # a cookie: what reads them later takes other blanks than these for none
XSRF = b"_streamlit_xsrf="
LATELY = "draftscope_lately"  # a cookie that is there for a day after the key was given
HOSTS_OWN = [name.encode() for name in (COOKIE, LATELY)]  # what no other host of the domain may say
LONGEST = 200  # bytes of a key that is handed over
OWN = re.compile(r"/_stcore/+([^/]*)")  # Streamlit's own addresses
SERVED = {"stream", "health", "host-config", "upload_file", "bidi-components"}  # of them, what pages and health checks ask for
ID = re.compile(r"[A-Za-z0-9_.-]{0,128}")  # of a fragment, a script, a message
USER = "x-draftscope-visitor"  # the header in which the server tells Streamlit whose a connection is
MAIN = ROOT / "app.py"
SAID = {"new_session", "delta", "ref_hash", "script_finished", "page_info_changed", "page_config_changed", "auto_rerun",
        "stop_auto_rerun", "navigation", "logo", "page_not_found"}  # by scripts, of what pages are told  # fmt: skip
ASKED = {"rerun_script", "stop_script", "app_heartbeat", "file_urls_request", "backend_operation_request"}  # by pages
READ = 2**27  # bytes in a second of a processor: what is read slower, as boxes with nothing in them are, counts for as many more
PARTS = 2_000  # boxes and buttons of a page, and what it has seen before; the largest have some 200
SIGNS = 20_000  # that begin a list, an object or a value of one, in all that a page says
EVENT = 16 * 2**10  # characters of what a component says; ours say some hundred
OPERATIONS = {"deferred_file", "dataframe_chunk"}  # the backend's; the others write files of Streamlit's own into the folder


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


class Origins:
    """Takes websockets of this site's pages alone, and has nobody look at where others come from: for an origin that it does not
    know, Streamlit asks on the internet what the address of this machine is, and all visitors wait for the answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or not limits().public or is_own(scope):
            await self.app(scope, receive, send)
        elif scope["type"] == "http":  # read it may, but its browser is not told that its page may look
            known = [(name, value) for name, value in scope["headers"] if name != b"origin"]
            await self.app({**scope, "headers": known}, receive, send)
        else:
            await receive()
            await send({"type": "websocket.close", "code": 1008})


def is_own(scope: Scope) -> bool:
    """Whether a request comes from a page of this site, or of one that is allowed to ask, or from no page at all. A page over http
    is not of a site over https: whoever is on the way may have written it."""
    headers, schemes = Headers(scope=scope), ("https",) if is_secure(scope) else ("http", "https")
    own = {f"{scheme}://{host}" for scheme in schemes if (host := headers.get("host", ""))}
    allowed = {origin.rstrip("/").lower() for origin in config.get_option("server.corsAllowedOrigins")}
    return all(one in own or one.lower() in allowed for one in headers.getlist("origin"))


class VisitorCookie:
    """Gives every visitor of a public server a key, as a cookie that no script can read, and takes another one for it on POST."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if limits().public and scope["type"] in ("http", "websocket"):
            scope = with_own_cookies(scope)
            warn_of_proxy(scope)
        if scope["type"] != "http" or not limits().public:
            await self.app(scope, receive, send)
        elif scope["method"] == "POST" and scope["path"].endswith(ROUTE):
            await (await taken(Request(scope, receive)))(scope, receive, send)
        else:
            await self.app(scope, receive, with_cookie(scope, send) if scope["method"] == "GET" else send)


def with_cookie(scope: Scope, send: Send) -> Send:
    """Sends what `send` does; a page goes with the visitor's key, old or new, and into no cache on the way."""

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == 200:
            headers = MutableHeaders(raw=message["headers"] if isinstance(message["headers"], list) else list(message["headers"]))
            if headers.get("content-type", "").startswith("text/html"):
                headers["cache-control"] = "no-store"
                if is_page(scope) and not is_new(scope):
                    for one in cookies(key_in(scope) or new_key(), scope, is_framed(scope)):
                        headers.append("set-cookie", one)
                message["headers"] = headers.raw
        await send(message)

    return sent


def is_page(scope: Scope) -> bool:
    """Whether a page was asked for, and no file."""
    return Headers(scope=scope).get("sec-fetch-dest", "document") in ("document", "iframe")


def is_new(scope: Scope) -> bool:
    """Whether the browser was given its key within a day: no page brings it again then. An answer that is long on its way could
    bring back one for which the browser has been given another since."""
    return key_in(scope) is not None and LATELY in HTTPConnection(scope).cookies


def is_framed(scope: Scope) -> bool:
    """Whether the page is to stand inside of another site's."""
    headers = Headers(scope=scope)
    return headers.get("sec-fetch-dest") == "iframe" and headers.get("sec-fetch-site") == "cross-site"


async def taken(request: Request) -> Response:
    """The answer to a page that hands over a key: of the visitor's other browser, or one that an earlier version kept elsewhere.
    Another site cannot send the header without being asked about it, and no site but this one is answered. A page may also ask
    whether the browser still has the key that the page began with: 409 if it has another one, or none."""
    if CHECK not in request.headers or request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
        return Response(status_code=403)
    body = b""
    try:
        async for part in request.stream():
            body += part
            if len(body) > LONGEST:
                return Response(status_code=413)
    except ClientDisconnect:
        return Response(status_code=400)
    if not is_key(found := body.decode("ascii", "replace")):
        return Response(status_code=400)
    if request.headers[CHECK] == WHETHER:
        return Response(status_code=204 if key_in(request.scope) == found else 409, headers={"cache-control": "no-store"})
    answer = Response(status_code=204, headers={"cache-control": "no-store"})
    # Inside of another page of the same domain both are the browser's, and it sends the older one first.
    ways = (False, True) if request.headers[CHECK] == FRAMED else (False,)
    for one in dict.fromkeys(one for framed in ways for one in cookies(found, request.scope, framed)):
        answer.headers.append("set-cookie", one)
    return answer


def cookies(key: str, scope: Scope, framed: bool) -> tuple[str, str]:
    """The headers that have a browser keep the key, and send it along when a link of another site leads here (Lax): a first page
    that comes without it brings a new one, and what was kept under the old one would be lost. Nothing else of another site brings
    it. Inside of another site's page it is another cookie (Partitioned), which goes nowhere else. The second one says for a day
    that the first is new."""
    secure = is_secure(scope)
    framed = framed and secure and bool(os.environ.get("DRAFTSCOPE_FRAMES", "").strip())
    rest = f"SameSite={'None; Partitioned' if framed else 'Lax'}; HttpOnly; Priority=High" + "; Secure" * secure
    wanted = (COOKIE, key, visitors.remembered()), (LATELY, 1, visitors.DAY)
    one, other = (f"{HOST * secure}{name}={value}; Path=/; Max-Age={seconds}; {rest}" for name, value, seconds in wanted)
    return one, other


def is_secure(scope: Scope) -> bool:
    """Whether the browser came over https."""
    said = Headers(scope=scope).get("x-forwarded-proto", "").split(",")[0].strip().lower()  # of several proxies the first
    return scope.get("scheme") in ("https", "wss") or said in ("https", "wss")


@cache
def warn_of_proxy_once() -> None:
    said = "A browser came over https, and the proxy says http: have it say X-Forwarded-Proto: https, or the next one pass it on."
    log("misled", why=f"{said} Until then any host of the same domain can give a visitor its key.")


def warn_of_proxy(scope: Scope) -> None:
    """Say it in the log if a proxy on the way hides that browsers come over https."""
    if scope["type"] == "websocket" and not is_secure(scope) and Headers(scope=scope).get("origin", "").startswith("https://"):
        warn_of_proxy_once()


def with_own_cookies(scope: Scope) -> Scope:
    """The request with the cookies that this server reads, and none of others, in their plain form.

    Python takes time that grows with the square for a value in quotes, in which everybody waits; ours have none. Over https
    only those that this host itself gave: another site of the same domain can have a browser send any other, and whoever is
    given a key keeps runs for whoever gave it, and whose key counts as new is not given it again until it is gone. Of several
    tokens against forged requests it is the one that the page itself says: another site can set one, and say none.
    """
    parts = [part.strip(b" \t") for name, value in scope["headers"] if name == b"cookie" for part in value.split(b";")]
    parts = [part for part in parts if PLAIN.fullmatch(part)]
    tokens = [part for part in parts if part.startswith(XSRF)]
    known = {value for name, value in scope["headers"] if name == b"x-xsrftoken"}
    said = [part for part in tokens if part.removeprefix(XSRF) in known]
    kept = said[:1] or tokens
    for name in HOSTS_OWN:
        own = [part for part in parts if part.startswith((HOST.encode() if is_secure(scope) else b"") + name + b"=")]
        kept += [part.removeprefix(HOST.encode()) for part in (own[:1] if is_secure(scope) else own)]
    others = [(name, value) for name, value in scope["headers"] if name != b"cookie"]
    return {**scope, "headers": [*others, *([(b"cookie", b"; ".join(kept))] if kept else [])]}


class Messages:
    """Passes on what pages ask for over their websocket, and nothing else that Streamlit would do for a stranger: clear everybody's
    caches, tell the names of the files in its folder, make places for a million uploads at once. No faster than `deploy/pace.py`
    says, and the answers do not say where the program lies."""

    def __init__(self, app: ASGIApp, pace: Pace | None = None) -> None:
        self.app = app
        self.pace, self.unread = pace or Pace(), Unread()

    def hears(self, tab: Tab, message: ForwardMsg) -> None:
        """Streamlit says something to a page."""
        told(tab, message)
        self.unread.said(tab, message.ByteSize())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if limits().public and scope["type"] != "http":
            wire = getattr(receive, "__self__", None)  # uvicorn's
            wires.bound(wire)
            arriving.known(wire, address_of(scope))
        if scope["type"] != "websocket" or not limits().public:
            await self.app(scope, receive, send)
            return
        key, address = key_in(scope), address_of(scope)
        if (tab := self.pace.enter(key, address)) is None:
            log("refused", why="too many connections", visitor=bool(key))
            await receive()
            await send({"type": "websocket.close", "code": 1013})
            return
        linger()
        self.unread.enter(tab, partial(wires.cut, receive))
        try:
            tab.session = "".join(scope.get("subprotocols", ())[2:3])  # of a tab that comes back
            known = owned(scope, key) | {HEARS: partial(self.hears, tab)}
            await self.app(known, partial(asked, receive, tab), partial(sent, send, self.unread, tab))
        finally:
            self.unread.leave(tab)
            self.pace.leave(tab)


def owned(scope: Scope, key: str | None) -> Scope:
    """The connection with the visitor as its user: Streamlit lets nobody else have a session by its id, which stands in the
    addresses of uploads, and so in the logs of proxies."""
    kept = [(name, value) for name, value in scope["headers"] if name != USER.encode()]
    return {**scope, "headers": [*kept, (USER.encode(), whose(key).encode())]}


async def asked(receive: Receive, tab: Tab) -> Message:
    """The next message that Streamlit gets, when it is time."""
    while True:
        message = await receive()
        if message["type"] != "websocket.receive":
            return message
        await tab.sent(len(data := message.get("bytes") or b""))
        began = thread_time()
        found = read(data)
        await tab.sent(int(READ * (thread_time() - began)))
        if found is not None and is_asleep(found, tab):
            found.rerun_script.fragment_id, found.rerun_script.is_auto_rerun, tab.drawn = "", False, True
            message = message | {"bytes": found.SerializeToString()}
        if await is_turn(found, tab, partial(wires.is_closed, receive)):
            return message


def is_asleep(found: BackMsg, tab: Tab) -> bool:
    """Whether a page asks for a fragment that went with its session, when the server began anew or the browser was away for long.
    Streamlit's page has itself drawn again only where the connection broke while it was drawn; else what was pressed on it was
    not heard, without a word. So the whole page runs in its place."""
    return bool(found.WhichOneof("type") == "rerun_script" and not tab.drawn and not is_there(found, tab))


async def is_turn(found: BackMsg | None, tab: Tab, is_closed: Callable[[], bool]) -> bool:
    """Return when it is time for what a page says, and whether it is passed on."""
    runs = found is not None and found.WhichOneof("type") == "rerun_script"
    if not runs or not is_asked(found) or not is_there(found, tab):
        await tab.turn(page=False, runs=False)
        return found is None or not runs and is_asked(found) and is_its_own(found, tab)
    if (fragment := found.rerun_script.fragment_id) and found.rerun_script.is_auto_rerun:
        worth = await tab.tick(fragment)
    else:
        await tab.turn(page=not fragment)
        worth = True
    if worth and (is_closed() or not is_there(found, tab)):  # that may have changed while it waited
        tab.dropped()
        return False
    return worth


def is_there(found: BackMsg, tab: Tab) -> bool:
    """Whether the page has the fragment that it asks for, if it asks for one."""
    return not (fragment := found.rerun_script.fragment_id) or has_fragment(tab.session, fragment)


def told(tab: Tab, message: ForwardMsg) -> None:
    """Notes what Streamlit says to a page: that it begins a page, goes on, and that a script has ended."""
    kind = message.WhichOneof("type")
    if kind in SAID:
        tab.spoke()
    if kind == "new_session":
        tab.belongs(message.new_session.initialize.session_id)
        tab.began()
        if not message.metadata.run.fragment_ids:
            tab.page_began()
        message.new_session.main_script_path = MAIN.name  # its place on the server, which browsers need for nothing
    elif kind == "script_finished":
        tab.ended(again=message.script_finished == ForwardMsg.FINISHED_EARLY_FOR_RERUN)
    tab.ticks.told(message)


async def sent(send: Send, lying: Unread, tab: Tab, message: Message) -> None:
    """Sends what Streamlit has said, as fast as it is read."""
    await send(message)
    if message["type"] == "websocket.send":
        lying.was_read(tab)


def read(data: bytes) -> BackMsg | None:
    """What a page says; None if that is no message, or too long, which Streamlit ends the connection for."""
    try:
        return BackMsg.FromString(data)
    except DecodeError:
        return None


def is_asked(message: BackMsg) -> bool:
    """Whether a page of this app sends such a message."""
    kind, operation = message.WhichOneof("type"), message.backend_operation_request
    return (
        kind in ASKED
        and (kind != "backend_operation_request" or operation.WhichOneof("payload") in OPERATIONS)
        and len(message.file_urls_request.file_names) <= FILES
        and len(message.rerun_script.cached_message_hashes) <= PARTS  # before each is looked at
        and len(message.rerun_script.widget_states.widgets) <= PARTS
        and is_small(message)
        and all(map(ID.fullmatch, ids(message)))
        and message.rerun_script.page_name.isprintable()
    )


def is_its_own(message: BackMsg, tab: Tab) -> bool:
    """Whether a page asks for files and tables of its own session alone: of others Streamlit gives none, and writes a line each."""
    asked = {message.file_urls_request.session_id, message.backend_operation_request.session_id}
    return asked <= {"", tab.session}


def is_small(message: BackMsg) -> bool:
    """Whether little is made of what the boxes say. Some of them say JSON, and Streamlit makes all that is in it before anybody
    asks for it, and keeps it with the tab."""
    said = [(kind, getattr(box, kind)) for box in message.rerun_script.widget_states.widgets if (kind := box.WhichOneof("value"))]
    texts = [text for kind, text in said if isinstance(text, str)]
    events = sum(len(text) for kind, text in said if kind in ("json_value", "json_trigger_value"))
    chosen = sum(len(value.data) for kind, value in said if kind.endswith("_array_value"))
    return chosen <= PARTS and events <= EVENT and sum(text.count(sign) for text in texts for sign in "[{:") <= SIGNS


def ids(message: BackMsg) -> Iterator[str]:
    """All that it calls by an id: they go into Streamlit's log."""
    run, files, operation = message.rerun_script, message.file_urls_request, message.backend_operation_request
    yield from (run.fragment_id, run.page_script_hash, *run.cached_message_hashes)
    yield from (files.request_id, files.session_id, operation.request_id, operation.session_id)
    yield from (operation.deferred_file.file_id, operation.dataframe_chunk.source_id)


class Hidden:
    """What Streamlit serves beside pages is nobody's business: how much it holds for whom, and a way to drive the app without a
    page, which no pace is kept on."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        own = OWN.search(scope["path"]) if scope["type"] in ("http", "websocket") and limits().public else None
        if own is None or own[1] in SERVED:
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await Response(status_code=404)(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})


@asynccontextmanager
async def warmed(app: st.App) -> AsyncIterator[None]:
    """As long as the server runs. A public one begins at once to load what its first visitors would wait for, and answers."""
    if limits().public:
        importing.start()
    yield


try:
    limits()
except ValueError as error:  # a mode that is none: no page could be shown
    sys.exit(str(error))
visitors.by_server = True
config.set_option("server.trustedUserHeaders", {USER: "visitor"})
config.set_option("logger.enableRich", False)  # it draws errors over a hundred lines, past the log
lines.tame()
for kind in arriving.kinds():
    arriving.bound(kind)
unread.bound()
pace = Pace()
working.bound()
making.bound(making.Making(pace.tab_of))
resting.listener = pace.rests
LAYERS = (Meant, SecurityHeaders, Requests, Origins, VisitorCookie, Hidden, Downloads, Uploads, partial(Messages, pace=pace))
ready = Readiness(lambda: pace.stand)
app = st.App(
    MAIN,
    middleware=[Middleware(layer) for layer in LAYERS],
    routes=[Route("/ready", ready.answer)],
    lifespan=warmed,
    on_script_error=overlong.handled,
)
