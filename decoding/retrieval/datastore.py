"""Datastore: a text of millions of tokens in which every n-gram, however long, is found and counted by binary search.

A store is a folder of three files: `tokens.npy` (documents, each behind the one before with a separator after it), `suffixes.npy`
(the suffix array: where every suffix begins, in the order of the suffixes) and `store.json`, which names the tokenizer by its
checksum, the sources with their counts, and the digests of the other two. Both arrays stay on disk and are memory-mapped. He et
al. 2023 (REST), section 3.1; Liu et al. 2024 (infini-gram), section 3.

A family gets its store from `decoding.retrieval.default_datastore`. One of any other text, with any family's tokenizer:

    python -m decoding.retrieval.datastore --family FOLDER --text FOLDER --out DIR

and `DRAFTSCOPE_DATASTORE=DIR` makes every run use it.
"""

import argparse
import hashlib
import os
import shutil
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np
from pydivsufsort import divsufsort
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from decoding.models.checkpoints import end_token
from decoding.models.family import Family, load
from decoding.models.progress import tell
from decoding.models.writing import OPENING, sampled

FORMAT = 1
MAX_TOKENS = 2**30  # positions are 32 bits wide
MAX_CARD = 64 * 2**20  # bytes of store.json
BATCH = 32  # documents the tokenizer gets at once
FEW = 16  # occurrences that are counted one by one
PAIRS = 4096  # neighbours of the suffix array that are compared when a store is opened
TOKENS, SUFFIXES, CARD = "tokens.npy", "suffixes.npy", "store.json"

Documents = Iterable[tuple[str, np.ndarray]]  # title, tokens


class Source(msgspec.Struct, frozen=True):
    """One kind of text in a store."""

    name: str
    documents: int
    tokens: int  # separators included


class Card(msgspec.Struct, frozen=True):
    """What store.json says."""

    tokenizer: str  # checksum
    vocab: int
    separator: int  # stands behind every document; may be one beyond the vocabulary
    tokens: int
    sources: tuple[Source, ...]
    starts: tuple[int, ...]  # where documents with a title of their own begin
    titles: tuple[str, ...]
    digests: dict[str, str]  # file -> BLAKE2b of its bytes
    format: int = FORMAT


# -- look-up -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Datastore:
    """Tokens and their suffix array, in memory or on disk; read-only, so that runs may share it.

    Tokens are kept with the high byte first: the order of their bytes is then the order of the suffixes, and a comparison is one of
    byte strings.
    """

    tokens: np.ndarray  # (n,) >u2 or >u4
    suffixes: np.ndarray  # (n,) int32
    separator: int
    sources: tuple[Source, ...] = ()
    starts: tuple[int, ...] = ()
    titles: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def _bytes(self) -> memoryview:
        return self.tokens.view(np.uint8).data

    @cached_property
    def _order(self) -> memoryview:
        return self.suffixes.data

    def range(self, ngram: Sequence[int]) -> tuple[int, int]:
        """(low, high): `suffixes[low:high]` are the places where `ngram` stands; high - low is its count.

        >>> store = of_tokens([1, 1, 2, 1, 3, 1, 0], 0); store.range([1]), store.range([2, 1]), store.range([9])
        ((1, 5), (5, 6), (7, 7))
        """
        width = self.tokens.itemsize
        if max(ngram, default=0) >= 256**width:  # a token the store cannot even hold
            return len(self), len(self)
        wanted = np.array(ngram, dtype=self.tokens.dtype).tobytes()
        size, data = len(wanted), self._bytes

        def at(place: int) -> bytes:
            return bytes(data[width * place : width * place + size])

        low = bisect_left(self._order, wanted, key=at)
        return low, bisect_right(self._order, wanted, low, key=at)

    def longest(self, context: Sequence[int], most: int) -> int:
        """Length of the longest suffix of `context`, at most `most`, that stands anywhere in the store; it never reaches back over
        a separator.

        The count of a suffix falls with its length, so doubling and then halving finds the last length that counts.
        """
        most = min(most, len(context), self._reach(context, most))
        found, size = 0, 1
        while size <= most and self._has(context, size):
            found, size = size, 2 * size
        missing = min(size, most + 1)
        while missing - found > 1:
            middle = (found + missing) // 2
            found, missing = (middle, missing) if self._has(context, middle) else (found, middle)
        return found

    def _reach(self, context: Sequence[int], most: int) -> int:
        """Tokens at the end of `context` behind its last separator."""
        for n in range(min(most, len(context))):
            if context[-1 - n] == self.separator:
                return n
        return len(context)

    def _has(self, context: Sequence[int], n: int) -> bool:
        low, high = self.range(context[-n:])
        return high > low

    def following(self, low: int, high: int, n: int) -> tuple[list[int], list[int]]:
        """The different tokens that stand `n` tokens behind the places `suffixes[low:high]`, which must share those n tokens;
        ascending, and how often each stands there."""
        if not n:
            return self.unigrams
        low += self._ends_with(low, high, n)
        if high - low <= FEW:  # deep in a tree nearly always, and there numpy's calls cost more than the work
            counts: dict[int, int] = {}
            for place in self._order[low:high]:
                token = int(self.tokens[place + n])
                counts[token] = counts.get(token, 0) + 1
            return list(counts), list(counts.values())
        tokens = self.tokens[self.suffixes[low:high].astype(np.int64) + n]
        borders = np.concatenate(([0], np.flatnonzero(tokens[1:] != tokens[:-1]) + 1, [len(tokens)]))
        return tokens[borders[:-1]].tolist(), (borders[1:] - borders[:-1]).tolist()

    @cached_property
    def unigrams(self) -> tuple[list[int], list[int]]:
        """`following` of the empty n-gram, counted once."""
        counts = np.bincount(self.tokens)
        tokens = np.flatnonzero(counts)
        return tokens.tolist(), counts[tokens].tolist()

    def narrowed(self, low: int, high: int, n: int, token: int) -> tuple[int, int]:
        """The part of `suffixes[low:high]` whose places share n tokens and go on with `token`."""

        def at(place: int) -> int:
            return int(self.tokens[place + n])

        low = bisect_left(self._order, token, low + self._ends_with(low, high, n), high, key=at)
        return low, bisect_right(self._order, token, low, high, key=at)

    def _ends_with(self, low: int, high: int, n: int) -> bool:
        """Whether the text ends behind the first of these places, which nothing follows; the shortest suffix comes first."""
        return low < high and self._order[low] + n == len(self)

    def around(self, place: int, before: int, after: int) -> tuple[list[int], list[int]]:
        """The tokens before and from `place` on, of the same document."""
        left = self.tokens[max(0, place - before) : place].tolist()
        right = self.tokens[place : place + after].tolist()
        if self.separator in left:
            left = left[len(left) - left[::-1].index(self.separator) :]
        return left, right[: right.index(self.separator)] if self.separator in right else right

    def title(self, place: int) -> str:
        """The document `place` is in."""
        return self.titles[bisect_right(self.starts, place) - 1] if self.titles else ""


def of_tokens(tokens: Sequence[int] | np.ndarray, separator: int) -> Datastore:
    """A store in memory, of one text whose documents end with `separator`.

    >>> of_tokens([0, 0, 1, 0, 2, 0], 3).suffixes.tolist()  # "aabaca"
    [5, 0, 1, 3, 2, 4]
    """
    packed = pack(np.asarray(tokens, dtype=np.int64))
    return Datastore(packed, sort_suffixes(packed), separator)


def pack(tokens: np.ndarray) -> np.ndarray:
    """(n,) tokens in two bytes each if they fit, else in four, the high byte first."""
    return tokens.astype(">u2" if not len(tokens) or tokens.max() < 2**16 else ">u4")


def sort_suffixes(tokens: np.ndarray) -> np.ndarray:
    """(n,) tokens -> (n,) int32 suffix array."""
    if not len(tokens):
        return np.zeros(0, dtype=np.int32)
    return divsufsort(tokens.astype(tokens.dtype.newbyteorder("="))).astype(np.int32)


EMPTY = of_tokens([], -1)

# -- files -------------------------------------------------------------------------------------------------------------


def checksum(tokenizer: PreTrainedTokenizerBase) -> str:
    """Names what the token ids of a tokenizer mean: its vocabulary, nothing else."""
    return checksum_of(tokenizer.get_vocab())


def checksum_of(vocab: Mapping[str, int]) -> str:
    lines = "\n".join(f"{token} {name}" for name, token in sorted(vocab.items(), key=lambda entry: entry[1]))
    return hashlib.blake2b(lines.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def separator_of(tokenizer: PreTrainedTokenizerBase) -> int:
    """What stands behind every document: the end token, or one id beyond the vocabulary where there is none."""
    end = end_token(tokenizer)
    return len(tokenizer) if end is None else end


def write_store(folder: Path, tokenizer: PreTrainedTokenizerBase, parts: Mapping[str, Documents]) -> None:
    """Build a store in `folder`, which must not exist: under a temporary name first, so that it is there in full or not at all.

    Args:
        parts: name of a source -> its documents.

    Raises:
        ValueError: nothing to put into it, too much, or the folder cannot be written.
    """
    separator = separator_of(tokenizer)
    arrays, starts, titles, sources = gather(parts, separator)
    count = sum(map(len, arrays))
    if not 0 < count < MAX_TOKENS:
        raise ValueError(f"A datastore holds between 1 and {MAX_TOKENS:,} tokens; this one would hold {count:,}.")
    tokens = pack(np.concatenate(arrays))
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        temporary.mkdir(parents=True)
        np.save(temporary / TOKENS, tokens, allow_pickle=False)
        tell(f"building the datastore, once on this machine: sorting {count:,} tokens")
        np.save(temporary / SUFFIXES, sort_suffixes(tokens), allow_pickle=False)
        digests = {name: digest(temporary / name) for name in (TOKENS, SUFFIXES)}
        card = Card(checksum(tokenizer), len(tokenizer), separator, count, sources, starts, titles, digests)
        (temporary / CARD).write_bytes(msgspec.json.format(msgspec.json.encode(card)))
        temporary.rename(folder)
    except OSError as error:
        raise ValueError(f"The datastore cannot be written to {str(folder)!r}: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def gather(
    parts: Mapping[str, Documents], separator: int
) -> tuple[list[np.ndarray], tuple[int, ...], tuple[str, ...], tuple[Source, ...]]:
    """All documents with the separator behind each; where they begin, their titles, and the counts of every source. Documents of
    the same title in a row share one entry."""
    arrays: list[np.ndarray] = []
    starts: list[int] = []
    titles: list[str] = []
    sources, end = [], np.array([separator])
    total = 0
    for name, documents in parts.items():
        first, before = len(arrays), total
        for title, tokens in documents:
            if not titles or titles[-1] != title:
                starts.append(total)
                titles.append(title)
            arrays.append(np.concatenate((tokens.astype(np.int64), end)))
            total += len(arrays[-1])
        sources.append(Source(name, len(arrays) - first, total - before))
    return arrays, tuple(starts), tuple(titles), tuple(sources)


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()[:32]


def open_store(folder: Path, tokenizer: PreTrainedTokenizerBase) -> Datastore:
    """The store in `folder`, memory-mapped, after everything about it was checked.

    Raises:
        ValueError: no store, one of another format or tokenizer, cut short, or damaged.
    """
    card = read_card(folder)
    if card.format != FORMAT:
        raise ValueError(f"The datastore in {str(folder)!r} has format {card.format}; this version reads format {FORMAT}.")
    mine = checksum(tokenizer)
    if card.tokenizer != mine:
        raise ValueError(
            f"The datastore in {str(folder)!r} was made with another tokenizer (checksum {card.tokenizer}, this family has "
            f"{mine}); its tokens would not mean the same."
        )
    tokens, suffixes = (open_array(folder, name, card) for name in (TOKENS, SUFFIXES))
    store = Datastore(tokens, suffixes, card.separator, card.sources, card.starts, card.titles)
    if problem := impossible(store, card, len(tokenizer)):
        raise ValueError(f"The datastore in {str(folder)!r} is damaged: {problem}.")
    return store


def read_card(folder: Path) -> Card:
    path = folder / CARD
    try:
        if path.stat().st_size > MAX_CARD:
            raise ValueError(f"{str(path)!r} has {path.stat().st_size:,} bytes; at most {MAX_CARD:,} are read.")
        return msgspec.json.decode(path.read_bytes(), type=Card)
    except OSError as error:
        raise ValueError(f"There is no datastore in {str(folder)!r}: {CARD} cannot be read.") from error
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise ValueError(f"The datastore in {str(folder)!r} is damaged: {CARD}: {error}.") from error


def open_array(folder: Path, name: str, card: Card) -> np.ndarray:
    """One of the two arrays, mapped, as long as the card says and byte for byte what was written."""
    path = folder / name
    try:
        mapped = np.lib.format.open_memmap(path, mode="r")  # never a pickle or an archive
        found = digest(path)
    except OSError as error:
        raise ValueError(f"There is no datastore in {str(folder)!r}: {name} cannot be read.") from error
    except (ValueError, EOFError) as error:
        raise ValueError(f"The datastore in {str(folder)!r} is damaged or cut short: {name}: {error}.") from error
    if mapped.shape != (card.tokens,):
        raise ValueError(f"The datastore in {str(folder)!r} is damaged: {name} has shape {mapped.shape}, not ({card.tokens},).")
    if found != card.digests.get(name):
        raise ValueError(f"The datastore in {str(folder)!r} is damaged: {name} is not the file that was written.")
    return np.asarray(mapped)


def impossible(store: Datastore, card: Card, vocab: int) -> str:
    """What is wrong with the arrays, or ""; the order of the suffixes is looked at in samples."""
    tokens, suffixes, count = store.tokens, store.suffixes, len(store)
    if tokens.dtype not in (np.dtype(">u2"), np.dtype(">u4")) or suffixes.dtype != np.int32:
        return f"its numbers are of kind {tokens.dtype} and {suffixes.dtype}"
    if not count or tokens.max() > max(vocab - 1, store.separator) or store.separator > vocab:
        return f"it has tokens beyond the vocabulary of {vocab:,}"
    if tokens[-1] != store.separator:
        return "its last document has no end"
    if suffixes.min() < 0 or suffixes.max() >= count:
        return "its suffix array points beyond the text"
    if len(card.starts) != len(card.titles) or list(card.starts) != sorted(card.starts):
        return "its titles do not fit its documents"
    places = np.linspace(0, count - 2, min(PAIRS, count - 1)).astype(np.int64)
    one, other = (suffixes[places + shift].astype(np.int64) for shift in (0, 1))
    return "its suffix array is out of order" if (tokens[one] > tokens[other]).any() else ""


# -- the command -------------------------------------------------------------------------------------------------------


def tokenized(tokenizer: PreTrainedTokenizerBase, texts: Iterable[tuple[str, str]]) -> Iterator[tuple[str, np.ndarray]]:
    """(title, text) -> (title, tokens), a batch at a time."""
    batch: list[tuple[str, str]] = []
    for text in texts:
        batch.append(text)
        if len(batch) == BATCH:
            yield from encoded(tokenizer, batch)
            batch = []
    if batch:
        yield from encoded(tokenizer, batch)


def encoded(tokenizer: PreTrainedTokenizerBase, batch: Sequence[tuple[str, str]]) -> Iterator[tuple[str, np.ndarray]]:
    ids = tokenizer([text for _, text in batch], add_special_tokens=False, return_attention_mask=False, verbose=False)
    for (title, _), tokens in zip(batch, ids["input_ids"], strict=True):
        yield title, np.array(tokens, dtype=np.int64)


def texts_in(folder: Path) -> Iterator[tuple[str, str]]:
    """Every file below `folder` that is UTF-8 text, with a progress bar."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    for file in tqdm(files, desc="text", unit="file"):
        try:
            text = file.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError:
            continue
        if text.strip() and "\0" not in text:
            yield file.relative_to(folder).as_posix(), text


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    try:
        if not options.text.is_dir():
            raise ValueError(f"There is no folder {str(options.text)!r}.")
        if options.out.exists():
            raise ValueError(f"{str(options.out)!r} is already there.")
        family = load(options.family, device=options.device)
        texts = list(tokenized(family.tokenizer, texts_in(options.text)))
        parts: dict[str, Documents] = {options.text.resolve().name: texts}
        if options.outputs:
            parts["text of the target"] = target_texts(family, texts, options.outputs)
        write_store(options.out, family.tokenizer, parts)
        store = open_store(options.out, family.tokenizer)
    except ValueError as error:
        sys.exit(str(error))
    for source in store.sources:
        print(f"{source.name}: {source.documents:,} documents, {source.tokens:,} tokens")
    print(f"Set DRAFTSCOPE_DATASTORE={options.out} to use it.")


def target_texts(family: Family, texts: Sequence[tuple[str, np.ndarray]], count: int) -> Iterator[tuple[str, np.ndarray]]:
    """`count` tokens that the target writes itself, from the openings of `texts`."""
    openings = [tokens[:OPENING].tolist() for _, tokens in texts if len(tokens)]
    with tqdm(total=count, desc="outputs", unit="token") as bar:
        for tokens in sampled(family.target, openings, count):
            bar.update(len(tokens) + 1)
            yield "text of the target", tokens


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m decoding.retrieval.datastore", description="Build a datastore from a folder of text."
    )
    parser.add_argument("--family", default="embedded", help="'embedded', a model folder or a Hub id: whose tokenizer is used")
    parser.add_argument("--text", type=Path, required=True, help="folder; every file in it that is UTF-8 text is taken")
    parser.add_argument("--out", type=Path, required=True, help="folder for the store; must not exist")
    parser.add_argument("--outputs", type=int, default=0, help="tokens that the target adds, going on from the texts' openings")
    parser.add_argument("--device", default="auto")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
