"""The benchmark of random kills, with a few of them; docs/reliability.md has the table of many."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.conftest import environment


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_random_kills_leave_no_difference() -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "scripts/bench_resume.py", "--kills", "2"]
    done = subprocess.run(command, cwd=root, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith(("| pretrain", "| finetune"))]
    assert len(rows) == 8
    assert all(sum(map(int, row[4:9])) == 2 and row[10] == "0 |" for row in rows)
