"""Sentences carry the recorded numbers and never a false inequality."""

from types import SimpleNamespace

import msgspec
import pytest

from decoding.score_names import WENT_ON
from tests.viz_samples import TOKEN_BYTES, chain, node, row, small_tree, step_of
from viz.runs.tally import tally
from viz.words import GLOSSARY, METRICS, comparison, filled, filled_speedup, judgement, narrate, prompt_end, stage


def test_judgement_shows_the_inequality():
    assert judgement(node(u=0.31, q=0.5, p=0.2)) == "0.31 × 0.50 = 0.155 < 0.20: accepted"
    assert judgement(node(verdict="rejected", u=0.9, q=0.5, p=0.2)) == "0.90 × 0.50 = 0.45 ≥ 0.20: rejected"


def test_a_chosen_node_is_judged_as_drawn_with_certainty():
    assert judgement(node(u=0.31, q=None, p=0.4)) == "0.31 < 0.40: accepted"


def test_close_numbers_get_more_digits():
    assert comparison(0.20000001, 0.20000002) == "0.20000001 < 0.20000002"
    assert comparison(0.2, 0.2) == "0.20 ≥ 0.20"


@pytest.mark.parametrize("verdict", ["accepted", "rejected"])
def test_a_rule_of_the_methods_own_prints_no_inequality(verdict):
    u = 0.9 if verdict == "accepted" else 0.1
    said = judgement(node(verdict=verdict, u=u, q=0.5, p=0.2))
    assert said == f"the method's own rule, p = 0.20: {verdict}"


def test_greedy_reads_as_a_choice():
    assert judgement(node(0, p=1.0, q=1.0, u=0.3), TOKEN_BYTES) == "greedy: ␣the is the target's choice here: accepted"
    refused = node(0, verdict="rejected", p=0.0, q=None, u=0.3)
    assert judgement(refused, TOKEN_BYTES) == "greedy: ␣the is not the target's choice here: rejected"


def test_the_last_sibling_of_a_sampled_run_is_not_called_greedy():
    """Drawn without replacement, it is all that is left: q 1, and often p 0."""
    elder, last = node(0, verdict="rejected", u=0.9, q=0.8, p=0.3), node(1, verdict="rejected", u=0.68, q=1.0, p=0.0)
    step = step_of((elder, last), (), "correction")
    assert judgement(last, TOKEN_BYTES, step) == "0.68 × 1.00 = 0.68 ≥ 0.00: rejected"


def test_drawn_tokens_are_named():
    nodes = (node(0, verdict="rejected", u=None), node(2, u=None))
    step = step_of(nodes, (1,), "bonus", rows=(row(sampled=2), row(), row()))
    assert judgement(nodes[0], TOKEN_BYTES, step) == "the target drew ␣cat here, not ␣the: rejected"
    assert judgement(nodes[1], TOKEN_BYTES, step) == "the target drew ␣cat here: accepted"
    assert judgement(nodes[0], TOKEN_BYTES) == "the target drew another token here, not ␣the: rejected"


def test_unread_says_why():
    step = small_tree()
    assert judgement(step.nodes[2], TOKEN_BYTES, step).endswith("a sibling was accepted")
    assert judgement(step.nodes[7], TOKEN_BYTES, step).endswith("its parent was not accepted")
    alone = step_of((node(), node(1, 0, "not judged")), (0,), None, ending="end of text")
    assert judgement(alone.nodes[1], TOKEN_BYTES, alone).endswith("the walk ended before it")
    assert judgement(step.nodes[2]).startswith("never looked at: ")


@pytest.mark.parametrize(
    ("step", "sentence"),
    [
        (chain(3), "Step 7: 3 of 5 drafted tokens accepted, then a correction ␣was."),
        (chain(0), "Step 7: none of 5 drafted tokens accepted, then a correction ␣was."),
        (chain(5), "Step 7: all 5 drafted tokens accepted, then a bonus ␣was."),
        (chain(1, 1), "Step 7: the only drafted token accepted, then a bonus ␣was."),
        (step_of(final_token=8), "Step 7: nothing was drafted, the target wrote “.”."),
        (step_of(), "Step 7: nothing was drafted, the target wrote ␣was."),
        (
            step_of((node(),), (0,), None, ending="end of text"),
            "Step 7: the only drafted token accepted. The run ends here: end of text.",
        ),
    ],
)
def test_narration(step, sentence):
    assert narrate(step, 7, TOKEN_BYTES) == sentence


def test_a_run_that_went_on_elsewhere_says_so_at_that_step():
    """Its seed alone does not repeat it from here on."""
    step = msgspec.structs.replace(chain(3), facts={WENT_ON: 23.0})
    assert narrate(step, 7, TOKEN_BYTES).endswith(
        "a correction ␣was. The machine was lost here: the run went on from its 23 tokens on another one, with other random "
        "numbers than its seed alone gives."
    )
    for odd in (0.0, -1.0, float("nan"), float("inf"), 1e300):
        odder = msgspec.structs.replace(step, facts={WENT_ON: odd})
        assert narrate(odder, 7, TOKEN_BYTES) == narrate(chain(3), 7, TOKEN_BYTES)


def test_formulas_are_filled_with_the_runs_numbers():
    run = tally([chain(3), chain(5)])
    assert filled("tau", run) == "tau = tokens committed / target calls = 10 / 2 = 5.00"
    assert filled("alpha", run) == "alpha = accepted / judged = 8 / 9 = 0.89"
    assert filled("wasted", run) == "wasted = drafted − accepted = 10 − 8 = 2"
    assert filled_speedup(run, 0.1).endswith("5.00 / (1 + 0.10 × 5.00) = 3.33")


@pytest.mark.parametrize("metric", [key for key in METRICS if key != "modelled speed-up"])
def test_every_metric_can_be_filled_and_survives_an_empty_run(metric):
    assert METRICS[metric].formula in filled(metric, tally([chain()]))
    assert "nan" not in filled(metric, tally([]))


def test_empty_speedup_says_so():
    assert filled_speedup(tally([]), 0.1) == "modelled speed-up: no step was run yet"


def test_the_glossary_covers_the_words_of_the_design():
    words = "target drafter draft root step accepted rejected bonus correction residual u lossless family"
    assert {*words.split(), "tau", "alpha", "not judged", "alive", "aux cache"} == set(GLOSSARY)


def test_the_stage_names_model_device_and_number_format():
    head = lambda family, device="cpu", dtype="float32": SimpleNamespace(family=family, device=device, dtype=dtype)  # noqa: E731
    assert stage([head("smollm2")] * 3) == "smollm2 on cpu in float32"
    two = stage([head("org/big + /home/ada/small/", "cuda:0", "bfloat16"), head("smollm2")])
    assert two == "org/big + small on cuda:0 in bfloat16; smollm2 on cpu in float32"
    assert "\n" not in stage([head("a\nb" * 99)]) and len(stage([head("x" * 999)])) < 100


@pytest.mark.parametrize("prompt", ["a ", "a\t", "    "])
def test_a_prompt_that_ends_in_a_space_is_told_so(prompt):
    assert "ends in a space" in prompt_end(prompt)


@pytest.mark.parametrize("prompt", ["", "He said:", "one\n", "x = ", "“no”"])
def test_of_a_prompt_that_ends_otherwise_nothing_is_claimed(prompt):
    assert ("space" in prompt_end(prompt)) == prompt.endswith(" ") and "cut" not in prompt_end(prompt)


def test_of_a_prompt_that_ends_in_letters_only_what_can_be_known_is_said():
    said = prompt_end("Once upon a ti")
    assert "“ti”" in said and "cut" in said and "Once" not in said
    assert "<U+202E>" not in prompt_end("\u202e") and len(prompt_end("x" * 1000)) < 200
