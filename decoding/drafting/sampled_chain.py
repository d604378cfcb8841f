"""A chain that a head draws token after token, through the door by which `decoding.drafting.dynamic_tree.grow` asks for a tree.

Every token is drawn from the head's distribution at its place, so `verify.recursive_rejection` is exact for it (Leviathan et al.
2023, https://arxiv.org/abs/2211.17192). That holds as well where a head guesses several places at once, blind to its picks.
"""

import torch
from torch import Generator, Tensor

from decoding.draft import Draft
from decoding.drafting.dynamic_tree import Extend
from decoding.sample import Sampling, draw
from decoding.score_names import JOINT, OWN


@torch.inference_mode()
def draw_chain(first: Tensor, extend: Extend, *, length: int, sampling: Sampling, rng: Generator, source: str) -> Draft:
    """Draw `length` tokens below the root.

    Args:
        first, extend: as for `grow`; `extend` is handed one token at a time.
        rng: a CPU generator.
    """
    uniforms = torch.rand(length, generator=rng).to(first.device)
    logits, q, sampled = [first], [], []
    for level in range(length):
        if level:
            logits.append(extend(sampled[-1], torch.full_like(sampled[-1], level - 2)))
        q.append(sampling.probabilities(logits[-1].float()))
        sampled.append(draw(q[-1], uniforms[level : level + 1]))
    tokens, scored = torch.cat(sampled), torch.cat(logits).float()
    believed = scored.softmax(-1) if sampling.greedy else torch.cat(q)
    own = believed.gather(1, tokens[:, None])[:, 0]
    return Draft(
        tuple(tokens.tolist()),  # the one copy from the device
        tuple(range(-1, length - 1)),
        torch.cat(q),
        believed if sampling.greedy else None,
        how="sampled",
        source=(source,) * length,
        scores={JOINT: own.cumprod(0), OWN: own},
    )
