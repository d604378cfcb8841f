"""Target: a Hugging Face causal language model, read over a whole draft tree in one call.

It knows token ids, positions, masks and a cache; it does not know methods or acceptance. A draft model is read through the
same class. The 4-D mask is additive in the model's dtype: a boolean one is silently wrong with eager attention.
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from decoding.draft import Draft, TargetOutput
from decoding.models import layers
from decoding.models.cache import TreeCache
from decoding.models.graphs import Graphs
from decoding.models.heard import heard
from decoding.models.plain_forward import PRE_NORM, PlainForward
from decoding.models.spread import reading_device
from decoding.models.windows import layer_kinds, masks, windows_of
from decoding.sample import Sampling

Mask = Tensor | dict[str, Tensor]  # the same for all layers, or one per kind of layer
PREFILL_ROWS = 512  # rows read at once, so that the logits of a long prompt never stand in memory together


@dataclass(frozen=True, eq=False)
class Target:
    """A model's weights and what the loop must know of them; holds no state of any run.

    `vocab` is one more than the largest id of the tokenizer: logits of a padded embedding beyond it are cut off.
    """

    model: PreTrainedModel
    vocab: int
    context: int  # positions
    ends: frozenset[int] = frozenset()  # end-of-text tokens
    unused: tuple[int, ...] = ()  # ids below `vocab` that no token has; they are never written
    plain: PlainForward | None = None  # the short way through this model, if it is one that has it
    graphs: Graphs | None = None  # the same over buffers that stay where they are

    @property
    def device(self) -> torch.device:
        return self._device

    @cached_property
    def _device(self) -> torch.device:  # asked for at every step, and the library searches the model for it
        """Of a model that is spread over several: where it reads its tokens. What the others put out is brought there."""
        return reading_device(self.model)

    @cached_property
    def _unused(self) -> Tensor:
        with torch.inference_mode(False):
            return torch.tensor(self.unused, device=self.device)

    @cached_property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    def new_cache(self) -> TreeCache:
        """An empty one, for one text."""
        return TreeCache()

    @cached_property
    def keeps_logits(self) -> bool:
        """Whether the model can be told to score the last rows only."""
        return "logits_to_keep" in inspect.signature(self.model.forward).parameters

    @torch.inference_mode()
    def forward(
        self,
        cache: TreeCache,
        ids: Tensor | None,
        positions: Sequence[int] | Tensor,
        visible: np.ndarray | Tensor | None = None,
        *,
        embeddings: Tensor | None = None,
        last_only: bool = False,
        aux_hidden_layers: Sequence[int] = (),
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """One pass over new rows, written behind everything in the cache.

        Args:
            ids: (rows,) token ids on the model's device; None: `embeddings` instead.
            positions: (rows,) position of each row in its own path.
            visible: (rows, k) bool, what a row sees of the last k rows, its own included; it sees all rows before those.
                None: the rows are a causal chain.
            embeddings: (rows, width) like those that the model's embedding module puts out.
            aux_hidden_layers: layers whose output is wanted, 0 for the embeddings, PRE_NORM for the last one before the final norm.

        Returns:
            (rows, vocab) float32 logits, or (1, vocab) with `last_only`; and layer -> (rows, width).
        """
        if self.plain is not None and self.plain.serves(self.model):
            return self._short(self.plain, cache, ids, positions, visible, embeddings, last_only, aux_hidden_layers)
        extra = {"logits_to_keep": 1} if last_only and self.keeps_logits else {}
        if aux_hidden_layers and getattr(self.model.config, "num_kv_shared_layers", None):
            extra = {}  # such a model runs its last layers on the rows to be scored only
        if any(aux_layer != PRE_NORM for aux_layer in aux_hidden_layers):
            extra["output_hidden_states"] = True
        rows = self.fed(ids) if embeddings is None and ids is not None else embeddings
        assert rows is not None  # one of the two is given
        read = {"input_ids" if embeddings is None else "inputs_embeds": rows[None]}
        with self._last_output(PRE_NORM in aux_hidden_layers) as hidden:
            out = self.model(
                **read,
                position_ids=torch.as_tensor(positions, device=self.device)[None],
                attention_mask=self.mask(len(positions), cache.length, visible),
                past_key_values=cache,
                use_cache=True,
                **extra,
            )
        hidden |= {aux_layer: out.hidden_states[aux_layer][0] for aux_layer in aux_hidden_layers if aux_layer != PRE_NORM}
        hidden = {aux_layer: states.to(self.device) for aux_layer, states in hidden.items()}
        if any(states.ndim != 2 for states in hidden.values()):
            raise ValueError(f"A {type(self.model).__name__} has several states per row; no method that reads its states fits.")
        logits = out.logits[0, -1:] if last_only else out.logits[0]
        return self.scores(logits), hidden

    def _short(
        self,
        plain: PlainForward,
        cache: TreeCache,
        ids: Tensor | None,
        positions: Sequence[int] | Tensor,
        visible: np.ndarray | Tensor | None,
        embeddings: Tensor | None,
        last_only: bool,
        aux_hidden_layers: Sequence[int],
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """As `forward`, without the modules of transformers."""
        assert embeddings is not None or ids is not None
        rows = embeddings if embeddings is not None else plain.embedded(self.fed(cast(Tensor, ids)))
        places = torch.as_tensor(positions, device=self.device)
        cache.reserve(len(plain.layers))
        plain.reach(cache.length + len(rows) - 1)
        if self.graphs is not None and self.graphs.takes(len(rows)):
            normed, hidden = self.graphs.read(cache, rows, places, visible, aux_hidden_layers)
        else:
            mask = cast("Tensor | None", self.mask(len(rows), cache.length, visible))
            normed, hidden = plain(rows, places, mask, cache.store, aux_hidden_layers)
        return self.scores(plain.scores(normed[-1:] if last_only else normed)), hidden

    def scores(self, logits: Tensor) -> Tensor:
        """(..., entries) what the model's head puts out -> (..., vocab) float32, minus infinity for ids that no token has."""
        logits = logits[..., : self.vocab].to(self.device, torch.float32)
        if self.unused:
            logits = logits.index_fill(-1, self._unused, -torch.inf)
        return logits

    @property
    def last_hidden(self) -> int:
        """The aux hidden layer behind the final norm: the vector that the language-model head reads."""
        return self.model.config.num_hidden_layers

    @contextmanager
    def _last_output(self, wanted: bool) -> Iterator[dict[int, Tensor]]:
        """What the last layer puts out while the block runs, under PRE_NORM: no entry of `output_hidden_states` holds it."""
        found: dict[int, Tensor] = {}
        if not wanted:
            yield found
            return

        def note(output: Tensor | tuple) -> None:
            found[PRE_NORM] = (output[0] if isinstance(output, tuple) else output)[0]

        with heard(self.last_layer, note):
            yield found

    @cached_property
    def last_layer(self) -> nn.Module:
        """The last of the decoder layers; a ValueError for a model whose layers stand in no list of their number."""
        count = self.model.config.num_hidden_layers
        lists = [part for part in self.model.modules() if isinstance(part, nn.ModuleList) and len(part) == count]
        if not lists:
            raise ValueError(f"The layers of a {type(self.model).__name__} are not where they are expected; it cannot be tapped.")
        return lists[0][-1]

    @cached_property
    def windows(self) -> Mapping[str, int]:
        """Kind of layer -> tokens that its layers see at most; empty for most models."""
        config = getattr(self.model, "config", None)
        return {} if config is None else windows_of(config)

    def narrow(self, rows: int) -> bool:
        """Whether some layer cannot see `rows` of one path."""
        return any(rows > size for size in self.windows.values())

    def mask(self, rows: int, before: int, visible: np.ndarray | Tensor | None) -> Mask | None:
        """(1, 1, rows, before + rows) additive mask, or one per kind of layer; None where a row may see everything before it: the
        model makes its own then, windows included. Nothing is copied from the device: of what lies there it is not asked whether
        that is so."""
        if visible is None:
            if rows == 1 or before == 0:
                return None  # the model builds a plain causal mask, which takes the fast path
            visible = np.tri(rows, dtype=bool)
        seen = torch.as_tensor(visible)
        if rows == 1 and seen.device.type == "cpu" and seen.all():
            return None
        return self._mask(rows, before, seen)

    def layer_mask(self, rows: int, before: int, visible: np.ndarray | Tensor | None = None) -> Mask | None:
        """The same for layers that are run without their model, which makes no mask for them; None: one row, and all see all."""
        if rows == 1 and not self.narrow(before + rows):
            return None
        return self._mask(rows, before, torch.as_tensor(np.tri(rows, dtype=bool) if visible is None else visible))

    def _mask(self, rows: int, before: int, seen: Tensor) -> Mask:
        """As `mask`, never None."""
        mask = torch.zeros(rows, before + rows, dtype=self.dtype, device=seen.device)
        mask[:, before + rows - seen.shape[1] :].masked_fill_(~seen, torch.finfo(self.dtype).min)
        mask = mask[None, None].to(self.device)
        return masks(layer_kinds(self.model.config), self.windows, mask, seen) if self.narrow(before + rows) else mask

    def fed(self, ids: Tensor) -> Tensor:
        """(rows,) token ids as the model is given them: as they are, unless it has others (`decoding.models.draft_tokens`)."""
        return ids

    def ids(self, tokens: Sequence[int]) -> Tensor:
        return torch.tensor(tokens, dtype=torch.long, device=self.device)

    def score(self, hidden: Tensor) -> Tensor:
        """(..., width) states like those behind the final norm -> (..., vocab) float32 logits of the language-model head."""
        hidden = hidden.to(self.dtype)
        if self.plain is not None and self.plain.blocks is not None and not hidden.requires_grad and self.plain.serves(self.model):
            return self.scores(self.plain.scores(hidden.reshape(-1, hidden.shape[-1])).view(*hidden.shape[:-1], -1))
        return self.scores(layers.scored(self.model, hidden))

    def extend(self, cache: TreeCache, tokens: Sequence[int], *, every_row: bool = False) -> Tensor:
        """Read and commit `tokens`, which follow what the cache holds.

        Returns:
            (1, vocab) float32 logits after the last token, or (len(tokens), vocab) with `every_row`.
        """
        return self.extend_with_hidden(cache, tokens, (), every_row=every_row)[0]

    def extend_with_hidden(
        self, cache: TreeCache, tokens: Sequence[int], aux_hidden_layers: Sequence[int], *, every_row: bool = False
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """The same, and layer -> (len(tokens), width), what the layers in `aux_hidden_layers` put out."""
        logits, hidden = [], {aux_layer: [] for aux_layer in aux_hidden_layers}
        for start in range(0, len(tokens), PREFILL_ROWS):
            part = tokens[start : start + PREFILL_ROWS]
            positions = range(cache.length, cache.length + len(part))
            scored, states = self.forward(
                cache, self.ids(part), positions, last_only=not every_row, aux_hidden_layers=aux_hidden_layers
            )
            logits.append(scored)
            for aux_layer, rows in states.items():
                hidden[aux_layer].append(rows)
            cache.keep(range(len(part)))
        return torch.cat(logits) if every_row else logits[-1], {aux_layer: torch.cat(rows) for aux_layer, rows in hidden.items()}

    def read(
        self, cache: TreeCache, tokens: Sequence[int], draft: Draft, sampling: Sampling, aux_hidden_layers: Sequence[int] = ()
    ) -> TargetOutput:
        """Read the root and every node of the draft in one pass; the cache must hold all tokens but the last (the root)."""
        visible = draft.visible if len(draft) else None
        ids, positions = self.ids([tokens[-1], *draft.tokens]), draft.positions(len(tokens) - 1)
        logits, hidden = self.forward(cache, ids, positions, visible, aux_hidden_layers=aux_hidden_layers)
        return TargetOutput(logits, sampling.probabilities(logits), hidden)

    @torch.inference_mode()
    def embedded(self, ids: Tensor) -> Tensor:
        """(rows,) token ids -> (rows, width) what the embedding module puts out."""
        return self.model.get_input_embeddings()(self.fed(ids)).to(self.device)
