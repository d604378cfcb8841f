"""Published drafters: a folder with config.json and safetensors in the format of EAGLE, EAGLE-3, speculators or Medusa, as a head.

`decoding.models.family.load(TARGET, FOLDER)` finds them with `method_of` and opens them with `read`; the methods prefer them to
heads that were trained here. Formats: the authors' repositories SafeAILab/EAGLE and FasterDecoding/Medusa, and
vllm-project/speculators (algorithm eagle3). Nothing is taken on trust: every tensor must be there in its shape and none beside
them, what changes the computation and is not known here is refused by its name, and nothing is ever unpickled.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from decoding.models import eagle_head, medusa_heads
from decoding.models.heads import MAX_FACTS, Head, Settings, Shapes, tensors_of
from decoding.models.target import PRE_NORM, Target

CONFIG, CONVERT = "config.json", "python -m decoding.training.convert"
PICKLED = ("*.bin", "*.pt", "*.pth")
UNKNOWN = ("norm_before_fc", "fc_norm", "norm_output")  # switches of EAGLE 3.1 and of speculators that are not supported
USUAL = (0.5, 0.15, 0.08, 0.05, 0.04, 0.03, 0.02, 0.02, 0.02, 0.01)  # Medusa: how often the ranks of head 1 may be right
FADING = 0.75  # of every further head, of the one before

Config = dict[str, Any]
Shape = tuple[int, ...]
Names = dict[str, str]  # a tensor's name here -> its name in the file


def method_of(source: str | None) -> str:
    """The method whose published head a folder holds; "" if it holds something else, or is no folder.

    Raises:
        ValueError: the folder's weights are pickled only, whatever they are.
    """
    folder = Path(source or "")
    if not source or not (folder / CONFIG).is_file():
        return ""
    refuse_pickles(folder)
    config, names = config_of(folder), names_in(folder)
    if "medusa_num_heads" in config:
        return "medusa"
    return "eagle" if "fc.weight" in names or "speculators_config" in config else ""


def read(folder: Path, target: Target) -> Head:
    """Open a published head for a target.

    Raises:
        ValueError: with a sentence: it is for another target, has other tensors than its config says, is damaged or too large, or
            asks for something that is not supported.
    """
    method, config, file = method_of(str(folder)), config_of(folder), weights_of(folder)
    if not method:
        raise ValueError(f"{str(folder)!r} holds no published head that is known here.")
    published = FORMATS[method]
    settings, names, more = published.described(folder, config, header(file), target)
    shapes = published.shapes(settings)
    found = tensors_of(file, {names[name]: shape for name, shape in shapes.items()} | more)
    return published.finished(folder, Head({name: found[names[name]] for name in shapes}, settings), found, target)


# -- the folder --------------------------------------------------------------------------------------------------------


def refuse_pickles(folder: Path) -> None:
    """A sentence for a folder without safetensors that has pickled weights (ValueError)."""
    pickled = sorted(file.name for pattern in PICKLED for file in folder.glob(pattern))
    if pickled and not any(folder.glob("*.safetensors")):
        raise ValueError(
            f"The weights in {str(folder)!r} are pickled ({pickled[0]}), and opening such a file can run what somebody hid in it. "
            f"`{CONVERT} {folder}` writes them as safetensors without running anything."
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


def weights_of(folder: Path) -> Path:
    """The one file with weights; ValueError if there are more or none."""
    files = sorted(folder.glob("*.safetensors"))
    if len(files) != 1:
        raise ValueError(f"{str(folder)!r} holds {len(files)} safetensors files; a published head has its weights in one.")
    return files[0]


def names_in(folder: Path) -> set[str]:
    """The tensors of a folder with one file of weights; none of another folder."""
    files = sorted(folder.glob("*.safetensors"))
    return set(header(files[0])) if len(files) == 1 else set()


def header(file: Path) -> dict[str, Shape]:
    """The names and shapes in a file; ValueError if it is damaged."""
    try:
        with safe_open(file, "pt") as opened:
            return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{str(file)!r} cannot be read, or it is cut short: {error}") from error


def check_target(folder: Path, target: Target, width: object, vocab: object, made_for: str = "") -> None:
    """Refuse a head for a target of another width or vocabulary (ValueError)."""
    config = target.model.config
    for what, expected, found in (("hidden size", width, config.hidden_size), ("vocabulary", vocab, config.vocab_size)):
        if expected != found:
            raise ValueError(
                f"The head in {str(folder)!r} was made for {made_for or 'a target'} of {what} {expected!r}; the {what} of this "
                f"target is {found!r}."
            )


# -- Medusa ------------------------------------------------------------------------------------------------------------


def medusa(folder: Path, config: Config, found: Mapping[str, Shape], target: Target) -> tuple[Settings, Names, dict[str, Shape]]:
    """Settings, names and further tensors of Medusa heads, each one residual block and a language-model head of its own."""
    heads = config["medusa_num_heads"]
    if config.get("medusa_num_layers", 1) != 1:
        raise ValueError(f"medusa_num_layers in {str(folder)!r} is {config['medusa_num_layers']!r}; only 1 is supported.")
    vocab, width = found.get("0.1.weight", (0, 0))
    if vocab:
        check_target(folder, target, width, vocab, made_for_words(config.get("base_model_name_or_path")))
    count = heads if type(heads) is int and 0 < heads <= 64 else 0
    ranks = [[share * FADING**k for share in USUAL] for k in range(count)]
    settings = {"width": target.model.config.hidden_size, "heads": heads, "vocab": target.model.config.vocab_size, "ranks": ranks}
    names = {f"unembed.{k}.weight": f"{k}.1.weight" for k in range(count)}
    names |= {f"blocks.{k}.{part}": f"{k}.0.linear.{part}" for k in range(count) for part in ("weight", "bias")}
    return settings, names, {}


def without_padding(folder: Path, head: Head, found: Mapping[str, Tensor], target: Target) -> Head:
    """Language-model heads without the rows beyond the tokenizer's entries: the embedding may be padded."""
    cut = {name: values[: target.vocab] for name, values in head.tensors.items() if name.startswith("unembed")}
    return Head(head.tensors | cut, head.settings | {"vocab": target.vocab})


def made_for_words(name: object) -> str:
    return f"{name!r}, a target" if isinstance(name, str) and name else ""


# -- EAGLE -------------------------------------------------------------------------------------------------------------


def eagle(folder: Path, config: Config, found: Mapping[str, Shape], target: Target) -> tuple[Settings, Names, dict[str, Shape]]:
    """The same for EAGLE heads of either kind, in the authors' format or that of speculators."""
    said = config.get("speculators_config") or {}
    layer = config.get("transformer_layer_config") or config
    if not isinstance(said, dict) or not isinstance(layer, dict):
        raise ValueError(f"{str(folder / CONFIG)!r} does not describe a head.")
    refuse_unknown(folder, config, layer, said)
    three = "draft_vocab_size" in config or any(name.endswith(".hidden_norm.weight") for name in found)
    verifier = said.get("verifier")
    made_for = made_for_words(verifier.get("name_or_path") if isinstance(verifier, dict) else None)
    width, vocab = layer.get("hidden_size"), layer.get("vocab_size")
    reads = config.get("target_hidden_size") or width
    check_target(folder, target, reads, vocab, made_for)
    embeds = found.get("embed_tokens.weight", (0,))[0]
    settings = {"kind": "eagle3" if three else "eagle", "reads": reads, "layer": layer_of(layer), "embeds": embeds}
    if three:
        drafted = config.get("draft_vocab_size") or vocab
        settings |= {"aux_hidden_layers": aux_layers_of(folder, config, target), "vocab": drafted, "bias": False}
        settings |= {"mapped": "d2t" in found or drafted != vocab, "normed": bool(config.get("norm_before_residual", False))}
    else:
        settings |= {"aux_hidden_layers": [target.last_hidden], "bias": config.get("bias", True)}
    stem = "midlayer" if any(name.startswith("midlayer.") for name in found) else "layers.0"
    more: dict[str, Shape] = {"t2d": (target.model.config.vocab_size,)} if "t2d" in found else {}
    return settings, Renamed(stem), more


class Renamed(dict[str, str]):
    """Names of EAGLE's tensors in a file whose layer stands under `stem`."""

    def __init__(self, stem: str) -> None:
        super().__init__({"unembed.weight": "lm_head.weight", "tokens": "d2t"})
        self.stem = stem

    def __missing__(self, name: str) -> str:
        return f"{self.stem}.{name.removeprefix('layer.')}" if name.startswith("layer.") else name


def refuse_unknown(folder: Path, config: Config, layer: Config, said: Config) -> None:
    """Refuse by its name what would change the computation and is not supported (ValueError)."""
    wrong = [(name, config[name]) for name in UNKNOWN if config.get(name)]
    expected = ((said, "algorithm", "eagle3"), (layer, "num_hidden_layers", 1), (layer, "hidden_act", "silu"))
    wrong += [(name, where[name]) for where, name, value in expected if where.get(name, value) != value]
    if wrong:
        name, value = wrong[0]
        raise ValueError(f"The head in {str(folder)!r} has {name} = {value!r}, which is not supported here.")


def layer_of(layer: Config) -> Settings:
    """What `decoding.methods.eagle` must know of the layer, in its words."""
    width, heads = layer.get("hidden_size"), layer.get("num_attention_heads")
    found = {name: layer.get(name) for name in ("hidden_size", "num_attention_heads", "intermediate_size")}
    found["num_key_value_heads"] = layer.get("num_key_value_heads") or heads
    found["head_dim"] = layer.get("head_dim") or whole_share(width, heads)
    found |= {"rms_norm_eps": layer.get("rms_norm_eps", 1e-6), "rope_parameters": rope_of(layer)}
    found |= {name: bool(layer.get(name, False)) for name in ("attention_bias", "mlp_bias")}
    return found | {"max_position_embeddings": layer.get("max_position_embeddings") or 2048}


def whole_share(width: object, heads: object) -> int | None:
    """The width of one head; None for what cannot be divided."""
    return width // heads if isinstance(width, int) and isinstance(heads, int) and heads > 0 else None


def rope_of(layer: Config) -> Settings:
    """Rotary positions, in the words that transformers uses now."""
    given = layer.get("rope_parameters") or layer.get("rope_scaling") or {}
    if not isinstance(given, dict):
        return {"rope_type": repr(given)}  # which is refused
    found = {name: value for name, value in given.items() if name != "type" and value is not None}
    kind = given.get("rope_type") or given.get("type") or "default"
    return {"rope_theta": layer.get("rope_theta") or 10_000.0} | found | {"rope_type": kind}


def aux_layers_of(folder: Path, config: Config, target: Target) -> list[int]:
    """Which residual streams are read: those the config names, else what the authors' code takes; the last one is PRE_NORM here."""
    count = target.model.config.num_hidden_layers
    inner = config.get("eagle_config")
    named = [where.get("eagle_aux_hidden_state_layer_ids") for where in (config, inner) if isinstance(where, dict)]
    aux_hidden_layers = next(filter(None, named), [2, count // 2, count - 3])
    if (
        not isinstance(aux_hidden_layers, list)
        or not all(type(aux_layer) is int and 0 <= aux_layer <= count for aux_layer in aux_hidden_layers)
        or len(set(aux_hidden_layers)) != 3
    ):
        raise ValueError(
            f"The head in {str(folder)!r} reads the layers {aux_hidden_layers!r} of a target of {count} layers; it needs three."
        )
    return [PRE_NORM if aux_layer == count else aux_layer for aux_layer in aux_hidden_layers]


def with_draft_tokens(folder: Path, head: Head, found: Mapping[str, Tensor], target: Target) -> Head:
    """A draft vocabulary by the target's tokens instead of by offsets."""
    if "tokens" not in head.tensors:
        return head
    tokens = draft_tokens(folder, head.tensors["tokens"].long(), found.get("t2d"))
    return Head(head.tensors | {"tokens": tokens}, head.settings)


def draft_tokens(folder: Path, offsets: Tensor, known: Tensor | None) -> Tensor:
    """(V_d,) the target's token of every draft token: d2t holds how much further on it is, t2d which tokens can be drafted."""
    tokens = torch.arange(len(offsets)) + offsets
    most = len(known) if known is not None else 2**20
    right = bool((tokens.diff() > 0).all()) and int(tokens[0]) >= 0 and int(tokens[-1]) < most
    if not right or (known is not None and not (known[tokens].all() and int(known.sum()) == len(tokens))):
        named = " that t2d names" if known is not None else ""
        raise ValueError(f"d2t in {str(folder)!r} is no list of offsets to ascending tokens{named}.")
    return tokens


@dataclass(frozen=True)
class Format:
    """How the published heads of one method are read.

    `described` says settings, names of the tensors and further tensors of a file; `shapes` which tensors those settings ask for;
    `finished` brings what was read into the form of a head that was trained here.
    """

    described: Callable[[Path, Config, Mapping[str, Shape], Target], tuple[Settings, Names, dict[str, Shape]]]
    shapes: Shapes
    finished: Callable[[Path, Head, Mapping[str, Tensor], Target], Head]


FORMATS = {
    "medusa": Format(medusa, medusa_heads.shapes, without_padding),
    "eagle": Format(eagle, eagle_head.shapes, with_draft_tokens),
}
