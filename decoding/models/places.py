"""Places: what a user calls a model by -> the folder it is opened from, made ready or fetched if need be.

A name is one of the catalogue, a folder, a GGUF file, or an id of the Hub; in this order.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from decoding.limits import limits
from decoding.models import fetching, hub
from decoding.models.catalogue import MODELS
from decoding.models.progress import told

GGUF = ".gguf"


@dataclass(frozen=True)
class Place:
    """Where a model is opened from, and what should be known of how it came there, in sentences."""

    source: str
    notes: tuple[str, ...] = ()


def is_gguf(name: str) -> bool:
    return name.lower().endswith(GGUF)


def place(name: str) -> Place:
    """The folder of a model; a GGUF file is converted and a model of the Hub is fetched, telling how far that is.

    Raises:
        ValueError: it cannot be had, or has to be fetched by a command that the sentence names.
    """
    if fetching.of_package(name):
        if (folder := fetching.fetched(name)) is None:
            raise ValueError(missing(name))
        return Place(str(folder))
    if is_gguf(name):
        file = Path(os.path.expanduser(name))
        if not os.path.isfile(file):  # which takes names that no file can have
            raise ValueError(f"There is no file {name!r}.")
        told(fetching.convert_gguf(file.resolve()))
        folder = fetching.converted_place(file)
        return Place(str(folder), tuple(json.loads((folder / "notes.json").read_text("utf-8"))))
    if hub.is_id(name):
        told(fetching.fetch(name))
        return Place(str(fetching.fetched(name)))
    return Place(name)


def missing(name: str) -> str:
    """What to do about a model of the catalogue that is not here, in a sentence."""
    model = MODELS[name]
    if not limits().downloads:
        return f"This demo does not have {model.title}; choose another model."
    return f"{name} is not on this machine yet ({fetching.cost(model)}). This brings it: draftscope fetch {name}"
