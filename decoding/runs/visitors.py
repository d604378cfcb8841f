"""Whose kept runs are whose on a server for many: a folder per visitor, named by a hash of a random key that only they have.

The key is never written down here; who has it has the runs. What nobody came back to is forgotten, and the disk is never filled.
"""

import hashlib
import ipaddress
import re
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Lock, Thread

from decoding.limits import Refused, check_keepers, limits
from decoding.runs.store import FILE, Store

FOLDER = "visitors"
COOKIE = "draftscope_visitor"  # its name, and that of the place in a browser's store
FRAMED, WHETHER = "framed", "whether"  # what that header says inside of another site's page, and to ask if a key is the browser's
ROUTE, CHECK = "/visitor", "x-draftscope"  # where `deploy/serve.py` takes another key, and the header that other sites cannot send
KEY = re.compile(r"[A-Za-z0-9_-]{32,64}")  # 24 random bytes and more
STARTED = time.monotonic()
BEGAN = time.time() - STARTED
LEAST_FREE = 2**30  # bytes of the disk that visitors never fill
DAY = 86_400  # seconds
EVERY = 3_600  # seconds between two looks for what can be forgotten, everywhere and with one visitor
SETTLED = 600  # seconds until a machine that has just begun has the right time
GONE = ".gone"  # behind the name of a folder that is being removed
IN_STATE = "visitor.key"  # where a session has its visitor's key
by_server = False  # whether the server itself sets the cookie, which no script can read then: `deploy/serve.py` says so
_lock = Lock()
_looked: dict[Path, float] = {}  # folder -> when
_files: Counter[str] = Counter()  # key -> files that are asked for and not made yet
_keepers: dict[str, list[float]] = {}  # address -> when visitors there began to keep runs


@contextmanager
def file_for(key: str) -> Iterator[None]:
    """In the block a file of what a visitor has kept is made, or waits until it is."""
    with _lock:
        _files[key] += 1
    try:
        yield
    finally:
        with _lock:
            _files[key] -= 1
            if not _files[key]:
                del _files[key]


def remembered() -> int:
    """Seconds for which a browser keeps the key, from the last page that it loads: twice as long as what is kept, as a tab may be
    open for weeks before anything is."""
    return 2 * DAY * (limits().kept_days or 365)


def waits_for_file(key: str) -> bool:
    """Whether a visitor waits for such a file: deleting what is to be in it has to wait for it, too."""
    return _files[key] > 0


def new_key() -> str:
    return secrets.token_urlsafe(32)


def is_key(text: object) -> bool:
    return isinstance(text, str) and KEY.fullmatch(text) is not None


def network(address: str) -> str:
    """What counts as one address: whoever has an address of IPv6 has 2^64 of them.

    >>> network("192.0.2.7"), network("2001:db8::1"), network("::ffff:192.0.2.7"), network("testclient")
    ('192.0.2.7', '2001:db8::/64', '192.0.2.7', 'testclient')
    >>> network("192.0.2.7:5678"), network("[2001:db8::1]:5678")  # as some proxies say it
    ('192.0.2.7', '2001:db8::/64')
    """
    host = address.partition("%")[0]
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    return str(found.ipv4_mapped or ipaddress.ip_network((found, 64), strict=False))


def folder_of(root: Path, key: str) -> Path:
    """The folder of whoever has the key.

    Raises:
        ValueError: it is no key, as one that somebody made up to reach another place.
    """
    if not is_key(key):
        raise ValueError("This is no visitor's key.")
    return root / FOLDER / hashlib.sha256(key.encode()).hexdigest()[:40]


def store_of(root: Path, key: str, days: int | None, address: str = "") -> Store:
    """The visitor's store, without what is older than so many days; now and then those of visitors who stayed away are removed.

    Args:
        address: what counts as the visitor's.

    Raises:
        ValueError: it is no key, the disk is nearly full, or the folder cannot be written.
    """
    folder = folder_of(root, key)
    root.mkdir(parents=True, exist_ok=True)
    if days is not None and due(root):
        Thread(target=forget, args=(root, days), daemon=True).start()  # of a hundred thousand visitors it takes a while
    if not (folder / FILE).exists():
        check_room(root)
    # whoever only looks leaves nothing there
    store = Store(folder, later=True, first=partial(note_keeper, address), room=partial(check_room, root))
    if days is not None and due(folder):
        store.forget(now() - days * DAY)
    return store


def check_room(root: Path) -> None:
    """Before a run is kept. Refused if the disk is nearly full: it is everybody's."""
    if shutil.disk_usage(root).free < LEAST_FREE:
        raise Refused("The disk of this demo is nearly full, so it keeps no runs now. Export what you need as a file.")


def now() -> float:
    """Seconds since 1970, no later than this process has run since it began: were a clock that is wrong for a moment believed, what
    visitors kept would be forgotten for good."""
    return min(time.time(), BEGAN + time.monotonic())


def note_keeper(address: str) -> None:
    """Before a visitor at an address keeps a first run. Refused if too many there began to today: keys are free, and the disk is
    everybody's."""
    now = time.time()
    with _lock:
        for other in [other for other, times in _keepers.items() if now - times[-1] >= DAY]:
            del _keepers[other]
        check_keepers(sum(now - at < DAY for at in _keepers.get(address, ())))
        _keepers.setdefault(address, []).append(now)


def forget(root: Path, days: int) -> list[Path]:
    """Remove the folders of visitors that were not written for so many days; returns them."""
    found = [folder for folder in (root / FOLDER).glob("*") if now() - last_written(folder) > days * DAY]
    return [folder for folder in found if removed(folder, days)]


def removed(folder: Path, days: int) -> bool:
    """Remove a visitor's folder, unless they have come back meanwhile: it is looked at again where nobody writes any more."""
    gone = folder if folder.suffix == GONE else folder.with_name(folder.name + GONE)
    try:
        folder.rename(gone)
        if now() - last_written(gone) <= days * DAY:
            if not folder.exists():
                gone.rename(folder)
            return False
    except OSError:
        return False
    shutil.rmtree(gone, ignore_errors=True)
    return True


def due(place: Path) -> bool:
    """Whether nothing was forgotten there for an hour; says so once. Never in the first minutes, for what a clock says that is not
    set yet."""
    now = time.time()
    if time.monotonic() - STARTED < SETTLED:
        return False
    with _lock:
        if now - _looked.get(place, 0) < EVERY:
            return False
        for other in [other for other, at in _looked.items() if now - at >= EVERY]:  # of visitors who come once
            del _looked[other]
        _looked[place] = now
        return True


def last_written(folder: Path) -> float:
    """When anything in a folder was last written; now, if that cannot be told."""
    try:
        return max(file.stat().st_mtime for file in (folder, *folder.iterdir()))
    except OSError:
        return time.time()
