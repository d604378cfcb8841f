"""At temperature 0 every method writes what `transformers` writes itself, token for token, in float32."""

from functools import cache

import pytest
import torch

from decoding.methods import METHODS
from decoding.models.requirements import DraftModel
from decoding.runs.run import Run
from decoding.sample import Sampling
from tests.toys import ARCHITECTURES

LENGTH = 24
PROMPTS = (
    "the cat sat on the mat and the dog sat on the",
    "a",
    "12 and 34; 12 and 34; 12 and 34; 12 and",
)
LOSSLESS = [key for key, method in METHODS.items() if method.is_lossless]
TREES = {
    "multi_candidate": [{"shape": "2-1"}, {"shape": "8-4-2"}],
    "token_recycling": [{"k": 1}, {"nodes": 12}],
    "kangaroo": [{"length": 1}, {"threshold": 0.0}, {"threshold": 1.0}, {"length": 3, "threshold": 0.4}],
    "ppd": [{"budget": "16"}, {"budget": "64", "prompt_tokens": 4}, {"prompt_tokens": 1, "budget": "24"}, {"rule": "typical"}],
    "clover": [{"nodes": 1}, {"nodes": 64}, {"top_p": 1.0, "ratio": 0.0}, {"heads": 1}],
    "chimera": [{"nodes": 1}, {"nodes": 64}, {"heads": 1}],
    "medusa": [{"nodes": 1}, {"nodes": 64}, {"tree": "Cartesian", "nodes": 40}, {"rule": "typical"}],  # greedy: the same
    "eagle": [{"nodes": 1}, {"nodes": 60, "fan_out": 8}, {"tree": "static"}, {"tree": "sampled"}, {"expansions": 0}],
    "ftp": [{"nodes": 1}, {"nodes": 60, "depth": 7, "frontier": 8}, {"shape": "chain"}],
    "sentence_vae": [{"nodes": 1}, {"nodes": 60, "depth": 12}, {"vector": "at every call"}, {"shape": "chain", "depth": 12}],
    "falcon": [{"nodes": 1}, {"nodes": 64, "passes": 1}, {"nodes": 100, "passes": 4}, {"shape": "chain"}],
}


REFUSED = {("kangaroo", "gpt2"), ("kangaroo", "gpt_neox")}  # their layers are built otherwise than those of a Llama


@cache
def generated(family, prompt: str, count: int = LENGTH) -> list[int]:
    """What transformers writes, computed once per family and prompt."""
    ids = torch.tensor([family.tokenizer(prompt)["input_ids"]])
    with torch.inference_mode():
        out = family.target.model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=count, pad_token_id=0
        )
    return out[0, ids.shape[1] :].tolist()


def written(family, key: str, prompt: str, count: int = LENGTH, **params) -> tuple[list[int], int]:
    """The tokens of a greedy run and its number of target calls."""
    run = Run(family, key, params, prompt, Sampling(0), max_tokens=count, record=False)
    return [token for step in run for token in step.tokens], len(run.steps)


# What a method asks of an architecture: that it reads a chain, a tree, is left halfway, shows its states, takes vectors for tokens.
# These ask each in all of that; the others, which ask for nothing else, take turns: each meets llama and two or three more.
FEW = ("speculative_sampling", "multi_candidate", "token_recycling", "eagle", "kangaroo", "ppd")
CASES = [
    (key, kind)
    for i, key in enumerate(LOSSLESS)
    for j, kind in enumerate(ARCHITECTURES)
    if kind == "llama" or key in FEW or (i - j) % 4 == 0
]


@pytest.mark.parametrize("key, kind", CASES)
def test_random_weights(families, key, kind):
    if (key, kind) in REFUSED:
        with pytest.raises(ValueError, match="cannot be run one by one"):
            written(families(kind), key, PROMPTS[0])
        return
    for prompt in PROMPTS if kind == "llama" else PROMPTS[:1]:
        assert written(families(kind), key, prompt)[0] == generated(families(kind), prompt)


@pytest.mark.parametrize("key, params", [(key, params) for key, several in TREES.items() for params in several])
def test_other_trees(llama, key, params):
    for prompt in PROMPTS[::2]:
        assert written(llama, key, prompt, **params)[0] == generated(llama, prompt)


@pytest.mark.parametrize("key", [key for key, method in METHODS.items() if method.requires(DraftModel)])
def test_the_draft_models_of_these_tests_are_sometimes_right(llama, key):
    """Else everything above would hold for a dead drafter too."""
    tokens, calls = written(llama, key, PROMPTS[0])
    assert 1.3 < len(tokens) / calls < 4.5


@pytest.mark.parametrize("key", LOSSLESS)
def test_embedded_family(embedded, key):
    for prompt in ("Once upon a time there was", "Tom has 3 apples. He buys 4 more. Now Tom has"):
        assert written(embedded, key, prompt)[0] == generated(embedded, prompt)


def test_prompt_lookup_takes_as_many_steps_as_the_one_of_transformers(embedded):
    """With the first match and no overlap it is the same drafter; calls of the target counted on either side."""
    model, prompt = embedded.target.model, "the cat sat on the mat. " * 6
    ids = torch.tensor([embedded.tokenizer(prompt)["input_ids"]])
    calls = []
    hook = model.register_forward_hook(lambda *_: calls.append(1))
    try:
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=40,
            prompt_lookup_num_tokens=8,
            max_matching_ngram_size=3,
            pad_token_id=0,
        )
    finally:
        hook.remove()
    run = {"ngram": 3, "length": 8, "which": "first", "overlap": False}
    tokens, steps = written(embedded, "prompt_lookup", prompt, 40, **run)
    assert tokens == out[0, ids.shape[1] :].tolist()
    assert steps == len(calls)
