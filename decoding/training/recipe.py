"""Recipe: what the training program must know of heads that grow on a target."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from decoding.models.family import Family
from decoding.models.heads import Settings
from decoding.models.target import Target
from decoding.training.states import Batch


@dataclass(frozen=True)
class Recipe:
    """The heads of one method.

    `predict` yields one (rows, length, vocab) tensor of logits per depth k = first, first + 1, ...: at place t, behind which the
    target itself predicts token t + 1, it predicts token t + 1 + k, given the true tokens up to t + k as far as the method looks
    at them. `loss` is told which share of the training is done, 0 to 1; what it draws follows from `Batch.seed`.
    """

    key: str
    options: Callable[[ArgumentParser], None]  # adds its own to the command line
    aux_hidden_layers: Callable[[Target], tuple[int, ...]]  # states that its heads read
    init_head: Callable[[Target, Namespace], nn.Module]  # untrained
    loss: Callable[[nn.Module, Target, Batch, float], Tensor]
    predict: Callable[[nn.Module, Target, Batch], Iterator[Tensor]]
    settings: Callable[[nn.Module], Settings]  # from which the shapes of the file follow
    words: Callable[[nn.Module], str]  # for the model card
    calibrated: Callable[[list[dict[str, Any]]], Settings] = lambda depths: {}  # settings that follow from held-out figures
    aux_hidden_layers_with: Callable[[Target, Namespace], tuple[int, ...]] | None = (
        None  # the same where the command line decides it
    )
    told: Callable[[Any, Family], None] = lambda heads, family: None  # what untrained heads must know of more than the target
    first: int = 1  # depth of the first prediction; 0: of the token that the target itself predicts there
