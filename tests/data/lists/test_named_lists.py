"""Lists of names, of several labels, of a few videos a class, and what is held out of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umt.data.lists.balance import Balance, balance_of
from umt.data.lists.label_sets import LabelSets, joined
from umt.data.lists.reading import ListClasses, read_named, words_form
from umt.data.lists.subsets import few_shots, held_out
from umt.data.lists.video_list import VideoList
from umt.data.loading.clip_batch import collate
from umt.data.loading.clips import Sample
from umt.data.loading.mixing import MixedList
from umt.errors import AnnotationError, ConfigError

CLASSES = ListClasses(("run", "jump", "swim"), 3, "labels.txt")
label_sets = st.lists(st.sets(st.integers(0, 6)), max_size=8)
quick = settings(max_examples=25)


def multi(tmp_path: Path, text: str) -> VideoList:
    (tmp_path / "train.csv").write_text(text)
    return read_named(tmp_path / "train.csv", CLASSES, words_form(",", multi_label=True), multi_label=True)


def test_a_row_of_a_multi_label_list_is_a_yes_or_no_for_each_class(tmp_path: Path) -> None:
    videos = multi(tmp_path, "a.mp4,run|swim\nb.mp4,\nc.mp4,2|2\n")
    assert [videos.target(row).tolist() for row in range(3)] == [[1, 0, 1], [0, 0, 0], [0, 0, 1]]  # type: ignore[union-attr]
    assert videos.labels.tolist() == [0, -1, 2]


def test_several_labels_without_the_flag_are_refused(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("a.mp4,run|swim\n")
    with pytest.raises(AnnotationError, match=r"l.csv:1: 'run\|swim' is several labels. Add --multi_label"):
        read_named(tmp_path / "l.csv", CLASSES, words_form(","))


def test_labels_and_columns_cannot_be_separated_by_the_same_character() -> None:
    with pytest.raises(ConfigError, match=r"--split '\|' separates the labels of one video under --multi_label"):
        words_form("|", multi_label=True)


@quick
@given(label_sets)
def test_label_sets_and_their_matrix_say_the_same(sets: list[set[int]]) -> None:
    packed = LabelSets.of(sets, 7)
    assert [set(np.flatnonzero(row)) for row in packed.matrix()] == sets
    assert packed.counts().tolist() == [sum(k in labels for labels in sets) for k in range(7)]
    assert packed.first().tolist() == [min(labels, default=-1) for labels in sets]


@quick
@given(label_sets, label_sets)
def test_joined_label_sets_are_one_after_the_other(first: list[set[int]], second: list[set[int]]) -> None:
    both = joined([LabelSets.of(first, 7), LabelSets.of(second, 7)])
    assert both.matrix().tolist() == LabelSets.of([*first, *second], 7).matrix().tolist()


def test_rows_that_are_taken_keep_path_label_and_set(tmp_path: Path) -> None:
    videos = multi(tmp_path, "a.mp4,run|swim\nb.mp4,jump\nc.mp4,swim\n").take(np.array([2, 0]))
    assert [videos.path(row) for row in range(2)] == ["c.mp4", "a.mp4"]
    assert videos.sets is not None
    assert videos.sets.matrix().tolist() == [[0, 0, 1], [1, 0, 1]]


def test_mixed_multi_label_lists_keep_their_sets(tmp_path: Path) -> None:
    part = multi(tmp_path, "a.mp4,run|swim\nb.mp4,jump\n")
    assert MixedList([part, part]).target(3).tolist() == [0, 1, 0]  # type: ignore[union-attr]


def test_a_batch_of_a_multi_label_list_has_a_row_of_labels_a_clip() -> None:
    frames = np.zeros((2, 4, 4, 3), np.uint8)
    hot = np.array([1, 0, 1], np.float32)
    batch = collate([Sample(video=frames, label=hot, row=i, path="", seed=0) for i in range(2)], [])
    assert batch.label.tolist() == [[1, 0, 1], [1, 0, 1]]


# ---- holding out, and few shots


@quick
@given(st.lists(st.integers(0, 4), max_size=60))
def test_a_tenth_of_each_class_is_held_out_and_never_all_of_it(labels: list[int]) -> None:
    out = held_out([f"{i}.mp4" for i in range(len(labels))], labels)
    for label in set(labels):
        number, kept = labels.count(label), [held for held, other in zip(out, labels, strict=True) if other == label]
        assert sum(kept) == (0 if number == 1 else -(-number // 10))


def test_what_is_held_out_does_not_depend_on_the_order_of_the_list() -> None:
    paths, labels = [f"{i}.mp4" for i in range(40)], [i % 2 for i in range(40)]
    there = {p for p, held in zip(paths, held_out(paths, labels), strict=True) if held}
    back = held_out(paths[::-1], labels[::-1])
    assert there == {p for p, held in zip(paths[::-1], back, strict=True) if held}


def listed(labels: list[int]) -> VideoList:
    return VideoList("train.csv", [f"{i}.mp4" for i in range(len(labels))], labels)


@quick
@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.integers(1, 6), st.integers(0, 9))
def test_few_shots_are_so_many_of_each_class(labels: list[int], shots: int, seed: int) -> None:
    few = few_shots(listed(labels), shots, seed)
    for label in set(labels):
        assert few.labels.tolist().count(label) == min(shots, labels.count(label))


def test_few_shots_are_drawn_by_the_seed() -> None:
    videos = listed([i % 2 for i in range(40)])
    draws = [[few_shots(videos, 3, seed).path(row) for row in range(6)] for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


def test_few_shots_of_several_labels_give_each_class_enough() -> None:
    videos = listed([0] * 30)
    videos.sets = LabelSets.of([{i % 3, 3} for i in range(30)], 4)
    few = few_shots(videos, 4, 0).sets
    assert few is not None
    assert few.counts().tolist() == [4, 4, 4, 12]


# ---- balance


def test_a_balance_names_the_rarest_and_the_commonest() -> None:
    text = "\n".join(Balance((30, 3, 12), ("run", "jump", "swim"), 45).lines())
    assert "3 classes, 45 training videos; largest to smallest 10 : 1" in text
    assert "smallest     jump 3, swim 12, run 30" in text
    assert "below 5      1 classes: jump" in text
    assert "--class_weights balanced" in text


def test_a_balance_counts_every_label_of_a_video(tmp_path: Path) -> None:
    balance = balance_of(multi(tmp_path, "a.mp4,run|swim\nb.mp4,swim\nc.mp4,\n"), 3)
    assert (balance.counts, balance.videos, balance.multi_label) == ((1, 0, 2), 3, True)
