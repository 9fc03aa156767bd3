"""What a run was: its resolved configuration and the machine and versions it ran on, saved next to its results."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import umt
from umt.engine.logs import append_line
from umt.writing import replacing

_PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "decord",
    "av",
    "torchcodec",
    "opencv-python-headless",
    "deepspeed",
)


def environment() -> dict[str, Any]:
    """Versions, processor or GPU, git commit of the code if it runs from a checkout, command line, host and time."""
    versions: dict[str, str] = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    versions["torch"] = torch.__version__  # with the build, +cpu or +cu...
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "umt": umt.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": versions,
        "cuda": torch.version.cuda,
        "gpus": gpus,
        "cpus": os.cpu_count(),
        "git": git_commit(Path(umt.__file__).parent),
        "command": list(sys.orig_argv),
        "host": socket.gethostname(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def git_commit(folder: Path) -> str | None:
    """Commit of the checkout that `folder` is in, with "+" when files were changed since; None outside one."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        # An installed copy may lie inside another project's checkout; then it is not tracked there.
        git("ls-files", "--error-unmatch", "__init__.py")
        # Only the code counts: a run may write its own output into the checkout.
        return git("rev-parse", "HEAD") + "+" * bool(git("status", "--porcelain", "--", "."))
    except (OSError, subprocess.SubprocessError):
        return None


def save_record(output_dir: Path, config: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Writes config.json and adds a line to environment.jsonl: one line each time that the run is started.

    Args:
        output_dir: the run's folder.
        config: the resolved configuration, plain values only.
        facts: device, precision and processes of this start (`Runtime.facts`).

    Raises:
        OutputError: the folder cannot be written.
    """
    with replacing(output_dir / "config.json") as file:
        file.write(json.dumps(config, indent=2, default=str).encode() + b"\n")
    append_line(output_dir / "environment.jsonl", {**environment(), **facts})
