"""Pretraining: crop candidates and pixels equal to the original's, and what is drawn once per clip."""

import pickle
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from umt.data.transforms.color_jitter import color_jitter, enhance
from umt.data.transforms.multiscale import crop_and_resize, crop_places, crop_sizes
from umt.data.transforms.normalize import STD, normalize
from umt.data.transforms.pipelines import PretrainTransform


def test_candidate_crops_equal_the_originals(image_space) -> None:
    for row in image_space["pretrain_crop"]["candidates"]:
        sizes = crop_sizes(row["W"], row["H"], row["input_size"])
        assert [list(size) for size in sizes] == row["pairs_w_h"]
        for width, height in sizes:
            places = crop_places(row["W"], row["H"], width, height)
            assert [list(place) for place in places] == row["offsets_w_h_by_pair"][f"{width}x{height}"]


def test_cropped_and_resized_pixels_equal_the_originals(clip, image_space, golden_pixels) -> None:
    row = image_space["pretrain_0"]
    width, height = crop_sizes(96, 72, 64)[row["pair_index"]]
    left, top = crop_places(96, 72, width, height)[row["offset_index"]]
    frames = crop_and_resize(clip, left, top, width, height, 64)
    values = normalize(torch.from_numpy(frames).permute(3, 0, 1, 2))
    assert list(values.shape) == row["shape"]
    assert values.sum(dtype=torch.float64).item() == pytest.approx(row["sum"], rel=1e-4)
    levels = np.abs(values[:, 4].numpy() - golden_pixels["pretrain_0_frame4"]) * 255 * np.reshape(STD, (3, 1, 1))
    assert levels.max() < 1.01
    assert (levels > 0.01).mean() <= 0.03


def by_pil(frames: np.ndarray, left: int, top: int, width: int, height: int, size: int) -> np.ndarray:
    images = [Image.fromarray(frame).crop((left, top, left + width, top + height)) for frame in frames]
    return np.stack([np.asarray(image.resize((size, size), Image.Resampling.BILINEAR)) for image in images])


def test_pixels_beside_the_crop_do_not_leak_into_it(clip) -> None:
    np.testing.assert_array_equal(crop_and_resize(clip, 24, 12, 54, 54, 27), by_pil(clip, 24, 12, 54, 54, 27))


@settings(deadline=None, max_examples=60)
@given(st.integers(8, 96), st.integers(8, 72), st.integers(8, 80), st.integers(0, 10**6))
def test_resized_pixels_differ_from_pils_at_ties_alone(width: int, height: int, size: int, seed: int) -> None:
    """Two roundings, one along each side: a level each, at most, and no drift. Noise is the worst that can come.

    On average sizes; a few ratios, such as 9 x 18 to 8 x 8, have ties in a third of their sums, and both go up.
    """
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (2, 72, 96, 3), dtype=np.uint8)
    left, top = int(rng.integers(0, 97 - width)), int(rng.integers(0, 73 - height))
    box = left, top, width, height, size
    levels = crop_and_resize(frames, *box).astype(int) - by_pil(frames, *box)
    assert np.abs(levels).max() <= 2


@pytest.mark.parametrize(("width", "height"), [(256, 256), (256, 224), (224, 192), (192, 192), (168, 192), (168, 168)])
def test_crops_of_kinetics_frames_differ_from_pils_by_a_level_on_few_pixels(width: int, height: int) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 256, 340, 3), dtype=np.uint8)
    box = 7, 0, width, height, 224
    levels = crop_and_resize(frames, *box).astype(int) - by_pil(frames, *box)
    assert (levels != 0).mean() <= 0.09
    assert (np.abs(levels) > 1).mean() <= 0.0001
    assert abs(levels.mean()) <= 0.01  # they do not drift


def test_every_candidate_is_drawn_equally_often(clip) -> None:
    """2600 draws of 10 sizes x 13 places; each size and each place within 5 standard errors of its share."""
    height, width = 40, 52
    frames = np.zeros((1, height, width, 3), np.uint8)
    frames[..., 0], frames[..., 1] = np.arange(height)[:, None] * 6, np.arange(width) * 4
    boxes = [(*p, *s) for s in crop_sizes(width, height, 8) for p in crop_places(width, height, *s)]
    outcome = {}
    for left, top, w, h in boxes:
        outcome.setdefault(crop_and_resize(frames, left, top, w, h, 8).tobytes(), []).append((left, top, w, h))
    rng, transform, draws = np.random.default_rng(0), PretrainTransform(8), 2600
    counts = dict.fromkeys(outcome, 0)
    for _ in range(draws):
        counts[transform(frames, rng).tobytes()] += 1  # a KeyError would be a crop that is no candidate
    for result, count in counts.items():
        share = len(outcome[result]) / len(boxes)
        assert abs(count / draws - share) <= 5 * (share * (1 - share) / draws) ** 0.5


@settings(deadline=None)
@given(st.integers(4, 300), st.integers(4, 300), st.integers(4, 300))
def test_crops_lie_in_the_frame_at_any_size(width: int, height: int, input_size: int) -> None:
    """Also where a side snaps to an input size that is larger than the frame."""
    for w, h in crop_sizes(width, height, input_size):
        assert w >= 1
        assert h >= 1
        assert all(0 <= x <= width - w and 0 <= y <= height - h for x, y in crop_places(width, height, w, h))


def test_a_flip_is_all_that_the_flag_changes(clip) -> None:
    mirrored = 0
    for seed in range(40):
        plain = PretrainTransform(32)(clip, np.random.default_rng(seed))
        flipped = PretrainTransform(32, flip=True)(clip, np.random.default_rng(seed))
        if np.array_equal(flipped, plain):
            continue
        np.testing.assert_array_equal(flipped, plain[:, :, ::-1])
        mirrored += 1
    assert 8 <= mirrored <= 32  # 40 fair coins, beyond 3.8 standard deviations otherwise


def test_colour_jitter_is_drawn_once_per_clip(clip) -> None:
    """The original draws it per frame."""
    still = np.repeat(clip[:1], 6, axis=0)
    jittered = color_jitter(still, 0.4, np.random.default_rng(3))
    assert not np.array_equal(jittered, still)
    assert (jittered == jittered[:1]).all()


def test_colour_jitter_equals_torchvisions(clip) -> None:
    functional = pytest.importorskip("torchvision.transforms.functional")
    steps = [functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation]
    factors = [1.3, 0.7, 1.2]
    for order in ([0, 1, 2], [2, 0, 1]):
        image = Image.fromarray(clip[2])
        for i in order:
            image = steps[i](image, factors[i])
        np.testing.assert_array_equal(enhance(clip[2:3], order, factors)[0], np.asarray(image))


def test_everything_random_comes_from_the_generator(clip) -> None:
    transform = pickle.loads(pickle.dumps(PretrainTransform(32, flip=True, color_jitter=0.4)))
    before = random.getstate(), np.random.get_state()[1].tolist()
    first = transform(clip, np.random.default_rng(5))
    np.testing.assert_array_equal(first, transform(clip, np.random.default_rng(5)))
    assert not np.array_equal(first, transform(clip, np.random.default_rng(6)))
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before
