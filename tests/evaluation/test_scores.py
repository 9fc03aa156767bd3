"""Scores: each view once, no accuracy while one is missing, files that are whole or refused."""

import os
from pathlib import Path

import numpy as np
import pytest

from umt.errors import OutputError, ScoresError
from umt.evaluation.scores import ViewScores
from umt.evaluation.summary import summarise

CLASSES = 6


def empty(videos: int = 3, clips: int = 2, crops: int = 2, checkpoint: str = "a", **changes: object) -> ViewScores:
    return ViewScores(
        **{
            "rows": range(10, 10 + videos),
            "labels": [i % CLASSES for i in range(videos)],
            "paths": [f"same stem/{i}/v.1.mp4" for i in range(videos)],
            "clips": clips,
            "crops": crops,
            "classes": CLASSES,
            "provenance": {"checkpoint": checkpoint},
            **changes,
        }
    )


def views(row: int, clips: int = 2, crops: int = 2) -> np.ndarray:
    return np.random.default_rng(row).standard_normal((clips, crops, CLASSES)).astype(np.float32)


def full(seed: int = 0, **changes: object) -> ViewScores:
    scores = empty(**changes)
    for row in scores.rows:
        scores.add_video(row, views(int(row) + 1000 * seed, scores.clips, scores.crops))
    return scores


def test_a_repeated_view_counts_once() -> None:
    scores = full()
    before = summarise(scores)
    assert not scores.add(10, 1, 0, np.full(CLASSES, 99.0))
    assert summarise(scores) == before


def test_an_accuracy_is_refused_while_a_view_is_missing() -> None:
    scores = full()
    scores.seen[1, 0, 1] = False
    with pytest.raises(
        ScoresError, match=r"1 of 12 views are missing.*clip 0, crop 1 of same stem/1/v\.1\.mp4 \(row 11\)"
    ):
        summarise(scores)


def test_videos_of_the_same_file_name_do_not_merge() -> None:
    scores = empty(paths=["a/v.mp4", "b/v.mp4", "v.mp4"])
    for row in scores.rows:
        scores.add_video(row, views(int(row)))
    assert summarise(scores).videos == 3


def test_an_unreadable_video_stays_in_the_denominator_as_wrong() -> None:
    scores = empty(labels=[0, 0, 0])
    for row in (10, 11):
        scores.add_video(row, np.zeros((2, 2, CLASSES)))  # all equal: class 0 comes first, so these are right
    scores.count_as_wrong(12, "truncated")
    summary = summarise(scores)
    assert (summary.videos, summary.merged.top1, summary.merged.top5) == (
        3,
        pytest.approx(200 / 3),
        pytest.approx(200 / 3),
    )
    assert summary.unreadable == {12: "truncated"}


def test_scores_that_are_not_finite_name_the_video() -> None:
    with pytest.raises(
        ScoresError, match=r"same stem/0/v\.1\.mp4 \(row 10\): the scores of clip 1, crop 0 are not finite"
    ):
        empty().add(10, 1, 0, np.full(CLASSES, np.nan))


def test_a_video_without_a_label_has_no_accuracy() -> None:
    with pytest.raises(ScoresError, match=r"label -1 is outside 0\.\.5"):
        summarise(full(labels=[0, -1, 1]))


def test_a_saved_file_gives_the_same_numbers(tmp_path: Path) -> None:
    scores = full(class_names=list("abcdef"))
    scores.save(tmp_path / "s.npz")
    assert summarise(ViewScores.load(tmp_path / "s.npz")) == summarise(scores)


def test_a_saved_file_keeps_paths_causes_and_provenance(tmp_path: Path) -> None:
    scores = full(paths=["ä, [b].mp4", "c\udcff.mp4", ""])
    scores.count_as_wrong(11, "zero bytes")
    scores.save(tmp_path / "s.npz")
    loaded = ViewScores.load(tmp_path / "s.npz")
    assert (loaded.paths, loaded.unreadable, loaded.provenance) == (scores.paths, scores.unreadable, scores.provenance)
    assert loaded.fingerprint() == scores.fingerprint()


def test_a_saved_file_holds_no_pickle(tmp_path: Path) -> None:
    full().save(tmp_path / "s.npz")
    with np.load(tmp_path / "s.npz", allow_pickle=False) as file:
        assert {file[key].dtype.kind for key in file.files} <= {"f", "i", "b", "u"}


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.99])
def test_a_truncated_file_is_refused_with_a_sentence(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "s.npz"
    full().save(path)
    size = path.stat().st_size
    os.truncate(path, int(keep if keep >= 1 else keep * size))
    with pytest.raises(ScoresError, match=r"s\.npz is not a whole scores file.*Run that test again"):
        ViewScores.load(path)


def test_a_missing_file_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ScoresError, match=r"none\.npz does not exist"):
        ViewScores.load(tmp_path / "none.npz")


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot be written .*change --output_dir"):
        full().save(tmp_path / "file" / "s.npz")


def test_parts_of_a_test_merge_into_the_whole() -> None:
    whole, left, right = full(), full(), full()
    left.seen[2], right.seen[:2] = False, False
    left.merge(right)
    assert summarise(left) == summarise(whole)


def test_parts_of_two_tests_do_not_merge() -> None:
    with pytest.raises(ScoresError, match="two different tests"):
        full().merge(full(checkpoint="b"))


def test_the_table_names_every_way_of_merging() -> None:
    table = summarise(full()).table()
    assert [word for word in ("merged", "per clip", "per view", "2 crop", "2 clip") if word not in table] == []
