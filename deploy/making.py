"""Files that are made when somebody presses a download button: one after the other, each for whoever had the least of that.

Streamlit makes every one that is asked for, on threads that all share with those who step: each of them is Python's work, and there
is one processor's worth of Python. What waits here takes no thread, and nothing is made for a tab that is closed meanwhile.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from math import inf
from typing import Any

from streamlit.proto.BackMsg_pb2 import BackendOperationRequest
from streamlit.proto.ForwardMsg_pb2 import BackendOperationResponse
from streamlit.runtime.backend_operation_handler import DeferredFileHandler
from streamlit.runtime.media_file_manager import MediaFileManager

from decoding.limits import Refused, check_files, limits
from decoding.runs.log import log
from decoding.runs.visitors import file_for
from deploy.buckets import now
from deploy.pace import Tab
from deploy.places import Places
from pages.parts.shared.runs import tabs

AT_ONCE = 1
NOT_YOURS = "This file is another page's."
GONE = "The page that asked for this file is closed."


class Turns(Places):
    """The next file is for whoever had least of the last minutes: one may take seconds, and elsewhere that is soon forgotten."""

    half, cap = 60.0, inf


class Making:
    """Who has asked for a file, and whose turn it is.

    Args:
        tab_of: the page of Streamlit's id of a session; None: it is closed.
    """

    def __init__(self, tab_of: Callable[[str], Tab | None]) -> None:
        self._tab_of = tab_of
        self._asked: dict[object, Tab] = {}  # a file that waits or is made -> whose it is
        self._places = Turns(AT_ONCE, lambda file: now())

    @asynccontextmanager
    async def turn(self, session: str) -> AsyncIterator[None]:
        """A file for the page of a session is made in the block.

        Raises:
            Refused: the page is closed, or its visitor or its network has asked for as many as they may.
        """
        tab = self._tab_of(session)
        if tab is None:
            raise Refused(GONE)
        near, own = (sum(name in one.names for one in self._asked.values()) for name in (tab.names[0], tab.names[-1]))
        check_files(own, near)
        self._asked[file := object()] = tab
        try:
            with file_for(tabs.visitor_of(session)):
                async with self._placed(file, tab, session):
                    yield
        finally:
            del self._asked[file]

    @asynccontextmanager
    async def _placed(self, file: object, tab: Tab, session: str) -> AsyncIterator[None]:
        """It is its turn in the block."""
        await self._places.take(file, tab.names[0])
        try:
            if self._tab_of(session) is not tab:
                raise Refused(GONE)
            yield
        finally:
            self._places.give(file)


@contextmanager
def there(manager: MediaFileManager, name: str, known: Any) -> Iterator[None]:
    """In the block Streamlit knows how a file is made: it forgets that when its page is drawn anew, as it may be meanwhile."""
    with manager._lock:
        forgotten = name not in manager._deferred_callables
        if known is not None and forgotten:
            manager._deferred_callables[name] = known
    try:
        yield
    finally:
        if forgotten:
            with manager._lock:
                manager._deferred_callables.pop(name, None)


def bound(making: Making) -> None:
    """Have Streamlit make files on a public server so; a later binding takes the place of an earlier one."""
    whole = getattr(DeferredFileHandler.handle, "whole", DeferredFileHandler.handle)

    async def handle(handler: DeferredFileHandler, request: BackendOperationRequest, session_id: str) -> BackendOperationResponse:
        if not limits().public:
            return await whole(handler, request, session_id)
        try:
            manager, name = handler._get_media_file_mgr(), request.deferred_file.file_id
            known = manager._deferred_callables.get(name)
            if known is not None and known["session_id"] != session_id:
                raise Refused(NOT_YOURS)
            async with making.turn(session_id):
                with there(manager, name, known):
                    return await whole(handler, request, session_id)
        except Refused as error:
            log("refused", why=str(error))
            return BackendOperationResponse(request_id=request.request_id, error_msg=str(error))

    handle.whole = whole
    DeferredFileHandler.handle = handle
