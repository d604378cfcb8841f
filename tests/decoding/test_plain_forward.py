"""The short forward puts out what the one of transformers does, over trees, chains and hidden layers; where it cannot, it steps
back."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from decoding.draft import EMPTY, Draft
from decoding.models import plain_forward, short_way
from decoding.models.cache import TreeCache
from decoding.models.checkpoints import transpose_weights
from decoding.models.family import load
from decoding.models.plain_forward import PRE_NORM, PlainForward, refusal
from decoding.models.short_way import difference, shortened
from decoding.models.target import Target
from decoding.runs.run import Run
from decoding.sample import Sampling
from tests.toys import CONTEXT, VOCAB, YARN, causal_lm, save

CLOSE = 2e-5
SHAPES = {
    "llama": {},
    "llama, biases": {"attention_bias": True, "mlp_bias": True},
    "llama, one key-value head": {"num_key_value_heads": 1},
    "llama, as many as heads": {"num_attention_heads": 4, "num_key_value_heads": 4},
    "llama, yarn": {"rope_parameters": YARN},
    "llama, own head": {"tie_word_embeddings": False},
    "qwen2": {},
    "qwen3": {"head_dim": 16},
    "mistral": {},
}  # fmt: skip


def model_of(shape: str, *, flipped: bool = True, seed: int = 0):
    made = causal_lm(shape.split(",")[0], seed=seed, **SHAPES[shape])
    with torch.no_grad():  # norms and biases as training leaves them, not ones and zeros
        rng = torch.Generator().manual_seed(seed + 1)
        for values in made.parameters():
            if values.ndim == 1:
                values += 0.3 * torch.randn(values.shape, generator=rng)
    return transpose_weights(made) if flipped else made


def both(shape: str, **more) -> tuple[Target, Target]:
    """The same model, read by transformers and by the short way."""
    model = model_of(shape, **more)
    slow = Target(copy.deepcopy(model), VOCAB, CONTEXT)
    return slow, Target(model, VOCAB, CONTEXT, plain=PlainForward(model))


def text(length: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, VOCAB, length).tolist()


def tree(n: int, seed: int = 0) -> Draft:
    rng = np.random.default_rng(seed)
    parents = tuple(int(rng.integers(-1, i)) if i else -1 for i in range(n))
    return Draft(tuple(rng.integers(0, VOCAB, n).tolist()), parents, source=("test",) * n)


@pytest.mark.parametrize("flipped", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_logits_and_states_are_those_of_transformers(shape, flipped):
    """Over steps with trees of several sizes, a path kept each time; at all hidden layers."""
    slow, quick = both(shape, flipped=flipped)
    assert quick.plain is not None and quick.plain.serves(quick.model)
    layers = (PRE_NORM, 0, 1, slow.last_hidden)
    tokens, caches = text(30), (slow.new_cache(), quick.new_cache())
    ways = list(zip((slow, quick), caches, strict=True))
    same([target.extend_with_hidden(cache, tokens[:-1], layers, every_row=True) for target, cache in ways])
    for nodes in (0, 1, 7, 20):
        draft = tree(nodes, nodes) if nodes else EMPTY
        outputs = [
            target.read(cache, tokens, draft, Sampling(), layers) for target, cache in zip((slow, quick), caches, strict=True)
        ]
        same([(output.logits, output.hidden) for output in outputs])
        path = draft.path_to(nodes - 1)
        for cache in caches:
            cache.keep([0, *(node + 1 for node in path)])
        tokens += [*(draft.tokens[node] for node in path), 5]


def same(found) -> None:
    (logits, hidden), (other, others) = found
    assert (logits - other).abs().max() < CLOSE * logits.std()
    assert hidden.keys() == others.keys()
    for layer, states in hidden.items():
        assert states.shape == others[layer].shape and (states - others[layer]).abs().max() < CLOSE * states.std(), layer


def test_rows_given_as_embeddings_are_read(shape="llama"):
    slow, quick = both(shape)
    found = []
    for target in (slow, quick):
        rows = target.embedded(target.ids(text(9))) + 0.01
        found.append(target.forward(TreeCache(), None, range(9), embeddings=rows, aux_hidden_layers=(0,)))
    same(found)


def test_positions_beyond_the_first_table_are_right(monkeypatch):
    monkeypatch.setattr(plain_forward, "FIRST_POSITIONS", 16)
    slow, quick = both("llama")
    tokens = text(100)
    same([target.extend_with_hidden(TreeCache(), tokens, (1,), every_row=True) for target in (slow, quick)])


# -- the weights are the model's own -----------------------------------------------------------------------------------


@pytest.mark.parametrize("flipped", [True, False])
def test_nothing_is_there_twice(flipped):
    model = model_of("llama, biases", flipped=flipped)
    before = {name: values.clone() for name, values in model.state_dict().items()}
    plain = PlainForward(model)
    assert all(torch.equal(values, before[name]) for name, values in model.state_dict().items())
    layer, attention = plain.layers[1], model.model.layers[1].self_attn
    spans = [part.weight.untyped_storage().data_ptr() for part in (attention.q_proj, attention.k_proj, attention.v_proj)]
    assert spans == [layer.asked.untyped_storage().data_ptr()] * 3


def test_a_weight_that_is_trained_on_is_read_as_it_is():
    slow, quick = both("llama")
    for target in (slow, quick):
        for name, values in target.model.named_parameters():
            if any(part in name for part in ("q_proj", "v_proj", "up_proj", "down_proj", "norm")):
                values.data += 0.05
    assert quick.plain is not None and quick.plain.serves(quick.model)
    same([target.extend_with_hidden(TreeCache(), text(9), (1,), every_row=True) for target in (slow, quick)])


def test_a_step_of_training_goes_through_the_views():
    slow, quick = both("llama")
    for target in (slow, quick):
        ids = torch.tensor([text(12)])
        optimizer = torch.optim.AdamW(target.model.parameters(), lr=1e-3)
        target.model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
    same([target.extend_with_hidden(TreeCache(), text(9), (1,), every_row=True) for target in (slow, quick)])


def test_a_model_with_fused_weights_is_saved_whole(tmp_path, tokenizer):
    model = model_of("llama, biases")
    before = {name: values.clone() for name, values in model.state_dict().items()}
    PlainForward(model)
    save(tmp_path, model, tokenizer)
    found = load_file(tmp_path / "model.safetensors")
    assert {"model.layers.0.self_attn.k_proj.weight", "model.layers.1.mlp.up_proj.bias"} <= found.keys()
    assert all(torch.equal(values, before[name]) for name, values in found.items())
    assert (tmp_path / "model.safetensors").stat().st_size < 1.2 * sum(values.nbytes for values in found.values()) + 20_000


# -- where it steps back -----------------------------------------------------------------------------------------------


def moved(model) -> None:
    weight = model.model.layers[1].mlp.gate_proj.weight
    weight.data = weight.data.clone() * 2


def replaced(model) -> None:
    model.model.layers[0].self_attn.o_proj = nn.Linear(*reversed(model.model.layers[0].self_attn.o_proj.weight.shape), bias=False)


def other_weight(model) -> None:
    model.model.norm.weight = nn.Parameter(model.model.norm.weight + 1)


def hooked(model) -> None:
    model.model.layers[1].mlp.register_forward_hook(lambda part, given, out: out * 0)


@pytest.mark.parametrize("change", [moved, replaced, other_weight, hooked, lambda model: model.to(torch.float64)])
def test_a_model_that_is_no_longer_the_same_is_read_by_transformers(change):
    """Also in the middle of a text, whose cache goes on."""
    torch.manual_seed(0)
    _, quick = both("llama")
    tokens, cache = text(20), quick.new_cache()
    quick.extend(cache, tokens[:-1])
    change(quick.model)
    assert quick.plain is not None and not quick.plain.serves(quick.model)
    if quick.model.dtype is torch.float32:
        slow = Target(quick.model, VOCAB, CONTEXT)
        again = slow.new_cache()
        for layer, known in zip(range(len(cache.layers)), cache.layers, strict=True):
            again.update(known.keys[:, :, :19], known.values[:, :, :19], layer)
        again.committed = 19
        found = [target.read(one, tokens, EMPTY, Sampling()).logits for target, one in ((quick, cache), (slow, again))]
        assert torch.equal(*found)


def test_the_forward_of_one_model_never_serves_another():
    _, quick = both("llama")
    other = replace(quick, model=model_of("llama", seed=5))
    wanted = Target(other.model, VOCAB, CONTEXT).extend(TreeCache(), text(9))
    assert torch.equal(other.extend(TreeCache(), text(9)), wanted)


@pytest.mark.parametrize(
    "kind, more, words",
    [
        ("gpt2", {}, "it is a GPT2LMHeadModel"),
        ("phi3", {"pad_token_id": 0}, "it is a Phi3ForCausalLM"),
        ("mistral", {"sliding_window": 16}, "windows of 16 tokens"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, r"\(dynamic\) change"),
    ],
)
def test_what_it_cannot_serve_is_said(kind, more, words):
    model = causal_lm(kind, **more)
    assert refusal(model)
    with pytest.raises(ValueError, match=words):
        PlainForward(model)


def test_a_hook_and_a_linear_layer_of_its_own_are_refused():
    class Own(nn.Linear):
        pass

    model = model_of("llama")
    model.model.layers[0].register_forward_pre_hook(lambda *given: None)
    assert "hangs" in refusal(model)
    model = model_of("llama")
    model.lm_head.__class__ = Own
    assert "of a kind of their own" in refusal(model)


# -- at load -----------------------------------------------------------------------------------------------------------


def test_a_forward_that_differs_is_not_taken(monkeypatch, folders):
    """Planted: rotary positions that are off by one, and a mask that is left out."""
    right = load(folders("llama"), device="cpu")
    assert right.target.plain is not None and not right.notes
    attended = PlainForward.attended

    def late(self, number, layer, rows, cos, sin, mask, store):
        return attended(self, number, layer, rows, cos.roll(1, 0), sin.roll(1, 0), mask, store)

    def unmasked(self, number, layer, rows, cos, sin, mask, store):
        return attended(self, number, layer, rows, cos, sin, None if mask is None else mask * 0, store)

    for wrong in (late, unmasked):
        monkeypatch.setattr(PlainForward, "attended", wrong)
        family = load(folders("llama"), device="cpu")
        assert family.target.plain is None and "is read by the forward of transformers: the short one differs" in family.notes[0]


def test_a_library_that_changed_is_not_taken(monkeypatch):
    """What raises inside is a note, and no failure to load."""
    monkeypatch.setattr(PlainForward, "tables", lambda self, count: self.there_is_no_such_thing)
    target = Target(model_of("llama"), VOCAB, CONTEXT)
    found, notes = shortened(target, "a", "auto")
    assert found is target and "AttributeError" in notes[0]


def test_a_number_that_is_none_is_noticed(monkeypatch):
    slow, quick = both("llama")
    monkeypatch.setattr(short_way, "compared", lambda target, *_: [torch.full((1, 2), float("nan") if target is quick else 1.0)])
    assert not difference(slow, quick) <= 1


def test_bfloat16_is_served_within_its_rounding():
    model = model_of("llama").to(torch.bfloat16)
    target, notes = shortened(Target(model, VOCAB, CONTEXT), "a", "auto")
    assert target.plain is not None and not notes


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("key", ["plain", "speculative_sampling", "eagle", "kangaroo", "s2d", "dyspec", "judge", "ppd", "clover"])
def test_runs_of_both_ways_are_the_same(key, temperature, embedded):
    """Tokens and verdicts, with methods that read hidden layers, run single layers, and read embeddings."""
    assert embedded.target.plain is not None and embedded.draft is not None and embedded.draft.plain is not None
    ordinary = replace(embedded, target=replace(embedded.target, plain=None), draft=replace(embedded.draft, plain=None))
    found = []
    for family in (embedded, ordinary):
        params = {"budget": "64"} if key == "ppd" else {}
        run = Run(family, key, params, "Once upon a time there was a", Sampling(temperature), seed=3, max_tokens=24)
        list(run)
        found.append([(step.tokens, step.path, [(node.token, node.verdict) for node in step.nodes]) for step in run.trace.steps])
    assert found[0] == found[1]
