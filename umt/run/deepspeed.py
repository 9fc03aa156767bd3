"""DeepSpeed's configuration: what the flags make, with a person's own file on top, and what DeepSpeed needs to run.

Nothing here imports DeepSpeed or torch, so that `--dry_run` shows the JSON on any machine.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from umt.errors import ConfigError, install
from umt.flags.optim import OptimConfig
from umt.flags.run import ParallelConfig

# Moments and decay by element alone: what these compute does not depend on where a flat part begins and ends.
BY_ELEMENT = ("adamw", "adam", "nadam", "radam", "sgd", "nesterov", "momentum")
HALF = ("bf16", "fp16")


def deepspeed_json(
    optim: OptimConfig, parallel: ParallelConfig, *, precision: str, world_size: int, accumulation: int
) -> dict[str, Any]:
    """What DeepSpeed is given: the flags' entries, and --deepspeed_config's on top of them.

    `precision`: fp32, bf16 or fp16, settled. Raises ConfigError for a file that cannot be read, or that contradicts
    the flags.
    """
    entries = _from_flags(optim, parallel.zero_stage, precision, world_size, accumulation)
    path = parallel.deepspeed_config
    if not path:
        return entries
    content = _read(Path(path))
    _refuse_sections(path, content)
    _refuse_contradictions(path, content, optim.clip_grad, parallel.zero_stage, precision, entries)
    merged = _merge(entries, content)
    if parallel.zero_stage == 0:
        for section in HALF:  # they say what --precision says; see _from_flags for how stage 0 holds it
            merged.pop(section, None)
    return merged


def _from_flags(optim: OptimConfig, stage: int, precision: str, world_size: int, accumulation: int) -> dict[str, Any]:
    entries: dict[str, Any] = {
        "train_batch_size": optim.batch_size * accumulation * world_size,
        "train_micro_batch_size_per_gpu": optim.batch_size,
        "gradient_accumulation_steps": accumulation,
        "zero_optimization": {"stage": stage},
        # Gradients cross between ranks as DDP's do; half of the traffic at some loss of precision: "bf16" or "fp16".
        "communication_data_type": "fp32",
    }
    if optim.clip_grad is not None:
        entries["gradient_clipping"] = optim.clip_grad
    if stage:
        # DeepSpeed's own 5e8 elements would be 2 GB of buffers in fp32.
        entries["zero_optimization"] |= {"reduce_bucket_size": 50_000_000, "allgather_bucket_size": 50_000_000}
        if optim.opt.lower() not in ("adamw", "adam"):
            entries["zero_allow_untested_optimizer"] = True
    # At stage 0 DeepSpeed would sum half-precision gradients in half precision: fp32 weights under autocast instead.
    if stage and precision in HALF:
        entries[precision] = {"enabled": True}
        entries["data_types"] = {"grad_accum_dtype": "fp32"}
        if precision == "fp16":
            # As torch's GradScaler: from 2^16, doubled after 2000 steps without overflow, halved at every overflow.
            entries["fp16"] |= {"loss_scale": 0, "initial_scale_power": 16, "loss_scale_window": 2000, "hysteresis": 1}
    return entries


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--deepspeed_config ({path}) cannot be read: {error.strerror or error}.") from error
    except ValueError as error:  # not JSON, or not UTF-8
        raise ConfigError(f"--deepspeed_config ({path}) is no JSON: {error}.") from error
    if not isinstance(content, dict):
        raise ConfigError(f"--deepspeed_config ({path}) must hold an object, {{...}}, not a {type(content).__name__}.")
    return content


def _refuse_sections(path: str, content: Mapping[str, Any]) -> None:
    """What the flags, the schedule or the trainer decide, or what checkpoints could not follow."""
    zero = content.get("zero_optimization", {})
    zero = zero if isinstance(zero, dict) else {}
    reasons = {
        "optimizer": "the optimiser comes from --opt, --lr, --opt_betas, --opt_eps and --weight_decay",
        "scheduler": "the rates come from --lr, --warmup_epochs and --min_lr",
        "torch_autocast": "autocast comes from --precision",
        "amp": "mixed precision comes from --precision",
        "managed_gradient_accumulation": "accumulation comes from --update_freq or --global_batch_size",
    }
    for key, reason in reasons.items():
        if content.get(key) not in (None, "auto", {}):
            raise ConfigError(f"--deepspeed_config ({path}): '{key}' must not be there, since {reason}. Take it out.")
    for key in ("offload_optimizer", "offload_param", "zenflow"):
        section = zero.get(key)
        if section and not (isinstance(section, dict) and section.get("device") == "none"):
            raise ConfigError(
                f"--deepspeed_config ({path}): 'zero_optimization.{key}' is not supported here. Take it out; "
                "--zero_stage 3 and --use_checkpoint need the least memory."
            )


def _refuse_contradictions(
    path: str, content: Mapping[str, Any], clip: float | None, stage: int, precision: str, entries: Mapping[str, Any]
) -> None:
    micro, accumulation = entries["train_micro_batch_size_per_gpu"], entries["gradient_accumulation_steps"]
    gpus = entries["train_batch_size"] // (micro * accumulation)
    held = {name: (precision == name, f"--precision is {precision}", "--precision") for name in HALF}
    # entry: (what the flags make of it, in words, the flag to change)
    settled: dict[str, tuple[Any, str, str]] = {
        "train_batch_size": (
            entries["train_batch_size"],
            f"GPUs x --batch_size x accumulation = {gpus} x {micro} x {accumulation} = {entries['train_batch_size']}",
            "--batch_size",
        ),
        "train_micro_batch_size_per_gpu": (micro, f"--batch_size is {micro}", "--batch_size"),
        "gradient_accumulation_steps": (
            accumulation,
            f"--update_freq (or --global_batch_size) makes it {accumulation}",
            "--update_freq",
        ),
        "zero_optimization.stage": (
            stage,
            f"--zero_stage is {stage}",
            "--zero_stage",
        ),
        "bf16.enabled": held["bf16"],
        "bfloat16.enabled": held["bf16"],
        "fp16.enabled": held["fp16"],
    }
    if clip is not None:  # without the flag, the file may well clip
        settled["gradient_clipping"] = (clip, f"--clip_grad is {clip:g}", "--clip_grad")
    for key, (value, words, flag) in settled.items():
        theirs = _get(content, key)
        if theirs not in (None, "auto") and theirs != value:
            raise ConfigError(
                f"--deepspeed_config ({path}): '{key}' is {json.dumps(theirs)}, but {words}. "
                f'Change {flag} or the file, where "auto" leaves it to the flag.'
            )


def _get(entries: Mapping[str, Any], dotted: str) -> Any:
    value: Any = entries
    for name in dotted.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` on top of `under`, section by section; "auto" leaves what is under it, or nothing."""
    merged = dict(under)
    for key, value in over.items():
        if value == "auto":
            continue
        below = merged.get(key)
        if isinstance(value, dict):
            merged[key] = _merge(below if isinstance(below, dict) else {}, value)
        else:
            merged[key] = value
    return merged


# ---- what must be there


def check_installed() -> None:
    """Raises ConfigError unless DeepSpeed can be imported."""
    if importlib.util.find_spec("deepspeed") is None:
        raise ConfigError(
            "--enable_deepspeed needs DeepSpeed, which is not installed. "
            f"Install it with {install('deepspeed')}, or leave the flag out."
        )


def check_compiler(environ: Mapping[str, str] | None = None, *, bin_folder: Path | None = None) -> None:
    """Raises ConfigError unless a C++ compiler and ninja are there, with which DeepSpeed builds an op on a CPU.

    ninja is looked for on PATH and in `bin_folder`, by default the folder of the interpreter, which a run adds to PATH.
    """
    environ = os.environ if environ is None else environ
    search = environ.get("PATH", os.defpath)
    compiler = environ.get("CXX", "").split()[0] if environ.get("CXX", "").split() else "c++"
    if shutil.which(compiler, path=search) is None:
        raise ConfigError(
            f"--enable_deepspeed needs a C++ compiler, which DeepSpeed calls at its first use, and '{compiler}' is not "
            "on PATH. Install one, e.g. apt-get install g++, or name yours with CXX."
        )
    if shutil.which("ninja", path=os.pathsep.join([search, str(bin_folder or Path(sys.executable).parent)])) is None:
        raise ConfigError(
            "--enable_deepspeed needs ninja, with which DeepSpeed builds an op at its first use, and it is not on "
            "PATH. Install it with pip install ninja."
        )
