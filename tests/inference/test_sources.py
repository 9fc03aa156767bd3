"""Which videos words on the command line mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from umt.errors import AnnotationError, ConfigError
from umt.inference.sources import find_videos, read_rows


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("yoga/b.mp4", "yoga/a.webm", "archery/c.MP4", "archery/.hidden.mp4", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "archery/frames").mkdir()
    (tmp_path / "archery/frames/img_00001.jpg").touch()
    return tmp_path


def names(folder: Path, *words: str) -> list[str]:
    videos = find_videos([str(folder / word) for word in words])
    return [str(Path(videos.file(row)).relative_to(folder)) for row in range(len(videos))]


def test_a_folder_stands_for_all_videos_below_it(folder: Path) -> None:
    assert names(folder, "") == ["archery/c.MP4", "archery/frames", "yoga/a.webm", "yoga/b.mp4"]
    assert names(folder, "archery/frames") == ["archery/frames"]


def test_patterns_and_files_keep_their_order_and_come_once(folder: Path) -> None:
    assert names(folder, "yoga/b.mp4", "**/*.[mw]*", "yoga") == ["yoga/b.mp4", "yoga/a.webm"]


def test_a_name_that_is_not_there_is_left_to_whoever_opens_it(folder: Path) -> None:
    assert names(folder, "gone.mp4") == ["gone.mp4"]


@pytest.mark.parametrize("separator", [",", " ", "\t"])
def test_a_list_is_read_by_the_separator_that_parts_it(folder: Path, separator: str) -> None:
    listed = folder / "list.csv"
    listed.write_text("".join(f"yoga/{name}{separator}{label}\n" for name, label in (("a.webm", 4), ("b.mp4", 0))))
    rows = read_rows(str(listed))
    assert rows.labels.tolist() == [4, 0]
    assert rows.file(1) == str(folder / "yoga/b.mp4")


def test_a_list_of_paths_alone_will_do(folder: Path) -> None:
    listed = folder / "list.txt"
    listed.write_text("yoga/a.webm\nyoga/b.mp4\n")
    assert read_rows(str(listed)).labels.tolist() == [-1, -1]
    assert names(folder, "list.txt") == ["yoga/a.webm", "yoga/b.mp4"]


def test_lists_of_names_and_of_several_labels_are_read(folder: Path) -> None:
    listed = folder / "named.csv"
    listed.write_text("yoga/a.webm,yoga\nyoga/b.mp4,archery\n")
    rows = read_rows(str(listed))
    assert rows.labels.tolist() == [1, 0]
    assert rows.path(0) == "yoga/a.webm"
    for lines in (["yoga/a.webm,17|3", "yoga/b.mp4,5"], ["yoga/b.mp4,5", "yoga/a.webm,17|3"]):
        listed.write_text("".join(f"{line}\n" for line in lines))
        rows = read_rows(str(listed))
        assert rows.sets is not None
        each = {rows.path(row): rows.sets.row(row).tolist() for row in range(2)}
        assert each == {"yoga/a.webm": [3, 17], "yoga/b.mp4": [5]}
        assert sorted(rows.labels.tolist()) == [3, 5]


def test_class_folders_are_labels(folder: Path) -> None:
    rows = read_rows(str(folder))
    assert [rows.path(row) for row in range(4)] == ["archery/c.MP4", "archery/frames", "yoga/a.webm", "yoga/b.mp4"]
    assert rows.labels.tolist() == [0, 0, 1, 1]
    assert rows.num_frames.tolist() == [-1, 0, -1, -1]


def test_a_pattern_that_finds_nothing_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="matches no file"):
        names(folder, "*.avi")


def test_a_folder_without_videos_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no video"):
        find_videos([str(tmp_path)])


def test_a_list_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="does not exist"):
        read_rows(str(tmp_path / "train.csv"))


@pytest.mark.parametrize(("name", "kind"), [("a.mp4", "a video"), ("b.PNG", "an image")])
def test_a_video_where_a_list_is_wanted_is_told(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / name).write_bytes(b"\xff\0")
    with pytest.raises(AnnotationError, match=rf"{name} is {kind}, where a list .* umt predict takes videos"):
        read_rows(str(tmp_path / name))


def test_a_file_of_something_else_is_no_list(tmp_path: Path) -> None:
    (tmp_path / "best.pth").write_bytes(b"PK\x03\xff\0\0")
    with pytest.raises(AnnotationError, match=r"best\.pth is not text\. Give a list of videos"):
        read_rows(str(tmp_path / "best.pth"))
