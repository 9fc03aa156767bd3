"""How checkpoints are written: in the background with the same guarantees, only so many, and never into a full disk."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.engine import tiny_run
from tests.engine.test_distributed import launch
from tests.engine.test_resume import assert_same_run, run_several
from umt.engine import checkpoints
from umt.engine.saving import Saver
from umt.engine.trainer import NonFiniteError, TrainerOptions
from umt.errors import ConfigError, OutputError


def content(epoch: int = 0, size: int = 10) -> dict[str, object]:
    return {"format": 1, "model": {"w": torch.full((size,), float(epoch))}, "progress": {"epoch": epoch, "step": 0}}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_only_the_newest_numbered_checkpoints_stay(tmp_path: Path) -> None:
    options = TrainerOptions(epochs=5, steps_per_epoch=1, output_dir=tmp_path, save_ckpt_freq=1, keep_last=2)
    tiny_run.build(options).fit()
    numbered = [path.name for path in sorted(tmp_path.glob("checkpoint-[0-9]*.pth"))]
    assert numbered == ["checkpoint-3.pth", "checkpoint-4.pth"]
    assert {"checkpoint-latest.pth", "checkpoint-best.pth"} <= set(names(tmp_path))


def test_checkpoints_of_later_epochs_are_another_runs_and_stay(tmp_path: Path) -> None:
    checkpoints.save(content(), tmp_path / "checkpoint-99.pth")
    saver = Saver(tmp_path, keep_last=1)
    for epoch in range(3):
        saver.write(content(epoch + 1), [checkpoints.numbered(epoch), checkpoints.LATEST], epoch=epoch + 1)
    assert names(tmp_path) == ["checkpoint-2.pth", "checkpoint-99.pth", "checkpoint-latest.pth"]


def test_a_write_in_the_background_holds_the_state_of_its_moment(tmp_path: Path) -> None:
    saver = Saver(tmp_path, background=True)
    state = content(3, size=1 << 20)
    saver.write(state, [checkpoints.LATEST], epoch=3)
    state["model"]["w"].zero_()  # type: ignore[index]
    saver.wait()
    assert checkpoints.load(tmp_path / "checkpoint-latest.pth")["model"]["w"].unique().tolist() == [3.0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that saves between its steps; one that does it in the background and is killed, also in a write."""
    folder = tmp_path_factory.mktemp("runs")
    kills = [["--die_at", "0", "5"], ["--die_in_write"], ["--die_at", "2", "9"], []]
    cut = [[str(folder / "cut"), "--save_in_background", "--save_every_steps", "1", *kill] for kill in kills]
    codes = run_several(folder, [[str(folder / "whole")], *cut])
    assert codes[0] == codes[-1] == 0
    assert codes.count(-signal.SIGKILL) == 3
    return folder


def test_a_killed_run_that_saves_in_the_background_equals_one_left_alone(folder: Path) -> None:
    assert_same_run(folder / "whole", folder / "cut")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = [shutil.which("mount") or "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("background", [False, True])
def test_free_space_is_checked_before_a_byte_is_written(small_disk: Path, background: bool) -> None:
    saver = Saver(small_disk, background=background)
    saver.write(content(1), [checkpoints.LATEST], epoch=1)
    saver.wait()
    saver.write(content(2, size=1 << 20), [checkpoints.LATEST], epoch=2) if background else None
    with pytest.raises(
        OutputError, match=r"of 0.00419 GB does not fit into .*disk, which has 0.001\d* GB free. The prev"
    ):
        saver.wait() if background else saver.write(content(2, size=1 << 20), [checkpoints.LATEST], epoch=2)
    assert checkpoints.load(small_disk / "checkpoint-latest.pth")["progress"]["epoch"] == 1
    assert names(small_disk) == ["checkpoint-latest.pth"]


def test_what_a_killed_write_left_does_not_count_as_full(small_disk: Path) -> None:
    (small_disk / ".checkpoint-new.pth.writing").write_bytes(b"0" * 900_000)
    Saver(small_disk).write(content(1, size=150_000), [checkpoints.LATEST], epoch=1)
    assert checkpoints.load(small_disk / "checkpoint-latest.pth")["progress"]["epoch"] == 1


@pytest.mark.parametrize("background", [False, True])
def test_a_disk_that_fills_up_stops_the_run_with_its_last_checkpoint_whole(small_disk: Path, background: bool) -> None:
    options = TrainerOptions(
        epochs=9, steps_per_epoch=4, output_dir=small_disk, save_every_steps=1, save_in_background=background,
        save_ckpt_freq=1,
    )  # fmt: skip
    with pytest.raises(OutputError, match=r"start the same command again: it\s*resumes"):
        tiny_run.build(options, task=tiny_run.TinyTask(width=150)).fit()
    found = checkpoints.find_resume(small_disk)
    assert found == small_disk / "checkpoint-latest.pth"
    assert checkpoints.load(found)["progress"]["epoch"] >= 1


# ---- rollback

STEPS = ["--steps", "5", "--save_every_steps", "2", "--on_nan", "rollback"]


@pytest.fixture(scope="module")
def rolled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs with a video that gives no number, at row 25: the fourth step of each epoch."""
    folder = tmp_path_factory.mktemp("rolled")
    poison = [*STEPS, "--poison", "25"]
    runs = [[str(folder / "whole"), *poison]]
    kills = [["--die_at", "0", "6"], ["--die_at", "0", "8"], ["--die_in_state", "2"], ["--die_at", "1", "9"], []]
    runs += [[str(folder / "cut"), *poison, *kill] for kill in kills]
    codes = run_several(folder, runs)
    assert codes[0] == codes[-1] == 0
    return folder


def test_a_rollback_skips_the_batch_and_says_so_in_the_log(rolled: Path) -> None:
    lines = [json.loads(line) for line in (rolled / "whole" / "log.txt").read_text().splitlines()]
    assert [line["train_skipped_steps"] for line in lines] == [[3], [3], [3]]
    progress = checkpoints.load(rolled / "whole" / "checkpoint-latest.pth")["progress"]
    assert progress["skips"] == [3, 8, 13]
    steps = [json.loads(line)["step"] for line in (rolled / "whole" / "steps.jsonl").read_text().splitlines()]
    assert steps == [step for step in range(15) if step not in (3, 8, 13)]


def test_a_run_killed_around_a_rollback_ends_as_one_that_was_not(rolled: Path) -> None:
    assert_same_run(rolled / "whole", rolled / "cut")


class AlwaysBad(tiny_run.TinyTask):
    def training_step(self, batch, seed):  # type: ignore[no-untyped-def]
        output = super().training_step(batch, seed)
        output.loss.data.fill_(float("nan"))
        return output


def test_rollbacks_without_end_stop_the_run(tmp_path: Path) -> None:
    options = TrainerOptions(
        epochs=1, steps_per_epoch=30, output_dir=tmp_path, on_nan="rollback", max_rollbacks=3, save_every_minutes=0
    )
    with pytest.raises(NonFiniteError, match=r"epoch 0, step 3.*This came after 3 rollbacks"):
        tiny_run.build(options, task=AlwaysBad()).fit()


def test_rollback_without_checkpoints_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--on_nan rollback goes back to a checkpoint"):
        tiny_run.build(TrainerOptions(epochs=1, steps_per_epoch=3, on_nan="rollback"))


@pytest.mark.slow
def test_both_ranks_go_back_when_one_has_a_loss_that_is_no_number(tmp_path: Path) -> None:
    # Rows 6 and 7 are rank 1's of the first step.
    done = launch(tmp_path, "--batch_size", "2", "--poison", "6", "--on_nan", "rollback")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "went back to checkpoint-latest.pth; step 0 will be left out" in done.stderr
    assert checkpoints.load(tmp_path / "checkpoint-latest.pth")["progress"]["skips"] == [0, 4]
