"""The rule of Judge Decoding, pure: a token passes if speculative sampling accepts it or if the judge does. Not lossless.

Bachmann et al. 2025, https://arxiv.org/abs/2501.19309; the letters: p target, q drafter, u uniform, J(x) in {0, 1} the judge's
word. After a rejection the token comes from the residual, which the paper leaves open; with it, at one position,

    P(x) = q(x) (J(x) + (1 - J(x)) min(1, p(x) / q(x))) + R norm(max(p - q, 0))(x),    TV(P, p) = sum of J(x) max(q(x) - p(x), 0),

R the chance of a rejection: the distance from the target is the chance that the judge overrules a refusal. Without a word
of the judge this is speculative sampling; if it always speaks, the text is the drafter's.
"""

from collections.abc import Callable, Collection
from math import isfinite

import torch
from torch import Tensor

from decoding.draft import Draft, TargetOutput
from decoding.sample import draw
from decoding.score_names import JUDGE_DEVIATION, JUDGE_ONLY, JUDGE_SCORE
from decoding.verify import Accept, NotFinite, Verification, copied, judged, walk

Judge = Callable[[TargetOutput], Tensor]  # a reading of n nodes -> (n,) scores from 0 to 1


def either(judge: Judge, threshold: float, ends: Collection[int] = ()) -> Accept:
    """The rule for a chain that was drawn from q: u x q < p, or the judge's score above the threshold.

    The scores of a node are the judge's, 1 where the judge alone let it through, and J max(0, 1 - p / q): given the token, the
    chance that the judge overrules a refusal. Its mean over drawn tokens is the total variation distance at that position.

    Args:
        threshold: scores above it accept; at 1 the judge never speaks.
        ends: tokens that pass by the ordinary rule only: a judge that likes the end of a text would cut answers short.
    """

    def rule(draft: Draft, output: TargetOutput, u: Tensor) -> Verification:
        check(draft)
        n, probs = len(draft), output.probs
        p, residual = judged(draft, probs) if n else (probs.new_empty(0), probs)
        finals = draw(residual, u[n:].to(residual.device).expand(n + 1))
        if n == 0:
            return Verification((), (), (), (), (), int(copied(output, finals.to(probs.dtype))[0]), residual, {})
        tokens = torch.tensor(draft.tokens, device=probs.device)
        assert draft.q is not None  # `check` refused drafts without
        q = draft.q.gather(1, tokens[:, None]).squeeze(1)
        numbers = copied(output, p, q, finals.to(p.dtype), judge(output).to(p.dtype))
        p, q, uniforms = tuple(numbers[:n]), tuple(numbers[n : 2 * n]), tuple(u[:n].tolist())
        if not all(map(isfinite, q)):
            raise NotFinite("drafter")
        scores = numbers[3 * n + 1 :]
        if not all(map(isfinite, scores)):
            raise NotFinite("judge")
        speaks = [score > threshold and token not in ends for score, token in zip(scores, draft.tokens, strict=True)]
        ordinary = [uniform * b < a for uniform, a, b in zip(uniforms, p, q, strict=True)]
        path, verdicts = walk(draft, lambda i: ordinary[i] or speaks[i])
        alone = {i for i in path if not ordinary[i]}
        facts = tuple(
            {JUDGE_SCORE: scores[i], JUDGE_ONLY: float(i in alone), JUDGE_DEVIATION: speaks[i] * max(0.0, 1 - p[i] / q[i])}
            for i in range(n)
        )
        end = path[-1] + 1 if path else 0
        return Verification(path, verdicts, p, q, uniforms, int(numbers[2 * n + end]), residual, {}, facts)

    return rule


def check(draft: Draft) -> None:
    """Refuse what the rule says nothing about: a tree, where the judge may like several children, and tokens that were not drawn
    (ValueError)."""
    if len(draft) and (draft.how != "sampled" or draft.parents != tuple(range(-1, len(draft) - 1))):
        raise ValueError(f"The judge is for one chain of drawn tokens; this draft of {len(draft)} nodes was {draft.how}.")
