"""`umt finetune --data_path DIR`: a folder of one's own videos, a list of several labels, frozen blocks, kills."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.end_to_end.conftest import CLASSES, Command, Data, with_flags
from tests.end_to_end.test_resume import Moment, assert_kills_leave_no_trace, logged, said, videos_done
from umt.engine import checkpoints
from umt.evaluation.scores import ViewScores
from umt.models import create_model

# What keeps a run small; everything else is chosen.
SMALL = ["--epochs", "2", "--test_num_segment", "2", "--test_num_crop", "1", "--num_workers", "0", "--threads", "1",
         "--device", "cpu", "--log_every", "1"]  # fmt: skip
NAMES = ("jump", "run", "swim", "walk")


@pytest.fixture(scope="module")
def mine(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder per class with six videos each."""
    folder = tmp_path_factory.mktemp("own") / "mine"
    for i in range(24):
        (folder / NAMES[i % CLASSES]).mkdir(parents=True, exist_ok=True)
        shutil.copy(data.folder / f"train_{i}.mp4", folder / NAMES[i % CLASSES] / f"{i}.mp4")
    return folder


@pytest.fixture(scope="module")
def several(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lists of names, of which a video may have two or none."""
    folder = tmp_path_factory.mktemp("several")
    for split, count in (("train", 24), ("val", 6)):
        labels = ["" if i % 6 == 5 else "|".join({NAMES[i % 4], NAMES[(i // 2) % 4]}) for i in range(count)]
        lines = [f"{data.folder}/{split}_{i}.mp4,{label}\n" for i, label in enumerate(labels)]
        (folder / f"{split}.csv").write_text("".join(lines))
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "student.pth"
    torch.save({"model": create_model("pretrain_umt_tiny_patch8_48").state_dict()}, path)
    return path


@pytest.mark.slow
def test_a_folder_alone_is_trained_tested_and_judged(mine: Path, umt: Command, tmp_path: Path) -> None:
    told = umt("finetune", "--data_path", str(mine), *SMALL, cwd=tmp_path).stderr
    out = tmp_path / "outputs" / "mine-vit_tiny_patch8_64"
    assert "class balance: 4 classes, 20 training videos" in told
    assert "starts from random weights" in told
    assert (out / "labels.txt").read_text().split() == sorted(NAMES)
    judged = json.loads((out / "sanity.json").read_text())
    assert judged["videos"] == [20, 4, 4]
    assert judged["first_loss"] == pytest.approx(np.log(4), rel=0.01)
    assert (out / "sanity.txt").read_text() in told + "\n"
    assert json.loads((out / "config.json").read_text())["chosen"]["nb_classes"] == "counted"
    before = ViewScores.load(out / "scores.npz")
    umt("test", "--data_path", str(mine), "--num_workers", "0", "--threads", "1", "--test_num_segment", "2",
        "--test_num_crop", "1", "--device", "cpu", cwd=tmp_path)  # fmt: skip
    assert np.array_equal(ViewScores.load(out / "scores.npz").logits, before.logits)


@pytest.mark.slow
def test_several_labels_are_trained_and_tested(several: Path, umt: Command, tmp_path: Path) -> None:
    umt("finetune", "--data_path", str(several), *SMALL, "--output_dir", "out", cwd=tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "out" / "log.txt").read_text().splitlines()]
    assert {"val_map", "val_f1_micro", "val_f1_macro"} <= lines[0].keys()
    assert lines[1]["best"] == max(line["val_map"] for line in lines[:2])
    scores = ViewScores.load(tmp_path / "out" / "scores.npz")
    assert scores.labels.shape == (6, 4)
    assert scores.class_names == sorted(NAMES)
    assert json.loads((tmp_path / "out" / "test.json").read_text())["merged"]["map"] == lines[-1]["Final mAP"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_one_s_own_run_killed_anywhere_ends_as_one_left_alone(
    several: Path, weights: Path, umt: Command, tmp_path: Path
) -> None:
    # With everything on that carries state or draws: mixed labels, weights of classes, frozen blocks, an average.
    words = with_flags(
        ["finetune", "--data_path", str(several), *SMALL], output_dir="out", finetune=weights, save_every_steps=1,
        freeze_blocks=2, class_weights="sqrt", mixup=0.8, cutmix=1, model_ema=None, model_ema_decay=0.9, batch_size=4,
        shots=4,
    )  # fmt: skip
    moments: list[Moment] = [said("epoch 1/2 step 2/"), logged(1), videos_done(2)]
    assert_kills_leave_no_trace(words, moments, umt, tmp_path)
    content = checkpoints.load(tmp_path / "cut" / "out" / checkpoints.LATEST)
    assert content["task"]["first_loss"] > 0
    start = torch.load(weights, weights_only=True)["model"]
    for key in ("model", "model_ema"):
        same = {
            name for name, value in content[key].items() if torch.equal(value, start.get(f"encoder.{name}", value[:0]))
        }
        assert {name for name in same if name.startswith("blocks.")} == {
            name for name in content[key] if name.startswith(("blocks.0.", "blocks.1."))
        }
        assert "patch_embed.proj.weight" in same


@pytest.mark.slow
def test_class_folders_that_cannot_be_read_end_in_a_sentence(mine: Path, umt: Command, tmp_path: Path) -> None:
    shutil.copytree(mine, tmp_path / "mine")
    for video in (tmp_path / "mine" / "run").iterdir():
        video.write_bytes(b"no video")
    done = umt("finetune", "--data_path", "mine", *SMALL, cwd=tmp_path, code=2)
    assert done.stderr.startswith("umt: Class run has no readable video among 5 that were looked at: ")
    assert done.stderr.count("\n") == 1
