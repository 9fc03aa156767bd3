"""Intervals of gains: paired over videos, for accuracy and for mAP."""

from __future__ import annotations

import numpy as np
import pytest

from umt.evaluation.multi_label import MultiLabelScores
from umt.evaluation.paired_bootstrap import accuracy_gain, drawn_precision, interval


def test_the_gain_of_the_same_answers_is_none() -> None:
    right = np.arange(100) % 3 == 0
    assert accuracy_gain(right, right) == (0, 0)


def test_the_paired_interval_is_narrower_than_that_of_two_samples() -> None:
    random = np.random.default_rng(0)
    one = random.random(2000) < 0.7
    two = one.copy()
    two[:40] = True
    low, high = accuracy_gain(two, one)
    alone = np.quantile(
        random.binomial(2000, two.mean(), 10_000) - random.binomial(2000, one.mean(), 10_000), [0.025, 0.975]
    )
    assert 0 < low < 100 * (two.mean() - one.mean()) < high
    assert high - low < (alone[1] - alone[0]) / 20 / 3


def test_the_paired_interval_is_that_of_resampled_videos() -> None:
    random = np.random.default_rng(1)
    one, two = random.random(400) < 0.6, random.random(400) < 0.7
    rows = random.integers(400, size=(10_000, 400))
    drawn = 100 * (two[rows].mean(1) - one[rows].mean(1))
    np.testing.assert_allclose(accuracy_gain(two, one), np.quantile(drawn, [0.025, 0.975]), atol=0.3)


def problem(videos: int, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Scores, some of them equal, and labels that they know something of."""
    random = np.random.default_rng(videos)
    truth = random.random((videos, classes)) < 0.3
    return np.round(truth + random.standard_normal(truth.shape), 1), truth


def test_a_drawn_precision_is_that_of_the_drawn_videos() -> None:
    score, truth = problem(30)
    random = np.random.Generator(np.random.PCG64(3))
    draws = [random.integers(30, size=30) for _ in range(5)]
    expected = [MultiLabelScores.of(score[rows], truth[rows]).map for rows in draws]
    assert drawn_precision(score, truth, samples=5, seed=3) == pytest.approx(expected)


def test_the_paired_interval_of_map_is_narrower_than_that_of_two_samples() -> None:
    score, truth = problem(200)
    better = score + 0.05 * truth
    ours, theirs = (drawn_precision(s, truth, samples=200) for s in (better, score))
    other = drawn_precision(score, truth, samples=200, seed=1)
    low, high = interval(ours - theirs)
    assert 0 < low < high
    assert high - low < np.ptp(interval(ours - other)) / 3


def test_map_without_any_label_has_no_interval() -> None:
    score, truth = problem(5)
    assert np.isnan(interval(drawn_precision(score, np.zeros_like(truth), samples=3))).all()
