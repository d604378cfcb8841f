"""The acceptance rules, exactly: tiny vocabularies in float64, every draft and every side of every uniform.

The emitted distribution must equal the target's to 1e-12. Faults planted on purpose must miss it by the total
variation that the method specifications state, which shows that the same check would notice them.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise, permutations, product
from math import prod

import pytest
import torch
from torch import Tensor

from decoding.draft import Draft, chain
from decoding.drafting.sampled_tree import refill
from decoding.sample import draw, without
from decoding.verify import check, judged, match, recursive_rejection
from tests.toys import output_of, total_variation

EXACT = 1e-12
LISTED = 6e-4  # the specifications print three digits


def row(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


PAIR3 = row(0.5, 0.3, 0.2), row(0.2, 0.5, 0.3)
PAIR4 = row(0.4, 0.3, 0.2, 0.1), row(0.1, 0.2, 0.3, 0.4)


def random_pair(seed: int, vocab: int) -> tuple[Tensor, Tensor]:
    """p and q with a few zeros, as top-k and top-p leave them."""
    rng = torch.Generator().manual_seed(seed)
    pair = torch.rand(2, vocab, generator=rng, dtype=torch.float64) ** 3
    pair[torch.rand(2, vocab, generator=rng) < 0.2] = 0
    pair[:, seed % vocab] += 0.01
    return tuple(pair / pair.sum(1, keepdim=True))


# -- all drafts of k siblings, with their probability ------------------------------------------------------------------


def siblings(tokens: tuple[int, ...], q: Tensor, how: str = "sampled") -> Draft:
    """k children of the root; q (k, vocab)."""
    return Draft(tokens, (-1,) * len(tokens), q if how != "deterministic" else None, how=how, source=("test",) * len(tokens))


def independent(q: Tensor, k: int) -> Iterator[tuple[float, Draft]]:
    for tokens in product(range(len(q)), repeat=k):
        if weight := prod(q[t].item() for t in tokens):
            yield weight, siblings(tokens, q.expand(k, -1))


def shrinking(q: Tensor, tokens: tuple[int, ...]) -> Tensor:
    """(k, vocab) what each of `tokens` was drawn from, without replacement; by the functions the method uses."""
    rows, seen = [q[None]], []
    for token in tokens[:-1]:
        seen.append(torch.tensor([token]))
        rows.append(refill(without(rows[-1], seen[-1]), seen))
    return torch.cat(rows)


def distinct(q: Tensor, k: int) -> Iterator[tuple[float, Draft]]:
    for tokens in permutations(range(len(q)), k):
        rows = shrinking(q, tokens)
        if weight := prod(rows[i, t].item() for i, t in enumerate(tokens)):
            yield weight, siblings(tokens, rows, "sampled without replacement")


# -- what a rule emits -------------------------------------------------------------------------------------------------


def sides(draft: Draft, p: Tensor) -> Iterator[tuple[float, Tensor]]:
    """(probability, u) for every combination of the n uniforms below and above their thresholds; the last die is 0.5."""
    chances = [min(1.0, p[i].item() / draft.q[i, token].item()) for i, token in enumerate(draft.tokens)]
    for below in product((True, False), repeat=len(draft)):
        weight = prod(c if yes else 1 - c for c, yes in zip(chances, below, strict=True))
        uniforms = [c / 2 if yes else (1 + c) / 2 for c, yes in zip(chances, below, strict=True)]
        if weight:
            yield weight, torch.tensor([*uniforms, 0.5], dtype=torch.float64)


def texts(draft: Draft, probs: Tensor) -> Counter:
    """Emitted tokens -> probability, by running recursive_rejection on every side of its uniforms."""
    found = Counter()
    p, _ = judged(draft, probs)
    for weight, u in sides(draft, p):
        verification = recursive_rejection(draft, output_of(probs), u)
        residual = verification.residual[verification.row]
        assert verification.token == draw(residual[None], u[-1:]).item()
        accepted = tuple(draft.tokens[i] for i in verification.path)
        for token, chance in enumerate(residual.tolist()):
            found[(*accepted, token)] += weight * chance
    return found


def emitted(drafts, p: Tensor) -> tuple[Tensor, float]:
    """(vocab,) distribution of the first token over all drafts of siblings; the chance that a sibling was accepted."""
    out, accepted = torch.zeros_like(p), 0.0
    for weight, draft in drafts:
        for text, chance in texts(draft, p.expand(len(draft) + 1, -1)).items():
            out[text[0]] += weight * chance
            accepted += weight * chance * (len(text) > 1)
    return out, accepted


def walked(drafts, p: Tensor) -> tuple[Tensor, float]:
    """The same in closed form, from `judged` alone; also for drafts that lie about their q."""
    out, accepted = torch.zeros_like(p), 0.0
    for weight, draft in drafts:
        turns, residual = judged(draft, p.expand(len(draft) + 1, -1))
        left = weight
        for i, token in enumerate(draft.tokens):
            kept = left * min(1.0, turns[i].item() / draft.q[i, token].item())
            out[token] += kept
            accepted += kept
            left -= kept
        out += left * residual[0]
    return out, accepted


@pytest.mark.parametrize("drafts", [independent, distinct])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_siblings_emit_the_target(drafts, k):
    for p, q in (PAIR4, PAIR3, *(random_pair(seed, 4) for seed in range(3))):
        out, _ = emitted(drafts(q, k), p)
        assert total_variation(out, p) < EXACT


@pytest.mark.parametrize("drafts", [independent, distinct])
def test_many_random_instances_in_closed_form(drafts):
    for seed in range(60):
        p, q = random_pair(seed, 3 + seed % 3)
        out, _ = walked(drafts(q, 1 + seed % 3), p)
        assert total_variation(out, p) < EXACT, (p, q)


@pytest.mark.parametrize(
    "drafts, chances",
    [(independent, (0.6, 0.72, 0.768, 0.7912)), (distinct, (0.6, 0.7643, 0.8403, 1.0))],
)
def test_acceptance_on_the_reference_pair(drafts, chances):
    p, q = PAIR4
    found = [walked(drafts(q, k), p)[1] for k in (1, 2, 3, 4)]
    assert found == pytest.approx(chances, abs=6e-5)


def test_single_child_accepts_seven_in_ten_and_corrects_to_token_0():
    p, q = PAIR3
    out, accepted = emitted(independent(q, 1), p)
    assert accepted == pytest.approx(0.7) and total_variation(out, p) < EXACT
    for _, draft in independent(q, 1):  # the residual does not depend on which token was refused
        assert judged(draft, p.expand(2, -1))[1][0].tolist() == [1, 0, 0]


def test_equal_distributions_never_reject_and_disjoint_ones_never_accept():
    p = PAIR4[0]
    assert walked(independent(p, 1), p)[1] == pytest.approx(1)
    out, accepted = emitted(independent(row(0, 0, 0.5, 0.5), 1), row(0.3, 0.7, 0, 0))
    assert accepted == 0 and total_variation(out, row(0.3, 0.7, 0, 0)) < EXACT


def test_cover():
    """Children that exhaust the vocabulary without replacement: one is always accepted. With replacement not."""
    p, q = row(1, 0), row(0.5, 0.5)
    assert walked(distinct(q, 2), p)[1] == pytest.approx(1)
    assert walked(independent(q, 2), p)[1] == pytest.approx(0.75)


def test_exhausted_support_goes_on_uniformly():
    p, q = row(0.1, 0.2, 0.3, 0.4), row(0.5, 0.5, 0, 0)
    for k, chance in ((2, 0.30), (3, 0.95), (4, 1.0)):
        out, accepted = emitted(distinct(q, k), p)
        assert accepted == pytest.approx(chance) and total_variation(out, p) < EXACT


def test_one_child_is_the_same_decision_with_and_without_replacement():
    p, q = PAIR4
    output = output_of(p.expand(2, -1))
    for (_, one), (_, other) in zip(independent(q, 1), distinct(q, 1), strict=True):
        for u in torch.linspace(0.005, 0.995, 50, dtype=torch.float64):
            verdicts = [recursive_rejection(d, output, torch.stack((u, u))).verdicts[0] for d in (one, other)]
            expected = "accepted" if u < p[one.tokens[0]] / q[one.tokens[0]] else "rejected"
            assert verdicts == [expected, expected]


def skipping(q: Tensor, k: int, *, honest: bool) -> Iterator[tuple[float, Draft]]:
    """Independent draws with repeats skipped, in order of first appearance; `honest` zeroes q as one must then."""
    for weight, draft in independent(q, k):
        tokens = tuple(dict.fromkeys(draft.tokens))
        yield weight, siblings(tokens, shrinking(q, tokens) if honest else q.expand(len(tokens), -1))


@pytest.mark.parametrize("k, chance", [(2, 0.7025), (3, 0.7555)])
def test_repeats_may_be_skipped_if_q_is_shrunk(k, chance):
    p, q = PAIR4
    out, accepted = walked(skipping(q, k, honest=True), p)
    assert total_variation(out, p) < EXACT and accepted == pytest.approx(chance, abs=6e-5)


# -- trees: two tokens at once -----------------------------------------------------------------------------------------


def trees(p_vocab: int, q0: Tensor, table: Tensor, *, replacement: bool) -> Iterator[tuple[float, Draft]]:
    """Two children of the root, one child below each; drawn from q0 and from the table's row of the parent."""
    for first in product(range(p_vocab), repeat=2) if replacement else permutations(range(p_vocab), 2):
        rows = q0.expand(2, -1) if replacement else shrinking(q0, first)
        for second in product(range(p_vocab), repeat=2):
            q = torch.stack((*rows, *(table[t] for t in first)))
            if weight := prod(q[i, t].item() for i, t in enumerate((*first, *second))):
                how = "sampled" if replacement else "sampled without replacement"
                yield weight, Draft((*first, *second), (-1, -1, 0, 1), q, how=how, source=("test",) * 4)


@pytest.mark.parametrize("replacement", [True, False])
def test_two_tokens_of_a_tree_have_the_joint_distribution(replacement):
    """Catches a bonus from the wrong row and a child judged at the wrong position, which one token cannot show."""
    p0, q0 = random_pair(1, 3)
    p1, q1 = (torch.stack(rows) for rows in zip(*(random_pair(seed, 3) for seed in (2, 3, 4)), strict=True))
    joint = torch.zeros(3, 3, dtype=torch.float64)
    for weight, draft in trees(3, q0, q1, replacement=replacement):
        for text, chance in texts(draft, torch.stack((p0, *(p1[t] for t in draft.tokens)))).items():
            following = p1[text[0]] if len(text) == 1 else torch.eye(3, dtype=torch.float64)[text[1]]
            joint[text[0]] += weight * chance * following
    assert total_variation(joint, p0[:, None] * p1) < EXACT


def test_chain_emits_the_joint_distribution():
    p0, q0 = PAIR3
    p1, q1 = (torch.stack(rows) for rows in zip(*(random_pair(seed, 3) for seed in (5, 6, 7)), strict=True))
    joint = torch.zeros(3, 3, dtype=torch.float64)
    for a, b in product(range(3), repeat=2):
        if not q0[a] * q1[a, b]:
            continue
        draft = Draft((a, b), (-1, 0), torch.stack((q0, q1[a])), how="sampled", source=("test",) * 2)
        for text, chance in texts(draft, torch.stack((p0, p1[a], p1[b]))).items():
            following = p1[text[0]] if len(text) == 1 else torch.eye(3, dtype=torch.float64)[text[1]]
            joint[text[0]] += q0[a] * q1[a, b] * chance * following
    assert total_variation(joint, p0[:, None] * p1) < EXACT


# -- planted faults ----------------------------------------------------------------------------------------------------


def test_fault_correction_from_p_instead_of_the_residual():
    p, q = PAIR3
    out, accepted = walked(independent(q, 1), p)
    for _, draft in independent(q, 1):
        turn, residual = judged(draft, p.expand(2, -1))
        token = draft.tokens[0]
        out += q[token] * (1 - min(1.0, turn[0].item() / q[token].item())) * (p - residual[0])
    assert out.tolist() == pytest.approx([0.35, 0.39, 0.26]) and total_variation(out, p) == pytest.approx(0.15)


def test_fault_arg_max_judged_with_soft_q():
    p, q = PAIR3
    out, _ = walked([(1.0, siblings((1,), q[None]))], p)
    assert out.tolist() == pytest.approx([0.4, 0.6, 0]) and total_variation(out, p) == pytest.approx(0.3)


def test_fault_accept_only_where_p_is_at_least_q():
    p, q = PAIR3
    out = torch.zeros_like(p)
    for weight, draft in independent(q, 1):
        turn, residual = judged(draft, p.expand(2, -1))
        token = draft.tokens[0]
        out += weight * (torch.eye(3, dtype=torch.float64)[token] if turn[0] >= q[token] else residual[0])
    assert total_variation(out, p) == pytest.approx(0.5)


def test_fault_drawn_at_another_temperature_than_judged():
    hot, cold = PAIR3[1], PAIR3[1] ** 2 / (PAIR3[1] ** 2).sum()
    p = PAIR3[0] ** 2 / (PAIR3[0] ** 2).sum()
    out, _ = walked(((cold[t].item(), siblings((t,), hot[None])) for t in range(3)), p)
    assert out.tolist() == pytest.approx([0.605, 0.312, 0.083], abs=LISTED)


def test_fault_drawn_from_top_two_judged_with_all_of_q():
    p, q = row(0.625, 0.375, 0), PAIR3[1]
    out, _ = walked([(5 / 8, siblings((1,), q[None])), (3 / 8, siblings((2,), q[None]))], p)
    assert out.tolist() == pytest.approx([0.531, 0.469, 0], abs=LISTED)


def unshrunk(q: Tensor, k: int) -> Iterator[tuple[float, Draft]]:
    """Drawn without replacement, but q is not zeroed for the verifier."""
    for weight, draft in distinct(q, k):
        yield weight, siblings(draft.tokens, q.expand(k, -1))


def descending(q: Tensor, k: int) -> Iterator[tuple[float, Draft]]:
    """Drawn without replacement, tried in descending q."""
    for weight, draft in distinct(q, k):
        tokens = tuple(sorted(draft.tokens, key=lambda t: -q[t]))
        yield weight, siblings(tokens, shrinking(q, tokens))


def best_two(q: Tensor, k: int) -> Iterator[tuple[float, Draft]]:
    """Three drawn without replacement, the two with the highest q kept, in draw order."""
    for weight, draft in distinct(q, 3):
        kept = sorted(draft.tokens, key=lambda t: -q[t])[:k]
        tokens = tuple(t for t in draft.tokens if t in kept)
        yield weight, siblings(tokens, shrinking(q, tokens))


def top(q: Tensor, k: int) -> Iterator[tuple[float, Draft]]:
    """The top k, judged as if they had been drawn from soft q without replacement."""
    tokens = tuple(q.topk(k).indices.tolist())
    yield 1.0, siblings(tokens, shrinking(q, tokens))


def top_renormalised(q: Tensor, k: int) -> Iterator[tuple[float, Draft]]:
    """The top k, judged with q renormalised over them (MCSD at draft temperature 0)."""
    kept = torch.zeros_like(q).index_put((q.topk(k).indices,), q.topk(k).values)
    return top(kept / kept.sum(), k)


@pytest.mark.parametrize(
    "fault, k, distance",
    [
        (lambda q, k: skipping(q, k, honest=False), 2, 0.027),
        (lambda q, k: skipping(q, k, honest=False), 3, 0.044),
        (unshrunk, 2, 0.043),
        (unshrunk, 3, 0.078),
        (descending, 2, 0.117),
        (descending, 3, 0.353),
        (best_two, 2, 0.157),
        (top, 2, 0.50),
        (top_renormalised, 2, 0.20),
        (top_renormalised, 3, 0.50),
    ],
)
def test_fault_misses_the_target_by_what_the_specification_says(fault, k, distance):
    p, q = PAIR4
    out, _ = walked(fault(q, k), p)
    assert out.sum().item() == pytest.approx(1)
    assert total_variation(out, p) == pytest.approx(distance, abs=LISTED)


def larger(q: Tensor, k: int) -> Iterator[tuple[float, Draft]]:
    """Two drawn, the one with the larger q kept and judged with q, as where candidates are ranked anew."""
    for weight, draft in distinct(q, 2):
        token = max(draft.tokens, key=lambda t: q[t])
        yield weight, siblings((token,), q[None])


@pytest.mark.parametrize(
    "fault, k, emitted_then",
    [(unshrunk, 2, (0.3566, 0.3434, 0.2, 0.1)), (larger, 1, (0.4619, 0.2012, 0.1579, 0.1790))],
)
def test_fault_emits_what_the_specification_of_eagle_says(fault, k, emitted_then):
    """Forgetting to take the rejected sibling out of q; ranking what was drawn."""
    p, q = PAIR4
    out, _ = walked(fault(q, k), p)
    assert out.tolist() == pytest.approx(emitted_then, abs=6e-5)
    assert total_variation(out, p) == pytest.approx({unshrunk: 0.0434, larger: 0.141}[fault], abs=LISTED)


def test_two_of_three_tokens_do_not_reveal_a_sibling_that_stays_in_q():
    """Why the check above needs four tokens: what is left of p behind the first rejection lies on one token here."""
    p, q = PAIR3
    assert total_variation(walked(unshrunk(q, 2), p)[0], p) < EXACT


# -- match -------------------------------------------------------------------------------------------------------------


def matched(draft: Draft, p: Tensor, cells: int = 10) -> tuple[Tensor, float]:
    """Distribution of the first token and the chance of acceptance under `match`; p are multiples of 1 / cells."""
    out, accepted = torch.zeros_like(p), 0.0
    for i in range(cells):
        u = torch.full((len(draft) + 1,), (i + 0.5) / cells, dtype=torch.float64)
        verification = match(draft, output_of(p.expand(len(draft) + 1, -1)), u)
        first = draft.tokens[verification.path[0]] if verification.path else verification.token
        out[first] += 1 / cells
        accepted += bool(verification.path) / cells
    return out, accepted


@pytest.mark.parametrize("tokens, chance", [((1,), 0.3), ((3, 2), 0.3), ((2, 2), 0.2), ((0, 1, 2, 3), 1.0)])
def test_match_emits_the_target_whatever_was_chosen(tokens, chance):
    p = PAIR4[0]
    out, accepted = matched(siblings(tokens, p, "deterministic"), p)
    assert total_variation(out, p) < EXACT and accepted == pytest.approx(chance)


def test_fault_match_draws_again_after_a_mismatch():
    p = PAIR4[0]
    kept = torch.tensor([p[0], 0, 0, 0], dtype=torch.float64)
    out = kept + (1 - p[0]) * p
    assert matched(siblings((0,), p, "deterministic"), p)[0].tolist() == pytest.approx(p.tolist())
    assert out.tolist() == pytest.approx([0.64, 0.18, 0.12, 0.06]) and total_variation(out, p) == pytest.approx(0.24)


def test_match_in_turn_is_its_sequential_form():
    """p(c) of each child, after the elder ones were zeroed and the rest renormalised."""
    p = PAIR4[0]
    verification = match(siblings((0, 2, 3), p, "deterministic"), output_of(p.expand(4, -1)), torch.full((4,), 0.99).double())
    assert verification.p == pytest.approx((0.4, 0.2 / 0.6, 0.1 / 0.4))
    assert verification.residual[0].tolist() == pytest.approx([0, 1, 0, 0])
    whole = match(siblings((0, 1, 2, 3), p, "deterministic"), output_of(p.expand(5, -1)), torch.zeros(5).double())
    assert whole.p[-1] == pytest.approx(1) and whole.residual[0].tolist() == pytest.approx(p.tolist())


def test_match_follows_the_token_drawn_at_each_row():
    """Row by row its own uniform: 0 at the root, then 2 below it, which nobody drafted."""
    p = PAIR4[0].expand(4, -1)
    draft = Draft((1, 0, 3), (-1, -1, 1), source=("test",) * 3)
    verification = match(draft, output_of(p), torch.tensor([0.1, 0.99, 0.75, 0.99]).double())
    assert verification.path == (1,) and verification.token == 2
    assert verification.verdicts == ("rejected", "accepted", "rejected")
    assert verification.sampled == {0: 0, 2: 2}


# -- refusals, greedy, roundings ---------------------------------------------------------------------------------------


def test_rejection_refuses_chosen_drafts_and_match_takes_all():
    draft = chain([1, 2], "test")
    with pytest.raises(ValueError, match="not exact for a draft whose nodes were deterministic"):
        recursive_rejection(draft, output_of(PAIR3[0].expand(3, -1)), torch.rand(3))
    for how in ("sampled", "sampled without replacement", "deterministic"):
        check(match, siblings((1,), PAIR3[1][None], how))
    check(recursive_rejection, Draft((), ()))  # nothing was drafted: nothing to be exact about


@pytest.mark.parametrize("best", range(4))
def test_greedy_keeps_the_arg_max_whatever_the_dice(best):
    p = torch.eye(4, dtype=torch.float64)[best]
    for weight, draft in distinct(PAIR4[1], 2):
        kept = texts(draft, p.expand(3, -1))
        found = {text for text, chance in kept.items() if chance}
        assert weight and found == ({(best, best)} if best in draft.tokens else {(best,)})


def test_one_hot_q_against_one_hot_p():
    eye = torch.eye(3, dtype=torch.float64)
    for token, best in product(range(3), repeat=2):
        found = texts(siblings((token,), eye[token][None]), eye[best].expand(2, -1))
        assert {text for text, chance in found.items() if chance} == {(best, best) if token == best else (best,)}


def test_accepted_strictly_below_the_ratio():
    """u * q < p: at u = 0 a token the target excludes is still refused."""
    p, q = row(0.0, 1.0), row(0.5, 0.5)
    verification = recursive_rejection(siblings((0,), q[None]), output_of(p.expand(2, -1)), torch.zeros(2).double())
    assert verification.verdicts == ("rejected",) and verification.token == 1


def test_residual_emptied_by_rounding_falls_back_to_what_was_left():
    """p below q everywhere, by rounding: nothing is left of the residual and p goes on unchanged."""
    p = torch.tensor([0.6, 0.4])
    q = torch.tensor([[0.6000001, 0.4000001]])
    _, residual = judged(siblings((0,), q), p.expand(2, -1))
    assert torch.equal(residual[0], p)


def test_judged_leaves_the_reading_alone():
    p = PAIR4[0].repeat(4, 1)
    before = p.clone()
    judged(siblings((0, 1, 2), shrinking(PAIR4[1], (0, 1, 2))), p)
    assert torch.equal(p, before)


def test_unread_below_a_rejected_node_and_beside_a_winner():
    eye = torch.eye(4, dtype=torch.float64)
    draft = Draft((0, 1, 2, 3), (-1, -1, -1, 0), eye, how="sampled", source=("test",) * 4)
    verification = recursive_rejection(draft, output_of(eye[[1, 0, 0, 0, 0]]), torch.full((5,), 0.5).double())
    assert verification.verdicts == ("rejected", "accepted", "not judged", "not judged")
    assert verification.path == (1,) and verification.row == 2


# -- drawing -----------------------------------------------------------------------------------------------------------


def test_draw_inverts_the_cumulative_distribution():
    p = PAIR4[0][None]
    u = (torch.arange(100, dtype=torch.float64) + 0.5) / 100
    counts = draw(p.expand(100, -1), u).bincount(minlength=4)
    assert counts.tolist() == [40, 30, 20, 10]
    assert all(a <= b for a, b in pairwise(draw(p.expand(100, -1), u).tolist()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("p", [(0, 0, 1, 0), (0, 0.5, 0.5, 0), (0.25, 0.25, 0.5, 0), (0, 1e-30, 1, 0), (0, 0.1, 0.9)])
def test_draw_never_gives_an_impossible_token(p, dtype):
    probs = torch.tensor([p], dtype=dtype)
    for u in (0.0, 2**-24, 0.25, 0.5, 1 - 2**-24):
        assert probs[0, draw(probs, torch.tensor([u])).item()] > 0, u


def test_draw_from_a_large_vocabulary_keeps_to_the_support():
    """Half the tokens are impossible, the running sum of the others is rounded 50,000 times."""
    probs = torch.rand(1, 50_000, generator=torch.Generator().manual_seed(0))
    probs[:, 1::2] = 0
    u = torch.cat((torch.rand(60, generator=torch.Generator().manual_seed(1)), torch.tensor([0.0, 1 - 2**-24])))
    assert bool((probs[0, draw(probs.expand(len(u), -1), u)] > 0).all())


def test_draw_takes_weights_that_do_not_sum_to_one():
    weights = 3 * PAIR4[0][None]
    assert [int(draw(weights, torch.tensor([u]))) for u in (0.39, 0.41, 0.71, 0.91)] == [0, 1, 2, 3]
