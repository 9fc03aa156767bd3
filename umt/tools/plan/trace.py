"""One training step on tensors without data: what it computes, and the memory that it holds at every moment.

The real task, model and optimiser run under torch's FakeTensorMode, in which a tensor has shape, type and storage size
but no content. So there is no formula to get wrong: L/16 at any batch takes seconds and no memory, and what is counted
is what the code does, recomputation, mixup and accumulated gradients included.

With `gpu` too, CPU operators are traced, since autograd's engine needs a driver for CUDA's. Where CUDA's differ, the
CPU's are changed to match: fused attention at every length, and layer norms in fp32 under autocast.
"""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from umt.engine.runtime import Runtime
from umt.layers import attention
from umt.optim.build import create_optimizer
from umt.tasks.base import Task
from umt.tasks.base.sizing import Sizing


@dataclass
class Memory:
    """Bytes of a step apart from weights and optimiser: for every amount of gradients, the most of the rest."""

    rest: dict[int, int] = field(default_factory=dict)  # gradients -> activations, inputs, temporaries
    with_casts: dict[int, int] = field(default_factory=dict)  # the same and autocast's half-precision weights

    def peak(self, *, casts: bool, gradients: float = 1.0, whole_gradients: bool = False) -> float:
        """Most bytes at once, if n bytes of gradients took `gradients` * n; `whole_gradients`: from the start on."""
        line = self.with_casts if casts else self.rest
        whole = max(line)
        return max(other + gradients * (whole if whole_gradients else held) for held, other in line.items())


@dataclass(frozen=True)
class Step:
    """A traced micro-batch of one process. Bytes, and FLOPs as multiplications and additions."""

    clips: int
    trained: int  # parameters
    teacher: int
    largest_block: int  # parameters of one transformer block
    outside_blocks: int  # parameters elsewhere
    weight_bytes: int  # parameters and buffers of the model, fp32
    teacher_bytes: int
    optimizer_bytes: int
    saved_bytes: int  # what autograd keeps for the backward pass, weights not counted
    flops: int  # forward, backward, recomputation, teacher
    forward_flops: int
    memory: Memory


class _Constant(TorchDispatchMode):
    """A number that is read back from a tensor without content is 0: drawing weights would ask whether to redraw."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            return 0
        return func(*args, **(kwargs or {}))


def _norms_in_fp32(model: nn.Module) -> None:
    """Autocast of CUDA computes layer norms in fp32; that of CPUs does not."""

    def widen(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (args[0].float(), *args[1:]) if torch.is_autocast_enabled("cpu") else args

    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.register_forward_pre_hook(widen)


class _Live(TorchDispatchMode):
    """Sums the storages that are alive, by kind, while operators make them and references to them die."""

    def __init__(self, weights: set[int]) -> None:
        super().__init__()
        self.weights = weights
        self.now = {"rest": 0, "casts": 0, "gradients": 0}
        self.known: dict[int, tuple[weakref.ref[Any], int, str]] = {}
        self.memory = Memory()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        cast = func is torch.ops.aten._to_copy.default and id(args[0].untyped_storage()) in self.weights
        for tensor in tree_leaves(output):
            if isinstance(tensor, Tensor):
                self.see(tensor, "casts" if cast else "rest")
        return output

    def see(self, tensor: Tensor, kind: str) -> None:
        """Counts the tensor's storage as `kind` from now on."""
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self.weights:
            return
        if key in self.known:
            reference, size, before = self.known[key]
            if before == kind or kind != "gradients":
                return
            self.now[before] -= size
        else:
            size, reference = storage.nbytes(), weakref.ref(storage, functools.partial(self._gone, key))
        self.known[key] = (reference, size, kind)
        self.now[kind] += size
        self._note()

    def _gone(self, key: int, _: Any) -> None:
        _, size, kind = self.known.pop(key)
        self.now[kind] -= size

    def _note(self) -> None:
        rest, gradients = self.now["rest"], self.now["gradients"]
        memory = self.memory
        memory.rest[gradients] = max(memory.rest.get(gradients, 0), rest)
        memory.with_casts[gradients] = max(memory.with_casts.get(gradients, 0), rest + self.now["casts"])


def trace(sizing: Sizing, *, precision: str, gpu: bool = True) -> Step:
    """A step of a run, one micro-batch of one process, in `precision` (settled: bf16, fp16 or fp32)."""
    with FakeTensorMode(allow_non_fake_inputs=True), _Constant(), _attention_as_on(gpu):
        return run_step(sizing, precision=precision, gpu=gpu)


def run_step(sizing: Sizing, *, precision: str, gpu: bool = False) -> Step:
    """The same on real tensors of this CPU, or inside whatever mode is active."""
    task, batch, runtime = sizing.task(), sizing.batch(), Runtime(precision=precision)
    model = task.model
    optimizer = make_optimizer(sizing, task)
    parameters = dict(model.named_parameters())
    trained = [parameter for parameter in parameters.values() if parameter.requires_grad]
    frozen = [m for m in vars(task).values() if isinstance(m, nn.Module) and m is not model]  # a teacher
    frozen_parameters = [parameter for module in frozen for parameter in module.parameters()]
    frozen_weights = [*frozen_parameters, *(buffer for module in frozen for buffer in module.buffers())]
    weights = [*parameters.values(), *model.buffers()]
    for module in (model, *frozen) if gpu else ():
        _norms_in_fp32(module)
    model.train()
    forward_flops, flops = _count_flops(task, batch, runtime)
    state = model.state_dict(keep_vars=True).values()
    memory, saved_bytes = _watch_memory(task, batch, runtime, [*state, *weights, *frozen_weights])
    sizes: dict[str, int] = {}
    for name, parameter in parameters.items():
        block = name.split("blocks.")[1].split(".")[0] if "blocks." in name else ""
        sizes[block] = sizes.get(block, 0) + parameter.numel()
    outside = sizes.pop("", 0)
    return Step(
        clips=len(batch),
        trained=_count(trained),
        teacher=_count(frozen_parameters),
        largest_block=max(sizes.values(), default=0),
        outside_blocks=outside,
        weight_bytes=_bytes(weights),
        teacher_bytes=_bytes(frozen_weights),
        optimizer_bytes=_optimizer_bytes(optimizer, _count(trained)),
        saved_bytes=saved_bytes,
        flops=flops,
        forward_flops=forward_flops,
        memory=memory,
    )


def _count_flops(task: Task, batch: Any, runtime: Runtime) -> tuple[int, int]:
    """FLOPs of the forward pass and of the whole micro-batch. A pass of its own: the counter keeps tensors alive."""
    counter = FlopCounterMode(display=False)
    with counter:
        with runtime.autocast():
            loss = task.training_step(batch, 0).loss
        forward = counter.get_total_flops()
        loss.backward()
    task.model.zero_grad(set_to_none=True)
    return forward, counter.get_total_flops()


def _watch_memory(task: Task, batch: Any, runtime: Runtime, weights: list[Any]) -> tuple[Memory, int]:
    """What a step holds beyond `weights`, and the bytes that autograd keeps for the backward pass."""
    live = _Live({id(tensor.untyped_storage()) for tensor in weights})
    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kind = live.known[id(storage)][2] if id(storage) in live.known else "weights"
        if kind == "rest":
            saved[id(storage)] = storage.nbytes()
        return tensor

    for parameter in (p for p in task.model.parameters() if p.requires_grad):
        parameter.register_post_accumulate_grad_hook(lambda p: live.see(p.grad, "gradients"))
    with live:
        for tensor in tree_leaves(vars(batch)):
            if isinstance(tensor, Tensor):
                live.see(tensor, "rest")
        with runtime.autocast(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = task.training_step(batch, 0).loss
        loss.backward()
    return live.memory, sum(saved.values())


def make_optimizer(sizing: Sizing, task: Task) -> torch.optim.Optimizer:
    """The run's optimiser, at the unscaled rate, over the task's parameters."""
    optim = sizing.recipe.optim
    return create_optimizer(
        sizing.parameter_groups(task),
        name=optim.opt, lr=optim.lr, eps=optim.opt_eps, betas=optim.opt_betas, momentum=optim.momentum,
    )  # fmt: skip


@contextlib.contextmanager
def _attention_as_on(gpu: bool) -> Iterator[None]:
    before = attention.SHORT_ON_CPU
    attention.SHORT_ON_CPU = 0 if gpu else before
    try:
        yield
    finally:
        attention.SHORT_ON_CPU = before


def _count(parameters: list[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def _bytes(tensors: list[Any]) -> int:
    return sum({id(t.untyped_storage()): t.untyped_storage().nbytes() for t in tensors}.values())


def _optimizer_bytes(optimizer: torch.optim.Optimizer, parameters: int) -> int:
    try:
        optimizer.step()
    except RuntimeError:  # an optimiser that reads values cannot be traced: two moments, as Adam has
        return 8 * parameters
    return _bytes([v for state in optimizer.state.values() for v in state.values() if isinstance(v, Tensor)])
