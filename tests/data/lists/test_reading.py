"""Lists of videos: every form that people have, and a sentence for every way in which they go wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umt.data.lists.class_folders import read_folders
from umt.data.lists.reading import count_rows, read_list
from umt.data.lists.video_list import VideoList
from umt.data.storage.presence import require_files
from umt.errors import AnnotationError, ConfigError

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str | bytes, name: str = "train.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


def rows(videos: VideoList) -> list[tuple[str, int]]:
    return [(videos.path(i), int(videos.labels[i])) for i in range(len(videos))]


@pytest.mark.parametrize("separator", [",", " ", "\t", ";", "|"])
def test_any_separator_reads(write: Write, separator: str) -> None:
    assert rows(read_list(write(f"a.mp4{separator}3\n"), separator=separator)) == [("a.mp4", 3)]


def test_a_tab_may_be_written_as_backslash_t(write: Write) -> None:
    assert rows(read_list(write("a.mp4\t3\n"), separator="\\t")) == [("a.mp4", 3)]


@given(path=st.text("ab ,./-_[]", min_size=1, max_size=12).map(lambda s: f"x{s}y.mp4"), label=st.integers(0, 709))
def test_a_path_may_contain_the_separator(tmp_path_factory: pytest.TempPathFactory, path: str, label: int) -> None:
    file = tmp_path_factory.mktemp("list") / "l.csv"
    for separator in (",", " "):
        file.write_text(f"{path}{separator}{label}\n")
        assert rows(read_list(file, separator=separator)) == [(path, label)]


def test_a_byte_order_mark_windows_line_ends_and_blank_lines_are_fine(write: Write) -> None:
    assert rows(read_list(write(b"\xef\xbb\xbfa.mp4,0\r\n\r\nb.mp4,1\r\n\r\n"), separator=",")) == [
        ("a.mp4", 0),
        ("b.mp4", 1),
    ]


def test_quoted_fields_lose_their_quotes(write: Write) -> None:
    assert rows(read_list(write('"a, b.mp4","2"\n'), separator=",")) == [("a, b.mp4", 2)]


def test_a_header_line_is_not_a_video(write: Write) -> None:
    path = write("path,label\na.mp4,0\n")
    assert rows(read_list(path, separator=",")) == [("a.mp4", 0)]
    assert count_rows(path) == 1


@pytest.mark.parametrize(
    "text", ["label,path\n3,a b.mp4\n", "name,fold,label\na b.mp4,5,3\n", 'label,x,video\n3,,"a b.mp4"\n']
)
def test_a_header_may_order_the_columns(write: Write, text: str) -> None:
    path = write(text)
    assert rows(read_list(path, separator=",")) == [("a b.mp4", 3)]
    assert count_rows(path) == 1


def test_a_header_orders_the_columns_of_frame_folders_too(write: Write) -> None:
    videos = read_list(write("path,label,num_frames\na,3,48\n"), separator=",", frame_folders=True)
    assert (videos.path(0), int(videos.num_frames[0]), int(videos.labels[0])) == ("a", 48, 3)


def test_a_line_without_the_columns_of_the_header_is_named(write: Write) -> None:
    with pytest.raises(AnnotationError, match=r"train\.csv:3: `4` lacks columns that the header names"):
        read_list(write("label,path\n3,a.mp4\n4\n"), separator=",")


def test_a_header_of_a_list_for_pretraining_is_no_video(write: Write) -> None:
    assert rows(read_list(write("path\na b.mp4\n"), labels_optional=True)) == [("a b.mp4", -1)]


@pytest.mark.parametrize("separator", ["", "::", "a", '"', "\n"])
def test_a_separator_that_cannot_part_columns_is_refused(write: Write, separator: str) -> None:
    with pytest.raises(ConfigError, match=r"--split \(.*\) must be one character"):
        read_list(write("a.mp4 3\n"), separator=separator)


def test_a_list_in_utf_16_is_told_how_to_convert(write: Write) -> None:
    with pytest.raises(AnnotationError, match=r"is not UTF-8 text \(byte 0, line 1\).*iconv -f UTF-16 -t UTF-8"):
        read_list(write("a.mp4,0\n".encode("utf-16")))


def test_a_malformed_first_line_is_no_header(write: Write) -> None:
    with pytest.raises(
        AnnotationError, match=r"train\.csv:1: `a\.mp4,x0` does not end in ',' and a whole-number label"
    ):
        read_list(write("a.mp4,x0\nb.mp4,1\n"), separator=",")


def test_a_numeric_path_stays_text(write: Write) -> None:
    assert rows(read_list(write("00012 3\n"))) == [("00012", 3)]


def test_pretraining_paths_without_a_dot_get_an_ending(write: Write) -> None:
    videos = read_list(write("d.x/a 0\nd/b.webm 1\n"), prefix="/data", extension=".mp4")
    assert [videos.file(i) for i in range(2)] == ["/data/d.x/a.mp4", "/data/d/b.webm"]
    assert videos.path(0) == "d.x/a"


def test_frame_folders_get_no_ending(write: Write) -> None:
    assert read_list(write("a/b 37 5\n"), frame_folders=True, extension=".mp4").file(0) == "a/b"


def test_frame_folders_give_their_number_of_frames(write: Write) -> None:
    videos = read_list(write("a/b 37 5\n"), frame_folders=True)
    assert (videos.path(0), int(videos.num_frames[0]), int(videos.labels[0])) == ("a/b", 37, 5)


@pytest.mark.parametrize(
    ("right", "flag"), [(",", "','"), (" ", "' '"), ("\t", r"\$'\\t'"), (";", "';'"), ("|", r"'\|'")]
)
def test_a_wrong_separator_names_the_right_one_as_a_flag(write: Write, right: str, flag: str) -> None:
    wrong = " " if right == "," else ","
    with pytest.raises(AnnotationError, match=rf"train\.csv:1: --split .* Try --split {flag}\."):
        read_list(write(f"a.mp4{right}3\n"), separator=wrong)


def test_a_wrong_separator_is_named_when_labels_are_optional_too(write: Write) -> None:
    with pytest.raises(AnnotationError, match=r"Try --split ','"):
        read_list(write("a.mp4,3\n"), labels_optional=True)


def test_a_missing_frames_column_is_said(write: Write) -> None:
    with pytest.raises(AnnotationError, match=r":1: `a 5` lacks a column: .* path, number of frames, label"):
        read_list(write("a 5\n"), frame_folders=True)


def test_a_label_out_of_range_names_the_line(write: Write) -> None:
    with pytest.raises(
        AnnotationError, match=r"train\.csv:2: label 400 is outside 0\.\.399 \(--nb_classes 400\)\. Check"
    ):
        read_list(write("a.mp4 0\nb.mp4 400\n"), num_classes=400)


def test_a_one_based_list_is_recognised(write: Write) -> None:
    with pytest.raises(AnnotationError, match=r":2: label 3 is outside 0\.\.2 .* Is the file 1-based\?"):
        read_list(write("a.mp4 1\nb.mp4 3\n"), num_classes=3)


def test_a_negative_label_is_out_of_range(write: Write) -> None:
    with pytest.raises(AnnotationError, match=r":1: label -1 is outside 0\.\.2"):
        read_list(write("a.mp4 -1\n"), num_classes=3)


def test_a_test_list_may_lack_labels(write: Write) -> None:
    videos = read_list(write("a b.mp4\nc.mp4\n"), num_classes=3, labels_optional=True)
    assert rows(videos) == [("a b.mp4", -1), ("c.mp4", -1)]
    assert not videos.labelled


def test_a_list_with_some_labels_only_is_refused(write: Write) -> None:
    with pytest.raises(AnnotationError, match=r":2: no label, while other lines have one"):
        read_list(write("a.mp4 1\nc.mp4\n"), num_classes=3, labels_optional=True)


def test_an_empty_list_is_refused(write: Write) -> None:
    with pytest.raises(AnnotationError, match=r"train\.csv holds no video"):
        read_list(write("\n\n"))


def test_a_missing_list_names_the_lists_in_its_folder(write: Write) -> None:
    path = write("a.mp4 0\n", name="val.csv")
    with pytest.raises(AnnotationError, match=r"test\.csv does not exist; its folder holds val\.csv\. Check the path"):
        read_list(path.with_name("test.csv"))


def test_a_folder_instead_of_a_list_names_the_lists_in_it(write: Write) -> None:
    with pytest.raises(AnnotationError, match=r"is a folder, not a list of videos; it holds train\.csv"):
        read_list(write("a.mp4 0\n").parent)


def test_a_binary_file_is_no_list(write: Write) -> None:
    with pytest.raises(AnnotationError, match=r"is not UTF-8 text"):
        read_list(write(b"\xff\xfe\x00\x01"))


def test_rows_are_counted_whatever_the_separator(write: Write) -> None:
    assert count_rows(write("a.mp4;1\n\nb.mp4;2\n")) == 2


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    for part, names in {"train": ["jump", "run"], "val": ["jump"]}.items():
        for name in names:
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            (folder / "1.mp4").write_bytes(b"x")
            (folder / "notes.txt").write_bytes(b"x")
    frames = tmp_path / "val" / "run" / "clip"
    frames.mkdir(parents=True)
    cv2.imwrite(str(frames / "frame7.png"), np.zeros((4, 4, 3), np.uint8))
    return tmp_path


def test_a_folder_per_class_labels_by_sorted_name(classes: Path) -> None:
    assert rows(read_folders(classes, "train", num_classes=2)) == [("jump/1.mp4", 0), ("run/1.mp4", 1)]


def test_a_folder_of_images_in_a_class_is_a_video(classes: Path) -> None:
    videos = read_folders(classes, "test")
    assert rows(videos) == [("jump/1.mp4", 0), ("run/clip", 1)]
    assert videos.num_frames.tolist() == [-1, 0]
    assert "no folder test: val is used" in videos.note


def test_a_train_folder_without_val_and_test_is_pointed_out(classes: Path, tmp_path: Path) -> None:
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "train").symlink_to(classes / "train")
    with pytest.raises(AnnotationError, match=r"has 1 folders.* add val or test next to it\."):
        read_folders(tmp_path / "alone", "train", num_classes=2)


def test_missing_files_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    (tmp_path / "val.csv").write_text("a.mp4,0\nb.mp4,1\nc.mp4,1\n")
    videos = read_list(tmp_path / "val.csv", separator=",", prefix=str(tmp_path))
    with pytest.raises(AnnotationError, match=r"val\.csv: 2 of 3 videos .* first .*b\.mp4 \(row 1, counted from 0\)"):
        require_files(videos)


def test_a_class_count_that_differs_from_the_folders_is_refused(classes: Path) -> None:
    with pytest.raises(AnnotationError, match=r"has 2 folders, one per class, not --nb_classes 5\. Try --nb_classes 2"):
        read_folders(classes, "train", num_classes=5)


def test_classes_without_splits_are_split_the_same_way_every_time_and_say_so(tmp_path: Path) -> None:
    for name in ("jump", "run"):
        (tmp_path / name).mkdir()
        for i in range(15):
            (tmp_path / name / f"{i}.mp4").write_bytes(b"x")
    train, val = read_folders(tmp_path, "train"), read_folders(tmp_path, "val")
    assert len(val) == 4  # 2 of 15 in each class
    assert not {p for p, _ in rows(train)} & {p for p, _ in rows(val)}
    assert len(train) + len(val) == 30
    assert rows(val) == rows(read_folders(tmp_path, "val"))
    assert "1 in 10 videos of a class is held out" in train.note
