"""A sorted draft model: one stack of layers that can answer after several of them, always through the same norm and head.

Kavehzadeh et al. 2024, "S2D: Sorted Speculative Decoding", https://arxiv.org/abs/2407.01955: the prefixes of the stack are
language models themselves, trained together. Such a model is a plain Hugging Face folder of a Llama whose config carries
`exits`, the numbers of layers after which it may answer; read as any Llama it is its deepest sub-model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from decoding.models.cache import TreeCache
from decoding.models.layers import causal, through
from decoding.models.target import PREFILL_ROWS, Target

# -- the model ---------------------------------------------------------------------------------------------------------


def exits_of(config: PreTrainedConfig) -> tuple[int, ...]:
    """After how many layers the model may answer, ascending; () if it is not a sorted one."""
    return tuple(getattr(config, "exits", None) or ())


def check_exits(config: PreTrainedConfig, source: str) -> None:
    """Refuse exits that cannot be, or an architecture whose layers cannot be read one by one here (ValueError)."""
    exits = getattr(config, "exits", None)
    if exits is None:
        return
    if config.model_type != "llama":
        raise ValueError(f"{source!r} names exits, but a sorted draft model must be a Llama; this one is a {config.model_type}.")
    layers = config.num_hidden_layers
    whole = isinstance(exits, list | tuple) and all(isinstance(e, int) and not isinstance(e, bool) for e in exits)
    if not whole or not exits or list(exits) != sorted(set(exits)) or exits[0] < 1 or exits[-1] != layers:
        raise ValueError(
            f"The exits of a sorted draft model must ascend from 1 or more to its number of layers; those of {source!r}, which has "
            f"{layers}, are {exits!r}."
        )


def segments(exits: Sequence[int]) -> list[range]:
    """The layers between one exit and the next.

    >>> segments((1, 2, 4))
    [range(0, 1), range(1, 2), range(2, 4)]
    """
    return [range(first, last) for first, last in pairwise((0, *exits))]


def exit_states(model: PreTrainedModel, tokens: Tensor) -> list[Tensor]:
    """What the head reads after every exit, in one pass: (batch, length) tokens -> per exit (batch, length, width) states."""
    hidden = model.model.embed_tokens(tokens)
    positions = torch.arange(tokens.shape[1], device=tokens.device)[None]
    fused = model.config._attn_implementation == "sdpa"  # explicit attention without a mask would look ahead
    mask = None if fused else causal(tokens.shape[1], 0, hidden)
    found = []
    for layers in segments(exits_of(model.config)):
        hidden = through(model, hidden, layers, positions, mask)
        found.append(model.model.norm(hidden))
    return found


def exit_logits(model: PreTrainedModel, tokens: Tensor) -> list[Tensor]:
    """What every sub-model says about a text, in one pass: (batch, length) tokens -> per exit (batch, length, vocab) logits."""
    return [model.lm_head(states) for states in exit_states(model, tokens)]


# -- one run -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """How one distribution came about."""

    confidences: tuple[float, ...]  # at every exit that was met, the last one is the one that answered
    rows: int  # tokens read for the first time: 1, or 2 behind a step in which everything was accepted
    passes: int  # rows times layers, those included that had waited


class SortedModel:
    """One run's view of a sorted draft model; does for a chain what `DraftModel` does.

    Keys and values are kept per segment, the layers between two exits. A row that left at exit j waits, as the hidden state it left
    with, until a later row goes deeper, and is then read by the next segment in front of that one. So every distribution is that of
    the plain sub-model on the whole text, and at all times the rows of a segment are those of the next and those waiting there.

    Args:
        thresholds: (exits - 1,) an exit but the last answers if its largest probability, at temperature 1 and before any filter, is
            above its threshold.
    """

    def __init__(self, target: Target, thresholds: Sequence[float]) -> None:
        self.target = target
        self.exits = exits_of(target.model.config)
        self.thresholds = tuple(thresholds)
        if len(self.thresholds) != len(self.exits) - 1:
            raise ValueError(f"{len(self.thresholds)} thresholds do not fit {len(self.exits)} exits; all but the last have one.")
        self.segments = segments(self.exits)
        self.cache = TreeCache()
        empty = torch.zeros(1, 0, target.model.config.hidden_size, dtype=target.dtype, device=target.device)
        self.waiting = [empty for _ in self.segments]  # (1, rows, width) in front of each segment; of the first nothing waits
        self.answers: list[Answer] = []  # since `root`
        self._tokens = 0  # of the text below which the chain grows

    @property
    def calls(self) -> int:
        return len(self.answers)

    def length(self, segment: int) -> int:
        """Rows whose keys and values a segment holds."""
        first = self.segments[segment].start
        return self.cache.layers[first].length if first < len(self.cache.layers) else 0

    @torch.inference_mode()
    def begin(self, tokens: Sequence[int]) -> None:
        """Read the prompt up to the root with all layers, as the authors' code does."""
        for start in range(0, len(tokens) - 1, PREFILL_ROWS):
            hidden = self._embedded(self.target.ids(tokens[start : min(start + PREFILL_ROWS, len(tokens) - 1)]))
            for segment in range(len(self.segments)):
                hidden = self._after(segment, hidden)

    def root(self, tokens: Sequence[int]) -> Tensor:
        """(1, vocab) logits after the committed text; starts a new chain."""
        self.answers, self._tokens = [], len(tokens)
        return self.answer(self.target.ids(tokens[self.length(0) :]))

    def extend(self, tokens: Tensor, parents: Sequence[int]) -> Tensor:
        """(1, vocab) logits after the next token of the chain, (1,); its parent is the token before."""
        return self.answer(tokens)

    @torch.inference_mode()
    def answer(self, ids: Tensor) -> Tensor:
        """Read (rows,) tokens; (1, vocab) float32 logits behind the last one, of the first exit that is sure enough."""
        hidden = self._embedded(ids)
        confidences: list[float] = []
        passes = 0
        for segment, layers in enumerate(self.segments):
            hidden = self._after(segment, hidden)
            passes += hidden.shape[1] * len(layers)
            logits = self._logits(hidden[:, -1])
            confidences.append(logits.softmax(-1).max().item())
            if segment < len(self.thresholds) and confidences[-1] > self.thresholds[segment]:
                self.waiting[segment + 1] = torch.cat((self.waiting[segment + 1], hidden), 1)
                break
        self.answers.append(Answer(tuple(confidences), len(ids), passes))
        return logits

    def keep(self, path: Sequence[int]) -> None:
        """Commit the accepted tokens that were read and forget the others."""
        self.crop(min(self._tokens + len(path), self.length(0)))

    def crop(self, count: int) -> None:
        """Forget all but the first `count` rows. Those that wait are the newest of their segment."""
        kept = [min(self.length(segment), count) for segment in range(len(self.segments))]
        for rows, layers in zip(kept, self.segments, strict=True):
            for layer in self.cache.layers[layers.start : layers.stop]:
                layer.keep(rows, None, 0)
        for segment in range(1, len(self.segments)):
            self.waiting[segment] = self.waiting[segment][:, : kept[segment - 1] - kept[segment]]

    def _embedded(self, ids: Tensor) -> Tensor:
        return self.target.embedded(ids)[None]

    def _after(self, segment: int, hidden: Tensor) -> Tensor:
        """The rows that wait in front of a segment, and these, behind it."""
        if segment:
            hidden = torch.cat((self.waiting[segment], hidden), 1)
            self.waiting[segment] = hidden[:, :0]
        before, rows = self.length(segment), hidden.shape[1]
        positions = torch.arange(before, before + rows, device=hidden.device)[None]
        mask = causal(rows, before, hidden)
        return through(self.target.model, hidden, self.segments[segment], positions, mask, self.cache)

    def _logits(self, hidden: Tensor) -> Tensor:
        model = self.target.model
        return self.target.scores(model.lm_head(model.model.norm(hidden)))
