"""Scores: each view once, no accuracy while one is missing, files that are whole or refused."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from umt.errors import OutputError
from umt.evaluation.partial import PartialWriter, partial_path, partial_ranks, read_partial
from umt.evaluation.scores import ScoresError, ViewScores
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


# Finished videos of a test that is still running


def write(folder: Path, scores: ViewScores, rows: list[int], good: int = 0) -> Path:
    path = partial_path(folder, 0)
    with PartialWriter(path, scores, good) as writer:
        for row in rows:
            writer.append(row, views(row))
    return path


def test_finished_videos_are_read_back_exactly(tmp_path: Path) -> None:
    path, scores = write(tmp_path, empty(), [10, 12]), empty()
    assert read_partial(path, scores) == path.stat().st_size
    assert scores.finished() == [10, 12]
    assert (scores.logits[2] == views(12)).all()


def test_a_partial_file_cut_anywhere_gives_its_whole_records_only(tmp_path: Path) -> None:
    path = write(tmp_path, empty(), [10, 11])
    data = path.read_bytes()
    record = (len(data) - write(tmp_path / "empty", empty(), []).stat().st_size) // 2
    for cut in range(len(data)):
        path.write_bytes(data[:cut])
        scores = empty()
        read_partial(path, scores)
        assert len(scores.finished()) == max(0, (cut - (len(data) - 2 * record)) // record)


def test_a_damaged_record_is_computed_again(tmp_path: Path) -> None:
    path, scores = write(tmp_path, empty(), [10, 11]), empty()
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    read_partial(path, scores)
    assert scores.finished() == [10]


def test_writing_goes_on_behind_the_last_whole_record(tmp_path: Path) -> None:
    path, scores = write(tmp_path, empty(), [10, 11]), empty()
    os.truncate(path, path.stat().st_size - 3)
    good = read_partial(path, scores)
    write(tmp_path, empty(), [12], good)
    again = empty()
    read_partial(path, again)
    assert again.finished() == [10, 12]


@pytest.mark.parametrize(
    "other", [{"checkpoint": "b"}, {"clips": 1}, {"paths": ["x", "y", "z"]}, {"labels": [1, 1, 1]}]
)
def test_a_partial_file_of_another_test_is_never_read(tmp_path: Path, other: dict[str, object]) -> None:
    scores = empty(**other)
    assert read_partial(write(tmp_path, empty(), [10, 11, 12]), scores) == 0
    assert scores.finished() == []


def test_partial_files_are_found_whatever_the_number_of_ranks(tmp_path: Path) -> None:
    for rank in (0, 3, 11):
        partial_path(tmp_path, rank).touch()
    assert partial_ranks(tmp_path) == [0, 3, 11]


def test_a_full_disk_is_a_sentence_and_keeps_what_is_finished(tmp_path: Path) -> None:
    """The limit on file sizes stands for the disk: the kernel refuses the write in the middle of a record."""
    path = write(tmp_path, empty(), [10])
    limit = path.stat().st_size + 40
    code = f"""
import resource, signal, sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from tests.evaluation.test_scores import empty, views, PartialWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    with PartialWriter(Path({str(path)!r}), empty(), {path.stat().st_size}) as writer:
        writer.append(11, views(11))
except Exception as error:
    print(type(error).__name__, error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("OutputError")
    assert "the videos finished so far are kept" in run.stdout
    scores = empty()
    read_partial(path, scores)
    assert scores.finished() == [10]
