"""Runs know what they number classes by: it is recorded, reported, and never mixed up."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.end_to_end.conftest import CLASSES, Data, with_flags
from umt.__main__ import main
from umt.data import labels
from umt.data.labels.label_order import Order
from umt.models import create_model
from umt.models.files.weights import read_head
from umt.run.command_line import parse
from umt.tasks.classify.build import load_finetuned
from umt.tasks.classify.classes import settle
from umt.tasks.classify.recipe import ClassifyRecipe

NAMES = ["juggling", "cooking", "yoga", "zumba"]
TINY = {"image_size": 64, "num_frames": 8, "tubelet_size": 1}
Refused = Callable[..., str]


def lists(data: Data, folder: Path, names: list[str]) -> Path:
    """The lists of `data` with class names beside them."""
    folder.mkdir()
    for split in ("train", "val", "test"):
        shutil.copy(data.folder / f"{split}.csv", folder)
    (folder / "labels.txt").write_text(labels.text_of(names))
    return folder


@pytest.fixture(scope="module")
def trained(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of one epoch on lists that name their classes."""
    folder = tmp_path_factory.mktemp("trained")
    words = with_flags(
        data.finetune, data_path=lists(data, folder / "lists", NAMES), output_dir=folder / "run", epochs=1,
        warmup_epochs=0, num_sample=1, aa="none", test_num_segment=1, test_num_crop=1, model_ema=False,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["umt", *words])
        assert main() == 0
    return folder / "run"


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Refused:
    """The one sentence that the command line says before it ends with code 2."""

    def run(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["umt", *words])
        capsys.readouterr()
        assert main() == 2
        (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("umt: ")]
        return said

    return run


def test_a_run_records_its_class_names_and_reports_by_them(trained: Path) -> None:
    assert json.loads((trained / "config.json").read_text())["class_names"] == NAMES
    assert torch.load(trained / "checkpoint-latest.pth", weights_only=True)["config"]["class_names"] == NAMES
    assert labels.read_names(trained / "labels.txt") == tuple(NAMES)
    assert [line["name"] for line in json.loads((trained / "test.json").read_text())["classes"]] == NAMES


def test_a_head_of_the_same_classes_is_put_in_the_lists_order(
    trained: Path, data: Data, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    flags = {"data_path": lists(data, tmp_path / "lists", NAMES[::-1]), "finetune": trained / "checkpoint-latest.pth"}
    config = parse("finetune", with_flags(data.finetune[1:], **flags), files=False)
    assert isinstance(config, ClassifyRecipe)
    model = create_model("vit_tiny_patch8_64", num_classes=CLASSES, **TINY)
    load_finetuned(config, model, settle(config, Order(tuple(NAMES[::-1]), "labels.txt")))
    own = torch.load(trained / "checkpoint-latest.pth", weights_only=True)["model"]
    assert torch.equal(model.state_dict()["head.weight"], own["head.weight"].flip(0))
    assert "numbers its 4 classes differently from the lists: its rows are put in their order, by name." in caplog.text


def test_classes_without_a_row_are_named(trained: Path, data: Data, refused: Refused, tmp_path: Path) -> None:
    other = lists(data, tmp_path / "lists", [*NAMES[:3], "knitting"])
    flags = {"data_path": other, "output_dir": tmp_path / "out", "finetune": trained / "checkpoint-latest.pth"}
    said = refused(*with_flags(data.finetune, **flags))
    assert "has no class 'knitting', of the 4 that the lists have" in said
    assert "Give --delete_head for a new head." in said
    assert "Test on lists of its classes." in refused(*with_flags(data.finetune, **flags, eval=None))


def test_a_run_is_not_gone_on_with_on_lists_in_another_order(
    trained: Path, data: Data, refused: Refused, tmp_path: Path
) -> None:
    shutil.copytree(trained, tmp_path / "run")
    turned = lists(data, tmp_path / "lists", NAMES[::-1])
    flags = {"data_path": turned, "epochs": 1, "warmup_epochs": 0, "num_sample": 1, "aa": "none", "model_ema": False}
    said = refused(*with_flags(data.finetune, **flags, output_dir=tmp_path / "run"))
    assert "contradict the head of" in said
    said = refused(*with_flags(data.finetune, **flags, output_dir=tmp_path / "run", eval=None))
    assert "contradict the head of" in said


def test_a_published_head_is_not_tested_on_an_alphabetical_list(data: Data, refused: Refused, tmp_path: Path) -> None:
    torch.save({"model": create_model("vit_tiny_patch8_64", num_classes=400, **TINY).state_dict()}, tmp_path / "w.pth")
    folder = lists(data, tmp_path / "lists", list(labels.names_of("k400")))
    words = with_flags(
        data.finetune,
        data_path=folder,
        nb_classes=400,
        output_dir=tmp_path / "out",
        finetune=tmp_path / "w.pth",
        eval=None,
    )
    said = refused(*words)
    assert "(Kinetics-400 in the published UMT order, by the number of its classes, as the file names none)" in said
    assert "umt data prepare k400 --label_order umt, or give --head_label_order alphabetical" in said


def test_a_710_class_head_serves_an_alphabetical_list_by_the_right_rows(data: Data, tmp_path: Path) -> None:
    torch.manual_seed(0)
    big = create_model("vit_tiny_patch8_64", num_classes=710, init_scale=1.0, **TINY)
    torch.save(big.state_dict(), tmp_path / "w.pth")
    config = parse("finetune", with_flags(data.finetune[1:], nb_classes=400, finetune=tmp_path / "w.pth"), files=False)
    assert isinstance(config, ClassifyRecipe)
    small = create_model("vit_tiny_patch8_64", num_classes=400, **TINY)
    load_finetuned(config, small, settle(config, Order(labels.names_of("k400"), "labels.txt")))
    yoga, row = labels.names_of("k400").index("yoga"), labels.names_of("k710").index("yoga")
    assert torch.equal(small.state_dict()["head.weight"][yoga], big.state_dict()["head.weight"][row])


def test_the_head_of_a_file_is_known_without_a_model(trained: Path, data: Data, tmp_path: Path) -> None:
    assert read_head(trained / "checkpoint-best.pth") == (CLASSES, NAMES, True)
    assert read_head(data.folder / "teacher.pth")[:2] == (0, None)
    weights = {"head.weight": torch.zeros(7, 4), "head.bias": torch.zeros(7)}
    torch.save({"module": weights}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert read_head(tmp_path / "old.pth") == (7, None, True)
    weights["patch_embed.proj.weight"] = torch.zeros(4, 3, 2, 8, 8)  # VideoMAE's: two frames a token
    torch.save(weights, tmp_path / "two.pth")
    assert read_head(tmp_path / "two.pth") == (7, None, False)


def test_class_folders_name_the_classes_of_image_folder(data: Data, refused: Refused, tmp_path: Path) -> None:
    for split in ("train", "val"):
        for i, name in enumerate(NAMES):
            (tmp_path / "own" / split / name).mkdir(parents=True)
            shutil.copy(data.folder / f"val_{i}.mp4", tmp_path / "own" / split / name)
    torch.save(
        {
            "model": create_model("vit_tiny_patch8_64", num_classes=4, **TINY).state_dict(),
            "config": {"class_names": [*sorted(NAMES)[:3], "knitting"]},
        },
        tmp_path / "w.pth",
    )
    words = with_flags(
        data.finetune, data_set="image_folder", data_path=tmp_path / "own", prefix="", finetune=tmp_path / "w.pth",
        output_dir=tmp_path / "out", eval=None,
    )  # fmt: skip
    said = refused(*words)
    assert "has no class 'zumba', of the 4 that the lists have" in said
    assert f"(an order of its own, by the class folders of {tmp_path}" in said
