"""Every row of a tree pass is what a plain pass over the node's own path would say; after `keep` as well.

The same comparison must notice a tree that is read wrongly, or it proves nothing.
"""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from decoding.draft import EMPTY, Draft, chain
from decoding.models.cache import TreeCache
from decoding.models.self_test import CONTEXTS, check_tree_reading, tree_error
from decoding.models.target import Target
from decoding.sample import Sampling
from tests.toys import ARCHITECTURES, ATTENTIONS, CONTEXT, VOCAB, causal_lm

CLOSE = 1e-4
NODES = 12


def target_of(kind: str, attention: str = "sdpa") -> Target:
    return Target(causal_lm(kind, attention=attention), VOCAB, CONTEXT)


def random_text(length: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, VOCAB, length).tolist()


def random_tree(seed: int, n: int = NODES) -> Draft:
    rng = np.random.default_rng(seed)
    parents = tuple(int(rng.integers(-1, i)) if i else -1 for i in range(n))
    return Draft(tuple(rng.integers(0, VOCAB, n).tolist()), parents, source=("test",) * n)


def plain(target: Target, tokens: Sequence[int]) -> torch.Tensor:
    """(vocab,) logits after `tokens`, from a pass without mask, position ids or cache."""
    with torch.inference_mode():
        return target.model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1, : target.vocab]


def read(target: Target, tokens: Sequence[int], draft: Draft) -> tuple[TreeCache, torch.Tensor]:
    cache = TreeCache()
    if len(tokens) > 1:
        target.extend(cache, tokens[:-1])
    return cache, target.read(cache, tokens, draft, Sampling()).logits


def worst_row(target: Target, tokens: list[int], draft: Draft) -> float:
    """Largest difference between the tree pass and the plain passes over root and nodes."""
    _, rows = read(target, tokens, draft)
    texts = [tokens + [draft.tokens[i] for i in draft.path_to(node)] for node in range(-1, len(draft))]
    return max((rows[i] - plain(target, text)).abs().max().item() for i, text in enumerate(texts))


def deepest(draft: Draft) -> tuple[int, ...]:
    return draft.path_to(int(draft.depths.argmax()))


def after_keep(target: Target, tokens: list[int], draft: Draft, rows: Sequence[int], path: Sequence[int]) -> float:
    """Difference of the next token's logits, after `rows` of the cache were kept, from a plain pass over `path`."""
    cache, _ = read(target, tokens, draft)
    cache.keep(rows)
    text = [*tokens, *(draft.tokens[node] for node in path), 3]
    assert cache.length == cache.committed == len(tokens) + len(path)
    return (target.extend(cache, [3])[0] - plain(target, text)).abs().max().item()


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_tree_equals_paths(kind, attention):
    target = target_of(kind, attention)
    for context in (1, 9, 40):
        tokens, draft = random_text(context), random_tree(context)
        path = deepest(draft)
        assert worst_row(target, tokens, draft) < CLOSE
        assert after_keep(target, tokens, draft, [0, *(node + 1 for node in path)], path) < CLOSE
        assert after_keep(target, tokens, draft, [0], ()) < CLOSE


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_sibling_blindness(kind, attention):
    """Another token at one node changes the rows of this node and its descendants, and no others."""
    target, tokens, draft = target_of(kind, attention), random_text(9), random_tree(2)
    _, before = read(target, tokens, draft)
    for node in (0, 3, NODES - 1):
        other = list(draft.tokens)
        other[node] = (other[node] + 1) % VOCAB
        _, rows = read(target, tokens, Draft(tuple(other), draft.parents, source=draft.source))
        changed = (rows - before).abs().amax(1) > 1e-5
        assert changed.tolist() == draft.visible[:, node + 1].tolist()


def test_chain_and_empty_draft(llama):
    target, tokens = llama.target, random_text(9)
    assert worst_row(target, tokens, chain(random_text(5, seed=1), "test")) < CLOSE
    assert worst_row(target, tokens, EMPTY) < CLOSE


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_fifty_steps_of_random_keeps(kind):
    """The kept cache stays the cache of the text, step after step, past a growth of its buffers."""
    target = target_of(kind)
    target = Target(causal_lm(kind, max_position_embeddings=600), VOCAB, 600)
    rng, tokens, cache = np.random.default_rng(0), random_text(200), TreeCache()
    target.extend(cache, tokens[:-1])
    for step in range(50):
        draft = random_tree(step)
        root = target.read(cache, tokens, draft, Sampling()).logits[0]
        if step % 7 == 0 or step == 49:
            assert (root - plain(target, tokens)).abs().max() < CLOSE
        path = draft.path_to(int(rng.integers(-1, NODES)))
        cache.keep([0, *(node + 1 for node in path)])
        tokens += [*(draft.tokens[node] for node in path), int(rng.integers(VOCAB))]
        assert cache.length == cache.committed == len(tokens) - 1
    assert len(tokens) > 256  # rows of the first buffer


# -- broken on purpose -------------------------------------------------------------------------------------------------


class PositionsByIndex(Target):
    def forward(self, cache, ids, positions, visible=None, **more):
        return super().forward(cache, ids, range(cache.length, cache.length + len(ids)), visible, **more)


class NoMask(Target):
    def mask(self, rows, before, visible):
        return None


class Causal(Target):
    def mask(self, rows, before, visible):
        return super().mask(rows, before, None)


class BoolMask(Target):
    def mask(self, rows, before, visible):
        mask = super().mask(rows, before, visible)
        return None if mask is None else mask == 0


FAULTS = [(attention, fault) for attention in ATTENTIONS for fault in (PositionsByIndex, NoMask, Causal)]


@pytest.mark.parametrize("attention, fault", [*FAULTS, ("eager", BoolMask)])
def test_a_tree_that_is_read_wrongly_is_noticed(attention, fault):
    """By the comparison above, and by the self-test that every model takes at load."""
    broken = fault(causal_lm("llama", attention=attention), VOCAB, CONTEXT)
    assert worst_row(broken, random_text(9), random_tree(9)) > 0.5
    assert tree_error(broken, 9) > 0.05


class NotANumber(Target):
    """One row of a tree is broken, and only behind the longer context, as when half precision overflows."""

    def forward(self, cache, ids, positions, visible=None, **more):
        logits, hidden = super().forward(cache, ids, positions, visible, **more)
        logits = logits.clone()
        if cache.length > CONTEXTS[1]:
            logits[5:6] = float("nan")
        return logits, hidden


def test_the_self_test_notices_a_row_that_is_not_a_number():
    with pytest.raises(ValueError, match="reads a draft tree wrongly"):
        check_tree_reading(NotANumber(causal_lm("llama"), VOCAB, CONTEXT), "broken")


@pytest.mark.parametrize("rows", [[0, 1, 3], [0, 2, 3], [1, 1, 2], [1, 2, 3]])
def test_keeping_a_wrong_path_is_noticed(llama, rows):
    """Not a mere change of order: keys carry their positions, so attention does not see in which order they stand."""
    tokens = random_text(9)
    draft = chain(random_text(3, seed=1), "test")
    assert after_keep(llama.target, tokens, draft, [0, 1, 2], (0, 1)) < CLOSE
    assert after_keep(llama.target, tokens, draft, rows, (0, 1)) > 1e-2


def test_keep_may_overlap_itself(llama):
    """Rows 0, 2, 3, 4 move one place to the front, over each other."""
    draft = Draft((5, 6, 7, 8), (-1, -1, 1, 2), source=("test",) * 4)
    assert after_keep(llama.target, random_text(9), draft, [0, 2, 3, 4], (1, 2, 3)) < CLOSE


# -- what Target promises besides --------------------------------------------------------------------------------------


def test_a_long_prompt_is_read_in_parts(monkeypatch, llama):
    tokens = random_text(60)
    whole = llama.target.extend(TreeCache(), tokens, every_row=True)
    monkeypatch.setattr("decoding.models.target.PREFILL_ROWS", 7)
    parts = llama.target.extend(TreeCache(), tokens, every_row=True)
    assert parts.shape == (60, VOCAB) and (whole - parts).abs().max() < CLOSE
    assert (llama.target.extend(TreeCache(), tokens)[0] - whole[-1]).abs().max() < CLOSE


def test_logits_of_a_padded_embedding_are_cut_off():
    model = causal_lm("llama")
    tokens = random_text(9)
    rows = [read(Target(model, vocab, CONTEXT), [t % 200 for t in tokens], EMPTY)[1] for vocab in (VOCAB, 200)]
    assert rows[1].shape == (1, 200) and torch.equal(rows[0][:, :200], rows[1])


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_taps_are_the_outputs_of_the_layers(kind):
    target, tokens, draft = target_of(kind), random_text(9), random_tree(0)
    cache = TreeCache()
    target.extend(cache, tokens[:-1])
    hidden = target.read(cache, tokens, draft, Sampling(), aux_hidden_layers=(0, 1, 2)).hidden
    text = tokens + [draft.tokens[i] for i in draft.path_to(NODES - 1)]
    with torch.inference_mode():
        plainly = target.model(input_ids=torch.tensor([text]), output_hidden_states=True).hidden_states
    assert set(hidden) == {0, 1, 2}
    for layer, rows in hidden.items():
        assert rows.shape == (NODES + 1, 32)
        assert (rows[NODES] - plainly[layer][0, -1]).abs().max() < CLOSE
