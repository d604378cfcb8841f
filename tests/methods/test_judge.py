"""Judge Decoding: what the rule promises on toy distributions, its limits on real models, the training data and its traps."""

import ast
import random
import re
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from decoding.acceptance.judge import either
from decoding.draft import Draft, TargetOutput, chain
from decoding.loop import decode
from decoding.methods import METHODS
from decoding.methods.judge import Judged, load_head, score
from decoding.models.cache import TreeCache
from decoding.models.target import PRE_NORM
from decoding.sample import Sampling
from decoding.score_names import JUDGE_DEVIATION, JUDGE_ONLY, JUDGE_SCORE
from decoding.training.figures import auc
from decoding.training.recipes import judge as training
from decoding.verify import EXACT_FOR
from tests.toys import GREEDY, output_of, run_steps, tiny_target, tokens_of, total_variation, toy_family

EXACT = 1e-12
P, Q = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64), torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
FIXED = "speculative_sampling"


def says(*values: float):
    """A judge by the drafted token's place in the chain."""
    return lambda output: torch.tensor(values, dtype=torch.float64)


def always(output: TargetOutput) -> Tensor:
    return torch.ones(len(output.probs) - 1)


def sampled(tokens, q: Tensor) -> Draft:
    n = len(tokens)
    return Draft(tuple(tokens), tuple(range(-1, n - 1)), q, how="sampled", source=("draft model",) * n)


# -- the law at one position -------------------------------------------------------------------------------------------


def law(p: Tensor, q: Tensor, word, rule=None) -> Tensor:
    """(vocab,) what a step's first token is, enumerated over the drafted token and its die through the rule itself.

    Args:
        word: token -> the judge's 0 or 1.
        rule: a change of the rule, for planted faults: (verification, token) -> the distribution that follows a rejection.
    """
    out = torch.zeros_like(p)
    for token in range(len(p)):
        accept = either(says(float(word(token))), 0.5)
        share = min(1.0, float(p[token] / q[token])) if q[token] else 0.0
        for u, mass in ((share / 2, share), ((1 + share) / 2, 1 - share)):  # a die on either side of the border
            if mass == 0 or q[token] == 0:
                continue
            verification = accept(sampled([token], q[None]), output_of(p.repeat(2, 1)), torch.tensor([u, 0.5]))
            if verification.path:
                out[token] += q[token] * mass
            else:
                out += q[token] * mass * (verification.residual[0] if rule is None else rule(verification))
    return out


def identity(p: Tensor, q: Tensor, word) -> float:
    """TV(P, p) as the specification derives it: the J-mass of max(q - p, 0)."""
    return sum(float((q[x] - p[x]).clamp(min=0)) for x in range(len(p)) if word(x))


def cases(count: int = 200, vocab: int = 6):
    rng = torch.Generator().manual_seed(0)
    for _ in range(count):
        p, q = (torch.rand(2, vocab, generator=rng, dtype=torch.float64) ** 3).unbind()
        word = torch.rand(vocab, generator=rng) < 0.5
        yield p / p.sum(), q / q.sum(), lambda x, word=word: bool(word[x])


def test_the_example_of_the_specification():
    word = lambda x: x == 2  # noqa: E731
    found = law(P, Q, word)
    assert found.tolist() == pytest.approx([0.325, 0.275, 0.3, 0.1])
    assert total_variation(found, P) == pytest.approx(0.1) == pytest.approx(identity(P, Q, word))


def test_the_distance_is_the_chance_that_the_judge_overrules_a_refusal():
    for p, q, word in cases():
        assert abs(total_variation(law(p, q, word), p) - identity(p, q, word)) < EXACT


def test_limits_at_one_position():
    for p, q, _ in cases(20):
        assert total_variation(law(p, q, lambda x: False), p) < EXACT
        assert total_variation(law(p, q, lambda x: True), q) < EXACT


def test_fault_a_fresh_draw_in_place_of_the_residual():
    fresh = law(P, Q, lambda x: x == 2, rule=lambda verification: P)
    assert fresh.tolist() == pytest.approx([0.22, 0.29, 0.36, 0.13])
    assert total_variation(fresh, P) == pytest.approx(0.19)
    missed = [abs(total_variation(law(p, q, word, lambda d, p=p: p), p) - identity(p, q, word)) for p, q, word in cases(40)]
    assert max(missed) > 0.02


def test_fault_the_judge_alone():
    """Accept if and only if the judge says so, else draw from p: twice the distance of the OR rule."""
    word = torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    alone = Q * word + (Q * (1 - word)).sum() * P
    assert alone.tolist() == pytest.approx([0.26, 0.32, 0.38, 0.04]) and total_variation(alone, P) == pytest.approx(0.2)
    assert total_variation(law(P, Q, lambda x: x < 3), P) == pytest.approx(0.1)


def test_a_token_that_the_standard_rule_accepts_needs_no_judge():
    verification = either(says(0.0), 0.5)(sampled([0], Q[None]), output_of(P.repeat(2, 1)), torch.tensor([0.99, 0.5]))
    assert verification.path == (0,) and verification.scores[0] == {JUDGE_SCORE: 0.0, JUDGE_ONLY: 0.0, JUDGE_DEVIATION: 0.0}


def test_the_judge_is_wired_in():
    """As a lossless rule this must fail: with the judge of the example the drawn tokens miss p by 0.1."""
    rng = torch.Generator().manual_seed(0)
    counts = {True: torch.zeros(4), False: torch.zeros(4)}
    n = 4000
    for talks in counts:
        for _ in range(n):
            token = int(torch.multinomial(Q, 1, generator=rng))
            rule = either(says(float(talks and token == 2)), 0.5)
            verification = rule(sampled([token], Q[None]), output_of(P.repeat(2, 1)), torch.rand(2, generator=rng))
            counts[talks][token if verification.path else verification.token] += 1
    assert total_variation(counts[True] / n, P) > 0.08 and total_variation(counts[False] / n, P) < 0.03


def test_the_deviation_of_a_node_is_unbiased():
    for p, q, word in cases(30):
        rules = [either(says(float(word(x))), 0.5) for x in range(6)]
        uniforms = torch.tensor([0.5, 0.5])
        found = [
            rule(sampled([x], q[None]), output_of(p.repeat(2, 1)), uniforms).scores[0][JUDGE_DEVIATION]
            for x, rule in enumerate(rules)
        ]
        assert (q * torch.tensor(found, dtype=torch.float64)).sum().item() == pytest.approx(identity(p, q, word))


# -- along a chain -----------------------------------------------------------------------------------------------------


def decided(scores, uniforms, threshold=0.5, ends=(), tokens=(3, 2, 3, 3)):
    n = len(tokens)
    u = torch.tensor([*uniforms, 0.5])
    return either(says(*scores), threshold, ends)(sampled(tokens, Q.repeat(n, 1)), output_of(P.repeat(n + 1, 1)), u)


def test_the_first_that_fails_both_ends_it():
    """Token 3 is accepted below a die of 0.25, token 2 below 2/3."""
    verification = decided((0.9, 0.1, 0.1, 0.9), (0.9, 0.5, 0.9, 0.9))
    assert verification.path == (0, 1) and verification.verdicts == ("accepted", "accepted", "rejected", "not judged")
    assert [facts[JUDGE_ONLY] for facts in verification.scores] == [1.0, 0.0, 0.0, 0.0]
    assert [facts[JUDGE_DEVIATION] for facts in verification.scores] == pytest.approx([0.75, 0.0, 0.0, 0.75])
    assert verification.row == 2 and verification.token in (0, 1), "the correction comes from the residual"


def test_what_the_judge_says_behind_the_end_changes_nothing():
    ends = {decided((0.9, 0.1, 0.1, last), (0.9, 0.5, 0.9, 0.9)).path for last in (0.0, 1.0)}
    assert ends == {(0, 1)}


def test_the_threshold_itself_does_not_pass_and_one_is_silence():
    assert decided((0.5,) * 4, (0.99,) * 4).path == ()
    assert decided((1.0,) * 4, (0.99,) * 4, threshold=1.0).path == ()
    assert decided((1.0,) * 4, (0.99,) * 4, threshold=0.999).path == (0, 1, 2, 3)


def test_the_accepted_length_falls_with_the_threshold():
    rng = random.Random(0)
    for _ in range(50):
        scores, uniforms = [rng.random() for _ in range(4)], [rng.random() for _ in range(4)]
        found = [decided(scores, uniforms, threshold=t / 10) for t in range(11)]
        lengths = [len(verification.path) for verification in found]
        assert lengths == sorted(lengths, reverse=True)
        assert not any(facts[JUDGE_ONLY] for facts in found[-1].scores)


def test_an_end_of_text_passes_by_the_ordinary_rule_only():
    assert decided((0.9,) * 4, (0.9, 0.9, 0.9, 0.9), ends={3}).path == ()
    assert decided((0.9,) * 4, (0.1, 0.9, 0.9, 0.9), ends={3}).path == (0, 1)
    assert decided((0.9,) * 4, (0.9, 0.9, 0.9, 0.9), ends={3}).scores[0][JUDGE_DEVIATION] == 0


def test_other_drafts_are_refused():
    rule, output, u = either(always, 0.5), output_of(P.repeat(3, 1)), torch.rand(3)
    with pytest.raises(ValueError, match="2 nodes was deterministic"):
        rule(chain([1, 2], "prompt"), output, u)
    with pytest.raises(ValueError, match="one chain"):
        rule(Draft((1, 2), (-1, -1), Q.repeat(2, 1), how="sampled", source=("a", "a")), output, u)
    verification = rule(Draft((), ()), output_of(P[None]), torch.tensor([0.1]))
    assert verification.token == 0 and verification.path == ()


def test_the_rule_is_nowhere_called_exact():
    method = METHODS["judge"]
    rule = method.build(toy_family(tiny_target(0), tiny_target(2)), method.params(), GREEDY)[1]
    assert not method.is_lossless and "ossy" in method.lossless and rule not in EXACT_FOR


def test_judging_takes_one_copy_from_the_device(monkeypatch):
    copies, original = [], Tensor.tolist
    monkeypatch.setattr(Tensor, "tolist", lambda values: copies.append(values.shape) or original(values))
    decided((0.9,) * 4, (0.5,) * 4)
    assert len([shape for shape in copies if len(shape) and shape[0] > 5]) == 1, copies


# -- limits on real models ---------------------------------------------------------------------------------------------

PROMPTS = ("Once upon a time there was", "Question: Tom has 3 boxes with 12 apples each.")


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(1.0), Sampling(0.7, top_p=0.9)])
def test_a_judge_that_never_speaks_is_speculative_sampling_token_for_token(embedded, sampling):
    for prompt in PROMPTS:
        ids = embedded.tokenizer(prompt)["input_ids"]
        mine = run_steps(embedded, "judge", ids, sampling=sampling, threshold=1.0, length=6)
        fixed = run_steps(embedded, FIXED, ids, sampling=sampling, length=6)
        assert [(step.tokens, step.path, step.origins) for step in mine] == [(s.tokens, s.path, s.origins) for s in fixed]
        assert not any(node.scores[JUDGE_ONLY] for step in mine for node in step.nodes)


def steps_with(family, judge, prompt, sampling, ends=(), length=5, count=40):
    drafter = Judged(family.draft, length, sampling)
    rng = torch.Generator().manual_seed(0)
    options = {"sampling": sampling, "rng": rng, "max_tokens": count, "recorded": False}
    return list(decode(family.target, drafter, either(judge, 0.5, ends), prompt, **options))


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(1.0)])
def test_a_judge_that_always_speaks_writes_the_drafters_text(embedded, sampling):
    ids = embedded.tokenizer(PROMPTS[0])["input_ids"]
    for step in steps_with(embedded, always, ids, sampling):
        assert len(step.path) == len(step.nodes) or step.ending
        judged = {
            node.verdict for node in step.nodes if not step.ending or node.verdict != "not judged"
        }  # behind the end nothing is
        assert judged == {"accepted"}
    ordinary = run_steps(embedded, FIXED, ids, sampling=sampling, length=5)
    assert len(ordinary) > len(steps_with(embedded, always, ids, sampling))


def test_with_two_real_models_the_first_token_obeys_the_identity():
    """All drafted first tokens and all uniforms: the tree reading, the judge's row and the residual have to fit together."""
    family = toy_family(tiny_target(0, 5), tiny_target(2, 5))
    prompt = (0, 1, 2)
    word = torch.tensor([True, False, True, False, True])
    p, q = (m.extend(TreeCache(), prompt)[0].softmax(-1).double() for m in (family.target, family.draft))
    out, n = torch.zeros(5, dtype=torch.float64), 1500
    for seed in range(n):
        drafter = Judged(family.draft, 1, Sampling(1.0))
        said = []
        judge = lambda output, said=said: torch.tensor([float(word[said[-1]])])  # noqa: E731
        propose = drafter.propose
        drafter.propose = lambda tokens, rng, propose=propose, said=said: noted(propose(tokens, rng), said)
        rng = torch.Generator().manual_seed(seed)
        options = {"sampling": Sampling(1.0), "rng": rng, "max_tokens": 1, "recorded": False}
        (step,) = decode(family.target, drafter, either(judge, 0.5), prompt, **options)
        out[step.tokens[0]] += 1
    goal = q * torch.where(word, 1.0, (p / q).clamp(max=1))
    goal += (1 - goal.sum()) * (p - q).clamp(min=0) / (p - q).clamp(min=0).sum()
    assert total_variation(out / n, goal) < 0.03 < total_variation(goal, p), "or the test could not tell it from a lossless rule"


def noted(draft: Draft, said: list[int]) -> Draft:
    said.append(draft.tokens[0])
    return draft


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(1.0)])
def test_the_judge_sees_the_state_behind_the_token(embedded, sampling):
    """The score of every node equals that of a plain pass over its path; one row earlier it does not."""
    ids = embedded.tokenizer(PROMPTS[1])["input_ids"]
    step = run_steps(embedded, "judge", ids, sampling=sampling, length=5, max_tokens=8)[0]
    judge = load_head(embedded.target)
    tokens = [*ids, *(node.token for node in step.nodes)]
    _, hidden = embedded.target.forward(TreeCache(), embedded.target.ids(tokens), range(len(tokens)), aux_hidden_layers=(PRE_NORM,))
    plain = judge(TargetOutput(None, None, {PRE_NORM: hidden[PRE_NORM][len(ids) - 1 :]})).tolist()
    early = judge(TargetOutput(None, None, {PRE_NORM: hidden[PRE_NORM][len(ids) - 2 : -1]})).tolist()
    found = [node.scores[JUDGE_SCORE] for node in step.nodes]
    assert found == pytest.approx(plain, abs=1e-4) and found != pytest.approx(early, abs=1e-2)


def test_the_shipped_judge_lets_more_through_and_says_where(embedded):
    for sampling in (GREEDY, Sampling(1.0)):
        on, off = [], []
        for prompt in PROMPTS:
            ids = embedded.tokenizer(prompt)["input_ids"]
            on += run_steps(embedded, "judge", ids, sampling=sampling, max_tokens=64)
            off += run_steps(embedded, "judge", ids, sampling=sampling, max_tokens=64, threshold=1.0)
        assert len(tokens_of(on)) / len(on) > len(tokens_of(off)) / len(off)
        judged = [node for step in on for node in step.nodes if not step.ending or node.verdict != "not judged"]
        only = [node for node in judged if node.scores[JUDGE_ONLY]]
        assert only and all(node.verdict == "accepted" and node.u * node.q >= node.p for node in only)
        assert all(node.scores[JUDGE_SCORE] > 0.5 for node in only)


# -- training ----------------------------------------------------------------------------------------------------------


def labelled(offset: int) -> float:
    """Held-out AUC where the label depends on the token alone and the state is `offset` positions from it."""
    target = tiny_target(0, 50, hidden_size=64, initializer_range=0.01)  # the token itself outweighs what it attends to
    rng = np.random.default_rng(0)
    ids = torch.from_numpy(rng.integers(0, 50, (60, 50)))
    found = []
    with torch.inference_mode():
        for row in ids:
            found.append(target.forward(TreeCache(), row, range(50), aux_hidden_layers=(PRE_NORM,))[1][PRE_NORM])
    states = torch.stack(found).clone()
    if offset:
        states, ids = states[:, :-1], ids[:, 1:]
    labels = (ids % 7 != 0).float()
    head = training.logistic(states[:50].flatten(0, 1), labels[:50].flatten(), 1e-4)
    return auc(score(states[50:].flatten(0, 1), head).numpy().astype(float), labels[50:].flatten().numpy().astype(float))


def test_the_offset_trap():
    assert labelled(0) > 0.99
    assert 0.35 < labelled(-1) < 0.65


def test_standardised_weighted_regression_finds_a_known_line():
    rng = torch.Generator().manual_seed(0)
    states = torch.randn(4000, 3, generator=rng) * torch.tensor([1.0, 100.0, 0.01]) + torch.tensor([0.0, 50.0, -3.0])
    labels = (states[:, 0] + 0.01 * (states[:, 1] - 50) > -1.5).float()
    head = training.logistic(states, labels, 1e-6)
    scores = score(states, head)
    assert auc(scores.numpy().astype(float), labels.numpy().astype(float)) > 0.999
    assert head["mean"].tolist() == pytest.approx(states.mean(0).tolist()) and head["scale"].tolist() == pytest.approx(
        states.std(0).tolist()
    )
    strong = training.logistic(states, labels, 1.0)
    assert strong["weight"].norm() < 0.3 * head["weight"].norm(), "L2 holds the weights down"
    flipped = 1 - labels
    flipped[:] = (torch.rand(4000, generator=rng) < 0.02).float()
    rare = training.logistic(torch.randn(4000, 3, generator=rng), 1 - flipped, 1e-4)
    assert abs(torch.sigmoid(rare["bias"]) - 0.5) < 0.25, "label 0 counts up to twenty times: the base rate is taken out"


MATHS = (
    "Question: Tom has 3 boxes of 12 apples.\nAnswer: Tom has 3*12 = <<3*12=36>>36 apples in total.\nSo he has 36 more.\n#### 36"
)
CODE = '''def add(first, second):
    """Add two numbers."""
    if first is None:
        return (second)
    return first + len("x") + second'''


def test_mistakes_in_a_calculation_are_wrong():
    text = training.maths_text(MATHS, ["river", "seven"], random.Random(0))
    found = {variant.category for variant in text.variants}
    assert found == {"result", "copy", "wording", "word"}
    for variant in text.variants:
        assert variant.text[: text.start] == MATHS[: text.start], "the question stays as it is"
        part = variant.text[text.start :]
        if variant.category == "result":
            assert "<<3*12=" in part and "<<3*12=36>>" not in part and ">>36" in part
        if variant.category == "copy":
            assert "<<3*12=36>>" in part and ">>36" not in part
        if variant.category == "word":
            assert "river" in part or "seven" in part
    others = [variant.text[text.start :] for variant in text.variants if variant.category == "wording"]
    assert all("36>>36" in part for part in others) and len(set(others)) == len(others) >= 3


def test_mistakes_in_code_are_wrong_and_other_quotes_are_not():
    for seed in range(20):
        text = training.python_text(CODE, ["river", "value"], random.Random(seed))
        assert {variant.category for variant in text.variants} == {"syntax", "wording", "name"}
        for variant in text.variants:
            if variant.category == "syntax":
                assert not training.compiles(variant.text)
            elif variant.category == "wording":
                assert variant.text != CODE and ast.dump(ast.parse(variant.text)) == ast.dump(ast.parse(CODE))
            else:
                assert training.names_in(variant.text) & {"river", "value"}


def test_numbers_never_keep_their_value():
    for seed, written in product(range(30), ("<<1/2=.50>>.50", "<<5*1=5.0>>5.0", "<<10*10=100>>100")):
        found = re.search(r"<<[^=<>]*=([\d.,]+)>>([\d.,]*\d)?", written)
        for group in (1, 2):
            for at, digit in training.digits(found, group, random.Random(seed)):
                wrong = written[:at] + digit + written[at + 1 :]
                span = slice(found.start(group), found.end(group))
                assert float(wrong[span]) != float(written[span])


def test_a_variant_is_a_leaf_at_its_first_other_token(embedded):
    text = training.maths_text(MATHS, ["river", "seven"], random.Random(0))
    tokens, start, leaves = training.placed(embedded.tokenizer, text)
    assert embedded.tokenizer.decode(tokens[:start]).endswith("Answer:") and len(leaves) >= 5
    for (token, at, category), variant in zip(leaves, text.variants, strict=True):
        assert category == variant.category and tokens[at] != token
        other = embedded.tokenizer(variant.text)["input_ids"]
        assert other[:at] == tokens[:at] and other[at] == token


def test_one_reading_gives_the_states_of_all_variants(embedded):
    """The state of a leaf equals that of a plain pass over the wrong text, and nothing behind a mistake is used."""
    text = training.maths_text(MATHS, ["river", "seven"], random.Random(0))
    tokens, start, leaves = training.placed(embedded.tokenizer, text)
    found = training.states(embedded, text, 7)
    right = len(tokens) - start
    assert len(found["labels"]) == right + len(leaves) and (found["texts"] == 7).all()
    assert (found["labels"][:right] == 1).all() and (found["categories"][:right] == "right").all()
    for row, (token, at, category) in enumerate(leaves, right):
        path = [*tokens[:at], token]
        logits, hidden = embedded.target.forward(
            TreeCache(), embedded.target.ids(path), range(len(path)), aux_hidden_layers=(PRE_NORM,)
        )
        assert found["states"][row].astype(float) == pytest.approx(hidden[PRE_NORM][-1].numpy(), rel=1e-3, abs=0.01)  # float16
        assert found["log_p"][row] == pytest.approx(float(logits[-2].log_softmax(-1)[token]), abs=1e-3)
        assert found["labels"][row] == (category == "wording")
    clean = embedded.target.forward(TreeCache(), embedded.target.ids(tokens), range(len(tokens)), aux_hidden_layers=(PRE_NORM,))[1][
        PRE_NORM
    ]
    assert found["states"][:right].astype(float) == pytest.approx(clean[start:].numpy(), rel=1e-3, abs=0.01)


def test_examples_are_resumed(embedded, tmp_path, monkeypatch):
    texts = [training.maths_text(MATHS, ["river"], random.Random(seed)) for seed in range(3)]
    first = training.Examples.read(embedded, texts, tmp_path, chunk=2)
    monkeypatch.setattr(training, "states", lambda *_: pytest.fail("read again"))
    again = training.Examples.read(embedded, texts, tmp_path, chunk=2)
    assert (first.states == again.states).all() and (again.texts[-1], len(set(again.texts))) == (2, 3)


def test_without_a_corpus_python_serves(monkeypatch):
    """Some of the files: to parse all of them takes a minute."""
    learn, held_out = training.python_source()
    monkeypatch.setattr(training, "python_source", lambda: (learn[::40], held_out[::4]))
    found = training.texts(None, 12)
    assert set(found) == {"train", "python"} and len(found["train"]) == 12 and all(t.kind == "python" for t in found["train"])
    assert training.texts(None, 12) == found


def test_figures_say_what_is_let_through():
    states = np.array([[2.0], [2.0], [-2.0], [-2.0], [2.0]], dtype=np.float16)
    labels = np.array([1, 1, 0, 1, 0], dtype=np.int8)
    categories = np.array(["right", "wording", "result", "right", "copy"])
    found = training.Examples(states, labels, categories, np.arange(5), np.zeros(5, dtype=np.float32))
    head = {"mean": torch.zeros(1), "scale": torch.ones(1), "weight": torch.ones(1), "bias": torch.tensor(0.0)}
    figures = training.measured(found, head)
    assert figures["result refused"] == 1 and figures["copy refused"] == 0
    assert figures["right let through"] == 0.5 and figures["wording let through"] == 1
    assert figures["AUC of log p"] == 0.5 and 0 < figures["AUC"] < 1


def test_replaced_heads_change_the_scores(embedded):
    """`score` by hand, and a head that is moved gives other scores."""
    values = {"mean": [1.0, 0.0], "scale": [2.0, 1.0], "weight": [1.0, -1.0], "bias": 0.5}
    head = {name: torch.tensor(value) for name, value in values.items()}
    assert score(torch.tensor([[3.0, 1.0]]), head).item() == pytest.approx(torch.sigmoid(torch.tensor(0.5)).item())
    assert score(torch.tensor([[3.0, 1.0]]), head | {"bias": torch.tensor(0.0)}).item() == 0.5
