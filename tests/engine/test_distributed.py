"""Two gloo processes under torchrun compute what one process with accumulation computes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.engine import tiny_run
from umt.engine import checkpoints
from umt.engine.trainer import TrainerOptions

SCRIPT = Path(__file__).with_name("tiny_run.py")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
# Half a micro-batch a process, the same samples a step; without dropout, which draws per rank.
COMMON = ["--epochs", "2", "--steps", "4", "--dropout", "0", "--accumulation", "2"]


def launch(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [sys.executable, *start, str(SCRIPT), str(folder), *COMMON, *arguments]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    done = launch(folder, "--batch_size", "2")
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_two_processes_equal_one_with_accumulation(two: Path) -> None:
    options = TrainerOptions(epochs=2, steps_per_epoch=4, accumulation=2)
    trainer = tiny_run.build(options, task=tiny_run.TinyTask(dropout=0), data=tiny_run.TinyData(4), clip_grad=1.0)
    trainer.fit()
    theirs, ours = checkpoints.load(two / "checkpoint-latest.pth"), trainer.state()
    # Sums over ranks and over micro-batches round in another order.
    for name, value in ours["model"].items():
        torch.testing.assert_close(theirs["model"][name], value, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_a_killed_rank_ends_the_run_and_the_next_start_resumes_it(two: Path, tmp_path: Path) -> None:
    arguments = ["--batch_size", "2", "--save_every_steps", "1"]
    assert launch(tmp_path, *arguments, "--die_at", "1", "2").returncode != 0
    assert checkpoints.load(tmp_path / "checkpoint-latest.pth")["progress"]["epoch"] == 1
    assert launch(tmp_path, *arguments).returncode == 0
    theirs, ours = (checkpoints.load(folder / "checkpoint-latest.pth") for folder in (two, tmp_path))
    assert all(torch.equal(theirs["model"][name], value) for name, value in ours["model"].items())
    assert (two / "steps.jsonl").read_bytes() == (tmp_path / "steps.jsonl").read_bytes()


@pytest.mark.slow
def test_a_non_finite_loss_of_one_rank_stops_all_and_only_that_rank_saves(tmp_path: Path) -> None:
    # Rows 4 and 5 are rank 0's of the second micro-step, 6 and 7 rank 1's.
    done = launch(tmp_path, "--batch_size", "2", "--poison", "6")
    assert done.returncode != 0
    assert [path.name for path in tmp_path.glob("nonfinite-*")] == ["nonfinite-0-rank1.pth"]
    assert "row 6 videos/6.mp4" in done.stderr
    assert "another rank names its samples" in done.stderr
