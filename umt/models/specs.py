"""Sizes of the models by name, and the arithmetic of tokens. No torch: a recipe is checked in a fraction of a second.

A model is one entry of `SPECS`. Grids are (T', H', W') in tokens, images (H, W) in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from umt.errors import ConfigError
from umt.spelling import did_you_mean

Grid = tuple[int, int, int]


@dataclass(frozen=True)
class ModelSpec:
    """Facts of one architecture; fields that a kind does not have are None."""

    kind: Literal["student", "classifier", "teacher"]
    summary: str
    image_size: int
    patch_size: int
    width: int
    depth: int
    heads: int
    num_frames: int | None = 8  # None: any number, a teacher looks at frames one by one
    tubelet_size: int = 1
    output_dim: int | None = None  # teacher: its embedding; student: the teacher's embedding, which it predicts
    return_layers: int | None = None
    mlp_ratio: float = 4.0
    # Where the sinusoid is defined; tables of other grids are resampled from it. Pretraining and finetuning must agree.
    position_grid: Grid | None = None

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of the model's class."""
        names = ["image_size", "patch_size", "width", "depth", "heads", "tubelet_size"]
        names += {
            "student": ["num_frames", "return_layers", "position_grid"],
            "classifier": ["num_frames", "position_grid"],
            "teacher": ["output_dim", "return_layers"],
        }[self.kind]
        arguments = {name: getattr(self, name) for name in names}
        if self.mlp_ratio != 4.0:
            arguments["mlp_ratio"] = self.mlp_ratio
        if self.kind == "student":
            arguments["teacher_width"] = self.output_dim
        return arguments


_BASE: dict[str, Any] = {"width": 768, "depth": 12, "heads": 12, "patch_size": 16}
_LARGE: dict[str, Any] = {"width": 1024, "depth": 24, "heads": 16, "patch_size": 16}
# As VideoMAE and VideoMAE V2 pretrain them: 16 frames, two a token.
_VIDEOMAE: dict[str, Any] = {"image_size": 224, "num_frames": 16, "tubelet_size": 2}
_CLIP_LARGE: dict[str, Any] = {**_LARGE, "patch_size": 14, "output_dim": 768, "return_layers": 6, "num_frames": None}
_TINY: dict[str, Any] = {"width": 96, "depth": 4, "heads": 3, "patch_size": 8, "image_size": 64}
_SMALLEST: dict[str, Any] = {**_TINY, "image_size": 48, "width": 64, "heads": 2}
_PUBLISHED_GRID: Grid = (8, 14, 14)  # 8 frames at 224 px, patch 16: what the published weights were pretrained on

SPECS: dict[str, ModelSpec] = {
    "pretrain_umt_base_patch16_224": ModelSpec(
        "student",
        "UMT-B/16 student of CLIP-B/16 at 224 px",
        image_size=224,
        output_dim=512,
        return_layers=6,
        position_grid=_PUBLISHED_GRID,
        **_BASE,
    ),
    "pretrain_umt_large_patch16_224": ModelSpec(
        "student",
        "UMT-L/16 student of CLIP-L/14 at 196 px, whose 14 x 14 grid matches its own",
        image_size=224,
        output_dim=768,
        return_layers=6,
        position_grid=_PUBLISHED_GRID,
        **_LARGE,
    ),
    "vit_base_patch16_224": ModelSpec(
        "classifier", "ViT-B/16 video classifier", image_size=224, position_grid=_PUBLISHED_GRID, **_BASE
    ),
    "vit_base_patch16_384": ModelSpec(
        "classifier", "ViT-B/16 video classifier at 384 px", image_size=384, position_grid=_PUBLISHED_GRID, **_BASE
    ),
    "vit_large_patch16_224": ModelSpec(
        "classifier", "ViT-L/16 video classifier", image_size=224, position_grid=_PUBLISHED_GRID, **_LARGE
    ),
    "vit_large_patch16_384": ModelSpec(
        "classifier", "ViT-L/16 video classifier at 384 px", image_size=384, position_grid=_PUBLISHED_GRID, **_LARGE
    ),
    "vit_small_patch16_224": ModelSpec(
        "classifier",
        "ViT-S/16 video classifier in VideoMAE's size",
        width=384,
        depth=12,
        heads=6,
        patch_size=16,
        position_grid=_PUBLISHED_GRID,
        **_VIDEOMAE,
    ),
    "vit_huge_patch16_224": ModelSpec(
        "classifier",
        "ViT-H/16 video classifier in VideoMAE's size",
        width=1280,
        depth=32,
        heads=16,
        patch_size=16,
        position_grid=_PUBLISHED_GRID,
        **_VIDEOMAE,
    ),
    "vit_giant_patch14_224": ModelSpec(
        "classifier",
        "ViT-g/14 video classifier in the size of VideoMAE V2",
        width=1408,
        depth=40,
        heads=16,
        patch_size=14,
        mlp_ratio=48 / 11,
        position_grid=(8, 16, 16),
        **_VIDEOMAE,
    ),
    "clip_b16": ModelSpec(
        "teacher", "CLIP-B/16 visual tower", image_size=224, output_dim=512, return_layers=6, num_frames=None, **_BASE
    ),
    "clip_l14": ModelSpec("teacher", "CLIP-L/14 visual tower", image_size=224, **_CLIP_LARGE),
    "clip_l14_336": ModelSpec("teacher", "CLIP-L/14 visual tower at 336 px", image_size=336, **_CLIP_LARGE),
    # For tests and the quickstart. Their sinusoid is defined on their own grid, as the published one is on its own.
    "pretrain_umt_tiny_patch8_64": ModelSpec(
        "student",
        "tiny student of clip_tiny_patch8_64",
        output_dim=64,
        return_layers=2,
        position_grid=(8, 8, 8),
        **_TINY,
    ),
    "vit_tiny_patch8_64": ModelSpec("classifier", "tiny video classifier", position_grid=(8, 8, 8), **_TINY),
    "clip_tiny_patch8_64": ModelSpec(
        "teacher", "tiny teacher in CLIP's layout", output_dim=64, return_layers=2, num_frames=None, **_TINY
    ),
    "pretrain_umt_tiny_patch8_48": ModelSpec(
        "student",
        "the quickstart's student",
        output_dim=64,
        return_layers=2,
        position_grid=(8, 6, 6),
        **_SMALLEST,
    ),
    "vit_tiny_patch8_48": ModelSpec("classifier", "the quickstart's classifier", position_grid=(8, 6, 6), **_SMALLEST),
    "clip_tiny_patch8_48": ModelSpec(
        "teacher",
        "the quickstart's teacher",
        output_dim=64,
        return_layers=2,
        num_frames=None,
        **_SMALLEST,
    ),
}


def find_spec(name: str) -> ModelSpec:
    """The spec called `name`; `ConfigError` with the nearest names otherwise."""
    if name in SPECS:
        return SPECS[name]
    raise ConfigError(f"model {name!r} does not exist. {did_you_mean(name, list(SPECS), count=3)}")


def image_shape(image_size: int | tuple[int, int]) -> tuple[int, int]:
    """An image size, one number or (height, width), as (height, width)."""
    return (image_size, image_size) if isinstance(image_size, int) else (int(image_size[0]), int(image_size[1]))


def as_grid(sizes: Sequence[int]) -> Grid:
    """Three numbers, which json has as a list, as (T', H', W')."""
    frames, height, width = sizes
    return int(frames), int(height), int(width)


def token_grid(image_size: int | tuple[int, int], patch_size: int, num_frames: int = 1, tubelet_size: int = 1) -> Grid:
    """(T', H', W') tokens of a clip; `ConfigError` where the patches or tubelets do not tile it."""
    height, width = image_shape(image_size)
    for name, value in (
        ("image height", height),
        ("image width", width),
        ("patch_size", patch_size),
        ("num_frames", num_frames),
        ("tubelet_size", tubelet_size),
    ):
        if value < 1:
            raise ConfigError(f"{name} ({value}) must be at least 1.")
    for name, value in (("image height", height), ("image width", width)):
        if value % patch_size:
            near = max(round(value / patch_size), 1) * patch_size
            raise ConfigError(
                f"{name} ({value}) is not a multiple of patch_size ({patch_size}). The nearest is {near}."
            )
    if num_frames % tubelet_size:
        raise ConfigError(
            f"num_frames ({num_frames}) is not a multiple of tubelet_size ({tubelet_size}). "
            f"The nearest is {max(round(num_frames / tubelet_size), 1) * tubelet_size}."
        )
    return num_frames // tubelet_size, height // patch_size, width // patch_size


def default_position_grid(patch_size: int) -> Grid:
    """The tokens of 8 frames at 224 px, on which the classifier's sinusoid is defined: (8, 14, 14) for patch 16."""
    return 8, max(224 // patch_size, 1), max(224 // patch_size, 1)


def return_indices(depth: int, return_layers: int, return_interval: float = 1) -> tuple[int, ...]:
    """Numbers of the aligned blocks, ascending: depth - 1 - int(i * interval) for i < return_layers.

    `ConfigError` where two coincide (an interval below 1) or lie before the first block.
    """
    indices = [depth - 1 - int(i * return_interval) for i in range(return_layers)]
    if return_layers < 1 or not return_interval > 0 or len(set(indices)) < len(indices) or min(indices) < 0:
        fit = math.floor((depth - 1) / max(return_interval, 1)) + 1
        raise ConfigError(
            f"return_layers ({return_layers}) at return_interval ({return_interval}) gives the blocks {indices} of "
            f"{depth}, which must be distinct and not negative. "
            f"At interval {max(return_interval, 1)} use 1..{fit} layers."
        )
    return tuple(sorted(indices))


def check_transformer(
    *,
    width: int,
    depth: int,
    heads: int,
    mlp_ratio: float = 4.0,
    checkpoint_num: int = 0,
    drop_path_rate: float = 0.0,
    **rates: float,
) -> None:
    """`ConfigError` for sizes that no transformer can have. `rates` are further probabilities in 0 <= p < 1."""
    if min(width, depth, heads) < 1 or width % heads:
        raise ConfigError(
            f"width ({width}), depth ({depth}) and heads ({heads}) must be at least 1, and heads must divide width."
        )
    if int(width * mlp_ratio) < 1:
        raise ConfigError(f"mlp_ratio ({mlp_ratio}) leaves no hidden unit; 4 is usual.")
    if not 0 <= checkpoint_num <= depth:
        raise ConfigError(f"checkpoint_num ({checkpoint_num}) must lie in 0..{depth}, the number of blocks.")
    for name, rate in {"drop_path_rate": drop_path_rate, **rates}.items():
        if not 0 <= rate < 1:
            raise ConfigError(f"{name} ({rate}) is a probability: use 0 <= {name} < 1.")
