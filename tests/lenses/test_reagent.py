"""ReAGent: the checks of its specification on toys whose only cause is known, altered texts against plain passes, and what it finds
on the embedded family."""

import math

import pytest
import torch

from decoding.attribution import swapping
from decoding.attribution.swapping import PROBES, Others, leave_one_out, rank_correlation
from decoding.lens import Cursor
from decoding.lenses import reagent
from decoding.lenses.reagent import ALONE, REAGENT, Params
from decoding.models.altered import BLOCK, AlteredTexts
from decoding.models.target import Target
from decoding.runs.lens_run import LensRun
from decoding.runs.run import Run
from decoding.sample import Sampling
from tests.toys import CONTEXT, NARROW, VOCAB, causal_lm

LENGTH, CAUSE, WORDS = 20, 7, 50
TEXT = torch.arange(LENGTH)
HIGH, LOW = 0.8, 0.2
ANY = Others(TEXT, torch.stack([torch.tensor([t for t in range(WORDS) if t != i]) for i in range(LENGTH)]), torch.ones(LENGTH, 49))


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def toy(texts: torch.Tensor) -> torch.Tensor:
    """(n, 1) ln p: high as long as the cause stands."""
    return torch.where(texts[:, CAUSE] == CAUSE, HIGH, LOW).double().log()[:, None]


def whole(texts: torch.Tensor):
    yield texts


def run(values, steps: int, *, share: float = 0.3, others: Others = ANY, seed: int = 0, kinds=("target",)) -> swapping.Estimate:
    *_, last = swapping.reagent(values, whole, TEXT, others, values(TEXT[None])[0], kinds, steps, share, rng(seed))
    return last


# -- the specification's checks, on toys -------------------------------------------------------------------------------


def test_a_single_cause_is_ranked_first_and_more_often_the_more_is_swapped():
    """Check 1: at least 95 % after 10 steps at r = .3; r = .1 needs more steps."""
    first = {}
    for share in (0.3, 0.1):
        first[share] = sum(int(run(toy, 10, share=share, seed=i).importance[0].argmax()) == CAUSE for i in range(100))
    assert first[0.3] >= 95 and first[0.1] < first[0.3]


@pytest.mark.parametrize("share", (0.1, 0.3, 0.5))
def test_the_gap_grows_as_the_formula_says(share):
    """Check 2: 4 r (1 - r) artanh(D) a step, within 3 %."""
    swapped = torch.rand(400_000, 2, generator=rng()) < share
    after = torch.where(swapped[:, :1], LOW, HIGH).double().log()
    delta = swapping.fall(torch.tensor([HIGH], dtype=torch.double).log(), after, ["target"])
    gain = swapping.gains(delta, swapped)[:, 0].mean(0)
    assert float(gain[0] - gain[1]) == pytest.approx(4 * share * (1 - share) * math.atanh(HIGH - LOW), rel=0.03)


def test_with_the_sign_turned_the_cause_is_last(monkeypatch):
    """Check 3, a planted fault."""
    right = swapping.gains
    monkeypatch.setattr(swapping, "gains", lambda delta, swapped: right(-delta, swapped))
    assert int(run(toy, 20).importance[0].argmin()) == CAUSE


def test_a_model_that_ignores_its_context_has_no_reasons():
    """Check 4: nothing sharper than the start, which is flat here; the same for one token after the other."""
    flat = run(lambda texts: torch.full((len(texts), 1), -1.0, dtype=torch.double), 20)
    assert float(flat.importance.max() / flat.importance.min()) == pytest.approx(1) and not flat.effects.any()
    *_, alone = leave_one_out(lambda t: torch.zeros(len(t), 1), whole, TEXT, ANY, torch.zeros(1), 2, rng())
    assert alone.importance[0].tolist() == pytest.approx([1 / LENGTH] * LENGTH)


def test_a_token_in_its_own_place_changes_nothing():
    """Check 7."""
    same = Others(TEXT, TEXT[:, None], torch.ones(LENGTH, 1))
    assert not run(toy, 10, others=same).effects.any()


def test_a_fall_from_one_to_nothing_stays_finite():
    """Check 8, of the probability and of the contrast."""

    def certain(texts: torch.Tensor) -> torch.Tensor:
        there = (texts[:, CAUSE] == CAUSE)[:, None].double()
        return torch.cat((torch.where(there > 0, 0.0, -400.0), there * 400), 1)

    found = run(certain, 20, kinds=("target", "contrast"))
    assert found.effects.isfinite().all() and found.importance.isfinite().all()
    assert found.importance.argmax(1).tolist() == [CAUSE, CAUSE]


def test_the_gain_of_the_contrast_is_its_change():
    delta = swapping.fall(torch.tensor([1.5]), torch.tensor([[0.25]]), ["contrast"])
    assert swapping.gains(delta, torch.tensor([[True, False]])).flatten().tolist() == pytest.approx([1.25, -1.25])


def test_one_token_after_the_other_finds_the_cause_with_the_nats_that_it_is_worth():
    before = toy(TEXT[None])[0]
    *_, last = leave_one_out(toy, whole, TEXT, ANY, before, 3, rng())
    assert last.effects[0, CAUSE].item() == pytest.approx(math.log(HIGH / LOW)) and last.effects.count_nonzero() == 1
    assert last.importance[0, CAUSE] == 1 and last.halves is not None


def test_rank_correlation():
    one = torch.tensor([1.0, 2, 3, 4])
    assert rank_correlation(one, one * 7) == pytest.approx(1) and rank_correlation(one, -one) == pytest.approx(-1)
    assert rank_correlation(torch.tensor([1.0, 1, 2]), torch.tensor([5.0, 5, 9])) == pytest.approx(1)
    assert rank_correlation(one, torch.zeros(4)) == 0


# -- altered texts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", ({}, NARROW), ids=("whole", "windowed"))
@torch.inference_mode()
def test_altered_texts_are_read_as_plain_ones(options):
    """All in one pass, behind what they share with the text, also where layers see a window only."""
    target = Target(causal_lm("mistral", **options), VOCAB, CONTEXT)
    tokens = torch.randint(VOCAB, (40,), generator=rng()).tolist()
    reader = AlteredTexts(target, tokens, 24)
    behind = torch.cat(list(reader.begin()))
    texts = reader.text.repeat(7, 1)
    for i, place in enumerate((0, 3, 3, 11, 23)):
        texts[i, place] = (texts[i, place] + 5 + i) % VOCAB
    texts[5, ::2] = 9
    found = torch.cat([reader.read(block) for block in reader.blocks(texts)])
    for text, row in zip(texts, found, strict=True):
        plain = target.extend(target.new_cache(), [*tokens[:16], *text.tolist()])
        assert torch.allclose(plain[0], row, atol=1e-4)
    assert torch.allclose(behind[-1], found[6], atol=1e-4)  # as it stands
    assert reader.rows == 40 + sum(24 - place for place in (0, 3, 3, 11, 23, 0, 23)) and reader.cache.length == 40
    assert all(sum(24 - f for f in reader.firsts(block)) <= BLOCK for block in reader.blocks(texts))


# -- on the embedded family --------------------------------------------------------------------------------------------


PROMPT = "Once upon a time there was a little girl who lived with her old grandmother. One day the girl"


@pytest.fixture(scope="module")
def greedy(embedded):
    made = Run(embedded, "speculative_sampling", prompt=PROMPT, sampling=Sampling(0), seed=3, max_tokens=30)
    list(made)
    return made.trace


def refusals(trace) -> list[Cursor]:
    return [Cursor(i, j) for i, step in enumerate(trace.steps) for j, n in enumerate(step.nodes) if n.verdict == "rejected"]


def last(family, trace, at, **params):
    *_, found = LensRun(family, "reagent", trace, *at, params)
    return found


def test_of_a_refusal_both_models_and_the_choice_are_explained(embedded, greedy):
    looks = [last(embedded, greedy, at) for at in refusals(greedy)[:3]]
    for look in looks:
        assert [cause.kind for cause in look.causes] == ["target", "draft", "contrast"] and look.judged is None and look.enough
        assert look.rival_p is not None and look.rival_p >= look.p  # greedily the target's favourite
        for cause in look.causes:  # check 5
            assert len(cause.effects) == len(cause.importance) == len(look.text) == 24
            assert sum(cause.importance) == pytest.approx(1, abs=1e-6) and min(cause.importance) >= 0
            assert all(not effect for effect, swapped in zip(cause.effects, look.swapped, strict=True) if not swapped)
        target, _, contrast = look.causes
        assert contrast.before == pytest.approx(math.log(look.rival_p / look.p), abs=1e-5)
        assert target.before == pytest.approx(math.log(look.p), abs=1e-5)
        assert len(look.log) == 10 and len(look.left) == 5 and look.kept is not None
        assert [look.kept.tokens[i] == look.text[i] for i in look.left] == [True] * 5
        assert look.passes == look.planned
    agree = [look.causes[0].agree for look in looks]
    assert sum(agree) / len(agree) >= 0.6
    hard = [held for look in looks for held in look.held if held.form == "hard"]
    assert sum(h.comprehensiveness - h.random_comprehensiveness for h in hard) / len(hard) >= 0.15


def test_reagent_itself_finds_what_one_token_after_the_other_finds(embedded, greedy):
    """Many steps over few tokens; with the ten steps of a short run its halves agree no more than by chance (docs/lenses.md)."""
    at = refusals(greedy)[0]
    many = last(embedded, greedy, at, way=REAGENT, steps=60, tokens=8)
    alone = last(embedded, greedy, at, way=ALONE, draws=6, tokens=8)
    assert many.passes == many.planned == 60 * PROBES + 33
    assert all(sum(cause.importance) == pytest.approx(1, abs=1e-6) for cause in many.causes)
    pairs = [(torch.tensor(a.effects), torch.tensor(b.effects)) for a, b in zip(many.causes, alone.causes, strict=True)]
    assert rank_correlation(*pairs[0]) > 0.5 and rank_correlation(*pairs[2]) > 0.5


def test_marks_and_the_first_token_are_never_swapped(embedded):
    tokens = embedded.encode("Once upon a time there was a", 64)
    made = Run(embedded, "plain", prompt=list(tokens[:3]) + [0] + list(tokens[3:]), sampling=Sampling(0), seed=0, max_tokens=1)
    list(made)
    look = last(embedded, made.trace, (-1, None), tokens=64)
    marks = set(embedded.special_tokens)
    assert look.swapped[0] is False and look.earlier == 0 and marks & set(look.text)
    assert all(not (swapped and token in marks) for swapped, token in zip(look.swapped, look.text, strict=True))
    assert all(one.tokens[0] == look.text[0] for one in look.log)
    assert not any(marks & (set(one.tokens) - set(look.text)) for one in look.log)


def test_what_nobody_expected_is_not_explained(embedded):
    """The sentence says so, and nothing but the text is read."""
    made = Run(embedded, "plain", prompt="Once upon a time", sampling=Sampling(2.0), seed=5, max_tokens=12)
    list(made)
    looks = [last(embedded, made.trace, (i, None)) for i in range(12)]
    few = [look for look in looks if look.p < 0.05]
    assert few and all(not look.enough and not look.causes and look.rows_read == len(look.text) + look.earlier for look in few)
    assert all(look.causes for look in looks if look.enough) and any(look.enough for look in looks)


def test_a_text_of_one_token_is_refused(embedded):
    made = Run(embedded, "plain", prompt=[0], sampling=Sampling(0), seed=0, max_tokens=1)
    list(made)
    with pytest.raises(ValueError, match="no token in whose place another could stand"):
        last(embedded, made.trace, (-1, None))


def test_the_second_mention_of_a_name_is_owed_to_the_first(embedded):
    """Check 6, where the target expects the name at all."""
    found = []
    for name in (" Tom", " Lily", " Anna", " Ben", " Sam", " Mary", " Jack", " Tim"):
        context = embedded.encode(f"Once upon a time there was a boy named{name}. One day,", 64)
        token = embedded.encode(name, 8)[-1]
        shown = reagent.ReagentLook(text=context[-12:], earlier=len(context) - 12)
        reader = reagent.Reader(embedded, context, 12, None)
        steps = reagent.looks(embedded, shown, reader, token, Params(), rng())
        look = next(look for look in steps if look.kept)  # all draws are made
        assert look.p >= 0.1 and token in look.text
        order = sorted(range(12), key=lambda i: -look.causes[0].effects[i])
        found.append(look.text.index(token) in order[:5])
    assert sum(found) >= 0.8 * len(found)


def test_it_looks_at_smollm2(smollm2):
    made = Run(smollm2, "speculative_sampling", prompt="The capital of France is Paris. The capital of Italy is", max_tokens=6,
               sampling=Sampling(0), seed=0)  # fmt: skip
    list(made)
    look = last(smollm2, made.trace, (0, None), tokens=8, draws=2)
    assert (
        look.enough
        and look.causes[0].kind == "target"
        and look.rows_read <= reagent.cost(made.trace, Cursor(0), Params(tokens=8)).rows
    )
    assert look.token_bytes[look.text[look.causes[0].effects.index(max(look.causes[0].effects))]] in (
        b" Italy",
        b" capital",
        b" France",
    )
