"""Draftscope's backend: speculative decoding, one target call at a time. It knows no user interface.

    from decoding import METHODS, Run, Sampling, load

What scripts need is opened by name, when it is asked for: `import decoding` and `import decoding.trace` need no torch.
`__init__.pyi` beside this file says the same to type checkers.
"""

import os
from importlib import import_module
from typing import Any

DOOR = {
    "METHODS": "decoding.methods",
    "Run": "decoding.runs.run",
    "Sampling": "decoding.sample",
    "load": "decoding.models.family",
}


# Threads of torch that wait for one another spin, if they are not told before torch is imported. Where other programs want the same
# cores, the one that is waited for hardly runs then: a step of EAGLE on smollm2 took 1 to 5 s in place of 0.25 on two busy cores.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def __getattr__(name: str) -> Any:
    if name not in DOOR:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(DOOR[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *DOOR])
