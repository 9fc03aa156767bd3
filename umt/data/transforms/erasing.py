"""Random erasing: a rectangle drawn with the sample, filled on the device after normalisation.

Paper: https://arxiv.org/abs/1708.04896, with timm's law. The rectangle is the same in all frames of a clip and the
noise is fresh in each ("cube" in the original).
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from umt.errors import ConfigError

AREA = (0.02, 1 / 3)  # share of the frame, before it is divided by the number of rectangles
ASPECT = (0.3, 1 / 0.3)  # height / width
TRIES = 10
MODES = ("pixel", "rand", "const")


def rectangle_shape(area: float, aspect: float) -> tuple[int, int]:
    """(height, width) of a rectangle of `area` pixels whose height is `aspect` times its width."""
    return round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))


def draw_erase_box(
    rng: np.random.Generator,
    height: int,
    width: int,
    *,
    probability: float = 0.25,
    count: int = 1,
    area: tuple[float, float] = AREA,
    aspect: tuple[float, float] = ASPECT,
) -> NDArray[np.int64]:
    """Top, left, height, width of what is erased: (4,), or (count, 4) for `count` > 1; height 0 means nothing.

    With probability `probability` a clip is erased at all. `count` (--recount) is the greatest number of rectangles: 1
    to `count` of them are drawn, which share the area. (The original also takes it for a number of splits, so that with
    2 the first half of the frames is never erased.) A rectangle that does not fit in 10 tries is left out.
    """
    boxes = np.zeros((count, 4), np.int64)
    erased = rng.random() < probability
    drawn = int(rng.integers(1, count, endpoint=True)) if erased else 0
    for box in boxes[:drawn]:
        for _ in range(TRIES):
            target = rng.uniform(*area) * height * width / drawn
            h, w = rectangle_shape(target, math.exp(rng.uniform(math.log(aspect[0]), math.log(aspect[1]))))
            if 0 < h < height and 0 < w < width:
                top, left = rng.integers(0, [height - h, width - w], endpoint=True)
                box[:] = top, left, h, w
                break
    return boxes[0] if count == 1 else boxes


def erase(video: Tensor, boxes: Tensor, seeds: Tensor, mode: str = "pixel") -> Tensor:
    """Fills the rectangles of normalised `video` (B, 3, T, H, W) in place and returns it.

    boxes (B, 4) or (B, R, 4) as `draw_erase_box` gives them, seeds (B,): the noise of a clip is a function of its seed.
    `mode`: "pixel" noise per pixel and frame, "rand" one random colour per rectangle and frame, "const" zero (the mean
    colour). Boxes and seeds are read on the host: keep them there, or the step waits for the device once.
    """
    if mode not in MODES:
        raise ConfigError(f"--remode ({mode}) is not known. Choose one of {', '.join(MODES)}.")
    for clip, rectangles, seed in zip(video, boxes.reshape(len(video), -1, 4).tolist(), seeds.tolist(), strict=True):
        if not any(height for _, _, height, _ in rectangles):
            continue
        generator = None if mode == "const" else torch.Generator(video.device).manual_seed(seed)
        for top, left, height, width in rectangles:
            patch = clip[:, :, top : top + height, left : left + width]
            if mode == "pixel":
                patch.copy_(torch.randn(patch.shape, generator=generator, device=video.device, dtype=video.dtype))
            elif mode == "rand":
                shape = (*patch.shape[:2], 1, 1)
                patch.copy_(torch.randn(shape, generator=generator, device=video.device, dtype=video.dtype))
            else:
                patch.zero_()
    return video
