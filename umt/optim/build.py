"""Optimisers by name, and the one place where scheduled values reach them.

The common ones are torch's own; every other name goes to timm, imported only then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.optim import Optimizer

from umt.errors import ConfigError, install
from umt.spelling import did_you_mean

_TORCH: dict[str, Callable[..., Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "sgd": torch.optim.SGD,
    "momentum": torch.optim.SGD,
}
_ALIASES = {"nesterov": "sgd"}


def create_optimizer(
    groups: Sequence[dict[str, Any]],
    *,
    name: str = "adamw",
    lr: float,
    eps: float | None = 1e-8,
    betas: Sequence[float] | None = None,
    momentum: float = 0.9,
) -> Optimizer:
    """An optimiser over `groups` (see `param_groups`), which carry their own weight decay and `lr_scale`.

    `name`: adamw, adam, nadam, radam, sgd (Nesterov momentum, as `sgd` means in timm and in the original), momentum
    (plain momentum), or any name that timm knows (lamb, lion, adafactor, lookahead_adamw, ...). `betas` None: the
    optimiser's own. Weight decay is decoupled in adamw only; in adam, nadam, radam and sgd it is added to the gradient.

    Raises ConfigError for an unknown name or betas outside [0, 1).
    """
    name = name.lower()
    name = _ALIASES.get(name, name)
    if betas is not None and (len(betas) < 2 or not all(0 <= b < 1 for b in betas)):
        raise ConfigError(
            f"--opt_betas ({' '.join(map(str, betas))}) must be two numbers in [0, 1), e.g. --opt_betas 0.9 0.999."
        )
    extra: dict[str, Any] = {}
    if name in ("sgd", "momentum"):
        extra = {"momentum": momentum, "nesterov": name == "sgd" and momentum > 0}
    else:
        if eps is not None:
            extra["eps"] = eps
        if betas is not None:
            extra["betas"] = tuple(betas)
    groups = [dict(group) for group in groups]
    if name in ("adamw", "adam"):
        # One kernel over all tensors instead of several a tensor: on a CPU a fifth of the time, the same arithmetic.
        extra["fused"] = True
    if name in _TORCH:
        optimizer = _TORCH[name](groups, lr=lr, weight_decay=0.0, **extra)
    else:
        optimizer = _from_timm(groups, name, lr, momentum, extra)
    apply_schedule(optimizer, lr)
    return optimizer


def apply_schedule(optimizer: Optimizer, lr: float, weight_decay: float | None = None) -> None:
    """Sets the rate of every group to `lr` times its `lr_scale`, and `weight_decay` (unless None) where it decays."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
        if weight_decay is not None and group.get("decays", group["weight_decay"] > 0):
            group["weight_decay"] = weight_decay


def _from_timm(groups: list[dict[str, Any]], name: str, lr: float, momentum: float, extra: dict[str, Any]) -> Optimizer:
    try:
        from timm.optim import create_optimizer_v2, list_optimizers
    except ImportError as error:
        raise ConfigError(f"--opt ({name}) comes from timm, which is not installed: {install('train')}.") from error
    known: list[str] = sorted({*_TORCH, *_ALIASES, *map(str, list_optimizers())})
    if name.removeprefix("lookahead_") not in known or name.startswith(("fused", "bnb")):
        hint = did_you_mean(name, known, f"Choose one of {', '.join(sorted(_TORCH))}.", count=3)
        raise ConfigError(f"--opt ({name}) is not known here. {hint}")
    try:
        return create_optimizer_v2(groups, opt=name, lr=lr, weight_decay=0.0, momentum=momentum, **extra)
    except TypeError as error:
        raise ConfigError(
            f"--opt ({name}) does not take {' or '.join(extra)}: leave --opt_eps and --opt_betas out."
        ) from error
