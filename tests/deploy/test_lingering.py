"""Files that were made for a download, in Streamlit's own manager of them."""

from types import SimpleNamespace

import pytest
from streamlit.runtime.media_file_manager import MediaFileManager
from streamlit.runtime.media_file_storage import MediaFileStorageError
from streamlit.runtime.memory_media_file_storage import MemoryMediaFileStorage

from deploy import lingering
from deploy.lingering import KEPT, Lingering, linger


@pytest.fixture
def made(monkeypatch):
    """A manager, its storage, a clock, and what a press of a download button leaves: the id of a file."""
    storage = MemoryMediaFileStorage("/media")
    manager, clock = MediaFileManager(storage), SimpleNamespace(now=0.0)
    monkeypatch.setattr(lingering.runtime, "exists", lambda: True)
    monkeypatch.setattr(lingering.runtime, "get_instance", lambda: SimpleNamespace(media_file_mgr=manager))
    linger()
    storage.delete_file._clock = lambda: clock.now

    def press(data: bytes) -> str:
        manager._deferred_callables["x"] = {"callable": lambda: data, "mimetype": "text/plain", "filename": "a"}
        manager._deferred_callables["x"] |= {"coordinates": "", "session_id": ""}
        return manager.execute_deferred("x").rpartition("/")[2]

    return manager, storage, clock, press


def scripts_end(manager, count: int = 3) -> None:
    for _ in range(count):
        manager.remove_orphaned_files()


def is_there(storage, file: str) -> bool:
    try:
        return bool(storage.get_file(file))
    except MediaFileStorageError:
        return False


def test_a_made_file_outlives_the_scripts_of_others_for_a_while(made):
    manager, storage, clock, press = made
    file = press(b"one")
    scripts_end(manager)
    clock.now = KEPT - 1
    press(b"two")
    scripts_end(manager)
    assert is_there(storage, file)
    clock.now = KEPT + 1
    press(b"three")
    scripts_end(manager)
    assert not is_there(storage, file)


def test_a_file_that_was_made_again_is_not_dropped_for_the_first_time(made):
    manager, storage, clock, press = made
    file = press(b"one")
    scripts_end(manager)
    clock.now = KEPT + 1
    assert press(b"one") == file
    press(b"two")
    manager.remove_orphaned_files()  # marks both, and drops neither
    manager._delete_file(next(one for one in manager._file_metadata if not file.startswith(one)))
    assert is_there(storage, file)


def test_all_that_wait_to_be_dropped_have_so_many_bytes(made, monkeypatch):
    manager, storage, clock, press = made
    monkeypatch.setattr(lingering, "MOST", 2500)
    files = []
    for number in range(5):
        files.append(press(bytes([number]) * 1000))
        scripts_end(manager)
    assert [is_there(storage, file) for file in files] == [False, False, False, True, True]


def test_it_is_put_in_once(made):
    _, storage, _, _ = made
    before = storage.delete_file
    linger()
    assert storage.delete_file is before and isinstance(before, Lingering)


def test_files_that_differ_anywhere_have_names_of_their_own(made):
    """Streamlit looks at the ends and the middle of a large one: a visitor got another's file that differed elsewhere."""
    _, storage, _, press = made
    one = bytearray(3 * 2**20)
    other = bytes(one[: 2**20]) + b"x" + bytes(one[2**20 + 1 :])
    files = [press(bytes(one)), press(other)]
    assert files[0] != files[1] and [storage.get_file(file).content for file in files] == [one, other]
    assert press(other) == files[1]


def test_nobody_who_knows_a_file_knows_its_name(monkeypatch):
    names = set()
    for secret in (b"a" * 32, b"b" * 32):
        monkeypatch.setattr(lingering, "SECRET", secret)
        names |= {
            lingering.name_of(b"file", *more) for more in (("text/plain",), ("text/plain", ""), ("text/plain", "a"), ("a", "x"))
        }
        names.add(lingering.name_of(b"xfile", "a"))
    assert len(names) == 2 * 4 and all(name.isalnum() for name in names)
