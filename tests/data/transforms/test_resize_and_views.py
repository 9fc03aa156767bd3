"""Validation and testing: pixels, crops and views equal to those of the original."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from umt.data.transforms.normalize import normalize
from umt.data.transforms.pipelines import EvalTransform, TestTransform
from umt.data.transforms.resize import crop_offsets, flip, resize_short_side, short_side_shape
from umt.errors import ConfigError


def normalized(frames: np.ndarray) -> np.ndarray:
    """(T, H, W, 3) uint8 -> (3, T, H, W) float32."""
    return normalize(torch.from_numpy(np.ascontiguousarray(frames)).permute(3, 0, 1, 2)).numpy()


def assert_sum(frames: np.ndarray, row: dict) -> None:
    values = normalized(frames)
    assert list(values.shape) == row["shape"]
    assert values.sum(dtype=np.float64) == pytest.approx(row["sum"], rel=1e-6)
    if "abs_sum" in row:
        assert np.abs(values).sum(dtype=np.float64) == pytest.approx(row["abs_sum"], rel=1e-6)


def test_resized_frames_equal_the_originals(clip, golden_pixels) -> None:
    frames = resize_short_side(clip, 64)
    np.testing.assert_array_equal(frames[[0, 7]], golden_pixels["resize64_uint8_frames0_7"])


def test_validation_clips_equal_the_originals(clip, image_space, golden_pixels) -> None:
    whole, central = EvalTransform(64, 64)(clip), EvalTransform(64, 56)(clip)
    assert_sum(whole, image_space["val_s64_c64"])
    assert_sum(central, image_space["val_s64_c56"])
    np.testing.assert_allclose(normalized(whole)[:, [0, 7]], golden_pixels["val_s64_c64_frames0_7"], atol=1e-6)
    np.testing.assert_allclose(normalized(central)[:, 3], golden_pixels["val_s64_c56_frame3"], atol=1e-6)


def test_test_crops_equal_the_originals(clip, image_space, golden_pixels) -> None:
    for view, frames in enumerate(TestTransform(64, 3)(clip)):
        assert_sum(frames, image_space[f"test_s64_crops3_view{view}"])
        expected = golden_pixels[f"test_s64_crops3_view{view}_frame2"]
        np.testing.assert_allclose(normalized(frames)[:, 2], expected, atol=1e-6)


def test_places_of_test_crops_equal_the_originals(views) -> None:
    for view in views:
        shape = short_side_shape(view["H"], view["W"], view["short_side"])
        assert list(shape) == view["resized"], view
        places = crop_offsets(*shape, view["short_side"], view["test_num_crop"])
        expected = [crop[:2] for crop in view["crops_top_left_h_w"]]
        assert [list(place) for place in places] == expected, view


def test_crops_are_views_of_frames_resized_once(clip) -> None:
    crops = TestTransform(64, 3)(clip)
    assert all(np.shares_memory(crops[0], crop) for crop in crops[1:])


def test_a_clip_that_has_the_size_already_is_not_touched(clip) -> None:
    assert resize_short_side(clip, 72) is clip


@settings(deadline=None)
@given(st.integers(8, 60), st.integers(8, 60), st.integers(1, 6), st.integers(0, 3))
def test_test_crops_lie_in_the_frame_and_reach_both_ends(height: int, width: int, crops: int, slack: int) -> None:
    size = min(height, width) - slack
    places = crop_offsets(height, width, size, crops)
    assert len(places) == crops
    assert all(0 <= top <= height - size and 0 <= left <= width - size for top, left in places)
    if crops > 1:
        assert max(places[-1]) >= max(height, width) - size
        assert 0 in places[0]


@pytest.mark.parametrize("make", [lambda: EvalTransform(64, 96), lambda: TestTransform(64, 3, input_size=96)])
def test_an_input_larger_than_the_short_side_is_refused(make) -> None:
    with pytest.raises(ConfigError, match=r"--input_size \(96\) must not exceed --short_side_size \(64\)"):
        make()


def test_a_test_without_crops_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--test_num_crop \(0\) must be at least 1"):
        TestTransform(64, 0)


def test_an_input_smaller_than_the_short_side_is_cut_at_input_size(clip) -> None:
    (only,) = TestTransform(64, 1, input_size=56)(clip)
    whole = resize_short_side(clip, 64)
    np.testing.assert_array_equal(only, whole[:, 4:60, 14:70])


def test_flip_mirrors_left_and_right(clip) -> None:
    np.testing.assert_array_equal(flip(clip), clip[:, :, ::-1])


def test_normalisation_is_exact_in_float32() -> None:
    values = torch.arange(256, dtype=torch.uint8).repeat(3, 1).view(1, 3, 1, 16, 16)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1, 1)
    assert torch.equal(normalize(values), (values / 255 - mean) / std)


def test_floats_are_not_normalised_twice() -> None:
    with pytest.raises(TypeError, match="normalize takes uint8 frames"):
        normalize(torch.zeros(1, 3, 1, 4, 4))
