"""Checkpoint files are whole or absent, carry no code, and are chosen as the flags say."""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from umt.engine import checkpoints
from umt.errors import CheckpointError, OutputError


def write(folder: Path, name: str, *, epoch: int = 0, step: int = 0) -> Path:
    folder.mkdir(exist_ok=True)
    content = {"format": 1, "model": {"w": torch.arange(5000.0)}, "progress": {"epoch": epoch, "step": step}}
    checkpoints.save(content, folder / name)
    return folder / name


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip_a_bit(path: Path) -> None:
    """Within the tensor's own bytes, where the zip's directory stays whole."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_an_explicit_resume_wins_over_the_latest(tmp_path: Path) -> None:
    write(tmp_path, "checkpoint-latest.pth", epoch=5)
    chosen = write(tmp_path, "checkpoint-1.pth", epoch=2)
    assert checkpoints.find_resume(tmp_path, resume=str(chosen)) == chosen


def test_auto_resume_takes_the_latest_then_the_highest_number(tmp_path: Path) -> None:
    ninth, tenth = write(tmp_path, "checkpoint-9.pth", epoch=10), write(tmp_path, "checkpoint-10.pth", epoch=11)
    assert checkpoints.find_resume(tmp_path) == tenth
    latest = write(tmp_path, "checkpoint-latest.pth", epoch=11)
    assert checkpoints.find_resume(tmp_path) == latest
    assert ninth.exists()


def test_without_auto_resume_a_run_starts_at_the_beginning(tmp_path: Path) -> None:
    write(tmp_path, "checkpoint-latest.pth")
    assert checkpoints.find_resume(tmp_path, auto_resume=False) is None


def test_an_empty_folder_starts_at_the_beginning(tmp_path: Path) -> None:
    assert checkpoints.find_resume(tmp_path) is None


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, lambda path: path.write_bytes(b"")])
def test_a_damaged_latest_is_said_and_the_newest_whole_one_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: object
) -> None:
    write(tmp_path, "checkpoint-9.pth", epoch=10)
    best = write(tmp_path, "checkpoint-best.pth", epoch=12)
    latest = write(tmp_path, "checkpoint-latest.pth", epoch=13, step=4)
    assert callable(damage)
    damage(latest)
    assert checkpoints.find_resume(tmp_path) == best
    assert "checkpoint-latest.pth is truncated or damaged; going on from checkpoint-best.pth" in caplog.text


def test_a_run_never_starts_over_silently_when_all_its_checkpoints_are_damaged(tmp_path: Path) -> None:
    truncate(write(tmp_path, "checkpoint-latest.pth"))
    with pytest.raises(CheckpointError, match=r"No checkpoint in .* is whole .*--no_auto_resume"):
        checkpoints.find_resume(tmp_path)


def test_a_missing_resume_file_is_refused_with_what_is_there(tmp_path: Path) -> None:
    write(tmp_path, "checkpoint-3.pth")
    with pytest.raises(CheckpointError, match=r"--resume .*nothing.pth\) does not exist. .*checkpoint-3.pth"):
        checkpoints.find_resume(tmp_path, resume=str(tmp_path / "nothing.pth"))


def test_a_truncated_resume_file_is_refused_with_its_size(tmp_path: Path) -> None:
    path = write(tmp_path, "checkpoint-3.pth")
    truncate(path)
    with pytest.raises(CheckpointError, match=r"is truncated or damaged \(\d+ bytes\)"):
        checkpoints.load(path)


def test_test_best_without_a_best_checkpoint_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "checkpoint-latest.pth")
    with pytest.raises(CheckpointError, match=r"--test_best: .*does not exist. The folder has checkpoint-latest.pth"):
        checkpoints.find_best(tmp_path)


def test_a_file_with_pickled_objects_is_not_executed(tmp_path: Path) -> None:
    path = tmp_path / "original.pth"
    torch.save({"model": {}, "args": argparse.Namespace(lr=1)}, path)
    with pytest.raises(CheckpointError, match=r"holds Python objects apart from tensors.*--finetune"):
        checkpoints.load(path)


def test_bare_weights_are_no_run_to_resume(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"model": {"w": torch.zeros(1)}}, path)
    with pytest.raises(CheckpointError, match=r"holds no training state.*--finetune"):
        checkpoints.load(path)


def test_a_checkpoint_of_another_architecture_is_refused_by_name_and_shape() -> None:
    state = {"model": nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2)).state_dict()}
    with pytest.raises(CheckpointError, match=r"x.pth is of another architecture: 1.weight is not in this model"):
        checkpoints.load_model(nn.Sequential(nn.Linear(3, 2)), state, "x.pth")
    with pytest.raises(CheckpointError, match=r"0.weight is 2 x 3 there and 4 x 3 here"):
        checkpoints.load_model(nn.Sequential(nn.Linear(3, 4), nn.Linear(2, 2)), state, "x.pth")


def test_one_write_serves_several_names(tmp_path: Path) -> None:
    checkpoints.save_as({"format": 1, "value": 7}, tmp_path, ["checkpoint-0.pth", "checkpoint-latest.pth"])
    checkpoints.save_as({"format": 1, "value": 8}, tmp_path, ["checkpoint-latest.pth"])
    assert checkpoints.load(tmp_path / "checkpoint-0.pth")["value"] == 7
    assert checkpoints.load(tmp_path / "checkpoint-latest.pth")["value"] == 8
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-0.pth", "checkpoint-latest.pth"]


def test_an_output_folder_under_a_file_is_refused_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"--output_dir \(.*file/run\) cannot be written: Not a directory"):
        checkpoints.check_writable(tmp_path / "file" / "run")


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if mount is None or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_a_sentence_and_keeps_the_previous_checkpoint(full_disk: Path) -> None:
    path = write(full_disk, "checkpoint-latest.pth", epoch=3)
    with pytest.raises(OutputError, match=r"could not be written: No space left on device. The previous one is intact"):
        checkpoints.save({"format": 1, "model": {"w": torch.zeros(1 << 20)}}, path)
    assert checkpoints.load(path)["progress"]["epoch"] == 3
    assert [p.name for p in full_disk.iterdir()] == [path.name]


def test_a_read_only_disk_is_a_sentence(full_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(full_disk)], check=True)
    with pytest.raises(OutputError, match=r"--output_dir \(.*\) cannot be written: Read-only file system"):
        checkpoints.check_writable(full_disk)


def test_a_file_size_limit_is_a_sentence_without_root_too(tmp_path: Path) -> None:
    program = f"""
import pathlib, resource, torch
from umt.engine import checkpoints
path = pathlib.Path({str(tmp_path)!r}) / "checkpoint-latest.pth"
checkpoints.save({{"format": 1}}, path)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
checkpoints.save({{"format": 1, "w": torch.zeros(1 << 20)}}, path)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert "OutputError" in done.stderr
    assert "File too large. The previous one is intact" in done.stderr
    assert checkpoints.load(tmp_path / "checkpoint-latest.pth") == {"format": 1}
