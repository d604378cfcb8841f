"""Benchmark, not a test: many visitors at once, each in a session of its own that steps the embedded models.

    python -m tests.bench.load [--sessions 1,10,20,50] [--steps 10] [--think 2] [--public]
    python -m tests.bench.load --memory [--wait 180]

Starts the app on a free port of this machine and plays the visitors by `tests/bench/tab.py`, which speaks Streamlit's protocol. A
step counts as painted when its sentence and its tree have come and the run of the page that sent them is at its end. Prints seconds
from the click to that moment, the clicks that were never answered, how evenly the sessions were served (the longest mean wait of a
session over the shortest), and the server's processor time, messages and memory; beside them a model step by itself, and the
recorded first page for a crowd. `--memory` says what is left of 50 sessions some minutes after they were closed.

The visitors share the machine with the server, and cost about a tenth of its processor time.
"""

import argparse
import asyncio
import os
import random
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from statistics import fmean, median, quantiles
from time import perf_counter
from urllib.parse import urlencode

from decoding.runs.visitors import new_key
from deploy.pace import LINGER
from tests.bench.pages import ROOT, wait_for_server
from tests.bench.tab import Closed, Tab

PATIENCE = 60.0  # seconds until a click counts as lost
START = 120.0  # seconds that the server may take to import torch and load the models
MOST_STEPS = 40  # of a session; a run of 256 tokens has more of them
MOST_SESSIONS = 200
LOOK = 0.25  # seconds between two looks at the server's memory
GOALS = {20: 2.0, 50: 5.0}  # sessions -> seconds, p95 from click to painted
HOME_GOAL = 1.0  # seconds, p95
PROMPTS = (
    "Once upon a time there was a little girl who lived near the forest. One day she",
    "Question: Tom has 12 apples and buys 7 more every day. How many apples does he have after 5 days?\nAnswer:",
    'import os\n\n\ndef read_lines(path):\n    """Return the lines of a file."""\n',
)


def main() -> None:
    options = arguments()
    mode = "public" if options.public else "local"
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {options.method}, {mode} mode")
    if options.memory:
        asyncio.run(memory(options))
        return
    if not options.no_model:
        print(f"A step of the model by itself: {1000 * alone(options.method):.0f} ms, median", flush=True)
    asyncio.run(levels(options))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sessions", default="1,10,20,50", help="how many at once, parted by commas")
    parser.add_argument("--steps", type=int, default=10, help=f"that each session takes, at most {MOST_STEPS}")
    parser.add_argument("--think", type=float, default=2.0, help="seconds from a painted step to the next click, on average")
    parser.add_argument("--seconds", type=float, default=180.0, help="after which no session of a level clicks any more")
    parser.add_argument("--method", default="speculative_sampling")
    parser.add_argument("--visitors", type=int, default=100, help="of the recorded page; 0: none")
    parser.add_argument("--arrival", type=float, default=30.0, help="seconds within which they come")
    parser.add_argument("--public", action="store_true", help="DRAFTSCOPE_MODE=public behind deploy/serve.py")
    parser.add_argument("--memory", action="store_true", help="what is left of the largest number of sessions")
    parser.add_argument("--wait", type=float, default=180.0, help="seconds after closing, with --memory")
    parser.add_argument("--no-model", action="store_true", help="leave out the step of the model by itself")
    options = parser.parse_args()
    options.sessions = [int(word) for word in options.sessions.split(",")]
    counts = (*options.sessions, options.visitors or 1)
    if not 0 < options.steps <= MOST_STEPS or not all(0 < count <= MOST_SESSIONS for count in counts):
        parser.error(f"1 to {MOST_STEPS} steps and 1 to {MOST_SESSIONS} sessions or visitors; {options.steps} and {counts} are not")
    return options


# -- the server ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Server:
    """The app as a process of its own."""

    address: str
    pid: int

    @property
    def megabytes(self) -> float:
        """Resident memory."""
        with open(f"/proc/{self.pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    @property
    def processor(self) -> float:
        """Seconds of processor time so far."""
        with open(f"/proc/{self.pid}/stat") as file:
            ticks = file.read().rpartition(")")[2].split()[11:13]
        return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


@contextmanager
def serving(public: bool, **environment: str) -> Iterator[Server]:
    """The app while the block runs, with an empty home; it is ended by its process id."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = "deploy/serve.py" if public else "app.py"
    command = [sys.executable, "-m", "streamlit", "run", program, "--server.port", str(port), "--server.address", "127.0.0.1",
               "--server.headless", "true"]  # fmt: skip
    with tempfile.TemporaryDirectory() as home:
        known = {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "DRAFTSCOPE_HOME": home}
        known |= {"DRAFTSCOPE_MODE": "public" if public else "local", "DRAFTSCOPE_LOG": os.devnull}
        process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | known | environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            wait_for_server(port)
            yield Server(f"http://127.0.0.1:{port}", process.pid)
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def alone(method: str, tokens: int = 128) -> float:
    """Seconds that a step takes with nobody else about: propose, read, judge and record; the median over the prompts."""
    import torch

    from decoding.models.family import load
    from decoding.runs.run import Run

    torch.set_num_threads(1)
    family, found = load("embedded", device="cpu"), []
    for seed, prompt in enumerate(PROMPTS):
        run = iter(Run(family, method, prompt=prompt, seed=seed, max_tokens=tokens, ignore_end=True))
        next(run)  # reads the prompt
        began = perf_counter()
        for _ in run:
            found.append(perf_counter() - began)
            began = perf_counter()
    return median(found)


# -- the visitors -------------------------------------------------------------------------------------------------------


@dataclass
class Level:
    """What so many sessions saw."""

    sessions: int
    opening: list[float] = field(default_factory=list)  # seconds until Step can be pressed, one per session
    waits: dict[int, list[float]] = field(default_factory=dict)  # session -> seconds from click to painted, one per step
    lost: int = 0  # clicks that were not answered, and sessions that could not begin
    complaints: list[str] = field(default_factory=list)
    seconds: float = 0  # from the first click to the last paint
    processor: float = 0  # seconds of the server meanwhile
    messages: int = 0
    megabytes: tuple[float, float, float] = (0, 0, 0)  # before, peak, after closing

    @property
    def clicks(self) -> list[float]:
        return [wait for waits in self.waits.values() for wait in waits]

    @property
    def uneven(self) -> float:
        """The longest mean wait of a session over the shortest; 1 is fair."""
        means = [fmean(waits) for waits in self.waits.values() if waits]
        return max(means) / min(means) if means else float("nan")

    @property
    def fewest(self) -> int:
        """Steps of the session that got the fewest."""
        return min((len(self.waits.get(i, ())) for i in range(self.sessions)), default=0)


def link(session: int, method: str) -> str:
    """The address of a run of its own for every session."""
    prompt = PROMPTS[session % len(PROMPTS)]
    return urlencode({"v": 1, "prompt": prompt, "method": method, "tokens": 256, "seed": session, "ignore_end": True})


async def ready(tab: Tab) -> float:
    """Open the page and wait until Step can be pressed; seconds.

    Raises:
        Closed: the server ended the connection.
        TimeoutError: it never came to that.
    """
    began = perf_counter()
    await tab.open()
    if not await tab.until(lambda: tab.runs and tab.stepper is not None and tab.stepper.data["more"], START):
        raise TimeoutError(f"Step could not be pressed within {START:.0f} s.")
    return perf_counter() - began


async def stepped(tab: Tab, number: int, patience: float = PATIENCE) -> float:
    """Press Step and wait until step `number` is painted; seconds.

    Raises:
        Closed, ValueError, TimeoutError: it never was.
    """
    began = perf_counter()
    await tab.ask()
    if not await tab.until(lambda: tab.shown == number, patience):
        raise TimeoutError(f"Step {number} was not painted within {patience:.0f} s; step {tab.shown} is shown.")
    return tab.shown_at - began


async def play(server: Server, sessions: int, steps: int, think: float, seconds: float, method: str) -> Level:
    """So many sessions open the page, step, and close it; nobody clicks before all are there."""
    level, before = Level(sessions), server.megabytes
    tabs = [Tab(server.address, "Step", link(i, method), new_key()) for i in range(sessions)]
    there = asyncio.Barrier(sessions + 1)
    peak = Peak(server)

    async def visit(number: int) -> None:
        chance, tab = random.Random(number), tabs[number]
        try:
            await asyncio.sleep(0.2 * number)  # people come one after another
            level.opening.append(await ready(tab))
        except (Closed, TimeoutError) as error:
            level.lost += 1
            level.complaints.append(f"session {number + 1}: {error}")
            await there.wait()
            return
        await there.wait()
        end = perf_counter() + seconds
        level.waits[number] = []
        for step in range(1, steps + 1):
            await asyncio.sleep(think * chance.uniform(0 if step == 1 else 0.5, 1.5))
            if perf_counter() > end:
                return
            try:
                level.waits[number].append(await stepped(tab, step))
            except (Closed, ValueError, TimeoutError) as error:
                level.lost += 1
                level.complaints.append(f"session {number + 1}, step {step}: {error}")
                return

    async with asyncio.TaskGroup() as group, peak:
        visits = [group.create_task(visit(i)) for i in range(sessions)]
        await there.wait()
        began, used = perf_counter(), server.processor
        told = sum(tab.messages for tab in tabs)
        await asyncio.gather(*visits)
        level.seconds, level.processor = perf_counter() - began, server.processor - used
        level.messages = sum(tab.messages for tab in tabs) - told
    level.complaints += [f"session {i + 1} shows {text}" for i, tab in enumerate(tabs) for text in tab.exceptions]
    await asyncio.gather(*(tab.close() for tab in tabs))
    await asyncio.sleep(3)
    level.megabytes = before, peak.megabytes, server.megabytes
    return level


class Peak:
    """The most memory that the server had while the block ran."""

    def __init__(self, server: Server) -> None:
        self.server, self.megabytes = server, server.megabytes

    async def __aenter__(self) -> "Peak":
        self._task = asyncio.create_task(self._look())
        return self

    async def __aexit__(self, *error: object) -> None:
        self._task.cancel()

    async def _look(self) -> None:
        with suppress(OSError):  # it is gone
            while True:
                self.megabytes = max(self.megabytes, self.server.megabytes)
                await asyncio.sleep(LOOK)


async def warm(server: Server, method: str) -> None:
    """A first visitor, for whom torch is imported and the models are loaded."""
    tab = Tab(server.address, "Step", link(0, method), new_key())
    await ready(tab)
    for number in (1, 2):
        await stepped(tab, number, START)
    await tab.close()


async def crowd(server: Server, visitors: int, arrival: float) -> list[float]:
    """Seconds from connecting until the first page stands with its picture; visitors come within `arrival` seconds, and stay."""
    chance = random.Random(0)
    await asyncio.sleep(LINGER + 1)  # who was here before counts for a moment more
    tabs = [Tab(server.address, visitor=new_key()) for _ in range(visitors)]

    async def visit(tab: Tab) -> float:
        await asyncio.sleep(chance.uniform(0, arrival))
        began = perf_counter()
        await tab.open()
        there = await tab.until(lambda: "lanes" in tab.charts and tab.runs, PATIENCE)
        return perf_counter() - began if there else PATIENCE

    found = await asyncio.gather(*map(visit, tabs))
    await asyncio.gather(*(tab.close() for tab in tabs))
    return found


# -- what is printed ----------------------------------------------------------------------------------------------------


async def levels(options: argparse.Namespace) -> None:
    with serving(options.public) as server:
        await warm(server, options.method)
        print(f"{options.steps} steps each, {options.think:g} s from a painted step to the next click")
        for number, sessions in enumerate(options.sessions):
            level = await play(server, sessions, options.steps, options.think, options.seconds, options.method)
            columns = row(level)
            if not number:
                print("  ".join(columns))
            print("  ".join(f"{value:>{len(name)}}" for name, value in columns.items()), verdict(level), flush=True)
            for complaint in level.complaints[:5]:
                print(f"    {complaint}")
        for arrival in (options.arrival, 0.0) if options.visitors else ():
            waits = await crowd(server, options.visitors, arrival)
            print(home_row(waits, arrival), flush=True)


def row(level: Level) -> dict[str, str]:
    """Columns of the table; times in seconds, memory in MB."""
    clicks, count = level.clicks or [float("nan")], max(1, len(level.clicks))
    found = {"sessions": f"{level.sessions}", "clicks": f"{len(level.clicks)}"}
    found |= {f"p{share}".rjust(5): f"{percentile(clicks, share):.2f}" for share in (50, 95, 99)}
    found |= {"worst": f"{max(clicks):.2f}", "lost": f"{level.lost}", "fewest": f"{level.fewest}", "uneven": f"{level.uneven:.2f}"}
    found |= {"clicks/s": f"{len(level.clicks) / max(level.seconds, 1e-9):.1f}"}
    found |= {"CPU/step": f"{level.processor / count:.3f}", "messages/step": f"{level.messages / count:.0f}"}
    return found | dict(zip(("MB before", " peak", "after"), (f"{size:.0f}" for size in level.megabytes), strict=True))


def verdict(level: Level) -> str:
    goal = GOALS.get(level.sessions)
    if goal is None:
        return ""
    met = level.clicks and percentile(level.clicks, 95) < goal and not level.lost
    return f" p95 < {goal:g} s, none lost: {'met' if met else 'MISSED'}"


def home_row(waits: list[float], arrival: float) -> str:
    p50, p95, p99 = (percentile(waits, share) for share in (50, 95, 99))
    how = f"within {arrival:g} s" if arrival else "all in one moment"
    said = f"   p95 < {HOME_GOAL:g} s: {'met' if p95 < HOME_GOAL else 'MISSED'}" if arrival else ""
    return f"Home, {len(waits)} visitors {how}: p50 {p50:.2f}, p95 {p95:.2f}, p99 {p99:.2f}, worst {max(waits):.2f} s{said}"


def percentile(values: list[float], share: int) -> float:
    return quantiles(values, n=100, method="inclusive")[share - 1] if len(values) > 1 else values[0]


async def memory(options: argparse.Namespace) -> None:
    """What sessions leave behind; the goal is within a tenth of before."""
    sessions = max(options.sessions)
    with serving(options.public) as server:
        await warm(server, options.method)
        await asyncio.sleep(5)
        level = await play(server, sessions, options.steps, options.think, options.seconds, options.method)
        before, peak, closed = level.megabytes
        print(f"before {before:.0f} MB, none of them lost: {not level.lost}")
        print(f"{sessions} sessions with {len(level.clicks)} steps: {peak:.0f} MB, {(peak - before) / sessions:.1f} MB each")
        print(f"all closed: {closed:.0f} MB", flush=True)
        await asyncio.sleep(options.wait)
        print(f"{options.wait:.0f} s later: {change(server, before)}", flush=True)
        await warm(server, options.method)
        print(f"after one more visitor: {change(server, before)}")


def change(server: Server, before: float) -> str:
    now = server.megabytes
    return f"{now:.0f} MB, {now / before - 1:+.0%}   within 10 %: {'met' if now < 1.1 * before else 'MISSED'}"


if __name__ == "__main__":
    main()
