"""Features of a model's layers, pooled as asked, from the outputs of its modules (torch's forward hooks).

Shapes: B clips, L = T' * N tokens, D width, T' tokens in time, N patches of a frame.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from einops import rearrange, reduce
from torch import Tensor, nn

from umt.errors import ConfigError
from umt.inference.recognizer import Recognizer
from umt.models.features import HasFeatures
from umt.models.specs import Grid
from umt.spelling import did_you_mean

POOLS = ("mean", "spatial", "none", "first")
HEAD = "pre_logits"  # what a head is fed


class Extractor:
    """Takes features of `layers` from a recognizer's model.

    Args:
        layers: numbers of blocks (-1: the last), their tokens as they leave the block; "pre_logits": what the head of a
            classifier is fed; or names of modules, as in `model.named_modules()`, whose output is a tensor.
        pool: "mean" over all tokens (B, D); "spatial": over the patches of a moment (B, T', D); "none" (B, L, D);
            "first": the first token, of a CLIP teacher the class token of every frame (B, T', D).

    What has no tokens any more (B, D) stays as it is. Raises ConfigError for layers that the model does not have.
    """

    def __init__(self, recognizer: Recognizer, layers: Sequence[str], pool: str = "mean") -> None:
        if pool not in POOLS:
            raise ConfigError(f"--pool ({pool}) must be one of {', '.join(POOLS)}.")
        if not isinstance(recognizer.model, HasFeatures):
            raise ConfigError(f"umt extract does not know the blocks of {type(recognizer.model).__name__}.")
        self.recognizer, self.layers, self.pool = recognizer, tuple(layers), pool
        self.model: HasFeatures = recognizer.model
        if len(set(self.layers)) < len(self.layers):
            raise ConfigError(f"--layer ({' '.join(self.layers)}) names a layer twice.")
        self.modules = {layer: _module(recognizer.model, self.model, layer) for layer in self.layers}

    @property
    def grid(self) -> Grid:
        """(T', H', W') tokens of a clip."""
        return self.model.feature_grid(self.recognizer.views.num_frames)

    def __call__(self, views: Tensor) -> dict[str, Tensor]:
        """views (V, T, H, W, 3) uint8 -> for each layer (V, ...) float32 on the CPU."""
        parts: dict[str, list[Tensor]] = {layer: [] for layer in self.layers}
        for batch in self.recognizer.batches(views):
            for layer, output in self.outputs(batch).items():
                parts[layer].append(output)
        return {layer: torch.cat(outputs).cpu() for layer, outputs in parts.items()}

    @torch.inference_mode()
    def outputs(self, batch: Tensor) -> dict[str, Tensor]:
        """batch (B, 3, T, H, W), normalised, on the device -> for each layer (B, ...) float32 there."""
        seen: dict[str, Tensor] = {}
        with _hooked(self.modules, seen), self.recognizer.autocast():
            self.model.forward_all(batch)
        missing = [layer for layer in self.layers if layer not in seen]
        if missing:
            raise ConfigError(
                f"--layer {missing[0]}: the model does not use this module in its forward pass, or what it gives is no "
                "tensor. Take another one, e.g. a block's number."
            )
        return {layer: self._pooled(layer, seen[layer], len(batch)) for layer in self.layers}

    def _pooled(self, layer: str, output: Tensor, clips: int) -> Tensor:
        time, tokens = self.grid[0], self.grid[0] * self.grid[1] * self.grid[2]
        output = output.float()
        if output.ndim == 3 and output.shape[0] == clips * time:  # each frame is an image of the batch
            frames = rearrange(output, "(b t) n d -> b t n d", b=clips)
            if frames.shape[2] == tokens // time + 1:  # the class token stands first
                if self.pool == "first":
                    return frames[:, :, 0]
                frames = frames[:, :, 1:]
            output = rearrange(frames, "b t n d -> b (t n) d")
        if (output.ndim == 2 and output.shape[0] == clips) or (self.pool == "none" and output.shape[0] == clips):
            return output
        if output.ndim != 3 or tuple(output.shape[:2]) != (clips, tokens):
            raise ConfigError(
                f"--layer {layer} gives {tuple(output.shape)} for {clips} clips, which are no tokens (B, {tokens}, D) "
                "to be pooled. Take --pool none, or another layer."
            )
        if self.pool == "mean":
            return output.mean(1)
        return reduce(output, "b (t n) d -> b t d", "mean", t=time) if self.pool == "spatial" else output[:, 0]


def usual_layer(recognizer: Recognizer) -> str:
    """The layer that is taken by default: what the head is fed, else the last block."""
    return HEAD if getattr(recognizer.model, "head_input", "") else "-1"


def _module(module: nn.Module, model: HasFeatures, layer: str) -> nn.Module:
    """`module` and `model` are the same object by its two types."""
    if layer == HEAD:
        if not model.head_input:
            raise ConfigError(
                f"--layer {HEAD} is of classifiers; this model has no head. Take a block, e.g. --layer -1."
            )
        return module.get_submodule(model.head_input)
    blocks = model.feature_blocks()
    if layer.lstrip("-").isdigit():
        number = int(layer)
        if not -len(blocks) <= number < len(blocks):
            raise ConfigError(
                f"--layer {layer}: the model has blocks 0 to {len(blocks) - 1}, or -{len(blocks)} to -1 from the end."
            )
        return blocks[number]
    named = dict(module.named_modules())
    if layer not in named or not layer:
        hint = did_you_mean(layer, list(named), f"Take a block (-1), {HEAD}, or a module's name.", count=3)
        raise ConfigError(f"--layer {layer}: the model has no such module. {hint}")
    return named[layer]


@contextlib.contextmanager
def _hooked(modules: dict[str, nn.Module], seen: dict[str, Tensor]) -> Iterator[None]:
    def keep(layer: str) -> object:
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor):
                seen[layer] = output

        return hook

    handles = [module.register_forward_hook(keep(layer)) for layer, module in modules.items()]  # type: ignore[arg-type]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
