"""Which order lists and heads speak, and whether the two may meet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from umt.data import labels
from umt.data.labels.label_order import Order, Settled, of_folders, of_head, of_list, settle
from umt.data.lists.video_list import VideoList
from umt.errors import AnnotationError, CheckpointError, ConfigError

PUBLISHED, ALPHABETICAL = labels.names_of("k400_umt"), labels.names_of("k400")
KINETICS = {"data_set": "Kinetics_sparse", "classes": 400}


def in_folders(names: tuple[str, ...], count: int = 40) -> VideoList:
    """A list `class_name/x.mp4, label`."""
    paths = [f"videos/{name.replace(' ', '_')}/x.mp4" for name in names[:count]]
    return VideoList("train.csv", paths, list(range(count)))


@pytest.fixture
def prepared(tmp_path: Path) -> str:
    """A folder whose labels.txt says the published order."""
    (tmp_path / "labels.txt").write_text(labels.text_of(PUBLISHED))
    return str(tmp_path)


# ---- lists


def test_labels_txt_says_the_order_of_a_list(prepared: str) -> None:
    order = of_list(prepared, **KINETICS)
    assert order.names == PUBLISHED
    assert str(order) == f"Kinetics-400 in the published UMT order, by {prepared}/labels.txt"


def test_a_list_without_labels_txt_says_nothing_unless_a_flag_does(tmp_path: Path) -> None:
    assert of_list(str(tmp_path), **KINETICS).names is None
    assert of_list(str(tmp_path), **KINETICS, flag="alphabetical").names == ALPHABETICAL


def test_labels_txt_of_another_number_of_classes_is_refused(prepared: str) -> None:
    with pytest.raises(AnnotationError, match=r"labels.txt names 400 classes, --nb_classes is 710. Try"):
        of_list(prepared, data_set="Kinetics_sparse", classes=710)


def test_a_flag_that_contradicts_labels_txt_is_refused(prepared: str) -> None:
    with pytest.raises(ConfigError, match=r"--label_order alphabetical contradicts Kinetics-400 in the published UMT"):
        of_list(prepared, **KINETICS, flag="alphabetical")


def test_a_flag_is_for_kinetics_400_alone() -> None:
    with pytest.raises(ConfigError, match=r"--label_order alphabetical is for Kinetics-400.*--data_set SSV2 with 174"):
        of_list("", data_set="SSV2", classes=174, flag="alphabetical")


def test_data_sets_of_one_order_need_no_label_file() -> None:
    assert of_list("", data_set="SSV2", classes=174).names == labels.names_of("ssv2")


K600, K700 = labels.names_of("k600"), labels.names_of("k700")


@pytest.mark.parametrize("names", [PUBLISHED, ALPHABETICAL, K600, K700, tuple(sorted(K600)), tuple(sorted(K700))])
def test_class_folders_in_the_paths_tell_the_order(names: tuple[str, ...], tmp_path: Path) -> None:
    videos = in_folders(names)
    assert of_folders(videos, len(names)) == names
    assert of_list(str(tmp_path), data_set="Kinetics_sparse", classes=len(names), videos=videos).names == names


def test_folders_that_are_no_classes_tell_nothing() -> None:
    assert of_folders(VideoList("l", [f"part_{i}/x.mp4" for i in range(40)], list(range(40))), 400) is None


def test_few_or_contradicting_folders_tell_nothing() -> None:
    assert of_folders(in_folders(PUBLISHED, 4), 400) is None
    assert of_folders(in_folders(PUBLISHED[::-1]), 400) is None


def test_class_folders_against_labels_txt_are_refused(prepared: str) -> None:
    with pytest.raises(AnnotationError, match=r"in alphabetical order, by the class folders in train.csv, contradicts"):
        of_list(prepared, **KINETICS, videos=in_folders(ALPHABETICAL))


# ---- heads


def test_names_in_a_checkpoint_win_over_the_number_of_classes() -> None:
    assert of_head("w.pth", 400, list(ALPHABETICAL), data_set="Kinetics").names == ALPHABETICAL


@pytest.mark.parametrize(("rows", "order"), [(400, "k400_umt"), (600, "k600"), (700, "k700"), (710, "k710")])
def test_weights_without_names_are_taken_for_published_ones(rows: int, order: str) -> None:
    assert of_head("w.pth", rows, None, data_set="Kinetics_sparse").names == labels.names_of(order)


def test_a_flag_says_the_order_of_weights_without_names() -> None:
    assert of_head("w.pth", 400, None, data_set="Kinetics_sparse", flag="alphabetical").names == ALPHABETICAL


def test_of_other_numbers_of_classes_nothing_is_assumed() -> None:
    assert of_head("w.pth", 4, None, data_set="Kinetics_sparse").names is None


@pytest.mark.parametrize("rows", [400, 710])
def test_of_weights_that_are_not_the_original_s_nothing_is_assumed(rows: int) -> None:
    assert of_head("w.pth", rows, None, data_set="Kinetics", may_be_published=False).names is None
    order = of_head("w.pth", rows, None, data_set="Kinetics", flag="umt", may_be_published=False)
    assert order.names == labels.names_of({400: "k400_umt", 710: "k710"}[rows])
    assert not order.assumed


# ---- both


def test_a_head_that_nothing_tells_of_follows_the_lists_and_it_is_said() -> None:
    settled = meet(Order(ALPHABETICAL, "labels.txt"), Order(None), 400, 400)
    assert (settled.names, settled.head_rows) == (ALPHABETICAL, None)
    assert settled.warning == (
        "It is not known in which order the head of w.pth numbers its 400 classes: it is assumed to be that of the "
        "lists (Kinetics-400 in alphabetical order, by labels.txt)."
    )


def test_a_710_class_head_that_nothing_tells_of_gives_no_rows() -> None:
    assert meet(Order(ALPHABETICAL, "labels.txt"), Order(None), 710, 400).head_rows is None


def meet(listed: Order, head: Order, rows: int, classes: int, **how: Any) -> Settled:
    how = {"data_set": "Kinetics_sparse", "test": False, **how}
    return settle("w.pth", listed, head, rows=rows, classes=classes, **how)


def test_a_published_head_and_an_alphabetical_list_are_refused_with_the_remedy() -> None:
    head = of_head("w.pth", 400, None, data_set="Kinetics_sparse")
    with pytest.raises(CheckpointError) as refused:
        meet(Order(ALPHABETICAL, "lists/labels.txt"), head, 400, 400)
    message = str(refused.value)
    assert "class 0 is 'abseiling' in the lists" in message
    assert "'riding a bike' in the head" in message
    assert "umt data prepare k400 --label_order umt, or give --head_label_order alphabetical if that" in message
    assert message.endswith(", or --delete_head for a new head.")


def test_what_is_only_tested_gets_no_new_head_for_a_remedy() -> None:
    with pytest.raises(CheckpointError, match=r"Give lists in the order of the weights\.$"):
        meet(Order(("a", "b"), "one"), Order(("b", "a"), "other"), 2, 2, test=True, may_take_rows=False)


def test_a_head_that_says_its_classes_is_put_in_the_lists_order() -> None:
    settled = meet(Order(("Yoga", "dancing ballet", "b"), "l"), Order(("b", "yoga", "dancing_ballet"), "h"), 3, 3)
    assert settled.head_rows == [1, 2, 0]
    assert settled.note == (
        "The head of w.pth numbers its 3 classes differently from the lists: its rows are put in their order, by name."
    )


def test_every_alphabetical_class_of_kinetics_400_finds_its_published_row() -> None:
    settled = meet(Order(ALPHABETICAL, "l"), of_head("w.pth", 400, list(PUBLISHED), data_set="Kinetics"), 400, 400)
    assert settled.head_rows == labels.k710_index()["k400"]


def test_lists_of_a_few_of_the_head_s_classes_take_their_rows() -> None:
    few = ("zumba", "abseiling", "yoga", "petting animal (not cat)", "archery")
    settled = meet(Order(few, "l"), Order(PUBLISHED, "h"), 400, 5, data_set="image_folder")
    assert settled.names == few
    assert [PUBLISHED[row] for row in settled.head_rows or ()] == list(few)
    assert "has 400 classes, of which the lists have 5" in settled.note


@pytest.mark.parametrize("test", [False, True])
def test_classes_that_the_head_has_not_are_named(test: bool) -> None:
    lists = Order(("yoga", "sawing ice", "zumba", "knitting fog"), "l")
    with pytest.raises(CheckpointError) as refused:
        meet(lists, Order(PUBLISHED, "h"), 400, 4, data_set="image_folder", test=test)
    message = str(refused.value)
    assert "The head of w.pth has no class 'sawing ice', 'knitting fog', of the 4 that the lists have" in message
    assert message.endswith("Test on lists of its classes." if test else "Give --delete_head for a new head.")


def test_an_order_that_is_only_assumed_is_not_reordered() -> None:
    head = of_head("w.pth", 400, None, data_set="Kinetics_sparse")
    with pytest.raises(CheckpointError, match=r"The labels of the lists contradict the head of w.pth"):
        meet(Order(ALPHABETICAL, "l"), head, 400, 400)


def test_a_class_is_served_once() -> None:
    assert labels.rows_by_name(["a b", "A_B", "c"], ["c", "ab"]) == [1, None, 0]
    assert labels.rows_by_name(["a b", "ab"], ["ab", "a b"]) == [1, 0]
    assert labels.rows_by_name(["A B"], ["ab", "a b"]) == [None]  # both would do


def test_the_same_order_meets_and_names_the_classes() -> None:
    assert meet(Order(PUBLISHED, "l"), Order(PUBLISHED, "h"), 400, 400) == Settled(PUBLISHED)


def test_a_silent_list_follows_the_head_and_it_is_said() -> None:
    settled = meet(Order(None), Order(PUBLISHED, "h"), 400, 400)
    assert settled.names == PUBLISHED
    assert "--label_order" in settled.warning


@pytest.mark.parametrize(
    ("names", "order"), [(PUBLISHED, "k400_umt"), (ALPHABETICAL, "k400"), (labels.names_of("k700"), "k700")]
)
def test_a_710_class_head_serves_a_list_in_its_own_order(names: tuple[str, ...], order: str) -> None:
    settled = meet(Order(names, "l"), Order(labels.names_of("k710"), "h"), 710, len(names))
    assert settled.head_rows == labels.k710_index()[order]
    numbers = labels.numbers(order)
    assert all(
        numbers[labels.plain(labels.names_of("k710")[row])] == label for label, row in enumerate(settled.head_rows)
    )


def test_a_710_class_head_serves_no_400_classes_of_ones_own() -> None:
    names = tuple(f"class {i}" for i in range(400))
    assert meet(Order(names, "l"), Order(labels.names_of("k710"), "h"), 710, 400).head_rows is None
