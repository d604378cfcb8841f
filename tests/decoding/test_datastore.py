"""Datastores: look-ups against a brute-force search, files that are refused, and the store every family gets by itself."""

import json
import shutil
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from transformers import AutoTokenizer

from decoding.models import writing
from decoding.models.cache_folder import cache_folder
from decoding.models.family import Family
from decoding.models.progress import told_to
from decoding.retrieval import datastore, default_datastore
from decoding.retrieval.datastore import Datastore, checksum, main, of_tokens, open_store, write_store
from decoding.retrieval.python_source import HOLD_OUT_EVERY, python_source
from decoding.retrieval.search import Sources, Text, trie_of
from decoding.runs.worker import Stopped
from decoding.training import outputs
from tests.toys import VOCAB

END = 0
FULL = default_datastore.LIMIT  # before anything lowers it for the other tests


def random_documents(seed: int, documents: int = 60, symbols: int = 5) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(1, symbols + 1, rng.integers(1, 30)).tolist() for _ in range(documents)]


def store_of(documents: list[list[int]], separator: int = END) -> Datastore:
    return of_tokens([token for document in documents for token in (*document, separator)], separator)


def places(tokens: list[int], ngram: list[int]) -> list[int]:
    """Where an n-gram stands, the slow way."""
    return [i for i in range(len(tokens) - len(ngram) + 1) if tokens[i : i + len(ngram)] == ngram]


def longest(tokens: list[int], context: list[int]) -> int:
    return max(n for n in range(len(context) + 1) if n == 0 or places(tokens, context[-n:]))


# -- look-up -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_look_ups_equal_a_brute_force_search(seed):
    """Length, places, count and next-token counts of the longest suffix, for texts of the store and others."""
    store = store_of(random_documents(seed))
    tokens, rng = store.tokens.tolist(), np.random.default_rng(seed + 100)
    lengths = set()
    for _ in range(200):
        context = rng.integers(1, 6, rng.integers(1, 12)).tolist()
        if rng.random() < 0.5:  # a piece of a document
            place = rng.integers(len(tokens))
            context = store.around(int(place), 12, 0)[0] or context
        n = store.longest(context, len(context))
        assert n == longest(tokens, context)
        lengths.add(n)
        low, high = store.range(context[len(context) - n :])
        where = places(tokens, context[len(context) - n :]) if n else list(range(len(tokens)))
        assert sorted(store.suffixes[low:high].tolist()) == where
        following = [tokens[place + n] for place in where]
        found, counts = store.following(low, high, n)
        assert found == sorted(set(following)) and counts == [following.count(token) for token in found]
        for token, count in zip(found, counts, strict=True):
            one, other = store.narrowed(low, high, n, token)
            assert other - one == count and (one, other) == store.range([*context[len(context) - n :], token])
    assert {0, 3, 8} & lengths and max(lengths) >= 8


def test_the_suffix_array_is_sorted():
    """Of a text with tokens on both sides of one byte and of two, where a comparison of bytes could go wrong."""
    for top in (300, 70_000):
        text = np.random.default_rng(0).choice([1, 2, 255, 256, top], 500)
        store = of_tokens(text, END)
        order = sorted(range(500), key=lambda i: text[i:].tolist())
        assert store.suffixes.tolist() == order
        assert store.tokens.itemsize == (2 if top < 2**16 else 4)
        low, high = store.range([256, 1])
        assert sorted(store.suffixes[low:high].tolist()) == places(text.tolist(), [256, 1])


def test_few_and_many_occurrences_are_counted_alike(monkeypatch):
    store = store_of(random_documents(3))
    low, high = store.range([2])
    assert high - low > datastore.FEW
    many = store.following(low, high, 1)
    monkeypatch.setattr(datastore, "FEW", 10**6)
    assert store.following(low, high, 1) == many


def test_a_suffix_never_reaches_back_over_a_separator():
    store = of_tokens([1, 2, END, 3, 4, END], END)
    assert store.longest([2, END, 3], 3) == 1 and store.longest([END], 1) == 0 and store.longest([1, 2], 5) == 2
    assert store.longest([7, 3, 4], 1) == 1  # no longer than asked for


def test_tokens_the_store_cannot_hold_and_an_empty_store():
    store = of_tokens([1, 2, END], END)
    assert store.longest([70_000], 1) == 0 and store.range([65536 + 1]) == (3, 3)
    assert datastore.EMPTY.longest([1, 2], 2) == 0 and datastore.EMPTY.following(0, 0, 0) == ([], [])


def test_around_stays_in_the_document():
    store = store_of([[1, 2], [3, 4, 5], [6]])
    assert store.around(4, 9, 9) == ([3], [4, 5]) and store.around(4, 1, 1) == ([3], [4]) and store.around(0, 5, 9) == ([], [1, 2])


# -- the text so far -----------------------------------------------------------------------------------------------------


def test_the_text_so_far_equals_a_brute_force_search():
    rng, found = np.random.default_rng(0), set()
    for _ in range(60):
        tokens, text = rng.integers(0, 4, rng.integers(1, 40)).tolist(), Text(END)
        cut = int(rng.integers(len(tokens)))
        text.add(tokens[:cut])
        text.add(tokens[cut:])  # in parts or at once, it is the same
        inner = tokens[len(tokens) - tokens[::-1].index(END) :] if END in tokens else tokens
        n = max(k for k in range(len(inner) + 1) if k == 0 or len(places(tokens, inner[-k:])) > 1)
        assert text.longest(99) == n
        if n:
            ends = [place + n for place in places(tokens, inner[-n:])][:-1]  # the last one is the end of the text itself
            assert text.ends(n).tolist() == ends
        found.add(n)
    assert {0, 1, 2, 3} <= found


def combined(store: Datastore, context: list[int], ends=frozenset({END})) -> Sources:
    sources = Sources(store, ends)
    sources.follow(context)
    return sources


def test_both_places_count_as_one_text():
    """The longer match wins; equally long ones are added up, and what the text is followed by counts too."""
    store = of_tokens([1, 2, 3, END, 1, 2, 4, END], END)
    found = combined(store, [1, 2, 4, 9, 1, 2]).longest(16)
    assert (found.n, found.count) == (2, 3)
    sources = combined(store, [1, 2, 4, 9, 1, 2])
    after = sources.next(found)
    assert after.tokens == [3, 4] and after.counts == [1, 2]
    longer = sources.longer(found, 4)
    assert (longer.n, longer.count) == (3, 2) and sources.next(longer).tokens == [END, 9]
    assert combined(store, [9, 1, 2, 5, 9, 1, 2]).longest(16).n == 3  # in the text alone
    assert combined(store, [9, 1, 2, 5, 9, 1, 2]).longest(2).count == 3


def test_a_text_that_runs_out_proposes_nothing_further():
    sources = combined(datastore.EMPTY, [5, 5])
    found = sources.longest(9)
    assert (found.n, found.count) == (1, 1) and sources.next(found).tokens == [5]
    last = sources.longer(found, 5)
    assert last.count == 1 and not sources.next(last).tokens


def test_continuations_end_with_their_document():
    store = of_tokens([1, 2, 3, END, 1, 2, END, 1, 5, 6, 7, 8, END], END)
    found = combined(store, [1]).longest(4)
    rows = combined(store, [1]).continuations(found, 4, 99)
    assert rows == [[2, END], [2, 3, END], [5, 6, 7, 8]]
    assert combined(store, [1], frozenset()).continuations(found, 4, 99) == [[2], [2, 3], [5, 6, 7, 8]]
    assert trie_of(rows)["weight"] == [2, 1, 1, 1, 1, 1, 1, 1]


def test_occurrences_are_spread_over_all():
    """Of many, the first and the last in suffix order are among those used, and no region is left out."""
    store = of_tokens([token for y in range(2, 202) for token in (1, y, END)], END)
    sources = combined(store, [1])
    rows = sources.continuations(sources.longest(4), 1, 11)
    used = [row[0] for row in rows]
    assert len(used) == 11 and used[0] == 2 and used[-1] == 201 and max(np.diff(used)) <= 21


# -- files ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, tokenizer) -> Path:
    """A small store on disk."""
    documents = [(f"{i}.txt", np.array(tokens)) for i, tokens in enumerate(random_documents(1))]
    write_store(tmp_path / "store", tokenizer, {"toy": documents[:40], "more": documents[40:]})
    return tmp_path / "store"


def test_a_store_comes_back_as_it_was_written(folder, tokenizer):
    store, documents = open_store(folder, tokenizer), random_documents(1)
    wanted = store_of(documents, tokenizer.eos_token_id)
    assert (store.tokens == wanted.tokens).all() and (store.suffixes == wanted.suffixes).all()
    assert [(source.name, source.documents) for source in store.sources] == [("toy", 40), ("more", 20)]
    assert sum(source.tokens for source in store.sources) == len(store)
    assert isinstance(store.tokens.base, np.memmap) or isinstance(store.tokens, np.memmap)
    start = len(documents[0]) + 1
    assert store.title(start) == "1.txt" and store.title(start - 1) == "0.txt" and store.title(len(store) - 1) == "59.txt"


def rewrite(folder: Path, **changes) -> None:
    """Change store.json; with new arrays also their digests, as one would who wants to be believed."""
    card = json.loads((folder / "store.json").read_text())
    for name in ("tokens", "suffixes"):
        if name in changes:
            np.save(folder / f"{name}.npy", changes.pop(name))
            card["digests"][f"{name}.npy"] = datastore.digest(folder / f"{name}.npy")
    (folder / "store.json").write_text(json.dumps(card | changes))


def cut(folder: Path, name: str, size: int) -> None:
    (folder / name).write_bytes((folder / name).read_bytes()[:size])


def flip(folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[-3] ^= 1
    (folder / name).write_bytes(bytes(data))


def arrays(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    return np.load(folder / "tokens.npy"), np.load(folder / "suffixes.npy")


def swapped(folder: Path) -> np.ndarray:
    return arrays(folder)[1][::-1].copy()


DAMAGE = {
    "no folder": (lambda f: shutil.rmtree(f), "no datastore in"),
    "no card": (lambda f: (f / "store.json").unlink(), "store.json cannot be read"),
    "no tokens": (lambda f: (f / "tokens.npy").unlink(), "tokens.npy cannot be read"),
    "tokens cut short": (lambda f: cut(f, "tokens.npy", -10), "damaged or cut short: tokens.npy"),
    "suffixes cut short": (lambda f: cut(f, "suffixes.npy", -1), "damaged or cut short: suffixes.npy"),
    "an empty file": (lambda f: (f / "suffixes.npy").write_bytes(b""), "damaged or cut short: suffixes.npy"),
    "no array at all": (lambda f: (f / "tokens.npy").write_bytes(b"PK\x03\x04nonsense"), "damaged"),
    "a flipped bit": (lambda f: flip(f, "tokens.npy"), "tokens.npy is not the file that was written"),
    "a flipped suffix": (lambda f: flip(f, "suffixes.npy"), "suffixes.npy is not the file that was written"),
    "half a card": (lambda f: cut(f, "store.json", 40), "damaged: store.json"),
    "another card": (lambda f: (f / "store.json").write_text('{"a": 1}'), "damaged: store.json"),
    "a newer format": (lambda f: rewrite(f, format=2), "has format 2; this version reads format 1"),
    "another length": (lambda f: rewrite(f, tokens=arrays(f)[0][:-1]), "has shape"),
    "a pickle": (lambda f: np.save(f / "tokens.npy", np.array([{}], dtype=object), allow_pickle=True), "damaged"),
    "foreign numbers": (lambda f: rewrite(f, tokens=arrays(f)[0].astype(float)), "numbers are of kind float64"),
    "tokens beyond the vocabulary": (
        lambda f: rewrite(f, tokens=(arrays(f)[0].astype(int) * 999).astype(">u2")),
        "tokens beyond the vocabulary of 280",
    ),
    "suffixes beyond the text": (lambda f: rewrite(f, suffixes=arrays(f)[1] + np.int32(1)), "points beyond the text"),
    "suffixes out of order": (lambda f: rewrite(f, suffixes=swapped(f)), "out of order"),
    "no end": (lambda f: rewrite(f, tokens=np.append(arrays(f)[0][:-1], 1).astype(">u2")), "no end"),
    "titles without documents": (lambda f: rewrite(f, starts=[1, 2]), "titles do not fit"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_store_is_refused_with_a_sentence(folder, tokenizer, case):
    damage, words = DAMAGE[case]
    damage(folder)
    with pytest.raises(ValueError) as caught:
        open_store(folder, tokenizer)
    assert words in str(caught.value) and str(folder) in str(caught.value)


def test_a_store_of_another_tokenizer_is_refused(folder, tokenizer, embedded):
    with pytest.raises(ValueError) as caught:
        open_store(folder, embedded.tokenizer)
    words = str(caught.value)
    assert "another tokenizer" in words and checksum(tokenizer) in words and checksum(embedded.tokenizer) in words


def test_a_store_is_there_in_full_or_not_at_all(tmp_path, tokenizer, monkeypatch):
    def failing(tokens):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(datastore, "sort_suffixes", failing)
    with pytest.raises(ValueError, match="cannot be written to .*No space left"):
        write_store(tmp_path / "store", tokenizer, {"toy": [("a", np.array([1, 2]))]})
    assert not list(tmp_path.iterdir())


def test_nothing_to_put_into_a_store(tmp_path, tokenizer):
    with pytest.raises(ValueError, match="would hold 0"):
        write_store(tmp_path / "store", tokenizer, {"toy": []})


# -- the store of a family -------------------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path, monkeypatch) -> Path:
    """A cache folder of the test's own, and stores that are built in a moment."""
    monkeypatch.setenv("DRAFTSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DRAFTSCOPE_DATASTORE", raising=False)
    monkeypatch.setattr(default_datastore, "LIMIT", 20_000)
    monkeypatch.setattr(default_datastore, "_opened", type(default_datastore._opened)())
    return tmp_path / "cache"


def built(monkeypatch) -> list[Path]:
    """Notes every folder that is built from now on."""
    found: list[Path] = []
    write = default_datastore.write_store
    monkeypatch.setattr(default_datastore, "write_store", lambda folder, *more: (found.append(folder), write(folder, *more)))
    return found


def test_a_family_gets_a_store_once(small, llama, monkeypatch):
    folders = built(monkeypatch)
    store = default_datastore.of_family(llama)
    assert len(store) >= 20_000 and "Python" in store.sources[0].name and store.title(5).endswith(".py")
    assert default_datastore.of_family(llama) is store and default_datastore.opened(llama.tokenizer) is store
    default_datastore._opened.clear()  # another process would find the files
    again = default_datastore.of_family(llama)
    assert again is not store and (again.tokens == store.tokens).all() and len(folders) == 1
    assert [path.name for path in (small / "datastores").iterdir() if path.suffix != ".lock"] == [folders[0].name]


def test_a_store_that_is_built_says_how_far_it_is(small, llama):
    said: list[str] = []
    with told_to(lambda progress: said.append(progress.stage)):
        default_datastore.of_family(llama)
    reading = [int(stage.partition(": ")[2].partition("%")[0]) for stage in said[:-1]]
    assert reading[0] == 0 and reading == sorted(reading) and reading[-1] == 100 and "sorting" in said[-1]


def test_building_can_be_stopped_and_leaves_nothing(small, llama, monkeypatch):
    """On a page Stop makes the listener raise."""

    def stopping(progress) -> None:
        if " 0%" not in progress.stage:
            raise Stopped

    with pytest.raises(Stopped), told_to(stopping):
        default_datastore.of_family(llama)
    assert [path.name for path in (small / "datastores").iterdir()] == ["building.lock"]
    assert len(default_datastore.of_family(llama))


def test_who_waits_for_another_s_store_can_be_stopped(small, llama, monkeypatch):
    monkeypatch.setattr(default_datastore, "LOOK", 0.01)
    said: list[str] = []

    def stopping(progress) -> None:
        said.append(progress.stage)
        if len(said) == 3:
            raise Stopped

    (small / "datastores").mkdir(parents=True)
    for lock in (default_datastore._lock, FileLock(small / "datastores" / "building.lock")):
        said.clear()
        with lock, pytest.raises(Stopped), told_to(stopping):
            default_datastore.of_family(llama)
        assert set(said) == {"waiting for the datastore that another run builds"}


def test_two_that_build_at_once_build_once(small, tokenizer, monkeypatch):
    folders, place = built(monkeypatch), default_datastore.place_of(tokenizer)
    with ThreadPoolExecutor(4) as pool:
        stores = list(pool.map(lambda _: default_datastore.made(place, tokenizer), range(4)))
    assert len(folders) == 1 and {len(store) for store in stores} == {len(stores[0])}


def test_other_sources_and_tokenizers_are_kept_apart(small, tokenizer, embedded, monkeypatch):
    one = default_datastore.place_of(tokenizer)
    assert default_datastore.place_of(embedded.tokenizer).name.split("-")[0] != one.name.split("-")[0]
    monkeypatch.setattr(default_datastore, "LIMIT", 30_000)
    assert (
        default_datastore.place_of(tokenizer) != one
        and default_datastore.place_of(tokenizer).name.split("-")[0] == one.name.split("-")[0]
    )


def test_a_spoilt_store_of_our_own_is_built_again(small, llama, monkeypatch):
    folders = built(monkeypatch)
    default_datastore.of_family(llama)
    flip(folders[0], "suffixes.npy")
    default_datastore._opened.clear()
    assert len(default_datastore.of_family(llama)) >= 20_000 and len(folders) == 2


def test_a_cache_that_cannot_be_written_is_said(small, llama, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("DRAFTSCOPE_CACHE", str(tmp_path / "file"))
    with pytest.raises(ValueError, match="cannot be kept in .*Set DRAFTSCOPE_CACHE"):
        default_datastore.of_family(llama)


def test_a_store_that_was_chosen_is_used_or_refused(small, folder, llama, embedded, monkeypatch):
    monkeypatch.setenv("DRAFTSCOPE_DATASTORE", str(folder))
    assert [source.name for source in default_datastore.of_family(llama).sources] == ["toy", "more"]
    with pytest.raises(ValueError, match="another tokenizer"):
        default_datastore.of_family(embedded)
    flip(folder, "tokens.npy")
    default_datastore._opened.clear()
    with pytest.raises(ValueError, match="not the file that was written"):
        default_datastore.of_family(llama)
    assert (folder / "tokens.npy").exists()  # it is not ours to make again


def test_a_family_without_a_tokenizer_has_an_empty_store(llama):
    assert len(default_datastore.of_family(replace(llama, tokenizer=None))) == 0


def test_where_stores_are_kept(monkeypatch, tmp_path):
    monkeypatch.delenv("DRAFTSCOPE_CACHE", raising=False)
    for system, name in (("linux", "XDG_CACHE_HOME"), ("win32", "LOCALAPPDATA")):
        monkeypatch.setattr(default_datastore.sys, "platform", system)
        monkeypatch.setenv(name, str(tmp_path))
        assert cache_folder() == tmp_path / "draftscope"
    monkeypatch.setattr(default_datastore.sys, "platform", "darwin")
    assert cache_folder() == Path.home() / "Library" / "Caches" / "draftscope"


def test_what_is_held_out_is_not_in_the_store():
    """The same files as `decoding.training.corpus` holds out, and none twice; tests are in, other packages are not."""
    files = default_datastore.standard_library()
    _, held_out = python_source()
    texts = {text for _, text in default_datastore.library_texts(files[: len(held_out) * HOLD_OUT_EVERY])}
    assert len(held_out) > 10 and not set(held_out) & texts
    train, _ = python_source()
    assert set(train) <= texts and len(files) == len(set(files))
    root = Path(sysconfig.get_paths()["stdlib"])
    assert not any("site-packages" in file.relative_to(root).parts for file in files)
    if (root / "test").is_dir():
        assert any("test" in file.relative_to(root).parts for file in files)


def test_own_outputs_belong_to_the_embedded_tokenizer(small, llama, embedded, monkeypatch, tmp_path):
    """A file of texts, each with the end token behind it, becomes a source; for another tokenizer it means nothing."""
    end = embedded.tokenizer.eos_token_id
    np.save(tmp_path / "outputs.npy", np.array([5, 6, 7, end, end, 8, end], dtype=np.uint16))
    before = default_datastore.place_of(embedded.tokenizer)
    monkeypatch.setattr(default_datastore, "OUTPUTS", tmp_path / "outputs.npy")
    assert default_datastore.has_outputs(embedded.tokenizer) and not default_datastore.has_outputs(llama.tokenizer)
    assert default_datastore.place_of(embedded.tokenizer) != before
    store = default_datastore.of_family(embedded)
    assert (store.sources[1].documents, store.sources[1].tokens) == (2, 6)
    low, high = store.range([5, 6, 7, end, 8])
    assert high - low == 1 and store.title(int(store.suffixes[low])) == store.sources[1].name


def test_the_embedded_store(tmp_path, monkeypatch, embedded):
    """The real one, built once per session: millions of tokens, and a line of the standard library is found in it."""
    monkeypatch.setenv("DRAFTSCOPE_CACHE", str(tmp_path))
    monkeypatch.setattr(default_datastore, "LIMIT", FULL)
    monkeypatch.setattr(default_datastore, "_opened", type(default_datastore._opened)())
    store = default_datastore.of_family(Family("embedded", embedded.tokenizer, embedded.target))
    tests = (Path(sysconfig.get_paths()["stdlib"]) / "test" / "test_list.py").is_file()  # Debian leaves them out
    assert len(store) >= (5_000_000 if tests else 3_500_000)
    line = embedded.tokenizer(" for i in range(", add_special_tokens=False)["input_ids"]
    assert store.longest(line, len(line)) == len(line)
    tokens = store.tokens.astype(np.int32)
    wanted = np.flatnonzero(tokens[: 1 - len(line)] == line[0])
    for i, token in enumerate(line[1:], 1):
        wanted = wanted[tokens[wanted + i] == token]
    low, high = store.range(line)
    assert high - low == len(wanted) > 100


# -- the commands ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def texts(tmp_path) -> Path:
    folder = tmp_path / "texts" / "deeper"
    folder.mkdir(parents=True)
    (folder / "a.txt").write_text("the cat sat on the mat")
    (folder.parent / "b.md").write_text("the dog sat on the log")
    (folder.parent / "picture.png").write_bytes(b"\x89PNG\xff\xfe")
    (folder.parent / "empty.txt").write_text("")
    return folder.parent


def test_a_store_of_any_text(texts, folders, tmp_path, capsys):
    main(["--family", folders("llama"), "--text", str(texts), "--out", str(tmp_path / "out"), "--outputs", "60"])
    store = open_store(tmp_path / "out", AutoTokenizer.from_pretrained(folders("llama")))
    assert [(source.name, source.documents) for source in store.sources][0] == ("texts", 2)
    assert store.sources[1].tokens >= 60 and store.titles[:2] == ("b.md", "deeper/a.txt")
    assert "texts: 2 documents" in capsys.readouterr().out


@pytest.mark.parametrize(
    "change, words",
    [
        ({"--text": "nowhere"}, "no folder 'nowhere'"),
        ({"--out": "."}, "already there"),
        ({"--family": "no such family!"}, "neither a folder nor"),
    ],
)
def test_the_command_says_what_is_wrong(texts, folders, tmp_path, change, words):
    options = {"--family": folders("llama"), "--text": str(texts), "--out": str(tmp_path / "out")} | change
    with pytest.raises(SystemExit, match=words):
        main([part for option in options.items() for part in option])


def test_outputs_are_the_targets_own_and_go_on_where_they_stopped(llama, tmp_path, monkeypatch):
    """Written in two goes or in one, the file is the same; a batch that was cut off is written again."""
    monkeypatch.setattr(writing, "ROWS", 3)
    monkeypatch.setattr(writing, "LENGTH", 24)
    monkeypatch.setattr(outputs, "load", lambda *args, **more: llama)
    monkeypatch.chdir(tmp_path)

    def write(tokens: int, out: str) -> None:
        monkeypatch.setattr("sys.argv", ["outputs", "--tokens", str(tokens), "--out", out, "--work", "work.part"])
        outputs.main()

    write(300, "whole.npy")
    whole = np.load("whole.npy")
    assert whole.dtype == np.uint16 and len(whole) >= 300 and whole[-1] == llama.tokenizer.eos_token_id
    assert whole.max() < VOCAB and not Path("work.part").exists()

    save = np.save
    monkeypatch.setattr(outputs.np, "save", lambda *args, **more: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write(100, "parts.npy")
    with Path("work.part").open("ab") as file:
        file.write(b"\x50\x00\x00\x00half a batch")
    monkeypatch.setattr(outputs.np, "save", save)
    write(300, "parts.npy")
    assert (np.load("parts.npy") == whole).all()
