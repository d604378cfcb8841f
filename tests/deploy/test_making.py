"""`deploy/making.py`: files are made one after the other, fairly, and for nobody who has gone."""

import asyncio
from threading import Lock

import pytest
from streamlit.proto.BackMsg_pb2 import BackendOperationRequest
from streamlit.runtime.backend_operation_handler import DeferredFileHandler

from decoding.limits import PUBLIC, Refused
from deploy.making import GONE, NOT_YOURS, Making, bound
from deploy.pace import Pace


class Page:
    """A page of a visitor, and the files that were made for it."""

    def __init__(self, pace: Pace, making: Making, name: str, key: str = "key", address: str = "here") -> None:
        self.tab, self.making = pace.enter(key, address), making
        self.tab.belongs(name)

    async def file(self, made: list[str], seconds: float = 1.0) -> None:
        async with self.making.turn(self.tab.session):
            made.append(f"{self.tab.session} begins")
            await asyncio.sleep(seconds)
            made.append(f"{self.tab.session} ends")


def test_files_are_made_one_after_the_other(played):
    async def story():
        making, made = Making((pace := Pace()).tab_of), []
        pages = [Page(pace, making, name, key=name, address=name) for name in "abc"]
        await asyncio.gather(*(page.file(made) for page in pages))
        return made

    assert played(story) == [f"{name} {what}" for name in "abc" for what in ("begins", "ends")]


def test_who_had_none_is_next_whatever_another_network_asks_for(played):
    async def story():
        making, made = Making((pace := Pace()).tab_of), []
        many = [Page(pace, making, f"m{i}", key=f"m{i}") for i in range(PUBLIC.files_near)]
        asked = [asyncio.create_task(page.file(made)) for page in many]
        await asyncio.sleep(1.5)
        await Page(pace, making, "one", key="one", address="there").file(made)
        before = [what for what in made if what.startswith("m") and what.endswith("ends")]
        await asyncio.gather(*asked)
        return before, len(made)

    before, all_ = played(story)
    assert before == ["m0 ends", "m1 ends"] and all_ == 2 * (PUBLIC.files_near + 1)


def test_a_visitor_and_a_network_for_so_many(played):
    async def story():
        making, made, refused = Making((pace := Pace()).tab_of), [], []
        own = [Page(pace, making, "own"), Page(pace, making, "own too")]
        others = [Page(pace, making, f"o{i}", key=f"o{i}") for i in range(PUBLIC.files_near)]
        asked = [asyncio.create_task(page.file(made)) for page in (*[own[0]] * PUBLIC.files, *others[: -PUBLIC.files])]
        await asyncio.sleep(0)
        for page in (own[0], own[-1], others[-1]):
            with pytest.raises(Refused) as why:
                await page.file(made)
            refused.append(str(why.value))
        elsewhere = asyncio.create_task(Page(pace, making, "there", key="there", address="there").file(made))
        await asyncio.gather(*asked, elsewhere)
        await own[-1].file(made)  # all of it is over
        return refused

    *visitor, network = played(story)
    assert all("for one visitor" in said for said in visitor) and "for one network" in network


def test_nothing_is_made_for_a_page_that_is_closed(played):
    """While it waits, or before it asks; and what one page held is nobody's then."""

    async def story():
        making, made = Making((pace := Pace()).tab_of), []
        first, second, third = (Page(pace, making, name, key=name) for name in ("first", "second", "third"))
        asked = [asyncio.create_task(page.file(made)) for page in (first, second, third)]
        await asyncio.sleep(0.5)
        pace.leave(second.tab)
        done = await asyncio.gather(*asked, return_exceptions=True)
        with pytest.raises(Refused, match="closed"):
            await second.file(made)
        again = Page(pace, making, "third", key="third")  # its browser was away for a moment
        pace.leave(third.tab)
        await again.file(made)
        return done, made

    done, made = played(story)
    assert [type(one) for one in done] == [type(None), Refused, type(None)]
    assert made == [f"{name} {what}" for name in ("first", "third", "third") for what in ("begins", "ends")]


def test_a_file_that_breaks_leaves_its_place(played):
    async def story():
        making, made = Making((pace := Pace()).tab_of), []
        page = Page(pace, making, "a")
        with pytest.raises(OSError):
            async with making.turn("a"):
                raise OSError
        await page.file(made)
        return made

    assert played(story) == ["a begins", "a ends"]


@pytest.mark.parametrize("mode", ["public", "local"])
def test_streamlit_makes_files_so(played, monkeypatch, mode):
    bound(making := Making((pace := Pace()).tab_of))
    monkeypatch.setattr(asyncio, "to_thread", lambda make, file: asyncio.sleep(0, f"/media/{file}"))

    class Manager:
        execute_deferred, _deferred_callables, _lock = None, {"b": {"session_id": "other"}}, Lock()

    async def story():
        monkeypatch.setenv("DRAFTSCOPE_MODE", "public")
        Page(pace, making, "here")
        monkeypatch.setenv("DRAFTSCOPE_MODE", mode)
        asked = BackendOperationRequest(request_id="1")
        asked.deferred_file.file_id = "a"
        handler = DeferredFileHandler(lambda: Manager)
        found = [await handler.handle(asked, session) for session in ("here", "gone")]
        asked.deferred_file.file_id = "b"
        return [*found, await handler.handle(asked, "here")]

    here, gone, others = played(story)
    assert mode == "local" or others.error_msg == NOT_YOURS
    assert here.deferred_file.url == "/media/a" and here.request_id == gone.request_id == "1"
    assert gone.error_msg == GONE if mode == "public" else gone.deferred_file.url


def test_a_page_that_is_drawn_anew_while_its_file_waits_gets_it(played, monkeypatch):
    """Streamlit forgets what the page had registered, and the file failed; the dialog of *Delete all* is such a drawing."""
    bound(making := Making((pace := Pace()).tab_of))
    made = []

    class Manager:
        _deferred_callables, _lock = {name: {"session_id": "here"} for name in "ab"}, Lock()

        @staticmethod
        def execute_deferred(name: str) -> str:
            made.append((name, name in Manager._deferred_callables))
            return f"/media/{name}"

    async def run(make, name: str) -> str:
        await asyncio.sleep(1)
        return make(name)

    async def story():
        Page(pace, making, "here")
        handler = DeferredFileHandler(lambda: Manager)
        monkeypatch.setattr(asyncio, "to_thread", run)
        files = []
        for name in "ab":
            asked = BackendOperationRequest(request_id=name)
            asked.deferred_file.file_id = name
            files.append(asyncio.create_task(handler.handle(asked, "here")))
            await asyncio.sleep(0.1)
        Manager._deferred_callables.clear()
        return [file.deferred_file.url for file in await asyncio.gather(*files)]

    assert played(story) == ["/media/a", "/media/b"] and made == [("a", False), ("b", True)]
    assert not Manager._deferred_callables


def test_a_second_binding_takes_the_place_of_the_first():
    """Streamlit may read `deploy/serve.py` twice; the pages are those of the later one then."""
    bound(Making(Pace().tab_of))
    whole = DeferredFileHandler.handle.whole
    bound(Making(Pace().tab_of))
    assert DeferredFileHandler.handle.whole is whole and not hasattr(whole, "whole")
