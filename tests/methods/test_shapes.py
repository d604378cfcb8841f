"""The coloured pictures that ship: prompts that were kept back are drawn right, by every method alike, in few calls."""

import pytest
import torch

from decoding.methods import METHODS
from decoding.models.family import Family, load
from decoding.runs.run import Run
from decoding.sample import Sampling
from decoding.training import images, shapes

PICTURES = shapes.PICTURES
PROMPT = "red heart on blue"


@pytest.fixture(scope="module")
def family() -> Family:
    return load("shapes", device="cpu")


@pytest.fixture(scope="module")
def kept_back():
    prompts, pictures = PICTURES.held_out()
    return prompts[:24], pictures[:24]


def steps_of(family: Family, method: str, tokens: int, sampling: Sampling, **params) -> list:
    return list(Run(family, method, params, PROMPT, sampling, 0, tokens))


def test_what_was_kept_back_is_drawn_right(family, kept_back):
    """The card says .61, of 192 pictures; these are the first prompts of them."""
    prompts, pictures = kept_back
    assert PICTURES.right(prompts, pictures) == 1
    drawn = images.drawn(family.target.model, PICTURES, prompts, temperature=0.5)
    assert PICTURES.right(prompts, drawn) > 0.75
    assert PICTURES.right(prompts[::-1], drawn) < 0.2


def test_words_are_nearly_never_meant(family, kept_back):
    text = images.joined(*kept_back)[:8]
    with torch.inference_mode():
        p = family.target.model(text[:, :-1]).logits[:, -144:].softmax(-1)
    assert p[..., 16:].sum(-1).mean() < 1e-3


@pytest.mark.parametrize(
    "key", ["speculative_jacobi", "jacobi", "prompt_lookup", "speculative_sampling", "token_recycling", "dyspec"]
)
def test_greedy_pixels_are_those_of_plain_decoding(family, key):
    plain, other = (
        [token for step in steps_of(family, method, 64, Sampling(0)) for token in step.tokens] for method in ("plain", key)
    )
    assert other == plain and set(plain) <= set(range(16))


def test_speculative_jacobi_draws_it_in_a_few_calls(family):
    steps = steps_of(family, "speculative_jacobi", 144, Sampling(1.0), window=16, fill="above")
    assert sum(len(step.tokens) for step in steps) == 144 and 144 / len(steps) > 3


def test_a_guided_run_takes_the_open_prompt(family):
    """A whole prompt of four words is read with `any` in three places."""
    assert family.text(family.untold) == "any any on any"
    guided = Sampling(0, guidance=2.0)
    plain, jacobi = ([t for s in steps_of(family, key, 40, guided) for t in s.tokens] for key in ("plain", "speculative_jacobi"))
    assert plain == jacobi


def test_lazyllm_says_why_it_cannot(family):
    assert "one by one" in METHODS["lazyllm"].missing(family)
