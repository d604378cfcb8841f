"""The families in memory: the embedded ones, and at most one other, freed before the next is loaded.

A cache that loads the new model before it lets go of the old one needs room for both.
"""

import gc
from threading import Lock

import torch

from decoding.models.family import Family, load
from decoding.models.names import EMBEDDED_TARGETS

EMBEDDED = tuple((target, None) for target in EMBEDDED_TARGETS)  # targets and draft models
_lock = Lock()
_families: dict[tuple[str, str | None, str, str], Family] = {}


def family(target: str = "embedded", draft: str | None = None, device: str = "auto", dtype: str = "auto") -> Family:
    """The family with these names (see `decoding.models.family.load`), loaded if it is not in memory.

    Raises:
        ValueError: it cannot be loaded; the embedded families stay in memory.
    """
    key = (target, draft, device, dtype)
    with _lock:
        if key not in _families:
            if key[:2] not in EMBEDDED:
                free_others()
            _families[key] = load(*key)
        return _families[key]


def loaded(target: str, draft: str | None) -> Family | None:
    """The family with these models that is in memory, on whatever device; waits for no other that is being loaded."""
    return next((family for key, family in list(_families.items()) if key[:2] == (target, draft)), None)


def free_others() -> None:
    """Forget every family but the embedded ones."""
    for other in [key for key in _families if key[:2] not in EMBEDDED]:
        del _families[other]
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
