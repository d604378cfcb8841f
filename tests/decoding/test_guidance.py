"""Guidance: an image family's target driven away from what it draws unasked; another law, and every method exact for it."""

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from decoding.draft import Draft, TargetOutput
from decoding.loop import decode
from decoding.methods import METHODS
from decoding.models import rasters
from decoding.models.family import load
from decoding.models.guided_target import GuidedTarget
from decoding.models.target import Target
from decoding.runs.run import Run
from decoding.sample import Sampling
from decoding.trace import Raster, decode_trace, encode

DIGIT3, ANY = 11, 18


@pytest.fixture(scope="module")
def digits():
    return load("digits", device="cpu")


def tokens_of(run) -> list[int]:
    return [token for step in run for token in step.tokens]


# -- the formula -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.0, 0.5, 2.0, 3.0])
def test_every_row_of_a_tree_is_what_the_formula_says(digits, scale):
    """u + s (c - u) of plain passes over every path, one behind the word and one behind `any`; also after a path was kept."""
    guided = GuidedTarget(digits.target, scale, digits.untold)
    cache, tokens = guided.new_cache(), [DIGIT3, 0, 1, 5, 7, 2]
    guided.extend_with_hidden(cache, tokens[:-1])
    draft = Draft((0, 3, 7, 2, 5), (-1, -1, 0, 0, 2), source=("test",) * 5)
    sampling = Sampling(0.7)
    output = guided.read(cache, tokens, draft, sampling)
    for node in range(-1, len(draft)):
        path = [draft.tokens[i] for i in draft.path_to(node)]
        assert torch.allclose(output.logits[node + 1, :8], by_hand(digits.target, [*tokens, *path], scale), atol=1e-4)
    assert torch.allclose(output.probs, sampling.probabilities(output.logits)) and output.probs[:, 8:].sum() == 0
    cache.keep([0, 1, 3, 5])
    after = guided.read(cache, [*tokens, 0, 7, 5, 6], Draft((), ()), sampling)
    assert torch.allclose(after.logits[0, :8], by_hand(digits.target, [*tokens, 0, 7, 5, 6], scale), atol=1e-4)


@torch.inference_mode()
def by_hand(target: Target, tokens: list[int], scale: float) -> torch.Tensor:
    told, untold = (target.model(torch.tensor([ids])).logits[0, -1, :8] for ids in (tokens, [ANY, *tokens[1:]]))
    return untold + scale * (told - untold)


@pytest.mark.parametrize("before, count", [(0, 1), (0, 4), (2, 1), (3, 2), (7, 2)])
def test_the_open_prompt_stands_in_the_place_of_the_words_alone(digits, before, count):
    guided = GuidedTarget(digits.target, 2.0, (90, 91, 92))
    tokens = list(range(before, before + count))
    assert guided.left_open(tokens, before) == [90 + token if token < 3 else token for token in tokens]


def test_a_scale_of_one_is_the_target_itself(digits, monkeypatch):
    """Not by rounding: nothing takes its place, and traces, but for what stands in them of before, are the same."""
    plain = Run(digits, "speculative_jacobi", {}, "digit3", Sampling(1.0), 3, 64)
    drawn = tokens_of(plain)
    monkeypatch.setattr("decoding.runs.run.GuidedTarget", None)
    same = Run(digits, "speculative_jacobi", {}, "digit3", Sampling(1.0, guidance=1.0), 3, 64)
    assert tokens_of(same) == drawn
    assert same.trace.header == plain.trace.header and same.trace.header.sampling.guidance == 1


# -- exact for it -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["speculative_jacobi", "jacobi", "speculative_sampling", "token_recycling", "dyspec"])
def test_greedy_pictures_are_those_of_plain_decoding(digits, method):
    sampling = Sampling(0, guidance=2.5)
    plain = tokens_of(Run(digits, "plain", {}, "digit8", sampling, 0, 64))
    assert tokens_of(Run(digits, method, {}, "digit8", sampling, 0, 64)) == plain
    assert plain != tokens_of(Run(digits, "plain", {}, "digit8", Sampling(0), 0, 64)), "or guidance would do nothing"


class Table:
    """A target of 5 tokens, 3 of them pixels, that reads any text as a row of a table; it remembers how many tokens it has read."""

    vocab, context, device, ends = 5, 3, torch.device("cpu"), frozenset()

    def __init__(self) -> None:
        self.length = 0

    def new_cache(self) -> "Table":
        return Table()

    def keep(self, rows) -> None:
        self.length += len(rows)

    def read(self, cache, tokens, draft, sampling, aux_hidden_layers=()) -> TargetOutput:
        paths = [[draft.tokens[i] for i in draft.path_to(node)] for node in range(-1, len(draft))]
        logits = torch.stack([self.row((*tokens, *path)) for path in paths])
        return TargetOutput(logits, sampling.probabilities(logits))

    def row(self, text: tuple[int, ...]) -> torch.Tensor:
        found = torch.full((5,), -torch.inf)
        number = sum(token * 7**place for place, token in enumerate(text))
        found[:3] = torch.randn(3, generator=torch.Generator().manual_seed(number)) * 1.5
        return found


class Unguided(GuidedTarget):
    """Planted: rows are those behind the words."""

    def read(self, cache, tokens, draft, sampling, aux_hidden_layers=()):
        super().read(cache, tokens, draft, sampling)
        return self.target.read(cache.told, tokens, draft, sampling)


def test_what_is_drawn_has_the_guided_law():
    """Pictures of 2 pixels in 3 colours can be listed: plain and speculative Jacobi decoding draw all 9 as often as they should be,
    and a target that is not guided after all is noticed."""
    raster, table = Raster(2, 1, ("#000000", "#888888", "#ffffff"), (("word", "any"),)), Table()
    expected = law(table, 2.0)
    guided, wrong = GuidedTarget(table, 2.0, (4,)), Unguided(table, 2.0, (4,))  # pyright: ignore[reportArgumentType]
    assert chi_square(guided, "plain", raster, expected) < 26  # 8 degrees of freedom: one in a thousand is above
    assert chi_square(guided, "speculative_jacobi", raster, expected) < 26
    assert chi_square(wrong, "plain", raster, expected) > 100 and chi_square(wrong, "speculative_jacobi", raster, expected) > 100


def law(table: Table, scale: float) -> dict[tuple[int, ...], float]:
    """Picture -> its probability."""
    found = {(): 1.0}
    for _ in range(2):
        longer = {}
        for pixels, p in found.items():
            told, untold = (table.row((word, *pixels))[:3].double() for word in (3, 4))
            rows = (untold + scale * (told - untold)).softmax(-1).tolist()
            longer |= {(*pixels, new): p * q for new, q in enumerate(rows)}
        found = longer
    return found


def chi_square(target: GuidedTarget, key: str, raster: Raster, expected: dict[tuple[int, ...], float], count: int = 500) -> float:
    method, sampling = METHODS[key], Sampling(1.0)
    family = SimpleNamespace(target=target.target, raster=raster)
    found: Counter[tuple[int, ...]] = Counter()
    for seed in range(count):
        drafter, accept = method.build(family, method.checked({}), sampling)
        rng = torch.Generator().manual_seed(seed)
        steps = decode(target, drafter, accept, [3], sampling=sampling, rng=rng, max_tokens=2, recorded=False)
        found[tuple(token for step in steps for token in step.tokens)] += 1
    assert sum(found.values()) == count and found.keys() <= expected.keys()
    return sum((found[pixels] - p * count) ** 2 / (p * count) for pixels, p in expected.items())


# -- what is refused ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale, words", [(-0.1, "-0.1"), (11, "11"), (float("nan"), "nan"), (float("inf"), "inf"), ("2", "'2'")])
def test_a_scale_that_cannot_be_is_refused(scale, words):
    with pytest.raises(ValueError, match=words):
        Sampling(guidance=scale)


def test_a_family_of_text_is_refused(llama):
    with pytest.raises(ValueError, match="writes text. Guidance other than 1 is for families that draw"):
        Run(llama, "plain", {}, "the cat", Sampling(1.0, guidance=2.0))


def test_a_family_that_never_drew_without_being_told_what_is_refused(digits):
    told = replace(digits, raster=replace_asks(digits.raster, (tuple(f"digit{digit}" for digit in range(10)),)))
    assert rasters.open_prompt(told.raster) == () and told.untold == ()
    with pytest.raises(ValueError, match="digits cannot be guided: one place of its prompts has no word 'any'"):
        Run(told, "plain", {}, "digit3", Sampling(1.0, guidance=2.0))
    tokens_of(Run(told, "plain", {}, "digit3", Sampling(1.0), 0, 4))


def replace_asks(raster: Raster, asks) -> Raster:
    return Raster(raster.width, raster.height, raster.palette, asks)


def test_a_method_that_brings_a_target_of_its_own_is_refused(digits):
    with pytest.raises(ValueError, match="LazyLLM, a pruned prompt reads the target in a way of its own"):
        Run(digits, "lazyllm", {}, "digit3", Sampling(1.0, guidance=2.0))


# -- told ---------------------------------------------------------------------------------------------------------------------


def test_the_trace_says_it(digits):
    run = Run(digits, "speculative_jacobi", {"fill": "above"}, "digit3", Sampling(1.0, guidance=1.5), 0, 64)
    tokens_of(run)
    assert run.trace.header.sampling.guidance == 1.5 and decode_trace(encode(run.trace)) == run.trace
