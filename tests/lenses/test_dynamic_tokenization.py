"""Dynamic tokenization: the checks of its specification, and what the shipped network is."""

import json
from collections import Counter

import pytest
import torch

from decoding.lenses import LENSES
from decoding.lenses.dynamic_tokenization import Reader, divergence, lacks, marks, positions
from decoding.looks.dynamic_tokenization import MEAN, NETWORK, ORIGINAL, RENUMBERED, groups
from decoding.models import heads
from decoding.models.hypernetwork import KEY, Hypernetwork, averaged, made, opened, read_in_place
from decoding.models.word_merges import MOST_PIECES, fused_at, inside_words
from decoding.runs.lens_run import LensRun
from decoding.runs.run import Run
from decoding.sample import Sampling

TALES = (
    "There once lived a weaver who wandered through the wilderness with nothing but a lantern and a sparrow. The sparrow whispered "
    "that beyond the mountains stood a castle whose gatekeeper never slumbered. The weaver thanked the sparrow and trudged onward, "
    "and at the castle the gatekeeper demanded a riddle. The weaver scratched his beard, and the sparrow",
    "In a fishing village beneath the cliffs a widow mended nets by moonlight. One evening a silvery otter left the harbour "
    "and begged for shelter. The widow gathered driftwood, kindled a blaze, and the otter murmured about drowned bells and pearls. "
    "At daybreak the otter vanished, but beside the hearth the widow discovered",
    "Long ago a shepherdess guarded forty goats upon a windswept hillside. A magician disguised as a beggar coveted the youngest "
    "goat, whose horns glittered like copper. He sprinkled powder upon the thistles, and the goats grew drowsy. The shepherdess, "
    "suspecting mischief, tethered the goat to her ankle and pretended to",
)


@pytest.fixture(scope="module")
def seen(embedded):
    """The last look at each tale."""
    found = []
    for tale in TALES:
        run = Run(embedded, "plain", prompt=tale, sampling=Sampling(0.0), max_tokens=1)
        next(iter(run))
        *_, last = LensRun(embedded, KEY, run.trace, -1, None, {"points": 6, "words": 2})
        found.append(last)
    return found


def text_of(family, text: str) -> tuple[tuple[int, ...], list[bytes]]:
    tokens = family.encode(text, 1024)
    pieces = family.token_bytes(tokens)
    return tokens, [pieces[token] for token in tokens]


# -- merging -----------------------------------------------------------------------------------------------------------


def slow(tokens: tuple[int, ...], pieces: list[bytes]) -> tuple[int, ...]:
    """The same by the words of the specification: groups are bytes in lists, everything is counted anew."""
    parts = [[i] for i in range(len(tokens))]
    fused, number = [0] * (len(tokens) - 1), 0
    inside = inside_words(pieces)
    kind = lambda part: tuple(tokens[i] for i in part)  # noqa: E731
    while True:
        able = [i for i in range(1, len(parts) - 2) if inside[parts[i][-1]] and len(parts[i]) + len(parts[i + 1]) <= MOST_PIECES]
        if not able:
            return tuple(fused)
        counts = Counter((kind(parts[i]), kind(parts[i + 1])) for i in able)
        length = {(kind(parts[i]), kind(parts[i + 1])): len(b"".join(pieces[j] for j in parts[i] + parts[i + 1])) for i in able}
        first = {(kind(parts[i]), kind(parts[i + 1])): i for i in reversed(able)}
        best = min(counts, key=lambda pair: (-counts[pair], length[pair], first[pair]))
        number += 1
        made_of, i = [parts[0]], 1
        while i < len(parts):
            here = i in able and (kind(parts[i]), kind(parts[i + 1])) == best
            if here:
                fused[parts[i][-1]] = number
            made_of.append(parts[i] + parts[i + 1] if here else parts[i])
            i += 1 + here
        parts = made_of


def test_merges_are_those_of_the_specification(embedded):
    for text in (*TALES[:2], "wawawawa wawa awawa wa, Éléonore déjà-vu naïveté’s", "def reduced_windows(window_rows): return 1"):
        tokens, pieces = text_of(embedded, text)
        assert fused_at(tokens, pieces) == slow(tokens, pieces) != ()


def test_bytes_and_text_stay_the_same_and_words_are_never_joined(embedded):
    tokens, pieces = text_of(embedded, TALES[0])
    fused = fused_at(tokens, pieces)
    lengths = []
    for merges in range(max(fused) + 1):
        spans = groups(fused, merges)
        lengths.append(len(spans))
        assert [token for start, end in spans for token in tokens[start:end]] == list(tokens)
        assert spans[0] == (0, 1) and spans[-1] == (len(tokens) - 1, len(tokens))
        for start, end in spans:
            word = b"".join(pieces[start:end]).decode()
            assert end - start == 1 or word.strip().isalpha() and " " not in word[1:]
    assert lengths == sorted(lengths, reverse=True) and len(set(lengths)) == len(lengths)


@pytest.mark.parametrize("text", ["", "a", "x y", "12345 6789", "?!?!"])
def test_what_has_no_word_of_several_pieces_has_no_merges(embedded, text):
    tokens = tuple(embedded.tokenizer(text)["input_ids"])
    pieces = embedded.token_bytes(tokens)
    assert not any(fused_at(tokens, [pieces[token] for token in tokens]))


def test_a_word_has_eight_pieces_at_most(embedded):
    tokens = (1, *[50] * 30, 1)
    fused = fused_at(tokens, [b".", *[b"x"] * 30, b"."])
    assert max(end - start for start, end in groups(fused, max(fused))) == MOST_PIECES


# -- embeddings --------------------------------------------------------------------------------------------------------


def test_no_merge_reads_what_the_token_ids_read(embedded):
    """At m = 0 the logits are those of the ids, exactly."""
    tokens, _ = text_of(embedded, TALES[1])
    target = embedded.target
    expected = target.extend(target.new_cache(), tokens[:64])[0].log_softmax(-1)
    reader = Reader(target, target.embedded(target.ids(tokens[:64])))
    for how in (RENUMBERED, ORIGINAL):
        for network in (None, opened(target)):
            assert list(reader.read([(i, i + 1) for i in range(64)], how, network)) == [None]
            assert torch.equal(reader.said, expected)
    assert reader.rows == 4 * 64


def test_one_piece_is_its_own_mean_and_several_are_averaged():
    embedded = torch.arange(12.0).reshape(4, 3)
    rows = read_in_place(embedded, [(0, 1), (1, 3), (3, 4)])
    assert torch.equal(rows, torch.stack((embedded[0], embedded[1:3].mean(0), embedded[3])))
    one = averaged(embedded[:, None], torch.ones(4, 1, dtype=torch.bool))
    assert torch.equal(one, embedded)


def test_an_untrained_network_says_the_mean_and_sees_no_padding():
    torch.manual_seed(0)
    network = Hypernetwork(8, 1, 2, 16, 0.5)
    pieces, mask = torch.randn(2, 3, 8), torch.tensor([[True, True, False], [True, True, True]])
    torch.testing.assert_close(network(pieces, mask), averaged(pieces, mask))
    torch.nn.init.normal_(network.out.weight)
    other = pieces.clone()
    other[0, 2] = 99.0
    assert torch.equal(network(pieces, mask), network(other, mask))
    torch.testing.assert_close(network(pieces[:1, :2], mask[:1, :2]), network(pieces, mask)[:1])
    assert not torch.allclose(network(pieces[1:].flip(1), mask[1:]), network(pieces[1:], mask[1:]))  # the order counts


def test_positions_and_marks():
    assert positions([(0, 1), (1, 3), (3, 4)], ORIGINAL) == [0, 2, 3]
    assert marks(47, 2) == [0, 47] and marks(1, 8) == [0, 1]


def test_a_difference_is_one_of_distributions():
    p = torch.tensor([0.5, 0.5, 0.0]).log()
    q = torch.tensor([0.25, 0.75, 0.0]).log()
    assert divergence(p, p) == 0 and divergence(p, q) == pytest.approx(0.5 * torch.tensor(4 / 3).log().item())


# -- the lens ----------------------------------------------------------------------------------------------------------


def ends(seen, way: str, how: str, share: float = 1.0) -> list[float]:
    """KL of each tale at a share of its merges, the nearest that was read."""
    found = []
    for look in seen:
        reads = [read for read in look.reads if (read.way, read.positions) == (way, how)]
        found.append(min(reads, key=lambda read: abs(read.merges - share * max(look.fused))).kl)
    return found


def test_it_reads_both_ways_with_both_positions_and_nothing_moves_without_a_merge(seen):
    for look in seen:
        kinds = {(read.way, read.positions) for read in look.reads}
        assert kinds == {(way, how) for way in (MEAN, NETWORK) for how in (RENUMBERED, ORIGINAL)}
        assert {read.kl for read in look.reads if not read.merges} == {0.0}
        assert {one.way for one in look.words} == {MEAN, NETWORK}
        assert all(read.same == (read.top[0].token == look.top[0].token) for read in look.reads)


def test_the_last_merges_cost_most(seen):
    """The addendum: KL of all merges is more than twice that of a tenth of them, for averages."""
    for how in (RENUMBERED, ORIGINAL):
        assert sum(ends(seen, MEAN, how)) > 2 * sum(ends(seen, MEAN, how, 0.1))


def test_the_shipped_figures_say_so_for_all_merges():
    """Behind the held-out windows of its training, three kinds of text."""
    _, _, _, figures = heads.facts(heads.EMBEDDED / KEY)
    assert figures["shares"][-1] == 1.0
    for how in (RENUMBERED, ORIGINAL):
        for at in ("", ", at words"):
            assert 0 < figures[f"{NETWORK}, {how}{at}"][-1] < 0.95 * figures[f"{MEAN}, {how}{at}"][-1]


def test_without_a_network_it_says_that_these_are_averages(llama, monkeypatch):
    run = Run(llama, "plain", prompt="Once upon a time", sampling=Sampling(0.0), max_tokens=2)
    list(run)
    *_, look = LensRun(llama, KEY, run.trace)
    assert "averages of the pieces" in look.notes[-1] and "decoding.training dynamic_tokenization" in look.notes[-1]
    assert {read.way for read in look.reads} <= {MEAN}


def test_what_has_no_words_is_refused(embedded):
    assert lacks(embedded) == ""
    picture = type("Picture", (), {"raster": object(), "name": "digits"})()
    assert lacks(picture) == "Dynamic tokenization merges the tokens of words, and digits draws pictures."
    assert LENSES[KEY].lacks is lacks


# -- its weights -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [("width", 0), ("width", 10**6), ("blocks", 99), ("heads", 3), ("inner", 1.5), ("inner", None), ("size", 0.0), ("size", True)],
)
def test_settings_that_cannot_be_are_refused(name, value):
    good = {"width": 8, "blocks": 1, "heads": 2, "inner": 16, "size": 0.5}
    assert made(good).settings == good
    with pytest.raises(ValueError, match="cannot have the sizes"):
        made(good | {name: value})


def test_another_models_network_is_refused(embedded, llama, tmp_path, monkeypatch):
    shipped = heads.EMBEDDED / KEY
    assert sum(file.stat().st_size for file in shipped.iterdir()) < 3 * 2**20
    with pytest.raises(ValueError, match="was trained for the model"):
        heads.open_head(shipped, KEY, llama.target.model, heads.shapes_of(made))
    assert opened(llama.target) is None
    facts = json.loads((shipped / heads.FACTS).read_text())
    facts["settings"]["inner"] = 256
    (tmp_path / heads.FACTS).write_text(json.dumps(facts))
    (tmp_path / heads.WEIGHTS).write_bytes((shipped / heads.WEIGHTS).read_bytes())
    with pytest.raises(ValueError, match="has the shape"):
        heads.open_head(tmp_path, KEY, embedded.target.model, heads.shapes_of(made))
