"""The original's numbers, and what they were made with (tests/golden/umt/weight_rule.md)."""

from __future__ import annotations

import functools
import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from umt.models import ClipTeacher, Student, VisionTransformer

FOLDER = Path(__file__).parents[1] / "golden" / "umt"


@functools.cache
def facts(name: str) -> Any:
    """A json file of the goldens."""
    return json.loads((FOLDER / f"{name}.json").read_text())


@functools.cache
def arrays(name: str) -> dict[str, Tensor]:
    """An npz file of the goldens, as tensors."""
    with np.load(FOLDER / f"{name}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file}


def random(seed: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(zlib.crc32(seed.encode()))).random(shape)


def z(seed: str, shape: tuple[int, ...]) -> np.ndarray:
    return (2 * random(seed, shape) - 1) * math.sqrt(3)


def weight(name: str, shape: tuple[int, ...]) -> Tensor:
    """Weights of the tensor `name`, by the rule."""
    last = name.rsplit(".", 1)[-1]
    if len(shape) > 1:
        values = z(name, shape) / math.sqrt(math.prod(shape[1:]))
    elif last == "weight" or last.startswith("gamma"):
        values = 1 + 0.1 * z(name, shape)
    else:
        values = 0.1 * z(name, shape)
    return torch.from_numpy(values.astype(np.float32))


def filled(model: nn.Module) -> Any:
    """`model` with weights by the rule, in evaluation mode. A classifier's position table is not touched."""
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name != "pos_embed":
                tensor.copy_(weight(name, tuple(tensor.shape)))
    return model.eval()


def clip(tag: str, *shape: int) -> Tensor:
    """The input `tag`: a video (B, 3, T, H, W) as if normalised."""
    return torch.from_numpy(z(f"input:{tag}", shape).astype(np.float32))


def visible(tag: str, clips: int, frames: int, tokens: int, ratio: float) -> Tensor:
    """The mask `tag` as indices of its visible tokens, ascending (B, V)."""
    draw = random(f"mask:{tag}", (clips, frames, tokens))
    kept = np.sort(np.argsort(draw, axis=-1, kind="stable")[..., : tokens - int(tokens * ratio)], axis=-1)
    return torch.from_numpy((kept + tokens * np.arange(frames)[:, None]).reshape(clips, -1))


def small_clip() -> Tensor:
    return clip("small", 2, 3, 4, 64, 64)


def small_visible() -> Tensor:
    return visible("small", 2, 4, 16, 0.75)


def small_student(name: str, **overrides: Any) -> Student:
    """A small student of the goldens (`k2`, `k3`, ...), filled."""
    a = facts("small_models")[f"student/{name}"]["args"]
    arguments = {
        "image_size": a["img"],
        "patch_size": a["patch"],
        "width": a["dim"],
        "depth": a["depth"],
        "heads": a["heads"],
        "num_frames": a["frames"],
        "tubelet_size": a["tube"],
        "return_layers": a["K"],
        "return_interval": a["interval"],
        "norm_type": a["norm"],
        "init_values": a["init_values"],
        "use_learnable_pos_emb": a["learnable_pos"],
        "decoder_embed_dim": a["decoder_dim"],
        "teacher_width": a["clip_output_dim"],
    }
    return filled(Student(**{**arguments, **overrides}))


def small_teacher(name: str, **overrides: Any) -> ClipTeacher:
    """A small teacher of the goldens (`k2`, `k2_none`, `k2_masked`), filled."""
    a = facts("small_models")[f"teacher/{name}"]["args"]
    arguments = {
        "image_size": a["res"],
        "patch_size": a["patch"],
        "width": a["width"],
        "depth": a["layers"],
        "heads": a["heads"],
        "output_dim": a["out"],
        "tubelet_size": a["kernel_size"],
        "return_layers": a["K"],
        "return_interval": a["interval"],
        "norm_type": a["norm"],
    }
    return filled(ClipTeacher(**{**arguments, **overrides}))


def small_classifier(name: str, **overrides: Any) -> VisionTransformer:
    """A small classifier of the goldens (`mean_4f64`, ...), filled."""
    a = facts("small_models")[f"classifier/{name}"]["args"]
    arguments = {
        "image_size": a["img"],
        "patch_size": a["patch"],
        "width": a["dim"],
        "depth": a["depth"],
        "heads": a["heads"],
        "num_frames": a["frames"],
        "tubelet_size": a["tube"],
        "use_mean_pooling": a["mean"],
        "num_classes": a["num_classes"],
        "init_values": a["init_values"],
    }
    return filled(VisionTransformer(**{**arguments, **overrides}))


def classifier_clip(name: str) -> Tensor:
    """The input of a small classifier of the goldens."""
    a = facts("small_models")[f"classifier/{name}"]["args"]
    frames, side = a["frames"], a["img"]
    return clip(f"cls_{frames}f{side}", 2 if side == 64 else 1, 3, frames, side, side)


def close(actual: Tensor, expected: Tensor | float) -> bool:
    """Within the tolerance that the goldens' README recommends."""
    expected = torch.as_tensor(expected, dtype=actual.dtype)
    return actual.shape == expected.shape and torch.allclose(actual, expected, rtol=1e-4, atol=1e-5)
