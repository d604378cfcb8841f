"""The infini-gram lens against counting by hand and by brute force (checks 2, 3, 4 and 10 of its specification)."""

import random
from collections import Counter
from collections.abc import Sequence

import pytest
import torch

from decoding.lens import read_rows
from decoding.lenses.infinigram import looked_up, sources_like, target_rows
from decoding.looks.infinigram import At
from decoding.retrieval.datastore import EMPTY, of_tokens
from decoding.retrieval.search import Sources
from decoding.runs.lens_run import LensRun
from decoding.runs.run import Run

END = 0
BY_HAND = (1, 1, 2, 1, 3, 1, END)


def at(store: Sequence[int], context: Sequence[int], token: int) -> At:
    """What the lens says of a token behind a context, by this store alone."""
    found = of_tokens(list(store), END) if store else EMPTY
    sources = sources_like(Sources(found, frozenset({END}), with_text=False))
    return looked_up(sources, [*context, token], len(context), At(token, 0, 0, 0.0, False, 0.5, 1.0))


@pytest.mark.parametrize(
    ("context", "n", "count", "shares", "sparse"),
    [
        ((1,), 2, 4, {0: 1 / 4, 1: 1 / 4, 2: 1 / 4, 3: 1 / 4}, False),
        ((2, 1), 3, 1, {3: 1.0, 1: 0.0}, True),
        ((9, 1), 2, 4, {2: 1 / 4}, False),
        ((9,), 1, 7, {1: 4 / 7}, False),
    ],
)
def test_by_hand(context, n, count, shares, sparse):
    for token, share in shares.items():
        row = at(BY_HAND, context, token)
        assert (row.n, row.sparse) == (n, sparse) and row.share == pytest.approx(share), token
        assert row.count == count or n == 1


def brute(store: Sequence[int], context: Sequence[int]) -> tuple[int, Counter[int]]:
    """Length of the longest end of the context that stands in the store, and what follows it there."""
    for size in range(len(context), 0, -1):
        ends = list(context[-size:])
        if END in ends:
            continue
        places = [i for i in range(len(store) - size) if list(store[i : i + size]) == ends]
        if places:
            return size, Counter(store[i + size] for i in places)
    return 0, Counter(store)


@pytest.mark.parametrize("seed", range(8))
def test_it_counts_as_brute_force_does_and_sums_to_1(seed):
    dice = random.Random(seed)
    store = [token for _ in range(8) for token in [*(dice.randint(1, 5) for _ in range(dice.randint(3, 12))), END]]
    for _ in range(12):
        context = [dice.randint(1, 6) for _ in range(dice.randint(1, 6))]
        size, counts = brute(store, context)
        rows = {token: at(store, context, token) for token in range(7)}
        assert {row.n for row in rows.values()} == {size + 1}
        assert {token: row.share for token, row in rows.items()} == pytest.approx(
            {token: counts[token] / counts.total() for token in range(7)}
        )
        assert sum(row.share for row in rows.values()) == pytest.approx(1)


def test_backing_off_on_the_token_too_would_not_sum_to_1():
    """The planted fault of the specification: (2, 1) then gives 3 its 1 and takes the others from (1)."""
    backed = [max(at(BY_HAND, context, token).share for context in ((2, 1), (1,))) for token in range(4)]
    assert sum(backed) == pytest.approx(1.75)


def test_an_empty_store_knows_nothing():
    row = at((), (1, 2), 3)
    assert (row.n, row.count, row.share, row.sparse) == (1, 0, 0.0, False)


def test_the_targets_p_is_its_own(embedded):
    tokens = embedded.tokenizer("Once upon a time there was a little girl.")["input_ids"]
    logits = torch.cat(list(read_rows(embedded.target, tokens)))
    rows = target_rows(tokens, 0, logits, 1)
    assert [row.token for row in rows] == tokens[1:]
    p = logits.double().softmax(-1)
    assert [row.p for row in rows] == pytest.approx([float(p[i, token]) for i, token in enumerate(tokens[1:])])
    bits = -(p * p.clamp(min=1e-300).log2()).sum(-1)
    assert [row.entropy for row in rows] == pytest.approx(bits[:-1].tolist())


def test_along_the_run_every_token_is_looked_up(embedded):
    run = Run(embedded, "plain", prompt="one two one two one two one", max_tokens=4)
    list(run)
    with torch.inference_mode():
        *_, look = LensRun(embedded, "infinigram", run.trace, 0, None, {"where": "text so far", "length": 8})
    tokens = run.trace.tokens_before(len(run.trace.steps))
    assert [row.token for row in look.text] == list(tokens[-8:]) and all(row.n for row in look.text)
    assert look.n >= 2 and look.count >= 1, "the prompt ends as it began"
