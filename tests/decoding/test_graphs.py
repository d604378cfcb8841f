"""Passes of fixed shape put out what the others do, at the edge of every bucket, and their replay touches fixed buffers alone."""

import resource
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from decoding.draft import EMPTY, Draft
from decoding.models import family as families
from decoding.models import graphs
from decoding.models.cache import TreeCache
from decoding.models.family import Family, load
from decoding.models.graphs import FIRST_KEYS, ROWS, Graphs, Pass, Room
from decoding.models.plain_forward import PRE_NORM, PlainForward
from decoding.models.short_way import shortened, with_graphs
from decoding.models.target import Target
from decoding.runs.run import Run
from decoding.sample import Sampling
from tests.decoding.test_devices import CASES, JUDGED, PARAMS, PROMPT, RECORDED, TOKENS, drafting, same, traced
from tests.pretend import pretended
from tests.toys import VOCAB, causal_lm

CLOSE = 1e-5
LONG = 2048  # positions
EDGES = sorted({rows + more for rows in ROWS[:6] for more in (-1, 0, 1)} - {0}) + [256, 257, 512, 513]


def model(**more):
    return causal_lm("llama", max_position_embeddings=LONG, **more)


@pytest.fixture(scope="module")
def ways() -> tuple[Target, Target]:
    """The same model, with shapes that follow the draft and with fixed ones."""
    plain = PlainForward(model())
    quick = Target(plain.model, VOCAB, LONG, plain=plain)
    return quick, replace(quick, graphs=Graphs(plain))


def text(length: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, VOCAB, length).tolist()


def tree(n: int, seed: int = 0) -> Draft:
    rng = np.random.default_rng(seed)
    parents = tuple(int(rng.integers(max(-1, i - 6), i)) if i else -1 for i in range(n))
    return Draft(tuple(rng.integers(0, VOCAB, n).tolist()), parents, source=("test",) * n)


def begun(target: Target, tokens: list[int]) -> TreeCache:
    cache = target.new_cache()
    if len(tokens) > 1:
        target.extend(cache, tokens[:-1])
    return cache


def close(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() <= CLOSE * max(1.0, float(other.abs().max())))


@pytest.mark.parametrize("rows", EDGES)
@pytest.mark.parametrize("before", [1, 30, FIRST_KEYS - 9, FIRST_KEYS, 2 * FIRST_KEYS + 1])
def test_a_pass_of_fixed_shape_is_the_ordinary_one(ways, rows, before):
    """A tree is read, a path of it kept, and another tree read behind that, so that the buffers were written to before."""
    layers, tokens = (PRE_NORM, 0, 1), text(before)
    caches = [begun(way, tokens) for way in ways]
    for seed in (1, 2):
        draft = tree(rows - 1, seed) if rows > 1 else EMPTY
        one, other = (way.read(cache, tokens, draft, Sampling(), layers) for way, cache in zip(ways, caches, strict=True))
        assert close(other.logits, one.logits) and all(close(other.hidden[layer], one.hidden[layer]) for layer in layers)
        path = draft.path_to(len(draft) - 1)
        for cache in caches:
            cache.keep([0, *(node + 1 for node in path)])
            assert cache.length == cache.committed == len(tokens) + len(path)
        tokens += [*(draft.tokens[node] for node in path), seed]


def test_levels_of_a_tree_that_grows_see_those_before(ways):
    """As a draft model reads them: level by level, each row with what it sees of all that was read since the text."""
    found = []
    for way in ways:
        cache, tokens = begun(way, text(20)), text(20)
        way.extend(cache, tokens[-1:])
        seen = torch.eye(3, dtype=torch.bool)
        first = way.forward(cache, way.ids([5, 6, 7]), [20, 20, 20], seen)[0]
        deeper = torch.tensor([[1, 0, 0, 1, 0], [0, 0, 1, 0, 1]]).bool()
        found.append(torch.cat((first, way.forward(cache, way.ids([8, 9]), torch.tensor([21, 21]), deeper)[0])))
        cache.keep([0, 3])
        found[-1] = torch.cat((found[-1], way.extend(cache, [1])))
    assert close(found[1], found[0])


def test_texts_take_turns(ways):
    """Two texts, one of which grows out of the room that both began in, and others that come and go, each as if it were alone."""
    quick, fixed = ways
    lengths = (FIRST_KEYS - 20, 40)
    caches = [[begun(way, text(length, length)) for length in lengths] for way in ways]
    for step in range(20):
        begun(fixed, text(60))
        for number, length in enumerate(lengths):
            logits = []
            for way, kept in zip(ways, caches, strict=True):
                tokens = text(length, length) + [3] * (3 * step + 1)
                logits.append(way.read(kept[number], tokens, tree(9, step), Sampling()).logits)
                kept[number].keep([0, 1, 2])
            assert close(logits[1], logits[0]), (step, number)
    rooms = {cache.room for cache in caches[1]}
    assert len(rooms) == 2 and quick.graphs is None


def test_a_text_that_another_way_reads_in_between_goes_on(ways):
    """A pass longer than all buckets, layers that are written one by one, and then fixed shapes again."""
    quick, fixed = ways
    tokens, results = text(50), []
    for way in ways:
        cache = begun(way, tokens)
        big = way.read(cache, tokens, tree(ROWS[-1] + 20), Sampling()).logits
        cache.keep([0])
        ordinary = replace(way, graphs=None, plain=None)
        ordinary.extend(cache, text(300, 5))
        results.append([big, way.extend(cache, [3]), way.read(cache, [0] * (cache.length + 1), tree(5), Sampling()).logits])
    assert all(close(other, one) for one, other in zip(*results, strict=True))


def test_memory_does_not_grow_over_two_thousand_steps():
    plain = PlainForward(model(num_hidden_layers=1))
    made = Graphs(plain)
    fixed = Target(plain.model, VOCAB, LONG, plain=plain, graphs=made)
    cache, taken, seen = begun(fixed, text(30)), [], []
    for step in range(2000):
        fixed.read(cache, [1] * (cache.length + 1), tree(step % 17), Sampling())
        cache.keep([0] if cache.length < 900 else [])
        if cache.length >= 900:
            cache.cut(30)
        if step in (1000, 1999):
            taken.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
            seen.append((made.bytes, len(made.kept), sorted(made.rooms)))
    assert seen[0] == seen[1] and taken[1] - taken[0] < 20_000  # kB, of the most that there ever was


def test_what_was_used_least_recently_goes_first():
    plain = PlainForward(model(num_hidden_layers=1))
    made = Graphs(plain, most=0)
    fixed, quick = (Target(plain.model, VOCAB, LONG, plain=plain, graphs=graphs) for graphs in (made, None))
    cache, other = begun(fixed, text(30)), begun(quick, text(30))
    for nodes in (0, 5, 20, 0):
        found = [way.read(one, text(30), tree(nodes), Sampling()).logits for way, one in ((fixed, cache), (quick, other))]
        assert close(*found) and len(made.kept) == 1 and [key[0] for key in made.kept] == [graphs.bucket(nodes + 1)]
        cache.keep([])
        other.keep([])
    fixed.extend(cache, text(400, 2))  # another room: the first goes, and its text with it to the next
    quick.extend(other, text(400, 2))
    assert list(made.rooms) == [1024] and close(fixed.extend(cache, [4]), quick.extend(other, [4]))
    plenty = Graphs(plain, most=10**9)
    roomy = replace(fixed, graphs=plenty)
    again = begun(roomy, text(30))
    for nodes in (0, 5, 20, 0):
        roomy.read(again, text(30), tree(nodes), Sampling())
        again.keep([])
    assert [key[0] for key in plenty.kept] == [8, 32, 1]


# -- capture, as far as it can be tested without a GPU ---------------------------------------------------------------------------


class Recorded:
    """Stands in for CUDA graphs: it remembers the body of a capture, and its replay fails if anything of Python was asked anew, or
    if it put out anything but the same tensors. Like a graph it fills those that the capture put out."""

    def __init__(self, problem: str = "") -> None:
        self.captures, self.replays, self.problem = 0, 0, problem

    def __call__(self, body):
        if self.problem:
            raise RuntimeError(self.problem)
        self.captures += 1
        made: Pass = body.__self__
        body()
        normed, hidden = made.normed, dict(made.hidden)
        places = [part.data_ptr() for part in (made.rows, made.positions, made.places, made.mask, made.room.buffer)]

        def replay() -> None:
            self.replays += 1
            assert places == [part.data_ptr() for part in (made.rows, made.positions, made.places, made.mask, made.room.buffer)]
            body()
            for mine, fresh in ((normed, made.normed), *((hidden[layer], made.hidden[layer]) for layer in hidden)):
                mine.copy_(fresh)
            made.normed, made.hidden = normed, dict(hidden)

        return replay


def test_a_replay_reads_fixed_buffers_alone():
    """Captured once per bucket, replayed ever after, over buffers that stay where they are; also for other texts."""
    plain, capture = PlainForward(model()), Recorded()
    quick = Target(plain.model, VOCAB, LONG, plain=plain)
    fixed = replace(quick, graphs=Graphs(plain, capture))
    for seed in range(3):
        caches = [begun(way, text(20 + seed, seed)) for way in (quick, fixed)]
        tokens = text(20 + seed, seed)
        for step in range(4):
            draft = tree(3 + step, step)
            one, other = (
                way.read(cache, tokens, draft, Sampling()).logits for way, cache in zip((quick, fixed), caches, strict=True)
            )
            assert close(other, one)
            for cache in caches:
                cache.keep([0])
            tokens.append(step)
    assert capture.captures == 2 and capture.replays == 3 * 5 - 2  # a prompt of 32 rows, a tree of 8


def test_what_a_pass_put_out_stays_when_the_next_one_runs():
    plain = PlainForward(model())
    fixed = Target(plain.model, VOCAB, LONG, plain=plain, graphs=Graphs(plain, Recorded()))
    cache = begun(fixed, text(9))
    first = fixed.read(cache, text(9), tree(4, 1), Sampling(), (1, PRE_NORM))
    kept = [values.clone() for values in (first.logits, *first.hidden.values())]
    cache.keep([])
    fixed.read(cache, text(9), tree(4, 2), Sampling(), (1, PRE_NORM))
    assert all(torch.equal(a, b) for a, b in zip(kept, (first.logits, *first.hidden.values()), strict=True))


def test_a_capture_that_fails_leaves_the_pass_and_says_why():
    plain = PlainForward(model())
    made = Graphs(plain, Recorded("operation not permitted when stream is capturing\nmore"))
    fixed = Target(plain.model, VOCAB, LONG, plain=plain, graphs=made)
    quick = replace(fixed, graphs=None)
    found = [way.read(begun(way, text(9)), text(9), tree(4), Sampling()).logits for way in (quick, fixed)]
    assert close(*found) and made.problem == "operation not permitted when stream is capturing"


def test_what_stands_behind_a_text_is_hidden(ways):
    """Whatever stands behind a text in its room."""
    _, fixed = ways
    wanted = fixed.read(begun(fixed, text(9)), text(9), tree(4), Sampling()).logits
    cache = begun(fixed, text(9))
    assert isinstance(cache.room, Room)
    with torch.inference_mode():
        cache.room.buffer[..., 200:, :] = 1e30
        assert torch.equal(fixed.read(cache, text(9), tree(4), Sampling()).logits, wanted)
        cache.room.buffer[..., 200:, :] = 0


def test_a_mask_that_shows_what_a_row_must_not_see_is_noticed(monkeypatch):
    """Planted, and found by the comparison at load."""
    target = Target(model(), VOCAB, LONG)
    quick, _ = shortened(target, "a", "off")
    fixed, notes = with_graphs(quick, "a", "static")
    assert fixed.graphs is not None and not notes
    write = Pass.write

    def open_wide(self, rows, positions, before, visible):
        write(self, rows, positions, before, visible)
        self.mask[..., : before + len(rows)] = 0

    def far(self, rows, positions, before, visible):
        write(self, rows, 2 * positions, before, visible)

    def misplaced(self, rows, positions, before, visible):
        write(self, rows, positions, before, visible)
        self.places += 1

    for wrong in (open_wide, far, misplaced):
        monkeypatch.setattr(Pass, "write", wrong)
        found, notes = with_graphs(quick, "a", "static")
        assert found.graphs is None and "passes of fixed shape differ" in notes[0], wrong


# -- families ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def static() -> Family:
    family = load("embedded", device="cpu", graphs="static")
    assert family.target.graphs is not None and family.draft is not None and family.draft.graphs is not None and not family.notes
    return family


@pytest.mark.parametrize("key, temperature", CASES)
def test_every_method_runs_as_on_the_ordinary_way(key, temperature, embedded, static):
    same(traced(static, key, temperature), traced(embedded, key, temperature))


@pytest.fixture(scope="module")
def away() -> Family:
    """The same on the pretended device."""
    known = families.find_device
    with pytest.MonkeyPatch.context() as patch, pretended() as there:
        patch.setattr(families, "find_device", lambda name: there.device if name == str(there.device) else known(name))
        return load("embedded", device=str(there.device), dtype="float32", graphs="static")


@pytest.mark.parametrize("key", ["plain", "speculative_sampling", "multi_candidate", "eagle", "ppd"])
def test_on_a_device_nothing_more_is_copied(key, away, embedded):
    """One copy for the verdict, one for the trace, one for every call of the drafter, as on the ordinary way."""
    assert away.target.graphs is not None
    with pretended() as there:
        run = Run(away, key, PARAMS.get(key, {}), PROMPT, Sampling(0), seed=3, max_tokens=TOKENS)
        before = 0
        for number, step in enumerate(run):
            assert not number or there.copies - before <= drafting(key, step) + JUDGED + RECORDED, dict(there.counts)
            before = there.copies
    same(run.trace, traced(embedded, key, 0.0))


def test_what_cannot_be_captured_is_read_without_and_says_so(folders):
    family = load(folders("gpt2"), device="cpu", graphs="static")
    assert family.target.graphs is None and "is read without graphs: it is a GPT2LMHeadModel" in family.notes[0]
    assert not load(folders("gpt2"), device="cpu").notes


def test_off_means_none_and_nothing_else_is_known(folders):
    assert load(folders("llama"), device="cpu", graphs="off").target.graphs is None
    with pytest.raises(ValueError, match="no use of graphs 'on'; use auto, off, static"):
        load(folders("llama"), device="cpu", graphs="on")
    with pytest.raises(ValueError, match="must be given by its name; it is True"):
        load(folders("llama"), device="cpu", graphs=True)  # type: ignore[arg-type]


def test_the_buckets():
    for rows in range(1, ROWS[-1] + 1):
        assert graphs.bucket(rows) == min(size for size in ROWS if size >= rows)
        assert rows <= graphs.capacity(rows) < max(2 * rows, FIRST_KEYS + 1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_on_a_gpu_graphs_put_out_what_the_pass_does():
    plain = PlainForward(model().to("cuda"))
    quick = Target(plain.model, VOCAB, LONG, plain=plain)
    fixed, notes = with_graphs(quick, "a", "auto")
    assert fixed.graphs is not None and not notes and not fixed.graphs.problem
    for rows in EDGES:
        tokens = text(300)
        one, other = (
            way.read(begun(way, tokens), tokens, tree(rows - 1) if rows > 1 else EMPTY, Sampling()).logits for way in (quick, fixed)
        )
        assert bool((one - other).abs().max() < 1e-3)
