"""Frame indices against those of the original, and what must hold for a video of any length."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umt.data import sampling
from umt.errors import VideoError

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/umt/sampling.json").read_text())
SUPPORT = GOLDEN["random_support"]


def numbers(key: str) -> list[int]:
    return [int(part) for part in key.split("/")]


@pytest.mark.parametrize(
    ("table", "function"),
    [
        ("sparse_test", sampling.sparse_test),
        ("sparse_val", sampling.sparse_val),
        ("ssv2_val", sampling.ssv2_val),
        ("ssv2_raw_test", sampling.ssv2_test),
        ("ssv2_raw_val", sampling.ssv2_frames_val),
    ],
)
def test_indices_equal_the_originals(table: str, function: Callable) -> None:
    for key, expected in GOLDEN[table].items():
        assert function(*numbers(key)).tolist() == expected, key


def test_one_and_two_ssv2_clips_equal_the_originals() -> None:
    """With one clip the original takes the first of its two; more than two it cannot cut."""
    for key, row in GOLDEN["ssv2_test"].items():
        length, frames, clips = numbers(key)
        if clips <= 2:
            assert sampling.ssv2_test(length, frames, clips).tolist() == row["clips"], key


@settings(deadline=None)
@given(st.integers(1, 400), st.integers(1, 32), st.integers(1, 10))
def test_any_number_of_ssv2_clips_follows_the_formula(length: int, frames: int, clips: int) -> None:
    expected = [[int(length / frames * (x + c / clips)) for x in range(frames)] for c in range(clips)]
    assert sampling.ssv2_test(length, frames, clips).tolist() == expected


def test_several_dense_test_clips_equal_the_originals() -> None:
    for key, expected in GOLDEN["dense_test"].items():
        if numbers(key)[-1] > 1:
            assert sampling.dense_test(*numbers(key)).tolist() == expected, key


@settings(deadline=None)
@given(st.integers(33, 400))
def test_a_single_dense_test_clip_is_the_centre(length: int) -> None:
    (clip,) = sampling.dense_test(length, 8, 4, 1)
    assert clip.tolist() == list(range((length - 32) // 2, (length - 32) // 2 + 32, 4))


def test_dense_validation_equals_the_originals_where_that_lies_within_the_video() -> None:
    for key, expected in GOLDEN["dense_val"].items():
        if min(expected) >= 0:
            assert sampling.dense_val(*numbers(key)).tolist() == expected, key


def test_dense_validation_is_the_centre_window_where_the_original_has_negative_indices() -> None:
    defects = [numbers(key) for key, row in GOLDEN["dense_val"].items() if min(row) < 0]
    assert defects
    for length, frames, stride in defects:
        clip = sampling.dense_val(length, frames, stride)
        assert clip[0] == (length - frames * stride) // 2
        assert clip[-1] == clip[0] + frames * stride - 1


def test_short_dense_videos_equal_the_originals() -> None:
    rng = np.random.default_rng(0)
    for key, expected in GOLDEN["dense_train_short"].items():
        assert sampling.dense_train(*numbers(key), rng).tolist() == expected, key


def observe(function: Callable, key: str, draws: int) -> np.ndarray:
    """Clips from a fixed seed; with this many draws, a frame that can be drawn is missed with chance below 1e-8."""
    rng = np.random.default_rng(0)
    return np.stack([function(*numbers(key), rng) for _ in range(draws)])


def assert_frames_reached(clips: np.ndarray, row: dict, key: str) -> None:
    for i, (low, high) in enumerate(zip(row["min"], row["max"], strict=True)):
        assert np.unique(clips[:, i]).tolist() == list(range(low, high + 1)), key


def test_sparse_training_reaches_exactly_the_originals_frames() -> None:
    for key, row in SUPPORT["sparse_train"].items():
        assert_frames_reached(observe(sampling.sparse_train, key, 1200), row, key)


@pytest.mark.parametrize("law", ["pretrain_sparse", "ssv2_train"])
def test_segment_training_reaches_exactly_the_originals_frames(law: str) -> None:
    for key, row in SUPPORT[law].items():
        length, frames = numbers(key)
        if length >= frames:
            assert_frames_reached(observe(sampling.segments_train, key, 1200), row, key)


@pytest.mark.parametrize("law", ["pretrain_sparse", "ssv2_train"])
def test_a_video_shorter_than_the_clip_repeats_its_frames_evenly(law: str) -> None:
    """The original shows frame 0 only."""
    for key in SUPPORT[law]:
        length, frames = numbers(key)
        if length < frames:
            counts = np.bincount(sampling.segments_train(length, frames, np.random.default_rng(0)), minlength=length)
            assert counts.size == length, key
            assert counts.max() - counts.min() <= 1, key


def test_dense_training_starts_where_the_original_can() -> None:
    for key, row in SUPPORT["dense_train"].items():
        clips = observe(sampling.dense_train, key, 6000)
        assert clips.min(0).tolist() == row["min"], key
        assert clips.max(0).tolist() == row["max"], key
        assert np.unique(clips[:, 0]).size == row["n_start"], key


def test_dense_pretraining_starts_where_the_original_can() -> None:
    """Starts 0..n_start - 1; the recorded maximum is what was seen there, which may miss the last start."""
    for key, row in SUPPORT["pretrain_dense"].items():
        clips = observe(sampling.pretrain_dense, key, 6000 if row["n_start"] > 1 else 2)
        assert np.unique(clips[:, 0]).tolist() == list(range(row["n_start"])), key
        assert clips.min(0).tolist() == row["observed_min"], key
        assert (clips - clips[:, :1] == np.subtract(row["observed_max"], row["observed_max"][0])).all(), key


CLIPS: list[Callable[[int, int, int, int, np.random.Generator], np.ndarray]] = [
    lambda length, n, r, s, rng: sampling.sparse_train(length, n, rng),
    lambda length, n, r, s, rng: sampling.sparse_val(length, n),
    lambda length, n, r, s, rng: sampling.sparse_test(length, n, s),
    lambda length, n, r, s, rng: sampling.segments_train(length, n, rng),
    lambda length, n, r, s, rng: sampling.ssv2_val(length, n),
    lambda length, n, r, s, rng: sampling.ssv2_test(length, n, s),
    lambda length, n, r, s, rng: sampling.ssv2_frames_val(length, n),
    lambda length, n, r, s, rng: sampling.dense_train(length, n, r, rng),
    lambda length, n, r, s, rng: sampling.dense_val(length, n, r),
    lambda length, n, r, s, rng: sampling.dense_test(length, n, r, s),
    lambda length, n, r, s, rng: sampling.pretrain_dense(length, n, r, rng),
    lambda length, n, r, s, rng: sampling.spread(length, n),
]


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 1000), st.integers(1, 64), st.integers(1, 16), st.integers(1, 12), st.integers(0, 2**32))
def test_every_clip_lies_in_the_video_in_order(length: int, frames: int, stride: int, clips: int, seed: int) -> None:
    for sample in CLIPS:
        indices = sample(length, frames, stride, clips, np.random.default_rng(seed))
        assert indices.shape in {(frames,), (clips, frames)}
        assert indices.dtype == np.int64
        assert indices.min() >= 0
        assert indices.max() < length
        assert (np.diff(indices, axis=-1) >= 0).all()


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 64))
def test_spread_shows_each_frame_equally_often(length: int, frames: int) -> None:
    counts = np.bincount(sampling.spread(length, frames), minlength=length)
    assert counts.max() - counts.min() <= 1


def test_a_video_without_frames_is_refused() -> None:
    with pytest.raises(VideoError, match="a video of 0 frames has none to sample"):
        sampling.sparse_val(0, 8)
