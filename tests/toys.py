"""Tiny models for the tests: tables that can be enumerated by hand, and random Hugging Face models that are real code.

The models know nothing; what matters is that every architecture keeps its own masks, positions and caches.
"""

import copy
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, wraps
from pathlib import Path
from types import SimpleNamespace

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from decoding.draft import TargetOutput
from decoding.loop import decode
from decoding.methods import METHODS, specdec_pp
from decoding.models import heads
from decoding.models.cache import TreeCache
from decoding.models.draft_tokens import OtherDraft
from decoding.models.family import Family
from decoding.models.plain_forward import PlainForward, refusal
from decoding.models.target import Target
from decoding.sample import Sampling
from decoding.trace import Step
from decoding.training.recipe import Recipe
from decoding.training.recipes import RECIPES

ARCHITECTURES = ("llama", "gpt2", "qwen2", "qwen3", "mistral", "gpt_neox", "olmo", "phi")
ATTENTIONS = ("sdpa", "eager")
VOCAB = 280
CONTEXT = 160
END = "<|endoftext|>"  # the name that the tokenizer class of Qwen 2 would add
TEXT = "the cat sat on the mat and the dog sat on the log; a cat and a dog, 12 and 34."
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.3,  # far from flat, or every greedy choice would be a near-tie
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": None,
}
GREEDY = Sampling(temperature=0)
WINDOW = 16
NARROW = {"sliding_window": WINDOW}
MIXED = NARROW | {"layer_types": ["sliding_attention", "full_attention"]}
SOME = {"use_sliding_window": True, "max_window_layers": 1}  # layers behind the first
GEMMA = {"head_dim": 16, "query_pre_attn_scalar": 16, "tie_word_embeddings": False}
GEMMA_4 = MIXED | GEMMA | {
    "global_head_dim": 16,
    "num_global_key_value_heads": 2,
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": VOCAB,
}  # fmt: skip
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 16}
CHUNKS = {"attention_chunk_size": WINDOW, "layer_types": ["chunked_attention", "full_attention"]}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10_000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 40,
    "llama_4_scaling_beta": 0.1,
}
WINDOWED = {  # kind -> what makes attention end after WINDOW tokens, of these tiny models
    "mistral": NARROW,
    "mixtral": NARROW | EXPERTS,
    "phi3": NARROW | {"pad_token_id": 0},
    "starcoder2": NARROW,
    "ministral": NARROW | {"head_dim": 16},
    "ministral3": NARROW | {"head_dim": 16, "rope_parameters": YARN},
    "qwen2": NARROW | SOME,
    "qwen3": NARROW | SOME | {"head_dim": 16},
    "gemma2": NARROW | GEMMA,
    "gemma3_text": MIXED | GEMMA,
    "gemma3n_text": MIXED | {
        "head_dim": 16,
        "tie_word_embeddings": False,
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": VOCAB,
        "laurel_rank": 4,
        "num_kv_shared_layers": 0,
        "activation_sparsity_pattern": None,
    },
    "gemma4_text": GEMMA_4 | {"num_hidden_layers": 4, "num_kv_shared_layers": 2, "layer_types": MIXED["layer_types"] * 2},
    "gpt_oss": NARROW | EXPERTS | {"rope_parameters": YARN},
    "cohere2": MIXED | {"head_dim": 16},
    "olmo3": MIXED,
    "exaone4": MIXED,
    "llama4_text": CHUNKS | EXPERTS | {"intermediate_size_mlp": 48, "no_rope_layers": [1, 0]},
    "smollm3": NARROW | {"use_sliding_window": True, "no_rope_layers": [0, 1]},
}  # fmt: skip
MARKS = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content | trim }}<|end|>{% endfor %}"
    "{% if loud %}LOUD {{ name }}{% endif %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
OWN = {"mistral": {"sliding_window": None}}


# -- Hugging Face models -----------------------------------------------------------------------------------------------


def causal_lm(kind: str, *, seed: int = 0, attention: str = "sdpa", **more):
    """A random float32 model of architecture `kind`."""
    config = AutoConfig.for_model(kind, **(SIZES | OWN.get(kind, {}) | more))
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention, dtype=torch.float32).eval()


def noisy(model, scale: float, seed: int = 1):
    """A copy of `model` with noise on its weights: a draft model that is often right."""
    other = copy.deepcopy(model)
    rng = torch.Generator().manual_seed(seed)
    for weights in other.parameters():
        weights.data += scale * weights.data.std().nan_to_num() * torch.randn(weights.shape, generator=rng)
    return other


def with_draft(family: Family, scale: float = 0.05) -> Family:
    target = family.target
    return replace(family, draft=quick(replace(target, model=noisy(target.model, scale), plain=None)))


def quick(target: Target) -> Target:
    """Read by the plain forward where that serves the model, like whatever is loaded: a step takes half as long."""
    return target if refusal(target.model) else replace(target, plain=PlainForward(target.model))


def tiny_target(seed: int, vocab: int = 5, kind: str = "llama", **more) -> Target:
    """One layer over a handful of tokens: all texts of three tokens can be enumerated."""
    sizes = {"vocab_size": vocab, "hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 16}
    return quick(Target(causal_lm(kind, seed=seed, **(sizes | more)), vocab, 64))


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE with a few merges; every text can be written."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    options = {"special_tokens": [END], "initial_alphabet": alphabet, "show_progress": False}
    trainer = trainers.BpeTrainer(vocab_size=VOCAB, **options)
    bpe.train_from_iterator([TEXT], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token=END, eos_token=END)


def letters(alphabet: str, *, byte_level: bool = False, **special) -> PreTrainedTokenizerFast:
    """One token per letter, with its place as its id; `byte_level`: its letters are bytes."""
    bpe = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    if byte_level:
        bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=bpe, **special)


def chatting() -> PreTrainedTokenizerFast:
    """The same with the marks and the template of a chat."""
    words = copy.deepcopy(tokenizer())
    words.add_special_tokens({"additional_special_tokens": MARKS})
    words.eos_token, words.chat_template = "<|end|>", TEMPLATE
    return words


def save(folder: Path, model, words: PreTrainedTokenizerFast) -> None:
    model.save_pretrained(folder)
    words.save_pretrained(folder)


# -- tables ------------------------------------------------------------------------------------------------------------


class Markov(torch.nn.Module):
    """A model whose next token depends on the last one only, behind the interface of a Hugging Face one."""

    dtype = torch.float32
    device = torch.device("cpu")

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits  # (vocab, vocab)

    def forward(self, input_ids, position_ids, attention_mask, past_key_values, use_cache):
        rows = torch.zeros(1, 1, input_ids.shape[1], 1)
        past_key_values.update(rows, rows, 0)
        return SimpleNamespace(logits=self.logits[input_ids])


def markov(table: Tensor, context: int = 4096) -> Target:
    """A Target with next-token probabilities `table` (vocab, vocab)."""
    return Target(Markov(table.float().log()), len(table), context)


def cycle(length: int) -> Target:
    """Token t is always followed by t + 1, the last by 0."""
    return markov(torch.eye(length).roll(1, 1).clamp(min=1e-9))


def output_of(probs: Tensor) -> TargetOutput:
    """(n + 1, vocab) target probabilities -> a TargetOutput."""
    return TargetOutput(probs.log(), probs)


# -- sorted draft models -----------------------------------------------------------------------------------------------


def sorted_on_demand(find):
    """`s2d.find` that makes a sorted draft model where there is none."""

    @wraps(find)
    def found(family: Family) -> Target:
        known = family.tokenizer is not None and hasattr(family.target.model, "config")
        return (find(family) if known else None) or made_sorted(family.target)

    return found


@cache
def made_sorted(target: Target) -> Target:
    """Two layers that may answer behind either: those of a llama with noise on them, or random ones."""
    config = getattr(target.model, "config", None)
    if config is not None and config.model_type == "llama" and config.num_hidden_layers == 2:
        return with_exits(replace(target, model=noisy(target.model, 0.05)), (1, 2))
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 16, "vocab_size": target.vocab}
    return with_exits(replace(target, model=causal_lm("llama", seed=2, **sizes)), (1, 2))


def with_exits(target: Target, exits: Sequence[int]) -> Target:
    """The same model, told that it is a sorted one."""
    target.model.config.exits = list(exits)
    return target


def sorted_target(exits: Sequence[int] = (1, 2, 4), *, seed: int = 3, attention: str = "sdpa", **more) -> Target:
    """A random sorted llama over the vocabulary of the toys."""
    model = causal_lm("llama", seed=seed, attention=attention, num_hidden_layers=exits[-1], **more)
    return with_exits(Target(model, model.config.vocab_size, CONTEXT), exits)


def prefix(target: Target, layers: int) -> Target:
    """The sub-model of the first `layers` layers as a plain model."""
    model = copy.deepcopy(target.model)
    model.model.layers = model.model.layers[:layers]
    model.config.num_hidden_layers = layers
    model.config.exits = None
    return replace(target, model=model)


def own_drafts_for_bytes(find):
    """`byte_drafting.find` that lets random models draft with their own draft model: the shipped one cannot foretell them."""

    @wraps(find)
    def found(family: Family) -> OtherDraft:
        random = family.other_draft is None and family.draft is not None and not family.name.startswith(("embedded", "smollm2"))
        return OtherDraft(family.draft, family.tokenizer) if random else find(family)

    return found


# -- heads -------------------------------------------------------------------------------------------------------------


def heads_on_demand(find):
    """`heads.find` that makes a head where there is none: an acceptance head that knows nothing, a judge that never speaks,
    heads grown on the target that guess."""

    def found(method: str, model):
        known = (method in MADE or method in RECIPES) and hasattr(model, "config")
        return find(method, model) or (made_head(method, model) if known else None)

    found.real = find
    return found


def made_head(method: str, model) -> Path:
    folder = heads.place_of(method, heads.fingerprint(model))
    if method in MADE:
        heads.save(folder, method, model, *MADE[method](model.config.hidden_size), {})
    else:
        heads.save(folder, method, model, *guessing_heads(RECIPES[method], model), {})
    return folder


def guessing_heads(recipe: Recipe, model) -> tuple[dict[str, Tensor], heads.Settings]:
    """Untrained heads with noise: near the target's own next token, which in texts that repeat themselves is sometimes right."""
    parser = ArgumentParser()
    recipe.options(parser)
    torch.manual_seed(0)
    made = recipe.init_head(Target(model, model.config.vocab_size, CONTEXT), parser.parse_args([]))
    tensors = {name: values + 0.1 * torch.randn(values.shape) for name, values in made.state_dict().items()}
    settings = recipe.settings(made)
    depths = [
        {"depth": k, "ranks": [0.4, 0.2, 0.1, 0.05]} for k in range(1, 1 + settings.get("heads", settings.get("prompt_tokens", 4)))
    ]
    return tensors, settings | recipe.calibrated(depths)


def random_acceptance(width: int) -> tuple[dict[str, Tensor], heads.Settings]:
    torch.manual_seed(0)
    return specdec_pp.pair(width, 1).state_dict(), {"width": width, "blocks": 1}


def silent_judge(width: int) -> tuple[dict[str, Tensor], heads.Settings]:
    tensors = {"mean": torch.zeros(width), "scale": torch.ones(width), "weight": torch.zeros(width), "bias": torch.tensor(-1000.0)}
    return tensors, {"width": width}


MADE = {"specdec_pp": random_acceptance, "judge": silent_judge}


# -- runs --------------------------------------------------------------------------------------------------------------


def toy_family(target: Target, draft: Target | None = None) -> Family:
    return Family("toy", None, target, draft)


# Parameters with which a method that writes another text by default writes the target's.
SAME_TEXT = {"lazyllm": {"keep_early": 1.0, "keep_middle": 1.0, "keep_late": 1.0}}


def run_steps(
    family: Family,
    key: str,
    prompt: Sequence[int],
    /,
    *,
    sampling: Sampling = GREEDY,
    seed: int = 0,
    max_tokens: int = 40,
    recorded: bool = False,
    **params,
) -> list[Step]:
    """One run of method `key` on token ids."""
    method = METHODS[key]
    values = method.checked(params)
    drafter, accept = method.build(family, values, sampling)
    rng = torch.Generator().manual_seed(seed)
    limits = {"max_tokens": max_tokens, "recorded": recorded}
    return list(decode(method.wrap(family.target, values), drafter, accept, prompt, sampling=sampling, rng=rng, **limits))


def tokens_of(steps: Sequence[Step]) -> list[int]:
    return [token for step in steps for token in step.tokens]


def greedy_text(target: Target, prompt: Sequence[int], count: int) -> list[int]:
    """`count` tokens of plain greedy decoding, every one from a fresh pass over the whole text."""
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(int(target.extend(TreeCache(), tokens).argmax()))
    return tokens[len(prompt) :]


def probabilities_after(target: Target, prompt: Sequence[int], texts: Tensor, sampling: Sampling) -> Tensor:
    """(m, length) texts -> (m,) their probability behind `prompt`, from one plain pass without a cache."""
    ids = torch.cat((torch.tensor(prompt).expand(len(texts), -1), texts), 1)
    with torch.inference_mode():
        logits = target.model(input_ids=ids).logits[:, len(prompt) - 1 : -1].double()
    p = torch.stack([sampling.probabilities(part) for part in logits])  # (m, length, vocab)
    return p.gather(2, texts[:, :, None])[..., 0].prod(1)


def total_variation(a: Tensor, b: Tensor) -> float:
    return 0.5 * (a - b).abs().sum().item()
