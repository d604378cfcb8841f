"""How image families are made: the pictures they learn from, who judges what they draw, and the program from its first step to a
folder that opens."""

from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from decoding.models.family import load
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


def test_shapes_differ_and_stand_in_nine_places():
    """No drawing is that of two shapes or two sizes, or nobody could say whether it is what the prompt asks for."""
    which, pixels = shapes.drawings()
    assert pixels.shape == (3 * 8 * 9, shapes.SIDE**2) and len({drawing.tobytes() for drawing in pixels}) == len(pixels)
    assert len({tuple(one) for one in which}) == 3 * 8
    assert all(drawing.any() and not drawing.all() for drawing in pixels)
    with pytest.raises(ValueError, match="no shape 'star'"):
        shapes.mask("star", 7)


def test_prompts_that_are_kept_back_are_never_learned_from():
    known, kept = (set(map(tuple, part)) for part in shapes.prompts())
    assert not known & kept and len(kept) == shapes.KEPT_BACK and len(known) + len(kept) == 3 * 8 * 8 * 7
    seen, _ = shapes.learned(np.random.default_rng(0), 5000)
    assert set(map(tuple, seen)) <= known
    assert set(map(tuple, shapes.held_out()[0])) == kept


def test_a_picture_is_the_size_that_is_asked_for_and_any_of_its_places():
    asked, drawn = shapes.learned(np.random.default_rng(1), 4000)
    squares = Counter()
    for row, image in zip(asked, drawn, strict=True):
        if row[2] == shapes.ID["square"]:
            assert (image == row[1]).sum() == shapes.SIZES[shapes.VOCABULARY[row[0]]] ** 2
            squares[row[0], int((image == row[1]).argmax())] += 1
    assert len(squares) == 3 * 9 and min(squares.values()) > 4


def test_a_few_stray_pixels_are_forgiven_and_more_are_not():
    prompt = np.array(SET["shapes"].ids("large red square on blue"))
    image = np.full((16, 16), shapes.ID["blue"])
    image[1:14, 2:15] = shapes.ID["red"]
    assert shapes.shows(prompt, image.ravel())
    few, many = image.copy(), image.copy()
    few[4, 4:8] = shapes.ID["green"]
    many[4, 4:14] = shapes.ID["green"]
    assert shapes.shows(prompt, few.ravel()) and not shapes.shows(prompt, many.ravel())
    for other in (
        "large red circle on blue",
        "medium red square on blue",
        "large green square on blue",
        "large red square on black",
    ):
        assert not shapes.shows(np.array(SET["shapes"].ids(other)), image.ravel())


# -- the program -------------------------------------------------------------------------------------------------------------

SMALL = Plan(
    {"layers": 2, "hidden": 32, "heads": 2, "inner": 48}, {"layers": 1, "hidden": 16, "heads": 2, "inner": 24}, 8, 2048, 1024
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A family of digits that was trained for a moment."""
    place = tmp_path_factory.mktemp("images")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PLANS, "digits", SMALL)
        patch.setattr(images, "DRAWN", 16)
        images.main(["digits", "--work", str(place / "work"), "--out", str(place / "digits"), "--device", "cpu"])
    return place


def test_the_folder_that_was_made_is_an_image_family(made):
    target, draft = (str(made / "digits" / name) for name in ("target", "draft"))
    family = load(target, draft, device="cpu")
    assert family.raster == SET["digits"].raster and family.target.context == 65
    assert family.draft is not None and DraftModel().lacking(None, family) == ""  # type: ignore[arg-type]
    run = Run(family, "speculative_sampling", {}, "digit7", Sampling(1.0), 0, 64)
    assert sum(len(step.tokens) for step in run) == 64


def test_the_program_goes_on_from_a_checkpoint_and_comes_to_the_same(made, tmp_path):
    """Stopped half-way or not: what is learned depends on the number of the step alone."""
    pictures, results = SET["digits"], []
    for stops in ((6,), (3, 6)):
        for steps in stops:
            torch.manual_seed(0)
            model = images.llama(pictures, **SMALL.target)

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
    assert text.shape == (2, 261) and logits.shape == (2, 256, 20)
    assert torch.allclose(logits, whole[:, 4:-1], atol=1e-5)


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
