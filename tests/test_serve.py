"""`deploy/serve.py`: what it adds to the answers of a public server, and the key of a visitor that no script can read."""

import asyncio
import importlib.util
import logging
import re
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import streamlit
from streamlit import config
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.web.server.starlette.starlette_websocket import gather_user_info

from decoding.limits import PUBLIC, limits
from decoding.runs import visitors
from decoding.runs.visitors import CHECK, COOKIE, FRAMED, ROUTE, WHETHER, is_key
from deploy.ticks import Ticks
from tests.deploy.no_waiting import Loop
from tests.test_imports import ROOT

KEY = "k" * 43
FOREIGN = "o" * 43
HTML = [(b"content-type", b"text/html; charset=utf-8"), (b"cache-control", b"no-cache")]


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setenv("DRAFTSCOPE_MODE", "public")
    monkeypatch.setattr(visitors, "by_server", False)  # put back afterwards
    monkeypatch.setattr(logging, "_logRecordFactory", logging.getLogRecordFactory())
    spec = importlib.util.spec_from_file_location("serve", ROOT / "deploy" / "serve.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert visitors.by_server
    return module


@pytest.mark.parametrize("mode", ["public", "local"])
def test_a_public_server_loads_before_anybody_comes(serve, monkeypatch, mode):
    """The first visitor of a new server waited until their browser had painted, and then for the models."""
    monkeypatch.setenv("DRAFTSCOPE_MODE", mode)
    began = []
    monkeypatch.setattr(serve.importing, "start", lambda: began.append(mode))

    async def run() -> None:
        async with serve.warmed(serve.app):
            assert began == ["public"] * (mode == "public")

    asyncio.run(run())


def test_a_server_of_no_known_mode_does_not_start(serve, monkeypatch):
    """It did, said that the app can be seen, and answered nobody."""
    monkeypatch.setenv("DRAFTSCOPE_MODE", "open")
    with pytest.raises(SystemExit, match="must be local or public; it is 'open'"):
        serve.__spec__.loader.exec_module(serve)


def asked(
    serve, path="/", method="GET", body=b"", scheme="http", answer=HTML, status=200, **headers: str
):  # fmt: skip
    """(status, headers) of an answer, with both of the server's layers around an app that answers with `answer`."""
    sent = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": status, "headers": list(answer)})
        await send({"type": "http.response.body", "body": b"x"})

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "headers": named, "scheme": scheme, "query_string": b""}
    asyncio.run(serve.SecurityHeaders(serve.VisitorCookie(app))(scope, receive, send))
    found: dict[str, list[str]] = {}
    for name, value in sent[0]["headers"]:
        found.setdefault(name.decode().lower(), []).append(value.decode())
    return sent[0]["status"], found


def page_scope(cookie: bytes, scheme: str) -> dict:
    """What asks for a page with a cookie."""
    return {"type": "http", "method": "GET", "path": "/", "headers": [(b"cookie", cookie)], "scheme": scheme, "query_string": b""}


def key_of(headers: dict[str, list[str]]) -> str | None:
    found = [re.match(f"{COOKIE}=([^;]*)", one) for one in headers.get("set-cookie", ())]
    return found[0][1] if found and found[0] else None


def test_a_page_brings_a_key_that_no_script_reads(serve):
    """Another one for every visitor, and never through a cache."""
    keys = set()
    for _ in range(3):
        status, headers = asked(serve, "/Step")
        cookie, _ = headers["set-cookie"]
        assert status == 200 and headers["cache-control"] == ["no-store"] and is_key(key_of(headers))
        assert "; HttpOnly;" in cookie and "SameSite=Lax" in cookie and "Path=/" in cookie
        assert f"Max-Age={2 * limits().kept_days * 86_400};" in cookie
        keys.add(key_of(headers))
    assert len(keys) == 3


def test_a_key_that_is_there_stays(serve):
    """Also one that a page had written, which scripts can read no longer; what is none gives way."""
    assert key_of(asked(serve, cookie=f"a=b; {COOKIE}={KEY}; c=d")[1]) == KEY
    for wrong in ("x", "../../etc", "a" * 100, ""):
        assert key_of(asked(serve, cookie=f"{COOKIE}={wrong}")[1]) != wrong


def test_inside_of_another_sites_page_it_is_that_pages_alone(serve, monkeypatch):
    framed = {"sec_fetch_dest": "iframe", "sec_fetch_site": "cross-site"}
    assert "SameSite=Lax" in asked(serve, scheme="https", **framed)[1]["set-cookie"][0]  # no site may show it inside
    monkeypatch.setenv("DRAFTSCOPE_FRAMES", "https://frames.test")
    cookie, _ = asked(serve, scheme="https", **framed)[1]["set-cookie"]
    assert "SameSite=None; Partitioned; HttpOnly; Priority=High; Secure" in cookie
    assert "SameSite=Lax" in asked(serve, **framed)[1]["set-cookie"][0]  # browsers take no other over http
    own = framed | {"sec_fetch_site": "same-origin"}
    assert "SameSite=Lax" in asked(serve, scheme="https", **own)[1]["set-cookie"][0]


def test_a_page_may_ask_whether_its_key_is_still_the_browsers(serve):
    """It told its visitor that a run was kept, and the browser had been given another key."""
    asking = {"path": ROUTE, "method": "POST", "body": KEY.encode(), CHECK.replace("-", "_"): WHETHER}
    assert asked(serve, **asking, cookie=f"{COOKIE}={KEY}")[0] == 204
    for other in ("", f"{COOKIE}={'o' * 43}"):
        status, headers = asked(serve, **asking, cookie=other)
        assert status == 409 and "set-cookie" not in headers


@pytest.mark.parametrize("before", [b"\xa0", b"\x85", b"\x1c", b" \xa0", b"\xc2\xa0"])
@pytest.mark.parametrize("name", ["__Host-", ""])
def test_a_cookie_whose_name_begins_with_a_strange_blank_is_nobodys(serve, before, name):
    """Browsers let any host of the domain set it, and whoever reads it takes the blank away."""
    seen = []

    async def app(scope, receive, send):
        seen.append(serve.key_in(scope))

    foreign = before + f"{name}{COOKIE}={FOREIGN}".encode()
    for sent, known in (
        (foreign, None),
        (foreign + f"; __Host-{COOKIE}={KEY}".encode(), KEY),
        (f"__Host-{COOKIE}={KEY}; ".encode() + foreign, KEY),
    ):
        asyncio.run(serve.VisitorCookie(app)(page_scope(sent, "https"), None, None))
        assert seen.pop() == known


def test_a_key_that_is_taken_inside_of_another_sites_page_stays_there(serve, monkeypatch):
    """It was set as a cookie that no browser takes there, and answered as if it were."""
    monkeypatch.setenv("DRAFTSCOPE_FRAMES", "https://frames.test")
    taking = {"path": ROUTE, "method": "POST", "body": KEY.encode(), "scheme": "https"}
    framed = asked(serve, **taking, **{CHECK.replace("-", "_"): FRAMED})[1]["set-cookie"]
    own = asked(serve, **taking, **{CHECK.replace("-", "_"): "1"})[1]["set-cookie"]
    assert ["SameSite=None; Partitioned" in one for one in framed] == [False, False, True, True]
    assert all("SameSite=Lax" in one for one in (*own, *framed[:2])) and len(own) == 2


@pytest.mark.parametrize("said", ["https", "HTTPS", "https,http", "https, https"])
def test_several_proxies_may_say_that_it_is_https(serve, said):
    assert asked(serve, x_forwarded_proto=said)[1]["set-cookie"][0].startswith("__Host-")


def test_only_a_page_brings_it_and_once_a_day(serve):
    """A file, or an answer that is long on its way, would bring back a key that the browser had before it was given another."""
    for other in ("empty", "image", "script"):
        assert "set-cookie" not in asked(serve, cookie=f"{COOKIE}={KEY}", sec_fetch_dest=other)[1]
    assert key_of(asked(serve, cookie=f"{COOKIE}={KEY}", sec_fetch_dest="document")[1]) == KEY
    _, lately = asked(serve, cookie=f"{COOKIE}={KEY}")[1]["set-cookie"]
    assert "Max-Age=86400;" in lately
    both = f"{COOKIE}={KEY}; {lately.partition(';')[0]}"
    assert "set-cookie" not in asked(serve, cookie=both)[1]
    assert is_key(key_of(asked(serve, cookie=lately.partition(";")[0])[1]))  # the key itself is gone


def test_over_https_no_other_site_of_the_domain_says_that_a_key_is_new(serve):
    """It was not renewed any more then, and was gone after its days."""
    _, lately = asked(serve, x_forwarded_proto="https")[1]["set-cookie"]
    own, others = f"__Host-{COOKIE}={KEY}", lately.partition(";")[0].removeprefix("__Host-")
    for foreign in (others, f"\xa0__Host-{others}", f"{others}; {others}"):
        assert key_of_host(asked(serve, x_forwarded_proto="https", cookie=f"{own}; {foreign}")[1]) == KEY
    assert "set-cookie" not in asked(serve, x_forwarded_proto="https", cookie=f"{own}; {lately.partition(';')[0]}")[1]


def key_of_host(headers: dict[str, list[str]]) -> str | None:
    return key_of({"set-cookie": [one.removeprefix("__Host-") for one in headers.get("set-cookie", ())]})


def test_a_proxy_that_hides_https_is_told_of_in_the_log(serve, capfd):
    """Two in a row, each as in the example: the inner one said http, and any host of the domain could give a visitor its key."""
    serve.warn_of_proxy_once.cache_clear()
    headers = [(b"origin", b"https://demo.test"), (b"host", b"demo.test")]
    door = serve.VisitorCookie(lambda scope, receive, send: asyncio.sleep(0))
    for said in (b"https", b"http", b"http"):
        scope = {"type": "websocket", "path": "/", "headers": [*headers, (b"x-forwarded-proto", said)], "scheme": "ws"}
        asyncio.run(door(scope, None, None))
    assert capfd.readouterr().err.count("X-Forwarded-Proto") == 1


def test_cookies_in_quotes_are_nobodys(serve):
    """One of 16 kB held everybody up for three seconds: to take it out of its quotes takes the square of that."""
    seen = []

    async def app(scope, receive, send):
        seen.append([value for name, value in scope["headers"] if name == b"cookie"])

    bomb = b'a="' + b'\\"' * 7_000 + b'"'
    for sent, kept in (
        (bomb, []),
        (bomb + f"; {COOKIE}={KEY}".encode(), [f"{COOKIE}={KEY}".encode()]),
        (f'{COOKIE}="{KEY}"'.encode(), []),
        (f"other={KEY}; _streamlit_xsrf=2|a|b".encode(), [b"_streamlit_xsrf=2|a|b"]),
    ):
        asyncio.run(serve.VisitorCookie(app)(page_scope(sent, "http"), None, None))
        assert seen.pop() == kept


def test_of_two_tokens_against_forged_requests_the_pages_own_counts(serve):
    """Another host of the domain had set one, and no file could be imported until the cookies were cleared."""
    for token, kept in ((b"mine", b"_streamlit_xsrf=mine"), (b"none", b"_streamlit_xsrf=evil; _streamlit_xsrf=mine")):
        headers = [(b"cookie", b"_streamlit_xsrf=evil; _streamlit_xsrf=mine"), (b"x-xsrftoken", token)]
        found = serve.with_own_cookies({"type": "http", "headers": headers, "scheme": "https"})["headers"]
        assert dict(found)[b"cookie"] == kept


def test_each_header_is_looked_at_a_few_times_however_many_cookies_there_are(serve):
    """1,500 of them for each of 420 tokens, from forty connections: everybody stood still for half a minute."""

    class Counted(list):
        times = 0

        def __iter__(self):
            Counted.times += 1
            return super().__iter__()

    headers = Counted([(b"cookie", b"; ".join([serve.XSRF + b"a"] * 400)), *[(b"a", b"")] * 1_000])
    serve.with_own_cookies({"type": "http", "headers": headers, "scheme": "http"})
    assert 0 < Counted.times < 10


def test_over_https_it_goes_nowhere_else(serve):
    assert asked(serve, scheme="https")[1]["set-cookie"][0].endswith("; Secure")
    assert asked(serve, x_forwarded_proto="https")[1]["set-cookie"][0].endswith("; Secure")
    assert "Secure" not in asked(serve)[1]["set-cookie"][0]


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    ("sent", "known"),
    [
        (f"__Host-{COOKIE}={KEY}", KEY),
        (f"{COOKIE}={FOREIGN}; __Host-{COOKIE}={KEY}; {COOKIE}={FOREIGN}", KEY),
        (f"a=b; {COOKIE} = {FOREIGN}", None),
        (f"{COOKIE}={FOREIGN}", None),
        ("", None),
    ],
)
def test_over_https_no_other_site_of_the_domain_says_who_a_visitor_is(serve, kind, sent, known):
    """It can have a browser send any cookie but one of `__Host-`: whoever is given its key keeps runs where it reads them."""
    seen = []

    async def app(scope, receive, send):
        seen.append(serve.key_in(scope))

    headers = [(b"x-forwarded-proto", b"https"), *([(b"cookie", sent.encode())] if sent else [])]
    scope = {"type": kind, "method": "GET", "path": "/", "headers": headers, "scheme": "http", "query_string": b""}
    asyncio.run(serve.VisitorCookie(app)(scope, None, None))
    assert seen == [known]
    cookie, _ = asked(serve, x_forwarded_proto="https", cookie=sent)[1]["set-cookie"]
    assert cookie.startswith(f"__Host-{COOKIE}={known or ''}") and FOREIGN not in cookie
    assert "; Path=/;" in cookie and "Domain" not in cookie and cookie.endswith("; Secure")


@pytest.mark.parametrize(
    "what",
    [{"answer": [(b"content-type", b"text/javascript")]}, {"status": 404}, {"status": 304}, {"method": "HEAD"}, {"method": "POST"}],
)
def test_what_is_no_page_brings_none(serve, what):
    assert "set-cookie" not in asked(serve, **what)[1]


def test_a_page_hands_another_key_over(serve):
    """Only one of this site, and only a key."""
    good = {"path": ROUTE, "method": "POST", "body": KEY.encode(), CHECK.replace("-", "_"): "1"}
    status, headers = asked(serve, **good)
    assert status == 204 and key_of(headers) == KEY and headers["set-cookie"][0].endswith("Priority=High")
    assert asked(serve, **good, sec_fetch_site="same-origin")[0] == 204
    assert asked(serve, **good, sec_fetch_site="cross-site")[0] == 403
    assert asked(serve, path=ROUTE, method="POST", body=KEY.encode())[0] == 403
    for body, status in ((b"", 400), (b"../../etc", 400), (b"\xff" * 40, 400), (b"k" * 100_000, 413)):
        answer = asked(serve, **(good | {"body": body}))
        assert answer[0] == status and "set-cookie" not in answer[1]


def test_on_a_server_of_ones_own_there_is_no_key(serve, monkeypatch):
    monkeypatch.setenv("DRAFTSCOPE_MODE", "local")
    assert "set-cookie" not in asked(serve)[1]


def test_every_answer_has_the_headers(serve):
    for what in ({}, {"status": 404}, {"path": ROUTE, "method": "POST"}):
        headers = asked(serve, **what)[1]
        policy = headers["content-security-policy"][0]
        assert "default-src 'self'" in policy and "frame-ancestors 'none'" in policy and headers["x-frame-options"] == ["DENY"]


def test_no_more_of_a_message_is_held_than_is_taken():
    """A websocket that sends half of one has what came held for as long as it likes."""
    server = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text())["server"]
    assert server["maxMessageSize"] <= config.get_option("server.maxWidgetStateSize")


# -- messages ---------------------------------------------------------------------------------------------------------


def message(kind: str, names: int = 0) -> bytes:
    """Of a page to the server, with the names of so many files."""
    made = BackMsg()
    if kind == "file_urls_request":
        made.file_urls_request.file_names.extend(["x"] * names)
        made.file_urls_request.request_id = "1"
    elif kind == "backend_operation_request":
        made.backend_operation_request.deferred_file.file_id = "0a1b"
    elif isinstance(getattr(made, kind), bool):
        setattr(made, kind, True)
    else:
        getattr(made, kind).SetInParent()
    return made.SerializeToString()


def passed(serve, *messages: bytes, session: str = "") -> list[bytes]:
    """Those that Streamlit gets of the page of a session."""
    coming = [{"type": "websocket.receive", "bytes": data} for data in messages] + [{"type": "websocket.disconnect"}]
    got = []

    async def app(scope, receive, send):
        while (found := await receive())["type"] != "websocket.disconnect":
            got.append(found["bytes"])

    async def receive():
        return coming.pop(0)

    known = {"type": "websocket", "headers": [], "client": ("here", 1), "subprotocols": ["streamlit", "", session]}
    asyncio.run(serve.Messages(app)(known, receive, None))
    return got


KINDS = {field.name for field in BackMsg.DESCRIPTOR.oneofs_by_name["type"].fields}


def test_what_no_page_asks_for_does_not_reach_streamlit(serve):
    assert serve.ASKED < KINDS and {"clear_cache", "load_git_info"} <= KINDS - serve.ASKED
    for kind in KINDS:
        assert passed(serve, message(kind)) == [message(kind)] * (kind in serve.ASKED)


@pytest.mark.parametrize("kind", ["file_urls_request", "backend_operation_request"])
def test_a_page_asks_for_what_is_its_own(serve, kind):
    """Streamlit refuses the rest and writes a line for each: 650 a second, of which nobody takes the log away."""
    mine, others = (BackMsg.FromString(message(kind)) for _ in range(2))
    getattr(mine, kind).session_id, getattr(others, kind).session_id = "mine", "another"
    both = [one.SerializeToString() for one in (others, mine)]
    assert passed(serve, *both, session="mine") == both[1:]


def test_a_message_asks_for_as_many_files_as_are_kept(serve):
    few, many = message("file_urls_request", serve.FILES), message("file_urls_request", serve.FILES + 1)
    assert passed(serve, few, many, few) == [few, few]


def test_of_the_backends_operations_there_is_what_pages_need(serve):
    """The others put files of Streamlit's own into the folder of the app, or of its user."""
    there = {field.name for field in BackMsg().backend_operation_request.DESCRIPTOR.oneofs_by_name["payload"].fields}
    assert there > serve.OPERATIONS and len(there - serve.OPERATIONS) >= 2
    for name in there:
        made = BackMsg()
        getattr(made.backend_operation_request, name).SetInParent()
        assert bool(passed(serve, made.SerializeToString())) == (name in serve.OPERATIONS)
    empty = BackMsg()
    empty.backend_operation_request.request_id = "1"
    assert not passed(serve, empty.SerializeToString())


@pytest.mark.parametrize("text", ["a\nb", "\x1b[31m", "\u2028"])
@pytest.mark.parametrize("name", ["request_id", "session_id", "deferred_file.file_id", "dataframe_chunk.source_id"])
def test_no_operation_forges_a_line_of_the_log(serve, name, text):
    made = BackMsg()
    made.backend_operation_request.deferred_file.SetInParent()
    *path, last = name.split(".")
    setattr(getattr(made.backend_operation_request, path[0]) if path else made.backend_operation_request, last, text)
    assert not passed(serve, made.SerializeToString())
    if not path:
        files = BackMsg()
        setattr(files.file_urls_request, last, text)
        assert not passed(serve, files.SerializeToString())


@pytest.mark.parametrize("many", ["cached_message_hashes", "widgets"])
def test_a_message_of_a_million_parts_is_not_looked_through(serve, monkeypatch, many):
    """It took the event loop, and all who wait for it, for half a second each time, before any pace."""
    made, looked = BackMsg(), []
    run = made.rerun_script
    add = (lambda: run.widget_states.widgets.add()) if many == "widgets" else (lambda: run.cached_message_hashes.append(""))
    for _ in range(serve.PARTS):
        add()
    assert passed(serve, made.SerializeToString())
    add()
    monkeypatch.setattr(serve, "ids", lambda message: looked.append(message) or [])
    assert not passed(serve, made.SerializeToString()) and not looked


@pytest.mark.parametrize("kind", ["string_value", "json_value", "json_trigger_value"])
def test_what_boxes_say_is_small_before_streamlit_makes_lists_of_it(serve, kind):
    """2 MB of brackets in one box were 120 MB in memory, and everybody waited for them for seconds."""
    made, signs = BackMsg(), serve.SIGNS if kind == "string_value" else serve.EVENT
    for _ in range(2):
        box = made.rerun_script.widget_states.widgets.add()
        setattr(box, kind, "[]" * (signs // 4))
    assert passed(serve, made.SerializeToString())
    for sign in "[{:":
        setattr(box, kind, sign * (serve.SIGNS + 1))
        assert not passed(serve, made.SerializeToString())


@pytest.mark.parametrize("kind, one", [("string_array_value", ""), ("int_array_value", 0), ("double_array_value", 0.5)])
def test_so_much_can_be_chosen(serve, kind, one):
    made = BackMsg()
    for _ in range(2):
        chosen = getattr(made.rerun_script.widget_states.widgets.add(), kind).data
        chosen.extend([one] * (serve.PARTS // 2))
    assert passed(serve, made.SerializeToString())
    chosen.append(one)
    assert not passed(serve, made.SerializeToString())


def test_what_a_component_says_is_short(serve):
    for kind in ("json_value", "json_trigger_value"):
        made = BackMsg()
        setattr(made.rerun_script.widget_states.widgets.add(), kind, "1" * serve.EVENT)
        assert passed(serve, made.SerializeToString())
        setattr(made.rerun_script.widget_states.widgets.add(), kind, "1")
        assert not passed(serve, made.SerializeToString())


def test_a_message_waits_for_its_bytes_before_it_is_read_and_for_its_reading_after(serve, monkeypatch):
    """Boxes with nothing in them have two bytes each, and to read half a megabyte of them took everybody 35 ms."""
    waited, read, clock = [], serve.read, [5.0]

    async def sent(tab, size):
        waited.append(size)

    def noted(data):
        assert waited[-1] == len(data)
        clock[0] += 0.25
        return read(data)

    monkeypatch.setattr(serve.Tab, "sent", sent)
    monkeypatch.setattr(serve, "read", noted)
    monkeypatch.setattr(serve, "thread_time", lambda: clock[0])
    asked = message("rerun_script")
    assert passed(serve, asked, asked) and waited == [len(asked), serve.READ // 4] * 2


NAMES = ("fragment_id", "page_script_hash", "page_name", "cached_message_hashes")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("text", ["a\nb", "\x1b[31m", "\r", "a\x00", "\u2028", "<script>", "x" * 2000])
def test_what_a_page_names_forges_no_line_of_the_log(serve, name, text):
    """Streamlit writes down which fragment it does not have, as it was named."""
    good, bad = BackMsg(), BackMsg()
    for message_, said in ((good, "0123456789abcdef0123456789abcdef"), (bad, text)):
        field = getattr(message_.rerun_script, name)
        field.append(said) if name == "cached_message_hashes" else setattr(message_.rerun_script, name, said)
    printed = name == "page_name" and text.isprintable()  # is written nowhere
    assert passed(serve, bad.SerializeToString(), good.SerializeToString())[-1] == good.SerializeToString()
    assert len(passed(serve, bad.SerializeToString())) == printed


def test_a_session_belongs_to_its_visitor(serve):
    """Whatever the header says that a stranger sends."""
    told = {}

    async def app(scope, receive, send):
        told[kind] = gather_user_info(serve.Headers(scope=scope))

    async def receive():
        return {"type": "websocket.disconnect"}

    forged = (serve.USER.encode(), b"x" * 64)
    for kind, sent in {  # noqa: B007  the app writes it down
        "mine": [(b"cookie", f"{COOKIE}={KEY}".encode())],
        "again": [(b"cookie", f"{COOKIE}={KEY}".encode()), forged],
        "other": [(b"cookie", f"{COOKIE}={'j' * 43}".encode()), forged],
        "nobody": [forged],
        "forged": [(serve.USER.upper().encode(), b"x" * 64), forged],
    }.items():
        asyncio.run(serve.Messages(app)({"type": "websocket", "headers": sent, "client": ("here", 1)}, receive, None))
    assert told["mine"] == told["again"], "and whoever has no key is somebody else each time"
    assert all(told[name]["visitor"].startswith("keyless ") for name in ("nobody", "forged"))
    assert len({info["visitor"] for info in told.values()}) == 4 and KEY not in str(told)


def test_what_is_no_message_is_streamlits_to_refuse(serve):
    assert passed(serve, b"\xff") == [b"\xff"]


def test_on_a_server_of_ones_own_all_messages_are_taken(serve, monkeypatch):
    monkeypatch.setenv("DRAFTSCOPE_MODE", "local")
    assert passed(serve, message("clear_cache")) == [message("clear_cache")]


def test_the_place_of_the_program_is_not_told(serve):
    """Nor is anything else changed."""
    began, other = ForwardMsg(), ForwardMsg()
    began.new_session.main_script_path, began.new_session.name = str(serve.MAIN), "app"
    other.delta.new_element.text.body = "x"
    sent = []

    async def app(scope, receive, send):
        for found in (began, other):
            scope[serve.HEARS](found)
            await send({"type": "websocket.send", "bytes": found.SerializeToString()})

    async def send(message):
        sent.append(ForwardMsg.FromString(message["bytes"]))

    asyncio.run(serve.Messages(app)({"type": "websocket", "headers": [], "client": ("here", 1)}, None, send))
    began.new_session.main_script_path = "app.py"
    assert sent == [began, other]


def pages_of(serve, answers: list[ForwardMsg]) -> int:
    """Pages that run in a minute of presses on a fragment, each of which is answered like this."""
    sent, runs = [], 0
    press = BackMsg()
    press.rerun_script.fragment_id = "f"

    async def app(scope, receive, send):
        nonlocal runs
        while True:
            await receive()
            for answer in answers:
                scope[serve.HEARS](answer)
                await send({"type": "websocket.send", "bytes": answer.SerializeToString()})
            runs += 1
            await asyncio.sleep(0.05)

    async def receive():
        return {"type": "websocket.receive", "bytes": press.SerializeToString()}

    async def send(message):
        sent.append(message)

    async def minute():
        scope = {"type": "websocket", "headers": [(b"cookie", f"{COOKIE}={KEY}".encode())], "client": ("here", 1)}
        task = asyncio.create_task(serve.Messages(app)(scope, receive, send))
        await asyncio.sleep(60)
        task.cancel()

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(minute())
    return runs


def test_a_press_that_has_the_page_run_again_asks_for_a_page(serve):
    """Told by what Streamlit answers: it names the fragments of a run, and none when it is the whole page."""
    page, part = ForwardMsg(), ForwardMsg()
    page.new_session.main_script_path = part.new_session.main_script_path = str(serve.MAIN)
    part.metadata.run.fragment_ids.append("f")
    own = PUBLIC.visitor
    assert pages_of(serve, [part, page]) == pytest.approx(own.pages.at_once + 60 * own.pages.per_second, abs=3)
    assert pages_of(serve, [part]) == pytest.approx(own.others.at_once + 60 * own.others.per_second, abs=3)


def test_the_end_of_a_script_is_heard(serve):
    """Or its place would come back a second later; as Streamlit says it, with all that goes with a message."""
    finished, other = ForwardMsg(), ForwardMsg()
    finished.script_finished = ForwardMsg.FINISHED_FRAGMENT_RUN_SUCCESSFULLY
    finished.hash = finished.metadata.active_script_hash = "0" * 32
    finished.metadata.run.fragment_ids.append("0" * 32)
    other.script_finished, other.delta.new_element.text.body = 0, "x"
    heard = []
    broken_off, address = ForwardMsg(script_finished=ForwardMsg.FINISHED_EARLY_FOR_RERUN), ForwardMsg()
    address.file_urls_response.response_id = "an answer that no script has given"
    said, spoken = (other, finished, other, broken_off, address), []
    tab = SimpleNamespace(ended=lambda again: heard.append((at, again)), spoke=lambda: spoken.append(at), ticks=Ticks())
    for at, one in enumerate(said):  # noqa: B007  the tab looks at it
        serve.told(tab, one)
    assert heard == [(1, False), (3, True)] and spoken == [0, 1, 2, 3]


@pytest.mark.parametrize("base", ["", "/base"])
def test_of_streamlits_own_addresses_there_is_what_pages_need(serve, monkeypatch, base):
    """Also of those that a later Streamlit brings: no metrics, and no way to drive the app without a page."""

    def asked_for(path: str, kind: str = "http") -> bool:
        sent = []

        async def app(scope, receive, send):
            sent.append({"status": 200})

        async def send(message):
            sent.append(message)

        asyncio.run(serve.Hidden(app)({"type": kind, "path": base + path, "method": "GET", "headers": []}, None, send))
        return sent[0].get("status") == 200

    hidden = (
        "metrics",
        "agent/interact",
        "agent/openapi.json",
        "agent/mcp",
        "agent",
        "script-health-check",
        "debug",
        "",
        "healthy",
    )
    there = ("/_stcore/health", "/_stcore/host-config", "/_stcore/upload_file/a/b", "/_stcore/bidi-components/x/y.js", "/", "/Step")
    for path in hidden:
        assert not asked_for(f"/_stcore/{path}") and not asked_for(f"/Step/_stcore/{path}/") and not asked_for(f"/_stcore//{path}")
    assert all(map(asked_for, there)) and asked_for("/_stcore/stream", "websocket")
    assert not asked_for("/_stcore/other", "websocket")
    monkeypatch.setenv("DRAFTSCOPE_MODE", "local")
    assert asked_for("/_stcore/metrics")


def test_pages_of_streamlit_ask_for_no_other_address(serve):
    """What is hidden would be missed."""
    scripts = (Path(streamlit.__file__).parent / "static" / "static" / "js").glob("*.js")
    found = {name for script in scripts for name in re.findall(r"_stcore/([a-z_-]+)", script.read_text(errors="replace"))}
    assert {"stream", "upload_file"} <= found <= serve.SERVED


OWN_ORIGINS = [[], ["https://demo.example"], ["http://demo.example"], ["https://friend.example"]]
OTHERS = [["https://evil.example"], ["null"], [""], ["https://demo.example:1"], ["https://demo.example.evil"], ["demo.example"],
          ["http://localhost"], ["http://127.0.0.1"], ["x://demo.example"],
          ["https://demo.example", "https://evil.example"], ["x" * 9000]]  # fmt: skip


@pytest.mark.parametrize("origins", OWN_ORIGINS + OTHERS)
def test_nobody_is_asked_about_a_strangers_origin(serve, monkeypatch, origins):
    """Streamlit would ask the internet, with all visitors waiting; and it would take those of this machine."""
    monkeypatch.setattr(serve.config, "get_option", lambda name: ["https://Friend.example/"] if "cors" in name else True)
    got, sent, refused = [], [], origins in OTHERS

    async def app(scope, receive, send):
        got.append(scope["type"])
        assert serve.Headers(scope=scope).getlist("origin") == ([] if refused else origins)

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        sent.append(message)

    headers = [(b"host", b"demo.example"), *((b"origin", one.encode()) for one in origins)]
    for kind in ("http", "websocket"):
        asyncio.run(serve.Origins(app)({"type": kind, "headers": headers}, receive, send))
    assert got == ["http"] + ["websocket"] * (not refused) and sent == [{"type": "websocket.close", "code": 1008}] * refused


def test_over_https_a_page_over_http_is_a_strangers(serve):
    """Whoever is on the way may have written it."""
    for origin, own in ((b"http://demo.example", False), (b"https://demo.example", True)):
        headers = [(b"host", b"demo.example"), (b"origin", origin), (b"x-forwarded-proto", b"https")]
        assert serve.is_own({"type": "websocket", "headers": headers}) == own


def test_no_more_of_a_message_is_held_than_pages_send(serve):
    """What came of one is held as long as its sender likes; what the server sends is longer."""

    class Connection:
        config = SimpleNamespace(ws_max_size=25_000_000)

        async def receive(self):
            return {"type": "lifespan.startup"}

    async def app(scope, receive, send):
        pass

    asyncio.run(serve.Messages(app)({"type": "lifespan"}, Connection().receive, None))
    assert Connection.config.ws_max_size == serve.wires.LONGEST_MESSAGE


def test_of_too_many_connections_the_last_is_refused(serve):
    scope = {"type": "websocket", "headers": [(b"cookie", f"{COOKIE}={KEY}".encode())], "client": ("here", 1)}
    sent, there = [], []

    async def app(scope, receive, send):
        there.append(scope)
        await asyncio.sleep(0.2)

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        sent.append(message)

    async def all() -> None:
        door = serve.Messages(app)
        await asyncio.gather(*(door(scope, receive, send) for _ in range(PUBLIC.visitor.tabs + 1)))

    asyncio.run(all())
    assert len(there) == PUBLIC.visitor.tabs and sent == [{"type": "websocket.close", "code": 1013}]
