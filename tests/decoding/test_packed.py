"""The head of a model in blocks: the same logits, taken only where it pays, and left aside when the weights change."""

from types import SimpleNamespace

import pytest
import torch

from decoding.models import packed, short_way
from decoding.models.cache import TreeCache
from decoding.models.family_cache import bytes_of
from decoding.models.target import Target
from tests.decoding.test_plain_forward import SHAPES, both, model_of, same, text
from tests.toys import CONTEXT, VOCAB


@pytest.fixture(autouse=True)
def tiny_heads_count(monkeypatch):
    monkeypatch.setattr(packed, "LEAST", 0)
    monkeypatch.setattr(packed, "PAYS", float("inf"))


def packed_pair(shape: str) -> tuple[Target, Target]:
    slow, quick = both(shape)
    assert quick.plain is not None
    quick.plain.pack()
    assert quick.plain.blocks is not None
    return slow, quick


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rows", [1, 2, 6, 33])
def test_logits_are_those_of_transformers(shape, rows):
    same([target.extend_with_hidden(TreeCache(), text(rows), (1,), every_row=True) for target in packed_pair(shape)])


@pytest.mark.parametrize("shape", [(5,), (2, 3), ()])
def test_states_of_any_shape_are_scored(shape):
    slow, quick = packed_pair("llama")
    states = torch.randn(*shape, slow.model.config.hidden_size)
    found = quick.score(states)
    assert found.shape == (*shape, VOCAB)
    assert torch.allclose(found, slow.score(states), atol=1e-4)


def test_a_gradient_passes_through_the_head():
    _, quick = packed_pair("llama")
    states = torch.randn(4, quick.model.config.hidden_size, requires_grad=True)
    quick.score(states).square().sum().backward()
    assert states.grad is not None and states.grad.abs().sum() > 0


def test_a_step_of_training_leaves_the_copy_aside():
    slow, quick = packed_pair("llama")
    for target in (slow, quick):
        optimizer = torch.optim.SGD(target.model.parameters(), lr=0.5)
        target.model(torch.tensor([text(12)]), labels=torch.tensor([text(12)])).loss.backward()
        optimizer.step()
    same([target.extend_with_hidden(TreeCache(), text(9), (1,), every_row=True) for target in (slow, quick)])


def test_what_does_not_pay_is_not_there_twice(monkeypatch):
    monkeypatch.setattr(packed, "PAYS", 0.0)
    assert packed.packed(torch.randn(64, 256)) is None


@pytest.mark.parametrize(
    "limits",
    [{"LEAST": 2**16 + 1}, {"MOST": 2**16 - 1}, {"memory": SimpleNamespace(free=lambda: 4 * 2**16 - 1)}],
    ids=["small", "large", "no room"],
)
def test_what_is_too_small_too_large_or_does_not_fit_is_left_as_it_is(limits, monkeypatch):
    matrix = torch.randn(64, 256)  # 2**16 bytes
    assert packed.packed(matrix) is not None
    for name, value in limits.items():
        monkeypatch.setattr(packed, name, value)
    assert packed.packed(matrix) is None
    assert packed.packed(torch.randn(64, 256, dtype=torch.float64)) is None


def test_a_library_that_has_changed_costs_the_speed_alone(monkeypatch):
    monkeypatch.setattr(packed, "in_blocks", lambda by: torch.ops.mkldnn.no_such_operator(by))
    assert packed.packed(torch.randn(64, 256)) is None


def test_loading_says_what_it_costs_and_it_is_counted():
    model = model_of("llama")
    target, notes = short_way.shortened(Target(model, VOCAB, CONTEXT), "some/folder/tiny", "off")
    assert target.plain is not None and target.plain.blocks is not None
    assert len(notes) == 1 and "'tiny'" in notes[0] and "some/folder" not in notes[0]
    family = SimpleNamespace(target=target, draft=None, other_draft=None)
    assert bytes_of(family) == sum(values.nbytes for values in model.parameters()) + model.lm_head.weight.nbytes


def test_blocks_that_give_other_logits_are_not_used(monkeypatch):
    monkeypatch.setattr(packed, "multiplied", lambda rows, blocks, bias: torch.zeros(len(rows), VOCAB))
    target, notes = short_way.shortened(Target(model_of("llama"), VOCAB, CONTEXT), "tiny", "off")
    assert target.plain is not None and target.plain.blocks is None
    assert "differs by" in notes[0]
