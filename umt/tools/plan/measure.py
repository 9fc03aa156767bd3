"""A real training step on this machine, with random data: its seconds, and on a GPU its peak memory."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import torch

from umt.engine import runtime
from umt.tasks.base.sizing import Sizing
from umt.tools.plan.trace import make_optimizer


@dataclass(frozen=True)
class Measured:
    """`seconds` of one micro-batch of `clips` clips with its optimiser step, the median of three."""

    device: str
    clips: int
    seconds: float
    peak_bytes: int | None  # of CUDA's allocator; None on a CPU


def measure(sizing: Sizing) -> Measured:
    """Times a step with random weights: the whole micro-batch on a GPU, the fewest clips possible on a CPU."""
    settings = sizing.recipe.runtime
    run = runtime.start(device=settings.device, precision=settings.precision, threads=settings.threads or 0)
    on_gpu = run.device.type == "cuda"
    if not on_gpu:
        sizing = sizing.with_flags(batch_size=sizing.least_batch())
    task = sizing.task()
    task.to(run.device)
    task.model.train()
    optimizer = make_optimizer(sizing, task)
    batch = sizing.batch().to(run.device)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(run.device)
    seconds = []
    for _ in range(4):
        run.synchronise()
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with run.autocast():
            loss = task.training_step(batch, 0).loss
        loss.backward()
        optimizer.step()
        run.synchronise()
        seconds.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated(run.device) if on_gpu else None
    name = torch.cuda.get_device_name(run.device) if on_gpu else f"CPU, {run.threads} threads"
    return Measured(name, len(batch), statistics.median(seconds[1:]), peak)
