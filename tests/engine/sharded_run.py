"""What two processes see of weights in parts: every function of `CHECKS` runs on both, and what it returns is kept.

`python sharded_run.py FOLDER` writes FOLDER/<rank>.json, a value by the name of the check.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.fsdp
from torch import nn
from torch.distributed.tensor import DTensor

from tests.engine.strategy_run import CLASSES, FRAMES, STEPS, Data, make_task
from umt.engine import runtime
from umt.engine.runtime import Runtime
from umt.engine.step import TrainingStep
from umt.engine.strategies.sharded import Sharded
from umt.engine.trainer import NonFiniteError, Trainer, TrainerOptions
from umt.errors import CheckpointError, ConfigError
from umt.models import create_model
from umt.optim.build import create_optimizer
from umt.optim.param_groups import param_groups
from umt.tasks.base import Task


def make(place: Runtime, task: Task | None = None, opt: str = "adamw") -> tuple[Task, Sharded]:
    task = task or make_task("classify")
    optimizer = create_optimizer(param_groups(task.model, weight_decay=0.05), name=opt, lr=1e-3)
    return task, Sharded(task.model, optimizer, runtime=place, clip_grad=1.0)


def trained_once(place: Runtime, factor: Callable[[int], float] = lambda rank: 1.0, opt: str = "adamw") -> Any:
    """A step whose loss is multiplied by `factor(rank)` -> its result and the strategy."""
    task, strategy = make(place, opt=opt)
    step = TrainingStep(task, strategy, runtime=place, lr=[1e-3])
    original = task.training_step

    def multiplied(batch: Any, seed: int) -> Any:
        output = original(batch, seed)
        return dataclasses.replace(output, loss=output.loss * factor(place.world.rank))

    task.training_step = multiplied  # type: ignore[method-assign]
    batch = next(iter(Data(place, Path(), 1).batches(0)))
    return step.run(0, [batch], {}), strategy


def shares(place: Runtime) -> list[float]:
    """Of weights, of gradients and of each moment: the share that lies here."""
    _, strategy = trained_once(place)
    weights = strategy.parameters
    kinds = [weights, [p.grad for p in weights]]
    kinds += [[strategy.optimizer.state[p][key] for p in weights] for key in ("exp_avg", "exp_avg_sq")]
    return [sum(t.to_local().numel() for t in kind) / sum(t.numel() for t in kind) for kind in kinds]


def starting_weights(place: Runtime) -> list[float]:
    """Sum of the absolute weights that rank 0 made, and of those that the run starts from."""
    task = make_task("classify")
    with torch.no_grad():
        for parameter in task.model.parameters():
            parameter.add_(place.world.rank)
    before = [sum(float(p.detach().abs().sum()) for p in task.model.parameters())]
    dist.broadcast_object_list(before, src=0)
    _, strategy = make(place, task)
    with strategy.whole_model() as model:
        return [before[0], sum(float(p.detach().abs().sum()) for p in model.parameters())]


def copy_after_use(place: Runtime) -> list[bool]:
    """Whether the gathered copy is plain inside the block, and empty after it."""
    _, strategy = make(place)
    with strategy.whole_model() as model:
        plain = not any(isinstance(p, DTensor) or p.is_meta for p in model.parameters())
    return [plain, all(p.is_meta for p in model.parameters())]


def gathered_types(place: Runtime) -> dict[str, list[str]]:
    """Types of the first block's weights while it runs under bf16, by the kind of their module."""
    place = dataclasses.replace(place, precision="bf16")
    task, _ = make(place)
    seen: dict[str, set[str]] = {}

    def look(module: nn.Module, _: Any) -> None:
        for p in module.parameters(recurse=False):
            seen.setdefault(type(module).__name__, set()).add(str(p.dtype))

    for module in task.model.blocks[1].modules():  # type: ignore[union-attr, index]
        module.register_forward_pre_hook(look)
    batch = next(iter(Data(place, Path(), 1).batches(0)))
    with place.autocast():
        task.training_step(batch, 0)
    return {name: sorted(types) for name, types in seen.items()}


def kept_for_backward(place: Runtime) -> int:
    """Bytes of blocks' weights that the backward pass keeps under bf16, after the forward pass."""
    place = dataclasses.replace(place, precision="bf16")
    task, _ = make(place)
    shapes = {tuple(p.shape) for p in task.model.blocks.parameters() if p.ndim == 2}  # type: ignore[union-attr]
    kept: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tuple(tensor.shape) in shapes or tuple(tensor.shape[::-1]) in shapes:
            kept.append(tensor)
        return tensor

    batch = next(iter(Data(place, Path(), 1).batches(0)))
    with place.autocast(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        task.training_step(batch, 0)
    assert len(kept) >= 12, len(kept)  # four weights in each block but the first, which recomputes
    return sum(tensor.untyped_storage().size() for tensor in kept)


def bad_gradient(place: Runtime) -> dict[str, Any]:
    """A loss that is no number on rank 1 alone: whether a step was taken, and whether a weight moved."""
    result, strategy = trained_once(place, lambda rank: float("nan") if rank else 1.0)
    moved = any(strategy.optimizer.state.values())
    return {"updated": result.updated, "bad_loss": result.bad_loss, "moved": moved}


def overflow(place: Runtime) -> dict[str, Any]:
    """Under fp16, gradients of rank 1 alone that fp16 cannot hold."""
    place = dataclasses.replace(place, precision="fp16")
    result, strategy = trained_once(place, lambda rank: 1e30 if rank else 1.0)
    return {"overflow": result.overflow, "updated": result.updated, "scale": strategy.loss_scale()}


def fp16_step(place: Runtime) -> dict[str, Any]:
    """Under fp16, a step of a loss so small that 2^16 times its gradients fit: its norm by that in fp32."""
    good, strategy = trained_once(dataclasses.replace(place, precision="fp16"), lambda rank: 1e-3)
    wanted, _ = trained_once(place, lambda rank: 1e-3)
    ratio = good.values["grad_norm"] / wanted.values["grad_norm"]
    return {"ratio": ratio, "updated": good.updated, "scaler": strategy.state_dict()["scaler"]}


def foreign_checkpoint(place: Runtime) -> str:
    """What is said of a checkpoint of a model with another head."""
    _, strategy = make(place)
    model = create_model("vit_tiny_patch8_48", num_frames=FRAMES, num_classes=CLASSES + 1)
    try:
        strategy.load_state_dict({"model": model.state_dict()}, "other.pth")
    except CheckpointError as error:
        return str(error)
    return ""


def unfit_optimizer(place: Runtime) -> str:
    """What is said of an optimiser whose state cannot be cut in parts."""
    try:
        trained_once(place, opt="adafactor")
    except ConfigError as error:
        return str(error)
    return ""


def replay_file(place: Runtime) -> list[str]:
    """Files that a step leaves whose loss is no number on rank 1; FOLDER is the current one."""
    task, strategy = make(place)
    original = task.training_step

    def poisoned(batch: Any, seed: int) -> Any:
        output = original(batch, seed)
        return dataclasses.replace(output, loss=output.loss * (float("nan") if place.world.rank else 1.0))

    task.training_step = poisoned  # type: ignore[method-assign]
    options = TrainerOptions(epochs=1, steps_per_epoch=STEPS, output_dir=Path("poisoned"))
    trainer = Trainer(task, strategy, Data(place, Path(), 1), options=options, lr=[1e-3] * STEPS, runtime=place)
    try:
        trainer.fit()
    except NonFiniteError:
        return sorted(path.name for path in Path("poisoned").glob("nonfinite*"))
    return []


CHECKS = [
    shares, starting_weights, copy_after_use, gathered_types, kept_for_backward, bad_gradient, overflow, fp16_step,
    foreign_checkpoint, unfit_optimizer, replay_file,
]  # fmt: skip


def work(rank: int, port: int) -> None:
    """All checks on process `rank`."""
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    place = runtime.start(device="cpu", precision="fp32", threads=1, timeout_minutes=1)
    Path(f"{rank}.json").write_text(json.dumps({check.__name__: check(place) for check in CHECKS}))
    runtime.stop()


def main() -> None:
    """See the module's docstring."""
    os.chdir(sys.argv[1])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [multiprocessing.get_context("fork").Process(target=work, args=(rank, port)) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    sys.exit(int(any(process.exitcode for process in ranks)))


if __name__ == "__main__":
    main()
