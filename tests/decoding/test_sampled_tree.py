"""Trees of fixed shape with drawn siblings: the shape, what every token was drawn from, and what the head was asked."""

import pytest
import torch

from decoding.drafting.dynamic_tree import READ
from decoding.drafting.sampled_tree import draw_tree, siblings, uniform
from decoding.sample import Sampling
from decoding.score_names import JOINT, OWN

VOCAB = 5
FIRST = torch.tensor([[0.4, 0.3, 0.15, 0.1, 0.05]]).log()
RAGGED = [[3], [2, 0, 1], [0, 1, 1]]  # the second child of the root is a leaf; of the third level the first node is one


def behind(token: int) -> torch.Tensor:
    """(vocab,) logits behind a token."""
    return torch.randn(VOCAB, generator=torch.Generator().manual_seed(token))


def grown(counts, seed: int = 0, sampling: Sampling | None = None, **more):
    """A tree, and what `extend` was asked."""
    asked = []

    def extend(tokens, parents):
        asked.append((tokens.tolist(), list(parents)))
        return torch.stack([behind(token) for token in tokens.tolist()])

    rng = torch.Generator().manual_seed(seed)
    return draw_tree(FIRST, extend, counts, sampling=sampling or Sampling(1.0), rng=rng, **more), asked


@pytest.mark.parametrize("seed", range(5))
def test_a_ragged_tree_has_the_children_it_should(seed):
    found, asked = grown(RAGGED, seed)
    tokens = found.tokens
    assert found.parents == [-1, -1, -1, 0, 0, 2, 4, 5]
    assert found[READ] == [0, -1, 1, -1, 2, 3, -1, -1], "leaves are not handed over"
    assert asked == [([tokens[0], tokens[2]], [-1, -1]), ([tokens[4], tokens[5]], [0, 1])]
    assert found.how == "sampled without replacement" and found.draft_probabilities is None


@pytest.mark.parametrize("replacement", [False, True])
@pytest.mark.parametrize("sampling", [Sampling(1.0), Sampling(0.5, top_k=4)])
def test_q_is_what_every_token_was_drawn_from(sampling, replacement):
    found, _ = grown(RAGGED, 3, sampling, replacement=replacement)
    draft = found.draft("test", calls=3, scores=found.tensors(JOINT))
    for parent, children in draft.by_parent.items():
        whole = sampling.probabilities(FIRST if parent < 0 else behind(draft.tokens[parent])[None])[0]
        q = whole.clone()
        for child in children:
            token = draft.tokens[child]
            assert torch.allclose(draft.q[child], q, atol=1e-6) and q[token] > 0
            assert found[OWN][child] == pytest.approx(whole[token].item(), rel=1e-5), "its elder siblings do not count"
            above = found[JOINT][parent] if parent >= 0 else 1.0
            assert found[JOINT][child] == pytest.approx(above * whole[token].item(), rel=1e-5)
            if not replacement:
                q[token] = 0
                q /= q.sum()
    assert draft.how == ("sampled" if replacement else "sampled without replacement") and draft.calls == 3


def test_a_used_up_q_goes_on_over_the_other_tokens():
    found, _ = grown([[4]], 1, Sampling(1.0, top_k=2))
    assert set(found.tokens[:2]) == {0, 1} and set(found.tokens[2:]) < {2, 3, 4}
    assert found.q[2].tolist() == pytest.approx([0, 0, 1 / 3, 1 / 3, 1 / 3]) and found[OWN][2:] == [0.0, 0.0]


def test_greedy_trees_are_chosen():
    found, _ = grown(RAGGED, sampling=Sampling(0))
    assert found.tokens[:3] == [0, 1, 2] and found.q is None and found.how == "deterministic"
    assert found.tokens[3:5] == behind(0).topk(2).indices.tolist() and found.tokens[5] == int(behind(2).argmax())
    assert found[OWN][:3] == pytest.approx([0.4, 0.3, 0.15]) and torch.allclose(found.draft_probabilities[0], FIRST.softmax(-1)[0])


def test_siblings_of_different_number_do_not_change_each_others_dice():
    """The first children of a row are the same whether its neighbour has one child or three."""
    q = FIRST.softmax(-1).repeat(2, 1)
    tokens = [siblings(q, widths, False, torch.Generator().manual_seed(7), False)[0].tolist() for widths in ((3, 3), (3, 1))]
    assert tokens[1] == tokens[0][:4]


def test_uniform_trees():
    assert uniform((2, 3, 1)) == [[2], [3, 3], [1] * 6] and uniform(()) == []
