"""The Learn page without a browser: cards, questions, links, the class."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from decoding.limits import Refused
from pages.parts.learn import class_view
from pages.parts.learn import classes as classes_module
from pages.parts.learn.classes import Classes, Spot
from pages.parts.learn.learn import READER, lessons, runs
from pages.parts.shared.runs import tabs
from tests.conftest import PATIENCE
from viz.lessons.lesson import unmarked

ROOT = Path(__file__).parent.parent.parent
LEARN = str(ROOT / "pages/0_Learn.py")

pytestmark = pytest.mark.timeout(4 * PATIENCE)


@pytest.fixture(autouse=True)
def own_classes(monkeypatch):
    """Every test has a server's memory of its own."""
    made = Classes()
    monkeypatch.setattr(class_view, "classes", made)
    return made


def opened(**query: str) -> AppTest:
    at = AppTest.from_file(LEARN, default_timeout=PATIENCE)
    for key, value in query.items():
        at.query_params[key.removesuffix("_")] = value
    return checked(at.run())


def checked(at: AppTest) -> AppTest:
    assert not at.exception, at.exception
    return at


def press(at: AppTest, key: str) -> AppTest:
    return checked(at.button(key=key).click().run())


def keys(at: AppTest) -> set[str]:
    return {button.key for button in at.button}


def html(at: AppTest) -> str:
    """What stands there; without the style sheets."""
    return re.sub("<style>.*?</style>", "", raw(at), flags=re.S)


def raw(at: AppTest) -> str:
    return " ".join(element.proto.body for element in at.get("html"))


def said(at: AppTest) -> str:
    return (html(at) + " ".join(element.value for element in (*at.warning, *at.info, *at.error))).replace("\\", "")


def query(at: AppTest) -> dict[str, str]:
    return {key: value[0] if isinstance(value, list) else value for key, value in dict(at.query_params).items()}


def asked() -> list[tuple[int, int]]:
    return [(i, k) for i, lesson in enumerate(lessons()) for k, card in enumerate(lesson.cards) if card.question]


def test_the_list_names_all_lessons_and_leads_into_the_first():
    at = opened()
    assert all(f"learn.open.{i}" in keys(at) for i in range(7)) and "minutes" in said(at)
    press(at, "learn.open.0")
    assert query(at) == {"lesson": "1", "card": "1"} and lessons()[0].cards[0].title in html(at)


def test_every_card_is_drawn_before_and_after_its_answer():
    for i, lesson in enumerate(lessons()):
        for k, card in enumerate(lesson.cards):
            at = opened(lesson=f"{i + 1}", card=f"{k + 1}")
            assert card.title in html(at)
            if card.question is None:
                assert "learn.next" in keys(at) or "learn.end" in keys(at)
                continue
            assert "lsn-reveal" not in html(at) and "learn.next" not in keys(at)
            press(at, f"learn.option.{card.question.right}")
            assert "As you said" in html(at) and "learn.option.0" not in keys(at)


def test_another_answer_is_told_what_it_was_and_skipping_tells_too():
    lesson, card = asked()[0]
    question = lessons()[lesson].cards[card].question
    at = opened(lesson=f"{lesson + 1}", card=f"{card + 1}")
    press(at, f"learn.option.{(question.right + 1) % len(question.options)}")
    assert f"it was {question.options[question.right]}" in html(at)
    at = opened(lesson=f"{lesson + 1}", card=f"{card + 1}")
    press(at, "learn.skip")
    assert "You said" not in html(at) and "lsn-reveal" in html(at)


def test_the_whole_course_can_be_walked():
    at = opened(lesson="1")
    seen = 0
    while "learn.end" not in keys(at):
        seen += 1
        press(at, "learn.skip" if "learn.skip" in keys(at) else "learn.next")
        assert seen < 200
    press(at, "learn.end")
    assert query(at) == {} and "learn.open.0" in keys(at)
    assert at.session_state[READER].skipped == set(asked())


def test_back_goes_through_lessons():
    at = opened(lesson="2", card="1")
    press(at, "learn.back")
    assert query(at) == {"lesson": "1", "card": f"{len(lessons()[0].cards)}"}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"lesson": "9"}, "“9”; there are lessons 1 to 7"),
        ({"lesson": "<b>x</b>"}, "<b>x</b>"),
        ({"lesson": "1", "card": "99"}, "“99”; there are cards 1 to"),
        ({"lesson": "1", "card": "-1"}, "“-1”"),
        ({"lesson": "²"}, "“²”"),
        ({"card": "2"}, "names a card and no lesson"),
        ({"view": "all"}, "no view “all”"),
        ({"class_": "no code!"}, "is no code of a class"),
        ({"class_": "ABCDE", "lead": "%"}, "teacher's part of this link is damaged"),
        ({"lesson": "1" * 5000}, "there are lessons 1 to 7"),
    ],
)
def test_a_wrong_link_is_refused_with_a_sentence(wrong, words):
    at = opened(**wrong)
    assert words in said(at) and len(said(at)) < 40_000


def test_the_view_for_a_projector_hides_everything_else():
    at = opened(lesson="3", card="2", view="class")
    assert ".stSidebar, " in raw(at) and not {"learn.all", "learn.project"} & keys(at)
    assert at.button("learn.skip").label == "Show the answer"
    press(at, "learn.skip")
    press(at, "learn.next")
    assert query(at) == {"lesson": "3", "card": "3", "view": "class"}
    assert ".stSidebar, " not in raw(opened(lesson="3"))


def test_a_class_votes_and_sees_the_votes_once_the_teacher_shows_the_answer(own_classes):
    lesson, card = asked()[1]
    question = lessons()[lesson].cards[card].question
    teacher = press(opened(), "learn.teach")
    link = query(teacher)
    assert link["view"] == "class" and link["class"] and link["lead"]
    teacher = opened(lesson=f"{lesson + 1}", card=f"{card + 1}", view="class", class_=link["class"], lead=link["lead"])
    pupils = [opened(class_=link["class"]) for _ in range(3)]
    for pupil, option in zip(pupils, (0, 1, 1), strict=True):
        assert question.options[0] in html(pupil) or unmarked(question.options[0]) in str([b.label for b in pupil.button])
        press(pupil, f"learn.option.{option}")
        assert "Your vote is in" in html(pupil)
    checked(teacher.run())
    assert "3 votes" in html(teacher) and "lsn-tally" not in html(teacher)
    press(teacher, "learn.skip")
    assert "<b>2</b>" in html(teacher) and "lsn-tally" in html(teacher)
    where = {"lesson": f"{lesson + 1}", "card": f"{card + 1}", "view": "class", "class_": link["class"], "lead": link["lead"]}
    assert "lsn-tally" in html(opened(**where))  # loaded anew: it stays shown, or who has seen it could vote again
    checked(pupils[0].run())
    assert "lsn-reveal" in html(pupils[0]) and "(you)" in html(pupils[0]) and "learn.option.0" not in keys(pupils[0])


def test_a_vote_that_comes_late_is_said_not_to_count(own_classes):
    lesson, card = asked()[1]
    code, key = own_classes.opened()
    own_classes.move(code, key, Spot(lesson, card))
    pupil = opened(class_=code)
    own_classes.move(code, key, Spot(lesson, card + 1))
    press(pupil, "learn.option.1")
    assert [toast.value for toast in pupil.toast] == ["Your vote does not count: the class has gone on."]
    assert not own_classes.tally(code, Spot(lesson, card), 2).votes


def test_a_teacher_is_told_that_the_class_is_gone(own_classes):
    """The screen showed the question with no votes and no tabs; and the same link opens it again."""
    lesson, card = asked()[1]
    teacher = press(opened(), "learn.teach")
    link = query(teacher)
    where = {"lesson": f"{lesson + 1}", "card": f"{card + 1}", "view": "class", "class_": link["class"], "lead": link["lead"]}
    teacher = opened(**where)
    assert not teacher.info
    own_classes.rooms.clear()
    checked(teacher.run())
    assert "without the votes that it had" in teacher.info[0].value and link["class"] in own_classes.rooms
    assert not checked(teacher.run()).info


@pytest.mark.parametrize("tried", ["learn.option.0", "learn.skip"])
def test_what_a_teacher_tried_alone_is_not_shown_to_the_class(own_classes, tried):
    lesson, card = next(place for place in asked() if place[0] == 0)  # in the lesson that a class begins with
    teacher = press(opened(lesson=f"{lesson + 1}", card=f"{card + 1}"), tried)
    assert "lsn-reveal" in html(teacher)
    for back in ("learn.all", "learn.teach"):
        press(teacher, back)
    for _ in range(card):
        press(teacher, "learn.next")
    assert own_classes.spot(query(teacher)["class"]) == Spot(lesson, card) and "lsn-reveal" not in html(teacher)
    pupil = press(opened(class_=query(teacher)["class"]), "learn.option.0")
    assert "Your vote is in" in html(pupil)


@pytest.mark.parametrize("tried", ["learn.option.0", "learn.skip"])
def test_what_a_teacher_tried_outside_of_the_class_is_not_shown_to_it(own_classes, tried):
    """Back out of the class in the browser, an answer, and Forward again: it was shown to all, and for good."""
    lesson, card = asked()[0]
    teacher = press(opened(), "learn.teach")
    alone = {"lesson": f"{lesson + 1}", "card": f"{card + 1}"}
    within = query(teacher) | alone
    for where in (within, alone):
        goes(teacher, where)
    assert "lsn-reveal" in html(press(teacher, tried))
    assert "lsn-reveal" not in html(goes(teacher, within))
    assert own_classes.spot(within["class"]) == Spot(lesson, card, False)
    press(teacher, "learn.skip")
    for where in (alone, within):  # what was shown there stays shown
        goes(teacher, where)
    assert own_classes.spot(within["class"]) == Spot(lesson, card, True) and "lsn-reveal" in html(teacher)


def goes(at: AppTest, where: dict[str, str]) -> AppTest:
    """The browser's own Back and Forward."""
    at.query_params.clear()
    for name, value in where.items():
        at.query_params[name] = value
    return checked(at.run())


def test_a_teacher_whose_class_finds_no_room_is_told_so_and_the_page_comes_to_rest(own_classes, monkeypatch):
    """At a question the page ran anew without an end."""
    lesson, card = asked()[0]
    key, tries = "a-teachers-key", []

    def full(address: str) -> None:
        tries.append(address)
        raise Refused("There are too many classes.")

    with monkeypatch.context() as room:
        room.setattr(own_classes, "check_room", full)
        code = own_classes.code_of(key)
        teacher = opened(lesson=f"{lesson + 1}", card=f"{card + 1}", view="class", class_=code, lead=key)
        assert len(tries) == 1 and "There are too many classes" in said(teacher)
        press(teacher, "learn.skip")
        assert len(tries) < 4 and "There are too many classes" in said(teacher)
    assert "is open again" in said(checked(teacher.run())) and code in own_classes.rooms


def test_a_class_stays_where_it_is_while_its_teacher_looks_at_the_list(own_classes):
    """Its pupils were moved to the first card of all."""
    lesson, card = asked()[1]
    teacher = press(opened(), "learn.teach")
    within = query(teacher) | {"lesson": f"{lesson + 1}", "card": f"{card + 1}"}
    press(goes(teacher, within), "learn.skip")
    code, key = within["class"], within["lead"]
    checked(goes(teacher, {"view": "class", "class": code, "lead": key}))
    assert "learn.teach" in keys(teacher) and own_classes.spot(code) == Spot(lesson, card, True)


def test_a_class_with_pupils_is_taught_on_and_not_ended_by_another(own_classes):
    """From the list of lessons "Teach a class" ended it, and its pupils waited for a class that never came."""
    teacher = press(opened(), "learn.teach")
    code = query(teacher)["class"]
    there = {name: query(teacher)[name] for name in ("view", "class", "lead")}
    opened(class_=code)
    goes(teacher, there)
    assert teacher.button(key="learn.teach").label == f"Go on with class {code}"
    press(teacher, "learn.teach")
    assert query(teacher)["class"] == code and list(own_classes.rooms) == [code]
    own_classes.rooms[code].tabs.clear()
    press(goes(teacher, there), "learn.teach")
    assert query(teacher)["class"] != code and code not in own_classes.rooms


def test_a_class_goes_on_where_no_other_can_take_its_place(own_classes, monkeypatch):
    teacher = press(opened(), "learn.teach")
    code = query(teacher)["class"]
    goes(teacher, {"view": "class", "class": code, "lead": query(teacher)["lead"]})

    def full(address: str) -> None:
        raise Refused("There are too many classes.")

    with monkeypatch.context() as room:
        room.setattr(own_classes, "check_room", full)
        assert "There are too many classes" in said(press(teacher, "learn.teach")) and code in own_classes.rooms
    press(teacher, "learn.teach")
    assert code not in own_classes.rooms and query(teacher)["class"] in own_classes.rooms


def test_the_code_of_a_class_may_be_typed_in_small_letters(own_classes):
    code, key = own_classes.opened()
    own_classes.move(code, key, Spot(*asked()[0]))
    assert "learn.option.0" in keys(opened(class_=code.lower()))


def test_a_vote_too_many_is_said_to_be_one(own_classes, monkeypatch):
    for module in (class_view, classes_module):
        monkeypatch.setattr(module, "CLASS_TABS", 1)
    lesson, card = asked()[0]
    code, key = own_classes.opened()
    own_classes.move(code, key, Spot(lesson, card))
    own_classes.spot(code, "first")
    assert own_classes.vote(code, "first", Spot(lesson, card), 0, 2)
    pupil = press(opened(class_=code), "learn.option.0")
    assert ["as many as a class may have" in toast.value for toast in pupil.toast] == [True]


def test_a_visitor_who_loads_the_page_anew_sees_that_they_have_voted(own_classes, monkeypatch):
    """On a public server the vote is theirs, whatever their page remembers."""
    monkeypatch.setattr("pages.parts.learn.class_view.voter", lambda: "a visitor")
    lesson, card = asked()[1]
    code, key = own_classes.opened()
    own_classes.move(code, key, Spot(lesson, card))
    press(opened(class_=code), "learn.option.1")
    assert "Your vote is in" in html(opened(class_=code))


def test_a_teacher_whose_address_is_gone_comes_back_to_the_class(own_classes, monkeypatch):
    """As with a reload of another site's page around this one, in which nobody sees it: the pupils waited for hours."""
    monkeypatch.setenv("DRAFTSCOPE_MODE", "public")
    monkeypatch.setattr("pages.parts.learn.class_view.voter", lambda: "a teacher")
    teacher = press(opened(), "learn.teach")
    code = query(teacher)["class"]
    own_classes.move(code, query(teacher)["lead"], Spot(2, 1, True))
    back = press(opened(), f"learn.back.{code}")
    assert query(back)["lead"] == query(teacher)["lead"] and own_classes.spot(code) == Spot(2, 1, True)
    monkeypatch.setattr("pages.parts.learn.class_view.voter", lambda: "a pupil")
    assert f"learn.back.{code}" not in keys(opened())


def test_a_pupil_who_went_to_another_page_finds_the_way_back(own_classes, monkeypatch):
    """By the page's name they came to the list of lessons, and nothing led back but the code."""
    monkeypatch.setattr("pages.parts.learn.class_view.voter", lambda: "a pupil")
    lesson, card = asked()[0]
    code, key = own_classes.opened()
    own_classes.move(code, key, Spot(lesson, card))
    press(opened(class_=code), "learn.option.1")
    back = opened()
    assert any(found.value.startswith(f"You are in class {code}") for found in back.markdown)
    press(back, f"learn.return.{code}")
    assert query(back) == {"view": "class", "class": code} and "Your vote is in" in html(back)
    own_classes.close(code, key)
    assert f"learn.return.{code}" not in keys(opened())
    monkeypatch.setattr("pages.parts.learn.class_view.voter", lambda: "another")
    assert not [name for name in keys(opened()) if name and name.startswith("learn.return")]


@pytest.mark.parametrize("way", ["a class's link", "its own class"])
def test_what_was_answered_alone_is_there_again_behind_a_class(own_classes, way):
    """It was gone without a word."""
    lesson, card = asked()[0]
    alone = {"lesson": f"{lesson + 1}", "card": f"{card + 1}"}
    at = press(opened(**alone), "learn.option.0")
    if way == "its own class":
        press(press(at, "learn.all"), "learn.teach")
    else:
        code, key = own_classes.opened()
        own_classes.move(code, key, Spot(lesson, card))
        assert "lsn-reveal" not in html(goes(at, {"class": code}))
    assert "lsn-reveal" in html(goes(at, alone))
    goes(at, {})
    assert "answers that you gave" in html(at)


def test_what_a_reader_has_answered_is_the_tabs():
    """So that a reload finds it (`Tabs.take_over`)."""
    lesson, card = asked()[0]
    at = press(opened(lesson=f"{lesson + 1}", card=f"{card + 1}"), "learn.skip")
    reader = at.session_state[READER]
    assert any(tab.kept.get(READER) is reader for tab in tabs.of(""))


def test_a_link_that_leads_no_class_goes_on_saying_why(own_classes):
    """A run of the page later it was silent, and that another teacher had the class was not true."""
    at = opened(class_="ABCDE", lead="somebody-else-1")
    for _ in range(2):
        assert "belongs to another class than ABCDE" in said(at) and "Another teacher" not in said(at)
        checked(at.run())


def test_pupils_follow_their_teacher_and_cannot_lead(own_classes):
    code, key = own_classes.opened()
    pupil = opened(class_=code, lesson="4", card="2")
    assert lessons()[0].cards[0].title in html(pupil) and "learn.next" not in keys(pupil)
    own_classes.move(code, key, Spot(2, 1, False))
    checked(pupil.run())
    assert lessons()[2].cards[1].title in html(pupil)
    stranger = opened(class_=code, lead="somebody-else-1", lesson="5")
    assert "Another teacher has this class" in said(stranger) and own_classes.spot(code) == Spot(2, 1, False)


def test_a_class_that_is_not_open_says_so():
    assert "No class ABCDE is open now" in said(opened(class_="ABCDE"))


def test_the_handout_is_offered_on_every_card():
    assert len(opened().get("download_button")) == 7 and len(opened(lesson="3").get("download_button")) == 1


def test_missing_runs_are_a_sentence(monkeypatch):
    from pages.parts.learn import learn

    runs.cache_clear(), lessons.cache_clear()
    monkeypatch.setattr(learn.lesson_runs, "read", lambda name: (_ for _ in ()).throw(OSError("gone")))
    at = AppTest.from_file(LEARN, default_timeout=PATIENCE).run()
    runs.cache_clear(), lessons.cache_clear()
    assert not at.exception and "cannot be read: gone" in said(at)


def test_the_lessons_need_no_torch():
    """Nor does anything that the page imports."""
    program = (
        "import sys; from pages.parts.learn import learn; learn.lessons(); "
        "assert not {'torch', 'transformers'} & set(sys.modules), 'a library of models was imported'"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
