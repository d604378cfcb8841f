"""Chimera: the checks of its encoders and heads, training against drafting down every branch, and the released code's traps."""

import json
import math

import pytest
import torch

from decoding.draft import Draft
from decoding.methods import METHODS, chimera
from decoding.methods.chimera import described, imitated, init_head, load_head, shapes
from decoding.models.family import load
from decoding.models.target import Target
from decoding.sample import Sampling
from decoding.score_names import FROM_H, FROM_O
from decoding.training import train
from decoding.training.recipes import RECIPES
from decoding.training.recipes import chimera as recipe
from decoding.verify import match, recursive_rejection
from tests import toys
from tests.decoding.test_tau_floor import PROMPTS as FLOOR_PROMPTS
from tests.decoding.test_tau_floor import tau
from tests.methods.test_medusa import over_fitted
from tests.teacher_forcing import PROMPT, batch_of, exactly, forced, learned, states_of, steps_of, target_of
from tests.toys import GREEDY, VOCAB, output_of, run_steps, tokens_of, total_variation

RECIPE = RECIPES["chimera"]


def noisy(target: Target, heads: int = 3) -> chimera.Heads:
    """Heads that have learned something at random."""
    made = init_head(target, heads)
    torch.manual_seed(2)
    for values in made.parameters():
        values.data += 0.1 * torch.randn(values.shape)
    return made


# -- the parts ---------------------------------------------------------------------------------------------------------


def test_a_trigram_is_three_tokens():
    """Any of the three changes it, nothing else does; without T and b it is linear in their embeddings."""
    target, tokens = target_of(), torch.tensor([[4, 5, 6]])
    heads = noisy(target)
    with torch.inference_mode():
        first = heads.trigram(target, tokens)
        for place in range(3):
            other = tokens.clone()
            other[0, place] = 99
            assert (heads.trigram(target, other) - first).abs().max() > 1e-3
        heads.gram.weight.zero_(), heads.gram.bias.zero_()
        rows = torch.nn.functional.normalize(target.model.get_input_embeddings().weight[tokens[0]], dim=-1) * 32**0.5
        assert torch.allclose(heads.trigram(target, tokens)[0], heads.join.weight @ rows.flatten(), atol=1e-4)


def test_a_slot_reads_its_three_tokens_and_no_older_one(monkeypatch):
    """Older ones are known through the target's states alone; in front of the text the first token is repeated."""
    target, grams = target_of(), []
    heads, tokens = noisy(target, 2), torch.arange(10, 18)[None]
    monkeypatch.setattr(
        chimera.Heads, "trigram", lambda self, target, found: grams.append(found) or torch.zeros(*found.shape[:-1], 32)
    )
    list(imitated(heads, target, torch.randn(1, 8, 32), tokens, torch.tensor([0, 1, 4])))
    assert grams[0][0].tolist() == [[10, 10, 11], [10, 11, 12], [13, 14, 15]]
    assert grams[1][0].tolist() == [[10, 11, 12], [11, 12, 13], [14, 15, 16]]


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2", "phi"])
def test_untrained_heads_add_the_imitated_state_to_the_true_one(kind):
    target = target_of(kind)
    heads, hidden, other = init_head(target, 2), states_of(target, PROMPT, target.last_hidden), torch.randn(len(PROMPT), 32)
    with torch.inference_mode():
        logits = target.model(torch.tensor([PROMPT])).logits[0]
        assert (target.score(heads.read(hidden, torch.zeros_like(hidden), 1)) - logits).abs().max() < 1e-5
        assert (heads.read(hidden, other, 0) - hidden - other).abs().max() < 1e-5
        assert (target.score(heads.read(hidden, other, 0)) - logits).abs().max() > 0.01, "or nothing was compared"


def test_sizes_are_those_of_the_specification():
    settings = {"width": 256, "attention heads": 4, "mlp": 688, "theta": 1e4, "eps": 1e-6, "heads": 4}
    assert sum(math.prod(shape) for shape in shapes(settings).values()) == 787_200 + 791_040 + 524_288


def slots(heads, target, hidden, tokens) -> list[torch.Tensor]:
    """Imitated states of every slot at every place: (slots, length, width)."""
    with torch.inference_mode():
        return [made[0] for made, _ in imitated(heads, target, hidden[None], torch.tensor([tokens]), torch.arange(len(tokens)))]


def test_a_slot_knows_the_root_and_what_was_guessed_before_it_and_nothing_behind():
    target, tokens, i = target_of(), [5, 9, 3, 7, 2, 8, 1, 4], 3
    heads, hidden = noisy(target), states_of(target, tokens, target.last_hidden)
    base = slots(heads, target, hidden, tokens)
    for ahead, changed in (
        (1, (True, True, True)),
        (2, (False, True, True)),
        (3, (False, False, True)),
        (4, (False, False, False)),
    ):
        other = tokens.copy()
        other[i + ahead] = 77
        for slot, expected in enumerate(changed):
            far = (slots(heads, target, hidden, other)[slot][i] - base[slot][i]).abs().max()
            assert (far > 1e-4) == expected, (ahead, slot)
    later = hidden.clone()
    later[i + 1 :] = 50.0
    assert all(torch.equal(a[i], b[i]) for a, b in zip(base, slots(heads, target, later, tokens), strict=True)), (
        "true states to come"
    )
    earlier = hidden.clone()
    earlier[0] += 1.0
    assert all((a[i] - b[i]).abs().max() > 1e-4 for a, b in zip(base, slots(heads, target, earlier, tokens), strict=True)), (
        "all of them"
    )


def test_a_slot_sees_the_imitated_states_before_it(monkeypatch):
    """The trap of the released mask, where they are hidden: with others in their place, later slots must change."""
    target, tokens = target_of(), [5, 9, 3, 7, 2, 8, 1, 4]
    heads, hidden = noisy(target), states_of(target, tokens, target.last_hidden)
    base = slots(heads, target, hidden, tokens)
    slot, calls = chimera.Heads.slot, []

    def first_is_nothing(self, *given):
        calls.append(len(given[3]))
        return slot(self, *given) * (len(calls) > 1)

    monkeypatch.setattr(chimera.Heads, "slot", first_is_nothing)
    changed = slots(heads, target, hidden, tokens)
    assert calls == [1, 2, 3], "its own trigram, and one imitated state more every time"
    for before, after in zip(base[1:], changed[1:], strict=True):
        assert ((before - after).norm() / before.norm()) > 1e-3


# -- drafting ----------------------------------------------------------------------------------------------------------


def test_with_the_true_states_in_place_of_imitated_ones_every_guess_is_right(monkeypatch):
    """Heads that read o alone, and the target's own state for o: the drafter's q is p at every depth, and what the target writes is
    followed until the tree ends. One place off anywhere would show."""
    target = target_of()
    held = {}

    def oracle(self, grams, position, parents, level):
        """True states behind the text and the path that ends in each trigram, found by walking up."""
        held["rows"] = [] if position == len(held["text"]) - 1 else held["rows"]
        states = []
        for gram, parent in zip(grams.tolist(), parents.tolist(), strict=True):
            path = [] if position == len(held["text"]) - 1 else [*held["rows"][parent], gram[-1]]
            states.append(states_of(target, [*held["text"], *path], target.last_hidden)[-1])
            held["rows"].append(path)
        return self.target.score(self.heads.read(self.hidden, torch.stack(states), level))

    def perfect(found):
        heads = init_head(found, 3)
        for head in heads.residual:
            head.weight.data = torch.cat((torch.zeros(32, 32), torch.eye(32)), 1)
        return heads

    monkeypatch.setattr(chimera.Chimera, "slots", oracle)
    monkeypatch.setattr(chimera, "load_head", perfect)
    method = METHODS["chimera"]
    drafter, accept = method.build(toys.toy_family(target), method.checked({"nodes": 64}), GREEDY)
    propose = drafter.propose

    def told(tokens, rng):
        held["text"] = list(tokens)
        return propose(tokens, rng)

    drafter.propose = told
    options = {"sampling": GREEDY, "rng": torch.Generator(), "max_tokens": 24, "recorded": True}
    steps = list(toys.decode(target, drafter, accept, PROMPT, **options))
    for step in steps[:-1]:
        assert not any(node.parent == step.end_row - 1 for node in step.nodes), "children, and the right one not among them"
    assert sum(len(step.path) for step in steps) > len(steps) > 2
    assert any(node.source == "head 3" for step in steps for node in step.nodes)
    rows = [row for step in steps for row in step.rows if row is not None and row.q is not None]
    assert min(row.overlap for row in rows) > 1 - 1e-5


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mistral"])
@pytest.mark.parametrize("sampling", [GREEDY, Sampling(1.0)])
def test_training_is_drafting_at_every_step(kind, sampling, monkeypatch):
    """Nodes of every draft of a run, first children or not, after any number of commits: the text's loop and the tree's agree."""
    exactly("chimera", monkeypatch)
    target, depths, younger = target_of(kind), set(), 0

    def look(drafter, tokens, draft):
        nonlocal younger
        for node in range(0, len(draft), 11):
            said = forced("chimera", drafter, target, tokens, draft, node)
            assert (said.softmax(-1) - draft.draft_probabilities[node]).abs().max() < 1e-4
            both = draft.scores[FROM_H][node] + draft.scores[FROM_O][node]
            assert both.item() == pytest.approx(said[draft.tokens[node]].item(), rel=1e-3, abs=1e-3), "the two parts of the logit"
            assert draft.source[node] == f"head {draft.depths[node]}"
            depths.add(int(draft.depths[node]))
            younger += any(draft.ranks[i] > 0 for i in draft.path_to(node)[:-1])

    steps = steps_of("chimera", target, look, sampling)
    assert len(steps) > 8 and len(depths) > 1 and younger > 5


def test_the_part_from_h_is_what_the_heads_say_without_an_imitated_state(llama):
    target, seen = llama.target, []

    def look(drafter, tokens, draft):
        hidden = states_of(target, tokens[:-1], target.last_hidden)[-1:]
        with torch.inference_mode():
            for node in range(len(draft)):
                k = int(draft.depths[node]) - 1
                alone = target.score(drafter.heads.read(hidden, torch.zeros_like(hidden), k))[0, draft.tokens[node]]
                assert draft.scores[FROM_H][node].item() == pytest.approx(alone.item(), abs=1e-3)
                seen.append(k)

    steps_of("chimera", target, look, GREEDY, 6)
    assert len(set(seen)) > 1


def test_the_memory_is_that_of_the_text_alone():
    """After dozens of steps: as if all true states had been given at once; nothing imitated stays in it."""
    target, seen = target_of(), []
    steps_of("chimera", target, lambda drafter, tokens, draft: seen.append((drafter, tokens)), Sampling(1.0), 60)
    drafter, tokens = seen[-1]
    with torch.inference_mode():
        states = states_of(target, tokens[:-1], target.last_hidden)[None]
        keys, values = drafter.heads.context.keys_values(states, torch.arange(len(tokens) - 1)[None])
    kept = drafter.memory.layer
    assert len(seen) > 30 and kept.length == drafter.memory.committed >= len(tokens) - 1
    assert (kept.keys[:, :, : len(tokens) - 1] - keys).abs().max() < 1e-4
    assert (kept.values[:, :, : len(tokens) - 1] - values).abs().max() < 1e-4


def test_a_prompt_of_one_or_two_tokens(llama):
    for prompt in ((7,), (7, 9)):
        steps = run_steps(llama, "chimera", prompt, max_tokens=12)
        assert bool(steps[0].nodes) == (len(prompt) > 1) and steps[1].nodes
        assert tokens_of(steps) == toys.greedy_text(llama.target, prompt, 12)


def test_the_bonus_is_drawn_at_the_run_s_temperature(llama):
    texts = {tuple(tokens_of(run_steps(llama, "chimera", PROMPT, sampling=Sampling(1.0), seed=s, max_tokens=12))) for s in range(5)}
    assert len(texts) > 3


def test_the_released_sampler_would_be_biased_and_is_refused():
    """Its candidate is q's arg-max, judged by p/q as if it had been drawn: p = (.5, .3, .2) comes out as (.4, .6, 0)."""
    p, q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.5, 0.3])
    residual = (p - q).clamp(min=0) / (p - q).clamp(min=0).sum()
    accepted = p[1] / q[1]
    emitted = (1 - accepted) * residual + accepted * torch.eye(3)[1]
    assert torch.allclose(emitted, torch.tensor([0.4, 0.6, 0.0])) and total_variation(emitted, p) == pytest.approx(0.3)
    draft = Draft((1,), (-1,), source=("head 1",))
    with pytest.raises(ValueError):
        recursive_rejection(draft, output_of(p.expand(2, -1)), torch.zeros(2))
    ours = torch.zeros(3)
    for i in range(1000):
        verification = match(draft, output_of(p.expand(2, -1)), torch.full((2,), (i + 0.5) / 1000))
        ours[1 if verification.path else verification.token] += 1e-3
    assert total_variation(ours, p) < 2e-3


# -- refusals ----------------------------------------------------------------------------------------------------------

GOOD = {"width": 32, "attention heads": 2, "mlp": 48, "theta": 10_000.0, "eps": 1e-6, "heads": 2}


@pytest.mark.parametrize("change", [{"heads": 0}, {"heads": 2.0}, {"width": None}, {"width": 33}, {"mlp": 0}, {"eps": "x"}])
def test_settings_that_cannot_be(change):
    assert shapes(GOOD) == {name: tuple(values.shape) for name, values in chimera.heads_of(GOOD).state_dict().items()}
    with pytest.raises(ValueError, match="cannot be|do not divide"):
        shapes(GOOD | change)


# -- training ----------------------------------------------------------------------------------------------------------


def test_every_head_learns_its_own_place():
    """On a periodic text head s is right at its own place and wrong one place off."""
    target, text = over_fitted()
    target.model.requires_grad_(False)
    torch.manual_seed(0)
    heads, tokens = init_head(target, 3), torch.stack([text[s : s + 64] for s in range(11)])
    batch = batch_of(target, tokens, target.last_hidden)
    losses = list(learned("chimera", heads, target, batch, 40, 5e-3))
    assert losses[-1] < 0.2 * losses[0]
    with torch.no_grad():
        for k, logits in enumerate(RECIPE.predict(heads, target, batch), 1):
            guess = logits.argmax(-1)[:, 16:48]
            shares = [(guess == tokens[:, 16 + ahead : 48 + ahead]).float().mean().item() for ahead in (k, k + 1, k + 2)]
            assert shares[1] > 0.99 and max(shares[0], shares[2]) < 0.05, (k, shares)


def test_the_loss_by_hand(monkeypatch):
    """Cross-entropy of token i + 1 + s plus the relative error of the state, 0.8^(s-1) times; slots are told the true tokens."""
    exactly("chimera", monkeypatch)
    target = target_of()
    heads = noisy(target, 2)
    torch.manual_seed(0)
    batch = batch_of(target, torch.randint(VOCAB, (2, 9)), target.last_hidden)
    batch.counts[0, :5] = False
    hidden = batch.states[target.last_hidden]
    with torch.no_grad():
        total = 0.0
        for s in (1, 2):
            entropy, error, count = 0.0, 0.0, 0
            for row in range(2):
                for i in range(9):
                    slots_ = imitated(heads, target, hidden[row : row + 1], batch.tokens[row : row + 1], torch.tensor([i]))
                    made, read = list(slots_)[s - 1]
                    logits = target.score(read[0, 0])
                    if i + 1 + s < 9 and batch.counts[row, i + 1 + s]:
                        entropy -= logits.log_softmax(-1)[batch.tokens[row, i + 1 + s]].item()
                        error += (made[0, 0] - hidden[row, i + s]).pow(2).mean().item()
                        count += 1
            total += recipe.DECAY ** (s - 1) * (entropy / count + error / count / hidden.pow(2).mean().item())
        assert RECIPE.loss(heads, target, batch, 0.0).item() == pytest.approx(total, rel=1e-4)


def test_the_target_is_left_as_it_is_and_everything_else_learns():
    target = target_of()
    target.model.requires_grad_(False)
    before = [values.clone() for values in target.model.parameters()]
    torch.manual_seed(0)
    heads = init_head(target, 2)
    begun = {name: values.clone() for name, values in heads.state_dict().items()}
    list(learned("chimera", heads, target, batch_of(target, torch.randint(VOCAB, (2, 16)), target.last_hidden), 3))
    assert all(torch.equal(a, b) for a, b in zip(before, target.model.parameters(), strict=True))
    assert all(not torch.equal(values, begun[name]) for name, values in heads.state_dict().items())
    assert described(heads)["heads"] == 2 and "2 residual heads" in RECIPE.words(heads)


def test_from_the_command_line_for_another_target(workshop, capsys):
    target = workshop.target(num_hidden_layers=3)
    family = load(target, device="cpu")
    assert "decoding.training chimera --family" in METHODS["chimera"].missing(family)
    train.main(workshop.command("chimera", target, "greedy", epochs=1, heads=2))
    said = capsys.readouterr().out
    assert "depth 2: top-1" in json.loads(said[said.index("{") : said.rindex("}") + 1])
    assert METHODS["chimera"].missing(family) == "" and len(load_head(family.target).residual) == 2
    steps = run_steps(family, "chimera", PROMPT, max_tokens=24)
    text = tokens_of(steps)
    assert text == toys.greedy_text(family.target, PROMPT, len(text))
    assert {node.source for step in steps for node in step.nodes} == {"head 1", "head 2"}


# -- the shipped heads -------------------------------------------------------------------------------------------------


def test_the_shipped_heads_are_worth_their_place(embedded, monkeypatch):
    """Without the imitated state far fewer tokens are accepted: it is what the heads live on."""
    shipped, read = tau(embedded, "chimera", FLOOR_PROMPTS.values(), GREEDY), chimera.Heads.read
    monkeypatch.setattr(chimera.Heads, "read", lambda self, hidden, imitated, k: read(self, hidden, 0 * imitated, k))
    assert shipped > tau(embedded, "chimera", FLOOR_PROMPTS.values(), GREEDY) + 0.3
