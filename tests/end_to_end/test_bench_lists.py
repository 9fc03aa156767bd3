"""The benchmark of lists."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "bench_lists.py"


@pytest.mark.slow
def test_the_benchmark_of_lists_times_every_form() -> None:
    command = [sys.executable, str(SCRIPT), "--rows", "2000", "--turns", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert [line.split("  ")[1] for line in done.stdout.splitlines()[1:]] == [
        "read csv", "read csv, Windows line ends", "read csv, quotes", "read csv, names of classes", "read parquet",
        "count csv", "count parquet", "umt data check --lines_only",
    ]  # fmt: skip
