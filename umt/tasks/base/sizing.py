"""What `umt plan` asks a task about a run: the model that is trained, its batch, and what makes both smaller.

Everything else here is the same for all tasks. A task offers one class; importing its module imports torch.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from umt.tasks.base import Recipe, Task, kind_of

if TYPE_CHECKING:
    import torch


S = TypeVar("S", bound="Sizing")


@dataclass(frozen=True)
class Sizing(ABC):
    """One run. Shared flags (batch, strategy, device) are read from `recipe`; what only a task knows is asked here."""

    recipe: Any

    @abstractmethod
    def task(self) -> Task:
        """The task with random weights, made by torch's default device and mode; no file is read."""

    @abstractmethod
    def batch(self, device: torch.device | str = "cpu") -> Any:
        """A micro-batch of random content: as many samples, of the same size, as the run has at once."""

    @abstractmethod
    def blocks(self) -> int:
        """Blocks of the trained model, each of which can recompute its activations."""

    @abstractmethod
    def recomputed(self) -> int:
        """Blocks that recompute in this run."""

    @abstractmethod
    def recomputing(self: S, blocks: int) -> S:
        """The same run with the first `blocks` blocks recomputing their activations in the backward pass; 0: none."""

    @abstractmethod
    def title(self) -> str:
        """The model's name."""

    @abstractmethod
    def sample(self) -> str:
        """Size of a sample, e.g. 8 x 224 x 224."""

    def copies(self) -> int:
        """Samples that each row of the list gives in a batch."""
        copies: int = self.recipe.copies
        return copies

    def least_batch(self) -> int:
        """The smallest possible --batch_size, of which every other is a multiple."""
        return 1

    def averaged(self) -> bool:
        """Whether a moving average of the weights is kept."""
        return False

    def parameter_groups(self, task: Task) -> list[dict[str, Any]]:
        """Groups of `task.model`'s parameters for the optimiser."""
        from umt.optim.param_groups import param_groups

        return param_groups(task.model, weight_decay=self.recipe.optim.weight_decay)

    def samples(self) -> int:
        """Samples of a micro-batch."""
        return self.recipe.optim.batch_size * self.copies()

    def with_flags(self: S, **values: Any) -> S:
        """The same run with other values of some flags."""
        return dataclasses.replace(self, recipe=self.recipe.with_flags(**values))


def sizing_of(recipe: Recipe) -> Sizing:
    """What the kind of this run offers. Imports torch. Raises ConfigError where it offers nothing."""
    sizing: Sizing = kind_of(recipe.command).offer("plan")(recipe)
    return sizing
