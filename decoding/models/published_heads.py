"""Published drafters: a folder with config.json and safetensors in the format of EAGLE, EAGLE-3, speculators or Medusa, as a head.

`decoding.models.family.load(TARGET, FOLDER)` finds them with `method_of` and opens them with `read`; the methods prefer them to
heads that were trained here. Formats: the authors' repositories SafeAILab/EAGLE and FasterDecoding/Medusa, and
vllm-project/speculators (algorithm eagle3). Nothing is taken on trust: every tensor must be there in its shape and none beside
them, what changes the computation and is not known here is refused by its name, and nothing is ever unpickled.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from decoding.models import eagle_head, medusa_heads
from decoding.models.eagle_head import layer_name
from decoding.models.head_files import CONFIG, Config, config_of, files_of, names_in, refuse_pickles, refuse_quantised
from decoding.models.heads import Head, Settings, Shapes, tensors_of
from decoding.models.model_folder import check_files
from decoding.models.target import PRE_NORM, Target

UNKNOWN = ("norm_before_fc", "fc_norm", "norm_output")  # switches of EAGLE 3.1 and of speculators that are not supported
USUAL = (0.5, 0.15, 0.08, 0.05, 0.04, 0.03, 0.02, 0.02, 0.02, 0.01)  # Medusa: how often the ranks of head 1 may be right
FADING = 0.75  # of every further head, of the one before
AUX_IDS = "eagle_aux_hidden_state_layer_ids"

Shape = tuple[int, ...]
Names = dict[str, str]  # a tensor's name here -> its name in the file
Stamps = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class Described:
    """What a folder says of a head."""

    settings: Settings
    names: Names
    more: dict[str, Shape] = field(default_factory=dict)  # further tensors of the files that are needed
    unread: frozenset[str] = frozenset()  # and such as are not
    notes: tuple[str, ...] = ()


def method_of(source: str | None) -> str:
    """The method whose published head a folder holds; "" if it holds something else, or is no folder.

    Raises:
        ValueError: the folder's weights are pickled only, whatever they are; or a list in it is damaged.
    """
    folder = Path(source or "")
    if not source or not os.path.isfile(folder / CONFIG):  # which takes names that no file can have
        return ""
    check_files(folder)
    refuse_pickles(folder)
    config, names = config_of(folder), names_in(folder)
    if "medusa_num_heads" in config:
        return "medusa"
    tensors = any(name.startswith("fc.") or ".hidden_norm." in name for name in names)
    return "eagle" if tensors or {"speculators_config", "eagle_config"} & config.keys() else ""


def read(folder: Path, target: Target) -> Head:
    """Open a published head for a target.

    Raises:
        ValueError: with a sentence: it is for another target, has other tensors than its config says, is damaged or quantised, or
            asks for something that is not supported.
    """
    method, config = method_of(str(folder)), config_of(folder)
    if not method:
        raise ValueError(f"{str(folder)!r} holds no published head that is known here.")
    published, files = FORMATS[method], files_of(folder)
    refuse_quantised(files, config)
    said = published.described(folder, config, files.shapes, target)
    shapes = published.shapes(said.settings)
    stored = {name: one for name, one in files.stored.items() if name not in said.unread}
    found = tensors_of(folder, stored, {said.names[name]: shape for name, shape in shapes.items()} | said.more)
    head = Head({name: found[said.names[name]] for name in shapes}, said.settings, notes=files.notes + said.notes)
    return published.finished(folder, head, found, target)


_opened: "WeakKeyDictionary[nn.Module, dict[Path, tuple[Stamps, Head]]]" = WeakKeyDictionary()


def opened(folder: Path, target: Target) -> Head:
    """The same, kept for as long as the target's model is; read again if a file of the folder has changed."""
    kept, now = _opened.setdefault(target.model, {}), stamps(folder)
    if folder not in kept or kept[folder][0] != now:
        kept[folder] = now, read(folder, target)
    return kept[folder][1]


def stamps(folder: Path) -> Stamps:
    """Name, size and time of every file in a folder."""
    found = ((file.name, file.stat()) for file in sorted(folder.iterdir()))
    return tuple((name, about.st_size, about.st_mtime_ns) for name, about in found)


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


def medusa(folder: Path, config: Config, found: Mapping[str, Shape], target: Target) -> Described:
    """Medusa heads, each one residual block and a language-model head of its own.

    A file with more heads than its config says is used whole, as the authors' code does: their own first checkpoints say 2 and
    hold 5. A file with fewer is not complete.
    """
    said = config["medusa_num_heads"]
    if config.get("medusa_num_layers", 1) != 1:
        raise ValueError(f"medusa_num_layers in {str(folder)!r} is {config['medusa_num_layers']!r}; only 1 is supported.")
    vocab, width = found.get("0.1.weight", (0, 0))
    if vocab:
        check_target(folder, target, width, vocab, made_for_words(config.get("base_model_name_or_path")))
    there = next(k for k in count() if f"{k}.1.weight" not in found)
    heads = max(said, there) if type(said) is int and 0 < said <= 64 else 0
    ranks = [[share * FADING**k for share in USUAL] for k in range(heads)]
    settings = {"width": target.model.config.hidden_size, "heads": heads, "vocab": target.model.config.vocab_size, "ranks": ranks}
    names = {f"unembed.{k}.weight": f"{k}.1.weight" for k in range(heads)}
    names |= {f"blocks.{k}.{part}": f"{k}.0.linear.{part}" for k in range(heads) for part in ("weight", "bias")}
    note = (
        f"config.json in {str(folder)!r} says {said} Medusa heads and the file holds {there}; all {there} are used, as the "
        "authors' code does."
    )
    return Described(settings, names, notes=(note,) if heads and there > said else ())


def without_padding(folder: Path, head: Head, found: Mapping[str, Tensor], target: Target) -> Head:
    """Language-model heads without the rows beyond the tokenizer's entries: the embedding may be padded."""
    cut = {name: values[: target.vocab] for name, values in head.tensors.items() if name.startswith("unembed")}
    return replace(head, tensors=head.tensors | cut, settings=head.settings | {"vocab": target.vocab})


def made_for_words(name: object) -> str:
    return f"{name!r}, a target" if isinstance(name, str) and name else ""


# -- EAGLE -------------------------------------------------------------------------------------------------------------


def eagle(folder: Path, config: Config, found: Mapping[str, Shape], target: Target) -> Described:
    """The same for EAGLE heads of either kind, in the authors' format or that of speculators."""
    said = config.get("speculators_config") or {}
    layer = config.get("transformer_layer_config") or config
    if not isinstance(said, dict) or not isinstance(layer, dict):
        raise ValueError(f"{str(folder / CONFIG)!r} does not describe a head.")
    refuse_unknown(folder, config, layer, said)
    verifier = said.get("verifier")
    made_for = made_for_words(verifier.get("name_or_path") if isinstance(verifier, dict) else None)
    width, vocab = layer.get("hidden_size"), layer.get("vocab_size")
    reads = config.get("target_hidden_size") or width
    check_target(folder, target, reads, vocab, made_for)
    stem = "midlayer" if any(name.startswith("midlayer.") for name in found) else "layers.0"
    own = layer_of(layer) | biases_of(layer, found, stem)
    settings: Settings = {"reads": reads, "layer": own, "embeds": found.get("embed_tokens.weight", (0,))[0]}
    if "draft_vocab_size" not in config and not any(name.endswith(".hidden_norm.weight") for name in found):
        settings |= {"kind": "eagle", "aux_hidden_layers": [target.last_hidden], "bias": config.get("bias", True)}
        return Described(settings, Renamed(stem))
    drafted = config.get("draft_vocab_size") or vocab
    settings |= {"kind": "eagle3", "vocab": drafted, "mapped": "d2t" in found or drafted != vocab, "bias": False}
    settings |= {"normed": bool(config.get("norm_before_residual", False))}
    more: dict[str, Shape] = {"t2d": (target.model.config.vocab_size,)} if "t2d" in found else {}
    aux_hidden_layers, note = aux_layers_of(folder, config, target)
    settings |= {"aux_hidden_layers": aux_hidden_layers}
    unread = frozenset({"fc.weight"} if len(aux_hidden_layers) == 1 else ())
    return Described(settings, Renamed(stem), more, unread, (note,))


def biases_of(layer: Config, found: Mapping[str, Shape], stem: str) -> Settings:
    """Which of attention's matrices have one: heads for Qwen 2 have it on queries, keys and values and not on what is put out,
    whatever their config says."""
    asked, put_out = (f"{stem}.self_attn.{part}_proj.bias" in found for part in "qo")
    return {
        "attention_bias": asked and put_out or not asked and bool(layer.get("attention_bias")),
        "qkv_bias": asked and not put_out,
    }


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
    return found | {
        "mlp_bias": bool(layer.get("mlp_bias")),
        "max_position_embeddings": layer.get("max_position_embeddings") or 2048,
    }


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


def aux_layers_of(folder: Path, config: Config, target: Target) -> tuple[list[int], str]:
    """Which residual streams are read, and a sentence about that; the last one is PRE_NORM here.

    What a number means depends on who wrote it. vLLM and speculators name the input of a layer: 2 stands behind two layers, as in
    the authors' code, which is what is taken where nothing is named. SGLang looks into `eagle_config` and, if the first number
    there is 1, counts outputs of layers from 0: 1 stands behind two layers too. No file says which it is.
    """
    layers = target.model.config.num_hidden_layers
    inner = config.get("eagle_config")
    inner = inner if isinstance(inner, dict) else {}
    if {"use_aux_hidden_state": False}.items() <= {**config, **inner}.items():
        return [
            target.last_hidden
        ], f"The head in {str(folder)!r} reads the state behind the final norm (use_aux_hidden_state is false)."
    named, where = next(
        ((ids, say) for ids, say in ((config.get(AUX_IDS), CONFIG), (inner.get(AUX_IDS), "eagle_config")) if ids), (None, "")
    )
    outputs = where == "eagle_config" and isinstance(named, list) and named[:1] == [1]
    found = named or [2, layers // 2, layers - 3]
    right = isinstance(found, list) and all(type(one) is int and 0 <= one + outputs <= layers for one in found)
    if not right or len(set(found)) != 3:
        raise ValueError(f"The head in {str(folder)!r} reads the layers {found!r} of a target of {layers} layers; it needs three.")
    found = [PRE_NORM if one + outputs == layers else one + outputs for one in found]
    how = "outputs of layers counted from 0, as SGLang takes them" if outputs else "numbers of layers before, as vLLM takes them"
    why = f"its {where} names {named}: {how}" if named else "it names none: those of the authors' code"
    return found, (
        f"The head in {str(folder)!r} reads the target behind {', '.join(map(layer_name, found))}; {why}. If it is seldom right, "
        "try the parameter Layers: one earlier, or one later."
    )


def with_draft_tokens(folder: Path, head: Head, found: Mapping[str, Tensor], target: Target) -> Head:
    """A draft vocabulary by the target's tokens instead of by offsets."""
    if "tokens" not in head.tensors:
        return head
    tokens = draft_tokens(folder, head.tensors["tokens"].long(), found.get("t2d"))
    return replace(head, tensors=head.tensors | {"tokens": tokens})


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

    `described` says what is in a folder; `shapes` which tensors those settings ask for; `finished` brings what was read into the
    form of a head that was trained here.
    """

    described: Callable[[Path, Config, Mapping[str, Shape], Target], Described]
    shapes: Shapes
    finished: Callable[[Path, Head, Mapping[str, Tensor], Target], Head]


FORMATS = {
    "medusa": Format(medusa, medusa_heads.shapes, without_padding),
    "eagle": Format(eagle, eagle_head.shapes, with_draft_tokens),
}
