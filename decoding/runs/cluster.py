"""Cluster: many machines, joined by Ray, each of them a worker with a family in memory. Ray is imported when one is asked for.

`draftscope --cluster ADDRESS` gives every GPU of the cluster, or without GPUs every node, a `Machine` (`decoding.runs.machine`).
The app holds a `Member` for each: with a line of its own (`decoding.runs.worker`), so that a machine takes one step at a time for
whoever had least of it, as the one device of an app without a cluster does. A visitor's runs stay on one member; the next visitor
of the same family gets the one that has the fewest visitors. A machine that dies is replaced by another one, on which its runs go
on (`decoding.runs.remote_run`).

Who can reach Ray's ports can run anything on all its machines, unless RAY_AUTH_MODE=token: docs/scale.md.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from threading import Lock, RLock
from time import monotonic
from typing import Any
from weakref import WeakKeyDictionary

from decoding.limits import limits
from decoding.models.progress import tell
from decoding.runs.line import Owner
from decoding.runs.log import log
from decoding.runs.orders import Answer, Doing, Models, Ready, decode, encode
from decoding.runs.remote_run import Lost, RemoteFamily, expected
from decoding.runs.worker import LOADS, Job, Live, Worker
from decoding.trace import SCHEMA

ADDRESS = "DRAFTSCOPE_CLUSTER"  # where the app finds it
FORM = re.compile(r"auto|local|(?:ray://)?(?P<host>[A-Za-z0-9.-]+):(?P<port>[0-9]{1,5})")
HANDED = ("DRAFTSCOPE_MODE", "DRAFTSCOPE_MODELS", "DRAFTSCOPE_MODEL_GB")  # what holds on every machine
REACH = 5.0  # seconds to reach a port
PATIENCE = 60.0  # seconds to join a cluster
START = 180.0  # seconds for a machine to start: a busy one takes its time over torch
LOOK = 0.5  # seconds until it is asked how far something is
AGAIN = 30.0  # seconds for which a cluster, or a machine, that could not be had is not asked again
STORE = 100 * 2**20  # bytes of shared memory: what is sent is small
GROUPS = {"steps": 1, "loads": LOADS, "looks": 2}  # threads of a machine
GROUP_OF = {"step": "steps", "begin": "loads", "known": "loads", "ready": "loads"}
TRIAL = "import ray, sys; ray.init(address=sys.argv[1], logging_level='ERROR', log_to_driver=False); ray.nodes()"


@dataclass(frozen=True)
class Maker:
    """What makes a job, on this machine or with runs on a member of a cluster."""

    models: Models
    make: Callable[[Member | None], Job]

    def __call__(self, member: Member | None = None) -> Job:
        return self.make(member)


# -- members ---------------------------------------------------------------------------------------------------------------


class Member:
    """One GPU or node of a cluster as the app sees it: the machine that is there now, and the line of those who wait for it.

    Args:
        create: starts a machine and returns the door to it (an actor of Ray).
    """

    def __init__(self, number: int, create: Callable[[], Any]) -> None:
        self.number = number
        self.machine = 1  # which one it is; counted up when one is lost
        self.models: Models | None = None  # that the last run here was asked for
        self.lives: WeakKeyDictionary[Live, Models] = WeakKeyDictionary()
        self.failed_at = -AGAIN
        self._create, self._actor = create, create()
        self._lock = RLock()
        self._starting = Lock()
        self._ready = False
        self._said = f"{self.name} was lost."  # of the last one that was

    @cached_property
    def worker(self) -> Worker:
        return Worker()

    @property
    def name(self) -> str:
        return f"Machine {self.number} of the cluster"

    def family(self, models: Models) -> RemoteFamily:
        return RemoteFamily(self, models)

    def live(self, maker: Callable[[Member], Job], models: Models, owner: Owner, group: Any) -> Live:
        """A job in this member's line, not begun yet."""
        found = self.worker.live(lambda: maker(self), owner, group)
        self.lives[found] = self.models = models
        return found

    def visitors(self, models: Models | None = None) -> set:
        """Whose jobs are here and not over; with `models`: those that are with this family."""
        return {live.owner.key for live, its in list(self.lives.items()) if not live.over and models in (None, its)}

    def start(self) -> int:
        """The number of the machine that is there, once it can be asked; ValueError or Lost if there is none."""
        while not self._starting.acquire(timeout=LOOK):
            self._say_start()
        try:
            if self._ready:
                return self.machine
            with self._lock:
                if self._actor is None:
                    self._actor = self._create()
                machine = self.machine
            try:
                found = expected(self.ask(machine, "ready", patience=START), Ready)
            except ValueError:
                self.failed_at = monotonic()
                raise
            if found.schema != SCHEMA:
                raise ValueError(f"{self.name} has another version of Draftscope: its traces are of schema {found.schema}.")
            self._ready = True
            return machine
        finally:
            self._starting.release()

    def ask(self, machine: int, what: str, *given: Any, patience: float | None = None) -> Answer:
        """Have a machine do something and wait for it, telling how far it is.

        Raises:
            Lost: that machine is gone, or gave no answer for `patience` seconds.
        """
        import ray
        from ray.exceptions import GetTimeoutError, RayError

        began = monotonic()
        actor = self._at(machine)
        try:
            asked = getattr(actor, what).options(concurrency_group=GROUP_OF[what]).remote(*given)
            while True:
                try:
                    return decode(ray.get(asked, timeout=LOOK), Answer)
                except GetTimeoutError:
                    if patience is not None and monotonic() - began > patience:
                        raise self._lost(machine, f"it gave no answer for {patience:g} seconds") from None
                    self._tell(actor, what, given)
        except RayError as error:
            raise self._lost(machine, last_words(error)) from error
        except BaseException:  # whoever listens wants it no more, or it is not what it should be
            if what == "begin":
                self.drop(machine, given[0])
            raise

    def _say_start(self) -> None:
        tell(f"starting machine {self.number} of the cluster")

    def _tell(self, actor: Any, what: str, given: tuple) -> None:
        """Say how far something is."""
        import ray

        if what == "ready":
            return self._say_start()
        now = decode(ray.get(actor.doing.options(concurrency_group="looks").remote(given[0])), Doing)
        if now.stage or what == "begin":
            tell(now.stage or "loading the models", now.done, now.total)

    def _at(self, machine: int) -> Any:
        with self._lock:
            if machine != self.machine or self._actor is None:
                raise Lost(self._said)
            return self._actor

    def _lost(self, machine: int, why: str) -> Lost:
        """What is to be said of a machine that is gone; another one takes its place. On a public server what Ray says of it goes to
        the log."""
        said = f"{self.name} was lost." if limits().public else f"{self.name} was lost: {why.rstrip('.')}."
        with self._lock:
            actor = self._actor if machine == self.machine else None
            if actor is not None:
                self._actor, self._ready, self._said = None, False, said
                self.machine += 1
        if actor is not None:
            log("machine lost", number=self.number, why=why)
            self._end(actor)
        return Lost(said)

    def drop(self, machine: int, job: str) -> None:
        """Have it forget a run; waits for nothing."""
        with suppress(Exception):  # a machine that is gone has forgotten all
            self._at(machine).drop.options(concurrency_group="looks").remote(job)

    def _end(self, actor: Any) -> None:
        import ray

        with suppress(Exception):  # it is gone already
            ray.kill(actor)


def last_words(error: BaseException) -> str:
    """The line of an error of Ray that says most; what a program raised stands last, what became of a process in front.

    >>> last_words(ValueError("The actor died.\\n\\tpid: 3\\nThe actor is dead because it was killed."))
    'The actor is dead because it was killed.'
    """
    lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith(("\t", " "))]
    return (lines[-1] if lines else type(error).__name__)[:300]


# -- the cluster -----------------------------------------------------------------------------------------------------------


class Cluster:
    """All members; there is one per process, as Ray has it.

    Raises:
        ValueError: there is no cluster at this address, or it has neither a GPU nor a free core.
    """

    def __init__(self, address: str) -> None:
        check(address)
        prepare_ray(address)
        import ray

        from decoding.runs.machine import Machine

        more = {"object_store_memory": STORE, "include_dashboard": False} if address == "local" else {}
        try:
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, **more)
        except Exception as error:
            raise ValueError(f"The cluster at {address!r} cannot be joined: {last_words(error)}") from error
        remote: Any = ray.remote
        made = remote(concurrency_groups=GROUPS, max_restarts=0)(Machine)
        given = encode({name: value for name in HANDED if (value := os.environ.get(name))})
        seats = seats_of(ray.nodes())
        if not seats:
            self.leave()
            raise ValueError(f"The cluster at {address!r} has neither a GPU nor a core to offer.")
        self.members = [Member(number + 1, create(made, seat, given)) for number, seat in enumerate(seats)]
        self._lock = Lock()
        log("cluster", machines=len(seats))

    def live(self, maker: Callable[[Member], Job], models: Models, owner: Owner, group: Any = None) -> Live:
        """A job with this family, in the line of the member that is best for it."""
        with self._lock:
            return best(self.members, models, owner).live(maker, models, owner, group)

    def families(self, models: Models) -> list[RemoteFamily]:
        """The family on every member."""
        return [member.family(models) for member in self.members]

    def leave(self) -> None:
        """End what was started here, its machines among it."""
        import ray

        ray.shutdown()


def best(members: Sequence[Member], models: Models, owner: Owner) -> Member:
    """Where a job goes: to its owner's others; else to whoever has this family, or has nothing to do; of those to the one with the
    fewest visitors. Where owners have a limit on what they do at once, all they do stays together, whatever the family."""

    def cost(member: Member) -> tuple:
        others = len(member.visitors() - {owner.key})
        here = owner.key in member.visitors(None if owner.at_once is not None else models)
        fits = member.models in (None, models) or not member.visitors()
        return monotonic() - member.failed_at < AGAIN, not here, not fits, others, member.models != models, member.number

    return min(members, key=cost)


def seats_of(nodes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What every machine takes: a GPU each; where there is none, all the cores of a node. The node is named by its id.

    >>> seats_of([{"NodeID": "a", "Alive": True, "Resources": {"CPU": 8.0, "GPU": 2.0}}, {"NodeID": "b", "Alive": False}])
    [{'num_gpus': 1, 'num_cpus': 0}, {'num_gpus': 1, 'num_cpus': 0}]
    """
    alive = [node for node in nodes if node.get("Alive")]
    gpus = sum(int(node["Resources"].get("GPU", 0)) for node in alive)
    if gpus:
        return [{"num_gpus": 1, "num_cpus": 0}] * gpus
    cores = {node["NodeID"]: int(node["Resources"].get("CPU", 0)) for node in alive}
    return [{"num_cpus": count, "node": node} for node, count in cores.items() if count]


def create(made: Any, seat: Mapping[str, Any], given: bytes) -> Callable[[], Any]:
    """What starts a machine on its seat."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    options = {name: value for name, value in seat.items() if name != "node"}
    if "node" in seat:  # a node that is gone for good is replaced by another one that has as many cores
        options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(seat["node"], soft=True)
    return lambda: made.options(**options).remote(given)


def prepare_ray(address: str) -> None:
    """What has to be said before Ray is imported: it tells nobody that it is used, and a cluster of this machine alone cannot be
    reached from others, nor by those who do not have its word."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")  # what is asked behind its end must not start another one
    if address == "local":
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # listen at 127.0.0.1 only
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def check(address: str) -> None:
    """Refuse what is no address of a cluster, and one where there is none (ValueError), within a minute or so. A port that is
    something else's can have Ray end its process: it is tried in another one."""
    form = FORM.fullmatch(address)
    if form is None or form["port"] and not 0 < int(form["port"]) < 65_536:
        raise ValueError(f"A cluster is given as local, auto, HOST:PORT or ray://HOST:PORT; it is {address!r}.")
    if importlib.util.find_spec("ray") is None:
        raise ValueError("Machines are joined by Ray, which is not installed: pip install 'draftscope[ray]'")
    if address == "local":
        return
    if form["host"]:
        try:
            socket.create_connection((form["host"], int(form["port"])), REACH).close()
        except OSError as error:
            raise ValueError(f"There is no cluster at {address!r}: {error.strerror or error}.") from error
    told = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}
    try:
        tried = subprocess.run([sys.executable, "-c", TRIAL, address], env=told, timeout=PATIENCE, capture_output=True, text=True)
    except subprocess.TimeoutExpired:
        raise ValueError(f"What is at {address!r} did not answer as a cluster does within {PATIENCE:g} seconds.") from None
    if tried.returncode:
        raise ValueError(f"There is no cluster at {address!r} that can be joined: {last_words(Exception(tried.stderr))}")


_lock = Lock()
_joined: list[Cluster] = []
_problem: tuple[float, str] = (-AGAIN, "")  # when it could not be joined, and why


def asked_for() -> str:
    """The address of the cluster that this process is to use; "" for none."""
    return os.environ.get(ADDRESS, "").strip()


def cluster() -> Cluster:
    """The one that is asked for, joined when it is first wanted; ValueError if it cannot be."""
    global _problem
    with _lock:
        if not _joined:
            if monotonic() - _problem[0] < AGAIN:
                raise ValueError(_problem[1])
            try:
                _joined.append(Cluster(asked_for()))
            except ValueError as error:
                _problem = monotonic(), str(error)
                raise
        return _joined[0]
