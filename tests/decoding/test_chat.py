"""Chat: what a template makes of messages, against transformers; what is refused at the door; templates that mean harm."""

import copy
import json
from dataclasses import replace
from inspect import signature

import msgspec
import pytest
import torch

from decoding.models import chat
from decoding.models.chat import checked_messages, checked_options, has_template, read_options, write_options
from decoding.models.family import load
from decoding.runs.prompts import Prompt
from decoding.runs.run import Run
from decoding.runs.store import Store
from decoding.runs.study import Plan, Study, results
from decoding.runs.trace_files import from_json, to_json
from decoding.sample import Sampling
from decoding.trace import Message, decode_trace, encode
from tests.toys import CONTEXT, MARKS, TEMPLATE, VOCAB, causal_lm, chatting, save

GREEDY = Sampling(temperature=0)
HELLO = [{"role": "user", "content": "the cat sat"}]
TURNS = [*HELLO, {"role": "assistant", "content": "on the mat"}, {"role": "user", "content": "and the dog?"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("chatting")
    save(path, causal_lm("llama", vocab_size=VOCAB + len(MARKS)), chatting())
    return str(path)


@pytest.fixture(scope="module")
def family(folder):
    return load(folder, device="cpu")


def generated(family, messages, count: int, **options) -> list[int]:
    """What transformers writes behind the same messages."""
    ids = family.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", **options)["input_ids"]
    made = family.target.model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=count, eos_token_id=list(family.target.ends)
    )
    return made[0].tolist()


# -- runs ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["plain", "prompt_lookup", "token_recycling"])
@pytest.mark.parametrize("messages", [HELLO, [{"role": "system", "content": "a log"}, *TURNS]], ids=["one", "more"])
def test_a_chat_is_greedily_what_transformers_generates(family, method, messages):
    run = Run(family, method, prompt=messages, sampling=GREEDY, max_tokens=24)
    list(run)
    tokens = [*run.header.prompt_tokens, *(token for step in run.steps for token in step.tokens)]
    assert tokens == generated(family, messages, 24)


def test_two_turns_are_greedily_those_of_transformers(family):
    messages, ours, theirs = list(HELLO), [], []
    for question in ("and the dog?", None):
        run = Run(family, "prompt_lookup", prompt=messages, sampling=GREEDY, max_tokens=12)
        list(run)
        ours.append([token for step in run.steps for token in step.tokens])
        theirs.append(generated(family, messages, 12)[len(run.header.prompt_tokens) :])
        messages += [{"role": "assistant", "content": run.trace.answer}, {"role": "user", "content": question}]
    assert ours == theirs and messages[1]["content"] in family.tokenizer.apply_chat_template(messages[:3], tokenize=False)


def test_the_trace_keeps_messages_options_and_the_rendered_text(family):
    run = Run(family, "plain", prompt=TURNS, max_tokens=3, template_options={"loud": True, "name": "Tom"})
    list(run)
    trace = run.trace
    assert trace.header.messages == tuple(Message(**turn) for turn in TURNS)
    assert trace.header.template_options == {"loud": True, "name": "Tom"}
    assert trace.header.prompt.startswith("<|user|>the cat sat<|end|>") and trace.header.prompt.endswith("LOUD Tom<|assistant|>")
    marks = {trace.token_bytes[token] for token in trace.header.special_tokens if token in trace.token_bytes}
    assert {b"<|user|>", b"<|end|>"} <= marks
    assert decode_trace(encode(trace)) == trace == from_json(to_json(trace))


def test_messages_may_be_those_of_another_trace(family):
    first = Run(family, "plain", prompt=HELLO, max_tokens=1)
    assert Run(family, "plain", prompt=first.header.messages, max_tokens=1).header == first.header


def test_the_mark_that_ends_the_text_is_no_part_of_the_answer(family):
    run = Run(family, "plain", prompt=HELLO, max_tokens=1)
    end = max(run.header.special_tokens)
    run.steps = [replace_tokens(step, end) for step in run]
    run.token_bytes |= family.token_bytes([end])
    assert run.trace.answer == "" and run.text


def replace_tokens(step, token: int):
    return msgspec.structs.replace(step, tokens=(token,) * len(step.tokens))


def test_plain_text_and_token_ids_are_what_they_were(family):
    run = Run(family, "plain", prompt="the cat", max_tokens=1)
    assert run.header.prompt == "the cat" and run.header.messages == () and run.header.template_options == {}
    again = Run(family, "plain", prompt=list(run.header.prompt_tokens), max_tokens=1)
    assert again.header.prompt_tokens == run.header.prompt_tokens


def test_a_model_without_a_template_refuses_messages(llama, embedded):
    for other in (llama, embedded):
        with pytest.raises(ValueError, match="has no chat template, so it takes no messages"):
            Run(other, "plain", prompt=HELLO)


def test_texts_end_at_the_tokens_of_the_generation_config_and_of_the_tokenizer(tmp_path):
    model = causal_lm("llama", vocab_size=VOCAB + len(MARKS))
    model.generation_config.eos_token_id = [5, 7]
    words = chatting()
    save(tmp_path, model, words)
    assert load(str(tmp_path), device="cpu").target.ends == {5, 7, words.eos_token_id}


# -- the door -----------------------------------------------------------------------------------------------------------

USER = {"role": "user", "content": "a"}


@pytest.mark.parametrize(
    ("messages", "sentence"),
    [
        ([{"role": "bot", "content": "a"}], r"Message 1 has the role 'bot'; there are system, user, assistant\."),
        ([{"role": ["user"], "content": "a"}], r"Message 1 has the role \['user'\]"),
        ([USER, {"role": "user"}], r"Message 2 must have a role and a content, .* it is {'role': 'user'}\."),
        ([USER | {"name": "Tom"}], "Message 1 must have a role and a content"),
        ([USER, 5], "Message 2 must have a role and a content, .* it is 5"),
        ([{"role": "user", "content": ["a"]}], r"The content of message 1 must be text; it is \['a'\]"),
        ([{"role": "user", "content": " \n"}], r"Message 1 \(user\) is empty"),
        ([{"role": "system", "content": ""}, USER], r"Message 1 \(system\) is empty"),
        ([USER, {"role": "system", "content": "b"}, USER], "Message 2 is a system message; only the first"),
        ([USER, {"role": "assistant", "content": "b"}], "The last message is the assistant's"),
        ([{"role": "user", "content": "\ud800"}], r"half of a character \(U\+D800\)"),
        ([{"role": "user", "content": "a" * 100_001}], "100,001 characters; at most 100,000 are read"),
        ([USER] * 201, "201 messages; at most 200"),
        ([{"role": "user", "content": "the cat " * 200}], f"the context holds {CONTEXT:,}"),
    ],
)
def test_messages_that_cannot_be_are_refused_with_a_sentence(family, messages, sentence):
    with pytest.raises(ValueError, match=sentence):
        Run(family, "plain", prompt=messages)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (5, "given by name"),
        ({"a b": 1}, "named like a variable"),
        ({"tokenize": True}, "'tokenize' is taken"),
        ({"messages": "x"}, "'messages' is taken"),
        ({"tools": "x"}, "'tools' is taken"),
        ({"deep": {"a": 1}}, "must be a word, a number, True or False"),
        ({"long": "a" * 300}, "must be a word"),
        ({f"n{i}": 1 for i in range(17)}, "at most 16"),
    ],
)
def test_template_options_that_cannot_be_are_refused(family, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        Run(family, "plain", prompt=HELLO, template_options=options)


def test_every_name_that_transformers_uses_is_taken(family):
    names = set(signature(family.tokenizer.apply_chat_template).parameters)
    assert names <= chat.TAKEN | {"self"}


def test_options_are_written_as_they_are_read():
    said = {"enable_thinking": False, "effort": "low", "budget": -3, "share": 0.25}
    assert read_options(write_options(said)) == said and read_options("") == {} and read_options("a=ON") == {"a": True}
    for wrong in ("loud", "=1", "tokenize=true"):
        with pytest.raises(ValueError):
            read_options(wrong)
    with pytest.raises(ValueError, match="have 20,000 characters; at most 6,400"):
        read_options("a=1," * 5_000)


# -- templates are somebody's programs ----------------------------------------------------------------------------------


def with_template(family, template: str):
    words = copy.copy(family.tokenizer)
    words.chat_template = template
    return replace(family, tokenizer=words)


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ("{{ raise_exception('Roles must\nalternate') }}", "does not take these messages: Roles must$"),
        ("{{ messages[0].content.nothing.at.all }}", "does not take these messages: .*no attribute .nothing"),
        ("{% for %}", "does not take these messages"),
        ("{{ 1 / 0 }}", "does not take these messages: division by zero"),
        ("{{ ''.__class__.__mro__ }}", "does not take these messages: .*unsafe"),
        ("{{ raise_exception('\x1b[31m') }}", r"messages:  \[31m$"),
        ("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "does not take these messages: .*recursion"),
        ("{{ '' }}", "The prompt has no tokens"),
        ("{{ 'a' * 500000 }}", "writes .* at most 400,000 are read|writes more than"),
        ("{% for i in range(9999) %}{{ 'a' * 9999 }}{% endfor %}", "writes more than 400,000 characters; it was ended"),
        ("{% set x = namespace(v='a') %}{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
         "takes longer than (0.3|1) seconds; it was ended"),
    ],
)  # fmt: skip
def test_a_template_that_fails_or_does_not_end_is_a_sentence(family, monkeypatch, template, sentence):
    if "takes longer" in sentence:  # the others have to end by themselves, however busy the machine is
        monkeypatch.setattr(chat, "MAX_SECONDS", 0.3)
        monkeypatch.setattr(chat, "RENDERING", replace(chat.RENDERING, seconds=1))
    shipped = replace(family, name="smollm2")  # whose template is filled in here
    for one in (family, shipped):
        with pytest.raises(ValueError, match=sentence):
            Run(with_template(one, template), "plain", prompt=HELLO)


def test_several_templates_need_one_called_default(family):
    words = copy.copy(family.tokenizer)
    words.chat_template = {"tool_use": TEMPLATE}
    with pytest.raises(ValueError, match="does not take these messages"):
        Run(replace(family, tokenizer=words), "plain", prompt=HELLO)
    words.chat_template = {"default": TEMPLATE}
    assert Run(replace(family, tokenizer=words), "plain", prompt=HELLO).header.prompt.startswith("<|user|>")


def test_whether_there_is_a_template_is_told_from_the_files(folder, folders, tmp_path):
    assert has_template(folder) is True and has_template(folders("llama")) is False and has_template("embedded") is False
    assert has_template("nobody/has-this") is None and has_template("not a model at all") is None
    for content, answer in ((json.dumps({"chat_template": "x"}), True), ("{", False), ("[]", False), ("{}", False)):
        (tmp_path / "tokenizer_config.json").write_text(content)
        assert has_template(str(tmp_path)) is answer
    (tmp_path / "chat_template.jinja").write_text("x")
    assert has_template(str(tmp_path)) is True


# -- studies ------------------------------------------------------------------------------------------------------------

PROMPTS = (
    Prompt("the cat", "one", turns=("the cat", "the dog", "and a log"), system="a mat"),
    Prompt("word " * 300, "long", turns=("word " * 300, "the mat")),
    Prompt("on the mat", "plain"),
)
PLAN = Plan("toy", "prompt_lookup", PROMPTS, sampling=GREEDY, max_tokens=4, chat=True, template={"loud": True})


def test_a_study_asks_turn_by_turn_with_the_models_own_answers(family, tmp_path):
    store = Store(tmp_path)
    study = Study(family, PLAN, store)
    list(study)
    assert study.ended and set(study.problems) == {3, 4}
    assert "context holds" in study.problems[3] and "Turn 1 of this prompt could not be run" in study.problems[4]
    found = results(store, PLAN)
    assert [(number, domain) for number, _, domain, _ in found] == [(0, "one"), (1, "one"), (2, "one"), (5, "plain")]
    answers = [trace.answer for *_, trace in found]
    said = [message.content for message in found[2][3].header.messages]
    assert said == ["a mat", "the cat", answers[0], "the dog", answers[1], "and a log"]
    assert found[0][3].header.template_options == {"loud": True}
    assert [p.text for p in PLAN.asked][:3] == ["the cat", "the dog", "and a log"]


def test_a_study_that_stopped_between_two_turns_goes_on_with_the_answers_that_are_kept(family, tmp_path):
    store, other = Store(tmp_path), Store(tmp_path / "other")
    list(Study(family, PLAN, other))
    first = Study(family, PLAN, store)
    while not first.finished:
        next(first)
    next(first)  # in the middle of the second turn
    second = Study(family, PLAN, store)
    assert second.finished == {0}
    list(second)
    assert [t.text_bytes() for *_, t in results(store, PLAN)] == [t.text_bytes() for *_, t in results(other, PLAN)]


def test_a_chat_that_goes_on_reads_one_kept_answer_a_turn(family, tmp_path, monkeypatch):
    """To open a trace takes as long as a step, and everybody waits for a turn."""
    plan = replace(PLAN, prompts=(Prompt("the cat", "long", turns=("the cat", "the dog", "and a log", "the mat", "and a mat")),))
    first = Study(family, plan, Store(tmp_path))
    while len(first.finished) < 4:
        next(first)
    opened = []
    monkeypatch.setattr(Store, "open", lambda store, entry, real=Store.open: opened.append(entry) or real(store, entry))
    second, most = Study(family, plan, Store(tmp_path)), 0
    for _ in range(100):
        before = len(opened)
        if second.ended:
            break
        second.turn()
        most = max(most, len(opened) - before)
    assert second.ended and not second.problems and len(opened) == 4 and most == 1


def test_studies_without_chat_are_those_that_were_kept_before():
    plain = Plan("embedded", "plain", (Prompt("Once", "typed"),), params={"a": 1})
    assert plain.key == "2a15afbab0ed2e25"
    assert plain.names == ("prompt 1",) and plain.asked == plain.prompts
    assert replace(plain, prompts=(Prompt("Once", "typed", turns=("Twice",)),)).key == plain.key
    assert replace(plain, chat=True).key != replace(plain, chat=True, template={"loud": True}).key != plain.key


def test_messages_are_made_of_questions_and_answers():
    assert checked_messages(PROMPTS[0].messages(["A"]))[2] == Message("assistant", "A")
    assert checked_options({}) == {}
