"""What foretells horizons: figures that counting cannot pass, probes that a stopped run goes on with, the infilling model."""

import argparse
import json

import numpy as np
import pytest
import torch

from decoding.models import horizons
from decoding.models.horizons import ANSWER, SENTENCE
from decoding.training import infilling
from decoding.training.fit import updated
from decoding.training.horizon_figures import Rows, auc, beside, by_position, figures, medians, ridge, spearman
from decoding.training.recipes import horizon

RNG = np.random.default_rng(0)
ROWS = Rows.of(RNG.integers(5, 60, size=200))
TALE = 'The fox ran to the river. "Come," he said to the small brown hen, "and look at the moon." She did not come. '


# -- figures -----------------------------------------------------------------------------------------------------------


def test_counting_passes_the_papers_checks_and_has_nothing_beyond_itself():
    position = medians(ROWS, 60)
    counted = figures(by_position(ROWS, position), ROWS)
    assert counted["inside"] > 0.99 and counted["mae"] < 0.16, "Spearman below -.8 and an error below .15: by counting"
    assert counted["beyond"] == 0.0
    truth = figures(ROWS.y, ROWS)
    assert truth["mae"] == 0.0 and truth["beyond"] > 0.9 and truth["last"] > 0.98
    shuffled = np.array(by_position(ROWS, position))
    for t in np.unique(ROWS.t):  # the truth, dealt out anew among the tokens at the same position: as good on average as any
        at = ROWS.t == t
        shuffled[at] = RNG.permutation(ROWS.y[at])
    assert abs(figures(shuffled, ROWS)["beyond"]) < 0.1


def test_ranks_and_areas_against_what_can_be_counted_by_hand():
    assert spearman(np.array([1.0, 2.0, 3.0]), np.array([9.0, 8.0, 1.0])) == pytest.approx(-1)
    assert spearman(np.array([1.0, 1.0]), np.array([1.0, 2.0])) == 0.0
    assert auc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])) == pytest.approx(0.75)
    assert auc(np.ones(4), np.array([True, False, True, False])) == 0.5 == auc(np.ones(2), np.ones(2, dtype=bool))
    assert beside(np.array([1.0, 3.0, 5.0]), np.array([1, 1, 2])).tolist() == [-1.0, 1.0, 0.0]


def test_the_ridge_finds_what_lies_in_the_states():
    states = RNG.normal(size=(len(ROWS.t), 12)) * 3 + 5
    states[:, 4] = ROWS.y * 2 - 1
    weights = ridge(states, ROWS.y)
    assert abs(states @ weights[:-1] + weights[-1] - ROWS.y).mean() < 0.01


# -- probes ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def corpus(tmp_path):
    """A folder with a few tales and word problems."""
    tales = [{"split": "train" if i % 4 else "test", "title": f"Tale {i}", "text": TALE * (6 + i % 3)} for i in range(12)]
    problems = [{"question": f"How much is {i} + 4?", "answer": f"It is {i} and four more.\n#### {i + 4}"} for i in range(64)]
    (tmp_path / "fairytales.jsonl").write_text("\n".join(map(json.dumps, tales)), "utf-8")
    (tmp_path / "tinystories-slice.txt").write_text(TALE, "utf-8")
    for split in ("train", "test"):
        (tmp_path / f"gsm8k-{split}.jsonl").write_text("\n".join(map(json.dumps, problems)), "utf-8")
    return tmp_path


@pytest.mark.parametrize("unit", (SENTENCE, ANSWER))
def test_a_stopped_training_goes_on_and_what_it_writes_can_be_opened(unit, corpus, embedded, monkeypatch):
    monkeypatch.setattr(horizon, "GROUP", 4)
    monkeypatch.setattr(horizon, "WINDOW", 48)
    monkeypatch.setattr(horizon, "STEPS", 20)
    options = argparse.Namespace(data=corpus, texts=12, family="embedded", work=corpus / "whole")
    whole = horizon.learned(embedded, unit, options)
    options.work = corpus / "half"
    read, groups = horizon.read_out, []

    def stopped(*given):
        groups.append(1)
        if len(groups) == 2:
            raise KeyboardInterrupt
        return read(*given)

    monkeypatch.setattr(horizon, "read_out", stopped)
    with pytest.raises(KeyboardInterrupt):
        horizon.learned(embedded, unit, options)
    assert horizon.learned(embedded, unit, options) == whole
    assert len(groups) == 4, "the first group is not read again"
    probe = horizons.opened(json.loads(json.dumps(whole)))
    assert probe.layer in horizon.layers_of(embedded) and len(probe.ridge) == 257
    assert 0 <= probe.by_state(np.zeros(256)) <= 1 and {"position", "head", "end token"} <= probe.figures.keys()


def test_what_a_row_stands_for(corpus, embedded):
    """The state behind the t-th token of a unit, and of an answer the p of the end token behind its last."""
    (text,) = horizon.solved(embedded, ["Question: How much is 3 + 4?\nAnswer: It is seven."])
    (start, length), *_ = text.units
    said = embedded.text(text.tokens)
    assert said == "Question: How much is 3 + 4?\nAnswer: It is seven." and embedded.text(text.tokens[start:]) == " It is seven."
    assert start + length == len(text.tokens)
    layers = horizon.layers_of(embedded)
    found = horizon.read_out(embedded, ANSWER, [text], layers)
    with torch.inference_mode():
        out = embedded.target.model(torch.tensor([text.tokens]), output_hidden_states=True)
    wanted = out.hidden_states[layers[0]][0, start:].numpy()
    assert np.allclose(found[f"layer {layers[0]}"].astype(np.float32), wanted, atol=2e-2, rtol=1e-2)
    end = out.logits[0, start:, : embedded.target.vocab].softmax(-1)[:, list(embedded.target.ends)].sum(-1).numpy()
    assert np.allclose(found["end"], end, atol=1e-3)
    tale = horizon.tale(embedded, TALE * 3, np.random.default_rng(0))
    for start, length in tale.units:
        assert embedded.text(tale.tokens[start : start + length]).rstrip()[-1] in '.!?"'


def test_too_few_texts_are_refused(capsys):
    with pytest.raises(SystemExit):
        horizon.parse(["--data", "x", "--texts", "7"])
    assert "At least 64 texts are needed; 7 were asked for." in capsys.readouterr().err


# -- infilling ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gaps(embedded) -> list[infilling.Gap]:
    return infilling.gaps([TALE * 4], embedded.tokenizer)


def test_gaps_are_sentences_with_their_surroundings(embedded, gaps):
    said = {embedded.text(gap.middle).strip() for gap in gaps}
    assert said == {TALE[:25], TALE[26:-19], TALE[-18:-1]} and TALE[-18:-1] == "She did not come."
    whole = embedded.tokenizer(TALE * 4)["input_ids"]
    for gap in gaps:
        around = [*gap.before, *gap.middle, *gap.after]
        assert gap.before and gap.after and any(whole[i : i + len(around)] == around for i in range(len(whole)))


def test_a_batch_holds_gaps_with_horizons_and_ordinary_text_without(gaps):
    first = 4096
    tokens, labels, said = infilling.batch(3, gaps, np.arange(1, 1000), first)
    assert tokens.shape == labels.shape == said.shape == (infilling.ROWS, infilling.LENGTH)
    again = infilling.batch(3, gaps, np.arange(1, 1000), first)
    assert all(torch.equal(a, b) for a, b in zip((tokens, labels, said), again, strict=True))
    for i in range(infilling.ROWS):
        row, counts = tokens[i].tolist(), said[i] >= 0
        if i >= infilling.ROWS // 2:
            assert not counts.any() and first not in row
            continue
        mid, eoi = row.index(first + 2), row.index(first + 3)
        assert counts.nonzero()[:, 0].tolist() == list(range(mid + 1, eoi))
        length = eoi - mid - 1
        assert said[i][counts].tolist() == pytest.approx([(length - t) / length for t in range(1, length + 1)])
        assert (labels[i, eoi + 1 :] == -100).all() and labels[i, eoi] == first + 3


def test_the_horizon_joins_the_loss_and_the_head_learns_it(gaps):
    made = infilling.begun()
    tokens, labels, said = infilling.batch(0, gaps, np.arange(1, 1000), 4096)
    plain, both = (infilling.loss(made, tokens, labels, said, weight).item() for weight in (0.0, 1.0))
    counts = said >= 0
    assert both - plain == pytest.approx((0.5 - said[counts]).abs().mean().item(), abs=1e-4), "a head that says one half everywhere"
    optimizers = [torch.optim.AdamW(made.parameters(), lr=3e-3)]
    for _ in range(8):
        infilling.loss(made, tokens, labels, said, 1.0).backward()
        updated(made, optimizers, 1.0)
    assert infilling.loss(made, tokens, labels, said, 1.0).item() < both - 0.4
    assert (made(tokens)[1][counts] - said[counts]).abs().mean().item() < 0.23 < (0.5 - said[counts]).abs().mean().item()


def test_what_is_measured_stands_behind_the_tokens_of_the_middle(gaps):
    made = infilling.begun().eval()
    read = infilling.read(made, gaps[:3])
    assert len(read.rows.t) == sum(len(gap.middle) for gap in gaps[:3]) == len(read.states) == len(read.end)
    row, begin = infilling.row(gaps[0], 4096)
    with torch.no_grad():
        logits, _ = made(torch.tensor([row]))
    assert read.end[: len(gaps[0].middle)] == pytest.approx(logits[0, begin:-1].softmax(-1)[:, 4099].numpy(), abs=1e-4)
    found = infilling.measured(made, gaps, gaps)
    assert found["head"]["mae"] == pytest.approx(float(abs(0.5 - infilling.read(made, gaps).rows.y).mean()), abs=1e-3)
    assert found["position"]["beyond"] == 0.0 and found["nats"] > 0


def test_too_few_steps_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        infilling.parse(["--corpus", str(tmp_path), "--work", str(tmp_path), "--steps", "0"])
    assert "At least 1 step and 20 gaps are needed; 0 and 600 were asked for." in capsys.readouterr().err
