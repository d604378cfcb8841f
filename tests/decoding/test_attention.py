"""The attention that heads share: equal to the layer of `transformers`, whole and piece by piece, for texts and for trees."""

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding

from decoding.models.attention import Block, Memory, Sizes, causal
from decoding.models.target import Target
from tests.toys import CONTEXT, VOCAB, causal_lm


def layers(**more) -> tuple[LlamaDecoderLayer, Block, LlamaRotaryEmbedding]:
    """The same random weights in both; more: of the config."""
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 40} | more
    config = LlamaConfig(attn_implementation="sdpa", **sizes)
    torch.manual_seed(0)
    theirs, ours = LlamaDecoderLayer(config, 0).eval(), Block(config).eval()
    for values in theirs.parameters():
        values.data = torch.randn(values.shape) * 0.3
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours, LlamaRotaryEmbedding(config)


@pytest.mark.parametrize("more", [{}, {"num_key_value_heads": 4}, {"attention_bias": True}, {"head_dim": 16}])
@torch.inference_mode()
def test_a_block_is_a_llama_layer(more):
    theirs, ours, rotary = layers(**more)
    rows, positions = torch.randn(2, 7, 32), torch.arange(7)[None]
    wanted = theirs(rows, position_ids=positions, position_embeddings=rotary(rows, positions))
    found = ours(rows, positions, *ours.keys_values(rows, positions))
    assert (found - wanted).abs().max() < 1e-4 and wanted.abs().max() > 0.1


@torch.inference_mode()
def test_text_in_parts_and_a_tree_behind_it():
    """Committed in two parts, a tree of two branches written behind: every row is that of its path alone."""
    _, ours, _ = layers()
    text, nodes = torch.randn(1, 6, 32), torch.randn(1, 4, 32)
    parents = [-1, -1, 0, 2]
    memory = Memory()
    for start, stop in ((0, 2), (2, 6)):
        part, positions = text[:, start:stop], torch.arange(start, stop)[None]
        keys, values = memory.commit(*ours.keys_values(part, positions))
        ours(part, positions, keys, values, causal(stop - start, start, part.device))
    found = []
    for first, last in ((0, 2), (2, 3), (3, 4)):
        depth = torch.tensor([[6, 6, 7, 8][first:last]])
        part = nodes[:, first:last]
        *seen, visible = memory.grow(*ours.keys_values(part, depth), torch.tensor(parents[first:last]))
        found.append(ours(part, depth, *seen, visible))
    found = torch.cat(found, 1)[0]
    for node, path in enumerate(((0,), (1,), (0, 2), (0, 2, 3))):
        rows = torch.cat((text, nodes[:, list(path)]), 1)
        positions = torch.arange(rows.shape[1])[None]
        alone = ours(rows, positions, *ours.keys_values(rows, positions))[0, -1]
        assert (found[node] - alone).abs().max() < 1e-4
    memory.drop()
    assert memory.layer.length == memory.committed == 6


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen3", "phi"])
def test_sizes_of_any_target(kind):
    sizes = Sizes.of(Target(causal_lm(kind), VOCAB, CONTEXT))
    assert sizes.width == 32 and sizes.config.hidden_size == 32 and Block(sizes.config)


@pytest.mark.parametrize("wrong", [{"width": 0}, {"heads": 5}, {"mlp": 2**21}, {"theta": -1.0}, {"width": 32.0}, {"eps": "1"}])
def test_sizes_that_cannot_be(wrong):
    with pytest.raises(ValueError, match="cannot be|do not divide"):
        Sizes(**({"width": 32, "heads": 4, "mlp": 40} | wrong))


@pytest.mark.parametrize("kind, limit", [(torch.float16, 2e-3), (torch.bfloat16, 1e-2)])
def test_positions_are_exact_in_half_precision(kind, limit):
    """A module brought to half precision whole: its frequencies must not be."""
    torch.manual_seed(0)
    block, rows, positions = Block(Sizes(64, 2, 64).config), torch.randn(1, 3, 64), torch.tensor([[10, 500, 900]])
    with torch.inference_mode():
        keys = block.keys_values(rows, positions)[0]
        rounded = block.to("cpu", kind).keys_values(rows.to(kind), positions)[0]
    assert (rounded.float() - keys).norm() / keys.norm() < limit
