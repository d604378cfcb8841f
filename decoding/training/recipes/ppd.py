"""PPD: the placeholders learn to say what the target itself says some places further on; only they are trained.

Chen et al. 2024, https://arxiv.org/abs/2405.18628, section 3: (1/m) sum_i 0.8^(i - 1) KL(target || placeholder i), the direction of
the released code. There, one place per conversation is learned from in a pass. Here, many: the target reads a window once, and
chains of placeholders below many of its places are read against the same keys and values, each chain seeing the text up to its
place and itself. What the target says there is computed from its states, which are on disk.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from transformers import DynamicCache

from decoding.methods.ppd import KEY, MAX_MEMBERS, MAX_PROMPT_TOKENS, RANKS, Prompts, init_head
from decoding.models.target import Target
from decoding.training.precision import quick
from decoding.training.recipe import Recipe
from decoding.training.states import Batch

DECAY = 0.8  # weight of every placeholder, of the one before
PLACES = 32  # of a window that placeholders are hung below at once


def options(parser) -> None:
    parser.add_argument("--prompt-tokens", type=int, choices=range(1, MAX_PROMPT_TOKENS + 1), default=3, help="placeholders (m)")
    parser.add_argument("--members", type=int, choices=range(1, MAX_MEMBERS + 1), default=1, help="of the ensemble of each")
    parser.set_defaults(lr=0.01)


@torch.no_grad()
def read(target: Target, tokens: Tensor) -> DynamicCache:
    """Keys and values of (rows, length) windows."""
    cache = DynamicCache()
    few = {"logits_to_keep": 1} if target.keeps_logits else {}
    target.model(tokens, use_cache=True, past_key_values=cache, **few)
    return cache


def said(prompts: Prompts, target: Target, cache: DynamicCache, places: Tensor) -> Tensor:
    """States of the placeholders below (c,) places of every window, for the language-model head: (rows, c, m, width), the mean over
    the members. The cache is left as it was."""
    m, members, width = prompts.embed.shape
    length = cache.get_seq_length()
    chain = prompts.embed.transpose(0, 1).reshape(-1, width)  # member after member
    owner = torch.arange(members, device=places.device).repeat_interleave(m)
    distance = torch.arange(1, m + 1, device=places.device).repeat(members)
    place, distances = places.repeat_interleave(len(chain)), distance.repeat(len(places))
    chains = torch.arange(len(places), device=places.device).repeat_interleave(len(chain)) * members + owner.repeat(len(places))
    text = torch.arange(length, device=places.device) <= place[:, None]
    own = (chains[:, None] == chains) & (distances[:, None] >= distances)
    rows = cache.layers[0].keys.shape[0]
    out = target.model(
        inputs_embeds=chain.to(target.dtype).repeat(len(places), 1).expand(rows, -1, -1),
        position_ids=(place + distances).clamp(max=target.context - 1)[None],
        attention_mask=target.mask(len(place), length, torch.cat((text, own), 1)),
        past_key_values=cache,
        use_cache=True,
        output_hidden_states=True,
        **({"logits_to_keep": 1} if target.keeps_logits else {}),
    )
    cache.crop(-len(place))
    return out.hidden_states[-1].unflatten(1, (len(places), members, m)).mean(2)


def predict(prompts: Prompts, target: Target, batch: Batch) -> Iterator[Tensor]:
    length = batch.tokens.shape[1]
    with quick(batch.tokens.device):
        cache = read(target, batch.tokens)
        parts = torch.arange(length, device=batch.tokens.device).split(PLACES)
        states = torch.cat([said(prompts, target, cache, part) for part in parts], 1)
        for k in range(states.shape[2]):
            yield target.score(states[:, :, k])


def loss(prompts: Prompts, target: Target, batch: Batch, done: float = 0.0) -> Tensor:
    """(1/m) sum_i 0.8^(i - 1) KL(target || placeholder i) in nats, over places whose token may be learned."""
    m = len(prompts.embed)
    places = sampled_places(batch, m)
    with quick(batch.tokens.device):
        states = said(prompts, target, read(target, batch.tokens), places)  # (rows, c, m, width)
        ahead = places[:, None] + torch.arange(1, m + 1, device=places.device)  # (c, m) where placeholder i stands
        counts = batch.counts[:, ahead + 1]  # (rows, c, m)
        q = target.score(states[counts])
        p = target.score(batch.states[target.last_hidden][:, ahead][counts])
    weights = DECAY ** torch.arange(m, device=places.device).expand(counts.shape)[counts].float()
    return (weights * divergence(p, q)).sum() / counts[..., 0].sum().clamp(min=1) / m


def sampled_places(batch: Batch, m: int) -> Tensor:
    """(c,) places of the windows below which all placeholders still look at tokens of the window."""
    rng = torch.Generator().manual_seed(batch.seed)
    found = torch.randperm(max(1, batch.tokens.shape[1] - 1 - m), generator=rng)[:PLACES]
    return found.sort().values.to(batch.tokens.device)


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """(n, vocab) logits -> (n,) KL(p || q) in nats."""
    p, q = p.float().log_softmax(-1), q.float().log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


def settings(prompts: Prompts) -> dict:
    prompt_tokens, members, width = prompts.embed.shape
    return {"width": width, "prompt_tokens": prompt_tokens, "members": members}


def words(prompts: Prompts) -> str:
    prompt_tokens, members, width = prompts.embed.shape
    ensemble = f" of {members} members" if members > 1 else ""
    return f"PPD: {prompt_tokens} prompt tokens{ensemble}, {prompts.embed.numel():,} numbers in all"


RECIPE = Recipe(
    key=KEY,
    options=options,
    aux_hidden_layers=lambda target: (target.last_hidden,),
    init_head=lambda target, chosen: init_head(target, chosen.prompt_tokens, chosen.members),
    loss=loss,
    predict=predict,
    settings=settings,
    words=words,
    calibrated=lambda depths: {"ranks": [depth["ranks"][:RANKS] for depth in depths]},  # the trees are grown from them
)
