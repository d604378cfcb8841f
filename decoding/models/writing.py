"""Text that a target writes by itself, many texts at once; for datastores and for training, where no step need be seen."""

from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from decoding.models.target import Target

ROWS = 32  # texts of one batch
LENGTH = 400  # tokens of one text at most, its opening included
OPENING = 12  # tokens that are taken over from a text where openings come from texts


def sampled(target: Target, openings: Sequence[Sequence[int]], count: int) -> Iterator[np.ndarray]:
    """Texts of the target, each with the opening it goes on from, until they hold `count` tokens; the same ones every time."""
    written = number = 0
    while written < count:
        for text in batch(target, openings[number % len(openings)], seed=number):
            written += len(text) + 1
            yield text
        number += 1


@torch.inference_mode()
def batch(target: Target, opening: Sequence[int], seed: int) -> list[np.ndarray]:
    """ROWS texts behind `opening` at temperature 1, cut at the end token."""
    torch.manual_seed(seed)
    ids = target.ids(opening).expand(ROWS, -1)
    out = generated(
        target,
        ids,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_length=min(LENGTH, target.context),
        max_new_tokens=None,
    )
    return [up_to_end(row, len(opening), target.ends) for row in out.cpu().numpy()]


@torch.inference_mode()
def continued(target: Target, start: np.ndarray, length: int, *, greedy: bool, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """What the target writes behind (rows, given) tokens, at temperature 1 or greedily.

    Returns:
        (rows, given + length) all tokens; (rows, length) bool: the text had not ended before this one.
    """
    torch.manual_seed(seed)
    ids = torch.from_numpy(start).to(target.device)
    sampling: dict[str, Any] = {"do_sample": False} if greedy else {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
    text = generated(target, ids, max_new_tokens=length, **sampling)
    given = start.shape[1]
    text = nn.functional.pad(text, (0, given + length - text.shape[1]), value=pad_of(target))  # all have ended
    ended = torch.isin(text[:, given:], torch.tensor(list(target.ends), dtype=text.dtype, device=text.device)).cumsum(1)
    valid = nn.functional.pad(ended, (1, 0))[:, :-1] == 0
    return text.cpu().numpy(), valid.cpu().numpy()


def generated(target: Target, ids: Tensor, mask: Tensor | None = None, **options: Any) -> Tensor:
    """(rows, given) tokens and what the library's own loop puts behind them; rows that have ended are padded.

    Args:
        mask: (rows, given) 1 for a token, 0 for padding in front of a text; None: all are tokens.
    """
    generate = cast(Any, target.model).generate  # which every causal language model has, though not by its type
    mask = torch.ones_like(ids) if mask is None else mask
    return generate(ids, attention_mask=mask, pad_token_id=pad_of(target), **options)


def pad_of(target: Target) -> int:
    return min(target.ends, default=0)


def up_to_end(row: np.ndarray, start: int, ends: frozenset[int]) -> np.ndarray:
    """A text without its end token and what stands behind it."""
    found = np.flatnonzero(np.isin(row[start:], list(ends)))
    return row[: start + found[0]] if len(found) else row
