"""Buffers that training moves."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _NormBase


def running_statistics(model: nn.Module) -> list[str]:
    """Names of the running means and variances, and of the counts of batches, of all batch normalisations."""
    return [
        f"{prefix}.{name}" if prefix else name
        for prefix, module in model.named_modules()
        if isinstance(module, _NormBase) and module.track_running_stats
        for name, _ in module.named_buffers(recurse=False)
    ]
