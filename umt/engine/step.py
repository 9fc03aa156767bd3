"""One update of the weights: rates, gradients over micro-batches, agreement between ranks, optimiser.

The trainer says which step it is and what to do with the outcome; the strategy (strategies/) holds the weights and
moves them; this file has the order in which that happens, the same for every strategy.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from umt import randomness
from umt.data.loading.batch import Batch
from umt.engine import runtime
from umt.engine.buffers import KEY, Buffers
from umt.engine.ema import Ema
from umt.engine.runtime import Runtime
from umt.engine.strategies.base import Strategy
from umt.optim.build import apply_schedule
from umt.tasks.base import Task

log = logging.getLogger(__name__)
Schedule = Callable[[int], float] | Sequence[float] | np.ndarray


@dataclass(frozen=True)
class StepResult:
    """Outcome of a step, the same on every rank but for `micro_losses`."""

    values: dict[str, float]  # loss, the task's metrics, rates and norms, averaged over micro-batches and ranks
    votes: dict[str, float]  # what the caller asked, summed over ranks
    updated: bool  # whether the weights moved
    overflow: bool  # fp16: the scaled gradients overflowed; harmless now and then
    bad_loss: bool  # some rank's loss is not finite
    micro_losses: list[float]  # this rank's, empty unless the weights did not move


class TrainingStep:
    """Holds what an update needs and makes one when it is told the step's number."""

    def __init__(
        self,
        task: Task,
        strategy: Strategy,
        *,
        runtime: Runtime,
        lr: Schedule,
        weight_decay: Schedule | None = None,
        seed: int = 0,
        ema: Ema | None = None,
    ) -> None:
        """Puts what the strategy trains in the place of `task.model`."""
        self.task = task
        self.strategy = strategy
        self.runtime = runtime
        self.lr = lr
        self.weight_decay = weight_decay
        self.seed = seed
        self.ema = ema
        self.buffers = Buffers(strategy.model, averaged=task.averaged_buffers(), summed=task.summed_buffers())
        task.model = strategy.trained

    def run(self, global_step: int, micro_batches: list[Batch], votes: Mapping[str, float]) -> StepResult:
        """Step `global_step` on this rank's micro-batches.

        Args:
            global_step: steps before this one since the start of the run; rates and random draws depend on it alone.
            micro_batches: as many on every rank.
            votes: numbers by name, the same names on every rank, whose sums over ranks come back at no further cost.

        When a loss or gradient of any rank is not finite, no rank moves its weights.
        """
        rates = self._set_rates(global_step)
        self.strategy.start_step()
        self.buffers.start_step()
        losses, metrics = self._gradients(global_step, micro_batches)
        grad_norm = self.strategy.gradient_norm()

        sums, means = self._agree(losses, grad_norm, metrics, votes)
        bad_loss, bad_norm = sums.pop("bad_loss") > 0, sums.pop("bad_norm") > 0
        overflow = self.strategy.loss_scale() is not None and bad_norm and not bad_loss
        updated = not bad_loss and not bad_norm
        if overflow:
            self.strategy.discard()
        elif updated:
            self.strategy.update()
            self.buffers.end_step(updated=True)
            self.task.end_step()
            if self.ema is not None:
                self.strategy.update_ema(self.ema)
        if not updated:
            self.buffers.end_step(updated=False)
        values = {**means, **rates}
        scale = self.strategy.loss_scale()
        if scale is not None:
            values["loss_scale"] = scale
        return StepResult(values, sums, updated, overflow, bad_loss, [] if updated else losses.tolist())

    def agree(self, votes: Mapping[str, float]) -> dict[str, float]:
        """Sums of `votes` over ranks, for a step that is not taken."""
        mine = torch.tensor(list(votes.values()), device=self.runtime.device)
        return dict(zip(votes, runtime.reduce_sum(mine).tolist(), strict=True))

    def micro_seed(self, global_step: int, micro: int) -> int:
        """Seed of one micro-step on this rank: mixup, drop path, dropout."""
        return randomness.key(self.seed, "step", global_step, micro, self.runtime.world.rank)

    def _set_rates(self, global_step: int) -> dict[str, float]:
        decay = None if self.weight_decay is None else _at(self.weight_decay, global_step)
        apply_schedule(self.strategy.optimizer, _at(self.lr, global_step), decay)
        groups = self.strategy.optimizer.param_groups
        rates = [group["lr"] for group in groups]
        return {
            "lr": max(rates),
            "min_lr": min(rates),
            "weight_decay": max(group["weight_decay"] for group in groups),
        }

    def _gradients(self, global_step: int, micro_batches: list[Batch]) -> tuple[Tensor, dict[str, Tensor]]:
        """Gradients of the mean loss over the micro-batches -> (M losses, mean metrics), still on the device."""
        losses: list[Tensor] = []
        metrics: list[dict[str, Tensor]] = []
        for micro, batch in enumerate(micro_batches):
            seed = self.micro_seed(global_step, micro)
            self.runtime.seed(seed)  # drop path and dropout
            last = micro + 1 == len(micro_batches)
            with self.strategy.micro_step(last):
                with self.runtime.autocast():
                    output = self.task.training_step(batch.to(self.runtime.device), seed)
                self.strategy.backward(output.loss / len(micro_batches), last=last)
            losses.append(output.loss.detach().float())
            metrics.append({name: value.detach().float() for name, value in output.metrics.items()})
        means = {name: torch.stack([m[name] for m in metrics]).mean() for name in sorted(metrics[0])}
        return torch.stack(losses), means

    def _agree(
        self, losses: Tensor, grad_norm: Tensor, metrics: Mapping[str, Tensor], votes: Mapping[str, float]
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Sums and means over ranks: one small all-reduce and one wait for the device a step.

        The wait is what lets a non-finite value of any rank stop all of them before the weights move. The metrics
        come with it, so that they are the same numbers on every rank.
        """
        sums = {
            "bad_loss": (~losses.isfinite()).any().float(),
            "bad_norm": (~grad_norm.isfinite()).float(),
            **{name: losses.new_full((), value) for name, value in votes.items()},
        }
        means = {"loss": losses.mean(), **metrics, "grad_norm": grad_norm.float()}
        numbers = runtime.reduce_sum(torch.stack([*sums.values(), *means.values()])).tolist()
        size = self.runtime.world.size
        averaged = {name: number / size for name, number in zip(means, numbers[len(sums) :], strict=True)}
        return dict(zip(sums, numbers[: len(sums)], strict=True)), averaged

    # ---- state

    def state_dict(self) -> dict[str, Any]:
        """Collective. Weights, their moving average, optimiser and loss scale, under the keys of a checkpoint.

        Of buffers that training moves, those that processes agreed on, for whoever loads the weights, and each
        process's own, for the run that goes on.
        """
        state = self.strategy.state_dict()
        if self.ema is not None:
            state["model_ema"] = self.strategy.ema_state(self.ema)
        if self.buffers:
            for key in (key for key in ("model", "model_ema") if key in state):
                state[key] = self.buffers.agreed_state(state[key])
            state[KEY] = self.buffers.of_each(*self._models())
        return state

    def _models(self) -> list[nn.Module]:
        """What is trained, and its moving average."""
        return [self.strategy.model, *([] if self.ema is None else [self.ema.module])]

    def load_state_dict(self, content: Mapping[str, Any], source: str) -> None:
        """Collective. Takes up what a checkpoint holds.

        Raises:
            CheckpointError: another architecture, or other optimiser groups.
        """
        self.strategy.load_state_dict(content, source)
        if self.ema is not None:
            if "model_ema" not in content:
                log.warning("%s has no moving average of the weights; it starts again from the resumed ones", source)
            self.strategy.load_ema(self.ema, content, source)
        if self.buffers and not self.buffers.take_up(content.get(KEY, ()), *self._models()):
            log.warning("%s is of another number of processes: all go on from the buffers that those agreed on", source)


def _at(schedule: Schedule, step: int) -> float:
    """The schedule's value as a plain float: a numpy scalar in a parameter group would not load with weights_only."""
    return float(schedule(step) if callable(schedule) else schedule[step])
