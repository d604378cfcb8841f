"""Future Token Prediction: cross-entropy of N outputs per place, the k-th weighing 0.8^k; the target stays as it is.

Walker 2024, https://arxiv.org/abs/2410.18160: nearer tokens count more, exponentially. Sizes and rate are those of a tiny target.
Of a window some places are drawn in every step, since each of them costs N tokens of the decoder. Departures: the weights are
divided by their sum; Muon for the matrices of the decoder (`decoding.training.fit`).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from decoding.methods.ftp import KEY, Decoder
from decoding.models.attention import Sizes
from decoding.models.target import Target
from decoding.training.precision import quick
from decoding.training.recipe import Recipe
from decoding.training.states import Batch, sizes_of_states

DECAY = 0.8  # weight of every output, of the one before
PLACES = 64  # of a window, in one step


def options(parser) -> None:
    parser.add_argument("--slots", type=int, default=8, help="vectors of the memory")
    parser.add_argument("--future", type=int, default=8, help="tokens that the decoder writes, the known one included")
    parser.add_argument("--blocks", type=int, default=2, help="blocks of the decoder")
    parser.add_argument("--mlp", type=int, default=0, help="width of the gated layers; 0: twice that of the target")


def init_head(target: Target, chosen) -> Decoder:
    """Untrained; the last norm begins with the size that every entry of the target's states has, or logits would begin flat."""
    of = Sizes.of(target)
    decoder = Decoder(Sizes(of.width, of.heads, chosen.mlp or 2 * of.width), chosen.slots, chosen.future, chosen.blocks)
    decoder.norm.weight.data.copy_(sizes_of_states(target))
    return decoder.to(target.device)


def behind(batch: Batch, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """(rows, length, count): the tokens 1, 2, ... places behind every one, 0 beyond the window; which may be learned; and where
    they stand among the logits."""
    tokens, counts, labels = (
        F.pad(part[:, 1:], (0, count)).unfold(1, count, 1) for part in (batch.tokens, batch.counts, batch.labels)
    )
    return tokens, counts, labels


def predict(decoder: Decoder, target: Target, batch: Batch):
    hidden = batch.states[target.last_hidden]
    tokens, _, _ = behind(batch, decoder.outputs - 1)
    with quick(hidden.device):
        vectors = decoder(hidden.flatten(0, 1), tokens.flatten(0, 1), target).unflatten(0, hidden.shape[:2])
    for k in range(decoder.outputs):
        with quick(hidden.device):
            yield target.score(vectors[:, :, k])


def loss(decoder: Decoder, target: Target, batch: Batch, done: float = 0.0) -> Tensor:
    """Mean cross-entropy in nats per output, weighed by 0.8^k, over places that are drawn and tokens that may be learned."""
    hidden = batch.states[target.last_hidden]
    rows, length = batch.tokens.shape
    sampled = torch.rand(rows, length - 1, generator=torch.Generator().manual_seed(batch.seed))
    places = sampled.topk(min(PLACES, length - 1)).indices.to(hidden.device)
    tokens, counts, labels = (
        part.gather(1, places[..., None].expand(-1, -1, part.shape[2])) for part in behind(batch, decoder.outputs)
    )
    tokens, counts, labels = tokens.flatten(0, 1), counts.flatten(0, 1), labels.flatten(0, 1)  # (rows * places, outputs)
    known = hidden.gather(1, places[..., None].expand(-1, -1, hidden.shape[2])).flatten(0, 1)
    with quick(hidden.device):
        logits = target.score(decoder(known, tokens[:, :-1], target))
    nats = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view_as(tokens) * counts
    weights = DECAY ** torch.arange(decoder.outputs, device=hidden.device)
    means = nats.sum(0) / counts.sum(0).clamp(min=1)
    return (means * weights).sum() / weights.sum()


def settings(decoder: Decoder) -> dict:
    sizes = decoder.sizes
    numbers = {"slots": decoder.slots, "outputs": decoder.outputs, "blocks": len(decoder.blocks)}
    return {"width": sizes.width, "heads": sizes.heads, "mlp": sizes.mlp} | numbers


def words(decoder: Decoder) -> str:
    return (
        f"Future Token Prediction: {decoder.slots} vectors from one state, {len(decoder.blocks)} decoder blocks, "
        f"{decoder.outputs} outputs; frozen target, the paper publishes no speed-up"
    )


RECIPE = Recipe(
    key=KEY,
    options=options,
    aux_hidden_layers=lambda target: (target.last_hidden,),
    init_head=init_head,
    loss=loss,
    predict=predict,
    settings=settings,
    words=words,
    first=0,  # the known token
)
