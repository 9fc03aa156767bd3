"""A real training step on this machine, with random data: its seconds, and on a GPU its peak memory."""

from __future__ import annotations

import dataclasses
import statistics
import time
from dataclasses import dataclass
from typing import Any

import torch

from umt.assemble.tasks import build_task
from umt.config.schema import Config, FinetuneConfig
from umt.engine import runtime
from umt.tools.plan.trace import make_optimizer, random_batch


@dataclass(frozen=True)
class Measured:
    """`seconds` of one micro-batch of `clips` clips with its optimiser step, the median of three."""

    device: str
    clips: int
    seconds: float
    peak_bytes: int | None  # of CUDA's allocator; None on a CPU


def measure(config: Config) -> Measured:
    """Times the step of `config` with random weights: the whole micro-batch on a GPU, the fewest clips on a CPU."""
    run = runtime.start(
        device=config.runtime.device, precision=config.runtime.precision, threads=config.runtime.threads or 0
    )
    if run.device.type == "cpu":
        mixes = isinstance(config, FinetuneConfig) and config.data.num_sample % 2
        optim: Any = dataclasses.replace(config.optim, batch_size=2 if mixes else 1)
        config = dataclasses.replace(config, optim=optim)
    task = build_task(config, run, weights=False)
    task.model.train()
    optimizer = make_optimizer(config, task)
    batch = random_batch(config).to(run.device)
    if run.device.type == "cuda":
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
    peak = torch.cuda.max_memory_allocated(run.device) if run.device.type == "cuda" else None
    name = torch.cuda.get_device_name(run.device) if run.device.type == "cuda" else f"CPU, {run.threads} threads"
    return Measured(name, len(batch), statistics.median(seconds[1:]), peak)
