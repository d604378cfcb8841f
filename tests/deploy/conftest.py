"""What the tests of the public server have in common."""

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from tests.deploy.no_waiting import Loop


@pytest.fixture
def played(monkeypatch) -> Callable[[Callable[[], Coroutine]], object]:
    """Plays a story on a public server, in a loop in which waiting takes no time."""
    monkeypatch.setenv("DRAFTSCOPE_MODE", "public")

    def play(story: Callable[[], Coroutine]) -> object:
        with asyncio.Runner(loop_factory=Loop) as runner:
            return runner.run(story())

    return play
