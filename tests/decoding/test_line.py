"""`decoding/runs/line.py`: whose turn it is, and how many come before."""

import random
from dataclasses import dataclass, field

import pytest

from decoding.runs.line import BEHIND, Line, Owner


@dataclass(eq=False)
class Run:
    """One that wants turns, each of which takes so long."""

    owner: Owner
    cost: float = 1.0
    wanted: float = float("inf")
    expected: float = 0.0
    group: object = field(default_factory=object)


def at(key: str, network: str | None = None, shares: int | None = 4) -> Owner:
    return Owner(key, near=network or key, shares=shares)


def turn(line: Line, seconds: float | None = None) -> Run:
    """The next one has its turn."""
    line.begin(run := line.next())
    run.wanted -= 1
    if run.wanted > 0:
        line.enter(run)
    else:
        line.leave(run)
    line.end(run, run.cost if seconds is None else seconds)
    return run


@pytest.mark.parametrize("think", [0, 1, 5])
@pytest.mark.parametrize(("keys", "cost"), [(30, 0.6), (30, 0.05), (3, 10.0)])
def test_a_visitor_waits_for_one_step_of_a_network_however_many_keys_it_has(think, keys, cost):
    """They come back after a while each time, behind nobody's round."""
    line = Line()
    for number in range(keys):
        line.enter(Run(at(f"key {number}", "flood"), cost))
    for _ in range(keys):
        turn(line)
    visitor, waits = Run(at("visitor"), 0.05, 1), []
    for _ in range(20):
        visitor.wanted = 1
        line.enter(visitor)
        waits.append(0)
        while turn(line) is not visitor:
            waits[-1] += 1
        for _ in range(think):
            turn(line)
    assert max(waits) * cost <= cost + 4 * visitor.cost + 1e-9  # the network has four shares


def test_a_class_behind_one_address_has_more_than_a_visitor_and_its_pupils_the_same():
    line, pupils = Line(), [Run(at(f"pupil {number}", "school")) for number in range(30)]
    for run in [*pupils, other := Run(at("other"))]:
        line.enter(run)
    had = [turn(line) for _ in range(1000)]
    counts = [had.count(pupil) for pupil in pupils]
    assert had.count(other) == pytest.approx(200, abs=5) and max(counts) - min(counts) <= 1


@pytest.mark.parametrize(("schools", "each"), [(1, 4), (2, 4), (3, 3), (10, 1)])
def test_the_more_crowded_networks_there_are_the_fewer_shares_has_each(schools, each):
    """Ten of them, with four visitors each, had forty turns for one of a visitor's: a step waited for a minute."""
    line, other = Line(), Run(at("other"))
    pupils = [Run(at(f"pupil {school} {number}", f"school {school}")) for school in range(schools) for number in range(4)]
    for run in [*pupils, other]:
        line.enter(run)
    for _ in range(50):
        turn(line)
    had = [turn(line) for _ in range(1000)]
    assert had.count(other) == pytest.approx(1000 / (1 + schools * each), abs=5)
    assert max(map(had.count, pupils)) - min(map(had.count, pupils)) <= 5


@pytest.mark.parametrize("each", [1, 2])
def test_a_class_of_many_is_more_than_a_few_at_each_of_ten_addresses(each):
    """Twenty with large trees on a large model had a turn each before the pupils had theirs: 13 s, and as much again."""
    line = Line(lambda: 0.0)
    heavy = [Run(at(f"{there} {i}", f"{there}", 24), 0.7, expected=0.5) for there in range(10) for i in range(each)]
    for run in heavy:
        line.enter(run)
    turn(line)
    pupils, waited = [Run(at(f"pupil {i}", "school", 24), 0.04, 1, expected=0.04) for i in range(30)], 0.0
    for run in pupils:
        line.enter(run)
    while sum(run.wanted for run in pupils) > 3:  # the fewer are left, the less they are a class
        waited += turn(line).cost
    assert waited < 30 * 0.04 + 0.7


def test_who_is_likely_to_take_long_is_not_behind_others_for_ever():
    times = [0.0]
    line, long = Line(lambda: times[0]), Run(at("long"), expected=100.0)
    line.enter(long)
    for number in range(1000):
        line.enter(Run(at(f"short {number}"), 0.1, 1))
        if turn(line) is long:
            break
        times[0] += 0.1
    assert times[0] == pytest.approx(BEHIND, abs=0.2)


def test_without_shares_a_network_is_nothing():
    line = Line()
    runs = [Run(at(f"key {number}", "there", None)) for number in range(9)] + [Run(Owner("nowhere"))]
    for run in runs:
        line.enter(run)
    had = [turn(line) for _ in range(100)]
    assert {had.count(run) for run in runs} == {10}


@pytest.mark.parametrize("seed", range(20))
def test_the_place_is_about_the_number_of_turns_that_come_first(seed):
    """Steps of an owner take as long as before, those of one many times as long as another's; nobody comes or goes."""
    chance, line = random.Random(seed), Line()
    runs = []
    for network in range(chance.randint(1, 4)):
        for owner in range(chance.choice([1, 1, 2, 6])):
            cost, who = chance.choice([0.5, 1.0, 2.0, 7.0]), at(f"{network} {owner}", f"{network}")
            runs += [Run(who, cost) for _ in range(chance.randint(1, 2))]
    for run in runs:
        line.enter(run)
    for _ in range(chance.randint(3 * len(runs), 60)):
        turn(line)
    found = []
    for run in runs:
        told, came = line.place(run, None), 0
        while turn(line) is not run:
            came += 1
        found.append((told, came))
    assert all(abs(told - came) <= 3 + came // 2 for told, came in found), found
