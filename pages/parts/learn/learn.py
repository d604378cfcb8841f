"""Learn: the course, card by card beside the stepper. Needs no torch: it shows recorded runs.

One fragment draws a lesson; all moves are callbacks that change the tab's `Reader` and write the address. What a card says, and
which answer is right, comes from `viz.lessons`.
"""

from functools import cache

import streamlit as st

from decoding.runs import lesson_runs
from decoding.runs.failures import told
from decoding.runs.recorded_run import tokens
from pages.parts.learn import class_view, pictures
from pages.parts.learn.place import NAMES, Reader, opened
from pages.parts.shared.files import on_demand
from pages.parts.shared.runs import of_tab
from pages.parts.shared.stepper import stepper
from viz.lessons.assets import class_style, style
from viz.lessons.course import NEEDED, course, minutes
from viz.lessons.handout import handout
from viz.lessons.lesson import Card, Lesson, Question, paragraphs, shown_html, unmarked
from viz.tokens import as_html, as_markdown

READER = "draftscope_learn"  # in the session's state
HEAD = "A course in seven short lessons. Each card points at something in a real run that was recorded; nothing on it is made up."


@cache
def runs() -> dict:
    """The recorded runs; OSError or ValueError where one is missing."""
    return {name: lesson_runs.read(name) for name in NEEDED}


@cache
def lessons() -> tuple[Lesson, ...]:
    return course(runs())


def learn() -> None:
    try:
        all_ = lessons()
    except (OSError, ValueError, LookupError) as error:
        st.html(f"<style>{style()}</style><h1 class='ds-title'>Learn</h1>")
        st.error(as_markdown(f"The recorded runs of the lessons cannot be read: {told(error)}"), icon=":material/error:")
        return
    reader = of_tab(READER, lambda: Reader(tab=class_view.voter()))
    query = {name: value for name, value in st.query_params.to_dict().items() if name in NAMES}
    if query != reader.wanted:
        opened(reader, query, all_)
        reader.wanted = query
    st.html(f"<style>{style()}{class_style() if reader.projected else ''}</style>")
    for note in reader.notes:
        st.warning(as_markdown(note), icon=":material/link_off:")
    if reader.code:
        class_view.arrive(reader)
    if reader.code and not reader.key:
        class_view.pupil(reader, all_)
    elif reader.lesson is None:
        overview(reader, all_)
    else:
        st.fragment(lesson_view)(reader, all_)


def go(reader: Reader, lesson: int | None, card: int = 0) -> None:
    """A callback: to a card, and the address with it."""
    reader.go(lesson, card)
    write(reader)


def write(reader: Reader) -> None:
    """The address says where the reader is; the class follows its teacher."""
    reader.wanted = reader.parameters()
    st.query_params.from_dict(reader.wanted)
    class_view.lead(reader)


def answer(reader: Reader, option: int | None) -> None:
    """A callback: an option was chosen, or the answer is to be shown without one."""
    if option is None:
        reader.skipped.add(reader.at)
    else:
        reader.answers[reader.at] = option
    class_view.lead(reader)


def draw_again(reader: Reader) -> None:
    reader.seed += 1


# -- the list of lessons ---------------------------------------------------------------------------------------------------


def overview(reader: Reader, all_: tuple[Lesson, ...]) -> None:
    st.html(
        f'<div class="lsn"><h1 class="lsn-title">Learn</h1><p>{HEAD} Read slowly, all of it takes about {minutes(all_):.0f} '
        "minutes; the first two lessons say what is guessed, what is checked and why nothing is lost.</p></div>"
    )
    class_view.own_classes(reader, write)
    class_view.visited_classes(reader, write)
    for i, lesson in enumerate(all_):
        row(reader, i, lesson)
    teach = f"Go on with class {reader.code}" if class_view.goes_on(reader) else "Teach a class"
    st.button(as_markdown(teach), key="learn.teach", icon=":material/groups:", on_click=class_view.begin, args=(reader, write),
              help="A view for a projector, and a code by which pupils vote on the questions. No account.")  # fmt: skip
    said = score(reader, all_)
    if said:
        st.html(f'<p class="lsn-note">{as_html(said)}</p>')


def row(reader: Reader, i: int, lesson: Lesson) -> None:
    """A lesson in the list: its name, what it is for, its handout."""
    asked = [(i, k) for k, card in enumerate(lesson.cards) if card.question]
    done = sum(place in reader.answers or place in reader.skipped for place in asked)
    first = not reader.answers and not reader.skipped and i == 0
    with st.container(border=True, key=f"learn.row.{i}"):
        name, aim, paper = st.columns([3, 6, 1.7], vertical_alignment="center")
    name.button(
        f"{i + 1:,}. {as_markdown(lesson.title)}", key=f"learn.open.{i}", type="primary" if first else "secondary", on_click=go,
        args=(reader, i), width="stretch", wrap=True,
    )  # fmt: skip
    time = f"{lesson.seconds / 60:.0f} min · {done} of {len(asked)} questions"
    aim.html(f'<p class="lsn-aim">{as_html(lesson.aim)} <span class="lsn-note">{time}</span></p>')
    with paper:
        printed(i, lesson)


def printed(i: int, lesson: Lesson) -> None:
    st.download_button(
        "Print", on_demand(lambda: handout(lesson, i + 1, runs())), f"draftscope-lesson-{i + 1}.html", "text/html",
        key=f"learn.handout.{i}",
        icon=":material/print:", on_click="ignore", help="One page to print, with the pictures; opens in any browser, offline.",
    )  # fmt: skip


def score(reader: Reader, all_: tuple[Lesson, ...]) -> str:
    """How many answers the reader foresaw."""
    if not reader.answers:
        return ""
    questions = {(i, k): card.question for i, lesson in enumerate(all_) for k, card in enumerate(lesson.cards)}
    right = sum(bool(found := questions.get(place)) and found.right == chosen for place, chosen in reader.answers.items())
    return f"You foresaw {right} of the {len(reader.answers)} answers that you gave. The runs decided, nobody else."


# -- a lesson --------------------------------------------------------------------------------------------------------------


def lesson_view(reader: Reader, all_: tuple[Lesson, ...]) -> None:
    """A card on the left, what it speaks of on the right."""
    if reader.lesson is None:  # the way back to the list leaves the fragment
        st.rerun()
    lesson = all_[reader.lesson]
    card = lesson.cards[reader.card]
    open_ = card.question is not None and not reader.revealed
    left, right = st.columns([5, 8] if reader.projected else [4, 7], gap="large")
    with left, st.container(key="learn.card"):
        card_view(reader, all_, lesson, card, open_)
    with right, st.container(key="learn.picture"):
        picture(reader, card, open_)


def card_view(reader: Reader, all_: tuple[Lesson, ...], lesson: Lesson, card: Card, open_: bool) -> None:
    number = (reader.lesson or 0) + 1
    dots = "".join(
        f'<i class="{"here" if k == reader.card else "done" if k < reader.card else ""}"></i>' for k in range(len(lesson.cards))
    )
    words = "".join(f"<p>{shown_html(part)}</p>" for part in paragraphs(card.words))
    kicker = f"Lesson {number} of {len(all_)}: {lesson.title}, card {reader.card + 1} of {len(lesson.cards)}"
    st.html(
        f'<div class="lsn"><p class="lsn-kicker">{as_html(kicker)}</p><div class="lsn-dots" aria-hidden="true">{dots}</div>'
        f'<h2 class="lsn-title">{as_html(card.title)}</h2>{words}</div>'
    )
    if card.picture == "cost":
        pictures.cost_slider()
    place = st.empty()  # a container that gets nothing would keep what an earlier card put there
    if card.question is not None:
        with place.container(key="learn.question"):
            question_view(reader, card.question, open_)
    ways(reader, all_, lesson, open_)


def question_view(reader: Reader, question: Question, open_: bool) -> None:
    """The question with its options, or what the run did."""
    st.html(f'<div class="lsn"><p class="lsn-ask">{shown_html(question.ask)}</p></div>')
    leads = bool(reader.key)
    if open_ and not leads:
        with st.container(horizontal=True, key="learn.options"):
            for i, option in enumerate(question.options):
                st.button(
                    as_markdown(unmarked(option)), key=f"learn.option.{i}", shortcut=question.keys[i],
                    on_click=answer, args=(reader, i)
                )  # fmt: skip
    if leads:
        class_view.votes(reader, question, open_)
    if not open_:
        told = f"{verdict(reader, question)}<p>{shown_html(question.reveal)}</p>"
        st.html(f'<div class="lsn"><div class="lsn-reveal" role="status">{told}</div></div>')


def verdict(reader: Reader, question: Question) -> str:
    """What was said, held against what the run did."""
    chosen = reader.answers.get(reader.at)
    if chosen is None or chosen >= len(question.options):
        return ""
    if chosen == question.right:
        return f"<p><b>✓ As you said: {shown_html(question.options[chosen])}.</b></p>"
    return f"<p><b>You said {shown_html(question.options[chosen])}; it was {shown_html(question.options[question.right])}.</b></p>"


def ways(reader: Reader, all_: tuple[Lesson, ...], lesson: Lesson, open_: bool) -> None:
    """Back, on, and away."""
    at, card = reader.lesson or 0, reader.card
    last, end = card == len(lesson.cards) - 1, at == len(all_) - 1
    with st.container(horizontal=True, key="learn.ways"):
        before = (at, card - 1) if card else (at - 1, len(all_[at - 1].cards) - 1) if at else (None, 0)
        st.button("Back", key="learn.back", shortcut="Left", on_click=go, args=(reader, *before))
        if open_:
            key, kind = ("Right", "primary") if reader.projected else ("S", "secondary")
            st.button(
                "Show the answer" if reader.projected else "Skip the question", key="learn.skip", shortcut=key, type=kind,
                on_click=answer, args=(reader, None),
            )  # fmt: skip
        elif last and end:
            st.button("To the list of lessons", key="learn.end", shortcut="Right", type="primary", on_click=go, args=(reader, None))
        else:
            after = (at + 1, 0) if last else (at, card + 1)
            st.button(
                "Next lesson" if last else "Next", key="learn.next", shortcut="Right", type="primary", on_click=go,
                args=(reader, *after),
            )  # fmt: skip
        if not reader.projected:
            st.button("All lessons", key="learn.all", type="tertiary", on_click=go, args=(reader, None))
            st.button("For a projector", key="learn.project", type="tertiary", on_click=project, args=(reader,),
                      help="Large type, nothing else on the screen; arrow keys and 1 to 5.")  # fmt: skip
            printed(at, lesson)


def project(reader: Reader) -> None:
    """A callback: the same card in the view for a projector."""
    reader.projected = True
    write(reader)


def picture(reader: Reader, card: Card, open_: bool) -> None:
    """The stepper at the card's place, or a picture of its own."""
    found = runs()
    place, lights = card.seen(not open_)
    if card.show:
        trace = found[place.run]
        stepper(
            trace, cursor=(place.step, place.phase, place.node), key="learn_stepper", lights=lights, large=True, controls=False,
            show=card.show, keys=False,
        )  # fmt: skip
        st.caption(f"A recorded run of {tokens(trace):,} tokens, {len(trace.steps):,} calls.")
    elif card.picture == "texts":
        pictures.texts(found, open_)
    elif card.picture.startswith("draws"):
        pictures.draws(found, card, open_, reader.seed, reader.projected)
        if not open_:
            st.button("Draw again", key="learn.draw", shortcut="D", on_click=draw_again, args=(reader,), icon=":material/casino:")
    elif card.picture == "cost":
        pictures.cost(found)
    elif card.picture.startswith("methods:"):
        pictures.methods(found, card.picture.partition(":")[2], open_)
