"""The handout: one page per lesson, with a policy that nothing passes, offline."""

import re
from html.parser import HTMLParser

import pytest

from decoding.runs import lesson_runs
from viz.lessons.course import NEEDED, course
from viz.lessons.handout import handout, without_inline
from viz.lessons.lesson import Card, Lesson, Place, Question
from viz.replay.replay import digest

NUMBERS = range(1, 8)


@pytest.fixture(scope="module")
def pages():
    runs = {name: lesson_runs.read(name) for name in NEEDED}
    return {i: handout(lesson, i, runs) for i, lesson in enumerate(course(runs), 1)}


@pytest.mark.parametrize("number", NUMBERS)
def test_the_policy_allows_its_style_and_nothing_else(pages, number):
    page = pages[number]
    style = page.split("<style>")[1].split("</style>")[0]
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    assert policy == f"default-src 'none'; style-src '{digest(style)}'; base-uri 'none'; form-action 'none'"
    assert " style=" not in page and "<script" not in page and not re.search(r"https?:|src=|url\(|@import", page)


@pytest.mark.parametrize("number", NUMBERS)
def test_it_has_words_questions_answers_and_pictures(pages, number):
    page = pages[number]
    assert page.count("<section>") >= 3 and "What the runs did" in page and 'class="ask"' in page
    assert "<svg" in page or "lsn-lane" in page or "<table" in page or number == 1
    Balanced().feed(page)


def test_a_hostile_title_and_token_are_text():
    card = Card("<b>x</b>", "\x02<script>alert(1)</script>\x03", Place("plain", 0),
                question=Question("kept", "<i>", ("<u>", "b"), 0, "<img src=x onerror=alert(1)>", Place("plain", 0)))  # fmt: skip
    page = handout(Lesson("<h1>", "&", (card,)), 1, {"plain": lesson_runs.read("plain")})
    assert not re.search(r"<script>|<img|<u>|<i>|<b>x", page) and "&lt;script&gt;" in page


def test_styles_become_classes():
    page, sheet = without_inline('<i class="a" style="width:1%"></i><b style="left:2%"></b><i class="a" style="width:1%"></i>')
    assert page == '<i class="a s0"></i><b class="s1"></b><i class="a s0"></i>' and sheet == ".s0{width:1%}.s1{left:2%}"


class Balanced(HTMLParser):
    """Every element that is opened is closed."""

    open_: list[str]

    def __init__(self) -> None:
        super().__init__()
        self.open_ = []

    def handle_starttag(self, tag, attrs) -> None:
        if tag not in ("meta", "br", "path"):
            self.open_.append(tag)

    def handle_endtag(self, tag) -> None:
        if tag != "path":
            assert self.open_ and self.open_.pop() == tag, tag
