"""Turn pickled weights of a published drafter into safetensors, which is what Draftscope opens.

    python -m decoding.training.convert FOLDER [--out FOLDER]

Reads `pytorch_model*.bin`, `medusa_lm_head.pt` or whatever else is pickled there, with `weights_only=True`: tensors alone, no code
is run. Writes `model.safetensors`, and with `--out` copies the descriptions (*.json, *.txt, *.model) beside it.
"""

import argparse
import pickle
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from decoding.models.head_files import CONVERT, PICKLED
from decoding.models.heads import WEIGHTS

NAMES = ("pytorch_model*.bin", "medusa_lm_head.pt")  # looked for first: a trainer leaves other pickles beside them
TEXTS = ("*.json", "*.txt", "*.model")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog=CONVERT, description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="with pytorch_model.bin or medusa_lm_head.pt")
    parser.add_argument("--out", type=Path, help="folder to write to; without it the same one")
    options = parser.parse_args(arguments)
    try:
        print(convert(options.folder, options.out or options.folder))
    except ValueError as error:
        parser.error(str(error))


def convert(folder: Path, out: Path) -> Path:
    """The file that was written; ValueError with a sentence if there is nothing to convert, or something else than tensors."""
    files = next(filter(None, (sorted(f for name in names for f in folder.glob(name)) for names in (NAMES, PICKLED))), [])
    if not files:
        raise ValueError(f"There are no pickled weights in {str(folder)!r}; looked for {', '.join(PICKLED)}.")
    made = out / WEIGHTS
    if made.exists():
        raise ValueError(f"{str(made)!r} is there already.")
    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors |= tensors_in(file)
    out.mkdir(parents=True, exist_ok=True)
    save_file({name: values.contiguous().clone() for name, values in tensors.items()}, made, {"format": "pt"})
    if out.resolve() != folder.resolve():
        for text in (file for pattern in TEXTS for file in folder.glob(pattern) if not file.name.endswith(".index.json")):
            shutil.copy(text, out)
    return made


def tensors_in(file: Path) -> dict[str, Tensor]:
    """Name -> tensor of a pickled state dict; ValueError if it holds anything else."""
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise ValueError(f"{str(file)!r} is damaged or holds more than tensors: {str(error).splitlines()[0][:200]}") from error
    if not isinstance(found, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in found.items()):
        raise ValueError(f"{str(file)!r} is not a list of named tensors.")
    return found


if __name__ == "__main__":
    main()
