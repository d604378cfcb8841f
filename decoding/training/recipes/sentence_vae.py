"""SentenceVAE: first an auto-encoder of sentences, then the next sentence from the target's states as well.

An, Chen, Sun and Li 2024, https://arxiv.org/abs/2408.00655, section 3.4: the encoder and the decoder learn to give sentences back
before everything is trained together. Sentences stand in their windows as they are; a mask keeps them apart, so that nothing is
padded.

Departures. Cross-entropy in place of the focal loss. The second part keeps the first loss, or the vectors would drift away from
what the encoder means by them, and adds the squared distance of z from e, which learns nothing from it. z is learned from the
state behind the sentence before, from the one in front of that, which is all that is known while a sentence's last token is the
root, and from states inside the sentence, for drafts that ask anew at every call. For some sentences the vector is zero: what is
then foretold is what the words before say without it.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from decoding.models.attention import Sizes
from decoding.models.family import Family
from decoding.models.sentence_model import KEY, SentenceModel, described, ends_sentence, sentences, taps
from decoding.models.target import Target
from decoding.training.precision import quick
from decoding.training.recipe import Recipe
from decoding.training.states import Batch, sizes_of_states

ALONE = 0.3  # of the training, in which it is an auto-encoder alone
NEAR = 1.0  # weight of the distance of z from e, against nats
VAGUE = 0.25  # of the usual size of a state
WITHOUT = 0.1  # of the sentences, whose vector is zero


def options(parser) -> None:
    parser.add_argument("--blocks", type=int, default=1, help="layers of the encoder and of the decoder; the paper has 1, 2 or 4")
    parser.add_argument("--inner", type=int, default=512, help="width between the two layers of the predictor")
    parser.add_argument("--mlp", type=int, default=0, help="width of the gated layers; 0: twice that of the target")


def init_head(target: Target, chosen) -> SentenceModel:
    """Untrained; the decoder's last norm begins with a part of the size that every entry of the target's states has, so that
    the first guesses are vague."""
    of = Sizes.of(target)
    model = SentenceModel(Sizes(of.width, of.heads, chosen.mlp or 2 * of.width), chosen.blocks, chosen.inner)
    model.decoder.norm.weight.data.copy_(VAGUE * sizes_of_states(target))
    return model.to(target.device)


def told(model: SentenceModel, family: Family) -> None:
    """Which of the family's tokens end a sentence."""
    pieces = family.token_bytes(range(family.target.vocab))
    model.ends = frozenset(token for token, piece in pieces.items() if ends_sentence(piece)) | family.target.ends


# -- sentences in windows ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cut:
    """Where the sentences of some windows are; S is the largest number of them in one."""

    number: Tensor  # (rows, length) of the sentence that a token is of, from 0; S for tokens of none
    places: Tensor  # (rows, length) of a token in its sentence, from 0
    first: Tensor  # (rows, S) where each begins, 1 for those that are not there
    last: Tensor  # (rows, S) its last token
    whole: Tensor  # (rows, S) bool: it is there and ends inside the window

    @property
    def together(self) -> Tensor:
        """(rows, length, length) bool: tokens of one sentence."""
        return self.number[:, :, None] == self.number[:, None, :]

    def of_tokens(self, values: Tensor) -> Tensor:
        """(rows, S, ...) of the sentences -> (rows, length, ...) of their tokens; zeros for tokens of none."""
        padded = F.pad(values, (0,) * (2 * (values.ndim - 2)) + (0, 1))
        index = self.number.reshape(self.number.shape + (1,) * (values.ndim - 2))
        return padded.gather(1, index.expand(-1, -1, *values.shape[2:]))


def cut(tokens: Tensor, ends) -> Cut:
    """The sentences of (rows, length) tokens, from the second token on: of the first there is no state in front."""
    rows, length = tokens.shape
    found = [sentences(row, ends) for row in tokens.tolist()]
    most = max(map(len, found))
    number, places = torch.full((rows, length), most), torch.zeros(rows, length, dtype=torch.long)
    first, last = torch.ones(rows, most, dtype=torch.long), torch.ones(rows, most, dtype=torch.long)
    whole = torch.zeros(rows, most, dtype=torch.bool)
    for row, parts in enumerate(found):
        for k, (start, stop) in enumerate(parts):
            if start < stop:
                number[row, start:stop], places[row, start:stop] = k, torch.arange(stop - start)
                first[row, k], last[row, k] = start, stop - 1
                whole[row, k] = k + 1 < len(parts)
    return Cut(*(part.to(tokens.device) for part in (number, places, first, last, whole)))


def vectors_of(model: SentenceModel, target: Target, batch: Batch, parts: Cut) -> Tensor:
    """(rows, S, width) the e of every sentence."""
    rows = model.encoder(model.embedded(batch.tokens, target), parts.places, parts.together)
    members = (parts.number[:, None] == torch.arange(parts.first.shape[1], device=rows.device)[:, None]).to(rows.dtype)
    return model.encoder.norm(members @ rows)


def decoded(model: SentenceModel, target: Target, batch: Batch, parts: Cut, vectors: Tensor) -> Tensor:
    """(rows, length, width) what the decoder says at every token from those before it in its sentence and (rows, S, width)."""
    before = model.embedded(F.pad(batch.tokens[:, :-1], (1, 0)), target)
    own, decoder = parts.of_tokens(vectors), model.decoder
    rows = torch.where(parts.places[..., None] == 0, decoder.first(own), decoder.rows(before, parts.places, own))
    return decoder(rows, parts.places, parts.together.tril()[:, None])


def foretold(model: SentenceModel, target: Target, batch: Batch, at: Tensor) -> Tensor:
    """(rows, S, width) z from the states at (rows, S) tokens."""
    taken = (batch.states[layer].gather(1, at[..., None].expand(-1, -1, model.sizes.width)) for layer in taps(target))
    return model.predictor(*taken)


# -- what the training program asks for --------------------------------------------------------------------------------


def predict(model: SentenceModel, target: Target, batch: Batch):
    """What a draft says with the vector that is made once per sentence, behind the one before."""
    parts = cut(batch.tokens, model.ends)
    with quick(batch.tokens.device):
        seen = decoded(model, target, batch, parts, foretold(model, target, batch, parts.first - 1))
        yield target.score(seen.roll(-2, 1))  # the root, one place ahead, is known


def loss(model: SentenceModel, target: Target, batch: Batch, done: float = 0.0) -> Tensor:
    """Mean cross-entropy in nats of the tokens of whole sentences, given e; later also given z, and the distance of z from e."""
    parts = cut(batch.tokens, model.ends)
    learned = parts.of_tokens(parts.whole) & batch.counts
    with quick(batch.tokens.device):
        vectors = vectors_of(model, target, batch, parts)
        total = nats(target, decoded(model, target, batch, parts, vectors), batch, learned)
        if done < ALONE:
            return total
        at, zero = drawn(parts, batch.seed)
        z = foretold(model, target, batch, at)
        behind = torch.arange(batch.tokens.shape[1], device=at.device) > parts.of_tokens(at)
        ahead = decoded(model, target, batch, parts, z.masked_fill(zero[..., None], 0.0))
        apart = mean((z - vectors.detach()).float().square().mean(-1)[parts.whole])
        return total + nats(target, ahead, batch, learned & behind) + NEAR * apart


def nats(target: Target, seen: Tensor, batch: Batch, learned: Tensor) -> Tensor:
    """Mean over the tokens that are learned."""
    return mean(F.cross_entropy(target.score(seen[learned]).float(), batch.labels[learned], reduction="none"))


def mean(values: Tensor) -> Tensor:
    """0 of none: a batch may have no whole sentence."""
    return values.sum() / max(1, len(values))


def drawn(parts: Cut, seed: int) -> tuple[Tensor, Tensor]:
    """(rows, S) the token whose state each z is made from, and whether the vector is zero instead. The same for the same seed."""
    rng = torch.Generator().manual_seed(seed)
    kind, where, zero = (torch.rand(parts.first.shape, generator=rng).to(parts.first.device) for _ in range(3))
    inside = parts.first - 1 + (where * (parts.last - parts.first + 1)).long()
    at = torch.where(kind < 1 / 3, parts.first - 2, torch.where(kind < 2 / 3, parts.first - 1, inside))
    return at.clamp(min=0), zero < WITHOUT


def words(model: SentenceModel) -> str:
    blocks = len(model.decoder.blocks)
    return (
        f"SentenceVAE: a sentence encoder and a decoder of {blocks} {'layer' if blocks == 1 else 'layers'} each, and the vector of "
        "the next sentence from two states; frozen target, no variational part"
    )


RECIPE = Recipe(
    key=KEY,
    options=options,
    aux_hidden_layers=taps,
    init_head=init_head,
    loss=loss,
    predict=predict,
    settings=described,
    words=words,
    told=told,
)
