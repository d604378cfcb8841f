"""Benchmark, not a test: what an ordinary visitor of a public server feels while another one floods it with runs of a page.

    python -m tests.bench.flood [--sockets 6] [--reruns 200] [--seconds 20] [--keys] [--fragments]

Starts `deploy/serve.py` on a free port of this machine. One visitor steps the embedded models, at first alone, then while
another has a tab on every socket that asks for so many runs of its whole page (or of the fragment with the tree) without
waiting for an answer. `--keys` gives every socket of the flood another visitor's key. Prints seconds from the click to the
painted step in both times, and what the flood got.
"""

import argparse
import asyncio
import os
import random
from contextlib import suppress
from time import perf_counter

from decoding.runs.visitors import new_key
from tests.bench.load import PATIENCE, Server, link, percentile, ready, serving, stepped, warm
from tests.bench.tab import Tab

MOST = 12, 400, 60.0  # sockets, reruns of each, seconds
METHOD = "plain"  # has the most steps
THINK = 0.3  # seconds from a painted step to the next click


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sockets", type=int, default=6)
    parser.add_argument("--reruns", type=int, default=200, help="that each socket asks for")
    parser.add_argument("--seconds", type=float, default=20.0, help="that the visitor steps, alone and in the flood")
    parser.add_argument("--keys", action="store_true", help="every socket of the flood is another visitor")
    parser.add_argument("--fragments", action="store_true", help="the flood asks for the tree, and not for whole pages")
    options = parser.parse_args()
    if not (0 < options.sockets <= MOST[0] and 0 < options.reruns <= MOST[1] and 0 < options.seconds <= MOST[2]):
        parser.error(f"at most {MOST} sockets, reruns and seconds")
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {vars(options)}")
    with serving(public=True) as server:
        asyncio.run(compared(server, options))


async def compared(server: Server, options: argparse.Namespace) -> None:
    await warm(server, METHOD)
    key = new_key()
    tabs = [Tab(server.address, "Step", link(i, METHOD), new_key() if options.keys else key) for i in range(options.sockets)]
    for tab in tabs:
        await ready(tab)
    print(row("alone", await steps(server, 1, options.seconds)), flush=True)
    runs, used, began = sum(tab.runs for tab in tabs), server.processor, perf_counter()
    flood = [asyncio.create_task(poured(tab, options.reruns, options.fragments)) for tab in tabs]
    print(row("in the flood", await steps(server, 2, options.seconds)), flush=True)
    print(
        f"the flood: {sum(tab.runs for tab in tabs) - runs} runs came to an end; "
        f"{server.processor - used:.1f} s of processor time in {perf_counter() - began:.1f} s, {server.megabytes:.0f} MB"
    )
    for task in flood:
        task.cancel()
    print(row("afterwards", await steps(server, 3, options.seconds / 2)))
    for tab in tabs:
        with suppress(TimeoutError):
            await asyncio.wait_for(tab.close(), 5)


async def poured(tab: Tab, reruns: int, fragments: bool) -> None:
    """Again and again, a moment after what came before was answered at last."""
    assert tab.stepper is not None
    while True:
        runs = tab.runs
        for _ in range(reruns):
            await tab.rerun(tab.stepper.fragment if fragments else "")
        await tab.until(lambda runs=runs: tab.runs > runs, PATIENCE)


async def steps(server: Server, number: int, seconds: float) -> list[float]:
    """From click to painted, of every step that a visitor takes within so many seconds."""
    visitor = Tab(server.address, "Step", link(100 + number, METHOD), new_key())
    await ready(visitor)
    chance, end, waits = random.Random(0), perf_counter() + seconds, []
    while perf_counter() < end:
        waits.append(await stepped(visitor, len(waits) + 1))
        await asyncio.sleep(THINK * chance.uniform(0.5, 1.5))
    await visitor.close()
    return waits


def row(when: str, waits: list[float]) -> str:
    said = ", ".join(f"p{share} {percentile(waits, share):.2f}" for share in (50, 95))
    return f"{when:>12}: {len(waits)} steps, {said}, worst {max(waits):.2f} s"


if __name__ == "__main__":
    main()
