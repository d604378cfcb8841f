"""What goes wrong with a machine: the run says so in a sentence, the next one works, and the memory comes back.

Memory is looked for by weak references: what a run made is gone once it has failed.
"""

import gc
import shutil
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from decoding.models import family as opening
from decoding.models import family_cache
from decoding.models.family import Family, load
from decoding.runs import worker as module
from decoding.runs.run import Run
from decoding.runs.worker import Live, Once, Worker
from tests.conftest import eventually
from tests.decoding.test_worker import FOREVER, PATIENCE, caches, failing, gated, gone, holding, log, one_worker, real
from tests.toys import GREEDY

__all__ = ["gated", "log", "one_worker"]  # fixtures

FAULTS = {
    "raises": (lambda: RuntimeError("mat1 and mat2 shapes cannot be multiplied"), "The step failed: RuntimeError: mat1 and mat2"),
    "device": (lambda: torch.OutOfMemoryError("CUDA out of memory. Tried 20 GiB"), "The device is out of memory. Lower"),
    "machine": (MemoryError, "This machine is out of memory. Lower"),
}


def said(live: Live) -> str:
    live.wait(PATIENCE)
    assert live.state == "failed", live.state
    return live.problem


def works(worker: Worker, family: Family) -> None:
    """The next run does what it does alone."""
    live, alone = worker.live(real(family, seed=3)), real(family, seed=3)()
    live.ask(FOREVER)
    live.wait(PATIENCE)
    assert live.state == "ended" and [step.tokens for step in live.trace.steps] == [step.tokens for step in alone]


@contextmanager
def breaking(model: torch.nn.Module, error: Callable[[], BaseException], after: int) -> Iterator[list]:
    """While the block runs, a model raises in every call behind so many; what its calls had in their hands is in the list."""
    held: list[weakref.ref] = []

    def before(_, args: tuple, kwargs: dict) -> None:
        held.append(weakref.ref(torch.ones(8)))
        scratch = torch.ones(1000)  # as a step has, when the next allocation fails
        if len(held) > after:
            held[-1] = weakref.ref(scratch)
            raise error()

    handle = model.register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield held
    finally:
        handle.remove()


# -- a step -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", FAULTS)
def test_a_step_that_breaks(one_worker, llama, fault, monkeypatch):
    """Its model, its cache, its generator and what the step held are gone when the failure can be seen; its trace is not."""
    error, sentence = FAULTS[fault]
    before, trimmed = caches(llama), []
    family = replace(llama)
    kept = [weakref.ref(family)]
    monkeypatch.setattr(module.memory, "SOON", 0.0)
    monkeypatch.setattr(module.memory, "trim", lambda: trimmed.append([one() is None for one in kept[2:]]))

    def make(families: list[Family]) -> Callable[[], Run]:
        def made() -> Run:
            run = Run(families.pop(), "token_recycling", prompt="the cat", sampling=GREEDY, max_tokens=12)
            kept.append(weakref.ref(run._decode))
            return run

        return made

    live = one_worker.live(make([family]))
    live.ask(2)
    live.wait(PATIENCE)
    assert live.count == 2
    kept += [cache for cache in caches(llama) if cache not in before]
    del family
    with breaking(llama.target.model, error, 0) as held:
        live.ask()
        assert said(live).startswith(sentence)
        assert held[-1]() is None  # without a collection: nothing holds the error
    kept += held
    eventually(lambda: gone(kept[0], *kept[2:]), "the failed step is still held")
    assert live.count == 2 and len(live.trace.steps) == 2
    eventually(lambda: trimmed, "what was freed is not given back")
    works(one_worker, llama)


def test_a_prompt_that_does_not_fit_into_memory(one_worker, llama):
    """The first call of all reads the prompt."""
    with breaking(llama.target.model, FAULTS["machine"][0], 0):
        live = one_worker.live(real(llama))
        live.ask()
        assert said(live).startswith(FAULTS["machine"][1])
    assert live.count == 0 and live.trace.steps == ()
    works(one_worker, llama)


def test_a_step_that_breaks_holds_up_none_of_those_in_line(one_worker, llama):
    lives = [one_worker.live(real(llama)) for _ in range(3)]
    broken = [one_worker.live(lambda error=error: Once(failing(error()))) for error, _ in FAULTS.values()]
    for live in (*broken, *lives):
        live.ask(FOREVER)
    assert [said(live).startswith(sentence) for live, (_, sentence) in zip(broken, FAULTS.values(), strict=True)] == [True] * 3
    for live in lives:
        live.wait(PATIENCE)
        assert live.state == "ended"


# -- the making ---------------------------------------------------------------------------------------------------------


# Who opens the weights says each fault in other words; what breaks behind that is told apart in one place, wherever it comes from.
OPENING = [("open_weights", fault) for fault in FAULTS]
BREAKS = [*OPENING, ("check_tree_reading", "device"), ("fitted", "raises"), ("fitted", "machine")]


@pytest.mark.parametrize("where, fault", BREAKS)
def test_a_load_that_breaks(one_worker, llama, folders, fault, where, monkeypatch):
    """While the weights are read, in the self-test, and with both models in memory."""
    error, sentence = FAULTS[fault]
    if where == "open_weights":
        said_of = {
            "raises": "cannot be opened: mat1",
            "device": "does not fit into the memory that",
            "machine": "does not fit into",
        }
        sentence = f"The model {folders('llama')!r} {said_of[fault]}"
    models: list[weakref.ref] = []
    original, weights = getattr(opening, where), opening.open_weights

    def broken(*args, **kwargs):
        original(*args, **kwargs)
        raise error()

    def opened(*args, **kwargs):
        found = weights(*args, **kwargs)
        models.append(weakref.ref(found[0]))
        return found

    monkeypatch.setattr(opening, "open_weights", opened)
    if where != "open_weights":
        monkeypatch.setattr(opening, where, broken)
    else:
        monkeypatch.setattr(opening, where, lambda *args, **kwargs: (opened(*args, **kwargs), failing(error())()))
    family_cache.free_others()
    names = (folders("llama"), folders("llama"), "cpu", "float32")
    live = one_worker.live(lambda: Run(family_cache.family(*names), "plain", prompt="the cat"))
    live.ask()
    assert said(live).startswith(sentence) and live.run is None and models
    eventually(lambda: gone(*models), "the weights are still held")
    works(one_worker, llama)
    monkeypatch.undo()
    again = one_worker.live(lambda: Run(family_cache.family(*names), "plain", prompt="the cat", max_tokens=2))
    again.ask(FOREVER)
    again.wait(PATIENCE)
    assert again.state == "ended"


def test_a_machine_without_a_thread_left(one_worker, llama, monkeypatch):
    class Threadless:
        def __init__(self, **_) -> None: ...

        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr(module, "Thread", Threadless)
    live = one_worker.live(real(llama))
    live.ask()
    assert "can't start new thread" in said(live)
    monkeypatch.undo()
    works(one_worker, llama)


# -- folders ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def copied(folders, tmp_path) -> Path:
    """A model of the test's own."""
    return Path(shutil.copytree(folders("llama"), tmp_path / "model"))


@pytest.mark.parametrize("moment", ["open_config", "check_architecture", "check_memory", "open_weights"])
def test_a_model_folder_that_vanishes(one_worker, llama, copied, moment, monkeypatch):
    """Between the trial of the model and any look at it after that."""
    original = getattr(opening, moment)

    def vanish(*args, **kwargs):
        shutil.rmtree(copied, ignore_errors=True)
        return original(*args, **kwargs)

    monkeypatch.setattr(opening, moment, vanish)
    live = one_worker.live(lambda: Run(load(str(copied), device="cpu"), "plain", prompt="the cat"))
    live.ask()
    assert "model" in said(live) and "cannot be opened" in live.problem
    assert live.problem.endswith(".") and "Traceback" not in live.problem
    works(one_worker, llama)


def test_weights_that_vanish_while_a_run_has_them_do_not_matter(one_worker, copied):
    live = one_worker.live(lambda: Run(load(str(copied), device="cpu"), "plain", prompt="the cat", max_tokens=6, ignore_end=True))
    live.ask(2)
    live.wait(PATIENCE)
    shutil.rmtree(copied)
    live.ask(FOREVER)
    live.wait(PATIENCE)
    assert live.state == "ended" and live.count == 6


def in_the_way(cache: Path) -> None:
    cache.write_text("a file")


def rubbish(cache: Path) -> None:
    for name in ("heads", "datastores", "models"):
        cache.joinpath(name).mkdir(parents=True)
        cache.joinpath(name, "rubbish").write_bytes(b"\x00\xff" * 100)


def files_in_place_of_folders(cache: Path) -> None:
    cache.mkdir()
    for name in ("heads", "datastores", "models"):
        cache.joinpath(name).write_bytes(b"\x00\xff" * 100)


CORRUPT = (in_the_way, rubbish, files_in_place_of_folders)


@pytest.mark.parametrize("corrupt", CORRUPT, ids=lambda corrupt: corrupt.__name__)
@pytest.mark.parametrize("method", ["plain", "rest", "medusa"])
def test_a_corrupt_cache_folder(one_worker, llama, embedded, method, corrupt, tmp_path, monkeypatch):
    """What needs nothing of it works; what does says what is wrong, or makes anew what is there."""
    corrupt(tmp_path / "cache")
    monkeypatch.setenv("DRAFTSCOPE_CACHE", str(tmp_path / "cache"))
    live = one_worker.live(lambda: Run(embedded, method, prompt="Once upon a time", max_tokens=3))
    live.ask(FOREVER)
    live.wait(PATIENCE)
    if live.state == "failed":
        assert method == "rest" and corrupt is not rubbish
        assert "The datastore cannot be kept in" in live.problem and "Set DRAFTSCOPE_CACHE" in live.problem
    else:
        assert live.state == "ended"
    works(one_worker, llama)


@pytest.mark.parametrize("name", ["smollm2", "org/model", "x.gguf"])
def test_a_model_from_a_corrupt_cache_folder(one_worker, llama, name, tmp_path, monkeypatch):
    for corrupt in CORRUPT:
        cache = tmp_path / corrupt.__name__
        corrupt(cache)
        monkeypatch.setenv("DRAFTSCOPE_CACHE", str(cache))
        live = one_worker.live(lambda: Run(load(name, device="cpu"), "plain", prompt="Once"))
        live.ask()
        assert not said(live).startswith("The step failed") and live.problem.endswith((".", name))
    works(one_worker, llama)


# -- the thread ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [SystemExit(), KeyError("account"), MemoryError()], ids=lambda error: type(error).__name__)
def test_a_worker_that_breaks_around_a_step(one_worker, llama, gated, error, monkeypatch):
    """The run it was at says so, and those who stand in line need not ask again."""
    _, first = holding(one_worker, gated)
    family, families = replace(llama), []
    families.append(family)
    kept = weakref.ref(family)
    lost, sound = one_worker.live(lambda: real(families.pop())()), one_worker.live(real(llama))
    monkeypatch.setattr(lost, "turn", failing(error))
    del family
    lost.ask()
    sound.ask(FOREVER)
    first.let(1)
    assert "The worker broke off in the middle of this step" in said(lost)
    sound.wait(PATIENCE)
    assert sound.state == "ended" and one_worker._thread.is_alive()
    eventually(lambda: gone(kept), "the models are still held")
    works(one_worker, llama)


def test_a_worker_whose_thread_is_dead_is_replaced(one_worker, llama, monkeypatch):
    """Whatever could end it: the next who asks has it started again."""

    class Dead:
        def is_alive(self) -> bool:
            return False

    with one_worker.changed:
        monkeypatch.setattr(one_worker, "_thread", Dead())
        live = one_worker.live(real(llama))
        live.ask(FOREVER)
    live.wait(PATIENCE)
    assert live.state == "ended" and one_worker._thread.is_alive()
    gc.collect()
