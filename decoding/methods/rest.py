"""REST: a trie of what followed the last tokens in a datastore, cut to its heaviest nodes.

He et al., NAACL 2024, https://arxiv.org/abs/2311.08252, section 3. The longest suffix of the text, from 16 tokens down, that occurs
in the store gives up to 256 continuations of 10 tokens; their trie is cut to 64 nodes by how many continuations pass through.
Departures: 256 occurrences spread evenly over all, where the released code takes the first 5,000 in suffix order, those with the
smallest next tokens; the text so far is a second store (a parameter); ties go to the shallower node and the lower token ids, where
the code leaves them to a hash; a continuation stops at the end of its document; nothing is drafted where nothing is found, where
the code drafts token 100; sampled acceptance is the matching the paper describes, not the biased rule of the code.
"""

from dataclasses import dataclass

import torch

from decoding.draft import EMPTY, Draft
from decoding.method import Drafter, Method, param
from decoding.retrieval.search import WHERE, Sources, heaviest, said_of, sources_of, trie_of
from decoding.score_names import RETRIEVED, WEIGHT
from decoding.verify import match


@dataclass(frozen=True)
class Params:
    nodes: int = param(64, "Tree size", "Nodes of the trie that are kept; 64 in the paper.", low=1, high=256)
    longest: int = param(16, "Longest suffix", "Tokens at the end of the text to look for at most.", low=1, high=64)
    shortest: int = param(2, "Shortest suffix", "Draft nothing where a shorter suffix is all that occurs.", low=1, high=16)
    length: int = param(10, "Continuation length", "Tokens taken behind every occurrence.", low=1, high=32)
    occurrences: int = param(
        256, "Occurrences used", "Spread evenly over all there are, so that frequent suffixes stay cheap.", low=1, high=5000
    )
    where: str = param("both", "Look in", "The datastore, the text so far, or both as one.", choices=WHERE)


class Residual(Drafter):
    def __init__(self, params: Params, sources: Sources) -> None:
        self.params = params
        self.sources = sources

    def propose(self, tokens, rng) -> Draft:
        self.sources.follow(tokens)
        found = self.sources.longest(self.params.longest)
        if found.n < self.params.shortest:
            return EMPTY
        continuations = self.sources.continuations(found, self.params.length, self.params.occurrences)
        trie = heaviest(trie_of(continuations), self.params.nodes)
        weights = torch.tensor(trie[WEIGHT], dtype=torch.float64)
        return trie.draft(RETRIEVED, scores={WEIGHT: weights} | said_of(found, len(trie)))


METHOD = Method(
    key="rest",
    title="REST",
    paper="https://arxiv.org/abs/2311.08252",
    authors="He et al., NAACL 2024",
    year=2023,
    group="copies",
    line="Looks the last words up in a store of other texts and offers every way they went on.",
    idea=(
        "Many texts continue like one that was written before. Look the last tokens up in a large datastore and offer all that "
        "followed there as one tree: no draft model, no training."
    ),
    algorithm=(
        "Look for the last n tokens in the datastore, for n from 16 down to 2, by binary search in its suffix array.",
        "Take the next ten tokens behind each occurrence and merge them into a trie; a node weighs as many as pass through it.",
        "Keep the heaviest nodes; the target reads them in one call and draws its own token at every position.",
        "Follow the children that agree; the first token without a child is the correction.",
    ),
    lossless="The tree is a function of the past and is only compared with what the target draws itself, whatever the store holds.",
    params=Params,
    build=lambda family, params, sampling: (Residual(params, sources_of(family, params.where)), match),
)
