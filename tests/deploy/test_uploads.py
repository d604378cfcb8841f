"""`deploy/uploads.py`: what is too large, too much or of no length is not taken; what is held is counted for whoever sent it."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.uploaded_file_manager import UploadedFileRec

from decoding.limits import PUBLIC
from decoding.runs.visitors import COOKIE, IN_STATE
from deploy import uploads
from deploy.asking import whose
from deploy.uploads import FILES, Uploads

MOST = PUBLIC.upload
OWN, SHARED = PUBLIC.visitor.uploads // MOST, PUBLIC.address.uploads // MOST  # files of the largest size


class Sender:
    """Streamlit behind the door, and pages that send files to it."""

    def __init__(self) -> None:
        self.held = MemoryUploadedFileManager("/_stcore/upload_file")
        self.hold = asyncio.Event()
        self.hold.set()
        self.broken = False
        self.owners: dict[str, tuple[str | None, str | None]] = {}  # tab -> key that it was opened with, and the one it has now
        self.door = Uploads(self._streamlit)

    def session(self, tab: str) -> SimpleNamespace | None:
        """What Streamlit knows of a tab."""
        if tab not in self.owners:
            return None
        first, now = self.owners[tab]
        state, known = {} if now is None else {IN_STATE: now}, {"visitor": whose(first)}
        return SimpleNamespace(session=SimpleNamespace(session_state=state, _user_info=known, matches_user_info=known.__eq__))

    async def _streamlit(self, scope, receive, send) -> None:
        """Takes all."""
        await self.hold.wait()
        tab, file = scope["path"].split("/")[-2:]
        if not self.broken:
            self.held.add_file(tab, UploadedFileRec(file, "x.json", "application/json", b"x"))
        await send({"type": "http.response.start", "status": 204, "headers": []})

    async def send(self, tab: str, file: str, size: str | None = "1", key: str = "", address: str = "here", method: str = "PUT",
                   **headers: str) -> int:  # fmt: skip
        """The status of a file of a tab, of so many bytes as its headers say."""
        sent = []

        async def send(message):
            sent.append(message)

        named = [] if size is None else [(b"content-length", size.encode())]
        named += [(b"cookie", f"{COOKIE}={key * 43}".encode())] if key else []
        named += [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        path = f"/_stcore/upload_file/{tab}/{file}"
        await self.door({"type": "http", "method": method, "path": path, "headers": named, "client": (address, 1)}, None, send)
        return sent[0]["status"]

    def put(self, *what: str, **how: str) -> tuple[int, list[str]]:
        """The same, and the files of the tab that are held then."""
        return asyncio.run(self.send(*what, **how)), list(self.held.file_storage.get(what[0], ()))

    def many(self, count: int, **how: Callable[[int], str]) -> list[int]:
        """Of so many tabs, a file of the largest size each."""
        return [self.put(f"tab {i}", "file", f"{MOST}", **{name: each(i) for name, each in how.items()})[0] for i in range(count)]


@pytest.fixture
def sender(monkeypatch) -> Sender:
    monkeypatch.setenv("DRAFTSCOPE_MODE", "public")
    made = Sender()
    sessions = SimpleNamespace(get_session_info=made.session)
    server = SimpleNamespace(uploaded_file_mgr=made.held, _session_mgr=sessions)
    monkeypatch.setattr(uploads.runtime, "get_instance", lambda: server)
    return made


def test_nobody_sends_files_to_anothers_tab(sender):
    """The address of its uploads is no secret. A visitor who takes *my link* in a tab is another one from then on."""
    old, new, other = "a" * 43, "b" * 43, "c"
    sender.owners = {"own": (old, old), "moved": (old, new), "none": (None, None)}
    for tab, keys in {"own": "a", "moved": "ab"}.items():
        for key in "abc":
            status, held = sender.put(tab, f"of {key}", key=key)
            assert status == (204 if key in keys else 404) and held == [f"of {k}" for k in keys if k <= key]
        assert sender.put(tab, "of nobody")[0] == 404
    assert sender.put("none", "x")[0] == 204 and sender.put("none", "x", key=other)[0] == 404


@pytest.mark.parametrize(("key", "status"), [("a", 204), ("b", 404), ("", 404)])
def test_nobody_takes_a_file_away_from_another(sender, key, status):
    sender.owners = {"own": ("a" * 43, "a" * 43)}
    assert asyncio.run(sender.send("own", "file", key=key, method="DELETE")) == status


def test_a_tab_holds_its_latest_files_alone(sender):
    assert sender.put("other", "first") == (204, ["first"])
    for number in range(20):
        status, held = sender.put("tab", f"{number}")
        assert status == 204 and held == [f"{n}" for n in range(number + 1)][-FILES:]
    assert sender.put("other", "second")[1] == ["first", "second"]


@pytest.mark.parametrize(
    ("size", "status"), [(None, 411), ("", 411), ("-1", 411), ("1e3", 411), ("6000000", 413), ("9" * 30, 413), ("9" * 9000, 413)]
)
def test_what_is_too_large_to_be_read_is_not_taken(sender, size, status):
    assert sender.put("tab", "file", size) == (status, [])


def test_a_length_that_the_chunks_need_not_keep_is_not_believed(sender):
    """With both headers the server reads chunks, to their end."""
    assert sender.put("tab", "file", "100", transfer_encoding="chunked") == (411, [])


def test_what_may_be_read_is_taken(sender):
    assert sender.put("tab", "file", f"{MOST}")[0] == 204


def test_one_visitor_has_so_much_held_in_all_tabs(sender):
    assert sender.many(OWN + 2, key=lambda i: "a", address=lambda i: f"192.0.2.{i}") == [204] * OWN + [429] * 2
    assert sender.put("other", "file", f"{MOST}", key="b") == (204, ["file"])


def test_all_addresses_together_have_so_much_held(sender):
    """And one that comes when others have sent all they may still sends something."""
    for number in range(3):
        for i in range(SHARED + 1):
            sender.put(f"tab {number}.{i}", "file", f"{MOST}", address=f"192.0.2.{number}")
    assert sender.put("late", "file", f"{MOST}", address="192.0.2.9")[0] == 204
    assert sum(size for _, size in sender.door._held.values()) <= PUBLIC.whole.uploads.most


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::{:x}"])
def test_one_address_has_so_much_held_whoever_is_there(sender, address):
    """Also without a key, or with another one for every tab."""
    near = {"address": lambda i: address.format(i), "key": lambda i: chr(97 + i) if i < 26 else ""}
    assert sender.many(SHARED + 2, **near) == [204] * SHARED + [429] * 2
    assert sender.put("other", "file", f"{MOST}", address="192.0.2.8")[0] == 204


def test_what_is_no_longer_held_leaves_room(sender):
    """The tab was closed, its page took the file away, or another one took its place."""
    sender.many(OWN, key=lambda i: "a")
    sender.held.remove_session_files("tab 0")
    sender.held.remove_file("tab 1", "file")
    assert [sender.put("new", name, f"{MOST}", key="a")[0] for name in ("one", "two", "three")] == [204, 204, 429]


def test_a_file_in_place_of_another_counts_once(sender):
    assert [sender.put("tab", "file", f"{MOST}", key="a")[0] for _ in range(3 * OWN)] == [204] * 3 * OWN


def test_a_file_that_was_not_taken_does_not_count(sender):
    """The session is none, or the token is missing."""
    sender.broken = True
    assert sender.many(3 * OWN, key=lambda i: "a") == [204] * 3 * OWN


def test_files_under_way_count(sender):
    """Whoever sends slowly holds what came, and many do so at the same time."""

    async def story() -> list[int]:
        sender.hold.clear()
        tasks = [asyncio.create_task(sender.send(f"tab {i}", "file", f"{MOST}", key="a")) for i in range(OWN + 2)]
        await asyncio.sleep(0)
        again = await sender.send("tab 0", "file", "1", key="b")
        sender.hold.set()
        return [*(await asyncio.gather(*tasks)), again]

    assert asyncio.run(story()) == [204] * OWN + [429] * 3


def test_on_a_server_of_ones_own_all_files_are_taken(sender, monkeypatch):
    monkeypatch.setenv("DRAFTSCOPE_MODE", "local")
    for number in range(9):
        held = sender.put("tab", f"{number}", "60000000")[1]
    assert len(held) == 9
