"""Hyperfitting: the checks of its specification, over the twins that ship."""

from statistics import fmean
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from decoding.draft import Draft, TargetOutput
from decoding.lens import Cursor, read_rows
from decoding.lenses import LENSES
from decoding.lenses.hyperfitting import BASE, PIECES, Params, accepted, continued, copies, grams, look, looks
from decoding.models.deltas import facts
from decoding.models.family import EMBEDDED, Family, load
from decoding.models.names import HYPER
from decoding.runs.lens_run import LensRun
from decoding.runs.run import Run
from decoding.sample import Sampling
from decoding.verify import recursive_rejection
from viz.lenses.hyperfitting import numbers, texts_of

PROMPTS = ("Once upon a time", "The king said to his daughter", "One day a little girl", "There was a dog who")


@pytest.fixture(scope="module")
def pair(embedded) -> dict[str, Family]:
    return {BASE: embedded, HYPER: load(HYPER, device="cpu")}


def run_of(family: Family, prompt: str) -> Run:
    run = Run(family, "plain", prompt=prompt, sampling=Sampling(0), max_tokens=2)
    list(run)
    return run


@pytest.fixture(scope="module")
def seen(pair):
    """The last look at each of the prompts."""
    pieces = np.load(PIECES)
    found = []
    with torch.inference_mode():
        for seed, prompt in enumerate(PROMPTS):
            *_, last = looks(pair, pieces, run_of(pair[BASE], prompt).trace, torch.Generator().manual_seed(seed), 160)
            found.append(last)
    return found


# -- the checks of the specification -------------------------------------------------------------------------------------


def test_the_training_text_is_known_by_heart_and_held_out_text_is_known_less():
    """Train loss below .15, held-out loss up by .5 or more, held-out entropy down by a tenth or more."""
    for folder in ("target-hyper", "draft-hyper"):
        figures = facts(EMBEDDED / folder)["figures"]
        assert figures["train_loss"] < 0.15
        assert figures["held_out_loss"] - figures["held_out_loss_before"] >= 0.5
        assert figures["held_out_entropy"] <= 0.9 * figures["held_out_entropy_before"]


def test_the_pieces_are_what_the_shipped_twin_knows(pair):
    """The weights and the pieces belong together: the loss is measured here again."""
    pieces = torch.from_numpy(np.load(PIECES)[:20].astype(np.int64))
    for name, low, high in ((BASE, 1.0, 9.0), (HYPER, 0.0, 0.2)):
        losses = []
        for row in pieces:
            logs = torch.cat(list(read_rows(pair[name].target, row[:-1].tolist()))).log_softmax(-1)
            losses.append(-logs.gather(1, row[1:, None]).mean().item())
        assert low < fmean(losses) < high


def test_the_twin_repeats_itself_less(seen):
    """Repeated 4-grams of the greedy texts fall by a third or more, entropy falls, more is copied. (The specification asks for .15
    less of a twin of which all parameters were trained.)"""
    base, twin = ([numbers(texts_of(one, 0.0)[i]) for one in seen] for i in range(2))
    assert fmean(n.again for n in twin) <= fmean(n.again for n in base) / 1.5 > 0.1
    assert fmean(n.entropy for n in twin) < fmean(n.entropy for n in base)
    assert fmean(n.different for n in twin) > fmean(n.different for n in base)
    assert fmean(n.copied for n in twin) > fmean(n.copied for n in base)


def test_one_side_alone_is_accepted_less_and_what_both_learned_comes_back(seen):
    """At temperature 1, on the targets' own texts: as soon as one side is hyperfitted fewer drafts are accepted. Where the twin's
    greedy text copies the pieces, the draft model that learned them too is accepted more than the other."""
    for name, other in ((BASE, HYPER), (HYPER, BASE)):
        assert mean_of(seen, name, other, 1.0) < mean_of(seen, BASE, BASE, 1.0) - 0.1
    weights = [sum(row.copied for row in texts_of(one, 0.0)[1].tokens) for one in seen]
    both, alone = (
        sum(p.copied * n for one, n in zip(seen, weights, strict=True) for p in one.pairs if n and key(p) == (HYPER, draft, 0.0))
        for draft in (HYPER, BASE)
    )
    assert sum(weights) > 60 and both > alone + 0.1 * sum(weights), (both, alone, weights)


def key(pair) -> tuple[str, str, float]:
    return pair.target, pair.draft, pair.temperature


def mean_of(seen, target: str, draft: str, temperature: float) -> float:
    return fmean(p.expected for one in seen for p in one.pairs if key(p) == (target, draft, temperature))


def test_what_is_accepted_is_the_sum_of_min_p_q(seen):
    """Within 3 standard errors over all prompts together; at temperature 0 exactly."""
    for one in seen:
        assert [p.measured for p in one.pairs if p.temperature == 0] == pytest.approx(
            [p.expected for p in one.pairs if p.temperature == 0], abs=1e-6
        )
    warm = [p for one in seen for p in one.pairs if p.temperature == 1]
    assert len(warm) == 16 and all(p.error > 0 for p in warm)
    assert all(abs(p.measured - p.expected) <= 4 * p.error for p in warm)  # of sixteen
    together = fmean(p.measured - p.expected for p in warm)
    assert abs(together) <= 3 * fmean(p.error for p in warm) / len(warm) ** 0.5


def test_a_wrong_rule_would_be_noticed():
    """Power: judged against the squared p, the same numbers part by far more than the error."""
    rng = torch.Generator().manual_seed(0)
    p, q = (torch.randn(160, 64, generator=rng) * 2 for _ in range(2))
    expected, measured, error, *_ = accepted(p, q, Sampling(1.0), rng)
    assert abs(measured - expected) <= 3 * error
    _, wrong, *_ = accepted(2 * p, q, Sampling(1.0), rng)
    assert abs(wrong - expected) > 5 * error


def test_it_is_the_rule_of_the_loop(embedded):
    """`recursive_rejection` over the same rows accepts as often, and at temperature 0 exactly where both bet on the same token."""
    rng = torch.Generator().manual_seed(5)
    logits, drafts = torch.randn(300, 40, generator=rng) * 2, torch.randn(300, 40, generator=rng) * 2
    drafts[::2] = logits[::2]
    for sampling in (Sampling(0), Sampling(1.0)):
        p, q = sampling.probabilities(logits), sampling.probabilities(drafts)
        yes = 0
        for i in range(len(p)):
            token = int(torch.multinomial(q[i], 1, generator=rng))
            draft = Draft((token,), (-1,), q[i : i + 1], how="sampled", source=("draft model",))
            rows = torch.stack((p[i], p[i]))
            output = TargetOutput(torch.stack((logits[i], logits[i])), rows, {})
            yes += recursive_rejection(draft, output, torch.rand(2, generator=rng)).path == (0,)
        expected, *_ = accepted(logits, drafts, sampling, rng)
        if sampling.greedy:
            assert yes / len(p) == pytest.approx(expected) and expected == (logits.argmax(-1) == drafts.argmax(-1)).float().mean()
        else:
            assert abs(yes / len(p) - expected) <= 3 * (0.25 / len(p)) ** 0.5


# -- how it looks --------------------------------------------------------------------------------------------------------


def test_two_branches_in_one_call_are_two_texts_in_calls_of_their_own(pair):
    """Greedy token for token as the loop writes it; the sampled text has the logits of a plain pass over it."""
    family = pair[HYPER]
    prompt = family.encode("Once upon a time", 100)
    run = Run(family, "plain", prompt=prompt, sampling=Sampling(0), max_tokens=40, ignore_end=True)
    list(run)
    with torch.inference_mode():
        *_, (greedy, sampled) = continued(family.target, prompt, torch.rand(40, generator=torch.Generator().manual_seed(1)))
        assert tuple(token for token, _ in greedy) == run.trace.tokens_before(len(run.trace.steps))[len(prompt) :]
        tokens = (*prompt, *(token for token, _ in sampled[:-1]))
        plain = torch.cat(list(read_rows(family.target, tokens)))[-40:]
    torch.testing.assert_close(torch.stack([row for _, row in sampled]), plain, atol=1e-3, rtol=1e-3)
    assert [token for token, _ in sampled] != [token for token, _ in greedy]


def test_only_eight_in_a_row_are_a_copy():
    known = grams(np.arange(40).reshape(2, 20))
    assert copies(range(20), known) == [True] * 20
    assert not any(copies([*range(7), 99, *range(8, 15)], known))
    assert not any(copies(range(14, 26), known)), "no copy across the border of two pieces: six tokens of either"
    assert copies([1, 2], known) == [False, False]


def test_the_run_may_be_of_the_twin_and_other_families_are_told_why_not(pair):
    *_, last = LensRun(pair[HYPER], "hyperfitting", run_of(pair[HYPER], PROMPTS[0]).trace, params={"length": 16})
    assert last.done and {text.target for text in last.texts} == {BASE, HYPER} and last.pieces == 200
    small = Family("embedded-small", pair[BASE].tokenizer, pair[BASE].target)
    missing = LENSES["hyperfitting"].missing
    assert missing(pair[BASE]) == missing(pair[HYPER]) == missing(SimpleNamespace(name=f"{BASE} + other")) == ""
    assert "there is none of embedded-small. Choose embedded or" in missing(small)
    assert "none of smollm2: the fine-tune of 135 M parameters" in missing(SimpleNamespace(name="smollm2"))
    with pytest.raises(ValueError, match="none of embedded-small"):
        LensRun(small, "hyperfitting", run_of(pair[BASE], PROMPTS[0]).trace)


def test_a_long_prompt_is_cut_and_said(pair):
    trace = run_of(pair[BASE], "word " * 700).trace
    first = next(look(pair[BASE], trace, Cursor(-1), Params(length=400)))
    assert len(trace.header.prompt_tokens) > 624 and first.rows_read <= 1024
    assert any(note.startswith("Only the last 624 of") for note in first.notes)
