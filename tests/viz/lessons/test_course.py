"""The course against its runs: every place exists, every answer is what the run did, and no number or token is typed."""

import ast
import re
from pathlib import Path

import pytest

from decoding.runs import lesson_runs
from viz.lessons import lesson as lessons_module
from viz.lessons.costs import LANES, TASKS, alpha_of, calls_of, differences, lanes, ms_of, tau_of
from viz.lessons.course import MAKERS, NEEDED, course, minutes, timetable
from viz.lessons.draws import leftover, meets, variation
from viz.lessons.lesson import GUESS, JUDGE, MOST_OPTIONS, WRITE, Card, Place, Question, token, unmarked
from viz.lessons.lossless import bars
from viz.stepper.data import END, MARK

FOLDER = Path(lessons_module.__file__).parent
FILES = [FOLDER / f"{maker.__module__.rpartition('.')[2]}.py" for maker in MAKERS]
PARTS = {"sentence", "phases", "text", "tree", "bars", "table", "transport"}
LIGHTS = re.compile(r"sentence|phases|phase:[0-3]|text|tree|node:\d+|why|die|bars|calls|next|play")
ALLOWED = ("between 0 and 1", "max(")  # what a die is; nothing of a run
NUMERALS = {
    "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "half", "twice", "dozen", "hundred", "thousand", "million",
}  # fmt: skip
TYPED = {  # those that speak of no run: two models, two runs, four kinds of guessers, so many draws; options of questions
    "two", "three", "four", "ten", "thousand", "half", "twice",
}  # fmt: skip


@pytest.fixture(scope="module")
def runs():
    return {name: lesson_runs.read(name) for name in NEEDED}


@pytest.fixture(scope="module")
def all_(runs):
    return course(runs)


def cards(all_) -> list[Card]:
    return [card for lesson in all_ for card in lesson.cards]


def places(all_) -> list[tuple[Place, tuple[str, ...]]]:
    asked = [(card.question.after, card.question.lights) for card in cards(all_) if card.question]
    return [(card.place, card.lights) for card in cards(all_)] + asked


def test_there_are_seven_lessons_of_three_to_six_cards(all_):
    assert len(all_) == 7 and all(3 <= len(lesson.cards) <= 6 for lesson in all_)
    assert all(lesson.title and lesson.aim and any(card.question for card in lesson.cards) for lesson in all_)


def test_every_place_exists_and_what_is_lit_is_there(all_, runs):
    for place, lights in places(all_):
        step = runs[place.run].steps[place.step]
        assert GUESS <= place.phase <= WRITE and place.step >= 0
        assert place.node is None or -1 <= place.node <= len(step.nodes)
        for light in lights:
            assert LIGHTS.fullmatch(light), light
            assert not light.startswith("node:") or int(light[5:]) < len(step.nodes)


def test_what_is_lit_is_drawn(all_):
    needs = {"die": "bars", "bars": "bars", "tree": "tree", "text": "text", "node": "tree"}
    for card in cards(all_):
        assert set(card.show) <= PARTS and bool(card.show) != bool(card.picture)
        for light in (*card.lights, *(card.question.lights if card.question and card.show else ())):
            assert needs[light.partition(":")[0]] in card.show, (card.title, light)


def test_a_question_is_asked_before_its_answer_is_seen(all_, runs):
    """The verdicts are hidden until the phase Judge, and a question about verdicts stands before it."""
    for card in cards(all_):
        question = card.question
        if question is None:
            continue
        assert 2 <= len(question.options) <= MOST_OPTIONS and len(set(question.options)) == len(question.options)
        assert 0 <= question.right < len(question.options)
        if question.about in ("kept", "verdict", "sibling"):
            assert card.place.phase < JUDGE <= question.after.phase
            given = [option for option in question.options if option.isdigit() or question.about == "sibling"]
            assert not given or card.place.node == (-1 if question.about == "kept" else parent_of(card, runs)), (
                "the answer is marked"
            )
            assert (card.place.run, card.place.step) == (question.after.run, question.after.step)


def parent_of(card: Card, runs) -> int:
    after = card.question.after
    return runs[after.run].steps[after.step].nodes[after.node].parent


def found(question: Question, card: Card, runs) -> int:
    """The answer, counted anew from the run."""
    place = question.after
    trace = runs[place.run]
    step = trace.steps[place.step]
    options = question.options
    match question.about:
        case "kept":
            return options.index(str(sum(node.verdict == "accepted" for node in step.nodes) or "none"))
        case "verdict":
            node = step.nodes[place.node]
            assert (node.u * node.q < node.p) == (node.verdict == "accepted")
            return options.index("Kept" if node.u * node.q < node.p else "Refused")
        case "sibling":
            kept = [node for node in step.nodes if node.verdict == "accepted"]
            return next(i for i, option in enumerate(options) if option in {token(trace, node.token) for node in kept
                        if node.parent == step.nodes[place.node].parent})  # fmt: skip
        case "calls":
            assert sum(len(one.tokens) for one in trace.steps) == len(trace.steps)
            return options.index(str(len(trace.steps)))
        case "fewest":
            task = card.picture.partition(":")[2]
            counts = {end: len(runs[f"{task}_{end}"].steps) for end in ("copy", "small", "heads", "self")}
            return list(counts).index(min(counts, key=counts.__getitem__))
        case "differ":
            one, other = ([t for s in runs[name].steps for t in s.tokens] for name in ("greedy_plain", "greedy_small"))
            assert one == other
            return 0
        case "alpha":
            before, now = alpha_of(runs["speculative_sampling"]), alpha_of(trace)
            return 2 if now < before else 0
        case "measured":
            return 0 if ms_of(runs["speculative_sampling"]) < ms_of(runs["plain"]) else 2
    return other_answer(question, card, runs)


def other_answer(question: Question, card: Card, runs) -> int:
    match question.about:
        case "meets":
            shares = bars(runs)
            wrong = card.picture == "draws:both"
            ends = meets(shares.p, shares.q, shares.p if wrong else leftover(shares.p, shares.q))
            return 1 if variation(ends, shares.p) > 0.02 else 0
        case "pays":
            trace = runs["story"]
            tau = sum(len(one.tokens) for one in trace.steps) / len(trace.steps)
            calls = sum(one.draft_calls for one in trace.steps) / len(trace.steps)
            return 0 if tau / (1 + 0.5 * calls) > 1 else 2
        case "reading":
            return {"as long": 0, "about twice as long": 1}.get(question.options[question.right], 2)
        case "tau" if "the chain" in question.options:
            return int(tau_of(runs["multi_candidate"]) > tau_of(runs["speculative_sampling"]))
        case "tau":
            return [1.5, 2.5, 99].index(next(most for most in (1.5, 2.5, 99) if tau_of(runs[question.after.run]) < most))
    raise AssertionError(f"nobody counts the answers of questions about {question.about}")


def test_every_answer_is_what_the_run_did(all_, runs):
    for card in cards(all_):
        if card.question:
            assert found(card.question, card, runs) == card.question.right, card.title


def test_the_answer_to_the_reading_question_is_the_nearest_to_what_was_measured(all_, runs):
    from statistics import median

    question = next(card.question for card in cards(all_) if card.question and card.question.about == "reading")
    times = [median(step.times.read for step in runs[name].steps) for name in ("plain", "speculative_sampling")]
    ratio, places_ = times[1] / times[0], max(len(step.nodes) for step in runs["speculative_sampling"].steps) + 1
    assert question.right == min(range(3), key=lambda i: abs((1, 2, places_)[i] - ratio))


# -- nothing is typed -----------------------------------------------------------------------------------------------------------


def typed(source: str) -> list[str]:
    """The constant parts of texts that a lesson file holds, its docstrings left out."""
    tree = ast.parse(source)
    docs = {id(node.body[0].value) for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.FunctionDef) and node.body and isinstance(node.body[0], ast.Expr)}  # fmt: skip
    formats = {id(part) for node in ast.walk(tree) if isinstance(node, ast.FormattedValue) and node.format_spec
               for part in ast.walk(node.format_spec)}  # fmt: skip
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs | formats
    ]


def claims(text: str) -> set[str]:
    """What a typed text says in numbers: digits, and words of numbers that are not allowed for."""
    for allowed in ALLOWED:
        text = text.replace(allowed, "")
    words = {word for word in re.findall(r"[a-z]+", text.lower()) if word in NUMERALS - TYPED}
    return words | set(re.findall(r"(?<![c(] )\d[\d.,]*", text.replace("(1 + ", "("))) | set(re.findall("[\u202f%]", text))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_no_number_is_typed(file):
    assert not {text: said for text in typed(file.read_text("utf-8")) if (said := claims(text))}


@pytest.mark.parametrize("text", ["All 4 were kept.", "Kept with 59 %.", "Seven of them were kept."])
def test_a_typed_number_is_noticed(text):
    assert claims(text)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_tokens_are_taken_from_the_run(file):
    """No mark of a token is typed: they come from `token`, which has the trace."""
    assert not [text for text in typed(file.read_text("utf-8")) if MARK in text or END in text]


def test_every_token_that_a_card_names_occurs_in_its_run(all_, runs):
    for card in cards(all_):
        said = [card.words] + ([card.question.ask, card.question.reveal, *card.question.options] if card.question else [])
        known = {token(runs[card.place.run], id) for id in runs[card.place.run].token_bytes}
        named = {f"{MARK}{name}{END}" for text in said for name in re.findall(f"{MARK}([^{END}]*){END}", text)}
        missing = named - known
        assert all(any(name[1:-1].startswith(one[1:-1][:3]) for one in known) for name in missing), (card.title, missing)


# -- how it is ----------------------------------------------------------------------------------------------------------------


def test_words_are_short_and_letters_come_late(all_):
    """The first two lessons name neither p, q nor u; a card is read in two minutes."""
    for lesson in all_[:2]:
        for card in lesson.cards:
            assert not re.search(r"\b[pqu]\b", unmarked(card.words)), card.title
    assert all(lessons_module.seconds_of(card) < 150 for card in cards(all_))


def test_all_of_it_fits_into_a_lecture(all_):
    assert 25 <= minutes(all_) <= 45, timetable(all_)


def test_costs_fall_with_the_cost_and_nobody_is_faster_than_its_tau(runs):
    free, dear = lanes(runs, 0.0), lanes(runs, 1.0)
    assert [round(lane.value, 6) for lane in free] == sorted((round(tau_of(runs[run]), 6) for run in LANES.values()), reverse=True)
    cheaper = {lane.name: lane.value for lane in free}
    assert all(lane.value < cheaper[lane.name] for lane in dear)


def test_greedy_runs_of_one_question_write_one_text(runs):
    """So that their calls can be counted against each other."""
    for task in TASKS:
        names = [name for name in runs if name.startswith(f"{task}_")]
        assert len(names) == 5
        assert all(not differences(runs[names[0]], runs[name]) for name in names)
        assert {lane.name: lane.value for lane in calls_of(runs, task)}["alone"] == sum(
            len(step.tokens) for step in runs[f"{task}_plain"].steps
        )


def test_a_run_that_shows_nothing_is_refused_with_a_sentence(runs):
    broken = dict(runs) | {"story": runs["story_plain"]}
    with pytest.raises(LookupError, match="recorded run shows no"):
        course(broken)
