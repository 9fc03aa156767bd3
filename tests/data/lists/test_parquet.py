"""Lists as parquet."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umt.data.lists import parquet as parquet_list
from umt.data.lists.lines import Row
from umt.data.lists.reading import count_rows, read_list
from umt.data.lists.video_list import VideoList
from umt.errors import AnnotationError

arrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(**columns: Any) -> Path:
        path = tmp_path / "train.parquet"
        parquet.write_table(arrow.table(columns), path)
        return path

    return write


def rows(videos: VideoList) -> list[tuple[str, int, int]]:
    return [(videos.path(i), int(videos.num_frames[i]), int(videos.labels[i])) for i in range(len(videos))]


@pytest.mark.parametrize(("path", "label"), [("path", "label"), ("video", "class"), ("Video_Path", "LABEL_ID")])
def test_columns_have_any_of_the_usual_names(write: Write, path: str, label: str) -> None:
    file = write(**{"id": [5, 6], label: [3, 0], path: ["a b.mp4", "ü.mp4"]})
    assert rows(read_list(file, num_classes=4)) == [("a b.mp4", -1, 3), ("ü.mp4", -1, 0)]
    assert count_rows(file) == 2


def test_frame_folders_have_their_number_or_nobody_counted(write: Write) -> None:
    assert rows(read_list(write(path=["a"], label=[3], num_frames=[48]), frame_folders=True)) == [("a", 48, 3)]
    assert rows(read_list(write(path=["a"], label=[3]), frame_folders=True)) == [("a", 0, 3)]


def test_a_list_for_pretraining_needs_no_labels(write: Write) -> None:
    assert rows(read_list(write(path=["a"]), labels_optional=True)) == [("a", -1, -1)]
    with pytest.raises(AnnotationError, match=r"train\.parquet:1: no label"):
        read_list(write(path=["a"]))


def test_dictionary_columns_and_whole_floats_are_read(write: Write) -> None:
    file = write(path=arrow.array(["a", "b", "a"]).dictionary_encode(), label=arrow.array([1.0, 2.0, 0.0]))
    assert rows(read_list(file)) == [("a", -1, 1), ("b", -1, 2), ("a", -1, 0)]


def test_a_label_out_of_range_names_the_row(write: Write) -> None:
    with pytest.raises(AnnotationError, match=r"train\.parquet:2: label 7 is outside 0\.\.3"):
        read_list(write(path=["a", "b"], label=[0, 7]), num_classes=4)


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"clip_id": ["a"], "label": [0]}, r"has the columns clip_id, label, none of them for the path"),
        ({"path": ["a"], "label": ["jump"]}, r"the column label holds string, not whole numbers"),
        ({"path": [1], "label": [0]}, r"the column path holds int64, not paths"),
        ({"path": ["a"], "label": [0.5]}, r"the column label holds double, not whole numbers"),
        ({"path": ["a", None], "label": [0, 1]}, r"train\.parquet:2: no path"),
        ({"path": ["a\0"], "label": [0]}, r"train\.parquet:1: a zero byte in the path"),
        ({"path": arrow.array([], arrow.string()), "label": arrow.array([], arrow.int64())}, r"holds no video"),
    ],
)
def test_what_cannot_be_read_is_said(write: Write, columns: dict[str, Any], sentence: str) -> None:
    with pytest.raises(AnnotationError, match=sentence):
        read_list(write(**columns))


def test_a_csv_called_parquet_is_refused_and_a_missing_one_too(tmp_path: Path) -> None:
    (tmp_path / "l.parquet").write_text("a.mp4,0\n")
    with pytest.raises(AnnotationError, match=r"l\.parquet cannot be read as parquet"):
        read_list(tmp_path / "l.parquet")
    with pytest.raises(AnnotationError, match=r"m\.parquet does not exist"):
        count_rows(tmp_path / "m.parquet")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_list_gives_a_sentence_or_rows(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    file = tmp_path_factory.mktemp("damaged") / "l.parquet"
    parquet_list.write(os.fspath(file), [Row(f"{i}.mp4", -1, i) for i in range(20)])
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]) if data.draw(st.booleans()) else content)
    try:
        assert len(read_list(file)) >= 0
    except AnnotationError as error:
        assert str(file) in str(error)  # noqa: PT017


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    file = os.fspath(tmp_path / "l.parquet")
    parquet_list.write(file, [Row("a\nb", 7, 0), Row(' "c', 8, 1)], frame_folders=True)
    assert rows(read_list(file, frame_folders=True)) == [("a\nb", 7, 0), (' "c', 8, 1)]


def test_a_list_of_text_does_not_load_pyarrow(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("a 0\n")
    code = (
        "import sys; from umt.data.lists.reading import read_list; read_list(sys.argv[1]); "
        "print('pyarrow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "l.csv")], capture_output=True, timeout=60)
    assert done.stdout == b"False\n", done.stderr
