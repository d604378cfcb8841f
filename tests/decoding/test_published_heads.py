"""Published drafters: tiny checkpoints in exactly the formats of EAGLE, EAGLE-3, speculators and Medusa open for their target."""

import json
import math
import os
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding

from decoding.methods import METHODS, eagle, medusa
from decoding.models import published_heads
from decoding.models.cache import TreeCache
from decoding.models.family import load
from decoding.models.target import PRE_NORM, Target
from decoding.runs.run import Run
from decoding.sample import Sampling
from decoding.training import convert
from pages.parts.shared.settings import family_named
from tests import toys
from tests.decoding.test_greedy_equality import PROMPTS, generated
from tests.toys import CONTEXT, VOCAB, causal_lm

LAYERS, WIDTH, MLP, DRAFTED = 8, 32, 48, 100  # of the target; EAGLE-3's draft vocabulary
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": WIDTH,
    "intermediate_size": MLP,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 1,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10_000.0,
    "vocab_size": VOCAB,
    "max_position_embeddings": 2048,
}
EAGLE3 = LLAMA | {"architectures": ["LlamaForCausalLMEagle3"], "draft_vocab_size": DRAFTED}
SPECULATORS = {
    "architectures": ["Eagle3Speculator"],
    "speculators_model_type": "eagle3",
    "speculators_config": {"algorithm": "eagle3", "verifier": {"name_or_path": "someone/target"}},
    "transformer_layer_config": LLAMA,
    "draft_vocab_size": DRAFTED,
    "norm_before_residual": True,
    "eagle_aux_hidden_state_layer_ids": [1, 4, LAYERS],
}
MEDUSA = {"medusa_num_heads": 3, "medusa_num_layers": 1, "base_model_name_or_path": "someone/target"}


@cache
def target() -> Target:
    return Target(causal_lm("llama", num_hidden_layers=LAYERS, initializer_range=0.15), VOCAB, CONTEXT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer) -> str:
    """The target as a folder."""
    path = tmp_path_factory.mktemp("target")
    toys.save(path, target().model, tokenizer)
    return str(path)


def layer(inputs: int, stem: str, norms: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """The tensors of a layer with 4 heads of width 8, two of them for keys and values."""
    shapes = {"q_proj": (WIDTH, inputs), "k_proj": (WIDTH // 2, inputs), "v_proj": (WIDTH // 2, inputs), "o_proj": (WIDTH, WIDTH)}
    found = {f"{stem}.self_attn.{name}.weight": shape for name, shape in shapes.items()}
    found |= {f"{stem}.mlp.{name}_proj.weight": (MLP, WIDTH) for name in ("gate", "up")}
    return found | {f"{stem}.mlp.down_proj.weight": (WIDTH, MLP)} | {f"{stem}.{name}.weight": (WIDTH,) for name in norms}


def filled(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    made = {name: torch.randn(shape, generator=rng) / math.sqrt(shape[-1]) for name, shape in shapes.items()}
    return {name: 1 + 0.1 * values if "norm" in name else values for name, values in made.items()}


def eagle_tensors(bias: bool = True) -> dict[str, Tensor]:
    shapes = {"fc.weight": (WIDTH, 2 * WIDTH)} | ({"fc.bias": (WIDTH,)} if bias else {})
    return filled(shapes | layer(WIDTH, "layers.0", ("post_attention_layernorm",)))


def eagle3_tensors(stem: str = "midlayer", drafted: int = DRAFTED) -> dict[str, Tensor]:
    norms = ("hidden_norm", "input_layernorm", "post_attention_layernorm")
    shapes = {"fc.weight": (WIDTH, 3 * WIDTH), "norm.weight": (WIDTH,), "lm_head.weight": (drafted, WIDTH)}
    made = filled(shapes | layer(2 * WIDTH, stem, norms))
    return made if drafted == VOCAB else made | maps(drafted)


def maps(drafted: int) -> dict[str, Tensor]:
    """Some of the target's tokens: d2t holds the distance from the draft's number to the target's."""
    tokens = torch.randperm(VOCAB, generator=torch.Generator().manual_seed(5))[:drafted].sort().values
    return {"d2t": tokens - torch.arange(drafted), "t2d": torch.zeros(VOCAB, dtype=torch.bool).index_fill(0, tokens, True)}


def medusa_tensors(heads: int = 3, width: int = WIDTH, vocab: int = VOCAB) -> dict[str, Tensor]:
    shapes: dict[str, tuple[int, ...]] = {}
    for k in range(heads):
        shapes |= {f"{k}.0.linear.weight": (width, width), f"{k}.0.linear.bias": (width,), f"{k}.1.weight": (vocab, width)}
    return filled(shapes)


FORMATS = {
    "EAGLE": ("eagle", LLAMA, eagle_tensors()),
    "EAGLE without bias": ("eagle", LLAMA | {"bias": False}, eagle_tensors(bias=False)),
    "EAGLE with embeddings": ("eagle", LLAMA, eagle_tensors() | filled({"embed_tokens.weight": (VOCAB, WIDTH)}, 3)),
    "EAGLE-3": ("eagle", EAGLE3, eagle3_tensors()),
    "EAGLE-3, all tokens": ("eagle", EAGLE3 | {"draft_vocab_size": VOCAB}, eagle3_tensors(drafted=VOCAB)),
    "speculators": ("eagle", SPECULATORS, eagle3_tensors("layers.0")),
    "Medusa": ("medusa", MEDUSA, medusa_tensors()),
}


def written(path: Path, config: dict, tensors: dict[str, Tensor], name: str = "model.safetensors") -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    save_file(tensors, path / name)
    return path


@pytest.fixture
def format_of(tmp_path):
    return lambda name: written(tmp_path / "head", *FORMATS[name][1:])


# -- they open and draft -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_a_checkpoint_opens_in_place_of_a_draft_model(name, folder, format_of):
    """By the name in the box "Draft model": the method takes it, nothing is missing, and what the target writes is written."""
    method, head = FORMATS[name][0], format_of(name)
    family = load(folder, str(head), device="cpu")
    assert family.heads == {method: head} and family.draft is None
    assert not METHODS[method].missing(family) and not METHODS[method].missing(family_named(folder, str(head)))
    run = Run(family, method, {}, PROMPTS[0], Sampling(0), max_tokens=24)
    assert [token for step in run for token in step.tokens] == generated(family, PROMPTS[0], 24)
    assert sum(len(step.nodes) for step in run.steps) > 100


def test_its_file_is_read_once_and_again_when_it_changes(folder, format_of, monkeypatch):
    reads, read = [], published_heads.read
    monkeypatch.setattr(published_heads, "read", lambda *given: reads.append(given) or read(*given))
    head = format_of("EAGLE")
    family = load(folder, str(head), device="cpu")
    for _ in range(2):
        list(Run(family, "eagle", prompt=PROMPTS[0], max_tokens=2, ignore_end=True))
    first = family.published_head("eagle")
    assert len(reads) == 1 and family.published_head("eagle") is first
    (file,) = head.glob("*.safetensors")
    os.utime(file, ns=(1, 1))
    assert family.published_head("eagle") is not first and len(reads) == 2


def test_it_is_preferred_to_a_head_that_was_trained_here(folder, format_of):
    family = load(folder, str(format_of("EAGLE")), device="cpu")
    drafter, _ = METHODS["eagle"].build(family, METHODS["eagle"].checked({}), Sampling())
    assert drafter.reader.heads.shape.kind == "eagle" and drafter.aux_hidden_layers == (LAYERS,)
    drafter, _ = METHODS["eagle"].build(replace(family, heads={}), METHODS["eagle"].checked({}), Sampling())
    assert not torch.equal(drafter.reader.heads.fc.weight[:, :1], FORMATS["EAGLE"][2]["fc.weight"][:, :1])


def test_the_embedded_target_keeps_its_draft_model(tmp_path, embedded):
    config = embedded.target.model.config
    assert config.hidden_size == 256
    tensors = medusa_tensors(2, config.hidden_size, config.vocab_size)
    head = written(tmp_path, MEDUSA | {"medusa_num_heads": 2}, tensors)
    family = load("embedded", str(head), device="cpu")
    assert family.draft is not None and family.heads == {"medusa": head}
    assert not METHODS["speculative_sampling"].missing(family_named("embedded", str(head)))


def test_a_method_that_needs_a_draft_model_says_so(folder, format_of, tmp_path, monkeypatch):
    monkeypatch.setenv("DRAFTSCOPE_CACHE", str(tmp_path / "empty"))  # no other test's heads
    head = str(format_of("EAGLE"))
    for family in (load(folder, head, device="cpu"), family_named(folder, head)):
        assert "needs a draft model" in METHODS["speculative_sampling"].missing(family)
    assert METHODS["medusa"].missing(family_named(folder, head)), "a head of another method"


# -- they compute what their authors' code computes --------------------------------------------------------------------


def states(aux_hidden_layers: tuple[int, ...], tokens: list[int]) -> list[Tensor]:
    one = target()
    found = one.forward(TreeCache(), one.ids(tokens), range(len(tokens)), aux_hidden_layers=aux_hidden_layers)[1]
    return [found[aux_layer] for aux_layer in aux_hidden_layers]


TEXT = [7, 70, 170, 7, 70, 33, 12, 99]


def logits_of(head: Path) -> Tensor:
    """What the opened head says behind every slot of TEXT."""
    one = target()
    heads, _ = eagle.load_head(one, published_heads.read(head, one))
    rows = []
    for end in range(1, len(TEXT)):
        reader = eagle.Reader(heads, one)
        reader.commit([part[:end] for part in states(heads.shape.aux_hidden_layers, TEXT)], TEXT[1 : end + 1])
        rows.append(reader.begin())
    return torch.cat(rows)


def theirs(config: dict, tensors: dict[str, Tensor], stem: str) -> LlamaDecoderLayer:
    """A layer of transformers with these weights; a bias that they do not have is zero."""
    made = LlamaDecoderLayer(LlamaConfig(**config | {"attention_bias": True}, attn_implementation="eager"), 0).eval()
    for name, part in made.named_modules():
        if f"{stem}.{name}.weight" in tensors:
            part.weight = torch.nn.Parameter(tensors[f"{stem}.{name}.weight"])
        if getattr(part, "bias", None) is not None:
            part.bias = torch.nn.Parameter(tensors.get(f"{stem}.{name}.bias", torch.zeros_like(part.bias)))
    return made


ROPES = (
    {},
    {"rope_theta": 500_000.0},
    {"rope_scaling": {"type": "linear", "factor": 4.0}},
    {
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        }
    },
)


def biases(parts: str, stem: str = "layers.0") -> dict[str, Tensor]:
    """Of these of attention's matrices."""
    widths = {"q": WIDTH, "k": WIDTH // 2, "v": WIDTH // 2, "o": WIDTH}
    return filled({f"{stem}.self_attn.{part}_proj.bias": (widths[part],) for part in parts}, 9)


QWEN2 = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}
BIASED = {"attention_bias": True}
LAYERS_OF = [*((rope, "") for rope in ROPES), (QWEN2, "qkv"), (QWEN2 | {"qkv_bias": True}, "qkv"), (BIASED, "qkv"),
             (BIASED, "qkvo"), ({}, "qkvo")]  # fmt: skip


@pytest.mark.parametrize("rope, biased", LAYERS_OF)
@torch.inference_mode()
def test_eagle_is_fc_and_a_llama_layer_without_its_first_norm(rope, biased, tmp_path):
    """Embedding first, then the state behind the final norm; no norm behind; positions as the config scales them; what attention
    adds as the file has it: for Qwen 2 on all but what is put out."""
    config, tensors = LLAMA | rope, eagle_tensors() | biases(biased)
    one, layer = target(), theirs(config, tensors, "layers.0")
    layer.input_layernorm = torch.nn.Identity()
    (hidden,), embedded = states((LAYERS,), TEXT), one.model.get_input_embeddings()(torch.tensor(TEXT))
    rows = torch.cat((embedded[1:], hidden[:-1]), -1) @ tensors["fc.weight"].T + tensors["fc.bias"]
    positions, n = torch.arange(len(rows))[None], len(rows)
    given = {key: value for key, value in config.items() if key not in ("architectures", "model_type")}
    mask = torch.full((n, n), -torch.inf).triu(1)[None, None]
    cos_sin = LlamaRotaryEmbedding(LlamaConfig(**given))(rows, positions)
    wanted = layer(rows[None], attention_mask=mask, position_ids=positions, position_embeddings=cos_sin)[0]
    found = logits_of(written(tmp_path, config, tensors))
    assert (found - one.score(wanted)).abs().max() < 1e-3 and found.std() > 0.3


@pytest.mark.parametrize(
    "name, stem, aux_hidden_layers", [("EAGLE-3", "midlayer", (2, 4, 5)), ("speculators", "layers.0", (1, 4, PRE_NORM))]
)
@torch.inference_mode()
def test_eagle3_by_hand(name, stem, aux_hidden_layers, format_of):
    """The first slot alone, where attention finds its own value: three states mixed, two norms, the value, the gated layer, the
    head's own norm and scores, each draft token in the place of the target's."""
    _, _, tensors = FORMATS[name]
    normed = name == "speculators"
    norm = lambda rows, which: rows * (rows.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * tensors[which]  # noqa: E731
    mixed = torch.cat([part[:1] for part in states(aux_hidden_layers, TEXT)], -1) @ tensors["fc.weight"].T
    embedded = target().model.get_input_embeddings()(torch.tensor(TEXT[1:2]))
    hidden = norm(mixed, f"{stem}.hidden_norm.weight")
    read = torch.cat((norm(embedded, f"{stem}.input_layernorm.weight"), hidden), -1)
    value = (read @ tensors[f"{stem}.self_attn.v_proj.weight"].T).view(1, 2, 8).repeat_interleave(2, 1).flatten(1)
    rows = (hidden if normed else mixed) + value @ tensors[f"{stem}.self_attn.o_proj.weight"].T
    inner = norm(rows, f"{stem}.post_attention_layernorm.weight")
    gate, up, down = (tensors[f"{stem}.mlp.{part}_proj.weight"].T for part in ("gate", "up", "down"))
    rows = rows + (torch.nn.functional.silu(inner @ gate) * (inner @ up)) @ down
    scores = norm(rows, "norm.weight") @ tensors["lm_head.weight"].T
    found = logits_of(format_of(name))[:1]
    known = tensors["t2d"].nonzero()[:, 0]
    assert (found[:, known] - scores).abs().max() < 1e-4
    assert found.isneginf().sum() == VOCAB - DRAFTED and not found[:, known].isneginf().any()


@torch.inference_mode()
def test_medusa_by_hand(format_of):
    tensors = FORMATS["Medusa"][2]
    heads, _ = medusa.load_head(target(), published_heads.read(format_of("Medusa"), target()))
    (hidden,) = states((LAYERS,), TEXT)
    for k in range(3):
        moved = hidden @ tensors[f"{k}.0.linear.weight"].T + tensors[f"{k}.0.linear.bias"]
        wanted = (hidden + torch.nn.functional.silu(moved)) @ tensors[f"{k}.1.weight"].T
        assert (heads.scored(hidden, k, target()) - wanted).abs().max() < 1e-4


def test_d2t_is_a_distance(tmp_path):
    """Read as a list of tokens it would name tokens twice, or tokens that t2d does not know: refused."""
    tensors = eagle3_tensors()
    tokens = torch.arange(DRAFTED) + tensors["d2t"]
    assert tensors["t2d"][tokens].all() and int(tensors["t2d"].sum()) == DRAFTED
    assert (published_heads.read(written(tmp_path / "a", EAGLE3, tensors), target()).tensors["tokens"] == tokens).all()
    with pytest.raises(ValueError, match="d2t .* offsets"):
        published_heads.read(written(tmp_path / "b", EAGLE3, tensors | {"d2t": tokens}), target())


# -- what is refused ---------------------------------------------------------------------------------------------------


def without(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: values for key, values in tensors.items() if key != name}


WRONG = {
    "a tensor is missing": (LLAMA, without(eagle_tensors(), "layers.0.mlp.up_proj.weight"), "missing layers.0.mlp.up_proj.weight"),
    "one too many": (LLAMA, eagle_tensors() | {"lm_head.weight": torch.zeros(VOCAB, WIDTH)}, "too many lm_head.weight"),
    "no bias": (LLAMA, eagle_tensors(bias=False), "missing fc.bias"),
    "a shape": (LLAMA, eagle_tensors() | {"fc.weight": torch.zeros(WIDTH, WIDTH)}, r"fc.weight .* shape \(32, 32\)"),
    "no maps": (EAGLE3, without(eagle3_tensors(), "d2t"), "missing d2t"),
    "not finite": (LLAMA, eagle_tensors() | {"fc.bias": torch.full((WIDTH,), torch.nan)}, "not finite"),
    "hidden size": (LLAMA | {"hidden_size": 64}, eagle_tensors(), "hidden size 64; .* is 32"),
    "target hidden size": (EAGLE3 | {"target_hidden_size": 64}, eagle3_tensors(), "hidden size 64; .* is 32"),
    "vocabulary": (LLAMA | {"vocab_size": 320}, eagle_tensors(), "vocabulary 320; .* is 280"),
    "Medusa's width": (MEDUSA, medusa_tensors(width=64), "'someone/target'.* hidden size 64; .* is 32"),
    "Medusa's vocabulary": (MEDUSA, medusa_tensors(vocab=300), "vocabulary 300; .* is 280"),
    "Medusa's heads": (MEDUSA | {"medusa_num_heads": 4}, medusa_tensors(), "missing 3.0.linear.bias"),
    "Medusa's layers": (MEDUSA | {"medusa_num_layers": 2}, medusa_tensors(), "medusa_num_layers"),
    "two layers": (LLAMA | {"num_hidden_layers": 2}, eagle_tensors(), "num_hidden_layers = 2"),
    "another activation": (EAGLE3 | {"hidden_act": "gelu"}, eagle3_tensors(), "hidden_act = 'gelu'"),
    "a norm before fc": (SPECULATORS | {"norm_before_fc": True}, eagle3_tensors("layers.0"), "norm_before_fc = True"),
    "norms of the taps": (SPECULATORS | {"fc_norm": True}, eagle3_tensors("layers.0"), "fc_norm = True"),
    "feedback behind the norm": (SPECULATORS | {"norm_output": True}, eagle3_tensors("layers.0"), "norm_output = True"),
    "another algorithm": (SPECULATORS | {"speculators_config": {"algorithm": "peagle"}}, eagle3_tensors("layers.0"), "algorithm"),
    "layers twice": (SPECULATORS | {"eagle_aux_hidden_state_layer_ids": [1, 1, 4]}, eagle3_tensors("layers.0"), "needs three"),
    "rotary positions": (LLAMA | {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, eagle_tensors(), "'dynamic'"),
    "attention heads": (LLAMA | {"num_key_value_heads": 3}, eagle_tensors(), "do not divide"),
    "a bias of queries alone": (LLAMA, eagle_tensors() | biases("q"), "missing layers.0.self_attn.k_proj.bias"),
    "a bias that is not there": (LLAMA | {"attention_bias": True}, eagle_tensors(), "missing .*self_attn.k_proj.bias"),
    "a word for a number": (LLAMA | {"intermediate_size": "48"}, eagle_tensors(), "intermediate_size '48'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_refused_by_its_name(name, tmp_path):
    config, tensors, words = WRONG[name]
    with pytest.raises(ValueError, match=words):
        published_heads.read(written(tmp_path, config, tensors), target())


def test_a_target_with_too_few_layers(tmp_path):
    few = Target(causal_lm("llama", num_hidden_layers=6), VOCAB, CONTEXT)
    with pytest.raises(ValueError, match=r"\[2, 3, 3\] of a target of 6 layers; it needs three"):
        published_heads.read(written(tmp_path, EAGLE3, eagle3_tensors()), few)


# -- which layers of the target are read -------------------------------------------------------------------------------

IDS = "eagle_aux_hidden_state_layer_ids"
TAPS = {
    "nothing named": ({}, (2, 4, 5), "names none: those of the authors' code"),
    "nothing named inside": ({"eagle_config": {"use_aux_hidden_state": True}}, (2, 4, 5), "names none"),
    "vLLM": ({IDS: [1, 4, 6]}, (1, 4, 6), "numbers of layers before, as vLLM"),
    "vLLM, the last": ({IDS: [2, 4, LAYERS]}, (2, 4, PRE_NORM), "layer 2, layer 4, the last layer"),
    "SGLang": ({"eagle_config": {IDS: [1, 3, 4]}}, (2, 4, 5), "outputs of layers counted from 0, as SGLang"),
    "SGLang, the last": ({"eagle_config": {IDS: [1, 3, LAYERS - 1]}}, (2, 4, PRE_NORM), "as SGLang"),
    "SGLang, by inputs": ({"eagle_config": {IDS: [2, 4, 5]}}, (2, 4, 5), "numbers of layers before"),
    "none": ({"eagle_config": {IDS: [], "use_aux_hidden_state": False}}, (LAYERS,), "reads the state behind the final norm"),
}


@pytest.mark.parametrize("name", TAPS)
def test_what_a_layer_s_number_means_is_said(name, folder, tmp_path):
    more, layers, words = TAPS[name]
    tensors = eagle3_tensors() if len(layers) > 1 else without(eagle3_tensors(), "fc.weight")
    family = load(folder, str(written(tmp_path, EAGLE3 | more, tensors)), device="cpu")
    assert eagle_of(family).aux_hidden_layers == layers
    assert len(family.notes) == 1 and words in family.notes[0] and str(tmp_path) in family.notes[0]


def eagle_of(family, **params):
    return METHODS["eagle"].build(family, METHODS["eagle"].checked(params), Sampling())[0]


@pytest.mark.parametrize("ids, earlier, later", [([2, 4, 5], (1, 3, 4), (3, 5, 6)), ([1, 4, 7], (0, 3, 6), (2, 5, PRE_NORM))])
def test_the_user_may_take_it_the_other_way(ids, earlier, later, folder, tmp_path):
    family = load(folder, str(written(tmp_path, EAGLE3 | {IDS: ids}, eagle3_tensors())), device="cpu")
    assert eagle_of(family, layers="one earlier").aux_hidden_layers == earlier
    assert eagle_of(family, layers="one later").aux_hidden_layers == later
    found = {}
    for layers in ("as stored", "one earlier", "one later"):
        run = Run(family, "eagle", {"layers": layers}, PROMPTS[0], Sampling(0), max_tokens=16)
        assert [token for step in run for token in step.tokens] == generated(family, PROMPTS[0], 16)
        found[layers] = [node.token for step in run.steps for node in step.nodes]
    assert found["as stored"] != found["one earlier"] != found["one later"]


@pytest.mark.parametrize(
    "ids, layers, way", [([0, 4, 5], "one earlier", "none earlier"), ([2, 4, LAYERS], "one later", "none later")]
)
def test_layers_that_the_target_does_not_have(ids, layers, way, folder, tmp_path):
    family = load(folder, str(written(tmp_path, EAGLE3 | {IDS: ids}, eagle3_tensors())), device="cpu")
    with pytest.raises(ValueError, match=way):
        eagle_of(family, layers=layers)


def test_an_eagle_of_the_first_kind_has_no_layers_to_move(folder, format_of):
    family = load(folder, str(format_of("EAGLE")), device="cpu")
    assert not family.notes
    with pytest.raises(ValueError, match="only those of EAGLE-3 have layers to be moved"):
        eagle_of(family, layers="one earlier")


@pytest.mark.parametrize("with_fc", [False, True])
@torch.inference_mode()
def test_without_aux_hidden_states_the_final_one_is_taken_as_it_is(with_fc, tmp_path):
    """An fc that was left in the file is not used: as in vLLM."""
    tensors = eagle3_tensors() if with_fc else without(eagle3_tensors(), "fc.weight")
    made = published_heads.read(written(tmp_path, EAGLE3 | {"eagle_config": {"use_aux_hidden_state": False}}, tensors), target())
    assert not [name for name in made.tensors if name.startswith("fc")]
    heads, _ = eagle.load_head(target(), made)
    (hidden,) = states((LAYERS,), TEXT[:2])
    assert torch.equal(heads.mixed([hidden]), hidden)
    assert logits_of(tmp_path).isfinite().any(-1).all()


# -- how the files lie -------------------------------------------------------------------------------------------------


def in_shards(path: Path, config: dict, tensors: dict[str, Tensor]) -> Path:
    """Two files and a list of what is in which."""
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, part in parts.items():
        written(path, config, {name: tensors[name] for name in part}, file)
    index = {"metadata": {}, "weight_map": {name: file for file, part in parts.items() for name in part}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    return path


PREFIXES = ("", "model.", "_orig_mod.model.", "module.")
SHARDED = [(name, prefix, (i + j) % 2 == 1) for i, name in enumerate(FORMATS) for j, prefix in enumerate(PREFIXES)]


@pytest.mark.parametrize("name, prefix, sharded", SHARDED)
def test_shards_and_prefixes_and_tokenizer_files_beside(name, prefix, sharded, folder, format_of, tmp_path, tokenizer):
    """It opens as the head that it is, never as a draft model of random weights; every other prefix of a format in shards."""
    method, config, tensors = FORMATS[name]
    renamed = {f"{prefix}{key}": values for key, values in tensors.items()}
    head = (in_shards if sharded else written)(tmp_path / "other", config, renamed)
    tokenizer.save_pretrained(head)
    family = load(folder, str(head), device="cpu")
    assert family.heads == {method: head} and family.draft is None
    assert [f"were named {prefix}..." in note for note in family.notes].count(True) == bool(prefix)
    plain = published_heads.read(format_of(name), family.target)
    found = family.published_head(method)
    assert found.settings == plain.settings and all(torch.equal(found.tensors[key], plain.tensors[key]) for key in plain.tensors)


def test_a_language_model_head_may_stand_without_the_prefix(folder, tmp_path):
    tensors = {key if key == "lm_head.weight" else f"model.{key}": values for key, values in eagle3_tensors().items()}
    assert load(folder, str(written(tmp_path, EAGLE3, tensors)), device="cpu").heads == {"eagle": tmp_path}


def test_a_tensor_twice(tmp_path):
    tensors = eagle_tensors()
    with pytest.raises(ValueError, match="holds the tensor fc.weight twice, as .*fc.weight and as"):
        published_heads.read(written(tmp_path, LLAMA, tensors | {"model.fc.weight": tensors["fc.weight"].clone()}), target())


def test_files_without_an_order(tmp_path):
    written(tmp_path, SPECULATORS, eagle3_tensors("layers.0"))
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="holds 2 safetensors files and no model.safetensors.index.json"):
        published_heads.read(tmp_path, target())


@pytest.mark.parametrize("shard", ["../model.safetensors", "/etc/passwd", "shard.bin", 3])
def test_a_list_of_shards_that_leads_elsewhere(shard, folder, tmp_path):
    head = in_shards(tmp_path, LLAMA, eagle_tensors())
    (head / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"fc.weight": shard}}))
    with pytest.raises(ValueError, match="which is no safetensors file beside it"):
        load(folder, str(head), device="cpu")
    assert family_named(folder, str(head)).heads == {}, "a page does not fall over it"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": 3}', "[" * 100_000])
def test_a_list_of_shards_that_is_none(text, folder, tmp_path):
    head = in_shards(tmp_path, LLAMA, eagle_tensors())
    (head / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ValueError, match="index.json"):
        load(folder, str(head), device="cpu")


def test_a_shard_that_is_not_there(folder, tmp_path):
    head = in_shards(tmp_path, LLAMA, eagle_tensors())
    (head / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ValueError, match="cannot be read"):
        load(folder, str(head), device="cpu")


@pytest.mark.parametrize("said, there", [(2, 5), (1, 3), (5, 5)])
def test_more_medusa_heads_than_the_config_says(said, there, folder, tmp_path):
    """As in the first checkpoints of the authors: all are used, and that is said."""
    head = written(tmp_path, MEDUSA | {"medusa_num_heads": said}, medusa_tensors(there))
    family = load(folder, str(head), device="cpu")
    drafter, _ = METHODS["medusa"].build(family, METHODS["medusa"].checked({"heads": there}), Sampling())
    assert len(drafter.heads.blocks) == there
    notes = (f"says {said} Medusa heads and the file holds {there}; all {there} are used",) if said < there else ()
    assert len(family.notes) == len(notes) and all(words in note for words, note in zip(notes, family.notes, strict=True))


QUANTISED = {
    "compressed-tensors": {"fc.weight_packed": torch.zeros(4, 4, dtype=torch.int32), "fc.weight_scale": torch.ones(4, 1)},
    "gptq": {"layers.0.mlp.up_proj.qweight": torch.zeros(4, 4, dtype=torch.int32)},
    "fp8": {"fc.weight": torch.zeros(WIDTH, 2 * WIDTH, dtype=torch.float8_e4m3fn), "fc.weight_scale_inv": torch.ones(1, 1)},
    "torchao": {"fc.weight": torch.zeros(WIDTH, 2 * WIDTH, dtype=torch.int8)},
}


@pytest.mark.parametrize("kind", QUANTISED)
@pytest.mark.parametrize("said", [True, False])
def test_quantised_heads_have_a_sentence_of_their_own(kind, said, folder, tmp_path):
    config = LLAMA | ({"quantization_config": {"quant_method": kind}} if said else {})
    tensors = without(eagle_tensors(), "fc.weight") | {"fc.bias": torch.zeros(WIDTH)} | QUANTISED[kind]
    head = written(tmp_path, config, tensors)
    with pytest.raises(ValueError, match=rf"is quantised \({kind if said else ''}.*only; take the one that it was made from"):
        load(folder, str(head), device="cpu")


def test_a_wrong_target_is_refused_when_the_family_is_loaded(folder, tmp_path):
    head = written(tmp_path, LLAMA | {"hidden_size": 64}, eagle_tensors())
    with pytest.raises(ValueError, match="hidden size 64"):
        load(folder, str(head), device="cpu")


def test_damaged_files(folder, format_of):
    head = format_of("EAGLE")
    file = head / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(ValueError, match="cut short|cannot be read"):
        load(folder, str(head), device="cpu")
    (head / "config.json").write_text("[1, 2]")
    with pytest.raises(ValueError, match="not the description"):
        load(folder, str(head), device="cpu")
    assert family_named(folder, str(head)).heads == {}, "a page does not fall over it"


def test_a_draft_model_is_no_head(folder):
    assert published_heads.method_of(folder) == published_heads.method_of(None) == published_heads.method_of("embedded") == ""


# -- pickled weights ---------------------------------------------------------------------------------------------------


PICKLES = [("EAGLE", "pytorch_model.bin"), ("EAGLE-3", "pytorch_model.bin"), ("Medusa", "medusa_lm_head.pt")]


@pytest.mark.parametrize("name, file", PICKLES)
@pytest.mark.parametrize("out", [False, True])
def test_pickled_weights_are_converted_and_not_opened(name, file, out, folder, tmp_path, capsys):
    method, config, tensors = FORMATS[name]
    head, made = tmp_path / "head", tmp_path / ("made" if out else "head")
    head.mkdir()
    (head / "config.json").write_text(json.dumps(config))
    torch.save(tensors, head / file)
    torch.save({"step": 3}, head / "optimizer.pt")
    with pytest.raises(ValueError, match="python -m decoding.training.convert"):
        load(folder, str(head), device="cpu")
    convert.main([str(head), *(["--out", str(made)] if out else [])])
    assert capsys.readouterr().out.strip() == str(made / "model.safetensors")
    found = load_file(made / "model.safetensors")
    assert found.keys() == tensors.keys() and all(torch.equal(found[key], values) for key, values in tensors.items())
    assert load(folder, str(made), device="cpu").heads == {method: made}


class Trap:
    def __reduce__(self):
        return (print, ("this must not run",))


def test_convert_runs_no_code_and_takes_tensors_alone(tmp_path, capsys):
    torch.save({"a": Trap()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(SystemExit):
        convert.main([str(tmp_path)])
    torch.save({"a": [1, 2]}, tmp_path / "pytorch_model.bin")
    with pytest.raises(SystemExit):
        convert.main([str(tmp_path)])
    (tmp_path / "pytorch_model.bin").unlink()
    with pytest.raises(ValueError, match="no pickled weights"):
        convert.convert(tmp_path, tmp_path)
    said = capsys.readouterr()
    assert "must not run" not in said.out and "damaged or holds more than tensors" in said.err
    assert not (tmp_path / "model.safetensors").exists()
