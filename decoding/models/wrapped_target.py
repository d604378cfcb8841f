"""WrappedTarget: what every target has in common that stands where the loop asks for a `Target` and has another one read for it."""

from dataclasses import dataclass

import torch

from decoding.models.target import Target


@dataclass(frozen=True, eq=False)
class WrappedTarget:
    """Its context, in tokens, its end tokens and its device are those of the target that reads."""

    target: Target
    reads_at_once = False  # all of a prompt, when the first token is asked for

    @property
    def context(self) -> int:
        return self.target.context

    @property
    def ends(self) -> frozenset[int]:
        return self.target.ends

    @property
    def device(self) -> torch.device:
        return self.target.device
