"""What used to be wrong without a word: weights that do not fill a model, ids without a token, numbers that are not finite."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from decoding.methods import METHODS
from decoding.models import heads
from decoding.models.family import EMBEDDED, load
from decoding.models.requirements import head_of
from decoding.models.target import Target
from decoding.runs.prompts import read_prompts
from decoding.runs.run import Run
from decoding.sample import Sampling
from decoding.trace import Step

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A random Llama with the embedded tokenizer, untied."""
    folder = tmp_path_factory.mktemp("made")
    config = LlamaConfig(vocab_size=4096, max_position_embeddings=256, tie_word_embeddings=False, eos_token_id=0, **SIZES)
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(EMBEDDED / "target" / name, folder)
    return folder


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "model")


def rewritten(folder, change) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file(change(weights), folder / "model.safetensors", metadata={"format": "pt"})


def without(part):
    return lambda weights: {name: values for name, values in weights.items() if part not in name}


FAULTS = {
    "a tensor": (without("layers.1.mlp.up_proj"), r"missing: model.layers.1.mlp.up_proj.weight"),
    "a layer": (without("layers.1."), r"missing: model.layers.1.* and 5 more"),
    "the head": (without("lm_head"), "missing: lm_head.weight"),
    "left over": (lambda weights: weights | {"model.extra.weight": torch.zeros(2)}, "not used: model.extra.weight"),
    "shape": (
        lambda weights: weights | {"model.norm.weight": torch.zeros(31)},
        r"another shape: model.norm.weight \(31,\) instead",
    ),
    "other names": (lambda weights: {f"net.{name}": values for name, values in weights.items()}, "missing: .*not used: net."),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("part", ["target", "draft"])
def test_weights_that_do_not_fill_the_model_refuse_it(folder, fault, part):
    change, words = FAULTS[fault]
    rewritten(folder, change)
    with pytest.raises(ValueError, match=words):
        load(str(folder), device="cpu") if part == "target" else load("embedded", str(folder), device="cpu")


@pytest.mark.parametrize("shard", ["shard.bin", "../private/model.safetensors", "/etc/model.safetensors", "a/b.safetensors", 7])
def test_an_index_that_leads_elsewhere_is_refused(folder, shard):
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "shard.bin")
    for place in (folder.parent / "private", folder / "a"):
        place.mkdir()
        save_file(weights, place / ("b.safetensors" if place.name == "a" else "model.safetensors"), metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, shard)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="which is no safetensors file beside it"):
        load(str(folder), device="cpu")


def test_shards_beside_the_index_open(made, folder):
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    save_file(weights, folder / "model-00001-of-00001.safetensors", metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, "model-00001-of-00001.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert load(str(folder), device="cpu").target.vocab == load(str(made), device="cpu").target.vocab


@pytest.mark.parametrize(
    "name", ["_attn_implementation", "attn_implementation", "experts_implementation", "_experts_implementation"]
)
def test_a_config_chooses_no_code(folder, name):
    """Such a field reaches the loader of kernels, which fetches and runs code."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps(config | {name: "org/kernel", "auto_map": {"AutoModelForCausalLM": "evil.Model"}})
    )
    model = load(str(folder), device="cpu").target.model
    assert model.config._attn_implementation == "sdpa" and type(model) is LlamaForCausalLM


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "base_model.model.", "module._orig_mod."])
def test_prefixes_of_wrappers_are_taken_off_with_a_note(made, folder, prefix):
    rewritten(folder, lambda weights: {prefix + name: values for name, values in weights.items()})
    family, plain = load(str(folder), device="cpu"), load(str(made), device="cpu")
    assert all(torch.equal(a, b) for a, b in zip(family.target.model.parameters(), plain.target.model.parameters(), strict=True))
    assert family.notes and all("that was taken off." in note for note in family.notes) and not plain.notes


def test_ids_without_a_token_are_never_written(folder):
    """A tokenizer with gaps: fewer entries than ids."""
    described = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    vocab, merges = described["model"]["vocab"], described["model"]["merges"]
    merges = [tuple(merge if isinstance(merge, list) else merge.split(" ")) for merge in merges]
    parts = {part for merge in merges for part in merge}
    gone = [token for token, i in sorted(vocab.items(), key=lambda entry: -entry[1]) if token not in parts and i < 4095][:2]
    ids = sorted(vocab[token] for token in gone)
    described["model"]["merges"] = [" ".join(merge) for merge in merges if "".join(merge) not in gone]
    described["model"]["vocab"] = {token: i for token, i in vocab.items() if token not in gone}
    (folder / "tokenizer.json").write_text(json.dumps(described), "utf-8")
    rewritten(
        folder, lambda weights: {name: boosted(values, ids) if "lm_head" in name else values for name, values in weights.items()}
    )
    family = load(str(folder), device="cpu")
    assert family.target.vocab == 4096 and family.target.unused == tuple(ids)
    for temperature in (0.0, 1.0):
        for key in ("plain", "token_recycling"):
            run = Run(family, key, prompt="Once upon a time", sampling=Sampling(temperature), max_tokens=24)
            written = [token for step in run for token in step.tokens]
            assert written and not set(ids) & set(written) and len(set(written)) > 1


def boosted(weights: torch.Tensor, rows: list[int]) -> torch.Tensor:
    """Rows that would win nearly always if they could."""
    return weights.index_copy(0, torch.tensor(rows), weights[rows] * 1000)


def spoilt(model: Target, value: float, after: int):
    """`Target.forward`, whichever way it reads, with `value` among this model's logits from the pass number `after` on."""
    passes, real = [], Target.forward

    def forward(self, *args, **more):
        logits, hidden = real(self, *args, **more)
        if self is model:
            passes.append(1)
            if len(passes) > after:
                logits[..., -1, 7] = value
        return logits, hidden

    return forward


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("key", ["plain", "speculative_sampling", "prompt_lookup", "spectr", "judge", "medusa"])
def test_logits_that_are_not_finite_stop_the_run_with_a_sentence(embedded, monkeypatch, key, value, temperature):
    monkeypatch.setattr(Target, "forward", spoilt(embedded.target, value, after=1))
    params = {"rule": "typical"} if key == "medusa" else {}
    run = Run(embedded, key, params, prompt="Once upon a time", sampling=Sampling(temperature), max_tokens=16)
    with pytest.raises(ValueError, match=r"The target of embedded put out numbers that are not finite in step \d+ \(float32\)"):
        list(run)
    assert all(isinstance(step, Step) for step in run.steps) and not run.ended


@pytest.mark.parametrize("key", ["speculative_sampling", "multi_candidate", "spectr", "specdec_pp"])
def test_a_drafter_that_is_not_finite_is_named(embedded, monkeypatch, key):
    monkeypatch.setattr(Target, "forward", spoilt(embedded.draft, float("nan"), after=0))
    with pytest.raises(ValueError, match="The drafter of embedded put out numbers that are not finite"):
        list(Run(embedded, key, prompt="Once upon a time", sampling=Sampling(1.0), max_tokens=16))


HEADED = [key for key, method in METHODS.items() if head_of(method)]
NAMES = {"specdec_pp": "acceptance head", "judge": "judge", "ppd": "target"}  # prompt tokens are rows that the target itself reads


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("key", HEADED)
def test_a_head_that_is_not_finite_is_named(llama, monkeypatch, key, temperature, recorded):
    """It is opened as it should be, and spoils itself: in float16, say."""
    real = heads.tensors_of

    def spoilt_tensors(*given):
        found = real(*given)
        return {name: values.new_full(values.shape, torch.nan) if values.ndim else values for name, values in found.items()}

    monkeypatch.setattr(heads, "tensors_of", spoilt_tensors)
    run = Run(llama, key, prompt="the cat sat", sampling=Sampling(temperature), max_tokens=16, record=recorded)
    name = NAMES.get(key, f"{METHODS[key].title} head")
    with pytest.raises(ValueError, match=rf"The {name} of {llama.name} put out numbers that are not finite in step 1 \(float32\)"):
        list(run)
    assert not run.steps


@pytest.mark.parametrize("temperature", [1e-38, 5e-324, 1e-9, 1e-3])
def test_temperatures_next_to_0_are_greedy(embedded, temperature):
    text = lambda t: Run(embedded, "plain", prompt="Once upon a time", sampling=Sampling(t), max_tokens=12)  # noqa: E731
    cold, greedy = text(temperature), text(0.0)
    assert [step.tokens for step in cold] == [step.tokens for step in greedy]


@pytest.mark.parametrize("top_p", [5e-324, 1e-38, 1e-9])
def test_the_smallest_top_p_keeps_the_likeliest_token(embedded, top_p):
    cold = Run(embedded, "speculative_sampling", prompt="Once upon a time", sampling=Sampling(1.0, top_p=top_p), max_tokens=12)
    greedy = Run(embedded, "plain", prompt="Once upon a time", sampling=Sampling(0.0), max_tokens=12)
    assert [t for step in cold for t in step.tokens] == [t for step in greedy for t in step.tokens]


@pytest.mark.parametrize(
    "wrong", [{"temperature": 2.5}, {"temperature": float("nan")}, {"top_k": 2.5}, {"top_k": True}, {"top_p": 0.0}]
)
def test_sampling_out_of_range_is_refused_with_a_sentence(wrong):
    with pytest.raises(ValueError, match="must"):
        Sampling(**wrong)


def test_half_a_character_in_a_prompt_is_refused(embedded):
    with pytest.raises(ValueError, match=r"half of a character \(U\+D83D\)"):
        Run(embedded, "plain", prompt="Once \ud83d upon")


def test_line_separators_inside_json_are_text():
    text = "one\u2028two\u2029three\u0085four"
    data = (json.dumps({"prompt": text}, ensure_ascii=False) + "\n" + json.dumps({"prompt": "x"}) + "\r\n").encode()
    assert [prompt.text for prompt in read_prompts(data, "a.jsonl")] == [text, "x"]


@pytest.mark.parametrize("key", ["speculative_sampling", "multi_candidate", "prompt_lookup", "spectr", "judge"])
def test_what_lies_behind_the_end_is_not_accepted(embedded, key):
    """One token is asked for: at most one is accepted, whatever else would have been."""
    assert key in METHODS
    for seed in range(4):
        prompt = "one two three one two three one two three one two"
        (step,) = Run(embedded, key, prompt=prompt, sampling=Sampling(0.0), seed=seed, max_tokens=1)
        accepted = [node.verdict for node in step.nodes].count("accepted")
        assert len(step.tokens) == 1 and accepted == len(step.path) == step.origins.count("accepted") <= 1


@pytest.mark.parametrize(
    "wrong, words",
    [
        ({"prompt": 5}, "The prompt must be text, messages or a list of token ids; it is 5"),
        ({"prompt": [1, "a"]}, "The prompt must be text, messages or a list of token ids"),
        ({"seed": "a"}, "The seed must be a whole number"),
        ({"seed": True}, "The seed must be a whole number"),
        ({"max_tokens": 1.5}, "The token limit must lie between 1 and 4,096; it is 1.5"),
        ({"params": [1]}, "Parameters must be given by name"),
        ({"sampling": 0.5}, "The sampling must be a Sampling"),
    ],
)
def test_what_is_of_another_kind_is_refused_with_a_sentence(embedded, wrong, words):
    with pytest.raises(ValueError, match=words):
        Run(embedded, "plain", **{"prompt": "Once"} | wrong)


@pytest.mark.parametrize("wrong", [{"temperature": "1"}, {"top_p": "x"}, {"top_p": None}])
def test_a_sampling_of_no_numbers_is_refused_with_a_sentence(wrong):
    with pytest.raises(ValueError, match="must be a number"):
        Sampling(**wrong)


@pytest.mark.parametrize("given", [(None,), (5,), ("embedded", 5), ("embedded", None, 3), ("embedded", None, "cpu", 3)])
def test_models_without_a_name_are_refused_with_a_sentence(given):
    with pytest.raises(ValueError, match="must be given by its name"):
        load(*given)


def test_the_small_target_drafts_for_the_large_one():
    family = load("embedded", "embedded-small", device="cpu")
    assert family.draft.model.num_parameters() < family.target.model.num_parameters()
    assert list(Run(family, "speculative_sampling", prompt="Once upon a time", max_tokens=4))
