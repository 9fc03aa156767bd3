"""Weights and optimiser held by DeepSpeed: https://arxiv.org/abs/1910.02054, by ZeRO stage and precision.

fp32 at any stage, and any precision at stage 0: the weights that are trained are fp32 and the forward pass runs under
autocast, as without DeepSpeed. bf16 and fp16 at stages 1 to 3: the weights of the forward pass are half precision,
next to fp32 ones that the optimiser moves; gradients are summed and exchanged in fp32.

Why stage 0 is not given DeepSpeed's bf16 or fp16 section: there its FP16_UnfusedOptimizer sums the micro-batches'
gradients, and averages them over ranks, in half precision, and DeepSpeed refuses another accumulation type at stage 0.
Eight bits of mantissa lose what a micro-batch adds, which moves the weights by more than rounding.

Checkpoints have whole fp32 tensors under the model's own names. To gather them costs one all-reduce (stages 1 and 2)
or all-gather (stage 3) of every parameter and of each of its optimiser tensors.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from umt.engine import checkpoints
from umt.engine.ema import Ema
from umt.engine.runtime import Runtime
from umt.engine.strategies.base import Strategy
from umt.engine.strategies.loss_scale import LossScale
from umt.engine.strategies.replicated import load_optimizer
from umt.engine.strategies.zero import Zero, open_zero
from umt.errors import CheckpointError, ConfigError

log = logging.getLogger(__name__)


class DeepSpeed(Strategy):
    """A DeepSpeed engine around model and optimiser."""

    def __init__(
        self, model: nn.Module, optimizer: Optimizer, *, config: Mapping[str, Any], runtime: Runtime | None = None
    ) -> None:
        """Takes `model`, float32, and `optimizer` over.

        Args:
            model: the bare model; under stage 3 and half precision its values are no longer whole or exact.
            optimizer: a plain one over the model's trained parameters.
            config: DeepSpeed's configuration, without sections for optimiser and scheduler.
            runtime: device, precision and processes; one CPU process in fp32 if None.

        Raises:
            ConfigError: DeepSpeed refuses the configuration.
        """
        self.runtime = runtime = runtime or Runtime()
        self.model = model
        self.stage: int = config.get("zero_optimization", {}).get("stage", 0)
        self.half = any(config.get(section, {}).get("enabled", False) for section in ("bf16", "fp16"))
        self.groups: list[list[nn.Parameter]] = [list(group["params"]) for group in optimizer.param_groups]
        self.parameters = [p for group in self.groups for p in group]
        # Whole and fp32 on the CPU: what DeepSpeed's parts are gathered into and taken from.
        self.plain = copy.deepcopy(model).cpu() if self.stage else model
        self.scale = LossScale(enabled=runtime.precision == "fp16" and not self.stage)  # DeepSpeed has its own else
        self.engine = _initialize(_Autocast(model, runtime), optimizer, dict(config), runtime)
        self.trained = self.engine
        self.optimizer = optimizer
        self.zero: Zero | None = open_zero(self.engine.optimizer) if self.stage else None
        if self.zero is not None and self.half:
            # DeepSpeed makes the fp32 weights from the rounded ones; and at the floor of the loss scale it would raise.
            self._take_plain()
            if runtime.precision == "fp16":
                self.zero.wrapper.loss_scaler.raise_error_at_min_scale = False

    # ---- a step

    def start_step(self) -> None:
        if self.zero is None:
            self.optimizer.zero_grad(set_to_none=True)
        else:
            self.zero.forget()

    @contextlib.contextmanager
    def micro_step(self, last: bool) -> Iterator[None]:
        self.engine.set_gradient_accumulation_boundary(last)
        yield

    def backward(self, loss: Tensor, *, last: bool) -> None:
        # Divided by the micro-batches already; DeepSpeed would do it again.
        self.engine.backward(self.scale(loss), scale_wrt_gas=False)

    def gradient_norm(self) -> Tensor:
        """The norm before clipping; DeepSpeed clips in `update`, by the same formula as torch."""
        if self.zero is None:
            if self.scale.enabled:
                grads = [p.grad for p in self.parameters if p.grad is not None]
                torch._foreach_mul_(grads, 1 / self.scale.value)
            return nn.utils.clip_grad_norm_(self.parameters, float("inf"))
        return self.zero.norm() / self.zero.loss_scale

    def update(self) -> None:
        self.engine.step()
        if not self.engine.was_step_applied():
            raise RuntimeError("DeepSpeed left out a step whose gradient is finite")
        self.scale.succeeded()

    def discard(self) -> None:
        if self.zero is None:
            self.scale.overflowed()
        else:
            self.zero.wrapper.loss_scaler.update_scale(True)
        self.start_step()

    def loss_scale(self) -> float | None:
        if self.runtime.precision != "fp16":
            return None
        return self.scale.value if self.zero is None else self.zero.loss_scale

    # ---- whole weights

    def state_dict(self) -> dict[str, Any]:
        if self.zero is None:
            return {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scale.state_dict(),
            }
        self._fill_plain()
        return {
            "model": self.plain.state_dict(),
            "optimizer": self._whole_optimizer(self.zero),
            "scaler": self._scaler_state(self.zero),
        }

    def load_state_dict(self, content: Mapping[str, Any], source: str) -> None:
        checkpoints.load_model(self.plain, content, source)
        if self.zero is None:
            load_optimizer(self.optimizer, content["optimizer"], source)
            self.scale.load_state_dict(content["scaler"])
            return
        self._take_plain()
        self._take_optimizer(self.zero, content["optimizer"], source)
        self.zero.forget()
        self._take_scaler(self.zero, content["scaler"])

    @contextlib.contextmanager
    def whole_model(self) -> Iterator[nn.Module]:
        """Collective. The bare model itself where its weights are whole and fp32, else a copy of it."""
        if self._is_whole():
            yield self.model
            return
        self._fill_plain()
        self.plain.to(self.runtime.device)
        try:
            yield self.plain
        finally:
            self.plain.to("cpu")

    def trained_parameters(self) -> int:
        return sum(p.numel() for p in self.plain.parameters() if p.requires_grad)

    def make_ema(self, decay: float) -> Ema:
        """A whole copy on every rank, fp32."""
        with self.whole_model() as model:
            return Ema(model, decay=decay)

    def update_ema(self, ema: Ema) -> None:
        """Moves the average towards the fp32 weights. Where they are in parts this gathers all of them, every step."""
        if self._is_whole():
            ema.update(self.model)
            return
        for mine, theirs in zip(ema.module.parameters(), self._whole_parameters(), strict=True):
            ema.follow([mine], [theirs])
        ema.copy_buffers(self.model)

    def _is_whole(self) -> bool:
        return self.stage < 3 and not self.half

    def _whole_parameters(self) -> Iterator[Tensor]:
        """Collective, one parameter at a time, in the model's order: fp32, frozen ones from the plain copy."""
        assert self.zero is not None
        for parameter, plain in zip(self.model.parameters(), self.plain.parameters(), strict=True):
            yield self.zero.read(parameter) if parameter.requires_grad else plain.detach()

    def _fill_plain(self) -> None:
        """Collective. Puts the present weights and buffers into the plain copy."""
        with torch.no_grad():
            for mine, theirs in zip(self.plain.parameters(), self._whole_parameters(), strict=True):
                mine.copy_(theirs)
            for held, current in zip(self.plain.buffers(), self.model.buffers(), strict=True):
                held.copy_(current)

    def _take_plain(self) -> None:
        """Collective. Puts the plain copy's weights and buffers where DeepSpeed has them."""
        from deepspeed import zero

        assert self.zero is not None
        with torch.no_grad():
            for mine, theirs in zip(self.model.parameters(), self.plain.parameters(), strict=True):
                value = theirs.to(self.runtime.device)
                if mine.requires_grad:
                    self.zero.write(mine, value)
                else:
                    with zero.GatheredParameters([mine], modifier_rank=0, enabled=self.stage == 3):
                        mine.copy_(value)
            for held, current in zip(self.model.buffers(), self.plain.buffers(), strict=True):
                held.copy_(current)
            self.zero.publish()

    # ---- the optimiser's state, from and to flat parts

    def _whole_optimizer(self, zero: Zero) -> dict[str, Any]:
        """Collective. As the plain optimiser's `state_dict`: parameters numbered through the groups in order."""
        zero.relink()
        groups, state, number = [], {}, 0
        flat = next(zero.partitions())
        like = zero.base.state.get(flat, {})  # the same keys in all parts
        for group, parameters in zip(zero.base.param_groups, self.groups, strict=True):
            numbers = list(range(number, number + len(parameters)))
            groups.append({**{k: v for k, v in group.items() if k != "params"}, "params": numbers})
            number += len(parameters)
            for index, parameter in zip(numbers, parameters, strict=True):
                values = {}
                for key, value in like.items():
                    if isinstance(value, Tensor) and value.shape == flat.shape:
                        value = zero.read(parameter, key).cpu()
                    values[key] = value.clone() if isinstance(value, Tensor) else value
                if values:
                    state[index] = values
        return {"state": state, "param_groups": groups}

    def _take_optimizer(self, zero: Zero, content: Mapping[str, Any], source: str) -> None:
        """Collective. The reverse of `_whole_optimizer`."""
        there = [len(group["params"]) for group in content["param_groups"]]
        here = [len(parameters) for parameters in self.groups]
        if there != here:
            raise CheckpointError(
                f"{source} was trained with other optimiser groups ({there} parameters each, here {here}). "
                "Use its --opt, --layer_decay and --weight_decay, or start from its weights with --finetune."
            )
        for group, saved in zip(zero.base.param_groups, content["param_groups"], strict=True):
            group.update({key: value for key, value in saved.items() if key != "params"})
        zero.base.state.clear()
        state = content["state"]
        if state:
            first = self.parameters[0]
            shape = dict(zip(map(id, self.model.parameters()), self.plain.parameters(), strict=True))[id(first)].shape
            whole = {key for key, value in state[0].items() if isinstance(value, Tensor) and value.shape == shape}
            counted = {"fused", "capturable"} & {key for key, on in zero.base.param_groups[0].items() if on}
            for flat in zero.partitions():
                values: dict[str, Any] = {}
                for key, value in state[0].items():
                    if key in whole:
                        values[key] = torch.zeros_like(flat.detach())
                    elif isinstance(value, Tensor):
                        values[key] = value.clone().to(flat.device if counted else "cpu")
                    else:
                        values[key] = value
                zero.base.state[flat] = values
            zero.relink()
            for index, parameter in enumerate(self.parameters):
                for key in whole:
                    value = state[index][key].to(self.runtime.device, torch.float32)
                    zero.write(parameter, value, key)
        else:
            zero.relink()

    def _scaler_state(self, zero: Zero) -> dict[str, Any]:
        """DeepSpeed's loss scale as the other strategies save theirs."""
        scale, theirs = LossScale(enabled=self.runtime.precision == "fp16"), zero.wrapper
        if scale.enabled and theirs.loss_scaler.dynamic:
            scale.value = zero.loss_scale
            stable = theirs.loss_scaler.cur_iter - theirs.loss_scaler.last_overflow_iter - 1
            scale.good_steps = stable % theirs.loss_scaler.scale_window
        return scale.state_dict()

    def _take_scaler(self, zero: Zero, content: Mapping[str, Any]) -> None:
        scale, theirs = LossScale(enabled=self.runtime.precision == "fp16"), zero.wrapper
        if scale.enabled and content and theirs.loss_scaler.dynamic:
            scale.load_state_dict(content)
            theirs.loss_scaler.cur_scale = scale.value
            theirs.loss_scaler.last_overflow_iter, theirs.loss_scaler.cur_iter = -1, scale.good_steps


class _Autocast(nn.Module):
    """`model` under autocast: DeepSpeed turns off, inside its forward pass, what surrounds it."""

    def __init__(self, model: nn.Module, runtime: Runtime) -> None:
        super().__init__()
        self.model = model
        self.runtime = runtime

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with self.runtime.autocast():
            return self.model(*args, **kwargs)


def _initialize(model: nn.Module, optimizer: Optimizer, config: dict[str, Any], runtime: Runtime) -> Any:
    """DeepSpeed's engine, in the process group that there is, or one of this process alone."""
    deepspeed = _import(runtime)
    if not dist.is_initialized():
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if runtime.device.type == "cuda" else "gloo",
            store=dist.HashStore(),
            rank=0,
            world_size=1,
            device_id=runtime.device if runtime.device.type == "cuda" else None,
        )
    # What DeepSpeed takes for the number of its GPU, and insists on whatever launched it.
    os.environ["LOCAL_RANK"] = str(runtime.device.index or 0 if runtime.device.type == "cuda" else 0)
    try:
        with contextlib.redirect_stdout(io.StringIO()) as said:  # memory tables, and that the op was built
            engine = deepspeed.initialize(model=model, optimizer=optimizer, config=config)[0]
        log.debug("DeepSpeed says: %s", said.getvalue())
        return engine
    except (ValueError, AssertionError, deepspeed.runtime.config.DeepSpeedConfigError) as error:
        sentence = " ".join(str(error).split())
        raise ConfigError(
            f"DeepSpeed refuses its configuration: {sentence}. Mend --deepspeed_config, or leave it out."
        ) from error


def _import(runtime: Runtime) -> ModuleType:
    if runtime.device.type == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"  # read at import; a GPU that is there would be taken otherwise
    folder = Path(sys.executable).parent  # ninja of this environment, also where it has not been activated
    if str(folder) not in os.environ.get("PATH", "").split(os.pathsep):
        os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", ""), str(folder)])
    import deepspeed
    from deepspeed.utils import logger

    logger.setLevel(logging.ERROR)  # its warnings are about what is settled here: autocast, untested optimisers
    return deepspeed
