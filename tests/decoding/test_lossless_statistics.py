"""The real loop on real models: the first three tokens of many runs against their exact joint distribution.

Everything is seeded, so a test passes always or never. Rules that are wrong on purpose must miss the same limit, which
shows that so many runs suffice to notice them.
"""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from itertools import product

import pytest
import torch
from torch import Generator, Tensor, nn

from decoding.draft import Draft, TargetOutput
from decoding.loop import decode
from decoding.method import Drafter
from decoding.methods import METHODS
from decoding.methods.byte_drafting import ByteTokens
from decoding.models.draft_tokens import OtherDraft, in_target_ids, pieces
from decoding.models.family import Family
from decoding.models.requirements import AnyDraftModel, DraftModel
from decoding.models.target import Target
from decoding.retrieval.datastore import Datastore
from decoding.sample import Sampling, draw
from decoding.trace import Step
from decoding.verify import Accept, Verification, recursive_rejection
from tests.toys import letters, probabilities_after, tiny_target, total_variation, toy_family

RUNS = 500
VOCAB, LENGTH = 4, 3
PROMPT = (0, 1, 2, 3, 0, 1)  # it repeats itself, so that prompt lookup has something to copy
LIMIT = 3.5  # standard deviations of chi-square; correct methods stay below 2, the faults lie above 4.5
SHORT = {  # drafts of a size that three tokens can use
    "speculative_sampling": {"length": 2},
    "universal_assisted": {"length": 2},
    "byte_drafting": {"length": 3},
    "multi_candidate": {"shape": "2-1"},
    "dyspec": {"nodes": 3},
    "token_recycling": {"nodes": 12},
    "spectr": {"sequences": 2, "length": 2},
    "jacobi": {"window": 2},
    "speculative_jacobi": {"window": 2},
    "rest": {"shortest": 1, "nodes": 5},
    "infinigram": {"shortest": 1, "threshold": 0.0, "length": 2},
    "rasd": {"shortest": 1, "drafted": 3, "retrieved": 3},
    "s2d": {"length": 2, "first": 0.51},
    "medusa": {"nodes": 5, "heads": 2},
    "eagle": {"nodes": 5, "fan_out": 2, "expansions": 2},
    "kangaroo": {"length": 3, "threshold": 0.2},
    "ppd": {"budget": "16"},
    "clover": {"nodes": 5, "heads": 2},
    "chimera": {"nodes": 5, "heads": 2},
    "ftp": {"nodes": 5, "depth": 2, "fan_out": 2},
    "sentence_vae": {"nodes": 5, "depth": 2, "fan_out": 2},
    "falcon": {"nodes": 5, "passes": 1, "fan_out": 2},
    "specdec_pp": {"threshold": 0.55, "shortest": 1, "length": 4},
}
LOSSLESS = [key for key, method in METHODS.items() if method.is_lossless]
CUT = Sampling(0.7, top_p=0.9)  # of the two the one at which a q that was not processed like p shows
SETTINGS = (Sampling(1.0), CUT)
# A method meets the temperature in `Sampling.probabilities` alone, so at T = 1, where no text is impossible, one method is asked
# for every rule, every way in which nodes come about, and every way in which a draft is read.
AT_ONE = (
    "plain", "speculative_sampling", "multi_candidate", "dyspec", "spectr", "prompt_lookup", "speculative_jacobi", "byte_drafting",
    "medusa", "kangaroo", "ppd",
)  # fmt: skip
CASES = [*((key, CUT) for key in LOSSLESS), *((key, Sampling(1.0)) for key in AT_ONE)]
TEXTS = torch.tensor(list(product(range(VOCAB), repeat=LENGTH)))


@cache
def family() -> Family:
    """Two llamas that disagree."""
    return toy_family(tiny_target(0, VOCAB), tiny_target(2, VOCAB))


@cache
def family_of_letters() -> Family:
    """The same with a text for every token, and a draft model that writes the same letters under other numbers."""
    other = OtherDraft(tiny_target(2, VOCAB), letters("dcab", byte_level=True))
    return replace(family(), tokenizer=letters("abcd", byte_level=True), draft=None, other_draft=other)


@cache
def family_with_other_ids() -> Family:
    """The same with a draft model that has another token in place of one of the target's, and one more behind them."""
    whole = replace(family(), tokenizer=letters("abcd"))
    draft, words = tiny_target(2, VOCAB + 1), letters("abxdy")
    found = in_target_ids(whole.target, pieces(whole.tokenizer), draft, pieces(words), words)
    return replace(whole, draft=found)


def family_for(key: str) -> Family:
    method = METHODS[key]
    return family_of_letters() if method.requires(AnyDraftModel) or method.requires(ByteTokens) else family()


@cache
def expected(sampling: Sampling) -> Tensor:
    """(vocab ** length,) probability of every text."""
    return probabilities_after(family().target, PROMPT, TEXTS, sampling)


Change = Callable[[Drafter, Accept], tuple[Drafter, Accept]]
Steps = Callable[[Generator, Change], Iterator[Step]]  # (rng, what is changed of drafter and rule) -> the steps of one run
Text = tuple[int, ...]


def counted(key: str, sampling: Sampling, change: Change | None = None, of: Family | None = None, **params) -> Tensor:
    """(vocab ** length,) how often every text was written by the runs of RUNS seeds."""
    method, whole = METHODS[key], of or family_for(key)
    built, accept = method.build(whole, method.checked(SHORT.get(key, {}) | params), sampling)

    def steps(rng: Generator, more: Change = unchanged) -> Iterator[Step]:
        drafter, rule = more(*(change or unchanged)(anew(built), accept))
        options = {"sampling": sampling, "rng": rng, "max_tokens": LENGTH, "recorded": False}
        return decode(whole.target, drafter, rule, PROMPT, **options)

    seeded = [Generator().manual_seed(seed) for seed in range(RUNS)]
    try:
        texts = together(steps, seeded)
    except Drew:
        texts = [written(steps(rng.manual_seed(seed))) for seed, rng in enumerate(seeded)]
    assert len(texts) == RUNS and {len(text) for text in texts} == {LENGTH}
    return torch.bincount(torch.tensor(texts) @ VOCAB ** torch.arange(LENGTH).flip(0), minlength=VOCAB**LENGTH).float()


def unchanged(drafter: Drafter, accept: Accept) -> tuple[Drafter, Accept]:
    return drafter, accept


def written(steps: Iterator[Step]) -> Text:
    return tuple(token for step in steps for token in step.tokens)


class Drew(Exception):
    """A drafter drew, so no two of its runs are the same."""


class Fork:
    """A run that many have in common, up to the first verdict that is not `known` yet: there their uniforms part them."""

    def __init__(self, known: list[Verification], runs: list[Generator]) -> None:
        self.known, self.left, self.runs = known, list(known), runs
        self.others: list[tuple[list[Verification], list[Generator]]] = []  # that go another way, and behind which verdicts

    def change(self, drafter: Drafter, accept: Accept) -> tuple[Drafter, Accept]:
        propose = drafter.propose

        def drawing_nothing(tokens, rng) -> Draft:
            before = rng.get_state()
            draft = propose(tokens, rng)
            if not torch.equal(rng.get_state(), before):
                raise Drew
            return draft

        def rule(draft: Draft, output: TargetOutput, u: Tensor) -> Verification:
            if self.left:
                return self.left.pop(0)
            ways: dict[tuple, tuple[Verification, list[Generator]]] = {}
            for rng in self.runs:
                verification = accept(draft, output, torch.rand(len(u), generator=rng))
                ways.setdefault((verification.path, verification.token), (verification, []))[1].append(rng)
            (mine, self.runs), *others = ways.values()
            self.others += [([*self.known, other], runs) for other, runs in others]
            self.known = [*self.known, mine]
            return mine

        drafter.propose = drawing_nothing
        return drafter, rule


def together(steps: Steps, seeded: list[Generator]) -> list[Text]:
    """What runs with these generators write, in some order. A drafter that draws nothing drafts the same behind the same verdicts,
    so runs that went one way until now are one run, and only their uniforms are those of each: it is as if each were made alone."""
    texts: list[Text] = []
    waiting: list[tuple[list[Verification], list[Generator]]] = [([], seeded)]
    while waiting:
        fork = Fork(*waiting.pop())
        text = written(steps(Generator(), fork.change))
        texts += [text] * len(fork.runs)
        waiting += fork.others
    return texts


def anew(drafter: Drafter) -> Drafter:
    """A drafter as it was built, with the same networks and stores: to open those takes longer than to write three tokens."""
    with pytest.MonkeyPatch.context() as patch:
        for network in (nn.Module, Target, Datastore):
            patch.setattr(network, "__deepcopy__", lambda self, memo: self, raising=False)
        return copy.deepcopy(drafter)


def misfit(counts: Tensor, p: Tensor) -> float:
    """Standard deviations by which chi-square exceeds its mean; cells that expect fewer than 5 are taken together."""
    if counts[p == 0].any():
        return math.inf  # a text that cannot be
    goal = p * counts.sum()
    rare = goal < 5
    seen = torch.cat((counts[~rare], counts[rare].sum()[None])).double()
    goal = torch.cat((goal[~rare], goal[rare].sum()[None])).clamp(min=1e-9)
    freedom = len(goal) - 1
    return (((seen - goal) ** 2 / goal).sum().item() - freedom) / math.sqrt(2 * freedom)


def test_the_texts_are_spread_out():
    """Enough cells to fill, and a draft model that is wrong often enough for a fault to show."""
    for sampling in SETTINGS:
        assert expected(sampling).sum().item() == pytest.approx(1)
        assert (expected(sampling) * RUNS >= 5).sum() >= 10
    drafted = probabilities_after(family().draft, PROMPT, TEXTS, Sampling())
    assert 0.3 < total_variation(drafted, expected(Sampling())) < 0.9


@pytest.mark.parametrize("key, sampling", CASES, ids=lambda value: value if isinstance(value, str) else f"T={value.temperature:g}")
def test_three_tokens_follow_the_target(key, sampling):
    assert misfit(counted(key, sampling), expected(sampling)) < LIMIT


def test_at_one_every_rule_is_asked():
    def rules(keys) -> set:
        return {METHODS[key].build(family_for(key), METHODS[key].checked(SHORT.get(key, {})), Sampling(1.0))[1] for key in keys}

    assert rules(AT_ONE) == rules(LOSSLESS)


DRAFTED = [key for key in LOSSLESS if METHODS[key].requires(DraftModel)]


@pytest.mark.parametrize("key", DRAFTED)
def test_a_draft_model_that_lacks_a_token_leaves_the_target_its_own(key):
    counts = counted(key, Sampling(1.0), of=family_with_other_ids())
    assert misfit(counts, expected(Sampling(1.0))) < LIMIT


def test_siblings_with_replacement_follow_the_target():
    counts = counted("multi_candidate", Sampling(), shape="2-1", replacement=True)
    assert misfit(counts, expected(Sampling())) < LIMIT


SAMPLED = {"tree": "sampled", "nodes": 7, "fan_out": 3}


@pytest.mark.parametrize("sampling", SETTINGS, ids=["T=1", "T=0.7, top-p=0.9"])
def test_a_tree_drawn_from_a_head_follows_the_target(sampling):
    assert misfit(counted("eagle", sampling, **SAMPLED), expected(sampling)) < LIMIT


# -- wrong on purpose --------------------------------------------------------------------------------------------------


def sampled(p: Tensor, u: Tensor) -> int:
    return int(draw(p[None], u[-1:]))


def always(drafter: Drafter, accept: Accept):
    """Accept whatever was drafted, as long as it is possible."""
    return drafter, lambda draft, output, u: accept(draft, output, u * (torch.arange(len(u)) == len(u) - 1))


def fresh(drafter: Drafter, accept: Accept):
    """Draw the correction from p instead of what is left of it."""

    def rule(draft, output, u):
        verification = accept(draft, output, u)
        return replace(verification, token=sampled(output.probs[verification.row], u))

    return drafter, rule


def row_before(drafter: Drafter, accept: Accept):
    """Draw the bonus from the row before."""

    def rule(draft, output, u):
        verification = accept(draft, output, u)
        if not verification.path or draft.children(verification.path[-1]):
            return verification
        return replace(verification, token=sampled(output.probs[verification.row - 1], u))

    return drafter, rule


class SameDice(Drafter):
    """Every step starts from the same state of the generator, as in an implementation that seeds inside the loop."""

    def __init__(self, drafter: Drafter) -> None:
        self.drafter, self.state = drafter, None
        self.reads_prompt, self.begin, self.observe = drafter.reads_prompt, drafter.begin, drafter.observe

    def propose(self, tokens, rng) -> Draft:
        self.state = rng.get_state() if self.state is None else self.state
        rng.set_state(self.state)
        return self.drafter.propose(tokens, rng)


def same_uniforms(drafter: Drafter, accept: Accept):
    return SameDice(drafter), accept


class Lying(Drafter):
    """Says a chosen draft had been drawn, from a uniform q."""

    def __init__(self, drafter: Drafter) -> None:
        self.drafter, self.aux_hidden_layers, self.reads_prompt_hidden = (
            drafter,
            drafter.aux_hidden_layers,
            drafter.reads_prompt_hidden,
        )
        self.reads_prompt, self.begin, self.observe = drafter.reads_prompt, drafter.begin, drafter.observe

    def propose(self, tokens, rng) -> Draft:
        draft = self.drafter.propose(tokens, rng)
        return replace(draft, q=torch.full((len(draft), VOCAB), 1 / VOCAB), how="sampled") if len(draft) else draft


def lying(drafter: Drafter, accept: Accept):
    return Lying(drafter), recursive_rejection


@pytest.mark.parametrize(
    "key, fault",
    [
        ("speculative_sampling", always),
        ("speculative_sampling", fresh),
        ("speculative_sampling", row_before),
        ("multi_candidate", fresh),
        ("plain", same_uniforms),
        ("multi_candidate", same_uniforms),
        ("prompt_lookup", fresh),
        ("prompt_lookup", lying),
        ("token_recycling", lying),
        ("eagle", lying),
    ],
)
def test_faults_are_noticed(key, fault):
    params = {"length": 1} if fault is row_before else SAMPLED if key == "eagle" else {}
    assert misfit(counted(key, Sampling(), fault, **params), expected(Sampling())) > LIMIT
