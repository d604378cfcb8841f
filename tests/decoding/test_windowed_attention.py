"""Models whose layers see the last tokens only: a window is cut by the place of a row in its path, also inside a draft tree.

The text of every test here is longer than the window. What `transformers` writes by itself is the measure.
"""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from decoding.methods import METHODS
from decoding.models import self_test
from decoding.models.cache import TreeCache
from decoding.models.checkpoints import TREE_ROWS, context
from decoding.models.family import load
from decoding.models.self_test import TOLERANCE, WINDOW, check_tree_reading, largest_error, small_windows
from decoding.models.target import PRE_NORM, Target
from decoding.models.windows import CHUNKED, SLIDING, hidden_by, windows_of
from tests import toys
from tests.decoding.test_tree_reading import CLOSE, after_keep, deepest, plain, random_text, random_tree, worst_row
from tests.toys import ATTENTIONS, CONTEXT, SIZES, VOCAB, WINDOWED, causal_lm, run_steps, tokens_of, toy_family

TOKENS, PROMPT = 32, 30  # of every run; the prompt alone is longer than a window
LOSSLESS = [key for key, method in METHODS.items() if method.is_lossless]
# What a window could break is the mask of a chain, of a tree, or of layers that a method runs by itself: these meet every kind of
# model. The other methods read by the same masks; they take turns with the three ways in which masks are handed to a model.
FEW = ("speculative_sampling", "multi_candidate", "token_recycling", "ppd", "kangaroo")  # a chain, trees, two ways of their own
ALL = ("mistral", "gemma3_text", "llama4_text")  # one mask; a dict of masks and of rotary positions; chunks
CASES = [(kind, key) for kind in WINDOWED for key in FEW]
CASES += [(ALL[i % len(ALL)], key) for i, key in enumerate(key for key in LOSSLESS if key not in FEW)]
REFUSED = {  # layers that hand more to each other than states, and that look tokens up by themselves
    (key, kind): words
    for kind in ("gemma3n_text", "gemma4_text")
    for key, words in (("kangaroo", "cannot be run one by one"), ("ppd", "cannot read a prompt token"))
}
EAGER_ONLY = ("gemma2", "gpt_oss")


@cache
def target(kind: str, attention: str = "eager") -> Target:
    return Target(causal_lm(kind, attention=attention, **WINDOWED[kind]), VOCAB, CONTEXT)


@cache
def family(kind: str):
    attention = "eager" if kind in EAGER_ONLY else "sdpa"
    return replace(toys.with_draft(toy_family(target(kind, attention))), tokenizer=toys.tokenizer())


def prompt() -> list[int]:
    """It repeats itself, or retrieval would find nothing."""
    return (random_text(11, seed=3) * 3)[:PROMPT]


@cache
def generated(kind: str) -> list[int]:
    ids = torch.tensor([prompt()])
    with torch.inference_mode():
        out = family(kind).target.model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=TOKENS, eos_token_id=None, pad_token_id=0
        )
    return out[0, PROMPT:].tolist()


# -- against `generate` ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind, key", CASES)
def test_greedy_text_is_that_of_generate(kind, key):
    missing = METHODS[key].missing(family(kind))
    if words := REFUSED.get((key, kind)):
        assert words in missing
        return
    assert not missing
    assert tokens_of(run_steps(family(kind), key, prompt(), max_tokens=TOKENS)) == generated(kind)


@pytest.mark.parametrize("kind", WINDOWED)
def test_the_texts_are_no_single_token(kind):
    """Else equality would show nothing; and what lies beyond the window matters to a model without one."""
    assert len(set(generated(kind))) > 5


@pytest.mark.parametrize("kind", WINDOWED)
def test_draft_models_and_trees_with_gaps_are_met(kind):
    """Some steps keep a path that is not the first rows of the tree: cached rows move."""
    steps = run_steps(family(kind), "multi_candidate", prompt(), max_tokens=TOKENS, shape="8-4-2")
    assert tokens_of(steps) == generated(kind)
    assert any(len(step.tokens) > 2 for step in steps)


# -- tree against path -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("kind", WINDOWED)
def test_tree_equals_paths(kind, attention):
    if attention == "sdpa" and kind in EAGER_ONLY:
        with pytest.raises(ValueError, match="does not support an attention implementation"):
            target(kind, attention)
        return
    for length in (1, 9, toys.WINDOW, 40):
        tokens, draft = random_text(length), random_tree(length)
        path = deepest(draft)
        assert worst_row(target(kind, attention), tokens, draft) < CLOSE
        assert after_keep(target(kind, attention), tokens, draft, [0, *(node + 1 for node in path)], path) < CLOSE


@pytest.mark.parametrize("kind", WINDOWED)
def test_a_long_prompt_is_read_in_parts(monkeypatch, kind):
    tokens = random_text(60)
    monkeypatch.setattr("decoding.models.target.PREFILL_ROWS", 7)
    for aux_hidden_layers in ((), (PRE_NORM, 1))[: 1 if kind == "gemma3n_text" else 2]:
        logits, hidden = target(kind).extend_with_hidden(TreeCache(), tokens, aux_hidden_layers)
        assert (logits[0] - plain(target(kind), tokens)).abs().max() < CLOSE
        assert all(len(rows) == len(tokens) for rows in hidden.values())


@pytest.mark.parametrize("kind", WINDOWED)
def test_states_are_scored_as_the_model_scores_them(kind):
    """Caps and scales of the logits included. Gemma 3n has four states per row, which it says."""
    whole = target(kind)
    if kind == "gemma3n_text":
        with pytest.raises(ValueError, match="several states per row"):
            whole.extend_with_hidden(TreeCache(), random_text(20), (1,))
        return
    logits, hidden = whole.extend_with_hidden(TreeCache(), random_text(20), (whole.last_hidden,), every_row=True)
    assert (whole.score(hidden[whole.last_hidden]) - logits).abs().max() < CLOSE


def test_places_are_counted_along_paths():
    """Behind 3 rows: the root, two children, and a child of the second one; windows of 3, chunks of 4."""
    seen = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 1, 1]]).bool()
    for kind, size, wanted in (
        (SLIDING, 3, [[1, 2, 3], [2, 3, 4], [2, 3, 5], [3, 5, 6]]),
        (CHUNKED, 4, [[0, 1, 2, 3], [4], [5], [5, 6]]),
    ):
        hidden = hidden_by(kind, size, seen, 3)
        whole = torch.cat((torch.ones(4, 3, dtype=torch.bool), seen), 1) & ~hidden
        assert [row.nonzero().flatten().tolist() for row in whole] == wanted


# -- no window, no cost ------------------------------------------------------------------------------------------------


def test_a_path_within_the_window_takes_one_mask():
    model = target("gemma3_text")
    draft = random_tree(0)
    assert isinstance(model.mask(13, 3, draft.visible), torch.Tensor)
    assert set(model.mask(13, 4, draft.visible)) == {"sliding_attention", "full_attention"}
    assert model.mask(1, 100, None) is None and model.layer_mask(1, 15) is None and model.layer_mask(1, 16) is not None


@pytest.mark.parametrize("kind", toys.ARCHITECTURES)
def test_models_without_windows_have_none(kind):
    assert not Target(causal_lm(kind), VOCAB, CONTEXT).windows


# -- the self-test -----------------------------------------------------------------------------------------------------


class ByRow(Target):
    """Windows are cut by rows of the cache: right for a chain, wrong for siblings."""

    def mask(self, rows, before, visible):
        if visible is None:
            return super().mask(rows, before, None)
        seen = torch.as_tensor(np.asarray(visible))
        chain = super().mask(rows, before, np.tri(rows, dtype=bool))
        whole = torch.where(torch.cat((torch.ones(rows, before, dtype=torch.bool), seen), 1), 0.0, torch.finfo(self.dtype).min)
        return {kind: mask + whole for kind, mask in chain.items()} if isinstance(chain, dict) else chain + whole


class NoWindow(Target):
    windows = {}


class OneMore(Target):
    @property
    def windows(self):
        return {kind: size + 1 for kind, size in windows_of(self.model.config).items()}


@pytest.mark.parametrize("fault", [ByRow, OneMore])
@pytest.mark.parametrize("kind", ["mistral", "gemma3_text", "llama4_text"])
def test_windows_that_are_cut_wrongly_are_noticed(kind, fault):
    """By the comparison with paths, and by the self-test although the window of this model is wider than all it reads."""
    wide = {name: 1000 for name in WINDOWED[kind] if name in ("sliding_window", "attention_chunk_size")}
    broken = fault(causal_lm(kind, attention="eager", **(WINDOWED[kind] | wide)), VOCAB, CONTEXT)
    assert worst_row(fault(target(kind).model, VOCAB, CONTEXT), random_text(30), random_tree(9)) > 0.05
    with pytest.raises(ValueError, match="reads a draft tree wrongly"):
        check_tree_reading(broken, "broken")
    assert largest_error(Target(broken.model, VOCAB, CONTEXT)) < TOLERANCE[torch.float32]


@pytest.mark.parametrize("kind", ["mistral", "gemma3_text", "llama4_text"])
def test_a_forgotten_window_is_noticed(kind):
    assert worst_row(NoWindow(target(kind).model, VOCAB, CONTEXT), random_text(30), random_tree(9)) > 0.05


def test_windows_are_put_back(monkeypatch):
    model = target("gemma3_text").model
    with pytest.raises(RuntimeError), small_windows(model):
        assert windows_of(model.config) == {"sliding_attention": WINDOW}
        raise RuntimeError
    assert windows_of(model.config) == {"sliding_attention": toys.WINDOW}

    def broken(target, length):
        if target.windows["sliding_attention"] == WINDOW:
            raise RuntimeError("out of memory")
        return 0.0

    monkeypatch.setattr(self_test, "tree_error", broken)
    with pytest.raises(ValueError, match="out of memory"):
        check_tree_reading(target("gemma3_text"), "broken")
    assert windows_of(model.config) == {"sliding_attention": toys.WINDOW}


# -- from a folder -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mistral", "gemma2", "gemma3_text", "gpt_oss", "cohere2", "llama4_text"])
def test_loads_from_a_folder(tmp_path, tokenizer, kind):
    toys.save(tmp_path, target(kind).model, tokenizer)
    opened = load(str(tmp_path), device="cpu").target
    assert opened.windows == target(kind).windows and opened.context == CONTEXT
    text = random_text(40)
    assert (opened.extend(TreeCache(), text)[0] - plain(target(kind), text)).abs().max() < CLOSE


def test_llama_4_ends_before_its_queries_are_scaled_by_row():
    config = replace_in(target("llama4_text").model.config, max_position_embeddings=100_000, attn_temperature_tuning=True)
    assert context(config) == config.floor_scale - TREE_ROWS
    config.no_rope_layers = [1, 1]
    assert context(config) == 100_000


def replace_in(config, **values):
    return type(config)(**(config.to_dict() | values))


@pytest.mark.parametrize("kind", ["gemma3", "gemma4"])
def test_the_text_part_of_a_model_of_images_is_opened(tmp_path, tokenizer, kind):
    """Its folder keeps the language model below other names; what is left out is said."""
    text = AutoConfig.for_model(f"{kind}_text", **(SIZES | WINDOWED[f"{kind}_text"] | {"tie_word_embeddings": True}))
    eyes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    more = {"vision_config": eyes | {"image_size": 28, "patch_size": 14}} if kind == "gemma3" else {}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, text_config=text.to_dict(), **more)).eval()
    toys.save(tmp_path, model, tokenizer)
    opened = load(str(tmp_path), device="cpu")
    assert opened.target.windows == {"sliding_attention": toys.WINDOW}
    assert bool(opened.notes) == bool(more) and all("Only the text part" in note for note in opened.notes)
    tokens = random_text(40)
    with torch.inference_mode():
        states = model.model.language_model(input_ids=torch.tensor([tokens])).last_hidden_state
        wanted = opened.target.score(states[0, -1])
    assert (opened.target.extend(TreeCache(), tokens)[0] - wanted).abs().max() < CLOSE
