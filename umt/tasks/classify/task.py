"""Finetuning: a classifier of clips, with random erasing, mixup and label smoothing.

Shapes: B clips, T frames, H x W pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from umt.data.loading.clip_batch import ClipBatch
from umt.data.transforms.erasing import MODES, erase
from umt.data.transforms.normalize import normalize
from umt.errors import ConfigError
from umt.tasks.base import StepOutput
from umt.tasks.video.task import ClipTask

Mixup = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]
"""(video (B, 3, T, H, W), label (B,) or (B, K), seed) -> mixed video and soft targets (B, K), smoothing included."""


def classification_loss(
    logits: Tensor, target: Tensor, smoothing: float = 0.0, weights: Tensor | None = None
) -> Tensor:
    """logits (B, K), target (B,) classes or (B, K) soft targets -> mean cross-entropy, in float32.

    `smoothing` is spread over all K classes (https://arxiv.org/abs/1512.00567) and applies to hard labels only: soft
    targets bring their own. Equal to timm's LabelSmoothingCrossEntropy and SoftTargetCrossEntropy.
    `weights` (K,): each class's part of a target counts so often; the mean stays one over clips, not over weights, so
    that it is the same however clips are shared out over micro-batches and processes.
    """
    with torch.autocast(logits.device.type, enabled=False):
        if weights is not None and not target.is_floating_point():
            target, smoothing = _smoothed(F.one_hot(target, logits.shape[1]).float(), smoothing), 0.0
        if target.is_floating_point():
            return F.cross_entropy(logits.float(), target.float(), weight=weights)
        return F.cross_entropy(logits.float(), target, label_smoothing=smoothing)


def _smoothed(hot: Tensor, smoothing: float) -> Tensor:
    return hot * (1 - smoothing) + smoothing / hot.shape[1]


def multi_label_loss(logits: Tensor, target: Tensor, smoothing: float = 0.0, weights: Tensor | None = None) -> Tensor:
    """logits (B, K), target (B, K) in 0..1, a yes or no for each class -> mean binary cross-entropy, in float32.

    `smoothing` moves yes and no towards each other; `weights` (K,): a yes counts so often.
    """
    with torch.autocast(logits.device.type, enabled=False):
        smooth = target.float() * (1 - smoothing) + smoothing / 2
        return F.binary_cross_entropy_with_logits(logits.float(), smooth, pos_weight=weights)


class Classify(ClipTask):
    """Trains and evaluates `model`: video (B, 3, T, H, W) -> logits (B, K).

    Args:
        model: the classifier.
        smoothing: label smoothing where labels are hard, that is without `mixup`; multi-label: always.
        mixup: mixes each clip with one of the reversed batch and makes soft targets (smoothing is its affair), or None.
        erase_mode: what random erasing fills in, where the batch brings boxes: pixel, rand or const.
        class_weights: (K,) how much each class counts in the loss; None: all alike.
        multi_label: labels (B, K) of 0 and 1 and a yes or no for each class, instead of one class for a video.

    Raises ConfigError for a smoothing outside [0, 1) or an unknown mode of erasing.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        smoothing: float = 0.1,
        mixup: Mixup | None = None,
        erase_mode: str = "pixel",
        class_weights: Tensor | None = None,
        multi_label: bool = False,
    ) -> None:
        if not 0 <= smoothing < 1:
            raise ConfigError(f"--smoothing ({smoothing}) must be at least 0 and below 1; 0 turns it off.")
        if erase_mode not in MODES:
            raise ConfigError(f"--remode ({erase_mode}) is not known. Choose one of {', '.join(MODES)}.")
        self.model = model
        self.smoothing = smoothing
        self.mixup = mixup
        self.erase_mode = erase_mode
        self.class_weights = None if class_weights is None else class_weights.float()
        self.multi_label = multi_label
        self._first_loss: Tensor | None = None

    def to(self, device: torch.device) -> None:
        """Moves model and class weights to `device`."""
        super().to(device)
        self.class_weights = None if self.class_weights is None else self.class_weights.to(device)

    def training_step(self, batch: ClipBatch, seed: int) -> StepOutput:
        """Normalise, erase, mix, classify. `acc1` (percent) is among the metrics where labels are hard."""
        video, target = normalize(batch.video), batch.label
        if batch.erase is not None:
            video = erase(video, batch.erase, batch.seed, self.erase_mode)
        if self.mixup is not None:
            video, target = self.mixup(video, target, seed)
        logits = self.model(video)
        compute = multi_label_loss if self.multi_label else classification_loss
        loss = compute(logits, target, self.smoothing, self.class_weights)
        if self._first_loss is None:
            self._first_loss = loss.detach()
        metrics = {"loss": loss.detach()}
        if not target.is_floating_point():
            metrics["acc1"] = 100 * (logits.detach().argmax(-1) == target).float().mean()
        return StepOutput(loss, metrics)

    def evaluation_step(self, batch: ClipBatch) -> Tensor:
        """Logits (B, K) float32 of each clip. Whoever calls it has put the model into evaluation mode."""
        return self.model(normalize(batch.video)).float()

    def alone(self, batch: ClipBatch, index: int) -> ClipBatch:
        """The clip twice, since mixup wants pairs: mixed with itself it is unchanged."""
        return batch[index : index + 1].twice()

    @property
    def first_loss(self) -> float | None:
        """Loss of the run's first micro-batch on this process; None before it."""
        return None if self._first_loss is None else float(self._first_loss)

    def state_dict(self) -> dict[str, Any]:
        """The first loss, by which a run is judged when it is over (umt/evaluation/sanity.py)."""
        return {} if self.first_loss is None else {"first_loss": self.first_loss}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what `state_dict` gave."""
        first = state.get("first_loss")
        self._first_loss = None if first is None else torch.tensor(first)
