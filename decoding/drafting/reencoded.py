"""A draft model that has tokens of its own: it writes text, and the text is re-encoded for the target (string-level exact match).

Timor et al., ICML 2025, https://arxiv.org/abs/2502.05202; universal assisted generation in transformers. The nodes are
chosen, not drawn from a q over the target's tokens, so only matching is exact for them. Departures: the draft model always writes
its likeliest token, which where both models agree is what the target draws most often; both ways of spelling are compared byte by
byte, and text that does not survive the way is not drafted. Where the text ends within a character, the draft model must first
write that character; it ends a draft at a special token, and its end of text becomes the target's.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from math import isfinite

import torch

from decoding.draft import EMPTY, Draft, chain
from decoding.method import Drafter
from decoding.models.draft_tokens import OtherDraft
from decoding.models.spelling import Spelling, retold
from decoding.models.target import Target
from decoding.verify import NotFinite

SOURCE = "draft model, re-encoded"


class Reencoded(Drafter):
    """Drafts what `length` tokens of the draft model say. Its context does not limit the run: of a longer text it reads the end."""

    def __init__(self, target: Target, words: Spelling, draft: OtherDraft, length: int) -> None:
        self.target, self.words = target, words
        self.model, self.own = draft.model, Spelling(draft.tokenizer)
        self.length = min(length, self.model.context // 2)
        self.ending = Ending(len(self.own.front), self.model.context, self.length)
        self.cache = self.model.new_cache()
        self.read: list[int] = []  # the draft model's tokens in its cache

    def propose(self, tokens, rng) -> Draft:
        text, half = retold(tokens, self.words, self.own)
        if not text or self.length < 1:
            return EMPTY
        written, ended, calls = self._write(self.ending(text))
        new = []
        if written.startswith(half):  # it begins with the character that the text broke off in
            new = self.words.continued(tokens, written[len(half) :])
            if ended and self.target.ends and self.words.said(new) == written[len(half) :]:
                new.append(self._end())
        return replace(chain(new, SOURCE), calls=calls)

    def _end(self) -> int:
        own = self.words.tokenizer.eos_token_id
        return own if own in self.target.ends else min(self.target.ends)

    @torch.inference_mode()
    def _write(self, text: list[int]) -> tuple[bytes, bool, int]:
        """What the draft model writes behind a text, whether it ended there, and how often it was called."""
        known = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(self.read, text[:-1], strict=False)))
        self.cache.cut(known)
        logits, calls, drafted = self.model.extend(self.cache, text[known:]), 1, []
        while True:
            value, token = torch.stack([part.float() for part in logits[0].max(-1)]).tolist()  # the one copy of a call
            if not isfinite(value):
                raise NotFinite("drafter")
            if int(token) in self.model.ends or int(token) in self.own.special:
                break
            drafted.append(int(token))
            if len(drafted) == self.length:
                break
            logits = self.model.extend(self.cache, drafted[-1:])
            calls += 1
        self.read = [*text, *drafted][: self.cache.committed]
        return self.own.said(drafted), int(token) in self.model.ends, calls


class Ending:
    """The end of a growing text that leaves room for a draft. Half of it is given up at once, as each change costs a pass over all.

    Args:
        front: tokens in front of every text, which stay.
        context, room: tokens that fit, and that are to be left free.
    """

    def __init__(self, front: int, context: int, room: int) -> None:
        self.front, self.most = front, context - room - front
        self.skipped = 0  # tokens at the beginning of the text that no longer fit

    def __call__(self, text: Sequence[int]) -> list[int]:
        body = text[self.front :]
        if len(body) - self.skipped > self.most:
            self.skipped = len(body) - max(1, self.most // 2)
        self.skipped = max(0, min(self.skipped, len(body) - 1))
        return [*text[: self.front], *body[self.skipped :]]
