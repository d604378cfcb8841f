"""The token strip: order, origins, escaping."""

import random
from html.parser import HTMLParser
from itertools import accumulate, pairwise

import pytest

from decoding.trace import Header, Message, SamplingData, Trace
from tests.viz_samples import HOSTILE, chain, node, small_tree, step_of, trace_of
from viz.step.text import CSS, contents, describe, in_messages, origins, strip, strip_html

TRACE = trace_of(chain(3), small_tree(), step_of())


class Tags(HTMLParser):
    """Which elements and attributes a browser would see."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def tokens(html: str) -> list[dict]:
    return [attrs for tag, attrs in Tags(html).tags if attrs.get("role") == "listitem"]


def test_strip_follows_prompt_and_steps():
    spans = strip(TRACE)
    assert [span["origin"] for span in spans[:2]] == ["prompt"] * 2
    assert [span["step"] for span in spans] == [None] * 2 + [0] * 4 + [1] * 3 + [2]
    assert [span["origin"] for span in spans[2:]] == ["accepted"] * 3 + ["correction"] + ["accepted"] * 2 + [
        "correction",
        "plain",
    ]
    assert [span["id"] for span in spans[2:6]] == list(TRACE.steps[0].tokens)


@pytest.mark.parametrize(("upto", "count"), [(-1, 2), (0, 6), (1, 9), (2, 10), (None, 10)])
def test_strip_stops_at_the_cursor(upto, count):
    assert len(strip(TRACE, upto)) == count


def test_html_has_one_element_per_token_with_its_origin():
    found = tokens(strip_html(strip(TRACE), legend=False))
    for span, attrs in zip(strip(TRACE), found, strict=True):
        assert f"ds-{span['origin']}" in attrs["class"].split()
    assert found[2]["title"] == found[2]["aria-label"] == "␣the: accepted, step 1, id 0"


def test_only_the_current_step_is_boxed():
    boxed = ["ds-now" in attrs["class"] for attrs in tokens(strip_html(strip(TRACE), current=1))]
    assert boxed == [False] * 6 + [True] * 3 + [False]
    assert "ds-now" not in strip_html(strip(TRACE), current=None)


@pytest.mark.parametrize("token", HOSTILE)
def test_hostile_tokens_stay_text(token):
    html = strip_html(strip(trace_of(step_of(final_token=token), prompt_tokens=(token,), token_bytes=HOSTILE)))
    assert {tag for tag, _ in Tags(html).tags} <= {"div", "span", "wbr", "br"}
    assert all(set(attrs) <= {"class", "role", "title", "aria-label"} for _, attrs in Tags(html).tags)
    assert "\u202e" not in html and "\x00" not in html


def test_half_characters_are_bracketed_and_spelt_out():
    nodes = (node(104), node(105, 0))
    spans = strip(trace_of(step_of(nodes, (0, 1), "bonus"), token_bytes=HOSTILE))
    found = [(span["half"], span["group"], span["whole"]) for span in spans[2:]]
    assert found == [(True, 2, "é"), (True, 2, "é"), (False, None, "")]
    html = strip_html(spans, legend=False)
    assert html.count("ds-joined") == 1 and len(tokens(html)) == 5
    assert "<0xC3><0xA9>= é" in Tags(html).text


def test_neighbouring_groups_stay_apart():
    trace = trace_of(prompt_tokens=(104, 105, 104, 105), token_bytes=HOSTILE)
    assert [span["group"] for span in strip(trace)] == [0, 0, 2, 2]
    assert strip_html(strip(trace)).count("ds-joined") == 2


def test_newlines_break_the_line():
    assert "<br>" in strip_html(strip(trace_of(prompt_tokens=(9,))))


def test_legend_names_what_occurs():
    text = Tags(strip_html(strip(TRACE, -1))).text
    assert "prompt" in text and "accepted" not in text
    assert "no text yet" in strip_html([])


def test_missing_bytes_show_the_id():
    assert strip(trace_of(prompt_tokens=(4711,)))[0]["text"] == "#4711"


def test_every_origin_has_a_style():
    assert all(f".ds-{origin} " in CSS for origin in ("prompt", "accepted", "bonus", "correction", "plain"))
    assert "underline double" in CSS and "underline solid" in CSS


def test_the_legend_names_the_origins_that_occur():
    assert origins(TRACE) == {span["origin"] for span in strip(TRACE)}
    assert origins() == {"prompt"}


# -- chat ---------------------------------------------------------------------------------------------------------------


def chat_trace(messages: list[str], pieces: list[bytes], special: tuple[int, ...]) -> Trace:
    """A trace whose prompt is these pieces, token i the i-th."""
    header = Header(
        "plain", {}, "toy", SamplingData(1.0, 0, 1.0), 0, "", tuple(range(len(pieces))), 8, "cpu", "float32", {},
        messages=tuple(Message("user", text) for text in messages), special_tokens=special,
    )  # fmt: skip
    return Trace(header, dict(enumerate(pieces)), ())


def test_what_the_template_wrote_is_told_from_what_was_said():
    pieces = [b"<user>", b"user", b"\n", b"user", b"<end>", b"<bot>", b"\n"]  # the message is the word that the template writes too
    spans = strip(chat_trace(["user"], pieces, (0, 4, 5)))
    assert [s["origin"] for s in spans] == ["template"] * 3 + ["prompt"] + ["template"] * 3
    assert [s["special"] for s in spans] == [True, False, False, False, True, True, False]
    assert "a special token" in describe(spans[0])
    html = strip_html(spans)
    assert html.count("ds-special") == 3 and "&lt;user&gt;" in html and "<user>" not in html
    assert [s["origin"] for s in strip(chat_trace([], pieces, ()))] == ["prompt"] * 7


def test_a_message_that_the_template_changed_is_not_looked_for_elsewhere():
    spans = strip(chat_trace(["HELLO", "you"], [b"hello", b"<end>", b"you", b"<end>"], (1, 3)))
    assert [s["origin"] for s in spans] == ["template", "template", "prompt", "template"]


def test_an_indentation_stands_on_the_line_that_it_begins():
    drawn = strip_html(strip(trace_of(prompt_tokens=(9,), token_bytes={9: b"\n    x"})))
    first, second = drawn.split("<br>")
    assert first.endswith("↵</span>") and second.count("ds-sp") == 4 and "x</span>" in second


@pytest.mark.parametrize("seed", range(20))
def test_the_tokens_of_messages_are_those_that_share_a_byte_with_one(seed):
    """Whatever the tokens are: of several bytes, of none, across the ends of messages."""
    chance = random.Random(seed)
    pieces = {token: chance.choice([b"", b"a", b"ab", b"b<", b">a", b"ba>"]) for token in range(20)}
    tokens = tuple(chance.choices(range(20), k=60))
    said = tuple(Message("user", chance.choice(["a", "ab", "ba", "<", "aba", "zz"])) for _ in range(8))
    header = Header("plain", {}, "embedded", SamplingData(0, 0, 1), 0, "", tokens, 8, "cpu", "float32", {}, messages=said)
    trace = Trace(header, pieces, ())
    starts = [0, *accumulate(len(pieces[token]) for token in tokens)]
    places = contents(b"".join(pieces[token] for token in tokens), [one.content for one in said], set())
    assert in_messages(trace) == [any(start < b and a < stop for a, b in places) for start, stop in pairwise(starts)]
