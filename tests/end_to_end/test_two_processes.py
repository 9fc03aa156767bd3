"""Two gloo processes under torchrun do what one process does: the same samples, losses, weights and test scores."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.end_to_end.conftest import Command, Data, environment, with_flags
from umt.engine import checkpoints
from umt.engine.logs import WALL_CLOCK
from umt.evaluation.scores import ViewScores

pytestmark = pytest.mark.slow

# What draws per process is off; one process accumulates what two share, so a step has the same 8 videos.
COMMON = {"epochs": 2, "drop_path": 0, "precision": "fp32", "global_batch_size": 8, "log_every": 1}
RECOMPUTED = {"use_checkpoint": None, "checkpoint_num": 2}
NO_MIXING = {"mixup": 0, "cutmix": 0}


def torchrun(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """`umt words` in two processes; TimeoutExpired if they hang."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "umt"]
    return subprocess.run(
        [sys.executable, *launcher, *words], cwd=cwd, env=environment(), capture_output=True, text=True, timeout=200,
        check=False,
    )  # fmt: skip


def log_lines(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "out" / "log.txt").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in WALL_CLOCK} for line in lines]


@pytest.fixture(scope="module")
def spoilt(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Data:
    """The data set without one training video, whose replacement is written down with its step and row."""
    folder = tmp_path_factory.mktemp("spoilt")
    for file in data.folder.iterdir():
        if file.name != "train_7.mp4":
            (folder / file.name).symlink_to(file) if file.suffix == ".mp4" else shutil.copy(file, folder)
    return Data(folder)


@pytest.fixture(scope="module", params=["pretrain", "finetune"])
def pair(
    request: pytest.FixtureRequest, spoilt: Data, umt: Command, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """Folders of the same run in one process and in two."""
    flags = with_flags(spoilt.pretrain, **COMMON, **RECOMPUTED)
    if request.param == "finetune":
        flags = with_flags(spoilt.finetune, **COMMON, **RECOMPUTED, **NO_MIXING)
    one, two = (tmp_path_factory.mktemp(f"{request.param}-{name}") for name in ("one", "two"))
    umt(*flags, "--output_dir", "out", cwd=one)
    done = torchrun(*flags, "--output_dir", "out", cwd=two)
    assert done.returncode == 0, done.stderr[-4000:]
    return one, two


def test_the_same_samples_are_drawn_whatever_the_number_of_processes(pair: tuple[Path, Path]) -> None:
    one, two = ((folder / "out" / "failures.jsonl").read_text().splitlines() for folder in pair)
    assert len(one) == 2  # once in each epoch
    assert sorted(one) == sorted(two)


def test_losses_and_accuracies_equal_those_of_one_process(pair: tuple[Path, Path]) -> None:
    # Sums over processes and over micro-batches round in another order: 1e-5 is some hundred float32 roundings.
    one, two = map(log_lines, pair)
    assert [line.keys() for line in one] == [line.keys() for line in two]
    for first, second in zip(one, two, strict=True):
        for name, value in first.items():
            assert second[name] == pytest.approx(value, rel=1e-5, abs=1e-7), name


def test_weights_equal_those_of_one_process(pair: tuple[Path, Path]) -> None:
    # AdamW divides by the gradient's own size, so where that is near 0 a rounding may move a weight by some of the
    # rate; 2 % of the largest step that a weight can have taken is far below any sample that were different.
    one, two = (checkpoints.load(folder / "out" / "checkpoint-latest.pth") for folder in pair)
    rate = max(group["lr"] for group in one["optimizer"]["param_groups"])
    steps = 2 * one["conditions"]["steps_per_epoch"]
    for name, value in one["model"].items():
        torch.testing.assert_close(two["model"][name], value, rtol=0, atol=0.02 * max(rate, 3e-4) * steps)


@pytest.fixture(scope="module")
def finetuned(data: Data, umt: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finetuning in one process, with its test."""
    folder = tmp_path_factory.mktemp("finetuned")
    umt(*with_flags(data.finetune, output_dir="out", epochs=1, warmup_epochs=0), cwd=folder)
    return folder / "out"


def test_two_processes_test_a_checkpoint_as_one_does(finetuned: Path, data: Data, tmp_path: Path) -> None:
    words = with_flags(["test", *data.finetune[1:]], output_dir="out", finetune=finetuned / "checkpoint-latest.pth")
    done = torchrun(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    one, two = (ViewScores.load(folder / "scores.npz") for folder in (finetuned, tmp_path / "out"))
    assert two.seen.all()
    assert np.array_equal(one.logits, two.logits)
    results = [json.loads((folder / "test.json").read_text()) for folder in (finetuned, tmp_path / "out")]
    assert results[0]["merged"] == results[1]["merged"]


def test_a_process_without_test_videos_waits_for_the_other(finetuned: Path, data: Data, tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text((data.folder / "test.csv").read_text().splitlines()[0] + "\n")
    words = with_flags(["test", *data.finetune[1:]], output_dir="out", finetune=finetuned / "checkpoint-latest.pth")
    done = torchrun(*with_flags(words, data_path=tmp_path), cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    one, two = (ViewScores.load(folder / "scores.npz") for folder in (finetuned, tmp_path / "out"))
    assert np.array_equal(one.logits[:1], two.logits)


@pytest.mark.parametrize("video", ["val_0.mp4", "val_3.mp4", "test_4.mp4"], ids=["rank 0", "rank 1", "test"])
def test_an_error_of_one_process_ends_all(video: str, data: Data, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for file in data.folder.iterdir():
        if file.name != video:
            (folder / file.name).symlink_to(file)
    words = with_flags(Data(folder).finetune, output_dir="out", epochs=1, warmup_epochs=0)
    done = torchrun(*words, cwd=tmp_path)  # a process that waited for the others would run into the time limit
    assert done.returncode != 0
    assert video in done.stderr
    assert "no such file" in done.stderr


def test_a_mistake_that_all_processes_make_is_said_before_any_work(data: Data, tmp_path: Path) -> None:
    done = torchrun(*with_flags(data.finetune, output_dir="out", data_path="nowhere"), cwd=tmp_path)
    assert done.returncode != 0
    assert "--data_path (nowhere) does not exist" in done.stderr
    assert not (tmp_path / "out" / "checkpoint-latest.pth").exists()
