"""One run on its way into the store, a step at a time."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from decoding.runs.store import PATIENCE, Locked, Store
from decoding.trace import Step

if TYPE_CHECKING:
    from decoding.runs.remote_run import RemoteRun
    from decoding.runs.run import Run

MOMENT = 0.05  # seconds that a step waits for others who write into the store


class Writing:
    """What is written down of a run of a study.

    Others may write into the store meanwhile. Then the step is tried again in a later turn, for whoever waits for the device should
    not wait for a file.

    Args:
        name, note, study: of its trace.
    """

    def __init__(self, store: Store, name: str, note: str, study: str) -> None:
        self._store, self._named = store.hurried(MOMENT), (name, note, study)
        self.entry = 0  # id of its trace; 0 before there is one
        self.left: Step | None = None  # that was taken, and is not written yet
        self._since = 0.0  # when that was first tried
        self._count = 0  # steps that are written

    def write(self, run: Run | RemoteRun, step: Step) -> bool:
        """Whether the step, the run's last, is written now.

        Raises:
            Locked: others have written for as long as one waits for them.
        """
        if self.left is None:
            self.left, self._since = step, monotonic()
        try:
            self._put(run, step)
        except Locked:
            if monotonic() - self._since > PATIENCE:
                raise
            return False
        self.left = None
        return True

    def _put(self, run: Run | RemoteRun, step: Step) -> None:
        """Half a run that a study left behind goes when there is a whole one, as does the run of another window that was slower."""
        if not self.entry:
            self.entry = self._store.keep(run.trace, *self._named)
        elif self._count < len(run.steps):
            self._store.append(self.entry, [step], run.token_bytes)
        self._count = len(run.steps)
        if step.ending:
            self.entry = self._store.settle(self.entry)
