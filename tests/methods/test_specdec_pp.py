"""SpecDec++: where it stops, that it stays exact, what the head sees, and its training on data whose answer is known."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from decoding.drafting.chain import Chain
from decoding.loop import decode
from decoding.methods import METHODS
from decoding.methods.specdec_pp import Adaptive, Head, Params, pair, predictor
from decoding.models.cache import TreeCache
from decoding.models.target import PRE_NORM, Target
from decoding.runs.evaluate import PROMPTS
from decoding.sample import Sampling
from decoding.score_names import PREDICTED
from decoding.training.figures import auc, calibration_error, unweighted
from decoding.training.recipes import specdec_pp as training
from decoding.verify import recursive_rejection
from tests.decoding.test_lossless_statistics import LIMIT, counted, expected, misfit
from tests.toys import ARCHITECTURES, GREEDY, causal_lm, run_steps, tiny_target, toy_family

PROMPT = [7, 70, 170]
FIXED = "speculative_sampling"
SAMPLED = Sampling(1.0)


def drafter(family, predict, sampling=SAMPLED, **params) -> Adaptive:
    made = Adaptive(family.draft, METHODS["specdec_pp"].checked(params), sampling, predict)
    made.begin(PROMPT, None)
    return made


def proposed(family, predict, seed: int = 0, **params):
    return drafter(family, predict, **params).propose(PROMPT, torch.Generator().manual_seed(seed))


def always(chance: float):
    return lambda hidden: torch.full((len(hidden),), chance)


class Script:
    """Predictions from a list."""

    def __init__(self, *values: float) -> None:
        self.values = list(values)

    def __call__(self, hidden: Tensor) -> Tensor:
        return torch.tensor([self.values.pop(0)])


# -- where it stops ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threshold, length", [(0.3, 4), (0.5, 5), (0.7, 6)])
def test_the_example_of_the_specification(llama, threshold, length):
    """The product passes 1 - h behind 3, 4 and 5 predictions; the token that came with the last pass is submitted too."""
    draft = proposed(llama, Script(0.95, 0.9, 0.8, 0.7, 0.6, 0.5), threshold=threshold, length=20)
    assert len(draft) == length and draft.calls == length


@pytest.mark.parametrize(
    "chance, params, length",
    [
        (1.0, {"threshold": 0.0, "length": 7}, 7),
        (0.0, {"threshold": 1.0, "length": 7}, 7),
        (0.0, {"threshold": 0.0, "length": 9, "shortest": 3}, 3),
        (0.0, {"threshold": 0.99, "length": 9, "shortest": 2}, 2),
        (0.0, {"threshold": 0.5, "length": 9, "shortest": 1}, 2),  # nothing is predicted before a token was fed
        (0.0, {"threshold": 0.5, "length": 1, "shortest": 5}, 1),
        (0.5, {"threshold": 0.5, "length": 9, "shortest": 1}, 3),  # 1 - 0.5 > 0.5 is false: the line itself does not stop
    ],
)
def test_degenerate_heads_and_thresholds(llama, chance, params, length):
    assert len(proposed(llama, always(chance), **params)) == length


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(1.0), Sampling(0.7, top_p=0.9)])
@pytest.mark.parametrize("length", [1, 5])
def test_threshold_one_is_a_fixed_length_token_for_token(embedded, llama, sampling, length):
    for family, prompt in ((llama, PROMPT), (embedded, embedded.tokenizer("Once upon a time there was")["input_ids"])):
        mine = run_steps(family, "specdec_pp", prompt, sampling=sampling, max_tokens=16, threshold=1.0, length=length)
        fixed = run_steps(family, FIXED, prompt, sampling=sampling, max_tokens=16, length=length)
        assert [step.tokens for step in mine] == [step.tokens for step in fixed]
        for one, other in zip(mine, fixed, strict=True):
            assert [replaced(node) for node in one.nodes] == [replaced(node) for node in other.nodes]
    early = run_steps(llama, "specdec_pp", PROMPT, sampling=sampling, max_tokens=16, threshold=0.0, length=5)
    assert max(len(step.nodes) for step in early) == 2


def replaced(node):
    return node.token, node.parent, node.p, node.q, node.u, node.verdict


def test_every_token_but_the_last_has_its_prediction(llama):
    draft = proposed(llama, Script(0.9, 0.8, 0.1, 0.9), threshold=0.5)
    assert draft.scores[PREDICTED][:-1].tolist() == pytest.approx([0.9, 0.8, 0.1]) and draft.scores[PREDICTED][-1].isnan()
    for step in run_steps(llama, "specdec_pp", PROMPT, sampling=Sampling(1.0)):
        assert all(0 <= node.scores[PREDICTED] <= 1 for node in step.nodes[:-1])
        assert PREDICTED not in step.nodes[-1].scores or step.ending, "a number that is none must not reach the trace"


def test_an_end_of_text_cuts_the_predictions_as_well(llama):
    ends = replace(llama, draft=replace(llama.draft, ends=frozenset(range(0, 280, 2))))
    lengths = []
    for seed in range(20):
        draft = proposed(ends, always(0.9), seed, threshold=1.0, length=6)
        lengths.append(len(draft))
        assert len(draft.scores[PREDICTED]) == len(draft) and all(token % 2 for token in draft.tokens[:-1])
    assert min(lengths) < 4 <= max(lengths)


def test_counters(embedded):
    prompt = embedded.tokenizer("Question: Tom has 3 boxes")["input_ids"]
    for step in run_steps(embedded, "specdec_pp", prompt, sampling=Sampling(1.0)):
        accepted = sum(node.verdict == "accepted" for node in step.nodes)
        assert step.ending or len(step.tokens) == accepted + 1
        assert step.draft_calls == len(step.nodes) >= 1


# -- what the head sees ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_the_head_reads_what_the_language_model_head_reads(kind):
    """The state behind the final norm, at the position of the token that is judged."""
    model = causal_lm(kind)
    target = Target(model, 280, 160)
    seen = []
    made = Adaptive(target, Params(threshold=1.0, length=4), Sampling(1.0), lambda hidden: seen.append(hidden) or torch.ones(1))
    made.begin(PROMPT, None)
    draft = made.propose(PROMPT, torch.Generator().manual_seed(0))
    with torch.inference_mode():
        logits = model(torch.tensor([[*PROMPT, *draft.tokens]])).logits[0, len(PROMPT) :]
        head = model.get_output_embeddings()
        assert (head(torch.cat(seen)) - logits[:3]).abs().max() < 1e-4, "after a token was fed, not before"
        assert (head(torch.cat(seen[:2])) - logits[1:3]).abs().max() > 0.1, "one position off must show"


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_the_tap_before_the_norm(kind):
    """Normed and scored it gives the logits; what Hugging Face lists last is normed already."""
    model = causal_lm(kind)
    target = Target(model, 280, 160)
    logits, hidden = target.forward(TreeCache(), target.ids(PROMPT), range(3), aux_hidden_layers=(PRE_NORM, target.last_hidden, 0))
    norms = [
        part
        for name, part in model.named_modules()
        if name.count(".") == 1 and "norm" in name.split(".")[-1] or name == "transformer.ln_f"
    ]
    final = norms[-1]
    with torch.inference_mode():
        head = model.get_output_embeddings()
        assert (head(final(hidden[PRE_NORM])) - logits).abs().max() < 1e-4
        assert (head(hidden[target.last_hidden]) - logits).abs().max() < 1e-4
        assert (head(hidden[PRE_NORM]) - logits).abs().max() > 0.01, "the trap: it must not be normed"
    assert set(hidden) == {PRE_NORM, target.last_hidden, 0} and all(len(rows) == 3 for rows in hidden.values())
    hooks = len(target.last_layer._forward_hooks)  # transformers keeps one of its own
    target.forward(TreeCache(), target.ids(PROMPT), range(3), aux_hidden_layers=(PRE_NORM,))
    assert len(target.last_layer._forward_hooks) == hooks, "the hook must not stay"


def test_sampled_and_greedy_runs_have_heads_of_their_own(embedded):
    hidden = torch.randn(5, embedded.draft.model.config.hidden_size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        sampled, greedy = (predictor(embedded.draft, kind)(hidden) for kind in (False, True))
    assert ((sampled > 0) & (sampled < 1)).all() and not torch.allclose(sampled, greedy, atol=0.01)


# -- exactness ---------------------------------------------------------------------------------------------------------


def by_token(drafted, accept):
    """Stop behind the first odd token: which tokens were drawn decides how many are."""
    model, last = drafted.model, []
    extend = model.extend

    def noted(tokens, parents):
        last[:] = tokens.tolist()
        return extend(tokens, parents)

    model.extend = noted
    drafted.predict = lambda hidden: torch.tensor([1.0 if last[0] % 2 == 0 else 0.0])
    return drafted, accept


@pytest.mark.parametrize("sampling", [Sampling(1.0), Sampling(0.7, top_p=0.9)], ids=["T=1", "T=0.7, top-p=0.9"])
def test_a_stop_that_depends_on_drawn_tokens_is_exact(sampling):
    assert misfit(counted("specdec_pp", sampling, by_token, threshold=0.5, shortest=1), expected(sampling)) < LIMIT


def withdrawn(drafted, accept):
    """The fault: an odd token is not submitted; the target's own token takes its place."""

    def propose(tokens, rng):
        draft = Chain.propose(drafted, tokens, rng)
        keep = next((i for i, token in enumerate(draft.tokens) if token % 2), len(draft))
        return draft.cut(np.arange(len(draft)) < keep)

    drafted.propose = propose
    return drafted, accept


def test_withdrawing_a_token_for_its_own_sake_is_noticed():
    assert misfit(counted(FIXED, Sampling(), withdrawn, length=2), expected(Sampling())) > LIMIT


def test_withdrawing_in_numbers():
    """The example of the specification, enumerated: tokens whose acceptance is below 0.5 are not submitted."""
    p, q = torch.tensor([0.4, 0.3, 0.2, 0.1]), torch.tensor([0.1, 0.2, 0.3, 0.4])
    kept = (p / q).clamp(max=1) >= 0.5
    residual = (p - q).clamp(min=0) / (p - q).clamp(min=0).sum()
    accepted = q * (p / q).clamp(max=1) * kept
    refused = (q * kept).sum() - accepted.sum()
    out = accepted + refused * residual + (q * ~kept).sum() * p
    assert out.tolist() == pytest.approx([0.335, 0.345, 0.28, 0.04], abs=1e-3)


# -- training ----------------------------------------------------------------------------------------------------------


def test_labels_are_chances_of_acceptance():
    p, q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.5, 0.3])
    labels = training.chance(p, q)
    assert labels.tolist() == pytest.approx([1, 0.6, 2 / 3])
    assert (q * labels).sum() == pytest.approx(float(torch.minimum(p, q).sum()))


@pytest.mark.parametrize("weight, goal", [(6.0, 0.6), (1.0, 0.9)])
def test_a_weight_on_refusals_makes_the_prediction_pessimistic(weight, goal):
    """For a constant label 0.9 the best prediction is 0.9 / (0.9 + 0.1 w), and `unweighted` takes that back."""
    logits = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.LBFGS([logits], max_iter=60)
    labels, counts = torch.full((50,), 0.9), torch.ones(50, dtype=torch.bool)

    def loss():
        optimizer.zero_grad()
        value = training.weighted(logits.expand(50, 2), labels, counts, weight)
        value.backward()
        return value

    optimizer.step(loss)
    found = logits.softmax(-1)[1].item()
    assert found == pytest.approx(goal, abs=0.01)
    assert unweighted(np.array([found]), weight)[0] == pytest.approx(0.9, abs=0.01)


def lesson(rows: int, seed: int = 0) -> training.Lesson:
    rng = np.random.default_rng(seed)
    shape = (rows, training.LENGTH)
    text = rng.integers(0, 40, (rows, training.PROMPT + training.LENGTH))
    drafted = rng.integers(0, 40, shape)
    return training.Lesson(text, drafted, rng.random(shape).astype(np.float16), np.ones(shape, dtype=bool))


def test_the_mixture():
    found = lesson(40)
    tokens, own = training.mixture(found, np.arange(40), np.random.default_rng(0))
    assert own.mean() == pytest.approx(1 - training.MIXED, abs=0.02)
    assert (tokens[:, : training.PROMPT] == found.text[:, : training.PROMPT]).all()
    assert (tokens[:, training.PROMPT :] == np.where(own, found.drafted, found.text[:, training.PROMPT :])).all()
    ended = replace(found, valid=np.arange(training.LENGTH) < np.full((40, 1), 10))
    assert not training.mixture(ended, np.arange(40), np.random.default_rng(0))[1][:, 10:].any()


def test_positions_of_target_tokens_do_not_count():
    """Labels there may be anything; labels of drafted tokens may not."""
    logits, labels = torch.randn(60, 2), torch.rand(60)
    counts = torch.arange(60) % 3 > 0
    loss = training.weighted(logits, labels, counts, 6.0)
    assert training.weighted(logits, torch.where(counts, labels, 1 - labels), counts, 6.0) == loss
    assert training.weighted(logits, torch.where(counts, 1 - labels, labels), counts, 6.0) != loss


def trained_auc(offset: int) -> float:
    """A head on the states `offset` positions after the judged token's own, where acceptance follows from the token alone."""
    target = tiny_target(0, 40, hidden_size=32)
    learn, test = lesson(200), lesson(60, 1)

    def states(found: training.Lesson, seed: int) -> tuple[Tensor, np.ndarray, np.ndarray]:
        tokens, own = training.mixture(found, np.arange(len(found.text)), np.random.default_rng(seed))
        with torch.no_grad():
            hidden = target.model(torch.from_numpy(tokens), output_hidden_states=True, use_cache=False).hidden_states[-1]
        at = slice(training.PROMPT + offset, training.PROMPT + training.LENGTH + offset)
        return hidden[:, at].float(), np.where(found.drafted % 2 == 0, 0.95, 0.2), own

    torch.manual_seed(0)
    head = Head(32, 2)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2)
    hidden, labels, own = states(learn, 0)
    for _ in range(300):
        optimizer.zero_grad()
        training.weighted(head(hidden), torch.from_numpy(labels).float(), torch.from_numpy(own), 6.0).backward()
        optimizer.step()
    hidden, labels, own = states(test, 1)
    with torch.no_grad():
        scores = head.accepted(hidden.flatten(0, 1)).view(own.shape).numpy()[own].astype(np.float64)
    return auc(scores, (labels[own] > 0.5).astype(np.float64))


@pytest.fixture
def short_context(monkeypatch):
    monkeypatch.setattr(training, "PROMPT", 8)
    monkeypatch.setattr(training, "LENGTH", 40)


def test_the_state_that_contains_the_token_tells_all_and_the_one_before_nothing(short_context):
    assert trained_auc(0) > 0.95
    assert 0.4 < trained_auc(-1) < 0.6


def test_training_reads_the_states_that_contain_the_token(short_context):
    target = tiny_target(0, 40)
    tokens, _ = training.mixture(lesson(3), np.arange(3), np.random.default_rng(0))
    with torch.no_grad():
        states = training.read(target, tokens)
        logits = target.model(torch.from_numpy(tokens)).logits[:, training.PROMPT :]
        assert (target.model.lm_head(states) - logits).abs().max() < 1e-4


@pytest.mark.parametrize("kind", training.KINDS)
def test_lessons_are_resumed_and_hold_what_the_models_say(kind, short_context, monkeypatch, tmp_path):
    monkeypatch.setattr(training, "ROWS", 4)
    family = toy_family(*(replace(tiny_target(seed, 40), ends=frozenset({0})) for seed in (0, 2)))
    monkeypatch.setattr(training, "prompts", lambda family, texts, seed: np.random.default_rng(seed).integers(0, 40, (4, 8)))
    found = training.write(family, training.Continued([]), tmp_path, kind, 2)
    stamp = {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    again = training.write(family, training.Continued([]), tmp_path, kind, 2)
    assert all((getattr(found, name) == getattr(again, name)).all() for name in training.Lesson.__dataclass_fields__)
    assert stamp == {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    text = torch.from_numpy(found.text).long()
    with torch.no_grad():
        p, q = (m.model(text).logits[:, 7:-1].softmax(-1) for m in (family.target, family.draft))
    at = torch.from_numpy(found.drafted).long()[..., None]
    labels = torch.from_numpy(found.accepted.astype(np.float32))
    if kind == "sampled":
        assert ((p.gather(2, at) / q.gather(2, at)).clamp(max=1)[..., 0] - labels).abs().max() < 2e-3
    else:
        assert (at[..., 0] == q.argmax(-1)).all() and (labels == (p.argmax(-1) == q.argmax(-1)).float()).all()
        assert (text[:, 8:] == p.argmax(-1))[torch.from_numpy(found.valid)].all(), "greedy lessons are greedy text"
    ended = (text[:, 8:] == 0).cumsum(1)
    assert (torch.from_numpy(found.valid) == (ended - (text[:, 8:] == 0).long() == 0)).all(), (
        "up to the end of the text, not beyond"
    )


def test_figures():
    scores, yes = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.0, 0.0, 1.0, 1.0])
    assert auc(scores, yes) == 1 and auc(-scores, yes) == 0 and auc(np.ones(4), yes) == 0.5
    assert auc(scores, np.full(4, 0.5)) == pytest.approx(0.5) and np.isnan(auc(scores, np.ones(4)))
    rng = np.random.default_rng(0)
    truth = rng.random(50_000)
    assert calibration_error(truth, (rng.random(50_000) < truth).astype(float)) < 0.01
    assert calibration_error(truth, truth**2) == pytest.approx(1 / 6, abs=0.01)


# -- it pays -----------------------------------------------------------------------------------------------------------


def hard_and_easy(count: int, seed: int = 0) -> np.ndarray:
    """(count,) chances of acceptance along a text: .95 where it is easy, .3 where it is hard; easy stays easy with .9, hard becomes
    so with .4."""
    rng = np.random.default_rng(seed)
    uniforms, easy = rng.random(count), True
    chances = np.empty(count)
    for i in range(count):
        chances[i] = 0.95 if easy else 0.3
        easy = uniforms[i] < (0.9 if easy else 0.4)
    return chances


def speed(chances: np.ndarray, predictions: np.ndarray, params: Params, cost: float) -> float:
    """Tokens per unit of time over a text, a target call taking 1 and a draft call `cost`; the stop is the method's own."""
    drafter = Adaptive.__new__(Adaptive)
    drafter.shortest, drafter.threshold, drafter.aux_layer = params.shortest, params.threshold, 0
    drafter.predict = lambda position: predictions[[position]]
    rng, at, time = np.random.default_rng(1), 0, 0.0
    while at + params.length < len(chances):
        for sampled in range(1, params.length + 1):
            drafter.model = SimpleNamespace(hidden={0: at + sampled - 2})  # the last token that was fed
            if drafter.enough(sampled):
                break
        refused = np.flatnonzero(rng.random(sampled) >= chances[at : at + sampled])
        at += 1 + (int(refused[0]) if len(refused) else sampled)
        time += 1 + cost * sampled
    return at / time


@pytest.mark.parametrize("cost, length, known", [(0.05, 8, 3.12), (0.1, 6, 2.47), (0.2, 4, 1.86)])
def test_stopping_pays_and_shuffled_predictions_lose_it(cost, length, known):
    """The specification's process with an oracle for a head: a tenth above the best fixed length, whose speed is known; the same
    predictions at other places of the text are below it."""
    chances = hard_and_easy(40_000)
    fixed = speed(chances, chances, Params(threshold=1.0, length=length), cost)
    assert fixed == pytest.approx(known, rel=0.03)
    shuffled = np.random.default_rng(2).permutation(chances)
    limits = [Params(threshold=h, length=20, shortest=2) for h in (0.4, 0.5, 0.6, 0.7)]
    assert max(speed(chances, chances, params, cost) for params in limits) > 1.1 * fixed
    assert max(speed(chances, shuffled, params, cost) for params in limits) < fixed


# -- the shipped head --------------------------------------------------------------------------------------------------


SOME = [prompt for prompts in PROMPTS.values() for prompt in prompts[:3]]


def run(embedded, sampling: Sampling, key: str, **params) -> list:
    """The steps of nine prompts of three domains."""
    found = []
    for prompt in SOME:
        method = METHODS[key]
        made, accept = method.build(embedded, method.checked(params), sampling)
        options = {"sampling": sampling, "rng": torch.Generator().manual_seed(0), "max_tokens": 48, "recorded": False}
        found += decode(embedded.target, made, accept, embedded.tokenizer(prompt)["input_ids"], **options)
    return found


@pytest.mark.parametrize("sampling, least", [(GREEDY, 0.68), (SAMPLED, 0.6)], ids=["greedy", "T=1"])
def test_the_shipped_head_predicts_real_verdicts(embedded, sampling, least):
    """Over tokens that were judged in real runs; at temperature 1 most of what decides lies in the uniforms."""
    steps = run(embedded, sampling, "specdec_pp", threshold=1.0, length=6)
    judged = [node for step in steps for node in step.nodes if node.verdict != "not judged" and PREDICTED in node.scores]
    scores = np.array([node.scores[PREDICTED] for node in judged])
    chances = np.array([min(1.0, node.p / node.q) for node in judged])
    assert len(judged) > 150 and auc(scores, chances) > least
    assert calibration_error(unweighted(scores, 6.0), chances) < calibration_error(scores, chances), "pessimistic on purpose"


def cost(steps: list) -> tuple[float, float]:
    """tau, and drafted tokens in vain per token of the text."""
    tokens = sum(len(step.tokens) for step in steps)
    drafted = sum(len(step.nodes) for step in steps)
    return tokens / len(steps), (drafted - sum(node.verdict == "accepted" for s in steps for node in s.nodes)) / tokens


def test_it_wastes_less_than_a_fixed_length_of_the_same_tau(embedded):
    """The point of the method, in greedy runs."""
    tau, wasted = cost(run(embedded, GREEDY, "specdec_pp"))
    fixed_tau, fixed_wasted = cost(run(embedded, GREEDY, FIXED, length=3))
    assert tau > fixed_tau - 0.1 and wasted < 0.85 * fixed_wasted, (tau, wasted, fixed_tau, fixed_wasted)


def test_rule_and_pair():
    assert METHODS["specdec_pp"].is_lossless
    assert set(pair(4, 2).state_dict()) == {
        f"{kind}.{part}.{what}"
        for kind in ("sampled", "greedy")
        for part in ("blocks.0", "blocks.1", "out")
        for what in ("weight", "bias")
    }
    assert recursive_rejection is METHODS["specdec_pp"].build(toy_family(tiny_target(0), tiny_target(2)), Params(), GREEDY)[1]
