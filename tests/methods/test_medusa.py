"""Medusa: the checks of the paper's heads, tree and rules, the traps of the released code, and heads trained for another target."""

import json
import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from decoding.acceptance.typical import thresholds, typical
from decoding.draft import Draft
from decoding.loop import decode
from decoding.methods import METHODS, medusa
from decoding.methods.medusa import Params, cartesian_tree, sparse_tree, worth
from decoding.models import heads as door
from decoding.models.cache import TreeCache
from decoding.models.family import load
from decoding.models.medusa_heads import Heads, init_head, load_head, shapes
from decoding.models.requirements import head_of
from decoding.models.target import Target
from decoding.sample import Sampling
from decoding.score_names import HEAD_PROBABILITY, TYPICAL_P, TYPICAL_THRESHOLD
from decoding.training import train
from decoding.training.corpus import Domain
from decoding.training.recipes import RECIPES
from decoding.training.states import Batch, Pool, Texts
from decoding.verify import match
from tests import toys
from tests.decoding.test_greedy_equality import PROMPTS, generated, written
from tests.decoding.test_lossless_statistics import LIMIT, counted, expected, misfit
from tests.decoding.test_tau_floor import PROMPTS as FLOOR_PROMPTS
from tests.decoding.test_tau_floor import tau
from tests.toys import CONTEXT, GREEDY, VOCAB, causal_lm, output_of, run_steps, tokens_of, total_variation

PROMPT = (7, 70, 170, 7, 70)
RECIPE = RECIPES["medusa"]


def hidden_of(target: Target, tokens) -> torch.Tensor:
    """(len(tokens), width) states behind the final norm, from one plain pass."""
    return target.forward(TreeCache(), target.ids(tokens), range(len(tokens)), aux_hidden_layers=(target.last_hidden,))[1][
        target.last_hidden
    ]


# -- heads -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2", "phi"])
def test_untrained_heads_say_what_the_target_says(kind, own):
    target = Target(causal_lm(kind), VOCAB, CONTEXT)
    made, states = init_head(target, 3, own), hidden_of(target, PROMPT)
    with torch.inference_mode():
        logits = target.model(torch.tensor([PROMPT])).logits[0]
        if own and kind == "phi":  # its language-model head has a bias, which a head of one's own has not
            logits = logits - target.model.lm_head.bias
        for k in range(3):
            assert (made.scored(states, k, target) - logits).abs().max() < 1e-5
        made.blocks[1].bias += 0.5
        assert (made.scored(states, 1, target) - logits).abs().max() > 0.01, "or nothing was compared"


@pytest.mark.parametrize("settings, parameters", [((256, 4, 0), 263_168), ((256, 1, 2048), 590_080), ((256, 4, 4096), 4_457_472)])
def test_sizes_are_those_of_the_paper(settings, parameters):
    """d^2 + d + d V per head; without d V where the language-model head is shared."""
    width, heads, vocab = settings
    found = shapes({"width": width, "heads": heads, "vocab": vocab, "ranks": [[0.5]] * heads})
    assert sum(math.prod(shape) for shape in found.values()) == parameters


def test_blocks_do_not_share_weights():
    """A trap of the released code, where [block] * n repeats one object."""
    made = Heads(8, 3)
    made.blocks[0].bias.data += 1
    assert not made.blocks[1].bias.any() and len({values.data_ptr() for values in made.parameters()}) == 6


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mistral"])
def test_the_heads_read_the_state_that_the_root_was_drawn_from(kind):
    """At every step of a run, the first included, it is the state of a fresh pass at the token before the root."""
    family, lengths = toys.toy_family(Target(causal_lm(kind), VOCAB, CONTEXT)), set()
    for sampling, rule in product((GREEDY, Sampling(1.0)), ("exact", "typical")):
        params = Params(rule=rule, nodes=64, epsilon=1.0, delta=0.02)  # so low a threshold that the paths differ
        drafter, accept = medusa.build(family, params, sampling)
        rng, tokens, paths = torch.Generator().manual_seed(0), list(PROMPT), []
        for step in decode(family.target, drafter, accept, PROMPT, sampling=sampling, rng=rng, max_tokens=40, recorded=False):
            tokens += step.tokens
            paths.append(len(step.path))
            if not step.ending:
                states = hidden_of(family.target, tokens)
                assert (drafter.hidden - states[-2]).abs().max() < 1e-4
                assert (drafter.hidden - states[-3]).abs().max() > 0.01, "one position off must show"
        lengths.update(paths)
    assert len(lengths) > 1, "only steps of one kind were seen"


def test_a_prompt_of_one_token_drafts_nothing_at_first(llama):
    steps = run_steps(llama, "medusa", (7,), max_tokens=12)
    assert not steps[0].nodes and steps[0].origins == ("plain",) and steps[1].nodes
    assert tokens_of(steps) == toys.greedy_text(llama.target, (7,), 12)


def test_the_prompt_in_parts_gives_the_same_state(llama, monkeypatch):
    whole, hidden = llama.target.extend_with_hidden(TreeCache(), PROMPT, (2, 0))
    monkeypatch.setattr("decoding.models.target.PREFILL_ROWS", 2)
    parts, again = llama.target.extend_with_hidden(TreeCache(), PROMPT, (2, 0))
    assert (whole - parts).abs().max() < 1e-4 and hidden.keys() == again.keys() == {0, 2}
    assert all(
        len(again[aux_layer]) == len(PROMPT) and (hidden[aux_layer] - again[aux_layer]).abs().max() < 1e-4 for aux_layer in hidden
    )


# -- the tree ----------------------------------------------------------------------------------------------------------

RANKS = ((0.5, 0.2, 0.1), (0.3, 0.15, 0.1))


def test_the_worked_example_in_its_order():
    order = [(0,), (1,), (0, 0), (2,), (0, 1), (1, 0)]
    for nodes in range(1, 7):
        assert set(sparse_tree(RANKS, nodes)) == set(order[:nodes])
    assert [round(worth(RANKS, path), 4) for path in order] == [0.5, 0.2, 0.15, 0.1, 0.075, 0.06]


@pytest.mark.parametrize("seed", range(5))
def test_no_other_tree_of_that_size_is_worth_more(seed):
    """Against every combination: parents are worth at least as much as their children, so the best paths are a tree."""
    rng = np.random.default_rng(seed)
    ranks = tuple(tuple(sorted(rng.random(4) / 4, reverse=True)) for _ in range(3))
    every = [path for depth in (1, 2, 3) for path in product(range(4), repeat=depth)]
    values = sorted((worth(ranks, path) for path in every), reverse=True)
    for nodes in (1, 7, 24, 84, 200):
        tree = sparse_tree(ranks, nodes)
        assert sum(worth(ranks, path) for path in tree) == pytest.approx(sum(values[:nodes]))
        assert all(path[:-1] in {(), *tree[:i]} for i, path in enumerate(tree)) and len(set(tree)) == min(nodes, 84)


def test_equals_are_settled_always_alike():
    even = ((0.5, 0.5), (0.5, 0.5))
    assert sparse_tree(even, 3) == sparse_tree.__wrapped__(even, 3) == ((0,), (1,), (0, 0))


@pytest.mark.parametrize(
    "heads, ranks, nodes, widths", [(4, 10, 4, (1, 1, 1, 1)), (2, 10, 6, (2, 2)), (2, 2, 64, (2, 2)), (4, 10, 2, (1, 1))]
)
def test_a_cartesian_tree_holds_every_combination(heads, ranks, nodes, widths):
    expected = [path for depth in range(1, len(widths) + 1) for path in product(*map(range, widths[:depth]))]
    assert list(cartesian_tree(heads, ranks, nodes)) == expected


@pytest.mark.parametrize("params", [{}, {"nodes": 1}, {"nodes": 64}, {"heads": 1}, {"tree": "Cartesian"}])
def test_nodes_are_the_heads_ranks(llama, params):
    """Every node against a plain product: the token of its rank at the head of its depth, with that head's probability."""
    made = medusa.build(llama, Params(**params), GREEDY)[0]
    made.hidden = hidden_of(llama.target, PROMPT)[-1:]
    with torch.inference_mode():
        draft = made.propose(PROMPT, torch.Generator())
        q = [made.heads.scored(made.hidden, k, llama.target)[0].softmax(-1) for k in range(4)]
    assert draft.how == "deterministic" and draft.q is None and len(draft) <= Params(**params).nodes
    for i, (token, depth) in enumerate(zip(draft.tokens, draft.depths, strict=True)):
        best = q[depth - 1].argsort(descending=True)
        rank = int(draft.scores[medusa.RANK][i])
        assert token == best[rank - 1] and draft.source[i] == f"head {depth}"
        assert draft.scores[HEAD_PROBABILITY][i] == pytest.approx(float(q[depth - 1][token]), rel=1e-4)
        assert torch.allclose(draft.draft_probabilities[i], q[depth - 1], atol=1e-6)
    siblings = list(zip(draft.parents, draft.tokens, strict=True))
    assert len(set(siblings)) == len(siblings), "no token twice below one parent"


# -- exact acceptance --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tree", ["sparse", "Cartesian"])
@pytest.mark.parametrize("nodes", [1, 9, 64])
def test_the_tree_does_not_change_what_is_written_greedily(families, nodes, tree):
    for kind in ("llama", "qwen3"):
        for prompt in PROMPTS:
            assert written(families(kind), "medusa", prompt, nodes=nodes, tree=tree)[0] == generated(families(kind), prompt)


def test_random_tokens_in_the_tree_do_not_change_it_either(llama):
    drafter, accept = medusa.build(llama, Params(), GREEDY)
    propose = drafter.propose
    rng = torch.Generator().manual_seed(1)

    def randomly(tokens, _):
        draft = propose(tokens, _)
        return replace(draft, tokens=tuple(torch.randperm(VOCAB, generator=rng)[: len(draft)].tolist()))

    drafter.propose = randomly
    steps = list(decode(llama.target, drafter, accept, PROMPT, sampling=GREEDY, rng=rng, max_tokens=60, recorded=False))
    assert tokens_of(steps) == toys.greedy_text(llama.target, PROMPT, 60)


def test_token_zero_is_not_accepted_where_nobody_drafted_it():
    """The trap of the padded paths: the target goes on with token 0 behind a leaf that has no children."""
    chosen = Draft((1, 2, 3), (-1, -1, 0), source=("head 1", "head 1", "head 2"))
    output = output_of(torch.eye(4)[[1, 0, 0, 0]])
    for rule in (match, typical(0.09, 0.3)):
        verification = rule(chosen, output, torch.zeros(4))
        assert (
            verification.path == (0,)
            and verification.token == 0
            and verification.verdicts == ("accepted", "not judged", "rejected")
        )


@pytest.mark.parametrize("children, chance", [((3, 2), 0.3), ((0,), 0.4), ((0, 1, 2, 3), 1.0)])
def test_drawn_tokens_are_matched_exactly(children, chance):
    """p = (.4, .3, .2, .1) with children 3 and 2: accepted with 0.30 exactly, and the text follows p."""
    p = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    draft = Draft(children, (-1,) * len(children), source=("head 1",) * len(children))
    output = output_of(p.expand(len(children) + 1, -1))
    emitted, accepted, grid = torch.zeros(4, dtype=torch.float64), 0.0, 1000
    for i in range(grid):
        verification = match(draft, output, torch.full((len(children) + 1,), (i + 0.5) / grid, dtype=torch.float64))
        emitted[children[verification.path[0]] if verification.path else verification.token] += 1 / grid
        accepted += len(verification.path) / grid
    assert accepted == pytest.approx(chance, abs=1e-9) and total_variation(emitted, p) < 1e-9


def test_the_bonus_is_drawn_at_the_run_s_temperature(llama):
    """Another trap: fast mode picks the token behind the path by arg-max at any temperature."""
    for rule in ("exact", "typical"):
        texts = {tuple(tokens_of(run_steps(llama, "medusa", PROMPT, sampling=Sampling(1.0), seed=s, rule=rule))) for s in range(6)}
        assert len(texts) > 3, rule


# -- typical acceptance ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "p, limit, passing",
    [
        ((0.25, 0.25, 0.25, 0.25), 0.0750, 4),
        ((0.97, 0.01, 0.01, 0.01), 0.09, 1),
        ((0.5, 0.3, 0.15, 0.05), 0.09, 3),
    ],
)
def test_thresholds_of_the_specification(p, limit, passing):
    probs = torch.tensor([p])
    assert thresholds(probs, 0.09, 0.3).item() == pytest.approx(limit, abs=1e-6)
    assert int((probs > thresholds(probs, 0.09, 0.3)).sum()) == passing


def test_the_longest_path_is_kept_and_of_several_the_likeliest():
    """Two paths of length 2 and one likely leaf: the leaf loses to both, the less likely path to the other."""
    draft = Draft((0, 1, 2, 3, 3), (-1, -1, -1, 1, 2), source=("head 1",) * 3 + ("head 2",) * 2)
    probs = torch.tensor([[0.5, 0.2, 0.25, 0.05]] + [[0.05, 0.05, 0.1, 0.8]] * 5)
    verification = typical(0.09, 0.3)(draft, output_of(probs), torch.full((6,), 0.5))
    assert verification.path == (2, 4) and verification.verdicts == ("rejected", "rejected", "accepted", "not judged", "accepted")
    assert (
        verification.scores[0][TYPICAL_P] == pytest.approx(0.5)
        and verification.scores[0][TYPICAL_P] > verification.scores[0][TYPICAL_THRESHOLD]
    )
    assert verification.token == 3 and verification.sampled == {}
    probs[0, 1], probs[0, 2] = 0.25, 0.2
    assert typical(0.09, 0.3)(draft, output_of(probs), torch.full((6,), 0.5)).path == (1, 3)


def test_without_a_threshold_everything_is_accepted_and_without_a_draft_one_token_is_written(llama):
    draft = Draft((0, 1, 2), (-1, 0, 1), source=("head 1",) * 3)
    probs = torch.tensor([[0.01, 0.01, 0.98]] * 4)
    assert typical(1.0, 0.0)(draft, output_of(probs), torch.zeros(4)).path == (0, 1, 2)
    assert typical(0.09, 0.3)(draft, output_of(probs), torch.zeros(4)).path == ()
    empty = typical(0.09, 0.3)(Draft((), ()), output_of(probs[:1]), torch.tensor([0.5]))
    assert empty.path == () and empty.token == 2


def test_it_is_visibly_biased():
    """p = (.6, .4) with both tokens drafted: always token 0. The published rule must miss the target's law."""
    p = torch.tensor([0.6, 0.4])
    draft = Draft((0, 1), (-1, -1), source=("head 1",) * 2)
    emitted = torch.zeros(2)
    for seed in range(50):
        u = torch.rand(3, generator=torch.Generator().manual_seed(seed))
        emitted[draft.tokens[typical(0.09, 0.3)(draft, output_of(p.expand(3, -1)), u).path[0]]] += 1 / 50
    assert emitted[0].item() == pytest.approx(1) and total_variation(emitted, p) == pytest.approx(0.4, abs=1e-3)


def test_the_loop_notices_the_bias():
    assert misfit(counted("medusa", Sampling(1.0), rule="typical"), expected(Sampling(1.0))) > 2 * LIMIT


def test_lossless_depends_on_the_rule_and_the_temperature():
    method = METHODS["medusa"]
    assert method.lossless_with({}, greedy=False) and method.lossless_with({"rule": "exact"}, greedy=False)
    assert not method.lossless_with({"rule": "typical"}, greedy=False) and method.lossless_with({"rule": "typical"}, greedy=True)
    assert not METHODS["judge"].lossless_with({}, greedy=True) and METHODS["plain"].lossless_with({}, greedy=False)


# -- refusals ----------------------------------------------------------------------------------------------------------

GOOD = {"width": 32, "heads": 2, "vocab": 0, "ranks": [[0.5, 0.2], [0.3]]}


@pytest.mark.parametrize(
    "change",
    [
        {"heads": 0},
        {"heads": 17},
        {"heads": 3},
        {"vocab": -1},
        {"vocab": True},
        {"ranks": None},
        {"ranks": [[0.5, 0.2], []]},
        {"ranks": [[0.5], [1.5]]},
        {"ranks": [[0.5], [float("nan")]]},
        {"ranks": [[0.5], ["1"]]},
        {"ranks": [[0.5], 0.5]},
        {"ranks": [[0.1] * 11, [0.1]]},
    ],
)
def test_settings_that_cannot_be(change):
    shapes(GOOD)
    with pytest.raises(ValueError, match="cannot be"):
        shapes(GOOD | change)


@pytest.mark.parametrize("width, vocab", [(31, 0), (32, VOCAB - 1)])
def test_heads_of_another_size_than_the_target(tmp_path, llama, monkeypatch, width, vocab):
    settings = GOOD | {"width": width, "vocab": vocab}
    door.save(tmp_path / "head", "medusa", llama.target.model, Heads(width, 2, vocab).state_dict(), settings, {})
    monkeypatch.setattr(door, "find", lambda *_: tmp_path / "head")
    with pytest.raises(ValueError, match="states of width"):
        load_head(llama.target)


# -- training ----------------------------------------------------------------------------------------------------------


def over_fitted(period: int = 11) -> tuple[Target, torch.Tensor]:
    """A random llama taught a text that repeats itself after `period` tokens, and the text."""
    text = torch.randperm(VOCAB, generator=torch.Generator().manual_seed(3))[:period].repeat(8)
    model = causal_lm("llama", seed=5).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(60):
        window = text[step % period :][:64][None]
        model(window, labels=window).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return Target(model.eval(), VOCAB, CONTEXT), text


def test_every_head_learns_its_own_place():
    """On a periodic text head k is right at its own place and wrong one place off; the figures agree."""
    target, text = over_fitted()
    target.model.requires_grad_(False)
    tokens = torch.stack([text[s : s + 64] for s in range(11)])
    states = torch.stack([hidden_of(target, row.tolist()) for row in tokens]).clone()
    batch = Batch(tokens, torch.ones_like(tokens, dtype=torch.bool), {target.last_hidden: states})
    made = init_head(target, 3, True)
    optimizer = torch.optim.AdamW(made.parameters(), lr=1e-2)
    first = RECIPE.loss(made, target, batch).item()
    for _ in range(40):
        loss = RECIPE.loss(made, target, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss.item() < 0.1 * first
    with torch.no_grad():
        for k, logits in enumerate(RECIPE.predict(made, target, batch), 1):
            guess = logits.argmax(-1)[:, 16:48]  # the beginning of a text is not periodic yet
            shares = [(guess == tokens[:, 16 + ahead : 48 + ahead]).float().mean().item() for ahead in (k, k + 1, k + 2)]
            assert shares[1] > 0.99 and max(shares[0], shares[2]) < 0.05, (k, shares)


def test_the_loss_by_hand(llama):
    """Sum over the heads of 0.8^k times the cross-entropy of token t + k + 1 at place t, where it counts."""
    target, tokens = llama.target, torch.randint(VOCAB, (2, 9), generator=torch.Generator().manual_seed(0))
    states = torch.stack([hidden_of(target, row.tolist()) for row in tokens])
    counts = torch.ones_like(tokens, dtype=torch.bool)
    counts[0, :5] = False
    batch, made, total = Batch(tokens, counts, {target.last_hidden: states}), init_head(target, 2, False), 0.0
    made.blocks[1].bias.data += 0.3
    made.requires_grad_(False)
    for k in (1, 2):
        terms = [
            -made.scored(states[row, t], k - 1, target).log_softmax(-1)[tokens[row, t + k + 1]].item()
            for row in range(2)
            for t in range(9 - k - 1)
            if counts[row, t + k + 1]
        ]
        total += 0.8**k * sum(terms) / len(terms)
    with torch.no_grad():  # bfloat16 is used where it is quick
        assert RECIPE.loss(made, target, batch).item() == pytest.approx(total, rel=2e-2)


class Known:
    """Stands in for a pool: one batch."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def parts(self, rows: int):
        yield self.batch


def test_the_figures_by_hand():
    """A target and heads whose distributions are known: p = (.7, .1, .1, .1) everywhere, q uniform over two tokens."""
    p, q = torch.tensor([0.7, 0.1, 0.1, 0.1]), torch.tensor([0.5, 0.5, 1e-9, 1e-9])
    tokens = torch.tensor([[0, 0, 0, 1, 2, 0]])
    batch = Batch(tokens, torch.ones_like(tokens, dtype=torch.bool), {1: torch.zeros(1, 6, 2)})

    class Flat:
        last_hidden = 1

        @staticmethod
        def score(states):
            return p.log().expand(*states.shape[:-1], 4)

    leaning = (q + torch.tensor([1e-3, 0, 0, 0])).log().expand(1, 6, 4)
    recipe = replace(RECIPE, predict=lambda heads, target, batch: iter([leaning, leaning]))
    one, two = train.measured(recipe, None, Flat, Known(batch))
    # tokens 2 to 5 are 0, 1, 2, 0 and heads rank 0, 1, then 2 or 3; tokens 3 to 5 are 1, 2, 0
    assert one["ranks"][:2] == [0.5, 0.25] and sum(one["ranks"]) == 1
    assert two["ranks"][:2] == pytest.approx([1 / 3, 1 / 3], abs=1e-5)
    assert one["overlap"] == two["overlap"] == pytest.approx(0.6, abs=2e-3)
    assert two["path"] == 0.0  # never 0 twice in a row: tokens 2 and 3, 3 and 4, 4 and 5
    figures = train.figures([one, two])
    assert figures["depth 1: top-1"] == 0.5 and figures["depth 2: top-5"] == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("kind", ["given", "sampled", "greedy"])
def test_windows_hold_text_and_say_what_may_be_learned(llama, kind):
    texts = Texts(((1.0, (toys.TEXT * 3, toys.TEXT)),), 0)
    tokens, counts = texts.windows(llama, kind, 3, 40)
    again, _ = texts.windows(llama, kind, 3, 40)
    assert tokens.shape == counts.shape == (32, 40) and (tokens == again).all()
    if kind == "given":
        assert counts[:, 1:].all() and not counts[:, 0].any()
        return
    assert not counts[:, :20].any() and counts[:, 20].all()
    for row, valid in zip(tokens[:4], counts[:4], strict=True):
        ended = np.flatnonzero(np.isin(row[20:], list(llama.target.ends)))
        assert valid[20:].sum() == (ended[0] + 1 if len(ended) else 20)
        if kind == "greedy":
            count = int(valid[20:].sum())
            assert row[20 : 20 + count].tolist() == toys.greedy_text(llama.target, row[:20].tolist(), count)


def test_a_pool_goes_on_where_it_stopped_and_keeps_the_target_s_states(llama, tmp_path, monkeypatch):
    texts = Texts.of([Domain("text", 1.0, (toys.TEXT * 4,), (toys.TEXT,))], held_out=False)
    pool = Pool(tmp_path, llama.target, 64, 24, (llama.target.last_hidden, 1))
    asked = []
    windows = Texts.windows

    def some(self, family, kind, number, length):
        asked.append(number)
        if number == 1 and asked.count(1) == 1:
            raise KeyboardInterrupt
        return windows(self, family, kind, number, length)

    monkeypatch.setattr(Texts, "windows", some)
    with pytest.raises(KeyboardInterrupt):
        pool.fill(llama, texts, ("given",))
    again = Pool(tmp_path, llama.target, 64, 24, (llama.target.last_hidden, 1))
    again.fill(llama, texts, ("given",))
    assert asked == [0, 1, 1]
    batch = again.rows(np.array([5, 40]))
    for row in range(2):
        for aux_layer in batch.states:
            fresh_ = llama.target.forward(TreeCache(), batch.tokens[row], range(24), aux_hidden_layers=(aux_layer,))[1][aux_layer]
            far = (batch.states[aux_layer][row] - fresh_).norm() / fresh_.norm()
            assert far < 0.03, "float16, read in bfloat16 where that is quick"
    assert torch.equal(again.batch(3, 4).tokens, again.batch(3, 4).tokens) and len(list(again.parts(48))) == 2


def test_heads_are_trained_on(workshop):
    """`--go-on` begins with what is there, adds up what was seen, and is a plan of its own; with nothing there it refuses."""
    target = workshop.target(num_hidden_layers=3)
    command = workshop.command("medusa", target, "greedy", epochs=1, heads=2)
    with pytest.raises(ValueError, match="no head 'medusa' for this model"):
        train.main([*command, "--go-on"])
    train.main(command)
    model = load(target, device="cpu").target.model
    folder = door.find("medusa", model)
    seen, first = (door.facts(folder)[2]["tokens"], door.open_head(folder, "medusa", model, shapes).tensors)
    train.main([*command, "--go-on", "--lr", "1e-9"])  # so little that what it began with can still be seen
    again = door.open_head(folder, "medusa", model, shapes)
    assert again.settings["tokens"] == 2 * seen
    assert all(torch.allclose(values, first[name], atol=1e-4) for name, values in again.tensors.items())
    train.main([*command, "--go-on"])
    later = door.open_head(folder, "medusa", model, shapes)
    assert later.settings["tokens"] == 3 * seen and any((values != first[name]).any() for name, values in later.tensors.items())
    with pytest.raises(ValueError, match="other tensors than expected"):
        train.main([*command, "--go-on", "--heads", "3"])


def test_from_the_command_line_for_another_target(workshop, capsys):
    target = workshop.target(num_hidden_layers=3)
    family = load(target, device="cpu")
    sentence = METHODS["medusa"].missing(family)
    assert "decoding.training medusa --family" in sentence
    command = workshop.command("medusa", target, "greedy", epochs=1, heads=2)
    train.main(command)
    said = capsys.readouterr().out
    found = json.loads(said[said.index("{") : said.rindex("}") + 1])
    assert set(found) >= {"depth 1: top-1", "depth 2: top-5", "depth 2: expected acceptance"}
    assert METHODS["medusa"].missing(family) == ""
    assert all(0 <= value <= 1 for value in found.values())
    made, ranks = load_head(family.target)
    assert len(made.blocks) == len(ranks) == 2 and any(values.any() for values in made.parameters()), "nothing was learned"
    steps = run_steps(family, "medusa", PROMPT, max_tokens=24)
    assert {node.source for step in steps for node in step.nodes} == {"head 1", "head 2"}
    text = tokens_of(steps)
    assert text == toys.greedy_text(family.target, PROMPT, len(text)) and (len(text) == 24 or text[-1] == 0)
    done = list((workshop.folder / "work").rglob("*.pt"))
    stamps = [file.stat().st_mtime_ns for file in done]
    train.main(command)  # nothing is left to do
    assert [file.stat().st_mtime_ns for file in done] == stamps and len(done) == 1


def test_every_recipe_belongs_to_a_method_with_a_head():
    for key, recipe in RECIPES.items():
        assert recipe.key == key and head_of(METHODS[key]) == "target"
        assert door.command(key, "x + y") == f"python -m decoding.training {key} --family x"
    with pytest.raises(SystemExit):
        train.parse(["nonsense"])


# -- the shipped heads -------------------------------------------------------------------------------------------------


def test_the_shipped_heads_are_worth_their_place(embedded, monkeypatch):
    """The best rank comes first, and drafts are accepted far more often than those of untrained heads in the same tree."""
    made, ranks = load_head(embedded.target)
    assert all(row[0] == max(row) > 0.05 for row in ranks) and ranks[0][0] > 0.12 > ranks[-1][0]
    assert len(sparse_tree(ranks, 24)) == 24 and len(made.unembed) == len(made.blocks) == 4
    assert sum(file.stat().st_size for file in (door.EMBEDDED / "medusa").iterdir()) < 10 * 2**20
    shipped = tau(embedded, "medusa", FLOOR_PROMPTS.values(), GREEDY)
    monkeypatch.setattr(medusa, "load_head", lambda target, head=None: (init_head(target, 4, False), ranks))
    assert shipped > 0.3 + tau(embedded, "medusa", FLOOR_PROMPTS.values(), GREEDY)


def test_the_command_in_the_card_makes_heads_of_the_same_kind():
    """Options of the method that are not as usual are named, the others are not."""
    assert " --own-lm-head" not in train.line(train.parse(["medusa"]))
    said = train.line(train.parse(["medusa", "--own-lm-head", "--heads", "3"]))
    assert said.endswith("--lr 0.002 --heads 3 --own-lm-head")
    again = train.parse(said.removeprefix("python -m decoding.training ").split())
    assert again.own_lm_head and again.heads == 3
