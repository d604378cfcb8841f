"""What a module of a model puts out, while others use the same model on threads of their own."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import Any

from torch import nn


@contextmanager
def heard(module: nn.Module, take: Callable[[Any], None]) -> Iterator[None]:
    """While the block runs, `take` is given whatever the module puts out in calls of this thread.

    A hook hangs on the module, and modules belong to all who run the model: the worker reads with it while jobs are made beside it.
    """
    mine = get_ident()

    def hook(module: nn.Module, given: tuple, output: Any) -> None:
        if get_ident() == mine:
            take(output)

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
