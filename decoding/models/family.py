"""Family: a tokenizer, a target, and the draft model that fits it: embedded, from a folder, or from the Hub.

Untrusted input: only safetensors are opened, no code of a model folder is ever run, and every model proves at load that it can
be read over a tree before anybody relies on it.
"""

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import cast

import torch
from transformers import PreTrainedTokenizerBase

from decoding.limits import check_models
from decoding.models import deltas, probe
from decoding.models.catalogue import MODELS
from decoding.models.chat import Option, rendered
from decoding.models.checkpoints import (
    DTYPES,
    check_architecture,
    context,
    end_tokens,
    open_config,
    open_weights,
    opening,
    vocabulary,
)
from decoding.models.draft_tokens import OtherDraft, fitted
from decoding.models.ends import Stop, checked_stops, stop_ids
from decoding.models.fetching import of_package, place_of
from decoding.models.graphs import MODES
from decoding.models.heads import Head
from decoding.models.memory import BYTES, check_memory, needs
from decoding.models.model_folder import check_folder, described
from decoding.models.names import DRAFTS_OF, EMBEDDED_TARGETS, HEADS_OF, HYPER, IMAGE_TARGETS, SHIPPED_DRAFTS, SHIPPED_TARGETS
from decoding.models.number_format import on_processor
from decoding.models.places import Place, place
from decoding.models.progress import said, tell
from decoding.models.published_heads import method_of, opened
from decoding.models.rasters import check_asked, check_pixels, check_raster, open_prompt, raster_of, words_of
from decoding.models.self_test import check_tree_reading
from decoding.models.short_way import shortened
from decoding.models.spread import AUTO_MAP, check_spread, devices
from decoding.models.target import Target
from decoding.models.token_bytes import token_bytes_maker
from decoding.models.tokenizers import check_usable, open_tokenizer
from decoding.trace import Message, Raster

SHIPPED = Path(__file__).parent.parent
EMBEDDED = SHIPPED / "embedded"
# name as a draft model -> folder
DRAFTS = SHIPPED_TARGETS | {name: SHIPPED_DRAFTS[name] for name in ("embedded", HYPER, *IMAGE_TARGETS)}
HUB_ID = re.compile(r"[\w.-]{1,96}(/[\w.-]{1,96})?")  # and much that looks like one
MAX_PROMPT = 100_000  # characters


@dataclass(frozen=True, eq=False)
class Family:
    """Models that belong together. Shared by all runs; holds no state of any."""

    name: str
    tokenizer: PreTrainedTokenizerBase
    target: Target
    draft: Target | None = None  # in the target's ids
    heads: Mapping[str, Path] = field(default_factory=dict)  # method -> folder of a published head
    notes: tuple[str, ...] = ()  # what was done at loading that a user should know, in sentences
    other_draft: OtherDraft | None = None  # a draft model with another tokenizer, in place of `draft`
    raster: Raster | None = None  # of an image family: its tokens are pixels, its prompts a few words

    def encode(self, prompt: str, limit: int, whose: str = "") -> tuple[int, ...]:
        """Token ids of a prompt, which begin with the token for the beginning of a text once at most, whoever put it there.

        Args:
            whose: " of the draft model", if the limit is the context of that.

        Raises:
            ValueError: it is empty, or leaves no room below `limit` tokens, or an image family cannot be asked for it.
        """
        if not prompt.strip() and self.raster is None:
            raise ValueError("The prompt is empty. Write a few words for the target to continue.")
        if len(prompt) > MAX_PROMPT:
            raise ValueError(f"The prompt has {len(prompt):,} characters; at most {MAX_PROMPT:,} are read.")
        if alone := [c for c in prompt if 0xD800 <= ord(c) <= 0xDFFF]:
            raise ValueError(f"The prompt holds half of a character (U+{ord(alone[0]):04X}), which no text can; take it out.")
        if self.raster is not None:
            check_asked(self.raster, prompt, self.name)
        tokens = self.tokenizer(prompt)["input_ids"]
        return self.checked(tokens[1:] if self.begins_twice(prompt) else tokens, limit, whose)

    def begins_twice(self, prompt: str) -> bool:
        """Whether a prompt begins with the very token that the tokenizer puts before every text, as a rendered template does."""
        first = cast("int | None", self.tokenizer.bos_token_id)  # which the library's types take for any kind of attribute
        tokens = self.tokenizer(prompt)["input_ids"]
        if not isinstance(first, int) or tokens[:2] != [first, first]:
            return False
        return leading(first, self.tokenizer(prompt, add_special_tokens=False)["input_ids"]) < leading(first, tokens)

    def prompt_notes(self, prompt: str) -> tuple[str, ...]:
        """What was done to a prompt that a user should know, in sentences."""
        if not self.begins_twice(prompt):
            return ()
        first = self.tokenizer.bos_token
        return (f"The prompt begins with {first}, and the tokenizer puts {first} before every text: it was put there once.",)

    @property
    def chats(self) -> bool:
        """Whether the tokenizer has a chat template."""
        return bool(getattr(self.tokenizer, "chat_template", None))

    def encode_chat(
        self, messages: Sequence[Message], options: Mapping[str, Option], limit: int, whose: str = ""
    ) -> tuple[str, tuple[int, ...]]:
        """The text that the chat template makes of checked messages, and its token ids.

        Raises:
            ValueError: there is no template, it does not take them, or they leave no room below `limit` tokens.
        """
        if not self.chats:
            raise ValueError(f"{self.name} has no chat template, so it takes no messages. Give it a text to go on from.")
        text = rendered(self.tokenizer, messages, options, self.name)
        return text, self.checked(self.tokenizer(text, add_special_tokens=False)["input_ids"], limit, whose)

    def checked(self, tokens: Sequence[int], limit: int, whose: str = "") -> tuple[int, ...]:
        """Token ids to go on from, as they are; ValueError if there are none, unknown ones, or no room below `limit` tokens."""
        if not tokens:
            raise ValueError("The prompt has no tokens; at least one is needed to go on from.")
        if strange := [token for token in tokens if not 0 <= token < self.target.vocab]:
            raise ValueError(f"The prompt has the token {strange[0]}; the target has {self.target.vocab:,} tokens.")
        if self.raster is not None:
            check_pixels(self.raster, [self.token_bytes([token])[token].decode() for token in tokens], tokens, self.name)
        if len(tokens) >= limit:
            raise ValueError(
                f"The prompt has {len(tokens):,} tokens; the context{whose} holds {limit:,} and one must be left free."
            )
        return tuple(tokens)

    def text(self, tokens: Sequence[int]) -> str:
        """What these tokens say; bytes that are no character become U+FFFD. Those of an image family are words, spaces between."""
        token_bytes = self.token_bytes(tokens)
        return (b"" if self.raster is None else b" ").join(token_bytes[token] for token in tokens).decode("utf-8", "replace")

    def token_bytes(self, tokens: Iterable[int]) -> dict[int, bytes]:
        """Token -> its bytes, which may be half a character."""
        return {token: self._token_bytes(token) for token in tokens}

    def stop_tokens(self, stop: Stop | Iterable[Stop]) -> tuple[int, ...]:
        """The ids of tokens that a run is to stop at; ValueError for what is no token or a text of several."""
        given = checked_stops(stop)
        encode = lambda text: self.tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731
        return stop_ids(given, self.target.vocab, encode, self._same_bytes if any(isinstance(s, str) for s in given) else {})

    def ending_at(self, stop: Iterable[int], *, ignore_end: bool) -> "Family":
        """The same models with other tokens that end a text, also for drafters: these, and with `ignore_end` no others."""
        ends = frozenset(stop).union(() if ignore_end else self.target.ends)
        if ends == self.target.ends:
            return self
        draft = None if self.draft is None else replace(self.draft, ends=ends)
        return replace(self, target=replace(self.target, ends=ends), draft=draft)

    def published_head(self, method: str) -> Head | None:
        """The published head that was loaded with the family; None if it has none for this method."""
        folder = self.heads.get(method)
        return None if folder is None else opened(folder, self.target)

    @cached_property
    def special_tokens(self) -> tuple[int, ...]:
        """Tokens that are marks, such as the end of a turn, and no text."""
        if self.tokenizer is None:
            return ()
        added = {token for token, entry in self.tokenizer.added_tokens_decoder.items() if entry.special}
        return tuple(sorted(added.union(self.tokenizer.all_special_ids)))

    @cached_property
    def untold(self) -> tuple[int, ...]:
        """The tokens of the prompt that says nothing of the picture; () for a family that has none, as those of text."""
        return () if self.raster is None else tuple(self.tokenizer(" ".join(open_prompt(self.raster)))["input_ids"])

    @cached_property
    def _same_bytes(self) -> dict[bytes, list[int]]:
        """Bytes -> all tokens that are exactly these."""
        found: dict[bytes, list[int]] = defaultdict(list)
        for token in sorted(set(self.tokenizer.get_vocab().values())):
            found[self._token_bytes(token)].append(token)
        return dict(found)

    @cached_property
    def _token_bytes(self):
        return token_bytes_maker(self.tokenizer)


def leading(token: int, tokens: Sequence[int]) -> int:
    """How many tokens at the beginning are this one.

    >>> leading(1, [1, 1, 5, 1])
    2
    """
    return next((i for i, other in enumerate(tokens) if other != token), len(tokens))


Opened = tuple[PreTrainedTokenizerBase, Target, tuple[str, ...]]  # a tokenizer, a model that passed the self-test, and notes
OpenModel = Callable[..., Opened]  # as `open_model`


def load(
    target: str = "embedded",
    draft: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    graphs: str = "auto",
    open_by: OpenModel | None = None,
) -> Family:
    """Load a family.

    Args:
        target: a name of the catalogue ("smollm2", "embedded", "embedded-small", "embedded-hyper", "digits", "shapes"), a
            folder in Hugging Face format, a GGUF file, or a Hub id. A folder with a raster.json is an image family.
        draft: "embedded", or what a target can be called by. None: the draft model that ships for the target, if one does. A
            published head (`decoding.models.published_heads`) is kept for the method that it belongs to. A tokenizer that differs
            from the target's is no hindrance: see `decoding.models.draft_tokens`.
        device: "auto" (cuda, else mps, else cpu), "cpu", "cuda", "cuda:1", "mps", or "auto-map": the target is spread over all GPUs
            and, as far as those are full, the main memory.
        dtype: "auto" (on a CPU float32, or bfloat16 where that was measured to be faster; else as stored), "float32", "bfloat16",
            "float16".
        graphs: "auto" (CUDA graphs on a GPU, for models that can be captured), "off", or "static": passes of fixed shape as for a
            graph, but none is captured, on any device.
        open_by: opens a model; None: `open_model`.

    Raises:
        ValueError: with a sentence that says what is wrong and with which value.
    """
    open_one = open_by or open_model
    names = {"target": target, "draft model": draft or "", "device": device, "number format": dtype, "use of graphs": graphs}
    for what, given in names.items():
        if not isinstance(given, str):
            raise ValueError(f"The {what} must be given by its name; it is {given!r}.")
    if graphs not in MODES:
        raise ValueError(f"There is no use of graphs {graphs!r}; use {', '.join(MODES)}.")
    check_models(target, draft, device, dtype)
    where = find_device(device)
    name = target if draft is None else f"{target} + {draft}"
    own, asked = DRAFTS_OF.get(target), draft
    target, notes = opened_from(target, SHIPPED_TARGETS)
    draft, more = opened_from(draft, DRAFTS) if draft else (None, ())
    notes += more
    method = method_of(draft)
    published, draft = (draft, None) if method else (None, draft)
    if draft is None and own:
        draft = str(SHIPPED / SHIPPED_DRAFTS[own])
    raster = raster_of(Path(target))
    tokenizer, big, more = open_one(target, where, dtype, spread=device == AUTO_MAP, graphs=graphs)
    if raster is not None:
        check_raster(raster, tokenizer.get_vocab(), big.context, name)
        big = replace(big, unused=words_of(raster, big.vocab))
    notes += more + lent_notes(name)
    heads = {method: Path(published)} if published else {}
    for folder in heads.values():
        notes += opened(folder, big).notes  # whatever is wrong with it is said now
    if draft is None:
        return Family(name, tokenizer, big, heads=heads, notes=notes, raster=raster)
    other, small, more = open_one(draft, big.device, dtype, graphs=graphs)
    if raster is not None:
        small = replace(small, unused=words_of(raster, small.vocab))
    found = fitted(big, tokenizer, small, other, asked or draft)
    return Family(name, tokenizer, big, found.draft, heads, notes + more + found.notes, found.other, raster)


def opened_from(name: str, shipped: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
    """The folder that a name stands for, and notes; a GGUF file is converted and a model of the Hub fetched if need be."""
    found = Place(str(SHIPPED / shipped[name])) if name in shipped else place(name)
    return found.source, found.notes


def lent_notes(name: str) -> tuple[str, ...]:
    """A sentence for a family whose heads are those of another one."""
    target = name.partition(" + ")[0]
    if target not in HEADS_OF:
        return ()
    return (
        f"The heads of {target} were trained on {HEADS_OF[target]}: what they guess is judged as ever, and is right less often.",
    )


def weights_mark(source: str | None) -> str:
    """A short checksum of the weights a name stands for, from file sizes and last bytes; "" for a Hub id.

    Kept results of a folder whose weights were trained on must not pass for results of the new ones.
    """
    smollm2 = EMBEDDED / "smollm2"  # its target never changes, what ships beside it may
    images = SHIPPED / source if source in IMAGE_TARGETS else None
    folder = EMBEDDED if source in EMBEDDED_TARGETS else smollm2 if source == smollm2.name else images or Path(source or "")
    if source is None or not os.path.isdir(folder):
        return ""
    found = hashlib.sha256()
    ours = folder in (
        EMBEDDED,
        smollm2,
        images,
    )  # another's weights lie in the folder itself, which may hold a whole disk
    for file in sorted(folder.rglob("*.safetensors") if ours else folder.glob("*.safetensors")):
        twin = folder == EMBEDDED and file.parent.name.endswith("-hyper") and not str(source).endswith("-hyper")
        if not file.is_file() or twin or (folder == EMBEDDED and smollm2 in file.parents):
            continue
        with file.open("rb") as data:
            size = data.seek(0, os.SEEK_END)
            data.seek(max(0, size - 65_536))
            found.update(f"{file.name} {size} ".encode() + data.read())
    return found.hexdigest()[:8]


def find_device(device: str) -> torch.device:
    """Where a model takes its tokens and gives its logits; ValueError if there is no such device."""
    if device == AUTO_MAP:
        check_spread()
    if device in ("auto", AUTO_MAP):
        found = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(found)
    try:
        where = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"There is no device {device!r}; use auto, cpu, cuda, mps or {AUTO_MAP}.") from error
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(where.type, False):
        raise ValueError(f"The device {device!r} is not available on this machine.")
    return where


@contextmanager
def safe(source: str) -> Iterator[str]:
    """While the block runs, a folder from which config and tokenizer can be opened: of a model from outside only what says nothing
    of code and other files, after it was looked at and tried in a process of its own. ValueError if that did not go well."""
    if ships(source):
        yield source
        return
    with opening(source):
        check_folder(Path(source))
        probe.check(Path(source))
    with described(Path(source)) as folder:
        yield str(folder)


def ships(source: str) -> bool:
    """Whether a folder is one that comes with the app, or whose checksum does."""
    known = (EMBEDDED, *(SHIPPED / name for name in IMAGE_TARGETS), *(place_of(name) for name in MODELS if of_package(name)))
    return any(Path(source).resolve().is_relative_to(folder.resolve()) for folder in known)


def open_model(source: str, device: torch.device, dtype: str, *, spread: bool = False, graphs: str = "auto") -> Opened:
    """A tokenizer, a model that passed the self-test, and notes; ValueError with the reason if it cannot be opened or read. A model
    that is `spread` lies wherever there is room."""
    if dtype != "auto" and dtype not in DTYPES:
        raise ValueError(f"There is no number format {dtype!r}; use auto, {', '.join(DTYPES)}.")
    if not os.path.isdir(source):
        if HUB_ID.fullmatch(source):
            raise ValueError(f"The model {source!r} cannot be opened: it is no folder, and nothing on the Hub can be called so.")
        raise ValueError(f"{source!r} is neither a folder nor the id of a model on the Hub.")
    given = Path(source)
    if ships(source):
        source = str(deltas.base_of(given))
    with safe(source) as folder:
        with opening(source):
            config = open_config(folder)
        check_architecture(config, source)
        with opening(source):
            tokenizer, words = open_tokenizer(folder, source)
            check_usable(tokenizer)
    format_note = ""
    if dtype == "auto" and device.type == "cpu" and not ships(source):
        dtype, format_note = on_processor(config, source)
    found = needs(Path(source), BYTES["float32"] if dtype == "auto" else BYTES[dtype])
    if device.type == "cpu":
        check_memory(found, source)
    shown = "float32" if dtype == "auto" and device.type == "cpu" else "its own number format" if dtype == "auto" else dtype
    tell(f"loading {given.name} on {device} in {shown}{f', {said(found.weights)}' if found else ''}")
    with opening(source):
        model, notes = open_weights(source, config, None if spread else device, dtype)
    if ships(str(given)):
        deltas.add(model, given)
    vocab, unused = vocabulary(tokenizer, config)
    target = Target(model.eval(), vocab, context(config), end_tokens(model, tokenizer), unused)
    tell(f"testing {given.name} over a draft tree")
    check_tree_reading(target, source)
    target, short = shortened(target, source, graphs)
    places = devices(model)
    spread_note = (f"The layers of {source!r} lie on {', '.join(places)}.",) if places else ()
    return tokenizer, target, (*words, *notes, *short, *spread_note, *filter(None, [format_note]))
