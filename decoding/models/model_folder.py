"""The door of a model's folder: what its files may be and may say, before any library opens them. No torch, no transformers.

A folder is untrusted input. Its files are files, they lie in it, and they are no larger than such files are. What a config says
that would choose code or another file is left out, what would take for ever or all memory is refused. What only shows when a
tokenizer or a template runs is tried in a process of its own (`decoding.models.probe`).
"""

import json
import math
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from decoding.models.memory import stored_numbers

CONFIG, WORDS, SAID, GENERATION = "config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"
MB = 2**20
# files that are opened, by the ends of their names, and bytes that they have at most; of the tensors only the list is read
SIZES = {
    CONFIG: 2 * MB, GENERATION: MB, SAID: 16 * MB, WORDS: 128 * MB, "index.json": 64 * MB, "vocab.json": 64 * MB, ".json": 16 * MB,
    ".jinja": MB, ".txt": 64 * MB, ".model": 64 * MB, ".safetensors": math.inf,
}  # fmt: skip
TEMPLATES = "additional_chat_templates"  # a folder in the folder that is opened too
# fields by which code is chosen, fetched or allowed, at whatever depth they stand
CODE = {
    "auto_map", "attn_implementation", "_attn_implementation", "_attn_implementation_internal", "experts_implementation",
    "_experts_implementation", "_experts_implementation_internal", "custom_pipelines", "custom_generate", "trust_remote_code",
    "use_kernels", "kernel_config", "allow_all_kernels", "init_inputs",
}  # fmt: skip
ELSEWHERE = re.compile(r".*_files?|transformers_weights|_name_or_path|name_or_path")  # fields that name another file or model
ADAPTER = "adapter_config.json"
# numbers of a config, by their names, and how large they can be
MOST = {
    r"(num|n)_.*layers?|.*_layers|layers|depth|n_layer|num_labels|num_.*blocks": 1000,
    r".*(experts|heads?|head_dim)": 100_000,
    r".*(positions|position_embeddings|positional_embeddings|ctx)": 2**25,
    r".*(hidden|intermediate|vocab|embed|model|ffn).*(size|dim|d)|vocab_size|n_embd|n_inner|d_model": 2**25,
}
LISTED = 1000  # entries of a list of layers by kind
PACKED = 16  # numbers that a quantisation packs into a stored one, at most
GROWTH = 1000  # how much longer a text may become by what a tokenizer replaces
REPLACING = ("Replace", "Prepend")


def check_folder(folder: Path) -> None:
    """Refuse a model's folder by its files and by what they say (ValueError)."""
    check_files(folder)
    if (folder / ADAPTER).exists():
        raise ValueError(f"it is an adapter for another model ({ADAPTER}); merge it with that one, then open the result.")
    config = read_json(folder / CONFIG) if (folder / CONFIG).exists() else {}
    check_numbers(config)
    check_sizes(config, folder)
    if (folder / WORDS).exists():
        check_growth(read_json(folder / WORDS))


# -- files -------------------------------------------------------------------------------------------------------------


def check_files(folder: Path) -> None:
    """Refuse a folder, of a model or a head, with a file that is none, lies elsewhere or is too large (ValueError)."""
    inside = folder.resolve()
    for file in (*folder.iterdir(), *(folder / TEMPLATES).glob("*")):
        if (most := largest(file.name)) and not (file.is_dir() and not file.is_symlink()):
            check_file(file, inside, most)


def largest(name: str) -> float:
    """Bytes that a file of this name may have; 0 for one that is never opened."""
    return next((most for end, most in SIZES.items() if name.endswith(end)), 0)


def check_file(file: Path, inside: Path, most: float) -> None:
    """Refuse what is no file, lies elsewhere, or is larger than `most` bytes (ValueError)."""
    place = Path(os.path.realpath(file))
    if not place.is_relative_to(inside) and not in_hub_cache(place, inside):
        raise ValueError(f"{file.name} in {file.parent.name!r} is a link that leads out of the folder. Put the file itself there.")
    try:
        found = place.stat()
    except OSError:
        raise ValueError(f"{file.name} is a link to nothing.") from None
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{file.name} is no file.")
    if found.st_size > most:
        raise ValueError(f"{file.name} has {found.st_size:,} bytes; at most {most:,} are read.")


def in_hub_cache(place: Path, inside: Path) -> bool:
    """Whether a file is where the cache that all programs of the Hub share keeps those of this very folder."""
    return inside.parent.name == "snapshots" and place.parent == inside.parent.parent / "blobs"


def read_json(file: Path) -> Any:
    """What a file says, as an object; ValueError if it is damaged."""
    try:
        found = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file.name} cannot be read, or it is damaged: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file.name} is no description of anything.")
    return found


@contextmanager
def described(folder: Path) -> Iterator[Path]:
    """While the block runs, a folder with the same config and tokenizer, without what would choose code or another file."""
    named = [file for file in folder.glob("*.json") if file.name != WORDS and not file.name.endswith("index.json")]
    changed = {file.name: clean for file in named if (clean := without(said := read_any(file))) != said}
    if not changed:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="draftscope-") as name:
        place = Path(name)
        for file in folder.iterdir():
            if file.name in changed:
                (place / file.name).write_text(json.dumps(changed[file.name]), "utf-8")
            elif file.is_dir() and file.name == TEMPLATES:
                shutil.copytree(file, place / file.name)
            elif largest(file.name) and not file.name.endswith(".safetensors"):
                shutil.copy(file, place)
        yield place


def read_any(file: Path) -> Any:
    """What a file of JSON says; None for one that says nothing, which whoever opens it refuses."""
    try:
        return json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def without(said: Any) -> Any:
    """The same without the fields that choose code or files.

    >>> without({"model_type": "llama", "text_config": {"auto_map": {}}, "tokenizer_file": "/etc/passwd"})
    {'model_type': 'llama', 'text_config': {}}
    """
    if isinstance(said, list):
        return [without(part) for part in said]
    if not isinstance(said, dict):
        return said
    return {name: without(part) for name, part in said.items() if name not in CODE and not ELSEWHERE.fullmatch(name)}


# -- numbers -----------------------------------------------------------------------------------------------------------


def check_numbers(config: Any) -> None:
    """Refuse a config whose numbers no model has (ValueError): building what it describes would never end."""
    for name, value in fields(config):
        if isinstance(value, list) and len(value) > LISTED and name in ("layer_types", "attention_layers", "attention_types"):
            raise ValueError(f"{name} in {CONFIG} lists {len(value):,} layers; at most {LISTED:,} can be read.")
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            continue
        for pattern, most in MOST.items():
            if re.fullmatch(pattern, name) and not value <= most:
                raise ValueError(f"{name} in {CONFIG} is {shown(value)}; at most {most:,} can be read.")


def shown(value: float) -> str:
    """A number, however long it is.

    >>> shown(1_000_000), shown(10**400)
    ('1,000,000', 'a number of more than 300 digits')
    """
    return f"{value:,}" if abs(value) < 10**300 else "a number of more than 300 digits"


def fields(said: Any) -> Iterator[tuple[str, Any]]:
    """Every named value, at whatever depth."""
    parts = [said]
    while parts:
        part = parts.pop()
        if isinstance(part, dict):
            yield from part.items()
        parts += part.values() if isinstance(part, dict) else [one for one in part if isinstance(one, (dict, list))]
        parts = [one for one in parts if isinstance(one, (dict, list))]


def check_sizes(config: Any, folder: Path) -> None:
    """Refuse a config of a model that is far larger than the weights beside it (ValueError): what is lacking would be made up,
    in memory, before anybody sees that it is lacking."""
    inner = config.get("text_config") if isinstance(config.get("text_config"), dict) else config
    sizes = {name: inner.get(name) for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")}
    width = sizes["hidden_size"] or inner.get("n_embd")
    try:
        stored = stored_numbers(folder)
    except (OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return  # opening them says what is wrong
    if not stored or not isinstance(width, int):
        return
    for names in (("vocab_size",), ("num_hidden_layers", "intermediate_size"), ("n_positions",)):
        numbers = [sizes.get(name) or inner.get(name) for name in names]
        if all(isinstance(number, int) for number in numbers) and math.prod(numbers) * width > PACKED * stored:
            said = " x ".join(f"{number:,}" for number in (*numbers, width))
            raise ValueError(
                f"{CONFIG} describes a model of {' x '.join((*names, 'hidden_size'))} = {said} numbers and more; its weights are "
                f"{stored:,} numbers."
            )


# -- tokenizers --------------------------------------------------------------------------------------------------------


def check_growth(words: Any) -> None:
    """Refuse a tokenizer that makes a text longer without measure (ValueError): replacements in a row multiply."""
    for stage in ("normalizer", "pre_tokenizer", "decoder"):
        growth = 1.0
        for name, value in parts_of(words.get(stage)):
            growth *= growth_of(name, value)
            if growth > GROWTH:
                raise ValueError(f"the {stage} in {WORDS} makes texts more than {GROWTH:,} times as long.")


def parts_of(said: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Everything with a type in a part of a tokenizer, in order."""
    parts = [said]
    while parts:
        part = parts.pop(0)
        if isinstance(part, dict):
            if isinstance(kind := part.get("type"), str):
                yield kind, part
            parts = [one for one in part.values() if isinstance(one, (dict, list))] + parts
        elif isinstance(part, list):
            parts = [*part, *parts]


def growth_of(kind: str, part: dict[str, Any]) -> float:
    """How much longer one part can make a text of one character."""
    if kind not in REPLACING:
        return 1.0
    content = part.get("content", part.get("prepend", ""))
    pattern = part.get("pattern")
    literal = pattern.get("String") if isinstance(pattern, dict) else None
    length = len(content) if isinstance(content, str) else 1
    return max(1.0, length / max(1, len(literal))) if isinstance(literal, str) else max(1.0, float(length))
