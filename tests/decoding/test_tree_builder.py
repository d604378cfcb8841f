"""A draft while it is made; and the one mask of ancestors, against a walk from every node to the root."""

import pytest
import torch

from decoding.draft import Draft, ancestor_mask
from decoding.drafting.tree_builder import TreeBuilder
from decoding.sample import Sampling


def random_parents(nodes: int, seed: int) -> list[int]:
    rng = torch.Generator().manual_seed(seed)
    return [int(torch.randint(-1, i, (1,), generator=rng)) if i else -1 for i in range(nodes)]


def walked(parents: list[int]) -> list[list[bool]]:
    """What every row sees, from the root on, node by node."""
    sees = [{0}]
    for i, parent in enumerate(parents):
        sees.append(sees[parent + 1] | {i + 1})
    return [[column in row for column in range(len(sees))] for row in sees]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("nodes", [0, 1, 2, 7, 33])
def test_the_mask_at_once_and_in_parts(nodes, seed):
    """Any tree in any order; all rows in one call, node by node, and the second half behind the first."""
    parents = list(range(-1, nodes - 1)) if seed == 0 else random_parents(nodes, seed)
    wanted = walked(parents)
    assert Draft(tuple(parents), tuple(parents), source=("test",) * nodes).visible.tolist() == wanted
    above, seen = torch.tensor(parents, dtype=torch.long) + 1, None
    for i in range(nodes):
        seen = ancestor_mask(above[i : i + 1], seen)
    assert nodes == 0 or seen.tolist() == wanted
    first = ancestor_mask(above[: nodes // 2], levels=nodes)
    assert ancestor_mask(above[nodes // 2 :], first, levels=nodes).tolist() == wanted


def test_a_tree_knows_its_nodes():
    tree = TreeBuilder()
    assert tree["chance"] == [] and not len(tree) and tree.child(-1, 5) is None
    for token, parent, chance in ((5, -1, 0.5), (6, -1, 0.25), (5, 0, 0.125), (5, -1, 0.0)):
        tree.add(token, parent, chance=chance)
    assert tree.depths == [1, 1, 2, 1] and tree["chance"] == [0.5, 0.25, 0.125, 0.0]
    assert (tree.child(-1, 5), tree.child(0, 5), tree.child(1, 5)) == (0, 2, None), "of equal siblings the eldest"
    assert tree.add(9, 2, chance=1.0) == tree.child(2, 9) == 4 and tree.depths[4] == 3


def test_what_is_kept_keeps_what_is_known():
    """In a new order, with the rows of tensors and the candidates that were left out below."""
    logits = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    pruned = [(1, -1, 0.1), (2, 0, 0.2), (3, 2, 0.3)]
    tree = TreeBuilder([5, 6, 7], [-1, -1, 1], {"q": [0.5, 0.3, 0.2]}, pruned=pruned, logits=logits, rows=torch.tensor([0, 0, 2]))
    kept = tree.keep([1, 2])
    assert (kept.tokens, kept.parents, kept.depths, kept["q"]) == ([6, 7], [-1, 0], [1, 2], [0.3, 0.2])
    assert kept.pruned == [(1, -1, 0.1), (3, 1, 0.3)] and torch.equal(kept.believed(Sampling()), logits[[0, 2]].softmax(-1))
    draft = kept.draft(["a", "b"], scores=kept.tensors("q"), calls=2)
    assert (draft.tokens, draft.parents, draft.source, draft.calls) == ((6, 7), (-1, 0), ("a", "b"), 2)
    assert draft.pruned == tuple(kept.pruned) and draft.scores["q"].tolist() == pytest.approx([0.3, 0.2])
    assert tree.tokens == [5, 6, 7], "what it was taken from stays"
