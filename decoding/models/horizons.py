"""Horizons: how much of a sentence or an answer is still to come, and what reads it out of a target's state.

Ding et al. 2024, https://arxiv.org/abs/2410.03103, section 3: behind the t-th of M tokens the horizon is y = (M - t) / M, which a
linear map of the hidden state foretells. Here it is read out of the states of a target that was not trained for it; what was
measured is kept in one file of plain numbers, a few kilobytes per family and kind of unit. `python -m decoding.training horizon`
makes it.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import inf, isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from decoding.models.cache_folder import cache_folder
from decoding.models.family import Family
from decoding.models.heads import Fingerprint, fingerprint
from decoding.models.once import Once
from decoding.models.target import Target

SENTENCE, ANSWER = "sentence", "answer"
SHIPPED = Path(__file__).parent.parent / "embedded" / "horizon.json"
COMMAND = "python -m decoding.training horizon --family {} --data DIR"
END = re.compile(rb"[.!?](?:[\"')\]]|\xe2\x80[\x99\x9d])*(?=\s|\Z)\n*|\n\s*\n")
MARK = re.compile(rb"[.!?]")
MOST_LEFT = 999.0  # tokens that are ever foretold
_marked: Once[tuple[int, Tensor]] = Once("waiting until the vocabulary is gone through")  # by tokenizer: its tokens with a mark


def sentence_lengths(pieces: Sequence[bytes]) -> tuple[list[int], int]:
    """How many tokens each finished sentence of a text has, and how many the unfinished one behind them.

    >>> sentence_lengths([b"He", b" ran", b".", b' "', b"No", b'!"', b" She"])
    ([3, 3], 1)
    """
    stops = iter([*(match.end() for match in END.finditer(b"".join(pieces))), inf])
    found, at, size, stop = [], 0, 0, next(stops)
    for piece in pieces:
        at, size = at + len(piece), size + 1
        if at >= stop:
            found.append(size)
            size = 0
            while stop <= at:
                stop = next(stops)
    return found, size


def horizon(t: int | np.ndarray, length: int | np.ndarray) -> Any:
    """The share that is still to come behind the t-th of `length` tokens.

    >>> horizon(1, 4), horizon(4, 4)
    (0.75, 0.0)
    """
    return (length - t) / length


def tokens_left(t: float, share: float) -> float:
    """How many tokens are still to come if that share is, behind the t-th: t y / (1 - y).

    >>> tokens_left(3, 0.25), tokens_left(5, 1.0)
    (1.0, 999.0)
    """
    return min(MOST_LEFT, t * share / (1 - share)) if share < 1 else MOST_LEFT


def ending_tokens(family: Family, unit: str) -> Tensor:
    """(tokens,) ids that end a unit: of a sentence all with a mark in them, of an answer those that end a text. The
    vocabulary is gone through once."""
    if unit == ANSWER:
        return torch.tensor(sorted(family.target.ends), dtype=torch.long)
    vocab = family.target.vocab

    def gone_through() -> tuple[int, Tensor]:
        pieces = family.token_bytes(range(vocab))
        return vocab, torch.tensor([token for token, piece in pieces.items() if MARK.search(piece)], dtype=torch.long)

    return _marked.of(family.tokenizer, gone_through, lambda known: known[0] == vocab)[1]


# -- what reads it -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Probe:
    """What was fitted on the states of one target at one kind of unit."""

    said: str  # whose states it learned from, in words
    layer: int  # whose state `ridge` and `both` read
    position: tuple[float, ...]  # t - 1 -> the median horizon behind the t-th token; the last one serves all beyond
    ridge: np.ndarray  # (width + 1,) weights of the state, and a constant
    both: np.ndarray  # (width + 2,) of the state, of what the position says, and a constant
    head: np.ndarray  # (width + 1,) of the state behind the final norm; its sigmoid is the horizon
    figures: dict[str, dict[str, float]]  # reader -> what was measured on text that it never saw

    def by_position(self, t: int) -> float:
        """Counting alone."""
        return self.position[min(t, len(self.position)) - 1]

    def by_state(self, state: np.ndarray) -> float:
        """A (width,) state of `layer`, linearly."""
        return clipped(state @ self.ridge[:-1] + self.ridge[-1])

    def by_both(self, state: np.ndarray, t: int) -> float:
        """The same with what the position says."""
        return clipped(state @ self.both[:-2] + self.both[-2] * self.by_position(t) + self.both[-1])

    def by_head(self, state: np.ndarray) -> float:
        """A (width,) state behind the final norm, as the paper's head reads it."""
        return float(1 / (1 + np.exp(-np.clip(state @ self.head[:-1] + self.head[-1], -30, 30))))


def clipped(share: float) -> float:
    return float(min(1.0, max(0.0, share)))


def own_file() -> Path:
    """Where those of other families are kept on this machine."""
    return cache_folder() / "horizon.json"


@cache
def read_file(file: Path, changed: int) -> dict:
    return json.loads(file.read_text("utf-8"))


def probes() -> dict:
    """Family -> kind of unit -> what was measured: the shipped ones, and those made on this machine."""
    found: dict = {}
    for file in (SHIPPED, own_file()):
        if file.is_file():
            found = {**found, **read_file(file, file.stat().st_mtime_ns)}
    return found


def probe_of(name: str, target: Target, unit: str) -> Probe:
    """What reads the horizon out of the states of a family's target.

    Args:
        name: of the family; its draft model makes no difference.

    Raises:
        ValueError: nothing was learned for it, or from another model, or what is there is damaged.
    """
    name = name.partition(" + ")[0]
    known = probes().get(name, {})
    if unit not in known:
        raise ValueError(
            f"Nothing was learned of how long a {unit} of the family {name} is still to be. This does it, from a folder of text: "
            f"{COMMAND.format(name)}."
        )
    again = f"{COMMAND.format(name)} learns it anew."
    try:
        model, made = Fingerprint(known["model"]["shapes"], tuple(known["model"]["values"])), opened(known[unit])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"What was learned of the horizons of {name} is damaged: {error!r}. {again}") from error
    if not model.fits(fingerprint(target.model)):
        raise ValueError(f"What was learned of the horizons of {name} comes from other weights than those that are loaded. {again}")
    width, layers = target.model.config.hidden_size, target.last_hidden
    if {len(made.ridge), len(made.both) - 1, len(made.head)} != {width + 1} or not 0 <= made.layer <= layers:
        raise ValueError(f"What was learned of the horizons of {name} is of another width than {width:,}, its target's. {again}")
    return made


def opened(given: dict) -> Probe:
    """Plain numbers as a probe; KeyError, TypeError or ValueError if they cannot be one."""
    vectors = {name: np.array(given[name], dtype=np.float64) for name in ("ridge", "both", "head")}
    position = tuple(map(float, given["position"]))
    if not all(map(isfinite, [*position, *(value for vector in vectors.values() for value in vector)])) or not position:
        raise ValueError("numbers that are none")
    return Probe(str(given["said"]), int(given["layer"]), position, **vectors, figures=dict(given["figures"]))
