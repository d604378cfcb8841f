"""`deploy/serve.py`: what it adds to the answers of a public server, and the key of a visitor that no script can read."""

import asyncio
import importlib.util
import re
import tomllib
from types import SimpleNamespace

import pytest
from streamlit import config
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.uploaded_file_manager import UploadedFileRec

from decoding.limits import PUBLIC, limits
from decoding.runs import visitors
from decoding.runs.visitors import CHECK, COOKIE, ROUTE, is_key
from tests.test_imports import ROOT

KEY = "k" * 43
HTML = [(b"content-type", b"text/html; charset=utf-8"), (b"cache-control", b"no-cache")]


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setenv("DRAFTSCOPE_MODE", "public")
    monkeypatch.setattr(visitors, "by_server", False)  # put back afterwards
    spec = importlib.util.spec_from_file_location("serve", ROOT / "deploy" / "serve.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert visitors.by_server
    return module


def asked(
    serve, path: str = "/", method: str = "GET", body: bytes = b"", scheme: str = "http", answer=HTML, status=200, **headers: str
):
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


def key_of(headers: dict[str, list[str]]) -> str | None:
    found = [re.match(f"{COOKIE}=([^;]*)", one) for one in headers.get("set-cookie", ())]
    return found[0][1] if found and found[0] else None


def test_a_page_brings_a_key_that_no_script_reads(serve):
    """Another one for every visitor, and never through a cache."""
    keys = set()
    for _ in range(3):
        status, headers = asked(serve, "/Step")
        (cookie,) = headers["set-cookie"]
        assert status == 200 and headers["cache-control"] == ["no-store"] and is_key(key_of(headers))
        assert cookie.endswith("; HttpOnly") and "SameSite=Strict" in cookie and "Path=/" in cookie
        assert f"Max-Age={limits().kept_days * 86_400};" in cookie
        keys.add(key_of(headers))
    assert len(keys) == 3


def test_a_key_that_is_there_stays(serve):
    """Also one that a page had written, which scripts can read no longer; what is none gives way."""
    assert key_of(asked(serve, cookie=f"a=b; {COOKIE}={KEY}; c=d")[1]) == KEY
    for wrong in ("x", "../../etc", "a" * 100, ""):
        assert key_of(asked(serve, cookie=f"{COOKIE}={wrong}")[1]) != wrong


def test_over_https_it_goes_nowhere_else(serve):
    assert asked(serve, scheme="https")[1]["set-cookie"][0].endswith("; Secure")
    assert asked(serve, x_forwarded_proto="https")[1]["set-cookie"][0].endswith("; Secure")
    assert "Secure" not in asked(serve)[1]["set-cookie"][0]


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
    assert status == 204 and key_of(headers) == KEY and headers["set-cookie"][0].endswith("HttpOnly")
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


# -- uploads ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def put(serve, monkeypatch):
    """Sends a file of a tab, of so many bytes as its headers say; the status, and the files that are held then."""
    held = MemoryUploadedFileManager("/_stcore/upload_file")
    monkeypatch.setattr(serve.runtime, "get_instance", lambda: SimpleNamespace(uploaded_file_mgr=held))

    async def app(scope, receive, send):  # Streamlit, which takes all
        tab, file = scope["path"].split("/")[-2:]
        held.add_file(tab, UploadedFileRec(file, "x.json", "application/json", b"x"))
        await send({"type": "http.response.start", "status": 204, "headers": []})

    def put(tab: str, file: str, size: str | None = "1", **headers: str) -> tuple[int, list[str]]:
        sent = []

        async def send(message):
            sent.append(message)

        named = [] if size is None else [(b"content-length", size.encode())]
        named += [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "http", "method": "PUT", "path": f"/_stcore/upload_file/{tab}/{file}", "headers": named}
        asyncio.run(serve.Uploads(app)(scope, None, send))
        return sent[0]["status"], list(held.file_storage.get(tab, ()))

    return put


def test_a_tab_holds_its_latest_files_alone(serve, put):
    assert put("other", "first") == (204, ["first"])
    for number in range(20):
        status, held = put("tab", f"{number}")
        assert status == 204 and held == [f"{n}" for n in range(number + 1)][-serve.FILES :]
    assert put("other", "second")[1] == ["first", "second"]


@pytest.mark.parametrize(("size", "status"), [(None, 411), ("", 411), ("-1", 411), ("1e3", 411), ("6000000", 413), ("9" * 30, 413)])
def test_what_is_too_large_to_be_read_is_not_taken(put, size, status):
    assert put("tab", "file", size) == (status, [])


def test_a_length_that_the_chunks_need_not_keep_is_not_believed(put):
    """With both headers the server reads chunks, to their end."""
    assert put("tab", "file", "100", transfer_encoding="chunked") == (411, [])


def test_no_more_of_a_message_is_held_than_is_taken():
    """A websocket that sends half of one has what came held for as long as it likes."""
    server = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text())["server"]
    assert server["maxMessageSize"] <= config.get_option("server.maxWidgetStateSize")


def test_what_may_be_read_is_taken(serve, put):
    assert put("tab", "file", f"{PUBLIC.upload}")[0] == 204


def test_on_a_server_of_ones_own_all_files_are_taken(put, monkeypatch):
    monkeypatch.setenv("DRAFTSCOPE_MODE", "local")
    for number in range(9):
        held = put("tab", f"{number}", "60000000")[1]
    assert len(held) == 9


# -- messages ---------------------------------------------------------------------------------------------------------


def message(kind: str, names: int = 0) -> bytes:
    """Of a page to the server, with the names of so many files."""
    made = BackMsg()
    if kind == "file_urls_request":
        made.file_urls_request.file_names.extend(["x"] * names)
        made.file_urls_request.request_id = "1"
    elif isinstance(getattr(made, kind), bool):
        setattr(made, kind, True)
    else:
        getattr(made, kind).SetInParent()
    return made.SerializeToString()


def passed(serve, *messages: bytes) -> list[bytes]:
    """Those that Streamlit gets."""
    coming = [{"type": "websocket.receive", "bytes": data} for data in messages] + [{"type": "websocket.disconnect"}]
    got = []

    async def app(scope, receive, send):
        while (found := await receive())["type"] != "websocket.disconnect":
            got.append(found["bytes"])

    async def receive():
        return coming.pop(0)

    asyncio.run(serve.Messages(app)({"type": "websocket", "headers": [], "client": ("here", 1)}, receive, None))
    return got


KINDS = {field.name for field in BackMsg.DESCRIPTOR.oneofs_by_name["type"].fields}


def test_what_no_page_asks_for_does_not_reach_streamlit(serve):
    assert serve.ASKED < KINDS and {"clear_cache", "load_git_info"} <= KINDS - serve.ASKED
    for kind in KINDS:
        assert passed(serve, message(kind)) == [message(kind)] * (kind in serve.ASKED)


def test_a_message_asks_for_as_many_files_as_are_kept(serve):
    few, many = message("file_urls_request", serve.FILES), message("file_urls_request", serve.FILES + 1)
    assert passed(serve, few, many, few) == [few, few]


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
            await send({"type": "websocket.send", "bytes": found.SerializeToString()})

    async def send(message):
        sent.append(ForwardMsg.FromString(message["bytes"]))

    asyncio.run(serve.Messages(app)({"type": "websocket", "headers": [], "client": ("here", 1)}, None, send))
    began.new_session.main_script_path = "app.py"
    assert sent == [began, other]


def test_streamlits_metrics_are_nobodys_business(serve, monkeypatch):
    def status(path: str) -> int:
        sent = []

        async def app(scope, receive, send):
            sent.append({"status": 200})

        async def send(message):
            sent.append(message)

        asyncio.run(serve.Metrics(app)({"type": "http", "path": path, "method": "GET", "headers": []}, None, send))
        return sent[0]["status"]

    assert [status(path) for path in ("/_stcore/metrics", "/base/_stcore/metrics/", "/_stcore/health")] == [404, 404, 200]
    monkeypatch.setenv("DRAFTSCOPE_MODE", "local")
    assert status("/_stcore/metrics") == 200


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
