"""Finetuning: a classifier of clips, with random erasing, mixup and label smoothing.

Shapes: B clips, T frames, H x W pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from umt.data.batch import Batch
from umt.data.transforms.erasing import MODES, erase
from umt.data.transforms.normalize import normalize
from umt.errors import ConfigError
from umt.tasks.base import StepOutput, Task

Mixup = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]
"""(video (B, 3, T, H, W), label (B,), seed) -> mixed video and soft targets (B, K), smoothing included."""


def classification_loss(logits: Tensor, target: Tensor, smoothing: float = 0.0) -> Tensor:
    """logits (B, K), target (B,) classes or (B, K) soft targets -> mean cross-entropy, in float32.

    `smoothing` is spread over all K classes (https://arxiv.org/abs/1512.00567) and applies to hard labels only: soft
    targets bring their own. Equal to timm's LabelSmoothingCrossEntropy and SoftTargetCrossEntropy.
    """
    with torch.autocast(logits.device.type, enabled=False):
        if target.is_floating_point():
            return F.cross_entropy(logits.float(), target.float())
        return F.cross_entropy(logits.float(), target, label_smoothing=smoothing)


class Classify(Task):
    """Trains and evaluates `model`: video (B, 3, T, H, W) -> logits (B, K).

    Args:
        model: the classifier.
        smoothing: label smoothing where labels are hard, that is without `mixup`.
        mixup: mixes each clip with one of the reversed batch and makes soft targets (smoothing is its affair), or None.
        erase_mode: what random erasing fills in, where the batch brings boxes: pixel, rand or const.

    Raises ConfigError for a smoothing outside [0, 1) or an unknown mode of erasing.
    """

    def __init__(
        self, model: nn.Module, *, smoothing: float = 0.1, mixup: Mixup | None = None, erase_mode: str = "pixel"
    ) -> None:
        if not 0 <= smoothing < 1:
            raise ConfigError(f"--smoothing ({smoothing}) must be at least 0 and below 1; 0 turns it off.")
        if erase_mode not in MODES:
            raise ConfigError(f"--remode ({erase_mode}) is not known. Choose one of {', '.join(MODES)}.")
        self.model = model
        self.smoothing = smoothing
        self.mixup = mixup
        self.erase_mode = erase_mode

    def training_step(self, batch: Batch, seed: int) -> StepOutput:
        """Normalise, erase, mix, classify. `acc1` (percent) is among the metrics where labels are hard."""
        video, target = normalize(batch.video), batch.label
        if batch.erase is not None:
            video = erase(video, batch.erase, batch.seed, self.erase_mode)
        if self.mixup is not None:
            video, target = self.mixup(video, target, seed)
        logits = self.model(video)
        loss = classification_loss(logits, target, self.smoothing)
        metrics = {"loss": loss.detach()}
        if not target.is_floating_point():
            metrics["acc1"] = 100 * (logits.detach().argmax(-1) == target).float().mean()
        return StepOutput(loss, metrics)

    def evaluation_step(self, batch: Batch) -> Tensor:
        """Logits (B, K) float32 of each clip. Whoever calls it has put the model into evaluation mode."""
        return self.model(normalize(batch.video)).float()
