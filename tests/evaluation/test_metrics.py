"""Ranks, top-k, per-class numbers and the bootstrap interval."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from umt.evaluation.metrics import bootstrap_interval, label_rank, per_class, top_k


@given(
    hnp.arrays(np.float64, (6, 7), elements=st.integers(0, 3).map(float)),
    hnp.arrays(np.int64, 6, elements=st.integers(0, 6)),
)
def test_the_rank_is_the_place_in_a_stable_descending_sort(scores: np.ndarray, label: np.ndarray) -> None:
    order = np.argsort(-scores, axis=1, kind="stable")
    assert label_rank(scores, label).tolist() == [order[i].tolist().index(label[i]) for i in range(6)]


def test_among_equal_scores_the_lower_class_comes_first() -> None:
    assert label_rank(np.zeros((3, 4)), np.array([0, 1, 3])).tolist() == [0, 1, 3]


def test_a_score_that_is_no_number_is_wrong_for_every_k() -> None:
    assert label_rank(np.array([[np.nan, 0.0]]), np.array([0])).tolist() == [2]


def test_top_k_is_the_percent_of_ranks_below_k() -> None:
    rank = np.array([0, 0, 1, 4, 9])
    assert (top_k(rank, 1), top_k(rank, 5)) == (40.0, 80.0)


def test_every_class_has_a_line_also_one_without_videos() -> None:
    lines = per_class(np.array([0, 3, 0]), np.array([0, 0, 2]), classes=3, names=["a", "b", "c"])
    assert [(line.name, line.videos, line.top1, line.top5) for line in (lines[0], lines[2])] == [
        ("a", 2, 50.0, 100.0),
        ("c", 1, 100.0, 100.0),
    ]
    assert (lines[1].videos, lines[1].top1, lines[1].top5) == (0, None, None)


def test_the_interval_is_that_of_resampling_videos() -> None:
    correct = np.arange(200) % 4 != 0
    draws = np.random.default_rng(1).integers(0, 200, (4000, 200))
    resampled = np.quantile(100 * correct[draws].mean(axis=1), [0.025, 0.975])
    assert bootstrap_interval(correct) == pytest.approx(tuple(resampled), abs=0.6)


def test_the_interval_is_the_same_every_time() -> None:
    correct = np.arange(50) % 3 == 0
    assert bootstrap_interval(correct) == bootstrap_interval(correct)


def test_a_perfect_test_has_an_interval_of_one_point() -> None:
    assert bootstrap_interval(np.ones(10, bool)) == (100.0, 100.0)
