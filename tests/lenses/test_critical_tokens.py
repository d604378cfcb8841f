"""Critical tokens: the algebra of the contrast on toys, which guesses of a run are compared, rollouts and their checker, and that
the contrast finds a planted mistake no better than p alone."""

import random
import re
from dataclasses import replace

import pytest
import torch

from decoding.lens import Cursor
from decoding.lenses import critical_tokens
from decoding.lenses.critical_tokens import Params, contrast, guesses, holds, right
from decoding.looks.critical_tokens import BETAS, USUAL
from decoding.runs.lens_run import LensRun
from decoding.runs.run import Run
from decoding.sample import Sampling
from decoding.training.corpus import mathematics
from tests.conftest import ROOT
from tests.toys import noisy

CORPUS = ROOT.parent / "shared/corpus"
ROWS, WORDS = 500, 40


def rows(seed: int, scale: float = 2.0) -> torch.Tensor:
    return scale * torch.randn(ROWS, WORDS, dtype=torch.double, generator=torch.Generator().manual_seed(seed))


P, Q = rows(0), rows(1)
TOKENS = torch.arange(ROWS) % WORDS


def of(logs: torch.Tensor, tokens: torch.Tensor = TOKENS) -> torch.Tensor:
    return logs.gather(1, tokens[:, None])[:, 0]


# -- the specification's checks, on toys -------------------------------------------------------------------------------


def test_where_both_say_the_same_the_contrast_is_p_for_every_beta_and_without_beta_it_is_p_anyway():
    """Check 1."""
    p = P.softmax(-1).gather(1, TOKENS[:, None])
    assert (contrast(P, P).of(TOKENS) - p).abs().max() < 1e-12
    assert (contrast(P, Q).of(TOKENS)[:, :1] - p).abs().max() < 1e-12


def test_logits_and_logarithms_give_the_same():
    """Check 2: the normalisers cancel."""
    one, other = contrast(P, Q), contrast(P.log_softmax(-1), Q.log_softmax(-1) + 3)
    assert (one.of(TOKENS) - other.of(TOKENS)).abs().max() < 1e-12


def test_the_disagreement_is_chi_square():
    """Check 3."""
    p, q = P.softmax(-1), Q.softmax(-1)
    z = contrast(P, Q).norms[:, USUAL].exp()
    assert torch.allclose(z - 1, ((p - q).square() / q).sum(-1), rtol=1e-9) and bool((z > 1).all())


def test_a_token_that_can_be_refused_has_no_more_than_its_share_of_p():
    """Check 4, over 20,000 tokens of random rows."""
    found = contrast(P, Q)
    for token in range(WORDS):
        tokens = torch.full((ROWS,), token)
        lower = of(found.log_p, tokens) < of(found.log_q, tokens)
        bound = (of(found.log_p, tokens) - found.norms[:, USUAL]).exp()
        assert bool((found.of(tokens)[lower, USUAL] <= bound[lower] + 1e-15).all())


def planted() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
    """Rows of p, of q, tokens, and the one place at which the second puts .9 on the token and the first .1."""
    generator = torch.Generator().manual_seed(4)
    p = torch.rand(12, 6, generator=generator, dtype=torch.double).mul(0.2).add(1)
    tokens, place = torch.randint(6, (12,), generator=generator), 7
    p[range(12), tokens] += 3
    p = p / p.sum(-1, keepdim=True)
    q = p.clone()
    for row, share in ((p, 0.1), (q, 0.9)):
        row[place] = (1 - share) / 5
        row[place, tokens[place]] = share
    return p.log(), q.log(), tokens, place


def test_the_planted_token_has_the_lowest_contrast_and_a_row_too_late_it_has_not():
    """Checks 5 and 7."""
    p, q, tokens, place = planted()
    assert int(contrast(p, q).of(tokens)[:, USUAL].argmin()) == place
    late = contrast(p[1:], q[1:]).of(tokens[:-1])[:, USUAL]
    assert int(late.argmin()) != place


def test_exchanging_the_models_turns_the_ratio_and_not_the_contrast():
    """Check 8."""
    one, other = contrast(P, Q), contrast(Q, P)
    assert torch.equal(of(one.log_p) - of(one.log_q), of(other.log_q) - of(other.log_p))
    assert (one.of(TOKENS)[:, USUAL] * other.of(TOKENS)[:, USUAL] - 1).abs().min() > 1e-3


def test_a_token_that_the_draft_model_rules_out_does_not_swallow_the_rest():
    q = Q.clone()
    q[:, 0] = -torch.inf
    found = contrast(P, q)
    assert found.of(TOKENS).isfinite().all() and found.norms.isfinite().all()
    cut = found.log_q.amax(-1) - found.log_q.amin(-1)
    assert float(cut.max()) == pytest.approx(critical_tokens.REACH)


# -- a run -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(embedded):
    made = Run(
        embedded,
        "multi_candidate",
        prompt="Once upon a time there was a little girl",
        sampling=Sampling(1.0),
        seed=2,
        max_tokens=24,
    )
    list(made)
    return made.trace


def last(family, trace, at=(-1, None), **params):
    *_, found = LensRun(family, "critical_tokens", trace, *at, params)
    return found


def test_every_judged_guess_of_the_written_text_is_compared_at_its_own_place(embedded, run):
    """Against the rows of plain passes; refused ones are marked in the text."""
    tokens = [*run.header.prompt_tokens, *(t for step in run.steps for t in step.tokens)]
    found = guesses(run)
    assert len(found) == sum(n.verdict != "not judged" for step in run.steps for n in step.nodes)
    assert sum(guess.refused for guess in found) == sum(n.verdict == "rejected" for step in run.steps for n in step.nodes)
    for guess in found:
        assert guess.rival is None or guess.rival == tokens[guess.place] != guess.token
        assert guess.refused or guess.token == tokens[guess.place]
    look = last(embedded, run)
    start = len(run.header.prompt_tokens)
    assert [one.token for one in look.text] == tokens[start:] and look.judged == len(found)
    assert {start + i for i, one in enumerate(look.text) if one.refused} == {
        g.place for g in found if g.refused and g.place < len(tokens)
    }
    with torch.inference_mode():
        p, q = (m.extend(m.new_cache(), tokens, every_row=True).log_softmax(-1) for m in (embedded.target, embedded.draft))
    for i, one in enumerate(look.text):
        assert one.p == pytest.approx(float(p[start + i - 1, one.token]), abs=1e-4)
        assert one.overlap == pytest.approx(float(torch.minimum(p[start + i - 1].exp(), q[start + i - 1].exp()).sum()), abs=1e-4)
        assert one.contrast[0] == pytest.approx(float(p[start + i - 1, one.token].exp()), abs=1e-5)
    pairs = {}
    for guess in found:
        if guess.refused and guess.rival is not None:
            lr = float(p[guess.place - 1, guess.token] - q[guess.place - 1, guess.token])
            pairs.setdefault((guess.token, guess.rival), []).append(lr)
    assert {(pair.token, pair.rival): pair.count for pair in look.pairs}.items() <= {k: len(v) for k, v in pairs.items()}.items()
    for pair in look.pairs:
        each = pairs[pair.token, pair.rival]
        assert pair.ratio == pytest.approx(sum(each) / len(each), abs=1e-3)


def test_the_candidates_at_a_refused_guess_hold_it_and_what_was_written(embedded, run):
    at = next(
        Cursor(i, j) for i, s in enumerate(run.steps) for j, n in enumerate(s.nodes) if n.verdict == "rejected" and n.parent < 0
    )
    look = last(embedded, run, at)
    assert {look.token, look.rival} <= {one.token for one in look.choices} and len(look.norms) == len(BETAS)
    assert look.text[look.at].token == look.rival and look.text[look.at].refused


def test_a_pair_that_hardly_overlaps_is_refused_with_the_number(embedded, run):
    strange = replace(embedded, draft=replace(embedded.draft, model=noisy(embedded.draft.model, 20.0), plain=None))
    with pytest.raises(ValueError, match=r"overlap by 0\.\d\d in the mean, and below 0\.2"):
        last(strange, run)


# -- rollouts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, answer, verdict",
    (
        ("3 + 4 = 7", "", True),
        ("3 + 4 = $7, 7 * 2 = 15", "", False),
        ("1,200 / 4 = 300", "", True),
        ("2 + 3 x 4 - 1 = 13", "", True),
        ("5 / 0 = 2", "", None),
        ("There were 12 left.", "", None),
        ("There were 12 left.", "12", True),
        ("There were 12.0 left", "12", True),
        ("12, and then 13", "12", False),
        ("none", "12", None),
        ("10 / 3 = 3.33", "", True),
        ("<<3+4=7>>7", "", True),
    ),
)
def test_the_checker(text, answer, verdict):
    assert right(text, answer) is verdict


def test_chains_are_reckoned_in_the_usual_order():
    assert holds("10 - 2 * 3 + 1", "5") and not holds("10 - 2 * 3 + 1", "25")


SUMS = "Question: Tom has 3 apples and buys 4 more. How many apples does he have?\nAnswer: Tom has 3+4=<<3+4="


@pytest.mark.parametrize("answer", ("", "7"))
def test_a_wrong_number_in_a_sum_spoils_it_and_the_right_one_saves_it(embedded, answer):
    """Check 6: no text is right behind the wrong digit, and more than .3 are behind the right one."""
    given = embedded.encode(SUMS, 64)
    seven, eight = (embedded.encode(digit, 8)[-1] for digit in "78")
    place, found = critical_tokens.Place(tuple(given), eight, seven), critical_tokens.CriticalLook(answer=answer)
    *_, look = critical_tokens.forked(embedded, found, place, Params(rollouts=16, length=8), torch.Generator().manual_seed(0))
    accused, other = look.forks
    assert (accused.token, other.token) == (eight, seven) and all(text.startswith("8") for text in accused.texts)
    assert accused.right == 0 and accused.told == 16 and other.right > 0.3 * 16


def test_rollouts_are_drawn_behind_the_place_and_of_both_sides_alike(embedded, run):
    at = next(
        Cursor(i, j) for i, s in enumerate(run.steps) for j, n in enumerate(s.nodes) if n.verdict == "rejected" and n.parent < 0
    )
    look = last(embedded, run, at, rollouts=4, length=8)
    assert [fork.token for fork in look.forks] == [look.token, look.rival] and all(fork.likelihood < 0 for fork in look.forks)
    assert (
        all(len(fork.texts) == 4 for fork in look.forks)
        and look.rows_read <= critical_tokens.cost(run, at, Params(rollouts=4, length=8)).rows
    )
    root = last(embedded, run, (1, None), rollouts=4, length=8)  # nothing was refused: the others are drawn
    assert root.forks[1].token is None
    first = embedded.token_bytes([root.token])[root.token].decode()
    assert all(text.startswith(first) for text in root.forks[0].texts)


def test_a_right_answer_that_is_no_number_is_refused(embedded, run):
    with pytest.raises(ValueError, match="must be a number, as 42 or 1,000.5; it is 'twelve'"):
        last(embedded, run, answer="twelve")


# -- what it does not find ---------------------------------------------------------------------------------------------


def misled(text: str, rng: random.Random) -> tuple[str, int] | None:
    """A solution with one result of a sum made 1 to 10 larger, and where in the text the first wrong digit stands."""
    found = list(re.finditer(r"=\s*(\d+)(?=>>)", text)) or list(re.finditer(r"=\s*\$?(\d+)", text))
    if not found:
        return None
    one = rng.choice(found)
    changed = str(int(one[1]) + rng.randint(1, 10))
    same = next((i for i, (a, b) in enumerate(zip(one[1], changed, strict=False)) if a != b), len(one[1]))
    return text[: one.start(1)] + changed + text[one.end(1) :], one.start(1) + same


def test_the_contrast_finds_a_planted_mistake_no_better_than_p(embedded):
    """By the median of the planted token's percentile among the tokens of its solution; so nobody may claim more for it."""
    if not (CORPUS / "gsm8k-test.jsonl").exists():
        pytest.skip("the corpus is not here")
    rng, found = random.Random(0), {"contrast": [], "p": []}
    for text in mathematics(CORPUS)[1][:40]:
        if len(text) > 420 or (wrong := misled(text, rng)) is None:
            continue
        body, begin = wrong
        tokens, place = embedded.encode(body, 400), len(embedded.encode(body[: begin + 1], 400)) - 1
        start = len(embedded.encode(body[: body.index("Answer:")], 400))
        with torch.inference_mode():
            rows = contrast(*(m.extend(m.new_cache(), tokens, every_row=True) for m in (embedded.target, embedded.draft)))
        chosen = torch.tensor(tokens[1:])
        scores = critical_tokens.Contrast(rows.log_p[:-1], rows.log_q[:-1], rows.norms[:-1]).of(chosen)
        for name, column in (("contrast", USUAL), ("p", 0)):
            part = scores[start - 1 :, column]
            found[name].append(float((part < scores[place - 1, column]).double().mean()))
    assert len(found["p"]) >= 12
    contrast_, p = (sorted(each)[len(each) // 2] for each in (found["contrast"], found["p"]))
    assert contrast_ > p - 0.05 and p < 0.2
