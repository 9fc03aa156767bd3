"""Random resized crop of finetuning: a box of random area and shape, which becomes the whole clip.

Paper: https://arxiv.org/abs/1409.4842 (Inception), with torchvision's law. The original resizes normalised floats with
torch's bilinear filter without antialiasing; `resize` does it on uint8 with OpenCV, which differs by at most one grey
level and is many times faster.
"""

import math

import numpy as np

SCALE = (0.08, 1.0)
RATIO = (3 / 4, 4 / 3)
TRIES = 10


def box_shape(area: float, ratio: float) -> tuple[int, int]:
    """(height, width) of a box of `area` pixels whose width is `ratio` times its height."""
    return round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))


def fallback_box(height: int, width: int, ratio: tuple[float, float] = RATIO) -> tuple[int, int, int, int]:
    """(top, left, height, width) of the largest central box whose shape is allowed."""
    h, w = height, width
    if width / height < ratio[0]:
        h = round(w / ratio[0])
    elif width / height > ratio[1]:
        w = round(h * ratio[1])
    return (height - h) // 2, (width - w) // 2, h, w


def random_box(
    height: int,
    width: int,
    rng: np.random.Generator,
    scale: tuple[float, float] = SCALE,
    ratio: tuple[float, float] = RATIO,
) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a random box; `scale` bounds its share of the area, `ratio` its width / height."""
    for _ in range(TRIES):
        area = rng.uniform(*scale) * height * width
        h, w = box_shape(area, math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1]))))
        if 0 < w <= width and 0 < h <= height:
            top, left = rng.integers(0, [height - h, width - w], endpoint=True)
            return int(top), int(left), h, w
    return fallback_box(height, width, ratio)
