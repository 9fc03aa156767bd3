"""RandAugment on whole clips: timm's operations and levels, drawn once per clip.

Paper: https://arxiv.org/abs/1909.13719. timm's own transform takes one image; called per frame it would draw per frame.
Here each operation draws its chance, magnitude and sign once and changes every frame in the same way, as the original
does (which however draws the filter per frame under `--train_interpolation random`).
"""

import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
from PIL import Image

from umt.data.transforms import operations
from umt.data.transforms.operations import Box, Linear, Step
from umt.data.transforms.resize import Frames
from umt.data.transforms.warps import FILL, Rotation, Slide
from umt.errors import ConfigError

OFF = ("", "none")
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

    return rand_augment_transform(policy, {"img_mean": (FILL,) * 3, "interpolation": INTERPOLATIONS[interpolation]})


@contextmanager
def _own_python_random() -> Iterator[None]:
    """timm draws signs from Python's global generator: it may be seeded in this context, and is restored after it."""
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)


def levels(operation: Any, magnitude: float, seed: int) -> tuple[float, ...]:
    """What a timm `AugmentOp` hands its function at a magnitude; the sign comes from `seed`.

    Python's global generator is left seeded: see `_own_python_random`.
    """
    random.seed(seed)
    drawn: tuple[float, ...] = operation.level_fn(magnitude, operation.hparams) if operation.level_fn else ()
    return drawn


def apply(images: list[Image.Image], operation: Any, magnitude: float, seed: int) -> list[Image.Image]:
    """One timm `AugmentOp` at one magnitude on all images, by PIL; everything else that it draws comes from `seed` too.

    `FAST` must give the same, and does not have every operation.
    """
    with _own_python_random():
        arguments = levels(operation, magnitude, seed)
        if operation.name.startswith("Posterize") and arguments[0] == 0:
            # Pillow 13 refuses to keep 0 bits, which leaves black.
            return [Image.new(image.mode, image.size) for image in images]
        changed = []
        for image in images:
            random.seed(seed)
            changed.append(operation.aug_fn(image, *arguments, **operation.kwargs))
    return changed


@dataclass(frozen=True)
class ByPIL:
    """An operation that has no fast form (blur)."""

    operation: Any
    magnitude: float
    seed: int

    needs = staticmethod(operations.whole)

    def __call__(self, frames: Frames, at: Box, box: Box, height: int, width: int) -> Frames:
        """See `Step`."""
        images = apply([Image.fromarray(frame) for frame in frames], self.operation, self.magnitude, self.seed)
        return operations.cut(np.stack([np.asarray(image) for image in images]), at, box)


# By timm's names; each takes whether warps are bicubic, and the levels.
FAST: dict[str, Callable[..., Step]] = {
    "AutoContrast": lambda cubic: Linear(operations.autocontrast),
    "Equalize": lambda cubic: operations.Equalize(),
    "Invert": lambda cubic: operations.Solarize(0),
    "Posterize": lambda cubic, bits: operations.Posterize(bits),
    "Solarize": lambda cubic, threshold: operations.Solarize(threshold),
    "SolarizeAdd": lambda cubic, add: operations.SolarizeAdd(add),
    "Brightness": lambda cubic, factor: Linear(operations.brightness(factor)),
    "Contrast": lambda cubic, factor: Linear(partial(operations.contrast, factor=factor)),
    "Color": lambda cubic, factor: Linear(operations.saturation(factor)),
    "Desaturate": lambda cubic, share: Linear(operations.saturation(min(1.0, max(0.0, 1.0 - share)))),
    "Sharpness": lambda cubic, factor: operations.Sharpness(factor),
    "ShearX": lambda cubic, slope: Slide(slope, 0.0, False, cubic),
    "ShearY": lambda cubic, slope: Slide(slope, 0.0, True, cubic),
    "TranslateXRel": lambda cubic, share: Slide(0.0, share, False, cubic),
    "TranslateYRel": lambda cubic, share: Slide(0.0, share, True, cubic),
    "Rotate": lambda cubic, degrees: Rotation(degrees, cubic),
}


def step(operation: Any, magnitude: float, seed: int) -> Step:
    """What `apply` does, for whole clips. Seeds Python's global generator: see `_own_python_random`."""
    make = FAST.get(operation.name.removesuffix("Increasing").removesuffix("Original"))
    if make is None:
        return ByPIL(operation, magnitude, seed)
    resample = operation.kwargs["resample"]
    if isinstance(resample, tuple):  # chosen as timm does
        resample = random.Random(seed).choice(resample)
    return make(resample == Image.Resampling.BICUBIC, *levels(operation, magnitude, seed))


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

    def draw(self, rng: np.random.Generator) -> list[Step]:
        """The operations for one clip."""
        if self.policy in OFF:
            return []
        policy = timm_policy(self.policy, self.interpolation)
        # Operations come with replacement, but for policies that weigh them: timm's rule.
        chosen = rng.choice(
            len(policy.ops), policy.num_layers, replace=policy.choice_weights is None, p=policy.choice_weights
        )
        steps = []
        with _own_python_random():
            for index in chosen:
                operation = policy.ops[index]
                applied = rng.random() < operation.prob
                magnitude, seed = draw_magnitude(operation, rng), int(rng.integers(2**32))
                if applied:
                    steps.append(step(operation, magnitude, seed))
        return steps

    def __call__(self, frames: Frames, rng: np.random.Generator) -> Frames:
        """(T, H, W, 3) -> the same shape."""
        steps = self.draw(rng)
        return operations.apply(steps, frames, Box(0, 0, *frames.shape[1:3])) if steps else frames
