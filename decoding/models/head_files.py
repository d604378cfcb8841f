"""The files of a published head: which tensors a folder holds and where, in one file or in shards, by the names they should have.

Only lists are read here: `heads.tensors_of` reads what a head needs. Untrusted input: safetensors alone, and a list of shards
leads nowhere but to files beside it.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decoding.models.checkpoints import INDEX, PREFIXES, listed, shards_of
from decoding.models.heads import FLOATS, MAX_FACTS, Stored, stored_in

CONFIG, CONVERT = "config.json", "python -m decoding.training.convert"
PICKLED = ("*.bin", "*.pt", "*.pth")
MAX_INDEX = 64 * 2**20  # bytes
WRAPPED = re.compile("^(?:" + "|".join(map(re.escape, (*PREFIXES, "model."))) + ")+")
WHOLE = ("d2t", "t2d")  # tensors that hold no weights
# what formats of quantisation put beside a matrix, or in its place
QUANTISED = re.compile(
    r"(.*\.)?(qweight|qzeros|scales|g_idx|weight_packed|weight_scale(_inv|_2)?|weight_zero_point|weight_shape|input_scale|SCB|absmax"
    r"|quant_map|weight_format|quant_state\..*)"
)

Config = dict[str, Any]


@dataclass(frozen=True)
class HeadFiles:
    """The tensors of a folder, by their names without prefixes, and what a user should know about that."""

    folder: Path
    stored: Mapping[str, Stored]
    notes: tuple[str, ...] = ()

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: one.shape for name, one in self.stored.items()}


def files_of(folder: Path) -> HeadFiles:
    """Look at the weights of a folder.

    Raises:
        ValueError: there are none, several files without a list of their tensors, two tensors of one name, or damage.
    """
    index, files = folder / INDEX, sorted(folder.glob("*.safetensors"))
    if index.is_file():
        files = sorted({folder / shard for shard in shards_of(index, MAX_INDEX).values()})
    elif len(files) != 1:
        raise ValueError(
            f"{str(folder)!r} holds {len(files)} safetensors files and no {INDEX}; a published head has its weights in one file, "
            "or in shards with that list."
        )
    found: dict[str, Stored] = {}
    for name, one in (pair for file in files for pair in stored_in(file).items()):
        if (plain := WRAPPED.sub("", name)) in found:
            raise ValueError(f"{str(folder)!r} holds the tensor {plain} twice, as {found[plain].name} and as {name}.")
        found[plain] = one
    return HeadFiles(folder, found, prefix_notes(folder, found))


def prefix_notes(folder: Path, found: Mapping[str, Stored]) -> tuple[str, ...]:
    taken = sorted({one.name.removesuffix(plain) for plain, one in found.items()} - {""})
    return tuple(f"The tensors of {str(folder)!r} were named {prefix}...; that was taken off." for prefix in taken)


def names_in(folder: Path) -> set[str]:
    """The tensors of a folder by their names without prefixes; none if its files have no order. Of shards their list alone is
    read: the folder may be that of a large model. ValueError for damage."""
    index, files = folder / INDEX, sorted(folder.glob("*.safetensors"))
    names = shards_of(index, MAX_INDEX) if index.is_file() else stored_in(files[0]) if len(files) == 1 else {}
    return {WRAPPED.sub("", name) for name in names}


def refuse_pickles(folder: Path) -> None:
    """A sentence for a folder without safetensors that has pickled weights (ValueError)."""
    pickled = sorted(file.name for pattern in PICKLED for file in folder.glob(pattern))
    if pickled and not any(folder.glob("*.safetensors")):
        raise ValueError(
            f"The weights in {str(folder)!r} are pickled ({pickled[0]}), and opening such a file can run what somebody hid in it. "
            f"This writes them as safetensors without running anything: {CONVERT} {folder}"
        )


def refuse_quantised(files: HeadFiles, config: Config) -> None:
    """A sentence for a head whose matrices are not plain numbers (ValueError)."""
    odd = [
        name for name, one in files.stored.items() if QUANTISED.fullmatch(name) or (one.dtype not in FLOATS and name not in WHOLE)
    ]
    if not odd:
        return
    layer = config.get("transformer_layer_config")
    said = [where.get("quantization_config") for where in (config, layer) if isinstance(where, dict)]
    kinds = [one["quant_method"] for one in said if isinstance(one, dict) and isinstance(one.get("quant_method"), str)]
    raise ValueError(
        f"The head in {str(files.folder)!r} is quantised ({kinds[0] if kinds else files.stored[odd[0]].dtype}: {listed(odd, 2)}). "
        "Heads are opened in float32, float16 or bfloat16 only; take the one that it was made from."
    )


def config_of(folder: Path) -> Config:
    """config.json; ValueError if it is not a description of anything."""
    file = folder / CONFIG
    try:
        if (size := file.stat().st_size) > MAX_FACTS:
            raise ValueError(f"{str(file)!r} has {size:,} bytes; at most {MAX_FACTS:,} are read.")
        config = json.loads(file.read_text("utf-8"))
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{str(file)!r} cannot be read, or it is damaged: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{str(file)!r} is not the description of a model.")
    return config
