"""Visible tokens: exact counts, the exact law of the attention-guided draw, and what a mask may depend on."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from umt.data.masking import visible_count, visible_tokens
from umt.errors import ConfigError

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/umt/attention_mask.json").read_text())


def uniform(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def frequencies(visible: torch.Tensor, tokens: int) -> torch.Tensor:
    """(B, V) -> (T * N,), the share of clips in which each token is visible."""
    return torch.bincount(visible.flatten(), minlength=tokens) / visible.shape[0]


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["name"])
def test_attention_masks_have_the_law_of_a_weighted_draw_without_replacement(case: dict) -> None:
    """20000 clips; every token within 5 standard errors of its exact probability (chance of an unlucky seed: 1e-4)."""
    draws, weights = 20000, torch.tensor(case["attn"])
    frames, tokens = weights.shape
    visible = visible_tokens(
        "attention", case["mask_ratio"], uniform(draws, frames, tokens), weights.expand(draws, -1, -1)
    )
    assert visible.shape == (draws, frames * case["n_visible"])
    exact = torch.tensor(case["exact_visible_prob"]).flatten()
    error = (exact * (1 - exact) / draws).sqrt()
    assert ((frequencies(visible, frames * tokens) - exact).abs() <= 5 * error + 1e-6).all()


@pytest.mark.parametrize("kind", ["attention", "tube"])
def test_frames_keep_the_originals_number_of_tokens(kind: str) -> None:
    for key, expected in GOLDEN["n_visible_table"].items():
        tokens, ratio = int(key.split("/")[0]), float(key.split("/")[1])
        noise = uniform(1, 2, tokens)
        visible = visible_tokens(kind, ratio, noise, uniform(1, 2, tokens, seed=1))
        assert (visible < tokens).sum() == expected, key
        assert visible.shape == (1, 2 * expected) == (1, visible_count(kind, ratio, 2, tokens)), key


def test_tubes_keep_the_originals_number_of_tokens() -> None:
    for key, expected in GOLDEN["tube"]["n_visible_per_frame"].items():
        tokens, ratio = int(key.split("/")[0]), float(key.split("/")[1])
        assert visible_count("tube", ratio, 3, tokens) == 3 * expected, key


def test_random_masks_keep_the_originals_number_of_tokens_per_clip() -> None:
    for key, expected in GOLDEN["random"]["n_visible_total"].items():
        shape, ratio = key.split("/")
        frames, height, width = map(int, shape.split("x"))
        assert visible_tokens("random", float(ratio), uniform(1, frames, height * width)).shape == (1, expected), key


def test_a_tube_is_the_same_in_every_frame() -> None:
    frames = visible_tokens("tube", 0.75, uniform(5, 4, 16)).view(5, 4, 4) - torch.arange(4)[:, None] * 16
    assert (frames == frames[:, :1]).all()


@pytest.mark.parametrize("kind", ["tube", "random"])
def test_tube_and_random_masks_are_uniform(kind: str) -> None:
    draws = 20000
    share = frequencies(visible_tokens(kind, 0.75, uniform(draws, 2, 16)), 32)
    assert ((share - 0.25).abs() <= 5 * (0.25 * 0.75 / draws) ** 0.5).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.floats(0, 0.99), st.integers(0, 40), st.integers(0, 1000))
def test_zeros_and_ties_leave_the_count_exact(tokens: int, ratio: float, positive: int, seed: int) -> None:
    saliency = torch.zeros(2, 3, tokens)
    saliency[..., :positive] = 0.125
    visible = visible_tokens("attention", ratio, uniform(2, 3, tokens, seed=seed), saliency)
    per_frame = tokens - int(tokens * ratio)
    assert visible.dtype == torch.int64
    assert visible.shape == (2, 3 * per_frame)
    assert (visible.diff(dim=1) > 0).all()
    frames = torch.arange(3).repeat_interleave(per_frame)
    assert (visible // tokens == frames).all()


def test_a_token_without_saliency_is_visible_only_when_the_others_run_out() -> None:
    saliency = torch.zeros(500, 1, 10)
    saliency[..., [2, 7]] = torch.tensor([1.0, 1e-30])
    share = frequencies(visible_tokens("attention", 0.7, uniform(500, 1, 10), saliency), 10)
    assert share[2] == share[7] == 1
    assert (share[[0, 1, 3, 4, 5, 6, 8, 9]] > 0).all()


def test_noise_at_its_ends_is_survived() -> None:
    noise = torch.tensor([0.0, 1.0, 0.0, 1.0]).view(1, 1, 4)
    assert visible_tokens("attention", 0.5, noise, torch.ones(1, 1, 4)).shape == (1, 2)


def test_the_scale_of_a_row_changes_nothing() -> None:
    noise, saliency = uniform(8, 2, 49), uniform(8, 2, 49, seed=1)
    plain = visible_tokens("attention", 0.8, noise, saliency)
    assert torch.equal(plain, visible_tokens("attention", 0.8, noise, saliency / 64))


@pytest.mark.parametrize("kind", ["attention", "tube", "random"])
def test_a_clip_has_the_same_mask_in_any_batch(kind: str) -> None:
    noise, saliency = uniform(6, 2, 49), uniform(6, 2, 49, seed=1)
    whole = visible_tokens(kind, 0.8, noise, saliency)
    assert torch.equal(whole[4:5], visible_tokens(kind, 0.8, noise[4:5], saliency[4:5]))


def test_part_of_a_mask_name_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--mask_type \(att\) is not a mask. Choose one of attention, tube, random."):
        visible_tokens("att", 0.8, uniform(1, 1, 4))


def test_attention_without_a_teacher_is_refused() -> None:
    with pytest.raises(ConfigError, match="--mask_type attention needs the teacher's attention"):
        visible_tokens("attention", 0.8, uniform(1, 1, 4))


@pytest.mark.parametrize("ratio", [1.0, -0.1, 80])
def test_a_ratio_that_leaves_nothing_is_refused(ratio: float) -> None:
    with pytest.raises(ConfigError, match=r"--mask_ratio \(.*\) must be at least 0 and below 1"):
        visible_tokens("tube", ratio, uniform(1, 1, 4))


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["attention", "tube", "random"])
def test_masks_do_not_wait_for_the_gpu_and_equal_those_of_the_cpu(kind: str) -> None:
    noise, saliency = uniform(4, 8, 196), uniform(4, 8, 196, seed=1)
    on_gpu = noise.cuda(), saliency.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        visible = visible_tokens(kind, 0.8, *on_gpu)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(visible.cpu(), visible_tokens(kind, 0.8, noise, saliency))
