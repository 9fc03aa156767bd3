"""Weights, gradients and optimiser state in equal parts, one a process: PyTorch's FSDP2 (`fully_shard`).

Each block is a unit: its weights are gathered before its forward and its backward pass and dropped after it. What lies
outside the blocks is one more unit, gathered for the whole step. https://arxiv.org/abs/2304.11277.

Precision: the parts are fp32. Under bf16 and fp16 the weights that autocast would cast at their first use (those of
linear layers and convolutions) are gathered in that type already; all others (norms, position tables, layer scale) in
fp32. The values are those of autocast, and what the backward pass keeps of a weight is the gathered one, which is
freed, not a cast copy, which would not be. Gradients are summed over micro-batches and processes in fp32.

Gradients are exchanged in every micro-batch, not in the last alone: a process would otherwise hold the whole
gradient from one micro-batch to the next, four bytes a parameter, which is what sharding is there to avoid.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Shard
from torch.nn.modules.conv import _ConvNd
from torch.optim import Optimizer

from umt.engine import checkpoints
from umt.engine.ema import Ema
from umt.engine.runtime import Runtime
from umt.engine.strategies.base import Strategy
from umt.engine.strategies.loss_scale import LossScale
from umt.engine.strategies.replicated import load_optimizer
from umt.errors import ConfigError

_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Sharded(Strategy):
    """Each process holds the rows r * n to (r + 1) * n of every parameter, of its gradient and of its state."""

    def __init__(
        self, model: nn.Module, optimizer: Optimizer, *, runtime: Runtime, clip_grad: float | None = None
    ) -> None:
        """Shards `model` in place and lets `optimizer`, which has taken no step yet, move the parts.

        The model is whole on every process until then. All start from the main process's weights.

        Args:
            model: the bare model, on the runtime's device.
            optimizer: over the model's parameters; its groups stay what they are.
            runtime: several processes, with a process group.
            clip_grad: greatest norm of the gradient; None: it is measured only.

        Raises:
            ConfigError: there is no process group, or PyTorch is too old.
        """
        if not dist.is_initialized():
            raise ConfigError("--fsdp shares weights out over processes, and there is one only. Leave it out.")
        self.runtime = runtime
        self.model = self.trained = model
        self.optimizer = optimizer
        self.clip_grad = clip_grad
        self.scale = LossScale(enabled=runtime.precision == "fp16")
        for tensor in [*model.parameters(), *model.buffers()]:
            dist.broadcast(tensor.detach(), src=0)
        self._plain = _without_weights(model)
        self.mesh = init_device_mesh(runtime.device.type, (runtime.world.size,))
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        groups = [[names[id(parameter)] for parameter in group["params"]] for group in optimizer.param_groups]
        shard(model, self.mesh, runtime.precision)
        parts = dict(model.named_parameters())
        for group, members in zip(optimizer.param_groups, groups, strict=True):
            group["params"] = [parts[name] for name in members]
        self.parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    # ---- a step

    def backward(self, loss: Tensor, *, last: bool) -> None:
        self.scale(loss).backward()

    @torch.no_grad()
    def gradient_norm(self) -> Tensor:
        gradients = [_local(parameter.grad) for parameter in self.parameters if parameter.grad is not None]
        if self.scale.enabled:
            torch._foreach_mul_(gradients, 1 / self.scale.value)
        total = torch.stack(torch._foreach_norm(gradients)).square().sum()
        dist.all_reduce(total)
        norm = total.sqrt()
        if self.clip_grad is not None:
            # As torch.nn.utils.clip_grad_norm_, whose norm of parts would be a part too.
            torch._foreach_mul_(gradients, (self.clip_grad / (norm + 1e-6)).clamp(max=1.0))
        return norm

    def update(self) -> None:
        try:
            self.optimizer.step()
        except RuntimeError as error:
            if "DTensor" not in str(error) and "sharding strategy" not in str(error):
                raise
            raise ConfigError(
                f"--opt: {type(self.optimizer).__name__} cannot work on weights in parts "
                f"({' '.join(str(error).split())}). Use --opt adamw, or leave --fsdp out."
            ) from error
        self.scale.succeeded()

    def discard(self) -> None:
        self.scale.overflowed()

    def loss_scale(self) -> float | None:
        return self.scale.value if self.scale.enabled else None

    # ---- whole weights

    def state_dict(self) -> dict[str, Any]:
        optimizer = self.optimizer.state_dict()
        state = {number: self._saved(entry) for number, entry in optimizer["state"].items()}
        return {
            "model": self._saved(self.model.state_dict()),
            "optimizer": {**optimizer, "state": state},
            "scaler": self.scale.state_dict(),
        }

    def load_state_dict(self, content: Mapping[str, Any], source: str) -> None:
        self._load(self.model, lambda whole: checkpoints.load_model(whole, content, source))
        saved = content["optimizer"]
        state = {
            number: {key: self._part_like(self.parameters[number], value) for key, value in entry.items()}
            for number, entry in saved["state"].items()
            if number < len(self.parameters)
        }
        load_optimizer(self.optimizer, {**saved, "state": state}, source)
        self.scale.load_state_dict(content["scaler"])

    @contextlib.contextmanager
    def whole_model(self) -> Iterator[nn.Module]:
        """Collective. A plain copy on every process, four bytes a parameter, which is gone afterwards.

        Evaluating it needs no communication, so processes may have different numbers of batches.
        """
        with self._filled({name: _whole(value) for name, value in self.model.state_dict().items()}) as model:
            yield model

    # ---- the moving average, in the same parts

    def make_ema(self, decay: float) -> Ema:
        mine = [*self._plain.parameters(), *self._plain.buffers()]
        theirs = [*self.model.parameters(), *self.model.buffers()]
        memo: dict[int, Any] = {}
        for own, current in zip(mine, theirs, strict=True):
            value = current.detach().clone()
            memo[id(own)] = nn.Parameter(value) if isinstance(own, nn.Parameter) else value
        return Ema(copy.deepcopy(self._plain, memo), decay=decay, copied=True)

    def update_ema(self, ema: Ema) -> None:
        ema.follow(map(_local, ema.module.parameters()), map(_local, self.model.parameters()))
        ema.copy_buffers(self.model)

    def ema_state(self, ema: Ema) -> dict[str, Any]:
        return self._saved(ema.module.state_dict())

    def load_ema(self, ema: Ema, content: Mapping[str, Any], source: str) -> None:
        averaged = "model_ema" in content
        self._load(ema.module, lambda whole: checkpoints.load_model(whole, content, source, ema=averaged))

    @contextlib.contextmanager
    def whole_ema(self, ema: Ema) -> Iterator[nn.Module]:
        with self._filled({name: _whole(value) for name, value in ema.module.state_dict().items()}) as model:
            yield model

    # ---- between parts and wholes

    def _saved(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Collective. `values` with whole tensors on the CPU of the main process; the others keep none.

        One at a time: the device never holds more than one whole tensor.
        """
        result = dict(values)
        for name, value in values.items():
            if isinstance(value, DTensor):
                whole = value.full_tensor()
                result[name] = whole.cpu() if self.runtime.is_main else whole.new_empty(0)
        return result

    def _load(self, target: nn.Module, load: Callable[[nn.Module], None]) -> None:
        """Lets `load` fill a plain model on the CPU, and copies this process's part of it to `target`."""
        empty = {name: torch.empty(v.shape, dtype=v.dtype) for name, v in target.state_dict().items()}
        with torch.no_grad(), self._filled(empty) as plain:
            load(plain)
            whole = plain.state_dict()
            for name, value in target.state_dict().items():
                mine = _local(value)
                mine.copy_(self._part(whole[name]) if isinstance(value, DTensor) else whole[name])

    def _part(self, whole: Tensor) -> Tensor:
        """This process's rows of `whole`, a view; there may be none."""
        rows = -(-len(whole) // self.mesh.size())
        return whole[self.mesh.get_local_rank() * rows :][:rows]

    def _part_like(self, parameter: Tensor, value: Any) -> Any:
        """`value` of the optimiser's state: in parts where it is of its parameter's shape, else as it stands."""
        if not isinstance(value, Tensor) or value.shape != parameter.shape:
            return value
        part = self._part(value).to(parameter.device, copy=True)
        placements = [Shard(0)]
        return DTensor.from_local(part, self.mesh, placements, shape=value.shape, stride=value.stride())

    @contextlib.contextmanager
    def _filled(self, state: Mapping[str, Tensor]) -> Iterator[nn.Module]:
        """The plain model with `state` itself as its weights, until the block ends."""
        self._plain.load_state_dict(state, assign=True)
        try:
            yield self._plain
        finally:
            nothing = {name: torch.empty_like(value, device="meta") for name, value in state.items()}
            self._plain.load_state_dict(nothing, assign=True)


def shard(model: nn.Module, mesh: DeviceMesh, precision: str) -> None:
    """Shards `model` in place: every entry of a module list called `blocks` by itself, and then the rest.

    Raises ConfigError where PyTorch has no `fully_shard`.
    """
    try:
        from torch.distributed.fsdp import fully_shard
    except ImportError as error:
        raise ConfigError(
            f"--fsdp needs PyTorch 2.6 or newer, this is {torch.__version__}. Use --enable_deepspeed --zero_stage 3."
        ) from error
    policy = _precision_policy(model, precision)
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and name.rpartition(".")[2] == "blocks":
            for block in module:
                fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)


def _precision_policy(model: nn.Module, precision: str) -> Any:
    """Which weights are gathered in half precision; inputs are left to autocast. See the module's docstring."""
    from torch.distributed.fsdp import MixedPrecisionPolicy

    half = _HALF.get(precision)
    autocast_alone = MixedPrecisionPolicy(reduce_dtype=torch.float32, cast_forward_inputs=False)
    if half is None or "param_dtype_override_fn" not in MixedPrecisionPolicy.__dataclass_fields__:
        # PyTorch before 2.15: autocast alone, the same values. Its cast copies stay from forward to backward pass.
        return autocast_alone
    cast = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, (nn.Linear, _ConvNd))
        for parameter in module.parameters(recurse=False)
    }
    return dataclasses.replace(
        autocast_alone, param_dtype=half, param_dtype_override_fn=lambda p: half if id(p) in cast else torch.float32
    )


def _without_weights(model: nn.Module) -> nn.Module:
    """A copy of `model` whose parameters have shapes and no values."""
    memo = {
        id(p): nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=p.requires_grad)
        for p in model.parameters()
    }
    return copy.deepcopy(model, memo)


def _whole(value: Tensor) -> Tensor:
    """Collective. `value` gathered, on every process."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def _local(value: Tensor | None) -> Tensor:
    """This process's part of `value`, sharing its memory."""
    assert value is not None
    return value.to_local() if isinstance(value, DTensor) else value
