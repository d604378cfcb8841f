"""Families from folders: what loads, what is refused with which sentence, and that no code of a folder ever runs."""

import gc
import json
import pickle
import shutil
import threading
import time
import weakref
from math import inf
from pathlib import Path
from weakref import WeakValueDictionary

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from decoding.models import family_cache
from decoding.models.checkpoints import check_architecture, context
from decoding.models.family import EMBEDDED, load, open_model, weights_mark
from decoding.runs.run import Run
from decoding.runs.worker import Worker
from decoding.sample import Sampling
from tests.toys import ARCHITECTURES, END, VOCAB, causal_lm, save

# -- what loads --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_plain_folder_is_a_family(folders, kind):
    family = load(folders(kind), device="cpu")
    assert family.draft is None and family.target.vocab == VOCAB and family.target.context == 160
    assert family.target.ends == {0} and family.target.dtype == torch.float32
    assert not family.target.model.training


def test_folder_with_a_draft_model(folders):
    family = load(folders("llama"), folders("gpt2"), device="cpu")
    assert family.draft is not None and family.draft.vocab == family.target.vocab
    assert [step.ending for step in Run(family, "speculative_sampling", prompt="the cat", max_tokens=5)][-1]


def test_embedded_family(embedded):
    assert embedded.name == "embedded" and embedded.draft is not None
    assert embedded.draft.vocab == embedded.target.vocab == len(embedded.tokenizer)
    assert embedded.target.context == 1024


def test_numbers_in_half_precision(folders):
    family = load(folders("llama"), device="cpu", dtype="bfloat16")
    assert family.target.dtype == torch.bfloat16
    run = Run(family, "token_recycling", prompt="the cat", max_tokens=8)
    assert sum(len(step.tokens) for step in run) == 8 and run.header.dtype == "bfloat16"


def test_padded_vocabulary(tmp_path, tokenizer):
    """The embedding has more rows than the tokenizer: no method may ever name one of those."""
    save(tmp_path, causal_lm("llama", vocab_size=VOCAB + 40), tokenizer)
    family = load(str(tmp_path), str(tmp_path), device="cpu")
    assert family.target.vocab == VOCAB
    for key in ("token_recycling", "multi_candidate", "plain"):
        run = Run(family, key, prompt="the cat", sampling=Sampling(2.0), max_tokens=20)
        assert all(token < VOCAB for step in run for token in step.occurring())


def test_models_padded_differently_fit_together(tmp_path, folders, tokenizer):
    save(tmp_path, causal_lm("llama", vocab_size=VOCAB + 40), tokenizer)
    assert load(folders("llama"), str(tmp_path), device="cpu").draft.vocab == VOCAB


def test_a_model_with_a_window_as_long_as_its_context_loads(tmp_path, tokenizer):
    save(tmp_path, causal_lm("mistral", sliding_window=160), tokenizer)
    assert load(str(tmp_path), device="cpu").target.context == 160


def test_several_end_tokens(tmp_path, tokenizer):
    model = causal_lm("llama")
    model.generation_config.eos_token_id = [0, 5]
    save(tmp_path, model, tokenizer)
    assert load(str(tmp_path), device="cpu").target.ends == {0, 5}


def test_rotary_scaling_by_length_uses_the_original_context():
    config = causal_lm("llama").config
    scaling = {"rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 40}
    config.rope_parameters = scaling | {"rope_type": "dynamic"}
    assert context(config) == 40
    config.rope_parameters = scaling | {"rope_type": "linear"}
    assert context(config) == 160


def test_pieces_are_bytes(llama):
    text = "a \u20ac and \U0001f642\n"
    tokens = llama.encode(text, 160)
    token_bytes = llama.token_bytes(tokens)
    assert b"".join(token_bytes[token] for token in tokens) == text.encode()
    assert any(len(token_bytes[token]) == 1 and token_bytes[token][0] > 127 for token in tokens)  # a part of a character
    assert llama.token_bytes([0]) == {0: END.encode()}


# -- what cannot be read over a tree -----------------------------------------------------------------------------------

LOCAL = {"attention_types": [[["global", "local"], 1]], "num_layers": 2, "window_size": 16}
WINDOW, STATE = "attends through a window of 16 tokens", "whose state runs through the whole tree"
ALIBI = "by how many rows ago that was read (ALiBi), not by positions"
ONE_STATE = "has no attention but one state that every token changes"
UNREADABLE = {
    "gpt-neo, local": ("gpt_neo", LOCAL, WINDOW),
    "mamba": ("mamba", {}, STATE),
    "mamba 2": ("mamba2", {"num_heads": 4, "head_dim": 16, "state_size": 16, "n_groups": 1}, STATE),
    "jamba": ("jamba", {"num_experts": 2}, STATE),
    "recurrent gemma": ("recurrent_gemma", {"lru_width": 32, "attention_window_size": 16}, STATE),
    "lfm2": ("lfm2", {"layer_types": ["conv", "full_attention"]}, STATE),
    "falcon h1": ("falcon_h1", {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_ssm": 64, "mamba_d_state": 16}, STATE),
    "mpt": ("mpt", {"max_seq_len": 160}, ALIBI),
    "bloom": ("bloom", {}, ALIBI),
    "rwkv": ("rwkv", {"attention_hidden_size": 32}, ONE_STATE),
    "xlstm": ("xlstm", {"num_heads": 2, "embedding_dim": 32, "num_blocks": 2}, ONE_STATE),
    "falcon, alibi": ("falcon", {"alibi": True}, ALIBI),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_refused_because_a_tree_would_be_read_wrongly(case, tmp_path, tokenizer):
    kind, more, words = UNREADABLE[case]
    save(tmp_path, causal_lm(kind, attention="eager", **more), tokenizer)
    with pytest.raises(ValueError) as caught:
        load(str(tmp_path), device="cpu")
    assert words in str(caught.value) and str(tmp_path) in str(caught.value)
    assert words == WINDOW or f"({kind})" in str(caught.value)


def test_silent_models_fail_the_self_test_too(tmp_path, tokenizer, monkeypatch):
    """Without the look at the config the measurement still refuses: a window of rows, and a state that needs no mask."""
    monkeypatch.setattr("decoding.models.family.check_architecture", lambda config, source: None)
    for name in ("gpt-neo, local", "jamba", "mamba 2", "mpt", "bloom", "rwkv", "falcon, alibi"):
        kind, more, _ = UNREADABLE[name]
        save(tmp_path / kind, causal_lm(kind, attention="eager", **more), tokenizer)
        with pytest.raises(ValueError, match=r"reads a draft tree wrongly|cannot be read over a draft tree"):
            load(str(tmp_path / kind), device="cpu")


def test_encoder_decoder(tmp_path, tokenizer):
    config = T5Config(vocab_size=VOCAB, d_model=32, d_ff=48, num_layers=1, num_heads=2, d_kv=16)
    save(tmp_path, T5ForConditionalGeneration(config), tokenizer)
    with pytest.raises(ValueError, match="is an encoder-decoder; Draftscope needs a decoder-only model"):
        load(str(tmp_path), device="cpu")
    with pytest.raises(ValueError):
        check_architecture(config, "t5")


# -- tokenizers that do not fit ----------------------------------------------------------------------------------------


def other_tokenizer() -> PreTrainedTokenizerFast:
    """As many entries as the toy tokenizer, learned from another text."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    options = {"initial_alphabet": pre_tokenizers.ByteLevel.alphabet(), "show_progress": False}
    trainer = trainers.BpeTrainer(vocab_size=VOCAB, special_tokens=[END], **options)
    bpe.train_from_iterator(["zebra quiz jazz fuzz quartz wizard blizzard puzzle"], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token=END, eos_token=END)


def test_draft_model_with_another_tokenizer(tmp_path, folders):
    """What is shared and what is not is said (`test_draft_tokens`): few merges of so small a vocabulary differ."""
    save(tmp_path, causal_lm("llama"), other_tokenizer())
    family = load(folders("llama"), str(tmp_path), device="cpu")
    differ = {token for piece, token in family.tokenizer.get_vocab().items() if other_tokenizer().get_vocab().get(piece) != token}
    assert family.draft.unused == tuple(sorted(differ))
    assert f"differs from the target's in {len(differ)} of 280 entries" in family.notes[0]


def test_embedded_draft_model_with_another_target(folders):
    family = load(folders("llama"), "embedded", device="cpu")
    assert family.draft is None and "(280 against 4,096)" in family.notes[0]


def test_tokenizer_larger_than_the_model(tmp_path, tokenizer):
    save(tmp_path, causal_lm("llama", vocab_size=200), tokenizer)
    with pytest.raises(ValueError, match="tokenizer has ids up to 279 and the model scores only 200 tokens"):
        load(str(tmp_path), device="cpu")


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "a/b/c", "https://example.com/model", "no such folder", "x" * 300, "\x00"])
def test_names_that_are_no_model(name):
    with pytest.raises(ValueError, match="neither a folder nor the id"):
        load(name)


ODD = ["x" * 300, "~nosuchuser/x", "/", "\x00", "/dev/null", "/proc/self", "." * 5000]


@pytest.mark.parametrize("name", [*ODD, *(f"{name}.gguf" for name in ODD)])
def test_names_that_no_folder_has_are_sentences_at_once(name):
    begun = time.monotonic()
    for target, draft in ((name, None), ("embedded", name)):
        with pytest.raises(ValueError, match="neither a folder|cannot be opened|There is no file"):
            load(target, draft, device="cpu")
    weights_mark(name)
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize("name", ["no-such-model", "nobody/no-such-model", "../..x"])
def test_unknown_ids(name):
    with pytest.raises(ValueError, match=f"The model '{name}' cannot be opened: "):
        load(name)


@pytest.mark.parametrize("device", ["gpu", "tpu9", "cuda:x", "", "cpu cpu", "meta"])
def test_unknown_devices(device):
    with pytest.raises(ValueError, match=f"{device!r}"):
        load("embedded", device=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has one")
def test_a_device_that_is_not_there():
    with pytest.raises(ValueError, match="'cuda' is not available on this machine"):
        load("embedded", device="cuda")


@pytest.mark.parametrize("dtype", ["float64", "int8", "", "half"])
def test_unknown_number_formats(dtype):
    with pytest.raises(ValueError, match=f"no number format {dtype!r}"):
        load("embedded", dtype=dtype)


# -- folders that are damaged or hostile -------------------------------------------------------------------------------


class Marker:
    """Unpickling it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "executed")


@pytest.fixture
def folder(tmp_path, folders) -> Path:
    """A copy of the llama's folder, to be spoiled."""
    return Path(shutil.copytree(folders("llama"), tmp_path / "model"))


def spoil(file: str, data: bytes | None):
    def change(folder: Path) -> None:
        if data is None:
            (folder / file).unlink()
        else:
            (folder / file).write_bytes(data)

    return change


def cut(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def other_shapes(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_size": 64}))


def emptied(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


DAMAGED = {
    "empty folder": emptied,
    "no config": spoil("config.json", None),
    "config is no JSON": spoil("config.json", b"{"),
    "config is a list": spoil("config.json", b"[]"),
    "config of nothing": spoil("config.json", b"{}"),
    "unknown model type": spoil("config.json", b'{"model_type": "wizardry"}'),
    "no weights": spoil("model.safetensors", None),
    "weights cut short": cut,
    "weights empty": spoil("model.safetensors", b""),
    "weights of random bytes": spoil("model.safetensors", bytes(range(256)) * 16),
    "weights with an endless header": spoil("model.safetensors", b"\xff" * 8 + b"{}"),
    "weights of other shapes": other_shapes,
    "tokenizer is no JSON": spoil("tokenizer.json", b"not json"),
    "tokenizer of nothing": spoil("tokenizer.json", b"{}"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_folders_are_refused_with_a_sentence(folder, case):
    DAMAGED[case](folder)
    with pytest.raises(ValueError) as caught:
        load(str(folder), device="cpu")
    assert str(folder) in str(caught.value)


def test_a_folder_that_is_no_model_is_told_what_it_lacks(tmp_path):
    with pytest.raises(ValueError, match="cannot be opened: there is no config.json in that folder"):
        load(str(tmp_path), device="cpu")


def test_pickled_weights_are_refused_and_not_opened(folder, tmp_path):
    marker = tmp_path / "marker"
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": Marker(marker)}))
    torch.save({"weight": Marker(marker)}, folder / "model.pt")
    with pytest.raises(ValueError, match="cannot be opened"):
        load(str(folder), device="cpu")
    assert not marker.exists()


def test_the_marker_works(tmp_path):
    pickle.loads(pickle.dumps(Marker(tmp_path / "marker")))
    assert (tmp_path / "marker").exists()


@pytest.mark.parametrize("model_type", ["llama", "wizardry"])
def test_code_in_the_folder_is_never_executed(folder, tmp_path, model_type):
    """A known architecture is loaded without the folder's code, an unknown one is refused; neither runs it."""
    marker = tmp_path / "marker"
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w').write('executed')\nclass Evil: pass\n")
    code = dict.fromkeys(("AutoConfig", "AutoModelForCausalLM", "AutoTokenizer"), "evil.Evil")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": model_type, "auto_map": code}))
    words = json.loads((folder / "tokenizer_config.json").read_text())
    words["auto_map"] = {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(words))
    if model_type == "llama":
        assert load(str(folder), device="cpu").target.vocab == VOCAB
    else:
        with pytest.raises(ValueError, match=str(folder)):
            load(str(folder), device="cpu")
    assert not marker.exists()


# -- the family cache --------------------------------------------------------------------------------------------------


class Stand:
    """For a family."""


@pytest.fixture
def empty_shelf(monkeypatch):
    monkeypatch.setattr(family_cache, "_alive", WeakValueDictionary())
    monkeypatch.setattr(family_cache, "_families", {})
    monkeypatch.setattr(family_cache, "_collected", -inf)
    monkeypatch.setattr(family_cache, "_models", WeakValueDictionary())


def test_shelf_loads_once_and_frees_the_last_one_before_the_next(empty_shelf, folders, embedded, monkeypatch):
    names, held = [("embedded", None), (folders("llama"), None), (folders("gpt2"), None), ("embedded", "gpt2")], []

    def look(*key, **_) -> object:
        held.append([other[:2] for other in family_cache._families])
        return Stand()

    monkeypatch.setattr(family_cache, "load", look)
    for target, draft in names:
        assert family_cache.family(target, draft) is family_cache.family(target, draft)
    assert held == [[], names[:1], names[:1], names[:1]]
    assert [key[:2] for key in family_cache._families] == [names[0], names[3]]


def test_asking_for_the_embedded_family_frees_nothing(empty_shelf, monkeypatch):
    monkeypatch.setattr(family_cache, "load", lambda *key, **_: Stand())
    other = family_cache.family("folder")
    family_cache.family("embedded")
    assert family_cache.family("folder") is other


def test_shelf_keeps_the_embedded_family_if_another_cannot_be_loaded(empty_shelf, embedded, monkeypatch):
    monkeypatch.setattr(family_cache, "load", lambda *names, **how: embedded if names[0] == "embedded" else load(*names, **how))
    family_cache.family("embedded")
    with pytest.raises(ValueError, match="neither a folder"):
        family_cache.family("no such folder")
    assert family_cache.family("embedded") is embedded


def test_a_family_that_is_used_stays_and_one_that_is_not_goes(empty_shelf, folders):
    names = [folders("llama"), folders("gpt2"), folders("qwen2")]
    used, unused = family_cache.family(names[0]), weakref.ref(family_cache.family(names[1]))
    family_cache.family(names[2])
    gc.collect()
    assert unused() is None and family_cache.family(names[0]) is used is family_cache.loaded(names[0], None)


def test_families_in_use_keep_to_a_budget(empty_shelf, folders, monkeypatch):
    names = [folders("llama"), folders("gpt2")]
    size = family_cache.bytes_of(used := family_cache.family(names[0]))
    monkeypatch.setenv(family_cache.BUDGET, str(1.5 * size / 10**9))
    with pytest.raises(ValueError, match=f"Runs that are not over use {names[0]}, .* end one of them"):
        family_cache.family(names[1])
    assert family_cache.family(names[0]) is used
    del used
    assert family_cache.family(names[1]) and family_cache.loaded(names[0], None) is None  # nobody uses it any more
    monkeypatch.setenv(family_cache.BUDGET, "0")
    assert family_cache.family(names[0])  # alone it is only as large as the machine allows


def test_all_that_lies_about_is_looked_through_seldom(empty_shelf, monkeypatch):
    """Visitors who had one model after another loaded had everybody wait for a collection each time. Where there is no room it is
    made at once."""
    collected = []
    monkeypatch.setattr(gc, "collect", lambda: collected.append(1))
    monkeypatch.setattr(family_cache, "load", lambda *key, **_: Stand())
    monkeypatch.setattr(family_cache, "bytes_needed", lambda key: 10)
    for name in "abcde":
        assert family_cache.family(name)
    assert len(collected) == 1  # in so many seconds

    def full(key: tuple, size: int) -> None:
        if len(collected) < 3:
            raise ValueError("no room")

    collected.append(1)
    monkeypatch.setattr(family_cache, "check_budget", full)
    assert family_cache.family("f") and len(collected) == 3
    collected.clear()
    with pytest.raises(ValueError, match="no room"):
        family_cache.family("g")


def test_families_share_the_models_that_they_have_in_common(empty_shelf, folders, monkeypatch):
    """Visitors who had pairs of the same models opened them again and again, and tried them out each time."""
    one, other, opened = folders("llama"), folders("gpt2"), []
    monkeypatch.setattr(family_cache, "open_model", lambda source, *a, **b: opened.append(source) or open_model(source, *a, **b))
    single = family_cache.family(one, dtype="float32", device="cpu")
    pair = family_cache.family(other, one, dtype="float32", device="cpu")
    assert pair.draft.model is single.target.model and sorted(opened) == sorted([one, other])
    assert family_cache.bytes_of(single, pair) == family_cache.bytes_of(pair)
    assert load(one, dtype="float32", device="cpu").target is not single.target  # only what comes from here is shared


def test_a_public_server_keeps_what_was_used_lately_as_far_as_there_is_room(empty_shelf, folders, monkeypatch):
    monkeypatch.setenv("DRAFTSCOPE_MODE", "public")
    names = [folders(kind) for kind in ("llama", "gpt2", "qwen2", "mistral")]
    monkeypatch.setenv("DRAFTSCOPE_MODELS", ",".join(names))
    size = max(family_cache.bytes_of(load(name)) for name in names)
    monkeypatch.setattr(family_cache, "SPARE", 3.5 * size / family_cache.GIGABYTE)
    first, second = (weakref.ref(family_cache.family(name)) for name in names[:2])
    family_cache.family(names[2])
    family_cache.family(names[0])  # again
    family_cache.family(names[3])
    gc.collect()
    kept = [key[0] for key in family_cache._families]
    assert first() is not None and second() is None and names[1] not in kept and names[3] in kept and names[0] in kept


def test_a_run_that_is_over_is_no_user(empty_shelf, folders):
    worker, names = Worker(), [folders("llama"), folders("gpt2")]
    live = worker.live(lambda: Run(family_cache.family(names[0]), "plain", prompt="the cat", max_tokens=3))
    live.ask(2)
    live.wait()
    family_cache.free_others()
    kept = weakref.ref(family_cache.loaded(names[0], None))
    live.close()
    gc.collect()
    assert kept() is None and live.count == 2


def test_loading_one_family_waits_for_no_other(empty_shelf, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()

    def slow(target, *key, **_):
        if target == "slow":
            begun.set()
            assert go_on.wait(60)
        return Stand()

    monkeypatch.setattr(family_cache, "load", slow)
    monkeypatch.setattr(family_cache, "bytes_needed", lambda key: 0)
    found = []
    threads = [threading.Thread(target=lambda: found.append(family_cache.family("slow"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert begun.wait(60) and family_cache.family("quick") and family_cache.family("embedded") and not found
    go_on.set()
    for thread in threads:
        thread.join(60)
    assert found[0] is found[1]


def test_other_weights_have_another_mark(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(EMBEDDED / "draft", folder)
    smollm2 = weights_mark("smollm2")
    assert len(smollm2) == 8 and weights_mark("embedded") == "46cff356" != smollm2  # another one, and kept studies begin anew
    before = weights_mark(str(folder))
    assert len(before) == 8 and weights_mark(str(folder)) == before != weights_mark("embedded")
    file = folder / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert weights_mark(str(folder)) != before
    assert weights_mark("owner/name") == weights_mark(None) == ""
