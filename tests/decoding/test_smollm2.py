"""The real instruct model: every method that serves it writes what plain greedy decoding writes, and its drafters are worth it."""

from collections.abc import Callable
from functools import cache

import pytest
import torch

from decoding.methods import METHODS
from decoding.models import heads
from decoding.runs.evaluate import CHAT_PROMPTS
from decoding.runs.run import Run
from decoding.sample import Sampling

ASKED = tuple(prompts[i] for prompts in CHAT_PROMPTS.values() for i in (0, 1))  # two of each kind
SHIPPED = {"speculative_sampling": 1.3, "eagle": 1.7, "medusa": 1.2}  # method -> least tokens per target call
SHIPPED |= {"s2d": 1.25, "specdec_pp": 1.2, "kangaroo": 1.1, "clover": 1.3, "chimera": 1.3, "falcon": 1.2, "ppd": 1.1}
OTHERS = [method for method in METHODS if method not in SHIPPED]
TOKENS, LONGER = 8, 16  # of a run; of one that says what a drafter is worth
GREEDY = Sampling(temperature=0)


def asking(question: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}]


def written(family, method: str, question: str, tokens: int = TOKENS) -> Run:
    run = Run(family, method, prompt=asking(question), sampling=GREEDY, max_tokens=tokens)
    for _ in run:
        pass
    return run


def tokens_of(run: Run) -> list[int]:
    return [token for step in run.trace.steps for token in step.tokens]


@pytest.fixture(scope="module")
def plain(smollm2) -> Callable[[str], list[int]]:
    """question -> what `transformers` generates greedily behind it."""

    @cache
    def generated(question: str) -> list[int]:
        _, ids = smollm2.encode_chat(Run(smollm2, "plain", prompt=asking(question)).header.messages, {}, 8192)
        options = {"do_sample": False, "pad_token_id": 0, "attention_mask": torch.ones(1, len(ids))}
        with torch.inference_mode():
            out = smollm2.target.model.generate(torch.tensor([ids]), max_new_tokens=LONGER, **options)
        return out[0, len(ids) :].tolist()

    return generated


def same_text(run: Run, expected: list[int], tokens: int, ends: frozenset[int]) -> bool:
    found = tokens_of(run)
    return found == expected[: len(found)] and (len(found) == tokens or found[-1] in ends)


@pytest.mark.parametrize("method", OTHERS)
def test_every_method_writes_what_plain_greedy_decoding_writes(smollm2, plain, method):
    """Two questions each, in turn, so that all are asked; those that ship for it write more, further down."""
    if reason := METHODS[method].missing(smollm2):
        pytest.skip(reason)
    if not METHODS[method].lossless_with({}, True):
        pytest.skip(f"{METHODS.title(method)} does not promise it")
    for i in range(2):
        question = ASKED[(OTHERS.index(method) + 3 * i) % len(ASKED)]
        assert same_text(written(smollm2, method, question), plain(question), TOKENS, smollm2.target.ends), question


def test_its_answers_make_sense(smollm2):
    assert "rain" in written(smollm2, "plain", ASKED[0], 32).trace.answer
    assert "def reverse" in written(smollm2, "eagle", "Write a Python function that reverses a string.", 32).trace.answer


def test_a_chat_goes_on_behind_an_answer(smollm2):
    """The second turn is read behind the first and its answer, by a drafter as by plain decoding."""
    first = written(smollm2, "eagle", "Tell me about bees in one sentence.", 24)
    turns = [*asking("Tell me about bees in one sentence."), {"role": "assistant", "content": first.trace.answer}]
    second, plain = (
        Run(smollm2, method, prompt=[*turns, *asking("Say it again.")], sampling=GREEDY, max_tokens=16)
        for method in ("eagle", "plain")
    )
    assert [token for step in second for token in step.tokens] == [token for step in plain for token in step.tokens]
    assert first.trace.answer.strip() in second.header.prompt and "bee" in second.trace.answer.lower()
    assert [message.role for message in second.header.messages] == ["user", "assistant", "user"]


@pytest.mark.parametrize("method", SHIPPED)
def test_what_ships_for_it_is_worth_its_place(smollm2, plain, method):
    """Tokens per target call over a question of each kind, and they are those of plain greedy decoding."""
    runs = {question: written(smollm2, method, question, LONGER) for question in ASKED[::2]}
    for question, run in runs.items():
        assert same_text(run, plain(question), LONGER, smollm2.target.ends), question
    calls = sum(len(run.trace.steps) for run in runs.values())
    assert sum(len(tokens_of(run)) for run in runs.values()) / calls > SHIPPED[method]


def test_what_ships_for_it_is_small():
    folder = heads.SHIPPED / "smollm2"
    sizes = [file.stat().st_size for file in folder.rglob("*") if file.is_file()]
    assert sum(sizes) < 70_000_000 and max(sizes) < 25_000_000
