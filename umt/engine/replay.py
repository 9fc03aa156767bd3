"""A step whose loss was no number, kept in one file, and its post-mortem: `umt replay FILE`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from umt.data.loading.batch import Batch
from umt.engine import checkpoints
from umt.engine.runtime import Runtime
from umt.errors import CheckpointError
from umt.formats import Format
from umt.tasks.base import Task

FORMAT = Format("a saved step", CheckpointError, key="replay")


def save(
    path: Path,
    *,
    task: Task,
    model: nn.Module,
    batches: Mapping[int, Batch],
    seeds: Mapping[int, int],
    global_step: int,
    precision: str,
    scale: float,
    config: Mapping[str, Any],
) -> None:
    """Writes the micro-batches of a step, their seeds and the weights before it; loads with weights_only.

    Raises:
        OutputError: the disk is full or the folder cannot be written.
    """
    content = {
        **FORMAT.stamp(),
        "model": model.state_dict(),
        "task": task.state_dict(),
        "batches": {micro: batch.state_dict() for micro, batch in batches.items()},
        "seeds": dict(seeds),
        "global_step": global_step,
        "precision": precision,
        "scale": scale,
        "config": dict(config),
    }
    checkpoints.save(content, path)


@dataclass(frozen=True)
class SampleLoss:
    """Loss of one sample of the saved step; `name` is its row in words."""

    micro: int
    name: str
    loss: float


@dataclass(frozen=True)
class Replay:
    """What the replay saw. `bad_gradients`: names of parameters whose gradient has a value that is no number."""

    global_step: int
    losses: dict[int, float]  # by micro-batch
    grad_norm: float
    samples: list[SampleLoss]
    bad_gradients: list[str]

    def lines(self) -> Iterator[str]:
        """A report to print."""
        yield f"step {self.global_step}"
        for micro, loss in self.losses.items():
            yield f"micro-batch {micro}: loss {loss:g}"
        yield f"gradient norm {self.grad_norm:g}"
        if self.bad_gradients:
            more = f" and {len(self.bad_gradients) - 5} more" if len(self.bad_gradients) > 5 else ""
            yield f"non-finite gradients in {', '.join(self.bad_gradients[:5])}{more}"
        yield "loss of each clip alone:"
        for sample in self.samples:
            yield f"  {sample.loss:<12g} {sample.name}"


def load(path: Path) -> dict[str, Any]:
    """The content of a saved step.

    Raises:
        CheckpointError: missing, damaged, written by a later version, or another kind of file.
    """
    if not path.is_file() or not checkpoints.is_whole(path):
        raise CheckpointError(f"{path} is missing or damaged: nothing to replay. Name a nonfinite-*.pth file.")
    content = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, dict) or FORMAT.key not in content:
        raise CheckpointError(f"{path} is no saved step. Name a nonfinite-*.pth file of a run's output folder.")
    FORMAT.check(content, path)
    return content


def replay(path: Path, build_task: Callable[[Mapping[str, Any]], Task], *, runtime: Runtime) -> Replay:
    """Recomputes the saved step, then every sample alone.

    Args:
        path: the file that the stopped run named.
        build_task: makes the task from the run's configuration, as it is stored in the file.
        runtime: where to compute; its precision should be the file's (`load(path)["precision"]`).

    Raises:
        CheckpointError: as `load`; or the task's model is another one.
    """
    content = load(path)
    task = build_task(content["config"])
    checkpoints.load_model(task.model, content, str(path))
    task.load_state_dict(content["task"])
    task.to(runtime.device)
    task.model.train()
    batches = {micro: task.batch_from(state).to(runtime.device) for micro, state in content["batches"].items()}

    losses: dict[int, float] = {}
    for micro, batch in batches.items():
        loss = _loss(task, batch, content["seeds"][micro], runtime)
        (loss * content["scale"]).backward()
        losses[micro] = float(loss.detach())
    gradients = {name: p.grad / content["scale"] for name, p in task.model.named_parameters() if p.grad is not None}
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients.values()]))
    samples = [
        SampleLoss(micro, batch.describe(i, copy=True), loss)
        for micro, batch in batches.items()
        for i, loss in enumerate(_each(task, batch, content["seeds"][micro], runtime))
    ]
    bad = [name for name, gradient in gradients.items() if not gradient.isfinite().all()]
    return Replay(content["global_step"], losses, float(norm), samples, bad)


def _loss(task: Task, batch: Batch, seed: int, runtime: Runtime) -> torch.Tensor:
    runtime.seed(seed)
    with runtime.autocast():
        return task.training_step(batch, seed).loss


@torch.no_grad()
def _each(task: Task, batch: Batch, seed: int, runtime: Runtime) -> Iterator[float]:
    """The loss of every sample by itself."""
    for i in range(len(batch)):
        yield float(_loss(task, task.alone(batch, i), seed, runtime))
