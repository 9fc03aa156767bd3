"""Pixels to tokens by one matrix product."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from umt.layers.patch_embed import PatchEmbed


@settings(max_examples=15, deadline=None)
@given(
    tubelet=st.integers(1, 3),
    patch=st.integers(1, 4),
    grid=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)),
)
def test_the_product_is_the_convolution_of_its_weight(tubelet: int, patch: int, grid: tuple[int, int, int]) -> None:
    embed = PatchEmbed(8, patch, tubelet)
    video = torch.randn(2, 3, grid[0] * tubelet, grid[1] * patch, grid[2] * patch)
    expected = F.conv3d(video, embed.proj.weight, embed.proj.bias, stride=embed.size).flatten(2).transpose(1, 2)
    torch.testing.assert_close(embed(video), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 3, 4, 8, 12), (2, 3, 2, 4, 4)])
def test_visible_tokens_are_those_of_the_whole_clip(shape: tuple[int, ...]) -> None:
    embed = PatchEmbed(8, 4, 2)
    video = torch.randn(shape)
    every = embed(video)
    visible = torch.stack([torch.randperm(every.shape[1])[:2].sort().values for _ in range(2)])
    expected = every.gather(1, visible[..., None].expand(-1, -1, 8))
    torch.testing.assert_close(embed(video, visible), expected)


def test_pixels_of_hidden_tokens_are_never_read() -> None:
    embed = PatchEmbed(8, 4)
    video = torch.full((1, 3, 1, 8, 8), float("nan"))
    video[..., :4, 4:] = 1.0
    assert embed(video, torch.tensor([[1]])).isfinite().all()
