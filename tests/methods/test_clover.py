"""Clover: the checks of its parts and of its tree, training against drafting, and the traps of its successor's code."""

import json
import math
from itertools import product

import pytest
import torch

from decoding.draft import Draft
from decoding.methods import METHODS, clover
from decoding.methods.clover import NOTED, Heads, Params, branched, described, embedded, init_head, load_head, shapes
from decoding.models.attention import Sizes
from decoding.models.family import load
from decoding.models.target import PRE_NORM
from decoding.sample import Sampling
from decoding.score_names import JOINT, MOVED, OWN
from decoding.training import train
from decoding.training.recipes import RECIPES
from decoding.training.recipes import clover as recipe
from decoding.verify import recursive_rejection
from tests import toys
from tests.decoding.test_tau_floor import PROMPTS as FLOOR_PROMPTS
from tests.decoding.test_tau_floor import tau
from tests.methods.test_medusa import over_fitted
from tests.teacher_forcing import PROMPT, batch_of, exactly, forced, learned, states_of, steps_of, target_of
from tests.toys import GREEDY, VOCAB, output_of, run_steps, tokens_of, total_variation

RECIPE = RECIPES["clover"]


# -- the parts ---------------------------------------------------------------------------------------------------------


def idle(heads: Heads) -> Heads:
    """The augmenting block taken out of the way."""
    for part in (heads.augment.self_attn.o_proj, heads.augment.mlp.down_proj):
        torch.nn.init.zeros_(part.weight)
    return heads


@pytest.mark.parametrize("kind", ["llama", "qwen2", "mistral"])
def test_with_nothing_learned_and_no_block_every_head_says_what_the_target_says(kind, monkeypatch):
    exactly("clover", monkeypatch)
    target, tokens = target_of(kind), torch.tensor([PROMPT])
    heads, batch = idle(init_head(target, 3)), batch_of(target, tokens, PRE_NORM)
    with torch.inference_mode():
        logits = target.model(tokens).logits
        for said in RECIPE.predict(heads, target, batch):
            assert (said - logits).abs().max() < 1e-5
        heads.value.weight += 0.1 * torch.randn(heads.value.weight.shape)
        assert (next(RECIPE.predict(heads, target, batch)) - logits).abs().max() > 0.01, "or nothing was compared"


@pytest.mark.parametrize("kind, more", [("llama", {}), ("llama", {"num_key_value_heads": 1}), ("mistral", {})])
def test_the_block_begins_as_the_target_s_last_layer(kind, more):
    """As a function: it makes of the last layer's input what the last layer makes of it, and so does no other layer."""
    target = target_of(kind, num_hidden_layers=3, **more)
    heads, positions = init_head(target, 1), torch.arange(len(PROMPT))[None]

    def through(states):
        return heads.augment(states, positions, *heads.augment.keys_values(states, positions))

    with torch.inference_mode():
        into, out = (states_of(target, PROMPT, aux_layer)[None] for aux_layer in (2, PRE_NORM))
        assert (through(into) - out).abs().max() < 1e-4 < (into - out).abs().max()
        earlier, later = (states_of(target, PROMPT, aux_layer)[None] for aux_layer in (1, 2))
        assert (through(earlier) - later).abs().max() > 0.01, "layer 0 is what the released code copies"


@pytest.mark.parametrize("kind", ["gpt2", "phi", "qwen3", "olmo"])
def test_beside_other_layers_it_begins_by_doing_nothing(kind):
    target = target_of(kind)
    heads, positions = init_head(target, 1), torch.arange(len(PROMPT))[None]
    with torch.inference_mode():
        states = states_of(target, PROMPT, PRE_NORM)[None]
        assert torch.equal(heads.augment(states, positions, *heads.augment.keys_values(states, positions)), states)


def test_the_cell_by_hand():
    torch.manual_seed(0)
    heads = Heads(Sizes(8, 2, 8), 1)
    state, token = torch.randn(8), torch.randn(8)
    with torch.inference_mode():
        after, gates = heads.cell(state, token)
        asked = heads.query.weight @ (state / (state.pow(2).mean() + 1e-6).sqrt())
        key, value = heads.key.weight @ token, heads.value.weight @ token
        for j in (0, 1):
            part = slice(4 * j, 4 * j + 4)
            cosine = (asked[part] @ key[part]) / (asked[part].norm() * key[part].norm())
            assert gates[j].item() == pytest.approx(cosine.item(), abs=1e-5) and abs(cosine) <= 1
            moved = cosine * value[part]
            assert torch.allclose(after[part], state[part] + moved * torch.sigmoid(moved), atol=1e-5)


def test_tokens_are_rows_of_the_language_model_head_of_one_size():
    target = target_of()
    rows = embedded(target, torch.tensor([3, 200]))
    weight = target.model.get_output_embeddings().weight[torch.tensor([3, 200])]
    assert torch.allclose(rows.pow(2).mean(-1), torch.ones(2), atol=1e-4)
    assert torch.allclose(torch.cosine_similarity(rows, weight, dim=-1), torch.ones(2), atol=1e-5)


def test_the_second_head_depends_on_the_first_token_and_only_through_the_cell(monkeypatch):
    exactly("clover", monkeypatch)
    target = target_of()
    torch.manual_seed(1)
    heads, texts = init_head(target, 2), torch.tensor([[*PROMPT, 9, 3, 5], [*PROMPT, 9, 4, 5]])
    one = batch_of(target, texts, PRE_NORM)
    one.states[PRE_NORM][1] = one.states[PRE_NORM][0]  # as far as they are known they are the same
    place = len(PROMPT) - 1  # token 9 is the root, then 3 or 4
    with torch.inference_mode():
        for noise, same in ((0.0, True), (0.5, False)):
            heads.value.weight += noise * torch.randn(heads.value.weight.shape)
            first, second = (logits[:, place].softmax(-1) for logits in RECIPE.predict(heads, target, one))
            assert torch.equal(first[0], first[1]), "head 1 knows the root alone"
            assert torch.equal(second[0], second[1]) == same and (same or total_variation(second[0], second[1]) > 0.05)


def test_sizes_are_those_of_the_specification():
    """Cell, residual blocks, augmenting block and norms at a width of 256 with 3 heads."""
    settings = {"width": 256, "attention heads": 4, "mlp": 688, "theta": 1e4, "eps": 1e-6, "heads": 3}
    total = sum(math.prod(shape) for shape in shapes(settings).values())
    assert total == 196_864 + 3 * 65_792 + 791_040 + 256


# -- the tree ----------------------------------------------------------------------------------------------------------


def grown(table: dict[tuple[int, ...], list[float]], vocab: int, levels: int, budget: int, top_p: float, ratio: float, look: bool):
    """`branched` over distributions that are known: path of tokens -> probabilities, an even one where nothing is given."""
    paths: list[tuple[int, ...]] = []

    def extend(tokens, parents):
        handed = zip(tokens.tolist(), parents.tolist(), strict=True)
        made = [() if parent < 0 else (*paths[parent], token) for token, parent in handed]
        paths.extend(made)
        q = torch.tensor([table.get(path, [1 / vocab] * vocab) for path in made])
        return q.log(), torch.tensor([[float(len(path))] for path in made])

    tree = branched(extend, torch.tensor([0]), levels=levels, budget=budget, top_p=top_p, ratio=ratio, look=look)
    found: list[tuple[int, ...]] = []
    for token, parent in zip(tree.tokens, tree.parents, strict=True):
        found.append((*(found[parent] if parent >= 0 else ()), token))
    return tree, found


def by_hand(table, vocab, levels, budget, top_p, ratio):
    """The rule as the authors tell it, in plain Python."""
    left, frontier, nodes = budget, [((), 1.0)], []
    for _ in range(levels):
        candidates = []
        for path, joint in frontier:
            q = table.get(path, [1 / vocab] * vocab)
            order, total = sorted(range(vocab), key=lambda token: -q[token]), 0.0
            for token in order:
                if total >= top_p or q[token] < ratio * q[order[0]]:
                    break
                candidates.append(((*path, token), joint * q[token]))
                total += q[token]
        frontier = sorted(candidates, key=lambda one: -one[1])[:left]
        nodes += frontier
        left -= len(frontier)
        if not left or not frontier:
            break
    return nodes


@pytest.mark.parametrize("look", [False, True])
def test_the_worked_example(look):
    """Budget 4: level 1 keeps .5 and .3, level 2 .8 behind the first (.40) and .3 behind the second (.09); then it is spent."""
    table = {
        (): [0.5, 0.3, 0.1, 0.05, 0.05] + [0.0] * 7,
        (0,): [0.8, 0.1] + [0.01] * 10,
        (1,): [0.3, 0.1] + [0.06] * 10,
    }
    tree, paths = grown(table, 12, 3, 4, 0.8, 0.25, look)
    assert paths == [(0,), (1,), (0, 0), (1, 0)], "a fifth node, or token 2, means that the cut is wrong"
    assert tree[JOINT] == pytest.approx([0.5, 0.3, 0.4, 0.09]) and tree[OWN] == pytest.approx([0.5, 0.3, 0.8, 0.3])
    assert tree.parents == [-1, -1, 0, 1] and tree.rows.tolist() == [0, 0, 1, 2] and tree[NOTED] == [[0.0], [0.0], [1.0], [1.0]]
    assert (2, -1, pytest.approx(0.1)) in [(t, p, s) for t, p, s in tree.pruned], "c was looked at and cut"


@pytest.mark.parametrize("look", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_the_tree_is_the_rule_s_for_any_numbers(seed, look):
    torch.manual_seed(seed)
    vocab, levels = 7, 3
    paths = [path for depth in range(levels) for path in product(range(vocab), repeat=depth)]
    table = {path: (2 * torch.randn(vocab)).softmax(-1).tolist() for path in paths}
    for budget, top_p, ratio in ((1, 0.8, 0.25), (4, 0.8, 0.25), (24, 0.8, 0.25), (24, 1.0, 0.0), (64, 0.5, 0.1), (24, 0.0, 1.0)):
        tree, found = grown(table, vocab, levels, budget, top_p, ratio, look)
        wanted = dict(by_hand(table, vocab, levels, budget, top_p, ratio))
        if top_p == 0:  # nothing may be taken
            assert not found and not wanted
            continue
        assert set(found) == set(wanted) and len(found) == len(wanted) <= budget
        assert tree[JOINT] == pytest.approx([wanted[path] for path in found], rel=1e-4)
        kept = {(parent, token) for parent, token in zip(tree.parents, tree.tokens, strict=True)}
        assert not kept & {(parent, token) for token, parent, _ in tree.pruned}, "cut and kept at once"
        logits = tree.logits[tree.rows].softmax(-1)
        assert [logits[i, t].item() for i, t in enumerate(tree.tokens)] == pytest.approx(tree[OWN], rel=1e-4)


def test_samples_that_were_pruned_are_not_judged_by_their_ratio():
    """Ratio test and residual for what was picked, not drawn, miss p by 0.14; the draft says that it was chosen, and is refused."""
    p, q = torch.tensor([0.4, 0.3, 0.2, 0.1]), torch.tensor([0.1, 0.2, 0.3, 0.4])
    emitted = torch.zeros(4)
    for first, second in ((a, b) for a in range(4) for b in range(4) if a != b):
        chance = q[first] * q[second] / (1 - q[first])
        one = max(first, second, key=lambda token: float(q[token]))
        accepted = min(1.0, float(p[one] / q[one]))
        emitted[one] += chance * accepted
        residual = (p - q).clamp(min=0)
        emitted += chance * (1 - accepted) * residual / residual.sum()
    assert torch.allclose(emitted, torch.tensor([0.4619, 0.2012, 0.1579, 0.1790]), atol=1e-3)
    assert total_variation(emitted, p) == pytest.approx(0.141, abs=1e-3)
    draft = Draft((3,), (-1,), source=("head 1",))
    with pytest.raises(ValueError):
        recursive_rejection(draft, output_of(p.expand(2, -1)), torch.zeros(2))


# -- drafting ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mistral"])
@pytest.mark.parametrize("sampling", [GREEDY, Sampling(1.0)])
def test_training_is_drafting_at_every_step(kind, sampling, monkeypatch):
    """Every sixth node of every draft of a run, first children or not, after any number of commits."""
    exactly("clover", monkeypatch)
    target, depths = target_of(kind), set()

    def look(drafter, tokens, draft):
        draft_probabilities = draft.draft_probabilities
        for node in range(0, len(draft), 6):
            said = forced("clover", drafter, target, tokens, draft, node).softmax(-1)
            assert (said - draft_probabilities[node]).abs().max() < 1e-4
            assert draft.scores["q"][node] == pytest.approx(said[draft.tokens[node]].item(), abs=1e-4)
            assert draft.source[node] == f"head {draft.depths[node]}"
            depths.add(int(draft.depths[node]))

    steps = steps_of("clover", target, look, sampling)
    assert len(steps) > 8 and len(depths) > 1


def test_the_block_s_memory_is_that_of_the_text_alone():
    """After a whole run: as if all of the text had been given at once, as long as the text but the root."""
    target, seen = target_of(), []
    steps_of("clover", target, lambda drafter, tokens, draft: seen.append((drafter, tokens)), Sampling(1.0), 60)
    drafter, tokens = seen[-1]
    with torch.inference_mode():
        states = states_of(target, tokens[:-1], PRE_NORM)[None]
        keys, values = drafter.heads.augment.keys_values(states, torch.arange(len(tokens) - 1)[None])
    assert len(seen) > 30
    # the run went one step on after the last draft: what was there before must still stand in front
    kept = drafter.memory.layer
    assert kept.length == drafter.memory.committed >= len(tokens) - 1
    assert (kept.keys[:, :, : len(tokens) - 1] - keys).abs().max() < 1e-4
    assert (kept.values[:, :, : len(tokens) - 1] - values).abs().max() < 1e-4


def test_what_the_cell_did_is_recorded(llama):
    step = run_steps(llama, "clover", PROMPT, recorded=True, max_tokens=6)[0]
    for node in step.nodes:
        names = {MOVED, "gate 1", "gate 2", "q", "joint q"}
        assert names == set(node.scores) and all(abs(node.scores[f"gate {j}"]) <= 1 + 1e-5 for j in (1, 2))
        above = step.nodes[node.parent].scores["joint q"] if node.parent >= 0 else 1.0
        assert node.scores["joint q"] == pytest.approx(above * node.scores["q"], rel=1e-3)
    below = {node.parent: node.scores["gate 1"] for node in step.nodes}
    assert all(node.scores["gate 1"] == below[node.parent] for node in step.nodes) and len(set(below.values())) > 1


def test_a_prompt_of_one_token_drafts_nothing_at_first(llama):
    steps = run_steps(llama, "clover", (7,), max_tokens=12)
    assert not steps[0].nodes and steps[1].nodes
    assert tokens_of(steps) == toys.greedy_text(llama.target, (7,), 12)


def test_the_bonus_is_drawn_at_the_run_s_temperature(llama):
    """The trap of the successor's code: behind a path that was accepted whole, it draws without temperature."""
    texts = {tuple(tokens_of(run_steps(llama, "clover", PROMPT, sampling=Sampling(1.0), seed=s, max_tokens=12))) for s in range(5)}
    assert len(texts) > 3


def test_nothing_is_drafted_where_nothing_may_be_taken(llama):
    assert not any(step.nodes for step in run_steps(llama, "clover", PROMPT, top_p=0.0, max_tokens=6))


# -- refusals ----------------------------------------------------------------------------------------------------------

GOOD = {"width": 32, "attention heads": 2, "mlp": 48, "theta": 10_000.0, "eps": 1e-6, "heads": 2}


@pytest.mark.parametrize(
    "change", [{"heads": 0}, {"heads": True}, {"width": None}, {"width": 33}, {"mlp": 2**30}, {"theta": "x"}, {"eps": 0}]
)
def test_settings_that_cannot_be(change):
    assert shapes(GOOD) == {name: tuple(values.shape) for name, values in clover.heads_of(GOOD).state_dict().items()}
    with pytest.raises(ValueError, match="cannot be|do not divide"):
        shapes(GOOD | change)


# -- training ----------------------------------------------------------------------------------------------------------


def test_every_head_learns_its_own_place_told_what_stands_before():
    """On a periodic text head k is right at its own place and wrong one place off."""
    target, text = over_fitted()
    target.model.requires_grad_(False)
    torch.manual_seed(0)
    heads, batch = init_head(target, 3), batch_of(target, torch.stack([text[s : s + 64] for s in range(11)]), PRE_NORM)
    losses = list(learned("clover", heads, target, batch, 40))
    assert losses[-1] < 0.1 * losses[0]
    tokens = batch.tokens
    with torch.no_grad():
        for k, logits in enumerate(RECIPE.predict(heads, target, batch), 1):
            guess = logits.argmax(-1)[:, 16:48]
            shares = [(guess == tokens[:, 16 + ahead : 48 + ahead]).float().mean().item() for ahead in (k, k + 1, k + 2)]
            assert shares[1] > 0.99 and max(shares[0], shares[2]) < 0.05, (k, shares)


def test_the_loss_by_hand(monkeypatch):
    """Sum over the heads of 0.8^k times the cross-entropy of token t + k + 1 at place t, where it counts."""
    exactly("clover", monkeypatch)
    target = target_of()
    torch.manual_seed(0)
    heads, batch = init_head(target, 2), batch_of(target, torch.randint(VOCAB, (2, 9)), PRE_NORM)
    batch.counts[0, :5] = False
    with torch.no_grad():
        said, total = list(RECIPE.predict(heads, target, batch)), 0.0
        for k in (1, 2):
            terms = [
                -said[k - 1][row, t].log_softmax(-1)[batch.tokens[row, t + k + 1]].item()
                for row in range(2)
                for t in range(9 - k - 1)
                if batch.counts[row, t + k + 1]
            ]
            total += recipe.DECAY**k * sum(terms) / len(terms)
        assert RECIPE.loss(heads, target, batch, 0.0).item() == pytest.approx(total, rel=1e-4)


def test_the_target_is_left_as_it_is_and_everything_else_learns():
    target = target_of()
    target.model.requires_grad_(False)
    before = [values.clone() for values in target.model.parameters()]
    heads = init_head(target, 2)
    list(learned("clover", heads, target, batch_of(target, torch.randint(VOCAB, (2, 16)), PRE_NORM), 3))
    assert all(torch.equal(a, b) for a, b in zip(before, target.model.parameters(), strict=True))
    begun = init_head(target, 2).state_dict()
    assert all(not torch.equal(values, begun[name]) for name, values in heads.state_dict().items())
    assert described(heads)["heads"] == 2 and "2 residual blocks" in RECIPE.words(heads)


def test_from_the_command_line_for_another_target(workshop, capsys):
    target = workshop.target(num_hidden_layers=3)
    family = load(target, device="cpu")
    assert "decoding.training clover --family" in METHODS["clover"].missing(family)
    train.main(workshop.command("clover", target, "greedy", epochs=1, heads=2))
    said = capsys.readouterr().out
    assert "depth 2: top-1" in json.loads(said[said.index("{") : said.rindex("}") + 1])
    assert METHODS["clover"].missing(family) == "" and len(load_head(family.target).blocks) == 2
    steps = run_steps(family, "clover", PROMPT, max_tokens=24)
    text = tokens_of(steps)
    assert text == toys.greedy_text(family.target, PROMPT, len(text))
    assert {node.source for step in steps for node in step.nodes} == {"head 1", "head 2"}
    assert Params().heads == 4, "more are asked than there are"


# -- the shipped heads -------------------------------------------------------------------------------------------------


def test_the_shipped_heads_are_worth_their_place(embedded, monkeypatch):
    """What head 2 says depends on the first token, and without the cell far fewer tokens are accepted."""
    far = []

    def look(drafter, tokens, draft):
        second = [i for i, depth in enumerate(draft.depths) if depth == 2]
        parents = {draft.parents[i]: i for i in second}
        if len(parents) > 1:
            one, two, *_ = parents.values()
            far.append(total_variation(draft.draft_probabilities[one], draft.draft_probabilities[two]))

    steps_of("clover", embedded.target, look, GREEDY, 24)
    assert sum(far) / len(far) > 0.05
    shipped, cell = tau(embedded, "clover", FLOOR_PROMPTS.values(), GREEDY), clover.Heads.cell
    monkeypatch.setattr(clover.Heads, "cell", lambda self, state, token: (state, cell(self, state, token)[1]))
    assert shipped > tau(embedded, "clover", FLOOR_PROMPTS.values(), GREEDY) + 0.3
