"""The memory of classes: who leads, who votes, and what is bounded."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from decoding.limits import CLASS_HOURS, CLASS_TABS, CLASSES, CLASSES_NEAR, Refused
from decoding.runs.own_secret import own_secret
from pages.parts.learn.classes import IDLE, Classes, Spot, is_code

ASKED, SHOWN = Spot(1, 2), Spot(1, 2, True)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def made(clock):
    return Classes(clock, lambda: b"of a test")


def test_a_code_can_be_typed_and_a_key_leads(made):
    code, key = made.opened()
    assert is_code(code) and made.leads(code, key) and not made.leads(code, "x" * 12)


def test_only_the_key_moves_a_class(made):
    code, key = made.opened()
    made.move(code, "x" * 12, ASKED)
    assert made.spot(code) == Spot()
    made.move(code, key, ASKED)
    assert made.spot(code) == ASKED


def test_a_tab_has_one_vote_and_may_change_it(made):
    code, key = made.opened()
    made.move(code, key, ASKED)
    assert made.vote(code, "a", ASKED, 0, 3) and made.vote(code, "a", ASKED, 2, 3) and made.vote(code, "b", ASKED, 2, 3)
    assert made.tally(code, ASKED, 3).counts == (0, 0, 2)
    assert [made.choice(code, tab, ASKED) for tab in "abc"] == [2, 2, None] and made.choice("XXXXX", "a", ASKED) is None


@pytest.mark.parametrize("spot", [SHOWN, Spot(1, 1), Spot(0, 2)])
def test_votes_on_what_is_not_asked_do_not_count(made, spot):
    code, key = made.opened()
    made.move(code, key, SHOWN if spot is SHOWN else ASKED)
    assert not made.vote(code, "a", spot, 0, 3) and made.tally(code, spot, 3).votes == 0


def test_an_answer_that_was_shown_stays_shown(made):
    """A teacher pressed F5 behind it, and the question was open again for pupils who had seen which one is right."""
    code, key = made.opened()
    made.move(code, key, SHOWN)
    assert made.shown(code, key) == {SHOWN[:2]} and made.shown(code, "x" * 12) == made.shown("XXXXX", key) == set()
    made.move(code, key, Spot(0, 0))
    assert made.spot(code) == Spot(0, 0)
    made.move(code, key, ASKED)
    assert made.spot(code) == SHOWN and not made.vote(code, "a", ASKED, 0, 3)


@pytest.mark.parametrize("option", [-1, 3, 10**9])
def test_an_option_that_is_none_does_not_count(made, option):
    code, key = made.opened()
    made.move(code, key, ASKED)
    assert not made.vote(code, "a", ASKED, option, 3)


def test_votes_stay_while_the_teacher_goes_on_and_back(made):
    code, key = made.opened()
    made.move(code, key, ASKED)
    made.vote(code, "a", ASKED, 1, 2)
    made.move(code, key, Spot(1, 3))
    made.move(code, key, SHOWN)
    assert made.tally(code, SHOWN, 2).counts == (0, 1)


def test_one_address_has_so_many_classes(made, monkeypatch):
    """However they are opened; whoever comes back to one of them still leads it."""
    monkeypatch.setenv("DRAFTSCOPE_MODE", "public")
    first = made.opened("there")
    for i in range(1, CLASSES_NEAR):
        assert made.leads(made.code_of(key := f"the-key-{i}"), key, "there")
    for another in (lambda: made.opened("there"), lambda: made.leads(made.code_of("k" * 12), "k" * 12, "there")):
        with pytest.raises(Refused, match=f"{CLASSES_NEAR} classes of one network"):
            another()
    assert made.leads(*first, "there") and made.opened("elsewhere")


def test_of_too_many_classes_the_emptiest_of_whoever_has_most_gives_way(made, clock, monkeypatch):
    """One pupil with twenty tabs kept all teachers of a school from opening one for hours; then one could end a teacher's."""
    monkeypatch.setenv("DRAFTSCOPE_MODE", "public")
    code, key = made.opened("school", "teacher")
    made.vote(code, "pupil", Spot(), 0, 2)
    clock.now = 300
    pupils = [made.opened("school", "pupil")[0] for _ in range(1, CLASSES_NEAR)]
    for one in pupils[1:]:
        made.spot(one, "a tab that follows it")
        made.vote(one, "a tab that follows it", Spot(), 0, 2)
    other, _ = made.opened("school", "another teacher")
    assert made.spot(code) is not None and made.spot(other) is not None and made.spot(pupils[0]) is None


def test_a_class_with_pupils_gives_way_to_none(made, clock, monkeypatch):
    """A pupil with made-up keys opened nineteen: of the teacher, who had most with two, one was gone with its votes."""
    monkeypatch.setenv("DRAFTSCOPE_MODE", "public")
    voted, followed = (made.opened("school", "teacher")[0] for _ in range(2))
    made.vote(voted, "a", Spot(), 0, 2)
    made.spot(followed, "b")
    clock.now = 50
    for i in range(2, CLASSES_NEAR):
        made.opened("school", f"made up {i}")
    with pytest.raises(Refused, match="of one network"):
        made.opened("school", "one more")
    assert {voted, followed} <= set(made.rooms)
    clock.now = 61  # whoever followed is gone, and nobody has voted there
    assert made.opened("school", "another") and voted in made.rooms


def test_a_class_of_yesterday_gives_way_before_one_that_is_taught(made, clock, monkeypatch):
    """Nineteen other teachers of the school began: the class that was taught was dropped, and the dead one stayed."""
    monkeypatch.setenv("DRAFTSCOPE_MODE", "public")
    dead, taught = (made.opened("school", "teacher")[0] for _ in range(2))
    made.spot(dead, "a")
    made.vote(dead, "a", Spot(), 0, 2)
    clock.now = IDLE
    made.spot(taught, "b")
    for i in range(2, CLASSES_NEAR):
        made.spot(made.opened("school", f"another {i}")[0], "pupil")
    assert made.opened("school", "one more") and taught in made.rooms and dead not in made.rooms


def test_a_class_that_is_left_and_empty_gives_way_first(made, clock, monkeypatch):
    monkeypatch.setenv("DRAFTSCOPE_MODE", "public")
    left, shown = made.opened("school", "a")[0], made.opened("school", "b")[0]
    for i in range(2, CLASSES_NEAR):
        made.spot(made.opened("school", f"c{i}")[0], "pupil")
    with pytest.raises(Refused):
        made.opened("school", "d")
    clock.now = 61
    made.tally(shown, Spot(), 2)  # by its teacher's page
    assert made.opened("school", "d") and left not in made.rooms and shown in made.rooms


def test_addresses_that_open_all_they_can_leave_some(made, monkeypatch):
    monkeypatch.setenv("DRAFTSCOPE_MODE", "public")
    for number in range(CLASSES.most // CLASSES_NEAR):
        for _ in range(CLASSES_NEAR):
            try:
                made.opened(f"192.0.2.{number}")
            except Refused:
                break
    assert len(made.rooms) <= CLASSES.most - CLASSES.spare + CLASSES.least
    assert [bool(made.opened("elsewhere")) for _ in range(CLASSES.least)] and len(made.rooms) < CLASSES.most


def test_tabs_and_votes_of_a_class_are_bounded(made):
    code, key = made.opened()
    made.move(code, key, ASKED)
    for i in range(CLASS_TABS + 20):
        made.spot(code, f"tab {i}")
        made.vote(code, f"tab {i}", ASKED, 0, 2)
    found = made.tally(code, ASKED, 2)
    assert found.votes == CLASS_TABS == found.tabs and made.vote(code, "tab 0", ASKED, 1, 2)


def test_who_opens_many_tabs_and_goes_keeps_nobody_from_voting(made, clock):
    """Those who are there do: one who votes from a script has as many tabs as its address may have open."""
    code, key = made.opened()
    made.move(code, key, ASKED)
    for i in range(CLASS_TABS):
        made.spot(code, f"tab {i}")
        made.vote(code, f"tab {i}", ASKED, 0, 2)
    clock.now = 59
    made.spot(code, "tab 0")
    made.spot(code, "pupil")
    assert not made.vote(code, "pupil", ASKED, 1, 2)
    clock.now = 61
    made.spot(code, "pupil")
    assert made.vote(code, "pupil", ASKED, 1, 2) and made.tally(code, ASKED, 2) == ((1, 1), 2)


def test_classes_are_bounded_and_forgotten(made, clock):
    first, _ = made.opened()
    for _ in range(CLASSES.most - 1):
        made.opened()
    with pytest.raises(Refused, match=f"holds {CLASSES.most} classes"):
        made.opened()
    with pytest.raises(Refused):
        made.leads(made.code_of("a-key-of-a-link"), "a-key-of-a-link")
    clock.now = CLASS_HOURS * 3600 + 1
    made.opened()
    assert made.spot(first) is None and len(made.rooms) == 1


def test_who_looks_keeps_a_class(made, clock):
    code, _ = made.opened()
    for _ in range(3):
        clock.now += CLASS_HOURS * 3600 - 1
        assert made.spot(code) is not None


def test_a_forgotten_class_is_opened_again_by_its_teachers_link(made):
    code = made.code_of("the-teachers-key")
    assert made.leads(code, "the-teachers-key") and made.spot(code) == Spot()
    assert not made.leads(code, "another-ones-key")


def test_nobody_else_leads_a_class_that_was_ended_or_forgotten(made, clock):
    """Whoever knew its code did, and the tabs of its pupils followed them."""
    code, key = made.opened()
    made.close(code, key)
    with pytest.raises(ValueError, match=f"another class than {code}"):
        made.leads(code, "a-pupils-key")
    assert made.spot(code) is None and made.leads(code, key)
    clock.now = CLASS_HOURS * 3600 + 1
    with pytest.raises(ValueError, match="another class"):
        made.leads(code, "a-pupils-key")
    assert made.leads(code, key)


@pytest.mark.parametrize(("code", "key"), [("abc", "k" * 12), ("ABCDE", ""), ("ABCDE", "k" * 99), ("ABCDE\n", "k" * 12)])
def test_what_is_no_code_or_key_is_refused(made, code, key):
    with pytest.raises(ValueError, match="damaged"):
        made.leads(code, key)
    assert not made.rooms


def test_a_pupil_that_left_is_no_longer_counted(made, clock):
    code, _ = made.opened()
    made.spot(code, "a")
    clock.now = 61
    made.spot(code, "b")
    assert made.tally(code, Spot(), 0).tabs == 1


def test_closing_needs_the_key(made):
    code, key = made.opened()
    made.close(code, "x" * 12)
    assert made.spot(code) == Spot()
    made.close(code, key)
    assert made.spot(code) is None


def test_the_secret_of_a_server_is_its_own_and_stays(tmp_path, monkeypatch):
    """Keys for all codes of all servers could be made beforehand."""
    monkeypatch.setenv("DRAFTSCOPE_HOME", str(tmp_path / "one"))
    found = [secret() for secret in [own_secret.__wrapped__] * 2]
    assert found[0] == found[1] and len(found[0]) == 32
    assert (tmp_path / "one" / "classes.secret").stat().st_mode & 0o777 == 0o600
    monkeypatch.setenv("DRAFTSCOPE_HOME", str(tmp_path / "two"))
    assert own_secret.__wrapped__() != found[0]
    (tmp_path / "two" / "classes.secret").write_bytes(b"a part")  # of a disk that was full: it was another one after each start
    found = [secret() for secret in [own_secret.__wrapped__] * 2]
    assert found[0] == found[1] and [file.name for file in (tmp_path / "two").iterdir()] == ["classes.secret"]
    for number in range(20):  # two scripts that ask for it first at the same time
        monkeypatch.setenv("DRAFTSCOPE_HOME", str(tmp_path / f"both {number}"))
        with ThreadPoolExecutor(2) as both:
            one, other = both.map(lambda _: own_secret.__wrapped__(), range(2))
        assert one == other == (tmp_path / f"both {number}" / "classes.secret").read_bytes()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DRAFTSCOPE_HOME", str(tmp_path / "file" / "in"))
    assert len(own_secret.__wrapped__()) == 32
