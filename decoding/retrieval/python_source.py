"""Python source that any machine has: the standard library of the running interpreter, and which of it is held out."""

import sysconfig
from pathlib import Path

HOLD_OUT_EVERY = 20  # of the source files
NOT_SOURCE = {"test", "tests", "idle_test", "site-packages", "__pycache__"}


def python_source() -> tuple[tuple[str, ...], tuple[str, ...]]:
    root = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(f for f in root.rglob("*.py") if not NOT_SOURCE & set(f.relative_to(root).parts))
    texts = [f.read_text("utf-8", errors="ignore") for f in files]
    train = tuple(t for i, t in enumerate(texts) if i % HOLD_OUT_EVERY and t)
    return train, tuple(t for t in texts[::HOLD_OUT_EVERY] if t)
