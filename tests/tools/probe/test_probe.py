"""`umt probe` from the command line on real videos: a table, results that are kept, and sentences for mistakes."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.videos import render
from umt.errors import ConfigError, OutputError, VideoError
from umt.evaluation.scores import ViewScores
from umt.inference import features
from umt.inference.recognizer import load
from umt.models import create_model
from umt.tasks.base import recipe_class
from umt.tools.probe import main
from umt.tools.probe.features import Frozen, Want

MODEL = "vit_tiny_patch8_48"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """18 videos of 3 classes in three lists."""
    folder = tmp_path_factory.mktemp("data")
    for split, count in (("train", 9), ("val", 3), ("test", 6)):
        lines = []
        for number in range(count):
            name = f"{split}{number}.mp4"
            render(folder / name, frames=9, width=60, height=48, label=4 * (number % 3))
            lines.append(f"{name},{number % 3}\n")
        (folder / f"{split}.csv").write_text("".join(lines))
    (folder / "labels.txt").write_text("fast\nslow\nstill\n")
    return folder


def _probe(data: Path, output: Path, *more: str, checkpoint: str = "none") -> int:
    words = ["--checkpoint", checkpoint, "--data_path", str(data), "--output", str(output), "--device", "cpu"]
    few = ["--linear_epochs", "5", "--attentive_epochs", "2", "--attentive_lr", "0.01", "--num_workers", "0"]
    model = ["--model", MODEL] if checkpoint == "none" else []
    return main([*words, *model, *few, *more])


def test_a_probe_leaves_its_table_results_scores_and_curves(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _probe(data, tmp_path / "out", "--test_clips", "2") == 0
    said = capsys.readouterr().out
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    (model,) = results["models"]
    assert model["name"] == "random weights"
    assert [one["probe"] for one in model["probes"]] == ["knn", "linear", "attentive"]
    for one in model["probes"]:
        scores = ViewScores.load(tmp_path / "out" / f"scores_0_{one['probe']}.npz")
        assert scores.logits.shape == (6, 2, 1, 3)
        assert scores.class_names == ["fast", "slow", "still"]
        assert f"{one['top1']:.2f}" in said
        low, high = one["interval"]
        assert low <= one["top1"] <= high
    assert results["videos"] == {"train": 9, "val": 3, "test": 6}
    assert (tmp_path / "out" / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_features_are_those_of_the_model(data: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save({"model": create_model(MODEL, num_classes=3).state_dict()}, tmp_path / "x.pth")
    words = ["--model", MODEL, "--precision", "fp32", "--probes", "knn", "attentive"]
    _probe(data, tmp_path / "out", *words, checkpoint=str(tmp_path / "x.pth"))
    (folder,) = (tmp_path / "out").glob("features/*/train")
    model = load(tmp_path / "x.pth", model=MODEL, device="cpu", precision="fp32")
    for kind in ("pooled", "tokens"):
        for row, _, array in features.read(folder, kind):
            alone = Frozen(model, Want(tokens=(8, 6, 6)))(model.transform(data / f"train{row}.mp4"))
            np.testing.assert_allclose(array, alone[kind].numpy(), atol=4e-3)


def test_features_are_not_made_twice(data: Path, tmp_path: Path) -> None:
    _probe(data, tmp_path / "out", "--probes", "knn", "--seed", "3")
    (folder,) = (tmp_path / "out" / "features").iterdir()
    (file,) = (folder / "train").glob("*.safetensors")
    before = file.stat().st_mtime_ns  # a pass over the videos would write it again
    _probe(data, tmp_path / "out", "--probes", "knn", "--seed", "3", "--knn_k", "2")
    assert file.stat().st_mtime_ns == before
    _probe(data, tmp_path / "out", "--probes", "knn", "--seed", "4")
    assert len(list((tmp_path / "out" / "features").iterdir())) == 2, "other weights, other features"


@pytest.mark.slow
def test_a_finished_probe_is_told_again(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        _probe(data, tmp_path / "out", "--probes", "knn")
    said = capsys.readouterr().out
    assert said.count("random weights  knn") == 2
    assert "is of these very features and settings" in said


def test_a_pretrained_student_and_random_weights_share_a_pass(data: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    student = create_model("pretrain_umt_tiny_patch8_48")
    config = recipe_class("pretrain").from_values(
        {"model": "pretrain_umt_tiny_patch8_48", "input_size": 48, "num_frames": 8, "data_path": "x"}
    )
    torch.save({"model": student.state_dict(), "config": {"task": "pretrain", **config.values()}}, tmp_path / "x.pth")
    checkpoint = str(tmp_path / "x.pth")
    words = ["--checkpoint", checkpoint, "none", "--data_path", str(data), "--output", str(tmp_path / "out")]
    assert main([*words, "--probes", "knn", "--num_workers", "0", "--device", "cpu"]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [model["name"] for model in results["models"]] == ["x.pth", "random weights"]
    assert len({model["recipe"]["weights"] for model in results["models"]}) == 2


def test_an_unreadable_test_video_is_named_unless_it_may_count_as_wrong(data: Path, tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("".join(f"{data}/test{i}.mp4,{i % 3}\n" for i in range(3)) + "none.mp4,0\n")
    more = ["--test_list", str(tmp_path / "test.csv"), "--probes", "knn"]
    with pytest.raises(VideoError, match=r"none\.mp4.*It is row 3 of .*test\.csv"):
        _probe(data, tmp_path / "out", *more)
    assert _probe(data, tmp_path / "out", *more, "--count_unreadable_as_wrong") == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert any("1 test videos cannot be read and are counted as wrong" in note for note in results["notes"])


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--layer", "4"], r"--layer \(4\): the model has blocks 0\.\.3"),
        (["--token_grid", "9", "1", "1"], r"--token_grid \(9x1x1\) is finer than the model's 8x6x6"),
        (["--knn_k", "0"], r"--knn_k \(0\) must be at least 1"),
        (["--linear_weight_decay", "-1"], r"--linear_weight_decay \(-1\) must be at least 0"),
        (["--attentive-lr", "1"], r"there is no flag --attentive-lr\. Did you mean --attentive_lr"),
    ],
)
def test_what_cannot_work_is_said_in_a_sentence(data: Path, tmp_path: Path, more: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        _probe(data, tmp_path / "out", *more)


def _train(output: Path) -> np.ndarray:
    """Features of the training videos (R, V, D)."""
    (folder,) = output.glob("features/*/train")
    return np.stack([array for _, _, array in features.read(folder)])


@pytest.mark.slow
def test_a_probe_that_was_killed_goes_on_with_the_rows_that_are_missing(tmp_path: Path) -> None:
    video = render(tmp_path / "a.mp4", frames=9, width=60, height=48)
    for split, count in (("train", 300), ("test", 12)):
        for number in range(count):
            (tmp_path / f"{split}{number}.mp4").symlink_to(video)
        lines = [f"{split}{number}.mp4,{number % 3}\n" for number in range(count)]
        (tmp_path / f"{split}.csv").write_text("".join(lines))
    words = ["--checkpoint", "none", "--model", MODEL, "--data_path", str(tmp_path), "--probes", "knn", "--batch_size"]
    words += ["1", "--num_workers", "0", "--device", "cpu", "--precision", "fp32", "--output"]
    killed = subprocess.Popen([sys.executable, "-m", "umt", "probe", *words, str(tmp_path / "killed")])
    while killed.poll() is None and not list((tmp_path / "killed").glob("features/*/train/*.safetensors")):
        time.sleep(0.01)
    killed.kill()
    killed.wait()
    assert len(_train(tmp_path / "killed")) == 256
    assert main([*words, str(tmp_path / "killed")]) == 0
    assert main([*words, str(tmp_path / "whole")]) == 0
    np.testing.assert_array_equal(_train(tmp_path / "killed"), _train(tmp_path / "whole"))


def test_a_disk_that_takes_no_more_is_a_sentence_and_the_command_goes_on(data: Path, tmp_path: Path) -> None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limit[1]))
    try:
        with pytest.raises(OutputError, match=r"features-000000000\.safetensors cannot be written: .*Free the disk"):
            _probe(data, tmp_path / "out", "--probes", "knn")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert _probe(data, tmp_path / "out", "--probes", "knn") == 0


@pytest.mark.slow
def test_features_of_umt_extract_give_the_same_table(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from umt.tools.extract.command import main as extract

    torch.manual_seed(0)
    torch.save({"model": create_model(MODEL, num_classes=3).state_dict()}, tmp_path / "x.pth")
    for split in ("train", "val", "test"):
        words = [str(data / f"{split}.csv"), "--checkpoint", str(tmp_path / "x.pth"), "--model", MODEL]
        words += ["--clips", "1", "--crops", "1", "--device", "cpu", "--precision", "fp32"]
        assert extract([*words, "--output", str(tmp_path / "features" / split)]) == 0
    more = ["--probes", "knn", "linear", "--linear_epochs", "5", "--device", "cpu", "--output"]
    assert main(["--features", str(tmp_path / "features"), *more, str(tmp_path / "one")]) == 0
    direct = ["--checkpoint", str(tmp_path / "x.pth"), "--model", MODEL, "--precision", "fp32", "--num_workers", "0"]
    assert main([*direct, "--data_path", str(data), *more, str(tmp_path / "two")]) == 0
    tables = [json.loads((tmp_path / name / "results.json").read_text())["models"][0] for name in ("one", "two")]
    for one, two in zip(*(table["probes"] for table in tables), strict=True):
        assert one["top1"] == two["top1"]
        assert [t["loss"] for t in one["tried"]] == pytest.approx([t["loss"] for t in two["tried"]], rel=1e-4)
    with pytest.raises(ConfigError, match="an attentive probe needs tokens"):
        main(["--features", str(tmp_path / "features")])


def test_models_of_other_clips_are_not_probed_in_one_pass(data: Path, tmp_path: Path) -> None:
    for frames in (8, 4):
        content = {"model": create_model(MODEL, num_frames=frames, num_classes=3).state_dict()}
        config = recipe_class("finetune").from_values(
            {"model": MODEL, "input_size": 48, "num_frames": frames, "data_path": "x"}
        )
        torch.save({**content, "config": {"task": "finetune", **config.values()}}, tmp_path / f"{frames}.pth")
    words = ["--checkpoint", str(tmp_path / "8.pth"), str(tmp_path / "4.pth"), "--data_path", str(data)]
    with pytest.raises(ConfigError, match=r"4\.pth takes other clips than .*8\.pth: num_frames 4, not 8\. Give all of"):
        main([*words, "--output", str(tmp_path / "out"), "--device", "cpu"])


def test_random_weights_want_an_architecture(data: Path) -> None:
    with pytest.raises(ConfigError, match="--checkpoint none needs --model NAME"):
        main(["--checkpoint", "none", "--data_path", str(data)])
