"""Token Recycling against its specification: the published tree, periodic text, and what is written into the table."""

from collections import Counter
from itertools import product

import pytest
import torch

from decoding.draft import TargetOutput
from decoding.loop import decode
from decoding.methods.token_recycling import METHOD, TokenRecycling, rank_paths, static_tree
from decoding.verify import match
from tests.toys import GREEDY, VOCAB, cycle, markov, run_steps, tokens_of, toy_family

CPU = torch.device("cpu")
BY_DEPTH = [8, 21, 25, 15, 8, 3]


def drafter(vocab: int, **params) -> TokenRecycling:
    return TokenRecycling(METHOD.checked(params), vocab, CPU)


# -- the tree ----------------------------------------------------------------------------------------------------------


def test_published_tree():
    paths = rank_paths(80, 8)
    assert len(paths) == len(set(paths)) == 80
    assert [Counter(map(len, paths))[depth] for depth in range(1, 7)] == BY_DEPTH
    assert len(set(paths) - {path[:-1] for path in paths}) == 40  # leaves
    for path in paths:
        assert path[:-1] == () or path[:-1] in paths
        assert path[-1] == 0 or (*path[:-1], path[-1] - 1) in paths  # the better sibling is there too
    # the last ones of the released list, and some of each depth
    assert {(0, 7, 0), (0, 2, 1), (0, 0, 4, 0), (0, 0, 0, 1, 0, 0), (0, 0, 0, 0, 0, 1)} <= set(paths)
    assert {(7, 0), (1, 3), (5, 0, 0), (1, 0, 1), (3, 0, 0, 0), (1, 0, 0, 0, 0)} <= set(paths)
    assert not {(7, 1), (1, 4), (6, 0, 0), (4, 0, 0, 0)} & set(paths)


@pytest.mark.parametrize("ranks", range(1, 9))
@pytest.mark.parametrize("nodes", [1, 5, 32, 79, 80])
def test_smaller_trees_are_closed(nodes, ranks):
    parents, chosen = static_tree(nodes, ranks)
    assert len(parents) == len(chosen) <= nodes and max(chosen) < ranks
    assert all(-1 <= parent < i for i, parent in enumerate(parents))
    siblings: dict[int, list[int]] = {}
    for parent, rank in zip(parents, chosen, strict=True):
        siblings.setdefault(parent, []).append(rank)
    assert all(found == list(range(len(found))) for found in siblings.values())  # best first, none left out


def test_one_rank_is_a_chain_of_six():
    assert static_tree(80, 1) == ((-1, 0, 1, 2, 3, 4), (0,) * 6)


# -- periodic text -----------------------------------------------------------------------------------------------------


def counts(tokens: list[int], /, **params) -> list[int]:
    """Tokens per step on a cycle of 12."""
    steps = run_steps(toy_family(cycle(12)), "token_recycling", tokens, max_tokens=60, **params)
    return [len(step.tokens) for step in steps]


def test_periodic_text_cold():
    """Twelve steps to see every token once, then six drafted tokens and the bonus at every step."""
    found = counts([0], prompt=False)
    assert found[:12] == [1] * 12 and set(found[12:-1]) == {7}


def test_periodic_text_with_the_prompt_in_the_table():
    found = counts([*range(12), 0], prompt=True)
    assert set(found[:-1]) == {7}
    assert counts([*range(12), 0], prompt=False)[:2] == [1, 1]


def test_fault_rows_written_one_off(monkeypatch):
    """The row of the parent instead of the node's own: what was learned of the periodic text is spoiled at once."""
    observe = TokenRecycling.observe

    def one_off(self, draft, output, verification):
        shifted = type(output)(output.logits.roll(1, 0), output.probs)
        observe(self, draft, shifted, verification)

    monkeypatch.setattr(TokenRecycling, "observe", one_off)
    found = counts([0], prompt=False)
    assert found[12] == 7 and max(found[13:]) < 7


# -- the table ---------------------------------------------------------------------------------------------------------


def random_table(vocab: int = 12) -> torch.Tensor:
    return torch.rand(vocab, vocab, generator=torch.Generator().manual_seed(0)).softmax(1)


def read(draft, root: int, noise: float = 0.1):
    """What a target that looks further back than one token says of the draft: each row has noise of its own."""
    rows = random_table()[[root, *draft.tokens]].log()
    logits = rows + noise * torch.rand(rows.shape, generator=torch.Generator().manual_seed(len(draft)))
    return TargetOutput(logits, logits.softmax(1))


def test_an_unwritten_table_drafts_nothing():
    assert len(drafter(12).propose([3], None)) == 0
    family = toy_family(markov(random_table()))
    steps = run_steps(family, "token_recycling", [3], max_tokens=1, prompt=False)
    assert [step.origins for step in steps] == [("plain",)] and steps[0].nodes == ()


def filled(**params) -> TokenRecycling:
    made = drafter(12, **params)
    made._write(list(range(12)), random_table())
    return made


def test_the_draft_is_a_walk_through_the_table():
    made = filled()
    draft = made.propose([3], None)
    assert draft.depths.max() == 6
    for node, token in enumerate(draft.tokens):
        above = 3 if draft.parents[node] < 0 else draft.tokens[draft.parents[node]]
        assert made.table[above, int(draft.scores["rank"][node])] == token
    for children in draft.by_parent.values():
        assert len({draft.tokens[child] for child in children}) == len(children)


@pytest.mark.parametrize("accepted_only", [False, True])
def test_every_row_goes_under_its_own_token_and_the_accepted_one_wins(accepted_only):
    made = filled(accepted_only=accepted_only)
    before = made.table.clone()
    draft = made.propose([3], None)
    output = read(draft, 3)
    verification = match(draft, output, torch.full((len(draft) + 1,), 0.5))
    made.observe(draft, output, verification)
    path = [0, *(node + 1 for node in verification.path)]
    others = [row for row in range(1, len(draft) + 1) if row not in path]
    token_of = (3, *draft.tokens)
    writer = {token_of[row]: row for row in ([] if accepted_only else others) + path}
    for token in range(12):
        expected = output.logits[writer[token]].topk(8).indices if token in writer else before[token]
        assert made.table[token].tolist() == expected.tolist()
    assert len(writer) < len(draft) + 1  # some token occurred twice, so that the order mattered


def test_prompt_rows_stand_under_the_token_they_follow():
    made, tokens = drafter(12, prompt=True), [1, 4, 2, 4, 9]
    output = read(type("Chain", (), {"tokens": tokens[1:-1], "__len__": lambda self: 3})(), tokens[0])
    made.begin(tokens, output)
    assert made.table[4].tolist() == output.logits[3].topk(8).indices.tolist()  # the later of the two
    assert made.table[1].tolist() == output.logits[0].topk(8).indices.tolist()
    assert set(made.table[9].tolist()) == {-1}  # the root was not read yet


def test_the_text_does_not_depend_on_the_table(llama):
    """Cold, warm, or filled with nonsense: greedy text is the same."""
    texts = []
    for nonsense, prompt in product((False, True), repeat=2):
        made, accept = METHOD.build(llama, METHOD.checked({"prompt": prompt}), GREEDY)
        if nonsense:
            made.table.random_(0, VOCAB, generator=torch.Generator().manual_seed(1))
        rng = torch.Generator().manual_seed(0)
        steps = decode(llama.target, made, accept, [7, 70, 170], sampling=GREEDY, rng=rng, max_tokens=40)
        texts.append(tokens_of(steps))
    assert all(text == texts[0] for text in texts)


def test_rejected_nodes_teach_as_well(embedded):
    """Rows of all nodes against accepted rows only, on text of the embedded target: at least a tenth more per step."""
    prompt = embedded.tokenizer("Once upon a time there was a little dog who")["input_ids"]
    options = {"max_tokens": 120, "nodes": 32}
    everything, path = (
        len(run_steps(embedded, "token_recycling", prompt, accepted_only=only, **options)) for only in (False, True)
    )
    assert path > 1.1 * everything  # steps
