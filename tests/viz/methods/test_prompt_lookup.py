"""Prompt lookup's pictures: both places of the text by hand; and why nothing was copied."""

from msgspec.structs import replace

from tests.viz_samples import HOSTILE, node, step_of, trace_of
from viz.methods import silence
from viz.methods.prompt_lookup import copy_html, copy_words, match_of, place_of
from viz.stepper.data import END, MARK, stepper_data

TEXT = (0, 1, 2, 3, 0, 1)  # its last two tokens stand at its beginning too


def copying(prompt=TEXT, start=2, tokens=(2, 3, 0), **more):
    nodes = [replace(node(token, i - 1), source=f"copied from token {start}", q=None) for i, token in enumerate(tokens)]
    return trace_of(step_of(nodes, (0,), "correction"), prompt_tokens=prompt, method="prompt_lookup", max_tokens=64, **more)


def test_the_match_is_the_longest_that_was_looked_for():
    assert place_of(copying().steps[0]) == 2 and match_of(copying(), 0) == (2, 2)
    assert match_of(copying(params={"ngram": 1}), 0) == (1, 2)


def test_both_places_and_what_was_copied_are_shown():
    drawn, said = copy_html(copying(), 0), copy_words(copying(), 0)
    assert drawn.count("<p") == 2 and drawn.count("border:2px solid") == 2
    assert drawn.count("2px dashed") == 2, "of three copied tokens one was kept; the earlier place shows what is the text's own"
    assert said == "The last 2 tokens stand 4 tokens earlier too. 3 tokens were copied from behind that place, 1 of them kept."


def test_a_place_that_the_text_does_not_bear_out_is_not_shown():
    for trace in (copying(start=3), copying(start=0), copying(start=99), copying(prompt=(5,))):
        assert match_of(trace, 0) is None and copy_html(trace, 0) == "" == copy_words(trace, 0)
    odd = copying()
    step = replace(odd.steps[0], nodes=tuple(replace(n, source="copied from token <b>") for n in odd.steps[0].nodes))
    assert copy_html(replace(odd, steps=(step,)), 0) == ""


def test_tokens_are_escaped():
    drawn = copy_html(copying(prompt=(100, 1, 100), start=1, tokens=(1,), token_bytes=HOSTILE), 0)
    assert "&lt;script&gt;" in drawn and "<script" not in drawn


def test_nothing_copied_says_why():
    silent = trace_of(step_of(), prompt_tokens=(0, 1), method="prompt_lookup", max_tokens=64)
    assert "stands nowhere else" in copy_words(silent, 0) and "stands nowhere else" in silence(silent, 0)
    said = stepper_data(silent)["steps"][0]["say"]
    assert "stands nowhere else" in said["guess"] and f"{MARK}1{END}, stands nowhere else" in said["write"]
    again = trace_of(step_of(), prompt_tokens=(1, 1), method="prompt_lookup", max_tokens=64)
    assert silence(again, 0) == "", "the text does not say why: nothing is claimed"


def test_the_limit_is_not_the_reason():
    """A drafter does not know of it: it guesses as many tokens in front of it as anywhere."""
    silent = trace_of(step_of(), prompt_tokens=(0, 1), method="prompt_lookup", max_tokens=1)
    assert "stands nowhere else" in silence(silent, 0)


def test_plain_decoding_and_a_step_with_guesses_are_not_called_silent():
    assert silence(trace_of(step_of(), method="plain", max_tokens=1), 0) == "" == silence(copying(), 0)
    assert "Nothing was guessed:" not in stepper_data(trace_of(step_of(), method="plain"))["steps"][0]["say"]["write"]
