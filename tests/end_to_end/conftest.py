"""A small real data set and a seeded teacher, and the command line as users call it: another process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from tests.videos import render
from umt.models import create_model

CLASSES = 4
Command = Callable[..., subprocess.CompletedProcess[str]]


@dataclass(frozen=True)
class Data:
    """Folder with train.csv (24 videos), val.csv and test.csv (6 each) of 4 classes, and teacher.pth."""

    folder: Path

    @property
    def pretrain(self) -> list[str]:
        """Flags of a tiny pretraining."""
        return [
            "pretrain", "--model", "pretrain_umt_tiny_patch8_64", "--input_size", "64", "--num_frames", "8",
            "--clip_teacher", "clip_tiny_patch8_64", "--clip_input_resolution", "64", "--clip_return_layer", "2",
            "--clip_teacher_weights", str(self.folder / "teacher.pth"), "--mask_ratio", "0.8", "--flip",
            "--data_path", str(self.folder / "train.csv"), "--prefix", str(self.folder), "--split", ",",
            "--batch_size", "4", "--epochs", "2", "--warmup_epochs", "1", "--lr", "1e-2", "--drop_path", "0.1",
            "--num_workers", "0", "--threads", "1", "--device", "cpu",
        ]  # fmt: skip

    @property
    def finetune(self) -> list[str]:
        """Flags of a tiny finetuning with everything on that a recipe has."""
        return [
            "finetune", "--model", "vit_tiny_patch8_64", "--input_size", "64", "--num_frames", "8",
            "--tubelet_size", "1", "--data_set", "Kinetics_sparse", "--nb_classes", str(CLASSES), "--split", ",",
            "--data_path", str(self.folder), "--prefix", str(self.folder),
            "--batch_size", "4", "--num_sample", "2", "--epochs", "2", "--warmup_epochs", "1", "--lr", "1e-2",
            "--drop_path", "0.1", "--model_ema", "--model_ema_decay", "0.9",
            "--test_num_segment", "2", "--test_num_crop", "3",
            "--num_workers", "0", "--threads", "1", "--device", "cpu",
        ]  # fmt: skip


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return make_data(tmp_path_factory.mktemp("videos"))


def make_data(folder: Path) -> Data:
    """Renders the videos and writes the lists and the teacher."""
    for split, count in (("train", 24), ("val", 6), ("test", 6)):
        lines = []
        for i in range(count):
            name = f"{split}_{i}.mp4"
            render(folder / name, frames=16, width=96, height=72, label=i % CLASSES)
            lines.append(f"{name},{i % CLASSES}\n")
        (folder / f"{split}.csv").write_text("".join(lines))
    torch.manual_seed(0)
    torch.save(create_model("clip_tiny_patch8_64").state_dict(), folder / "teacher.pth")
    return Data(folder)


def environment(**more: str) -> dict[str, str]:
    """The environment without what a launcher would set."""
    kept = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "GPUS")}
    return {**kept, "OMP_NUM_THREADS": "1", **more}


@pytest.fixture(scope="session")
def umt() -> Command:
    """`umt(*words)`: the finished process of `python -m umt words`; it must have ended with `code`."""

    def run(
        *words: str, code: int = 0, env: dict[str, str] | None = None, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "umt", *words],
            capture_output=True,
            text=True,
            env=env or environment(),
            cwd=cwd,
            check=False,
        )
        assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return run


def with_flags(flags: Sequence[str], **values: object) -> list[str]:
    """`flags` with others put behind them, where they win; None leaves a flag without a value."""
    more: list[str] = []
    for name, value in values.items():
        more += [f"--{name}"] if value is None else [f"--{name}", str(value)]
    return [*flags, *more]
