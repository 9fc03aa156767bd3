"""The main job through the command line: pretrain, finetune from it, test from many views."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.end_to_end.conftest import Command, Data, with_flags
from umt.evaluation.multiview import merge
from umt.evaluation.scores import ViewScores


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.txt").read_text().splitlines()]


@pytest.fixture(scope="module")
def runs(data: Data, umt: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    umt(*with_flags(data.pretrain, output_dir=folder / "pretrain"))
    start = folder / "pretrain" / "checkpoint-latest.pth"
    umt(*with_flags(data.finetune, output_dir=folder / "finetune", finetune=start, test_best=None))
    return folder


def test_pretraining_lowers_its_loss_and_writes_weights(runs: Path) -> None:
    first, last = lines(runs / "pretrain")
    assert last["train_loss"] < first["train_loss"]
    assert last["epoch"] == 1
    assert "encoder.norm.weight" in torch.load(runs / "pretrain" / "checkpoint-latest.pth", weights_only=True)["model"]


@pytest.mark.slow
def test_finetuning_starts_from_the_pretrained_encoder(runs: Path, data: Data, umt: Command, tmp_path: Path) -> None:
    # A learning rate too small to move a float32 leaves the encoder as it was loaded.
    source = runs / "pretrain" / "checkpoint-latest.pth"
    still = {"lr": 1e-30, "min_lr": 0, "warmup_lr": 0, "weight_decay": 0, "epochs": 1}
    umt(*with_flags(data.finetune, output_dir=tmp_path, finetune=source, **still))
    before = torch.load(source, weights_only=True)["model"]
    after = torch.load(tmp_path / "checkpoint-latest.pth", weights_only=True)["model"]
    assert torch.equal(before["encoder.blocks.0.attn.qkv.weight"], after["blocks.0.attn.qkv.weight"])


def test_every_view_of_every_test_video_is_scored(runs: Path) -> None:
    scores = ViewScores.load(runs / "finetune" / "scores.npz")
    assert scores.logits.shape == (6, 2, 3, 4)
    assert scores.seen.all()


def test_reported_accuracy_follows_from_the_saved_scores(runs: Path) -> None:
    scores = ViewScores.load(runs / "finetune" / "scores.npz")
    top1 = 100 * np.mean(merge(scores.logits).argmax(-1) == scores.labels)
    assert lines(runs / "finetune")[-1]["Final top-1"] == pytest.approx(top1)
    assert json.loads((runs / "finetune" / "test.json").read_text())["merged"]["top1"] == pytest.approx(top1)


def test_a_test_of_the_saved_checkpoint_gives_the_same_scores(
    runs: Path, data: Data, umt: Command, tmp_path: Path
) -> None:
    best = runs / "finetune" / "checkpoint-best.pth"
    flags = ["test", *data.finetune[1:]]
    umt(*with_flags(flags, output_dir=tmp_path, finetune=best, num_workers=2))
    again, before = (ViewScores.load(f / "scores.npz") for f in (tmp_path, runs / "finetune"))
    assert np.array_equal(again.logits, before.logits)


@pytest.mark.slow
def test_a_finished_run_started_again_trains_no_more(runs: Path, data: Data, umt: Command) -> None:
    before = (runs / "pretrain" / "log.txt").read_text()
    umt(*with_flags(data.pretrain, output_dir=runs / "pretrain"))
    assert (runs / "pretrain" / "log.txt").read_text() == before


@pytest.mark.slow
def test_workers_change_nothing(runs: Path, data: Data, umt: Command, tmp_path: Path) -> None:
    umt(*with_flags(data.pretrain, output_dir=tmp_path, num_workers=2))
    one, two = (
        torch.load(f / "checkpoint-latest.pth", weights_only=True)["model"] for f in (runs / "pretrain", tmp_path)
    )
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.slow
@pytest.mark.parametrize("mask", ["tube", "random"])
def test_other_masks_train_through_the_command_line(mask: str, data: Data, umt: Command, tmp_path: Path) -> None:
    umt(*with_flags(data.pretrain, output_dir=tmp_path, mask_type=mask, epochs=1, clip_loss_type="smooth_l1"))
    assert np.isfinite(lines(tmp_path)[0]["train_loss"])
