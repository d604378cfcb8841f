"""PPD: prompt tokens that nobody sees, positions and masks, the machine of states, and prompt tokens trained for another target."""

import json
from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
import torch

from decoding.draft import Draft
from decoding.drafting.prompt_token_trees import Machine, ProbeTree, endings, machine, thinned
from decoding.drafting.prompt_tokens import PromptTokensOutput, WithPromptTokens
from decoding.loop import decode
from decoding.methods import METHODS, ppd
from decoding.methods.ppd import Params, Prompts, best_budget, init_head, load_head, shapes
from decoding.models.cache import TreeCache
from decoding.models.family import load
from decoding.models.target import Target
from decoding.sample import Sampling
from decoding.training import train
from decoding.training.recipes import RECIPES
from decoding.training.recipes import ppd as recipe
from decoding.training.states import Batch, states
from tests import toys
from tests.toys import CONTEXT, GREEDY, VOCAB, causal_lm, output_of, run_steps, tokens_of

PROMPT = (7, 70, 170, 7, 70)
RECIPE = RECIPES["ppd"]
RANKS = ((0.4, 0.2, 0.1, 0.05), (0.3, 0.15, 0.1, 0.05), (0.2, 0.1, 0.05, 0.02))
KINDS = ("llama", "gpt2", "gpt_neox", "phi")


def target_of(kind: str = "llama", **more) -> Target:
    return Target(causal_lm(kind, **more), VOCAB, CONTEXT)


def embedded(target: Target, tokens) -> torch.Tensor:
    return target.embedded(target.ids(tokens))


def read_with(target: Target, tokens, draft: Draft):
    cache = TreeCache()
    if len(tokens) > 1:
        target.extend(cache, tokens[:-1])
    return draft.reading.read(target, cache, tokens, draft, GREEDY, ()), cache


TREE = Draft((3, 4, 5, 6), (-1, -1, 0, 2), source=("test",) * 4)


def probed(draft: Draft, width: int, members: int = 1) -> Draft:
    """Three prompt tokens below every node and the root."""
    hung = [(node, d, j) for node in range(-1, len(draft)) for j in range(members) for d in (1, 2, 3)]
    torch.manual_seed(0)
    vectors = torch.randn(3, members, width)
    rows = torch.stack([vectors[d - 1, j] for _, d, j in hung])
    return replace(draft, reading=WithPromptTokens(rows, *(tuple(column) for column in zip(*hung, strict=True))))


# -- the pass ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind, attention", [*((kind, "sdpa") for kind in KINDS), ("llama", "eager")])
def test_no_node_sees_a_prompt_token(kind, attention):
    target = target_of(kind, attention=attention)
    plain, _ = read_with(target, PROMPT, TREE)
    output, cache = read_with(target, PROMPT, probed(TREE, 32))
    assert (plain.logits - output.logits).abs().max() < 1e-4 * plain.logits.std()
    assert output.probs.shape == plain.probs.shape and output.prompt_tokens.shape == (15, VOCAB)
    assert not isinstance(plain, PromptTokensOutput)
    cache.keep([0, 1, 3])
    assert cache.length == cache.committed == len(PROMPT) + 2, "no row of a prompt token is left"


@pytest.mark.parametrize("kind", KINDS)
def test_a_probe_that_is_the_true_token_says_what_its_row_says(kind):
    """With the embeddings of the tokens that follow in place of E: positions and masks one off would show."""
    target, ahead = target_of(kind), (9, 10, 11)
    draft = probed(TREE, 32)
    oracle = embedded(target, [ahead[d - 1] for d in draft.reading.distances])
    output, _ = read_with(target, PROMPT, replace(draft, reading=replace(draft.reading, embeddings=oracle)))
    for row, (node, distance) in enumerate(zip(draft.reading.nodes, draft.reading.distances, strict=True)):
        path = [TREE.tokens[i] for i in TREE.path_to(node)]
        texts = [[*PROMPT, *path, *ahead[:d]] for d in (distance, distance - 1)]
        right, before = (target.extend(TreeCache(), text)[0] for text in texts)
        assert (output.prompt_tokens[row] - right).abs().max() < 1e-3 < 1e-2 < (output.prompt_tokens[row] - before).abs().max()


def test_members_of_an_ensemble_do_not_see_each_other():
    target, draft = target_of(), probed(TREE, 32, members=2)
    own = draft.reading
    changed = own.embeddings.clone()
    first = [(d, j) == (1, 1) for d, j in zip(own.distances, own.members, strict=True)]
    changed[torch.tensor(first)] += 1
    drafts = [replace(draft, reading=replace(own, embeddings=e)) for e in (own.embeddings, changed)]
    before, after = (read_with(target, PROMPT, one)[0].prompt_tokens for one in drafts)
    moved = (before - after).abs().amax(-1) > 1e-3
    assert moved.tolist() == [member == 1 for member in draft.reading.members]


@pytest.mark.parametrize("nodes, members, seed", [(0, 1, 0), (4, 1, 1), (4, 3, 2), (9, 2, 3)])
def test_what_the_rows_of_a_pass_see_of_each_other(nodes, members, seed):
    """Row by row, in any order of the rows: text sees its path alone; a prompt token the path of its node and the nearer ones of
    its member; cut as well."""
    rng = torch.Generator().manual_seed(seed)
    parents = tuple(int(torch.randint(-1, i, (1,), generator=rng)) if i else -1 for i in range(nodes))
    hung = [(node, d, j) for node in range(-1, nodes) for j in range(members) for d in (1, 2, 3)]
    hung = [hung[i] for i in torch.randperm(len(hung), generator=rng).tolist()]
    reading = WithPromptTokens(torch.zeros(len(hung), 8), *map(tuple, zip(*hung, strict=True)))
    whole = Draft(parents, parents, source=("test",) * nodes, reading=reading)
    for draft in (whole, whole.cut(whole.depths < 2)):
        read, n = draft.reading, len(draft)
        hung = list(zip(read.nodes, read.distances, read.members, strict=True))
        assert len(hung) == 3 * members * (n + 1)
        text = [{0} | {i + 1 for i in draft.path_to(node)} for node in range(-1, n)]
        for row, seen in enumerate(read.visible(draft)):
            node, distance, member = hung[row - n - 1] if row > n else (row - 1, 0, 0)
            own = {n + 1 + i for i, (at, d, j) in enumerate(hung) if (at, j) == (node, member) and d <= distance}
            assert {int(i) for i in seen.nonzero()[0]} == text[node + 1] | own


# -- training ----------------------------------------------------------------------------------------------------------


def batch_of(target: Target, tokens: torch.Tensor, seed: int = 0) -> Batch:
    found = states(target, tokens, (target.last_hidden,))
    return Batch(tokens, torch.ones_like(tokens, dtype=torch.bool), found, seed)


@pytest.mark.parametrize("kind, members", [("llama", 1), ("gpt2", 1), ("qwen3", 2)])
def test_training_reads_what_drafting_reads(kind, members, monkeypatch):
    """Many chains in one pass against a pass per place with the prompt tokens below the root, as in a run."""
    monkeypatch.setattr(recipe, "quick", lambda device: nullcontext())
    target = target_of(kind)
    made = init_head(target, 3, members)
    made.embed.data += 0.3 * torch.randn(made.embed.shape, generator=torch.Generator().manual_seed(1))
    tokens = torch.randint(VOCAB, (2, 24), generator=torch.Generator().manual_seed(2))
    places = torch.tensor([0, 5, 6, 19])
    with torch.inference_mode():
        cache = recipe.read(target, tokens)
        logits = target.score(recipe.said(made, target, cache, places))
        again = target.score(recipe.said(made, target, cache, places))
        whole = list(recipe.predict(made, target, batch_of(target, tokens)))
    assert (logits - again).abs().max() < 1e-4, "the cache was left as it was"
    hung = [(-1, d, j) for j in range(members) for d in (1, 2, 3)]
    below = WithPromptTokens(torch.stack([made.embed[d - 1, j] for _, d, j in hung]).detach(), *map(tuple, zip(*hung, strict=True)))
    for row, (number, place) in product(range(2), enumerate(places.tolist())):
        output, _ = read_with(target, tokens[row, : place + 1].tolist(), Draft((), (), reading=below))
        alone = output.prompt_tokens.unflatten(0, (members, 3)).mean(0)
        assert (logits[row, number] - alone).abs().max() < 1e-3
        assert max((whole[k][row, place] - alone[k]).abs().max() for k in range(3)) < 1e-3


def test_the_direction_of_the_divergence():
    target, prompt_token = torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.5, 0.5]]).log()
    assert recipe.divergence(target, prompt_token).item() == pytest.approx(0.3681, abs=1e-4)
    assert recipe.divergence(prompt_token, target).item() == pytest.approx(0.5108, abs=1e-4)


def test_the_loss_compares_every_probe_with_the_row_it_stands_for(monkeypatch):
    """On a text that repeats itself, below places where it begins anew, the embeddings of its own tokens have no loss; those of the
    tokens one place further have."""
    monkeypatch.setattr(recipe, "quick", lambda device: nullcontext())
    monkeypatch.setattr("decoding.training.states.quick", lambda device: nullcontext())
    monkeypatch.setattr(recipe, "sampled_places", lambda batch, m: torch.tensor([4, 12, 16]))
    target, pattern = target_of(), [9, 30, 60, 200]
    batch = batch_of(target, torch.tensor([pattern * 6]))
    losses = []
    for shift in (0, 1):
        made = Prompts(32, 3)
        made.embed.data[:, 0] = embedded(target, [pattern[(i + shift) % 4] for i in (1, 2, 3)])
        with torch.inference_mode():
            losses.append(float(recipe.loss(made, target, batch)))
    assert losses[0] < 1e-4 < 0.05 < losses[1]


def test_places_are_drawn_anew_for_every_batch_and_look_at_the_window_only():
    tokens = torch.zeros(2, 60, dtype=torch.long)
    found = [recipe.sampled_places(Batch(tokens, tokens == 0, {}, seed), 3) for seed in (0, 0, 1)]
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
    assert len(found[0]) == recipe.PLACES and found[0].max() + 3 + 1 < 60 and len(found[0].unique()) == recipe.PLACES
    assert recipe.sampled_places(Batch(tokens[:, :5], tokens[:, :5] == 0, {}), 3).tolist() == [0]


def test_only_the_prompts_learn_and_they_do():
    target = target_of()
    target.model.requires_grad_(False)
    made = init_head(target, 3, 2)
    batch = batch_of(target, torch.randint(VOCAB, (4, 40), generator=torch.Generator().manual_seed(0)))
    optimizer = torch.optim.AdamW(made.parameters(), lr=0.03)
    losses = []
    for _ in range(30):
        losses.append(recipe.loss(made, target, batch))
        losses[-1].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0] - 0.2 and [name for name, _ in made.named_parameters()] == ["embed"]
    assert all(p.grad is None for p in target.model.parameters())


def test_untrained_prompts_are_embeddings_of_tokens():
    target = target_of("gpt2")
    found = init_head(target, 3, 2).embed.detach().flatten(0, 1)
    apart = torch.cdist(found, embedded(target, range(VOCAB)))
    assert (apart.amin(1) < 1e-2).all() and len(apart.argmin(1).unique()) == 6


# -- the machine of states ---------------------------------------------------------------------------------------------

BY_HAND = (
    ProbeTree((), (), ()),
    ProbeTree(((0,),), (0.6,), (1,)),
    ProbeTree(((0,), (0, 0)), (0.6, 0.3), (1, 2)),
)


def test_the_worked_example():
    made = Machine(BY_HAND)
    assert made.stationary == pytest.approx([0, 3 / 7, 4 / 7]) and made.tokens == pytest.approx(1.7714, abs=1e-4)
    assert endings((-1, 0), (0.6, 0.3)) == pytest.approx([0.4, 0.3, 0.3])


def test_a_state_for_steps_without_a_guess_would_count_too_little():
    """The trap of the released search: a step that accepts nothing is not another step, and leads to the last state at once."""
    idle = np.array([[0.6, 0.0, 0.4], [0.3, 0.3, 0.4], [0.0, 1.0, 0.0]])  # from and to: state 1, state 2, idle
    share = np.linalg.matrix_power(idle, 200)[0]
    assert 1 + share @ [0.6, 0.9, 0.0] == pytest.approx(1.5510, abs=1e-4)
    assert 1 + share @ [0.6, 0.9, 0.0] < Machine(BY_HAND).tokens - 0.2


@pytest.mark.parametrize("budget", [16, 40])
def test_the_chain_of_states_is_what_happens(budget):
    """Acceptance drawn node by node, many steps."""
    made, rng = machine(RANKS, budget), np.random.default_rng(0)
    state, accepted = made.most, []
    for _ in range(8000):
        tree = made.trees[state]
        end = rng.choice(len(tree.ends), p=tree.ends)
        accepted.append(0 if end == 0 else len(tree.paths[end - 1]))
        state = made.most if end == 0 else tree.prompt_tokens[end - 1]
    assert np.mean(accepted) == pytest.approx(made.tokens - 1, abs=4 * np.std(accepted) / 8000**0.5)


@pytest.mark.parametrize("budget, members", [(8, 1), (16, 1), (24, 1), (64, 1), (64, 2)])
def test_trees_fit_the_budget_and_no_node_is_without_a_prompt_token(budget, members):
    made = machine(RANKS, budget, members)
    assert made.most == 3 and made.trees[0].paths == ()
    for state, tree in enumerate(made.trees[1:], 1):
        assert 1 + made.most * members + tree.rows(members) <= budget
        assert tree.paths and max(map(len, tree.paths)) <= state and all(1 <= count <= 3 for count in tree.prompt_tokens)
        assert all(path[:-1] in {(), *tree.paths[:i]} for i, path in enumerate(tree.paths))
    assert made.tokens >= machine(RANKS, 8, members).tokens - 1e-9, "more rows are not worth less"


def test_the_prompt_tokens_that_are_missed_least_go_first():
    """By hand: gains of the second and third prompt token are 0.2 and 0.1; and the loss of every removal is at least the last
    one's."""
    gains = (0.5, 0.2, 0.1)
    assert thinned((0.5, 0.1, 0.2), gains, 9) == (3, 3, 3)
    assert thinned((0.5, 0.1, 0.2), gains, 6) == (3, 1, 2)  # .01 + .02 of nodes 1 and 1, .02 of node 2
    assert thinned((0.5, 0.1, 0.2), gains, 0) == (1, 1, 1)
    ends, lost = np.random.default_rng(1).random(12) / 12, []
    for room in range(35, 12, -1):
        before, after = (np.array(thinned(ends, gains, r)) for r in (room + 1, room))
        (node,) = np.flatnonzero(before - after)
        lost.append(ends[node] * gains[before[node] - 1])
    assert lost == sorted(lost)


def test_budgets_at_their_limits():
    """One row: plain decoding. Room for the root's prompt tokens alone, or for some of them: nothing is drafted."""
    assert machine(RANKS, 1).trees == (ProbeTree((), (), ()),) and machine(RANKS, 1).tokens == 1
    assert machine(RANKS, 3).most == 2 and machine(RANKS, 5).tokens == 1
    assert machine(RANKS[:1], 24).most == 1 and machine(RANKS[:1], 24).tokens > 1.5


def test_the_budget_follows_from_what_a_pass_takes():
    flat, steep = dict.fromkeys(ppd.BUDGETS, 5.0), {rows: float(rows**2) for rows in ppd.BUDGETS}
    assert best_budget(RANKS, 1, flat) == 64 and best_budget(RANKS, 1, steep) == 16


def test_passes_are_timed_once_per_model(monkeypatch):
    target, asked = target_of(seed=3), []
    timed = ppd.timed
    monkeypatch.setattr(ppd, "timed", lambda of: asked.append(of) or timed(of))
    first, second = ppd.latencies(target), ppd.latencies(target)
    assert first is second and len(asked) == 1 and set(first) == set(ppd.BUDGETS) and all(ms > 0 for ms in first.values())


# -- runs --------------------------------------------------------------------------------------------------------------


def seen(family, params: Params, sampling=GREEDY, count: int = 60, seed: int = 0, change=None):
    """(draft, step, tokens before) of a run, and the drafter."""
    drafter, accept = ppd.build(family, params, sampling)
    if change is not None:
        drafter.machine = change
    drafts, propose = [], drafter.propose
    drafter.propose = lambda tokens, rng: drafts.append((propose(tokens, rng), list(tokens))) or drafts[-1][0]
    rng = torch.Generator().manual_seed(seed)
    options = {"sampling": sampling, "rng": rng, "max_tokens": count, "recorded": False}
    steps = list(decode(family.target, drafter, accept, PROMPT, **options))
    return [(draft, step, tokens) for (draft, tokens), step in zip(drafts, steps, strict=True)], drafter


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_every_node_is_what_the_prompt_tokens_of_the_last_pass_say(families, kind):
    """At every step, from a fresh pass over the text with the prompt tokens below the node where acceptance ended."""
    family, states_met = families(kind), set()
    made, _ = load_head(family.target)
    for sampling in (GREEDY, Sampling(1.0)):
        for (before, step, tokens), (draft, _, _) in pairwise(seen(family, Params(budget="24"), sampling, 40)[0]):
            end = step.path[-1] if step.path else -1
            count = before.reading.nodes.count(end)
            states_met.add(count)
            assert int(draft.depths.max()) <= count and draft.scores[ppd.STATE][0] == count
            assert count == 3 or step.path, "nothing accepted: the last state"
            below = WithPromptTokens(made.embed[:count, 0], (-1,) * count, tuple(range(1, count + 1)), (0,) * count)
            text = [*tokens, *step.tokens[:-1]]
            with torch.inference_mode():
                said = read_with(family.target, text, Draft((), (), reading=below))[0].prompt_tokens
            for i, (token, depth) in enumerate(zip(draft.tokens, draft.depths, strict=True)):
                rank = int(draft.scores[ppd.RANK][i])
                assert said[depth - 1][token] == pytest.approx(float(said[depth - 1].sort(descending=True)[0][rank - 1]), abs=1e-3)
                assert draft.source[i] == f"prompt token {depth}"
    assert len(states_met) > 1, "only one state was met"


def test_the_first_step_reads_prompt_tokens_and_no_guess(llama):
    (draft, step, _), *_ = seen(llama, Params(budget="16"))[0]
    assert not len(draft) and draft.reading.nodes == (-1,) * 3 and step.origins == ("plain",)


def test_no_row_of_a_probe_stays_in_the_cache(llama, monkeypatch):
    caches = []
    monkeypatch.setattr("decoding.models.target.TreeCache", lambda: caches.append(TreeCache()) or caches[-1])
    text = [*PROMPT, *tokens_of([step for _, step, _ in seen(llama, Params(budget="48"), Sampling(1.0), 100)[0]])]
    fresh_cache = TreeCache()
    llama.target.extend(fresh_cache, text[:-1])
    assert caches[0].committed == caches[0].length == len(text) - 1
    for kept, layer in zip(caches[0].layers, fresh_cache.layers, strict=True):
        assert (kept.keys[:, :, : len(text) - 1] - layer.keys[:, :, : len(text) - 1]).abs().max() < 1e-4


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_the_context_limit_is_kept_by_prompt_tokens_too(kind):
    """A model with learned positions has none beyond it."""
    target = replace(target_of(kind, max_position_embeddings=40), context=40, ends=frozenset())
    found = [step for _, step, _ in seen(toys.toy_family(target), Params(budget="48"), count=100)[0]]
    assert found[-1].ending == "context limit" and tokens_of(found) == toys.greedy_text(target, PROMPT, 35)


def test_without_prompt_tokens_below_nodes_or_without_any_it_still_writes_the_right_text(llama):
    """Nothing below a node: behind an accepted one follows a plain step, and then the root's prompt tokens speak again. One row:
    plain."""
    base = machine(RANKS, 16)
    bare = Machine(tuple(replace(tree, prompt_tokens=(0,) * len(tree.paths)) for tree in base.trees))
    right = toys.greedy_text(llama.target, PROMPT, 40)
    for made in (bare, machine(RANKS, 1), machine(RANKS, 3)):
        run = seen(llama, Params(budget="16"), count=40, change=made)[0]
        assert tokens_of([step for _, step, _ in run]) == right[: len(tokens_of([step for _, step, _ in run]))]
        for (_, step, _), (after, _, _) in zip(run, run[1:], strict=False):
            assert (len(after) > 0) == (made is bare and not step.path)


@pytest.mark.parametrize("change", [torch.zeros_like, lambda e: 3 * torch.randn(e.shape)], ids=["zero", "random"])
def test_any_prompts_write_the_right_text(llama, monkeypatch, change):
    made, ranks = load_head(llama.target)
    made.embed.data = change(made.embed.data)
    monkeypatch.setattr(ppd, "load_head", lambda target: (made, ranks))
    assert tokens_of(run_steps(llama, "ppd", PROMPT, max_tokens=30)) == toys.greedy_text(llama.target, PROMPT, 30)


def test_members_are_averaged(monkeypatch):
    target = target_of()
    monkeypatch.setattr(ppd, "load_head", lambda of: (init_head(target, 3, 2), RANKS))
    run, drafter = seen(toys.toy_family(target), Params(budget="32"), count=30)
    assert tokens_of([step for _, step, _ in run]) == toys.greedy_text(target, PROMPT, 30)
    assert all(len(draft) + 1 + len(draft.reading) <= 32 for draft, _, _ in run) and drafter.machine.members == 2


def test_typical_acceptance_misses_the_target_s_law(llama):
    """p = (.6, .4) with both tokens in the tree: the first one always, 0.4 away from p; the exact rule writes p."""
    p, draft = torch.tensor([0.6, 0.4]), Draft((0, 1), (-1, -1), source=("prompt token 1",) * 2)
    far = {}
    for rule in ("exact", "typical"):
        accept, emitted = ppd.build(llama, Params(budget="16", rule=rule), Sampling(1.0))[1], torch.zeros(2)
        for i in range(50):
            verification = accept(draft, output_of(p.expand(3, -1)), torch.full((3,), (i + 0.5) / 50))
            emitted[draft.tokens[verification.path[0]] if verification.path else verification.token] += 1 / 50
        far[rule] = toys.total_variation(emitted, p)
    assert far["exact"] < 0.01 and far["typical"] == pytest.approx(0.4, abs=1e-3)
    method = METHODS["ppd"]
    assert method.lossless_with({}, greedy=False) and not method.lossless_with({"rule": "typical"}, greedy=False)


def test_the_curve_is_told_once_in_a_run_and_only_where_it_was_measured(llama):
    told = [step.facts for step in run_steps(llama, "ppd", PROMPT, max_tokens=12)]
    assert set(map(ppd.LATENCY.format, ppd.BUDGETS)) | set(map(ppd.YIELD.format, ppd.BUDGETS)) <= set(told[0])
    assert all(ppd.ROOT_PROMPT_TOKENS in facts for facts in told) and not any(ppd.LATENCY.format(16) in facts for facts in told[1:])
    fixed = [step.facts for step in run_steps(llama, "ppd", PROMPT, max_tokens=12, budget="24")]
    assert all(facts[ppd.ROW_BUDGET] == 24 and ppd.LATENCY.format(16) not in facts for facts in fixed)


# -- refusals and the command line -------------------------------------------------------------------------------------

GOOD = {"width": 32, "prompt_tokens": 3, "members": 1, "ranks": [list(row) for row in RANKS]}


@pytest.mark.parametrize(
    "change, match",
    [
        ({"prompt_tokens": 0}, "prompt_tokens 0"),
        ({"prompt_tokens": 5}, "prompt_tokens 5"),
        ({"members": True}, "members True"),
        ({"width": "32"}, "width '32'"),
        ({"ranks": None}, "3 rows of 1 to 8"),
        ({"ranks": [[0.5]] * 2}, "3 rows of 1 to 8"),
        ({"ranks": [[0.5], [1.5], [0.1]]}, "3 rows of 1 to 8"),
    ],
)
def test_settings_that_cannot_be_are_refused(change, match):
    assert shapes(GOOD) == {"embed": (3, 1, 32)}
    with pytest.raises(ValueError, match=match):
        shapes(GOOD | change)


def test_trained_from_the_command_line_for_another_target(workshop):
    target = workshop.target("gpt2", seed=4)
    family = load(target, device="cpu")
    assert "decoding.training ppd --family" in METHODS["ppd"].missing(family)
    command = workshop.command("ppd", target, prompt_tokens=2, epochs=1)
    train.main(command)
    facts = json.loads(next((workshop.folder / "cache").rglob("head.json")).read_text())
    assert facts["settings"]["prompt_tokens"] == len(facts["settings"]["ranks"]) == 2 and "depth 2: top-1" in facts["figures"]
    assert train.parse(command).lr == 0.01
    steps = run_steps(family, "ppd", PROMPT, max_tokens=24)
    assert {node.source for step in steps for node in step.nodes} <= {"prompt token 1", "prompt token 2"} and any(
        step.nodes for step in steps
    )
    assert tokens_of(steps) == toys.greedy_text(family.target, PROMPT, len(tokens_of(steps)))
