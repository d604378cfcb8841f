"""Falcon: regression on the states k places ahead, and the tokens that they stand for, with a part of the answers shown.

Gao et al. 2024, https://arxiv.org/abs/2412.12639, coupled sequential glancing distillation: a first pass without gradient; as many
answers as a share of its mistakes are shown, the share falling to nothing during training; a second pass that learns. What is shown
replaces state and token of a slot by the ones it is asked for, at the beginning of blocks, so that the rest of a block sees what
really stood before it.

Departures: whole blocks are picked at random in every window, each shows 1 to k - 1 of its first slots, and what was shown is not
learned, since it would be copied; blocks begin at a random place of every window; regression and noise are relative to the size of
the target's states; the tokens count ten times as much as in the paper, at this size the term that decides what is accepted; Muon
for the matrices (`decoding.training.fit`).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from decoding.methods.falcon import KEY, Head
from decoding.models.attention import Sizes
from decoding.models.target import Target
from decoding.training.precision import quick
from decoding.training.recipe import Recipe
from decoding.training.states import Batch, sizes_of_states

SHOWN = 0.4  # lambda at the beginning: answers shown, of the mistakes of the first pass
SOFT, TOKENS = 0.9, 1.0  # weight of the target's distribution among the tokens' terms, and of these beside the regression
NOISE = 0.1  # of the size of the states


def options(parser) -> None:
    parser.add_argument("--block", type=int, default=2, help="tokens per pass (k); the paper tries 2, 3 and 4")
    parser.add_argument("--layers", type=int, default=2, help="layers of the LSTM")


def init_head(target: Target, chosen) -> Head:
    """Untrained; the last norm begins with the sizes of the target's states, so that a slot about repeats its own state."""
    head = Head(Sizes.of(target), chosen.block, chosen.layers)
    head.norm.weight.data.copy_(sizes_of_states(target))
    return head.to(target.device)


def following(batch: Batch) -> Tensor:
    """(rows, length) the token behind every one; 0 behind the last."""
    return F.pad(batch.tokens[:, 1:], (0, 1))


def asked(head: Head, states: Tensor, tokens: Tensor, target: Target, visible: Tensor) -> Tensor:
    """(rows, length, width) states and the tokens behind them -> what the head makes of all slots, of the same shape.

    The LSTM is left in float32: a processor has no quick one in bfloat16.
    """
    rows, _ = head.recurrent(head.slots(states, tokens, target))
    return attended(head, rows, visible)


def attended(head: Head, rows: Tensor, visible: Tensor) -> Tensor:
    with quick(rows.device):
        positions = torch.arange(rows.shape[1], device=rows.device)[None]
        return head(rows, positions, *head.keys_values(rows, positions), visible).float()


def predict(head: Head, target: Target, batch: Batch):
    """Depth d at place t is slot d of the block that ends at t: slot t - (k - d) of the window, which sees k - d slots further."""
    states = batch.states[target.last_hidden]
    rows, _ = head.recurrent(head.slots(states, following(batch), target))
    everything = torch.ones(rows.shape[1], rows.shape[1], dtype=torch.bool, device=rows.device)
    for ahead in reversed(range(head.block)):
        found = attended(head, rows, everything.tril(ahead))
        with quick(rows.device):
            yield target.score(torch.cat((found[:, :1].expand(-1, ahead, -1), found), 1)[:, : rows.shape[1]])


def loss(head: Head, target: Target, batch: Batch, done: float = 0.0) -> Tensor:
    """Smooth L1 in units of the states' size, plus cross-entropies in nats with the target's distribution and with the token."""
    k, device = head.block, batch.tokens.device
    states, tokens = batch.states[target.last_hidden], following(batch)
    uniforms = torch.Generator().manual_seed(batch.seed)
    number = blocks(states.shape[:2], k, uniforms).to(device)
    visible = (number[:, None, :] <= number[:, :, None])[:, None]
    size = states.square().mean().sqrt()
    noise = (2 * torch.rand(states.shape, generator=uniforms) - 1).to(device) * NOISE * size
    wanted, answers = F.pad(states[:, k:], (0, 0, 0, k)), F.pad(tokens[:, k:], (0, k))
    labels = F.pad(batch.labels[:, k + 1 :], (0, k + 1))  # the answers, among the logits
    counts = F.pad(batch.counts[:, k + 1 :], (0, k + 1))
    with torch.no_grad(), quick(device):
        p = target.score(wanted[counts]).softmax(-1)
        first = asked(head, states + noise, tokens, target, visible)
        wrong = torch.zeros_like(counts)
        wrong[counts] = target.score(first[counts]).argmax(-1) != labels[counts]
        shown = glanced(number, (SHOWN * (1 - done) * wrong.sum(1)).long(), uniforms)
        shown[:, -k - 1 :] = False  # their answers stand beyond the window
    states = torch.where(shown[..., None], wanted, states + noise)
    found = asked(head, states, torch.where(shown, answers, tokens), target, visible)
    learned = counts & ~shown
    with quick(device):
        logits = target.score(found[learned])
    near = F.smooth_l1_loss(found[learned] / size, wanted[learned] / size)
    soft, hard = F.cross_entropy(logits, p[~shown[counts]]), F.cross_entropy(logits, labels[learned])
    return near + TOKENS * (SOFT * soft + (1 - SOFT) * hard)


def blocks(shape: tuple[int, int], k: int, uniforms: torch.Generator) -> Tensor:
    """(rows, length) the number of every slot's block; the first block of a window has 1 to k slots."""
    rows, length = shape
    return (torch.arange(length) + torch.randint(k, (rows, 1), generator=uniforms)) // k


def glanced(number: Tensor, most: Tensor, uniforms: torch.Generator) -> Tensor:
    """(rows, length) bool: slots whose answer is shown.

    Args:
        number: (rows, length) of the blocks.
        most: (rows,) at most so many per window.
    """
    rows, count, device = len(number), int(number.max()) + 1, number.device
    sizes = torch.zeros(rows, count, dtype=torch.long, device=device).scatter_add_(1, number, torch.ones_like(number))
    prefix = (torch.rand(rows, count, generator=uniforms).to(device) * (sizes - 1)).long() + 1  # 1 to k - 1
    prefix = torch.where(sizes > 1, prefix, 0)
    order = torch.rand(rows, count, generator=uniforms).argsort(1).to(device)
    fits = prefix.gather(1, order).cumsum(1) <= most[:, None]
    prefix = torch.zeros_like(prefix).scatter_(1, order, prefix.gather(1, order) * fits)
    begins = torch.searchsorted(number, torch.arange(count, device=device).expand(rows, -1).contiguous())
    place = torch.arange(number.shape[1], device=device) - begins.gather(1, number)
    return place < prefix.gather(1, number)


def settings(head: Head) -> dict:
    sizes = head.sizes
    return {"width": sizes.width, "heads": sizes.heads, "mlp": sizes.mlp, "block": head.block, "layers": head.lstm.num_layers}


def words(head: Head) -> str:
    return f"Falcon: an LSTM of {head.lstm.num_layers} layers and one of attention, {head.block} tokens per pass"


RECIPE = Recipe(
    key=KEY,
    options=options,
    aux_hidden_layers=lambda target: (target.last_hidden,),
    init_head=init_head,
    loss=loss,
    predict=predict,
    settings=settings,
    words=words,
)
