"""Future Token Prediction: the decoder sees one state and nothing else, outputs stand in their places, drafts equal train."""

import math
from argparse import Namespace
from contextlib import nullcontext

import pytest
import torch

from decoding.loop import decode
from decoding.methods import METHODS, ftp
from decoding.methods.ftp import Decoder, Params, Pass, load_head, made, shapes
from decoding.models import heads as door
from decoding.models.family import load
from decoding.models.pieces import Pieces
from decoding.models.target import Target
from decoding.sample import Sampling, draw
from decoding.score_names import ROOT_Q, SLOT
from decoding.training import train
from decoding.training.recipes import RECIPES
from decoding.training.recipes import ftp as recipe
from decoding.training.states import Batch
from decoding.verify import recursive_rejection
from tests import toys
from tests.decoding.test_tau_floor import PROMPTS, tau
from tests.methods.test_medusa import PROMPT, hidden_of, over_fitted
from tests.toys import CONTEXT, GREEDY, VOCAB, causal_lm, run_steps, tokens_of

RECIPE = RECIPES["ftp"]
GOOD = {"width": 32, "heads": 2, "mlp": 64, "slots": 3, "outputs": 5, "blocks": 2}
TEXT = (5, 9, 11, 70)


def target_of(kind: str = "llama") -> Target:
    return Target(causal_lm(kind), VOCAB, CONTEXT)


def guessing(settings=GOOD, seed: int = 0) -> Decoder:
    """A decoder in which every part has a say."""
    torch.manual_seed(seed)
    decoder = made(settings)
    for values in decoder.parameters():
        values.data += 0.2 * torch.randn(values.shape)
    return decoder.eval().requires_grad_(False)


def logits_of(decoder: Decoder, target: Target, state: torch.Tensor, tokens=TEXT) -> torch.Tensor:
    """(1 + n, vocab) in one pass."""
    return target.score(decoder(state, torch.tensor([tokens], dtype=torch.long), target)[0])


# -- the decoder -------------------------------------------------------------------------------------------------------


def test_sizes_are_those_of_the_specification():
    found = shapes({"width": 256, "heads": 4, "mlp": 512, "slots": 8, "outputs": 8, "blocks": 2})
    count = sum(math.prod(shape) for shape in found.values())
    assert count - 524_288 - 2 * 918_272 < 5_000 and math.prod(found["project.weight"]) == 524_288


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2"])
def test_untrained_output_0_ranks_much_as_the_target_does(kind):
    target = target_of(kind)
    states = hidden_of(target, range(40))
    decoder = RECIPE.init_head(target, Namespace(slots=8, future=8, blocks=2, mlp=0))
    with torch.inference_mode():
        first = target.score(decoder(states, torch.zeros(40, 1, dtype=torch.long), target)[:, 0])
        assert (first.argmax(-1) == target.score(states).argmax(-1)).float().mean() > 0.5  # by chance: 1 in 280


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2", "phi"])
def test_a_tree_says_what_every_path_says_alone(kind):
    """Nodes of a tree, drafted level by level, against one pass over their path as in train."""
    target, decoder = target_of(kind), guessing()
    state = torch.randn(1, 32)
    with torch.inference_mode():
        now = Pass(decoder, target, state, Pieces(None))
        found = [now.root(5)[1]]
        found += now.extend(torch.tensor([9, 3]), torch.tensor([-1, -1]))
        found += now.extend(torch.tensor([8, 11]), torch.tensor([1, 0]))
        found += now.extend(torch.tensor([70, 71]), torch.tensor([3, 2]))
        for paths in ({1: (5, 9), 4: (5, 9, 11), 5: (5, 9, 11, 70)}, {2: (5, 3), 3: (5, 3, 8), 6: (5, 3, 8, 71)}):
            for row, path in paths.items():
                assert (logits_of(decoder, target, state, path)[-1] - found[row]).abs().max() < 1e-4
        assert (found[1] - found[2]).abs().max() > 0.1, "or the paths would not matter"


def test_the_order_of_the_slots_says_nothing_and_the_state_does():
    target, decoder, states = target_of(), guessing(), torch.randn(2, 32)
    other_order, permuted = guessing(), torch.tensor([2, 0, 1])
    other_order.project.weight.data = decoder.project.weight.unflatten(0, (3, 32))[permuted].flatten(0, 1)
    other_order.project.bias.data = decoder.project.bias.unflatten(0, (3, 32))[permuted].flatten(0, 1)
    same, again = (logits_of(d, target, states[:1]) for d in (decoder, other_order))
    assert (same - again).abs().max() < 1e-5
    assert (same - logits_of(decoder, target, states[1:])).abs().max() > 0.1


def test_without_a_memory_the_state_says_nothing():
    target, decoder = target_of(), guessing()
    decoder.project.weight.data.zero_()
    decoder.project.bias.data.zero_()
    one, two = (logits_of(decoder, target, torch.randn(1, 32)) for _ in range(2))
    assert torch.equal(one, two)


def test_an_output_does_not_see_its_own_token():
    target, decoder, state = target_of(), guessing(), torch.randn(1, 32)
    one, two = logits_of(decoder, target, state), logits_of(decoder, target, state, (5, 9, 12, 70))
    assert torch.allclose(one[:3], two[:3], atol=1e-5) and (one[3:] - two[3:]).abs().max() > 0.01


# -- drafts ------------------------------------------------------------------------------------------------------------


def proposed(family, tokens, state, **params):
    drafter = ftp.build(family, Params(**params), GREEDY)[0]
    drafter.hidden = state
    with torch.inference_mode():
        return drafter, drafter.propose(tokens, torch.Generator())


def test_drafts_begin_at_output_1(llama):
    """A build that drafts from output 0 would repeat the root."""
    state = hidden_of(llama.target, PROMPT)[-2:-1]
    drafter, draft = proposed(llama, PROMPT, state)
    with torch.inference_mode():
        again, first = drafter.target.score(drafter.decoder(state, torch.tensor([PROMPT[-1:]]), llama.target)[0]).softmax(-1)
    top = [token for token, parent in zip(draft.tokens, draft.parents, strict=True) if parent < 0]
    assert top == first.topk(len(top)).indices.tolist()
    assert draft.scores[ROOT_Q].tolist() == pytest.approx([float(again[PROMPT[-1]])] * len(draft), rel=1e-4)
    assert torch.allclose(draft.draft_probabilities[0], first, atol=1e-5)
    slots = torch.stack([draft.scores[SLOT.format(i)] for i in range(1, 1 + drafter.decoder.slots)])
    assert torch.allclose(slots.sum(0), torch.ones(len(draft)), atol=1e-4) and slots.std() > 0


def test_nothing_of_the_past_is_seen(llama):
    """With state and root held, other tokens before them leave every number as it is, bit for bit."""
    state = hidden_of(llama.target, PROMPT)[-2:-1]
    (_, one), (_, two) = (proposed(llama, tokens, state) for tokens in (PROMPT, (1, 2, 3) * 9 + PROMPT[-1:]))
    assert one.tokens == two.tokens and torch.equal(one.draft_probabilities, two.draft_probabilities)
    assert all(torch.equal(one.scores[name], two.scores[name]) for name in one.scores)


@pytest.mark.parametrize("nodes, depth", [(1, 1), (24, 4), (60, 7)])
def test_levels_and_nodes(llama, nodes, depth):
    _, draft = proposed(llama, PROMPT, torch.randn(1, 32), nodes=nodes, depth=depth)
    assert len(draft) == nodes and draft.depths.max() <= depth and draft.calls == depth and draft.how == "deterministic"


def test_no_more_levels_than_were_trained(llama):
    drafter, draft = proposed(llama, PROMPT, torch.randn(1, 32), nodes=128, depth=15)
    assert draft.depths.max() <= draft.calls == drafter.levels == drafter.decoder.outputs - 1 == 7


def test_one_copy_from_the_device(llama, monkeypatch):
    drafter, _ = proposed(llama, PROMPT, torch.randn(1, 32))
    copies = []
    for name in ("tolist", "item", "cpu", "numpy", "__bool__", "__int__", "__float__"):
        real = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda self, real=real, name=name: (copies.append(name), real(self))[1])
    with torch.inference_mode():
        assert len(drafter.propose(PROMPT, torch.Generator())) == 24
    assert copies == ["tolist"]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_the_state_that_is_carried_over(kind):
    """At every step it is that of a fresh pass at the token before the root, one position off would show."""
    family, lengths = toys.toy_family(target_of(kind)), set()
    for sampling in (GREEDY, Sampling(1.0)):
        drafter, accept = ftp.build(family, Params(nodes=100, fan_out=16), sampling)
        rng, tokens = torch.Generator().manual_seed(0), list(PROMPT)
        for step in decode(family.target, drafter, accept, PROMPT, sampling=sampling, rng=rng, max_tokens=30, recorded=False):
            tokens += step.tokens
            lengths.add(len(step.path))
            if not step.ending:
                states = hidden_of(family.target, tokens)
                assert (drafter.hidden - states[-2]).abs().max() < 1e-4
                assert (drafter.hidden - states[-3]).abs().max() > 0.01
    assert len(lengths) > 1, "only steps of one kind were seen"


def test_a_prompt_of_one_token_drafts_nothing_at_first(llama):
    steps = run_steps(llama, "ftp", (0,), max_tokens=12)
    assert not steps[0].nodes and steps[1].nodes and tokens_of(steps) == toys.greedy_text(llama.target, (0,), 12)


def test_a_drawn_chain_comes_from_its_q(llama):
    """q is what one pass over the path says, under the run's sampling, and the uniforms pick the tokens from it."""
    sampling, state = Sampling(0.7, top_p=0.9), torch.randn(1, 32)
    drafter, accept = ftp.build(llama, Params(shape="chain", depth=5), sampling)
    drafter.hidden = state
    with torch.inference_mode():
        draft = drafter.propose(PROMPT, torch.Generator().manual_seed(3))
        expected = sampling.probabilities(logits_of(drafter.decoder, llama.target, state, (PROMPT[-1], *draft.tokens[:-1]))[1:])
    assert accept is recursive_rejection and draft.how == "sampled" and draft.parents == (-1, 0, 1, 2, 3) and draft.calls == 5
    assert torch.allclose(draft.q, expected, atol=1e-4)
    assert draw(draft.q, torch.rand(5, generator=torch.Generator().manual_seed(3))).tolist() == list(draft.tokens)


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [{"slots": 0}, {"outputs": 1}, {"blocks": True}, {"width": "32"}, {"mlp": 0}, {"slots": None}])
def test_settings_that_cannot_be(change):
    shapes(GOOD)
    with pytest.raises(ValueError, match="cannot be"):
        shapes(GOOD | change)


# -- training ----------------------------------------------------------------------------------------------------------


def batch_of(target: Target, tokens: torch.Tensor, seed: int = 0) -> Batch:
    states = torch.stack([hidden_of(target, row.tolist()) for row in tokens]).clone()
    return Batch(tokens, torch.ones_like(tokens, dtype=torch.bool), {target.last_hidden: states}, seed)


def test_the_loss_by_hand(monkeypatch):
    """Mean per output over places and tokens that count, weighed by 0.8^k."""
    monkeypatch.setattr(recipe, "quick", lambda device: nullcontext())
    target, decoder = target_of(), guessing()
    batch = batch_of(target, torch.randint(VOCAB, (2, 12), generator=torch.Generator().manual_seed(0)))
    batch.counts[0, :4] = False
    weights, total = [0.8**k for k in range(5)], 0.0
    for k in range(5):
        terms = []
        for row in range(2):
            for t in range(12 - k - 1):
                if batch.counts[row, t + k + 1]:
                    seen = logits_of(decoder, target, batch.states[2][row, t][None], batch.tokens[row, t + 1 : t + 1 + k].tolist())
                    terms.append(-seen[k].log_softmax(-1)[batch.tokens[row, t + k + 1]].item())
        total += weights[k] * sum(terms) / len(terms)
    with torch.no_grad():
        assert RECIPE.loss(decoder, target, batch, 0.0).item() == pytest.approx(total / sum(weights), rel=1e-4)
    assert sum(0.8**k for k in range(8)) == pytest.approx(4.16114, abs=1e-5)


def test_some_places_of_a_window_are_learned_in_a_step(monkeypatch):
    """Drawn by the batch's seed alone, so that a resumed training is the same."""
    target, decoder = target_of(), guessing()
    tokens = torch.randint(VOCAB, (2, 40), generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(recipe, "PLACES", 5)
    with torch.no_grad():
        one, same, two = (RECIPE.loss(decoder, target, batch_of(target, tokens, seed), 0.0).item() for seed in (1, 1, 2))
    assert one == same != two


def test_predictions_are_those_of_the_decoder(monkeypatch):
    monkeypatch.setattr(recipe, "quick", lambda device: nullcontext())
    target, decoder = target_of(), guessing()
    tokens = torch.randint(VOCAB, (2, 9), generator=torch.Generator().manual_seed(0))
    batch = batch_of(target, tokens)
    with torch.no_grad():
        found = list(RECIPE.predict(decoder, target, batch))
    assert len(found) == 5 and RECIPE.first == 0 and all(logits.shape == (2, 9, VOCAB) for logits in found)
    alone = logits_of(decoder, target, batch.states[2][1, 3][None], tokens[1, 4:8].tolist())
    assert (torch.stack([logits[1, 3] for logits in found]) - alone).abs().max() < 1e-4


def test_every_output_learns_its_own_place():
    """On a periodic text output k is right about token t + 1 + k, wrong one place off; a draft does not begin with the root."""
    target, text = over_fitted(11)
    target.model.requires_grad_(False)
    batch = batch_of(target, torch.stack([text[s : s + 40] for s in range(11)]))
    torch.manual_seed(0)
    decoder = RECIPE.init_head(target, Namespace(slots=4, future=4, blocks=2, mlp=0))
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=5e-3)
    losses = []
    for _ in range(50):
        losses.append(RECIPE.loss(decoder, target, batch, 0.0))
        losses[-1].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < 0.1 * losses[0]
    with torch.no_grad():
        for k, logits in enumerate(RECIPE.predict(decoder, target, batch)):
            guess = logits.argmax(-1)[:, 16:34]
            shares = [(guess == batch.tokens[:, 16 + ahead : 34 + ahead]).float().mean().item() for ahead in (k, k + 1, k + 2)]
            assert shares[1] > 0.99 and max(shares[0], shares[2]) < 0.05, (k, shares)
        for t in range(20, 30):
            state, root = batch.states[2][0, t][None], int(text[t + 1])
            assert Pass(decoder, target, state, Pieces(None)).root(root)[1].argmax() == text[t + 2] != root


def test_from_the_command_line_for_another_target(workshop):
    target = workshop.target(num_hidden_layers=3)
    family = load(target, device="cpu")
    assert "decoding.training ftp --family" in METHODS["ftp"].missing(family)
    train.main(workshop.command("ftp", target, epochs=1, slots=3, future=4))
    assert METHODS["ftp"].missing(family) == "" and load_head(family.target).outputs == 4
    text = tokens_of(run_steps(family, "ftp", PROMPT, max_tokens=24))
    assert text == toys.greedy_text(family.target, PROMPT, len(text))


# -- the shipped decoder -----------------------------------------------------------------------------------------------

shipped = pytest.mark.skipif(not (door.EMBEDDED / "ftp").is_dir(), reason="not trained yet")


@shipped
def test_the_shipped_decoder_reads_its_memory(embedded, monkeypatch):
    """Without it, it is a model of the root and the path, and far fewer drafts are accepted."""
    decoder = load_head(embedded.target)
    prompts = [PROMPTS["story"], PROMPTS["fairy tale"]]
    with_memory = tau(embedded, "ftp", prompts, GREEDY)
    decoder.project.weight.data.zero_()
    decoder.project.bias.data.zero_()
    monkeypatch.setattr(ftp, "load_head", lambda target: decoder)
    assert with_memory > 1.1 * tau(embedded, "ftp", prompts, GREEDY)


@shipped
def test_drafts_of_the_shipped_decoder_do_not_repeat_the_root(embedded):
    ids = embedded.tokenizer(PROMPTS["story"])["input_ids"]
    text, repeated, steps = list(ids), 0, run_steps(embedded, "ftp", ids, max_tokens=48)
    for step in steps:
        repeated += bool(step.nodes) and step.nodes[0].token == text[-1]
        text += step.tokens
    assert repeated < 0.5 * len(steps)
