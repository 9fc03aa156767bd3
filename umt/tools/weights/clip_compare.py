"""The converted tower and the library that its file belongs to: the same frames, the features of both.

A renaming that is wrong gives weights of the right shapes. So the library's own code loads the file in its own way and
computes class token and patches; timm, transformers and open_clip are imported here and only here, where installed.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from umt.models.layouts.adapters import StateDict
from umt.models.layouts.clip import OPENAI, VisualTower
from umt.models.teachers.clip import ClipTeacher
from umt.tools.weights.clip_source import Source

FRAMES = 2
Reference = Callable[[Tensor], Tensor]  # frames (B, 3, H, W) -> class token and patches, projected (B, 1 + N, E)


class Comparison(NamedTuple):
    """The largest difference between two features, and the largest feature."""

    library: str
    difference: float
    largest: float

    def __str__(self) -> str:
        return f"equal to {self.library}'s within {self.difference:.1e} of {self.largest:.1f}"


def compare(source: Source, state: StateDict, tower: VisualTower, teacher: ClipTeacher) -> list[Comparison] | str:
    """Against every installed library that reads the file's layout by itself; a reason where there is none."""
    makers: dict[str, Callable[[], Reference]]
    if tower.layout == OPENAI:
        makers = {
            "open_clip": lambda: _open_clip(tower.state, teacher),
            "timm": lambda: _timm({"visual." + name: value for name, value in tower.state.items()}, teacher),
        }
    elif tower.layout.startswith("Hugging Face"):
        makers = {"transformers": lambda: _transformers(source.path, state, teacher)}
    else:
        makers = {"timm": lambda: _timm(dict(state), teacher)}
    height, width = teacher.image_shape
    frames = torch.randn(FRAMES, 3, height, width, generator=torch.Generator().manual_seed(0))
    comparisons = []
    with torch.no_grad():
        ours = teacher.encode_tokens(frames[:, :, None])[:, 0]
        for library, make in makers.items():
            version = _version(library)
            if version is not None:
                theirs = make()(frames)
                difference = (ours - theirs).abs().max().item()
                comparisons.append(Comparison(f"{library} {version}", difference, theirs.abs().max().item()))
    return comparisons or f"{' and '.join(makers)}, whose files these are, cannot be imported here"


def _version(library: str) -> str | None:
    try:
        return str(importlib.import_module(library).__version__)
    except ImportError:
        return None


def _timm(state: StateDict, teacher: ClipTeacher) -> Reference:
    """timm's model; its filter brings OpenAI's names to its own by timm's own rules."""
    import timm
    from timm.models.vision_transformer import checkpoint_filter_fn

    width, heads = teacher.conv1.weight.shape[0], teacher.transformer.blocks()[0].attn.heads
    model: Any = timm.create_model(
        "vit_base_patch16_clip_quickgelu_224", img_size=teacher.image_shape, patch_size=teacher.patch_size,
        embed_dim=width, depth=teacher.num_layers, num_heads=heads, num_classes=teacher.output_dim,
    )  # fmt: skip
    model.eval()
    filtered = {name: value.float() for name, value in checkpoint_filter_fn(state, model).items()}
    filtered.setdefault("head.bias", torch.zeros(teacher.output_dim))
    model.load_state_dict(filtered, strict=True)
    return lambda frames: torch.cat((model(frames)[:, None], model.head(model.forward_features(frames)[:, 1:])), dim=1)


def _transformers(path: Path, state: StateDict, teacher: ClipTeacher) -> Reference:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    heads, width = teacher.transformer.blocks()[0].attn.heads, teacher.conv1.weight.shape[0]
    config = CLIPVisionConfig(
        hidden_size=width, intermediate_size=4 * width, num_hidden_layers=teacher.num_layers, num_attention_heads=heads,
        image_size=teacher.image_shape[0], patch_size=teacher.patch_size, projection_dim=teacher.output_dim,
    )  # fmt: skip
    written = (path if path.is_dir() else path.parent) / "config.json"
    if written.is_file():
        content = json.loads(written.read_text(encoding="utf-8"))
        vision = {**content.get("vision_config", content), "projection_dim": content.get("projection_dim", 512)}
        config = CLIPVisionConfig(**vision)
    model: Any = CLIPVisionModelWithProjection(config).eval()
    tower = {name: state[name].float() for name in model.state_dict() if name in state}
    model.load_state_dict(tower, strict=True)

    def tokens(frames: Tensor) -> Tensor:
        out = model(pixel_values=frames)
        patches = model.visual_projection(model.vision_model.post_layernorm(out.last_hidden_state[:, 1:]))
        return torch.cat((out.image_embeds[:, None], patches), dim=1)

    return tokens


def _open_clip(state: StateDict, teacher: ClipTeacher) -> Reference:
    from open_clip.transformer import QuickGELU, VisionTransformer

    width, heads = teacher.conv1.weight.shape[0], teacher.transformer.blocks()[0].attn.heads
    model: Any = VisionTransformer(
        image_size=teacher.image_shape[0], patch_size=teacher.patch_size, width=width, layers=teacher.num_layers,
        heads=heads, mlp_ratio=4.0, output_dim=teacher.output_dim, act_layer=QuickGELU, output_tokens=True,
    ).eval()  # fmt: skip
    model.load_state_dict({name: value.float() for name, value in state.items()}, strict=True)

    def tokens(frames: Tensor) -> Tensor:
        pooled, patches = model(frames)
        return torch.cat((pooled[:, None], patches @ model.proj), dim=1)

    return tokens
