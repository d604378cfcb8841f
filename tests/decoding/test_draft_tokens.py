"""Draft models whose tokens are nearly those of the target, or others: what is shared, what is masked, what is said of it."""

from dataclasses import replace

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from decoding.methods import METHODS
from decoding.models.cache import TreeCache
from decoding.models.draft_tokens import SharedDraft, in_target_ids, pieces, stand_in
from decoding.models.family import Family, load
from decoding.models.requirements import DraftModel
from decoding.runs.run import Run
from decoding.sample import Sampling
from tests.decoding.test_verify_exact import EXACT, distinct, emitted, independent
from tests.toys import END, VOCAB, causal_lm, letters, markov, noisy, run_steps, save, tiny_target, tokenizer, tokens_of, with_exits

PROMPT = "the cat sat on the<|tool|>mat and the dog sat on the"
DRAFTED = [key for key, method in METHODS.items() if method.requires(DraftModel)]
TOOL = VOCAB  # the target's token that the draft model does not have


def with_tokens(*added: str) -> PreTrainedTokenizerFast:
    """The toy tokenizer with more tokens behind the others."""
    whole = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(tokenizer().backend_tokenizer.to_str()))
    whole.add_special_tokens({"bos_token": END, "eos_token": END})
    whole.add_tokens(list(added), special_tokens=True)
    return whole


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> tuple[str, str]:
    """Folders of a target and of a draft model: the same pieces, other added tokens, another padding; the same weights but for some
    noise."""
    target, draft = tmp_path_factory.mktemp("target"), tmp_path_factory.mktemp("draft")
    model = causal_lm("llama", vocab_size=VOCAB + 3)
    small = noisy(model, 0.05)
    small.resize_token_embeddings(VOCAB + 24, mean_resizing=False)
    save(target, model, with_tokens("<|tool|>"))
    save(draft, small, with_tokens("<|think|>", "<|image|>"))
    return str(target), str(draft)


@pytest.fixture(scope="module")
def family(pair) -> Family:
    return load(*pair, device="cpu")


def test_it_drafts_in_the_ids_of_the_target(family):
    assert isinstance(family.draft, SharedDraft) and family.other_draft is None
    assert (family.draft.vocab, family.draft.unused, family.draft.ends) == (family.target.vocab, (TOOL,), family.target.ends)
    (note,) = family.notes
    assert "differs from the target's in 2 of 281 entries" in note and note.endswith(".")


def test_q_is_a_distribution_over_the_tokens_of_the_target(family):
    """Zero where nothing is shared; elsewhere what the draft model itself says, with what it does not have read as a space."""
    tokens = family.tokenizer(PROMPT)["input_ids"]
    assert TOOL in tokens
    drafter, _ = METHODS["speculative_sampling"].build(family, METHODS["speculative_sampling"].params(), Sampling(1.0))
    drafter.begin(tokens, None)
    q = drafter.propose(tokens, torch.Generator().manual_seed(0)).q
    assert q.shape[1] == family.target.vocab == TOOL + 1 and not q[:, TOOL].any()
    torch.testing.assert_close(q.sum(1), torch.ones(len(q)))
    (space,) = family.tokenizer(" ", add_special_tokens=False)["input_ids"]
    own = torch.tensor([[space if token == TOOL else token for token in tokens]])
    with torch.inference_mode():
        logits = family.draft.model(own).logits[0, -1]
    torch.testing.assert_close(q[0, :TOOL], logits[:TOOL].softmax(-1))


@pytest.mark.parametrize("key", DRAFTED)
def test_every_method_writes_greedily_what_the_target_does_alone(family, key):
    plain = tokens_of(list(Run(family, "plain", prompt=PROMPT, sampling=Sampling(0), max_tokens=40)))
    run = Run(family, key, prompt=PROMPT, sampling=Sampling(0), max_tokens=40)
    assert tokens_of(list(run)) == plain
    assert len(run.steps) < len(plain) / 1.3, "a dead drafter is lossless too"


@pytest.mark.parametrize("key", DRAFTED)
def test_every_method_runs_with_sampling_and_keeps_its_caches(family, key):
    for sampling in (Sampling(1.0), Sampling(0.7, top_k=20, top_p=0.9)):
        run = Run(family, key, prompt=PROMPT, sampling=sampling, max_tokens=30)
        for step in run:
            assert all(node.q is None or node.token != TOOL for node in step.nodes)
        assert run.ended


def test_a_sorted_draft_with_nearly_the_same_tokens(pair, family):
    """S2D reads its draft model layer by layer, past the door of the others."""
    draft = with_exits(replace(family.draft, model=noisy(family.draft.model, 0.0)), (1, 2))
    sorted_family = replace(family, draft=draft)
    plain = tokens_of(list(Run(family, "plain", prompt=PROMPT, sampling=Sampling(0), max_tokens=30)))
    run = Run(sorted_family, "s2d", {"first": 1.0}, PROMPT, Sampling(0), max_tokens=30)
    assert tokens_of(list(run)) == plain and len(run.steps) < 24
    for step in Run(sorted_family, "s2d", prompt=PROMPT, sampling=Sampling(1.0), max_tokens=30):
        assert all(node.token != TOOL for node in step.nodes)


@pytest.mark.parametrize("drafts", [independent, distinct])
def test_the_target_keeps_its_law_exactly(drafts):
    """Every draft of the masked q, every side of every uniform, in float64: also of a token that the draft model cannot draft."""
    words, own = letters("abcde"), letters("abxdyz")
    target, draft = tiny_target(0, 5), tiny_target(1, 6)
    shared = in_target_ids(target, pieces(words), draft, pieces(own), own)
    p = target.extend(TreeCache(), [0, 1])[0].double().softmax(-1)
    q = shared.extend(TreeCache(), [0, 1])[0].double().softmax(-1)
    assert q[[2, 4]].tolist() == [0, 0] and q.sum().item() == pytest.approx(1)
    assert (emitted(drafts(q, 2), p)[0] - p).abs().max() < EXACT


def test_a_smaller_draft_model_is_padded():
    """The target has more tokens than the draft model scores."""
    words, own = letters("abcdef"), letters("abcd")
    draft = markov(torch.full((4, 4), 0.25))
    shared = in_target_ids(tiny_target(0, 6), pieces(words), draft, pieces(own), own)
    assert shared.extend(TreeCache(), [5, 4, 1])[0].softmax(-1).tolist() == [0.25] * 4 + [0.0] * 2


def test_a_run_behind_tokens_that_the_draft_model_lacks():
    """Every prompt, also one of such tokens alone."""
    words, own = letters("abcdef"), letters("abcd")
    target = markov(torch.eye(6).roll(1, 1).clamp(min=1e-9))  # e follows d
    shared = in_target_ids(target, pieces(words), markov(torch.eye(4).roll(1, 1).clamp(min=1e-9)), pieces(own), own)
    steps = run_steps(Family("toy", words, target, shared), "speculative_sampling", [4], max_tokens=12)
    assert tokens_of(steps) == [(5 + i) % 6 for i in range(12)] and any(step.path for step in steps)


def test_what_is_read_in_place_of_an_unknown_token():
    assert stand_in(letters("ab?", unk_token="?"), {0: "a", 1: "b", 2: "?"}) == 2
    assert stand_in(letters("ab "), {0: "a", 1: "b", 2: " "}) == 2
    assert stand_in(letters("ab"), {0: "a", 1: "b"}) == 0
    ends = letters("ab? ", unk_token="?", eos_token="?")  # as GPT-2: it would say that the text is over
    assert stand_in(ends, pieces(ends)) == 3


# -- others altogether -------------------------------------------------------------------------------------------------


def test_another_tokenizer_is_kept_beside_the_family(folders):
    family = load(folders("llama"), "embedded", device="cpu")
    assert family.draft is None and family.other_draft.model.vocab == 4096
    (note,) = family.notes
    assert "(280 against 4,096)" in note and "'embedded'" in note and "Universal assisted drafting" in note
    for key in DRAFTED:
        sentence = METHODS[key].missing(family)
        assert METHODS[key].title in sentence and "another tokenizer" in sentence and sentence.endswith(".")
        with pytest.raises(ValueError, match="another tokenizer"):
            Run(family, key, prompt="the cat")
    assert METHODS["universal_assisted"].missing(family) == ""
    assert METHODS["universal_assisted"].parameters(family) == family.other_draft.model.model.num_parameters()


def test_tokens_that_do_not_spell_their_text_are_refused(tmp_path, folders):
    words = [END, "[UNK]", "the", "cat", "sat", "on", "mat"]
    bare = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "[UNK]"))
    bare.pre_tokenizer = pre_tokenizers.Whitespace()  # the spaces are lost
    own = PreTrainedTokenizerFast(tokenizer_object=bare, eos_token=END, unk_token="[UNK]")
    save(tmp_path, causal_lm("llama", vocab_size=len(words)), own)
    with pytest.raises(ValueError, match=r"entries differ \(280 against 7\), and its text cannot be re-encoded: .* draft model"):
        load(folders("llama"), str(tmp_path), device="cpu")
