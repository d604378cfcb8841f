"""Every model proves at load that it can be read over a tree: some return wrong logits without any error.

A small tree is read in one pass and every row is compared with a plain pass over its own path, once behind a short and once
behind a longer context.
"""

import numpy as np
import torch

from decoding.draft import Draft
from decoding.models.cache import TreeCache
from decoding.models.target import Target
from decoding.sample import Sampling

PARENTS = (-1, -1, 0, 0, 1, 2, 2, 5)
CONTEXTS = (9, 40)
# Largest difference over the spread of the logits. Wrong masks or positions give 0.1 to 5; rounding gives the rest.
TOLERANCE = {torch.float32: 1e-3, torch.float16: 3e-2, torch.bfloat16: 2e-1}


def check_tree_reading(target: Target, name: str) -> None:
    """Raise ValueError with the measured difference if the model reads a tree wrongly, or not at all."""
    try:
        errors = [tree_error(target, length) for length in CONTEXTS if length + 8 < target.context]
    except Exception as error:  # whatever an unknown architecture does with a 4-D mask, it means no
        raise ValueError(f"{name!r} cannot be read over a draft tree: {type(error).__name__}: {error}") from error
    allowed = TOLERANCE.get(target.dtype, 2e-1)
    if not errors or not all(error <= allowed for error in errors):  # max may lose a NaN
        raise ValueError(
            f"{name!r} reads a draft tree wrongly: its logits differ from a plain pass by "
            f"{max(errors, default=float('nan')):.2g} of "
            f"their spread (at most {allowed:g} is rounding). It keeps a state or positions of its own."
        )


def tree_error(target: Target, length: int) -> float:
    """Largest difference between a tree pass and plain passes over its paths, also after a path was kept; in units of spread."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, target.vocab, length).tolist()
    draft = Draft(tuple(rng.integers(0, target.vocab, len(PARENTS)).tolist()), PARENTS, source=("test",) * len(PARENTS))
    cache = TreeCache()
    target.extend(cache, tokens[:-1])
    rows = target.read(cache, tokens, draft, Sampling()).logits
    errors, spread = [], rows.std().item()
    for node in range(-1, len(draft)):
        path = [draft.tokens[i] for i in draft.path_to(node)]
        plain = target.extend(TreeCache(), tokens + path)
        errors.append((plain[0] - rows[node + 1]).abs().max().item())
    deepest = draft.path_to(len(PARENTS) - 1)
    cache.keep([0, *(node + 1 for node in deepest)])
    kept = [*tokens, *(draft.tokens[node] for node in deepest)]
    after = target.extend(cache, [0])
    errors.append((target.extend(TreeCache(), [*kept, 0]) - after).abs().max().item())
    return max(errors) / max(spread, 1e-12)
