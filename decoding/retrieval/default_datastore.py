"""The datastore of a family: built when a method first asks for it, from what any machine has, and kept in the user's cache folder.

What any machine has are the source files of the running Python, and for the embedded tokenizer a text that the embedded target
wrote (`decoding.training.outputs`). `DRAFTSCOPE_CACHE` says where built stores are kept; `DRAFTSCOPE_DATASTORE` names one to be
used instead.
"""

import hashlib
import os
import platform
import shutil
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from weakref import WeakKeyDictionary

import numpy as np
from filelock import BaseFileLock, FileLock, Timeout
from tokenizers import Tokenizer
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from decoding.limits import check_datastore
from decoding.models.cache_folder import cache_folder
from decoding.models.family import Family
from decoding.models.progress import tell
from decoding.retrieval.datastore import (
    EMPTY,
    FORMAT,
    Datastore,
    Documents,
    checksum,
    checksum_of,
    digest,
    open_store,
    separator_of,
    tokenized,
    write_store,
)
from decoding.retrieval.python_source import HOLD_OUT_EVERY, NOT_SOURCE

LIMIT = 5_500_000  # tokens of Python source: enough for long matches, and built in tens of seconds with any tokenizer
LEAST = 4_000  # bytes of a held-out file, so that there is something to read
LOOK = 0.5  # seconds between two looks whether another's store is there
NOT_OURS = {"site-packages", "dist-packages", "__pycache__"}
FOLDER = Path(__file__).parent.parent / "embedded"
OUTPUTS = FOLDER / "outputs.npy"  # uint16 tokens; every text ends with the end token

# -- what any machine has ----------------------------------------------------------------------------------------------


def up_to(documents: Documents, limit: int) -> Iterator[tuple[str, np.ndarray]]:
    """Whole documents until they hold `limit` tokens; tells how far they are, where the building can be stopped."""
    count = 0
    for title, tokens in documents:
        tell(f"building the datastore, once on this machine: {min(1.0, count / limit):.0%} of the texts are read")
        if count >= limit:
            return
        count += len(tokens) + 1
        yield title, tokens


def standard_library() -> list[Path]:
    """The Python files of the running interpreter: first what the target may have learnt from, then the tests. The files that
    `decoding.training.corpus` holds out for evaluation are left out, or their look-ups would be answers."""
    sources, tests = library_files()
    return [file for i, file in enumerate(sources) if i % HOLD_OUT_EVERY] + tests


def library_files() -> tuple[list[Path], list[Path]]:
    """The Python files of the running interpreter, sorted: the library, and its tests."""
    root = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(file for file in root.rglob("*.py") if not NOT_OURS & set(file.relative_to(root).parts))
    sources = [file for file in files if not NOT_SOURCE & set(file.relative_to(root).parts)]
    return sources, [file for file in files if NOT_SOURCE & set(file.relative_to(root).parts)]


def held_out_file(number: int) -> tuple[str, str]:
    """Name and text of one of the files that are in no store and in no training text; the numbers go round."""
    files = [file for file in library_files()[0][::HOLD_OUT_EVERY] if file.stat().st_size > LEAST]
    name, text = next(library_texts([files[number % len(files)]]))
    return name, text


def library_texts(files: Sequence[Path]) -> Iterator[tuple[str, str]]:
    root = Path(sysconfig.get_paths()["stdlib"])
    for file in files:
        yield file.relative_to(root).as_posix(), file.read_text("utf-8", errors="ignore")


def own_outputs(name: str, separator: int) -> Iterator[tuple[str, np.ndarray]]:
    """The texts of outputs.npy, without their ends."""
    tokens = np.load(OUTPUTS, allow_pickle=False).astype(np.int64)
    ends = np.flatnonzero(tokens == separator)
    for start, end in zip(np.append(0, ends[:-1] + 1), ends, strict=True):
        if end > start:
            yield name, tokens[start:end]


def has_outputs(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the text that the embedded target wrote is there and means something to this tokenizer."""
    if not OUTPUTS.exists():
        return False
    shipped = Tokenizer.from_file(str(FOLDER / "target" / "tokenizer.json"))
    return checksum_of(shipped.get_vocab()) == checksum(tokenizer)


def default_parts(tokenizer: PreTrainedTokenizerBase) -> dict[str, Documents]:
    files = standard_library()
    texts = tqdm(library_texts(files), total=len(files), desc="datastore", unit="file", mininterval=2, disable=None)
    parts: dict[str, Documents] = {f"Python {platform.python_version()}": up_to(tokenized(tokenizer, texts), LIMIT)}
    if has_outputs(tokenizer):
        name = "text of the embedded target"
        parts[name] = own_outputs(name, separator_of(tokenizer))
    return parts


# -- the store of a family ---------------------------------------------------------------------------------------------

_lock = Lock()
_opened: "WeakKeyDictionary[PreTrainedTokenizerBase, tuple[tuple, Datastore]]" = WeakKeyDictionary()


def place_of(tokenizer: PreTrainedTokenizerBase) -> Path:
    """The folder of a family's store, named by its tokenizer and by what goes into it."""
    if chosen := os.environ.get("DRAFTSCOPE_DATASTORE"):
        return Path(chosen)
    root = Path(sysconfig.get_paths()["stdlib"])
    outputs = digest(OUTPUTS) if has_outputs(tokenizer) else ""
    sources = f"{FORMAT} {sys.version} {(root / 'test').is_dir()} {LIMIT} {HOLD_OUT_EVERY} {outputs}"
    key = hashlib.blake2b(sources.encode(), digest_size=6).hexdigest()
    return cache_folder() / "datastores" / f"{checksum(tokenizer)}-{key}"


def of_family(family: Family) -> Datastore:
    """The family's store: opened once per process, and built first if it is not there (tens of seconds). A family without a
    tokenizer has an empty one.

    Raises:
        ValueError: it cannot be written, or the one that `$DRAFTSCOPE_DATASTORE` names does not fit.
    """
    if family.tokenizer is None:
        return EMPTY
    with waited_for(_lock):
        chosen = os.environ.get("DRAFTSCOPE_DATASTORE"), cache_folder(), LIMIT
        known = _opened.get(family.tokenizer)
        if known is None or known[0] != chosen:
            _opened[family.tokenizer] = chosen, made(place_of(family.tokenizer), family.tokenizer)
        return _opened[family.tokenizer][1]


def opened(tokenizer: PreTrainedTokenizerBase) -> Datastore | None:
    """The store of this tokenizer if a run of this process has opened it."""
    known = _opened.get(tokenizer)
    return None if known is None else known[1]


@contextmanager
def waited_for(lock: "Lock | BaseFileLock") -> Iterator[None]:
    """While the block runs the lock is held; whoever waits for it tells so, and can be stopped."""
    while not acquired(lock):
        tell("waiting for the datastore that another run builds")
    try:
        yield
    finally:
        lock.release()


def acquired(lock: "Lock | BaseFileLock") -> bool:
    try:
        return bool(lock.acquire(timeout=LOOK))
    except Timeout:
        return False


def made(folder: Path, tokenizer: PreTrainedTokenizerBase) -> Datastore:
    """Open the store in `folder`; build it if it is not there or spoilt, one process at a time. A store that the user chose is only
    opened."""
    if os.environ.get("DRAFTSCOPE_DATASTORE"):
        return open_store(folder, tokenizer)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with waited_for(FileLock(folder.parent / "building.lock")):
            return open_or_build(folder, tokenizer)
    except OSError as error:
        raise ValueError(
            f"The datastore cannot be kept in {str(folder.parent)!r}: {error.strerror or error}. Set DRAFTSCOPE_CACHE to a folder "
            "that can be written."
        ) from error


def open_or_build(folder: Path, tokenizer: PreTrainedTokenizerBase) -> Datastore:
    if folder.exists():
        try:
            return open_store(folder, tokenizer)
        except ValueError:  # it is our own and can be made again
            shutil.rmtree(folder)
    check_datastore()
    write_store(folder, tokenizer, default_parts(tokenizer))
    return open_store(folder, tokenizer)
