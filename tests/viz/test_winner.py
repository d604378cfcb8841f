"""The sentence over a finished comparison says what the traces say, and nothing where they cannot be compared."""

import msgspec
import pytest

from decoding.trace import Times
from tests.viz_samples import node, step_of, trace_of
from viz.runs.winner import winner_words


def made(widths: tuple[int, ...], ms: float, method: str = "eagle", ending: str = "token limit", **head):
    """A run whose steps brought so many tokens each, and took `ms` each."""
    steps = [
        step_of(tuple(node(i, i - 1) for i in range(width - 1)), tuple(range(width - 1)), "bonus" if width > 1 else "plain")
        for width in widths
    ]
    steps = [msgspec.structs.replace(step, times=Times(0.0, ms, 0.0, 0.0)) for step in steps]
    steps[-1] = msgspec.structs.replace(steps[-1], ending=ending)
    return trace_of(*steps, method=method, **head)


PLAIN = made((1,) * 8, 10, "plain")
QUICK, THRIFTY, SLOW = made((2, 2, 2, 2), 15), made((4, 4), 38), made((4, 4), 100)


def test_the_fewest_calls_and_the_clock():
    assert winner_words({"Plain": PLAIN, "EAGLE": made((4, 4), 20)}) == (
        "EAGLE needed 2 target calls for what plain decoding took 8. By the clock that was 2.00 times as fast, measured once."
    )
    said = winner_words({"Plain": PLAIN, "A": QUICK, "B": THRIFTY})
    assert said.startswith("B needed 2 target calls for what plain decoding took 8. ")
    longer = winner_words({"Plain": PLAIN, "B": made((4, 4, 4), 20)})
    assert longer.startswith("B got most out of a target call: 12 tokens from 3; plain decoding gets one from each.")
    assert said.endswith("By the clock A was the fastest, 1.33 times plain decoding, measured once.")


def test_plain_decoding_may_be_the_fastest():
    said = winner_words({"Plain": PLAIN, "B": SLOW})
    assert "2 target calls for what plain decoding took 8" in said and "plain decoding was not beaten" in said
    assert winner_words({"Plain": PLAIN, "C": made((1,) * 8, 20)}).startswith(
        "No method saved a target call. By the clock plain decoding was not beaten"
    )


@pytest.mark.parametrize(
    ("eagle", "said"),
    [
        ((42, 40, 38), "that was 2 times (median of 3, 1.9 to 2.1) the speed of plain decoding, on this machine."),
        (
            (90, 80, 70),
            "EAGLE came to 1 times (median of 3, 0.89 to 1.1) the speed of plain decoding on this machine: not told apart.",
        ),
        (
            (160, 100, 160),
            "not beaten on this machine: EAGLE, the next, came to 0.5 times (median of 3, 0.5 to 0.8) its speed.",
        ),
    ],
)
def test_several_rounds_are_told_with_their_ends(eagle, said):
    words = winner_words({"Plain": PLAIN, "EAGLE": made((4, 4), 20)}, {"Plain": (80, 80, 80), "EAGLE": eagle})
    assert words.endswith(said) and "once" not in words


def test_another_machine_is_named():
    words = winner_words({"Plain": PLAIN, "EAGLE": made((4, 4), 20)}, {"Plain": (80, 80), "EAGLE": (40, 40)}, "over there")
    assert words.endswith("the speed of plain decoding, over there.")


def test_level_is_not_called_faster():
    assert "was not beaten" in winner_words({"Plain": PLAIN, "D": made((2, 2, 2, 2), 20)})


@pytest.mark.parametrize(
    "runs",
    [
        {"A": QUICK, "B": THRIFTY},
        {"Plain": PLAIN},
        {"Plain": PLAIN, "A": made((2, 2), 15, ending="")},
        {"Plain": PLAIN, "A": made((2, 2), 15, family="another")},
        {"Plain": PLAIN, "A": made((2, 2), 15, prompt_tokens=(5,))},
        {"Plain": PLAIN, "A": trace_of()},
    ],
)
def test_what_cannot_be_compared_gets_no_winner(runs):
    assert winner_words(runs) == ""
