"""The benchmark of many visitors, small: everybody is served, and no step is lost. How fast is no test's business."""

import asyncio

import pytest

from tests.bench.load import crowd, play, row, serving, warm
from tests.conftest import PATIENCE

pytestmark = pytest.mark.timeout(8 * PATIENCE)
METHOD = "speculative_sampling"


def test_every_step_of_every_session_is_painted():
    async def visits():
        await warm(server, METHOD)
        return await play(server, 3, 2, think=0, seconds=PATIENCE, method=METHOD), await crowd(server, 3, arrival=0)

    with serving(public=True, OMP_NUM_THREADS="1") as server:
        level, homes = asyncio.run(visits())
    assert not level.complaints and not level.lost
    assert level.fewest == 2 and len(level.clicks) == 6 and len(level.opening) == 3
    assert row(level)["clicks"] == "6" and row(level)["lost"] == "0"
    assert len(homes) == 3 and max(homes) < 60
