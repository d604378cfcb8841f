"""S2D: exact sub-models through the caches, limits of the thresholds, roll-back, the rule while exits switch, what is refused."""

import json
import math
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from decoding.draft import Draft
from decoding.loop import decode
from decoding.methods import METHODS, s2d
from decoding.models import family_cache
from decoding.models.family import EMBEDDED, Family, load, weights_mark
from decoding.models.sorted_draft import SortedModel, exit_logits, exits_of, segments
from decoding.models.target import Target
from decoding.retrieval.python_source import python_source
from decoding.runs.run import Run
from decoding.sample import Sampling, draw
from decoding.score_names import CONFIDENCE_AFTER
from decoding.training.distil import divergence, kept_log_q
from decoding.training.family import stream
from decoding.training.recipes.s2d import followed, grown_from, next_token, sorted_llama
from decoding.verify import recursive_rejection
from pages.parts.shared import address
from pages.parts.shared.settings import Settings, family_named
from tests import toys
from tests.decoding.test_lossless_statistics import LIMIT, misfit
from tests.pages.test_step import errors, opened, press, state, warnings
from tests.toys import output_of, prefix, run_steps, sorted_target, tokens_of, total_variation

EXITS = (1, 2, 4)
NEVER, ALWAYS = 1.0, 0.0
TEXT = [5, 9, 17, 40, 3, 77, 150, 9, 17, 40, 3, 8]
EXACT = 1e-5  # of a logit's softmax, float32


@pytest.fixture(scope="module")
def draft() -> Target:
    return sorted_target(EXITS)


@torch.inference_mode()
def init_head(target: Target, layers: int, tokens: list[int]) -> Tensor:
    """(vocab,) distribution of the sub-model, from one pass over the whole text without any cache."""
    return prefix(target, layers).model(torch.tensor([tokens])).logits[0, -1].float().softmax(-1)


def confidences(target: Target, texts: list[list[int]]) -> list[float]:
    """What the first two sub-models are sure of after each text, for thresholds that are sometimes passed."""
    return sorted(init_head(target, layers, text).max().item() for text in texts for layers in EXITS[:2])


def family_of(target: Target, draft: Target) -> Family:
    return Family("toy", toys.tokenizer(), target, draft)


# -- exact nesting (check 2) -------------------------------------------------------------------------------------------


def grow(model: SortedModel, text: list[int], rng: torch.Generator, steps: int = 6) -> list[tuple[int, list[int], Tensor]]:
    """Chains and roll-backs of random lengths; every answer with the layers it came from and the text it stands behind."""
    model.begin(text)
    text, found = list(text), []
    for _ in range(steps):
        logits, chain = model.root(text), []
        found.append((layers_of(model), list(text), logits))
        for _ in range(int(torch.randint(0, 6, (), generator=rng))):
            chain.append(int(torch.randint(0, toys.VOCAB, (), generator=rng)))
            logits = model.extend(torch.tensor(chain[-1:]), [-1])
            found.append((layers_of(model), text + chain, logits))
        check_invariant(model, len(text) + len(chain))
        kept = int(torch.randint(0, len(chain) + 1, (), generator=rng))
        model.keep(range(kept))
        check_invariant(model, len(text) + kept)
        text += [*chain[:kept], int(torch.randint(0, toys.VOCAB, (), generator=rng))]
    return found


def layers_of(model: SortedModel) -> int:
    return model.exits[len(model.answers[-1].confidences) - 1]


def check_invariant(model: SortedModel, rows: int) -> None:
    """The rows of a segment are those of the next one and those that wait there."""
    assert model.length(0) == rows
    for j in range(1, len(model.segments)):
        assert model.length(j - 1) == model.length(j) + model.waiting[j].shape[1]


@pytest.mark.parametrize("attention", toys.ATTENTIONS)
@pytest.mark.parametrize("seed", range(4))
def test_every_answer_is_that_of_the_plain_sub_model(seed, attention):
    draft = sorted_target(EXITS, attention=attention)
    rng = torch.Generator().manual_seed(seed)
    levels = confidences(draft, [TEXT[: i + 1] for i in range(len(TEXT))])
    taus = [levels[int(torch.randint(len(levels) // 3, len(levels) - 2, (), generator=rng))] for _ in range(2)]
    found = grow(SortedModel(draft, taus), TEXT, rng)
    for layers, text, logits in found:
        assert (logits[0].softmax(-1) - init_head(draft, layers, text)).abs().max() < EXACT
    assert len({layers for layers, *_ in found}) > 1


class Forgetful(SortedModel):
    """Leaves holes: rows that left early are never read by the deeper layers."""

    def _after(self, segment, hidden):
        self.waiting[segment] = self.waiting[segment][:, :0]
        return super()._after(segment, hidden)


def test_holes_in_the_deeper_caches_are_noticed(draft):
    off = []
    levels = confidences(draft, [TEXT[: i + 1] for i in range(len(TEXT))])
    model, text = Forgetful(draft, [levels[len(levels) // 2]] * 2), list(TEXT)
    model.begin(text)
    logits = model.root(text)
    for token in TEXT * 2:
        off.append((logits[0].softmax(-1) - init_head(draft, layers_of(model), text)).abs().max().item())
        text.append(token)
        logits = model.extend(torch.tensor([token]), [-1])
    assert max(off) > 1e-2


# -- roll-back (check 3) -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("back", range(8))
def test_roll_back_by_any_number_of_rows(draft, back):
    """From what waits, and from what waits into what is in the caches."""
    levels = confidences(draft, [TEXT[: i + 1] for i in range(len(TEXT))])
    model = SortedModel(draft, [levels[len(levels) // 2]] * 2)
    model.begin(TEXT)
    model.root(TEXT)
    for token in (30, 31, 32, 33, 34, 35):
        model.extend(torch.tensor([token]), [-1])
    rows = len(TEXT) + 6
    model.crop(rows - back)
    check_invariant(model, rows - back)
    text = [*TEXT, 30, 31, 32, 33, 34, 35][: rows - back]
    logits = model.answer(torch.tensor([99]))
    assert (logits[0].softmax(-1) - init_head(draft, layers_of(model), [*text, 99])).abs().max() < EXACT
    model = SortedModel(draft, [NEVER, NEVER])
    model.begin(TEXT)
    model.root(TEXT)
    model.crop(len(TEXT) - back)
    assert {model.length(j) for j in range(3)} == {len(TEXT) - back}


# -- limits (check 1) --------------------------------------------------------------------------------------------------

LIMITS = [(ALWAYS, ALWAYS, 1), (NEVER, ALWAYS, 2), (NEVER, NEVER, 4)]


@pytest.mark.parametrize("sampling", [Sampling(0), Sampling(1.0), Sampling(0.7, top_p=0.9)], ids=["T=0", "T=1", "top-p"])
@pytest.mark.parametrize("first, middle, layers", LIMITS)
def test_at_the_ends_of_the_thresholds_it_is_speculative_sampling_with_one_sub_model(llama, draft, first, middle, layers, sampling):
    run = partial(run_steps, sampling=sampling, max_tokens=30, length=4)
    mine = run(family_of(llama.target, draft), "s2d", TEXT, first=first, middle=middle)
    other = run(family_of(llama.target, prefix(draft, layers)), "speculative_sampling", TEXT)
    assert tokens_of(mine) == tokens_of(other)
    assert [[node.token for node in step.nodes] for step in mine] == [[node.token for node in step.nodes] for step in other]
    assert {node.scores["exit"] for step in mine for node in step.nodes} == {layers}
    assert {node.source for step in mine for node in step.nodes} == {"layer 1" if layers == 1 else f"layers 1 to {layers}"}


# -- scores ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def middling(llama, draft) -> dict:
    levels = confidences(draft, [TEXT[: i + 1] for i in range(len(TEXT))])
    return {"first": levels[len(levels) * 2 // 3], "middle": levels[len(levels) // 2]}


def test_scores_say_which_exit_answered_and_why(llama, draft, middling):
    steps = run_steps(family_of(llama.target, draft), "s2d", TEXT, sampling=Sampling(1.0), max_tokens=60, **middling)
    taus = dict(zip(EXITS, (middling["first"], middling["middle"], -1.0), strict=True))
    seen = set()
    for step in steps:
        for node in step.nodes:
            met = [e for e in EXITS if CONFIDENCE_AFTER.format(e) in node.scores]
            assert met == [e for e in EXITS if e <= node.scores["exit"]] and node.scores["layers"] == 4
            passed = [node.scores[CONFIDENCE_AFTER.format(e)] > taus[e] for e in met]
            assert passed == [False] * (len(met) - 1) + [True]
            assert node.scores["layer passes"] >= node.scores["exit"] * node.scores["rows read"]
            seen.add(node.scores["exit"])
    assert seen == set(EXITS)


def test_layer_passes_count_every_row_once_per_layer(llama, draft, middling):
    """Over a run, passes are the rows of all layers: what the caches hold if nothing is ever rolled back."""
    model = SortedModel(draft, (middling["first"], middling["middle"]))
    model.begin(TEXT)
    before = sum(model.length(j) * len(s) for j, s in enumerate(model.segments))
    passes, logits = 0, model.root(TEXT)
    for token in range(20):
        passes += model.answers[-1].passes
        logits = model.extend(torch.tensor([token]), [-1])
    passes += model.answers[-1].passes
    after = sum(model.length(j) * len(s) for j, s in enumerate(model.segments))
    assert passes == after - before and logits.shape == (1, toys.VOCAB)


def test_temperature_does_not_move_the_exits(llama, draft, middling):
    """Check 9: the first node of a step, behind the same text."""
    exits = {}
    for temperature in (0.3, 1.5):
        for count in range(1, len(TEXT)):
            drafter, _ = METHODS["s2d"].build(
                family_of(llama.target, draft), METHODS["s2d"].checked({"length": 1, **middling}), Sampling(temperature)
            )
            drafter.begin(TEXT[:count], None)
            node = drafter.propose(TEXT[:count], torch.Generator().manual_seed(0))
            exits.setdefault(count, []).append(node.scores["exit"].item())
    assert all(one == other for one, other in exits.values())
    assert len({one for one, _ in exits.values()}) > 1


def test_the_schedule_of_the_papers_code(llama, draft):
    drafter, _ = METHODS["s2d"].build(
        family_of(llama.target, draft), METHODS["s2d"].checked({"schedule": s2d.SCHEDULE}), Sampling(0)
    )
    steps = run_steps(family_of(llama.target, draft), "s2d", TEXT, max_tokens=60, schedule=s2d.SCHEDULE)
    length = drafter.length
    for step in steps[:-1]:
        assert len(step.nodes) <= length and (len(step.nodes) == length or step.ending or any(n.token == 0 for n in step.nodes))
        length = min(length + 2, s2d.LONGEST) if len(step.path) == len(step.nodes) else max(length - 1, 1)
    fixed = run_steps(family_of(llama.target, draft), "s2d", TEXT, max_tokens=60)
    assert {len(step.nodes) for step in fixed[:-1]} == {5}
    assert [len(step.nodes) for step in steps[:-1]] != [5] * (len(steps) - 1)


# -- the rule (checks 6 and 7) -----------------------------------------------------------------------------------------

SHY, BOLD = torch.tensor([0.2, 0.3, 0.3, 0.2]), torch.tensor([0.6, 0.2, 0.1, 0.1])
P = torch.tensor([0.3, 0.3, 0.2, 0.2])


def first_tokens(p: Tensor, q: Tensor, sampled: Tensor, uniforms: Tensor) -> Tensor:
    """(vocab,) share of first tokens of steps whose one node was `drawn` (runs,) and judged with q."""
    counts = torch.zeros(len(p))
    output = output_of(torch.stack((p, p)))
    for token, u in zip(sampled.tolist(), uniforms, strict=True):
        verification = recursive_rejection(Draft((token,), (-1,), q[None], how="sampled", source=("",)), output, u)
        counts[token if verification.path else verification.token] += 1
    return counts / counts.sum()


def test_taking_the_arg_max_and_judging_it_with_the_soft_q_is_not_lossless():
    """The fault of the authors' code (check 7): the test that drawing passes, it must fail, and where the theory says."""
    uniforms = torch.rand(2_000, 2, generator=torch.Generator().manual_seed(0))
    u = torch.rand(2_000, generator=torch.Generator().manual_seed(1))
    honest = first_tokens(P, BOLD, draw(BOLD.expand(len(u), -1), u), uniforms)
    wrong = first_tokens(P, BOLD, torch.zeros(len(u), dtype=torch.long), uniforms)
    assert total_variation(honest, P) < 0.03  # 0.014 on average
    assert total_variation(wrong, P) > 0.17 and (wrong - torch.tensor([0.5, 1 / 6, 1 / 6, 1 / 6])).abs().max() < 0.03
    one_hot = torch.eye(4)[0]
    assert total_variation(first_tokens(P, one_hot, torch.zeros(len(u), dtype=torch.long), uniforms), P) < 0.03


TABLES = [torch.stack([BOLD.roll(i) for i in range(4)]), torch.stack([SHY.roll(i) for i in range(4)])]
TARGET = torch.stack([P.roll(i) for i in range(4)])


class Switching(s2d.SortedChain):
    """Two Markov chains as sub-models; a bit of the last token says which one answers."""

    def __init__(self, greedy_draft: bool = False) -> None:
        self.greedy_draft = greedy_draft

    def propose(self, tokens, rng) -> Draft:
        found, q = list(tokens), []
        for _ in range(2):
            q.append(TABLES[found[-1] % 2][found[-1]])
            found.append(int(q[-1].argmax()) if self.greedy_draft else int(draw(q[-1][None], torch.rand(1, generator=rng))))
        return Draft(tuple(found[len(tokens) :]), (-1, 0), torch.stack(q), how="sampled", source=("", ""))

    def begin(self, tokens, output) -> None:
        self.context = None

    def observe(self, draft, output, verification) -> None:
        pass


@pytest.mark.parametrize("greedy_draft, ok", [(False, True), (True, False)])
def test_two_tokens_follow_the_target_while_the_exits_switch(greedy_draft, ok):
    """Check 6: both tokens together; the planted fault must miss the same limit, and does by far."""
    counts, target = torch.zeros(4, 4), toys.markov(TARGET)
    for seed in range(2_000):
        drafter, rng = Switching(greedy_draft), torch.Generator().manual_seed(seed)
        drafter.context = None
        options = {"sampling": Sampling(1.0), "rng": rng, "max_tokens": 2, "recorded": False}
        tokens = tokens_of(list(decode(target, drafter, recursive_rejection, [1], **options)))
        counts[tokens[0], tokens[1]] += 1
    expected = TARGET[1][:, None] * TARGET
    assert (misfit(counts.flatten(), expected.flatten()) < LIMIT) == ok


# -- the loss (check 4) ------------------------------------------------------------------------------------------------


def gradient(model: nn.Module, loss: Tensor) -> Tensor:
    model.zero_grad()
    loss.backward()
    return model.lm_head.weight.grad.clone()


def test_with_one_exit_the_loss_is_the_ordinary_one():
    torch.manual_seed(0)
    model = sorted_target((2,)).model
    tokens = torch.randint(0, toys.VOCAB, (3, 13))
    plain = F.cross_entropy(model(tokens[:, :-1]).logits.flatten(0, 1), tokens[:, 1:].flatten())
    assert next_token(model, tokens).item() == pytest.approx(plain.item(), abs=0.02)  # bfloat16 inside the first


def test_the_gradient_is_the_mean_of_those_of_the_exits(monkeypatch):
    monkeypatch.setattr("decoding.training.precision.quick_at_bfloat16", lambda device: False)
    torch.manual_seed(0)
    model = sorted_target(EXITS).model
    tokens = torch.randint(0, toys.VOCAB, (3, 13))
    wanted = tokens[:, 1:].flatten()
    each = [
        gradient(model, F.cross_entropy(exit_logits(model, tokens[:, :-1])[j].flatten(0, 1), wanted)) for j in range(len(EXITS))
    ]
    assert torch.allclose(gradient(model, next_token(model, tokens)), torch.stack(each).mean(0), atol=1e-6)
    assert not torch.allclose(each[0], each[2], atol=1e-3)


def test_following_a_target_lowers_the_loss_of_every_exit():
    """A few steps on one batch; the losses are those against the target's distribution."""
    torch.manual_seed(0)
    model = sorted_target(EXITS, initializer_range=0.05).model.train()
    tokens = torch.randint(0, toys.VOCAB, (2, 16))
    p, ids = (torch.randn(2, 16, toys.VOCAB) * 3).softmax(-1).topk(64)
    before = [divergence(logits_of(model, tokens, j, ids), p).item() for j in range(3)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        followed(model, divergence, tokens, ids, p).backward()
        optimizer.step()
    after = [divergence(logits_of(model, tokens, j, ids), p).item() for j in range(3)]
    assert all(new < 0.7 * old for new, old in zip(after, before, strict=True))


def logits_of(model: nn.Module, tokens: Tensor, number: int, ids: Tensor) -> Tensor:
    with torch.no_grad():
        return kept_log_q(exit_logits(model, tokens)[number], ids)


def test_a_model_grown_from_a_draft_model_begins_as_good_as_that_is(tokenizer):
    torch.manual_seed(0)
    model = sorted_llama(tokenizer, [1, 2, 4], 64, 64)
    small = sorted_llama(tokenizer, [2], 64, 64)
    small.config.exits = None
    grown_from(small, model)
    tokens = torch.randint(0, len(tokenizer), (2, 9))
    with torch.no_grad():
        one, two, four = exit_logits(model, tokens)
        plain = small(tokens).logits
    assert torch.allclose(two, plain, atol=1e-5) and torch.allclose(four, plain, atol=1e-5)
    assert not torch.allclose(one, plain, atol=1e-2)


def test_a_draft_model_of_another_shape_is_not_begun_from(tokenizer):
    model, other = sorted_llama(tokenizer, [1, 2], 64, 64), sorted_llama(tokenizer, [2], 128, 64)
    before = {name: values.clone() for name, values in model.state_dict().items()}
    grown_from(other, model)
    assert all(torch.equal(values, before[name]) for name, values in model.state_dict().items())


def test_tokens_of_a_large_vocabulary_are_kept_whole(tmp_path):
    """Two bytes would not hold them."""

    class Large:
        def __len__(self) -> int:
            return 100_000

        def __call__(self, text: str) -> dict:
            return {"input_ids": [70_000, 3]}

    assert stream(["a"], Large(), tmp_path / "new" / "x.npy").tolist() == [70_000, 3]


# -- what is refused ---------------------------------------------------------------------------------------------------

BAD_EXITS = {
    "beyond the last layer": [1, 3],
    "not up to the last layer": [1],
    "descending": [2, 1, 2],
    "twice": [1, 1, 2],
    "zero": [0, 2],
    "none": [],
    "no numbers": ["one", 2],
    "a fraction": [1.5, 2],
    "no list": 2,
    "true": [True, 2],
}


@pytest.mark.parametrize("case", BAD_EXITS)
def test_impossible_exits_are_refused(case, tmp_path, tokenizer, folders):
    toys.save(tmp_path, toys.causal_lm("llama"), tokenizer)
    edit(tmp_path, exits=BAD_EXITS[case])
    with pytest.raises(ValueError, match="The exits of a sorted draft model must ascend") as caught:
        load(folders("llama"), str(tmp_path), device="cpu")
    assert str(tmp_path) in str(caught.value) and str(caught.value).endswith(".")


def edit(folder: Path, **more) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | more))


def test_another_architecture_is_refused(tmp_path, tokenizer, folders):
    toys.save(tmp_path, toys.causal_lm("gpt2"), tokenizer)
    edit(tmp_path, exits=[1, 2])
    with pytest.raises(ValueError, match="must be a Llama; this one is a gpt2"):
        load(folders("llama"), str(tmp_path), device="cpu")


def test_a_folder_with_exits_serves_as_the_draft_model(tmp_path, tokenizer, folders, real_find):
    model = toys.causal_lm("llama", seed=5)
    model.config.exits = [1, 2]
    toys.save(tmp_path, model, tokenizer)
    family = load(folders("gpt2"), str(tmp_path), device="cpu")
    assert real_find(family) is family.draft and exits_of(family.draft.model.config) == (1, 2)
    run = Run(family, "s2d", {"first": ALWAYS}, "the cat", Sampling(0), max_tokens=6)
    assert {node.scores["exit"] for step in run for node in step.nodes} == {1}


@pytest.fixture
def real_find(monkeypatch):
    """Without what the other tests put in its place."""
    monkeypatch.setattr(s2d, "find", s2d.find.__wrapped__)
    return s2d.find


def test_a_sorted_draft_of_another_tokenizer_is_refused(folders, real_find):
    family = load(folders("llama"), str(EMBEDDED / "sorted"), device="cpu")
    assert real_find(family) is None and "has another tokenizer than the target" in family.notes[0]
    with pytest.raises(ValueError, match="has none with its tokenizer"):
        Run(family, "s2d", prompt="the cat")


def test_what_a_family_lacks_is_said_with_the_command(llama, real_find):
    sentence = METHODS["s2d"].missing(llama)
    assert llama.name in sentence and "python -m decoding.training s2d" in sentence and sentence.endswith(".")
    with pytest.raises(ValueError, match="needs a sorted draft model"):
        Run(llama, "s2d", prompt="the cat")
    with pytest.raises(ValueError, match="needs a sorted draft model"):
        s2d.opinions(llama, (1, 2), 3)


def test_nothing_is_said_of_a_family_that_is_not_loaded():
    assert METHODS["s2d"].missing(family_named("some/model", None)) == ""


@pytest.mark.parametrize("exits, taus", [((1, 2), ()), ((1, 2), (0.5, 0.5)), ((2,), (0.5,))])
def test_thresholds_must_fit_the_exits(exits, taus):
    with pytest.raises(ValueError, match="thresholds do not fit"):
        SortedModel(sorted_target(exits), taus)


@pytest.mark.parametrize("exits", [(1,), (2,), (1, 2), (1, 2, 3), (1, 2, 3, 4)])
def test_any_number_of_exits(llama, exits):
    steps = run_steps(family_of(llama.target, sorted_target(exits)), "s2d", TEXT, max_tokens=12, first=NEVER, middle=NEVER)
    assert {node.scores["exit"] for step in steps for node in step.nodes} == {exits[-1]}
    assert segments(exits)[-1].stop == exits[-1]


# -- what the others would have said -----------------------------------------------------------------------------------


def test_opinions_are_those_of_the_plain_sub_models(llama, draft):
    found = s2d.opinions(family_of(llama.target, draft), tuple(TEXT), 7)
    assert [opinion.exit for opinion in found] == list(EXITS)
    for opinion in found:
        q = init_head(draft, opinion.exit, TEXT)
        assert opinion.q[:5] == pytest.approx(sorted(q.tolist(), reverse=True)[:5], abs=EXACT)
        assert len(set(opinion.tokens)) == len(opinion.tokens) and set(opinion.tokens) == set(found[0].tokens)
        assert [q[token].item() for token in opinion.tokens] == pytest.approx(opinion.q, abs=EXACT)
        assert opinion.asked == pytest.approx(q[7].item(), abs=EXACT)


@pytest.mark.parametrize("length", [0, toys.CONTEXT + 1])
def test_opinions_on_a_text_that_cannot_be_read(llama, draft, length):
    with pytest.raises(ValueError, match="reads 1 to"):
        s2d.opinions(family_of(llama.target, draft), (1,) * length, 7)


# -- the context -------------------------------------------------------------------------------------------------------


def test_a_run_up_to_the_end_of_the_context(llama):
    """The draft model's is shorter than the target's."""
    short = replace(sorted_target(EXITS), context=40)
    steps = run_steps(family_of(llama.target, short), "s2d", TEXT, max_tokens=100, first=0.3)
    assert steps[-1].ending == "context limit of the draft model" and len(TEXT) + len(tokens_of(steps)) == 40


def test_a_prompt_of_one_token(llama, draft, middling):
    steps = run_steps(family_of(llama.target, draft), "s2d", [7], max_tokens=20, **middling)
    assert tokens_of(steps) == toys.greedy_text(llama.target, [7], 20)


ALL = list(product((ALWAYS, 0.4, NEVER), repeat=2))


@pytest.mark.parametrize("first, middle", ALL)
def test_greedy_text_does_not_depend_on_the_thresholds(llama, first, middle):
    """Check 8 with a random target; the draft model is the target with noise, so that some drafts are kept."""
    for seed in (3, 4):
        noisy = toys.noisy(llama.target.model, 0.05, seed)
        noisy.config.exits = [1, 2]
        family = family_of(llama.target, replace(llama.target, model=noisy))
        steps = run_steps(family, "s2d", TEXT, max_tokens=50, first=first, middle=middle)
        assert tokens_of(steps) == toys.greedy_text(llama.target, TEXT, 50)
        assert len(steps) < 50 or first == ALWAYS


# -- what is shipped ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small() -> Family:
    return load("embedded-small", device="cpu")


def test_the_small_target(small, embedded):
    assert small.name == "embedded-small" and small.target.context == 1024
    assert small.target.model.num_parameters() < embedded.target.model.num_parameters() / 3
    assert small.tokenizer.get_vocab() == embedded.tokenizer.get_vocab()
    assert small.draft.model.num_parameters() == embedded.draft.model.num_parameters()


def test_one_sorted_draft_model_serves_both_targets(small, embedded, real_find):
    assert exits_of(real_find(embedded).model.config) == (1, 2, 4)
    assert real_find(embedded) is real_find(small)
    assert METHODS["s2d"].missing(embedded) == METHODS["s2d"].missing(small) == ""


def test_what_is_shipped_for_it_is_small():
    files = [EMBEDDED / folder / "model.safetensors" for folder in ("sorted", "target-small")]
    assert sum(file.stat().st_size for file in files) < 10e6


SENTENCES = (
    "Once upon a time there was a little girl named Lily. She had a red ball and",
    "Question: Tom has 3 boxes with 12 apples each. He gives 8 to Ann. How many are left?\nAnswer:",
    "class Stack:\n    def __init__(self):\n",
)
PLAIN = (ALWAYS, ALWAYS), (NEVER, ALWAYS), (NEVER, NEVER)


@pytest.mark.parametrize("name", ["embedded", "embedded-small"])
@pytest.mark.parametrize("prompt", SENTENCES)
def test_greedy_text_of_both_targets_with_the_same_draft_weights(name, prompt, embedded, small):
    """Check 8."""
    family = embedded if name == "embedded" else small
    ids = family.tokenizer(prompt)["input_ids"]
    expected = toys.greedy_text(family.target, ids, 40)
    for first, middle in ((0.7, 0.6), (0.3, 0.3), *PLAIN):
        assert tokens_of(run_steps(family, "s2d", ids, first=first, middle=middle)) == expected


@pytest.fixture(scope="module")
def windows(embedded) -> Tensor:
    """(windows, 256) tokens of source files that no training has seen."""
    text = "\n".join(python_source()[1][:12])
    ids = embedded.tokenizer(text)["input_ids"][: 16 * 256]
    return torch.tensor(ids[: len(ids) // 256 * 256]).view(-1, 256)


def bits(logits: Tensor, tokens: Tensor) -> float:
    """Cross-entropy with the next token, in bits."""
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).item() / math.log(2)


def rejected(p: Tensor, q: Tensor) -> float:
    """The chance that a token drawn from q is turned down: 1 - sum min(p, q), the mean over all places."""
    return 1 - torch.minimum(p.softmax(-1), q.softmax(-1)).sum(-1).mean().item()


@torch.inference_mode()
def test_held_out_loss_of_the_exits_and_of_a_separate_model(embedded, windows):
    """Check 5; the separate model is the shipped draft model of two layers. Trained for few rejections, the deepest exit has fewer
    than the one before it, at the price of some thousandths in bits."""
    p, separate = embedded.target.model(windows).logits, embedded.draft.model(windows).logits
    one, two, four = found = exit_logits(s2d.find(embedded).model, windows)
    assert rejected(p, one) > 1.05 * rejected(p, two) and rejected(p, two) > rejected(p, four)
    one, two, four = (bits(logits, windows) for logits in found)
    assert one > 1.05 * two and four < 1.01 * two
    assert two < 1.05 * bits(separate, windows)


@torch.inference_mode()
def test_the_small_target_stands_between_the_draft_models_and_the_large_one(embedded, small, windows):
    large, middle, draft = (bits(t.model(windows).logits, windows) for t in (embedded.target, small.target, s2d.find(embedded)))
    assert large < middle < draft


def test_deep_drafts_are_kept_more_often_and_the_mixture_lies_between(embedded, small):
    """Tokens per target call over the prompts above, greedy."""

    def tau(family: Family, first: float, middle: float) -> float:
        runs = [run_steps(family, "s2d", family.tokenizer(p)["input_ids"], first=first, middle=middle) for p in SENTENCES]
        return sum(map(len, map(tokens_of, runs))) / sum(map(len, runs))

    for family in (embedded, small):
        shallow, deep, mixed = tau(family, *PLAIN[0]), tau(family, *PLAIN[2]), tau(family, 0.7, 0.6)
        assert shallow < deep and mixed > shallow and mixed > 0.9 * deep


def test_a_link_names_the_small_target():
    settings = Settings(method="s2d", target="embedded-small")
    found = address.parse(address.parameters(settings, 3, None))
    assert found.settings.target == "embedded-small" and not found.complaints
    assert "target" not in address.parameters(Settings(), 3, None)
    assert address.parse({"target": "/etc"}).settings.target == "embedded" and address.parse({"target": "/etc"}).complaints
    assert address.parse({"draft": "embedded-small"}).complaints


def test_the_controls_and_the_shelf_know_the_small_target(monkeypatch):
    assert Settings(method="s2d", target="embedded-small").problem() == ""
    assert Settings(method="speculative_sampling", target="embedded-small").problem() == ""
    assert weights_mark("embedded-small") == weights_mark("embedded") != ""
    monkeypatch.setattr(family_cache, "_families", {})
    monkeypatch.setattr(family_cache, "load", lambda *key, **_: type("Family", (), {})())
    kept = [family_cache.family("embedded"), family_cache.family("embedded-small")]
    family_cache.family("folder")
    assert [family_cache.family("embedded"), family_cache.family("embedded-small")] == kept


# -- the page ----------------------------------------------------------------------------------------------------------


def words(at) -> str:
    return " ".join(element.value for element in (*at.markdown, *at.caption)).replace("\\", "")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("target", ["embedded", "embedded-small"])
def test_the_step_page_draws_the_view_and_asks_every_sub_model(target):
    settings = Settings(prompt="Once upon a time", method="s2d", temperature=1.0, max_tokens=12, target=target)
    at = press(opened(**address.parameters(settings, 1, None)), "run")
    assert not at.exception and not errors(at) and state(at).trace.header.family == target
    state(at).go(0)
    state(at).pick(0)
    at.run()
    assert "How deep each token went" in words(at) and "Layers run one after the other per drafted token" in words(at)
    press(at, next(button.key for button in at.button if button.key.startswith("s2d_ask_")))
    assert not at.exception and not warnings(at)
    assert "belong to the sub-model that drafted the token" in words(at)
    assert any(list(table.value.columns[:2]) == ["layers", ""] and len(table.value) == 3 for table in at.dataframe)
