"""`umt verify` on rendered videos: a model trained here is held against its own number, a wrong one, a wrong list."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.end_to_end.conftest import Command, Data

pytestmark = pytest.mark.slow
Verify = Callable[..., str]


@pytest.fixture(scope="module")
def trained(data: Data, umt: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that has learnt something, tested on all 36 videos; the lists lie in `lists` below it."""
    folder = tmp_path_factory.mktemp("trained")
    rows = [line for split in ("train", "val", "test") for line in (data.folder / f"{split}.csv").read_text().split()]
    (folder / "lists").mkdir()
    (folder / "lists" / "train.csv").write_text((data.folder / "train.csv").read_text())
    for split in ("val", "test"):
        (folder / "lists" / f"{split}.csv").write_text("\n".join(rows) + "\n")
    shifted = [f"{path},{(int(label) + 1) % 4}" for path, label in (row.split(",") for row in rows)]
    (folder / "lists" / "shifted.csv").write_text("\n".join(shifted) + "\n")
    umt(
        *data.finetune, "--data_path", str(folder / "lists"), "--batch_size", "8", "--num_sample", "1", "--lr", "3e-2",
        "--epochs", "12", "--drop_path", "0", "--mixup", "0", "--cutmix", "0", "--aa", "", "--reprob", "0",
        "--smoothing", "0", "--layer_decay", "1", "--init_scale", "1", "--no_model_ema",
        "--disable_eval_during_finetuning", "--output_dir", str(folder),
    )  # fmt: skip
    return folder


@pytest.fixture
def verify(trained: Path, data: Data, umt: Command, tmp_path: Path) -> Verify:
    def run(*words: str, code: int, listed: str = "test.csv") -> str:
        flags = [
            "--prefix",
            str(data.folder),
            "--split",
            ",",
            "--num_workers",
            "0",
            "--threads",
            "1",
            "--device",
            "cpu",
        ]
        return umt(
            "verify", str(trained / "checkpoint-latest.pth"), str(trained / "lists" / listed), *words, *flags,
            "--output_dir", str(tmp_path / "out"), code=code,
        ).stdout  # fmt: skip

    return run


def top1(trained: Path) -> float:
    return float(json.loads((trained / "test.json").read_text())["merged"]["top1"])


def test_the_model_has_learnt_something(trained: Path) -> None:
    assert top1(trained) >= 50


def test_the_number_of_the_training_is_reproduced(trained: Path, verify: Verify) -> None:
    said = verify("--expect", str(trained / "test.json"), code=0)
    assert "verdict: agrees" in said
    assert "+0.00" in said
    assert "0   of 36 differ from that run's: 0 right only here, 0 only there" in said


def test_a_row_of_a_users_zoo_is_reproduced(trained: Path, verify: Verify, tmp_path: Path) -> None:
    (tmp_path / "zoo.md").write_text(
        "| Views | Top-1 | Videos | Weights |\n|---|---|---|---|\n"
        f"| 8x3x2 | {top1(trained):.1f} | 36 | [w](ours.pth) |\n"
    )
    assert "verdict: agrees" in verify("--zoo", str(tmp_path / "zoo.md"), "--row", "ours", code=0)
    content = json.loads((tmp_path / "out" / "verify.json").read_text())
    assert (content["verdict"]["word"], content["videos"], content["clips"]) == ("agrees", 36, 2)


def test_a_wrong_number_differs(trained: Path, verify: Verify) -> None:
    assert "verdict: differs" in verify("--expect", f"{top1(trained) - 2:.1f}", code=1)


def test_a_list_with_other_labels_differs_and_the_reason_is_given(trained: Path, verify: Verify) -> None:
    said = verify("--expect", str(trained), code=1, listed="shifted.csv")
    assert "verdict: differs" in said
    assert f"With the classes of the list renumbered it would be {top1(trained):.1f}" in said


def test_a_sample_cannot_say(trained: Path, verify: Verify) -> None:
    said = verify("--expect", str(trained), "--sample", "12", code=2)
    assert "verdict: cannot say" in said
    assert "12 of 36 videos" in said


def test_a_run_with_own_classes_is_reproduced_on_a_list_and_on_class_folders(
    trained: Path, data: Data, umt: Command, tmp_path: Path
) -> None:
    names = ["ape", "bee", "cat", "dog"]
    content = torch.load(trained / "checkpoint-latest.pth", weights_only=True)
    content["config"] |= {"data_set": "image_folder", "class_names": names, "split": " "}
    torch.save(content, tmp_path / "own.pth")
    rows = [line.split(",") for line in (trained / "lists" / "test.csv").read_text().split()]
    (tmp_path / "mine.csv").write_text("".join(f"{data.folder / path};{names[int(label)]}\n" for path, label in rows))
    for path, label in rows:
        (tmp_path / "videos" / names[int(label)]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "videos" / names[int(label)] / path).symlink_to(data.folder / path)
    for listed in ("mine.csv", "videos"):
        said = umt(
            "verify", str(tmp_path / "own.pth"), str(tmp_path / listed), "--expect", str(trained / "test.json"),
            "--num_workers", "0", "--threads", "1", "--device", "cpu", "--output_dir", str(tmp_path / "out" / listed),
        ).stdout  # fmt: skip
        assert "+0.00" in said
        assert "36   of 36\n" in said
