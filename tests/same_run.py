"""What it means that two runs were the same: checkpoints to the bit, logs but for the clock."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from umt.engine import checkpoints
from umt.engine.logs import WALL_CLOCK


def differences(a: Any, b: Any, path: str = "") -> list[str]:
    """Names of the entries in which two nested contents differ in any bit."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        same = (
            a.dtype == b.dtype and a.shape == b.shape and a.numpy(force=True).tobytes() == b.numpy(force=True).tobytes()
        )
        return [] if same else [path]
    if isinstance(a, dict) and isinstance(b, dict):
        missing = [f"{path}/{key}" for key in a.keys() ^ b.keys()]
        return missing + [d for key in a.keys() & b.keys() for d in differences(a[key], b[key], f"{path}/{key}")]
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return [d for i, (x, y) in enumerate(zip(a, b, strict=True)) for d in differences(x, y, f"{path}/{i}")]
    return [] if type(a) is type(b) and a == b else [path]


def log_lines(out: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "log.txt").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in WALL_CLOCK} for line in lines]


def run_differences(whole: Path, cut: Path) -> list[str]:
    """What differs between the output folders of two runs: checkpoints, log, scores of the test."""
    names = sorted(path.name for path in whole.glob("checkpoint-*.pth"))
    if names != sorted(path.name for path in cut.glob("checkpoint-*.pth")):
        return ["the names of the checkpoints"]
    found = [
        f"{name}{entry}"
        for name in names
        for entry in differences(checkpoints.load(whole / name), checkpoints.load(cut / name))
    ]
    if log_lines(whole) != log_lines(cut):
        found.append("log.txt")
    if (whole / "scores.npz").exists():
        with np.load(whole / "scores.npz") as one, np.load(cut / "scores.npz") as two:
            found += [f"scores.npz/{name}" for name in one.files if one[name].tobytes() != two[name].tobytes()]
        if (whole / "test.json").read_bytes() != (cut / "test.json").read_bytes():
            found.append("test.json")
    return found
