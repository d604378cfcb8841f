"""A chain of bytes, drawn from the byte view of a draft model with tokens of its own, and the target's tokens that could spell it.

Phan et al. 2024, https://arxiv.org/abs/2410.09303, section 3; which bytes stay is judged by `decoding.acceptance.byte_rejection`.
A byte is drawn from the very q that is handed on, so whatever is left out of q costs acceptance and nothing else. What is left out:
spellings that the draft model's tokenizer would never write, and the row behind a spelling that ends at a byte with less than SPARE
of the probability; in the middle of a token there is next to none, so the draft model is called about once per token of its own.

The text in front of the draft is retold in the draft model's tokens up to its last word; the beginnings of that word are spelled in
all ways (the cover of `decoding.models.byte_view`), as the target may stand where the draft model would never have begun a token.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from decoding.acceptance.byte_rejection import ByteDraft, ByteVerification
from decoding.draft import EMPTY, Draft
from decoding.drafting.reencoded import Ending
from decoding.method import Drafter, Observed
from decoding.models.byte_paths import Paths, closed, summed
from decoding.models.byte_view import END, LEAVE, REACH, SYMBOLS, Cover, Spelled, TargetRows, lefts_of, spelled_tree, tree_of
from decoding.models.draft_tokens import OtherDraft
from decoding.models.speller import cover_of
from decoding.models.spelling import Spelling, retold
from decoding.models.target import Target
from decoding.sample import Sampling, draw
from decoding.score_names import (
    BYTES_ACCEPTED,
    BYTES_DRAFTED,
    DRAFTED_BYTES,
    DRAFTER_TOKENS,
    P_OF_BYTE,
    Q_OF_BYTE,
    U_OF_BYTE,
)
from decoding.verify import NotFinite

SOURCE = "spelled bytes"
SPARE = 0.01  # of the probability of a text that may go on where no row was read
SEEN = 512  # bytes of the text in which its last word is looked for


class ByteChain(Drafter):
    """Drafts `length` bytes. The draft model's context does not limit the run: of a longer text it reads the end."""

    def __init__(self, target: Target, tokenizer, draft: OtherDraft, length: int, sampling: Sampling) -> None:
        self.words, self.own = Spelling(tokenizer), Spelling(draft.tokenizer)
        self.cover, self.own_cover = cover_of(tokenizer, target.vocab), cover_of(draft.tokenizer, draft.model.vocab)
        self.model, self.length, self.sampling = draft.model, length, sampling
        self.ending = Ending(len(self.own.front), draft.model.context, min(2 * REACH + length, draft.model.context // 2))
        self.rows: TargetRows | None = None

    @torch.inference_mode()
    def propose(self, tokens, rng) -> Draft:
        uniforms = torch.rand(self.length, generator=rng)
        tail = text_behind(tokens, self.words)
        own, half = retold(tokens, self.words, self.own)
        fixed, word = settled(own, half, tail, self.own_cover, self.own)
        if not fixed:
            return EMPTY
        before = self.rows.calls if self.rows else 0
        symbols, q = self._drawn(self.ending(fixed), word, uniforms)
        if not symbols:
            return EMPTY
        text = bytes(symbol for symbol in symbols if symbol != END)
        place = tree_of(self._spelled(tokens, tail, text))
        tree = spelled_tree(place)
        begun = self._begun(word, text)
        calls = self.rows.calls - before if self.rows else 0
        return ByteDraft(
            tree.tokens, tree.parents, source=(SOURCE,) * len(tree), calls=calls,
            symbols=tuple(symbols), byte_q=torch.stack(q), tries=self.cover.tries, begun=begun,
        )  # fmt: skip

    def _drawn(self, fixed: Sequence[int], word: bytes, uniforms: Tensor) -> tuple[list[int], list[Tensor]]:
        """Symbols and the q of each, behind the draft model's `fixed` tokens and `word`."""
        if self.rows is None:
            self.rows = TargetRows(self.model, fixed)
        else:
            self.rows.follow(fixed)
        paths = Paths(self.own_cover.tries)
        self._read(paths, [path for path, _ in lefts_of(self.own_cover, word, 0)])
        symbols: list[int] = []
        found: list[Tensor] = []
        for u in uniforms:
            text = word + bytes(symbols)
            mass = summed(paths.ways(text, len(text)))
            if mass[LEAVE] > SPARE * mass.sum():
                self._read(paths, self.own_cover.spellings(text))
                mass = summed(paths.ways(text, len(text)))
            mass, total = mass[:SYMBOLS], mass[:SYMBOLS].sum()
            if not total > 0:
                break
            found.append(self.sampling.probabilities((mass / total).log()[None])[0])
            symbols.append(int(draw(found[-1][None], u[None])))
            if symbols[-1] == END:
                break
        return symbols, found

    def _read(self, paths: Paths, sequences: Sequence[Spelled]) -> None:
        """Add the rows behind spellings; one call of the draft model, and one copy from its device."""
        assert self.rows is not None
        new = [path for path in closed(sequences) if path not in paths.reached]
        if not new:
            return
        rows = self.rows(new).cpu()
        if not bool(rows.isfinite().all()):
            raise NotFinite("drafter")
        for path, row in zip(new, rows, strict=True):
            paths.add(path, row)

    def _spelled(self, tokens: Sequence[int], tail: bytes, text: bytes) -> list[Spelled]:
        """How the target would spell every beginning of the drafted bytes behind its tokens; where these are not what its tokenizer
        would write, how it spells the bytes alone. A spelling is taken only if its own beginnings are, each for its own bytes: none
        is in the tree on account of bytes behind it."""
        word = tail[self.cover.speller.border(tail) :][-REACH:]
        before = ending_in(tokens, word, self.words)
        found: dict[Spelled, None] = {(): None}
        for end in range(1, len(text) + 1):
            whole = self.cover.spellings(word + text[:end]) if before else ()
            behind = [path[len(before or ()) :] for path in whole if path[: len(before or ())] == before]
            found |= dict.fromkeys(path for path in behind or self.cover.spellings(text[:end]) if path[:-1] in found)
        return list(found)

    def _begun(self, word: bytes, text: bytes) -> tuple[bool, ...]:
        """Whether the draft model's own tokenizer begins a token at each byte."""
        spelled = next(iter(self.own_cover.spellings(word + text)), ())
        places, starts = 0, set()
        for token in spelled:
            starts.add(places - len(word))
            places += len(self.own_cover.tries.pieces[token])
        return tuple(i in starts for i in range(len(text)))

    def observe(self, draft, output, verification) -> Observed | None:
        if not isinstance(draft, ByteDraft) or not isinstance(verification, ByteVerification):
            return None
        judged = (
            (Q_OF_BYTE, verification.byte_q),
            (P_OF_BYTE, verification.byte_p),
            (U_OF_BYTE, verification.byte_u),
        )
        facts = {name.format(i + 1): value for name, values in judged for i, value in enumerate(values)}
        facts |= {BYTES_DRAFTED: len(draft.symbols), BYTES_ACCEPTED: verification.accepted}
        grids = {DRAFTED_BYTES: torch.tensor(list(draft.text), dtype=torch.uint8)}
        grids[DRAFTER_TOKENS] = torch.tensor(draft.begun, dtype=torch.uint8)
        return Observed(facts=facts, grids=grids)


def text_behind(tokens: Sequence[int], words: Spelling) -> bytes:
    """The bytes of the last tokens of a text, behind its last mark."""
    found: list[bytes] = []
    size = 0
    for token in reversed(tokens):
        if token in words.special or size > SEEN:
            break
        found.append(words.bytes_of(token))
        size += len(found[-1])
    text = b"".join(reversed(found))
    return text.lstrip(bytes(range(0x80, 0xC0))) if size > SEEN else text


def settled(own: Sequence[int], half: bytes, tail: bytes, cover: Cover, words: Spelling) -> tuple[tuple[int, ...], bytes]:
    """A text in the draft model's tokens, without those of its last word, and that word; () where they do not fit together.

    Args:
        own, half: of `retold`.
        tail: the end of the text.
    """
    word = tail[cover.speller.border(tail) :]
    if len(word) > REACH:
        word = half
    count = ending_in(own, word[: len(word) - len(half)], words)
    return (tuple(own[: len(own) - len(count)]), word) if count is not None else ((), b"")


def ending_in(tokens: Sequence[int], word: bytes, words: Spelling) -> Spelled | None:
    """The last tokens, those that are exactly these bytes; None if there are none such."""
    size, count = 0, 0
    while size < len(word) and count < len(tokens):
        count += 1
        size += len(words.bytes_of(tokens[-count]))
    found = tuple(tokens[len(tokens) - count :])
    return found if words.said(found) == word else None
