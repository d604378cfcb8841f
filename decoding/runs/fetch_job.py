"""A fetch as a job of the worker: a turn is a moment of it, so that runs go on meanwhile, and Stop and a closed tab end it."""

from time import monotonic

from decoding.limits import check_download
from decoding.models.fetching import fetch
from decoding.models.progress import Progress

TURN = 0.25  # seconds


class Fetch:
    """Brings a model here. What is stopped goes on where it was, also in another fetch."""

    aside = True  # it waits for others, and computes nothing on a device

    def __init__(self, name: str) -> None:
        check_download(name)
        self.name = name
        self.steps: list[Progress] = []  # the last of each turn
        self.ended = False
        self._going = fetch(name)

    def __next__(self) -> Progress:
        end = monotonic() + TURN
        last = next(self._going, None)
        while last is not None and monotonic() < end:
            last = next(self._going, None)
        self.ended = last is None
        self.steps.append(last or Progress(f"{self.name} is here"))
        return self.steps[-1]

    def let_go(self) -> None:
        """So that another may go on with it."""
        self._going.close()

    @property
    def trace(self) -> Progress:
        """How far it is."""
        return self.steps[-1] if self.steps else Progress("waiting")
