"""The sentence model of SentenceVAE: a sentence becomes one vector, the next one is foretold from the target's state, and a decoder
writes either out again, token after token.

An, Chen, Sun and Li 2024, https://arxiv.org/abs/2408.00655, sections 3.1 to 3.3. Despite its name nothing in it is variational: no
noise, no KL term. Here stands the smallest honest version: the target is frozen and stays the large model that reads tokens, the
embeddings and the language-model head are its own, and trained are an encoder of one layer that sees both ways, whose outputs are
summed and normed to the vector e; a predictor of two layers from states of the target to the vector z of the sentence that
follows; and a decoder.

Departures. *Attention to one vector* has a softmax over one key and adds the same vector at every place, so the decoder has
self-attention and an added vector, and no cross-attention. The paper runs its large model on sentence vectors; here it goes on
reading tokens. It has a head that says whether to stop; here the token for the end of a text is a token of the last sentence.
Positions begin as sinusoids and are trained; attention has rotary ones as well.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import cast

import torch
from torch import Generator, Tensor, nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from decoding.checks import check_int
from decoding.models.attention import Block, Sizes
from decoding.models.heads import Settings, rebuilt, shapes_of
from decoding.models.target import Target
from decoding.sample import Sampling, draw

KEY = "sentence_vae"
SHORTEST, LONGEST = 4, 32  # tokens of a sentence
MAX_BLOCKS, MAX_ENDS, MAX_TOKEN = 4, 2**16, 2**24
GREEDY = Sampling(temperature=0)
MARKS, CLOSING = (b".", b"!", b"?"), b" \"')]*`_"  # what ends a sentence, and what may stand behind it in the same token


# -- sentences ---------------------------------------------------------------------------------------------------------


def ends_sentence(piece: bytes) -> bool:
    """Whether a token with these bytes ends a sentence: a mark, perhaps with a quote behind it, or a line break.

    >>> [ends_sentence(piece) for piece in (b".", b'?"', b" a", b" 3.5", b"    \\n")]
    [True, True, False, False, True]
    """
    return b"\n" in piece or piece.rstrip(CLOSING).endswith(MARKS)


def behind(tokens: Sequence[int], start: int, ends: Collection[int]) -> int | None:
    """Where the sentence that begins at `start` is over: behind the first of `ends` from its 4th token on, or behind its 32nd.
    None: it goes on.

    >>> behind([9, 1, 1, 9, 9, 2], 1, {9}), behind([9, 1, 1, 9, 9, 2], 5, {9})
    (5, None)
    """
    for count, token in enumerate(tokens[start : start + LONGEST], 1):
        if count == LONGEST or (count >= SHORTEST and token in ends):
            return start + count
    return None


def sentences(tokens: Sequence[int], ends: Collection[int], start: int = 1) -> list[tuple[int, int]]:
    """(first token, one behind the last) of every sentence; the last may be unfinished, or empty where the text has just ended one.

    >>> sentences([0, 1, 1, 1, 9, 2], ends={9}), sentences([0, 1, 1, 1, 9], ends={9})
    ([(1, 5), (5, 6)], [(1, 5), (5, 5)])
    """
    found = []
    while (stop := behind(tokens, start, ends)) is not None:
        found.append((start, stop))
        start = stop
    return [*found, (start, len(tokens))]


# -- the model ---------------------------------------------------------------------------------------------------------


def sinusoids(rows: int, width: int) -> Tensor:
    """(rows, width) of Vaswani et al. 2017, section 3.5."""
    angles = torch.arange(rows)[:, None] / 10_000.0 ** (torch.arange(0, width, 2) / width)
    return torch.stack((angles.sin(), angles.cos()), -1).flatten(1)


def through(blocks: nn.ModuleList, rows: Tensor, places: Tensor, visible: Tensor | None) -> Tensor:
    """(batch, rows, width) through layers in which the rows see each other, as `visible` of `Attention` says."""
    for block in cast("Iterable[Block]", blocks):
        rows = block(rows, places, *block.keys_values(rows, places), visible)
    return rows


class Encoder(nn.Module):
    """A sentence -> e."""

    def __init__(self, sizes: Sizes, blocks: int) -> None:
        super().__init__()
        self.token_norm = LlamaRMSNorm(sizes.width, sizes.eps)
        self.places = nn.Parameter(sinusoids(LONGEST, sizes.width))
        self.blocks = nn.ModuleList(Block(sizes.config) for _ in range(blocks))
        self.norm = nn.LayerNorm(sizes.width)

    def forward(self, embedded: Tensor, places: Tensor, together: Tensor) -> Tensor:
        """(batch, rows, width) embeddings at (batch, rows) places of their sentences -> (batch, rows, width), to be summed.

        Args:
            together: (batch, rows, rows) bool, which rows are of one sentence.
        """
        rows = self.token_norm(embedded) + self.places[places]
        return through(self.blocks, rows, places, together[:, None])


class Predictor(nn.Module):
    """States of the target at a token, the one in the middle and the last one -> z of the sentence behind it. Not normed: the less
    can be foretold, the shorter it gets."""

    def __init__(self, sizes: Sizes, inner: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(LlamaRMSNorm(sizes.width, sizes.eps) for _ in range(2))
        self.up, self.down = nn.Linear(2 * sizes.width, inner), nn.Linear(inner, sizes.width)

    def forward(self, middle: Tensor, last: Tensor) -> Tensor:
        """(..., width) each -> (..., width)."""
        seen = torch.cat([norm(state) for norm, state in zip(self.norms, (middle, last), strict=True)], -1)
        return self.down(nn.functional.silu(self.up(seen)))


class Decoder(nn.Module):
    """A vector and what stands of its sentence so far -> what comes next, for the target's language-model head."""

    def __init__(self, sizes: Sizes, blocks: int) -> None:
        super().__init__()
        self.token_norm, self.norm = LlamaRMSNorm(sizes.width, sizes.eps), LlamaRMSNorm(sizes.width, sizes.eps)
        self.start = nn.Parameter(torch.zeros(sizes.width))
        self.places = nn.Parameter(sinusoids(LONGEST, sizes.width))
        self.added = nn.Linear(sizes.width, sizes.width, bias=False)
        self.blocks = nn.ModuleList(Block(sizes.config) for _ in range(blocks))

    def rows(self, embedded: Tensor, places: Tensor, vectors: Tensor) -> Tensor:
        """(..., rows, width) embeddings of the tokens before, which stand at `places` counted from the start vector, and the vector
        of each row's sentence, or something that broadcasts -> what the first block reads."""
        return self.token_norm(embedded) + self.places[places] + self.added(vectors)

    def first(self, vectors: Tensor) -> Tensor:
        """(..., width) vectors -> (..., width), the row in front of a sentence."""
        return self.start + self.places[0] + self.added(vectors)

    def forward(self, rows: Tensor, places: Tensor, visible: Tensor | None) -> Tensor:
        """(batch, rows, width) -> the same shape, to be scored; `visible` as for `Attention`."""
        return self.norm(through(self.blocks, rows, places, visible))


class SentenceModel(nn.Module):
    """Encoder, predictor and decoder of one target.

    Args:
        inner: width between the two layers of the predictor.
        ends: tokens that end a sentence.
    """

    def __init__(self, sizes: Sizes, blocks: int, inner: int, ends: Sequence[int] = ()) -> None:
        super().__init__()
        self.sizes, self.inner, self.ends = sizes, inner, frozenset(ends)
        self.encoder, self.decoder = Encoder(sizes, blocks), Decoder(sizes, blocks)
        self.predictor = Predictor(sizes, inner)

    def embedded(self, tokens: Tensor, target: Target) -> Tensor:
        """(...) token ids -> (..., width)."""
        return target.model.get_input_embeddings()(tokens).to(self.decoder.start.dtype)

    @torch.inference_mode()
    def encoded(self, sentence: Sequence[int], target: Target) -> Tensor:
        """A sentence of 1 to 32 tokens -> (width,), its e."""
        ids = target.ids(sentence)[None]
        places = torch.arange(len(sentence), device=ids.device)[None]
        together = torch.ones(1, len(sentence), len(sentence), dtype=torch.bool, device=ids.device)
        rows = self.encoder(self.embedded(ids, target), places, together)
        return self.encoder.norm(rows.sum(1))[0]

    @torch.inference_mode()
    def foretold(self, states: Mapping[int, Tensor], row: int, target: Target) -> Tensor:
        """(width,) z from that row of the states that the target's `taps` put out, (rows, width) each."""
        return self.predictor(*(states[layer][row].to(self.decoder.start.dtype) for layer in taps(target)))

    @torch.inference_mode()
    def written(
        self,
        vector: Tensor,
        target: Target,
        beginning: Sequence[int] = (),
        sampling: Sampling = GREEDY,
        rng: Generator | None = None,
    ) -> tuple[int, ...]:
        """The sentence that the decoder alone writes from a (width,) vector, `beginning` and all, up to its end or that of the
        text; one pass over it per token.

        Args:
            beginning: what stands of it already, at most 31 tokens that do not end it.
        """
        text = list(beginning)
        while behind(text, 0, self.ends) is None:
            before, places = target.ids(text)[None], torch.arange(1 + len(text), device=target.device)[None]
            rows = self.decoder.rows(self.embedded(before, target), places[:, 1:], vector)
            rows = torch.cat((self.decoder.first(vector)[None, None], rows), 1)
            logits = target.score(self.decoder(rows, places, None)[0, -1:])
            text.append(int(draw(sampling.probabilities(logits), torch.rand(1, generator=rng).to(rows.device))))
            if text[-1] in target.ends:
                break
        return tuple(text)


def taps(target: Target) -> tuple[int, int]:
    """The aux hidden layers that the predictor reads: the one in the middle, and the one behind the final norm."""
    return target.last_hidden // 2, target.last_hidden


def described(model: SentenceModel) -> Settings:
    """What `made` builds a model of the same shape from."""
    sizes = model.sizes
    numbers = {"width": sizes.width, "heads": sizes.heads, "mlp": sizes.mlp, "blocks": len(model.decoder.blocks)}
    return numbers | {"inner": model.inner, "ends": sorted(model.ends)}


def made(settings: Settings) -> SentenceModel:
    """An untrained model of these settings; ValueError for those that cannot be."""
    for name, most in (("blocks", MAX_BLOCKS), ("inner", 65_536)):
        check_int(f"A sentence model with {name}", settings.get(name), 1, most)
    ends = settings.get("ends")
    if not isinstance(ends, list) or len(ends) > MAX_ENDS:
        raise ValueError(f"Tokens that end a sentence cannot be as found, {str(ends)[:80]}; a list of their numbers can.")
    for token in ends:
        check_int("A token that ends a sentence, with the number", token, 0, MAX_TOKEN)
    width, heads, mlp = (cast(int, settings.get(name)) for name in ("width", "heads", "mlp"))  # checked by Sizes
    return SentenceModel(Sizes(width, heads, mlp), settings["blocks"], settings["inner"], ends)


shapes = shapes_of(made)


def load_model(target: Target) -> SentenceModel:
    """The sentence model of a target; ValueError if there is none that fits."""
    return cast(SentenceModel, rebuilt(KEY, target, made, "The sentence model is"))
