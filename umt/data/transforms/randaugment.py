"""RandAugment on whole clips: timm's operations and levels, drawn once per clip.

Paper: https://arxiv.org/abs/1909.13719. timm's own transform takes one image; called per frame it would draw per frame.
Here each operation draws its chance, magnitude and sign once and changes every frame alike, as the original does (which
however draws the filter per frame under `--train_interpolation random`).
"""

import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

from umt.data.transforms.resize import Frames
from umt.errors import ConfigError

OFF = ("", "none")
FILL = (128, 128, 128)  # what rotation, shear and shift uncover
INTERPOLATIONS: dict[str, Image.Resampling | tuple[Image.Resampling, ...]] = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "random": (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC),
}
_POLICY = re.compile(r"rand(-(m\d+|n\d+|p\d+(\.\d+)?|mstd\d+(\.\d+)?|mmax\d+|inc[01]|t(weights|3aw?)))*")


@lru_cache(maxsize=8)
def timm_policy(policy: str, interpolation: str) -> Any:
    """timm's `RandAugment` for a policy such as rand-m7-n4-mstd0.5-inc1. The first call imports timm, for seconds."""
    from timm.data.auto_augment import rand_augment_transform

    return rand_augment_transform(policy, {"img_mean": FILL, "interpolation": INTERPOLATIONS[interpolation]})


@contextmanager
def _own_python_random() -> Iterator[None]:
    """timm draws signs from Python's global generator: lends it for a while and gives it back as it was."""
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)


def apply(images: list[Image.Image], operation: Any, magnitude: float, seed: int) -> list[Image.Image]:
    """One timm `AugmentOp` at one magnitude on all images; its sign, and whatever else it draws, comes from `seed`."""
    with _own_python_random():
        random.seed(seed)
        levels: tuple[float, ...] = operation.level_fn(magnitude, operation.hparams) if operation.level_fn else ()
        if operation.name.startswith("Posterize") and levels[0] == 0:
            # Pillow 13 refuses to keep 0 bits, which leaves black.
            return [Image.new(image.mode, image.size) for image in images]
        changed = []
        for image in images:
            random.seed(seed)
            changed.append(operation.aug_fn(image, *levels, **operation.kwargs))
    return changed


def draw_magnitude(operation: Any, rng: np.random.Generator) -> float:
    """timm's law: normal about the policy's magnitude (uniform below it if the deviation is infinite), clipped."""
    magnitude, deviation = float(operation.magnitude), operation.magnitude_std
    if deviation == float("inf"):
        magnitude = rng.uniform(0, magnitude)
    elif deviation > 0:
        magnitude = rng.normal(magnitude, deviation)
    return min(max(magnitude, 0.0), float(operation.magnitude_max or 10))


@dataclass(frozen=True)
class RandAugment:
    """A timm policy, as text, on whole clips; "" and "none" leave clips as they are."""

    policy: str
    interpolation: str = "bicubic"

    @staticmethod
    def check(policy: str, interpolation: str = "bicubic") -> None:
        """Raises `ConfigError` on what timm would not understand; needs no timm."""
        if policy not in OFF and not _POLICY.fullmatch(policy):
            raise ConfigError(
                f"--aa ({policy}) is not a RandAugment policy. "
                "Write e.g. --aa rand-m7-n4-mstd0.5-inc1, or --aa none to switch it off."
            )
        if interpolation not in INTERPOLATIONS:
            names = ", ".join(INTERPOLATIONS)
            raise ConfigError(f"--train_interpolation ({interpolation}) is not known. Choose one of {names}.")

    def __call__(self, frames: Frames, rng: np.random.Generator) -> Frames:
        """(T, H, W, 3) -> the same shape."""
        if self.policy in OFF:
            return frames
        policy = timm_policy(self.policy, self.interpolation)
        # Operations come with replacement, but for policies that weigh them: timm's rule.
        chosen = rng.choice(
            len(policy.ops), policy.num_layers, replace=policy.choice_weights is None, p=policy.choice_weights
        )
        images = None
        for index in chosen:
            operation = policy.ops[index]
            applied = rng.random() < operation.prob
            magnitude, seed = draw_magnitude(operation, rng), int(rng.integers(2**32))
            if applied:
                images = apply(images or [Image.fromarray(frame) for frame in frames], operation, magnitude, seed)
        if images is None:
            return frames
        return np.stack([np.asarray(image) for image in images])
