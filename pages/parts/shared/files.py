"""Files that a download button makes when it is pressed: on threads that all visitors share, so a few at a time for each."""

from collections import Counter
from collections.abc import Callable
from threading import Lock
from typing import TypeVar

from decoding.limits import check_files, limits
from decoding.runs.visitors import file_for
from pages.parts.shared import visitor

Data = TypeVar("Data", bytes, str)
_lock = Lock()
_at_work: Counter[tuple[str, str]] = Counter()  # (visitor, address) -> files that are being made for them


def on_demand(make: Callable[[], Data]) -> Callable[[], Data]:
    """What a download button calls: `make`, or a ValueError while as many files as may be are made for this visitor, or for all
    at this address.

    A press on the button is one message, and whoever sends hundreds of them would keep all threads from everybody else's files.
    """
    if not limits().public:
        return make
    who = visitor.key(), visitor.address()  # there is no page any more once the button is pressed

    def made() -> Data:
        with _lock:
            check_files(*(sum(n for one, n in _at_work.items() if one[i] == who[i]) for i in range(2)))
            _at_work[who] += 1
        try:
            with file_for(who[0]):
                return make()
        finally:
            with _lock:
                _at_work[who] -= 1
                if not _at_work[who]:
                    del _at_work[who]

    return made
