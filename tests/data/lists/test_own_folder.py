"""A folder of one's own videos is recognised for what it is, and what cannot be one is said in a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from umt.data.lists.own_folder import Columns, look
from umt.errors import AnnotationError


def files(top: Path, *names: str) -> Path:
    """Empty files: looking at a folder opens no video."""
    for name in names:
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).touch()
    return top


def videos(*folders: str, count: int = 3) -> list[str]:
    return [f"{folder}/{i}.mp4" for folder in folders for i in range(count)]


def test_class_folders_are_counted_and_split(tmp_path: Path) -> None:
    contents = look(str(files(tmp_path, *videos("run", "jump", count=10))))
    assert (contents.data_set, contents.classes, contents.names) == ("image_folder", 2, ("jump", "run"))
    assert contents.splits == {"train": 18, "val": 2, "test": 2}
    assert contents.counts == (9, 9)
    assert contents.notes == (
        f"{tmp_path} has no folders train and val: 1 in 10 videos of a class is held out, chosen by a hash.",
    )


def test_a_missing_test_folder_is_said(tmp_path: Path) -> None:
    contents = look(str(files(tmp_path, *videos("train/a", "train/b", "val/a", "val/b"))))
    assert contents.splits == {"train": 6, "val": 6, "test": 6}
    assert contents.notes == (f"{tmp_path} has no folder test: val is used.",)


@pytest.mark.parametrize("separator", [",", " ", "\t", ";", "|"])
def test_the_separator_is_found_by_the_videos_that_are_there(separator: str, tmp_path: Path) -> None:
    files(tmp_path, *videos("a clip", count=4))
    (tmp_path / "train.csv").write_text("".join(f"a clip/{i}.mp4{separator}{i % 2}\n" for i in range(4)))
    contents = look(str(tmp_path))
    assert (contents.separator, contents.prefix) == (separator, str(tmp_path))
    assert (contents.data_set, contents.classes, contents.names) == ("video_list", 2, None)


def test_names_of_classes_may_hold_spaces(tmp_path: Path) -> None:
    files(tmp_path, *videos("v", count=4))
    (tmp_path / "train.csv").write_text("".join(f"v/{i}.mp4,{('sit down', 'get up')[i % 2]}\n" for i in range(4)))
    contents = look(str(tmp_path))
    assert (contents.separator, contents.names, contents.counts) == (",", ("get up", "sit down"), (1, 1))


def test_a_header_tells_the_columns(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("label,path\nrun,a.mp4\njump,b.mp4\nrun,c.mp4\njump,d.mp4\n")
    (tmp_path / "val.csv").write_text("label,path\nrun,e.mp4\n")
    contents = look(str(tmp_path))
    assert (contents.names, contents.counts, contents.splits["val"]) == (("jump", "run"), (2, 2), 1)


def test_labels_txt_says_the_classes_and_their_order(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("run\njump\nswim\n")
    (tmp_path / "train.csv").write_text("a.mp4,jump\nb.mp4,0\nc.mp4,jump\nd.mp4,run\n")
    contents = look(str(tmp_path))
    assert (contents.names, contents.counts) == (("run", "jump", "swim"), (1, 1, 0))


def test_several_labels_a_video_are_seen(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("a.mp4,3|17\nb.mp4,\nc.mp4,3\nd.mp4,2\n")
    (tmp_path / "val.csv").write_text("e.mp4,3\n")
    contents = look(str(tmp_path))
    assert contents.multi_label
    assert contents.classes == 18
    assert (contents.counts[3], contents.counts[17], sum(contents.counts)) == (2, 1, 4)


def test_what_is_given_is_not_looked_for(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("a,b.mp4 0\nc,d.mp4 1\ne.mp4 0\nf.mp4 1\n")
    contents = look(str(tmp_path), Columns(separator=" ", prefix="/videos", frame_folders=False, multi_label=False))
    assert (contents.separator, contents.prefix, contents.splits["train"]) == (" ", "/videos", 2)


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ([], "has neither class folders nor lists. Make a folder per class in it, or write train.csv"),
        (["all.csv"], "has neither class folders nor lists. The training list must be called train.csv; "),
        (videos("run"), "has one class only, run: there is nothing to tell apart."),
        ([*videos("run"), "jump/readme.txt"], "jump holds no video to train on (.mp4, .webm, .avi, .mkv, ... or "),
        ([*videos("run", "jump"), "x.mp4"], "mixes folders and loose videos (1, first x.mp4), which have no class."),
        (
            videos("train/a", "train/b", "val/a", "c"),
            "mixes folders train, val and class folders (c). Move the class folders",
        ),
        (videos("train/a", "train/b"), "has a folder train, and neither val nor test. Add one of them, or give "),
        (videos("train/a", "train/b", "validation/a"), "validation should be called val. Rename it."),
        (videos("a", "b", count=1), "has one video per class, so none can be held out for validation."),
        (videos("val/a", "val/b"), "has a folder val and no folder train. Add it"),
        (["val.csv"], "has val.csv and no train.csv. Add it"),
    ],
)
def test_what_cannot_be_trained_on_is_said(names: list[str], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(AnnotationError) as error:
        look(str(files(tmp_path, *names)))
    assert str(error.value).startswith(str(tmp_path))
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("a.mp4,run\nb.mp4,jump\nc.mp4,runing\n", r"labels.txt. Did you mean run\?"),
        ("a.mp4,run\nb.mp4,\n", r"train.csv:2: no label. Give every video one"),
        ("a.mp4,run\nb.mp4,2\n", r"train.csv:2: label '2' is none of the 2 classes of "),
        ("", r"train.csv is empty. A line is path,class"),
        ("no list at all\nnor here\n", r"label 'all' is none of the 2 classes"),
    ],
)
def test_a_label_that_is_no_class_is_said_with_its_line(content: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("run\njump\n")
    (tmp_path / "train.csv").write_text(content)
    with pytest.raises(AnnotationError, match=sentence):
        look(str(tmp_path))


def test_numbers_that_cannot_be_classes_are_said(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("a.mp4,20240131\nb.mp4,20240201\n")
    with pytest.raises(AnnotationError, match="label 20240201 is too great for a number of classes"):
        look(str(tmp_path))
