"""The golden numbers of the transforms, and the uint8 clip from which they were made (golden/umt/weight_rule.md)."""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

GOLDEN = Path(__file__).parents[2] / "golden/umt"


def golden_noise(text: str, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform in [0, 1), float64, seeded by `text`."""
    return np.random.Generator(np.random.PCG64(zlib.crc32(text.encode()))).random(shape)


@pytest.fixture(scope="session")
def image_space() -> dict[str, Any]:
    return json.loads((GOLDEN / "image_space.json").read_text())


@pytest.fixture(scope="session")
def golden_pixels() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "image_space.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def views() -> list[dict[str, Any]]:
    return json.loads((GOLDEN / "views.json").read_text())["views"]


@pytest.fixture(scope="session")
def clip(image_space: dict[str, Any]) -> np.ndarray:
    """(8, 72, 96, 3) uint8; read-only, so that no transform may write on its input."""
    frames, height, width = 8, 72, 96
    t, y, x, c = np.ogrid[:frames, :height, :width, :3]
    pattern = (3 * x + 5 * y + 11 * t + 40 * c + 37 * ((x // 7 + y // 5 + t) % 3)) % 256
    grain = np.floor(32 * golden_noise("clip:img", (frames, height, width, 3))).astype(np.int64)
    video = ((pattern + grain) % 256).astype(np.uint8)
    assert zlib.crc32(video.tobytes()) == image_space["clip"]["crc32"]
    video.setflags(write=False)
    return video


def golden_values(text: str, shape: tuple[int, ...]) -> np.ndarray:
    """z(text, shape) of the rule: unit variance, float64."""
    return (2 * golden_noise(text, shape) - 1) * np.sqrt(3)


@pytest.fixture(scope="session")
def mix_batch() -> np.ndarray:
    """inp("mix", (4, 3, 2, 17, 17)), float32."""
    return golden_values("input:mix", (4, 3, 2, 17, 17)).astype(np.float32)


@pytest.fixture(scope="session")
def mix_weights() -> np.ndarray:
    """What mixed clips were projected on: unlike their sum, which mixing keeps, it tells where each value went."""
    return golden_values("mixproj", (4, 3, 2, 17, 17))
