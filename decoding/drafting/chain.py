"""Chain: the draft of speculative sampling, tokens that a draft model draws one after the other. Several methods start from it.

Leviathan et al. 2023, https://arxiv.org/abs/2211.17192, algorithm 1; Chen et al. 2023, https://arxiv.org/abs/2302.01318.
"""

from collections.abc import Sequence

import torch

from decoding.draft import Draft
from decoding.drafting.draft_model import DraftModel
from decoding.method import Drafter
from decoding.models.target import Target
from decoding.sample import Sampling, draw


class Chain(Drafter):
    """Draws `length` tokens one after the other. Tokens stay on the device until the chain is complete."""

    def __init__(self, target: Target, length: int, sampling: Sampling, aux_hidden_layers: Sequence[int] = ()) -> None:
        self.model = DraftModel(target, aux_hidden_layers)
        self.ends = target.ends
        self.context = target.context
        self.length = length
        self.sampling = sampling

    def begin(self, tokens, output) -> None:
        self.model.begin(tokens)

    def propose(self, tokens, rng) -> Draft:
        length = min(self.length, self.context - len(tokens))
        uniforms = torch.rand(self.length, generator=rng).to(self.model.target.device)
        logits, sampled, q, draft_probability_rows = self.model.root(tokens), [], [], []
        for i in range(length):
            if i:  # the last drawn token is never fed: nothing is drafted behind it
                logits = self.model.extend(sampled[-1], [i - 2])
            q.append(self.sampling.probabilities(logits))
            draft_probability_rows.append(logits)
            sampled.append(draw(q[-1], uniforms[i : i + 1]))
            if self.enough(i + 1):
                break
        return self._draft(torch.cat(sampled).tolist(), q, draft_probability_rows) if sampled else Draft((), ())

    def enough(self, sampled: int) -> bool:
        """Whether to stop behind the `drawn` tokens so far, all of which are submitted; all but the last were fed."""
        return False

    def _draft(self, tokens: list[int], q: list[torch.Tensor], logits: list[torch.Tensor]) -> Draft:
        """Cut behind the first end of text: nothing behind it can be committed."""
        n = next((i + 1 for i, token in enumerate(tokens) if token in self.ends), len(tokens))
        draft_probabilities = torch.cat(logits[:n]).softmax(-1) if self.sampling.greedy else None
        return Draft(
            tuple(tokens[:n]),
            tuple(range(-1, n - 1)),
            torch.cat(q[:n]),
            draft_probabilities,
            how="sampled",
            source=("draft model",) * n,
            calls=self.model.calls,
        )

    def observe(self, draft, output, verification) -> None:
        self.model.keep(verification.path)
