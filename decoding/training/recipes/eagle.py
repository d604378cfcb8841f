"""EAGLE: the head reads its own outputs while it is trained, as it will when it drafts; the target stays as it is.

Li et al. 2025, https://arxiv.org/abs/2503.01840, section 3.2 (training-time test): the head is unrolled on a whole text, at first
with the target's states, then with its own, the true token always one further on; the t-th step weighs 0.8^t, its loss the
cross-entropy with the target's distribution. Kind eagle (Li et al. 2024, https://arxiv.org/abs/2401.15077, section 3.1): a tenth of
that beside the distance of the state from the target's, and noise on what goes in; `--steps 1` is the paper's training.

Departures, at this size: 4 steps rather than 7; only some places of every window ask and are scored, though all are seen
(`--places`), which makes a step three times as quick; states are divided by their root mean square before they are compared, and
the noise is in proportion to it (they are small here, where a smooth L1 distance is a square); Muon for matrices
(`decoding.training.fit`); an untrained head puts out the state it got, so that there is something to begin with.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from decoding.models.attention import Attention
from decoding.models.eagle_head import KEY, KINDS, RANKS, Heads, init_head, layers_of
from decoding.models.heads import Settings
from decoding.models.target import Target
from decoding.training.precision import quick
from decoding.training.recipe import Recipe
from decoding.training.states import Batch

DECAY = 0.8  # weight of every step, of the one before
STEPS = 4  # tokens foretold one after the other
FEATURES, WORDS = 1.0, 0.1  # kind eagle: weights of the two distances
NOISE = 0.1  # kind eagle: of the root mean square, either way


def options(parser) -> None:
    parser.add_argument("--kind", choices=KINDS, default="eagle3", help="eagle: EAGLE and EAGLE-2; eagle3: EAGLE-3")
    parser.add_argument("--own-lm-head", action="store_true", help="eagle3: a language-model head of its own, as in the paper")
    parser.add_argument("--steps", type=int, default=STEPS, help="of the head on its own outputs; the paper has 7")
    parser.add_argument("--places", type=int, default=64, help="of every window that ask and are scored")


def made(target: Target, chosen) -> Heads:
    heads = init_head(target, chosen.kind, chosen.own_lm_head)
    heads.steps, heads.places = chosen.steps, chosen.places  # of the training, not of the head
    return heads


# -- the head on its own outputs ---------------------------------------------------------------------------------------


def unrolled(heads: Heads, target: Target, tokens: Tensor, mixed: Tensor, places: Tensor, steps: int):
    """Yields, step by step, what the head puts out when a draft starts at each of some places and is always given the true token.

    At step t a place p stands at position p + t and sees every slot of the text up to p, and its own steps 1 to t.

    Args:
        tokens: (rows, length).
        mixed: (rows, length, width) the state of every slot, from the target.
        places: (rows, some) slots that ask, length - 2 at most.

    Yields:
        (rows, some, width), steps times; behind the end of the text the last token is given again.
    """
    attention, last = heads.attention, tokens.shape[1] - 1
    embedded = heads.embedded(tokens, target)
    residual, asked = heads.slot(mixed[:, :-1], embedded[:, 1:])
    everywhere = torch.arange(last, device=tokens.device)[None]
    text = attention.keys_values(asked, everywhere)
    hidden = everywhere[:, None, None] > places[:, None, :, None]  # (rows, 1, some, length - 1)
    residual, asked = chosen(residual, places), chosen(asked, places)
    own: list[tuple[Tensor, Tensor]] = []
    for step in range(steps):
        state = heads.finish(residual, attended(attention, asked, places + step, text, hidden, own))
        yield state
        residual, asked = heads.slot(state, chosen(embedded, (places + 2 + step).clamp(max=last)))
        own.append(attention.keys_values(asked, places + step + 1))


def chosen(rows: Tensor, places: Tensor) -> Tensor:
    """(rows, length, width) at (rows, some) places -> (rows, some, width)."""
    return rows.gather(1, places[..., None].expand(-1, -1, rows.shape[-1]))


def attended(attention: Attention, asked: Tensor, positions: Tensor, text, hidden: Tensor, own) -> Tensor:
    """What attention finds for rows that see the text but for what is hidden, and of each pair in `own` the row in their place."""
    queries = attention.split(attention.q_proj(asked))
    cos, sin = attention.rotary(asked, positions)
    queries = apply_rotary_pos_emb(queries, queries, cos, sin)[0]
    groups = queries.shape[1] // text[0].shape[1]
    (keys, values), *own = [[part.repeat_interleave(groups, 1) for part in pair] for pair in (text, *own)]
    scores = (queries @ keys.transpose(2, 3)).masked_fill(hidden, -torch.inf)
    scores = torch.cat([scores, *((queries * key).sum(-1, keepdim=True) for key, _ in own)], -1)
    weights = (scores.float() * queries.shape[-1] ** -0.5).softmax(-1).to(values.dtype)
    found = weights[..., : keys.shape[2]] @ values
    for number, (_, value) in enumerate(own):
        found = found + weights[..., keys.shape[2] + number, None] * value
    return attention.o_proj(found.transpose(1, 2).flatten(-2))


def states(heads: Heads, batch: Batch) -> list[Tensor]:
    return [batch.states[aux_layer] for aux_layer in heads.shape.aux_hidden_layers]


def predict(heads: Heads, target: Target, batch: Batch):
    rows, length = batch.tokens.shape
    places = torch.arange(length - 1, device=batch.tokens.device).expand(rows, -1)
    with quick(batch.tokens.device):
        mixed = heads.mixed(states(heads, batch))
        found = list(unrolled(heads, target, batch.tokens, mixed, places, STEPS))
    for state in found:
        with quick(state.device):
            yield F.pad(heads.scored(state, target), (0, 0, 0, 1))  # no slot stands at the last place


# -- the loss ----------------------------------------------------------------------------------------------------------


def loss(heads: Heads, target: Target, batch: Batch, done: float = 0.0) -> Tensor:
    """Weighed sum over the steps of the mean distance at places whose token may be learned, in nats."""
    device, last = batch.tokens.device, target.last_hidden
    rng = torch.Generator(device).manual_seed(batch.seed)
    steps = min(heads.steps, batch.tokens.shape[1] - 2)
    places = sampled(batch.tokens.shape[0], batch.tokens.shape[1] - 1 - steps, heads.places, rng)
    eagle = heads.shape.kind == "eagle"
    total = torch.zeros((), device=device)
    with quick(device):
        mixed = heads.mixed(states(heads, batch))
        if eagle:
            mixed = mixed + NOISE * size(mixed) * (2 * torch.rand(mixed.shape, generator=rng, device=device) - 1)
        for step, state in enumerate(unrolled(heads, target, batch.tokens, mixed, places, steps)):
            counts = batch.counts.gather(1, places + 2 + step)
            true = chosen(batch.states[last], places + 1 + step)[counts]
            with torch.no_grad():
                p = target.score(true).softmax(-1)
            apart = F.cross_entropy(heads.scored(state[counts], target).float(), p)
            if eagle:
                scale = size(true)
                apart = FEATURES * F.smooth_l1_loss(state[counts].float() / scale, true / scale) + WORDS * apart
            total = total + DECAY**step * apart
    return total


def size(states: Tensor) -> Tensor:
    """(..., width) -> (..., 1) root mean square."""
    return states.float().square().mean(-1, keepdim=True).sqrt().clamp(min=1e-6)


def sampled(rows: int, most: int, count: int, rng: torch.Generator) -> Tensor:
    """(rows, count) different places below `most` in every row, ascending; all of them if there are no more."""
    order = torch.rand(rows, most, generator=rng, device=rng.device).argsort(1)
    return order[:, :count].sort(1).values


def settings(heads: Heads) -> Settings:
    shape = heads.shape
    found = {name: getattr(shape, name) for name in shape.__dataclass_fields__}
    return found | {"aux_hidden_layers": list(shape.aux_hidden_layers)}


def words(heads: Heads) -> str:
    which = {"eagle": "EAGLE: one layer on the last state", "eagle3": "EAGLE-3: one layer on a mix of three states"}
    whose = "a language-model head of its own" if heads.shape.vocab else "the target's language-model head"
    return f"{which[heads.shape.kind]}, and {whose}"


RECIPE = Recipe(
    key=KEY,
    options=options,
    aux_hidden_layers=lambda target: (target.last_hidden, *layers_of(target)),
    init_head=made,
    loss=loss,
    predict=predict,
    settings=settings,
    words=words,
    calibrated=lambda depths: {"ranks": [depth["ranks"][:RANKS] for depth in depths]},  # a static tree is grown from them
)
