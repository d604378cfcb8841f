"""Files that a download button makes when it is pressed: on threads that all visitors share, so a few at a time for each."""

from collections import Counter
from collections.abc import Callable
from threading import Lock
from typing import TypeVar

from decoding.limits import check_files, limits
from pages.parts.shared import visitor

Data = TypeVar("Data", bytes, str)
_lock = Lock()
_at_work: Counter[str] = Counter()  # visitor -> files that are being made for them


def on_demand(make: Callable[[], Data]) -> Callable[[], Data]:
    """What a download button calls: `make`, or a ValueError while as many files as may be are made for this visitor.

    A press on the button is one message, and whoever sends hundreds of them would keep all threads from everybody else's files.
    """
    if not limits().public:
        return make
    key = visitor.key()  # there is no page any more once the button is pressed

    def made() -> Data:
        with _lock:
            check_files(_at_work[key])
            _at_work[key] += 1
        try:
            return make()
        finally:
            with _lock:
                _at_work[key] -= 1
                if not _at_work[key]:
                    del _at_work[key]

    return made
