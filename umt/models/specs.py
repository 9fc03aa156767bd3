"""Sizes of the models by name, and the arithmetic of tokens. No torch: a recipe is checked in a fraction of a second.

A model is one entry of `SPECS`, its kind one of `FAMILIES`. Grids are (T', H', W') in tokens, images (H, W) in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from umt.errors import ConfigError
from umt.spelling import did_you_mean

Grid = tuple[int, int, int]


class Family(NamedTuple):
    """Models of one class.

    Attributes:
        model: `module:class`, imported when a model is made. `arguments`: keywords of the class -> our fields.
        noun: what such a model is called in a sentence.
        card: what a model card says of it, with {sizes}, {layout} and {head}.
    """

    model: str
    arguments: Mapping[str, str]
    noun: str
    card: str = ""


_SIZES = ("image_size", "patch_size", "width", "depth", "heads", "tubelet_size")


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in (*_SIZES, *names)}


FAMILIES: dict[str, Family] = {
    "student": Family(
        "umt.models.vit.student:Student",
        {**_same("num_frames", "return_layers", "position_grid"), "teacher_width": "output_dim"},
        "student",
        "An Unmasked Teacher student{sizes} with its decoders, {layout}.",
    ),
    "classifier": Family(
        "umt.models.vit.classifier:VisionTransformer",
        _same("num_frames", "position_grid"),
        "ViT",
        "A plain video ViT{sizes}, {layout}. {head}",
    ),
    "teacher": Family("umt.models.teachers.clip:ClipTeacher", _same("output_dim", "return_layers"), "teacher"),
}


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
        arguments = {keyword: getattr(self, name) for keyword, name in FAMILIES[self.kind].arguments.items()}
        if self.mlp_ratio != 4.0:
            arguments["mlp_ratio"] = self.mlp_ratio
        return arguments


Sizes = dict[str, Any]
_PUBLISHED_GRID: Grid = (8, 14, 14)  # 8 frames at 224 px, patch 16: what the published weights were pretrained on
_SMALL: Sizes = {"width": 384, "depth": 12, "heads": 6, "patch_size": 16}
_BASE: Sizes = {"width": 768, "depth": 12, "heads": 12, "patch_size": 16}
_LARGE: Sizes = {"width": 1024, "depth": 24, "heads": 16, "patch_size": 16}
_HUGE: Sizes = {"width": 1280, "depth": 32, "heads": 16, "patch_size": 16}
_GIANT: Sizes = {"width": 1408, "depth": 40, "heads": 16, "patch_size": 14, "mlp_ratio": 48 / 11}
# As VideoMAE and VideoMAE V2 pretrain them: 16 frames, two a token.
_VIDEOMAE: Sizes = {"num_frames": 16, "tubelet_size": 2}
# For tests and the quickstart. Their sinusoid is defined on their own grid, as the published one is on its own.
_TINY: Sizes = {"width": 96, "depth": 4, "heads": 3, "patch_size": 8, "image_size": 64}
_SMALLEST: Sizes = {**_TINY, "image_size": 48, "width": 64, "heads": 2}


def _student(summary: str, sizes: Sizes, *, output_dim: int, return_layers: int = 6, **others: Any) -> ModelSpec:
    more = {"output_dim": output_dim, "return_layers": return_layers, **others}
    return ModelSpec("student", summary, **{"image_size": 224, "position_grid": _PUBLISHED_GRID, **sizes, **more})


def _classifier(summary: str, sizes: Sizes, **others: Any) -> ModelSpec:
    return ModelSpec("classifier", summary, **{"image_size": 224, "position_grid": _PUBLISHED_GRID, **sizes, **others})


def _teacher(summary: str, sizes: Sizes, *, output_dim: int, return_layers: int = 6, **others: Any) -> ModelSpec:
    more = {"output_dim": output_dim, "return_layers": return_layers, "num_frames": None, **others}
    return ModelSpec("teacher", summary, **{"image_size": 224, **sizes, **more})


SPECS: dict[str, ModelSpec] = {
    "pretrain_umt_base_patch16_224": _student("UMT-B/16 student of CLIP-B/16 at 224 px", _BASE, output_dim=512),
    "pretrain_umt_large_patch16_224": _student(
        "UMT-L/16 student of CLIP-L/14 at 196 px, whose 14 x 14 grid matches its own", _LARGE, output_dim=768
    ),
    "vit_base_patch16_224": _classifier("ViT-B/16 video classifier", _BASE),
    "vit_base_patch16_384": _classifier("ViT-B/16 video classifier at 384 px", _BASE, image_size=384),
    "vit_large_patch16_224": _classifier("ViT-L/16 video classifier", _LARGE),
    "vit_large_patch16_384": _classifier("ViT-L/16 video classifier at 384 px", _LARGE, image_size=384),
    "vit_small_patch16_224": _classifier("ViT-S/16 video classifier in VideoMAE's size", _SMALL, **_VIDEOMAE),
    "vit_huge_patch16_224": _classifier("ViT-H/16 video classifier in VideoMAE's size", _HUGE, **_VIDEOMAE),
    "vit_giant_patch14_224": _classifier(
        "ViT-g/14 video classifier in the size of VideoMAE V2", _GIANT, position_grid=(8, 16, 16), **_VIDEOMAE
    ),
    "clip_b16": _teacher("CLIP-B/16 visual tower", _BASE, output_dim=512),
    "clip_l14": _teacher("CLIP-L/14 visual tower", _LARGE, patch_size=14, output_dim=768),
    "clip_l14_336": _teacher("CLIP-L/14 visual tower at 336 px", _LARGE, patch_size=14, image_size=336, output_dim=768),
    "pretrain_umt_tiny_patch8_64": _student(
        "tiny student of clip_tiny_patch8_64", _TINY, output_dim=64, return_layers=2, position_grid=(8, 8, 8)
    ),
    "vit_tiny_patch8_64": _classifier("tiny video classifier", _TINY, position_grid=(8, 8, 8)),
    "clip_tiny_patch8_64": _teacher("tiny teacher in CLIP's layout", _TINY, output_dim=64, return_layers=2),
    "pretrain_umt_tiny_patch8_48": _student(
        "the quickstart's student", _SMALLEST, output_dim=64, return_layers=2, position_grid=(8, 6, 6)
    ),
    "vit_tiny_patch8_48": _classifier("the quickstart's classifier", _SMALLEST, position_grid=(8, 6, 6)),
    "clip_tiny_patch8_48": _teacher("the quickstart's teacher", _SMALLEST, output_dim=64, return_layers=2),
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


class TokenNames(NamedTuple):
    """What the sizes of a clip are called in errors: the keywords of the models' classes, or the flags of a command."""

    size: str = "image_size"
    patch: str = "the patch_size"
    frames: str = "num_frames"
    tubelet: str = "tubelet_size"

    @classmethod
    def of_flags(cls, model: str, size: str = "--input_size") -> TokenNames:
        """The flags of training; `model` is the one whose patch is meant, `size` the flag of its image size."""
        return cls(size, f"the patch of {model}", "--num_frames", "--tubelet_size")


KEYWORDS = TokenNames()


def token_grid(
    image_size: int | tuple[int, int],
    patch_size: int,
    num_frames: int = 1,
    tubelet_size: int = 1,
    *,
    names: TokenNames = KEYWORDS,
) -> Grid:
    """(T', H', W') tokens of a clip; `ConfigError` where the patches or tubelets do not tile it.

    The error has `names`, the value, and the nearest sizes that work.
    """
    height, width = image_shape(image_size)
    for name, value in (
        (names.size, min(height, width)),
        (names.patch, patch_size),
        (names.frames, num_frames),
        (names.tubelet, tubelet_size),
    ):
        if value < 1:
            raise ConfigError(f"{name} ({value}) must be at least 1.")
    if height % patch_size or width % patch_size:
        if height == width:
            fitting = [f"{n * patch_size}" for n in (height // patch_size, height // patch_size + 1) if n]
        else:
            fitting = [_pixels(*(max(round(side / patch_size), 1) * patch_size for side in (height, width)))]
        raise ConfigError(
            f"{names.size} ({_pixels(height, width)}) must be a multiple of {patch_size}, {names.patch}. "
            f"Try {names.size} {' or '.join(fitting)}."
        )
    if num_frames % tubelet_size:
        raise ConfigError(
            f"{names.frames} ({num_frames}) must be a multiple of {names.tubelet} ({tubelet_size}). "
            f"Try {names.frames} {max(num_frames // tubelet_size, 1) * tubelet_size}."
        )
    return num_frames // tubelet_size, height // patch_size, width // patch_size


def check_teacher_grid(
    student: Grid,
    *,
    input_size: int | tuple[int, int],
    tubelet_size: int,
    teacher: str,
    resolution: int | tuple[int, int],
    patch_size: int,
    teacher_tubelet: int = 1,
) -> None:
    """`ConfigError` unless a teacher has the tokens of the grid `student`, with the flags of pretraining in its text.

    Args:
        input_size, tubelet_size: those of the student.
        teacher: its name, for the text. `resolution`, `patch_size`, `teacher_tubelet`: its own sizes.
    """
    _, height, width = token_grid(
        resolution, patch_size, names=TokenNames.of_flags(teacher, "--clip_input_resolution")
    )  # fmt: skip
    if (height, width) != student[1:]:
        fitting = _pixels(student[1] * patch_size, student[2] * patch_size)
        raise ConfigError(
            f"--clip_input_resolution ({_pixels(*image_shape(resolution))}) gives {teacher} {height} x {width} tokens "
            f"a frame, but --input_size ({_pixels(*image_shape(input_size))}) gives the student {student[1]} x "
            f"{student[2]}. Try --clip_input_resolution {fitting}."
        )
    if tubelet_size != teacher_tubelet:
        frames = "frame" if teacher_tubelet == 1 else f"{teacher_tubelet} frames"
        raise ConfigError(
            f"--tubelet_size ({tubelet_size}) must be {teacher_tubelet}: the image teacher has tokens for every "
            f"{frames}. Try --tubelet_size {teacher_tubelet}."
        )


def _pixels(height: int, width: int) -> str:
    return str(height) if height == width else f"{height} x {width}"


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


def check_norm_type(norm_type: str) -> None:
    """`ConfigError` for another normalisation of predictions and targets than those that exist."""
    if norm_type not in ("l2", "none"):
        raise ConfigError(f"norm_type ({norm_type!r}) must be 'l2' or 'none'.")
