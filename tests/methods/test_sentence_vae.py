"""SentenceVAE: sentences and their vectors, a decoder that knows one vector and some words, drafts that end with a sentence."""

from argparse import Namespace
from contextlib import nullcontext

import pytest
import torch

from decoding.loop import decode
from decoding.methods import METHODS, sentence_vae
from decoding.methods.sentence_vae import EVERY, NONE, ONCE, STALE, Params, Pass
from decoding.models import heads as door
from decoding.models.family import load
from decoding.models.sentence_model import LONGEST, SentenceModel, behind, load_model, made, sentences, shapes, taps
from decoding.models.target import Target
from decoding.runs import sentence_text
from decoding.runs.sentence_text import GiveBack, WriteAlone
from decoding.sample import Sampling
from decoding.score_names import SENTENCE_SO_FAR, VECTOR_AGE, WITHOUT_VECTOR
from decoding.training import train
from decoding.training.recipes import RECIPES
from decoding.training.recipes import sentence_vae as recipe
from decoding.training.states import Batch, states
from decoding.verify import recursive_rejection
from tests import toys
from tests.decoding.test_tau_floor import PROMPTS, tau
from tests.toys import CONTEXT, GREEDY, VOCAB, causal_lm, run_steps, tokens_of

RECIPE = RECIPES["sentence_vae"]
ENDS = [7, 70]
GOOD = {"width": 32, "heads": 2, "mlp": 64, "blocks": 1, "inner": 48, "ends": ENDS}
PROMPT = (0, 5, 9, 11, 3, 70, 4, 8, 2, 9, 7, 5, 6)  # sentences of 5 and 5 tokens, and two of the third


def target_of(kind: str = "llama") -> Target:
    return Target(causal_lm(kind), VOCAB, CONTEXT)


def guessing(settings=GOOD, seed: int = 0) -> SentenceModel:
    """A model in which every part has a say."""
    torch.manual_seed(seed)
    model = made(settings)
    for values in model.parameters():
        values.data += 0.1 * torch.randn(values.shape)
    return model.eval().requires_grad_(False)


@pytest.fixture
def family(monkeypatch):
    """A random target whose sentence model cuts at ENDS."""
    model = guessing()
    for module in (sentence_vae, sentence_text):
        monkeypatch.setattr(module, "load_model", lambda target: model)
    return toys.toy_family(target_of())


def fresh(target: Target, tokens) -> dict[int, torch.Tensor]:
    """tap -> (len(tokens), width) from one plain pass."""
    return {layer: rows[0] for layer, rows in states(target, torch.tensor([list(tokens)]), taps(target)).items()}


# -- sentences ---------------------------------------------------------------------------------------------------------


def test_sentences_have_4_to_32_tokens():
    """The first mark that comes too soon does not end one; without any it is over all the same."""
    assert behind([7, 7, 7, 1, 7, 1], 0, {7}) == 5 and behind([1] * 40, 2, {7}) == 2 + LONGEST and behind([1] * 31, 0, {7}) is None
    assert sentences(PROMPT, ENDS) == [(1, 6), (6, 11), (11, 13)]
    parts = sentences([0, *range(100)], {50})
    assert parts == [(1, 33), (33, 52), (52, 84), (84, 101)] and sentences([0], {7}) == [(1, 1)]


def test_which_tokens_end_a_sentence_is_known_of_any_tokenizer(llama):
    model = RECIPE.init_head(llama.target, Namespace(blocks=1, inner=48, mlp=0))
    RECIPE.told(model, llama)
    pieces = llama.token_bytes(range(VOCAB))
    assert {pieces[token] for token in model.ends} >= {b".", b"!", b"?", b"\n"} and b"," not in {pieces[t] for t in model.ends}
    assert llama.target.ends <= model.ends and RECIPE.settings(model)["ends"] == sorted(model.ends)


# -- the model ---------------------------------------------------------------------------------------------------------


def test_a_vector_is_the_whole_sentence_and_its_order_and_nothing_is_drawn():
    target, model = target_of(), guessing()
    e = model.encoded((5, 9, 11, 70), target)
    assert torch.equal(e, model.encoded((5, 9, 11, 70), target)), "there is no variational part"
    for other in ((5, 9, 11, 7), (6, 9, 11, 70), (9, 5, 11, 70)):
        assert (e - model.encoded(other, target)).abs().max() > 0.01


def test_a_sentence_in_its_window_has_the_vector_that_it_has_alone():
    """Neighbours in the window are not seen, and the decoder gives the same."""
    target, model = target_of(), guessing()
    tokens = torch.tensor([PROMPT, (0, *range(20, 32))])
    batch = Batch(tokens, torch.ones_like(tokens, dtype=torch.bool), states(target, tokens, taps(target)))
    parts = recipe.cut(tokens, model.ends)
    with torch.no_grad():
        vectors = recipe.vectors_of(model, target, batch, parts)
        seen = target.score(recipe.decoded(model, target, batch, parts, vectors))
        for start, stop, k in ((1, 6, 0), (6, 11, 1)):
            sentence = list(PROMPT[start:stop])
            alone = model.encoded(sentence, target)
            assert (vectors[0, k] - alone).abs().max() < 1e-4
            for n in range(len(sentence)):
                now = Pass(model, target, alone)
                assert (now.root(sentence[:n])[0] - seen[0, start + n]).abs().max() < 1e-3
    assert parts.whole.tolist() == [[True, True, False], [False, False, False]]
    assert parts.number[0].tolist() == [3, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2] and parts.places[0, 6:11].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2"])
def test_a_tree_says_what_every_path_says_alone(kind):
    target, model, vector = target_of(kind), guessing(), torch.randn(32)
    with torch.inference_mode():
        now = Pass(model, target, vector)
        found = [now.root([5, 9])[0]]
        found += now.extend(torch.tensor([8, 3]), torch.tensor([-1, -1]))
        found += now.extend(torch.tensor([11, 70]), torch.tensor([1, 0]))
        for row, path in ((0, ()), (1, (8,)), (2, (3,)), (3, (3, 11)), (4, (8, 70))):
            for at, vectors in ((found, vector), ([r for part in now.without for r in part], torch.zeros(32))):
                assert (Pass(model, target, vectors).root([5, 9, *path])[0] - at[row]).abs().max() < 1e-3
        assert (found[0] - now.without[0][0]).abs().max() > 0.1, "or the vector would say nothing"


@pytest.mark.parametrize(
    "change", [{"blocks": 0}, {"inner": None}, {"ends": None}, {"ends": [-1]}, {"ends": [True]}, {"ends": "7"}]
)
def test_settings_that_cannot_be(change):
    shapes(GOOD)
    with pytest.raises(ValueError, match="cannot be"):
        shapes(GOOD | change)


# -- drafts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", [ONCE, EVERY, STALE, NONE])
@pytest.mark.parametrize("shape", ["tree", "chain"])
def test_whatever_vector_it_drafts_with_the_text_is_the_targets(family, vector, shape):
    steps = run_steps(family, "sentence_vae", PROMPT, max_tokens=40, vector=vector, shape=shape)
    assert tokens_of(steps) == toys.greedy_text(family.target, PROMPT, 40)


@pytest.mark.parametrize("vector", [ONCE, EVERY])
def test_the_vector_is_made_from_the_state_in_front_of_its_sentence(family, vector):
    """At every step against a fresh pass over the text; while a sentence's last token is the root, from the state before that."""
    drafter, accept = sentence_vae.build(family, Params(vector=vector), Sampling(1.0))
    tokens, seen = list(PROMPT), set()
    options = {"sampling": Sampling(1.0), "rng": torch.Generator().manual_seed(0), "max_tokens": 60, "recorded": False}
    for step in decode(family.target, drafter, accept, PROMPT, **options):
        start, newest = sentences(tokens, ENDS)[-1][0], len(tokens) - 2
        at = newest if vector == EVERY else min(start - 1, newest)
        rows = fresh(family.target, tokens)
        assert (drafter.vector - drafter.model.foretold(rows, at, family.target)).abs().max() < 1e-4
        assert step.facts == {SENTENCE_SO_FAR: len(tokens) - start, VECTOR_AGE: len(tokens) - 1 - at}
        seen.add(min(start - 1, newest) == newest)
        tokens += step.tokens
    assert seen == {True, False} and len(sentences(tokens, ENDS)) > 3


def test_the_sentence_before_lends_its_vector(family):
    drafter, _ = sentence_vae.build(family, Params(vector=STALE), GREEDY)
    drafter.states = fresh(family.target, PROMPT[:-1])
    model, rows = drafter.model, fresh(family.target, PROMPT)
    assert torch.allclose(drafter.chosen(list(PROMPT)), model.foretold(rows, 5, family.target), atol=1e-4)
    assert torch.allclose(drafter.vector, model.foretold(rows, 10, family.target), atol=1e-4)
    nothing, _ = sentence_vae.build(family, Params(vector=NONE), GREEDY)
    nothing.states = drafter.states
    assert not nothing.chosen(list(PROMPT)).any()


def test_a_draft_ends_with_its_sentence(family):
    """Nothing hangs below a token that ends it, and no path makes it longer than 32."""
    ended = 0
    for shape in ("tree", "chain"):
        drafter, _ = sentence_vae.build(family, Params(shape=shape, depth=32, nodes=60), Sampling(1.5))
        for so_far in (3, 20, 30):
            text = [0, *([5] * so_far)]
            drafter.start, drafter.vector, drafter.states = 1, None, fresh(family.target, text[:-1])
            with torch.inference_mode():
                draft = drafter.propose(text, torch.Generator().manual_seed(so_far))
            assert so_far + draft.depths.max() <= LONGEST and draft.calls <= LONGEST - so_far
            parents = {draft.tokens[parent] for parent in draft.parents if parent >= 0}
            assert not parents & set(ENDS) and set(draft.scores) >= {WITHOUT_VECTOR}
            ended += bool(set(draft.tokens) & set(ENDS))
    assert ended, "no draft came to the end of its sentence"


def test_a_drawn_chain_comes_from_its_q(family):
    sampling = Sampling(0.7, top_p=0.9)
    drafter, accept = sentence_vae.build(family, Params(shape="chain", depth=5), sampling)
    drafter.states = fresh(family.target, PROMPT[:-1])
    with torch.inference_mode():
        draft = drafter.propose(list(PROMPT), torch.Generator().manual_seed(3))
        for i, token in enumerate(draft.tokens):
            logits = Pass(drafter.model, family.target, drafter.vector).root([*PROMPT[11:], *draft.tokens[:i]])
            expected = sampling.probabilities(logits)[0]
            assert torch.allclose(draft.q[i], expected, atol=1e-4) and expected[token] > 0
    assert accept is recursive_rejection and draft.how == "sampled" and len(draft) in range(1, 6)


def test_one_copy_from_the_device(family, monkeypatch):
    drafter, _ = sentence_vae.build(family, Params(), GREEDY)
    drafter.states, copies = fresh(family.target, PROMPT[:-1]), []
    for name in ("tolist", "item", "cpu", "numpy", "__bool__", "__int__", "__float__"):
        real = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda self, real=real, name=name: (copies.append(name), real(self))[1])
    with torch.inference_mode():
        assert len(drafter.propose(list(PROMPT), torch.Generator())) == 24
    assert copies == ["tolist"]


def test_a_prompt_of_one_token_drafts_nothing_at_first(family):
    steps = run_steps(family, "sentence_vae", (0,), max_tokens=12)
    assert not steps[0].nodes and steps[1].nodes and tokens_of(steps) == toys.greedy_text(family.target, (0,), 12)


# -- training ----------------------------------------------------------------------------------------------------------


def batch_of(target: Target, tokens: torch.Tensor, seed: int = 0) -> Batch:
    found = {layer: rows.clone() for layer, rows in states(target, tokens, taps(target)).items()}
    return Batch(tokens, torch.ones_like(tokens, dtype=torch.bool), found, seed)


def test_the_loss_by_hand(monkeypatch):
    """The auto-encoder's mean over the tokens of whole sentences; later with the foretold ones behind the state that was drawn."""
    monkeypatch.setattr(recipe, "quick", lambda device: nullcontext())
    target, model = target_of(), guessing()
    batch = batch_of(target, torch.tensor([PROMPT, PROMPT[::-1]]), seed=1)
    parts = recipe.cut(batch.tokens, model.ends)
    at, zero = recipe.drawn(parts, 1)
    own, ahead, apart = [], [], []
    for row, text in enumerate(batch.tokens.tolist()):
        for k, (start, stop) in enumerate(sentences(text, ENDS)[:-1]):
            sentence, e = text[start:stop], model.encoded(text[start:stop], target)
            z = model.foretold(fresh(target, text), int(at[row, k]), target)
            apart.append((z - e).square().mean())
            for n, token in enumerate(sentence):
                own.append(-Pass(model, target, e).root(sentence[:n])[0].log_softmax(-1)[token])
                if start + n > at[row, k]:
                    vector = torch.zeros(32) if zero[row, k] else z
                    ahead.append(-Pass(model, target, vector).root(sentence[:n])[0].log_softmax(-1)[token])
    own, ahead, apart = (torch.stack(part).mean().item() for part in (own, ahead, apart))
    with torch.no_grad():
        assert RECIPE.loss(model, target, batch, 0.0).item() == pytest.approx(own, rel=1e-3)
        assert RECIPE.loss(model, target, batch, 0.9).item() == pytest.approx(own + ahead + apart, rel=1e-3)


def test_states_are_drawn_in_front_of_the_sentence_and_inside_it():
    parts = recipe.cut(torch.tensor([PROMPT] * 400), ENDS)
    at, zero = recipe.drawn(parts, 0)
    ahead = (at - parts.first)[:, 1]
    assert set(ahead.tolist()) == {-2, -1, 0, 1, 2, 3} and 0.02 < zero.float().mean() < 0.2
    assert torch.equal(at, recipe.drawn(parts, 0)[0]) and not torch.equal(at, recipe.drawn(parts, 1)[0])


def test_an_autoencoder_gives_its_sentences_back():
    """Trained on a few sentences for a moment it gives each of them back from its vector, and another one from another vector."""
    target = target_of()
    target.model.requires_grad_(False)
    torch.manual_seed(0)
    model = RECIPE.init_head(target, Namespace(blocks=1, inner=48, mlp=64))
    model.ends = frozenset(ENDS)
    words = torch.randint(8, 60, (6, 6), generator=torch.Generator().manual_seed(1))
    texts = [tuple(row.tolist()) + (70,) for row in words]
    tokens = torch.tensor([(0, *texts[i], *texts[j]) for i in range(6) for j in range(6)])
    batch, optimizer = batch_of(target, tokens), torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        RECIPE.loss(model, target, batch, 0.0).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert all(model.written(model.encoded(text, target), target) == text for text in texts)


def test_from_the_command_line_for_another_target(workshop):
    target = workshop.target(num_hidden_layers=3)
    family = load(target, device="cpu")
    assert "decoding.training sentence_vae --family" in METHODS["sentence_vae"].missing(family)
    train.main(workshop.command("sentence_vae", target, epochs=1, inner=40))
    assert METHODS["sentence_vae"].missing(family) == ""
    model = load_model(family.target)
    assert model.inner == 40 and family.tokenizer("a.")["input_ids"][-1] in model.ends
    prompt = family.tokenizer(toys.TEXT)["input_ids"][:12]
    text = tokens_of(run_steps(family, "sentence_vae", prompt, max_tokens=24))
    assert text == toys.greedy_text(family.target, prompt, len(text))


# -- beside drafting ---------------------------------------------------------------------------------------------------


@pytest.fixture
def speaking(llama, monkeypatch):
    """A family with a tokenizer."""
    model = guessing()
    monkeypatch.setattr(sentence_text, "load_model", lambda target: model)
    return llama, model


def test_sentences_are_given_back_one_a_turn(speaking):
    family, model = speaking
    job = GiveBack(family, PROMPT)
    assert not job.ended and [next(job).tokens, next(job).tokens] == [PROMPT[1:6], PROMPT[6:11]] and job.ended
    rows = fresh(family.target, PROMPT)
    for found, start in zip(job.steps, (1, 6), strict=True):
        assert found.again == model.written(model.encoded(found.tokens, family.target), family.target)
        assert found.foretold == model.written(model.foretold(rows, start - 1, family.target), family.target)
        assert -1 <= found.near <= 1 and set(found.again) <= set(job.pieces)
    assert next(job) is None and GiveBack(family, PROMPT[:4]).ended


def test_alone_it_takes_one_call_of_the_target_per_sentence(speaking, monkeypatch):
    family, model = speaking
    calls, real = [], Target.extend_with_hidden
    monkeypatch.setattr(Target, "extend_with_hidden", lambda self, *a, **b: (calls.append(1), real(self, *a, **b))[1])
    job, text = WriteAlone(family, PROMPT, Sampling(1.0), 0, 50), list(PROMPT)
    while not job.ended:
        found = next(job)
        p = family.target.model(torch.tensor([[*text, *found.tokens]])).logits[0, len(text) - 1 : -1, :VOCAB].softmax(-1)
        expected = p.gather(1, torch.tensor(found.tokens)[:, None])[:, 0].tolist()
        assert found.p == pytest.approx(expected, abs=1e-4) and found.passes == len(found.tokens)
        text += found.tokens
    assert len(calls) == 1 + len(job.steps), "the prompt, and every sentence once"
    assert len(text) == len(PROMPT) + 50 or text[-1] in family.target.ends
    assert [tuple(text[a:b]) for a, b in sentences(text, ENDS)[3:5]] == [one.tokens for one in job.steps[1:3]]
    again = WriteAlone(family, PROMPT, Sampling(1.0), 0, 50)
    assert next(again) == job.steps[0]


# -- the shipped model -------------------------------------------------------------------------------------------------

GIVEN_BACK = 0.8  # of the tokens
shipped = pytest.mark.skipif(not (door.EMBEDDED / "sentence_vae").is_dir(), reason="not trained yet")


LEARNED = (  # as in the stories that the model learned from
    "Once upon a time there was a little girl named Lily.",
    "She was very happy and she loved to play with her toys.",
    "One day, she went to the park with her mom.",
)


def ids(family, text: str) -> list[int]:
    return family.tokenizer(text, add_special_tokens=False)["input_ids"]


@shipped
def test_most_of_a_sentence_comes_back_from_its_vector(embedded):
    """And next to nothing from the vector of another sentence."""
    model, target = load_model(embedded.target), embedded.target
    texts = [ids(embedded, text) for text in LEARNED]
    vectors = [model.encoded(text, target) for text in texts]

    def share(shift: int) -> float:
        given = [model.written(vectors[(i + shift) % len(texts)], target) for i in range(len(texts))]
        return sum(a == b for text, back in zip(texts, given, strict=True) for a, b in zip(text, back)) / sum(map(len, texts))  # noqa: B905

    assert all(4 <= len(text) <= 20 and behind(text, 0, model.ends) == len(text) for text in texts)
    assert share(0) >= GIVEN_BACK and share(1) < 0.3


@shipped
def test_another_vector_lowers_acceptance(embedded, monkeypatch):
    """The vectors of the prompts are exchanged; a drafter that did not look at them would draft the same."""
    with_own = tau(embedded, "sentence_vae", PROMPTS.values(), GREEDY)
    real, prompts = SentenceModel.foretold, [embedded.tokenizer(text)["input_ids"] for text in PROMPTS.values()]
    model = load_model(embedded.target)
    other = [real(model, fresh(embedded.target, prompt), -1, embedded.target) for prompt in prompts]
    turn = iter(other[1:] + other[:1])
    exchanged = []
    for text in PROMPTS.values():
        vector = next(turn)
        monkeypatch.setattr(SentenceModel, "foretold", lambda self, states, row, target, vector=vector: vector)
        exchanged.append(tau(embedded, "sentence_vae", [text], GREEDY))
    assert 3 / sum(1 / one for one in exchanged) < 0.95 * with_own


@shipped
def test_the_order_of_the_sentences_matters(embedded):
    texts = ("The dog was sad. The cat was happy. Then", "The cat was happy. The dog was sad. Then")
    model, target = load_model(embedded.target), embedded.target
    one, two = (model.foretold(fresh(target, embedded.tokenizer(text)["input_ids"]), -2, target) for text in texts)
    assert (one - two).norm() > 0.05 * one.norm()
