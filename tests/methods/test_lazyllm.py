"""LazyLLM: the checks of its specification, numbered as there, what it promises under drafters, and what it leaves in the trace."""

from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil

import numpy as np
import pytest
import torch

from decoding.draft import EMPTY, Draft, chain
from decoding.loop import decode
from decoding.method import Drafter
from decoding.methods import METHODS, lazyllm
from decoding.models import attention_row
from decoding.models.cache import TreeCache
from decoding.models.family import Family
from decoding.models.lazy_cache import LazyCache, Stage
from decoding.models.lazy_target import ATTENTION, RANDOM, STATIC, LazyTarget, best, stages_of
from decoding.models.target import Target
from decoding.runs.run import Run
from decoding.sample import Sampling
from decoding.score_names import (
    ATTENTION_PAID,
    AUX_ENTRIES,
    DEPTH_REACHED,
    FULL_AGREES,
    FULL_KL,
    FULL_OVERLAP,
    FULL_PASSES,
    PASSES,
    REVIVED,
)
from decoding.trace import decode_trace, encode
from decoding.verify import match
from tests import toys
from tests.needles import needle
from viz.methods.lazyllm import counters_table, reaches

GREEDY = Sampling(0)
ALL = (1.0, 1.0, 1.0)
EQUAL = 1e-4  # of logits in float32; the addendum measured 1e-5 (embedded) and 4e-5 (smollm2)
PROMPT = needle(3, 10).prompt


def ids(family: Family, text: str = PROMPT, most: int = 10_000) -> list[int]:
    return family.tokenizer(text)["input_ids"][:most]


@dataclass
class Seen:
    """What calls over the full model's greedy text showed."""

    worst: float  # difference of logits
    kl: list[float]  # nats
    agree: list[bool]
    depths: list[np.ndarray]
    cache: LazyCache

    @property
    def mean_kl(self) -> float:
        return sum(self.kl) / len(self.kl)

    @property
    def top_1(self) -> float:
        return sum(self.agree) / len(self.agree)

    def never(self, prompt: int) -> float:
        """Share of the prompt that the top layer never read."""
        return 1 - float(self.cache.computed[-1, :prompt].mean())


def called(lazy: LazyTarget, tokens: list[int], steps: int, draft: Draft = EMPTY) -> Seen:
    """So many calls, each over one more token of the full model's own greedy text; what is drafted is turned down."""
    lazy = replace(lazy, compared=True)
    cache, tokens, seen = lazy.new_cache(), list(tokens), Seen(0.0, [], [], [], lazy.new_cache())
    lazy.extend_with_hidden(cache, tokens[:-1])
    for _ in range(steps):
        output = lazy.read(cache, tokens, draft, GREEDY)
        assert output.full_logits is not None
        seen.worst = max(seen.worst, float((output.logits - output.full_logits).abs().max()))
        p, pruned = output.full_logits[0].log_softmax(-1), output.logits[0].log_softmax(-1)
        seen.kl.append(float((p.exp() * (p - pruned)).nansum()))
        seen.agree.append(bool(p.argmax() == pruned.argmax()))
        seen.depths.append(output.pruned.depths)
        cache.keep([0])
        tokens.append(int(p.argmax()))
    seen.cache = cache
    return seen


# -- 1: identity ---------------------------------------------------------------------------------------------------------------

TREE = Draft((5, 6, 7, 8), (-1, -1, 0, 2), source=("test",) * 4)


@pytest.mark.parametrize("draft", [EMPTY, chain([5, 6, 7], "test"), TREE], ids=["none", "chain", "tree"])
def test_without_pruning_it_is_the_full_model(embedded, draft):
    """At the prompt and for 20 calls behind it, also below a draft; else everything below would be measured against noise."""
    assert called(LazyTarget(embedded.target, ALL), ids(embedded), 20, draft).worst < EQUAL


def test_without_pruning_it_is_the_full_smollm2(smollm2):
    """Against the transformers forward: the short way's fused weights add up in another order, which this model shows at 1.5e-4."""
    assert called(LazyTarget(replace(smollm2.target, plain=None), ALL), ids(smollm2), 20).worst < EQUAL


def test_without_pruning_in_bits_at_every_place(embedded):
    """The same with the stages and the aux cache wired in: all places of pruning are there and drop nothing."""

    class Keeps(LazyTarget):
        def survivors(self, cache, stage, alive, scores):
            return alive

    lazy = Keeps(embedded.target, (0.5, 0.5, 0.5))
    assert len(lazy.stages) == 4 and called(lazy, ids(embedded), 20, TREE).worst < EQUAL


def test_a_run_without_pruning_writes_the_full_models_text(embedded):
    keep = {"keep_early": 1.0, "keep_middle": 1.0, "keep_late": 1.0}
    plain = Run(embedded, "plain", prompt=PROMPT, sampling=GREEDY, max_tokens=24)
    list(plain)
    for drafter in (lazyllm.NONE, lazyllm.COPIES, lazyllm.MODEL):
        run = Run(embedded, "lazyllm", keep | {"drafter": drafter}, PROMPT, GREEDY, max_tokens=24)
        list(run)
        assert run.text == plain.text
    assert METHODS["lazyllm"].lossless_with(keep, False) and not METHODS["lazyllm"].is_lossless
    assert not METHODS["lazyllm"].lossless_with(keep | {"keep_late": 0.99}, True)


# -- 2: at most once -----------------------------------------------------------------------------------------------------------


def test_no_layer_reads_a_token_twice(embedded, monkeypatch):
    """Over 50 calls; the work therefore never exceeds the full model's."""
    read: dict[int, list[int]] = {}
    update = Stage.update

    def noting(self, keys, values, layer, *args, **kwargs):
        read.setdefault(layer, []).extend(self.rows.tolist())
        return update(self, keys, values, layer, *args, **kwargs)

    monkeypatch.setattr(Stage, "update", noting)
    called(LazyTarget(embedded.target, (0.7, 0.5, 0.3)), ids(embedded, most=120), 50)
    assert set(read) == set(range(12))
    assert all(len(rows) == len(set(rows)) for rows in read.values())
    assert len(read[0]) == 169 and len(read[11]) < 169


# -- 3 and 8: who is alive -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shares", [(0.7, 0.5, 0.3), (0.9, 0.9, 0.9), (0.02, 1.0, 0.5)])
def test_alive_sets_shrink_by_their_shares(embedded, shares):
    lazy = LazyTarget(embedded.target, shares)
    for depths in called(lazy, ids(embedded), 8).depths:
        sizes = [int((depths >= stage.stop).sum()) for stage in lazy.stages]
        assert sizes[0] == len(depths) and depths[0] == depths[-1] == 12  # the first and the last token always live
        for share, (before, after) in zip(lazy.kept, pairwise(sizes), strict=True):
            assert after == max(2, ceil(share * before - 1e-9))


def test_a_smaller_share_leaves_fewer(embedded):
    few, many = (called(LazyTarget(embedded.target, (s, s, s)), ids(embedded), 2).depths for s in (0.3, 0.7))
    assert all((a == 12).sum() < (b == 12).sum() for a, b in zip(few, many, strict=True))


def test_who_is_best():
    scores = np.array([0.0, 0.3, 0.1, 0.3, 0.2, 0.0])
    assert best(scores, 0.5, (0, -1)).tolist() == [0, 3, 5]  # of equal ones the later
    assert best(scores, 0.5, ()).tolist() == [1, 3, 4] and best(scores, 0.01, (0, -1)).tolist() == [0, 5]
    assert best(np.array([1.0]), 0.3, (0, -1)).tolist() == [0]
    assert stages_of(30, (0.7, 0.5, 0.3)) == ((7, 15, 22), (0.7, 0.5, 0.3)) and stages_of(1, (0.5, 0.5, 0.5)) == ((), ())


# -- 4: nothing is lost --------------------------------------------------------------------------------------------------------


class Junk(Drafter):
    """Trees of random tokens."""

    def propose(self, tokens, rng):
        drawn = torch.randint(1, 280, (4,), generator=rng).tolist()
        return Draft(tuple(drawn), (-1, 0, -1, 2), source=("junk",) * 4)


def test_every_token_is_found_where_it_stopped():
    """Three hundred prompts of a model that attends to anything, with drafts of which some are kept."""
    target = Target(toys.causal_lm("llama", seed=4, num_hidden_layers=4), toys.VOCAB, toys.CONTEXT)
    dice = np.random.default_rng(0)
    back = kept = 0
    for number in range(300):
        lazy = LazyTarget(target, tuple(dice.uniform(0.1, 0.95, 3)), (ATTENTION, RANDOM)[number % 2])
        prompt = dice.integers(1, toys.VOCAB, dice.integers(1, 25)).tolist()
        cache = lazy.new_cache()
        if prompt[:-1]:
            lazy.extend_with_hidden(cache, prompt[:-1])
        for _ in range(3):
            draft = Draft(tuple(dice.integers(1, toys.VOCAB, 3).tolist()), (-1, 0, -1), source=("junk",) * 3)
            output = lazy.read(cache, prompt, draft, GREEDY)
            path = ((), (0,), (0, 1), (2,))[dice.integers(4)]
            cache.keep([0, *(node + 1 for node in path)])
            prompt += [*(draft.tokens[node] for node in path), int(output.logits[0].argmax())]
            back, kept = back + output.pruned.revived, kept + len(path)
    assert back > 300 and kept > 300, "else little of it was tried"


def test_a_lost_token_is_noticed(embedded):
    lazy = LazyTarget(embedded.target, (0.3, 1.0, 1.0))
    cache, tokens = lazy.new_cache(), ids(embedded, most=40)
    lazy.extend_with_hidden(cache, tokens[:-1])
    lazy.read(cache, tokens, EMPTY, GREEDY)
    cache.keep([0])
    stopped = int(np.flatnonzero(~cache.computed[1, :40])[0])
    cache.computed[0, stopped] = False
    with pytest.raises(RuntimeError, match=f"Token {stopped} is wanted in stage 2"):
        cache.todo(1, np.arange(40))


# -- 5: positions --------------------------------------------------------------------------------------------------------------


class Shifted(LazyTarget):
    def positions(self, places, alive):
        return places + 37


class Renumbered(LazyTarget):
    """What several ports do: those alive count from 0."""

    def positions(self, places, alive):
        return np.searchsorted(alive, places)


def test_positions_are_those_of_the_whole_text(embedded):
    tokens, shares = ids(embedded), (0.5, 0.5, 1.0)
    logits = {}
    for kind in (LazyTarget, Shifted, Renumbered):
        lazy = kind(embedded.target, shares)
        cache = lazy.new_cache()
        lazy.extend_with_hidden(cache, tokens[:-1])
        logits[kind] = lazy.read(cache, tokens, EMPTY, GREEDY).logits[0]
    assert float((logits[Shifted] - logits[LazyTarget]).abs().max()) < EQUAL
    p, q = (logits[kind].log_softmax(-1) for kind in (LazyTarget, Renumbered))
    assert float((p.exp() * (p - q)).nansum()) > 0.01


# -- 6: revival ----------------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def revived_rows(family: Family, off: int = 0) -> float:
    """How far the keys and values of tokens that come back at the second call are from the full model's, where nothing below was
    pruned.

    Args:
        off: layers by which what was kept is wrong.
    """

    class Back(LazyTarget):
        def survivors(self, cache, stage, alive, scores):
            return alive if cache.committed >= len(tokens) else super().survivors(cache, stage, alive, scores)

    lazy, tokens, full = Back(family.target, (0.3, 1.0, 1.0)), ids(family, most=80), TreeCache()
    cache = lazy.new_cache()
    lazy.extend_with_hidden(cache, tokens[:-1])
    lazy.read(cache, tokens, EMPTY, GREEDY)
    cache.keep([0])
    dropped = np.flatnonzero(~cache.computed[1, : len(tokens)])
    assert len(dropped) > 30
    if off:
        cache.states[1].write(dropped, cache.states[0].read(dropped).clone())  # what came in, in place of what came out
    output = lazy.read(cache, [*tokens, 7], EMPTY, GREEDY)
    assert output.pruned.revived == len(dropped) and output.pruned.waiting == 0
    family.target.extend(full, tokens)
    layer = lazy.stages[1].start
    pairs = (
        (cache.keys[layer].read(dropped), full.layers[layer].keys[:, :, dropped]),
        (cache.values[layer].read(dropped), full.layers[layer].values[:, :, dropped]),
    )
    return max(float((mine - theirs).abs().max()) for mine, theirs in pairs)


def test_a_token_that_comes_back_is_the_full_models(embedded):
    assert revived_rows(embedded) < 1e-4
    assert revived_rows(embedded, off=1) > 0.01, "a wrong entry of the aux cache must be noticed"


# -- 7: it keeps what matters ----------------------------------------------------------------------------------------------------


def answered(family: Family, lazy: LazyTarget, count: int = 6) -> tuple[int, float]:
    """How often the answer to a needle prompt is the likeliest token, and its mean probability."""
    found = []
    for number in range(count):
        asked = needle(number)
        tokens, answer = ids(family, asked.prompt), family.tokenizer(asked.answer)["input_ids"][0]
        cache = lazy.new_cache()
        lazy.extend_with_hidden(cache, tokens[:-1])
        p = lazy.read(cache, tokens, EMPTY, Sampling(1.0)).probs[0]
        found.append((int(p.argmax() == answer), float(p[answer])))
    hits, probabilities = zip(*found, strict=True)
    return sum(hits), sum(probabilities) / count


def test_needles_are_kept_that_random_dropping_loses(smollm2):
    """At 0.7: with half of the tokens dropped three times this small model finds none either way (docs/benchmarks.md)."""
    share = (0.7, 0.7, 0.7)
    full, mine, random = (answered(smollm2, LazyTarget(smollm2.target, *how)) for how in ((ALL,), (share,), (share, RANDOM)))
    assert full[0] >= mine[0] >= random[0] + 2 and full[1] > mine[1] > max(0.1, 4 * random[1])


@pytest.fixture(scope="module")
def damage(embedded):
    """(share, control) -> what 16 calls over two texts showed."""
    made = {}

    def seen(share: float, by: str = ATTENTION) -> tuple[float, float, float]:
        if (share, by) not in made:
            texts = [ids(embedded, needle(n, 20).prompt) for n in (1, 2)]
            runs = [called(LazyTarget(embedded.target, (share,) * 3, by), text, 16) for text in texts]
            nevers = [run.never(len(text)) for run, text in zip(runs, texts, strict=True)]
            made[share, by] = tuple(sum(of) / 2 for of in ([r.mean_kl for r in runs], [r.top_1 for r in runs], nevers))
        return made[share, by]

    return seen


def test_the_damage_on_the_embedded_target_stays_in_bounds(damage):
    kl, top_1, never = damage(0.7)
    assert top_1 >= 0.8 and kl <= 0.1
    for share in (0.7, 0.5):
        assert damage(share, RANDOM)[0] >= 4 * damage(share)[0]
    assert damage(0.5)[2] > never and damage(0.5, STATIC)[2] > damage(0.5)[2]


# -- the controls --------------------------------------------------------------------------------------------------------------


def test_static_pruning_never_changes_its_mind(embedded):
    tokens = ids(embedded, most=90)
    depths = called(LazyTarget(embedded.target, (0.5, 0.5, 0.5), STATIC), tokens, 6).depths
    for later in depths[1:]:
        assert (later[:90] == depths[0]).all() and (later[90:] == 12).all()


def test_random_dropping_is_the_same_in_every_run(embedded):
    tokens, lazy = ids(embedded, most=90), LazyTarget(embedded.target, (0.5, 0.5, 0.5), RANDOM)
    one, other = (called(lazy, tokens, 3).depths for _ in range(2))
    assert all((a == b).all() for a, b in zip(one, other, strict=True)) and (one[0][:90] != one[1][:90]).any()


# -- under drafters ------------------------------------------------------------------------------------------------------------


class Vain(Drafter):
    """Trees whose tokens the target never says."""

    def __init__(self, unlikely: tuple[int, int]) -> None:
        self.unlikely = unlikely

    def propose(self, tokens, rng):
        a, b = self.unlikely
        return Draft((a, b, a), (-1, -1, 0), source=("vain",) * 3)


def test_a_draft_that_is_turned_down_leaves_no_trace(embedded):
    """The root alone decides who is alive, so what is written does not depend on what was guessed."""
    tokens, lazy = ids(embedded, most=150), LazyTarget(embedded.target, (0.6, 0.6, 0.6))
    limits = {"sampling": GREEDY, "max_tokens": 20}
    alone = list(decode(lazy, lazyllm.Nobody(), match, tokens, rng=torch.Generator(), **limits))
    written = [token for step in alone for token in step.tokens]
    vain = tuple(token for token in range(300, 400) if token not in written)[:2]
    below = list(decode(lazy, Vain(vain), match, tokens, rng=torch.Generator(), **limits))
    assert [step.tokens for step in below] == [step.tokens for step in alone]
    for a, b in zip(alone, below, strict=True):
        assert dict(zip(b.rows[0].tokens, b.rows[0].p, strict=True))[b.tokens[0]] == pytest.approx(a.rows[0].p[0], abs=1e-4)


@pytest.mark.parametrize("key", ["multi_candidate", "dyspec", "spectr", "specdec_pp", "jacobi", "prompt_lookup", "rest"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_any_drafter_that_reads_tokens_alone_can_guess_for_it(embedded, key, temperature):
    sampling = Sampling(temperature)
    drafter, accept = METHODS[key].build(embedded, METHODS[key].params(), sampling)
    rng = torch.Generator().manual_seed(0)
    lazy = LazyTarget(embedded.target, (0.7, 0.5, 0.3))
    steps = list(decode(lazy, drafter, accept, ids(embedded, most=80), sampling=sampling, rng=rng, max_tokens=16))
    assert sum(len(step.tokens) for step in steps) == 16 or steps[-1].ending == "end of text"
    assert any(step.nodes for step in steps)


@pytest.mark.parametrize("key", ["eagle", "medusa", "token_recycling"])
def test_who_needs_states_or_rows_of_the_prompt_is_refused(embedded, key):
    drafter, accept = METHODS[key].build(embedded, METHODS[key].params(), GREEDY)
    lazy = LazyTarget(embedded.target, (0.7, 0.5, 0.3))
    if not (drafter.aux_hidden_layers or drafter.reads_prompt):
        pytest.skip("it needs neither")
    with pytest.raises(ValueError, match="prunes its prompt"):
        list(decode(lazy, drafter, accept, [5, 6, 7], sampling=GREEDY, rng=torch.Generator(), max_tokens=4))


def test_a_family_without_a_draft_model_is_told_so(embedded):
    bare = Family("bare", embedded.tokenizer, embedded.target)
    with pytest.raises(ValueError, match="LazyLLM, a pruned prompt needs a draft model, and the family bare has none"):
        Run(bare, "lazyllm", {"drafter": lazyllm.MODEL}, PROMPT)
    list(Run(bare, "lazyllm", {"drafter": lazyllm.COPIES}, PROMPT, max_tokens=4))


# -- which models --------------------------------------------------------------------------------------------------------------

FIT = {"llama": "", "qwen2": "", "qwen3": "", "gpt2": "one by one", "gpt_neox": "one by one", "phi": "row by row"}


@pytest.mark.parametrize("kind", FIT)
def test_which_models_fit(families, kind):
    family = families(kind)
    sentence = METHODS["lazyllm"].missing(family)
    assert bool(sentence) == bool(FIT[kind]) and FIT[kind] in sentence
    if not sentence:
        assert called(LazyTarget(family.target, ALL), [5, 6, 7, 8, 9], 6).worst < EQUAL
        called(LazyTarget(family.target, (0.5, 0.5, 0.5)), [5, 6, 7, 8, 9], 6)


def test_layers_with_a_window_are_refused():
    model = toys.causal_lm("mistral", **toys.NARROW)
    assert "see 16 tokens at most" in attention_row.refusal(Target(model, toys.VOCAB, toys.CONTEXT))


def test_an_attention_that_is_read_wrongly_is_noticed(monkeypatch):
    """Scores of another row than the layer's last one would be another method."""
    weights = attention_row.weights

    def first(model, layer, row, rotary, keys):
        return weights(model, layer, row, rotary, keys.flip(2))

    monkeypatch.setattr(attention_row, "weights", first)
    target = Target(toys.causal_lm("llama", seed=11), toys.VOCAB, toys.CONTEXT)
    assert "Read row by row" in attention_row.refusal(target)


# -- what stands in the trace ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(embedded) -> Run:
    made = Run(embedded, "lazyllm", {"compared": True, "drafter": lazyllm.COPIES}, PROMPT, GREEDY, max_tokens=30)
    list(made)
    return made


def test_the_counts_follow_from_the_depths(run):
    """The trace keeps the depths alone; what was read, came back and waits is counted from them, and is what happened."""
    trace = run.trace
    assert decode_trace(encode(trace)) == trace
    found = reaches(trace, len(trace.steps) - 1)
    assert found is not None and any(step.nodes for step in trace.steps)
    for reach, step in zip(found, trace.steps, strict=True):
        read = int((reach.ever - reach.before).sum())  # layers that read a token now
        assert step.facts[PASSES] == read + 12 * len(step.nodes)
        assert step.facts[FULL_PASSES] == 12 * (int((reach.before == 0).sum()) + len(step.nodes))
        assert step.facts[REVIVED] == reach.revived.sum()
        assert step.facts[AUX_ENTRIES] == (reach.ever < 12).sum()
        assert step.facts[FULL_KL] > -1e-4 and 0 < step.facts[FULL_OVERLAP] <= 1.001 and 0 <= step.facts[FULL_AGREES] <= 1
    table = counters_table(trace, len(trace.steps) - 1)
    assert table["which"].tolist() == [f"layers {a} to {a + 2}" for a in (1, 4, 7, 10)]
    assert table["prompt tokens never read"][0] == 0


def test_the_text_parts_where_the_trace_says(embedded):
    run = Run(embedded, "lazyllm", {"compared": True, "keep_early": 0.2}, PROMPT, GREEDY, max_tokens=30)
    plain = Run(embedded, "plain", prompt=PROMPT, sampling=GREEDY, max_tokens=30)
    list(run), list(plain)
    parted = next(i for i, step in enumerate(run.steps) if step.facts[FULL_AGREES] < 1)
    mine, theirs = ([t for step in one.steps for t in step.tokens] for one in (run, plain))
    assert mine[:parted] == theirs[:parted] and mine[parted] != theirs[parted]


def test_grids_are_bounded(embedded, monkeypatch):
    """Scores of the first steps alone, and none where they are too many; the depths of every step."""
    monkeypatch.setattr(lazyllm, "SCORED_STEPS", 2)
    run = Run(embedded, "lazyllm", {}, PROMPT, GREEDY, max_tokens=4)
    list(run)
    n = len(run.header.prompt_tokens)
    assert [len(step.grids[DEPTH_REACHED]) for step in run.steps] == [n, n + 1, n + 2, n + 3]
    assert [len(step.grids.get(ATTENTION_PAID, b"")) for step in run.steps] == [12 * n, 12 * (n + 1), 0, 0]
    monkeypatch.setattr(lazyllm, "SCORED", 12 * n)
    run = Run(embedded, "lazyllm", {}, PROMPT, GREEDY, max_tokens=2)
    assert [ATTENTION_PAID in step.grids for step in run] == [True, False]
    run = Run(embedded, "lazyllm", {}, PROMPT, GREEDY, max_tokens=2, record=False)
    assert not any(step.grids for step in run)
