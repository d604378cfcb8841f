"""Every method on pictures: it draws whole ones, and its trace holds what any trace does, or it says in a sentence why not."""

import pytest

from decoding.methods import METHODS
from decoding.models import heads
from decoding.models.family import Family, load
from decoding.runs.run import Run
from decoding.sample import Sampling
from decoding.trace import Trace, decode_trace, encode
from tests.methods.test_contract import check_step, check_token_bytes
from tests.toys import SAME_TEXT, toy_family

WITHOUT = {  # heads, sorted drafts and text that passes between models are of texts
    *("chimera", "clover", "eagle", "falcon", "ftp", "judge", "kangaroo", "medusa", "ppd", "s2d", "specdec_pp"),
    *("byte_drafting", "sentence_vae", "universal_assisted"),
}
DRAWING = [key for key in METHODS if key not in WITHOUT]
SAMPLINGS = {"T=0": Sampling(0), "T=1": Sampling(1.0)}


@pytest.fixture(autouse=True)
def shipped_heads_alone(monkeypatch):
    """The tests make heads for whatever asks for one; here it counts what there is."""
    monkeypatch.setattr(heads, "find", heads.find.real)


@pytest.fixture(scope="module")
def digits() -> Family:
    return load("digits", device="cpu")


@pytest.fixture(scope="module")
def drawn(digits):
    made: dict[tuple[str, str], Trace] = {}

    def trace(key: str, name: str) -> Trace:
        if (key, name) not in made:
            run = Run(digits, key, SAME_TEXT.get(key, {}), "digit4", SAMPLINGS[name], 0, 64)
            list(run)
            made[key, name] = run.trace
        return made[key, name]

    return trace


def tokens(trace: Trace) -> list[int]:
    return [token for step in trace.steps for token in step.tokens]


def test_who_cannot_draw_is_known(digits):
    """A method that is new, or a head that was trained for pictures, makes this list another."""
    assert {key for key in METHODS if METHODS[key].missing(digits)} == WITHOUT


@pytest.mark.parametrize("key", sorted(WITHOUT))
def test_who_cannot_says_why_and_names_no_command_that_would_not_help(digits, key):
    """Heads and sorted drafts are trained on texts; their commands know no pictures."""
    reason = METHODS[key].missing(digits)
    assert METHODS[key].title in reason and "digits" in reason and "pictures" in reason and reason.endswith(".")
    assert "python -m" not in reason
    with pytest.raises(ValueError, match="pictures"):
        Run(digits, key, {}, "digit4", Sampling(0), 0, 64)


@pytest.mark.parametrize("name", SAMPLINGS)
@pytest.mark.parametrize("key", DRAWING)
def test_a_picture_is_drawn_whole_and_its_trace_hangs_together(digits, drawn, key, name):
    trace = drawn(key, name)
    assert len(tokens(trace)) == 64 and set(tokens(trace)) <= set(range(8)) and trace.steps[-1].ending == "token limit"
    assert trace.header.raster == digits.raster and decode_trace(encode(trace)) == trace
    for step in trace.steps:
        check_step(step, greedy=name == "T=0")
        check_token_bytes(step, trace)


@pytest.mark.parametrize("key", DRAWING)
def test_greedy_pictures_are_equal_pixel_by_pixel(drawn, key):
    assert tokens(drawn(key, "T=0")) == tokens(drawn("plain", "T=0"))


@pytest.mark.parametrize("key", ["rest", "rasd", "infinigram"])
def test_pictures_are_looked_up_in_the_picture_and_not_among_texts(digits, key, monkeypatch):
    """The datastore holds Python and stories; a picture is never held against them, and they are not read for it."""
    monkeypatch.setattr("decoding.retrieval.search.of_family", None)
    texts = [tokens_of(Run(digits, key, {"where": where}, "digit4", Sampling(0), 0, 64)) for where in ("both", "text so far")]
    assert texts[0] == texts[1]
    with pytest.raises(ValueError, match="The datastore holds texts, and digits draws pictures"):
        Run(digits, key, {"where": "datastore"}, "digit4", Sampling(0), 0, 64)


def tokens_of(run: Run) -> list[int]:
    return [token for step in run for token in step.tokens]


@pytest.mark.parametrize("key", ["jacobi", "speculative_jacobi"])
def test_a_text_has_no_pixel_above(embedded, key):
    for fill in ("above", "sample above") if key == "speculative_jacobi" else ("above",):
        with pytest.raises(ValueError, match=f"'{fill}': a text has no rows"):
            Run(embedded, key, {"fill": fill}, "Tom had", Sampling(0), 0, 8)
    assert METHODS[key].missing(toy_family(embedded.target)) == ""
