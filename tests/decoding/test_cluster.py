"""Runs on the machines of a cluster: the same traces, two machines side by side, and what becomes of a machine that dies.

The cluster is one of two nodes on this machine, joined by Ray, with a processor each; it listens at 127.0.0.1 alone.
"""

import gc
import importlib.util
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace

import msgspec
import pytest

from decoding.checks import Quoted
from decoding.models.progress import Progress
from decoding.runs import cluster as module
from decoding.runs import evaluate as program
from decoding.runs.cluster import Cluster, Member, best, check, last_words, seats_of
from decoding.runs.failures import Elsewhere, words
from decoding.runs.line import Owner
from decoding.runs.machine import Machine
from decoding.runs.many import merged
from decoding.runs.orders import Answer, Begun, Failed, Order, Over, Taken, decode, encode
from decoding.runs.prompts import Prompt
from decoding.runs.remote_run import Lost, RemoteRun, committed, expected, rest, seed_behind
from decoding.runs.run import Run
from decoding.runs.store import Store
from decoding.runs.study import Plan, Study, results
from decoding.runs.worker import Again, Live
from decoding.sample import Sampling
from decoding.score_names import WENT_ON
from decoding.trace import SamplingData, Times, Trace
from pages.parts.drafter.controller import Job, StudyController
from pages.parts.shared.session import Session
from pages.parts.shared.settings import Settings
from tests.conftest import ROOT, eventually

WHY = "Ray, which joins the machines, is not installed: pip install -r tests/requirements.txt"
pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason=WHY)  # not imported: the fixture says things before

FOREVER = float("inf")
EMBEDDED = ("embedded", None, "cpu", "auto")
ASKED = {"prompt": "Once upon a time", "seed": 3, "max_tokens": 24}
MEMORY = 100 * 2**20  # bytes that a node's store of objects may take
OWN = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token"}


@pytest.fixture(scope="module")
def machines(tmp_path_factory):
    """The two machines; all that was started ends with the tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (OWN | {"RAY_AUTH_TOKEN": "0" * 64, "OMP_NUM_THREADS": "1"}).items():
            patch.setenv(name, value)
        import ray
        from ray.cluster_utils import Cluster as Nodes

        node = {"num_cpus": 1, "object_store_memory": MEMORY, "include_dashboard": False, "node_ip_address": "127.0.0.1"}
        nodes = Nodes(initialize_head=True, head_node_args=node)
        try:
            nodes.add_node(**node)
            joined = Cluster(nodes.address)
            yield joined
        finally:
            ray.shutdown()
            nodes.shutdown()


def without_times(trace: Trace) -> Trace:
    """What two runs of the same seed have in common."""
    steps = tuple(msgspec.structs.replace(step, times=Times(0, 0, 0, 0)) for step in trace.steps)
    return msgspec.structs.replace(trace, steps=steps)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("method", ["speculative_sampling", "token_recycling", "eagle"])
def test_a_run_on_a_machine_has_the_trace_of_a_run_here(machines, embedded, method, temperature):
    given = ASKED | {"sampling": Sampling(temperature)}
    here = Run(embedded, method, **given)
    steps = list(here)
    there = machines.members[0].family(EMBEDDED).run(method, **given)
    assert list(there) == there.steps and there.ended and len(there.steps) == len(steps)
    assert without_times(there.trace) == without_times(here.trace) and there.text == here.text


def test_a_step_crosses_as_plain_data_and_one_that_cannot_be_is_refused(machines, embedded):
    """MessagePack of the trace's own types: who sends something else is not believed."""
    step = next(Run(embedded, "speculative_sampling", **ASKED))
    assert decode(encode(Taken(step, {1: b"a"})), Taken) == Taken(step, {1: b"a"})
    with pytest.raises(ValueError, match="cannot be"):
        decode(encode(Taken(msgspec.structs.replace(step, path=(99,)), {})), Taken)
    with pytest.raises(ValueError, match="cannot be read"):
        decode(b"\x80\x04.", Taken)


def test_what_is_wrong_with_a_run_is_said_as_it_is_here(machines, embedded):
    for wrong in ({"prompt": " "}, {"params": {"length": 0}}, {"max_tokens": 0}, {"stop": ["no token at all"]}):
        given = {"method": "speculative_sampling"} | ASKED | wrong
        with pytest.raises(ValueError) as here:
            Run(embedded, **given)
        with pytest.raises(ValueError) as there:
            machines.members[0].family(EMBEDDED).run(**given)
        assert str(there.value) == str(here.value)


def test_two_visitors_go_to_two_machines_and_one_visitor_stays_on_one(machines):
    def make(member):
        return member.family(EMBEDDED).run("plain", **ASKED)

    lives = [machines.live(make, EMBEDDED, Owner(name)) for name in ("ann", "ben", "ann", "ben")]
    for live in lives:
        live.ask(4)
    eventually(lambda: all(live.count == 4 for live in lives), "a run got no steps")
    homes = [next(member.number for member in machines.members if live in member.lives) for live in lives]
    assert homes[0] != homes[1] and homes[:2] == homes[2:]
    for live in lives:
        live.close()


def test_a_long_run_holds_up_another_on_the_same_machine_for_a_step_at_most(machines, monkeypatch):
    member, turns, turn = machines.members[0], [], Live.turn

    def noted(live):
        turn(live)
        turns.append(live)

    monkeypatch.setattr(Live, "turn", noted)
    long, short = (member.live(lambda m: m.family(EMBEDDED).run("plain", **ASKED | {"max_tokens": 400}), EMBEDDED, Owner(n), None)
                   for n in "ab")  # fmt: skip
    long.ask(FOREVER)
    eventually(lambda: long.count >= 5, "the long run does not begin")
    short.ask(5)
    eventually(lambda: turns.count(short) == 5, "the short run is held up")
    long.close()
    at = [i for i, live in enumerate(turns) if live is short]
    assert turns[at[0] : at[-1]].count(long) <= 2 * 4 + 2
    short.close()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_machine_that_dies_is_replaced_and_its_runs_go_on(machines, embedded, temperature):
    """With a sentence, from the committed text; the text of a greedy run is what it would have been; nobody else notices."""
    import ray

    given = ASKED | {"sampling": Sampling(temperature)}
    lives = [member.live(lambda m: m.family(EMBEDDED).run("speculative_sampling", **given), EMBEDDED, Owner(member.number), None)
             for member in machines.members]  # fmt: skip
    for live in lives:
        live.ask(2)
    eventually(lambda: all(live.count == 2 for live in lives), "the runs do not begin")
    before = committed(lives[0].run.steps)
    ray.kill(machines.members[0]._actor)
    for live in lives:
        live.ask(FOREVER)
    eventually(lambda: all(live.over for live in lives), "a run does not end")
    assert [live.state for live in lives] == ["ended", "ended"], [live.problem for live in lives]
    hurt, whole = (live.run for live in lives)
    here = Run(embedded, "speculative_sampling", **given)
    list(here)
    assert without_times(whole.trace) == without_times(here.trace) and whole.notes == here.notes
    assert hurt.steps[2].facts[WENT_ON] == len(before) and committed(hurt.steps)[: len(before)] == before
    assert [WENT_ON in step.facts for step in hurt.steps].count(True) == 1 and len(committed(hurt.steps)) == 24
    assert "Machine 1 of the cluster was lost: " in hurt.notes[-1] and f"from its {len(before)} tokens" in hurt.notes[-1]
    if temperature == 0:
        assert hurt.text == here.text
    else:
        again = Run(embedded, "speculative_sampling", prompt=[*here.header.prompt_tokens, *before], sampling=Sampling(1.0),
                    seed=seed_behind(3, len(before)), max_tokens=24 - len(before))  # fmt: skip
        list(again)
        assert committed(hurt.steps) == before + committed(again.steps)


def test_a_lossy_run_ends_with_its_machine_and_says_so(machines):
    import ray

    live = machines.members[1].live(lambda m: m.family(EMBEDDED).run("judge", **ASKED), EMBEDDED, Owner("c"), None)
    live.ask(1)
    eventually(lambda: live.count == 1, "the run does not begin")
    ray.kill(machines.members[1]._actor)
    live.ask(1)
    eventually(lambda: live.over, "the run does not end")
    assert live.state == "failed" and "lossy" in live.problem and "Machine 2" in live.problem
    assert list(machines.members[1].family(EMBEDDED).run("judge", **ASKED))  # it was started again


class Failing:
    """A member whose machine dies in every step from number `good` on."""

    machine = 1

    def __init__(self, run: Run, good: int) -> None:
        self.run, self.good, self.asked = run, good, []

    def start(self) -> int:
        return self.machine

    def ask(self, machine, what, *given):
        self.asked.append(what)
        if machine != self.machine:
            raise Lost("Another run found it dead.")
        if what == "begin":
            return Begun(self.run.header, self.run.token_bytes, ())
        if len(self.run.steps) == self.good:
            self.machine += 1
            raise Lost("It died.")
        return Taken(next(self.run), self.run.token_bytes)

    def drop(self, machine, job):
        self.asked.append("drop")


def order(**more) -> Order:
    given = {"models": EMBEDDED, "method": "plain", "params": {}, "sampling": SamplingData(1.0, 0, 1.0), "seed": 0, "max_tokens": 9}
    return Order(**given | more)


def test_a_step_that_kills_machine_after_machine_ends_its_run(embedded):
    """A step that takes more memory than there is must not kill every machine in turn for ever."""
    member = Failing(Run(embedded, "plain", **ASKED), good=1)
    run = RemoteRun(member, order())
    next(run)
    with pytest.raises(Again, match="goes on from its 1 token"):
        next(run)
    assert run.unready
    with pytest.raises(ValueError, match="in the same step before"):
        next(run)
    run.let_go()
    assert member.asked == ["begin", "step", "step", "begin", "step", "drop"] and next(run, None) is None


def test_a_machine_that_another_run_found_dead_is_said_too(embedded):
    """A run that went on in silence would be one that its method and its seed do not give."""
    member = Failing(Run(embedded, "plain", **ASKED), good=9)
    lossless, lossy = RemoteRun(member, order()), RemoteRun(member, order(method="judge"))
    for run in (lossless, lossy):
        next(run)
    member.machine += 1
    assert not lossless.unready
    with pytest.raises(Again, match="goes on from its 1 token"):
        next(lossless)
    assert lossless.unready and "found it dead" in lossless.notes[-1]
    assert next(lossless).facts[WENT_ON] == 1 and not lossless.unready
    with pytest.raises(Lost, match="lossy"):
        next(lossy)


def test_a_run_that_nobody_looks_at_any_more_is_dropped_there(embedded):
    """A page forgets its runs without a word; the machine must not keep them."""
    member = Failing(Run(embedded, "plain", **ASKED), good=9)
    run = RemoteRun(member, order())
    next(run)
    del run
    gc.collect()
    assert member.asked == ["begin", "step", "drop"]


def test_what_is_left_of_a_run_has_the_rest_of_its_tokens_and_another_seed(embedded):
    """With the seed of the run the uniforms that drew its text would come again."""
    run = Run(embedded, "plain", **ASKED)
    steps = [next(run) for _ in range(4)]
    found = rest(order(seed=3, text="Once"), (7, 8), steps)
    assert found.tokens == (7, 8, *committed(steps)) and found.max_tokens == 5 and not found.text
    assert found.seed == seed_behind(3, 4) != seed_behind(3, 5) and found.seed != 3
    assert rest(order(text="Once"), (7, 8), []) == order(text="Once")


# -- pages ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def on_the_cluster(machines, monkeypatch):
    """Pages have their runs made there."""
    monkeypatch.setenv(module.ADDRESS, "local")
    monkeypatch.setattr(module, "_joined", [machines])
    return machines


def test_pages_have_their_runs_made_on_the_cluster(on_the_cluster, embedded):
    """A session steps as ever; what its run is asked for beside goes where the run is."""
    settings = Settings(target="embedded", device="cpu", method="plain", temperature=0.0, max_tokens=8)
    session = Session()
    session.start(settings)
    eventually(lambda: session.sync() or session.count == 1, session.problem or "no step came")
    assert isinstance(session.live.run, RemoteRun)
    session.run_to_end(settings)
    eventually(lambda: session.sync() or session.ended, session.problem or "the run did not end")
    here = settings.maker()()
    list(here)
    assert session.trace.text_bytes() == here.trace.text_bytes()
    session.start(replace(settings, prompt=" "))
    assert "empty" in session.problem
    session.close()


def test_the_studies_of_a_page_are_made_on_the_cluster(on_the_cluster, tmp_path):
    settings = Settings(target="embedded", device="cpu", method="plain", max_tokens=4)
    plan = Plan("embedded", "plain", (Prompt("Once", "a"), Prompt("Tom", "a")), max_tokens=4)
    desk = StudyController()
    desk.start([Job("A", settings, plan, plan.key)], Store(tmp_path))
    eventually(lambda: desk.live.over, "the study does not end")
    assert desk.live.state == "ended" and len(results(Store(tmp_path), plan)) == 2
    assert [member.number for member in on_the_cluster.members if desk.live in member.lives]


def test_a_cluster_that_is_gone_is_said_on_the_page(monkeypatch):
    monkeypatch.setenv(module.ADDRESS, "nonsense")
    monkeypatch.setattr(module, "_joined", [])
    session = Session()
    session.start(Settings(target="embedded"))
    assert "'nonsense'" in session.problem and session.coming is None


def test_the_limits_of_a_public_server_hold_on_its_machines(monkeypatch):
    monkeypatch.setenv("DRAFTSCOPE_MODE", "local")  # put back when the test is over, whatever the machine says
    machine = Machine(encode({"DRAFTSCOPE_MODE": "public"}))
    said = decode(machine.begin("a", encode(order(models=("embedded", None, "auto", "auto"), text="Once", max_tokens=300))), Failed)
    assert said.kind == "quoted" and "at most 256 tokens" in said.said
    said = decode(machine.begin("b", encode(order(models=("/etc", None, "auto", "auto"), text="Once"))), Failed)
    assert "offers the models embedded" in said.said


def test_a_machine_forgets_what_nobody_wants(embedded):
    """A run that is dropped while it is made is not kept, and its making ends at the next word of its progress."""
    machine = Machine(encode({}))
    asked = encode(order(text="Once"))
    assert isinstance(decode(machine.begin("a", asked), Answer), Begun) and machine._runs
    run = machine._runs["a"]
    machine.drop("a")
    assert not machine._runs and run.family is None
    machine._doing["b"] = Progress("")
    machine.drop("b")
    with pytest.raises(ValueError, match="was closed"):
        machine._note("b", Progress("loading"))
    assert isinstance(decode(machine.step("a"), Answer), Failed)


# -- evaluation and studies -------------------------------------------------------------------------------------------------


def test_an_evaluation_on_two_machines_is_stopped_and_goes_on(machines, embedded, tmp_path):
    """With the numbers of one machine, and no run made twice."""
    prompts = {"few": [Prompt("Once upon a time", "few"), Prompt("The old woman", "few"), Prompt("Tom and his", "few")]}
    both, alone = tmp_path / "both.csv", tmp_path / "alone.csv"
    places = machines.families(EMBEDDED)
    left = iter(range(2))

    def stop_soon(rows, result, append=program.append):
        append(rows, result)
        if next(left, None) is None:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program, "append", stop_soon)
        with pytest.raises(KeyboardInterrupt):
            program.evaluate(places, ["plain", "token_recycling"], 6, both, prompts)
    first = program.read(both)
    assert len(first) == 3
    assert program.evaluate(places, ["plain", "token_recycling"], 6, both, prompts) == {}
    assert program.evaluate(embedded, ["plain", "token_recycling"], 6, alone, prompts) == {}
    assert program.read(both)[:3] == first and counted(program.read(both)) == counted(program.read(alone))


def counted(rows) -> list:
    """What does not depend on the machine."""
    return sorted((*row.key, row.tokens, row.target_calls, row.drafted, row.accepted) for row in rows)


def test_a_study_on_two_machines_keeps_what_one_on_one_keeps(machines, embedded, tmp_path):
    prompts = tuple(Prompt(text, "typed") for text in ("Once upon a time", "Tom and his", "word " * 3000, "The old woman"))
    plan = Plan("embedded", "token_recycling", prompts, sampling=Sampling(1.0), max_tokens=6)
    begun: set[int] = set()
    studies = [Study(place, plan, Store(tmp_path / "both"), begun) for place in machines.families(EMBEDDED)]
    for count, _ in enumerate(merged(studies)):
        if count == 2:
            break  # stopped in the middle
    begun = set()
    studies = [Study(place, plan, Store(tmp_path / "both"), begun) for place in machines.families(EMBEDDED)]
    list(merged(studies))
    list(Study(embedded, plan, Store(tmp_path / "alone")))
    both, alone = (results(Store(tmp_path / name), plan) for name in ("both", "alone"))
    assert [(number, without_times(trace)) for number, _, _, trace in both] == [
        (number, without_times(trace)) for number, _, _, trace in alone
    ]
    assert [number for number, *_ in both] == [0, 1, 3]
    assert ["context holds" in why for one in studies for why in one.problems.values()] == [True]


# -- without Ray, or a cluster ----------------------------------------------------------------------------------------------


def member(number: int, **owners) -> Member:
    """A member without a machine, and who is there with which family."""

    class Standing:
        over = False

        def __init__(self, key):
            self.owner = Owner(key)

    made = Member(number, lambda: None)
    made.held = [Standing(key) for key in owners]  # a weak dictionary forgets what nobody holds
    for live, models in zip(made.held, owners.values(), strict=True):
        made.lives[live] = made.models = models
    return made


A, B = EMBEDDED, ("smollm2", None, "auto", "auto")
PLACED = {
    "an idle machine that has the family": ([{"x": A}, {}], A, "y", None, 2),
    "one's own machine": ([{"x": A}, {}], A, "x", None, 1),
    "the machine of the family with the fewest visitors": ([{"x": A, "y": A}, {"z": A}], A, "w", None, 2),
    "an idle machine for another family": ([{"x": A}, {}], B, "x", None, 2),
    "no machine with another family if there is one with this": ([{"x": B}, {"y": A, "z": A}], A, "w", None, 2),
    "all of an owner with a limit on one machine": ([{"x": A}, {}], B, "x", 2, 1),
}


@pytest.mark.parametrize("there, models, key, at_once, wanted", PLACED.values(), ids=PLACED)
def test_where_a_job_goes(there, models, key, at_once, wanted):
    members = [member(number + 1, **owners) for number, owners in enumerate(there)]
    assert best(members, models, Owner(key, at_once)).number == wanted


def test_a_machine_that_did_not_start_is_passed_over_for_a_while():
    members = [member(1), member(2)]
    members[0].failed_at = time.monotonic()
    assert best(members, A, Owner("x")).number == 2


def test_without_gpus_every_node_is_a_machine_of_all_its_cores():
    nodes = [{"NodeID": name, "Alive": name != "gone", "Resources": {"CPU": cores}} for name, cores in
             (("a", 4.0), ("gone", 2.0), ("b", 1.0), ("empty", 0.0))]  # fmt: skip
    assert seats_of(nodes) == [{"num_cpus": 4, "node": "a"}, {"num_cpus": 1, "node": "b"}]


@pytest.mark.parametrize("address", ["", "here", "host", "host:", "host:0", "host:65536", "http://host:1", "ray://host", "a b:1"])
def test_what_is_no_address_is_refused_with_it(address):
    with pytest.raises(ValueError) as error:
        check(address)
    assert repr(address) in str(error.value)


def test_an_address_with_no_cluster_is_refused_in_time(monkeypatch):
    """Nothing listens there; or something that is no cluster, of which Ray itself would never be done waiting."""
    monkeypatch.setattr(module, "PATIENCE", 5.0)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ValueError, match=f"no cluster at '{address}'"):
            check(address)
        silent.listen()
        with pytest.raises(ValueError, match=address):
            check(address)


def test_what_ray_says_last_is_what_is_told():
    assert last_words(ValueError("Traceback\n  File x\nModuleNotFoundError: No module named 'decoding'")).startswith("ModuleNot")


def test_nothing_of_ray_is_imported_without_a_cluster():
    script = """
import sys
from decoding.runs import cluster, evaluate, machine, many, study_program, worker
from decoding import command_line
from pages.parts.shared import loading, runs, settings
assert not cluster.asked_for()
found = settings.Settings().maker()()
next(found)
assert not [name for name in sys.modules if name == "ray" or name.startswith("ray.")]
"""
    env = {name: value for name, value in os.environ.items() if name != module.ADDRESS}
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=env, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_failure_elsewhere_keeps_its_kind():
    for kind, wanted in (("refused", ValueError), ("quoted", Quoted), ("broken", Elsewhere)):
        with pytest.raises(wanted, match="so it is") as error:
            expected(Failed("so it is", kind), Over)
        assert type(error.value) is wanted and words(error.value) == "so it is"
