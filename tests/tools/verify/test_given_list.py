"""LIST of `umt verify`: lists of any separator and with names of classes, and folders of classes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umt.data.lists.class_folders import read_folders
from umt.data.lists.lines import SEPARATORS
from umt.errors import AnnotationError, ConfigError
from umt.tools.verify.checkpoint import Stated
from umt.tools.verify.given_list import ListFlags, Prepared, prepare

NAMES = ("ape", "cat", "dog")
OWN = Stated({"data_set": "image_folder", "nb_classes": "3", "split": " "}, NAMES)


def _list(prepared: Prepared) -> str:
    return Path(prepared.folder, "test.csv").read_text()


@pytest.mark.parametrize("text", ["a.mp4,ape\nb c.mp4,dog\n", "path,label\na.mp4,ape\nb c.mp4,dog\n",
                                  "a.mp4\tape\nb c.mp4\tdog\n", "a.mp4, 0\nb c.mp4, 2\n"])  # fmt: skip
def test_a_list_is_tested_as_a_list_by_the_classes_of_the_weights(tmp_path: Path, text: str) -> None:
    (tmp_path / "test.csv").write_text(text)
    prepared = prepare(str(tmp_path / "test.csv"), tmp_path / "out", OWN, ListFlags())
    assert _list(prepared) == "a.mp4,0\nb c.mp4,2\n"
    assert Path(prepared.folder, "labels.txt").read_text() == "ape\ncat\ndog\n"
    assert (prepared.flags, prepared.videos) == ({"split": ",", "data_set": "Kinetics_sparse"}, 2)


def test_a_sample_of_a_list_with_names_is_of_all_its_lines(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("".join(f"{i}.mp4;cat\n" for i in range(9)))
    prepared = prepare(str(tmp_path / "mine.csv"), tmp_path / "out", OWN, ListFlags(sample=4))
    assert (len(_list(prepared).splitlines()), prepared.lines) == (4, 9)
    assert {line[-2:] for line in _list(prepared).splitlines()} == {",1"}


def test_several_names_a_video_are_several_numbers(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("a.mp4,dog|ape\nb.mp4,\n")
    stated = Stated({**OWN.flags, "data_set": "video_list", "multi_label": "True"}, NAMES)
    assert _list(prepare(str(tmp_path), tmp_path / "out", stated, ListFlags())) == "a.mp4,0|2\nb.mp4,\n"


def test_names_of_a_list_are_numbered_for_weights_of_any_data_set(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("a.mp4,dog\n")
    prepared = prepare(
        str(tmp_path), tmp_path / "out", Stated({"data_set": "SSV2", "nb_classes": "3"}, NAMES), ListFlags()
    )
    assert (_list(prepared), prepared.flags) == ("a.mp4,2\n", {"split": ","})


def test_a_class_that_the_weights_lack_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("a.mp4,dog\nb.mp4,dogs\n")
    with pytest.raises(AnnotationError, match=r"test\.csv:2: label 'dogs' is none of the 3 .* Did you mean dog"):
        prepare(str(tmp_path), tmp_path / "out", OWN, ListFlags())


@given(separator=st.sampled_from(list(SEPARATORS)), stated=st.sampled_from(list(SEPARATORS)))
def test_the_separator_of_a_numbered_list_is_found(
    tmp_path_factory: pytest.TempPathFactory, separator: str, stated: str
) -> None:
    folder = tmp_path_factory.mktemp("lists")
    (folder / "test.csv").write_text(f"a b.mp4{separator}3\nc.mp4{separator}0\n")
    prepared = prepare(str(folder), folder / "out", Stated({"data_set": "Kinetics", "split": stated}), ListFlags())
    assert (prepared.folder, prepared.flags) == (str(folder), {"split": separator})


def test_videos_next_to_their_list_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    (tmp_path / "test.csv").write_text("a.mp4,1\n")
    prepared = prepare(str(tmp_path), tmp_path / "out", Stated({"data_set": "Kinetics"}), ListFlags())
    assert prepared.flags["prefix"] == str(tmp_path)
    assert "prefix" not in prepare(str(tmp_path), tmp_path / "out", Stated(), ListFlags(prefix="/videos")).flags


def _classes(top: Path, *names: str, each: int = 20) -> Path:
    for name in names:
        (top / name).mkdir(parents=True)
        for i in range(each):
            (top / name / f"{i}.mp4").touch()
    return top


def test_a_folder_of_class_folders_is_tested_whole_by_the_classes_of_the_weights(tmp_path: Path) -> None:
    videos = _classes(tmp_path / "mine", "cat", "dog")
    for _ in range(2):  # also over what an earlier test left
        prepared = prepare(str(videos), tmp_path / "out", OWN, ListFlags())
    read = read_folders(prepared.folder, "test", num_classes=3)
    assert (len(read), read.class_names, prepared.flags["data_set"]) == (40, list(NAMES), "image_folder")


def test_the_folder_of_the_training_is_tested_as_the_run_was(tmp_path: Path) -> None:
    videos = _classes(tmp_path / "mine", *NAMES)
    assert prepare(str(videos), tmp_path, Stated(OWN.flags, NAMES, str(videos)), ListFlags()).folder == str(videos)
    parted = tmp_path / "parted"
    _classes(parted / "train", *NAMES)
    _classes(parted / "test", *NAMES)
    assert prepare(str(parted), tmp_path, OWN, ListFlags()).folder == str(parted)


def test_own_lists_without_a_test_list_are_tested_as_their_run_was(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("a.mp4,dog\nb.mp4,dog\n")
    stated = Stated({**OWN.flags, "data_set": "video_list"}, NAMES, str(tmp_path))
    assert prepare(str(tmp_path), tmp_path / "out", stated, ListFlags()) == Prepared(str(tmp_path), None, {})
    with pytest.raises(ConfigError, match=r"LIST \(.*\) holds no test\.csv"):  # a tenth of other lists tells nothing
        prepare(str(tmp_path), tmp_path / "out", Stated(stated.flags, NAMES), ListFlags())
    (tmp_path / "val.csv").write_text("c.mp4,cat\n")
    assert _list(prepare(str(tmp_path), tmp_path / "out", stated, ListFlags())) == "c.mp4,1\n"


@pytest.mark.parametrize(
    ("stated", "flags", "sentence"),
    [
        (Stated({"data_set": "Kinetics_sparse"}), ListFlags(), r"LIST \(.*\) holds no test\.csv"),
        (OWN, ListFlags(sample=3), "--sample takes lines of a csv list, and LIST .* is a folder of classes"),
        (Stated(OWN.flags, ("ape", "cat")), ListFlags(), "1 folders that are not classes of the weights, first 'dog'"),
    ],
)
def test_class_folders_that_cannot_be_tested_are_a_sentence(
    tmp_path: Path, stated: Stated, flags: ListFlags, sentence: str
) -> None:
    videos = _classes(tmp_path / "mine", *NAMES, each=1)
    with pytest.raises(ConfigError, match=sentence):
        prepare(str(videos), tmp_path / "out", stated, flags)
