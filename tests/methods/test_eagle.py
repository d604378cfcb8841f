"""EAGLE: the checks of the papers' slots, trees and training, the traps of the released code, heads trained for another target."""

import json
import math
from argparse import ArgumentParser
from dataclasses import replace
from functools import cache

import pytest
import torch

from decoding.draft import Draft
from decoding.drafting.static_tree import sparse_tree
from decoding.loop import decode
from decoding.methods import METHODS, eagle
from decoding.methods.eagle import Eagle, Params, Reader, counts_of, fixed
from decoding.models import heads as door
from decoding.models.cache import TreeCache
from decoding.models.eagle_head import KINDS, USUAL, Heads, Shape, init_head, layers_of, load_head, shapes
from decoding.models.family import load
from decoding.models.heads import Head
from decoding.models.target import PRE_NORM, Target
from decoding.sample import Sampling
from decoding.score_names import COSINE, JOINT, OWN
from decoding.training import train
from decoding.training.fit import fit
from decoding.training.recipes import RECIPES
from decoding.training.recipes.eagle import sampled, unrolled
from decoding.training.states import Batch
from decoding.training.states import states as pass_states
from decoding.verify import judged, match, recursive_rejection
from tests import toys
from tests.decoding.test_greedy_equality import generated, written
from tests.decoding.test_tau_floor import PROMPTS as FLOOR_PROMPTS
from tests.decoding.test_tau_floor import tau
from tests.methods.test_contract import check_step
from tests.toys import CONTEXT, GREEDY, VOCAB, causal_lm, run_steps

PROMPT = (7, 70, 170, 7, 70)
RECIPE = RECIPES["eagle"]
LAYERS = 4


def target_of(kind: str = "llama", **more) -> Target:
    return Target(causal_lm(kind, **({"num_hidden_layers": LAYERS} | more)), VOCAB, CONTEXT)


def random_heads(target: Target, kind: str, seed: int = 0, noise: float = 0.1) -> Heads:
    """Untrained heads with noise on every tensor."""
    torch.manual_seed(seed)
    made = init_head(target, kind)
    for values in made.parameters():
        values.data += noise * torch.randn(values.shape)
    return made.eval()


def states_of(target: Target, aux_hidden_layers, tokens) -> list[torch.Tensor]:
    """(len(tokens), width) per aux hidden layer, from one plain pass."""
    found = target.forward(TreeCache(), target.ids(tokens), range(len(tokens)), aux_hidden_layers=aux_hidden_layers)[1]
    return [found[aux_layer] for aux_layer in aux_hidden_layers]


def begun(target: Target, heads: Heads, tokens, end: int) -> Reader:
    """A reader of the slots 0 to end - 1 of a text."""
    reader = Reader(heads, target)
    reader.commit([part[:end] for part in states_of(target, heads.shape.aux_hidden_layers, tokens)], tokens[1 : end + 1])
    return reader


def text(length: int, seed: int = 0) -> list[int]:
    return torch.randint(VOCAB, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


# -- slots -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2"])
@torch.inference_mode()
def test_pass_through(kind):
    """An untrained head of kind eagle puts out the state it got: its logits are the target's; with the state first they are not."""
    target = target_of(kind)
    heads, tokens = init_head(target, "eagle"), text(9)
    wanted = target.model(torch.tensor([tokens])).logits[0, :8]
    found = torch.cat([begun(target, heads, tokens, end).begin() for end in range(1, 9)])
    assert (found - wanted).abs().max() < 1e-4 and wanted.std() > 0.3
    heads.fc.weight.copy_(heads.fc.weight.roll(heads.shape.width, 1))
    assert (begun(target, heads, tokens, 8).begin() - wanted[-1:]).abs().max() > 0.01


@torch.inference_mode()
def test_an_oracle_is_the_target():
    """A head of kind eagle that put out the true next state would draft with q = p."""
    target = target_of()
    heads, tokens = init_head(target, "eagle"), text(9)
    (true,) = states_of(target, heads.shape.aux_hidden_layers, tokens)
    assert (heads.scored(true, target) - target.model(torch.tensor([tokens])).logits[0]).abs().max() < 1e-5


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_a_slot_reads_the_next_token_and_not_the_one_behind(kind):
    target, tokens = target_of(), text(8)
    heads = random_heads(target, kind)
    read = states_of(target, heads.shape.aux_hidden_layers, tokens)
    said = []
    for behind in (tokens[6], (tokens[6] + 1) % VOCAB):
        reader = Reader(heads, target)
        reader.commit([part[:6] for part in read], [*tokens[1:6], behind])
        said.append(reader.begin())
    assert (said[0] - said[1]).abs().max() > 1e-3, "the token that slot 5 stands beside"
    other = [*tokens[:7], (tokens[7] + 1) % VOCAB]
    assert torch.equal(begun(target, heads, tokens, 6).begin(), begun(target, heads, other, 6).begin())


def test_the_taps_are_those_of_the_authors_or_three_others():
    """Three different ones always; each is what a hook on that layer finds, in front of the final norm."""
    wanted = {32: (2, 16, 29), 12: (2, 6, 9), 8: (2, 4, 5), 7: (2, 3, 4), 6: (1, 3, 5), 4: (1, 2, 3)}
    wanted |= {3: (1, 2, PRE_NORM), 2: (0, 1, PRE_NORM), 1: (0, PRE_NORM, 1)}
    for layers, aux_hidden_layers in wanted.items():
        config = type("Model", (), {"config": type("Config", (), {"num_hidden_layers": layers})})
        assert layers_of(Target(config, 8, 8)) == aux_hidden_layers and len(set(aux_hidden_layers)) == 3
    target, tokens, found = target_of(num_hidden_layers=6), text(6), {}

    def hook(number: int):
        return lambda layer, inputs, output: found.update({number: output[0] if isinstance(output, tuple) else output})

    hooks = [layer.register_forward_hook(hook(number)) for number, layer in enumerate(target.model.model.layers, 1)]
    aux_hidden_layers = layers_of(target)
    for aux_layer, states in zip(aux_hidden_layers, states_of(target, aux_hidden_layers, tokens), strict=True):
        assert (found[aux_layer].reshape(states.shape) - states).abs().max() < 1e-6
    for handle in hooks:
        handle.remove()


# -- the head that is trained is the head that drafts ------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_training_unrolls_what_drafting_does(kind):
    """Step t of the training at place i is a draft that started behind slot i and was given the same t tokens."""
    target, tokens = target_of(num_key_value_heads=1), text(16)
    heads = random_heads(target, kind)
    ids = torch.tensor([tokens])
    mixed = heads.mixed(states_of(target, heads.shape.aux_hidden_layers, tokens))[None]
    places = torch.tensor([[0, 3, 7, 10]])
    trained_on = [heads.scored(state, target)[0] for state in unrolled(heads, target, ids, mixed, places, 4)]
    for column, place in enumerate(places[0].tolist()):
        reader = begun(target, heads, tokens, place + 1)
        found = [reader.begin()]
        for step in range(1, 4):
            found.append(reader.extend(torch.tensor(tokens[place + 1 + step : place + 2 + step]), torch.tensor([step - 2])))
        for step, logits in enumerate(found):
            assert (trained_on[step][column] - logits[0]).abs().max() < 1e-4
    assert (trained_on[0] - trained_on[1]).abs().max() > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_a_place_sees_the_text_before_it_and_its_own_steps(kind):
    """(i + 1) + t keys: a state behind the place changes nothing, one before it changes all, and so does its own last output."""
    target, tokens = target_of(), text(14)
    heads, ids = random_heads(target, kind), torch.tensor([tokens])
    mixed = torch.randn(1, 14, heads.shape.width).requires_grad_()
    for step, state in enumerate(unrolled(heads, target, ids, mixed, torch.tensor([[5]]), 3)):
        (gradient,) = torch.autograd.grad(state.square().sum(), mixed, retain_graph=True)
        assert (gradient[0].abs().sum(-1) > 0).tolist() == [True] * 6 + [False] * 8, step


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_branches_of_a_tree_are_chains(kind):
    """Every node that is extended says what it says when its path is drafted alone."""
    target, tokens = target_of(), text(10)
    heads = random_heads(target, kind)
    reader = begun(target, heads, tokens, 8)
    reader.begin()
    level = [reader.extend(torch.tensor([5, 9]), torch.tensor([-1, -1]))]
    level += [reader.extend(torch.tensor([11, 12]), torch.tensor([1, 0]))]
    alone = begun(target, heads, tokens, 8)
    for path, logits in (((5,), level[0][0]), ((9,), level[0][1]), ((9, 11), level[1][0]), ((5, 12), level[1][1])):
        alone.begin()
        for depth, token in enumerate(path):
            found = alone.extend(torch.tensor([token]), torch.tensor([depth - 1]))
        assert (found[0] - logits).abs().max() < 1e-4


class Watched(Eagle):
    """Remembers what it drafted from."""

    def propose(self, tokens, rng):
        draft = super().propose(tokens, rng)
        self.told.append((list(tokens), self.reader.outputs[:1].clone(), self.reader.memory.committed))
        return draft


@pytest.mark.parametrize("tree", ["dynamic", "static", "sampled"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_kept_slots_are_those_of_a_fresh_run(kind, tree, monkeypatch):
    """After many steps, drafts accepted and not: as many slots as tokens in front of the root, all from the target's own states."""
    target = toys.tiny_target(2, num_hidden_layers=LAYERS)  # five tokens: a tree holds the right one often
    heads = random_heads(target, kind, noise=0.1)
    monkeypatch.setattr(eagle, "load_head", lambda target, head=None: (heads, USUAL))
    drafter = Watched(target, Params(tree=tree, nodes=9, fan_out=3), GREEDY)
    drafter.told = []
    rng = torch.Generator().manual_seed(0)
    if tree == "sampled":
        drafter = Watched(target, Params(tree=tree, nodes=9, fan_out=3), Sampling(1.0))
        drafter.told = []
    rule = recursive_rejection if tree == "sampled" else match
    steps = list(decode(target, drafter, rule, (1, 2, 3), sampling=Sampling(1.0), rng=rng, max_tokens=55))
    assert sum(len(step.path) for step in steps) > 3 and any(not step.path for step in steps)
    with torch.inference_mode():
        for tokens, last, committed in drafter.told[:: max(1, len(drafter.told) // 6)]:
            assert committed == len(tokens) - 1
            assert (begun(target, heads, tokens, len(tokens) - 1).last - last).abs().max() < 1e-3


def test_a_long_prompt_is_read_in_parts(monkeypatch):
    target, tokens = target_of(), text(40)
    heads = random_heads(target, "eagle3")
    with torch.inference_mode():
        whole = begun(target, heads, tokens, 39).last
        monkeypatch.setattr(eagle, "ROWS", 7)
        assert (begun(target, heads, tokens, 39).last - whole).abs().max() < 1e-4


# -- trees -------------------------------------------------------------------------------------------------------------


def drafts(seed: int = 0, **params):
    steps = run_steps(toys.toy_family(target_of()), "eagle", PROMPT, seed=seed, recorded=True, **params)
    return [step for step in steps if step.nodes]


def test_a_dynamic_tree_keeps_the_most_probable_and_names_the_rest():
    for step in drafts(nodes=7, fan_out=3, expansions=2):
        assert len(step.nodes) == 7 and {node.source for node in step.nodes} == {"dynamic tree"}
        least = min(node.scores[JOINT] for node in step.nodes)
        assert step.pruned and all(candidate.score <= least + 1e-6 for candidate in step.pruned)
        for node in step.nodes:
            above = 1.0 if node.parent < 0 else step.nodes[node.parent].scores[JOINT]
            assert node.scores[JOINT] == pytest.approx(above * node.scores[OWN], rel=1e-4)


def test_a_static_tree_has_its_ranks_at_every_step():
    paths = sparse_tree(tuple(row[:3] for row in USUAL[:4]), 25)
    parents = {tuple(node.parent for node in step.nodes) for step in drafts(tree="static", nodes=9)}
    assert len(parents) == 1 and not any(step.pruned for step in drafts(tree="static", nodes=9))
    logits = torch.randn(1, VOCAB, generator=torch.Generator().manual_seed(3))
    said = {}

    def extend(tokens, parents):
        rows = torch.stack([torch.randn(VOCAB, generator=torch.Generator().manual_seed(int(token))) for token in tokens])
        said.update({int(token): row for token, row in zip(tokens, rows, strict=True)})
        return rows

    found = fixed(logits, extend, paths)
    for i, path in enumerate(paths):
        above = logits[0] if len(path) == 1 else said[found.tokens[found.parents[i]]]
        assert found.tokens[i] == int(above.topk(path[-1] + 1).indices[-1])
        assert found[OWN][i] == pytest.approx(float(above.softmax(-1)[found.tokens[i]]), rel=1e-4)
        assert torch.equal(found.logits[found.rows[i]], above)
        assert paths[found.parents[i]] == path[:-1] if len(path) > 1 else found.parents[i] == -1


@pytest.mark.parametrize("params", [{"nodes": 60, "fan_out": 10}, {"expansions": 0}, {"nodes": 1}, {"fan_out": 1, "expansions": 8}])
def test_sizes_at_the_edges(params):
    for step in drafts(**params):
        assert 1 <= len(step.nodes) <= params.get("nodes", 24)


def test_token_zero_is_a_token_like_others():
    """The released code pads with token 0; a target that writes it must not get it from anywhere."""
    target = target_of()
    target.model.lm_head.weight.data[0] = 3 * target.model.lm_head.weight.data[1:].mean(0)
    family = toys.toy_family(target)
    tokens = toys.tokens_of(run_steps(family, "eagle", PROMPT, max_tokens=30))
    assert tokens == toys.greedy_text(target, PROMPT, 30)


def test_the_bonus_is_drawn_at_the_temperature_of_the_run():
    """Behind a fully accepted path too: of two tokens that the cut leaves, with the probabilities of the temperature."""
    family = toys.toy_family(toys.tiny_target(2, vocab=5))
    sampling, count = Sampling(0.5, top_k=2), 0
    for seed in range(16):
        for step in run_steps(family, "eagle", (1, 2, 3), sampling=sampling, seed=seed, max_tokens=6, recorded=True, nodes=8):
            if step.origins[-1] == "bonus":
                p = step.rows[step.end_row].p
                count += 1
                assert sum(share > 0 for share in p) <= 2 and sum(p) == pytest.approx(1, abs=1e-4)
                assert dict(zip(step.rows[step.end_row].tokens, p, strict=True))[step.tokens[-1]] > 0
    assert count > 5


# -- the sampled tree --------------------------------------------------------------------------------------------------


def proposing(target: Target, heads: Heads, sampling: Sampling, monkeypatch, prompt=PROMPT, **params) -> Eagle:
    """A drafter that has read a prompt."""
    monkeypatch.setattr(eagle, "load_head", lambda target, head=None: (heads, USUAL))
    drafter = Eagle(target, Params(tree="sampled", **params), sampling)
    output = type(
        "Reading",
        (),
        {"hidden": dict(zip(drafter.aux_hidden_layers, states_of(target, drafter.aux_hidden_layers, prompt[:-1]), strict=True))},
    )
    drafter.begin(prompt, output)
    return drafter


@pytest.mark.parametrize("sampling", [Sampling(1.0), Sampling(0.7, top_k=20, top_p=0.9)])
@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_a_drawn_tree_says_what_every_token_was_drawn_from(kind, sampling, monkeypatch):
    """What the head says behind its path, without the elder siblings; nothing is left out or set in another order."""
    target, sizes = target_of(), {"nodes": 9, "fan_out": 3, "expansions": 2}
    heads = random_heads(target, kind)
    drafter = proposing(target, heads, sampling, monkeypatch, **sizes)
    draft = drafter.propose(PROMPT, torch.Generator().manual_seed(0))
    paths = sparse_tree(tuple(row[:3] for row in USUAL[:3]), 9)
    assert draft.how == "sampled without replacement" and draft.parents == tuple(
        paths.index(path[:-1]) if len(path) > 1 else -1 for path in paths
    )
    assert len(draft) == 9 and not draft.pruned and draft.calls == max(map(len, paths))
    alone = begun(target, heads, list(PROMPT), len(PROMPT) - 1)
    for parent, children in draft.by_parent.items():
        logits = alone.begin()
        for depth, node in enumerate(draft.path_to(parent)):
            logits = alone.extend(torch.tensor([draft.tokens[node]]), torch.tensor([depth - 1]))
        whole = sampling.probabilities(logits.float())[0]
        q = whole.clone()
        for child in children:
            token = draft.tokens[child]
            assert toys.total_variation(draft.q[child], q) < 1e-4 and draft.q[child, token] > 0
            assert float(draft.scores[OWN][child]) == pytest.approx(float(whole[token]), rel=1e-3)
            q[token] = 0
            q /= q.sum()


@pytest.mark.parametrize("sampling", [Sampling(1.0), Sampling(1.0, top_k=2)])
@torch.inference_mode()
def test_drawn_siblings_are_exact_for_any_target_and_not_if_one_stays_in_q(sampling, monkeypatch):
    """Over many drafts of three siblings the emitted distribution is p, uniforms summed over; p is the head's opposite here. Top-k
    2 leaves fewer tokens than there are siblings."""
    target = toys.tiny_target(2, vocab=4, num_hidden_layers=LAYERS)
    drafter = proposing(target, random_heads(target, "eagle"), sampling, monkeypatch, (1, 2, 3), nodes=3, fan_out=3, expansions=0)
    rng, p = torch.Generator().manual_seed(0), torch.zeros(4)
    first = drafter.propose((1, 2, 3), rng)
    p[first.q[0].sort(descending=True).indices] = torch.tensor([0.1, 0.2, 0.3, 0.4])
    found, count = {"honest": torch.zeros(4), "forgetful": torch.zeros(4)}, 4000
    for _ in range(count):
        draft = drafter.propose((1, 2, 3), rng)
        found["honest"] += emitted_by(draft, p) / count
        found["forgetful"] += emitted_by(replace(draft, q=draft.q[:1].expand(3, -1)), p) / count
    distances = {how: toys.total_variation(out, p) for how, out in found.items()}
    assert distances["honest"] < 0.02 and distances["forgetful"] > 0.04, distances


def emitted_by(draft: Draft, p: torch.Tensor) -> torch.Tensor:
    """(vocab,) what children of the root emit where the target says p everywhere."""
    turns, residual = judged(draft, p.expand(len(draft) + 1, -1))
    out, left = torch.zeros_like(p), 1.0
    for i, token in enumerate(draft.tokens):
        q = float(draft.q[i, token])
        kept = left * (min(1.0, float(turns[i]) / q) if q else 1.0)
        out[token] += kept
        left -= kept
    return out + left * residual[0]


def test_a_drawn_tree_has_a_rule_of_its_own_and_is_static_when_greedy():
    family = toys.toy_family(target_of())
    for sampling, rule in ((GREEDY, match), (Sampling(1.0), recursive_rejection)):
        assert METHODS["eagle"].build(family, Params(tree="sampled"), sampling)[1] is rule
        assert METHODS["eagle"].build(family, Params(), sampling)[1] is match
    sampled, static = (drafts(tree=tree, nodes=9) for tree in ("sampled", "static"))
    assert [step.nodes for step in sampled] == [step.nodes for step in static]
    steps = drafts(tree="sampled", nodes=9, sampling=Sampling(0.8))
    assert len({tuple(node.parent for node in step.nodes) for step in steps}) == 1
    assert all(node.u is not None and node.source == "sampled tree" for step in steps for node in step.nodes)
    for step in steps:
        check_step(step, greedy=False)


def test_a_drawn_tree_of_a_draft_vocabulary():
    """Tokens outside it have q = 0; they come from what is left of p."""
    target, known = target_of(), torch.tensor([2, 5, 9, 40])
    said = settings(target) | {"vocab": 4, "mapped": True}
    head = Head(Heads(Shape.of(said)).state_dict() | {"tokens": known.float()}, said)
    drafter = Eagle(target, Params(tree="sampled", nodes=12), Sampling(1.0), head)
    rng = torch.Generator().manual_seed(0)
    steps = list(decode(target, drafter, recursive_rejection, PROMPT, sampling=Sampling(1.0), rng=rng, max_tokens=40))
    assert {node.token for step in steps for node in step.nodes} <= set(known.tolist())
    assert not {token for step in steps for token in step.tokens} <= set(known.tolist())


def test_children_are_counted_level_by_level():
    assert counts_of(((0,), (1,), (2,), (0, 0), (0, 1), (2, 0), (0, 0, 0), (2, 0, 0))) == [[3], [2, 0, 1], [1, 0, 1]]
    assert counts_of(((0,),)) == [[1]]


# -- what the target's states say afterwards ---------------------------------------------------------------------------


def told(kind: str, monkeypatch, tree: str = "dynamic", **more):
    """(target, head, prompt, steps) of a run in which drafts are accepted now and then, up to the end of the context."""
    target = toys.tiny_target(2, num_hidden_layers=LAYERS)
    heads = random_heads(target, kind)
    monkeypatch.setattr(eagle, "load_head", lambda target, head=None: (heads, USUAL))
    family, prompt = toys.toy_family(target), (1, 2, 3)
    sizes = {"tree": tree, "nodes": 9, "fan_out": 3, "expansions": 2} | more
    return target, heads, prompt, run_steps(family, "eagle", prompt, sampling=Sampling(1.0), max_tokens=4000, **sizes)


@pytest.mark.parametrize("tree", ["dynamic", "static", "sampled"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_cosine_is_that_of_the_heads_state_and_the_targets(kind, tree, monkeypatch):
    """Computed again from plain passes; nodes that were not accepted, or that the head did not read, have none."""
    target, heads, prompt, steps = told(kind, monkeypatch, tree)
    assert steps[-1].ending == "context limit"
    text, count, without = list(prompt), 0, 0
    for step in steps:
        have = {i for i, node in enumerate(step.nodes) if COSINE in node.scores}
        assert have <= set(step.path)
        inner = {node.parent for node in step.nodes}
        assert inner & set(step.path[: len(step.tokens) - 1]) <= have, "the head has read every node with children"
        for place, i in enumerate(step.path):
            if i in have and count < 40:
                upto = [*text, *step.tokens[: place + 1]]
                with torch.inference_mode():
                    true = heads.mixed([part[-1:] for part in states_of(target, heads.shape.aux_hidden_layers, upto)])
                    reader = begun(target, heads, text, len(text) - 1)
                    reader.begin()
                    for depth, token in enumerate(step.tokens[: place + 1]):
                        reader.extend(torch.tensor([token]), torch.tensor([depth - 1]))
                found = torch.cosine_similarity(reader.outputs[-1:], true).item()
                assert step.nodes[i].scores[COSINE] == pytest.approx(found, abs=1e-4)
                count += 1
            without += i not in have
        text += step.tokens
    assert count > 3 and without, "leaves were accepted too"


def test_the_shares_of_the_layers():
    """Norms of what each adds: 2 times a vector of length 3, 1 times one of length 2, 4 times one of length 0.5."""
    target = target_of()
    heads = init_head(target, "eagle3")
    width = heads.shape.width
    heads.fc.weight.data = torch.cat([scale * torch.eye(width) for scale in (2.0, 1.0, 4.0)], 1)
    states = [length * torch.nn.functional.one_hot(torch.tensor([i]), width).float() for i, length in enumerate((3.0, 2.0, 0.5))]
    assert heads.shares(states).tolist() == pytest.approx([0.6, 0.2, 0.2])


@pytest.mark.parametrize("kind", KINDS)
def test_the_facts_of_a_step_tell_the_mix_at_the_root(kind, monkeypatch):
    target, heads, prompt, steps = told(kind, monkeypatch)
    names = [f"share of {eagle.layer_name(aux_layer)}" for aux_layer in heads.shape.aux_hidden_layers]
    text = list(prompt)
    for step in steps[:6]:
        assert not any(key.startswith("share") for node in step.nodes for key in node.scores)
        if kind == "eagle":
            assert step.facts == {}
        else:
            with torch.inference_mode():
                wanted = heads.shares([part[-1:] for part in states_of(target, heads.shape.aux_hidden_layers, text)])
            assert [step.facts[name] for name in names] == pytest.approx(wanted.tolist(), abs=1e-4)
        text += step.tokens


@pytest.mark.parametrize("kind", KINDS)
def test_they_cost_no_copy_of_their_own(kind, monkeypatch):
    """What they are made of stays on the device until the step is recorded."""
    copies = []
    for name in ("tolist", "item", "cpu", "numpy", "__bool__", "__int__", "__float__"):
        kept = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda self, *a, kept=kept, **k: (copies.append(1), kept(self, *a, **k))[1])

    class Counted(Eagle):
        def observe(self, draft, output, verification):
            copies.clear()
            super().observe(draft, output, verification)
            seen.add((bool(verification.path), len(copies)))

    seen: set = set()
    monkeypatch.setattr(eagle, "Eagle", Counted)
    told(kind, monkeypatch)
    assert seen == {(True, 0), (False, 0)}


# -- files -------------------------------------------------------------------------------------------------------------


def settings(target: Target, kind: str = "eagle3", **more) -> dict:
    return RECIPE.settings(init_head(target, kind)) | more


@pytest.mark.parametrize(
    "kind, own, parameters", [("eagle", 0, 131_328 + 790_784), ("eagle3", 0, 1_184_768), ("eagle3", 1, 1_184_768 + 2**20)]
)
def test_sizes_are_those_of_the_papers(kind, own, parameters):
    """Width 256, 4 heads, MLP 688: fc and one layer, whose attention reads twice the width in EAGLE-3."""
    layer = {"hidden_size": 256, "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 64, "intermediate_size": 688}
    layer |= {"rms_norm_eps": 1e-6, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}
    aux_hidden_layers = [12] if kind == "eagle" else [2, 6, 9]
    said = {
        "kind": kind,
        "reads": 256,
        "aux_hidden_layers": aux_hidden_layers,
        "layer": layer,
        "vocab": 4096 * own,
        "bias": kind == "eagle",
    }
    assert sum(math.prod(shape) for shape in shapes(json.loads(json.dumps(said))).values()) == parameters


WRONG = (
    {"kind": "eagle2"},
    {"aux_hidden_layers": [1, 1, 2]},
    {"aux_hidden_layers": [1, 2]},
    {"aux_hidden_layers": "123"},
    {"vocab": -1},
    {"mapped": True},
    {"bias": 1},
    {"layer": 3},
    {"ranks": [[1.5]]},
    {"ranks": 7},
    {"embeds": 2**30},
)


@pytest.mark.parametrize("change", WRONG)
def test_descriptions_that_cannot_be(change):
    said = settings(target_of())
    assert shapes(said)
    with pytest.raises(ValueError, match="cannot be"):
        shapes(said | change)


@pytest.mark.parametrize("change", [{"hidden_size": 0}, {"head_dim": 7}, {"num_key_value_heads": 3}, {"rope_parameters": {}},
                                    {"rope_parameters": {"rope_type": "yarn", "factor": -1}}, {"rms_norm_eps": "1"}])  # fmt: skip
def test_layers_that_cannot_be(change):
    said = settings(target_of())
    with pytest.raises(ValueError, match="cannot be|not supported"):
        shapes(said | {"layer": said["layer"] | change})


def test_heads_that_say_nothing_of_their_accuracies_have_usual_ones(tmp_path, monkeypatch):
    target = target_of()
    monkeypatch.setattr(door, "find", lambda method, model: tmp_path)
    made = random_heads(target, "eagle3")
    door.save(tmp_path, "eagle", target.model, made.state_dict(), settings(target), {})
    opened, ranks = load_head(target)
    assert torch.equal(opened.fc.weight, made.fc.weight) and ranks == USUAL


UNLIKE = [({"reads": 64}, "states of width 64"), ({"vocab": 100}, "knows 100 tokens"), ({"embeds": 100}, "knows 100 tokens"),
          ({"aux_hidden_layers": (1, 2, 9)}, "reads layer 9")]  # fmt: skip


@pytest.mark.parametrize("change, words", UNLIKE)
def test_what_the_target_is_not_like_is_refused(change, words):
    target = target_of()
    said = settings(target) | change
    tensors = Heads(Shape.of(said)).state_dict()
    with pytest.raises(ValueError, match=words):
        load_head(target, Head(tensors, said))


@torch.inference_mode()
def test_a_draft_vocabulary_scores_nothing_else():
    """Each draft token in the place of the target's; q = 0 elsewhere."""
    target, known = target_of(), torch.tensor([2, 5, 9, 40])
    said = settings(target) | {"vocab": 4, "mapped": True}
    made = Heads(Shape.of(said))
    heads, _ = load_head(target, Head(made.state_dict() | {"tokens": known.float()}, said))
    logits = begun(target, heads, text(6), 5).begin()
    q = logits.softmax(-1)[0]
    assert q[known].sum() == pytest.approx(1, abs=1e-5) and int((q > 0).sum()) == 4
    with pytest.raises(ValueError, match="drafts token 999"):
        load_head(target, Head(made.state_dict() | {"tokens": torch.tensor([1.0, 2, 3, 999])}, said))


# -- training ----------------------------------------------------------------------------------------------------------


def chosen(*arguments: str):
    parser = ArgumentParser()
    RECIPE.options(parser)
    return parser.parse_args(arguments)


def test_places_are_different_and_the_same_for_the_same_seed():
    places = [sampled(3, 20, 6, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(places[0], places[1]) and not torch.equal(places[0], places[2])
    assert places[0].shape == (3, 6) and bool((places[0].diff() > 0).all()) and int(places[0].max()) < 20
    assert sampled(2, 4, 9, torch.Generator()).tolist() == [[0, 1, 2, 3]] * 2


def periodic(target: Target, period: int = 9) -> Batch:
    """Rows that repeat so many tokens, with the target's states on them."""
    rows = torch.stack([torch.arange(40).add(shift).remainder(period).add(20) for shift in range(period)])
    aux_hidden_layers = {*layers_of(target), target.last_hidden}
    counts = torch.ones(rows.shape, dtype=torch.bool)
    counts[:, 0] = False
    return Batch(
        rows, counts, {aux_layer: states.clone() for aux_layer, states in pass_states(target, rows, aux_hidden_layers).items()}
    )


@cache
def reciting() -> Target:
    """A target that has learned to go on with the period: what it says is what comes."""
    target = target_of()
    rows = periodic(target).tokens
    adam = torch.optim.AdamW(target.model.parameters(), lr=5e-3)
    for _ in range(60):
        logits = target.model(rows[:, :-1]).logits
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten()).backward()
        adam.step()
        adam.zero_grad()
    target.model.requires_grad_(False)
    return target


@pytest.mark.parametrize("kind", KINDS)
def test_over_fitted_to_a_period_it_is_right_about_the_place_it_should(kind, tmp_path):
    """Slot i on token i + 2: not on i + 1 and not on i + 3; and so at every step of a draft."""
    target = reciting()
    batch = periodic(target)
    heads = RECIPE.init_head(target, chosen("--kind", kind, "--places", "20", "--steps", "3"))

    def loss(step: int) -> torch.Tensor:
        made = RECIPE.loss(heads, target, Batch(batch.tokens, batch.counts, batch.states, step), 0.0)
        return made * (10 if kind == "eagle" else 1)

    untrained = loss(0).item()
    fit(heads, loss, steps=100, lr=8e-3, checkpoint=tmp_path / "kept.pt", title="toy")
    assert loss(0).item() < 0.5 * untrained
    with torch.no_grad():
        for step, logits in enumerate(RECIPE.predict(heads, target, batch)):
            best = logits[:, 12:30].argmax(-1)
            shares = [float((best == batch.tokens[:, 12 + ahead + step : 30 + ahead + step]).float().mean()) for ahead in (1, 2, 3)]
            assert shares[1] > 0.95 and max(shares[0], shares[2]) < 0.05, (step, shares)
            if step == 2:
                break


def test_places_that_may_not_be_learned_are_not():
    target = target_of()
    batch = periodic(target)
    heads = RECIPE.init_head(target, chosen("--places", "40"))
    counts = batch.counts.clone()
    counts[:, 20:] = False
    other = batch.tokens.clone()
    other[:, 30:] = 3
    found = [RECIPE.loss(heads, target, Batch(tokens, counts, batch.states), 0.0).item() for tokens in (batch.tokens, other)]
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_predictions_for_every_place():
    """Four depths over the whole window, whatever the training did; what stands too far behind is counted by nobody."""
    target = target_of()
    batch = periodic(target)
    logits = list(RECIPE.predict(RECIPE.init_head(target, chosen("--steps", "2")), target, batch))
    assert len(logits) == 4 and all(part.shape == (*batch.tokens.shape, VOCAB) for part in logits)


def test_from_the_command_line_for_another_target(folders, workshop, capsys):
    """`decoding.training eagle` for a llama of the user's: its heads are found and draft for it."""
    family = load(folders("llama"), device="cpu")
    assert "decoding.training eagle --family" in METHODS["eagle"].missing(family)
    train.main(workshop.command("eagle", folders("llama"), epochs=1, places=12, steps=2))
    assert "depth 4: top-1" in capsys.readouterr().out
    assert not METHODS["eagle"].missing(family)
    made, ranks = load_head(family.target)
    assert len(ranks) == 4 and made.attention.o_proj.weight.any(), "nothing was learned"
    assert written(family, "eagle", toys.TEXT[:40])[0] == generated(family, toys.TEXT[:40])


def test_the_shipped_head_is_worth_its_place(embedded, monkeypatch):
    """Small, far better than an untrained one in the same tree, and as sure of its paths as it may be."""
    folder = door.EMBEDDED / "eagle"
    if not folder.is_dir():
        pytest.skip("no head is shipped")
    assert sum(file.stat().st_size for file in folder.iterdir()) < 5 * 2**20
    heads, ranks = load_head(embedded.target)
    assert ranks[0][0] == max(ranks[0]) > 0.25
    shipped = tau(embedded, "eagle", FLOOR_PROMPTS.values(), GREEDY)
    hoped = accepted = 0.0
    for seed, prompt in enumerate(FLOOR_PROMPTS.values()):
        ids = embedded.tokenizer(prompt)["input_ids"]
        for step in run_steps(embedded, "eagle", ids, sampling=Sampling(1.0), seed=seed, max_tokens=60):
            hoped += sum(node.scores[JOINT] for node in step.nodes)
            accepted += len(step.path)
    assert 0.6 < hoped / accepted < 1.7, "the sum of the joints foretells how many tokens are accepted"
    untrained = init_head(embedded.target, heads.shape.kind)
    monkeypatch.setattr(eagle, "load_head", lambda target, head=None: (untrained, ranks))
    assert shipped > 0.8 + tau(embedded, "eagle", FLOOR_PROMPTS.values(), GREEDY)
