"""Which device and precision a process computes on: for training and inference the same choice."""

from __future__ import annotations

import re

import torch

from umt.errors import ConfigError

PRECISIONS = ("auto", "bf16", "fp16", "fp32")
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """`auto`: this process's GPU if there is one, else the CPU. A GPU that is asked for and missing is refused."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise ConfigError(f"--device ({name}) must be auto, cpu, cuda or cuda:N.")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError(f"--device ({name}): no usable CUDA GPU was found. Use --device cpu, or --device auto.")
    index = int(name.split(":")[1]) if ":" in name else local_rank
    if index >= torch.cuda.device_count():
        raise ConfigError(
            f"--device ({name}): process {local_rank} of this node wants GPU {index}, but "
            f"{torch.cuda.device_count()} are visible. Start at most one process per GPU, or use --device cpu."
        )
    return torch.device("cuda", index)


def has_native_bf16(device: torch.device) -> bool:
    """Whether `device` multiplies bf16 in hardware: CUDA from compute capability 8.0, CPUs with AVX512-BF16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def choose_precision(name: str, device: torch.device) -> str:
    """`auto`: bf16 where it is native, else fp16 on CUDA and fp32 on a CPU."""
    if name not in PRECISIONS:
        raise ConfigError(f"--precision ({name}) must be one of {', '.join(PRECISIONS)}.")
    if name != "auto":
        return name
    if has_native_bf16(device):
        return "bf16"
    return "fp16" if device.type == "cuda" else "fp32"


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Context of forward passes in `precision` (bf16 | fp16 | fp32); weights stay as they are."""
    return torch.autocast(
        device.type, dtype=DTYPES[precision] if precision != "fp32" else None, enabled=precision != "fp32"
    )
