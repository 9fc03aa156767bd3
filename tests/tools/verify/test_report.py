"""What `umt verify` reads from test.json and from scores: for one class per video, and for several."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from umt.evaluation.scores import ViewScores
from umt.tools.verify.report import compared, headline, renumbered


def write(folder: Path, labels: object, logits: object) -> Path:
    """The scores of a test with one view, and its test.json."""
    folder.mkdir()
    array = np.asarray(logits, np.float32)
    paths = [f"{i}.mp4" for i in range(len(array))]
    scores = ViewScores(rows=range(len(array)), labels=labels, paths=paths, clips=1, crops=1, classes=array.shape[1])  # type: ignore[arg-type]
    for row, values in enumerate(array):
        scores.add_video(row, values[None, None])
    scores.save(folder / "scores.npz")
    (folder / "test.json").touch()
    return folder / "test.json"


@pytest.mark.parametrize(
    ("tested", "expected"),
    [
        ({"merged": {"top1": 71.25, "top5": 90.0}}, ("top-1", 71.25)),
        ({"merged": {"map": 41.5, "exact": 9.0}, "multi_label": True}, ("mAP", 41.5)),
    ],
)
def test_the_number_of_a_test_is_top1_or_map(tested: dict, expected: tuple[str, float]) -> None:
    assert headline(tested) == expected


def test_videos_with_another_answer_than_in_the_other_run_are_counted(tmp_path: Path) -> None:
    other = write(tmp_path / "a", [0, 1, 1, 0], np.eye(2)[[0, 1, 0, 1]])
    write(tmp_path / "b", [0, 1, 1, 0], np.eye(2)[[0, 0, 1, 0]])
    assert compared(tmp_path / "b", other) == "      3   of 4 differ from that run's: 2 right only here, 1 only there"


def test_videos_with_other_classes_than_in_the_other_run_are_counted(tmp_path: Path) -> None:
    labels = np.array([[1, 0], [1, 1], [0, 0]])
    other = write(tmp_path / "a", labels, 8 * np.array([[1, 0], [1, 0], [0, 0]]) - 4)
    write(tmp_path / "b", labels, 8 * np.array([[1, 0], [1, 1], [0, 1]]) - 4)
    assert compared(tmp_path / "b", other) == "      2   of 3 differ from that run's: 1 right only here, 1 only there"


def test_tests_of_other_videos_are_not_compared(tmp_path: Path) -> None:
    other = write(tmp_path / "a", [[1, 0]], [[1, 0]])
    write(tmp_path / "b", [0], [[1, 0]])
    assert compared(tmp_path / "b", other) == ""


def test_a_list_that_numbers_its_classes_otherwise_gets_a_hint(tmp_path: Path) -> None:
    labels = np.arange(30) % 3
    write(tmp_path / "a", (labels + 1) % 3, np.eye(3)[labels])
    assert renumbered(tmp_path / "a", 95.0, 0.0).startswith(
        "With the classes of the list renumbered it would be 100.0: the list gives 3 classes another number"
    )
    assert renumbered(tmp_path / "a", 0.0, 0.0) == ""


def test_a_multi_label_list_gets_no_hint_about_its_numbers(tmp_path: Path) -> None:
    write(tmp_path / "a", np.tile([[1, 0], [0, 1]], (5, 1)), np.tile([[0, 1], [1, 0]], (5, 1)))
    assert renumbered(tmp_path / "a", 95.0, 0.0) == ""
