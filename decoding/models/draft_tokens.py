"""How the tokens of a draft model go with those of the target: the same, nearly the same, or others altogether.

The same: nothing is to be done. Nearly the same (same pieces, other added tokens or padding, as in Qwen 2.5 and Qwen 3): the draft
model drafts with the ids that both share, in the target's ids. Others: its text must be re-encoded for the target
(`decoding.drafting.reencoded`), and it is kept in the family with its own tokenizer.
"""

from dataclasses import dataclass, field, fields
from typing import cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from decoding.models.target import Target
from decoding.models.token_bytes import token_bytes_maker

MOST_DIFFERENT = 200  # entries of two tokenizers that are nearly the same
SHARE = 10  # and at most one in so many, which matters for small vocabularies
SAMPLE = "the cat sat on the mat"


@dataclass(frozen=True, eq=False)
class SharedDraft(Target):
    """A draft model that speaks in the target's ids, those that both have under the same number; `vocab` is the target's.

    Its q is a distribution over the target's vocabulary, zero for ids that are not shared (`unused`), so whatever judges with q
    stays exact. An id that it does not have is fed to it as its unknown token, or as a space if it has none.
    """

    feeds: Tensor = field(kw_only=True)  # (vocab,) the id of its own that stands for each id of the target

    def fed(self, ids: Tensor) -> Tensor:
        return self.feeds[ids]

    def scores(self, logits: Tensor) -> Tensor:
        missing = max(0, self.vocab - logits.shape[-1])
        return super().scores(nn.functional.pad(logits, (0, missing), value=-torch.inf))


@dataclass(frozen=True, eq=False)
class OtherDraft:
    """A draft model whose tokens are not the target's."""

    model: Target
    tokenizer: PreTrainedTokenizerBase


@dataclass(frozen=True)
class Fitted:
    """A draft model as a family takes it: in the target's ids, or with other tokens; and what should be known of it."""

    draft: Target | None
    other: OtherDraft | None = None
    notes: tuple[str, ...] = ()


def fitted(target: Target, tokenizer: PreTrainedTokenizerBase, draft: Target, own: PreTrainedTokenizerBase, name: str) -> Fitted:
    """What `draft`, with the tokenizer `own` and called `name`, can do for a target.

    Raises:
        ValueError: the tokenizers differ, and the tokens of one do not spell its text, so that nothing can be re-encoded.
    """
    mine, theirs = pieces(tokenizer), pieces(own)
    different = sum(mine.get(token) != theirs.get(token) for token in mine.keys() | theirs.keys())
    if not different:
        return Fitted(draft)
    if different <= min(MOST_DIFFERENT, len(mine) // SHARE):
        note = (
            f"The tokenizer of the draft model {name!r} differs from the target's in {different:,} of {len(mine):,} entries. Those "
            "are never drafted; the others are shared."
        )
        return Fitted(in_target_ids(target, mine, draft, theirs, own), notes=(note,))
    differ = f"has another tokenizer than the target: {different:,} entries differ ({len(mine):,} against {len(theirs):,})"
    for words, what in ((tokenizer, "target"), (own, "draft model")):
        if not spells(words):
            raise ValueError(
                f"The draft model {name!r} {differ}, and its text cannot be re-encoded: the tokens of the {what} do not spell what "
                "they were made from."
            )
    note = (
        f"The draft model {name!r} {differ}. It serves Universal assisted drafting, which re-encodes its text for the target, and "
        "Byte drafting, which judges its bytes; the other methods need the target's tokens."
    )
    return Fitted(None, OtherDraft(draft, own), (note,))


def pieces(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """Id -> how the tokenizer spells it."""
    return {token: piece for piece, token in tokenizer.get_vocab().items()}


def in_target_ids(
    target: Target, mine: dict[int, str], draft: Target, theirs: dict[int, str], own: PreTrainedTokenizerBase
) -> SharedDraft:
    """The draft model in the target's ids.

    Args:
        mine, theirs: `pieces` of the target and of the draft model, whose tokenizer is `own`.
    """
    shared = [token for token in range(target.vocab) if token in mine and mine[token] == theirs.get(token)]
    feeds = torch.full((target.vocab,), stand_in(own, theirs))
    feeds[shared] = torch.tensor(shared)
    known = {part.name: getattr(draft, part.name) for part in fields(Target)}
    masked = tuple(sorted(set(range(target.vocab)) - set(shared)))
    # behind an end of the target's text nothing can be committed, whatever the draft model's own is
    own_view = {"vocab": target.vocab, "unused": masked, "ends": target.ends, "feeds": feeds.to(draft.device)}
    return SharedDraft(**(known | own_view))


def stand_in(tokenizer: PreTrainedTokenizerBase, known: dict[int, str]) -> int:
    """The id that is read in place of one that the tokenizer does not have: unknown, a space, or else the first one.

    Where the unknown token is also that of the end, as in GPT-2, it would tell the model that the text is over.
    """
    unknown = cast("int | None", tokenizer.unk_token_id)
    if unknown in known and unknown not in (tokenizer.eos_token_id, tokenizer.bos_token_id):
        return cast(int, unknown)
    space = tokenizer(" ", add_special_tokens=False)["input_ids"]
    return space[0] if len(space) == 1 and space[0] in known else min(known)


def spells(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the bytes of its tokens are the text that they were made from, but for a space in front."""
    bytes_of = token_bytes_maker(tokenizer)
    tokens = tokenizer(SAMPLE, add_special_tokens=False)["input_ids"]
    return b"".join(map(bytes_of, tokens)).removeprefix(b" ") == SAMPLE.encode()
