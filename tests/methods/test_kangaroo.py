"""Kangaroo: a model in two parts, the rows that are carried, three caches that stay in step, and when drafting stops."""

import json
import math
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from decoding.draft import Draft
from decoding.drafting.resumed import Resumed
from decoding.loop import decode
from decoding.methods import METHODS, kangaroo
from decoding.methods.kangaroo import ENDED, FULL, UNSURE, Params, init_head, settings_of, shapes
from decoding.models import heads as door
from decoding.models import layers
from decoding.models.cache import TreeCache
from decoding.models.family import load
from decoding.models.self_test import layers_refusal
from decoding.models.target import PRE_NORM, Target
from decoding.sample import Sampling
from decoding.score_names import CONFIDENCE, EXIT_LAYER, STOPPED
from decoding.training import train
from decoding.training.recipes import RECIPES
from decoding.training.recipes import kangaroo as recipe
from decoding.training.states import Batch, states
from decoding.verify import recursive_rejection
from tests import toys
from tests.decoding.test_tau_floor import PROMPTS as FLOOR_PROMPTS
from tests.decoding.test_tau_floor import tau
from tests.toys import CONTEXT, GREEDY, VOCAB, causal_lm, output_of, run_steps, tokens_of, total_variation

PROMPT = (7, 70, 170, 7, 70)
RECIPE = RECIPES["kangaroo"]
KINDS = ("llama", "qwen2", "qwen3", "mistral", "olmo", "phi")
ONE = Sampling(1.0)


def target_of(kind: str = "llama", depth: int = 3, **more) -> Target:
    return Target(causal_lm(kind, num_hidden_layers=depth, **more), VOCAB, CONTEXT)


def noisy(target: Target, layer: int) -> kangaroo.Adapter:
    """An adapter whose attention says something."""
    made = init_head(target, layer)
    rng = torch.Generator().manual_seed(1)
    for values in made.parameters():
        values.data += 0.2 * torch.randn(values.shape, generator=rng)
    return made.eval()


@pytest.fixture
def with_adapter(monkeypatch):
    """Put an adapter in the place of the trained one."""
    return lambda made: monkeypatch.setattr(kangaroo, "load_head", lambda target: made)


def steps_of(target: Target, params: Params, sampling: Sampling = GREEDY, count: int = 40, seed: int = 0, prompt=PROMPT):
    """The drafter, and the steps as they come."""
    drafter, accept = METHODS["kangaroo"].build(toys.toy_family(target), params, sampling)
    rng = torch.Generator().manual_seed(seed)
    return drafter, decode(target, drafter, accept, prompt, sampling=sampling, rng=rng, max_tokens=count)


# -- a model in two parts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", toys.ATTENTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_say_what_the_whole_says(kind, attention):
    """At every exit, over a tree behind some text, with the rows of the first layers handed over; also after a path was kept."""
    target = target_of(kind, attention=attention)
    draft = Draft((3, 4, 5, 6), (-1, 0, 0, 1), source=("test",) * 4)
    whole_cache = TreeCache()
    target.extend(whole_cache, PROMPT[:-1])
    whole = target.read(whole_cache, PROMPT, draft, GREEDY)
    whole_cache.keep([0, 1, 3])
    after = target.extend(whole_cache, [9])
    for layer in (1, 2, 3):
        cache, first = TreeCache(), TreeCache()
        target.extend(cache, PROMPT[:-1])
        target.extend(first, PROMPT[:-1])
        read = target.read(first, PROMPT, draft, GREEDY, aux_hidden_layers=(layer if layer < 3 else PRE_NORM,))
        rows = tuple((of.keys[:, :, 4:9].clone(), of.values[:, :, 4:9].clone()) for of in first.layers[:layer])
        carried = replace(draft, reading=Resumed(layer, next(iter(read.hidden.values())), rows))
        found = carried.reading.read(target, cache, PROMPT, carried, GREEDY, ())
        assert (found.logits - whole.logits).abs().max() < 1e-4
        cache.keep([0, 1, 3])
        assert {of.length for of in cache.layers} == {7}
        assert (target.extend(cache, [9]) - after).abs().max() < 1e-4
        cut = carried.cut(draft.depths < 2)  # the context ends: what is carried is cut with the nodes
        assert len(cut) == 1 and len(cut.reading.hidden) == 2 and cut.reading.rows[0][0].shape[2] == 2
    with pytest.raises(ValueError, match="does not fit its 4 rows"):
        carried.reading.read(target, TreeCache(), PROMPT, carried.cut(draft.depths < 3), GREEDY, ())


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox"])
def test_other_models_are_refused_with_a_sentence(kind):
    target = Target(causal_lm(kind), VOCAB, CONTEXT)
    sentence = METHODS["kangaroo"].missing(toys.toy_family(target))
    assert "cannot be run one by one" in sentence and type(target.model).__name__ in sentence
    with pytest.raises(ValueError, match="cannot be run one by one"):
        init_head(target, 1)


def test_a_model_that_does_something_between_its_layers_is_noticed(monkeypatch):
    """Everything stands where it is expected, and yet the parts are not the whole."""
    target = target_of()
    monkeypatch.setattr(layers, "final_norm", lambda model: torch.nn.Identity())
    assert "differ from the whole model by" in layers_refusal(target)


def test_no_layer_reads_a_drafted_token_twice(with_adapter):
    """Rows that every layer reads in a step: the root and every drafted token, once. The prompt is read by all, and once more by
    the first layers, which the drafter keeps to itself."""
    target = target_of(depth=4)
    with_adapter(noisy(target, 2))
    rows = [0] * 4
    for number, layer in enumerate(target.model.model.layers):
        layer.register_forward_hook(lambda _, inputs, out, n=number: rows.__setitem__(n, rows[n] + inputs[0].shape[1]))
    drafter, steps = steps_of(target, Params(threshold=0.05))
    sizes = set()
    for number, step in enumerate(steps):
        read = [count - (number == 0) * 4 * (2 if layer < 2 else 1) for layer, count in enumerate(rows)]
        assert read == [len(step.nodes) + 1] * 4
        rows[:] = [0] * 4
        sizes.add(len(step.nodes))
    assert len(sizes) > 2, "only drafts of few lengths were seen"


# -- the adapter -------------------------------------------------------------------------------------------------------


def test_the_size_is_that_of_the_specification():
    """4 d^2 + 2 d: a ninth of what Medusa's heads with their own language-model heads have."""
    described = {"width": 256, "heads": 4, "layer": 2, "theta": 1e4, "eps": 1e-6}
    assert sum(math.prod(shape) for shape in shapes(described).values()) == 262_656


@pytest.mark.parametrize("kind", ["llama", "qwen3", "olmo"])
def test_behind_the_last_layer_an_untrained_adapter_is_the_target(kind, with_adapter):
    """Then q is p: every draft is accepted, at any temperature, and the steps are as long as they can be."""
    target = target_of(kind, depth=2)
    made = init_head(target, 2)
    if kind == "olmo":  # its norm subtracts the mean, which that of the adapter does not
        made.norm_out = layers.final_norm(target.model)
    with_adapter(made)
    for sampling in (GREEDY, ONE):
        _, steps = steps_of(target, Params(threshold=0.0, length=4), sampling)
        for step in list(steps)[:-1]:
            assert len(step.tokens) == 5 and all(node.verdict == "accepted" for node in step.nodes)


def test_the_order_of_the_norms_matters():
    """States from behind the final norm in place of those before it, or no norm behind the adapter: both show."""
    target = target_of()
    made = noisy(target, 3)
    _, found = target.forward(TreeCache(), target.ids(PROMPT), range(5), aux_hidden_layers=(PRE_NORM, 3))
    with torch.inference_mode():
        right, normed = (target.score(made.whole(found[aux_layer][None])) for aux_layer in (PRE_NORM, 3))
        made.norm_out = torch.nn.Identity()
        bare = target.score(made.whole(found[PRE_NORM][None]))
    assert (right - normed).abs().max() > 1e-2 and (right - bare).abs().max() > 1e-2


@pytest.mark.parametrize("kind", ["llama", "phi"])
@pytest.mark.parametrize("sampling", [GREEDY, ONE], ids=["T=0", "T=1"])
def test_three_caches_stay_in_step_and_drafting_is_training(kind, sampling, with_adapter):
    """After every step: the rows of the first layers and of the adapter, and the q of the draft against one pass over the whole
    text as in train. The adapter lacks a row only where everything was accepted."""
    target = target_of(kind)
    made = noisy(target, 3)  # behind the last layer, so that whole drafts are accepted now and then
    with_adapter(made)
    drafter, steps = steps_of(target, Params(threshold=0.02, length=3), sampling, count=60)
    drafts, propose = [], drafter.propose
    drafter.propose = lambda tokens, rng: drafts.append(propose(tokens, rng)) or drafts[-1]
    tokens, lags = list(PROMPT), set()
    for step in steps:
        whole = [*tokens, *drafts[-1].tokens]
        with torch.inference_mode():
            hidden = target.forward(TreeCache(), target.ids(whole), range(len(whole)), aux_hidden_layers=(PRE_NORM,))[1][PRE_NORM]
            logits = target.score(made.whole(hidden[None]))[0, len(tokens) - 1 : -1]
        assert (sampling.probabilities(logits) - drafts[-1].q).abs().max() < 1e-3
        assert torch.allclose(logits.softmax(-1).amax(-1), drafts[-1].scores[CONFIDENCE].float(), atol=1e-4)
        tokens += step.tokens
        if step.ending:
            break
        assert drafter.cache.length == drafter.cache.committed == len(tokens) - 1
        lag = len(tokens) - 1 - drafter.memory.length
        assert lag == len(drafter.waiting) == (len(step.path) == len(step.nodes))
        lags.add(lag)
    assert lags == {0, 1}, "only steps of one kind were seen"


def test_a_prompt_of_one_token(llama):
    steps = run_steps(llama, "kangaroo", (7,), max_tokens=20)
    assert steps[0].nodes and tokens_of(steps) == toys.greedy_text(llama.target, (7,), 20)


def test_the_prompt_in_parts(llama, monkeypatch):
    whole = run_steps(llama, "kangaroo", PROMPT)
    monkeypatch.setattr(kangaroo, "PREFILL_ROWS", 2)
    parts = run_steps(llama, "kangaroo", PROMPT)
    assert [[node.token for node in step.nodes] for step in whole] == [[node.token for node in step.nodes] for step in parts]


# -- when drafting stops -----------------------------------------------------------------------------------------------


def test_thresholds_at_their_limits(with_adapter):
    """0: always the whole length; 1: always one token, which is kept. A drafter that drops it would draft none."""
    target = replace(target_of(), ends=frozenset())
    with_adapter(noisy(target, 1))
    sizes = lambda params: [len(step.nodes) for step in list(steps_of(target, params)[1])[:-1]]  # noqa: E731
    assert set(sizes(Params(threshold=0.0, length=5))) == {5}
    assert set(sizes(Params(threshold=1.0, length=5))) == {1}


def test_the_reason_for_stopping_is_the_right_one(with_adapter):
    target = target_of()
    made = noisy(target, 1)
    with_adapter(made)
    seen = set()
    ends = frozenset(range(0, VOCAB, 9))
    for number in range(12):
        for step in steps_of(replace(target, ends=ends), Params(threshold=0.1, length=3), ONE, seed=number)[1]:
            *before, last = step.nodes
            assert all(node.scores[CONFIDENCE] > 0.1 and STOPPED not in node.scores and node.token not in ends for node in before)
            ended, full = last.token in ends, len(step.nodes) == 3
            reason = ENDED if ended else FULL if full else UNSURE
            assert last.scores[STOPPED] == reason or reason == UNSURE and last.scores[STOPPED] == FULL  # the context
            assert reason != UNSURE or last.scores[CONFIDENCE] <= 0.1
            seen.add(reason)
    assert seen == {UNSURE, FULL, ENDED}


def test_the_context_limit_cuts_the_draft(with_adapter):
    target = replace(target_of(), context=24, ends=frozenset())
    with_adapter(noisy(target, 1))
    _, steps = steps_of(target, Params(threshold=0.0), count=200)
    found = list(steps)
    assert found[-1].ending == "context limit" and len(PROMPT) + len(tokens_of(found)) == 24
    assert tokens_of(found) == toys.greedy_text(target, PROMPT, 24 - len(PROMPT))


def test_throwing_the_drawn_token_away_bends_the_text():
    """p = (.5, .5), q = (.8, .2): the rule that drops a token below the threshold writes (.6, .4), the right one p."""
    p, q = torch.tensor([[0.5, 0.5]] * 2, dtype=torch.float64), torch.tensor([[0.8, 0.2]], dtype=torch.float64)
    written = {True: torch.zeros(2, dtype=torch.float64), False: torch.zeros(2, dtype=torch.float64)}
    grid = 40
    for token, (i, j) in ((token, divmod(place, grid)) for token in (0, 1) for place in range(grid**2)):
        u = torch.tensor([(i + 0.5) / grid, (j + 0.5) / grid], dtype=torch.float64)
        for drops, emitted in written.items():
            if drops and q[0, token] < 0.5:
                first = int(u[1] >= p[0, 0])
            else:
                verification = recursive_rejection(Draft((token,), (-1,), q, how="sampled", source=("x",)), output_of(p), u)
                first = token if verification.path else verification.token
            emitted[first] += q[0, token] / grid**2
    assert total_variation(written[True], p[0]) == pytest.approx(0.1, abs=0.02)
    assert total_variation(written[False], p[0]) < 0.02


@pytest.mark.parametrize("acceptance, length, mean", [(0.7, 6, 3.0588), (0.8, 4, 3.3616)])
def test_the_length_formula(acceptance, length, mean):
    """Tokens per step where every draft is accepted with the same chance: (1 - a^(g + 1)) / (1 - a)."""
    p = torch.tensor([[acceptance, 1 - acceptance]] * (length + 1))
    q = torch.tensor([[1.0, 0.0]] * length)
    draft = Draft((0,) * length, tuple(range(-1, length - 1)), q, how="sampled", source=("x",) * length)
    rng, lengths = torch.Generator().manual_seed(0), []
    for _ in range(1500):
        lengths.append(1.0 + len(recursive_rejection(draft, output_of(p), torch.rand(length + 1, generator=rng)).path))
    found = torch.tensor(lengths)
    assert abs(found.mean() - mean) < 3 * found.std() / math.sqrt(len(found))


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings, match",
    [
        ({"layer": 0}, "behind layer 0"),
        ({"layer": "2"}, "behind layer '2'"),
        ({"width": None}, "width None"),
        ({"heads": 3}, "3 attention heads"),
        ({"theta": float("nan")}, "theta nan"),
        ({"eps": -1}, "eps -1"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, match):
    good = {"width": 32, "heads": 2, "layer": 1, "theta": 1e4, "eps": 1e-6}
    with pytest.raises(ValueError, match=match):
        shapes(good | settings)


def test_an_exit_that_the_target_does_not_have_is_refused(llama, monkeypatch):
    made = init_head(llama.target, 1)
    head = door.Head(made.state_dict(), settings_of(made) | {"layer": 3})
    monkeypatch.setattr(kangaroo, "head_for", lambda *_: head)
    with pytest.raises(ValueError, match="behind layer 3; the target has 32 and 2 layers"):
        kangaroo.load_head(llama.target)
    with pytest.raises(ValueError, match="cannot be behind 3"):
        init_head(llama.target, 3)


# -- training ----------------------------------------------------------------------------------------------------------


def test_the_loss_is_that_of_the_whole_distribution(monkeypatch):
    """Against a place by place sum over what may be learned."""
    monkeypatch.setattr(recipe, "quick", lambda device: nullcontext())
    target = target_of()
    made = noisy(target, 2)
    tokens = torch.randint(VOCAB, (2, 9), generator=torch.Generator().manual_seed(0))
    counts = torch.rand(2, 9, generator=torch.Generator().manual_seed(1)) > 0.4
    batch = Batch(tokens, counts, states(target, tokens, (2, 3)))
    with torch.inference_mode():
        p = target.model(tokens).logits.softmax(-1)
        q = target.score(made.whole(batch.states[2]))
        places = [(row, t) for row in range(2) for t in range(8) if counts[row, t + 1]]
        by_hand = sum(cross_entropy(q[row, t], p[row, t]) for row, t in places) / len(places)
        assert float(recipe.loss(made, target, batch)) == pytest.approx(float(by_hand), abs=0.02)
        assert (next(iter(recipe.predict(made, target, batch))) - q).abs().max() < 1e-4


def test_it_learns_what_the_deeper_layers_say():
    """On a random target, whose layers know nothing of each other: the overlap of p and q grows."""
    target = target_of(depth=2)
    target.model.requires_grad_(False)
    made = init_head(target, 1)
    tokens = torch.randint(VOCAB, (16, 24), generator=torch.Generator().manual_seed(0))
    batch = Batch(tokens, torch.ones_like(tokens, dtype=torch.bool), states(target, tokens, (1, 2)))
    optimizer = torch.optim.AdamW(made.parameters(), lr=5e-3)
    losses = []
    for _ in range(40):
        losses.append(recipe.loss(made, target, batch))
        losses[-1].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0] - 0.3 and not any(p.grad is not None for p in target.model.parameters())


def test_trained_from_the_command_line_for_another_target(workshop):
    """Behind the layer that was asked for, whose states are then in the pool; the new adapter drafts at once."""
    target = workshop.target("qwen2", seed=4)
    family = load(target, device="cpu")
    assert "decoding.training kangaroo --family" in METHODS["kangaroo"].missing(family)
    train.main(workshop.command("kangaroo", target, exit_layer=2))
    facts = json.loads(next((workshop.folder / "cache").rglob("head.json")).read_text())
    assert facts["settings"]["layer"] == 2 and "depth 0: expected acceptance" in facts["figures"]
    assert METHODS["kangaroo"].missing(family) == "" and list((workshop.folder / "work").rglob(f"layer {PRE_NORM}.npy"))
    steps = run_steps(family, "kangaroo", PROMPT, max_tokens=24)
    assert steps[0].nodes[0].scores[EXIT_LAYER] == 2
    assert tokens_of(steps) == toys.greedy_text(family.target, PROMPT, len(tokens_of(steps)))
    marks = {train.mark(RECIPE, init_head(family.target, layer)) for layer in (1, 2)}
    assert len(marks) == 2, "of one size, and yet not to be mixed up"


# -- the shipped adapter -----------------------------------------------------------------------------------------------


def test_the_shipped_adapter_is_worth_its_place(embedded, monkeypatch):
    """More is accepted than of an untrained one; a higher threshold makes shorter drafts, of which a larger part is accepted."""
    found = {}
    for threshold in (0.0, 0.6):
        steps = [step for prompt in FLOOR_PROMPTS.values() for step in run_steps(
            embedded, "kangaroo", embedded.tokenizer(prompt)["input_ids"], max_tokens=32, threshold=threshold)]  # fmt: skip
        drafted, accepted = sum(len(step.nodes) for step in steps), sum(len(step.path) for step in steps)
        found[threshold] = (len(tokens_of(steps)) / len(steps), accepted / drafted)
    assert found[0.0][0] > found[0.6][0] and found[0.0][1] < found[0.6][1]
    assert sum(file.stat().st_size for file in (door.EMBEDDED / "kangaroo").iterdir()) < 2**20
    monkeypatch.setattr(kangaroo, "load_head", lambda target: init_head(target, 2))
    assert found[0.6][0] > 0.3 + tau(embedded, "kangaroo", FLOOR_PROMPTS.values(), GREEDY)
