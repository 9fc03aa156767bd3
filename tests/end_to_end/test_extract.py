"""`umt extract` in real processes: how many there are, and which of them are killed, changes no byte."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Command, environment
from tests.inference.tiny import checkpoint
from tests.videos import render
from umt.inference import features

pytestmark = pytest.mark.slow
ROWS = 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("extract")
    for row in range(ROWS):
        render(made / f"{row}.mp4", frames=16 + row % 7, label=row % 3)
    (made / "7.mp4").write_bytes((made / "7.mp4").read_bytes()[:900])
    lines = "".join(f"{row}.mp4,{row % 3}\n" for row in range(ROWS))
    (made / "list.csv").write_text(lines)
    (made / "long.csv").write_text(4 * lines)  # files come sixteen at a time: much is left after the first
    checkpoint(made)
    return made


def words(folder: Path, output: Path, *more: str, rows: str = "list.csv") -> list[str]:
    return [
        "extract", str(folder / rows), "--checkpoint", str(folder / "checkpoint-best.pth"), "--device", "cpu",
        "--precision", "fp32", "--output", str(output), "--num_workers", "1", *more,
    ]  # fmt: skip


def digests(output: Path) -> dict[str, str]:
    """Every file but the recipe, which tells the command."""
    return {
        str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(output.rglob("*"))
        if path.is_file() and path.name != features.RECIPE
    }


SHARDS = ["--format", "safetensors", "--shard_size", "6", "--layer", "0", "pre_logits"]


def test_the_number_of_processes_changes_no_byte(umt: Command, folder: Path, tmp_path: Path) -> None:
    alone, two = tmp_path / "alone", tmp_path / "two"
    said = umt(*words(folder, alone, *SHARDS), code=2).stderr
    assert "1 of 40 videos could not be read" in said
    umt(*words(folder, two, *SHARDS, "--processes", "2"), code=2)
    assert digests(alone) == digests(two)
    assert [json.loads(line)["path"] for line in (two / "failures.jsonl").read_text().splitlines()] == ["7.mp4"]
    rows = [row for row, _, _ in features.read(two)]
    assert rows == [row for row in range(ROWS) if row != 7]
    assert features.labels(two)[8] == 2
    again = umt(*words(folder, two, *SHARDS, "--skip_unreadable"))
    assert "39 of 40 videos are done already" in again.stdout
    assert digests(alone) == digests(two)


@pytest.mark.parametrize("processes", [1, 2])
def test_killed_in_the_middle_it_goes_on_to_the_same_bytes(
    umt: Command, folder: Path, tmp_path: Path, processes: int
) -> None:
    whole, killed = folder / "whole", tmp_path / "killed"
    flags = ["--format", "npz", "--pool", "spatial", "--skip_unreadable", "--threads", "1"]
    umt(*words(folder, whole, *flags, rows="long.csv"))  # the second time there is nothing left to do
    command = words(folder, killed, *flags, *(["--processes", "2"] if processes == 2 else []), rows="long.csv")
    running = subprocess.Popen([sys.executable, "-m", "umt", *command], env=environment(), start_new_session=True)
    deadline = time.monotonic() + 100
    while not list(killed.glob("*/*.npz")) and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(running.pid, signal.SIGKILL)  # of two processes their parent: they must not live on
    running.wait()
    time.sleep(1.0)
    left = len(list(killed.glob("*/*.npz")))
    time.sleep(1.0)
    assert left == len(list(killed.glob("*/*.npz"))) < 4 * (ROWS - 1)
    umt(*words(folder, killed, *flags, "--processes", str(3 - processes), rows="long.csv"))
    assert digests(whole) == digests(killed)


def test_a_process_that_is_killed_ends_the_others(umt: Command, folder: Path, tmp_path: Path) -> None:
    running = subprocess.Popen(
        [sys.executable, "-m", "umt", *words(folder, tmp_path / "x", "--processes", "2")],
        env=environment(), stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 100
    while not list((tmp_path / "x").glob("*/*.npz")) and time.monotonic() < deadline:
        time.sleep(0.002)
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
    os.kill(int(children[1]), signal.SIGKILL)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 69
    assert "was killed (SIGKILL). The same command goes on." in said


def test_bad_weights_are_told_once_by_two_processes(umt: Command, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.pth").write_bytes(b"no weights")
    command = words(folder, tmp_path / "x", "--checkpoint", str(tmp_path / "bad.pth"), "--processes", "2")
    assert umt(*command, code=2).stderr.count("bad.pth") == 1
