"""A class: the teacher's screen with the votes, and the pupils' tabs that follow it. One timed fragment on either."""

import hashlib
import secrets
from collections.abc import Callable

import streamlit as st

from decoding.limits import CLASS_TABS, Refused, limits
from decoding.runs.failures import told
from pages.parts.learn.classes import Spot, classes
from pages.parts.learn.place import Reader
from pages.parts.shared import visitor
from viz.lessons.lesson import Lesson, Question, paragraphs, shown_html, unmarked
from viz.lessons.tally import tally_html
from viz.tokens import as_html, as_markdown

POLL = 2.0  # seconds between two looks at the class
RETRY = 10.0  # seconds until a class that could not be opened again is tried once more


def voter() -> str:
    """What the votes of a tab are known by: a visitor has one, in however many tabs and however often they load them anew."""
    return hashlib.sha256(visitor.key().encode()).hexdigest()[:16] if limits().public else secrets.token_urlsafe(9)


def begin(reader: Reader, write: Callable[[Reader], None]) -> None:
    """A callback: a class is opened, and its teacher's link is the address from now on. One that is led already goes on: it has
    pupils, who could not know the code of another."""
    if not goes_on(reader):
        before = reader.code, reader.key
        try:
            reader.turn_to(*classes.opened(visitor.address(), voter()))
        except ValueError as error:
            reader.notes = [told(error)]
            return
        classes.close(*before)
    reader.projected = True
    reader.answers, reader.skipped = {}, classes.shown(reader.code, reader.key)
    reader.go(reader.lesson or 0, 0)
    write(reader)


def goes_on(reader: Reader) -> bool:
    """Whether this tab leads a class that somebody has come to."""
    return classes.has_pupils(reader.code, reader.key)


def arrive(reader: Reader) -> None:
    """Whoever comes by a link with a code: teacher or pupil."""
    reader.turned_away = False
    if not reader.key:
        return
    there = classes.spot(reader.code) is not None
    try:
        leads = classes.leads(reader.code, reader.key, visitor.address(), voter())
    except Refused as error:  # the key is theirs, and may lead in a while
        reader.turned_away = True
        st.warning(as_markdown(told(error)), icon=":material/link_off:")
        return
    except ValueError as error:
        does_not_lead(reader, told(error))
        return
    if leads:
        if not there:
            st.info(as_markdown(f"Class {reader.code} was not open any more. It is open again, without the votes that it had."))
        reader.skipped |= classes.shown(reader.code, reader.key)
        lead(reader)
    else:
        does_not_lead(reader, "Another teacher has this class; you are in it as a pupil.")


def does_not_lead(reader: Reader, why: str) -> None:
    """The link is a pupil's; the page goes on saying why."""
    reader.key = ""
    reader.notes.append(why)
    st.warning(as_markdown(why), icon=":material/link_off:")


def go_back(reader: Reader, code: str, write: Callable[[Reader], None]) -> None:
    """A callback: to a class of one's own, where it is."""
    if (room := classes.of(voter()).get(code)) is None:
        reader.notes = [f"The class {code} has ended."]
        return
    reader.turn_to(code, room.key, classes.shown(code, room.key))
    reader.projected = True
    reader.go(*room.spot[:2])
    write(reader)


def own_classes(reader: Reader, write: Callable[[Reader], None]) -> None:
    """The ways back to classes that this visitor leads. Only the address says so else, and in a page around this one, or in another
    tab, it is lost."""
    if not limits().public:
        return
    for code, room in classes.of(voter()).items():
        there = len(room.tabs)
        with st.container(horizontal=True, vertical_alignment="center", border=True, key=f"learn.own.{code}"):
            pupils = {0: "nobody has come yet", 1: "1 pupil has come"}.get(there, f"{there:,} pupils have come")
            st.markdown(as_markdown(f"Your class {code} is open; {pupils}."), width="stretch")
            st.button("Go back to it", key=f"learn.back.{code}", on_click=go_back, args=(reader, code, write))


def visited_classes(reader: Reader, write: Callable[[Reader], None]) -> None:
    """The ways back to classes that this reader is a pupil of: who went to another page and came by its name has no address."""
    for code in classes.visited(reader.tab):
        with st.container(horizontal=True, vertical_alignment="center", border=True, key=f"learn.visited.{code}"):
            st.markdown(as_markdown(f"You are in class {code}."), width="stretch")
            st.button("Go back to it", key=f"learn.return.{code}", on_click=go_back_in, args=(reader, code, write))


def go_back_in(reader: Reader, code: str, write: Callable[[Reader], None]) -> None:
    """A callback: to a class as its pupil; the page says so where it has ended."""
    reader.turn_to(code, "")
    reader.projected = True
    reader.go(None)
    write(reader)


def lead(reader: Reader) -> None:
    """The class goes where its teacher is; at the list of lessons that is where it was."""
    if reader.key and reader.lesson is not None:
        classes.move(reader.code, reader.key, spot_of(reader))


def spot_of(reader: Reader) -> Spot:
    return Spot(*reader.at, reader.revealed)


def pupils_link() -> str:
    """The address at which pupils vote, but for the code; also where this page stands in another one, whose address they see."""
    return f"{(st.context.url or '').split('?')[0]}?class="


def votes(reader: Reader, question: Question, open_: bool) -> None:
    """How many have voted; what for, once the teacher shows the answer."""
    code, spot, count, away = reader.code, Spot(*reader.at), len(question.options), reader.turned_away
    first = True

    def look() -> None:
        nonlocal first
        if classes.spot(code) is None and not (first and away):  # that was tried a moment ago
            st.rerun()  # which opens it again
        first = False
        found = classes.tally(code, spot, count)
        st.html(tally_html(question, found.counts, found.tabs, None if open_ else question.right))
        st.html(f'<div class="lsn"><p class="lsn-code">To vote, open {as_html(pupils_link())}<b>{as_html(code)}</b></p></div>')

    with st.container(key="learn.votes"):
        st.fragment(look, run_every=RETRY if away else POLL if open_ else None)()


def pupil(reader: Reader, all_: tuple[Lesson, ...]) -> None:
    """What a pupil sees: the card that the teacher is at, its question, and their vote."""
    shown = classes.spot(reader.code, reader.tab)

    def look() -> None:
        if classes.spot(reader.code, reader.tab) != shown:
            st.rerun()

    with st.container(key="learn.follow"):
        st.fragment(look, run_every=POLL)()
    if shown is None:
        st.info(as_markdown(f"No class {reader.code} is open now. It begins when its teacher opens it; this page looks by itself."))
        return
    lesson = all_[min(shown.lesson, len(all_) - 1)]
    card = lesson.cards[min(shown.card, len(lesson.cards) - 1)]
    words = "".join(f"<p>{shown_html(part)}</p>" for part in paragraphs(card.words))
    kicker = f"Class {reader.code}, lesson {shown.lesson + 1}: {lesson.title}"
    st.html(
        f'<div class="lsn"><p class="lsn-kicker">{as_html(kicker)}</p><h1 class="lsn-title">{as_html(card.title)}</h1>{words}</div>'
    )
    with st.container(key="learn.question"):
        if card.question is not None:
            ballot(reader, shown, card.question)


def ballot(reader: Reader, shown: Spot, question: Question) -> None:
    st.html(f'<div class="lsn"><p class="lsn-ask">{shown_html(question.ask)}</p></div>')
    chosen = classes.choice(reader.code, reader.tab, shown)
    if not shown.revealed:
        with st.container(horizontal=True, key="learn.options"):
            for i, option in enumerate(question.options):
                given, kind = (reader, shown, i, len(question.options)), "primary" if chosen == i else "secondary"
                st.button(
                    as_markdown(unmarked(option)), key=f"learn.option.{i}", shortcut=question.keys[i],
                    type=kind, on_click=cast, args=given
                )  # fmt: skip
        said = (
            "Choose one; you may change it until the answer is shown."
            if chosen is None
            else "Your vote is in. Wait for the answer."
        )
        st.html(f'<p class="lsn-note" role="status">{said}</p>')
        return
    found = classes.tally(reader.code, shown, len(question.options))
    st.html(f'<div class="lsn"><div class="lsn-reveal"><p>{shown_html(question.reveal)}</p></div></div>'
            + tally_html(question, found.counts, found.tabs, question.right, chosen))  # fmt: skip


def cast(reader: Reader, shown: Spot, option: int, options: int) -> None:
    """A callback: a vote."""
    if classes.vote(reader.code, reader.tab, shown, option, options):
        reader.answers[shown[:2]] = option
    elif classes.spot(reader.code) == shown:
        st.toast(f"Your vote does not count: {CLASS_TABS:,} have voted, as many as a class may have.")
    else:
        st.toast("Your vote does not count: the class has gone on.")
