"""The report: its numbers are those of the scores, its page stands alone, and what is missing is named."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.videos import render
from umt.__main__ import run
from umt.drawing import masked
from umt.evaluation.scores import ViewScores
from umt.models import create_model
from umt.tools.quickstart import report
from umt.tools.quickstart.finished import ReportError, read, typed
from umt.tools.quickstart.table import margin, table_rows

CLASSES = ("disc: stays up", "disc: sinks", "star: stays up", "star: sinks", "bar: stays up", "bar: sinks")
VIDEOS, CLIPS, CROPS = 12, 2, 3


def _lines(path: Path, lines: Sequence[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def _run(folder: Path, command: list[str], log: list[dict[str, object]]) -> None:
    """The files of a run; what `umt COMMAND --dry_run` accepts is what config.json says of it."""
    _lines(folder / "log.txt", log)
    run([*command, "--output_dir", str(folder), "--dry_run"])
    words = zip(command[1::2], command[2::2], strict=True)
    flags = {name[2:]: json.loads(word) if word[0].isdigit() else word for name, word in words}
    config = {"task": command[0], "short_side_size": None, **flags, "derived": {}, "class_names": ["a"]}
    (folder / "config.json").write_text(json.dumps(config))
    _lines(folder / "environment.jsonl", [{"command": ["python", "-m", "umt", *command]}])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the quickstart leaves it: 12 test videos of 6 classes, scores better when pretrained."""
    folder = tmp_path_factory.mktemp("quickstart")
    (folder / "data").mkdir()
    paths = [f"{row}.mp4" for row in range(VIDEOS)]
    labels = [row % len(CLASSES) for row in range(VIDEOS)]
    for path, label in zip(paths, labels, strict=True):
        render(folder / "data" / path, frames=16, width=60, height=48, label=label)
    rows = [f"{path},{label}\n" for path, label in zip(paths, labels, strict=True)]
    (folder / "data" / "test.csv").write_text("".join(rows))
    (folder / "data" / "labels.txt").write_text("\n".join(CLASSES) + "\n")
    _lines(folder / "teacher" / "log.txt", [{"step": s, "steps": 9, "loss": 9 / s, "accuracy": 9 * s} for s in (3, 9)])
    torch.manual_seed(0)
    torch.save(create_model("clip_tiny_patch8_48").state_dict(), folder / "teacher" / "teacher.pth")
    _run(
        folder / "pretrain",
        ["pretrain", "--model", "pretrain_umt_tiny_patch8_48", "--input_size", "48", "--num_frames", "8",
         "--clip_teacher", "clip_tiny_patch8_48", "--clip_input_resolution", "48", "--clip_return_layer", "2",
         "--mask_type", "attention", "--mask_ratio", "0.8", "--data_path", "pretrain.csv"],
        [{"epoch": e, "train_loss": 2 - e, "train_cosine": e / 2, "train_seconds": 1.5} for e in (0, 1)],
    )  # fmt: skip
    rng = np.random.default_rng(0)
    for name, help_ in (("finetune", 2.0), ("scratch", 0.0)):
        _run(
            folder / name,
            ["finetune", "--model", "vit_tiny_patch8_48", "--input_size", "48", "--num_frames", "8",
             "--data_set", "Kinetics_sparse", "--nb_classes", "6", "--sampling_rate", "4", "--epochs", "10",
             "--data_path", "data"],
            [{"epoch": e, "train_loss": 2 - e, "val_acc1": 40 * e, "train_seconds": 2.0} for e in (0, 1)]
            + [{"Final top-1": 1.0, "Final Top-5": 1.0}],
        )  # fmt: skip
        scores = ViewScores(
            rows=range(VIDEOS), labels=labels, paths=paths, clips=CLIPS, crops=CROPS, classes=len(CLASSES)
        )
        for row, label in enumerate(labels):
            logits = rng.normal(size=(CLIPS, CROPS, len(CLASSES)))
            logits[..., label] += help_
            scores.add_video(row, logits.astype(np.float32))
        scores.save(folder / name / "scores.npz")
    models = [
        {"name": name, "probes": [
            {"probe": probe, "top1": top1 + k, "top5": 90.5, "per_view": [top1, 80.5], "interval": [top1 - 5, top1 + 9]}
            for k, probe in enumerate(("knn", "linear", "attentive"))
        ]}
        for name, top1 in (("checkpoint-latest.pth", 40.25), ("random weights", 10.25))
    ]  # fmt: skip
    content = {"command": ["umt", "probe", "--checkpoint", "x.pth", "none"], "seconds": 9.0, "models": models}
    (folder / "probe").mkdir()
    (folder / "probe" / "results.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "quickstart"))


def _percent(run: Path, k: int) -> float:
    """Merged top-k straight from the logits."""
    scores = ViewScores.load(run / "scores.npz")
    odds = np.exp(scores.logits.astype(np.float64))
    merged = (odds / odds.sum(-1, keepdims=True)).mean((1, 2))
    best = np.argsort(-merged, axis=1)[:, :k]
    return float(100 * (best == scores.labels[:, None]).any(1).mean())


def test_the_table_holds_the_numbers_of_the_score_files(finished: Path) -> None:
    chance, *_, scratch, _, _, _, pretrained = table_rows(read(finished))
    assert [row["name"] for row in (chance, scratch, pretrained)] == ["chance", "from scratch", "pretrained"]
    assert chance["merged"] == pytest.approx((100 / 6, 500 / 6))
    for row, name in ((scratch, "scratch"), (pretrained, "finetune")):
        assert row["merged"] == pytest.approx((_percent(finished / name, 1), _percent(finished / name, 5)))
        assert row["interval"][0] <= row["merged"][0] <= row["interval"][1]


def test_the_table_has_the_probes_of_random_weights_before_those_of_the_student(finished: Path) -> None:
    rows = {row["name"]: row for row in table_rows(read(finished))}
    assert list(rows) == [
        "chance", "random, kNN", "random, linear", "random, attentive", "from scratch",
        "student, kNN", "student, linear", "student, attentive", "pretrained",
    ]  # fmt: skip
    assert rows["random, kNN"]["merged"] == (10.25, 90.5)
    assert rows["student, attentive"]["merged"] == (42.25, 90.5)
    assert rows["student, attentive"]["interval"] == (35.25, 49.25)


def test_the_margin_is_the_difference_of_the_two_runs(finished: Path) -> None:
    points, low, high = margin(read(finished))
    assert points == pytest.approx(_percent(finished / "finetune", 1) - _percent(finished / "scratch", 1))
    assert low <= points <= high


def test_the_command_prints_the_table_and_last_the_page(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main(["--folder", str(copied), "--images", str(copied / "images")]) == 0
    out = capsys.readouterr().out
    assert f"{_percent(copied / 'finetune', 1):.2f}" in out
    assert out.splitlines()[-1].endswith(str(copied / "report.html"))
    assert {p.name for p in (copied / "images").iterdir()} == {
        "accuracy.png", "curves.png", "masks.png", "predictions.png",
    }  # fmt: skip
    page = (copied / "report.html").read_text(encoding="utf-8")
    sources = re.findall(r'\b(?:src|srcset)="([^"]*)"', page)
    assert sources
    assert all(source.startswith("data:image/png;base64,") for source in sources), "the page needs another file"
    assert not re.search(r"<link|<script|@import|url\(", page)
    for section in ("results", "curves", "masks", "predictions", "accuracy", "commands"):
        assert f'<h2 id="{section}">' in page
    for name in ("pretrain", "finetune", "scratch", "probe"):
        assert f"<h3>{name}</h3>" in page
    assert "python -m umt pretrain --model pretrain_umt_tiny_patch8_48" in page


@pytest.mark.parametrize("missing", ["scratch/scores.npz", "pretrain", "teacher", "data/labels.txt", "probe"])
def test_what_is_missing_is_named_in_one_sentence(
    copied: Path, missing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = copied / missing
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    assert report.main(["--folder", str(copied)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert str(gone) in said
    assert "quickstart.sh again" in said
    assert not (copied / "report.html").exists()


def test_tests_of_different_videos_are_not_compared(copied: Path) -> None:
    scores = ViewScores.load(copied / "scratch" / "scores.npz")
    scores.paths[0] = "other.mp4"
    scores.save(copied / "scratch" / "scores.npz")
    with pytest.raises(ReportError, match="do not agree in videos"):
        read(copied)


def test_the_shown_clips_are_of_different_classes_and_things(finished: Path) -> None:
    labels = read(finished).tests["finetune"].labels
    shown = [CLASSES[labels[row]] for row in report.choose(labels, list(CLASSES), len(CLASSES))]
    assert len(set(shown)) == len(CLASSES)
    assert len({name.split(":")[0] for name in shown[:3]}) == 3


def test_the_mask_leaves_a_fifth_of_every_frame(finished: Path) -> None:
    runs = read(finished)
    (clip,) = report.look(runs, [0], report.shown_clips(runs))
    assert clip.frames.shape == (8, 48, 48, 3)
    assert clip.visible.sum((1, 2)).tolist() == [36 - int(36 * 0.8)] * 8
    np.testing.assert_allclose(clip.saliency.shape, (8, 6, 6))


def test_a_command_is_written_in_lines_of_whole_flags() -> None:
    command = typed(["finetune", *(f"--flag_{i}=a value" for i in range(6)), "--betas", "0.9", "0.95"])
    assert all(len(line) <= 110 for line in command.splitlines())
    assert shlex.split(command.replace("\\\n", "")) == [
        *("python", "-m", "umt", "finetune"), *(f"--flag_{i}=a value" for i in range(6)), "--betas", "0.9", "0.95",
    ]  # fmt: skip


def test_a_masked_picture_keeps_visible_patches_and_greys_the_others() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    visible = np.zeros((2, 2, 2), bool)
    visible[0, 1, 0] = True
    picture = masked(frames, visible)
    np.testing.assert_array_equal(picture[0, 4:, :4], frames[0, 4:, :4])
    grey = picture[0, :4]
    assert (grey == grey[..., :1]).all()
