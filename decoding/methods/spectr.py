"""SpecTr: several whole drafts at once, and the best cheap way to pick one of several guesses without changing the text's law.

Sun et al. 2023, https://arxiv.org/abs/2310.15141, K-SEQ selection (the paper swaps the letters: here p is the target). The rule is
`decoding.acceptance.k_seq.k_seq`. Departures: drafts that agree so far share a node, which is read once and counts once per draft,
in the draft model and in the target; the paper reads K separate rows. rho is bisected to 1e-13 (the paper leaves its accuracy open)
and anew at every depth for the drafts that are still alive; the paper states a single position. Defaults are K = 4 and L = 5 where
its headline has 8 and 8. At temperature 0 all drafts would be the same chain, so one is drafted and judged greedily.
"""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from decoding.acceptance.k_seq import k_seq
from decoding.draft import EMPTY, Draft
from decoding.drafting.draft_model import DraftModel
from decoding.drafting.tree_builder import TreeBuilder
from decoding.method import Drafter, Method, param
from decoding.models.requirements import DRAFT_MODEL
from decoding.models.target import Target
from decoding.sample import Sampling, draw


@dataclass(frozen=True)
class Params:
    sequences: int = param(
        4,
        "Draft sequences",
        "Whole drafts per step, drawn independently (K); the paper's headline uses 8. At temperature 0 one is drafted.",
        low=1,
        high=8,
    )
    length: int = param(5, "Draft length", "Tokens per sequence (L); the paper's headline uses 8.", low=1, high=8)


def lengthen(trie: TreeBuilder, sampled: list[int], at: dict[int, int]) -> dict[int, int]:
    """One token more for every sequence in `at` (sequence -> its node); returns where they are now. Those that agree so far share a
    node, whose "copies" they are.

    >>> trie = TreeBuilder()
    >>> lengthen(trie, [7, 8, 7], {0: -1, 1: -1, 2: -1}), trie["copies"]
    ({0: 0, 1: 1, 2: 0}, [[0, 2], [1]])
    """
    after = {}
    for (sequence, parent), token in zip(at.items(), sampled, strict=True):
        node = trie.child(parent, token)
        after[sequence] = trie.add(token, parent, copies=[]) if node is None else node
        trie["copies"][after[sequence]].append(sequence)
    return after


class Sequences(Drafter):
    """Draws all sequences side by side, one call of the draft model per depth."""

    def __init__(self, target: Target, params: Params, sampling: Sampling) -> None:
        self.model = DraftModel(target)
        self.ends = target.ends
        self.context = target.context
        self.sequences = 1 if sampling.greedy else params.sequences
        self.length = params.length
        self.sampling = sampling

    def begin(self, tokens, output) -> None:
        self.model.begin(tokens)

    def propose(self, tokens, rng) -> Draft:
        length = min(self.length, self.context - len(tokens))
        if length < 1:
            return EMPTY
        trie, at = TreeBuilder(), dict.fromkeys(range(self.sequences), -1)
        logits, first = self.model.root(tokens), -1  # the node that the first row of `logits` stands behind
        q, draft_probability_rows = [], []
        for depth in range(length):
            if depth:
                logits = self.model.extend(self.model.target.ids(trie.tokens[first:]), trie.parents[first:])
            probs = self.sampling.probabilities(logits)
            sampled = self._sampled(probs[[node - first for node in at.values()]], rng)
            size = len(trie)
            at = lengthen(trie, sampled, at)
            above = [parent - first for parent in trie.parents[size:]]
            q.append(probs[above])
            draft_probability_rows.append(logits[above])
            first = size
            at = {sequence: node for sequence, node in at.items() if trie.tokens[node] not in self.ends}
            if not at:
                break
        return self._draft(trie, q, draft_probability_rows)

    def _sampled(self, probs: Tensor, rng: Generator) -> list[int]:
        """A token per row, each with its own uniform; on the CPU, because sequences are merged by what they drew."""
        uniforms = torch.rand(self.sequences, generator=rng)[: len(probs)]
        return draw(probs, uniforms.to(probs.device)).tolist()

    def _draft(self, trie: TreeBuilder, q: list[Tensor], logits: list[Tensor]) -> Draft:
        return trie.draft(
            "draft model",
            q=torch.cat(q),
            draft_probabilities=torch.cat(logits).softmax(-1) if self.sampling.greedy else None,
            how="sampled as sequences",
            calls=self.model.calls,
            copies=tuple(map(tuple, trie["copies"])),
        )

    def observe(self, draft, output, verification) -> None:
        self.model.keep(verification.path)


METHOD = Method(
    key="spectr",
    title="SpecTr",
    paper="https://arxiv.org/abs/2310.15141",
    authors="Sun, Suresh, Ro, Beirami, Jain, Yu (NeurIPS 2023)",
    year=2023,
    group="small model",
    line="A small model writes several continuations, all checked in one call.",
    idea=(
        "Draft several whole sequences at once, so that every position offers several guesses. Each is tried with the reduced "
        "chance p/(ρq); ρ is just large enough for the text to keep the target's law."
    ),
    algorithm=(
        "The draft model draws K sequences side by side, independently; those that agree so far share a node.",
        "The target reads the root and all distinct nodes in one call.",
        "At each position find ρ from p, q and the number of sequences that are still alive.",
        "Try their tokens in turn, repeats included, each with its own die: accept if u × q < p/ρ.",
        "All sequences that hold the accepted token stay alive; the others drop out.",
        "If every try fails, draw a correction from norm(max(p − ρq, 0)); if all depths pass, a bonus from p.",
    ),
    lossless=(
        "With this ρ, the chance that one of k independent guesses passes is exactly the overlap of p and ρq, and the residual is "
        "what ρq leaves of p; together they are p. Greedy runs draft a single chain."
    ),
    params=Params,
    build=lambda family, params, sampling: (Sequences(family.draft, params, sampling), k_seq),
    requirements=(DRAFT_MODEL,),
)
