"""Colour jitter: brightness, contrast and saturation in random order, the same for every frame of a clip.

The law is torchvision's `ColorJitter(c, c, c)` on PIL images. The original draws it again for each frame, so that a
clip flickers; here it is drawn once per clip.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance

from umt.data.transforms.resize import Frames

# The enhancers that torchvision calls for PIL images, called without importing it (more than a second in every worker).
ENHANCERS: tuple[Callable, ...] = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


def enhance(frames: Frames, order: list[int], factors: list[float]) -> Frames:
    """Applies `ENHANCERS[i]` with `factors[i]` for i in `order` to every frame."""
    out = np.empty(frames.shape, np.uint8)
    for source, target in zip(frames, out, strict=True):
        image = Image.fromarray(source)
        for i in order:
            image = ENHANCERS[i](image).enhance(factors[i])
        target[:] = np.asarray(image)
    return out


def color_jitter(frames: Frames, strength: float, rng: np.random.Generator) -> Frames:
    """Factors uniform in [max(0, 1 - strength), 1 + strength], one set and one order for the clip."""
    order = rng.permutation(len(ENHANCERS)).tolist()
    factors = rng.uniform(max(0.0, 1 - strength), 1 + strength, len(ENHANCERS)).tolist()
    return enhance(frames, order, factors)
