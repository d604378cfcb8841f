"""Infini-gram, REST and RASD: the examples and limiting cases of their specifications, and that no store can bend the text."""

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from decoding.draft import Draft
from decoding.drafting.tree_builder import TreeBuilder
from decoding.loop import decode
from decoding.methods import METHODS
from decoding.methods.rasd import TRIE_READ, fused, plausible
from decoding.models.cache import TreeCache
from decoding.retrieval.datastore import EMPTY, Datastore, of_tokens
from decoding.retrieval.search import NONE, Match, Sources, heaviest, trie_of
from decoding.sample import Sampling
from decoding.score_names import DRAFTED, JOINT, RETRIEVED
from decoding.verify import match, recursive_rejection
from tests.decoding.test_lossless_statistics import LIMIT, PROMPT, counted, expected, family, lying, misfit
from tests.decoding.test_verify_exact import texts
from tests.toys import (
    GREEDY,
    greedy_text,
    markov,
    output_of,
    tokens_of,
    total_variation,
    toy_family,
    with_draft,
)

END = 0
NO = Match(0, 0, 0, NONE)
ROOMY = {"longest": 64, "shortest": 1, "length": 32, "occurrences": 5000}  # REST without its limits
HAND = of_tokens([1, 1, 2, 1, 3, 1, END], END)
SETTINGS = (GREEDY, Sampling(0.7), Sampling(1.0), Sampling(1.0, top_p=0.9))


def random_store(seed: int, symbols: int, size: int = 400, separator: int = -1) -> Datastore:
    return of_tokens(np.random.default_rng(seed).integers(0, symbols, size), separator)


def drafter_of(key: str, store: Datastore, of=None, sampling: Sampling = GREEDY, text: bool = False, ends=frozenset(), **params):
    """A drafter of method `key` over `store`, and its rule."""
    made = METHODS[key].build(of or family(), METHODS[key].checked(params | {"where": "text so far"}), sampling)
    made[0].sources = Sources(store, ends, with_text=text)
    return made


def drafted(key: str, store: Datastore, tokens: list[int], seed: int = 0, **more) -> Draft:
    drafter, _ = drafter_of(key, store, **more)
    drafter.begin(tokens, None)
    return drafter.propose(tokens, torch.Generator().manual_seed(seed))


def run(key: str, store: Datastore, of, prompt, sampling=GREEDY, max_tokens: int = 40, seed: int = 0, **more):
    drafter, accept = drafter_of(key, store, of, sampling, ends=of.target.ends, **more)
    rng = torch.Generator().manual_seed(seed)
    limits = {"sampling": sampling, "rng": rng, "max_tokens": max_tokens, "recorded": False}
    return list(decode(of.target, drafter, accept, prompt, **limits))


def paths(draft: Draft) -> list[tuple[int, ...]]:
    return [tuple(draft.tokens[i] for i in draft.path_to(node)) for node in range(len(draft))]


def without_times(steps):
    return [(step.nodes, step.path, step.tokens, step.origins, step.draft_calls, step.ending) for step in steps]


# -- infini-gram ---------------------------------------------------------------------------------------------------------


def row_after(context: list[int], vocab: int = 10, **more) -> tuple[list[float], Draft]:
    """P of the infini-gram for the next token."""
    flat = toy_family(markov(torch.ones(vocab, vocab)))
    options = {"variant": "tree", "nodes": 20, "shortest": 1, "ends": frozenset({END}), "of": flat}
    draft = drafted("infinigram", HAND, context, **(options | more))
    return draft.draft_probabilities[0].tolist(), draft


@pytest.mark.parametrize(
    "context, n, count, shares",
    [
        ([1], 2, 4, {0: 1 / 4, 1: 1 / 4, 2: 1 / 4, 3: 1 / 4}),
        ([2, 1], 3, 1, {3: 1.0}),
        ([9, 1], 2, 4, {0: 1 / 4, 1: 1 / 4, 2: 1 / 4, 3: 1 / 4}),
        ([9], 1, 7, {0: 1 / 7, 1: 4 / 7, 2: 1 / 7, 3: 1 / 7}),
    ],
)
def test_infini_gram_by_hand(context, n, count, shares):
    row, draft = row_after(context)
    assert {token: p for token, p in enumerate(row) if p} == pytest.approx(shares)
    assert draft.scores["matched"][0] + 1 == n and draft.scores["occurrences"][0] == count


def test_infini_gram_against_a_brute_force_count():
    """Of random contexts: the longest suffix, its count and the whole distribution; it sums to 1, which backing off on the
    numerator would not."""
    store = of_tokens([*np.random.default_rng(0).integers(1, 6, 900), END], END)
    text, rng = store.tokens.tolist(), np.random.default_rng(1)
    options = {"variant": "tree", "nodes": 20, "shortest": 1, "of": toy_family(markov(torch.ones(7, 7)))}
    options["ends"] = frozenset({END})
    for _ in range(100):
        context = rng.integers(1, 7, rng.integers(1, 8)).tolist()
        draft = drafted("infinigram", store, context, **options)
        n = max(k for k in range(len(context) + 1) if k == 0 or followers(text, context[-k:]))
        following = followers(text, context[len(context) - n :])
        assert draft.scores["matched"][0] == n
        assert draft.draft_probabilities[0].tolist() == pytest.approx([following.count(y) / len(following) for y in range(7)])
        assert draft.draft_probabilities.sum(1).tolist() == pytest.approx([1.0] * len(draft))


def test_backing_off_on_the_numerator_would_not_sum_to_one():
    """The fault that the brute-force test above would notice: for (2, 1) it gives 1 + 1/4 + 1/4 + 1/4."""

    def count(ngram: list[int]) -> int:
        low, high = HAND.range(ngram)
        return high - low

    shares = [next(count([*s, y]) / count(s) for s in ([2, 1], [1], []) if count([*s, y])) for y in range(4)]
    assert sum(shares) == pytest.approx(1.75)


def test_the_product_along_a_path_telescopes():
    store = random_store(2, 4, 600)
    draft = drafted("infinigram", store, [0, 1, 2], variant="tree", nodes=40, shortest=1)
    matched, count = int(draft.scores["matched"][0]), draft.scores["occurrences"][0].item()
    for node, path in enumerate(paths(draft)):
        product_of_p = math.prod(draft.scores["P"][i].item() for i in draft.path_to(node))
        low, high = store.range([*[0, 1, 2][3 - matched :], *path])
        assert draft.scores["count"][node] == high - low
        assert product_of_p == pytest.approx((high - low) / count, rel=1e-6)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("text", [False, True], ids=["store", "store and text"])
def test_the_infini_gram_tree_is_the_trie_of_rest(seed, text):
    """With all occurrences and no limit on lengths, node for node."""
    text_of_store = np.random.default_rng(seed).integers(0, 3, 500)
    text_of_store[49::50] = 3
    store = of_tokens(text_of_store, 3)
    tokens = np.random.default_rng(seed + 50).integers(0, 3, 30).tolist()
    tree = drafted("infinigram", store, tokens, variant="tree", nodes=30, shortest=1, text=text)
    trie = drafted("rest", store, tokens, nodes=30, text=text, **ROOMY)
    assert len(tree) > 5 and paths(tree) == paths(trie) and tree.parents == trie.parents
    assert tree.scores["count"].tolist() == trie.scores["weight"].tolist()


def test_a_chain_takes_the_likeliest_and_knows_when_to_stop():
    store, flat = of_tokens([1, 2, 3, 5, 1, 2, 3, 6, 1, 2, 4, 7, END], END), toy_family(markov(torch.ones(9, 9)))

    def chain(context: list[int], **params) -> tuple[int, ...]:
        return drafted("infinigram", store, context, of=flat, **params).tokens

    assert chain([8, 1, 2], threshold=0.6) == (3,)  # behind 1 2 3 nothing reaches 0.6
    assert chain([8, 1, 2], threshold=0.5)[:2] == (3, 5)  # of equals the lower id
    assert chain([8, 1, 2], threshold=0.7) == ()
    assert chain([8, 2], shortest=3) == () and chain([8, 2], shortest=2)
    assert chain([8, 1, 2], length=1) == (3,)


def test_the_separator_is_proposed_as_an_end_of_text_only():
    store, options = of_tokens([1, 2, 3, END, 1, 2, 3, END], END), {"of": toy_family(markov(torch.ones(4, 4)))}
    for key, params in (("infinigram", {}), ("infinigram", {"variant": "tree"}), ("rest", {})):
        assert drafted(key, store, [1, 2], ends=frozenset({END}), **options, **params).tokens == (3, END)
        assert drafted(key, store, [1, 2], **options, **params).tokens == (3,)  # no such end: the document ends here


def test_a_sampled_chain_is_drawn_from_its_q():
    store = random_store(4, 4)
    firsts = [
        drafted("infinigram", store, [0, 1], seed=seed, sampling=Sampling(1.0), variant="sampled chain", threshold=0.0, length=2)
        for seed in range(300)
    ]
    q = firsts[0].q[0]
    assert all(draft.how == "sampled" and torch.equal(draft.q[0], q) for draft in firsts)
    for token, chance in enumerate(q.tolist()):
        share = sum(draft.tokens[0] == token for draft in firsts) / 300
        assert abs(share - chance) < 4 * (chance * (1 - chance) / 300) ** 0.5 + 1e-9
    for draft in firsts[:20]:
        assert draft.q[1].tolist() == pytest.approx(row_of(store, [0, 1, draft.tokens[0]]))


def row_of(store: Datastore, context: list[int]) -> list[float]:
    tree = drafted("infinigram", store, context, variant="tree", nodes=1, shortest=1)
    return tree.draft_probabilities[0].tolist()


def test_a_drawn_token_accepts_more_than_the_likeliest():
    """p = (.4, .3, .2, .1), P = (.5, .5, 0, 0): .70 against .40; and judging the likeliest by p/q would bend the text."""
    p = torch.tensor([[0.4, 0.3, 0.2, 0.1]], dtype=torch.float64)
    q = torch.tensor([[0.5, 0.5, 0, 0]], dtype=torch.float64)
    assert torch.minimum(p, q).sum().item() == pytest.approx(0.7)
    output = output_of(p.expand(2, -1))
    chosen = Draft((0,), (-1,), source=("test",))
    grid = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    kept = [bool(match(chosen, output, u.repeat(2)).path) for u in grid]
    assert sum(kept) / 2000 == pytest.approx(0.4, abs=1e-3)
    lie = Draft((0,), (-1,), q, how="sampled", source=("test",))
    out = torch.zeros(4, dtype=torch.float64)
    for u in grid:
        verification = recursive_rejection(lie, output, torch.stack((u, torch.tensor(0.5, dtype=torch.float64))))
        rest = verification.residual[0] if not verification.path else None
        out += torch.eye(4, dtype=torch.float64)[0] if rest is None else rest
    assert (out / 2000).tolist() == pytest.approx([0.8, 0, 0.4 / 3, 0.2 / 3], abs=1e-3)
    assert total_variation(out / 2000, p[0]) == pytest.approx(0.4, abs=1e-3)


# -- REST ----------------------------------------------------------------------------------------------------------------


def test_rest_on_text_it_holds_accepts_everything(llama):
    """The store contains the answer: every step but the last commits the whole continuation and the bonus."""
    prompt = [7, 70, 170, 7, 70]
    text = greedy_text(llama.target, prompt, 80)
    for key, tokens in (("rest", 11), ("infinigram", 11)):
        steps = run(key, of_tokens([*prompt, *text], -1), llama, prompt, max_tokens=66)
        assert tokens_of(steps) == text[:66]
        assert [len(step.tokens) for step in steps] == [tokens] * 6
        assert {node.verdict for step in steps for node in step.nodes} == {"accepted"}


def test_rest_keeps_the_heaviest_and_looks_for_the_longest():
    store = of_tokens([5, 1, 2, 3, 6, 9, 1, 2, 3, 7, 9, 1, 2, 4, 8, END], END)
    draft = drafted("rest", store, [9, 1, 2], nodes=3, length=2)
    assert paths(draft) == [(3,), (4,), (3, 7)] and draft.scores["weight"].tolist() == [1, 1, 1]  # 9 1 2 stands twice
    assert draft.scores["matched"][0] == 3 and draft.scores["occurrences"][0] == 2
    draft = drafted("rest", store, [9, 1, 2], nodes=3, length=2, longest=2)
    assert paths(draft) == [(3,), (4,), (3, 6)] and draft.scores["weight"].tolist() == [2, 1, 1]
    assert drafted("rest", store, [7, 4], shortest=2).tokens == () and drafted("rest", store, [7, 4], shortest=1).tokens == (8,)


def test_closed_under_parents_and_lighter_downwards():
    for key, params in (("rest", {}), ("rasd", {"pruning": "none"}), ("rasd", {}), ("rasd", {"pruning": TRIE_READ})):
        draft = drafted(key, random_store(7, 4, 2000), [0, 1, 2, 3], **params)
        weights = draft.scores["weight"]
        retrieved = [i for i in range(len(draft)) if draft.source[i] != DRAFTED]
        assert retrieved
        for i in retrieved:
            parent = draft.parents[i]
            assert parent < 0 or (parent in retrieved and weights[parent] >= weights[i])


# -- RASD ----------------------------------------------------------------------------------------------------------------

A, B, C, D, E, F, G, H = range(8)


def tree_of(*rows: str) -> TreeBuilder:
    """The draft model's tree with these paths, in this order."""
    tree, places = TreeBuilder(), {"": -1}
    for path in rows:
        places[path] = tree.add("abcdefgh".index(path[-1]), places[path[:-1]], **{JOINT: 0.5})
    return tree


def trie_with(*rows: str) -> TreeBuilder:
    return trie_of(sorted(["abcdefgh".index(letter) for letter in row] for row in rows))


def spelled(draft: Draft) -> dict[str, str]:
    return {"".join("abcdefgh"[t] for t in path): source for path, source in zip(paths(draft), draft.source, strict=True)}


def test_the_fusion_example():
    """{ab, ac, d} drafted, {abef, ag, h} retrieved: eight nodes, a and ab are both's."""
    draft = fused(tree_of("a", "ab", "ac", "d"), trie_with("abef", "ag", "h"), NO, 0)
    assert spelled(draft) == {
        **{"a": "both", "ab": "both", "ac": "draft model", "d": "draft model"},
        **{"abe": RETRIEVED, "abef": RETRIEVED, "ag": RETRIEVED, "h": RETRIEVED},
    }


def test_fusing_again_changes_nothing_and_the_order_only_the_marks():
    one, other = ("a", "ab", "ac", "d"), ("abef", "ag", "h")
    draft = fused(tree_of(*one), trie_with(*other), NO, 0)
    again = fused(tree_of(*spelled(draft)), trie_with(*other), NO, 0)
    assert spelled(again).keys() == spelled(draft).keys()
    full = ("a", "ab", "abe", "abef", "ag", "h")
    turned = fused(tree_of(*full), trie_with("ab", "ac", "d"), NO, 0)
    swap = {"draft model": RETRIEVED, RETRIEVED: "draft model", "both": "both"}
    assert {path: swap[source] for path, source in spelled(turned).items()} == spelled(draft)


def test_the_pruning_example():
    """S = {abc x3, ad, ef x2} against the top two {a, g}: branch e goes; with two nodes a and ab stay."""
    trie, tree = trie_with("abc", "abc", "abc", "ad", "ef", "ef"), TreeBuilder()
    kept = trie.keep(plausible(trie, tree, {-1: {A, G}}))
    assert (kept.tokens, kept.parents, kept["weight"]) == ([A, B, C, D], [-1, 0, 1, 0], [4, 3, 3, 1])
    assert heaviest(kept, 2).tokens == [A, B] and heaviest(kept, 2)["weight"] == [4, 3]
    assert plausible(trie, tree, {-1: set(range(8))}) == list(range(len(trie)))


def test_pruning_at_every_shared_node():
    """Below a, where the draft model was asked too, d must be likely; below ab nobody was asked."""
    trie, tree = trie_with("abc", "ad"), tree_of("a", "ab")
    assert trie.keep(plausible(trie, tree, {-1: {A}, 0: {B}})).tokens == [A, B, C]
    assert trie.keep(plausible(trie, tree, {-1: {A}})).tokens == [A, B, C, D]


def q_after(of, tokens) -> torch.Tensor:
    """(vocab,) the draft model after `tokens`, from a fresh pass."""
    return of.draft.extend(TreeCache(), tokens)[0].softmax(-1)


def test_the_draft_tree_is_the_likeliest_paths(llama):
    """Against fresh passes: values are products of q, children the top of their rows, and no better path was left out."""
    tokens = [7, 70, 170, 7]
    draft = drafted("rasd", EMPTY, tokens, of=llama, drafted=12, branch=3, depth=3)
    values = {(): 1.0}
    level = [()]
    for _ in range(3):
        grown = []
        for path in level:
            best = q_after(llama, [*tokens, *path]).topk(3)
            for token, chance in zip(best.indices.tolist(), best.values.tolist(), strict=True):
                values[*path, token] = values[path] * chance
                grown.append((*path, token))
        level = sorted(grown, key=lambda path: -values[path])[:3]
    del values[()]
    wanted = sorted(values, key=lambda path: -values[path])[:12]
    assert set(paths(draft)) == set(wanted) and draft.calls == 3 and set(draft.source) == {DRAFTED}
    for path, value in zip(paths(draft), draft.scores["draft value"].tolist(), strict=True):
        assert value == pytest.approx(values[path], rel=1e-3)


def test_what_the_draft_model_reads_of_the_trie(llama):
    """Scores of the fourth rule against fresh passes; the kept nodes are the best of them."""
    store, tokens = random_store(3, 6, 3000), [1, 2, 3, 4, 5, 0]
    drafter, _ = drafter_of("rasd", store, llama, pruning=TRIE_READ, top=50, retrieved=128)
    drafter.begin(tokens, None)
    q = drafter._draft_tree(tokens, 100).logits[0].softmax(-1)
    found, trie = drafter._retrieve(tokens, 100)
    trie = heaviest(trie, 40)
    scores = drafter._scores(trie, q)
    total = sum(weight for weight, parent in zip(trie["weight"], trie.parents, strict=True) if parent < 0)
    shape = Draft(tuple(trie.tokens), tuple(trie.parents), source=("",) * len(trie))
    for node, path in enumerate(paths(shape)):
        chance = math.prod(q_after(llama, [*tokens, *path[:i]])[token].item() for i, token in enumerate(path))
        assert scores[node] == pytest.approx(chance * (trie["weight"][node] / total) ** 0.5, rel=1e-3)
        parent = trie.parents[node]
        assert parent < 0 or scores[node] <= scores[parent] + 1e-9
    assert drafter.model.calls == 4 + 1


def test_rasd_with_an_empty_store_is_its_draft_tree(llama):
    """The same trace, step for step, as without retrieval; and every node is the draft model's."""
    for sampling in (GREEDY, Sampling(1.0)):
        bare = run("rasd", random_store(0, 200), llama, [7, 70, 170], sampling, retrieved=0, max_tokens=20)
        for pruning in ("none", "first token", "every shared node", TRIE_READ):
            steps = run("rasd", EMPTY, llama, [7, 70, 170], sampling, pruning=pruning, max_tokens=20)
            assert without_times(steps) == without_times(bare)
            assert {node.source for step in steps for node in step.nodes} == {DRAFTED}


def test_rasd_without_a_draft_tree_is_rest(llama):
    store, shared = random_store(0, 200, 4000), {"shortest": 1, "text": True}
    for sampling in (GREEDY, Sampling(1.0)):
        steps = run("rasd", store, llama, [7, 70, 170], sampling, drafted=0, retrieved=20, pruning="none", **shared)
        alone = run("rest", store, llama, [7, 70, 170], sampling, nodes=20, **shared)
        assert tokens_of(steps) == tokens_of(alone) and sum(len(step.nodes) for step in steps) > 40
        for one, other in zip(steps, alone, strict=True):
            assert [(n.token, n.parent, n.source, n.verdict) for n in one.nodes] == [
                (n.token, n.parent, n.source, n.verdict) for n in other.nodes
            ]
            assert one.draft_calls == 0


def test_a_filter_as_wide_as_the_vocabulary_filters_nothing():
    store = random_store(5, 4, 1000)
    for seed in range(5):
        tokens = np.random.default_rng(seed).integers(0, 4, 12).tolist()
        wide = drafted("rasd", store, tokens, top=50)
        assert paths(wide) == paths(drafted("rasd", store, tokens, pruning="none"))
        assert RETRIEVED in wide.source


def test_rasd_with_no_nodes_is_plain_decoding(llama):
    steps = run("rasd", random_store(0, 200), llama, [7, 70, 170], drafted=0, retrieved=0, max_tokens=12)
    assert [len(step.tokens) for step in steps] == [1] * 12 and all(not step.nodes and not step.draft_calls for step in steps)


def test_the_fused_tree_accepts_at_least_what_either_source_would(llama):
    """In every greedy step, on the same state: each source's own tree is part of the fused one."""
    prompt = [7, 70, 170, 7, 70]
    answer = greedy_text(llama.target, prompt, 60)
    store = of_tokens([*answer[10:30], *answer[5:14], 9, *answer[40:50]], -1)
    drafter, accept = drafter_of("rasd", store, with_draft(llama, 0.3), text=True)
    gained = 0
    rng = torch.Generator().manual_seed(0)
    for step in decode(llama.target, drafter, accept, prompt, sampling=GREEDY, rng=rng, max_tokens=60, recorded=False):
        sources = [step.nodes[i].source for i in step.path]
        alone = [next((i for i, s in enumerate(sources) if s == other), len(sources)) for other in (RETRIEVED, DRAFTED)]
        gained += len(sources) > max(alone) or len(set(alone)) > 1
    assert gained


@pytest.mark.parametrize("pruning", ["none", "first token", "every shared node", TRIE_READ])
def test_the_draft_models_cache_stays_that_of_the_text(llama, pruning):
    """After accepted drafted and retrieved nodes, and after the extra call over the trie."""
    prompt = [7, 70, 170, 7, 70]
    answer = greedy_text(llama.target, prompt, 40)
    store = of_tokens([*prompt, *answer, *random_store(0, 200).tokens.astype(int)], -1)
    drafter, accept = drafter_of("rasd", store, llama, pruning=pruning)
    seen, inner = [], drafter.model.root

    def root(tokens):
        logits = inner(tokens)
        fresh = llama.draft.extend(TreeCache(), tokens)
        seen.append((logits - fresh).abs().max().item())
        return logits

    drafter.model.root = root
    rng = torch.Generator().manual_seed(0)
    steps = list(decode(llama.target, drafter, accept, prompt, sampling=GREEDY, rng=rng, max_tokens=40, recorded=False))
    assert len(seen) == len(steps) > 3 and max(seen) < 1e-4
    assert {node.source for step in steps for node in step.nodes if node.verdict == "accepted"} >= {"both", RETRIEVED}


# -- the text is the target's, whatever the store holds -------------------------------------------------------------------

VARIANTS = [
    ("infinigram", {"shortest": 1, "threshold": 0.0, "length": 2}),
    ("infinigram", {"variant": "sampled chain", "shortest": 1, "threshold": 0.0, "length": 2}),
    ("infinigram", {"variant": "tree", "shortest": 1, "nodes": 5}),
    ("rest", {"shortest": 1, "nodes": 5}),
    ("rasd", {"shortest": 1, "drafted": 3, "retrieved": 3}),
    ("rasd", {"shortest": 1, "drafted": 3, "retrieved": 3, "pruning": TRIE_READ}),
]
NAMES = [f"{key} {' '.join(str(v) for v in params.values() if isinstance(v, str))}".strip() for key, params in VARIANTS]


def over(store: Datastore):
    """Put a store under a drafter of the statistical tests."""

    def change(drafter, accept):
        drafter.sources = Sources(store, frozenset())
        return drafter, accept

    return change


@pytest.mark.parametrize("key, params", VARIANTS[:-1], ids=NAMES[:-1])
def test_three_tokens_follow_the_target_over_a_random_store(key, params):
    """The real loop; `test_lossless_statistics` has the same without a store, at another temperature too."""
    sampling = Sampling()
    assert misfit(counted(key, sampling, over(random_store(1, 4, 60)), **params), expected(sampling)) < LIMIT


@pytest.mark.parametrize("key, params", [VARIANTS[0], VARIANTS[3]])
def test_a_rule_for_drawn_tokens_would_be_noticed(key, params):
    def change(drafter, accept):
        return lying(*over(random_store(1, 4, 60))(drafter, accept))

    assert misfit(counted(key, Sampling(), change, **params), expected(Sampling())) > LIMIT


def noisy_table(seed: int) -> torch.Tensor:
    return torch.rand(4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) ** 2 + 0.02


TABLE, DRAFT_TABLE = (table / table.sum(1, keepdim=True) for table in (noisy_table(0), noisy_table(1)))
EXACT = [*SETTINGS, Sampling(0.7, top_p=0.9)]


@pytest.mark.parametrize("sampling", EXACT, ids=lambda s: f"T={s.temperature} p={s.top_p}")
@pytest.mark.parametrize("key, params", VARIANTS, ids=NAMES)
def test_one_step_exactly(key, params, sampling):
    """Every draft of a step with its probability, the real rule on every side of every uniform: the first three tokens have the
    target's distribution to 1e-12, in float64."""
    p = sampling.probabilities(TABLE.log())
    found = torch.zeros(4, 4, 4, dtype=torch.float64)
    for weight, draft in every_draft(key, params, sampling):
        probs = p[[PROMPT[-1], *draft.tokens]]
        for text, chance in emitted(draft, probs).items():
            found += weight * chance * filled(text, p)
    assert total_variation(found, p[PROMPT[-1]][:, None, None] * p[:, :, None] * p[None]) < 1e-12


def test_the_enumeration_notices_a_wrong_q():
    p, found = TABLE, torch.zeros(4, 4, 4, dtype=torch.float64)
    for weight, draft in every_draft(*VARIANTS[1], Sampling(1.0)):
        lie = replace(draft, q=draft.q.roll(1, 1).clamp(min=0.05))
        for text, chance in emitted(lie, p[[PROMPT[-1], *draft.tokens]]).items():
            found += weight * chance * filled(text, p)
    assert total_variation(found, p[PROMPT[-1]][:, None, None] * p[:, :, None] * p[None]) > 0.02


def every_draft(key: str, params: dict, sampling: Sampling):
    """(probability, draft) for all drafts of a step; only the sampled chain has more than one, one for every side of its
    uniforms."""
    store, of = random_store(1, 4, 60), toy_family(markov(TABLE), markov(DRAFT_TABLE))
    options = {"of": of, "sampling": sampling, "text": True, **params}
    if params.get("variant") != "sampled chain" or sampling.greedy:
        draft = drafted(key, store, list(PROMPT), **options)
        assert draft.how == "deterministic" and len(draft) > 1
        yield 1.0, draft
        return
    for wanted in product(range(4), repeat=params["length"]):
        rows = torch.tensor([shares(store, [*PROMPT, *wanted[:i]], len(PROMPT)) for i in range(len(wanted))], dtype=torch.float64)
        if weight := math.prod(rows[i, token].item() for i, token in enumerate(wanted)):
            uniforms = [(row[:token].sum() + row[token] / 2).item() for row, token in zip(rows, wanted, strict=True)]
            draft = with_uniforms(drafter_of(key, store, **options)[0], uniforms)
            assert draft.tokens == wanted and (draft.q - rows).abs().max() < 1e-6
            yield weight, replace(draft, q=rows)  # the same, in float64


def with_uniforms(drafter, uniforms: list[float]) -> Draft:
    drafter.sources.follow(list(PROMPT))
    found, tree = drafter.sources.longest(len(PROMPT)), TreeBuilder()
    drafter._chain(tree, found, torch.tensor(uniforms))
    return drafter._draft(tree, found)


def shares(store: Datastore, context: list[int], prompt: int) -> list[float]:
    """P behind `context`, whose first `prompt` tokens are the text: by searching store and text as they are."""
    stored, text = store.tokens.tolist(), context[:prompt]
    start = max(n for n in range(prompt + 1) if n == 0 or followers(stored, text[-n:]) or followers(text, text[-n:]))
    suffix = context[prompt - start :]
    following = followers(stored, suffix) + followers(text, suffix)
    return [following.count(y) / max(1, len(following)) for y in range(4)]


def followers(text: list[int], ngram: list[int]) -> list[int]:
    n = len(ngram)
    return [text[i + n] for i in range(len(text) - n) if text[i : i + n] == ngram]


def emitted(draft: Draft, probs: torch.Tensor) -> dict[tuple[int, ...], float]:
    """Emitted tokens -> probability, by running the rule on every side of its uniforms."""
    return texts(draft, probs) if draft.how == "sampled" else matched(draft, probs)


def matched(draft: Draft, probs: torch.Tensor) -> dict[tuple[int, ...], float]:
    """`match` for every token that each row on the way may draw; rows that are not visited have a die of 0.5."""
    found: dict[tuple[int, ...], float] = {}
    waiting: list[tuple[float, dict[int, float]]] = [(1.0, {})]
    while waiting:
        weight, uniforms = waiting.pop()
        u = torch.tensor([uniforms.get(row, 0.5) for row in range(len(draft) + 1)], dtype=torch.float64)
        verification = match(draft, output_of(probs), u)
        fresh = next((row for row in (0, *(i + 1 for i in verification.path)) if row not in uniforms), None)
        if fresh is None:
            text = (*(draft.tokens[i] for i in verification.path), verification.token)
            found[text] = found.get(text, 0.0) + weight
            continue
        before = 0.0
        for chance in probs[fresh].tolist():
            if chance:
                waiting.append((weight * chance, uniforms | {fresh: before + chance / 2}))
            before += chance
    return found


def filled(text: tuple[int, ...], p: torch.Tensor) -> torch.Tensor:
    """(4, 4, 4) distribution of the first three tokens when the target goes on behind `text`."""
    one = torch.eye(4, dtype=torch.float64)
    rows = [one[text[i]] if i < len(text) else None for i in range(3)]
    second = rows[1].expand(4, 4) if rows[1] is not None else p
    third = rows[2].expand(4, 4) if rows[2] is not None else p
    return rows[0][:, None, None] * second[:, :, None] * third[None]


@pytest.mark.parametrize("key, params", VARIANTS, ids=NAMES)
def test_greedy_text_over_any_store(llama, key, params):
    """A store of noise, and one with the answer in it: the text is the same, in fewer calls where the answer is known."""
    prompt = [7, 70, 170, 7, 70]
    text = greedy_text(llama.target, prompt, 60)
    longer = {name: value for name, value in params.items() if name in ("variant", "pruning")}
    answer = of_tokens([*prompt, *text, *random_store(3, 200).tokens.astype(int)], -1)
    for store, options in ((random_store(0, 200, 4000), params), (answer, longer)):
        steps = run(key, store, llama, prompt, max_tokens=60, text=True, **options)
        assert tokens_of(steps) == text
    assert 60 / len(steps) > 5
