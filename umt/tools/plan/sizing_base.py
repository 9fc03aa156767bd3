"""What `umt plan` asks a task about a run: the model that is trained, its batch, and what makes both smaller.

Everything else here is the same for all tasks. A task offers one class; importing its module imports torch.
"""

from __future__ import annotations

import dataclasses
import importlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import torch

    from umt.config.schema import Config
    from umt.data.loading.batch import Batch
    from umt.tasks.base import Task

S = TypeVar("S", bound="Sizing")
_SIZINGS = {
    "pretrain": "umt.tools.plan.sizing_pretraining:PretrainingSizing",
    "finetune": "umt.tools.plan.sizing_finetuning:FinetuningSizing",
}


@dataclass(frozen=True)
class Sizing(ABC):
    """One run. Flags that all tasks share are read from `recipe`; what only a task knows is asked here."""

    recipe: Config

    @abstractmethod
    def task(self) -> Task:
        """The task with random weights, made by torch's default device and mode; no file is read."""

    @abstractmethod
    def batch(self, device: torch.device | str = "cpu") -> Batch:
        """A micro-batch of random content: as many samples, of the same size, as the run has at once."""

    @abstractmethod
    def blocks(self) -> int:
        """Blocks of the trained model, each of which can recompute its activations."""

    @abstractmethod
    def sample(self) -> str:
        """Size of a sample, e.g. 8 x 224 x 224."""

    def title(self) -> str:
        """The model's name."""
        return self.recipe.model.model

    def recomputed(self) -> int:
        """Blocks that recompute in this run."""
        return self.recipe.model.checkpoint_num if self.recipe.model.use_checkpoint else 0

    def recomputing(self: S, blocks: int) -> S:
        """The same run with the first `blocks` blocks recomputing their activations in the backward pass; 0: none."""
        return self._with("model", use_checkpoint=blocks > 0, checkpoint_num=blocks)

    def with_batch(self: S, **optim: int) -> S:
        """The same run with other values of --batch_size, --update_freq or --global_batch_size."""
        return self._with("optim", **optim)

    def _with(self: S, group: str, **values: Any) -> S:
        changed = dataclasses.replace(getattr(self.recipe, group), **values)
        return dataclasses.replace(self, recipe=dataclasses.replace(self.recipe, **{group: changed}))

    def copies(self) -> int:
        """Samples that each row of the list gives in a batch."""
        return self.recipe.data.num_sample

    def samples(self) -> int:
        """Samples of a micro-batch."""
        return self.recipe.optim.batch_size * self.copies()

    def least_batch(self) -> int:
        """The smallest possible --batch_size, of which every other is a multiple."""
        return 1

    def averaged(self) -> bool:
        """Whether a moving average of the weights is kept."""
        return False

    def only_tests(self) -> bool:
        """Whether nothing is trained."""
        return False

    def parameter_groups(self, task: Task) -> list[dict[str, Any]]:
        """Groups of `task.model`'s parameters for the optimiser."""
        from umt.optim.param_groups import param_groups

        return param_groups(task.model, weight_decay=self.recipe.optim.weight_decay)


def sizing_of(recipe: Config) -> Sizing:
    """What the task of this run offers. Imports torch."""
    module, _, name = _SIZINGS[recipe.task].partition(":")
    sizing: Sizing = getattr(importlib.import_module(module), name)(recipe)
    return sizing
