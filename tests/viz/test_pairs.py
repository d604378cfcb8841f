"""Two drafters: disagreements behind the same text, taus paired by prompt, the bootstrap."""

import msgspec
import numpy as np
import pytest

from tests.viz_samples import chain, node, runs, step_of, trace_of
from viz.drafter.judgements import judgements, per_prompt
from viz.drafter.pairs import agreement, agreement_sentence, bootstrap_sentence, disagreements, paired_bootstrap, paired_taus


def guess(token, verdict, final=None):
    path = (0,) if verdict == "accepted" else ()
    step = step_of([node(token, -1, verdict)], path, "bonus" if path else "correction", final_token=8)
    return step if final is None else msgspec.structs.replace(step, tokens=final, origins=("correction",))


def test_disagreements_need_the_same_text_before():
    right = judgements(runs(trace_of(guess(3, "accepted"), guess(4, "accepted"))))
    wrong = judgements(runs(trace_of(guess(5, "rejected", final=(3,)), guess(4, "rejected", final=(8,)))))
    table = disagreements(right, wrong, ("A", "B"))
    assert table["accepted by"].tolist() == ["A"]
    assert table.loc[0, ["tried, A", "tried, B", "position"]].tolist() == ["␣sat", "␣a", 0]
    assert agreement(right, wrong) == {"both": 0, "only a": 1, "only b": 0, "neither": 0}
    assert "only A 1" in agreement_sentence(right, wrong, ("A", "B"))
    elsewhere = judgements(runs(trace_of(guess(5, "rejected"), prompt_tokens=(7, 7))))
    assert disagreements(right, elsewhere).empty
    assert "never judged behind the same text" in agreement_sentence(right, elsewhere)


def test_bootstrap_brackets_the_mean_and_repeats_itself():
    rng = np.random.default_rng(1)
    a = rng.normal(2, 0.5, 60)
    b = a + rng.normal(0.3, 0.1, 60)
    found = paired_bootstrap(a, b, seed=3)
    assert found == paired_bootstrap(a, b, seed=3) and found.prompts == 60
    assert found.low < found.mean < found.high and found.mean == pytest.approx(float(np.mean(b - a)))
    spread = float(np.std(b - a, ddof=1)) / 60**0.5
    assert found.high - found.low == pytest.approx(2 * 1.96 * spread, rel=0.1)
    assert "b is better" in bootstrap_sentence(found)
    assert "not told apart" in bootstrap_sentence(paired_bootstrap([1, 2, 3, 4], [2, 1, 4, 3]))
    assert "a is better" in bootstrap_sentence(paired_bootstrap(b, a))


def test_bootstrap_says_what_it_cannot():
    assert bootstrap_sentence(paired_bootstrap([], [])) == "There is no prompt that both drafters have finished."
    assert "1 prompt; with a single prompt" in bootstrap_sentence(paired_bootstrap([1.0], [2.0]))
    with pytest.raises(ValueError, match="2 and 1"):
        paired_bootstrap([1, 2], [1])


def test_taus_are_paired_by_prompt():
    a, b = runs(trace_of(chain(3)), trace_of(chain(5))), runs(trace_of(chain(0)))
    assert paired_taus(per_prompt(a), per_prompt(b)) == ([4.0], [1.0])
