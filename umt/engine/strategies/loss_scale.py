"""fp16's factor on the loss, for gradients in parts: whether they overflowed is agreed elsewhere, over all processes.

torch's GradScaler looks for an overflow in the process's own gradients, so that processes with different parts could
come to different verdicts. The rule and the saved state are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

_START = 2.0**16
_GROWTH, _BACKOFF, _INTERVAL = 2.0, 0.5, 2000  # GradScaler's defaults


class LossScale:
    """Halves at an overflow, doubles after 2000 steps in a row without one. `value` is 1 where it is not `enabled`."""

    def __init__(self, *, enabled: bool) -> None:
        self.enabled = enabled
        self.value = _START if enabled else 1.0
        self.good_steps = 0

    def __call__(self, loss: Tensor) -> Tensor:
        """The loss whose gradients fp16 can hold."""
        return loss * self.value if self.enabled else loss

    def succeeded(self) -> None:
        """After a step that was taken."""
        self.good_steps += 1
        if self.enabled and self.good_steps == _INTERVAL:
            self.value *= _GROWTH
            self.good_steps = 0

    def overflowed(self) -> None:
        """After a step that was left out."""
        self.value *= _BACKOFF
        self.good_steps = 0

    def state_dict(self) -> dict[str, Any]:
        """As `GradScaler.state_dict`: empty where it is not enabled."""
        if not self.enabled:
            return {}
        return {
            "scale": self.value,
            "growth_factor": _GROWTH,
            "backoff_factor": _BACKOFF,
            "growth_interval": _INTERVAL,
            "_growth_tracker": self.good_steps,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes what a GradScaler or this class saved; nothing where one of the two runs is not in fp16."""
        if self.enabled and state:
            self.value, self.good_steps = float(state["scale"]), int(state["_growth_tracker"])
