"""What a sentence model does beside drafting, as jobs of the worker, a sentence per turn: give the sentences of a text back from
their vectors, and write a text alone.

Alone is how its paper has it (An, Chen, Sun and Li 2024, https://arxiv.org/abs/2408.00655): the large model reads a sentence in one
call, a vector foretells the next one, the decoder writes it, and nobody checks it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from decoding.models.family import Family
from decoding.models.sentence_model import load_model, sentences, taps
from decoding.models.target import Target
from decoding.sample import Sampling

MOST = 12  # sentences of a text that are given back, the last ones


class GivenBack(NamedTuple):
    """One sentence of a text."""

    tokens: tuple[int, ...]
    again: tuple[int, ...]  # what the decoder makes of its own vector, e
    foretold: tuple[int, ...]  # and of the vector that was made in front of it, z
    near: float  # cosine of the two vectors


class Alone(NamedTuple):
    """One sentence that the model wrote alone."""

    tokens: tuple[int, ...]
    p: tuple[float, ...]  # what the target gives each of them, at temperature 1
    passes: int  # of the decoder


class GiveBack:
    """An iterator of the last whole sentences of a text; the target reads the text once."""

    def __init__(self, family: Family, tokens: Sequence[int]) -> None:
        self.family, self.target, self.tokens = family, family.target, tuple(tokens)[: family.target.context]
        self.model = load_model(family.target)
        self.left = sentences(self.tokens, self.model.ends)[:-1][-MOST:]
        self.states: dict[int, Tensor] = {}
        self.steps: list[GivenBack] = []
        self.pieces: dict[int, bytes] = {}  # the bytes of the tokens that occur

    @property
    def ended(self) -> bool:
        return not self.left

    @torch.inference_mode()
    def __next__(self) -> GivenBack | None:
        if self.ended:
            return None
        if not self.states:
            self.states = read(self.target, self.target.new_cache(), self.tokens)[1]
        start, stop = self.left.pop(0)
        sentence = self.tokens[start:stop]
        e, z = self.model.encoded(sentence, self.target), self.model.foretold(self.states, start - 1, self.target)
        near = float(torch.nn.functional.cosine_similarity(e, z, dim=0))
        again, foretold = (self.model.written(vector, self.target) for vector in (e, z))
        self.steps.append(GivenBack(sentence, again, foretold, near))
        self.pieces |= self.family.token_bytes({*sentence, *again, *foretold})
        return self.steps[-1]

    def let_go(self) -> None:
        self.states = {}


class WriteAlone:
    """An iterator of sentences behind a prompt, until there are `max_tokens` or the text ends. One call of the target per sentence;
    an unfinished sentence of the prompt is finished first."""

    def __init__(self, family: Family, prompt: Sequence[int], sampling: Sampling, seed: int, max_tokens: int) -> None:
        self.family, self.target, self.prompt, self.sampling = family, family.target, list(prompt), sampling
        self.model, self.rng = load_model(family.target), torch.Generator().manual_seed(seed)
        self.left = min(max_tokens, family.target.context - len(prompt))
        self.cache = family.target.new_cache()
        self.steps: list[Alone] = []
        self.pieces: dict[int, bytes] = {}
        self.logits: Tensor | None = None  # (1, vocab) behind the text so far
        self.vector: Tensor | None = None
        self.begun: tuple[int, ...] = ()

    @property
    def ended(self) -> bool:
        return self.left <= 0

    @torch.inference_mode()
    def __next__(self) -> Alone | None:
        if self.ended:
            return None
        if self.vector is None:
            self._read_prompt()
        assert self.vector is not None and self.logits is not None
        whole = self.model.written(self.vector, self.target, self.begun, self.sampling, self.rng)
        new = whole[len(self.begun) :][: self.left]
        scored, states = read(self.target, self.cache, new, every_row=True)
        p = torch.cat((self.logits, scored[:-1])).softmax(-1).gather(1, self.target.ids(new)[:, None])[:, 0]
        self.logits, self.begun = scored[-1:], ()
        self.vector = self.model.foretold(states, -1, self.target)
        self.left = 0 if new[-1] in self.target.ends else self.left - len(new)
        self.steps.append(Alone(new, tuple(p.tolist()), len(new)))
        self.pieces |= self.family.token_bytes(new)
        return self.steps[-1]

    def _read_prompt(self) -> None:
        """The prompt's last sentence is gone on with, from the vector in front of it."""
        self.logits, states = read(self.target, self.cache, self.prompt)
        start, _ = sentences(self.prompt, self.model.ends)[-1]
        self.begun = tuple(self.prompt[start:])
        self.vector = self.model.foretold(states, start - 1, self.target)

    def let_go(self) -> None:
        self.cache, self.logits, self.vector = self.target.new_cache(), None, None


def read(target: Target, cache, tokens: Sequence[int], every_row: bool = False) -> tuple[Tensor, dict[int, Tensor]]:
    """One call of the target: logits, and the states that the sentence model looks at."""
    return target.extend_with_hidden(cache, tokens, taps(target), every_row=every_row)
