"""Peak memory of one GPU by parts, for each way to hold the weights. Arithmetic on a traced step; no torch.

DDP, in which each GPU holds everything, is the trace itself. The other strategies divide weights, gradients or the
optimiser's state among GPUs; what they gather during a step is counted too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from umt.flags.run import ParallelConfig
    from umt.tools.plan.trace import Step

GIB = 2**30
STRATEGIES = ("ddp", "zero1", "zero2", "zero3", "fsdp")
FLAGS = {
    "ddp": "(no flag)",
    "zero1": "--enable_deepspeed --zero_stage 1",
    "zero2": "--enable_deepspeed --zero_stage 2",
    "zero3": "--enable_deepspeed --zero_stage 3",
    "fsdp": "--fsdp",
}
_ZERO_BUCKETS = 2 * 50_000_000 * 4  # reduce and allgather buckets, as umt.run.deepspeed sets them, in fp32
# An allowance for what the allocator and CUDA's libraries hold next to tensors: context, workspaces, fragments.
CUDA_BASE = 0.6 * GIB
FRAGMENTS = 0.03


def strategy_of(parallel: ParallelConfig, processes: int) -> str:
    """What the flags of a run with so many processes ask for; --fsdp has nothing to share out on a single one."""
    if parallel.enable_deepspeed and parallel.zero_stage:
        return f"zero{parallel.zero_stage}"
    return "fsdp" if parallel.fsdp and processes > 1 else "ddp"


@dataclass(frozen=True)
class Parts:
    """Bytes of one GPU at the peak. `activations`: also inputs, temporaries and autocast's half-precision weights."""

    weights: float
    gradients: float
    optimizer: float
    ema: float
    teacher: float
    activations: float
    overhead: float

    @property
    def total(self) -> float:
        return sum(vars(self).values())


def parts(
    step: Step,
    strategy: str,
    *,
    gpus: int,
    precision: str,
    accumulation: int = 1,
    ema: bool = False,
    overhead: bool = True,
) -> Parts:
    """Peak by parts. `overhead`: with an allowance for CUDA itself; without it the tensors alone."""
    size = 4.0 * step.trained
    half = precision != "fp32"
    sharded = 1 / gpus
    weights, optimizer, held_ema = float(step.weight_bytes), float(step.optimizer_bytes), size if ema else 0.0
    casts, extra = True, 0.0
    # DDP's buckets, and gradients between micro-batches, stay allocated throughout.
    whole, share = gpus > 1 or accumulation > 1, 1.0
    if strategy.startswith("zero"):
        stage = int(strategy[-1])
        casts = not half
        optimizer *= sharded
        # Half precision: weights of 2 bytes, and a share of them in fp32; fp32: DeepSpeed copies its share once more.
        weights = (step.weight_bytes - size) + (2 * step.trained if half else size) + size * sharded
        if stage >= 2:
            share, extra = sharded, _ZERO_BUCKETS
        if stage == 3:  # gathered weights stay until 1e9 others have been used: in a smaller model, all of them
            weights += (2 if half else 4) * step.trained * sharded
    elif strategy == "fsdp":
        casts = False
        optimizer, held_ema = optimizer * sharded, held_ema * sharded
        # Gathered at the same time: what lies outside the blocks, and two blocks, since the next is fetched ahead.
        gathered = step.outside_blocks + 2 * step.largest_block
        weights = (step.weight_bytes - size) + size * sharded + (2 if half else 4) * gathered
        share, extra = sharded, 4.0 * gathered  # whole gradients until they are summed over processes
    traced = step.memory.peak(casts=casts, gradients=share, whole_gradients=whole)
    gradients = share * max(step.memory.rest)
    held = weights + optimizer + held_ema + step.teacher_bytes + traced + extra
    return Parts(
        weights=weights,
        gradients=gradients + extra,
        optimizer=optimizer,
        ema=held_ema,
        teacher=float(step.teacher_bytes),
        activations=max(traced - gradients, 0.0),
        overhead=CUDA_BASE + FRAGMENTS * held if overhead else 0.0,
    )
