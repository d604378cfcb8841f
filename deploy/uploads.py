"""What files pages may send, and how much of them is held: for a tab, for a visitor, and for an address with all its visitors.

Streamlit keeps all that anybody ever sent, whether a page asked for it or not, until the tab is closed and forgotten. What does
not fit is refused before it is read.
"""

import re

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from streamlit import runtime
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager

from decoding.limits import left_for, limits
from decoding.runs.log import log
from decoding.runs.visitors import IN_STATE
from deploy.asking import KEYLESS, address_of, counted, key_in, whose

UPLOAD = re.compile(r"/_stcore/upload_file/([^/]+)/([^/]+)")  # where Streamlit takes the files of a tab
AROUND = 10_000  # bytes of an upload that are not the file's
FILES = 3  # that a tab sent and that are kept: a page shows one at a time
File = tuple[str, str]  # the tab that sent it, and its id


class Uploads:
    """Refuses what is larger than this server reads, and what comes beyond all that it holds for whoever sends it; keeps the
    latest files of a tab alone, and nobody else's hands off them."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._held: dict[File, tuple[set[str], int]] = {}  # who sent it, and its bytes
        self._coming: set[File] = set()  # that are being read

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        most = limits().upload
        if most is None or scope["type"] != "http" or not (to := UPLOAD.search(scope["path"])):
            await self.app(scope, receive, send)
        elif scope["method"] in ("PUT", "DELETE") and not is_of(to[1], key_in(scope)):
            await Response(status_code=404)(scope, receive, send)
        elif scope["method"] != "PUT":
            await self.app(scope, receive, send)
        elif "transfer-encoding" in (sent := Headers(scope=scope)) or not (said := sent.get("content-length", "")).isdecimal():
            await Response(status_code=411)(scope, receive, send)  # what comes in chunks is as long as it likes, whatever it says
        elif len(said) > len(str(most)) + 1 or int(said) > most + AROUND:
            await Response(status_code=413)(scope, receive, send)
        elif not self._fits(scope, file := (to[1], to[2]), int(said)):
            log("refused", why="too much is held of what was uploaded", visitor=key_in(scope) is not None)
            await Response("Too many files are held for you. Try again in two minutes.", 429)(scope, receive, send)
        else:
            self._coming.add(file)
            try:
                await self.app(scope, receive, send)
            finally:
                self._coming.remove(file)
                self._held[file] = self._held[file][0], int(said)  # in place of what had its name, or not there at all
            drop_older(to[1])

    def _fits(self, scope: Scope, file: File, size: int) -> bool:
        """Whether so many bytes may come of whoever asks; notes that they do."""
        there = {(tab, one) for tab, files in storage().items() for one in list(files)} | self._coming
        self._held = {one: about for one, about in self._held.items() if one in there}
        owners, all_ = counted(key_in(scope), address_of(scope)), sum(held for _, held in self._held.values())
        for name, rule in owners.items():
            own = sum(held for names, held in self._held.values() if name in names)
            if size + own > left_for(rule.uploads, limits().whole.uploads, all_):
                return False
        if file in self._coming:
            return False
        _, before = self._held.get(file, (owners, 0))
        self._held[file] = set(owners), before + size  # what takes the place of another is there beside it for a moment
        return True


def is_of(tab: str, key: str | None) -> bool:
    """Whether a tab that is there belongs to whoever has the key: the address of its uploads stands in the logs of proxies.

    That is the visitor it was opened by, or, once they have taken *my link* in it, the one that they became. Of a tab without a key
    it is anybody without one: nothing else is known of them.
    """
    found = runtime.get_instance()._session_mgr.get_session_info(tab)
    if found is None:
        return True  # Streamlit refuses that
    session = found.session
    if key is None:
        return session._user_info.get("visitor", "").startswith(KEYLESS)
    state = session.session_state
    return session.matches_user_info({"visitor": whose(key)}) or IN_STATE in state and state[IN_STATE] == key


def storage() -> dict[str, dict]:
    """The files that Streamlit holds, by their tabs."""
    held = runtime.get_instance().uploaded_file_mgr
    return dict(held.file_storage) if isinstance(held, MemoryUploadedFileManager) else {}


def drop_older(tab: str) -> None:
    """Forget the files that a tab sent before its latest ones."""
    held = runtime.get_instance().uploaded_file_mgr
    if isinstance(held, MemoryUploadedFileManager):
        for file in list(held.file_storage.get(tab, ()))[:-FILES]:
            held.remove_file(tab, file)
