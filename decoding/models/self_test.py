"""Every model proves at load that it can be read over a tree: some return wrong logits without any error.

A small tree is read in one pass and every row is compared with a plain pass over its own path, once behind a short and once
behind a longer context, and of a model with windowed attention once more with a window that ends inside the tree. Models whose
layers are to be run one by one (Kangaroo) prove that too.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from decoding.draft import Draft
from decoding.models import layers
from decoding.models.cache import TreeCache
from decoding.models.once import Once
from decoding.models.target import Target
from decoding.models.windows import SIZES, windows_of
from decoding.sample import Sampling

_known: Once[str] = Once("waiting until the model is tried out")  # model -> why its layers cannot be run one by one, or ""
LAYER_ROWS = 9  # tokens that layers are tried with, one by one
PARENTS = (-1, -1, 0, 0, 1, 2, 2, 5)
CONTEXTS = (9, 40)
WINDOW = 3  # tokens, of the windows that are made small: paths of the tree are longer
# Largest difference over the spread of the logits. Wrong masks or positions give 0.1 to 5; rounding gives the rest.
TOLERANCE = {torch.float32: 1e-3, torch.float16: 3e-2, torch.bfloat16: 2e-1}


def check_tree_reading(target: Target, name: str) -> None:
    """Raise ValueError with the measured difference if the model reads a tree wrongly, or not at all."""
    try:
        found = largest_error(target)
    except Exception as error:  # whatever an unknown architecture does with a 4-D mask, it means no
        raise ValueError(f"{name!r} cannot be read over a draft tree: {type(error).__name__}: {error}") from error
    allowed = TOLERANCE.get(target.dtype, 2e-1)
    if not found <= allowed:  # nor is NaN
        raise ValueError(
            f"{name!r} reads a draft tree wrongly: its logits differ from a plain pass by {found:.2g} of their spread (at most "
            f"{allowed:g} is rounding). It keeps a state or positions of its own."
        )


def largest_error(target: Target) -> float:
    """Over both contexts, as far as they fit, and over small windows, if there are any; NaN if there is a NaN or nothing fits."""
    lengths = [length for length in CONTEXTS if length + len(PARENTS) < target.context]
    errors = [tree_error(target, length) for length in lengths]
    if target.windows and lengths:
        with small_windows(target.model):
            errors.append(tree_error(replace(target), lengths[0]))  # a copy: a target looks at its windows once
    return float(np.max(errors)) if errors else float("nan")  # max() may lose a NaN


@contextmanager
def small_windows(model: nn.Module) -> Iterator[None]:
    """All windows of a model are WINDOW tokens wide while the block runs; nobody else may read with it then."""
    configs = {id(part.config): part.config for part in model.modules() if hasattr(part, "config")}.values()
    found = [(config, name, getattr(config, name, None)) for config in configs for name in SIZES.values()]
    found = [(config, name, size) for config, name, size in found if isinstance(size, int)]
    try:
        for config, name, size in found:
            setattr(config, name, min(size, WINDOW))
        yield
    finally:
        for config, name, size in found:
            setattr(config, name, size)


class Narrowed(Target):
    """The same model, read through small windows: masks are made for them, and none is left to the model."""

    @cached_property
    def windows(self) -> dict[str, int]:
        return dict.fromkeys(windows_of(self.model.config), WINDOW)


def tree_error(target: Target, length: int) -> float:
    """Largest difference between a tree pass and plain passes over its paths, also after a path was kept; in units of spread."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, target.vocab, length).tolist()
    draft = Draft(tuple(rng.integers(0, target.vocab, len(PARENTS)).tolist()), PARENTS, source=("test",) * len(PARENTS))
    cache = TreeCache()
    target.extend(cache, tokens[:-1])
    rows = written(target, target.read(cache, tokens, draft, Sampling()).logits)
    errors, spread = [], rows.std().item()
    for node in range(-1, len(draft)):
        path = [draft.tokens[i] for i in draft.path_to(node)]
        plain = written(target, target.extend(TreeCache(), tokens + path))
        errors.append((plain[0] - rows[node + 1]).abs().max().item())
    deepest = draft.path_to(len(PARENTS) - 1)
    cache.keep([0, *(node + 1 for node in deepest)])
    kept = [*tokens, *(draft.tokens[node] for node in deepest)]
    after, plain = written(target, target.extend(cache, [0])), written(target, target.extend(TreeCache(), [*kept, 0]))
    errors.append((plain - after).abs().max().item())
    return max(errors) / max(spread, 1e-12)


def written(target: Target, logits: Tensor) -> Tensor:
    """(rows, vocab) -> (rows, tokens): without the ids that no token has, whose logits are minus infinity."""
    kept = torch.ones(logits.shape[-1], dtype=torch.bool, device=logits.device)
    kept[list(target.unused)] = False
    return logits[:, kept]


def layers_refusal(target: Target) -> str:
    """Why the layers of this model cannot be run one by one, as a sentence; "" if they can.

    Tried out, once per model: the logits of a few tokens, layer by layer, against those of a pass of the whole model.
    """
    return _known.of(target.model, lambda: tried_by_layer(target))


@torch.inference_mode()
def tried_by_layer(target: Target) -> str:
    model, name = target.model, type(target.model).__name__
    body = cast(Any, getattr(model, "model", model))
    parts = all(hasattr(body, part) for part in ("embed_tokens", "layers", "rotary_emb"))
    if not parts or not (hasattr(body, "norm") or hasattr(body, "final_layernorm")):
        return f"The layers of a {name} cannot be run one by one here; those of models built like a Llama can."
    target = Narrowed(target.model, target.vocab, target.context, unused=target.unused)
    tokens = torch.arange(min(LAYER_ROWS, target.context)) * 7 % target.vocab
    seen = np.tri(len(tokens), dtype=bool) if target.windows else None
    whole = written(target, target.forward(TreeCache(), tokens.to(target.device), range(len(tokens)), seen)[0])
    try:
        positions = torch.arange(len(tokens), device=target.device)[None]
        hidden = body.embed_tokens(tokens.to(target.device))[None]
        mask = target.layer_mask(len(tokens), 0)
        for number in range(model.config.num_hidden_layers):
            hidden = layers.through(model, hidden, range(number, number + 1), positions, mask)
        by_layer = written(target, target.score(layers.normed(model, hidden))[0])
        error = (by_layer - whole).abs().max() / whole.std().clamp(min=1e-12)
    except Exception as problem:  # whatever an unknown architecture asks of its layers, it means no
        return f"The layers of a {name} cannot be run one by one: {type(problem).__name__}: {problem}"
    if error <= TOLERANCE.get(target.dtype, 2e-1):
        return ""
    return f"Run one by one, the layers of a {name} differ from the whole model by {float(error):.2g} of the logits' spread."
