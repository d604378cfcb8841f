"""Memory: what a model will take, told from its files before anything is opened. Needs no torch."""

import ctypes
import json
import math
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock, Timer
from typing import Any

from decoding.models.progress import said

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
TOLD = 1000  # tokens that the cache is told for
GROUP = Path("/sys/fs/cgroup")  # of the container, if there is one
SMALL = 8 * 2**30  # bytes
MOST = 100 * 2**20  # bytes of a list of tensors
SOON = 2.0  # seconds until what was freed is given back
_lock, _trimming = Lock(), False


@dataclass(frozen=True)
class Needs:
    """Bytes of a loaded model."""

    parameters: int
    weights: int
    cache: int  # keys and values of TOLD tokens; 0: the config does not say

    def __str__(self) -> str:
        kept = f", and {said(self.cache)} for every {TOLD:,} tokens of text" if self.cache else ""
        return f"{self.parameters:,} parameters take {said(self.weights)} of memory{kept}"


def needs(folder: Path, width: int) -> Needs | None:
    """What the model in a folder takes with `width` bytes a number; None if the folder does not say."""
    try:
        count = stored_numbers(folder)
        config = json.loads((folder / "config.json").read_text("utf-8"))
        return Needs(count, count * width, cache_of(config.get("text_config") or config, width)) if count else None
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return None  # opening it says what is wrong


def stored_numbers(folder: Path) -> int:
    """How many numbers all files of tensors hold; ValueError for a list that cannot be."""
    return sum(map(numbers, folder.glob("*.safetensors")))


def numbers(file: Path) -> int:
    """How many numbers a file of tensors holds, by the list at its beginning."""
    with file.open("rb") as data:
        length = int.from_bytes(data.read(8), "little")
        if length > MOST:
            raise ValueError(f"{str(file)!r} has a list of {length:,} bytes.")
        listed = json.loads(data.read(length))
    return sum(math.prod(tensor["shape"]) for name, tensor in listed.items() if name != "__metadata__")


def cache_of(config: dict[str, Any], width: int) -> int:
    """Bytes of the keys and values of TOLD tokens; a window makes it less, which is left out."""
    layers = config.get("num_hidden_layers") or config.get("n_layer") or 0
    heads = config.get("num_attention_heads") or config.get("n_head") or 0
    hidden = config.get("hidden_size") or config.get("n_embd") or 0
    if not layers or not heads:
        return 0
    size = config.get("head_dim") or hidden // heads
    return 2 * layers * (config.get("num_key_value_heads") or heads) * size * width * TOLD


def free() -> int | None:
    """Bytes of memory that programs can still have on this machine; None if it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text("utf-8").splitlines()
        there = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, ValueError, IndexError, StopIteration):
        return None
    return min(there, *limits()) if limits() else there


def total() -> int:
    """Bytes of memory that this machine, or the container, has; those of a small one if it does not say."""
    found = [SMALL]
    with suppress(OSError, ValueError, IndexError, StopIteration):
        lines = Path("/proc/meminfo").read_text("utf-8").splitlines()
        found = [next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemTotal"))]
    with suppress(OSError, ValueError):  # of a container without a limit the file says "max"
        found.append(int((GROUP / "memory.max").read_text("utf-8")))
    return min(found)


def limits() -> list[int]:
    """What a container leaves of its own limit."""
    try:
        most = int((GROUP / "memory.max").read_text("utf-8"))
        counted = dict(line.split() for line in (GROUP / "memory.stat").read_text("utf-8").splitlines())
        used = int((GROUP / "memory.current").read_text("utf-8")) - int(counted.get("inactive_file", 0))
    except (OSError, ValueError):
        return []
    return [max(0, most - used)]


def trim_soon() -> None:
    """`trim`, on a thread and in a moment: it takes long where much is held, so once for all who let go of something meanwhile."""
    global _trimming
    with _lock:
        if _trimming:
            return
        _trimming = True
    later = Timer(SOON, trimmed)
    later.daemon = True
    try:
        later.start()
    except RuntimeError:  # the machine has no thread left
        trimmed()


def trimmed() -> None:
    global _trimming
    with _lock:
        _trimming = False
    trim()


def trim() -> None:
    """Give back to the system what was freed, where its allocator keeps it (glibc)."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


def check_memory(found: Needs | None, name: str) -> None:
    """Refuse a model whose weights do not fit (ValueError)."""
    left = free()
    if found is not None and left is not None and found.weights > left:
        raise ValueError(
            f"The model {name!r} does not fit: {found}; this machine has {said(left)} left. bfloat16 takes half of float32."
        )
