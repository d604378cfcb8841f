"""PAC prediction sets: the binomial, trees and what they admit, the exact programme against every subset, nesting, coverage."""

import json
import random
from itertools import product

import pytest

from decoding.lenses import pac_sets
from decoding.lenses.pac_sets import HOLES, SHIPPED, calibrations, fits
from decoding.looks.pac_sets import budget_for, failures, most_failures
from decoding.models.family import Family
from decoding.prediction_sets.calibration import BUDGETS, holds_up_to
from decoding.prediction_sets.pruning import as_flags, best_kept, nested
from decoding.prediction_sets.trees import Tree, admits, code_tree, costs, text_tree
from decoding.runs.lens_run import LensRun
from decoding.runs.run import Run
from decoding.sample import Sampling

LINES = (b"    x = f(a, 1) + g(b)[0]", b"for i, x in enumerate(rows, 1):", b"return not self.done and len(x) > 3", b"if x is None:")
TEXTS = (b"He ran, and fell; then he got up.", b"The fox said to the king that he was", b"No!")


def priced(tree: Tree, seed: int) -> list[float]:
    rng = random.Random(seed)
    return [round(rng.uniform(0, 3), 3) if label or not i else 0.0 for i, label in enumerate(tree.labels)]


def holes_of(tree: Tree, kept: tuple[bool, ...]) -> int:
    """Cut children of kept parents; of text neighbours are one."""
    if not kept[0]:
        return 1
    found = 0
    for node in range(len(tree)):
        before = True
        for child in tree.children[node] if kept[node] else ():
            found += not kept[child] and (before or not tree.runs)
            before = kept[child]
    return found


def every_best(tree: Tree, prices: list[float], budget: float, holes: int) -> int:
    """How many nodes can be kept, by trying every subset."""
    best = 0
    for kept in product((False, True), repeat=len(tree)):
        rooted = all(not kept[i] or tree.parents[i] < 0 or kept[tree.parents[i]] for i in range(len(tree)))
        fits = sum(p for p, k in zip(prices, kept, strict=True) if k) <= budget + 1e-9
        if rooted and fits and holes_of(tree, kept) <= holes:
            best = max(best, sum(kept))
    return best


@pytest.mark.parametrize("holes", (1, 2, 3))
@pytest.mark.parametrize("tree", (*map(text_tree, TEXTS[::2]), *map(code_tree, LINES[2:])), ids=lambda tree: tree.source.decode())
def test_the_programme_keeps_as_many_nodes_as_any_subset_can(tree, holes):
    assert len(tree) <= 14
    for seed in range(2):
        prices = priced(tree, seed)
        for budget in (0.0, 0.7, 2.0, 4.5, 100.0):
            kept = as_flags(best_kept(tree, prices, budget, holes), len(tree))
            assert sum(kept) == every_best(tree, prices, budget, holes), budget
            assert holes_of(tree, tuple(kept)) <= holes and sum(p for p, k in zip(prices, kept, strict=True) if k) <= budget + 1e-9


@pytest.mark.parametrize("tree", (*map(text_tree, TEXTS), *map(code_tree, LINES)), ids=lambda tree: tree.source.decode())
def test_sets_are_nested_and_all_is_kept_in_the_end(tree):
    for seed, holes in product(range(5), HOLES):
        sets = nested(tree, priced(tree, seed), BUDGETS, holes)
        assert all(small & large == small for small, large in zip(sets, sets[1:], strict=False))
        assert sets[-1] == (1 << len(tree)) - 1


def test_a_tree_admits_itself_and_whatever_fills_its_holes():
    tree = code_tree(b"x = f(a, 1)")
    flags = [tree.source[a:b] != b"1" for a, b in tree.spans]
    assert admits(tree, flags, tree) and admits(tree, flags, code_tree(b"x = f(a, g(2))"))
    for other in (b"y = f(a, 1)", b"x = f(a)", b"x = f(a, 1, 2)", b"x += f(a, 1)"):
        assert not admits(tree, flags, code_tree(other)), other
    text = text_tree(b"He ran, and fell.")
    flags = [text.source[a:b] not in (b"ran,", b"and") for a, b in text.spans]
    for other, inside in (
        (b"He fell.", True),
        (b"He went up and fell.", True),
        (b"He fell. Ouch", False),
        (b"She ran, and fell.", False),
    ):
        assert admits(text, flags, text_tree(other)) is inside, other
    assert admits(text, [False] * len(text), text_tree(b"Anything"))
    assert admits(text_tree(b"He ran", ended=False), [True] * 4, text_tree(b"He ran off."))


def test_every_token_is_paid_once_by_the_deepest_node_over_it():
    tree = code_tree(b"    x = f(a, 1)")
    prices = costs(tree, [(0, 5, 1.0), (5, 7, 0.5), (7, 10, 2.0), (10, 11, 0.25), (11, 12, 0.1), (12, 14, 4.0), (14, 15, 50.0)])
    paid = dict(zip((tree.source[a:b].strip() for a, b in tree.spans), prices, strict=True))
    assert paid == {b"x = f(a, 1)": 0.5, b"x": 1.0, b"f(a, 1)": 10.0, b"f": 2.0, b"a": 0.25, b"1": 4.0}


def test_a_line_that_is_no_python_is_kept_whole_or_not_at_all():
    for line in (b"else:", b"x = f(a,", b"import os; x = 1", b"", b"def"):
        assert len(code_tree(line)) == 1, line
    assert len(code_tree(b"x = f(a)", ended=False)) == 1


def test_the_binomial():
    """The worked numbers of the specification and its addendum."""
    assert [most_failures(200, e, 0.05) for e in (0.1, 0.2, 0.3)] == [12, 30, 48]
    assert [most_failures(300, e, 0.05) for e in (0.05, 0.1, 0.2, 0.3)] == [8, 21, 48, 76]
    assert most_failures(28, 0.1, 0.05) is None and most_failures(29, 0.1, 0.05) == 0
    assert most_failures(0, 0.1, 0.05) is None and most_failures(200, 0.0, 0.05) is None


def test_the_risk_goes_beyond_epsilon_in_fewer_calibrations_than_delta_says():
    """Twenty thousand calibrations on a continuous score; taking one failure too many must show."""
    rng = random.Random(0)

    def above(more: int) -> float:
        """With scores that are uniform, the risk of the chosen budget is the budget itself."""
        bad = 0
        for _ in range(4000):
            holds = sorted(rng.random() for _ in range(100))
            bad += holds[4 + more] > 0.1
        return bad / 4000

    assert above(0) < 0.05 < above(3)
    holds = [rng.random() for _ in range(100)]
    budget = budget_for(holds, 0.1, 0.05)
    assert budget is not None and failures(holds, budget) <= 4


def test_truths_of_other_drafts_leave_nothing_to_promise():
    """Shuffled truth: what holds is the hole alone."""
    trees = [text_tree(f"word{i} other{i} third{i}.".encode()) for i in range(60)]
    right = [holds_up_to(tree, [0.0, 0.0, 0.3, 0.3, 0.3], tree, 2) for tree in trees]
    pairs = zip(trees, trees[1:] + trees[:1], strict=True)
    wrong = [holds_up_to(tree, [0.0, 0.0, 0.3, 0.3, 0.3], other, 2) for tree, other in pairs]
    assert budget_for(right, 0.1, 0.05) == BUDGETS[-1]
    found = budget_for(wrong, 0.1, 0.05)
    assert found is not None and found < 0.3  # not one word


# -- what ships --------------------------------------------------------------------------------------------------------


def test_the_shipped_calibration_belongs_to_the_weights_and_keeps_its_promise(embedded):
    """Over random halves of both halves together, coverage stays at what is promised, on average; more failures than allowed break
    it."""
    assert SHIPPED.stat().st_size < 200_000
    shipped = json.loads(SHIPPED.read_text("utf-8"))
    assert set(shipped) == {embedded.name, "smollm2"}
    for name, kinds in shipped.items():
        for kind, known in kinds.items():
            assert name != embedded.name or fits(embedded, known["models"]), kind
            for halves in known["holds"].values():
                every = halves["calibration"] + halves["held out"]
                for epsilon in (0.1, 0.3):
                    assert mean_coverage(every, epsilon) >= 1 - epsilon, (name, kind)


def test_smollm2_is_promised_something_of_text(smollm2):
    """Its calibration belongs to its weights, and a look at a chat draws from it."""
    assert fits(smollm2, calibrations()["smollm2"]["text"]["models"])
    run = Run(smollm2, "plain", prompt=[{"role": "user", "content": "Hello"}], sampling=Sampling(0), seed=0, max_tokens=1)
    list(run)
    *_, look = LensRun(smollm2, "pac_sets", run.trace)
    assert budget_for(look.calibration, 0.2, look.delta) is not None and look.cuts and look.done
    with pytest.raises(ValueError, match="No code of the family smollm2 was calibrated on.* Its text is"):
        LensRun(smollm2, "pac_sets", run.trace, -1, None, {"kind": "code"})


def mean_coverage(every: list[float], epsilon: float) -> float:
    rng, found = random.Random(1), []
    for _ in range(60):
        mixed = rng.sample(every, len(every))
        half = len(mixed) // 2
        budget = budget_for(mixed[:half], epsilon, 0.05)
        assert budget is not None
        found.append(1 - failures(mixed[half:], budget) / half)
    return sum(found) / len(found)


def test_a_family_without_a_calibration_is_told_how_to_make_one(embedded):
    bare = Family("nobody", embedded.tokenizer, embedded.target, embedded.draft)
    run = Run(bare, "plain", prompt="Once upon a time", sampling=Sampling(0), seed=0, max_tokens=2)
    list(run)
    with pytest.raises(ValueError, match="No text of the family nobody .* python -m decoding.training pac_sets --family nobody"):
        LensRun(bare, "pac_sets", run.trace)
    assert {"text", "code"} <= calibrations()["embedded"].keys()


def test_a_calibration_of_other_weights_is_refused(embedded, monkeypatch):
    known = calibrations()["embedded"]["text"]
    run = Run(embedded, "plain", prompt="Once upon a time", sampling=Sampling(0), seed=0, max_tokens=2)
    list(run)
    target, draft = known["models"]
    other = {"shapes": draft["shapes"], "values": [draft["values"][0] + 0.5, *draft["values"][1:]]}
    for models in ([target, other], [draft, target], [target], []):
        damaged = {"embedded": {"text": {**known, "models": models}}}
        monkeypatch.setattr(pac_sets, "calibrations", lambda damaged=damaged: damaged)
        with pytest.raises(ValueError, match="calibrated with another target or draft model .* pac_sets --family embedded"):
            LensRun(embedded, "pac_sets", run.trace)


@pytest.mark.parametrize("kind", ("text", "code"))
def test_a_look_holds_the_draft_the_truth_and_rising_sets(embedded, kind):
    prompt = "Once upon a time there was a little" if kind == "text" else "def read(path):\n    with open(path) as"
    run = Run(embedded, "plain", prompt=prompt, sampling=Sampling(0), seed=0, max_tokens=24)
    list(run)
    *_, look = LensRun(embedded, "pac_sets", run.trace, -1, None, {"kind": kind})
    said = run.trace.text_bytes()
    if kind == "text":
        assert said.startswith(look.truth.encode())  # the target's own text, token for token
    else:
        assert said.split(b"\n")[0] == look.truth.encode() and look.source[: look.given] == b"    with open(path) as"
    assert len(look.parts) == len(look.cuts[-1].kept) and all(look.cuts[-1].kept)
    rises = [cut.kept for cut in look.cuts]
    assert all(a <= b for small, large in zip(rises, rises[1:], strict=False) for a, b in zip(small, large, strict=True))
    assert len(look.calibration) == len(look.held_out) >= 100 and look.drafted and look.rows_read > 0
