"""SentenceVAE as a sentence drafter: one vector foretells the next sentence, a small decoder writes it out, the target verifies.

An, Chen, Sun and Li 2024, https://arxiv.org/abs/2408.00655, propose another language model: its body takes a step per sentence, and
what its decoder writes stands as it is. Nothing in that keeps a given target's text. Here the decoder's words are a draft instead,
compared with what the target says itself; what the model writes alone is in `decoding.runs.sentence_text`. The model and how it
departs from the paper's is `decoding.models.sentence_model`.

The vector is made from the target's states behind the sentence before: once per sentence, whatever the target corrects meanwhile,
for that is the paper's clock. The decoder goes on from what stands of the sentence already and drafts up to its end at most.
While the last token of a sentence is the root, its state is not known yet, so the vector is made from the state in front of it
and made again one call later. Asking anew at every call is one choice of the parameter; the vector of the sentence before and
none at all are two others, there to see what a vector is worth. None of them touches the text.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from decoding.draft import EMPTY, Draft
from decoding.drafting.dynamic_tree import grow
from decoding.drafting.sampled_chain import draw_chain
from decoding.method import Drafter, Method, param
from decoding.models.attention import Memory, causal
from decoding.models.family import Family
from decoding.models.requirements import TARGET_HEAD
from decoding.models.sentence_model import KEY, LONGEST, SHORTEST, SentenceModel, behind, load_model, shapes, taps
from decoding.models.target import Target
from decoding.sample import Sampling
from decoding.score_names import JOINT, OWN, SENTENCE_SO_FAR, VECTOR_AGE, WITHOUT_VECTOR
from decoding.verify import match, recursive_rejection

__all__ = ["METHOD", "Params", "Pass", "SentenceVae", "build", "shapes"]

MAX_NODES, MAX_FAN_OUT = 128, 16
ONCE, EVERY, STALE, NONE = "once per sentence", "at every call", "of the sentence before", "none"


@dataclass(frozen=True)
class Params:
    nodes: int = param(24, "Tree size", "Nodes that are kept, those with the largest product of q.", low=1, high=MAX_NODES)
    depth: int = param(6, "Levels", "Tokens drafted ahead; never beyond the end of the sentence.", low=1, high=LONGEST)
    frontier: int = param(4, "Expanded", "Nodes of a level that get children, the most probable.", low=1, high=MAX_FAN_OUT)
    fan_out: int = param(8, "Children", "Candidates looked at below a node.", low=1, high=MAX_FAN_OUT)
    vector: str = param(
        ONCE,
        "Vector",
        "When the sentence's vector is made; the wrong one, or none, shows what it is worth. The text is the same with each.",
        choices=(ONCE, EVERY, STALE, NONE),
    )
    shape: str = param(
        "tree",
        "Draft",
        "tree: the most probable paths, matched with what the target draws; chain: tokens drawn from q, judged with p and q.",
        choices=("tree", "chain"),
    )


class Pass:
    """The decoder during one draft, with the vector and beside it with none: two texts of a batch, the same tokens in both."""

    def __init__(self, model: SentenceModel, target: Target, vector: Tensor) -> None:
        self.model, self.target = model, target
        self.vectors = torch.stack((vector, torch.zeros_like(vector)))[:, None]  # (2, 1, width)
        self.kept = [Memory() for _ in model.decoder.blocks]
        self.place = 0  # of the newest rows
        self.without: list[Tensor] = []  # (m, vocab) logits with no vector, for every one that was handed out

    def root(self, sentence: list[int]) -> Tensor:
        """(1, vocab) logits behind what stands of the sentence, at most 31 tokens."""
        decoder, ids = self.model.decoder, self.target.ids(sentence)
        self.place = len(sentence)
        places = torch.arange(1 + self.place, device=ids.device)[None]
        written = decoder.rows(self.model.embedded(ids, self.target), places[:, 1:], self.vectors)
        rows = torch.cat((decoder.first(self.vectors), written), 1)
        return self._through(rows, places, None)[-1:]

    def extend(self, tokens: Tensor, parents: Tensor) -> Tensor:
        """The next level, as `decoding.drafting.dynamic_tree.grow` asks for it."""
        self.place += 1
        places = torch.full((1, len(tokens)), self.place, device=tokens.device)
        rows = self.model.decoder.rows(self.model.embedded(tokens, self.target), places, self.vectors)
        return self._through(rows, places, parents)

    def _through(self, rows: Tensor, places: Tensor, parents: Tensor | None) -> Tensor:
        """(2, m, width) -> (m, vocab) with the vector; without parents the rows are the beginning, which all others see."""
        visible = causal(rows.shape[1], 0, rows.device)
        for block, kept in zip(self.model.decoder.blocks, self.kept, strict=True):
            own = block.keys_values(rows, places)
            if parents is None:
                keys, values = kept.commit(*own)
            else:
                keys, values, visible = kept.grow(*own, parents)
            rows = block(rows, places, keys, values, visible)
        scored = self.model.decoder.norm(rows if parents is not None else rows[:, -1:])
        with_vector, without = self.target.score(scored)
        self.without.append(without)
        return with_vector


class SentenceVae(Drafter):
    """Keeps where the open sentence begins and its vector. A draft takes one small pass per level and one copy from the device."""

    reads_prompt_hidden = True

    def __init__(self, target: Target, params: Params, sampling: Sampling) -> None:
        self.target, self.params = target, params
        self.model = load_model(target)
        self.aux_hidden_layers = taps(target)
        self.sampling, self.shown = sampling, Sampling() if sampling.greedy else sampling
        self.states: dict[int, Tensor] = {}  # tap -> (m, width) of the newest tokens that were read
        self.start, self.made_at = 1, -1  # the open sentence's first token; the token whose states the vector was made from
        self.vector: Tensor | None = None  # (width,) of the open sentence
        self.before: Tensor | None = None  # (width,) of the one before it

    def begin(self, tokens, output) -> None:
        if output is not None:
            self.states = {layer: output.hidden[layer] for layer in self.aux_hidden_layers}

    def observe(self, draft, output, verification) -> None:
        rows = [0, *(node + 1 for node in verification.path)]
        self.states = {layer: output.hidden[layer][rows] for layer in self.aux_hidden_layers}

    def propose(self, tokens, rng) -> Draft:
        if not self.states:  # a prompt of one token: nothing was read yet
            return EMPTY
        now, of = Pass(self.model, self.target, self.chosen(tokens)), self.params
        sentence = list(tokens[self.start :])
        first, levels = now.root(sentence), min(of.depth, LONGEST - len(sentence))
        if of.shape == "chain":
            draft = draw_chain(first, now.extend, length=levels, sampling=self.sampling, rng=rng, source="decoder")
            rows = slice(None)
        else:
            ends = self.model.ends if len(sentence) + 1 >= SHORTEST else ()
            tree = {"nodes": of.nodes, "fan_out": of.fan_out, "expansions": levels - 1, "frontier": of.frontier}
            found = grow(first, now.extend, **tree, ends=ends)
            draft = found.draft("decoder", draft_probabilities=found.believed(self.shown), scores=found.tensors(JOINT, OWN))
            rows = found.rows
        without = self.shown.probabilities(torch.cat(now.without))[rows]
        own = without.gather(1, self.target.ids(draft.tokens)[:, None])[:, 0]
        facts: dict[str, float] = {SENTENCE_SO_FAR: len(sentence)}
        if of.vector in (ONCE, EVERY):
            facts[VECTOR_AGE] = len(tokens) - 1 - self.made_at
        draft = replace(draft, scores={**draft.scores, WITHOUT_VECTOR: own}, facts=facts, calls=len(now.without))
        over = behind([*sentence, *draft.tokens], 0, self.model.ends) if of.shape == "chain" else None
        return draft if over is None else draft.cut(np.arange(len(draft)) < over - len(sentence))

    def chosen(self, tokens) -> Tensor:
        """(width,) the vector to draft with, brought up to date with the text."""
        newest = len(tokens) - 2  # token whose states are known: the root was not read yet
        while (stop := behind(tokens, self.start, self.model.ends)) is not None:
            self.before = self.foretold(self.start - 1, newest) if self.vector is None else self.vector
            self.start, self.vector = stop, None
        at = newest if self.params.vector == EVERY else min(self.start - 1, newest)
        if self.vector is None or at > self.made_at:
            self.vector, self.made_at = self.foretold(at, newest), at
        nothing = torch.zeros_like(self.vector)
        return {STALE: nothing if self.before is None else self.before, NONE: nothing}.get(self.params.vector, self.vector)

    def foretold(self, at: int, newest: int) -> Tensor:
        """(width,) z from the states at token `at`, which must be among those that were read last."""
        return self.model.foretold(self.states, at - newest - 1, self.target)


def build(family: Family, params: Params, sampling: Sampling):
    return SentenceVae(family.target, params, sampling), recursive_rejection if params.shape == "chain" else match


METHOD = Method(
    key=KEY,
    title="SentenceVAE",
    paper="https://arxiv.org/abs/2408.00655",
    authors="An et al. (2024); as a drafter by us",
    year=2024,
    group="heads",
    line="One vector foretells the next sentence; a small decoder writes it out.",
    idea=(
        "The paper's model takes one large step per sentence: a vector foretells the next one, and a small decoder writes it out "
        "word by word. That is another model with another text. Here its sentence is only a draft, which the target verifies: two "
        "clocks, small passes per word and calls of the target per sentence."
    ),
    algorithm=(
        "When a sentence has ended, two states of the target there, one from its middle and the last, become one vector: what the "
        "next sentence is likely to say.",
        "The decoder, one layer with the vector added at every place, reads what stands of the sentence and ranks what comes next.",
        "Level by level it goes on behind the most probable words, up to the end of the sentence at most.",
        "The target reads the tree in one call and draws its own token at every position; follow the children that agree.",
        "Until the sentence is over the vector stays as it is, whatever the target corrected; then the next one is made.",
    ),
    lossless=(
        "The target is left as it is; the tree is a function of the past that is only compared with what the target draws itself; "
        "a drawn chain is judged with p and q. What the sentence model writes alone is another text."
    ),
    params=Params,
    build=build,
    requirements=(TARGET_HEAD,),
)
