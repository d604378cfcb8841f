"""Key-space navigation: identities of the split, null and planted key tables, verdicts, what a permutation must leave, and ICN."""

import math
from dataclasses import replace

import pytest
import torch

from decoding.lens import Cursor
from decoding.lenses import navigation
from decoding.lenses.navigation import Params, between, shares, split
from decoding.models import keys as keys_module
from decoding.models.keys import clustered, keys_of, no_keys
from decoding.models.target import Target
from decoding.runs.lens_run import LensRun
from decoding.runs.run import Run
from decoding.sample import Sampling
from tests.toys import CONTEXT, VOCAB, causal_lm

PROMPTS = ("Once upon a time there was a little", "The king said to his daughter", "One day the fox went into the")


def gaussian(rows: int, width: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def query_of(target: Target, tokens) -> torch.Tensor:
    _, hidden = target.extend_with_hidden(target.new_cache(), tokens, (target.last_hidden,))
    return hidden[target.last_hidden][-1]


def lift(keys, queries: torch.Tensor, top: int = 10, listed: int = 100) -> float:
    """Mean share over mean base over these queries."""
    orders = [(keys.table @ query).topk(listed).indices.tolist() for query in queries]
    found = [shares(keys.cluster, keys.known, order, top) for order in orders]
    return sum(share for share, _ in found) / sum(base for _, base in found)


@torch.inference_mode()
def test_centring_changes_no_probability_and_the_two_parts_sum_to_the_logit(embedded):
    """Checks 1 and 2 of the specification, on the embedded target."""
    keys, query = keys_of(embedded.target), query_of(embedded.target, embedded.encode(PROMPTS[0], 64))
    logits = embedded.target.score(query[None])[0]
    assert (logits.softmax(-1) - keys.dots(query).softmax(-1)).abs().max() < 1e-6
    winner = int(logits.argmax())
    inherited, own = split(keys, query, winner)
    assert (inherited + own - keys.centred(range(len(logits))) @ query).abs().max() < 1e-4
    assert abs(float(own[winner])) < 1e-4 and float(inherited[winner]) == pytest.approx(float(keys.dots(query)[winner]), abs=1e-4)
    assert (keys.dots(query) - keys.dots(query).mean() - (logits - logits.mean())).abs().max() < 1e-3


def test_labels_by_chance_have_a_lift_of_one():
    keys = clustered(gaussian(2000, 64, 0), count=40)
    shuffled = replace(keys, cluster=torch.randint(40, (2000,), generator=torch.Generator().manual_seed(1)))
    assert 0.95 <= lift(shuffled, gaussian(200, 64, 2)) <= 1.05


def test_planted_clusters_are_found_and_lift_the_middle_of_the_list():
    """Keys around 40 centres; labels that are misaligned with the ids bring the lift down to 1."""
    centres = torch.nn.functional.normalize(gaussian(40, 64, 3), dim=1) * 8
    table = centres[torch.arange(2000) % 40] + 0.4 * gaussian(2000, 64, 4)
    queries = gaussian(200, 64, 5)
    planted = replace(clustered(table, count=40), cluster=torch.arange(2000) % 40)
    assert lift(planted, queries) > 8
    assert lift(clustered(table, count=40), queries) > 4  # k-means merges some of the centres
    assert (
        0.7
        < lift(replace(planted, cluster=planted.cluster[torch.randperm(2000, generator=torch.Generator().manual_seed(6))]), queries)
        < 1.3
    )


def test_a_token_taken_blindly_is_near_as_often_as_is_said(embedded):
    """The chance level is exact: counted over every token of the vocabulary."""
    keys = keys_of(embedded.target)
    pick = embedded.encode(" king", 64)[-1]
    found = navigation.around(keys, pick)
    others = found.cosines.clone()
    others[pick] = -2
    ranks = others.argsort(descending=True).argsort() + 1
    near = ((ranks <= 20) | (keys.cluster == keys.cluster[pick])) & keys.known
    near[pick] = False
    assert found.chance == pytest.approx(float(near.sum()) / (int(keys.known.sum()) - 1))
    nearest = int(others.argmax())
    miss = between(Cursor(0, 0), nearest, pick, keys, {})
    assert miss.rank == 1 and miss.near and miss.cosine == pytest.approx(float(found.cosines[nearest]))
    farthest = int(others.masked_fill(others < -1, 2).argmin())
    assert not between(Cursor(0, 0), farthest, pick, keys, {}).near


def test_ids_that_no_token_has_are_nobodys_neighbours():
    target = Target(causal_lm("llama"), VOCAB, CONTEXT, unused=(7, 9))
    keys = keys_of(target)
    assert not keys.known[7] and int(keys.cluster[7]) == keys.count and int(keys.sizes().sum()) == VOCAB - 2
    near = keys.cosines(3).topk(VOCAB - 2).indices.tolist()
    assert not {7, 9} & set(near) and float(keys.cosines(3)[7]) == -2


def test_other_ids_for_the_same_tokens_change_nothing_that_is_shown():
    """Permuting the rows of the table with the ids permutes cosines and split alike."""
    table, query = gaussian(300, 16, 6), gaussian(1, 16, 7)[0]
    order = torch.randperm(300, generator=torch.Generator().manual_seed(8))
    one, other = clustered(table, count=8), clustered(table[order], count=8)
    assert torch.allclose(one.cosines(int(order[5]))[order], other.cosines(5), atol=1e-5)
    for mine, theirs in zip(split(one, query, int(order[5])), split(other, query, 5), strict=True):
        assert torch.allclose(mine[order], theirs, atol=1e-4)


def test_the_clusters_are_kept_while_the_weights_are_the_same_and_made_anew_for_others(monkeypatch):
    target = Target(causal_lm("llama"), VOCAB, CONTEXT)
    first = keys_of(target)
    monkeypatch.setattr(keys_module, "ROUNDS", 1)
    assert keys_of(target) is first
    head = target.model.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight.detach().clone())
    assert keys_of(target) is not first


def test_a_head_whose_logits_are_no_dot_products_is_refused(embedded):
    capped = Target(causal_lm("llama"), VOCAB, CONTEXT)
    capped.model.config.final_logit_softcapping = 30.0
    assert "caps its logits at 30" in no_keys(capped)
    packed = Target(causal_lm("llama"), VOCAB, CONTEXT)
    packed.model.set_output_embeddings(torch.nn.Bilinear(2, 2, VOCAB))
    assert "Bilinear" in no_keys(packed)
    assert no_keys(embedded.target) == ""


@pytest.fixture(scope="module")
def greedy_runs(embedded):
    traces = []
    for prompt in PROMPTS:
        run = Run(embedded, "speculative_sampling", prompt=prompt, sampling=Sampling(0), seed=0, max_tokens=40)
        list(run)
        traces.append(run.trace)
    return traces


def last(family, trace, at=(-1, None), **params):
    *_, found = LensRun(family, "navigation", trace, *at, params)
    return found


def test_refusals_of_the_embedded_family_are_near_misses_far_more_often_than_by_chance(embedded, greedy_runs):
    misses = [miss for trace in greedy_runs for miss in last(embedded, trace).misses]
    share, chance = sum(m.near for m in misses) / len(misses), sum(m.chance for m in misses) / len(misses)
    assert len(misses) > 20 and share > 0.3 and share > 10 * chance


def test_the_list_of_the_embedded_target_leans_on_its_winners(embedded, greedy_runs):
    lifts = []
    for trace in greedy_runs:
        for step in (0, 3, 6):
            look = last(embedded, trace, (step, None))
            assert len(look.ranked) == 100 and [r.p for r in look.ranked] == sorted((r.p for r in look.ranked), reverse=True)
            assert look.spots[0].token == look.pick == look.ranked[0].token and look.spots[0].cosine == pytest.approx(1, abs=1e-3)
            lifts.append(look.share / look.base)
    assert sorted(lifts)[len(lifts) // 2] > 2


def test_the_guess_stands_in_the_map_of_what_was_written(embedded, greedy_runs):
    trace = greedy_runs[0]
    at = next((i, j) for i, s in enumerate(trace.steps) for j, n in enumerate(s.nodes) if n.verdict == "rejected")
    look = last(embedded, trace, at)
    node = trace.steps[at[0]].nodes[at[1]]
    assert look.guess.token == node.token and look.guess in look.misses and look.pick == look.guess.pick != node.token
    assert node.token in {spot.token for spot in look.spots} and look.siblings[0].token in {
        n.token for n in trace.steps[at[0]].nodes
    }


def test_folding_leaves_no_two_tokens_that_read_alike(embedded, greedy_runs):
    look = last(embedded, greedy_runs[0], fold=True)
    said = [look.token_bytes[row.token].strip().lower() for row in look.ranked]
    assert len(set(said)) == len(said) and look.ranked[0] == last(embedded, greedy_runs[0]).ranked[0]


def test_icn_is_not_offered_without_a_chat_and_says_so(embedded, greedy_runs):
    look = last(embedded, greedy_runs[0], rounds=1)
    assert not look.rounds and any("no chat template" in note for note in look.notes)


def test_icn_takes_every_first_token_once_and_begins_greedily(smollm2):
    run = Run(smollm2, "plain", prompt="The capital of France is", sampling=Sampling(0), seed=0, max_tokens=2)
    list(run)
    looks = list(LensRun(smollm2, "navigation", run.trace, -1, None, {"rounds": 2, "things": "fruits"}))
    look = looks[-1]
    assert len(look.explored) == len(set(look.explored)) == 6 and len(look.plain) == 6
    assert [row.found for row in look.rounds] == [0, 3] and all(len(row.answers) == 3 for row in look.rounds)
    assert look.rounds[0].answers == look.plain[:3]  # with nothing found both read down the same row
    assert look.explored[0] == look.rounds[0].tokens[0] and all(0 < row.entropy < math.log(49152) for row in look.rounds)
    assert look.rows_read <= navigation.cost(run.trace, Cursor(-1), Params(rounds=2)).rows
    assert look.share / look.base > 3
