"""The rule of drafts across tokenizers, pure: a draft of bytes is judged byte by byte, and what is written are tokens.

Speculative sampling (Leviathan et al. 2023, Chen et al. 2023) over the 256 bytes and the end, in the byte view of Phan et al. 2024,
https://arxiv.org/abs/2410.09303. The letters: p target, q drafter, u uniform; x the bytes accepted so far.

The target reads a tree of its own tokens, spellings of the drafted bytes. Whatever it will write follows that tree for a while and
leaves it by some token: such a *way out*, a path and the token behind it, has a known probability, and all of them sum to 1. So the
next byte behind x has p(b | x) = P(ways out whose text begins with x b) / P(those that begin with x). A way out that ends with x
itself has no next byte that is known here: an outcome of its own (LEAVE), which no drafter ever guesses.

1. Byte after byte: accepted if u × q < p.
2. Behind the last one accepted, an outcome c is drawn from norm(max(p - q, 0)); or from p, if all bytes were.
3. Of the ways out that begin with x c one is drawn by its probability, and all of its tokens are written.

Step 1 and 2 are speculative sampling, so x c is what the target's byte view would have drawn; step 3 draws the tokens that the
target would have spelled it with. So the tokens follow the target's law exactly, and with them the bytes: however few spellings
were read, and also where a real model leaves probability to spellings that its tokenizer never writes. One thing is asked of the
tree: whether a spelling of the first j bytes is in it must follow from these alone, or p of byte j + 1 would depend on that byte.
Cutting off what no tokenizer writes and scaling, as the specification of the byte view does, would be another law; on a model
that gives it nothing the two are one. No byte is given away either: what a token reaches beyond the last judged byte is written
too. At temperature 0 the text is that of the plain target.
"""

from dataclasses import dataclass
from functools import cached_property
from math import isfinite

import torch
from torch import Tensor

from decoding.draft import Draft, TargetOutput
from decoding.models.byte_paths import OUTCOMES, Paths, Ways, summed
from decoding.models.byte_view import END, SYMBOLS, Spelled, Tries
from decoding.sample import draw
from decoding.verify import EXACT_FOR, NotFinite, Verification, copied, followed, match, of_nodes


@dataclass(frozen=True, eq=False, kw_only=True)
class ByteDraft(Draft):
    """Bytes that were drawn one by one, and as nodes the target's tokens that could spell them.

    The nodes that spell the first j bytes follow from these bytes alone.
    """

    symbols: tuple[int, ...]  # (g,) the drafted bytes; END, if the drafter ended the text there
    byte_q: Tensor  # (g, 257) float64, the distribution each was drawn from
    tries: Tries  # of the target's tokens
    begun: tuple[bool, ...] = ()  # (bytes,) whether the drafter begins a token of its own there

    @property
    def uniforms(self) -> int:
        return len(self.symbols)

    @property
    def text(self) -> bytes:
        return bytes(symbol for symbol in self.symbols if symbol != END)

    @cached_property
    def places(self) -> dict[Spelled, int]:
        """The path down to every node -> the node."""
        found: dict[Spelled, int] = {(): -1}
        above: list[Spelled] = []
        for token, parent in zip(self.tokens, self.parents, strict=True):
            above.append((*(above[parent] if parent >= 0 else ()), token))
            found.setdefault(above[-1], len(above) - 1)
        return found


@dataclass(frozen=True, eq=False, kw_only=True)
class ByteVerification(Verification):
    """What became of the bytes as well: (g,) each."""

    byte_p: tuple[float, ...]  # given that those before were accepted
    byte_q: tuple[float, ...]
    byte_u: tuple[float, ...]
    accepted: int  # symbols, from the first


def byte_rejection(draft: Draft, output: TargetOutput, u: Tensor) -> Verification:
    """Judge the bytes of a draft in order and write the tokens of a way out.

    Args:
        output: probs (n + 1, vocab) behind the root and every spelling.
        u: (g + 1,) uniforms on the CPU: u[j] judges byte j, u[g] draws the way out.
    """
    if not isinstance(draft, ByteDraft):
        if len(draft):
            raise ValueError(f"byte_rejection judges drafted bytes; this draft of {len(draft)} nodes has none.")
        return match(draft, output, u)
    paths = Paths(draft.tries)
    for path, node in draft.places.items():
        paths.add(path, output.probs[node + 1])
    outs = [paths.ways(draft.text, at) for at in range(len(draft.text) + 1)]
    p, scales = judged(draft, paths, outs)
    ends = [drawn(outs[min(at, len(draft.text))], scale, u[-1:]) for at, scale in enumerate(scales)]
    q = draft.byte_q.to(p.device, p.dtype)
    picked = torch.tensor(draft.symbols, device=p.device)[:, None]
    nodes = of_nodes(draft, output.probs).to(p.dtype)
    parts = (nodes, p.gather(1, picked).squeeze(1), q.gather(1, picked).squeeze(1), torch.cat(ends).to(p.dtype))
    numbers = copied(output, torch.cat(parts))
    n, count, uniforms = len(draft), len(draft.symbols), u[:-1].tolist()
    byte_p, byte_q, finals = numbers[n : n + count], numbers[n + count : n + 2 * count], numbers[n + 2 * count :]
    if not all(map(isfinite, byte_q)):
        raise NotFinite("drafter")
    passed = [uniform * b < a for uniform, a, b in zip(uniforms, byte_p, byte_q, strict=True)]
    accepted = passed.index(False) if False in passed else count
    path, token = outs[min(accepted, len(draft.text))].at(int(finals[accepted]))
    written = {draft.places[path[:i]] + 1: t for i, t in enumerate((*path, token))}
    found = followed(draft, output.probs, numbers[:n], written)
    return ByteVerification(**vars(found), byte_p=tuple(byte_p), byte_q=tuple(byte_q), byte_u=tuple(uniforms), accepted=accepted)


def judged(draft: ByteDraft, paths: Paths, outs: list[Ways]) -> tuple[Tensor, list[Tensor]]:
    """What the outcomes have at every place of a draft of g symbols.

    Returns:
        (g, 258) p, given that all before were accepted; g + 1 times (258,) by what the ways out are to be scaled behind so many
        accepted symbols.
    """
    masses = []
    for at, ways in enumerate(outs):
        mass = summed(ways)
        if at < len(draft.text):
            mass[draft.text[at]] += paths.beyond(at)
        masses.append(mass)
    p = torch.stack(masses)
    p = p / p.sum(1, keepdim=True).clamp(min=torch.finfo(p.dtype).tiny)
    count = len(draft.symbols)
    q = torch.nn.functional.pad(draft.byte_q.to(p.device, p.dtype), (0, OUTCOMES - SYMBOLS))
    left = (p[:count] - q).clamp(min=0)
    scales = list(torch.where(p[:count] > 0, left / p[:count], 0))
    last = torch.ones(OUTCOMES, dtype=p.dtype, device=p.device)
    if len(draft.text) < count:  # it ended the text and was right
        last = torch.zeros_like(last)
        last[END] = 1
    return p[:count], [*scales, last]


def drawn(ways: Ways, scale: Tensor, u: Tensor) -> Tensor:
    """(1,) the place of one of the ways out, by its weight times that of its symbol. Where there are none the walk cannot end."""
    if not len(ways.weights):
        return torch.zeros(1, dtype=torch.long, device=scale.device)
    scaled = ways.weights * scale[ways.symbols]
    scaled = torch.where(scaled.sum() > 0, scaled, ways.weights)  # which rounding left empty
    return draw(scaled[None], u.to(scaled.device))


EXACT_FOR[byte_rejection] = frozenset({"deterministic"})  # its nodes follow from the bytes
