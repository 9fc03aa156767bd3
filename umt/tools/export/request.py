"""What `umt export` is asked for, and what can be checked of it without torch."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from umt.errors import ConfigError

FORMATS = ("safetensors", "onnx", "torch_export", "original")
DTYPES = ("float32", "float16", "bfloat16")
LICENCES = ("weights", "teacher", "data", "code")
OPSETS = range(18, 24)


@dataclass(frozen=True)
class Request:
    """What is asked for."""

    checkpoint: str
    output: Path
    formats: tuple[str, ...] = ("safetensors",)
    dtype: str = "float32"
    ema: bool = False
    features: bool = False
    with_preprocessing: bool = False
    opset: int = 20
    model: str | None = None
    num_frames: int | None = None
    input_size: int | None = None
    labels: str | None = None
    licence: dict[str, str] = field(default_factory=dict)
    push_to_hub: str = ""
    private: bool = False
    overwrite: bool = False


def check(request: Request) -> None:
    """Raises ConfigError for the first contradiction between flags."""
    graphs = [name for name in request.formats if name in ("onnx", "torch_export")]
    if request.dtype != "float32" and graphs:
        raise ConfigError(
            f"--dtype ({request.dtype}) is for safetensors and original; {graphs[0]} is exported and compared in "
            "float32. Export it in float32, and convert it with the tools of its runtime."
        )
    if request.with_preprocessing and not graphs:
        raise ConfigError("--with_preprocessing is for --format onnx or torch_export, which hold a computation.")
    if request.opset not in OPSETS:
        raise ConfigError(f"--opset ({request.opset}) must lie in {OPSETS[0]}..{OPSETS[-1]}; 20 is usual.")
    if request.push_to_hub and not re.fullmatch(r"[\w.-]+/[\w.-]+", request.push_to_hub):
        raise ConfigError(f"--push_to_hub ({request.push_to_hub}) must read OWNER/NAME.")
    if request.features and request.labels:
        raise ConfigError("--labels names the classes of a head, and --features leaves the head out. Drop one of them.")
    if request.private and not request.push_to_hub:
        raise ConfigError("--private says how --push_to_hub uploads. Name the repository: --push_to_hub OWNER/NAME.")
