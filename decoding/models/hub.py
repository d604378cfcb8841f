"""The Hub: what a model there consists of and how large it is, asked before anything is downloaded, and its files one by one.

Only what a model is opened with is taken: safetensors, config, tokenizer, chat template, licence. If no answer comes within a few
seconds, that is a sentence. Spoken over the Hub's own routes, so that a download can stop anywhere and go on.
"""

import json
import os
import re
import urllib.error
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

from decoding.models.downloads import BROKEN, QUICK, Denied, answered, download, opened
from decoding.models.progress import Progress

ID = re.compile(r"[\w][\w.-]{0,95}/[\w][\w.-]{0,95}|[\w][\w-]{0,95}")
REVISION = re.compile(r"[0-9a-f]{7,64}")
INDEX = "model.safetensors.index.json"
NAMES = {
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "tokenizer.model", "vocab.json", "vocab.txt", "merges.txt", "chat_template.jinja", "chat_template.json",
    "LICENSE", "LICENSE.txt", "LICENSE.md", INDEX,
}  # fmt: skip
WEIGHTS, DOUBLES = ".safetensors", ("consolidated", "original", "adapter_")  # the same weights in another layout, or no model's
MOST = 16 * 2**20  # bytes of an answer
OFF = ("1", "on", "yes", "true")


@dataclass(frozen=True)
class File:
    """One file of a model on the Hub."""

    name: str
    size: int  # bytes
    sha256: str = ""  # "" if the Hub does not say


@dataclass(frozen=True)
class Listing:
    """What is to be downloaded of a model."""

    name: str
    revision: str
    files: tuple[File, ...]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


def is_id(name: str) -> bool:
    """Whether a name can be one of the Hub's; a folder of that name on this machine comes before it."""
    return ID.fullmatch(name) is not None and not os.path.exists(name)


def endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def page(name: str) -> str:
    """Where people look at the model."""
    return f"{endpoint()}/{name}"


def headers() -> dict[str, str]:
    """What says who asks, if somebody is logged in on this machine."""
    from huggingface_hub import get_token

    token = get_token()
    return {"Authorization": f"Bearer {token}"} if token else {}


def listing(name: str, wait: float = QUICK) -> Listing:
    """What there is to download of a model, and how large it is.

    Raises:
        ValueError: within `wait` seconds or so, with a sentence: offline, no such model, or nothing that can be opened.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in OFF:
        refuse(name, "it is not on this machine, and HF_HUB_OFFLINE forbids to ask the Hub for it.")
    try:
        found = answered(lambda: asked(name, wait), wait)
    except urllib.error.HTTPError as error:
        denied(name, error.code)
    except (*BROKEN, ValueError) as error:
        why = getattr(error, "reason", None) or error
        refuse(name, f"it is not on this machine, and the Hub cannot be reached ({why}). A folder or a GGUF file needs no Hub.")
    return chosen(name, found)


def asked(name: str, wait: float) -> Any:
    with opened(f"{endpoint()}/api/models/{quote(name)}?blobs=true", headers(), wait) as answer:
        return json.loads(answer.read(MOST))


def chosen(name: str, found: Any) -> Listing:
    """The files that a model is opened with; ValueError if they are not enough."""
    try:
        revision = found["sha"]
        every = {file["rfilename"]: file for file in found["siblings"]}
        wanted = [(there, file) for there, file in every.items() if there in NAMES or is_weight(there)]
        if any(there.startswith("model-") for there, _ in wanted) and INDEX in every:  # both layouts may be there
            wanted = [(there, file) for there, file in wanted if there != "model.safetensors"]
        files = tuple(File(there, size_of(file), (file.get("lfs") or {}).get("sha256", "")) for there, file in sorted(wanted))
        if not REVISION.fullmatch(revision):
            raise ValueError(revision)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        refuse(name, f"the Hub's answer about it cannot be understood ({type(error).__name__} {error}).")
    check_enough(name, {file.name for file in files}, every)
    return Listing(name, revision, files)


def is_weight(name: str) -> bool:
    return "/" not in name and name.endswith(WEIGHTS) and not name.startswith(DOUBLES)


def size_of(file: dict[str, Any]) -> int:
    return int((file.get("lfs") or {}).get("size") or file["size"])


def check_enough(name: str, files: set[str], every: dict[str, Any]) -> None:
    """Refuse what cannot be opened once it is here (ValueError)."""
    if not any(map(is_weight, files)):
        if ggufs := sorted(there for there in every if there.endswith(".gguf")):
            refuse(name, f"on the Hub it holds GGUF files; download one, such as {ggufs[0]}, and open it by its path.")
        refuse(name, "on the Hub it has no weights as safetensors, and nothing else is opened.")
    if "config.json" not in files:
        refuse(name, "on the Hub it has no config.json, so it is nothing that can be opened by itself.")


def denied(name: str, code: int) -> NoReturn:
    """What a refusal of the Hub means and what helps (ValueError)."""
    if code in (401, 403):
        refuse(
            name,
            f"the Hub does not give it to everybody, or there is no such model (it says {code}). If {page(name)} asks for an "
            "agreement, give it there; then log in, in a terminal: hf auth login.",
        )
    if code == 404:
        refuse(name, "there is no such model on the Hub, or it is private: then log in, in a terminal: hf auth login.")
    refuse(name, f"the Hub does not answer: it says {code}. Try again later.")


def refuse(name: str, reason: str) -> NoReturn:
    raise ValueError(f"The model {name!r} cannot be opened: {reason}")


def download_file(listing: Listing, file: File, folder: Path) -> Iterator[Progress]:
    """One file into `folder`; ValueError if it cannot be had."""
    url = f"{endpoint()}/{quote(listing.name)}/resolve/{listing.revision}/{quote(file.name)}"
    try:
        yield from download(url, folder / file.name, file.size, file.sha256, headers(), f"downloading {listing.name}")
    except Denied as error:
        denied(listing.name, error.code)


def in_shared_cache(name: str) -> Path | None:
    """The model's folder in the cache that all programs of the Hub share; None if it is not there, or not all of it."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(name, "config.json")
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    try:
        index = folder / INDEX
        shards = set(json.loads(index.read_text("utf-8"))["weight_map"].values()) if index.is_file() else {"model.safetensors"}
        return folder if all((folder / shard).is_file() for shard in shards) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
