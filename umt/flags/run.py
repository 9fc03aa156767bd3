"""Flags that say how a run proceeds: what is tested, what is written, on which machine. Not what is learnt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from umt.flags.group import Group, OnResume, flag

PRECISIONS = ("auto", "bf16", "fp16", "fp32")


@dataclass(frozen=True)
class EvalConfig(Group):
    """Validation and test"""

    on_resume: ClassVar[OnResume] = "ignore"

    eval: bool = flag(False, "only test")
    test_best: bool = flag(False, "test the best checkpoint instead of the last")
    disable_eval_during_finetuning: bool = flag(False, "no validation after each epoch")
    test_num_segment: int = flag(5, "clips of a test video", at_least=1)
    test_num_crop: int = flag(3, "crops of a test clip", at_least=1)
    count_unreadable_as_wrong: bool = flag(
        False, "count a video that cannot be read as wrong, and report it, instead of stopping"
    )


@dataclass(frozen=True)
class CheckpointConfig(Group):
    """Output and checkpoints"""

    on_resume: ClassVar[OnResume] = "ignore"

    output_dir: str = flag("", "folder of checkpoints, logs and results", example="outputs/my_run")
    log_dir: str | None = flag(None, "folder of the TensorBoard files; default: --output_dir", example="outputs/my_run")
    job_name: str = flag("", "name of the run in logs; default: the output folder's")
    resume: str = flag("", "checkpoint to continue from")
    auto_resume: bool = flag(True, "continue from the newest checkpoint in --output_dir")
    save_ckpt: bool = flag(True, "write checkpoints")
    save_ckpt_freq: int = flag(100, "epochs between numbered checkpoints", at_least=1)
    save_every_minutes: float = flag(
        15.0, "minutes between writes of the latest checkpoint; 0: only by epoch", at_least=0
    )
    save_every_steps: int = flag(0, "steps between writes of the latest checkpoint; 0: only by epoch", at_least=0)
    keep_last: int | None = flag(
        None, "how many numbered checkpoints stay, the newest; default: all", at_least=1, example="3"
    )
    save_in_background: bool = flag(False, "write checkpoints during the next steps instead of between them")


@dataclass(frozen=True)
class ParallelConfig(Group):
    """Several processes"""

    on_resume: ClassVar[OnResume] = "ignore"

    enable_deepspeed: bool = flag(False, "hold weights and optimiser by DeepSpeed instead of DDP")
    zero_stage: int = flag(
        0,
        "what --enable_deepspeed shares out: 1 the optimiser's state, 2 gradients too, 3 weights too",
        at_least=0,
        at_most=3,
    )
    deepspeed_config: str = flag("", "DeepSpeed's JSON file, whose entries come on top of those that the flags make")
    fsdp: bool = flag(False, "share out weights, gradients and optimiser state by PyTorch's FSDP2 instead of DDP")
    timeout_minutes: float = flag(30.0, "minutes that a process waits for another before the job ends", above=0)


@dataclass(frozen=True)
class RuntimeConfig(Group):
    """Machine"""

    on_resume: ClassVar[OnResume] = "ignore"

    device: str = flag("auto", "where to run; auto takes the GPU if there is one", choices=("auto", "cuda", "cpu"))
    precision: str = flag(
        "auto", "auto: bf16 where the device has it natively, else fp16 (GPU), fp32 (CPU)", choices=PRECISIONS
    )
    seed: int = flag(0, "seed of every random draw", at_least=0)
    threads: int | None = flag(None, "CPU threads of torch; default: torch's own choice", at_least=1, example="2")
    log_every: int = flag(10, "steps between log lines", at_least=1)
    max_hours: float | None = flag(
        None,
        "hours after which the run saves and exits as if it were preempted; default: none",
        above=0,
        example="23.5",
    )
    requeue: bool = flag(True, "on SLURM, requeue the job when it is preempted or reaches --max_hours")
    on_nan: str = flag(
        "stop",
        "a loss that is no number: stop, or go back to the last checkpoint and skip the batch",
        choices=("stop", "rollback"),
    )
    dry_run: bool = flag(False, "print the resolved run and stop; needs no torch, GPU or videos")
