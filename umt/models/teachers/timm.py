"""Any vision transformer of timm's as the frozen image teacher: DINOv2, DINOv3, SigLIP 2, EVA-02, a plain ViT.

Paper of the method: https://arxiv.org/abs/2303.16058. What differs from CLIP's tower (clip.py):

- Targets are the tokens after the model's final norm, as wide as the model; there is no projection.
- Frames come normalised for ImageNet, as the student has them, and are brought to the statistics that the model was
  trained with. (CLIP gets them as they are, because the published students were taught so.)
- Saliency, which guides the mask, is what the model itself looks at: its class token's attention in the last block;
  without a class token that of its attention pool (SigLIP); without either, how much attention a patch gets from all
  others in the last block. Registers are left out. Always the mean over heads.

The attention is not computed a second time by formulas of ours: queries and keys are taken as the model hands them to
`scaled_dot_product_attention`, rotary positions and norms of queries and keys included.

Shapes: B clips, T frames, N patches of a frame, P tokens before them (class token, registers), L = P + N, h heads,
d width of a head, D width, K returned layers, V visible tokens of a clip.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from umt import imagenet
from umt.errors import CheckpointError, ConfigError
from umt.models.files.hub_access import asking_the_hub
from umt.models.specs import TokenNames, check_norm_type, image_shape, return_indices, token_grid
from umt.models.teachers.timm_names import TIMM
from umt.models.video_input import resize_frames
from umt.spelling import did_you_mean

# What a file may have that a teacher lacks: heads, and what pretraining hid tokens with.
_NOT_OF_A_TEACHER = ("head", "fc_norm", "lm_head", "mask_token", "decoder", "pre_logits")

Saliency = Literal["class token", "attention pool", "attention received"]


class TimmTeacher(nn.Module):
    """Looks at every frame by itself.

    Args:
        model: of timm, made for `image_size`, e.g. by `load_timm`.
        name: its name, for errors.
        image_size: pixels, one number or (height, width), to which clips of another size are resized.
        return_layers, return_interval: K layers are returned: depth - 1 - int(i * interval), i < K.
        norm_type: "l2": `project` gives unit length; "none": as the final norm leaves it.

    Raises `ConfigError` for a model that is no plain vision transformer.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        name: str,
        image_size: int | tuple[int, int] = 224,
        return_layers: int = 6,
        return_interval: float = 1,
        norm_type: Literal["l2", "none"] = "l2",
    ) -> None:
        super().__init__()
        check_norm_type(norm_type)
        vit: Any = model
        if not (hasattr(vit, "blocks") and hasattr(vit, "forward_intermediates") and hasattr(vit, "num_prefix_tokens")):
            raise ConfigError(_no_vit(name))
        self.name = name
        self.model: Any = model.eval()
        self.image_shape = image_shape(image_size)
        self.patch_size, self.patch_grid = _grid(vit, name, self.image_shape)
        self.tubelet_size = 1
        self.num_layers = len(vit.blocks)
        self.output_dim = int(vit.num_features)
        self.norm_type = norm_type
        self.returned = return_indices(self.num_layers, return_layers, return_interval)
        self.prefix = int(vit.num_prefix_tokens)
        self.saliency_from: Saliency = (
            "class token"
            if getattr(vit, "cls_token", None) is not None
            else "attention pool"
            if getattr(vit, "attn_pool", None) is not None
            else "attention received"
        )
        # Models that average their tokens have their last norm behind the mean; for a token it is the final one.
        self._norm = "fc_norm" if isinstance(vit.norm, nn.Identity) else "norm"
        for module in vit.modules():
            if hasattr(module, "fused_attn"):
                module.fused_attn = True  # the other form, without torch's function, cannot be observed
        configured = getattr(vit, "pretrained_cfg", None) or {}
        self.mean = tuple(configured.get("mean") or imagenet.MEAN)
        self.std = tuple(configured.get("std") or imagenet.STD)

    def resize(self, video: Tensor) -> Tensor:
        """video (B, 3, T, H, W) -> (B, 3, T, h, w) of the teacher's size, as for CLIP: bicubic, not antialiased."""
        return resize_frames(video, self.image_shape)

    def renormalize(self, video: Tensor) -> Tensor:
        """video (B, 3, T, H, W) with ImageNet's mean and standard deviation -> the same with the model's own."""
        if self.mean == imagenet.MEAN and self.std == imagenet.STD:
            return video
        channels = zip(video.unbind(1), imagenet.MEAN, imagenet.STD, self.mean, self.std, strict=True)
        return torch.stack([(x * (was_s / s)) + (was_m - m) / s for x, was_m, was_s, m, s in channels], dim=1)

    def forward(self, video: Tensor) -> tuple[list[Tensor], Tensor]:
        """video (B, 3, T, H, W) float -> features, K x (B, T N, D) before `project`, and saliency (B, T, N) float32.

        The rows of saliency sum to 1 less what goes to class token and registers.
        """
        if video.ndim != 5 or video.shape[1] != 3 or not video.is_floating_point():
            raise ConfigError(
                "the teacher takes normalised clips (batch, 3, frames, height, width), not "
                f"{tuple(video.shape)} {video.dtype}."
            )
        clips = video.shape[0]
        frames = self.renormalize(self.resize(video)).transpose(1, 2).flatten(0, 1)  # (B T, 3, h, w)
        with _Listening() as heard:
            last, features = self.model.forward_intermediates(
                frames, indices=list(self.returned), norm=False, output_fmt="NLC"
            )
            if self.saliency_from == "attention pool":
                self.model.attn_pool(last)
        features = [x.unflatten(0, (clips, -1)).flatten(1, 2) for x in features]
        return features, self._saliency(heard).unflatten(0, (clips, -1))

    def _saliency(self, heard: _Listening) -> Tensor:
        """The attention that was heard last -> (B T, N) float32."""
        patches = self.patch_grid[0] * self.patch_grid[1]
        if heard.query is None or heard.key is None or heard.key.shape[-2] != self.prefix + patches:
            raise ConfigError(_no_vit(self.name))
        query, key, mask, scale = heard.query, heard.key, heard.mask, heard.scale
        if self.saliency_from == "class token":
            query, mask = query[..., :1, :], None if mask is None else mask[..., :1, :]
        elif self.saliency_from == "attention received":
            query, mask = query[..., self.prefix :, :], None if mask is None else mask[..., self.prefix :, :]
        total: Tensor | None = None
        for head in range(query.shape[1]):  # one at a time: of all patches' attention only the mean is kept
            scores = (query[:, head] * scale) @ key[:, head].transpose(-2, -1)  # (B T, Q, L)
            if mask is not None:
                scores = scores + mask[:, head if mask.shape[1] > 1 else 0]
            row = scores.float().softmax(dim=-1).mean(dim=1)
            total = row if total is None else total + row
        assert total is not None
        return total[:, self.prefix :] / query.shape[1]

    def project(self, features: list[Tensor], visible: Tensor | None = None) -> Tensor:
        """features K x (B, L, D), visible (B, V) -> targets (K, B, V, D) float32; None: all L tokens.

        The final norm is computed at the visible tokens only.
        """
        if visible is not None:
            features = [f.gather(1, visible[..., None].expand(-1, -1, f.shape[-1])) for f in features]
        x = getattr(self.model, self._norm)(torch.stack(features)).float()
        return F.normalize(x, dim=-1) if self.norm_type == "l2" else x


class _Listening(TorchFunctionMode):
    """Keeps queries and keys (B, h, L, d) of the last attention that was computed while it is on."""

    def __init__(self) -> None:
        super().__init__()
        self.query: Tensor | None = None
        self.key: Tensor | None = None
        self.mask: Tensor | None = None
        self.scale = 1.0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            named = dict(zip(("query", "key", "value", "attn_mask"), args, strict=False)) | kwargs
            self.query, self.key, self.mask = named["query"], named["key"], named.get("attn_mask")
            scale = named.get("scale")
            self.scale = float(scale) if scale is not None else float(named["query"].shape[-1]) ** -0.5
        return func(*args, **kwargs)


def load_timm(
    name: str, *, weights: str = "", download: bool = True, image_size: int | tuple[int, int] = 224
) -> tuple[nn.Module, str]:
    """timm's model `name` for images of `image_size`, without its classifier, and where its weights are from.

    Args:
        weights: a file, URL or name of the hub that holds this model's state dict, or one that timm's own reader
            brings to it; "": timm's own, downloaded.
        download: False: without `weights` they stay random.

    Raises `ConfigError` for a name that timm does not have, with the nearest, and `CheckpointError` for weights that
    are not to be had or do not fit.
    """
    try:
        import timm
    except ImportError:
        raise ConfigError(f"teacher {TIMM}{name} needs timm. Run: pip install timm") from None
    _check_name(timm, name)
    pretrained = download and not weights
    model: Any
    try:
        with asking_the_hub() if pretrained else contextlib.nullcontext():
            model = timm.create_model(name, pretrained=pretrained, num_classes=0, img_size=image_size)
    except TypeError:
        raise ConfigError(_no_vit(name)) from None
    except (OSError, RuntimeError, AssertionError, ValueError) as error:
        if not pretrained:
            raise ConfigError(f"teacher {TIMM}{name} cannot be made for {image_size} px: {error}") from error
        if "No pretrained weights" in str(error):
            raise CheckpointError(f"teacher {TIMM}{name}: timm has no weights for it. Give a file of them.") from None
        raise CheckpointError(
            f"teacher {TIMM}{name}: timm cannot fetch its weights ({_reason(error)}). Start it once where "
            "there is a network, or give their file."
        ) from error
    if not weights:
        tagged = ".".join(filter(None, (name.partition(".")[0], (model.pretrained_cfg or {}).get("tag"))))
        return model, f"timm's own weights of {tagged}" if pretrained else f"timm's {name} with random weights"
    return model, _load_file(model, name, weights)


def _reason(error: Exception) -> str:
    """Why timm has no weights, in a few words: the hub's package says it at length."""
    if type(error).__name__ in ("LocalEntryNotFoundError", "OfflineModeIsEnabled"):
        return "they are not in the hub's cache here, and the hub cannot be reached"
    return _first_line(error)


def _load_file(model: nn.Module, name: str, weights: str) -> str:
    """Loads a file by timm's own filter for this model, which also resamples positions; every weight must be in it."""
    from umt.models.files.checkpoint_file import read_state_dict
    from umt.models.files.fetch import fetch
    from umt.models.layouts.adapters import strip_wrappers

    state = strip_wrappers(read_state_dict(fetch(weights), model_key="model|module|state_dict"))
    read = getattr(importlib.import_module(type(model).__module__), "checkpoint_filter_fn", None)
    try:
        state = state if read is None else read(state, model)
        missing, unexpected = model.load_state_dict(state, strict=False)
    except (KeyError, IndexError, AttributeError, TypeError, RuntimeError, ValueError, AssertionError) as error:
        raise CheckpointError(f"{weights} is no {name} of timm's: {_first_line(error)}") from error
    if other := [key for key in unexpected if not key.startswith(_NOT_OF_A_TEACHER)]:
        raise CheckpointError(
            f"{weights} is no {name} of timm's: it has {', '.join(other[:4])}, which that model does not have."
        )
    if missing:
        some = ", ".join(missing[:4]) + (", ..." if len(missing) > 4 else "")
        raise CheckpointError(f"{weights} is no {name} of timm's: it lacks {len(missing)} of the weights ({some}).")
    return f"{weights}: all weights of timm's {name}"


def _check_name(timm: Any, name: str) -> None:
    """Raises ConfigError for a model or a tag that timm does not have, and for QuickGELU weights in a GELU model."""
    base, _, tag = name.partition(".")
    if ":" in name or not timm.is_model(base):
        some = "Choose a vit_*, eva02_* or beit* of its list, e.g. vit_small_patch14_dinov2.lvd142m."
        hint = did_you_mean(base, timm.list_models(), some, count=3, cutoff=0.5)
        raise ConfigError(f"teacher {TIMM}{name} is not a model of timm {timm.__version__}. {hint}")
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{base}.*")]
    if tag and tag not in tags:
        known = f"It has {', '.join(tags)}." if tags else "It has none."
        raise ConfigError(f"teacher {TIMM}{name}: timm {timm.__version__} has no weights {tag!r}. {known}")
    configured = timm.get_pretrained_cfg(name, allow_unregistered=True)
    native = base.replace("_clip_", "_clip_quickgelu_")
    notes = getattr(configured, "notes", ()) or ()
    if "_clip_quickgelu" not in base and any("quickgelu" in str(note) for note in notes):
        raise ConfigError(
            f"teacher {TIMM}{name}: these weights were trained with QuickGELU, and this model has GELU. "
            f"Use {TIMM}{native}{'.' if tag else ''}{tag}."
        )


def _grid(vit: Any, name: str, size: tuple[int, int]) -> tuple[int, tuple[int, int]]:
    """(pixels of a patch, patches of a frame in height and width)."""
    height, width = getattr(vit.patch_embed, "grid_size", None) or (0, 0)
    patch, other = getattr(vit.patch_embed, "patch_size", (0, 0))
    if not height or patch != other:
        raise ConfigError(_no_vit(name))
    if size != (height * patch, width * patch):
        token_grid(size, patch, names=TokenNames.of_flags(f"{TIMM}{name}", "--clip_input_resolution"))
        raise ConfigError(_no_vit(name))
    return int(patch), (int(height), int(width))


def _no_vit(name: str) -> str:
    return (
        f"teacher {TIMM}{name} is no vision transformer with patches of one size and attention over all of a "
        "frame, so it has no tokens to align with. Choose a vit_*, eva02_* or beit* of timm's."
    )


def _first_line(error: Exception) -> str:
    """Of an error's text; of torch's list of misfits, which begins with a line on the model, the second one."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[1 if lines[0].endswith(":") and len(lines) > 1 else 0].strip().rstrip(".")
