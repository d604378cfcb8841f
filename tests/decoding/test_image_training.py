"""How image families are made: the pictures they learn from, who judges what they draw, and the program from its first step to a
folder that opens."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from decoding.models.family import load
from decoding.models.rasters import open_prompt
from decoding.models.requirements import DraftModel
from decoding.runs.run import Run
from decoding.sample import Sampling
from decoding.training import digits, images, shapes
from decoding.training.fit import adamw, fit
from decoding.training.images import PLANS, SET, Plan

# -- the sets --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SET)
def test_what_is_learned_from_is_what_the_raster_says(name):
    """Prompts are words that can be asked for, images are pixels, and equal dice give equal examples."""
    pictures = SET[name]
    raster, words = pictures.raster, pictures.vocabulary
    assert len(set(words)) == len(words) and {word for menu in raster.asks for word in menu} <= set(words)
    for prompts, made in (pictures.learned(np.random.default_rng(3), 200), pictures.held_out()):
        assert prompts.shape[1] == len(raster.asks) and made.shape[1:] == (raster.pixels,)
        assert made.min() >= 0 and made.max() < len(raster.palette)
        assert all(words[token] in menu for row in prompts for token, menu in zip(row, raster.asks, strict=True))
    again = pictures.learned(np.random.default_rng(3), 200)
    assert all(np.array_equal(a, b) for a, b in zip(again, pictures.learned(np.random.default_rng(3), 200), strict=True))


@pytest.mark.parametrize("name", SET)
def test_who_checks_the_pictures_knows_true_ones_from_others(name):
    pictures = SET[name]
    prompts, made = pictures.held_out()
    assert pictures.right(prompts[:200], made[:200]) > 0.9
    assert pictures.right(np.roll(prompts[:200], 1, 0), made[:200]) < 0.3
    noise = np.random.default_rng(0).integers(len(pictures.raster.palette), size=made[:50].shape)
    assert pictures.right(prompts[:50], noise) < 0.3


@pytest.mark.parametrize("name", SET)
def test_ids_of_a_prompt(name):
    pictures = SET[name]
    prompts, _ = pictures.held_out()
    assert pictures.ids(" ".join(pictures.vocabulary[token] for token in prompts[0])) == prompts[0].tolist()
    with pytest.raises(KeyError):
        pictures.ids("nonsense")


def test_digits_are_held_out_and_one_in_ten_is_asked_for_without_its_name():
    prompts, _ = digits.learned(np.random.default_rng(0), 4000)
    assert abs(np.mean(prompts == digits.VOCABULARY.index(digits.ANY)) - digits.UNNAMED) < 0.02
    known = {image.tobytes() for image in digits.kept()[1][: digits.LEARNED]}
    same = [image.tobytes() in known for image in digits.held_out()[1]]
    assert len(same) == 297 and not any(same)
    assert digits.PALETTE[0] == "#ffffff" and digits.PALETTE[-1] == "#000000"


def test_shapes_differ_and_stand_in_three_places():
    """No drawing is that of two shapes, or nobody could say whether it is what the prompt asks for."""
    which, pixels = shapes.drawings()
    assert pixels.shape == (8 * 3, shapes.SIDE**2) and len({(drawing > 0).tobytes() for drawing in pixels}) == len(pixels)
    assert sorted(set(which)) == [shapes.ID[shape] for shape in shapes.SHAPES]
    assert all(set(drawing.tolist()) == {0, 1, 2} for drawing in pixels)
    rows = pixels.reshape(-1, shapes.SIDE, shapes.SIDE).any(2)
    assert not rows[:, shapes.FOOT :].any() and rows[:, shapes.FOOT - 2].all(), "they stand on the ground"
    with pytest.raises(ValueError, match="no shape 'star'"):
        shapes.mask("star", 7)


def test_prompts_that_are_kept_back_are_never_learned_from():
    known, kept = (set(map(tuple, part)) for part in shapes.prompts())
    assert not known & kept and len(kept) == shapes.KEPT_BACK and len(known) + len(kept) == 8 * 8 * 7
    seen, _ = shapes.learned(np.random.default_rng(0), 5000)
    assert {tuple(row) for row in seen if shapes.ID["any"] not in row} <= known
    assert set(map(tuple, shapes.held_out()[0])) == kept


def test_one_in_ten_is_asked_for_by_any_alone_and_some_by_half_of_their_words():
    asked, _ = shapes.learned(np.random.default_rng(0), 6000)
    open_places = (asked[:, shapes.NAMES] == shapes.ID["any"]).sum(1)
    assert abs((open_places == 3).mean() - shapes.UNNAMED - shapes.HALF_NAMED / 8) < 0.015
    assert abs(((open_places > 0) & (open_places < 3)).mean() - shapes.HALF_NAMED * 6 / 8) < 0.015
    assert (asked[:, 2] == shapes.ID["on"]).all()
    assert open_prompt(SET["shapes"].raster) == ("any", "any", "on", "any") and open_prompt(SET["digits"].raster) == ("any",)


def test_a_picture_is_of_the_colour_that_is_asked_for_at_any_of_its_places():
    asked, drawn = shapes.learned(np.random.default_rng(1), 4000)
    squares = Counter()
    for row, image in zip(asked, drawn, strict=True):
        if row[1] == shapes.ID["square"] and shapes.ID["any"] not in row:
            assert (image % shapes.DEEP == row[0]).sum() == shapes.SIZE**2
            assert (image == row[0] + shapes.DEEP).sum() == 2 * shapes.SIZE - 1, "the lower right rim"
            squares[int((image == row[0]).argmax())] += 1
    assert len(squares) == 3 and min(squares.values()) > 40


def test_the_ground_goes_over_into_its_deep_tone():
    """Every pixel of it is deep as often as its row says."""
    asked = np.resize(shapes.prompts()[0], (900, 4))
    drawn = shapes.pictured(asked, np.random.default_rng(1))
    side = (-1, shapes.SIDE, shapes.SIDE)
    ground, deep = (part.reshape(side) for part in (drawn % shapes.DEEP == asked[:, 3:], drawn >= shapes.DEEP))
    shares = (ground & deep).sum((0, 2)) / ground.sum((0, 2))
    assert set(shares[:8]) == {0} and set(shares[10:]) == {1} and np.abs(shares - shapes.DITHERED).max() < 0.04


def test_a_few_stray_pixels_are_forgiven_and_more_are_not():
    prompt = np.array(SET["shapes"].ids("red square on blue"))
    image = np.full((12, 12), shapes.ID["blue"])
    image[8:, ::2] = shapes.ID["blue"] + shapes.DEEP
    image[3:11, 3:11] = shapes.ID["red"] + shapes.DEEP
    image[3:10, 3:10] = shapes.ID["red"]
    assert shapes.shows(prompt, image.ravel())
    few, many = image.copy(), image.copy()
    few[4, 4:7] = shapes.ID["green"]
    many[4, 4:8] = shapes.ID["green"]
    assert shapes.shows(prompt, few.ravel()) and not shapes.shows(prompt, many.ravel())
    for other in (
        "red circle on blue",
        "any square on blue",
        "green square on blue",
        "red square on black",
    ):
        assert not shapes.shows(np.array(SET["shapes"].ids(other)), image.ravel())


# -- the program -------------------------------------------------------------------------------------------------------------

SIZES = {"layers": 2, "hidden": 32, "heads": 2, "inner": 48}, {"layers": 1, "hidden": 16, "heads": 2, "inner": 24}


@pytest.mark.parametrize("name, prompt", [("digits", "digit7"), ("shapes", "red ring on any")])
def test_the_folder_that_is_made_is_an_image_family(tmp_path, monkeypatch, name, prompt):
    """A family that was trained for a moment."""
    pictures, out = SET[name], tmp_path / name
    monkeypatch.setitem(PLANS, name, Plan(PLANS[name].build, *SIZES, 2, 4 * pictures.raster.pixels, 2 * pictures.raster.pixels))
    monkeypatch.setattr(images, "DRAWN", 2)
    monkeypatch.setitem(SET, name, replace(pictures, held_out=lambda: tuple(part[:4] for part in pictures.held_out())))
    images.main([name, "--work", str(tmp_path / "work"), "--out", str(out), "--device", "cpu"])
    family = load(str(out / "target"), str(out / "draft"), device="cpu")
    assert family.raster == pictures.raster and family.target.context == pictures.raster.pixels + len(pictures.raster.asks)
    assert family.draft is not None and DraftModel().lacking(None, family) == ""  # type: ignore[arg-type]
    run = Run(family, "speculative_sampling", {}, prompt, Sampling(1.0), 0, 64)
    assert sum(len(step.tokens) for step in run) == 64


def test_places_of_pixels_begin_as_rows_and_columns():
    """The vector of a place is that of its row and its column: three corners of any rectangle tell the fourth."""
    places = images.placed(SET["shapes"], **SIZES[1]).transformer.wpe.weight[3:-1].reshape(12, 12, -1)
    assert torch.allclose(places[3, 5] + places[9, 10], places[3, 10] + places[9, 5], atol=1e-6)
    assert not torch.allclose(places[3, 5], places[3, 10], atol=0.1)


def test_one_head_begins_by_looking_at_the_words():
    pictures = SET["shapes"]
    model = images.placed(pictures, **SIZES[0])
    model.set_attn_implementation("eager")
    text = images.joined(*pictures.learned(np.random.default_rng(0), 2))
    with torch.no_grad():
        paid = model(text, output_attentions=True).attentions[0][..., :4].sum(-1)
    assert (paid[:, 0, 4:] > 0.6).all() and (paid[:, 1, 100:] < 0.4).all()


def test_the_program_goes_on_from_a_checkpoint_and_comes_to_the_same(tmp_path):
    """Stopped half-way or not: what is learned depends on the number of the step alone."""
    pictures, results = SET["digits"], []
    for stops in ((6,), (3, 6)):
        for steps in stops:
            torch.manual_seed(0)
            model = images.llama(pictures, **SIZES[0])

            def loss(step: int, model=model):
                text = images.joined(*pictures.learned(np.random.default_rng((6, step)), 8))
                logits = images.said(model, pictures, text)
                return F.cross_entropy(logits.flatten(0, 1), text[:, -64:].flatten())

            fit(model, loss, steps=steps, lr=0.0, checkpoint=tmp_path / f"{stops}.pt", title="", optimized=adamw)
        results.append(model.state_dict())
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


def test_the_loss_is_of_pixels_alone():
    """`said` gives the rows that pixels are drawn from: the first one behind the prompt, the last one before the last pixel."""
    pictures = SET["shapes"]
    model = images.llama(pictures, layers=1, hidden=16, heads=2, inner=16)
    text = images.joined(*pictures.learned(np.random.default_rng(0), 2))
    with torch.no_grad():
        logits, whole = images.said(model, pictures, text), model(text).logits
    assert text.shape == (2, 148) and logits.shape == (2, 144, 26)
    assert torch.allclose(logits, whole[:, 3:-1], atol=1e-5)


def test_pictures_that_are_drawn_follow_the_model():
    """Greedy in all but name: at a temperature near 0 every pixel is the likeliest; never a word, which this one likes as well."""
    torch.manual_seed(0)
    pictures = SET["digits"]
    model = images.llama(pictures, layers=1, hidden=16, heads=2, inner=16).eval()
    prompts, _ = pictures.held_out()
    drawn = images.drawn(model, pictures, prompts[:3], temperature=1e-4)
    text = images.joined(prompts[:3], drawn)
    with torch.no_grad():
        logits = images.said(model, pictures, text)
    chosen = logits.gather(-1, torch.from_numpy(drawn)[..., None])[..., 0]
    assert drawn.max() < 8 and (logits[..., :8].amax(-1) - chosen).max() < 2e-3 and (logits.argmax(-1) >= 8).any()
