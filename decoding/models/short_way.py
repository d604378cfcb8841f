"""Which way a model is read: by the forward of `transformers`, by the plain one, or by the plain one over fixed shapes or with its
head in blocks.

The forward of transformers is what everything is held against. A shorter way is taken only after it put out the same logits over a
small tree and behind a path of it that was kept, once per model, at load.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from decoding.draft import Draft
from decoding.models.graphs import CudaGraphs, Graphs, uncaptured
from decoding.models.plain_forward import PRE_NORM, PlainForward, refusal
from decoding.models.progress import said
from decoding.models.self_test import CONTEXTS, PARENTS, written
from decoding.models.target import Target
from decoding.sample import Sampling

# Largest difference over the spread of what is compared; wrong masks or positions give 0.1 to 5, and rounding gives the rest.
TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}


def shortened(target: Target, source: str, graphs: str) -> tuple[Target, tuple[str, ...]]:
    """The model read by the shortest way that reads it right, and notes.

    Args:
        graphs: one of `decoding.models.graphs.MODES`.
    """
    wanted = graphs == "static" or (graphs == "auto" and target.device.type == "cuda")
    if why := refusal(target.model):
        return target, (f"{source!r} is read without graphs: {why}.",) if wanted else ()
    try:
        plain = PlainForward(target.model)
        quick = replace(target, plain=plain)
        found = difference(target, quick)
        if not found <= allowed(target):  # nor is NaN
            return target, (
                f"{source!r} is read by the forward of transformers: the short one differs by {found:.2g} of the spread.",
            )
        return with_graphs(quick, source, graphs) if wanted else in_blocks(quick, target, source)
    except (RuntimeError, TypeError, AttributeError, LookupError) as error:  # whatever a changed library makes of it
        return target, (f"{source!r} is read by the forward of transformers: {type(error).__name__}: {error}.",)


def with_graphs(quick: Target, source: str, graphs: str) -> tuple[Target, tuple[str, ...]]:
    """As `shortened`, of a model that is read by the plain forward."""
    assert quick.plain is not None
    made = Graphs(quick.plain, CudaGraphs() if graphs == "auto" else uncaptured)
    fixed = replace(quick, graphs=made)
    found = difference(quick, fixed)
    if made.problem:
        return quick, (f"{source!r} is read without graphs: {made.problem}.",)
    if not found <= allowed(quick):
        return quick, (f"{source!r} is read without graphs: passes of fixed shape differ by {found:.2g} of the spread.",)
    return fixed, ()


def in_blocks(quick: Target, target: Target, source: str) -> tuple[Target, tuple[str, ...]]:
    """As `shortened`, of a model that is read by the plain forward: with its head in a second layout too, where that pays."""
    plain, name = quick.plain, Path(source).name
    assert plain is not None
    plain.pack()
    if plain.blocks is None:
        return quick, ()
    if not (found := difference(target, quick)) <= allowed(target):
        plain.blocks = None
        return quick, (f"{name!r} is read with its head as it lies: in blocks it differs by {found:.2g} of the spread.",)
    more = said(4 * plain.blocks.numel())
    return quick, (f"The head of {name!r} is there in two layouts ({more} more): passes over several rows are faster so.",)


def allowed(target: Target) -> float:
    return TOLERANCE.get(target.dtype, max(TOLERANCE.values()))


def difference(one: Target, other: Target) -> float:
    """Largest difference between two ways to read a model, over its spread; NaN if there is a NaN."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, one.vocab, min(CONTEXTS[0], one.context - len(PARENTS) - 1)).tolist()
    draft = Draft(tuple(rng.integers(0, one.vocab, len(PARENTS)).tolist()), PARENTS, source=("test",) * len(PARENTS))
    both = [compared(way, tokens, draft) for way in (one, other)]
    errors = [((a - b).abs().max() / a.std().clamp(min=1e-12)).item() for a, b in zip(*both, strict=True)]
    return float(np.max(errors))  # max() may lose a NaN


def compared(target: Target, tokens: list[int], draft: Draft) -> list[Tensor]:
    """What one way puts out: states and logits over the tree, and logits behind a path of it."""
    cache, layers = target.new_cache(), (0, 1, target.last_hidden, PRE_NORM)
    target.extend(cache, tokens[:-1])
    output = target.read(cache, tokens, draft, Sampling(), layers)
    cache.keep([0, *(node + 1 for node in draft.path_to(len(draft) - 1))])
    after = target.extend(cache, [0])
    return [written(target, output.logits), written(target, after), *(output.hidden[layer].float() for layer in layers)]
