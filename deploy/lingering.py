"""Files that were made for a download stay for a while, under names that nobody else can have.

Streamlit drops what no page shows as soon as two scripts of anybody have ended. A file that was made when a button was pressed is
shown by none: on a busy server it was gone before its visitor's browser asked for it.

And it names a large file by some pieces of it, and keeps the one that is there already: whoever knew what another visitor was going
to download could have put one in its place that differs elsewhere.
"""

import secrets
from collections.abc import Callable
from hashlib import blake2b
from threading import Lock
from time import monotonic
from typing import Any

from streamlit import runtime
from streamlit.runtime import memory_media_file_storage

KEPT = 60.0  # seconds
SECRET = secrets.token_bytes(32)  # of this process: what is in a file does not tell where it lies
MOST = 200 * 2**20  # bytes of all that wait to be dropped; beyond that those go that wait longest


class Lingering:
    """In the place of a storage's `delete_file`.

    Args:
        storage: Streamlit's, of the files that it serves.
        is_used: whether a file was made again meanwhile: equal files have one id.
        clock: seconds.
    """

    def __init__(self, storage: Any, is_used: Callable[[str], bool], clock: Callable[[], float] = monotonic) -> None:
        self._storage, self._is_used, self._clock, self._lock = storage, is_used, clock, Lock()
        self._delete = storage.delete_file
        self._waiting: dict[str, tuple[float, int]] = {}  # id -> when it was to be dropped, its bytes

    def __call__(self, file_id: str) -> None:
        with self._lock:
            self._waiting.pop(file_id, None)  # the latest stand last
            self._waiting[file_id] = self._clock(), self._size(file_id)
            held = sum(size for _, size in self._waiting.values())
            for one, (since, size) in list(self._waiting.items())[:-1]:
                if self._clock() - since < KEPT and held <= MOST:
                    break
                del self._waiting[one]
                held -= size
                if not self._is_used(one):
                    self._delete(one)

    def _size(self, file_id: str) -> int:
        try:
            return self._storage.get_file(file_id).content_size
        except Exception:  # it is not there
            return 0


def name_of(data: bytes, mimetype: str, filename: str | None = None) -> str:
    """In the place of Streamlit's own: by all that is in a file, and what it is called."""
    made = blake2b(key=SECRET, digest_size=28)
    for part in (mimetype.encode(), b"" if filename is None else filename.encode("utf-8", "replace"), data):
        made.update(len(part).to_bytes(8, "big"))
        made.update(part)
    return made.hexdigest()


def linger() -> None:
    """Have the running server's files stay; does nothing where it has them already, or keeps its files otherwise."""
    manager = getattr(runtime.get_instance() if runtime.exists() else None, "media_file_mgr", None)
    storage, known = getattr(manager, "_storage", None), getattr(manager, "_file_metadata", None)
    if storage is None or known is None or isinstance(getattr(storage, "delete_file", None), Lingering):
        return
    memory_media_file_storage._calculate_file_id = name_of
    storage.delete_file = Lingering(storage, known.__contains__)
