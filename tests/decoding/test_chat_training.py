"""Training on conversations: what is learned of them, a part of a large vocabulary, a draft model, and what is told before."""

import json
import math
import re

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from decoding.models.family import load
from decoding.models.heads import facts, find
from decoding.runs.run import Run
from decoding.training import chat_texts, conversations, draft_model, forecast, shortlist, train
from decoding.training.corpus import Domain
from decoding.training.recipes import judge, specdec_pp
from tests import toys

TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "two", "dogs", "run", "to", "me"]


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory):
    """A folder with a small model of random weights, a chat template, and an end token that is part of it."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("chat")
    special = ["<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
    every = {word: i for i, word in enumerate([*special, "[UNK]", *WORDS])}
    bare = Tokenizer(models.WordLevel(every, unk_token="[UNK]"))
    bare.pre_tokenizer = pre_tokenizers.Whitespace()
    words = PreTrainedTokenizerFast(
        tokenizer_object=bare, unk_token="[UNK]", eos_token="<|end|>", bos_token="<|user|>", additional_special_tokens=special[1:]
    )
    words.chat_template = TEMPLATE
    words.save_pretrained(folder)
    model = toys.causal_lm("llama", seed=3, vocab_size=len(every), hidden_size=64, eos_token_id=0)
    model.save_pretrained(folder)
    return folder


def said(*turns: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]


@pytest.fixture(scope="module")
def chat_file(tmp_path_factory):
    """Sixty conversations of these words."""
    file, rng = tmp_path_factory.mktemp("talk") / "chat.jsonl", np.random.default_rng(0)
    talk = lambda: " ".join(rng.choice(WORDS, 9))  # noqa: E731
    file.write_text("".join(json.dumps({"messages": said(talk(), talk())}) + "\n" for _ in range(60)), "utf-8")
    return file


# -- conversations -----------------------------------------------------------------------------------------------------


def test_only_what_the_assistant_says_is_learned(chat_model):
    family = load(str(chat_model))
    tokens, learned = chat_texts.rendered(family, said("the cat", "sat on a mat", "and", "two dogs"))
    told = [family.tokenizer.decode([token]) for token, counts in zip(tokens, learned, strict=True) if counts]
    assert told == ["sat", "on", "a", "mat", "<|end|>", "two", "dogs", "<|end|>"]
    whole = family.tokenizer.apply_chat_template(
        said("the cat", "sat on a mat", "and", "two dogs"), tokenize=True, return_dict=False
    )
    assert tokens == list(whole)


def test_held_out_conversations_are_not_learned_from(chat_model, chat_file):
    family = load(str(chat_model))
    learned, held_out = (chat_texts.Conversations.of(family, chat_file, part) for part in (False, True))
    assert len(held_out.found) == 3 and len(learned.found) == 57
    assert not [each for each in held_out.found if each in learned.found]
    tokens, counts = learned.windows(family, "given", 0, 20)
    assert tokens.shape == counts.shape == (32, 20) and 0 < counts.mean() < 1
    again, _ = learned.windows(family, "given", 0, 20)
    assert (tokens == again).all()


@pytest.mark.parametrize(
    "line", ["{", '{"messages": 3}', '{"messages": [{"role": "user"}]}', '{"messages": ["hello"]}'], ids=range(4)
)
def test_a_line_that_is_no_conversation_is_named(tmp_path, line):
    file = tmp_path / "bad.jsonl"
    file.write_text(json.dumps({"messages": said("a", "b")}) + "\n" + line + "\n", "utf-8")
    with pytest.raises(ValueError, match=r"Line 2 of 'bad\.jsonl' is no conversation"):
        list(chat_texts.conversations(file))


def test_a_stopped_run_goes_on_behind_its_last_whole_batch(tmp_path):
    file = tmp_path / "chat.jsonl"
    assert conversations.read_back(file) == (0, 0, 0)
    conversations.append(file, 0, [("a", "b" * 40)], own=True)
    conversations.append(file, 1, [("c", "d" * 80)], own=False)
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"messages": [{"role": "user", "conte')
    assert conversations.read_back(file) == (2, 10, 20) and file.read_bytes() == whole


def test_the_corpus_is_asked_for_what_it_holds():
    story = "The Fox\n\nOnce a fox went out. He saw a hen."
    sum_ = "Question: 2 + 3?\nAnswer: It is 5.\n#### 5"
    source = 'def twice(x):\n    """Return x two times."""\n    return 2 * x\n'
    found = conversations.questions(
        [Domain("stories", 1, (story,), ()), Domain("mathematics", 1, (sum_,), ()), Domain("python", 1, (source, "def ("), ())]
    )
    assert found["stories"] == [("Tell me the story of The Fox.", "Once a fox went out. He saw a hen.")]
    assert found["mathematics"] == [("2 + 3?", "It is 5.\nThe answer is 5")]
    assert [asked for asked, _ in found["python"]] == ["Write a Python function `twice`. Return x two times."]
    assert source.strip() in found["python"][0][1]


def test_the_model_answers_in_its_own_template(chat_model, monkeypatch):
    family = load(str(chat_model))
    monkeypatch.setattr(conversations, "ROWS", 4)
    asked = {name: [("the cat", "sat")] for name in ("mathematics", "python", "stories")}
    found = conversations.answered(family, asked, 1)
    assert found == conversations.answered(family, asked, 1)
    prompt = conversations.rendered(family, said("the cat"))
    text = toys.greedy_text(family.target, prompt, 30)
    greedy = conversations.written(family.target, [prompt, prompt[:2]], 30, greedy=True, seed=0)
    assert greedy[0] == [*text][: len(greedy[0])] and len(greedy[0]) in (30, text.index(0) if 0 in text else 30)
    assert all(isinstance(turn, str) for turn in conversations.own_questions(family, 0))


# -- a part of the vocabulary ------------------------------------------------------------------------------------------


def test_a_part_of_the_vocabulary_stands_for_all_of_it(monkeypatch):
    """The sum of exponentials is right on average, the learned tokens are always there, and a small vocabulary is scored whole."""
    target = toys.tiny_target(0, vocab=400)
    hidden = torch.randn(3, target.model.config.hidden_size, generator=torch.Generator().manual_seed(0))
    usual, tokens = np.arange(40), torch.tensor([[100, 250, 399]])
    assert shortlist.shortlist(target, usual, tokens, 0) is target
    monkeypatch.setattr(shortlist, "SMALL", 100)
    monkeypatch.setattr(shortlist, "SAMPLED", 60)
    whole = target.score(hidden)
    sums = []
    for seed in range(300):
        part = shortlist.shortlist(target, usual, tokens, seed)
        scored = part.score(hidden)
        assert scored.shape == (3, 40 + 3 + 60)
        columns = part.places(tokens[0])
        assert part.chosen[columns].tolist() == [100, 250, 399]
        torch.testing.assert_close(scored[:, columns], whole[:, [100, 250, 399]])
        sums.append(scored.exp().sum(-1))
    torch.testing.assert_close(torch.stack(sums).mean(0), whole.exp().sum(-1), rtol=0.02, atol=0)


def test_most_frequent_tokens_come_first(monkeypatch):
    monkeypatch.setattr(shortlist, "FREQUENT", 2)
    assert sorted(shortlist.frequent(np.array([[5, 5, 7], [7, 7, 2]]), 9)) == [5, 7]


# -- whole trainings ---------------------------------------------------------------------------------------------------


def arguments(chat_model, chat_file, tmp_path, *more: str) -> list[str]:
    sizes = ["--tokens", "640", "--held-out", "20", "--window", "20", "--rows", "8", "--epochs", "4"]
    return ["--family", str(chat_model), "--data", str(chat_file), "--work", str(tmp_path / "work"), *sizes, *more]


@pytest.mark.parametrize("key", ["medusa", "clover", "ftp", "falcon", "chimera", "sentence_vae"])
def test_heads_learn_conversations_over_a_part_of_the_vocabulary(chat_model, chat_file, tmp_path, monkeypatch, capsys, key):
    monkeypatch.setenv("DRAFTSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shortlist, "SMALL", 4)
    monkeypatch.setattr(shortlist, "FREQUENT", 6)
    monkeypatch.setattr(shortlist, "SAMPLED", 4)
    family = load(str(chat_model))
    before = capsys.readouterr()
    train.main([key, *arguments(chat_model, chat_file, tmp_path)])
    told = capsys.readouterr().out
    assert "The target reads" in told and "numbers are trained in" in told, before
    figures = facts(find(key, family.target.model))[3]
    assert figures and all(math.isfinite(value) for value in figures.values())


def test_a_draft_model_is_distilled_and_drafts(chat_model, chat_file, tmp_path):
    out = tmp_path / "draft"
    draft_model.main(arguments(chat_model, chat_file, tmp_path, "--layers", "1", "--width", "64", "--out", str(out)))
    draft = AutoModelForCausalLM.from_pretrained(out)
    assert draft.config.tie_word_embeddings and draft.config.tokens_seen > 0
    assert AutoTokenizer.from_pretrained(out).get_vocab() == AutoTokenizer.from_pretrained(chat_model).get_vocab()
    run = Run(load(str(chat_model), str(out)), "speculative_sampling", prompt="the cat sat", max_tokens=12)
    assert list(run) and run.trace.steps[0].nodes


def test_a_draft_model_comes_closer_to_the_target(chat_model, chat_file, tmp_path, capsys):
    def overlap(epochs: int) -> float:
        more = ["--layers", "1", "--width", "64", "--epochs", str(epochs), "--lr", "0.01", "--out", str(tmp_path / str(epochs))]
        draft_model.main([*arguments(chat_model, chat_file, tmp_path), *more])
        return float(capsys.readouterr().out.rsplit("expected acceptance ", 1)[1].split(",")[0])

    assert overlap(2) < 0.6 * overlap(150) < 0.6


def test_a_sorted_draft_model_answers_after_each_of_its_exits(chat_model, chat_file, tmp_path, capsys):
    more = ["--layers", "2", "--width", "64", "--epochs", "50", "--lr", "0.02", "--out", str(tmp_path / "sorted")]
    draft_model.main([*arguments(chat_model, chat_file, tmp_path), *more, "--exits", "1", "2"])
    overlaps = re.findall(r"exit (\d): .*expected acceptance ([\d.]+)", capsys.readouterr().out)[-2:]
    assert [int(layer) for layer, _ in overlaps] == [1, 2] and all(float(overlap) > 0.35 for _, overlap in overlaps), overlaps
    run = Run(load(str(chat_model), str(tmp_path / "sorted")), "s2d", prompt="the cat sat", max_tokens=12)
    assert list(run) and {node.source for step in run.trace.steps for node in step.nodes} <= {"layer 1", "layers 1 to 2"}


def test_a_plain_draft_model_goes_on_as_a_sorted_one(chat_model, chat_file, tmp_path, capsys):
    more = ["--layers", "2", "--width", "64", "--epochs", "1", "--out", str(tmp_path / "draft")]
    draft_model.main([*arguments(chat_model, chat_file, tmp_path), *more])
    draft_model.main([*arguments(chat_model, chat_file, tmp_path), *more, "--go-on", "--exits", "1", "2"])
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "draft").config.exits == [1, 2]
    with pytest.raises(ValueError, match="must ascend"):
        draft_model.main([*arguments(chat_model, chat_file, tmp_path), *more, "--go-on", "--exits", "3"])


def test_acceptance_is_learned_from_what_the_model_said_itself(chat_model, tmp_path, monkeypatch):
    file, rng = tmp_path / "chat.jsonl", np.random.default_rng(0)
    talk = lambda own: " ".join(rng.choice(WORDS[:6] if own else WORDS[6:], 9))  # noqa: E731
    lines = [{"messages": said(talk(i % 3), talk(i % 3)), "own": bool(i % 3)} for i in range(400)]  # 20, 40, 80, ... are held out
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    monkeypatch.setattr(specdec_pp, "PROMPT", 4)
    monkeypatch.setattr(specdec_pp, "LENGTH", 16)
    monkeypatch.setattr(specdec_pp, "ROWS", 4)
    family = load(str(chat_model), str(chat_model))
    learn, test = specdec_pp.sources(family, file)
    found = specdec_pp.write(family, learn, tmp_path / "greedy", "greedy", 2)
    words = set(family.tokenizer.convert_tokens_to_ids(WORDS[6:]))
    assert not words & set(found.text.flatten().tolist()) and found.valid.any() and not found.valid.all()
    assert (found.accepted[found.valid] == 1).all()  # the draft model is the target
    shown = {tuple(row) for row in found.text.tolist()}
    assert not shown & {tuple(row) for row in test.batch(family, "greedy", 0, 0)[0].tolist()}


def test_the_judge_sees_a_chat_model_answer(chat_model):
    family = load(str(chat_model))
    right = "Question: the cat\nAnswer: two dogs run"
    text = judge.Text(right, right.index("Answer:") + 7, "mathematics", (judge.Variant(right.replace("dogs", "me"), "word"),))
    chat = judge.answered(family, text)
    tokens, start, leaves = judge.placed(family.tokenizer, chat)
    pieces = family.tokenizer.convert_ids_to_tokens(tokens)
    assert pieces == ["<|user|>", "the", "cat", "<|end|>", "<|assistant|>", "two", "dogs", "run"] and start == 5
    assert leaves == [(family.tokenizer.convert_tokens_to_ids("me"), 6, "word")]


def test_states_that_do_not_fit_on_the_disk_are_refused_before(chat_model, chat_file, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(forecast.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(ValueError, match="0.0 GB are free; take fewer --tokens"):
        train.main(["medusa", *arguments(chat_model, chat_file, tmp_path)])
