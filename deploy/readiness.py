"""Whether the worker turns and pages are drawn: the address `/ready` of a server, for health checks and load balancers.

`/_stcore/health` says that the server answers, and it goes on to do so when a step hangs and no visitor gets one any more. Here the
worker is given a job that does nothing, in line with all others, and has a few seconds for it; and the pace of pages
(`deploy/pace.py`) is asked whether any was let run while some waited.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse

from decoding.runs.log import log

if TYPE_CHECKING:
    from decoding.runs.worker import Live, Worker

PATIENCE = 5.0  # seconds that the worker has for a job of no work
STAND = 20.0  # seconds in which a page that waits must have been let run: a place is lost after half of that
KEPT = 1.0  # seconds that an answer stands: strangers ask as often as they like, and the worker is asked once


class Readiness:
    """Answers 200 when pages run and the worker turns or nobody has needed it yet, 503 with the reason when not.

    Args:
        stand: seconds for which no page was let run while some waited; called on the event loop.
        patience: seconds that the worker has.
        kept: seconds that an answer stands.
    """

    def __init__(self, stand: Callable[[], float] = lambda: 0.0, patience: float = PATIENCE, kept: float = KEPT) -> None:
        self._stand, self._patience, self._kept = stand, patience, kept
        self._job: Live | None = None  # stays in line until it was done: a worker that hangs gets one, however often it is asked
        self._problem = ""
        self._until = 0.0
        self._asking = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1)  # of its own: visitors fill the server's with the files that they export

    async def answer(self, request: Request) -> JSONResponse:
        async with self._asking:
            if monotonic() >= self._until:
                problem = self.pages() or await asyncio.get_running_loop().run_in_executor(self._thread, self.problem)
                if problem and not self._problem:
                    log("not ready", reason=problem)
                self._problem, self._until = problem, monotonic() + self._kept
        answer = {"ready": not self._problem} | ({"reason": self._problem} if self._problem else {})
        return JSONResponse(answer, 503 if self._problem else 200, {"cache-control": "no-store"})

    def pages(self) -> str:
        """Why no page is drawn, in a sentence; "" if pages are, or nobody waits for one."""
        stand = self._stand()
        return f"No page was let run for {stand:.0f} seconds while some waited." if stand > STAND else ""

    def problem(self) -> str:
        """Why no step is taken, in a sentence; "" if steps are, or nobody has asked for one since the server was started. Waits for
        the worker, and loads no model."""
        line = begun()
        if line is None:
            return ""
        if self._job is None or self._job.over:
            from decoding.runs.worker import Once

            self._job = line.live(lambda: Once(lambda: True))
            self._job.ask()
        self._job.wait(self._patience)
        if self._job.busy:
            return f"The worker had no turn for a job of no work within {self._patience:g} seconds."
        return self._job.problem


def begun() -> Worker | None:
    """The worker of the device that runs are made on; None as long as nobody has needed it, and torch may not even be imported."""
    known = getattr(sys.modules.get("decoding.runs.worker"), "worker", None)
    if known is None or not known.cache_info().currsize:
        return None
    from decoding.models.family import find_device

    return known(str(find_device("auto")))
