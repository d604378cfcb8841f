"""Resumed: a draft whose rows the target's first layers have read already, because the drafter ran them; the others go on."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from decoding.draft import TargetOutput
from decoding.models import layers


@dataclass(frozen=True, eq=False)
class Resumed:
    """What some first layers left behind. Row 0 is the root's, row i + 1 that of node i."""

    layer: int  # so many layers have read these rows
    hidden: Tensor  # (n + 1, width) what the last of them put out
    rows: tuple[tuple[Tensor, Tensor], ...]  # per layer keys and values, (1, heads, n + 1, head width) each

    def cut(self, kept: np.ndarray) -> "Resumed":
        index = torch.from_numpy(np.concatenate(([0], kept + 1)))
        rows = tuple((k[:, :, index.to(k.device)], v[:, :, index.to(v.device)]) for k, v in self.rows)
        return Resumed(self.layer, self.hidden[index.to(self.hidden.device)], rows)

    @torch.inference_mode()
    def read(self, target, cache, tokens, draft, sampling, aux_hidden_layers) -> TargetOutput:
        """As `Reading.read`, without aux hidden layers; afterwards all layers of the cache hold the same rows. ValueError if what
        is carried does not fit the draft."""
        positions, before = draft.positions(len(tokens) - 1), cache.length
        count = len(positions)
        if len(self.rows) != self.layer or {len(self.hidden), *(keys.shape[2] for keys, _ in self.rows)} != {count}:
            raise ValueError(f"What a draft carries from {self.layer} layers does not fit its {count} rows.")
        for number, (keys, values) in enumerate(self.rows):
            cache.update(keys, values, number)
        deeper = range(self.layer, target.model.config.num_hidden_layers)
        places = torch.as_tensor(positions, device=target.device)[None]
        mask = target.layer_mask(count, before, draft.visible)
        hidden = layers.through(target.model, self.hidden[None], deeper, places, mask, cache)
        logits = target.score(layers.normed(target.model, hidden[0]))
        return TargetOutput(logits, sampling.probabilities(logits))
