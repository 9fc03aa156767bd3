"""Many probes trained side by side: every parameter has a leading axis of H settings, and each batch serves all.

The loss is the sum over settings, so each is trained as if it were alone, with a learning rate and weight decay of its
own. Shapes: H settings, B samples, N rows, K classes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from numpy.typing import NDArray
from torch import Tensor, nn

from umt.evaluation.metrics import label_rank
from umt.randomness import generator
from umt.tools.probe.table import Table


@dataclass(frozen=True)
class Setting:
    """What a probe is trained with."""

    lr: float
    weight_decay: float

    def __str__(self) -> str:
        return f"lr {self.lr:g}, weight decay {self.weight_decay:g}"


@dataclass(frozen=True)
class Training:
    """How long, and by which optimiser; `batch` samples a step, a linear warm-up, then half a cosine to 0."""

    optimiser: Literal["sgd", "adamw"]
    epochs: int
    batch: int
    warmup: float = 0.1  # share of the steps


class Stacked:
    """SGD with momentum 0.9, or AdamW (https://arxiv.org/abs/1711.05101), with one learning rate for each setting."""

    def __init__(
        self, parameters: Sequence[nn.Parameter], settings: Sequence[Setting], kind: Literal["sgd", "adamw"]
    ) -> None:
        self.parameters, self.kind = list(parameters), kind
        device = self.parameters[0].device
        self.lr = torch.tensor([setting.lr for setting in settings], device=device)
        self.decay = torch.tensor([setting.weight_decay for setting in settings], device=device)
        self.first = [torch.zeros_like(p) for p in self.parameters]
        self.second = [torch.zeros_like(p) for p in self.parameters] if kind == "adamw" else []
        self.steps = 0

    @torch.no_grad()
    def step(self, factor: float) -> None:
        """One update with learning rates times `factor`; gradients are cleared. Only matrices are decayed."""
        self.steps += 1
        for i, p in enumerate(self.parameters):
            shape = (-1,) + (1,) * (p.ndim - 1)
            lr, decay = (factor * self.lr).view(shape), self.decay.view(shape) * (p.ndim > 2)
            gradient = p.grad
            assert gradient is not None
            if self.kind == "sgd":
                self.first[i].mul_(0.9).add_(gradient).add_(decay * p)
                p.sub_(lr * self.first[i])
            else:
                self.first[i].lerp_(gradient, 0.1)
                self.second[i].mul_(0.999).addcmul_(gradient, gradient, value=0.001)
                size = self.second[i].sqrt().div_((1 - 0.999**self.steps) ** 0.5).add_(1e-8)
                p.mul_(1 - lr * decay)
                p.sub_(torch.div(self.first[i], size, out=size).mul_(lr / (1 - 0.9**self.steps)))
            p.grad = None


@dataclass
class Curve:
    """Validation of all settings after one epoch."""

    epoch: int
    top1: list[float]  # H, percent
    loss: list[float]  # H, mean cross-entropy


def fit(
    heads: nn.Module, features: Table, labels: NDArray[np.int64], settings: Sequence[Setting], training: Training, *,
    seed: int, validation: tuple[Table, NDArray[np.int64]] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Curve]:  # fmt: skip
    """Trains `heads` (rows (B, ...) -> logits (B, H, K)), in place, and validates after every epoch.

    The order of the samples is a function of (seed, epoch) alone, so a setting sees the same batches in any company.
    """
    optimiser = Stacked([p for p in heads.parameters() if p.requires_grad], settings, training.optimiser)
    per_epoch = -(-len(features) // training.batch)
    total, warmup = training.epochs * per_epoch, max(1, int(training.warmup * training.epochs * per_epoch))
    answers = torch.from_numpy(labels).to(features.device)
    curves, step = [], 0
    for epoch in range(training.epochs):
        heads.train()
        order = generator(seed, "probe", epoch).permutation(len(features))
        for places, rows in features.batches(order, training.batch):
            logits = heads(rows)
            targets = repeat(answers[torch.from_numpy(places).to(features.device)], "b -> (b h)", h=logits.shape[1])
            loss = F.cross_entropy(rearrange(logits, "b h k -> (b h) k"), targets, reduction="sum") / len(places)
            loss.backward()
            rise = (step + 1) / warmup
            fall = 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))
            optimiser.step(rise if step < warmup else fall)
            step += 1
            if progress is not None:
                progress(step, total)
        if validation is not None:
            curves.append(Curve(epoch + 1, *validate(heads, *validation)))
    return curves


def validate(heads: nn.Module, features: Table, labels: NDArray[np.int64]) -> tuple[list[float], list[float]]:
    """Top-1 in percent and mean cross-entropy of each setting."""
    right: NDArray[np.float64] | float = 0.0
    lost: NDArray[np.float64] | float = 0.0
    for places, logits in _logits(heads, features):
        targets = repeat(labels[places], "b -> b h", h=logits.shape[1])
        right = right + (label_rank(logits.numpy(), targets) == 0).sum(0)
        each = F.cross_entropy(rearrange(logits, "b h k -> b k h"), torch.from_numpy(targets), reduction="none")
        lost = lost + each.double().sum(0).numpy()
    count = len(features)
    return [float(100 * r / count) for r in np.atleast_1d(right)], [float(x / count) for x in np.atleast_1d(lost)]


def predict(heads: nn.Module, features: Table, head: int) -> NDArray[np.float32]:
    """Logits (N, K) of one setting; the others are not computed."""
    alone = copy.deepcopy(heads)
    for parameter in alone.parameters():
        parameter.data = parameter.data[head : head + 1].clone()
    return np.concatenate([logits[:, 0].numpy() for _, logits in _logits(alone, features)]).astype(np.float32)


@torch.no_grad()
def _logits(heads: nn.Module, features: Table) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
    heads.eval()
    for places, rows in features.batches(np.arange(len(features)), 256):
        yield places, heads(rows).float().cpu()
