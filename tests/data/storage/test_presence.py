"""Lists by URL, and looking for their videos before a run."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from umt.data.lists import parquet as parquet_list
from umt.data.lists.lines import Row
from umt.data.lists.reading import count_rows, read_list
from umt.data.lists.video_list import VideoList
from umt.data.storage.presence import missing_files, require_files, require_some_files
from umt.data.storage.source import Storage
from umt.errors import AnnotationError, VideoError


def test_a_list_in_s3_is_read_and_counted(bucket: str, mp4s: Path) -> None:
    rows = read_list(f"{bucket}/train.csv", separator=",", prefix=bucket, num_classes=3)
    here = read_list(mp4s / "train.csv", separator=",")
    assert [rows.path(i) for i in range(7)] == [here.path(i) for i in range(7)]
    assert rows.file(2) == f"{bucket}/v2.mp4"
    assert rows.labels.tolist() == here.labels.tolist()
    assert count_rows(f"{bucket}/train.csv") == 7


def test_a_parquet_list_is_read_by_url(tmp_path: Path) -> None:
    parquet_list.write(str(tmp_path / "a.parquet"), [Row("a.mp4", -1, 2), Row("b.mp4", -1, 0)])
    fsspec.filesystem("memory").pipe_file("/lists/a.parquet", (tmp_path / "a.parquet").read_bytes())
    rows = read_list("memory://lists/a.parquet")
    assert (rows.path(0), rows.labels.tolist()) == ("a.mp4", [2, 0])


def test_a_mistake_in_a_list_by_url_is_said_with_its_line() -> None:
    fsspec.filesystem("memory").pipe_file("/lists/a.csv", b"a.mp4,0\nb.mp4\n")
    with pytest.raises(AnnotationError, match=r"^memory://lists/a\.csv:2: "):
        read_list("memory://lists/a.csv", separator=",")


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("s3://videos/none.csv", r"^s3://videos/none\.csv does not exist: no such object\. Check the path\.$"),
        ("s3://no-such/a.csv", r"^s3://no-such/a\.csv does not exist: no such bucket\. Check the path\.$"),
    ],
)
def test_a_list_that_is_not_there_is_said(bucket: str, url: str, sentence: str) -> None:
    with pytest.raises(AnnotationError, match=sentence):
        read_list(url)


def test_missing_objects_are_found_before_a_run(bucket: str) -> None:
    rows = VideoList("a.csv", ["v0.mp4", "gone.mp4", "v2.mp4"], [0, 0, 0], prefix=bucket)
    assert missing_files(rows, Storage()) == [1]
    with pytest.raises(AnnotationError, match=rf"1 of 3 videos cannot be read: no such file, first {bucket}/gone\.mp4"):
        require_files(rows, Storage())
    require_some_files(rows, Storage())


def test_a_wrong_bucket_is_found_before_a_run(bucket: str) -> None:
    rows = VideoList("a.csv", ["v0.mp4", "v1.mp4"], [0, 0], prefix="s3://wrong-bucket")
    with pytest.raises(AnnotationError, match=r"none of 2 videos looked up is there, first s3://wrong-bucket/v0\.mp4"):
        require_some_files(rows, Storage())


def test_a_store_that_does_not_answer_is_named_before_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("umt.data.storage.remote.PAUSE", 0.01)
    rows = VideoList("a.csv", ["v0.mp4"], [0], prefix="http://127.0.0.1:1/x")
    with pytest.raises(VideoError, match=r"http://127\.0\.0\.1:1/x/v0\.mp4: .*after 4 attempts"):
        require_some_files(rows, Storage())
