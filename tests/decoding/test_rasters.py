"""Image families: what their file may say, what they can be asked for, and that no word is ever drawn among the pixels."""

import shutil
from dataclasses import replace

import msgspec
import pytest
import torch

from decoding.models import family as families
from decoding.models import rasters
from decoding.models.family import load
from decoding.models.names import SHIPPED_TARGETS
from decoding.runs.run import Run
from decoding.sample import Sampling
from decoding.trace import Raster, decode_trace, encode

TWO = Raster(2, 2, ("#000000", "#ffffff"), (("red", "blue"), ("circle",)))
WORDS = {"dark": 0, "light": 1, "red": 2, "blue": 3, "circle": 4}


@pytest.fixture(scope="module")
def digits():
    return load("digits", device="cpu")


@pytest.fixture
def folder(tmp_path):
    """A copy of the family digits that can be damaged."""
    source = families.SHIPPED / SHIPPED_TARGETS["digits"]
    return shutil.copytree(source, tmp_path / "target")


# -- the file --------------------------------------------------------------------------------------------------------------


def test_a_model_of_text_has_none(tmp_path):
    assert rasters.raster_of(tmp_path) is None and rasters.raster_named(str(tmp_path)) is None
    assert rasters.raster_named("embedded") is None and rasters.raster_named("") is None


def test_on_a_public_server_only_what_it_offers_is_looked_for(folder, monkeypatch):
    """A trace of a stranger names any folder as its family."""
    assert rasters.raster_named(str(folder)) == rasters.raster_named("digits") is not None
    monkeypatch.setenv("DRAFTSCOPE_MODE", "public")
    assert rasters.raster_named(str(folder)) is None and rasters.raster_named("digits") is not None
    monkeypatch.setenv("DRAFTSCOPE_MODELS", str(folder))
    assert rasters.raster_named(str(folder)) is not None


@pytest.mark.parametrize(
    "said, words",
    [
        (b"{}", "missing required field"),
        (b"not json", "describes no picture"),
        (b"[" * 100_000, "describes no picture"),
        (b'{"width":0,"height":2,"palette":["#000000","#ffffff"],"asks":[["red"]]}', "width"),
        (b'{"width":2,"height":2,"palette":["#000000"],"asks":[["red"]]}', "palette"),
        (b'{"width":2,"height":2,"palette":["#000000","red;background:url(x)"],"asks":[["red"]]}', "palette"),
        (b'{"width":2,"height":2,"palette":["#000000","#ffffff"],"asks":[[]]}', "asks"),
        (b" " * (rasters.MAX_FILE + 1), "1,048,577 bytes"),
    ],
)
def test_a_file_that_describes_no_picture_is_refused(tmp_path, said, words):
    (tmp_path / rasters.RASTER).write_bytes(said)
    with pytest.raises(ValueError, match=words) as refused:
        rasters.raster_of(tmp_path)
    assert rasters.RASTER in str(refused.value) and str(tmp_path) in str(refused.value)
    assert rasters.raster_named(str(tmp_path)) is None, "a page that only asks for menus goes on"


@pytest.mark.parametrize(
    "raster, context, words",
    [
        (TWO, 7, "texts of 6 tokens, words and pixels, and the context of the target is 7"),
        (TWO, 5, "the context of the target is 5"),
        (msgspec.structs.replace(TWO, asks=(("red", "green"), ("circle",))), 6, "'green', which is no token"),
        (msgspec.structs.replace(TWO, asks=()), 4, "ask for nothing"),
        (msgspec.structs.replace(TWO, palette=("#000000",) * 6), 6, "6 colours; the target has 5 tokens"),
    ],
)
def test_a_raster_that_does_not_fit_the_target_is_refused(raster, context, words):
    rasters.check_raster(TWO, WORDS, 6, "two")
    with pytest.raises(ValueError, match=words) as refused:
        rasters.check_raster(raster, WORDS, context, "two")
    assert "'two'" in str(refused.value)


@pytest.mark.parametrize("change, words", [({"width": 9}, "73 tokens"), ({"asks": [["nothing"]]}, "'nothing'")])
def test_loading_refuses_a_folder_whose_raster_lies(folder, change, words):
    file = folder / rasters.RASTER
    file.write_bytes(msgspec.json.encode(msgspec.json.decode(file.read_bytes()) | change))
    with pytest.raises(ValueError, match=words):
        load(str(folder), device="cpu")


def test_a_folder_from_outside_is_an_image_family_too(folder, digits):
    outside = load(str(folder), device="cpu")
    assert outside.raster == digits.raster and outside.draft is None and outside.target.unused == digits.target.unused
    texts = []
    for family in (outside, digits):
        run = Run(family, "speculative_jacobi", {"fill": "above"}, "digit3", Sampling(1.0), 0, 64)
        texts.append([token for step in run for token in step.tokens])
    assert texts[0] == texts[1]


# -- what can be asked for -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prompt, words",
    [
        ("", "The prompt is ''"),
        ("digit10", "'digit10', and digits draws only what it was taught: one of digit0, digit1"),
        ("digit3 digit3", "'digit3 digit3'"),
        ("g0", "'g0'"),
        ("Once upon a time", "'Once upon a time'"),
        ("<unk>", "<unk>"),
    ],
)
def test_a_prompt_that_cannot_be_drawn_is_refused(digits, prompt, words):
    with pytest.raises(ValueError, match=words):
        Run(digits, "plain", {}, prompt, Sampling(0), 0, 64)


@pytest.mark.parametrize(
    "tokens, words",
    [
        ([], "no tokens"),
        ([0, 1], "'g0 g1'|'g0'"),
        ([8, 3, 9], "has the token 9 among the pixels, which have ids below 8"),
        ([8, 19], "the token 19; the target has 19 tokens"),
        ([8] + [0] * 64, "65 tokens; the context holds 65"),
    ],
)
def test_token_ids_that_are_no_beginning_of_a_picture_are_refused(digits, tokens, words):
    with pytest.raises(ValueError, match=words):
        Run(digits, "plain", {}, tokens, Sampling(0), 0, 64)


def test_a_picture_is_finished_from_its_first_pixels_and_ends_where_it_is_whole(digits):
    run = Run(digits, "speculative_jacobi", {"window": 16, "fill": "above"}, [11, *[0] * 20], Sampling(1.0), 0, 4096)
    steps = list(run)
    assert sum(len(step.tokens) for step in steps) == 44 and steps[-1].ending == "context limit"


def test_messages_are_refused(digits):
    with pytest.raises(ValueError, match="no chat template"):
        Run(digits, "plain", {}, [{"role": "user", "content": "digit3"}], Sampling(0), 0, 64)


def test_a_text_is_words_and_the_trace_says_what_its_tokens_look_like(digits):
    assert digits.text([11, 0, 7]) == "digit3 g0 g7"
    run = Run(digits, "plain", {}, "digit3", Sampling(1.0), 0, 2)
    list(run)
    assert run.trace.header.raster == digits.raster and decode_trace(encode(run.trace)) == run.trace


# -- words among the pixels ------------------------------------------------------------------------------------------------------


def test_words_are_never_drawn_even_by_a_target_that_wants_to(digits):
    """The trained one leaves them 0.0002 of the probability; one that says nothing else still draws pixels alone."""
    assert digits.target.unused == tuple(range(8, 19)) == rasters.words_of(digits.raster, 19)
    biased = replace(digits.target, model=Biased(digits.target.model))
    for method, params in (("plain", {}), ("speculative_jacobi", {"fill": "random"}), ("speculative_sampling", {})):
        run = Run(replace(digits, target=biased), method, params, "digit3", Sampling(1.0), 0, 64)
        assert {token for step in run for token in step.tokens} <= set(range(8))


class Biased(torch.nn.Module):
    """A model that finds words a hundred times as likely."""

    def __init__(self, model) -> None:
        super().__init__()
        self.model, self.config, self.dtype, self.device = model, model.config, model.dtype, model.device

    def forward(self, **asked):
        output = self.model(**asked)
        output.logits[..., 8:] += 100
        return output


def test_with_as_little_as_the_card_says(digits):
    """The probability that the target itself leaves to words, on held-out pictures."""
    from decoding.training.digits import held_out
    from decoding.training.images import joined

    text = joined(*held_out())[:64]
    with torch.inference_mode():
        p = digits.target.model(text[:, :-1]).logits[:, -64:].softmax(-1)
    assert p[..., 8:].sum(-1).mean() < 1e-3
