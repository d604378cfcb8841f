"""Falcon: the mask, an LSTM that does remember, blocks that are drafted as they were trained, and hints that are not copied."""

import math
from argparse import Namespace
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from decoding.draft import Draft
from decoding.loop import decode
from decoding.methods import METHODS, falcon
from decoding.methods.falcon import SLOT_IN_BLOCK, Blocks, Head, Params, Past, load_head, made, shapes
from decoding.models.family import load
from decoding.models.target import Target
from decoding.sample import Sampling, draw
from decoding.training import train
from decoding.training.recipes import RECIPES
from decoding.training.recipes import falcon as recipe
from decoding.training.states import Batch
from decoding.verify import recursive_rejection
from tests import toys
from tests.methods.test_medusa import PROMPT, hidden_of, over_fitted
from tests.toys import CONTEXT, GREEDY, VOCAB, causal_lm, output_of, run_steps, tokens_of

RECIPE = RECIPES["falcon"]
GOOD = {"width": 32, "heads": 2, "mlp": 88, "block": 2, "layers": 2}


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    """No bfloat16: what is compared is the same in float32."""
    monkeypatch.setattr(recipe, "quick", lambda device: nullcontext())


def target_of(kind: str = "llama") -> Target:
    return Target(causal_lm(kind), VOCAB, CONTEXT)


def guessing(block: int = 2, seed: int = 0) -> Head:
    """A head in which every part has a say."""
    torch.manual_seed(seed)
    head = made(GOOD | {"block": block})
    for values in head.parameters():
        values.data += 0.2 * torch.randn(values.shape)
    return head.eval().requires_grad_(False)


def whole(head: Head, target: Target, states: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """(n, width) states and (n,) tokens -> (n, width) as in training, in blocks that end with the last slot."""
    offset = -len(tokens) % head.block
    return recipe.asked(head, states[None], tokens[None], target, relaxed(len(tokens), head.block, offset))[0]


# -- the head ----------------------------------------------------------------------------------------------------------


def test_sizes_are_those_of_the_specification():
    sizes = {name: math.prod(shape) for name, shape in shapes(GOOD | {"width": 256, "heads": 4, "mlp": 688}).items()}
    assert sum(n for name, n in sizes.items() if name.startswith("lstm") and "l0" in name) == 788_480
    assert sum(n for name, n in sizes.items() if name.startswith("lstm") and "l1" in name) == 526_336
    assert sum(n for name, n in sizes.items() if name.startswith("layer.")) == 256 + 790_784, "with the norm in front"


def relaxed(rows: int, block: int, offset: int = 0) -> torch.Tensor:
    """(rows, rows) bool: the mask of the paper. A slot sees those before it and all of its own block, the first of which lacks
    `offset` slots."""
    number = (torch.arange(rows) + offset) // block
    return number[None, :] <= number[:, None]


def test_the_relaxed_mask():
    """Rows see up to: k = 2, n = 6; k = 3, n = 7; with k = 1 it is the lower triangle."""
    seen = lambda rows, k: [int(row.sum()) for row in relaxed(rows, k)]  # noqa: E731
    assert seen(6, 2) == [2, 2, 4, 4, 6, 6] and seen(7, 3) == [3, 3, 3, 6, 6, 6, 7]
    assert torch.equal(relaxed(9, 1), torch.ones(9, 9).tril().bool())
    assert [int(row.sum()) for row in relaxed(5, 3, 1)] == [2, 2, 5, 5, 5]


def test_the_lstm_remembers_along_the_text():
    """Without attention the first slot still matters for the sixth. With the axes swapped, as released, it would not at all."""
    head, target = guessing(), target_of()
    head.layer.self_attn.o_proj.weight.data.zero_()
    states, tokens = torch.randn(6, 32), torch.arange(6)
    changed = states.clone()
    changed[0] += 1
    far = lambda: (whole(head, target, states, tokens) - whole(head, target, changed, tokens))[5].abs().max().item()  # noqa: E731
    assert far() > 1e-4
    swapped = nn.LSTM(64, 32, 2, batch_first=False)
    swapped.load_state_dict(head.lstm.state_dict())
    head.lstm = swapped.requires_grad_(False)
    assert far() == 0


def test_texts_of_a_batch_do_not_touch():
    head, target = guessing(), target_of()
    states, tokens = torch.randn(2, 8, 32), torch.randint(VOCAB, (2, 8))
    both = recipe.asked(head, states, tokens, target, relaxed(8, 2))
    for row in range(2):
        alone = recipe.asked(head, states[row : row + 1], tokens[row : row + 1], target, relaxed(8, 2))[0]
        assert (both[row] - alone).abs().max() < 1e-5


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2", "phi"])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_blocks_are_drafted_as_they_were_trained(kind, k):
    """Level by level through three blocks, beside another path, against whole texts in which the guessed states stand."""
    head, target, n = guessing(k), target_of(kind), 3 * k + 1
    states, tokens = torch.randn(n, 32), torch.randint(VOCAB, (n,))
    path, other_path = torch.randint(VOCAB, (2, 2 * k))
    with torch.inference_mode():
        past = Past(head, target)
        past.read(states[:2], tokens[:2])
        past.read(states[2:], tokens[2:])
        blocks, found = Blocks(past), []
        guessed = whole(head, target, states, tokens)[-k:]
        assert (target.score(guessed) - blocks.logits[0]).abs().max() < 1e-4
        for depth in range(2 * k):
            parents = torch.tensor([-1, -1]) if depth == 0 else torch.tensor([2 * depth - 2, 2 * depth - 1])
            found.append(blocks.extend(torch.stack((other_path[depth], path[depth])), parents)[1])
        second = whole(head, target, torch.cat((states, guessed)), torch.cat((tokens, path[:k])))[-k:]
        third = whole(head, target, torch.cat((states, guessed, second)), torch.cat((tokens, path)))[-k:]
        expected = torch.cat((target.score(guessed)[1:], target.score(second), target.score(third)[:1]))
    assert (torch.stack(found) - expected).abs().max() < 1e-4 and blocks.passes == 3


def test_within_a_block_picks_are_not_seen_and_behind_it_they_are():
    head, target = guessing(), target_of()
    with torch.inference_mode():
        past = Past(head, target)
        past.read(torch.randn(5, 32), torch.randint(VOCAB, (5,)))
        blocks = Blocks(past)
        inside = blocks.extend(torch.tensor([3, 4]), torch.tensor([-1, -1]))
        behind = blocks.extend(torch.tensor([9, 9]), torch.tensor([0, 1])).softmax(-1)
    assert torch.equal(inside[0], inside[1])
    assert toys.total_variation(behind[0], behind[1]) > 0.02


# -- drafts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("passes, nodes", [(1, 12), (2, 32), (4, 100)])
def test_passes_and_not_levels_are_counted(llama, passes, nodes):
    step = run_steps(llama, "falcon", PROMPT, max_tokens=1, passes=passes, nodes=nodes)[0]
    depths: list[int] = []
    for one in step.nodes:
        depths.append(1 + (depths[one.parent] if one.parent >= 0 else 0))
        assert one.source == f"pass {(depths[-1] + 1) // 2}" and one.scores[SLOT_IN_BLOCK] == 2 - depths[-1] % 2
    assert step.draft_calls == passes and len(step.nodes) == nodes and max(depths) <= 2 * passes


def test_one_copy_from_the_device(llama, monkeypatch):
    drafter = falcon.build(llama, Params(), GREEDY)[0]
    drafter.begin(PROMPT, None)
    drafter.waiting = hidden_of(llama.target, PROMPT)[:-1]
    copies = []
    for name in ("tolist", "item", "cpu", "numpy", "__bool__", "__int__", "__float__"):
        real = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda self, real=real, name=name: (copies.append(name), real(self))[1])
    with torch.inference_mode():
        assert len(drafter.propose(PROMPT, torch.Generator())) == 32
    assert copies == ["tolist"]


def worst(drafter: falcon.Falcon, target: Target, tokens) -> float:
    """The farthest that anything kept of the text is from what a fresh start keeps."""
    with torch.inference_mode():
        drafter.past.read(drafter.waiting, target.ids(tokens[-len(drafter.waiting) :]))  # as the next draft would
        drafter.waiting = None
        scratch = Past(drafter.head, target)
        scratch.read(hidden_of(target, tokens)[:-1], target.ids(tokens[1:]))
    n, both = scratch.length, (drafter.past, scratch)
    assert drafter.past.length == n == len(tokens) - 1
    kept = [(*past.state, past.rows, past.memory.layer.keys[:, :, :n], past.memory.layer.values[:, :, :n]) for past in both]
    return max((one - two).abs().max().item() for one, two in zip(*kept, strict=True))


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_what_is_kept_is_what_a_fresh_start_would_keep(kind):
    """After many steps, with paths of several lengths: the LSTM's state, its rows, keys and values."""
    family, lengths = toys.toy_family(target_of(kind)), set()
    for sampling in (GREEDY, Sampling(1.0)):
        drafter, accept = falcon.build(family, Params(nodes=100, fan_out=16), sampling)
        rng, tokens = torch.Generator().manual_seed(0), list(PROMPT)
        options = {"sampling": sampling, "rng": rng, "max_tokens": 50, "recorded": False}
        for step in decode(family.target, drafter, accept, PROMPT, **options):
            lengths.add(len(step.path))
            tokens += step.tokens
            if not step.ending:
                assert worst(drafter, family.target, tokens) < 1e-4
        assert len(tokens) > 40
    assert len(lengths) > 1, "only steps of one kind were seen"


def test_fewer_slots_than_a_block(llama):
    """One or two tokens of a prompt are less than the two slots that a block takes."""
    for prompt in ((0,), (0, 9)):
        steps = run_steps(llama, "falcon", prompt, max_tokens=12)
        assert not steps[0].nodes and any(step.nodes for step in steps)
        assert tokens_of(steps) == toys.greedy_text(llama.target, prompt, 12)


def test_a_drawn_chain_comes_from_its_q(llama):
    """q of a block are its rows, under the run's sampling, and the uniforms pick the tokens from them."""
    sampling = Sampling(0.7, top_p=0.9)
    drafter, accept = falcon.build(llama, Params(shape="chain"), sampling)
    drafter.begin(PROMPT, None)
    states, tokens = hidden_of(llama.target, PROMPT)[:-1], torch.tensor(PROMPT[1:])
    drafter.waiting = states
    with torch.inference_mode():
        draft = drafter.propose(PROMPT, torch.Generator().manual_seed(3))
        first = whole(drafter.head, llama.target, states, tokens)[-2:]
        text = torch.cat((tokens, torch.tensor(draft.tokens[:2])))
        second = whole(drafter.head, llama.target, torch.cat((states, first)), text)[-2:]
        expected = sampling.probabilities(llama.target.score(torch.cat((first, second))))
    assert accept is recursive_rejection and draft.how == "sampled" and draft.parents == (-1, 0, 1, 2) and draft.calls == 2
    assert torch.allclose(draft.q, expected, atol=1e-4)
    assert draw(draft.q, torch.rand(4, generator=torch.Generator().manual_seed(3))).tolist() == list(draft.tokens)


def test_tokens_that_belong_together():
    """The target writes 00 or 11; both rows of a block are even. The first is always accepted, the second half of the time, and
    what does not belong together is never written."""
    rng, even, kept = torch.Generator().manual_seed(0), torch.full((2, 2), 0.5), []
    for _ in range(2000):
        tokens = tuple(torch.randint(2, (2,), generator=rng).tolist())
        draft = Draft(tokens, (-1, 0), even, how="sampled", source=("pass 1",) * 2)
        certain = torch.eye(2)[tokens[0]]
        verification = recursive_rejection(draft, output_of(torch.stack((even[0], certain, even[0]))), torch.rand(3, generator=rng))
        written = [*(tokens[i] for i in verification.path), verification.token]
        kept.append(len(verification.path))
        assert kept[-1] >= 1 and written[0] == written[1]
    assert sum(kept) / len(kept) == pytest.approx(1.5, abs=0.05)


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [{"block": 0}, {"block": 9}, {"layers": True}, {"layers": None}, {"width": 0}, {"heads": "2"}])
def test_settings_that_cannot_be(change):
    shapes(GOOD)
    with pytest.raises(ValueError, match="cannot be"):
        shapes(GOOD | change)


# -- training ----------------------------------------------------------------------------------------------------------


def batch_of(target: Target, tokens: torch.Tensor, seed: int = 0) -> Batch:
    states = torch.stack([hidden_of(target, row.tolist()) for row in tokens]).clone()
    return Batch(tokens, torch.ones_like(tokens, dtype=torch.bool), {target.last_hidden: states}, seed)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_hints_are_the_beginnings_of_whole_blocks(k):
    begins = recipe.blocks((60, 50), k, torch.Generator().manual_seed(1))
    assert len({tuple(row.tolist()) for row in begins}) == k, "blocks begin anywhere"
    number = begins[:6]
    most = torch.tensor([0, 1, 4, 10, 20, 1000])
    shown = recipe.glanced(number, most, torch.Generator().manual_seed(2))
    assert (shown.sum(1) <= most).all() and shown[-1].any() == (k > 1)
    for row in range(6):
        for block in number[row].unique():
            inside = shown[row][number[row] == block].tolist()
            assert inside == sorted(inside, reverse=True) and (not inside[-1]), "never the whole block"


@pytest.mark.parametrize("done, shown", [(0.0, 20), (0.25, 15), (0.5, 10), (0.95, 1)])
def test_the_share_of_hints_falls(monkeypatch, done, shown):
    """With 50 mistakes: .40, .30, .20 and .02 of them."""
    asked = []

    def none(number, most, uniforms):
        asked.append(most)
        return torch.zeros_like(number, dtype=torch.bool)

    monkeypatch.setattr(recipe, "glanced", none)
    target = target_of()
    batch = batch_of(target, torch.randint(VOCAB, (1, 53), generator=torch.Generator().manual_seed(0)))
    head = guessing()
    head.norm.weight.data.zero_()  # every logit is the same: token 0 is the guess
    batch.tokens[batch.tokens == 0] = 1
    RECIPE.loss(head, target, batch, done)
    assert asked[0].tolist() == [shown]


def test_what_is_shown_replaces_a_slot_and_is_not_learned(monkeypatch):
    """The second pass by hand: state and token of a shown slot are those it is asked for."""
    monkeypatch.setattr(recipe, "NOISE", 0.0)
    target, head, seen = target_of(), guessing(), []
    batch = batch_of(target, torch.randint(VOCAB, (1, 12), generator=torch.Generator().manual_seed(0)))
    hint = torch.zeros(1, 12, dtype=torch.bool)
    hint[0, [2, 6]] = True
    monkeypatch.setattr(recipe, "glanced", lambda *_: hint.clone())
    monkeypatch.setattr(recipe, "blocks", lambda *_: (torch.arange(12) // 2)[None])
    asked = recipe.asked
    monkeypatch.setattr(recipe, "asked", lambda *inputs: (seen.append(inputs), asked(*inputs))[1])
    loss = RECIPE.loss(head, target, batch, 0.0)
    states, tokens = batch.states[2][0], torch.cat((batch.tokens[0, 1:], torch.tensor([0])))
    for i in (2, 6):
        assert torch.equal(seen[1][1][0, i], states[i + 2]) and seen[1][2][0, i] == batch.tokens[0, i + 3]
    others = ~hint[0]
    assert torch.equal(seen[1][1][0][others], states[others]) and torch.equal(seen[1][2][0][others], tokens[others])
    found, total, size = asked(*seen[1])[0], 0.0, states.square().mean().sqrt()
    learned = [i for i in range(12 - 3) if i not in (2, 6)]
    near = nn.functional.smooth_l1_loss(found[learned] / size, states[[i + 2 for i in learned]] / size)
    with torch.no_grad():
        for i in learned:
            log_q, p = target.score(found[i]).log_softmax(-1), target.score(states[i + 2]).softmax(-1)
            total -= 0.9 * (p * log_q).sum() + 0.1 * log_q[batch.tokens[0, i + 3]]
    assert loss.item() == pytest.approx((near + recipe.TOKENS * total / len(learned)).item(), rel=1e-4)


def test_predictions_are_those_of_the_block_that_ends_there():
    """Depth d at place t is row d of a draft from the first t + 1 slots."""
    for k in (1, 2, 3):
        target, head = target_of(), guessing(k)
        batch = batch_of(target, torch.randint(VOCAB, (2, 10), generator=torch.Generator().manual_seed(0)))
        with torch.inference_mode():
            found = list(RECIPE.predict(head, target, batch))
            assert len(found) == k and RECIPE.first == 1 and all(logits.shape == (2, 10, VOCAB) for logits in found)
            for t in (k - 1, 5, 8):
                past = Past(head, target)
                past.read(batch.states[2][1, : t + 1], batch.tokens[1, 1 : t + 2])
                assert (Blocks(past).logits[0] - torch.stack([logits[1, t] for logits in found])).abs().max() < 1e-4


def test_every_place_of_a_block_learns_its_own_token():
    """On a periodic text depth d is right about token t + 1 + d, and wrong one place off."""
    target, text = over_fitted(11)
    target.model.requires_grad_(False)
    batch = batch_of(target, torch.stack([text[s : s + 40] for s in range(11)]))
    torch.manual_seed(0)
    head = RECIPE.init_head(target, Namespace(block=2, layers=1))
    optimizer = torch.optim.AdamW(head.parameters(), lr=5e-3)
    losses = []
    for step in range(60):
        losses.append(RECIPE.loss(head, target, batch, step / 60))
        losses[-1].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < 0.5 * losses[0]
    with torch.no_grad():
        for d, logits in enumerate(RECIPE.predict(head, target, batch), 1):
            guess = logits.argmax(-1)[:, 16:34]
            shares = [(guess == batch.tokens[:, 16 + ahead : 34 + ahead]).float().mean().item() for ahead in (d, d + 1, d + 2)]
            assert shares[1] > 0.99 and max(shares[0], shares[2]) < 0.05, (d, shares)


def test_from_the_command_line_for_another_target(workshop):
    target = workshop.target(num_hidden_layers=3)
    family = load(target, device="cpu")
    assert "decoding.training falcon --family" in METHODS["falcon"].missing(family)
    train.main(workshop.command("falcon", target, epochs=1, block=3, layers=1))
    assert METHODS["falcon"].missing(family) == "" and load_head(family.target).block == 3
    for passes in (1, 3):
        text = tokens_of(run_steps(family, "falcon", PROMPT, max_tokens=24, passes=passes))
        assert text == toys.greedy_text(family.target, PROMPT, len(text))
