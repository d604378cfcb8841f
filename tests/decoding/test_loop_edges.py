"""Where a run could slip: nothing accepted, all accepted, ends inside an accepted path, limits, seeds, bad input."""

import math
from collections.abc import Sequence
from dataclasses import replace

import msgspec
import pytest
import torch

from decoding.draft import Draft, chain
from decoding.loop import decode
from decoding.method import Drafter
from decoding.methods import METHODS
from decoding.models.cache import TreeCache
from decoding.models.family import Family
from decoding.models.requirements import DraftModel
from decoding.models.target import Target
from decoding.runs.run import Run
from decoding.sample import Sampling
from decoding.trace import Times
from decoding.verify import match
from tests.toys import GREEDY, SAME_TEXT, VOCAB, greedy_text, markov, run_steps, tokens_of, toy_family, with_draft

PROMPT = (7, 70, 170, 7, 70)
KEYS = list(METHODS)
CLOSE = 1e-4


class Oracle(Drafter):
    """Knows the text that will be written and drafts the next `length` tokens of it, as a chain."""

    def __init__(self, text: Sequence[int], start: int, length: int = 4) -> None:
        self.text, self.start, self.length = text, start, length

    def propose(self, tokens, rng) -> Draft:
        done = len(tokens) - self.start
        return chain(self.text[done : done + self.length], "oracle")


def oracle_steps(target: Target, text: Sequence[int], length: int = 4, max_tokens: int = 40, prompt=PROMPT):
    drafter, rng = Oracle(text, len(prompt), length), torch.Generator().manual_seed(0)
    return list(decode(target, drafter, match, prompt, sampling=GREEDY, rng=rng, max_tokens=max_tokens))


@pytest.fixture(scope="module")
def text(llama) -> list[int]:
    """What the llama writes behind PROMPT, greedily."""
    return greedy_text(llama.target, PROMPT, 60)


def watched(family: Family, key: str, **options) -> float:
    """Run a method and return by how much any logits it relied on differ from a fresh pass over the same text.

    Compared are the target's row after the root, which rests on the kept cache alone, and the draft model's first q.
    """
    method, sampling = METHODS[key], options.pop("sampling", GREEDY)
    drafter, accept = method.build(family, method.checked(options.pop("params", {})), sampling)
    seen = []

    def spy(draft, output, u):
        seen.append((draft, output.logits[0]))
        return accept(draft, output, u)

    rng, tokens, worst = torch.Generator().manual_seed(0), list(PROMPT), 0.0
    for step in decode(family.target, drafter, spy, PROMPT, sampling=sampling, rng=rng, max_tokens=16, **options):
        draft, logits = seen.pop()
        worst = max(worst, (family.target.extend(TreeCache(), tokens)[0] - logits).abs().max().item())
        if method.requires(DraftModel) and draft.q is not None:
            fresh = drafter.sampling.probabilities(family.draft.extend(TreeCache(), tokens))
            worst = max(worst, (fresh - draft.q[:1]).abs().max().item())
        tokens += step.tokens
    return worst


# -- nothing and everything accepted -----------------------------------------------------------------------------------


def test_nothing_accepted_is_one_token_per_step():
    """Target and draft model share no token: every step corrects."""
    even, odd = torch.tensor([0.0, 0.5] * 3), torch.tensor([0.5, 0.0] * 3)
    family = toy_family(markov(odd.repeat(6, 1)), markov(even.repeat(6, 1)))
    for key in ("speculative_sampling", "multi_candidate"):
        steps = run_steps(family, key, [0], sampling=Sampling(1.0), max_tokens=20)
        assert [step.origins for step in steps] == [("correction",)] * 20
        assert all(token % 2 == 0 for token in tokens_of(steps))
        assert all("accepted" not in [node.verdict for node in step.nodes] for step in steps)


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(1.0)])
def test_all_accepted_where_the_draft_model_is_the_target(llama, sampling):
    twins = replace(llama, draft=llama.target)
    steps = run_steps(twins, "speculative_sampling", PROMPT, sampling=sampling, max_tokens=60, length=4)
    assert len(steps) == 12 and all(step.origins == ("accepted",) * 4 + ("bonus",) for step in steps)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("sampling", [GREEDY, Sampling(1.0)], ids=["greedy", "T=1"])
@pytest.mark.parametrize("noise", [0.0, 0.05, 2.0], ids=["all accepted", "some", "hardly any"])
def test_kept_caches_stay_those_of_the_text(llama, key, sampling, noise):
    if noise != 0.05 and not METHODS[key].requires(DraftModel):
        pytest.skip("the draft model does not matter")
    assert watched(with_draft(llama, noise), key, sampling=sampling) < CLOSE


@pytest.mark.parametrize("accepted", range(5))
def test_rejected_at_every_place_of_the_draft(llama, text, accepted):
    """The draft is right for `accepted` tokens and then wrong; the text does not change."""
    drafts = [list(text[i : i + 4]) for i in range(0, 60)]
    for draft in drafts:
        if accepted < len(draft):
            draft[accepted] = (draft[accepted] + 1) % VOCAB

    class Wrong(Drafter):
        def propose(self, tokens, rng):
            return chain(drafts[len(tokens) - len(PROMPT)], "wrong")

    rng = torch.Generator().manual_seed(0)
    steps = list(decode(llama.target, Wrong(), match, PROMPT, sampling=GREEDY, rng=rng, max_tokens=40))
    assert tokens_of(steps) == text[:40]
    assert {len(step.path) for step in steps[:-1]} == {accepted}


# -- ends --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0, 1, 2, 3, 4, 7])
def test_end_of_text_inside_the_accepted_path(llama, text, place):
    """Wherever the end token falls, at any depth of the first or second draft, nothing follows it."""
    end = text[place]
    first = text.index(end)
    target = replace(llama.target, ends=frozenset({end}))
    steps = oracle_steps(target, text)
    assert tokens_of(steps) == text[: first + 1]
    assert [step.ending for step in steps] == [""] * (len(steps) - 1) + ["end of text"]
    last = steps[-1]
    assert len(last.path) <= len(last.tokens) == len(last.origins)
    assert [last.nodes[i].token for i in last.path] == list(last.tokens[: len(last.path)])


@pytest.mark.parametrize("key", KEYS)
def test_every_method_ends_at_the_end_token(llama, text, key):
    for end in dict.fromkeys(text[3:9]):
        family = replace(llama, target=replace(llama.target, ends=frozenset({end})))
        family = replace(family, draft=replace(llama.draft, ends=frozenset({end})))
        steps = run_steps(family, key, PROMPT, **SAME_TEXT.get(key, {}))
        assert tokens_of(steps) == text[: text.index(end) + 1] and steps[-1].ending == "end of text"


@pytest.mark.parametrize("limit", range(1, 12))
def test_token_limit_inside_the_accepted_path(llama, text, limit):
    steps = oracle_steps(llama.target, text, max_tokens=limit)
    assert tokens_of(steps) == text[:limit]
    assert len(steps) == -(-limit // 5)  # five tokens a step
    assert [step.ending for step in steps] == [""] * (len(steps) - 1) + ["token limit"]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("limit", [1, 2, 7])
def test_every_method_stops_at_the_token_limit(llama, text, key, limit):
    steps = run_steps(llama, key, PROMPT, max_tokens=limit, **SAME_TEXT.get(key, {}))
    assert tokens_of(steps) == text[:limit] and steps[-1].ending == "token limit"


class Positions(Target):
    """Remembers the furthest position that was read."""

    furthest = -1

    def forward(self, cache, ids, positions, visible=None, **more):
        object.__setattr__(self, "furthest", max(self.furthest, *map(int, positions)))
        return super().forward(cache, ids, positions, visible, **more)


def short(target: Target, context: int) -> Positions:
    return Positions(target.model, target.vocab, context, target.ends)


CONTEXTS = [(12, 40), (len(PROMPT) + 1, 40), (12, 12), (40, 12), (12, 11)]  # of the target, of the draft model
DRAFTED = [key for key in KEYS if any(one.part == "draft" for one in METHODS[key].requirements)]


@pytest.mark.parametrize(
    "key, context, other", [(key, *sizes) for key in KEYS for sizes in (CONTEXTS if key in DRAFTED else CONTEXTS[:2])]
)
def test_context_limit(llama, text, key, context, other):
    """The text ends exactly where the shorter context is full, and no position beyond is ever read."""
    family = replace(llama, target=short(llama.target, context), draft=short(llama.draft, other))
    limit = min(context, other) if METHODS[key].requires(DraftModel) else context
    steps = run_steps(family, key, PROMPT, **SAME_TEXT.get(key, {}))
    written = tokens_of(steps)
    whose = " of the draft model" if limit < context else ""
    assert written == text[: limit - len(PROMPT)] and steps[-1].ending == f"context limit{whose}"
    assert family.target.furthest < context and family.draft.furthest < other


def test_oracle_up_to_the_context_limit(llama, text):
    for context in range(6, 16):
        target = short(llama.target, context)
        steps = oracle_steps(target, text)
        assert len(PROMPT) + len(tokens_of(steps)) == context and steps[-1].ending == "context limit"
        assert target.furthest < context


@pytest.mark.parametrize("key", KEYS)
def test_prompt_of_one_token(llama, key):
    steps = run_steps(llama, key, [7], max_tokens=20, **SAME_TEXT.get(key, {}))
    assert tokens_of(steps) == greedy_text(llama.target, [7], 20)


# -- seeds and recording -----------------------------------------------------------------------------------------------


def timeless(run: Run):
    """The whole trace of a run, without its times."""
    list(run)
    steps = tuple(msgspec.structs.replace(step, times=Times(0, 0, 0, 0)) for step in run.trace.steps)
    return msgspec.structs.replace(run.trace, steps=steps)


@pytest.mark.parametrize("key", KEYS)
def test_same_seed_same_trace_and_other_seeds_differ(llama, key):
    def trace(seed: int):
        return timeless(Run(llama, key, prompt="the cat and the cat", sampling=Sampling(1.0), seed=seed, max_tokens=16))

    first, other, again = (trace(seed) for seed in (0, 1, 0))
    assert msgspec.msgpack.encode(first) == msgspec.msgpack.encode(again)
    assert first.text_bytes() != other.text_bytes()


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("sampling", [GREEDY, Sampling(1.0)], ids=["greedy", "T=1"])
def test_recording_changes_nothing(llama, key, sampling):
    pairs = [run_steps(llama, key, PROMPT, sampling=sampling, recorded=recorded, max_tokens=16) for recorded in (True, False)]
    for full, bare in zip(*pairs, strict=True):
        assert (full.tokens, full.nodes, full.path) == (bare.tokens, bare.nodes, bare.path)
        assert full.rows and not bare.rows


def test_stopping_between_two_steps_costs_nothing(llama):
    """A page may take one step now and the next one later, and run another text in between."""
    runs = (Run(llama, "token_recycling", prompt="the cat", sampling=GREEDY, max_tokens=20) for _ in range(2))
    for one, other in zip(*runs, strict=True):
        assert one.tokens == other.tokens


# -- refused -----------------------------------------------------------------------------------------------------------

REFUSED = {
    "empty prompt": ({"prompt": "  \n"}, "prompt is empty"),
    "too long for the context": ({"prompt": "x y " * 200}, "the context holds 160"),
    "too long to read": ({"prompt": "x" * 100_001}, "100,001 characters"),
    "unknown method": ({"method": "magic"}, "no method 'magic'"),
    "unknown parameter": ({"params": {"lenght": 3}}, "no parameter 'lenght'; it has length"),
    "parameter out of range": ({"params": {"length": 33}}, "between 1 and 32; it is 33"),
    "parameter of another kind": ({"params": {"length": 2.5}}, "of kind int; it is 2.5"),
    "a bool for a number": ({"params": {"length": True}}, "of kind int; it is True"),
    "a text for a number": ({"params": {"length": "4"}}, "of kind int; it is '4'"),
    "a choice that is not there": ({"method": "multi_candidate", "params": {"shape": "9-9"}}, "it is '9-9'"),
    "no tokens": ({"max_tokens": 0}, "it is 0"),
    "too many tokens": ({"max_tokens": 5000}, "it is 5000"),
    "negative seed": ({"seed": -1}, "it is -1"),
    "a token that is not there": ({"prompt": (1, 10**6)}, "the token 1000000"),
    "no token at all": ({"prompt": ()}, "no tokens"),
    "tokens too many for the context": ({"prompt": (1,) * 160}, "160 tokens"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_the_value_in_the_sentence(llama, case):
    options, words = REFUSED[case]
    with pytest.raises(ValueError) as caught:
        Run(llama, **({"method": "speculative_sampling", "prompt": "the cat"} | options))
    assert words in str(caught.value)


def test_tokens_are_a_prompt_as_well(llama):
    """The same text as tokens is the same run, and the trace says it in words."""
    run = Run(llama, "plain", prompt="the cat", max_tokens=8)
    steps = list(run)
    again = Run(llama, "plain", prompt=run.header.prompt_tokens, max_tokens=8)
    assert [step.tokens for step in again] == [step.tokens for step in steps]
    assert again.header.prompt_tokens == run.header.prompt_tokens and again.header.prompt.endswith("the cat")


def test_not_a_number_is_refused():
    with pytest.raises(ValueError, match="it is nan"):
        Sampling(temperature=math.nan)


def test_a_prompt_that_just_fits(llama, tokenizer):
    """context - 1 tokens leave room for one; one more is refused."""
    prompt = "?" * 159
    assert len(tokenizer(prompt)["input_ids"]) == llama.target.context - 1
    for key in KEYS:
        (step,) = Run(llama, key, prompt=prompt, sampling=GREEDY)
        assert len(step.tokens) == 1 and step.ending == "context limit"
    with pytest.raises(ValueError, match="160 tokens; the context holds 160"):
        Run(llama, "plain", prompt=prompt + "?")


def test_a_prompt_that_the_draft_model_has_no_room_for(llama):
    """It is said whose context is too short."""
    family = replace(llama, draft=replace(llama.draft, context=20))
    for prompt in ("?" * 30, [5] * 30):
        with pytest.raises(ValueError, match="the context of the draft model holds 20 and"):
            Run(family, "speculative_sampling", prompt=prompt)
        assert next(Run(family, "plain", prompt=prompt, max_tokens=1)).ending == "token limit"


@pytest.mark.parametrize("key", [key for key in KEYS if METHODS[key].requires(DraftModel)])
def test_a_method_that_needs_a_draft_model_says_so(llama, key):
    with pytest.raises(ValueError, match="needs a draft model"):
        Run(replace(llama, draft=None), key, prompt="the cat")
