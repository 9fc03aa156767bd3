"""A run that is killed and resumed leaves what one left alone leaves, bit for bit. Processes and kills are real."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.same_run import differences, log_lines
from umt.engine import checkpoints

SCRIPT = Path(__file__).with_name("tiny_run.py")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}


def run_several(folder: Path, runs: list[list[str]]) -> list[int]:
    """Exit code of each run, one after the other, each in a process of its own."""
    plan = folder / "plan.jsonl"
    plan.write_text("".join(json.dumps(run) + "\n" for run in runs))
    done = subprocess.run([sys.executable, str(SCRIPT), str(plan)], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return [int(code) for code in done.stdout.split()]


NAMES = ("checkpoint-latest.pth", "checkpoint-best.pth", "checkpoint-1.pth", "checkpoint-2.pth")


def assert_same_run(whole: Path, cut: Path, names: Sequence[str] = NAMES) -> None:
    for name in names:
        assert differences(checkpoints.load(whole / name), checkpoints.load(cut / name)) == [], name
    assert log_lines(whole) == log_lines(cut)
    assert (whole / "steps.jsonl").read_bytes() == (cut / "steps.jsonl").read_bytes()


# 3 epochs of 5 steps of 2 micro-batches; a checkpoint every 2 steps and at the ends of epochs.
CHAINS = {
    # (epoch, micro-batch) before which the process dies: before any checkpoint, right after one, between epochs,
    # between checkpoints, in the last step.
    "in_steps": [["--die_at", *at.split()] for at in ("0 1", "0 4", "1 0", "1 7", "2 9")],
    # Before the validation, at the first epoch's end.
    "before_validation": [["--die_in_state", "3"]],
    # When the log has the epoch's line and the checkpoint not yet: the first epoch's end, then the last's.
    "between_log_and_save": [["--die_in_state", "4"], ["--die_in_state", "10"]],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs: one left alone, one killed and resumed for each chain, and one killed while it writes and not resumed."""
    folder = tmp_path_factory.mktemp("runs")
    plan = [(name, kill) for name, kills in CHAINS.items() for kill in [*kills, []]]
    # 30 MB a checkpoint, so that the kill lands inside the write.
    torn = ["--die_in_write", "--width", "20000", "--save_every_steps", "1"]
    runs = [
        [str(folder / "whole")],
        *([str(folder / name), *kill] for name, kill in plan),
        [str(folder / "torn"), *torn],
    ]
    expected = [0, *(-signal.SIGKILL if kill else 0 for _, kill in plan), -signal.SIGKILL]
    assert run_several(folder, runs) == expected
    return folder


@pytest.mark.parametrize("chain", CHAINS)
def test_a_killed_and_resumed_run_equals_one_left_alone(folder: Path, chain: str) -> None:
    assert_same_run(folder / "whole", folder / chain)


def test_a_kill_in_the_middle_of_a_write_leaves_the_previous_checkpoint(folder: Path) -> None:
    torn = folder / "torn"
    assert (torn / ".checkpoint-new.pth.writing").exists()
    assert checkpoints.find_resume(torn) == torn / "checkpoint-latest.pth"
    assert checkpoints.load(torn / "checkpoint-latest.pth")["progress"]["step"] >= 1


@pytest.mark.slow
def test_a_run_killed_at_random_moments_resumes_to_the_same_end(tmp_path: Path) -> None:
    assert run_several(tmp_path, [[str(tmp_path / "whole"), "--steps", "40"]]) == [0]
    command = [sys.executable, str(SCRIPT), str(tmp_path / "cut"), "--steps", "40"]
    for trial in range(12):
        process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE)
        assert process.stderr is not None
        process.stderr.readline()  # training has begun
        time.sleep(0.05 * trial)
        process.kill()
        process.wait()
    assert run_several(tmp_path, [[str(tmp_path / "cut"), "--steps", "40"]]) == [0]
    assert_same_run(tmp_path / "whole", tmp_path / "cut")
