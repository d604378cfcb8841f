"""Heads: small trained layers that read a model's hidden states, each in a folder of its own that says which model it fits.

A folder holds `model.safetensors` and `head.json`: the method, the fingerprint of the model, settings (shapes follow from them) and
the figures measured on held-out text. Those of the embedded family are shipped in `decoding/embedded/heads/KEY`, those of smollm2
in `decoding/embedded/smollm2/heads/KEY`; what a user trains lies in the cache folder, `heads/FINGERPRINT/KEY`. A head is untrusted
input: safetensors only, nothing is ever unpickled.
"""

import hashlib
import json
import math
import os
import shlex
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from decoding import old_names
from decoding.models.cache_folder import cache_folder
from decoding.models.eight_bits import WORTH, packed, unpacked
from decoding.models.once import Once
from decoding.models.spread import weight_of
from decoding.models.target import Target

SHIPPED = Path(__file__).parent.parent / "embedded"
EMBEDDED = SHIPPED / "heads"
SHIPPED_FOR = {"embedded": EMBEDDED, "smollm2": SHIPPED / "smollm2" / "heads"}  # family -> its heads
WEIGHTS, FACTS = "model.safetensors", "head.json"
MAX_FACTS = 2 * 2**20  # bytes
FLOATS, LARGEST = ("F64", "F32", "F16", "BF16"), 2**20  # formats of weights, and the largest number that one can be
SAMPLES = 4  # values looked at in every parameter
LOOSE, TINY = 2**-7, 2**-23  # relative: one unit of bfloat16's last place; absolute: two of float16's smallest number

Settings = dict[str, Any]  # what head.json says of shapes and training
Shapes = Callable[[Settings], Mapping[str, tuple[int, ...]]]  # settings -> the tensors a head must have


@dataclass(frozen=True)
class Fingerprint:
    """What tells one model from another: the checksum of its parameters' names and shapes, and a few values of each.

    Values and not their checksum: the same weights read as float32, float16 or bfloat16 differ in the last place, and no rounding
    makes numbers on either side of a border equal.
    """

    shapes: str
    values: tuple[float, ...]

    def fits(self, other: "Fingerprint") -> bool:
        """Whether both are of one model, in whatever number format each was loaded."""
        if self.shapes != other.shapes or len(self.values) != len(other.values):
            return False
        pairs = zip(self.values, other.values, strict=True)
        return all(abs(a - b) <= LOOSE * max(abs(a), abs(b)) + TINY for a, b in pairs)

    @property
    def mark(self) -> str:
        """A name for a folder; not for comparing."""
        values = " ".join(f"{value:.2g}" for value in self.values)
        return f"{self.shapes}-{hashlib.sha256(values.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class Head:
    """An opened head."""

    tensors: dict[str, Tensor]  # float32, on the CPU
    settings: Settings
    figures: Settings = field(default_factory=dict)  # measured on held-out text
    notes: tuple[str, ...] = ()  # what was taken for granted at opening, in sentences


@dataclass(frozen=True)
class Stored:
    """Where a tensor lies; nothing of it is in memory."""

    file: Path
    name: str  # in the file
    shape: tuple[int, ...]
    dtype: str  # in the words of safetensors: "F16", "I64", ...


T = TypeVar("T")
_shared: "defaultdict[str, Once[tuple[tuple, Any]]]" = defaultdict(lambda: Once("waiting until its head is loaded"))
_known: "WeakKeyDictionary[nn.Module, Fingerprint]" = WeakKeyDictionary()
_lent: "WeakKeyDictionary[nn.Module, Fingerprint]" = WeakKeyDictionary()  # of the model that another one was made from


def fingerprint(model: nn.Module) -> Fingerprint:
    """Of a loaded model; computed once per model, with one copy from its device."""
    if model not in _known:
        named = list(model.named_parameters())
        shapes = "".join(f"{name} {tuple(values.shape)} " for name, values in named)
        parts = [sampled(stored(model, name).detach()) for name, _ in named]
        seen = torch.cat([part.to(parts[0].device) for part in parts]).tolist() if named else []
        _known[model] = Fingerprint(hashlib.sha256(shapes.encode()).hexdigest()[:8], tuple(seen))
    return _known[model]


def lend(model: nn.Module, other: Fingerprint) -> None:
    """Let a model, whose weights are about to change, use the heads of another one where it has none of its own."""
    _lent[model] = other
    _known.pop(model, None)


def served(model: nn.Module) -> tuple[Fingerprint, ...]:
    """Whose heads serve a model: its own, then those that it was lent."""
    return (fingerprint(model), *((_lent[model],) if model in _lent else ()))


def stored(model: nn.Module, name: str) -> Tensor:
    """A parameter by its name, also one that is kept aside."""
    path, _, own = name.rpartition(".")
    return weight_of(model.get_submodule(path), own)


def sampled(values: Tensor) -> Tensor:
    """(SAMPLES,) float32 values at fixed places, by their indices: in memory a matrix may lie transposed."""
    if type(values).__module__.startswith("torchao"):  # packed, and not to be indexed
        values = values.dequantize()
    flat = (np.arange(1, SAMPLES + 1) * max(values.numel() - 1, 0)) // (SAMPLES + 1)
    places = np.unravel_index(flat, tuple(values.shape) or (1,))
    index = tuple(torch.from_numpy(place).to(values.device) for place in places)
    return (values.reshape(1) if values.ndim == 0 else values)[index].float()


# -- where heads are ---------------------------------------------------------------------------------------------------


def find(method: str, model: nn.Module) -> Path | None:
    """The folder of the head of `method` that fits this model; None if there is none. What is damaged counts as not there unless
    it lies where the head belongs: opening it then says what is wrong."""
    shipped = [folder / method for folder in SHIPPED_FOR.values()]
    for own in served(model):
        others = sorted((cache_folder() / "heads").glob(f"{own.shapes}-*/{method}"))
        for place in [*shipped, place_of(method, own), *others]:
            if place.is_dir() and (place == place_of(method, own) or fits(place, own)):
                return place
    return None


def place_of(method: str, own: Fingerprint) -> Path:
    """Where a head that was trained on this machine is kept."""
    return cache_folder() / "heads" / own.mark / method


def fits(folder: Path, own: Fingerprint) -> bool:
    """Whether the head in `folder` says that it was made for this model."""
    try:
        return facts(folder)[1].fits(own)
    except ValueError:
        return False


def command(method: str, name: str, part: str = "target") -> str:
    """The line that trains the head of `method`, which reads this part of the family of this name.

    >>> command("medusa", "my target + my draft")
    "python -m decoding.training medusa --family 'my target'"
    >>> command("specdec_pp", "my target + my draft", "draft")
    "python -m decoding.training specdec_pp --family 'my target' --draft 'my draft'"
    """
    target, _, draft = name.partition(" + ")
    draft_option = f" --draft {shlex.quote(draft)}" if draft and part == "draft" else ""
    return f"python -m decoding.training {method} --family {shlex.quote(target)}{draft_option}"


# -- opening and writing -----------------------------------------------------------------------------------------------


def head_for(method: str, model: nn.Module, shapes: Shapes) -> Head:
    """Find and open the head of `method` for a model.

    Raises:
        ValueError: there is none, or `open_head` refuses it.
    """
    folder = find(method, model)
    if folder is None:
        raise ValueError(f"There is no head {method!r} for this model. This makes one: {command(method, 'NAME')}")
    return open_head(folder, method, model, shapes)


def open_head(folder: Path, method: str, model: nn.Module, shapes: Shapes) -> Head:
    """Open a head and check everything about it.

    Args:
        shapes: from the settings in head.json to the tensors that must be there; may raise ValueError for settings that cannot be.

    Raises:
        ValueError: it was made for another method or model, is damaged, too large, cut short, or has other tensors than expected.
    """
    named, made_for, settings, figures = facts(folder)
    if named != method:
        raise ValueError(f"The head in {str(folder)!r} is one of {named!r}; expected was {method!r}.")
    if not any(made_for.fits(one) for one in served(model)):
        raise ValueError(
            f"The head in {str(folder)!r} was trained for the model {made_for.mark}; the one that is loaded is "
            f"{fingerprint(model).mark}. Their hidden states mean different things."
        )
    file = folder / WEIGHTS
    stored = stored_in(file)
    expected = dict(shapes(settings))
    eight = {name for name, shape in expected.items() if len(shape) == 2 and name in stored and stored[name].dtype == "I8"}
    worth = {name + WORTH: expected[name][:1] for name in eight}
    return Head(unpacked(tensors_of(file, stored, expected | worth)), settings, figures)


def shapes_of(make: Callable[[Settings], nn.Module]) -> Shapes:
    """The tensors of what `make` builds from settings; nothing takes memory, and settings that cannot be are its to refuse."""

    def shapes(settings: Settings) -> dict[str, tuple[int, ...]]:
        with torch.device("meta"):
            return {name: tuple(values.shape) for name, values in make(settings).state_dict().items()}

    return shapes


def shared(method: str, model: nn.Module, make: Callable[[], T]) -> T:
    """What `make` builds from the head of `method` that fits a model. It is built once for all runs, and anew when another head
    lies there: so nobody may change it. It goes with the model."""
    folder = find(method, model)
    files = [] if folder is None else [folder / WEIGHTS, folder / FACTS]
    stamp = folder, *((file.stat().st_mtime_ns, file.stat().st_size) for file in files if file.is_file())
    return _shared[method].of(model, lambda: (stamp, make()), lambda found: found[0] == stamp)[1]


def rebuilt(method: str, target: Target, make: Callable[[Settings], nn.Module], what: str) -> nn.Module:
    """What was trained for a target, built by `make`, ready to draft, and `shared`.

    Args:
        what: the beginning of a sentence about it, such as "The heads of Clover are".

    Raises:
        ValueError: there is none, `open_head` refuses it, or it reads states of another width.
    """

    def build() -> nn.Module:
        head = head_for(method, target.model, shapes_of(make))
        check_width(what, head, target.model)
        made = make(head.settings)
        made.load_state_dict(head.tensors)
        return made.to(target.device, target.dtype).eval()

    return shared(method, target.model, build)


def check_width(what: str, head: Head, model: PreTrainedModel, whose: str = "target") -> None:
    """Refuse a head that reads states of another width than the model has (ValueError).

    Args:
        what: the beginning of a sentence about it, such as "The heads of Clover are".
        whose: what the model is.
    """
    width, own = head.settings["width"], model.config.hidden_size
    if width != own:
        raise ValueError(f"{what} for states of width {width:,}; the {whose} has {own:,}.")


def check_ranks(ranks: object, guessers: int, most: int, whose: str) -> None:
    """Refuse a table of accuracies that cannot be (ValueError): one row per guesser, one share of 1 per rank, `most` at most."""
    rows = ranks if isinstance(ranks, list) else []
    shares = [value for row in rows if isinstance(row, list) for value in row]
    right = all(isinstance(value, (int, float)) and math.isfinite(value) and 0 <= value <= 1 for value in shares)
    if len(rows) != guessers or not right or any(not isinstance(row, list) or not 1 <= len(row) <= most for row in rows):
        raise ValueError(f"The accuracies of {whose} by rank cannot be as found; {guessers} rows of 1 to {most} shares can.")


def facts(folder: Path) -> tuple[str, Fingerprint, Settings, Settings]:
    """Method, fingerprint, settings and figures from head.json; ValueError if it does not hold them."""
    file = folder / FACTS
    try:
        if (size := file.stat().st_size) > MAX_FACTS:
            raise ValueError(f"{str(file)!r} has {size:,} bytes; at most {MAX_FACTS:,} are read.")
        found = json.loads(file.read_text("utf-8"))
        method, settings, figures = found["method"], found["settings"], found["figures"]
        shapes, values = found["model"]["shapes"], found["model"]["values"]
        right = isinstance(method, str) and isinstance(shapes, str) and isinstance(settings, dict) and isinstance(figures, dict)
        if not right or not all(isinstance(value, (int, float)) and math.isfinite(value) for value in values):
            raise TypeError("a value of the wrong kind")
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{str(file)!r} is no description of a head, or it is damaged: {error}") from error
    return method, Fingerprint(shapes, tuple(values)), old_names.renamed(settings, old_names.HEADS), figures


def parameters(folder: Path) -> int:
    """How many numbers the head in `folder` holds; only the list of its tensors is read."""
    stored = stored_in(folder / WEIGHTS)
    return sum(math.prod(one.shape) for name, one in stored.items() if not name.endswith(WORTH))


def stored_in(file: Path) -> dict[str, Stored]:
    """The tensors of a file by name; only their list is read. ValueError if it is damaged."""
    with reading(file), safe_open(file, "pt") as opened:
        slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
        return {name: Stored(file, name, tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()}


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """Whatever a damaged file makes the library raise, as one sentence (ValueError)."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{str(file)!r} cannot be read, or it is cut short: {error}") from error


def tensors_of(place: Path, stored: Mapping[str, Stored], expected: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """The tensors of a head in float32; ValueError if they are not the expected ones.

    Files are mapped into memory and only what is expected is read, so that a file may be of any size.

    Args:
        place: of the head, for the sentences.
    """
    if stored.keys() != set(expected):
        lacking, extra = (
            ", ".join(sorted(one - other)) for one, other in ((set(expected), set(stored)), (set(stored), set(expected)))
        )
        raise ValueError(
            f"{str(place)!r} has other tensors than expected: missing {lacking or 'none'}, too many {extra or 'none'}."
        )
    for name, shape in expected.items():
        if (found := stored[name].shape) != shape:
            raise ValueError(f"{name} in {str(place)!r} has the shape {found}; expected was {shape}.")
    tensors: dict[str, Tensor] = {}
    for file in dict.fromkeys(one.file for one in stored.values()):
        with reading(file), safe_open(file, "pt") as opened:
            tensors |= {name: opened.get_tensor(one.name).float() for name, one in stored.items() if one.file == file}
    if strange := [name for name, values in tensors.items() if not values.isfinite().all()]:
        raise ValueError(f"{strange[0]} in {str(place)!r} holds numbers that are not finite.")
    weights = {name: values for name, values in tensors.items() if stored[name].dtype in FLOATS and values.numel()}
    if large := [(name, most) for name, values in weights.items() if (most := float(values.abs().max())) > LARGEST]:
        raise ValueError(f"{large[0][0]} in {str(place)!r} holds {large[0][1]:,.0f}; no weight is above {LARGEST:,}.")
    return tensors


def save(
    folder: Path,
    method: str,
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    settings: Settings,
    figures: Settings,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a head for `model`; the description last, so that what was interrupted is not taken for a head.

    Args:
        dtype: of the file, int8 for matrices in eight bits; a head that is opened is float32 always.
    """
    own = fingerprint(model)
    folder.mkdir(parents=True, exist_ok=True)
    fresh = folder / f"{WEIGHTS}.new"
    kept = packed(tensors) if dtype is torch.int8 else {name: values.detach().to("cpu", dtype) for name, values in tensors.items()}
    save_file({name: values.contiguous() for name, values in kept.items()}, fresh)
    os.replace(fresh, folder / WEIGHTS)
    values = [float(f"{value:.4g}") for value in own.values]
    found = {"method": method, "model": {"shapes": own.shapes, "values": values}, "settings": settings, "figures": figures}
    fresh = folder / f"{FACTS}.new"
    fresh.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    os.replace(fresh, folder / FACTS)


def folder_for(method: str, family: str, model: nn.Module) -> Path:
    """Where a training program writes: beside the models that are shipped, or into the cache folder."""
    return SHIPPED_FOR[family] / method if family in SHIPPED_FOR else place_of(method, fingerprint(model))
