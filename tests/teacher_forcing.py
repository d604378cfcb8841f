"""For the tests of heads that are told which tokens stand before: the recipe's logits against the drafter's own."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from importlib import import_module

import pytest
import torch
from torch import Tensor

from decoding.draft import Draft
from decoding.loop import decode
from decoding.method import Drafter
from decoding.methods import METHODS
from decoding.models.cache import TreeCache
from decoding.models.target import Target
from decoding.sample import Sampling
from decoding.trace import Step
from decoding.training.recipes import RECIPES
from decoding.training.states import Batch
from tests.toys import CONTEXT, VOCAB, causal_lm, toy_family

PROMPT = (7, 70, 170, 7, 70)


def exactly(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No bfloat16 in the recipe: drafts are made in float32."""
    monkeypatch.setattr(import_module(f"decoding.training.recipes.{key}"), "quick", lambda device: nullcontext())


def target_of(kind: str = "llama", **more) -> Target:
    return Target(causal_lm(kind, **more), VOCAB, CONTEXT)


def states_of(target: Target, tokens, aux_layer: int) -> Tensor:
    """(len(tokens), width), from one plain pass."""
    return target.forward(TreeCache(), target.ids(tokens), range(len(tokens)), aux_hidden_layers=(aux_layer,))[1][aux_layer].clone()


def batch_of(target: Target, tokens: Tensor, aux_layer: int) -> Batch:
    states = torch.stack([states_of(target, row.tolist(), aux_layer) for row in tokens])
    return Batch(tokens, torch.ones_like(tokens, dtype=torch.bool), {aux_layer: states})


@torch.inference_mode()
def forced(key: str, drafter: Drafter, target: Target, tokens, draft: Draft, node: int) -> Tensor:
    """(vocab,) what the recipe says at the place of a node, told the true text and then the path to it. States behind the last
    known one are garbage: neither may look at them."""
    path, aux_layer = draft.path_to(node), drafter.aux_hidden_layers[0]
    text = [*tokens, *(draft.tokens[i] for i in path)]
    known = states_of(target, tokens[:-1], aux_layer)
    states = torch.cat((known, 100 * torch.randn(len(path) + 1, known.shape[1])))
    batch = Batch(torch.tensor([text]), torch.ones(1, len(text), dtype=torch.bool), {aux_layer: states[None]})
    return list(RECIPES[key].predict(drafter.heads, target, batch))[len(path) - 1][0, len(tokens) - 2]


def steps_of(
    key: str, target: Target, look: Callable[[Drafter, list[int], Draft], None], sampling: Sampling, tokens: int = 24, **params
) -> list[Step]:
    """A run in which every draft is looked at."""
    method = METHODS[key]
    drafter, accept = method.build(toy_family(target), method.checked(params), sampling)
    propose = drafter.propose

    def seen(text, rng):
        draft = propose(text, rng)
        look(drafter, list(text), draft)
        return draft

    drafter.propose = seen
    rng = torch.Generator().manual_seed(0)
    return list(decode(target, drafter, accept, PROMPT, sampling=sampling, rng=rng, max_tokens=tokens, recorded=False))


def learned(key: str, heads: torch.nn.Module, target: Target, batch: Batch, steps: int, lr: float = 1e-2) -> Iterator[float]:
    """Train by the recipe on one batch; the losses."""
    optimizer = torch.optim.AdamW(heads.parameters(), lr=lr)
    for step in range(steps):
        loss = RECIPES[key].loss(heads, target, batch, step / steps)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        yield loss.item()
