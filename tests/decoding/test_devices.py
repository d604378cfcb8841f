"""Every method on a device that is not the host's, pretended by `tests.pretend`: the run of a CPU, nothing mixed up, few copies."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import torch
from msgspec.structs import replace
from torch import Tensor

from decoding.lenses import LENSES
from decoding.methods import METHODS
from decoding.methods.medusa import Medusa
from decoding.models import family as families
from decoding.models.family import Family, load
from decoding.models.target import Target
from decoding.runs.lens_run import LensRun
from decoding.runs.prompts import Prompt
from decoding.runs.run import Run
from decoding.runs.store import Store
from decoding.runs.study import Plan, Study, results
from decoding.runs.worker import Worker
from decoding.sample import Sampling
from decoding.trace import Step, Trace
from decoding.training import precision
from decoding.training.recipes import RECIPES
from decoding.training.states import Batch
from decoding.training.train import layers_read
from tests.conftest import PATIENCE
from tests.pretend import MixUp, Pretence, Pretended, pretended
from tests.toys import causal_lm

PROMPT = "Once upon a time there was a little girl. Once upon a time"
TOKENS = 6
PARAMS = {"ppd": {"budget": "64"}}  # measured, it depends on the clock
SHORT = {"byte_level": {"meter": False}}  # what a look takes is much slower there
SLOW = ("hyperfitting",)  # opens a second target and writes four texts, a minute there: run it by hand
NEAR = {"rel": 2e-4, "abs": 2e-5}
EXITS = 3  # of the sorted draft model

RECORDED, JUDGED = 1, 1  # copies that every step may make


def drafting(key: str, step: Step) -> int:
    """Copies that drafting a step may make: one, or one for every call of the drafter; more where a method cannot go on without."""
    if key == "dyspec":  # which draw is next depends on the ones before
        return len(step.nodes)
    if key == "s2d":  # whether an exit answers is known behind it; then the chain itself
        return EXITS * step.draft_calls + 1
    if key == "lazyllm":  # which rows the next layers read is known behind the ones before: at three places
        return 3
    return max(1, step.draft_calls)


@pytest.fixture(scope="module")
def away(embedded) -> Family:
    """The embedded family on the device."""
    known = families.find_device
    with pytest.MonkeyPatch.context() as patch, pretended() as there:
        patch.setattr(families, "find_device", lambda name: there.device if name == str(there.device) else known(name))
        return load("embedded", device=str(there.device), dtype="float32")


def traced(family: Family, key: str, temperature: float, tokens: int = TOKENS) -> Trace:
    run = Run(family, key, PARAMS.get(key, {}), PROMPT, Sampling(temperature), seed=3, max_tokens=tokens)
    list(run)
    return run.trace


# Greedily a draft is chosen in place of drawn, judged by `match` in place of by rejection, shown as the drafter believed it: the
# ways that part there are those of chains, trees, windows and heads, and of what the draft model leaves early.
GREEDY_TOO = (
    "plain", "speculative_sampling", "multi_candidate", "dyspec", "spectr", "speculative_jacobi", "kangaroo", "eagle", "medusa",
    "ppd", "sentence_vae", "specdec_pp",
)  # fmt: skip
CASES = [*((key, 1.0) for key in METHODS), *((key, 0.0) for key in GREEDY_TOO)]


@pytest.mark.parametrize("key, temperature", CASES)
def test_a_run_is_that_of_the_host_and_copies_little(key, temperature, embedded, away):
    with pretended() as there:
        run = Run(away, key, PARAMS.get(key, {}), PROMPT, Sampling(temperature), seed=3, max_tokens=TOKENS)
        before = 0
        for number, step in enumerate(run):
            if number:  # the first one builds the drafter and reads the prompt
                allowed = drafting(key, step) + JUDGED + RECORDED
                assert there.copies - before <= allowed, (number, dict(there.counts))
            before = there.copies
    same(run.trace, traced(embedded, key, temperature))


def same(one: Trace, other: Trace) -> None:
    """Tokens, drafts and verdicts are equal; numbers but for rounding."""
    assert len(one.steps) == len(other.steps)
    for here, there in zip(one.steps, other.steps, strict=True):
        assert (here.tokens, here.path, here.origins, here.ending) == (there.tokens, there.path, there.origins, there.ending)
        for a, b in zip(here.nodes, there.nodes, strict=True):
            assert (a.token, a.parent, a.verdict, a.source) == (b.token, b.parent, b.verdict, b.source)
            assert all(close(x, y) for x, y in zip((a.p, a.q, a.u), (b.p, b.q, b.u), strict=True))
            assert a.scores == pytest.approx(b.scores, rel=1e-3, abs=1e-4)
        assert all(close(a and a.entropy, b and b.entropy) for a, b in zip(here.rows, there.rows, strict=True))
        assert here.facts.keys() == there.facts.keys()


def close(a: float | None, b: float | None) -> bool:
    return a is b if a is None or b is None else a == pytest.approx(b, **NEAR)


@pytest.fixture(scope="module")
def looked_at(embedded) -> Trace:
    """A short run, with a refusal to look at."""
    run = Run(embedded, "speculative_sampling", prompt="Once upon a time", sampling=Sampling(1.0), seed=3, max_tokens=6)
    list(run)
    return run.trace


@pytest.mark.parametrize("key", [key for key in LENSES if key not in SLOW])
def test_a_look_is_that_of_the_host(key, embedded, away, looked_at):
    place = next(
        (i, j) for i, step in enumerate(looked_at.steps) for j, node in enumerate(step.nodes) if node.verdict == "rejected"
    )
    *_, wanted = LensRun(embedded, key, looked_at, *place)
    with pretended():
        *_, found = LensRun(away, key, looked_at, *place)
    alike(*(msgspec.to_builtins(replace(look, ms=0.0)) for look in (found, wanted)))


def alike(one: Any, other: Any) -> None:
    """Equal, numbers but for rounding."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        one, other = list(one.values()), list(other.values())
    if isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            alike(a, b)
    else:
        assert one == (pytest.approx(other, rel=1e-3, abs=1e-4) if isinstance(other, float) else other)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("key", list(METHODS))
def test_a_run_on_a_gpu_is_that_of_the_host(key, temperature, embedded, on_gpu):
    """Without pretence: the same rounding cannot be had, so the tokens of a run decide."""
    found, wanted = (traced(family, key, temperature) for family in (on_gpu, embedded))
    assert [step.tokens for step in found.steps] == [step.tokens for step in wanted.steps]


@pytest.fixture(scope="module")
def on_gpu() -> Family:
    return load("embedded", device="cuda", dtype="float32")


# -- the pretence itself -----------------------------------------------------------------------------------------------


@pytest.fixture
def there() -> Iterator[Pretence]:
    with pretended() as found:
        yield found


def test_what_is_made_there_or_brought_there_lies_there(there):
    made = [torch.zeros(2, device=there.device), torch.arange(2).to(there.device), torch.tensor([1, 2], device=there.device)]
    made += [made[0] + 1, made[0].new_tensor([1.0]), torch.cat(made[:1]), made[0][None]]
    assert all(isinstance(values, Pretended) and values.device == there.device for values in made)
    assert made[0].cpu().device.type == "cpu" and there.copies == 1


@pytest.mark.parametrize(
    "wrong",
    [
        lambda here, away: away + here,
        lambda here, away: torch.cat((away, here)),
        lambda here, away: away.index_copy(0, torch.tensor([0]), away[:1]),
        lambda here, away: away.__setitem__(slice(0, 1), here[:1]),
        lambda here, away: here[away.long()],
        lambda here, away: away.numpy(),
        lambda here, away: torch.nn.functional.scaled_dot_product_attention(*[x.view(1, 1, 1, 2) for x in (away, here, away)]),
        lambda here, away: torch.rand(2, device=away.device, generator=torch.Generator()),
    ],
)
def test_a_mix_up_fails(there, wrong):
    with pytest.raises(MixUp):
        wrong(torch.ones(2), torch.ones(2, device=there.device))


def test_what_a_device_takes_is_no_mix_up(there):
    away = torch.ones(3, device=there.device)
    away[torch.tensor([0])] = 2.0
    assert (away * torch.tensor(2.0) + 1)[[0, 2]].cpu().tolist() == [5, 3] and there.copies == 1


@pytest.mark.parametrize(
    "ask",
    [
        lambda values: values.tolist(), lambda values: values[0].item(), lambda values: bool((values > 0).any()),
        lambda values: float(values.sum()), lambda values: values[values > 0], lambda values: values.nonzero(),
        lambda values: values.to("cpu"), lambda values: torch.ones(2).copy_(values), lambda values: torch.equal(values, values),
    ],
)  # fmt: skip
def test_every_way_to_wait_for_the_device_is_counted(there, ask):
    ask(torch.ones(2, device=there.device))
    assert there.copies == 1


def test_a_drafter_that_mixes_up_devices_or_copies_too_much_is_caught(away, monkeypatch):
    """The two faults that this file is there for, planted."""
    propose = Medusa.propose

    def mixed(self, tokens, rng):
        self.hidden = self.hidden + torch.zeros(self.hidden.shape)
        return propose(self, tokens, rng)

    def chatty(self, tokens, rng):
        [self.hidden.sum().item() for _ in range(5)]
        return propose(self, tokens, rng)

    monkeypatch.setattr(Medusa, "propose", mixed)
    with pytest.raises(MixUp), pretended():
        traced(away, "medusa", 0.0)
    monkeypatch.setattr(Medusa, "propose", chatty)
    with pretended() as there:
        steps = traced(away, "medusa", 0.0).steps
    assert there.copies > sum(drafting("medusa", step) + JUDGED + RECORDED for step in steps)


# -- the worker, a study, training -------------------------------------------------------------------------------------


class There:
    """A job whose turns are taken while there is the device, which is a matter of the thread."""

    def __init__(self, run: Run, pretence: Pretence) -> None:
        self.run, self.pretence = run, pretence

    def __next__(self):
        with pretended(self.pretence):
            return next(self.run, None)

    @property
    def steps(self):
        return self.run.steps

    @property
    def ended(self) -> bool:
        return self.run.ended


def test_the_worker_takes_its_steps_there(away, embedded):
    with pretended() as there:
        run = Run(away, "eagle", {}, PROMPT, Sampling(0), seed=3, max_tokens=TOKENS)
    live = Worker().live(lambda: There(run, there))
    live.ask(float("inf"))
    live.wait(PATIENCE)
    assert live.state == "ended", live.problem
    same(run.trace, traced(embedded, "eagle", 0.0))


def test_a_study_is_the_same(away, embedded, tmp_path):
    plan = Plan("embedded", "speculative_sampling", (Prompt("Once upon a time", "story"),), max_tokens=8)
    found = []
    for name, family in (("there", away), ("here", embedded)):
        with pretended():
            list(Study(family, plan, Store(tmp_path / name)))
        found.append([trace for *_, trace in results(Store(tmp_path / name), plan)])
    [[one], [other]] = found
    same(one, other)


@pytest.mark.parametrize("key", list(RECIPES))
def test_a_training_step_of_every_recipe(key, monkeypatch):
    """The same loss as on the host, and the same gradients. In float32: Python cannot play autocast."""
    monkeypatch.setattr(precision, "quick_at_bfloat16", lambda device: False)
    recipe, found = RECIPES[key], []
    parser = ArgumentParser()
    recipe.options(parser)
    options = parser.parse_args([], Namespace(also=[]))
    for away_too in (False, True):
        with pretended() as there:
            where = there.device if away_too else torch.device("cpu")
            model = causal_lm("llama", seed=5).to(where)
            target = Target(model, model.config.vocab_size, 256)
            torch.manual_seed(0)
            head = recipe.init_head(target, options).to(where)
            recipe.told(head, SimpleNamespace(target=target, token_bytes=lambda tokens: dict.fromkeys(tokens, b".")))
            loss = recipe.loss(head, target, batch(target, layers_read(recipe, target, options), where), 0.5)
            loss.backward()
            grads = {name: values.grad for name, values in head.named_parameters() if values.grad is not None}
            assert all(grad.device == where for grad in grads.values())
            found.append((float(loss.detach()), {name: float(grad.norm()) for name, grad in grads.items()}))
    [(loss_here, grads_here), (loss_there, grads_there)] = found
    assert loss_there == pytest.approx(loss_here, rel=1e-4)
    assert grads_there == pytest.approx(grads_here, rel=1e-3, abs=1e-6) and any(grads_here.values())


def batch(target: Target, layers: set[int], where: torch.device) -> Batch:
    rng = torch.Generator().manual_seed(1)
    width = target.model.config.hidden_size
    tokens = torch.randint(0, target.vocab, (2, 24), generator=rng)
    states: dict[int, Tensor] = {layer: torch.randn(2, 24, width, generator=rng).to(where) for layer in layers}
    return Batch(tokens.to(where), torch.ones(2, 24, dtype=torch.bool).to(where), states)
