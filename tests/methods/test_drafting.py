"""The drafts of the two methods with a draft model: what was drawn, from which q, in how many calls."""

from dataclasses import replace

import pytest
import torch

from decoding.methods import METHODS
from decoding.models.cache import TreeCache
from decoding.models.target import Target
from decoding.sample import Sampling
from tests.toys import GREEDY, markov, run_steps, tiny_target, tokens_of, total_variation, toy_family, with_draft

PROMPT = [7, 70, 170]
SHORT = {"speculative_sampling": {"length": 1}, "multi_candidate": {"shape": "2-1"}}
SAMPLINGS = [Sampling(1.0), Sampling(0.7, top_k=20, top_p=0.9)]


def draft_of(family, key: str, sampling: Sampling, seed: int = 0, tokens=PROMPT, **params):
    method = METHODS[key]
    drafter, _ = method.build(family, method.checked(params), sampling)
    drafter.begin(tokens, None)
    return drafter.propose(tokens, torch.Generator().manual_seed(seed))


def q_after(family, tokens, sampling: Sampling) -> torch.Tensor:
    """(vocab,) what the draft model says after `tokens`, from a fresh pass."""
    return sampling.probabilities(family.draft.extend(TreeCache(), tokens))[0]


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_chain_q_is_what_each_token_was_drawn_from(llama, sampling):
    draft = draft_of(llama, "speculative_sampling", sampling, length=6)
    assert draft.parents == (-1, 0, 1, 2, 3, 4) and draft.how == "sampled" and draft.calls == 6
    for i, token in enumerate(draft.tokens):
        assert total_variation(draft.q[i], q_after(llama, [*PROMPT, *draft.tokens[:i]], sampling)) < 1e-4
        assert draft.q[i, token] > 0


@pytest.mark.parametrize("replacement", [False, True])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_tree_q_is_what_each_token_was_drawn_from(llama, sampling, replacement):
    """Without replacement the elder siblings are zero and the rest is scaled up; with it all siblings share one q."""
    draft = draft_of(llama, "multi_candidate", sampling, shape="3-2-2-1", replacement=replacement)
    assert len(draft) == 3 + 6 + 12 + 12 and draft.calls == 4
    assert draft.how == ("sampled" if replacement else "sampled without replacement")
    for parent, children in draft.by_parent.items():
        tokens = [*PROMPT, *(draft.tokens[i] for i in draft.path_to(parent))]
        q = q_after(llama, tokens, sampling)
        for child in children:
            assert total_variation(draft.q[child], q) < 1e-4
            assert draft.q[child, draft.tokens[child]] > 0
            if not replacement:
                q[draft.tokens[child]] = 0
                q /= q.sum()


def test_siblings_without_replacement_are_distinct_even_beyond_the_support(llama):
    """Top-k 2 leaves two tokens; the third and later children go on over tokens not drawn yet."""
    draft = draft_of(llama, "multi_candidate", Sampling(1.0, top_k=2), shape="8-4-2")
    for children in draft.by_parent.values():
        assert len({draft.tokens[child] for child in children}) == len(children)
    assert not draft.q.isnan().any() and draft.q.sum(1).allclose(torch.ones(len(draft)), atol=1e-5)
    third = draft.q[draft.children(-1)[2]]
    assert (third > 0).sum() == third.numel() - 2 and third.max() == pytest.approx(1 / (third.numel() - 2))


def test_a_vocabulary_as_small_as_the_tree():
    """Four children of four tokens: all of them, always one accepted; eight are more than there are and still run."""
    family = toy_family(tiny_target(0, 4), tiny_target(2, 4))
    for shape in ("4-4-4", "4-2-2"):
        steps = run_steps(family, "multi_candidate", [0, 1], sampling=Sampling(1.0), shape=shape, max_tokens=40)
        assert all(len(step.tokens) > 1 for step in steps[:-1])
    for sampling in (Sampling(1.0), GREEDY):
        assert len(tokens_of(run_steps(family, "multi_candidate", [0, 1], sampling=sampling, shape="8-4-2"))) == 40


def test_greedy_trees_are_the_top_k(llama):
    draft = draft_of(llama, "multi_candidate", GREEDY, shape="4-2-2")
    assert draft.how == "deterministic" and draft.q is None
    for parent, children in draft.by_parent.items():
        q = q_after(llama, [*PROMPT, *(draft.tokens[i] for i in draft.path_to(parent))], Sampling())
        assert [draft.tokens[child] for child in children] == q.topk(len(children)).indices.tolist()


def test_greedy_chain_is_the_arg_max(llama):
    draft = draft_of(llama, "speculative_sampling", GREEDY, length=5)
    for i, token in enumerate(draft.tokens):
        assert token == int(q_after(llama, [*PROMPT, *draft.tokens[:i]], Sampling()).argmax())


@pytest.mark.parametrize("key", ["speculative_sampling", "multi_candidate"])
def test_drafts_follow_the_dice_they_are_handed(llama, key):
    drafts = [draft_of(llama, key, Sampling(1.0), seed=seed).tokens for seed in (0, 0, 1, 2)]
    assert drafts[0] == drafts[1] and len(set(drafts)) == 3


def test_first_children_are_distributed_as_q(llama):
    """The first token of 250 drafts against q: the elder sibling of a tree is an ordinary draw as well."""
    q = q_after(llama, PROMPT, Sampling(0.5))
    for key, params in SHORT.items():
        tokens = [draft_of(llama, key, Sampling(0.5), seed=seed, **params).tokens[0] for seed in range(250)]
        best = q.topk(5)
        for token, chance in zip(best.indices.tolist(), best.values.tolist(), strict=True):
            error = (chance * (1 - chance) / 250) ** 0.5
            assert abs(tokens.count(token) / 250 - chance) < 4 * error


def test_the_chain_stops_behind_an_end_of_text():
    cyclic = torch.eye(6).roll(1, 1).clamp(min=1e-9)
    target = markov(cyclic)
    ending = type(target)(target.model, target.vocab, target.context, frozenset({3}))
    draft = draft_of(toy_family(ending, ending), "speculative_sampling", GREEDY, tokens=[0], length=5)
    assert draft.tokens == (1, 2, 3)


class Counting(Target):
    """Notes how many rows every call reads."""

    def forward(self, cache, ids, positions, visible=None, **more):
        CALLS.append(len(ids))
        return super().forward(cache, ids, positions, visible, **more)


CALLS: list[int] = []


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_accepted_tokens_are_not_read_again(llama, noise):
    """The draft model reads one new token per call, two after a draft that was accepted in full, and nothing twice."""
    family = with_draft(llama, noise)
    draft = Counting(family.draft.model, family.draft.vocab, family.draft.context)
    CALLS.clear()
    steps = run_steps(replace(family, draft=draft), "speculative_sampling", PROMPT, sampling=Sampling(1.0), length=4)
    assert CALLS[0] == len(PROMPT) - 1 and set(CALLS[1:]) <= {1, 2}
    fully = sum(len(step.path) == len(step.nodes) for step in steps[:-1])
    assert CALLS[1:].count(2) == fully


@pytest.mark.parametrize("key, params", SHORT.items())
def test_alpha_measured_two_ways(llama, key, params):
    """The first child's acceptance rate equals the mean overlap of p and q where it was judged, within three errors."""
    judged, accepted, overlaps = 0, 0, []
    for seed in range(4):
        options = {"sampling": Sampling(1.0), "max_tokens": 120, "recorded": True, "seed": seed}
        for step in run_steps(llama, key, PROMPT, **options, **params):
            for row in (0, *(i + 1 for i in step.path)):
                eldest = next((node for node in step.nodes if node.parent == row - 1), None)
                if eldest is not None and eldest.verdict != "not judged":
                    judged += 1
                    accepted += eldest.verdict == "accepted"
                    overlaps.append(step.rows[row].overlap)
    alpha = sum(overlaps) / judged
    error = (sum(a * (1 - a) for a in overlaps)) ** 0.5 / judged
    assert judged > 150 and 0.1 < alpha < 0.95
    assert abs(accepted / judged - alpha) < 3 * error
