"""Jacobi and speculative Jacobi decoding: exact over several calls, since the window of one call is the draft of the next."""

import copy
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import product
from math import ceil, prod
from statistics import mean
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

import decoding.drafting.window
import viz.methods.jacobi as viz
from decoding.draft import Draft, TargetOutput
from decoding.drafting.window import AGAIN, Window
from decoding.loop import decode
from decoding.methods.jacobi import METHOD as JACOBI
from decoding.methods.jacobi import Jacobi
from decoding.methods.speculative_jacobi import METHOD as SPECULATIVE
from decoding.methods.speculative_jacobi import SpeculativeJacobi
from decoding.models.cache import TreeCache
from decoding.models.family import Family, load
from decoding.models.target import Target
from decoding.runs import recorded_pictures
from decoding.runs.run import Run
from decoding.sample import Sampling
from decoding.trace import Raster, Step, Trace
from decoding.training import images
from decoding.training.images import SET
from decoding.verify import Verification, match, recursive_rejection
from pages.parts.shared import address
from pages.parts.shared.settings import Settings
from tests.decoding.test_lossless_statistics import LIMIT, counted, expected, family, misfit
from tests.decoding.test_verify_exact import sides
from tests.pages.test_step import errors, press, state
from tests.pages.test_step import opened as page_opened
from tests.toys import VOCAB, greedy_text, markov, run_steps, tokens_of, toy_family
from tests.viz_samples import HOSTILE, TOKEN_BYTES, chain, node, small_tree, step_of, trace_of
from viz.tokens import full_name

EXACT = 1e-12
SAMPLINGS = {"T=0": Sampling(0), "T=0.7": Sampling(0.7), "T=1": Sampling(1.0), "top-p": Sampling(1.0, top_p=0.9)}
PROMPT = (7, 70, 170, 7, 70)
KEYS = ("jacobi", "speculative_jacobi")
FILLS = {"jacobi": ("repeat", "random"), "speculative_jacobi": ("repeat", "random", "sample")}
BOTH = [(key, fill) for key, fills in FILLS.items() for fill in fills]
IN_A_PICTURE = {
    "jacobi": (*FILLS["jacobi"], "above"),
    "speculative_jacobi": (*FILLS["speculative_jacobi"], "above", "sample above"),
}
PICTURES = [(key, fill) for key, fills in IN_A_PICTURE.items() for fill in fills]


# -- level 1: every draft and every side of every uniform, over all calls ----------------------------------------------------
#
# The model is a table of what follows every text. States with equal text and equal rows are taken together.


@pytest.fixture
def exact(monkeypatch):
    """All numbers in float64, and the window's draws taken from a list instead of uniforms."""
    script = Script()
    monkeypatch.setattr(decoding.drafting.window, "draw", script.draw)
    monkeypatch.setattr("decoding.methods.speculative_jacobi.draw", script.draw)
    monkeypatch.setattr("decoding.methods.jacobi.draw", script.draw)
    torch.set_default_dtype(torch.float64)
    yield script
    torch.set_default_dtype(torch.float32)


class Script:
    """Stands for `draw`: gives out the next tokens of a list, and multiplies up how likely that was."""

    def begin(self, tokens: tuple[int, ...]) -> None:
        self.left, self.weight = list(tokens), 1.0

    def draw(self, probs: Tensor, u: Tensor) -> Tensor:
        tokens, self.left = self.left[: len(probs)], self.left[len(probs) :]
        self.weight *= prod(row[token].item() for row, token in zip(probs, tokens, strict=True))
        return torch.tensor(tokens, dtype=torch.long)


@cache
def logits_after(text: tuple[int, ...], vocab: int) -> Tensor:
    """(vocab,) logits of a model that heeds every token of the text, most of all the last one."""
    seed = sum((token + 1) * 7**place for place, token in enumerate(text))
    return 1.5 * torch.randn(vocab, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def output_after(text: tuple[int, ...], draft: Draft, sampling: Sampling, vocab: int) -> TargetOutput:
    logits = torch.stack([logits_after(text + draft.tokens[:i], vocab) for i in range(len(draft) + 1)])
    return TargetOutput(logits, sampling.probabilities(logits))


def joint(sampling: Sampling, vocab: int, length: int) -> dict[tuple[int, ...], float]:
    """Every text behind the prompt (0,) -> its probability."""
    found = {}
    for text in product(range(vocab), repeat=length):
        rows = torch.stack([logits_after((0, *text[:i]), vocab) for i in range(length)])
        found[text] = prod(row[t].item() for row, t in zip(sampling.probabilities(rows), text, strict=True))
    return found


Outcomes = Iterator[tuple[float, Verification]]


def by_rejection(draft: Draft, output: TargetOutput) -> Outcomes:
    """Every side of every uniform, then every final token."""
    p = [output.probs[i, token] for i, token in enumerate(draft.tokens)]
    for weight, u in sides(draft, torch.stack(p)):
        verification = recursive_rejection(draft, output, u)
        for token, chance in enumerate(verification.residual[verification.row].tolist()):
            if chance:
                yield weight * chance, replace(verification, token=token)


def by_match(draft: Draft, output: TargetOutput) -> Outcomes:
    """The target's draw at every row, by a die in the middle of its stretch."""
    edges = torch.cat((torch.zeros(len(output.probs), 1), output.probs.cumsum(1)), 1)
    for sampled in product(range(output.probs.shape[1]), repeat=len(draft) + 1):
        if weight := prod(output.probs[row, token].item() for row, token in enumerate(sampled)):
            u = torch.stack([edges[row, token : token + 2].mean() for row, token in enumerate(sampled)])
            verification = match(draft, output, u)
            assert all(sampled[row] == token for row, token in verification.sampled.items())
            yield weight, verification


def emitted(script: Script, drafter: Window, outcomes, sampling: Sampling, vocab: int, length: int) -> dict:
    """Every text of `length` tokens behind the prompt (0,) -> the probability that the loop writes it."""
    states = {((0,), b""): (1.0, drafter)}
    done: dict[tuple[int, ...], float] = defaultdict(float)
    for size in range(1, length + 1):
        for key in [key for key in states if len(key[0]) == size]:
            weight, before = states.pop(key)
            for chance, text, after in successors(script, before, outcomes, key[0], sampling, vocab):
                if len(text) > length:
                    done[text[1 : length + 1]] += weight * chance
                else:
                    place = (text, fingerprint(after))
                    states[place] = (states.get(place, (0.0,))[0] + weight * chance, after)
    assert not states
    return done


def fingerprint(drafter: Window) -> bytes:
    """All that a drafter takes from one call to the next."""
    kept = [drafter.said.probs, drafter.last, drafter.written, getattr(drafter, "old", torch.zeros(0))]
    return b"|".join(part.numpy().tobytes() for part in kept)


def successors(script: Script, before: Window, outcomes, text, sampling: Sampling, vocab: int):
    """(probability, text, drafter) after one call, for everything that can happen in it."""
    for tokens in product(range(vocab), repeat=before.length):
        drafter = copy.copy(before)
        script.begin(tokens)
        draft = drafter.propose(text, torch.Generator())
        if not script.weight or any(script.left):  # what was never drawn is written down as zeros, or it would count twice
            continue
        sampled = script.weight
        output = output_after(text, draft, sampling, vocab)
        for chance, verification in outcomes(draft, output):
            after = copy.copy(drafter)
            after.observe(draft, output, verification)
            new = (*(draft.tokens[i] for i in verification.path), verification.token)
            yield sampled * chance, (*text, *new), after


def drafter_of(
    key: str, sampling: Sampling, vocab: int, window: int, kind: type[Window] | None = None, raster: Raster | None = None, **params
) -> Window:
    target = SimpleNamespace(vocab=vocab, device=torch.device("cpu"), context=100, ids=torch.tensor)
    values = {"jacobi": JACOBI, "speculative_jacobi": SPECULATIVE}[key].checked({"window": window} | params)
    return (kind or {"jacobi": Jacobi, "speculative_jacobi": SpeculativeJacobi}[key])(target, values, sampling, raster)


def distance(found: dict, wanted: dict) -> float:
    assert sum(found.values()) == pytest.approx(1)
    return 0.5 * sum(abs(found.get(text, 0.0) - p) for text, p in wanted.items())


@pytest.mark.parametrize("name", SAMPLINGS)
@pytest.mark.parametrize("fill", FILLS["speculative_jacobi"])
@pytest.mark.parametrize("certain, sizes", [(False, (3, 2, 3)), (False, (2, 3, 4)), (True, (2, 2, 3))])
def test_speculative_jacobi_writes_the_joint_distribution(exact, name, fill, certain, sizes):
    (vocab, window, length), sampling = sizes, SAMPLINGS[name]
    made = drafter_of("speculative_jacobi", sampling, vocab, window, fill=fill, certain=certain)
    found = emitted(exact, made, by_rejection, sampling, vocab, length)
    assert distance(found, joint(sampling, vocab, length)) < EXACT


@pytest.mark.parametrize("name", SAMPLINGS)
@pytest.mark.parametrize("fill", FILLS["jacobi"])
@pytest.mark.parametrize("guess", ["likeliest", "sampled"])
def test_jacobi_writes_the_joint_distribution(exact, name, fill, guess):
    sampling = SAMPLINGS[name]
    made = drafter_of("jacobi", sampling, 2, 2, fill=fill, guess=guess)
    assert distance(emitted(exact, made, by_match, sampling, 2, 4), joint(sampling, 2, 4)) < EXACT


def grid(colours: int, width: int, height: int, words: int = 1) -> Raster:
    """A picture that is asked for with so many words."""
    return Raster(width, height, tuple(f"#0000{colour:02x}" for colour in range(colours)), (("word",),) * words)


@pytest.mark.parametrize("name, certain", [("T=0.7", False), ("T=1", True)])
@pytest.mark.parametrize("fill", IN_A_PICTURE["speculative_jacobi"])
def test_pictures_of_two_by_two_follow_their_joint_distribution(exact, name, fill, certain):
    """The window reaches into the row below, where what is above is partly text and partly guessed."""
    made = drafter_of("speculative_jacobi", SAMPLINGS[name], 2, 3, raster=grid(2, 2, 2), fill=fill, certain=certain)
    wanted = joint(SAMPLINGS[name], 2, 4)
    assert distance(emitted(exact, made, by_rejection, SAMPLINGS[name], 2, 4), wanted) < EXACT


@pytest.mark.parametrize("guess", ["likeliest", "sampled"])
def test_pictures_by_plain_jacobi_follow_it_too(exact, guess):
    made = drafter_of("jacobi", Sampling(), 2, 3, raster=grid(2, 2, 2), fill="above", guess=guess)
    assert distance(emitted(exact, made, by_match, Sampling(), 2, 4), joint(Sampling(), 2, 4)) < EXACT


def test_eighty_one_texts(exact):
    """The enumerable model of the specification: three tokens, four places, and a window that lives through several calls."""
    made = drafter_of("speculative_jacobi", Sampling(), 3, 2, fill="random")
    wanted = joint(Sampling(), 3, 4)
    assert len(wanted) == 81
    assert distance(emitted(exact, made, by_rejection, Sampling(), 3, 4), wanted) < EXACT


# -- planted faults --------------------------------------------------------------------------------------------------------


def from_p(draft: Draft, output: TargetOutput) -> Outcomes:
    """The correction is drawn from p instead of the residual."""
    p = torch.stack([output.probs[i, token] for i, token in enumerate(draft.tokens)])
    for weight, u in sides(draft, p):
        verification = recursive_rejection(draft, output, u)
        for token, chance in enumerate(output.probs[verification.row].tolist()):
            yield weight * chance, replace(verification, token=token)


class Stale(SpeculativeJacobi):
    """Keeps the guesses it had and judges them with the rows of the latest call."""

    old = torch.zeros(0, dtype=torch.long)

    def guess(self, rows, uniforms):
        count = len(self.old)
        return torch.cat((self.old, super().guess(rows[count:], uniforms[count:])))

    def observe(self, draft, output, verification):
        super().observe(draft, output, verification)
        self.old = torch.tensor(draft.tokens[len(verification.path) + 1 :], dtype=torch.long)


class Pretending(SpeculativeJacobi):
    """Says that what it repeated had been drawn, from a uniform row."""

    def draft(self, guesses, rows, draft_probabilities, known):
        rows[known:] = 1 / rows.shape[1]
        return super().draft(guesses, rows, draft_probabilities, known)


class Sharper(SpeculativeJacobi):
    """Draws its guesses at another temperature than the rows it keeps."""

    def guess(self, rows, uniforms):
        return super().guess(rows**2 / (rows**2).sum(-1, keepdim=True), uniforms)


class Late(SpeculativeJacobi):
    """Takes every row for that of the place behind it. Exact all the same, but no guess is where it belongs."""

    def observe(self, draft, output, verification):
        rows = output.probs.roll(1, 0)
        super().observe(draft, TargetOutput(rows.log(), rows), verification)


@pytest.mark.parametrize(
    "kind, outcomes",
    [(SpeculativeJacobi, from_p), (Stale, by_rejection), (Pretending, by_rejection), (Sharper, by_rejection)],
)
def test_faults_miss_the_target_by_far(exact, kind, outcomes):
    made = drafter_of("speculative_jacobi", Sampling(), 3, 2, kind, fill="repeat")
    assert distance(emitted(exact, made, outcomes, Sampling(), 3, 3), joint(Sampling(), 3, 3)) > 0.02


AS_IT_IS, FROM_P, STALE = (SpeculativeJacobi, by_rejection, True), (SpeculativeJacobi, from_p, False), (Stale, by_rejection, False)


@pytest.mark.parametrize(
    "kind, outcomes, right, fill",
    [
        *((*AS_IT_IS, fill) for fill in IN_A_PICTURE["speculative_jacobi"]),
        *((*fault, fill) for fault in (FROM_P, STALE) for fill in ("repeat", "above")),
    ],
)
def test_chi_square_of_eighty_one_pictures(exact, fill, kind, outcomes, right):
    """What 120,000 draws would show, computed instead of drawn: chi-square beyond its 80 degrees of freedom is the number of draws
    times the squared distance. The specification lets 150 pass in all, and expects both wrong rules beyond 5,000."""
    made = drafter_of("speculative_jacobi", Sampling(), 3, 2, kind, raster=grid(3, 2, 2), fill=fill)
    wanted, found = joint(Sampling(), 3, 4), emitted(exact, made, outcomes, Sampling(), 3, 4)
    assert len(wanted) == 81
    beyond = 120_000 * sum((found.get(text, 0.0) - p) ** 2 / p for text, p in wanted.items())
    assert beyond < 1e-6 if right else beyond > 5_000


def test_rows_that_are_one_place_off_are_exact_too(exact):
    """So losslessness cannot find them; `test_a_model_that_heeds_only_the_place` does."""
    made = drafter_of("speculative_jacobi", Sampling(), 3, 2, Late)
    assert distance(emitted(exact, made, by_rejection, Sampling(), 3, 3), joint(Sampling(), 3, 3)) < EXACT


# -- level 2: the real loop on a real model ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key, sampling, params",
    [
        ("speculative_jacobi", Sampling(), {"fill": "random"}),
        ("speculative_jacobi", Sampling(0.7, top_p=0.9), {"fill": "sample"}),
        ("speculative_jacobi", Sampling(0.7), {"fill": "random", "certain": True}),
        ("jacobi", Sampling(), {"guess": "sampled", "fill": "random"}),
    ],
)
def test_three_tokens_follow_the_target(key, sampling, params):
    assert misfit(counted(key, sampling, window=2, **params), expected(sampling)) < LIMIT


@pytest.mark.parametrize("fill", ["above", "sample above"])
def test_three_pixels_follow_the_target(fill):
    """The same on a target whose tokens are the pixels of a picture, two in a row, behind the six words of the prompt."""
    of = replace(family(), raster=grid(4, 2, 2, words=6))
    assert misfit(counted("speculative_jacobi", Sampling(), of=of, window=2, fill=fill), expected(Sampling())) < LIMIT


def with_correction_from_p(drafter, accept):
    def rule(draft, output, u):
        verification = accept(draft, output, u)
        cumulative = output.probs[verification.row].double().cumsum(0)
        return replace(verification, token=int(torch.searchsorted(cumulative, u[-1].double() * cumulative[-1], right=True)))

    return drafter, rule


def changed_to(kind: type[Window]):
    def change(drafter, accept):
        drafter.__class__ = kind
        return drafter, accept

    return change


@pytest.mark.parametrize(
    "fault", [with_correction_from_p, changed_to(Stale), changed_to(Pretending)], ids=["from p", "stale", "pretending"]
)
def test_faults_are_noticed_in_the_loop(fault):
    assert misfit(counted("speculative_jacobi", Sampling(), fault, window=2, fill="repeat"), expected(Sampling())) > LIMIT


# -- temperature 0 -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def text(llama) -> list[int]:
    return greedy_text(llama.target, PROMPT, 48)


@pytest.mark.parametrize("window", [1, 4, 16, 32])
@pytest.mark.parametrize("key, fill", BOTH)
def test_greedy_text_whatever_the_window(llama, text, key, fill, window):
    steps = run_steps(llama, key, PROMPT, max_tokens=48, window=window, fill=fill)
    assert tokens_of(steps) == text
    assert ceil(48 / (window + 1)) <= len(steps) <= 48


def iterated(target: Target, prompt, window: int, count: int) -> list[list[int]]:
    """Windows of greedy Jacobi, every answer from a fresh pass over its own prefix: one list per call until `count` tokens."""
    tokens, guesses, windows = list(prompt), [prompt[-1]] * window, []
    while len(tokens) - len(prompt) < count:
        windows.append(guesses)
        answers = [int(target.extend(TreeCache(), tokens + guesses[:i]).argmax()) for i in range(window + 1)]
        right = next((i for i in range(window) if guesses[i] != answers[i]), window)
        tokens += answers[: right + 1]
        left = answers[right + 1 :]
        guesses = left + [(left or tokens)[-1]] * (window - len(left))
    return windows


@pytest.mark.parametrize("key", KEYS)
def test_the_windows_are_those_of_the_iteration(llama, key):
    steps = run_steps(llama, key, PROMPT, max_tokens=24, window=5, fill="repeat")
    assert [[node.token for node in step.nodes] for step in steps] == iterated(llama.target, PROMPT, 5, 24)


# -- limiting cases ------------------------------------------------------------------------------------------------------------


class Positional(torch.nn.Module):
    """A model that heeds the place and no token."""

    dtype = torch.float32
    device = torch.device("cpu")

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits  # (places, vocab)

    def forward(self, input_ids, position_ids, attention_mask, past_key_values, use_cache):
        rows = torch.zeros(1, 1, input_ids.shape[1], 1)
        past_key_values.update(rows, rows, 0)
        return SimpleNamespace(logits=self.logits[position_ids])


def positional(vocab: int = 12, places: int = 200) -> Target:
    logits = 2 * torch.randn(places, vocab, generator=torch.Generator().manual_seed(0))
    return Target(Positional(logits), vocab, places)


def verdicts(steps: list[Step]) -> set[str]:
    """Of all guesses that the target itself made one call before."""
    return {node.verdict for step in steps for node in step.nodes if node.source == AGAIN}


@pytest.mark.parametrize("key", KEYS)
def test_a_model_that_heeds_only_the_place(key):
    """Guesses read on a wrong context are right all the same: a wrong window, then a whole one, and so on."""
    steps = run_steps(toy_family(positional()), key, [0], max_tokens=60, window=5)
    assert verdicts(steps[:-1]) == {"accepted"} and "rejected" not in verdicts(steps)  # behind the end nothing is judged
    assert len(steps) < 60 / 3


@pytest.mark.parametrize("name", ["T=0.7", "T=1", "top-p"])
@pytest.mark.parametrize("kind, rejects", [(SpeculativeJacobi, False), (Late, True)])
def test_a_model_that_heeds_only_the_place_accepts_all_it_drew(name, kind, rejects):
    """The row of a guess is then the row it is judged by: the ratio is 1 exactly, unless rows are one place off."""
    target, sampling = positional(), SAMPLINGS[name]
    drafter, rng = kind(target, SPECULATIVE.checked({"window": 5}), sampling), torch.Generator().manual_seed(0)
    steps = list(decode(target, drafter, recursive_rejection, [0], sampling=sampling, rng=rng, max_tokens=120))
    assert ("rejected" in verdicts(steps)) == rejects


@pytest.mark.parametrize("key, fill", BOTH)
def test_a_text_of_one_token(key, fill):
    """Repeated tokens are right at once; random ones after one call, and the window is full from then on."""
    table = torch.full((6, 6), 1e-9)
    table[:, 3] = 1
    steps = run_steps(toy_family(markov(table)), key, [3], max_tokens=54, window=8, fill=fill)
    counts = [len(step.tokens) for step in steps]
    assert counts == [9] * 6 if fill == "repeat" else len(counts) < 20


def test_without_a_window_it_is_plain_decoding(llama):
    """Draw for draw: nothing is drafted, and no die is used for it."""
    drafter = SpeculativeJacobi(llama.target, SPECULATIVE.params(window=0), Sampling())
    options = {"sampling": Sampling(), "max_tokens": 30}
    rng = torch.Generator().manual_seed(0)
    steps = decode(llama.target, drafter, recursive_rejection, PROMPT, rng=rng, **options)
    assert tokens_of(list(steps)) == tokens_of(run_steps(llama, "plain", PROMPT, **options))


def test_uniform_rows_for_random_guesses_save_calls():
    near = torch.full((4, 4), 0.25) + 0.02 * torch.eye(4)
    family = toy_family(markov(near / near.sum(1, keepdim=True)))
    options = {"sampling": Sampling(), "max_tokens": 400, "window": 4, "fill": "random"}
    soft, certain = (len(run_steps(family, "speculative_jacobi", [0], certain=c, **options)) for c in (False, True))
    assert soft < 0.9 * certain


def test_plain_jacobi_stalls_under_sampling_and_the_speculative_one_does_not():
    rows = torch.rand(1, 24, generator=torch.Generator().manual_seed(0)).add(0.2)
    family = toy_family(markov((rows / rows.sum()).expand(24, -1)))
    options = {"sampling": Sampling(), "max_tokens": 300}
    stalled = len(run_steps(family, "jacobi", [0], guess="sampled", **options))
    assert stalled > 270 and len(run_steps(family, "speculative_jacobi", [0], **options)) < 0.5 * stalled


# -- what a guess carries --------------------------------------------------------------------------------------------------------


def watched(family, key: str, sampling: Sampling, **params):
    """(text length, draft, output, verification) of every call of a run."""
    method, seen, length = (JACOBI if key == "jacobi" else SPECULATIVE), [], len(PROMPT)
    drafter, accept = method.build(family, method.checked(params), sampling)

    def spy(draft, output, u):
        seen.append((draft, output, accept(draft, output, u)))
        return seen[-1][2]

    rng, calls = torch.Generator().manual_seed(0), []
    for step in decode(family.target, drafter, spy, PROMPT, sampling=sampling, rng=rng, max_tokens=40):
        calls.append((length, *seen.pop()))
        length += len(step.tokens)
    return calls


@pytest.mark.parametrize("name", SAMPLINGS)
def test_every_guess_carries_the_row_it_was_drawn_from(llama, name):
    calls = watched(llama, "speculative_jacobi", SAMPLINGS[name], window=6, fill="repeat")
    seen = 0
    for (before, _, said, _), (length, draft, _, _) in zip(calls, calls[1:], strict=False):
        for i, source in enumerate(draft.source):
            place = length + i - before
            assert (source == AGAIN) == (place < len(said.probs))
            if source == AGAIN:
                assert torch.equal(draft.q[i], said.probs[place])
                seen += 1
            else:
                assert draft.q[i, draft.tokens[i]] == 1
    assert seen > 50


@pytest.mark.parametrize("key", KEYS)
def test_a_guess_knows_how_many_calls_its_place_has_been_through(llama, key):
    calls = watched(llama, key, Sampling(), window=6)
    for number, (length, draft, _, _) in enumerate(calls):
        for i, age in enumerate(draft.scores["calls before"].tolist()):
            assert age == sum(length + i <= before + len(other) for before, other, _, _ in calls[:number])


@pytest.mark.parametrize("key, fill", BOTH)
def test_new_places_are_filled_as_they_should(llama, key, fill):
    freed = 6
    for _, draft, _, verification in watched(llama, key, Sampling(), window=6, fill=fill):
        new = range(6 - freed, 6)
        assert [i for i, source in enumerate(draft.source) if source != AGAIN] == list(new)
        freed = len(verification.path)  # the row of the first wrong place is the correction's, the bonus row a guess more
        rows = draft.draft_probabilities if key == "jacobi" else draft.q
        for i in new[1:]:
            if fill == "repeat":
                assert draft.tokens[i] == draft.tokens[i - 1]
            elif fill == "random":
                assert torch.allclose(rows[i], torch.full((VOCAB,), 1 / VOCAB))
            else:
                assert torch.equal(rows[i], rows[i - 1])


def test_acceptance_is_the_overlap():
    """Over a few thousand guesses: the share that is accepted equals the mean of sum min(p, q), within three standard errors."""
    table = torch.rand(12, 12, generator=torch.Generator().manual_seed(3)) ** 2 + 0.02
    family = toy_family(markov(table / table.sum(1, keepdim=True)))
    accepted, overlaps = 0, []
    for step in run_steps(family, "speculative_jacobi", [0], sampling=Sampling(), max_tokens=1500, recorded=True, window=4):
        for guess in step.nodes:
            if guess.verdict != "not judged":
                accepted += guess.verdict == "accepted"
                overlaps.append(step.rows[guess.parent + 1].overlap)
    error = sum(a * (1 - a) for a in overlaps) ** 0.5
    assert len(overlaps) > 1000 and error > 10
    assert abs(accepted - sum(overlaps)) < 3 * error


@pytest.mark.parametrize("key", KEYS)
def test_the_window_is_capped_at_the_end_of_the_context(llama, key):
    target = replace(llama.target, context=len(PROMPT) + 10)
    sizes = [len(draft) for _, draft, _, _ in watched(replace(llama, target=target), key, Sampling(), window=8)]
    assert sizes[0] == 8 and sizes[-1] < 8


# -- on digits -------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits() -> Family:
    return load("digits", device="cpu")


def drawn(digits: Family, key: str, digit: int, seed: int = 0, sampling: Sampling | None = None, **params) -> list[Step]:
    """A whole picture."""
    options = {"sampling": sampling or Sampling(0), "seed": seed, "max_tokens": 64}
    return run_steps(digits, key, [8 + digit], **options, **params)


@pytest.fixture(scope="module")
def greedy_pictures(digits) -> dict[int, list[int]]:
    return {digit: tokens_of(drawn(digits, "plain", digit)) for digit in (0, 3)}


@pytest.mark.parametrize("window", [1, 4, 16, 32])
@pytest.mark.parametrize("key, fill", PICTURES)
def test_greedy_pictures_whatever_the_window(digits, greedy_pictures, key, fill, window):
    """The calls lie between what a full window could save and none at all."""
    for digit, picture in greedy_pictures.items():
        steps = drawn(digits, key, digit, window=window, fill=fill)
        assert tokens_of(steps) == picture
        assert ceil(64 / (window + 1)) <= len(steps) <= 64


@pytest.mark.parametrize("fill", ["above", "sample above"])
def test_new_places_are_filled_from_above(digits, fill):
    """Every new guess is the pixel one row up, of the picture or of the window, or drawn from the row that this one was drawn from;
    in the first row, which has none above it, the one to the left."""
    method, sampling = SPECULATIVE, Sampling(1.0)
    drafter, accept = method.build(digits, method.checked({"window": 12, "fill": fill}), sampling)
    rows: list[Tensor] = []  # of the pixels that are written, what they were drawn from
    text, looked = [11], 0

    def spy(draft: Draft, output: TargetOutput, u: Tensor) -> Verification:
        nonlocal looked
        done, verification = len(text) - 1, accept(draft, output, u)
        known = sum(source == AGAIN for source in draft.source)
        pixels, drawn_from = [*text[1:], *draft.tokens], [*rows, *draft.q]
        for i in range(known, len(draft)):
            above = next((place for place in range(done + i, -1, -8) if place < done + known), done + known - 1)
            if above < 0:  # nothing of the picture is there yet
                assert draft.q[i][:8].tolist() == [1 / 8] * 8
                continue
            wanted = torch.eye(19)[pixels[above]] if fill == "above" else drawn_from[above]
            assert torch.equal(draft.q[i], wanted)
            looked += 1
        written = [*(draft.tokens[node] for node in verification.path), verification.token]
        rows.extend(output.probs[: len(written)])
        text.extend(written)
        return verification

    rng = torch.Generator().manual_seed(0)
    for _ in decode(digits.target, drafter, spy, [11], sampling=sampling, rng=rng, max_tokens=64):
        pass
    assert looked > 30


FLOORS = {"random": 2.8, "repeat": 3.2, "above": 3.2}  # pixels per call


@pytest.fixture(scope="module")
def rates(digits):
    """fill -> pixels per call of twenty pictures."""
    return {
        fill: mean(
            64 / len(drawn(digits, "speculative_jacobi", seed % 10, seed, Sampling(1.0), window=16, fill=fill))
            for seed in range(20)
        )
        for fill in FLOORS
    }


@pytest.mark.parametrize("fill", FLOORS)
def test_pictures_appear_in_a_third_of_the_calls(rates, fill):
    assert rates[fill] > FLOORS[fill]


def test_from_above_is_better_than_at_random(rates):
    assert rates["above"] > rates["random"]


def test_pictures_are_as_likely_as_those_of_plain_decoding(digits):
    """Mean log-probability of a picture by plain decoding, many at once, and by speculative Jacobi; guesses that are kept with rows
    they were not drawn from are far off. It would not notice a correction that is drawn from p: the tests of level 1 do."""
    prompts = np.array([[8 + number % 10] for number in range(400)])
    plain = likelihoods(digits, prompts, images.drawn(digits.target.model, SET["digits"], prompts))

    def z(kind: type[SpeculativeJacobi], count: int) -> float:
        made = [picture_by(digits, kind, number) for number in range(count)]
        found = likelihoods(digits, prompts[:count], np.array(made))
        return float((found.mean() - plain.mean()) / (found.var() / count + plain.var() / len(plain)).sqrt())

    assert abs(z(SpeculativeJacobi, 40)) < 3.5
    assert z(Stale, 20) < -10


def picture_by(digits: Family, kind: type[SpeculativeJacobi], number: int) -> list[int]:
    drafter = kind(digits.target, SPECULATIVE.checked({"window": 16, "fill": "above"}), Sampling(1.0), digits.raster)
    options = {"sampling": Sampling(1.0), "rng": torch.Generator().manual_seed(number), "max_tokens": 64, "recorded": False}
    return tokens_of(list(decode(digits.target, drafter, recursive_rejection, [8 + number % 10], **options)))


def likelihoods(digits: Family, prompts: np.ndarray, pictures: np.ndarray) -> Tensor:
    """(n,) log-probability of every picture."""
    text = images.joined(prompts, pictures)
    with torch.inference_mode():
        logits = images.said(digits.target.model, SET["digits"], text)[..., :8]
    return logits.log_softmax(-1).gather(-1, text[:, 1:, None])[..., 0].sum(-1).double()


# -- the view --------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def traces(llama) -> dict[str, Trace]:
    made = {}
    for key, window in product(KEYS, (1, 8, 32)):
        run = Run(llama, key, {"window": window}, "the cat and the cat", Sampling(0.7), max_tokens=40)
        list(run)
        made[f"{key}, {window}"] = run.trace
    return made


def guessed(trace: Trace) -> list[dict[int, int]]:
    """For every call: place -> the token guessed there."""
    before, found = 0, []
    for step in trace.steps:
        found.append({before + i: guess.token for i, guess in enumerate(step.nodes)})
        before += len(step.tokens)
    return found


NAMES = [f"{key}, {window}" for key, window in product(KEYS, (1, 8, 32))]


@pytest.mark.parametrize("name", NAMES)
def test_the_grid_holds_what_happened(traces, name):
    """At every cursor; settled places hold the text, open ones the guesses and how they changed."""
    trace = traces[name]
    text, guesses = tokens_of(trace.steps), guessed(trace)
    origins = [origin for step in trace.steps for origin in step.origins]
    ends = [sum(len(step.tokens) for step in trace.steps[: call + 1]) for call in range(len(trace.steps))]
    for cursor in range(len(trace.steps)):
        grid = viz.grid_of(trace, cursor)
        assert grid.calls[-1] == cursor and len(grid.calls) <= viz.CALLS and 1 <= len(grid.places) <= viz.PLACES
        assert len({(cell.call, cell.place) for cell in grid.cells}) == len(grid.cells)
        for cell in grid.cells:
            start, end = ends[cell.call] - len(trace.steps[cell.call].tokens), ends[cell.call]
            now, before = guesses[cell.call], guesses[cell.call - 1] if cell.call else {}
            if cell.place < end:
                assert cell.token == text[cell.place]
                assert cell.state == ("text" if cell.place < start else origins[cell.place])
            else:
                assert cell.token == now[cell.place]
                was = before.get(cell.place)
                assert cell.state == ("new" if was is None else "same" if was == cell.token else "changed")
        sampled = {cell.place for cell in grid.cells if cell.call == cursor}
        assert sampled == set(grid.places)  # the last row has no holes
        assert grid.cut == max([ends[cursor], *(place + 1 for place in guesses[cursor])]) - grid.places.stop


def test_what_a_call_of_the_recorded_picture_settled_is_drawn():
    """From its sixth call on the places that were drawn lay before all that the call was about."""
    _, trace = recorded_pictures.read()
    done = 0
    for cursor, step in enumerate(trace.steps):
        drawn = {cell.place for cell in viz.grid_of(trace, cursor).cells if cell.call == cursor}
        assert {*range(done, done + min(len(step.tokens), viz.PLACES))} <= drawn
        done += len(step.tokens)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dark", [False, True])
def test_figure_and_table_hold_the_same_cells(traces, name, dark):
    trace = traces[name]
    cursor = len(trace.steps) // 2
    grid, figure, table = viz.grid_of(trace, cursor), viz.window_figure(trace, cursor, dark), viz.window_table(trace, cursor)
    labels = next(part for part in figure.data if part.name == "cells")
    assert list(zip(labels.x, labels.y, labels.customdata, strict=True)) == [(c.place, c.call, c.state) for c in grid.cells]
    assert [shape.line.dash for shape in figure.layout.shapes] == [viz.STATES[cell.state].dash for cell in grid.cells]
    for cell in grid.cells:
        shown = table.loc[table["call"] == cell.call + 1, str(cell.place + 1)].item()
        assert shown == f"{viz.STATES[cell.state].mark} {full_name(cell.token, trace.token_bytes)}"
    assert (table.drop(columns="call") != "").sum().sum() == len(grid.cells)
    entries = {part.name for part in figure.data if part.showlegend is not False}
    assert len(entries) == len({cell.state for cell in grid.cells})


def test_states_differ_by_more_than_colour():
    looks = viz.STATES.values()
    assert len({look.mark for look in looks}) == len(viz.STATES)
    assert {state for state, look in viz.STATES.items() if look.filled} == {"text", "accepted", "correction", "bonus", "plain"}
    assert len({viz.STATES[state].dash for state in ("same", "changed", "new")}) == 3


@pytest.mark.parametrize("name", NAMES)
def test_how_long_a_guess_stood(traces, name):
    trace, before = traces[name], 0
    guesses = guessed(trace)
    for call, step in enumerate(trace.steps):
        for i, token in enumerate(step.tokens[: len(step.path)]):
            held = [guesses[c].get(before + i) == token for c in range(call, -1, -1)]
            assert viz.stood(trace, call, i) == (held.index(False) if False in held else len(held))
        before += len(step.tokens)


def test_words():
    """Two calls by hand: one correction; then two guesses kept, one of them unchanged, and a correction."""
    one = step_of([node(1, -1, "rejected"), node(2, 0, "not judged"), node(3, 1, "not judged")], (), "correction", 0)
    two = step_of([node(2, -1), node(5, 0), node(6, 1, "rejected")], (0, 1), "correction", 4)
    trace = trace_of(one, two)
    assert viz.window_alt(trace, 0) == "Call 1 settled 1 place; of the guesses left open and drawn 2 new."
    assert viz.window_alt(trace, 1) == "Call 2 settled 3 places; no guess is left open."
    assert viz.pace_words(trace, 0) == "Calls so far: 1 settled 1 token. No guess was right yet."
    words = "Calls so far: 1 settled 1 token, 1 settled 3 tokens. 2 guesses right, standing for 1.5 calls on average when settled."
    assert viz.pace_words(trace, 1) == words
    assert [cell.state for cell in viz.grid_of(trace, 1).cells] == [
        *("correction", "new", "new"),
        *("text", "accepted", "accepted", "correction"),
    ]


def test_the_numbers_of_a_guess_are_found_by_the_mouse():
    step = step_of([node(1, -1, "rejected", scores={"calls before": 2.0}), node(2, 0, "not judged")], (), "correction", 0)
    hover = next(part for part in viz.window_figure(trace_of(step), 0).data if part.name == "cells").hovertext
    assert "the guess was ␣little" in hover[0] and "rejected" in hover[0] and "calls before: 2" in hover[0]
    assert "still open" in hover[1] and "drawn with q 0.50" in hover[1]


def test_what_a_trace_claims_is_escaped():
    nodes = [node(token, i - 1, "not judged" if i else "rejected") for i, token in enumerate(HOSTILE)]
    figure = viz.window_figure(trace_of(step_of(nodes, (), "correction", 100), token_bytes=HOSTILE), 0)
    assert "<script" not in figure.to_json().replace("\\u003c", "<")


@pytest.mark.parametrize("step", [step_of(), chain(0), chain(5), small_tree()])
def test_any_trace_is_drawn(step):
    """An uploaded trace may call itself Jacobi and hold trees, or nothing."""
    trace = trace_of(step, small_tree(), step)
    for cursor in range(3):
        assert viz.window_figure(trace, cursor).data and viz.window_alt(trace, cursor) and viz.pace_words(trace, cursor)
        assert len(viz.window_table(trace, cursor)) == len(viz.grid_of(trace, cursor).calls)
    assert full_name(99999, TOKEN_BYTES) == "#99999"


@pytest.mark.parametrize("key", KEYS)
def test_the_step_page_draws_the_view(key):
    settings = Settings(prompt="Once upon a time", method=key, params={"window": 16}, temperature=0.7, max_tokens=12)
    at = press(page_opened(**address.parameters(settings, 1, None)), "run")
    assert not at.exception and not errors(at) and state(at).trace.header.method == key
    captions = " ".join(caption.value for caption in at.caption)
    assert "A row is a target call" in captions and "of the window to the right not drawn" in captions
    assert all(chart.proto.alt for chart in at.get("plotly_chart"))
