"""What DeepSpeed's ZeRO optimisers hold on this rank, behind one face: gradients, flat fp32 weights, their optimiser.

DeepSpeed wraps the optimiser in one of three classes, by stage and precision. Their public interface is `step`, which
measures, clips and moves in one go; a step here must know the norm first, so this file is where their insides are read.
Written against DeepSpeed 0.19.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer


class Zero(ABC):
    """One ZeRO optimiser of DeepSpeed. Gradients and partitions are those that this rank holds."""

    def __init__(self, wrapper: Any) -> None:
        self.wrapper = wrapper

    @property
    def base(self) -> Optimizer:
        """The plain optimiser, which moves the flat partitions; its groups keep all but their parameters."""
        return self.wrapper.optimizer

    @property
    def loss_scale(self) -> float:
        """The factor on the gradients: 1 but under fp16."""
        return float(getattr(self.wrapper, "loss_scale", 1.0))

    @abstractmethod
    def gradients(self) -> list[Tensor]:
        """Averaged over ranks, still times the loss scale; there between the last backward pass and the step."""

    def norm(self) -> Tensor:
        """Collective. Norm of the whole gradient, float32, loss scale included; inf or nan if any element is."""
        total = _squares(self.gradients())
        dist.all_reduce(total)
        return total.sqrt()

    @abstractmethod
    def forget(self) -> None:
        """Drops the gradients, as if no backward pass had been."""

    @abstractmethod
    def partitions(self) -> Iterator[Tensor]:
        """This rank's fp32 weights: flat tensors that the plain optimiser has its state for."""

    def read(self, parameter: nn.Parameter, key: str | None = None) -> Tensor:
        """Collective. A trained parameter, whole in fp32, or its tensor `key` of the optimiser's state."""
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        value = safe_get_full_fp32_param(parameter) if key is None else safe_get_full_optimizer_state(parameter, key)
        return value.detach()

    def write(self, parameter: nn.Parameter, value: Tensor, key: str | None = None) -> None:
        """The reverse of `read`; each rank takes its part of the whole `value`."""
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

        if key is None:
            safe_set_full_fp32_param(parameter, value)
        else:
            safe_set_full_optimizer_state(parameter, value, key)

    def relink(self) -> None:
        """Lets `read` and `write` find the optimiser's state as it is now.

        DeepSpeed does so once, after the first group's first step, when the other groups have no state yet.
        """
        self.wrapper._hp_optimizer_states_linked = False
        if self.base.state:
            self.wrapper._lazy_init_hp_params_optimizer_state()

    def publish(self) -> None:
        """Collective. Copies the fp32 weights into those that the forward pass uses, on all ranks."""
        self.wrapper.update_lp_params()


def open_zero(wrapper: Any) -> Zero:
    """The face of DeepSpeed's optimiser `wrapper`."""
    kind: dict[str, Callable[[Any], Zero]] = {
        "DeepSpeedZeroOptimizer": Stage12,
        "BF16_Optimizer": Bf16Stage1,
        "DeepSpeedZeroOptimizer_Stage3": Stage3,
    }
    name = type(wrapper).__name__
    if name not in kind:
        raise TypeError(f"DeepSpeed made a {name}, which is not known here")
    return kind[name](wrapper)


def _squares(tensors: list[Tensor]) -> Tensor:
    norms = [torch.linalg.vector_norm(t, dtype=torch.float32) for t in tensors]
    return torch.stack(norms).square().sum()


class Stage12(Zero):
    """Stages 1 and 2: every rank has whole weights, and the fp32 weights, state and gradients of its part."""

    def gradients(self) -> list[Tensor]:
        return [grad for held in self.wrapper.averaged_gradients.values() if held is not None for grad in held]

    def forget(self) -> None:
        self.wrapper.zero_grad(set_to_none=True)
        self.wrapper._release_preflattened_grad_buffers()
        for held in (self.wrapper.averaged_gradients, self.wrapper.all_grad_tensors):
            for group in held:
                held[group] = None
        self.wrapper.micro_step_id = -1  # as it stands before the first backward pass

    def partitions(self) -> Iterator[Tensor]:
        yield from self.wrapper.single_partition_of_fp32_groups


class Bf16Stage1(Zero):
    """Stage 1 in bf16 with fp32 accumulation: the gradients are whole on every rank, weights and state in parts."""

    def gradients(self) -> list[Tensor]:
        grads: list[Tensor] = self.wrapper.get_grads_for_norm()[0]
        return grads

    def norm(self) -> Tensor:
        return _squares(self.gradients()).sqrt()

    def forget(self) -> None:
        self.wrapper.zero_grad(set_to_none=True)

    def partitions(self) -> Iterator[Tensor]:
        yield from self.wrapper.fp32_groups_flat_partition


class Stage3(Zero):
    """Stage 3: weights, gradients and state in parts."""

    def gradients(self) -> list[Tensor]:
        return [grad for held in self.wrapper.averaged_gradients.values() for grad in held]

    def forget(self) -> None:
        self.wrapper.zero_grad(set_to_none=True)
        self.wrapper.averaged_gradients = {}

    def partitions(self) -> Iterator[Tensor]:
        yield from self.wrapper.fp32_partitioned_groups_flat

    def write(self, parameter: nn.Parameter, value: Tensor, key: str | None = None) -> None:
        from deepspeed.utils import safe_set_local_fp32_param, safe_set_local_optimizer_state

        # By parts, since DeepSpeed's setters of whole values fail where a size is no multiple of the ranks.
        size = parameter.ds_tensor.numel()  # type: ignore[attr-defined]
        padded = value.new_zeros(size * dist.get_world_size())
        padded[: value.numel()] = value.flatten()
        part = padded.narrow(0, size * dist.get_rank(), size)
        if key is None:
            safe_set_local_fp32_param(parameter, part)
        else:
            safe_set_local_optimizer_state(parameter, part, key)

    def relink(self) -> None:
        pass  # state is looked up by partition each time

    def publish(self) -> None:
        self.wrapper._partition_all_parameters()
        for group in range(len(self.wrapper.fp32_partitioned_groups_flat)):
            self.wrapper._reassign_or_swap_out_partitioned_parameters(group)
        if self.wrapper.persistent_parameters:  # small ones, which stay whole
            self.wrapper.persistent_parameters[0].all_gather(self.wrapper.persistent_parameters)
