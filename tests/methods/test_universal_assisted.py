"""Universal assisted drafting: text passes between two models whose tokens have nothing to do with each other."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from decoding.drafting.reencoded import SOURCE, Reencoded
from decoding.methods import METHODS
from decoding.models.draft_tokens import OtherDraft
from decoding.models.family import Family, load
from decoding.models.spelling import Spelling
from decoding.models.target import Target
from decoding.runs.run import Run
from decoding.sample import Sampling
from decoding.verify import NotFinite
from tests.decoding.test_greedy_equality import generated
from tests.decoding.test_spelling import KINDS, byte_level
from tests.toys import causal_lm, cycle, letters, markov, quick, run_steps, save, tokens_of

KEY = "universal_assisted"
TEXTS = ("the cat sat on the mat and the", "caf\u00e9 \u20ac12 \U0001f600 hello", "a", "  two\n\n  \u2603")


def other_model(words, seed: int = 3, context: int = 160) -> Target:
    """A random llama for a tokenizer."""
    size = max(words.get_vocab().values()) + 1
    return quick(Target(causal_lm("llama", seed=seed, vocab_size=size), size, context, frozenset({words.eos_token_id})))


def syllables(*pieces: str) -> tuple[Target, PreTrainedTokenizerFast]:
    """A model that writes abcdabcd... in `pieces` of two letters where it can, and its tokenizer, which merges the same."""
    vocab = {piece: i for i, piece in enumerate([*"abcd", *pieces])}
    words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE(vocab, [(piece[0], piece[1]) for piece in pieces])))
    table = torch.full((len(vocab), len(vocab)), 1e-9)
    for piece, i in vocab.items():
        letter = "abcd"["dabc".index(piece[-1])]
        table[i, vocab[next((longer for longer in pieces if longer[0] == letter), letter)]] = 1.0
    return markov(table), words


def known_text() -> Family:
    """Target and draft model write abcdabcd..., one as ab, cd, the other as a, bc, d."""
    target, words = syllables("ab", "cd")
    draft, own = syllables("bc")
    return Family("toy", words, target, other_draft=OtherDraft(draft, own))


def test_a_draft_model_that_knows_the_text_is_always_right():
    family = known_text()
    ab, cd = 4, 5
    steps = run_steps(family, KEY, [ab, cd], max_tokens=40, length=6)
    assert tokens_of(steps) == [ab, cd] * 20
    assert steps[0].origins == ("accepted",) * 4 + ("bonus",), "a bc d a bc d"
    assert steps[1].origins == ("accepted",) * 3 + ("correction",), "c d a bc d a: the last letter is half of a token"
    assert all(node.verdict == "accepted" for step in steps for node in step.nodes[:-1])
    assert {(node.source, node.q) for step in steps for node in step.nodes} == {(SOURCE, None)}
    assert {step.draft_calls for step in steps} == {6}


def test_a_text_that_was_written_otherwise_goes_on_at_its_border():
    """The target wrote a and not ab: what follows begins in the middle of what its tokenizer would merge."""
    family = known_text()
    a, b, cd, ab = 0, 1, 5, 4
    drafter, _ = METHODS[KEY].build(family, METHODS[KEY].checked({"length": 3}), Sampling(0))
    assert drafter.propose([ab, cd, a], torch.Generator()).tokens == (b, cd, a)


@cache
def made(kind: str, seed: int) -> OtherDraft:
    """A random model and its tokenizer, which is of this kind."""
    words = KINDS[kind]()
    return OtherDraft(other_model(words, seed), words)


@cache
def written_alone(kind: str, prompt: str) -> list[int]:
    target = made(kind, 1)
    family = Family("toy", target.tokenizer, target.model)
    return tokens_of(list(Run(family, "plain", prompt=prompt, sampling=Sampling(0), max_tokens=30)))


@pytest.mark.parametrize("own", KINDS)
@pytest.mark.parametrize("kind", KINDS)
def test_greedy_runs_write_what_the_target_does_alone(kind, own):
    target = made(kind, 1)
    family = Family("toy", target.tokenizer, target.model, other_draft=made(own, 3))
    for prompt in TEXTS:
        run = Run(family, KEY, prompt=prompt, sampling=Sampling(0), max_tokens=30)
        assert tokens_of(list(run)) == written_alone(kind, prompt)
    list(Run(family, KEY, prompt=TEXTS[1], sampling=Sampling(1.0), max_tokens=30))


def test_its_cache_is_that_of_the_text(llama):
    """What the draft model writes with the rows it kept is what it writes from nothing."""
    words = byte_level()
    family = replace(llama, draft=None, other_draft=OtherDraft(other_model(words), words))
    kept, _ = METHODS[KEY].build(family, METHODS[KEY].params(), Sampling(1.0))
    run = Run(family, "plain", prompt="the cat sat", sampling=Sampling(1.0), max_tokens=40)
    tokens = list(run.header.prompt_tokens)
    for step in run:
        fresh, _ = METHODS[KEY].build(family, METHODS[KEY].params(), Sampling(1.0))
        assert kept.propose(tokens, torch.Generator()).tokens == fresh.propose(tokens, torch.Generator()).tokens
        assert kept.read == fresh.read and kept.cache.committed == len(kept.read)
        tokens += step.tokens


def test_with_the_tokens_of_the_target_it_is_a_greedy_chain(embedded):
    """Through text and back the draft model writes what it writes in speculative sampling at temperature 0."""
    prompt, greedy = "Once upon a time there was", Sampling(0)
    one, other = (Run(embedded, key, {"length": 4}, prompt, greedy, max_tokens=40) for key in (KEY, "speculative_sampling"))
    assert tokens_of(list(one)) == tokens_of(list(other)) == generated(embedded, prompt, 40)
    assert abs(len(one.steps) - len(other.steps)) <= 2


# -- ends and limits ---------------------------------------------------------------------------------------------------


def ending() -> Family:
    """Both write abcd and then that the text is over, each with an end of its own."""
    words, own = letters("abcde", eos_token="e"), letters("edcba", eos_token="e")
    draft = markov(torch.eye(5).roll(-1, 1).clamp(min=1e-9))  # 4 is a, 3 b, 2 c, 1 d, 0 the end
    other = OtherDraft(replace(draft, ends=frozenset({0})), own)
    return Family("toy", words, replace(cycle(5), ends=frozenset({4})), other_draft=other)


def test_the_end_of_a_draft_is_that_of_the_target():
    (step,) = run_steps(ending(), KEY, [0], length=8)
    assert step.tokens == (1, 2, 3, 4) and step.ending == "end of text" and len(step.nodes) == 4
    assert step.draft_calls == 4


def test_a_draft_model_that_ends_at_once_drafts_the_end_alone():
    (step,) = run_steps(ending(), KEY, [3], length=8)
    assert [node.token for node in step.nodes] == [4] and step.tokens == (4,)


@pytest.mark.parametrize("context", (1, 2, 3, 8, 20))
def test_a_short_context_of_the_draft_model_does_not_end_the_run(context):
    """It reads the end of the text, and never beyond its context."""
    family = known_text()
    furthest = []

    class Watched(Target):
        def forward(self, cache, ids, positions, visible=None, **more):
            furthest.extend(map(int, positions))
            return super().forward(cache, ids, positions, visible, **more)

    own = family.other_draft
    short = replace(family, other_draft=replace(own, model=Watched(own.model.model, own.model.vocab, context)))
    steps = run_steps(short, KEY, [4, 5] * 10, max_tokens=40)
    assert tokens_of(steps) == [4, 5] * 20
    assert max(furthest, default=0) < context and (context == 1) == (not furthest)
    assert context < 8 or len(steps) < 30


def test_a_draft_model_whose_numbers_are_not_finite_stops_the_run():
    family = known_text()
    draft = family.other_draft
    spoilt = replace(draft.model, model=type(draft.model.model)(torch.full((5, 5), torch.nan)))
    with pytest.raises(NotFinite) as caught:
        run_steps(replace(family, other_draft=replace(draft, model=spoilt)), KEY, [4])
    assert caught.value.model == "drafter"


def test_a_prompt_without_text():
    """Special tokens alone, which the draft model does not know: nothing is drafted until there is a text."""
    words = letters("abcde", bos_token="e")
    family = Family("toy", words, cycle(5), other_draft=OtherDraft(cycle(4), letters("abcd")))
    steps = run_steps(family, KEY, [4], max_tokens=4)
    assert steps[0].nodes == () and tokens_of(steps) == [0, 1, 2, 3] and steps[1].nodes


def test_half_a_character_is_finished_first():
    """The target writes a euro sign byte by byte; the draft model has it whole."""
    words = byte_level(258)
    euro = Spelling(words).encode("\u20ac")
    own = letters("\u20ac!")
    drafter = Reencoded(markov(torch.full((258, 258), 1.0)), Spelling(words), OtherDraft(cycle(2), own), 2)
    (mark,) = Spelling(words).encode("!")
    before = Spelling(words).encode("!")
    for i in range(3):
        draft = drafter.propose([*before, *euro[:i]], torch.Generator())
        assert draft.tokens == (*euro[i:], mark)
    other = drafter.propose([*before, *Spelling(words).encode("\u2603")[:2]], torch.Generator())
    assert len(other) == 0 and other.calls == 2, "the character that was begun is another one"


def test_a_family_from_folders(tmp_path, folders):
    words = byte_level()
    save(tmp_path, causal_lm("gpt2", vocab_size=len(words)), words)
    family = load(folders("llama"), str(tmp_path), device="cpu")
    assert family.draft is None and "re-encodes" in family.notes[0]
    run = Run(family, KEY, prompt="the cat sat", sampling=Sampling(0), max_tokens=30)
    assert tokens_of(list(run)) == generated(family, "the cat sat", 30)
    assert {node.source for step in run.trace.steps for node in step.nodes} == {SOURCE}
