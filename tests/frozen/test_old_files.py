"""What the library wrote before its kinds of work moved into folders of their own is read, and says what it said then.

The files and the numbers come from `tests/golden/before_tasks`, whose README has the commands that made them.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import umt
from umt.__main__ import main
from umt.inference import features

ARCHIVE = Path(__file__).parents[1] / "golden" / "before_tasks" / "files.tar.xz"
WEIGHTS = "finetune/checkpoint-latest.pth"
CLOSE = {"rtol": 0, "atol": 1e-4}
MEASURED = ("train_seconds", "val_seconds", "train_data_share", "train_samples_per_second", "rss_gb")  # by the clock
MACHINE = ["--num_workers", "0", "--threads", "1", "--device", "cpu"]
PRETRAIN = [
    "pretrain", "--model", "pretrain_umt_tiny_patch8_48", "--input_size", "16", "--num_frames", "4",
    "--clip_teacher", "clip_tiny_patch8_48", "--clip_input_resolution", "16", "--clip_return_layer", "2",
    "--clip_teacher_weights", "teacher.pth", "--mask_ratio", "0.5", "--data_path", "shards/train.csv",
    "--prefix", "shards", "--split", ",", "--num_segments", "4", "--flip", "--batch_size", "2", "--epochs", "2",
    "--warmup_epochs", "1", "--lr", "0.1", "--drop_path", "0.1", "--save_ckpt_freq", "1", *MACHINE,
]  # fmt: skip
FLAGS = [
    "--model", "vit_tiny_patch8_48", "--input_size", "16", "--num_frames", "4", "--tubelet_size", "1",
    "--data_set", "Kinetics_sparse", "--nb_classes", "2", "--data_path", "shards", "--prefix", "shards",
    "--split", ",", "--finetune", "pretrain/checkpoint-latest.pth", "--init_scale", "0", "--batch_size", "2",
    "--num_sample", "2", "--epochs", "2", "--warmup_epochs", "1", "--warmup_lr", "0", "--lr", "0.2",
    "--drop_path", "0.1", "--model_ema", "--model_ema_decay", "0.9", "--test_num_segment", "2", "--test_num_crop", "3",
    "--save_ckpt_freq", "1", *MACHINE,
]  # fmt: skip


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("before_tasks")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    (folder / "videos").mkdir()
    for line in (folder / "shards" / "shards.idx").read_text().splitlines()[1:]:
        shard, start, size, _, path = line.split("\t")
        packed = (folder / "shards" / f"train-{int(shard):06d}.tar").read_bytes()
        (folder / "videos" / path).write_bytes(packed[int(start) : int(start) + int(size)])
    return folder


@pytest.fixture(autouse=True)
def files(unpacked: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the old files, which is also the working folder, since runs name their files from there."""
    monkeypatch.chdir(unpacked)
    return unpacked


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    """`command(*words)`: what `umt words` prints; it must end well."""

    def run(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["umt", *words])
        capfd.readouterr()
        code = main()
        printed = capfd.readouterr()
        assert code == 0, printed.err
        return printed.out + printed.err

    return run


def arrays(path: str) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def assert_same_scores(path: str, old: str) -> None:
    """The same names, types and values; the logits within rounding."""
    now, then = arrays(path), arrays(old)
    assert {name: value.dtype for name, value in now.items()} == {name: value.dtype for name, value in then.items()}
    np.testing.assert_allclose(now.pop("logits"), then.pop("logits"), **CLOSE)
    assert json.loads(now.pop("meta").tobytes()).keys() == json.loads(then.pop("meta").tobytes()).keys()
    for name, value in now.items():
        np.testing.assert_array_equal(value, then[name])


def log_of(folder: str) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in Path(folder, "log.txt").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in MEASURED} for line in lines]


def assert_same_log(folder: str, old: str) -> None:
    now, then = log_of(folder), log_of(old)
    assert [line.keys() for line in now] == [line.keys() for line in then]
    for line, other in zip(now, then, strict=True):
        assert line == pytest.approx(other, rel=0, abs=1e-4)


# ---- weights


@pytest.mark.parametrize("source", [WEIGHTS, "exported"])
def test_an_old_checkpoint_and_an_old_exported_folder_give_the_scores_that_they_gave(source: str) -> None:
    model = umt.load(source, device="cpu", precision="fp32")
    assert model.labels == ("waving", "clapping")
    scores = arrays("tested/scores.npz")["logits"]
    for row, then in enumerate(scores):
        views = model.transform(f"videos/v{row}.mp4", model.description.test_clips, model.description.test_crops)
        np.testing.assert_allclose(model.logits(views).numpy(), then.reshape(6, 2), **CLOSE)


def test_the_moving_average_of_an_old_checkpoint_is_exported(command: Any, tmp_path: Path) -> None:
    command("export", WEIGHTS, "--ema", "--format", "original", "--output", str(tmp_path / "out"))
    now = torch.load(tmp_path / "out" / "model.pth", weights_only=True)["model"]
    then = torch.load(WEIGHTS, weights_only=True)["model_ema"]
    assert all(torch.equal(now[name], then[name]) for name in ("head.weight", "blocks.3.mlp.fc2.weight"))


def test_an_old_pretraining_checkpoint_gives_the_weights_in_it() -> None:
    state = umt.load("pretrain/checkpoint-latest.pth", device="cpu").model.state_dict()
    then = torch.load("pretrain/checkpoint-latest.pth", weights_only=True)["model"]
    assert len(state) == 64
    assert all(torch.equal(state[name], then[name]) for name in state)


# ---- runs that go on


@pytest.mark.parametrize("stopped", ["stopped", "finetune"])  # in the middle of an epoch, and between two
def test_an_old_finetuning_goes_on_to_the_numbers_of_the_whole_run(command: Any, stopped: str) -> None:
    shutil.copytree(stopped, f"{stopped}_on")
    command("finetune", *FLAGS, "--output_dir", f"{stopped}_on")
    assert_same_log(f"{stopped}_on", "whole")
    assert_same_scores(f"{stopped}_on/scores.npz", "whole/scores.npz")
    now, then = (json.loads(Path(folder, "test.json").read_text()) for folder in (f"{stopped}_on", "whole"))
    for report in (now, then):
        del report["provenance"]["weights_digest"]  # changes by rounding
    assert now == then


def test_an_old_pretraining_goes_on_to_the_numbers_of_the_whole_run(command: Any) -> None:
    shutil.copytree("pretrain", "pretrain_on")
    command(*PRETRAIN, "--output_dir", "pretrain_on")
    assert_same_log("pretrain_on", "pretrained")


def test_an_old_step_replays_as_it_did(command: Any) -> None:
    printed = command("replay", "nonfinite-0-rank0.pth")
    assert Path("replay.txt").read_text() in printed


# ---- tests and their scores


def test_a_test_of_an_old_checkpoint_writes_the_old_scores(command: Any) -> None:
    command("test", *FLAGS, "--resume", WEIGHTS, "--output_dir", "tested_now")
    assert_same_scores("tested_now/scores.npz", "tested/scores.npz")
    assert json.loads(Path("tested_now/test.json").read_text()) == json.loads(Path("tested/test.json").read_text())


def test_an_old_test_that_was_killed_goes_on_from_the_videos_that_it_had_finished(command: Any) -> None:
    shutil.copytree("tested_in_part", "tested_on")
    command("test", *FLAGS, "--resume", WEIGHTS, "--output_dir", "tested_on")
    assert_same_scores("tested_on/scores.npz", "tested/scores.npz")


def test_old_scores_are_fused_as_they_were(command: Any) -> None:
    command("ensemble", "tested/scores.npz", "whole/scores.npz", "--output", "fused_now.npz")
    assert_same_scores("fused_now.npz", "fused.npz")


# ---- features


@pytest.mark.parametrize("form", ["npz", "parquet", "safetensors"])
def test_old_features_are_read(form: str) -> None:
    then = json.loads(Path("features.json").read_text())
    for layer in ("1", "pre_logits"):
        now = list(features.read(f"features_{form}", layer))
        assert [(row, path) for row, path, _ in now] == [(video["row"], video["path"]) for video in then]
        np.testing.assert_allclose([array[0] for _, _, array in now], [video[layer] for video in then], **CLOSE)
    assert features.labels(f"features_{form}") == {video["row"]: video["label"] for video in then}


def test_the_command_that_made_old_features_finds_them_done(command: Any) -> None:
    recipe = json.loads(Path("features_npz/recipe.json").read_text())
    assert "4 of 4 videos are done already" in command(*recipe["command"][1:])


# ---- data sets


def test_old_shards_are_as_their_index_says(command: Any) -> None:
    assert "4 of 4 videos in 2 shards are as the index says" in command("data", "shard", "--verify", "shards")


def test_what_an_old_transcoding_has_done_is_not_done_again(command: Any) -> None:
    for line in Path("transcoded/transcoded.jsonl").read_text().splitlines()[1:]:
        video = json.loads(line)
        os.utime(f"videos/{video['path']}", ns=(video["original_time"],) * 2)
    copies = {path: path.stat().st_mtime_ns for path in Path("transcoded").glob("*.mp4")}
    command(
        "data", "transcode", "--videos", "train.csv", "--prefix", "videos", "--split", ",", "--out", "transcoded",
        "--short_side", "16", "--workers", "1", "--sample", "0",
    )  # fmt: skip
    assert {path: path.stat().st_mtime_ns for path in Path("transcoded").glob("*.mp4")} == copies
