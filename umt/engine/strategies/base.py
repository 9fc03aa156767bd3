"""What the training step and the trainer need to know of how weights are held."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from umt.engine import checkpoints
from umt.engine.ema import Ema


class Strategy(ABC):
    """Weights, gradients and optimiser of one run, on this process's part of them.

    The order of calls in a step: `start_step`; for every micro-batch a forward pass of `trained` under `micro_step`,
    then `backward`; `gradient_norm` once; then either `update` or `discard`. Methods marked "collective" are called by
    all processes together.
    """

    model: nn.Module  # the bare model: its parameters' names are the checkpoint's, its values may be parts
    trained: nn.Module  # what a forward pass of training calls: the model in whatever wrapper this needs
    optimizer: Optimizer  # its groups take the schedule's rates

    def start_step(self) -> None:
        """Forgets the gradients of the step before."""
        self.optimizer.zero_grad(set_to_none=True)

    def micro_step(self, last: bool) -> AbstractContextManager[None]:
        """Around forward and backward of a micro-batch; gradients need to be exchanged in the `last` one only."""
        return nullcontext()

    @abstractmethod
    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Adds the gradients of `loss`, which is divided by the number of micro-batches already."""

    @abstractmethod
    def gradient_norm(self) -> Tensor:
        """Collective. Norm of the whole gradient before clipping, the loss scale taken out; clips it where asked to.

        Not finite when any element is not.
        """

    @abstractmethod
    def update(self) -> None:
        """Moves the weights: called on all processes, after all have agreed that the gradient is finite."""

    @abstractmethod
    def discard(self) -> None:
        """fp16 only, collective: drops an overflowed gradient and lowers the loss scale; weights and state stay."""

    def loss_scale(self) -> float | None:
        """The factor on the loss under fp16; None where there is none."""
        return None

    # ---- whole weights

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Collective. {"model", "optimizer", "scaler"}: whole, as one plain process would save them.

        Only the main process's is complete; the others may return less.
        """

    @abstractmethod
    def load_state_dict(self, content: Mapping[str, Any], source: str) -> None:
        """Collective. Takes up what `state_dict` of any strategy gave, on any number of processes.

        Raises:
            CheckpointError: other names or shapes, or other optimiser groups.
        """

    @contextlib.contextmanager
    def whole_model(self) -> Iterator[nn.Module]:
        """Collective. The bare model with all its weights, for evaluation, on this process's device."""
        yield self.model

    def trained_parameters(self) -> int:
        """How many numbers are trained, in the whole model."""
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad)

    # ---- the moving average, which follows wherever the weights are held

    def make_ema(self, decay: float) -> Ema:
        """A moving average that starts from the present weights."""
        return Ema(self.model, decay=decay)

    def update_ema(self, ema: Ema) -> None:
        """Moves the average towards the present weights."""
        ema.update(self.model)

    @contextlib.contextmanager
    def whole_ema(self, ema: Ema) -> Iterator[nn.Module]:
        """Collective. The averaged model with all its weights, for evaluation, on this process's device."""
        yield ema.module

    def ema_state(self, ema: Ema) -> dict[str, Any]:
        """Collective. The averaged weights, whole."""
        return ema.state_dict()

    def load_ema(self, ema: Ema, content: Mapping[str, Any], source: str) -> None:
        """Takes the average from a checkpoint, or starts it from the checkpoint's weights if there is none."""
        checkpoints.load_model(ema.module, content, source, ema="model_ema" in content)
