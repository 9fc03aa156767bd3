"""Who trains, who chooses, who tests: never the same videos, and where they would be, it is said."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch

from umt.errors import AnnotationError, ConfigError
from umt.inference import feature_files
from umt.tools.probe.lists import find
from umt.tools.probe.sources import from_features


def _lists(folder: Path, **rows: list[str]) -> str:
    folder.mkdir(exist_ok=True)
    for name, lines in rows.items():
        (folder / f"{name}.csv").write_text("".join(f"{line}\n" for line in lines))
    return str(folder)


def _rows(name: str, count: int = 20, separator: str = ",") -> list[str]:
    return [f"{name}{i}.mp4{separator}{i % 2}" for i in range(count)]


def test_with_three_lists_validation_chooses(tmp_path: Path) -> None:
    found = find(_lists(tmp_path, train=_rows("a"), val=_rows("b"), test=_rows("c")))
    assert found.chooses is None
    assert found.videos["val"].path(0) == "b0.mp4"
    assert found.notes == []


@pytest.mark.parametrize("name", ["val", "test"])
def test_with_two_lists_a_part_of_every_training_class_chooses(tmp_path: Path, name: str) -> None:
    found = find(_lists(tmp_path, train=_rows("a"), **{name: _rows("c")}))
    assert found.videos["test"].path(0) == "c0.mp4"
    assert found.chooses is not None
    assert found.videos["train"].labels[found.chooses].tolist().count(0) == 2
    assert found.videos["train"].labels[found.chooses].tolist().count(1) == 2


def test_a_validation_list_that_is_the_test_chooses_nothing(tmp_path: Path) -> None:
    found = find(_lists(tmp_path, train=_rows("a"), val=_rows("c"), test=_rows("c")))
    assert found.chooses is not None
    assert "val" not in found.videos
    assert any("shares videos with the test" in note for note in found.notes)


def test_training_videos_in_the_test_are_said(tmp_path: Path) -> None:
    found = find(_lists(tmp_path, train=_rows("a"), val=_rows("b"), test=[*_rows("c"), "a3.mp4,1"]))
    assert any("1 videos are in the training list and in the test" in note for note in found.notes)


def test_the_separator_is_found(tmp_path: Path) -> None:
    found = find(_lists(tmp_path, train=_rows("a", separator=" "), test=_rows("b", separator="\t")))
    assert found.videos["train"].path(1) == "a1.mp4"
    assert found.videos["test"].path(1) == "b1.mp4"


def test_class_folders_are_lists_too(tmp_path: Path) -> None:
    for name in ("train/cat", "train/dog", "val/cat", "val/dog"):
        (tmp_path / name).mkdir(parents=True)
        for number in range(3):
            (tmp_path / name / f"{number}.mp4").touch()
    found = find(str(tmp_path))
    assert found.names == ["cat", "dog"]
    assert {name: len(videos) for name, videos in found.videos.items()} == {"train": 6, "test": 6}


def test_a_test_label_that_training_does_not_have_is_named(tmp_path: Path) -> None:
    folder = _lists(tmp_path, train=_rows("a"), val=_rows("b"), test=["c.mp4,7"])
    with pytest.raises(AnnotationError, match=r"test\.csv has the label 7, but the training labels end at 1"):
        find(folder)


def test_a_row_without_a_label_is_refused(tmp_path: Path) -> None:
    folder = _lists(tmp_path, train=_rows("a"), val=_rows("b"), test=["c.mp4,0", "d.mp4,-1"])
    with pytest.raises(AnnotationError, match=r"test\.csv: some rows have no label"):
        find(folder)


def test_a_folder_without_a_test_is_told_how_to_name_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no test list.*--test_list FILE"):
        find(_lists(tmp_path, train=_rows("a")))


def test_classes_of_one_video_cannot_be_held_out(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="too few videos to hold some out"):
        find(_lists(tmp_path, train=["a.mp4,0", "b.mp4,1"], test=_rows("c")))


def test_classes_have_one_number_in_all_lists_whichever_each_of_them_has(tmp_path: Path) -> None:
    train = [f"a{i}.mp4,{('archery', 'cricket', 'yoga')[i % 3]}" for i in range(30)]
    found = find(_lists(tmp_path, train=train, test=["b0.mp4,yoga", "b1.mp4,cricket"]))
    assert found.names == ["archery", "cricket", "yoga"]
    assert found.videos["test"].labels.tolist() == [2, 1]


@pytest.mark.parametrize(
    ("test", "sentence"),
    [
        (["b.mp4,chess"], "test.csv has the class 'chess', and .*train.csv does not"),
        (["b.mp4,1"], "one names its classes and the other numbers them"),
        (["b.mp4,yoga|archery"], "has several labels per video"),
    ],
)
def test_classes_that_cannot_be_matched_are_named(tmp_path: Path, test: list[str], sentence: str) -> None:
    train = [f"a{i}.mp4,{('archery', 'yoga')[i % 2]}" for i in range(20)]
    with pytest.raises(AnnotationError, match=sentence):
        find(_lists(tmp_path, train=train, test=test))


def test_classes_have_one_number_in_features_of_several_lists(tmp_path: Path) -> None:
    for split, names in (("train", ["archery", "cricket", "yoga"]), ("test", ["cricket", "yoga"])):
        features = {"pre_logits": torch.zeros(1, 4)}
        rows = 6 if split == "train" else 2
        for row in range(rows):
            made = feature_files.Row(row, f"{split}{row}.mp4", row % len(names), np.zeros((1, 8), np.int32), features)
            feature_files.write(feature_files.file_of(tmp_path / split, "npz", row, 1), [made])
        about = {"umt_features": 1, "layers": ["pre_logits"], "pool": "mean", "format": "npz", "dtype": "fp32",
                 "weights_digest": "0", "checkpoint": "x.pth", "frames": {"clips": 1, "crops": 1},
                 "rows": {"count": rows}, "list": {"classes": names, "multi_label": False}}  # fmt: skip
        (tmp_path / split / "recipe.json").write_text(json.dumps(about))
    found = from_features(Namespace(features=tmp_path, probes=["knn"]))
    assert found.lists.videos["test"].labels.tolist() == [1, 2]
