"""Attention maps are those of the fused attention, and rollout is the product that its paper writes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from umt.errors import ConfigError
from umt.layers.attention import Attention, merge_heads, split_heads
from umt.models import Student, VisionTransformer, create_model
from umt.models.vit.rollout import (
    attention_weights,
    block_attentions,
    class_maps,
    mean_attention,
    received,
    rollout,
)


@pytest.fixture
def attention() -> Attention:
    torch.manual_seed(0)
    made = Attention(16, 4)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.5)
    return made.eval()


def test_every_row_of_attention_sums_to_one(attention: Attention) -> None:
    weights = attention_weights(attention, torch.randn(2, 9, 16))
    assert weights.shape == (2, 4, 9, 9)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 9))


def test_attention_times_values_is_the_output_of_the_fused_attention(attention: Attention) -> None:
    x = torch.randn(2, 9, 16)
    bias = torch.cat((attention.q_bias, torch.zeros(16), attention.v_bias))
    _, _, v = split_heads(nn.functional.linear(x, attention.qkv.weight, bias), 4)
    out = attention.proj(merge_heads(attention_weights(attention, x) @ v))
    torch.testing.assert_close(out, attention(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("chunk", [1, 500, 1 << 28])
def test_the_mean_over_heads_does_not_depend_on_how_many_queries_go_at_once(attention: Attention, chunk: int) -> None:
    x = torch.randn(2, 9, 16)
    mean = mean_attention(attention, x, chunk=chunk)
    torch.testing.assert_close(mean, attention_weights(attention, x).mean(1))


def test_rollout_is_the_mean_row_of_the_product_of_half_attention_and_half_identity() -> None:
    attentions = [torch.rand(2, 5, 5).softmax(-1) for _ in range(3)]
    product = torch.eye(5).expand(2, 5, 5)
    for one in attentions:  # layer i times what came before it
        product = (0.5 * one + 0.5 * torch.eye(5)) @ product
    torch.testing.assert_close(rollout(attentions), product.mean(1))
    torch.testing.assert_close(rollout(attentions).sum(-1), torch.ones(2))


def test_without_attention_every_token_counts_the_same() -> None:
    torch.testing.assert_close(rollout([torch.rand(1, 4, 4)], residual=1.0), torch.full((1, 4), 0.25))


def test_without_residual_one_layer_is_what_each_token_receives() -> None:
    one = torch.rand(2, 5, 5).softmax(-1)
    torch.testing.assert_close(rollout([one], residual=0.0), received(one))


@pytest.mark.parametrize("name", ["vit_tiny_patch8_48", "pretrain_umt_tiny_patch8_48"])
def test_each_block_of_a_model_gives_its_attention_and_keeps_no_hook(name: str) -> None:
    model = create_model(name, num_frames=2).eval()
    video = torch.randn(1, 3, 2, 48, 48)
    assert isinstance(model, VisionTransformer | Student)
    blocks = list(model.blocks if isinstance(model, VisionTransformer) else model.encoder.blocks)
    taken = block_attentions(blocks, lambda: model.forward_features(video))
    assert [tuple(one.shape) for one in taken] == [(1, 72, 72)] * 4
    for one in taken:
        torch.testing.assert_close(one.sum(-1), torch.ones(1, 72))
    assert not any(block.attn._forward_pre_hooks for block in blocks)


def test_the_first_blocks_attention_is_that_of_its_normed_input() -> None:
    model = create_model("vit_tiny_patch8_48", num_frames=2).eval()
    video = torch.randn(1, 3, 2, 48, 48)
    taken = block_attentions(list(model.blocks), lambda: model(video))
    with torch.no_grad():
        x = model.patch_embed(video) + model.pos_embed
        expected = attention_weights(model.blocks[0].attn, model.blocks[0].norm1(x)).mean(1)
    torch.testing.assert_close(taken[0], expected)


def test_blocks_of_another_library_are_refused() -> None:
    block = nn.Module()
    block.attn = nn.Identity()
    with pytest.raises(ConfigError, match="whose attn is umt's Attention"):
        block_attentions([block], lambda: None)


def test_class_maps_of_a_linear_head_sum_to_its_logits() -> None:
    head = nn.Linear(8, 3, bias=False)
    tokens = torch.randn(2, 6, 8)
    maps = class_maps(tokens, lambda x: head(x.mean(1)), [2, 0])
    assert maps.shape == (2, 2, 6)
    torch.testing.assert_close(maps.sum(-1), head(tokens.mean(1))[:, [2, 0]].detach())
