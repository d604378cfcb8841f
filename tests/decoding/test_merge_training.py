"""The training of the network for merged words: what it learns from, that it learns, and that it goes on where it was stopped."""

import numpy as np
import pytest
import torch

from decoding.models import heads
from decoding.models.family import load
from decoding.models.hypernetwork import KEY, Hypernetwork, opened
from decoding.training.recipes import dynamic_tokenization as recipe
from decoding.training.states import Batch, prepared, states
from tests.lenses.test_dynamic_tokenization import TALES

TEXT = "There wandered a weaver through the wilderness; the weaver whispered to sparrows and gathered driftwood. "


@pytest.fixture(scope="module")
def lesson(embedded):
    """A target of its own, two windows with their states, and what may be merged in them."""
    family = load("embedded", device="cpu")
    prepared(family.target)
    tokens = torch.tensor(family.tokenizer(TEXT * 2)["input_ids"][:56])[None].repeat(2, 1)
    read = states(family.target, tokens, (recipe.near(family.target), family.target.last_hidden))
    batch = Batch(tokens, torch.ones_like(tokens, dtype=torch.bool), {layer: values.clone() for layer, values in read.items()})
    return family.target, batch, recipe.Merges(family)


def network_of(target) -> Hypernetwork:
    torch.manual_seed(0)
    return recipe.begun(target, recipe.parse(["--blocks", "1", "--inner", "64"]))


def test_unmerged_windows_are_read_as_they_were(lesson):
    """Both losses are 0 where nothing is merged, whatever the positions are called."""
    target, batch, merges = lesson
    for how in recipe.POSITIONS:
        windows = [recipe.merged(merges.of(row), 0.0, how) for row in batch.tokens]
        rows = [(b, i) for b in range(2) for i in range(56)]
        assert recipe.divergences(None, target, batch, windows, rows).abs().max() < 1e-5
        assert recipe.distances(None, target, batch, windows, rows).max() < 1e-6


def test_windows_of_different_lengths_do_not_disturb_each_other(lesson):
    target, batch, merges = lesson
    fused = merges.of(batch.tokens[0])
    both = [recipe.merged(fused, 1.0, recipe.POSITIONS[1]), recipe.merged(fused, 0.2, recipe.POSITIONS[0])]
    together = recipe.read_merged(None, target, batch.tokens, both, target.last_hidden)
    for b, window in enumerate(both):
        alone = recipe.read_merged(None, target, batch.tokens[:1], [window], target.last_hidden)
        torch.testing.assert_close(together[b, : len(window.groups)], alone[0], rtol=1e-4, atol=1e-4)


def test_a_words_row_is_held_against_the_one_behind_its_last_piece(lesson):
    target, batch, merges = lesson
    window = recipe.merged(merges.of(batch.tokens[0]), 1.0, recipe.POSITIONS[0])
    word = recipe.first_word(window)
    kept, _ = recipe.at(batch.states[target.last_hidden], torch.zeros(1, len(window.groups), 256), [window], [(0, word)])
    assert torch.equal(kept[0], batch.states[target.last_hidden][0, window.groups[word][1] - 1])


@pytest.mark.parametrize("whole", [False, True])
def test_a_few_steps_make_it_better_than_the_mean_and_leave_the_target_alone(lesson, whole):
    target, batch, merges = lesson
    before = [values.clone() for values in target.model.parameters()]
    network = network_of(target)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(8):
        value = recipe.loss(network, target, merges, batch, whole)
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(value.item())
    assert losses[-1] < 0.7 * losses[0] and losses[0] > 1e-3
    assert all(values.grad is None for values in target.model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, target.model.parameters(), strict=True))


def test_the_shipped_network_beats_the_mean_on_tales_that_are_in_no_corpus(lesson):
    """The promise of the issue, over all rows of unmerged tokens, each the end of a prompt; and at the words by far."""
    target, _, merges = lesson
    for how in recipe.POSITIONS:
        sums = {}
        for way, network in (("network", opened(target)), ("mean", None)):
            values, words = [], []
            for tale in TALES:
                tokens = torch.tensor(merges.family.tokenizer(tale)["input_ids"])[None]
                read = states(target, tokens, (target.last_hidden,))
                batch = Batch(tokens, torch.ones_like(tokens, dtype=torch.bool), read)
                window = recipe.merged(merges.of(tokens[0]), 1.0, how)
                rows = [(0, i) for i in range(recipe.first_word(window), len(window.groups))]
                with torch.no_grad():
                    values.append(recipe.divergences(network, target, batch, [window], rows))
                words.append(recipe.at_words([window], rows))
            kl, at = torch.cat(values), torch.cat(words)
            sums[way] = kl[~at].mean().item(), kl[at].mean().item()
        assert sums["network"][0] < 0.97 * sums["mean"][0], sums
        assert sums["network"][1] < 0.75 * sums["mean"][1], sums


def test_the_same_step_draws_the_same_windows(lesson):
    _, batch, merges = lesson
    pool = type("Pool", (), {"tokens": np.concatenate((batch.tokens.numpy(), np.zeros((1, 56), dtype=np.int64)))})()
    drawer = recipe.Drawer(merges, pool, 16)
    assert np.array_equal(drawer.of(3), drawer.of(3)) and {*drawer.of(3)} == {0, 1}  # in the third nothing can be merged


def test_a_family_gets_a_network_of_its_own_and_a_finished_training_is_not_done_again(folders, tmp_path, capsys, monkeypatch):
    """From the command to what the lens opens."""
    data = tmp_path / "data"
    data.mkdir()
    for number in range(20):
        (data / f"{number}.txt").write_text(TEXT * 6)
    folder = folders("llama")
    command = ["--family", folder, "--data", str(data), "--work", str(tmp_path / "work"), "--device", "cpu", "--window", "32"]
    command += ["--tokens", "1024", "--held-out", "1024", "--seen", "256", "--rows", "2", "--blocks", "1", "--inner", "16"]
    recipe.main(command)
    target = load(folder, device="cpu").target
    place = heads.place_of(KEY, heads.fingerprint(target.model))
    monkeypatch.setattr("decoding.models.hypernetwork.find", lambda key, model: place)
    assert isinstance(opened(target), Hypernetwork)
    _, _, settings, figures = heads.facts(place)
    assert settings["blocks"] == 1 and settings["tokens"] == 256
    kinds = [f"{way}, {how}{at}" for way in ("network", "mean") for how in recipe.POSITIONS for at in ("", ", at words")]
    assert set(figures) == {"shares", *kinds} and all(len(figures[kind]) == len(recipe.SHARES) for kind in kinds)
    kept = (place / heads.WEIGHTS).read_bytes()
    monkeypatch.setattr(recipe, "loss", lambda *_: pytest.fail("a step was done again"))
    recipe.main(command)
    assert (place / heads.WEIGHTS).read_bytes() == kept and "embedded" not in capsys.readouterr().out
