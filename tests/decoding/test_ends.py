"""Stop tokens of one's own, and runs that go on behind the end of the text."""

import re
from dataclasses import replace

import msgspec
import pytest
import torch

from decoding.models.ends import checked_stops, read_each, read_stops, stop_ids, write_stops
from decoding.models.family import load
from decoding.runs import evaluate
from decoding.runs.prompts import Prompt
from decoding.runs.run import Run
from decoding.runs.store import Store
from decoding.runs.study import Plan, Study
from decoding.runs.trace_files import from_json, to_json
from decoding.sample import Sampling
from decoding.trace import decode_trace, encode

GREEDY = Sampling(0)
PROMPT = "the cat sat on the mat and the dog sat on the"
METHODS = ("plain", "speculative_sampling", "multi_candidate", "spectr", "prompt_lookup", "token_recycling", "eagle", "kangaroo")


def generated(family, ends: list[int], prompt: str = PROMPT, count: int = 60) -> list[int]:
    """What transformers writes until one of these tokens."""
    ids = torch.tensor([family.tokenizer(prompt)["input_ids"]])
    seen = torch.ones_like(ids)
    with torch.inference_mode():
        out = family.target.model.generate(
            ids, attention_mask=seen, do_sample=False, max_new_tokens=count, pad_token_id=0, eos_token_id=ends or None
        )
    return out[0, ids.shape[1] :].tolist()


def written(run: Run) -> list[int]:
    return [token for step in run for token in step.tokens]


def ending_early(family):
    """The family with a token at the end of texts that comes soon, also for transformers."""
    free = generated(family, [])
    end = next(token for i, token in enumerate(free) if i > 8 and token not in free[:i])
    target, draft = (replace(model, ends=frozenset({end})) for model in (family.target, family.draft))
    return replace(family, target=target, draft=draft), end, free


@pytest.mark.parametrize("key", METHODS)
def test_a_stop_token_ends_where_generate_ends(llama, key):
    free = generated(llama, [])
    own = sorted(llama.target.ends)
    run = Run(llama, key, prompt=PROMPT, sampling=GREEDY, max_tokens=60, stop=[free[30], free[45]])
    assert written(run) == generated(llama, [*own, free[30], free[45]])
    assert run.steps[-1].ending == "stop token" and run.steps[-1].tokens[-1] in (free[30], free[45])


@pytest.mark.parametrize("key", METHODS)
def test_a_run_goes_on_behind_the_end(llama, key):
    family, end, free = ending_early(llama)
    usual = Run(family, key, prompt=PROMPT, sampling=GREEDY, max_tokens=60)
    assert written(usual) == free[: free.index(end) + 1] and usual.steps[-1].ending == "end of text"
    run = Run(family, key, prompt=PROMPT, sampling=GREEDY, max_tokens=60, ignore_end=True)
    assert written(run) == free and run.steps[-1].ending == "token limit"


@pytest.mark.parametrize("key", ["token_recycling", "multi_candidate", "speculative_sampling"])
def test_a_stop_inside_an_accepted_path_ends_exactly_there(llama, key):
    """Nothing behind it counts as accepted."""
    whole = Run(llama, key, prompt=PROMPT, sampling=GREEDY, max_tokens=60)
    text, place = written(whole), 0
    for step in whole.steps:
        if len(step.path) > 1 and step.tokens[0] not in text[:place]:
            break
        place += len(step.tokens)
    else:
        pytest.fail("no path of two accepted nodes begins with a token that is new in the text")
    run = Run(llama, key, prompt=PROMPT, sampling=GREEDY, max_tokens=60, stop=text[place])
    assert written(run) == text[: place + 1]
    last = run.steps[-1]
    assert (last.tokens, last.origins, len(last.path)) == ((text[place],), ("accepted",), 1)
    assert [node.verdict for node in last.nodes].count("accepted") == 1 and last.ending == "stop token"


def test_drafters_know_the_ends_of_the_run(llama):
    """A draft goes on behind an end that is ignored, and not behind a stop."""
    family, end, free = ending_early(llama)
    tell = lambda **more: Run(family, "speculative_sampling", prompt=PROMPT, sampling=Sampling(1.0), seed=3, max_tokens=60, **more)  # noqa: E731
    behind = lambda run, token: [n for s in run for n in s.nodes if n.parent >= 0 and s.nodes[n.parent].token == token]  # noqa: E731
    assert not behind(tell(), end) and not behind(tell(stop=[free[3]]), free[3])
    assert any(behind(tell(ignore_end=True, stop=()), token) for token in (end, *free[:4]))


def test_a_stop_is_an_id_or_a_text_of_one_token(embedded):
    dot = embedded.tokenizer(".", add_special_tokens=False)["input_ids"]
    for stop in (".", ["."], dot, (".", *dot), read_stops("."), read_each([f"#{dot[0]}"])):
        run = Run(embedded, "plain", prompt="Once upon a time", sampling=GREEDY, max_tokens=60, stop=stop)
        assert written(run)[-1:] == dot and run.text.index(".") == len(run.text) - 1
        assert run.header.stop == tuple(dot) and run.trace.token_bytes[dot[0]] == b"."
    end = embedded.tokenizer.eos_token
    assert Run(embedded, "plain", prompt="a", stop=[end]).header.stop == tuple(embedded.target.ends)


def test_the_same_text_at_the_beginning_of_a_word_and_elsewhere():
    """Where a tokenizer puts a space before a text, the piece without it is meant too; and bytes that have a token alone."""
    encode, same = {".": [1], "a": [3], "\n": [0, 4]}.__getitem__, {b" .": [1], b".": [2], b" a": [3], b"\n": [4]}
    assert stop_ids([".", "a", "\n"], 6, encode, same) == (1, 2, 3, 4)


@pytest.mark.parametrize(
    "stop, said",
    [
        (["hello there."], "single tokens, and 'hello there.' is 5 tokens for this model (260, "),
        ([-1], "The stop token -1 does not exist; the target has 4,096"),
        ([4096], "The stop token 4096 does not exist"),
        ([True], "is an id or a text; one is True"),
        ([2.0], "is an id or a text; one is 2.0"),
        ([""], "has 1 to 100 characters; one has 0"),
        (["a" * 101], "has 1 to 100 characters; one has 101"),
        (1.5, "as a list of ids and texts; it is 1.5"),
        ({"a": 1}, "as a list of ids and texts"),
        (range(33), "at most 32 stop tokens; there are 33"),
    ],
)
def test_refused(embedded, stop, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        Run(embedded, "plain", prompt="a", stop=stop)


def test_the_switch_is_a_switch(embedded):
    with pytest.raises(ValueError, match="ignore_end must be True or False; it is 'no'"):
        Run(embedded, "plain", prompt="a", ignore_end="no")


@pytest.mark.parametrize("stop", ["\n", " ", "  a ", "\\n", "#3", 7, ".", "a#b", "\t\r", "\\"])
def test_written_and_read(stop):
    assert read_stops(write_stops([stop, 0])) == (stop, 0)


def test_blank_lines_say_nothing():
    assert read_stops("\n \n\r\n.\r\n") == (".",) and read_stops("") == () and checked_stops([3, 3]) == (3,)
    assert read_each(["\n"]) == ("\n",)  # as a shell can give it


def test_the_trace_says_it_and_old_ones_open(llama):
    run = Run(llama, "token_recycling", prompt=PROMPT, sampling=Sampling(1.0), seed=5, max_tokens=40, stop=[9], ignore_end=True)
    list(run)
    for trace in (decode_trace(encode(run.trace)), from_json(to_json(run.trace))):
        assert trace == run.trace and (trace.header.stop, trace.header.ignore_end) == ((9,), True)
    header = run.header
    again = Run(llama, header.method, header.params, header.prompt_tokens, Sampling(1.0), header.seed, header.max_tokens,
                stop=header.stop, ignore_end=header.ignore_end)  # fmt: skip
    assert again.header == header and written(again) == [token for step in run.steps for token in step.tokens]
    old = msgspec.msgpack.decode(encode(Run(llama, "plain", prompt="the cat").trace))
    for name in ("stop", "ignore_end"):
        del old["header"][name]
    assert decode_trace(msgspec.msgpack.encode(old)).header.stop == ()


def test_a_study_with_other_ends_is_another(llama, tmp_path):
    plan = Plan("llama", "token_recycling", (Prompt(PROMPT, "a"),), sampling=GREEDY, max_tokens=60)
    free = generated(llama, [])
    others = [replace(plan, stop=(free[11],)), replace(plan, ignore_end=True), replace(plan, stop=(free[11],), ignore_end=True)]
    assert len({one.key for one in (plan, *others)}) == 4
    assert Plan("f", "plain", ()).key == "0291cff396df09da", "a study that was kept before goes on"
    study = Study(llama, others[0], Store(tmp_path))
    list(study)
    (trace,) = (study.store.open(number) for number in study.kept.values())
    assert trace.steps[-1].ending == "stop token" and trace.header.stop == (free[11],)


def test_an_evaluation_with_other_ends_has_rows_of_its_own(llama, tmp_path):
    rows, prompts = tmp_path / "rows.csv", {"cats": [Prompt(PROMPT, "cats")]}
    stop = generated(llama, [])[5]
    for ends in (evaluate.USUAL, evaluate.Ends((stop,)), evaluate.Ends((), True), evaluate.Ends((stop, 3), True)):
        assert not evaluate.evaluate(llama, ["plain"], 20, rows, ends.named(prompts), ends=ends)
    found = {row.domain: row.tokens for row in evaluate.read(rows) if row.temperature == 0}
    assert list(found) == ["cats", f"cats up to #{stop}", "cats past the end", f"cats past the end up to #{stop} or #3"]
    assert found[f"cats up to #{stop}"] <= 6 < found["cats"]


def test_a_draft_model_with_other_tokens_and_no_end(embedded):
    family = load("embedded", "embedded", device="cpu")
    run = Run(family, "universal_assisted", prompt="Once upon a time", sampling=GREEDY, max_tokens=40, ignore_end=True)
    assert written(run) == generated(family, [], "Once upon a time", 40)
