"""Two methods at one step: whose paths are shared, and the bars of heads of either."""

import pytest

import viz.methods.medusa
from decoding.runs.run import Run
from tests.viz_samples import node, step_of, trace_of
from viz.methods import guesses_html, pictures_of
from viz.step.beside import beside_words, paths


def line(*tokens: int):
    """A chain of these tokens, all accepted."""
    return step_of([node(token, i - 1) for i, token in enumerate(tokens)], range(len(tokens)), "bonus")


def test_paths_are_named_by_their_tokens():
    nodes = [node(5), node(6, 0), node(6), node(5, 2), node(6, 0)]
    assert paths(nodes) == {(5,): 0, (5, 6): 1, (6,): 2, (6, 5): 3}


def test_the_words_count_shared_paths():
    said = beside_words(line(5, 6), line(5, 4), "Medusa", {4: b"four", 5: b"five", 6: b"six"})
    assert "1 of its 2 paths" in said and "four" in said and "2 tokens, 2 deep" in said
    assert "not" not in beside_words(line(5, 6), line(5), "Medusa", {5: b"five"}).partition("1 of its 1 paths")[2]
    assert "in steps before is not there" in beside_words(line(5), line(), "PPD", {})
    assert beside_words(line(5), line(), "PPD", {}, "it had no luck") == "PPD drafts nothing here: it had no luck."


def test_other_methods_have_no_bars():
    assert guesses_html(trace_of(line(5, 6)), 0) == ""


@pytest.mark.parametrize("method", ["medusa", "clover", "chimera"])
def test_traces_without_the_numbers_have_no_bars(method):
    trace = trace_of(line(5, 6), line(), method=method)
    assert [guesses_html(trace, cursor) for cursor in (0, 1)] == ["", ""]


@pytest.mark.parametrize("method", ["", "no such method", "shared", "shared.head_bars", "__init__", "..words", "os"])
def test_a_trace_names_no_module_but_that_of_a_method(method):
    assert pictures_of(method) is None


def test_pictures_are_found_by_name():
    assert pictures_of("medusa") is viz.methods.medusa and pictures_of("plain") is None


@pytest.mark.parametrize("method", ["medusa", "clover", "chimera"])
def test_heads_have_bars_at_the_same_step(embedded, method):
    """Behind the tokens of a run that another method made."""
    run = Run(embedded, "clover", prompt="Once upon a time", max_tokens=24)
    steps = [next(run) for _ in range(3)]
    before = run.trace.tokens_before(2)
    other = Run(embedded, method, prompt=before, max_tokens=24)
    step = next(other)
    assert other.header.prompt_tokens == before and "head 1" in guesses_html(other.trace, 0)
    if method == "clover":  # which keeps nothing of earlier steps but what the text says
        assert [node.token for node in step.nodes] == [node.token for node in steps[2].nodes]
