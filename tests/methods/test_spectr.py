"""SpecTr: rho and its limits, the exact law of K-SEQ over all drafts and uniforms, planted faults, and the trie of sequences."""

import math
from collections import Counter
from dataclasses import replace
from itertools import combinations_with_replacement, product

import msgspec
import pytest
import torch
from torch import Tensor

import decoding.acceptance.k_seq as k_seq_module
import viz.methods.spectr as view
import viz.methods.spectr_position as position_view
import viz.methods.spectr_transport as transport_view
from decoding.acceptance.k_seq import Sums, any_of, dealt, k_seq, offered, solve, walk_copies
from decoding.draft import Draft, chain
from decoding.drafting.tree_builder import TreeBuilder
from decoding.methods import METHODS
from decoding.methods.spectr import lengthen
from decoding.models.cache import TreeCache
from decoding.models.target import Target
from decoding.runs.run import Run
from decoding.sample import Sampling, draw
from decoding.score_names import OF_POSITION
from decoding.trace import Trace
from decoding.verify import match, recursive_rejection
from pages.parts.shared import address
from pages.parts.shared.settings import Settings
from tests.decoding.test_lossless_statistics import LIMIT, counted, expected, misfit
from tests.pages.test_step import errors, press, state
from tests.pages.test_step import opened as page_opened
from tests.toys import GREEDY, markov, output_of, run_steps, tokens_of, total_variation, toy_family

EXACT = 1e-12
LISTED = 6e-5  # the specification prints four digits
PROMPT = [7, 70, 170]


def row(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


PAIR3 = row(0.5, 0.3, 0.2), row(0.2, 0.5, 0.3)
PAIR4 = row(0.4, 0.3, 0.2, 0.1), row(0.1, 0.2, 0.3, 0.4)


def pairs(count: int, vocab: int, seed: int, zeros: bool = True) -> tuple[Tensor, Tensor]:
    """(count, vocab) p and q, some tokens impossible as top-k and top-p leave them."""
    rng = torch.Generator().manual_seed(seed)
    both = torch.rand(2, count, vocab, generator=rng, dtype=torch.float64) ** 3
    if zeros:
        both[torch.rand(2, count, vocab, generator=rng) < 0.2] = 0
    both[:, :, 0] += 0.01
    return tuple(both / both.sum(2, keepdim=True))


def facts(p: Tensor, q: Tensor, k: int) -> dict[str, float]:
    return dict(zip(OF_POSITION, solve(p[None], q[None], [k])[0].tolist(), strict=True))


# -- rho and the chances of acceptance ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "k, rho, beta, accepted, r3w, best",
    [
        (2, 1.4568, 0.5432, 0.7914, 0.7600, 0.8600),
        (3, 1.7926, 0.4789, 0.8585, 0.8080, 0.9880),
        (4, 2.0300, 0.4463, 0.9060, None, 1.0),
        (8, 2.4229, 0.4064, 0.9846, None, 1.0),
    ],
)
def test_the_reference_table(k, rho, beta, accepted, r3w, best):
    found = facts(*PAIR3, k)
    assert (found["rho"], found["beta"], found["optimum"]) == pytest.approx((rho, beta, best), abs=LISTED)
    assert found["rho"] * found["beta"] == pytest.approx(accepted, abs=LISTED)
    assert r3w is None or found["R3w"] == pytest.approx(r3w, abs=LISTED)


@pytest.mark.parametrize("k, rho, accepted", [(2, 1.5, 0.75), (3, 1.9395, 0.7939), (4, 2.3144, 0.8314), (8, 3.2946, 0.9295)])
def test_the_second_reference_pair(k, rho, accepted):
    found = facts(*PAIR4, k)
    assert (found["rho"], found["rho"] * found["beta"]) == pytest.approx((rho, accepted), abs=LISTED)


def test_larger_rho_accepts_less_and_the_cover_example():
    found = facts(*PAIR3, 2)
    assert float(any_of(torch.tensor(found["beta at k"]), torch.tensor(2.0))) == pytest.approx(0.6975, abs=LISTED)
    for k, chance in ((2, 0.75), (4, 0.9375)):
        cover = facts(row(1, 0), row(0.5, 0.5), k)
        assert cover["rho"] * cover["beta"] == pytest.approx(chance)


@pytest.mark.parametrize("k", [2, 3, 5, 8, 16])
def test_g_decreases_and_the_upper_end_of_its_root_is_kept(k):
    p, q = pairs(200, 50, k)
    sums, count = Sums(p, q), torch.full((200, 1), float(k), dtype=torch.float64)
    grid = torch.linspace(1, k, 50, dtype=torch.float64).expand(200, -1).contiguous()
    beta = sums.beta(grid)
    assert (beta - torch.stack([torch.minimum(q, p / r).sum(1) for r in grid[0]], 1)).abs().max() < EXACT
    g = any_of(beta, count) - grid * beta
    assert (g.diff(dim=1) < EXACT).all() and (g[:, 0] > -EXACT).all() and (g[:, -1] < EXACT).all()
    rho = sums.division(count)
    at = any_of(sums.beta(rho), count) - rho * sums.beta(rho)
    below = any_of(sums.beta(rho - 1e-7), count) - (rho - 1e-7) * sums.beta(rho - 1e-7)
    assert (at < EXACT).all() and (below > 0).all()


@pytest.mark.parametrize("k", [2, 3, 8, 16])
def test_closed_forms_and_bounds_on_random_instances(k):
    """Acceptance and residual at rho agree with the general forms; K-SEQ lies between its guarantee and the optimum."""
    p, q = pairs(500, 50, 10 + k)
    rho, beta, _, r3w, best = solve(p, q, [k] * 500).T
    accepted = any_of(beta, torch.tensor(float(k)))
    assert (accepted - rho * beta).abs().max() < EXACT
    assert (accepted - torch.minimum(p, rho[:, None] * q).sum(1)).abs().max() < EXACT
    general = p - torch.minimum(q, p / rho[:, None]) * (accepted / beta)[:, None]
    assert general.min() > -EXACT
    assert (general - (p - rho[:, None] * q).clamp(min=0)).abs().max() < EXACT
    assert (accepted <= best + EXACT).all() and (accepted >= r3w - EXACT).all()
    assert (accepted >= best * (1 - (1 - 1 / k) ** k) - EXACT).all()
    fewer = solve(p, q, [k - 1] * 500)
    assert (accepted >= (fewer[:, 0] * fewer[:, 1]) - EXACT).all()


def test_equal_and_disjoint_distributions():
    same = facts(PAIR4[0], PAIR4[0], 4)
    assert same["rho"] == pytest.approx(1) and same["beta"] == pytest.approx(1) and same["optimum"] == pytest.approx(1)
    apart = facts(row(1, 0), row(0, 1), 3)
    assert (apart["rho"], apart["beta"], apart["R3w"], apart["optimum"]) == (1, 0, 0, 0)


def test_float32_rows_of_a_large_vocabulary():
    p, q = (part.float() for part in pairs(4, 5000, 3))
    narrow, exact = solve(p, q, [4] * 4), solve(p.double(), q.double(), [4] * 4)
    assert (narrow - exact).abs().max() < 1e-5


def subsets(p: Tensor, q: Tensor, k: int) -> float:
    """The optimum by trying every set of tokens."""
    masks = torch.tensor(list(product((0.0, 1.0), repeat=len(p))), dtype=torch.float64)
    return float(((masks @ p) + 1 - (masks @ q) ** k).min())


def test_sorted_prefixes_find_the_best_set():
    for seed in range(40):
        p, q = (part[0] for part in pairs(1, 2 + seed % 8, seed))
        for k in (2, 3, 4):
            assert facts(p, q, k)["optimum"] == pytest.approx(subsets(p, q, k), abs=EXACT)


def test_r3w_on_random_instances():
    """Residual by residual, as `recursive_rejection` goes, against the closed form."""
    p, q = pairs(300, 12, 5)
    for k in (2, 3, 8):
        residual, missed = p, torch.ones(300, 1, dtype=torch.float64)
        for _ in range(k):
            left = (residual - q).clamp(min=0)
            missed = missed * left.sum(1, keepdim=True)
            residual = left / left.sum(1, keepdim=True).clamp(min=1e-300)
        assert (solve(p, q, [k] * 300)[:, 3:4] - (1 - missed)).abs().max() < 1e-10


def test_r3w_by_enumeration():
    """The closed form against the acceptance rule itself."""
    p, q = PAIR3
    for k, chance in ((1, 0.7), (2, 0.76), (3, 0.808)):
        count = torch.tensor([[float(k)]], dtype=torch.float64)
        assert Sums(p[None], q[None]).recursive(count, 8).item() == pytest.approx(chance)
    u = torch.linspace(0, 1, 11, dtype=torch.float64)[:-1] + 0.05
    accepted = 0.0
    for tokens in product(range(3), repeat=2):
        draft = Draft(tokens, (-1, -1), q.expand(2, -1), how="sampled", source=("test",) * 2)
        weight = q[list(tokens)].prod().item()
        found = [recursive_rejection(draft, output_of(p.expand(3, -1)), torch.stack((a, b, b))).path for a in u for b in u]
        accepted += weight * sum(map(bool, found)) / len(found)
    assert accepted == pytest.approx(0.76, abs=0.02)


# -- the law of the text -----------------------------------------------------------------------------------------------


def sequences(tokens: tuple[tuple[int, ...], ...], q: dict[tuple[int, ...], Tensor]) -> Draft:
    """K sequences as a draft; q by prefix."""
    trie, at, prefixes = TreeBuilder(), dict.fromkeys(range(len(tokens)), -1), []
    for depth in range(len(tokens[0])):
        size = len(trie)
        at = lengthen(trie, [tokens[s][depth] for s in at], at)
        first = {node: s for s, node in reversed(at.items())}
        prefixes += [tokens[first[node]][:depth] for node in range(size, len(trie))]
    rows = torch.stack([q[prefix] for prefix in prefixes])
    return trie.draft("test", q=rows, how="sampled as sequences", copies=tuple(map(tuple, trie["copies"])))


def worlds(vocab: int, depth: int, seed: int) -> tuple[dict, dict]:
    """p and q behind every prefix shorter than or as long as `depth`."""
    prefixes = [prefix for length in range(depth + 1) for prefix in product(range(vocab), repeat=length)]
    p, q = pairs(len(prefixes), vocab, seed)
    return dict(zip(prefixes, p, strict=True)), dict(zip(prefixes, q, strict=True))


def probs_of(draft: Draft, p: dict[tuple[int, ...], Tensor]) -> Tensor:
    return torch.stack([p[()], *(p[tuple(draft.tokens[i] for i in draft.path_to(node))] for node in range(len(draft)))])


def drafts(k: int, depth: int, q: dict):
    """(probability, draft) of every way to draw k sequences."""
    vocab = len(q[()])
    singles = []
    for text in product(range(vocab), repeat=depth):
        weight = math.prod(q[text[:i]][text[i]].item() for i in range(depth))
        if weight:
            singles.append((weight, text))
    for chosen in product(singles, repeat=k):
        yield math.prod(weight for weight, _ in chosen), sequences(tuple(text for _, text in chosen), q)


def sides(draft: Draft, probs: Tensor):
    """(probability, u): every copy's die below and above its threshold; the last die is 0.5."""
    verification = k_seq(draft, output_of(probs), torch.full((draft.uniforms + 1,), 0.5, dtype=torch.float64))
    ratios = [min(1.0, verification.p[i] / verification.q[i]) for i in range(len(draft)) for _ in draft.copies[i]]
    for below in product((True, False), repeat=len(ratios)):
        weight = math.prod(c if yes else 1 - c for c, yes in zip(ratios, below, strict=True))
        if weight:
            uniforms = [c / 2 if yes else (1 + c) / 2 for c, yes in zip(ratios, below, strict=True)]
            yield weight, torch.tensor([*uniforms, 0.5], dtype=torch.float64)


def texts(k: int, depth: int, p: dict, q: dict, change=lambda draft, u: u) -> tuple[Tensor, float]:
    """Joint law of the first `depth` tokens by running the rule on everything that can happen; tokens per step."""
    vocab = len(p[()])
    joint, length = torch.zeros((vocab,) * depth, dtype=torch.float64), 0.0
    for weight, draft in drafts(k, depth, q):
        probs = probs_of(draft, p)
        for chance, u in sides(draft, probs):
            verification = k_seq(draft, output_of(probs), change(draft, u))
            residual = verification.residual[verification.row]
            assert verification.token == draw(residual[None], u[-1:]).item()
            accepted = tuple(draft.tokens[i] for i in verification.path)
            length += weight * chance * (len(accepted) + 1)
            for token, share in enumerate(residual.tolist()):
                spread(joint, (*accepted, token)[:depth], weight * chance * share, p)
    return joint, length


def spread(joint: Tensor, text: tuple[int, ...], weight: float, p: dict) -> None:
    """Add a text that may stop short; what follows it is drawn from the target."""
    if len(text) == joint.dim():
        joint[text] += weight
    elif weight:
        for token, chance in enumerate(p[text].tolist()):
            spread(joint, (*text, token), weight * chance, p)


def target_law(p: dict, depth: int) -> Tensor:
    joint = torch.zeros((len(p[()]),) * depth, dtype=torch.float64)
    spread(joint, (), 1.0, p)
    return joint


@pytest.mark.parametrize("k, pair", [(1, PAIR3), (2, PAIR3), (3, PAIR3), (2, PAIR4), (3, PAIR4)])
def test_one_position_emits_the_target(k, pair):
    p, q = pair
    joint, length = texts(k, 1, {(): p, **{(t,): p for t in range(len(p))}}, {(): q})
    found = facts(p, q, k) if k > 1 else {"rho": 1, "beta": torch.minimum(p, q).sum().item()}
    assert total_variation(joint, p) < EXACT
    assert length - 1 == pytest.approx(found["rho"] * found["beta"], abs=EXACT)


@pytest.mark.parametrize("seed", range(4))
def test_two_positions_emit_the_joint_law(seed):
    """Survivors, a rho of their own, and the bonus: two sequences of two tokens over three words."""
    p, q = worlds(3, 2, seed)
    joint, _ = texts(2, 2, p, q)
    assert total_variation(joint, target_law(p, 2)) < EXACT


def walked(k: int, p: dict, q: dict, keep=lambda copies, sequence: copies) -> tuple[Tensor, float]:
    """Law of two tokens over two words, and tokens per step, in closed form from rho alone; `keep` says which sequences go on."""
    joint, length = torch.zeros(2, 2, dtype=torch.float64), 0.0
    for weight, draft in drafts(k, 2, q):
        verification = k_seq(draft, output_of(probs_of(draft, p)), torch.full((draft.uniforms + 1,), 0.5, dtype=torch.float64))

        def go(text: tuple[int, ...], at: int, alive: set[int], left: float, draft=draft, verification=verification) -> float:
            children, total = draft.children(at), 0.0
            if not children:
                spread(joint, text[:2], left, p)
                return left
            for sequence, child in sorted((s, c) for c in children for s in draft.copies[c] if s in alive):
                chance = left * min(1.0, verification.p[child] / verification.q[child])
                left -= chance
                total += chance + go((*text, draft.tokens[child]), child, keep(set(draft.copies[child]), sequence), chance)
            for token, share in enumerate(verification.residual[at + 1].tolist()):
                spread(joint, (*text, token)[:2], left * share, p)
            return total + left

        length += go((), -1, set(range(k)), weight)
    return joint, length


@pytest.mark.parametrize("k, worlds_tried", [(3, 4), (4, 1)])
def test_more_sequences_in_closed_form(k, worlds_tried):
    for seed in range(worlds_tried):
        p, q = worlds(2, 2, 20 + seed)
        assert total_variation(walked(k, p, q)[0], target_law(p, 2)) < EXACT


def test_one_sequence_is_speculative_sampling(llama):
    """The same uniforms give the same tokens, verdicts and numbers."""
    for sampling in (Sampling(1.0), Sampling(0.7, top_p=0.9), GREEDY):
        options = {"sampling": sampling, "max_tokens": 60, "length": 4, "recorded": True}
        one = run_steps(llama, "spectr", PROMPT, sequences=1, **options)
        other = run_steps(llama, "speculative_sampling", PROMPT, **options)
        assert tokens_of(one) == tokens_of(other)
        for a, b in zip(one, other, strict=True):
            assert [(n.token, n.p, n.q, n.u, n.verdict) for n in a.nodes] == [(n.token, n.p, n.q, n.u, n.verdict) for n in b.nodes]


def test_a_refused_token_never_comes_back_from_the_residual():
    rng = torch.Generator().manual_seed(0)
    p, q = worlds(4, 2, 9)
    refused = 0
    for _, draft in list(drafts(3, 1, q)):
        for _ in range(3):
            verification = k_seq(
                draft, output_of(probs_of(draft, p)), torch.rand(draft.uniforms + 1, generator=rng, dtype=torch.float64)
            )
            if not verification.path:
                refused += 1
                assert verification.token not in draft.tokens
                assert all(verification.residual[0, token] == 0 for token in draft.tokens)
    assert refused > 5


# -- planted faults ----------------------------------------------------------------------------------------------------


def same_everywhere(p: Tensor) -> dict:
    return {(): p, **{(t,): p for t in range(len(p))}}


def test_fault_no_division(monkeypatch):
    """rho = 1 with two guesses, the negative residual clipped."""
    honest = Sums.division
    monkeypatch.setattr(Sums, "division", lambda sums, k: torch.ones_like(honest(sums, k)))
    p, q = PAIR3
    joint, _ = texts(2, 1, same_everywhere(p), {(): q})
    assert joint.tolist() == pytest.approx([0.35, 0.39, 0.26]) and total_variation(joint, p) == pytest.approx(0.15)


@pytest.mark.parametrize("k, distance", [(2, 0.044), (3, 0.078)])
def test_fault_repeats_are_tried_once(k, distance):
    def once(draft: Draft, u: Tensor) -> Tensor:
        first = [i == 0 for through in draft.copies for i in range(len(through))]
        return torch.where(torch.tensor([*first, True]), u, 1.0)

    p, q = PAIR4
    joint, _ = texts(k, 1, same_everywhere(p), {(): q}, once)
    assert total_variation(joint, p) == pytest.approx(distance, abs=6e-4)
    if k == 2:
        assert joint.tolist() == pytest.approx([0.4444, 0.3, 0.1778, 0.0778], abs=LISTED)


@pytest.mark.parametrize("k, distance", [(2, 0.066), (3, 0.098)])
def test_fault_drawn_without_replacement(k, distance):
    p, q = PAIR4
    rho = facts(p, q, k)["rho"]
    out = torch.zeros(4, dtype=torch.float64)
    residual = (p - rho * q).clamp(min=0)
    for tokens in product(range(4), repeat=k):
        if len(set(tokens)) < k:
            continue
        left, mass = 1.0, 1.0
        for token in tokens:
            left *= q[token].item() / mass
            mass -= q[token].item()
        for token in tokens:
            chance = min(1.0, (p[token] / (rho * q[token])).item())
            out[token] += left * chance
            left *= 1 - chance
        out += left * residual / residual.sum()
    assert total_variation(out, p) == pytest.approx(distance, abs=6e-4)


def test_fault_rho_of_all_sequences_at_every_depth(monkeypatch):
    p, q = worlds(2, 2, 20)
    honest = total_variation(walked(3, p, q)[0], target_law(p, 2))
    monkeypatch.setattr(k_seq_module, "offered", lambda draft: dict.fromkeys(draft.by_parent, 3))
    assert honest < EXACT and total_variation(walked(3, p, q)[0], target_law(p, 2)) > 1e-3


def test_fewer_survivors_are_lossless_but_shorter(monkeypatch):
    """Only the accepted sequence goes on, with the rho of one guess: still exact, fewer tokens per step."""
    p, q = worlds(2, 2, 20)
    _, whole = walked(3, p, q)
    monkeypatch.setattr(k_seq_module, "offered", lambda draft: {parent: 3 if parent < 0 else 1 for parent in draft.by_parent})
    joint, alone = walked(3, p, q, lambda copies, sequence: {sequence})
    assert total_variation(joint, target_law(p, 2)) < EXACT and alone < whole - 1e-3


def frozen(drafter, accept):
    """rho as if all four sequences were still alive at every depth."""

    def rule(draft, output, u):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(k_seq_module, "offered", lambda draft: dict.fromkeys(draft.by_parent, 4))
            return accept(draft, output, u)

    return drafter, rule


def test_a_fault_of_the_loop_is_noticed():
    """The honest loop with two sequences passes the same test in `test_lossless_statistics`."""
    assert misfit(counted("spectr", Sampling(), frozen, sequences=4, length=2), expected(Sampling())) > LIMIT


# -- the walk ----------------------------------------------------------------------------------------------------------


def test_copies_take_turns_in_the_order_of_their_sequences():
    """0 is tried, then 1, then 0 again: the second copy of token 0 wins, and token 1 was refused in between."""
    draft = sequences(((0,), (1,), (0,)), {(): row(0.5, 0.5)})
    assert draft.tokens == (0, 1) and draft.copies == ((0, 2), (1,)) and draft.uniforms == 3
    uniforms = dealt(draft, [0.9, 0.1, 0.8])
    assert uniforms == ({0: 0.9, 2: 0.1}, {1: 0.8})
    path, verdicts, u = walk_copies(draft, uniforms, [0.2, 0.2], [0.5, 0.5])
    assert path == (0,) and verdicts == ("accepted", "rejected") and u == (0.1, 0.8)


def test_the_uniform_of_a_refused_node_is_its_lowest_that_was_tried():
    draft = sequences(((0,), (0,), (1,), (0,)), {(): row(0.5, 0.5)})
    path, verdicts, u = walk_copies(draft, dealt(draft, [0.9, 0.7, 0.0, 0.2]), [0.2, 0.2], [0.5, 0.5])
    assert path == (1,) and verdicts == ("rejected", "accepted") and u == (0.7, 0.2)


def test_all_sequences_with_the_accepted_token_go_on():
    q = {(): row(0.5, 0.5), (0,): row(0.5, 0.5), (1,): row(0.5, 0.5)}
    draft = sequences(((0, 0), (1, 0), (0, 1)), q)
    assert draft.copies == ((0, 2), (1,), (0,), (1,), (2,)) and offered(draft) == {-1: 3, 0: 2, 1: 1}
    verification = k_seq(draft, output_of(row(0.5, 0.5).expand(6, -1)), torch.zeros(7, dtype=torch.float64))
    assert verification.path == (0, 2) and verification.verdicts == (
        "accepted",
        "not judged",
        "accepted",
        "not judged",
        "not judged",
    )
    assert verification.scores[0]["copies"] == 2 and verification.scores[2]["guesses"] == 2
    assert [key for key in verification.scores[0] if key.startswith("u of")] == ["u of sequence 1", "u of sequence 3"]


def test_nothing_drafted_is_an_ordinary_draw():
    verification = k_seq(Draft((), ()), output_of(PAIR4[0][None]), torch.tensor([0.75], dtype=torch.float64))
    assert verification.path == () and verification.token == 2


# -- the door ----------------------------------------------------------------------------------------------------------


def test_other_rules_and_other_drafts_are_refused():
    draft = sequences(((0,), (0,)), {(): row(0.5, 0.5)})
    probs = output_of(row(0.5, 0.5).expand(2, -1))
    with pytest.raises(ValueError, match="recursive_rejection is not exact for a draft whose nodes were sampled as sequences"):
        recursive_rejection(draft, probs, torch.rand(3))
    assert match(draft, probs, torch.rand(3)).token in (0, 1)
    for other in (chain([1], "test"), Draft((1,), (-1,), row(0.5, 0.5)[None], how="sampled", source=("test",))):
        with pytest.raises(ValueError, match="k_seq is not exact"):
            k_seq(other, probs, torch.rand(2))


def test_a_draft_refuses_sequences_that_cannot_be():
    good = sequences(((0, 0), (1, 0)), {(): row(0.5, 0.5), (0,): row(0.5, 0.5), (1,): row(0.5, 0.5)})
    assert good.uniforms == 4 and good.cut(good.depths == 1).copies == ((0,), (1,)) and chain([1, 2], "test").uniforms == 2
    for copies, words in (
        (((0,), (1,), (0,)), "4 nodes but 3 entries"),
        (((0,), (), (0,), (1,)), "once each"),
        (((1, 0), (2,), (0,), (2,)), "ascending"),
        (((0,), (1,), (1,), (0,)), "elsewhere than its parent"),
        (((0,), (0,), (0,), (0,)), "elsewhere than its parent"),
        (None, "must say which sequences"),
    ):
        with pytest.raises(ValueError, match=words):
            replace(good, copies=copies)
    with pytest.raises(ValueError, match="must not say which sequences"):
        replace(chain([1], "test"), copies=((0,),))


# -- the drafter -------------------------------------------------------------------------------------------------------


def draft_of(family, sampling: Sampling, seed: int = 0, tokens=PROMPT, **params) -> Draft:
    method = METHODS["spectr"]
    drafter, _ = method.build(family, method.checked(params), sampling)
    drafter.begin(tokens, None)
    return drafter.propose(tokens, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("sampling", [Sampling(0.5), Sampling(0.7, top_k=3, top_p=0.9)])
def test_q_is_what_each_token_was_drawn_from(llama, sampling):
    draft = draft_of(llama, sampling, sequences=6, length=4)
    assert draft.uniforms == 24 and draft.calls == 4 and len(draft) < 24
    for i, token in enumerate(draft.tokens):
        text = [*PROMPT, *(draft.tokens[j] for j in draft.path_to(draft.parents[i]))]
        q = sampling.probabilities(llama.draft.extend(TreeCache(), text))[0]
        assert total_variation(draft.q[i], q) < 1e-4 and draft.q[i, token] > 0
    for children in draft.by_parent.values():
        assert len({draft.tokens[child] for child in children}) == len(children)


def test_each_sequence_is_distributed_as_q(llama):
    """First tokens of all four sequences of 100 drafts against q."""
    q = Sampling(0.5).probabilities(llama.draft.extend(TreeCache(), PROMPT))[0]
    found, repeats = Counter(), 0
    for seed in range(100):
        draft = draft_of(llama, Sampling(0.5), seed, sequences=4, length=1)
        found.update({token: len(through) for token, through in zip(draft.tokens, draft.copies, strict=True)})
        repeats += 4 - len(draft)
    for token in q.topk(4).indices.tolist():
        error = (q[token] * (1 - q[token]) / 400).sqrt()
        assert abs(found[token] / 400 - q[token]) < 4 * error
    assert repeats > 20


def test_one_sequence_at_temperature_zero(llama):
    draft = draft_of(llama, GREEDY, sequences=8, length=4)
    assert draft.copies == ((0,),) * 4 and draft.parents == (-1, 0, 1, 2)


def test_a_sequence_stops_behind_an_end_of_text():
    """From 0 half of the sequences go to the end token 1, the others to 2 and on to 3."""
    table = torch.tensor([[0, 0.5, 0.5, 0], [0, 0, 0, 1.0], [0, 0, 0, 1.0], [0, 0, 0, 1.0]]).clamp(min=1e-9)
    target = markov(table)
    ending = Target(target.model, target.vocab, target.context, frozenset({1}))
    draft = draft_of(toy_family(ending, ending), Sampling(1.0), tokens=[0], sequences=6, length=3)
    assert sorted(draft.tokens) == [1, 2, 3, 3] and draft.children(draft.tokens.index(1)) == ()
    steps = run_steps(toy_family(ending, ending), "spectr", [0], sampling=Sampling(1.0), sequences=6, length=3, seed=1)
    assert all(node.verdict != "rejected" for step in steps for node in step.nodes)


def test_drafts_follow_the_dice_they_are_handed(llama):
    found = [draft_of(llama, Sampling(1.0), seed).tokens for seed in (0, 0, 1, 2)]
    assert found[0] == found[1] and len(set(found)) == 3


def test_more_sequences_raise_the_chance_at_the_root(embedded):
    """On real text: K-SEQ with six guesses between one guess (the recorded overlap) and the best possible rule."""
    ids = embedded.tokenizer("Once upon a time there was a little girl named Lily. She had")["input_ids"]
    steps = run_steps(embedded, "spectr", ids, sampling=Sampling(1.0), sequences=6, recorded=True)
    roots = [(step.nodes[0].scores, step.rows[0].overlap) for step in steps if step.nodes]
    chances = [scores["rho"] * scores["beta"] for scores, _ in roots]
    for chance, (scores, overlap) in zip(chances, roots, strict=True):
        assert max(overlap, scores["R3w"]) - 1e-6 <= chance <= scores["optimum"] + 1e-6
        assert 1 <= scores["rho"] <= scores["guesses"] == 6
    assert sum(chances) - sum(overlap for _, overlap in roots) > 0.1 * len(roots)


def test_judging_takes_one_copy_from_the_device(llama, monkeypatch):
    """Everything the rule finds leaves the device in a single list, and nothing of the size of the vocabulary."""
    draft = draft_of(llama, Sampling(0.5), sequences=8, length=8)
    probs = torch.rand(len(draft) + 1, llama.target.vocab).softmax(1)
    sizes, tolist = [], Tensor.tolist

    def counted_tolist(tensor: Tensor):
        sizes.append(tensor.numel())
        return tolist(tensor)

    u = torch.rand(draft.uniforms + 1)
    monkeypatch.setattr(Tensor, "tolist", counted_tolist)
    k_seq(draft, output_of(probs), u)
    assert len(sizes) == 2 and min(sizes) == draft.uniforms  # the uniforms are on the CPU already
    assert max(sizes) <= (3 + len(OF_POSITION)) * len(draft) + 1


# -- the view ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trace(embedded) -> Trace:
    """Six sequences of four tokens on real text."""
    prompt = "Once upon a time there was a little girl named Lily. She had"
    run = Run(embedded, "spectr", {"sequences": 6, "length": 4}, prompt, Sampling(1.0), max_tokens=24)
    list(run)
    return run.trace


def several(trace: Trace):
    """(step, position) of every position with more than one guess."""
    for step in trace.steps:
        for r in range(len(step.rows)):
            if (position := view.position_of(step, r)) is not None and position.guesses > 1:
                yield step, position


def test_sequences_are_alive_as_long_as_they_agree_with_the_text(trace):
    for step in trace.steps:
        if not step.nodes:
            continue
        found = view.alive(step)
        assert found[0] == (1, 2, 3, 4, 5, 6) and [len(survivors) > 0 for survivors in found].count(True) <= len(step.path) + 1
        for above, below in zip(found, found[1:], strict=False):
            assert set(below) <= set(above)
        table = view.bundle_table(step, trace.token_bytes)
        assert len(table) == len(step.nodes) and table[table.depth == 1].copies.sum() == 6
        figure = view.bundle_figure(step, trace.token_bytes, 0)
        assert sum(line.x.count(None) for line in figure.data if line.mode == "lines") == table.copies.sum()
        assert f"{table.copies.sum()} tokens drafted" in view.cost_words(step)


def test_trials_repeat_the_verdicts(trace):
    """The table is rebuilt from the uniforms; its accepted guess is the accepted node, and nothing is tried behind it."""
    for step, position in several(trace):
        table = view.trials_table(step, position, trace.token_bytes)
        assert len(table) == position.guesses and table.sequence.is_monotonic_increasing
        reached = position.row == 0 or step.nodes[position.row - 1].verdict == "accepted"
        accepted = [step.nodes[child].verdict for child in position.children].count("accepted")
        verdicts = list(table.verdict)
        assert verdicts.count("accepted") == accepted
        if not reached:
            assert set(verdicts) == {"not tried"}
        elif accepted:
            place = verdicts.index("accepted")
            assert set(verdicts[:place]) <= {"rejected"} and set(verdicts[place + 1 :]) <= {"not tried"}
        tried = table[table.verdict != "not tried"]
        assert ((tried.u < tried["min(1, p / ρq)"]) == (tried.verdict == "accepted")).all()


def test_the_curve_the_bars_and_the_chances_agree(trace):
    count = 0
    for step, position in several(trace):
        count += 1
        row = step.rows[position.row]
        curve = position_view.g_table(row, position)
        assert curve["g(ρ)"].is_monotonic_decreasing or curve["g(ρ)"].diff().max() < 1e-6
        at = curve[curve["ρ"] == position.rho].iloc[0]
        assert at["β(ρ)"] == pytest.approx(position.beta, abs=1e-5) and at["g(ρ)"] == pytest.approx(0, abs=1e-4)
        bars = position_view.overlap_table(row, position, trace.token_bytes)
        assert bars["p"].sum() == pytest.approx(1, abs=1e-5) and bars["ρq"].sum() == pytest.approx(position.rho, abs=1e-4)
        assert bars["accepted: min(p, ρq)"].sum() == pytest.approx(position.accepted, abs=1e-4)
        assert bars["residual: p − ρq"].sum() == pytest.approx(1 - position.accepted, abs=1e-4)
        chance = dict(position_view.chances(position).itertuples(index=False))
        assert chance["R1: one guess only"] <= chance["R3w: recursive rejection"] + 1e-6
        assert chance["R3w: recursive rejection"] <= chance["K-SEQ with ρ*"] + 1e-6
        assert chance["K-SEQ with ρ = k"] <= chance["K-SEQ with ρ*"] + 1e-6 <= chance["optimal transport"] + 2e-6
    assert count > 10


def test_the_largest_flow_is_what_the_sorted_tokens_say(trace):
    step, position = next(several(trace))
    for k in (2, 3, 6, 8):
        found = transport_view.transport(step.rows[position.row], k)
        assert found.solved == pytest.approx(found.read, abs=1e-7) and found.sets <= transport_view.SETS
    assert transport_view.transport(step.rows[position.row], position.guesses).solved >= position.optimum - 1e-6
    p, q = PAIR3
    for k, best in ((1, 0.7), (2, 0.86), (3, 0.988), (4, 1.0)):
        sets = list(combinations_with_replacement(range(3), k))
        assert transport_view.largest_flow(p.tolist(), q.tolist(), sets) == pytest.approx(best, abs=1e-7)
        assert transport_view.best(p.tolist(), q.tolist(), k) == pytest.approx(best)


def test_without_a_q_there_is_no_problem_to_solve(trace):
    row = msgspec.structs.replace(trace.steps[0].rows[0], q=None)
    with pytest.raises(ValueError, match="no transport problem"):
        transport_view.transport(row, 2)
    drawn = msgspec.structs.replace(row, q=row.p)
    with pytest.raises(ValueError, match="at most 64 guesses; there are 600"):
        transport_view.transport(drawn, 600)
    empty = msgspec.structs.replace(drawn, tokens=(), p=(), q=(), residual=())
    with pytest.raises(ValueError, match="no transport problem"):
        transport_view.transport(empty, 2)


@pytest.mark.parametrize("dark", [False, True])
def test_figures_escape_what_the_model_wrote(trace, dark):
    token_bytes = dict.fromkeys(trace.token_bytes, b"<b>$x$</b>")
    step, position = next(several(trace))
    row = step.rows[position.row]
    figures = [view.bundle_figure(step, token_bytes, 1, dark), position_view.overlap_figure(row, position, token_bytes, dark)]
    figures += [position_view.g_figure(row, position, dark), position_view.chances_figure(position, dark)]
    sampled = " ".join(figure.to_json() for figure in figures)
    assert "&lt;b&gt;&#36;" in sampled.replace("\\u0026", "&").replace("\\u003c", "<") and "<b>$x" not in sampled
    assert view.bundle_alt(step) and position_view.chances_words(position)


def test_traces_of_others_do_not_break_the_view(trace):
    """Scores that are missing or cannot be: nothing is shown instead of a wrong picture."""
    step = trace.steps[0]

    def with_scores(scores: dict[str, float]):
        nodes = tuple(msgspec.structs.replace(node, scores=scores) for node in step.nodes)
        return msgspec.structs.replace(step, nodes=nodes)

    for scores in ({}, {"rho": 1.0}, step.nodes[0].scores | {"rho": 0.0}, {"u of sequence x": 0.5, "rho": 1.0}):
        broken = with_scores(scores)
        assert view.position_of(broken, 0) is None
        assert view.bundle_figure(broken, trace.token_bytes) and len(view.bundle_table(broken, trace.token_bytes)) == len(
            step.nodes
        )
    assert view.position_of(msgspec.structs.replace(step, rows=()), 0) is None


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_step_page_draws_the_view(temperature):
    settings = Settings(prompt="Once upon a time", method="spectr", temperature=temperature, max_tokens=16)
    at = press(page_opened(**address.parameters(settings, 1, None)), "run")
    assert not at.exception and not errors(at) and state(at).trace.header.method == "spectr"
    assert "A strand is a draft sequence" in captions(at)
    if temperature == 0:
        assert "At temperature 0 all sequences would be" in captions(at)
        return
    state(at).go(0)
    state(at).pick(-1)  # the root: all sequences are alive there
    at.run()
    assert "In the order of trial" in captions(at) and "from which the correction is drawn" in captions(at)
    next(button for button in at.button if button.key.startswith("spectr_lp_")).click().run()
    assert not at.exception and any("The largest flow over" in m.value for m in at.markdown)


def captions(at) -> str:
    return " ".join(caption.value for caption in at.caption)
