"""What happens to the frames of one clip in the workers, from decoder to uint8 clip, in each of the four situations.

Each is a callable of (T, H, W, 3) uint8 frames, RGB, and of a generator from which everything random is drawn; a clip
is treated as a whole, so nothing differs between its frames. They hold plain values only, so that they can be sent to
spawned workers.
"""

from dataclasses import dataclass

import numpy as np

from umt.data.transforms import operations
from umt.data.transforms.color_jitter import color_jitter
from umt.data.transforms.multiscale import multi_scale_crop
from umt.data.transforms.operations import Box
from umt.data.transforms.randaugment import RandAugment
from umt.data.transforms.resize import Frames, centre_crop, flip, multi_crop, resize, resize_short_side
from umt.data.transforms.resized_crop import SCALE, random_box
from umt.errors import ConfigError


@dataclass(frozen=True)
class PretrainTransform:
    """Multi-scale crop, colour jitter of strength `color_jitter` (0: none), a flip with probability 1/2 if `flip`."""

    input_size: int
    flip: bool = False
    color_jitter: float = 0.0

    def __call__(self, frames: Frames, rng: np.random.Generator) -> Frames:
        """(T, H, W, 3) -> (T, input_size, input_size, 3)."""
        mirrored = bool(rng.random() < 0.5)  # drawn without `flip` too: the crop of a seed does not depend on the flag
        clip = multi_scale_crop(frames, self.input_size, rng)
        if self.color_jitter > 0:
            clip = color_jitter(clip, self.color_jitter, rng)
        return flip(clip) if mirrored and self.flip else clip


@dataclass(frozen=True)
class FinetuneTransform:
    """RandAugment on whole frames (`auto_augment` "" or "none": off), random resized crop, and a flip if allowed.

    `interpolation` ("bicubic", "bilinear" or "random") is RandAugment's, for what rotates, shears or shifts. `flip` is
    off for data sets whose classes tell left from right. `crop_scale` bounds the crop's share of the picture.
    """

    input_size: int
    auto_augment: str = "rand-m7-n4-mstd0.5-inc1"
    interpolation: str = "bicubic"
    flip: bool = True
    crop_scale: tuple[float, float] = SCALE

    def __post_init__(self) -> None:
        RandAugment.check(self.auto_augment, self.interpolation)

    def __call__(self, frames: Frames, rng: np.random.Generator) -> Frames:
        """(T, H, W, 3) -> (T, input_size, input_size, 3)."""
        mirrored = bool(rng.random() < 0.5)
        steps = RandAugment(self.auto_augment, self.interpolation).draw(rng)
        height, width = frames.shape[1:3]
        box = Box(*random_box(height, width, rng, self.crop_scale))
        augmented = operations.apply(steps, frames, box)
        return resize(augmented, self.input_size, self.input_size, mirrored=mirrored and self.flip)


@dataclass(frozen=True)
class EvalTransform:
    """Validation: the short side to `short_side_size`, then the central square of `input_size`."""

    short_side_size: int
    input_size: int

    def __post_init__(self) -> None:
        _check_sides(self.short_side_size, self.input_size)

    def __call__(self, frames: Frames, rng: np.random.Generator | None = None) -> Frames:
        """(T, H, W, 3) -> (T, input_size, input_size, 3); nothing is random."""
        return centre_crop(resize_short_side(frames, self.short_side_size), self.input_size)


@dataclass(frozen=True)
class TestTransform:
    """Testing: the short side to `short_side_size`, then `num_crops` squares along the longer side.

    The squares have `input_size` pixels a side, by default `short_side_size` as in the original (which cannot run when
    the two differ).
    """

    __test__ = False  # a name that begins with Test is not a test of pytest's

    short_side_size: int
    num_crops: int
    input_size: int | None = None

    def __post_init__(self) -> None:
        _check_sides(self.short_side_size, self.input_size or self.short_side_size)
        if self.num_crops < 1:
            raise ConfigError(f"--test_num_crop ({self.num_crops}) must be at least 1, e.g. --test_num_crop 3.")

    def __call__(self, frames: Frames, rng: np.random.Generator | None = None) -> list[Frames]:
        """(T, H, W, 3) -> one (T, size, size, 3) per crop, views of the frames resized once; nothing is random.

        T may be the frames of several clips: slice them afterwards, and every frame is resized once.
        """
        frames = resize_short_side(frames, self.short_side_size)
        return list(multi_crop(frames, self.input_size or self.short_side_size, self.num_crops))


def _check_sides(short_side_size: int, input_size: int) -> None:
    if input_size > short_side_size:
        raise ConfigError(
            f"--input_size ({input_size}) must not exceed --short_side_size ({short_side_size}). "
            f"Raise the short side, e.g. --short_side_size {input_size}."
        )
