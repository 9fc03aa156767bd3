"""RandAugment's operations on whole clips, held to those that timm runs on PIL images one by one."""

from __future__ import annotations

import random
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.videos import played, render
from umt.data.transforms import operations, randaugment
from umt.data.transforms.operations import Box
from umt.data.transforms.pipelines import FinetuneTransform
from umt.data.transforms.randaugment import FAST, ByPIL, RandAugment, draw_magnitude, step, timm_policy
from umt.data.transforms.resize import resize
from umt.data.transforms.resized_crop import random_box
from umt.data.transforms.warps import Rotation

# With levels that grow with the magnitude (inc1), with levels that do not, and the three operations of "3a".
POLICIES = ("rand-m7-n4-mstd0.5-inc1", "rand-m7-n4-mstd0.5-inc0", "rand-m7-t3a")
EXACT = ["Equalize", "Invert", "Posterize", "PosterizeIncreasing", "Solarize", "SolarizeIncreasing", "SolarizeAdd"]
BLENDS = ["Color", "Sharpness", "Brightness", "Contrast"]
BLENDS += [f"{name}Increasing" for name in BLENDS] + ["AutoContrast", "Desaturate"]
SLIDES = ["ShearX", "ShearY", "TranslateXRel", "TranslateYRel"]


@lru_cache
def known(interpolation: str = "bicubic") -> dict[str, Any]:
    """All operations that a policy can name, by timm's names."""
    return {op.name: op for policy in POLICIES for op in timm_policy(policy, interpolation).ops}


def by_pil(frames: np.ndarray, operation, magnitude: float, seed: int) -> np.ndarray:
    images = randaugment.apply([Image.fromarray(frame) for frame in frames], operation, magnitude, seed)
    return np.stack([np.asarray(image) for image in images])


def whole(frames: np.ndarray) -> Box:
    return Box(0, 0, *frames.shape[1:3])


def on_clip(frames: np.ndarray, operation, magnitude: float, seed: int) -> np.ndarray:
    return operations.apply([step(operation, magnitude, seed)], frames, whole(frames))


def error(frames: np.ndarray, operation, magnitude: float, seed: int) -> np.ndarray:
    """Grey levels between the two."""
    ours, theirs = (f(frames, operation, magnitude, seed).astype(int) for f in (on_clip, by_pil))
    return np.abs(ours - theirs)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """Frames as a decoder gives them, Kinetics' size: (2, 256, 340, 3)."""
    return played(render(tmp_path_factory.mktemp("video") / "v.mp4", frames=2, width=340, height=256))


magnitudes = st.floats(0, 10)
signs = st.integers(0, 2**32 - 1)  # a seed draws the sign of the level


def test_every_operation_but_the_blur_has_a_fast_form() -> None:
    slow = {name for name, op in known().items() if isinstance(step(op, 5.0, 0), ByPIL)}
    assert slow == {"GaussianBlur"}
    assert len(known()) == 23


def test_all_operations_are_compared() -> None:
    assert ({*EXACT, *BLENDS, *SLIDES, "Rotate"}) == set(known()) - {"GaussianBlur"}


@pytest.mark.parametrize("name", EXACT)
@settings(deadline=None, max_examples=15)
@given(magnitude=magnitudes, seed=signs)
def test_operations_on_single_levels_equal_pils(clip: np.ndarray, name: str, magnitude: float, seed: int) -> None:
    assert error(clip[:2], known()[name], magnitude, seed).max() == 0


@pytest.mark.parametrize(("name", "most"), [("Equalize", 0), ("AutoContrast", 1)])
@settings(deadline=None, max_examples=60)
@given(seed=signs)
def test_frames_of_few_levels_are_spread_as_by_pil(name: str, most: int, seed: int) -> None:
    """Flat channels, two levels, a histogram too small to be spread: each has a rule of its own in PIL."""
    rng = np.random.default_rng(seed)
    lowest = rng.integers(0, 255, 3)
    highest = rng.integers(lowest + 1, 257)
    frames = rng.integers(lowest, highest, (2, *rng.integers(1, 24, 2), 3)).astype(np.uint8)
    assert error(frames, known()[name], 7.0, 0).max() <= most


@pytest.mark.parametrize("name", BLENDS)
@settings(deadline=None, max_examples=15)
@given(magnitude=magnitudes, seed=signs)
def test_blends_differ_from_pils_by_one_grey_level_at_most(
    clip: np.ndarray, name: str, magnitude: float, seed: int
) -> None:
    assert error(clip[:2], known()[name], magnitude, seed).max() <= 1


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("name", SLIDES)
@settings(deadline=None, max_examples=15)
@given(magnitude=magnitudes, seed=signs)
def test_shears_and_shifts_differ_from_pils_by_one_grey_level_at_most(
    clip: np.ndarray, interpolation: str, name: str, magnitude: float, seed: int
) -> None:
    assert error(clip[:2], known(interpolation)[name], magnitude, seed).max() <= 1


@pytest.mark.parametrize("name", SLIDES)
def test_shears_and_shifts_of_the_recipes_magnitudes_differ_on_few_pixels(clip: np.ndarray, name: str) -> None:
    rng = np.random.default_rng(0)
    for seed in range(8):
        magnitude = draw_magnitude(known()[name], rng)
        assert (error(clip[:2], known()[name], magnitude, seed) > 0).mean() <= 0.01


@settings(deadline=None, max_examples=15)
@given(magnitude=magnitudes, seed=signs)
def test_rotations_of_decoded_frames_stay_within_two_grey_levels_of_pils(
    video: np.ndarray, magnitude: float, seed: int
) -> None:
    """But for 0.3 % of the pixels: OpenCV's cubic kernel is not PIL's. The mean is half a level where PIL cuts off."""
    levels = error(video, known()["Rotate"], magnitude, seed)
    assert (levels > 2).mean() <= 0.003
    assert levels.mean() <= 0.6


@settings(deadline=None, max_examples=15)
@given(magnitude=magnitudes, seed=signs)
def test_bilinear_rotations_stay_within_one_grey_level_of_pils(video: np.ndarray, magnitude: float, seed: int) -> None:
    levels = error(video, known("bilinear")["Rotate"], magnitude, seed)
    assert (levels > 1).mean() <= 0.001  # a pixel at the border may fall to its other side


def test_operations_have_the_originals_means(clip: np.ndarray, image_space: dict) -> None:
    """Of all 120 levels and signs in the golden table."""
    seeds: dict[bool, int] = {}
    for seed in range(20):
        seeds.setdefault(random.Random(seed).random() > 0.5, seed)
    for row in image_space["randaugment"]["table"]:
        if "error" not in row:
            ours = on_clip(clip[3:4], known()[row["op"]], row["level"], seeds[row["negated"]])
            assert ours.mean() == pytest.approx(row["mean"], abs=0.5), row


@settings(deadline=None, max_examples=60)
@given(seed=signs)
def test_a_box_alone_is_the_box_of_the_whole_frames(video: np.ndarray, seed: int) -> None:
    """To the bit without a rotation; one counts its places from another corner, which rounds some pixels otherwise."""
    rng = np.random.default_rng(seed)
    steps = RandAugment("rand-m7-n4-mstd0.5-inc1-p1.0").draw(rng)
    box = Box(*random_box(256, 340, rng))
    alone = operations.apply(steps, video, box)
    difference = np.abs(
        alone.astype(int) - operations.cut(operations.apply(steps, video, whole(video)), whole(video), box)
    )
    if not any(isinstance(s, Rotation) for s in steps):
        assert difference.max() == 0
    assert (difference > 0).mean() <= 0.05
    assert (difference > 1).mean() <= 0.01


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 40), st.integers(1, 40), st.data(), signs)
def test_any_box_of_any_frame_can_be_made(height: int, width: int, data: st.DataObject, seed: int) -> None:
    """Also a box that comes from outside the frame altogether, and frames smaller than a filter."""
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    box = Box(top, left, data.draw(st.integers(1, height - top)), data.draw(st.integers(1, width - left)))
    for operation in known().values():
        changed = operations.apply([step(operation, 10.0, seed)], frames, box)
        assert changed.shape == (2, box.height, box.width, 3)
        assert changed.dtype == np.uint8
        if operation.name.startswith(tuple(SLIDES)):
            assert (
                np.abs(
                    changed.astype(int) - operations.cut(by_pil(frames, operation, 10.0, seed), whole(frames), box)
                ).max()
                <= 1
            )


def test_a_finetuning_clip_is_randaugment_then_a_crop(clip: np.ndarray) -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        ours = FinetuneTransform(32, "rand-m7-n4-inc1", flip=False)(clip, np.random.default_rng(seed))
        rng.random()
        frames = RandAugment("rand-m7-n4-inc1")(clip, rng)
        top, left, height, width = random_box(72, 96, rng)
        expected = resize(frames[:, top : top + height, left : left + width], 32, 32)
        assert (np.abs(ours.astype(int) - expected) > 1).mean() <= 0.01  # a rotation rounds some pixels otherwise


def test_frames_that_copies_share_are_not_written_on(clip: np.ndarray) -> None:
    """`clip` is read-only: writing on it would raise."""
    for operation in known().values():
        assert not np.shares_memory(on_clip(clip, operation, 5.0, 1), clip)


def test_the_filter_that_is_drawn_is_the_one_that_timm_draws(clip: np.ndarray) -> None:
    operation = next(op for op in timm_policy(POLICIES[0], "random").ops if op.name == "ShearX")
    differ = 0
    for seed in range(12):
        assert error(clip[:1], operation, 7.0, seed).max() <= 1
        differ += step(operation, 7.0, seed).cubic
    assert 0 < differ < 12


def test_fast_forms_go_by_names_that_timm_has() -> None:
    names = {name.removesuffix("Increasing").removesuffix("Original") for name in known()}
    assert set(FAST) <= names
