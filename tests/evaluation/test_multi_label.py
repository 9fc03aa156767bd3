"""Average precision and F1 by their definitions, and by scikit-learn where it is there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from umt.errors import ScoresError
from umt.evaluation.multi_label import (
    MultiLabelScores,
    average_precision,
    class_f1,
    merge_sigmoids,
    sigmoid,
    summarise_multi_label,
)
from umt.evaluation.scores import ViewScores
from umt.evaluation.summary import summarise

# Few values, so that there are ties.
scores_of = arrays.arrays(np.float64, 12, elements=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]))
truths = arrays.arrays(np.bool_, 12)
some = settings(max_examples=60)


def by_definition(score: np.ndarray, truth: np.ndarray) -> float:
    """Sum over thresholds, from the highest, of precision times the recall that it adds."""
    total, recall = 0.0, 0.0
    for threshold in sorted(set(score), reverse=True):
        said = score >= threshold
        precision, now = truth[said].mean(), truth[said].sum() / truth.sum()
        total, recall = total + precision * (now - recall), now
    return total


@some
@given(scores_of, truths)
def test_average_precision_is_what_its_definition_says(score: np.ndarray, truth: np.ndarray) -> None:
    if not truth.any():
        assert np.isnan(average_precision(score, truth))
        return
    assert average_precision(score, truth) == pytest.approx(by_definition(score, truth))


@pytest.mark.slow
def test_average_precision_and_f1_equal_scikit_learn() -> None:
    from sklearn import metrics

    rng = np.random.default_rng(0)
    truth = rng.random((40, 6)) < 0.3
    probability = np.round(rng.random((40, 6)) * 0.7 + 0.3 * truth, 1)
    ours = MultiLabelScores.of(probability, truth)
    said = probability >= 0.5
    assert ours.map == pytest.approx(100 * metrics.average_precision_score(truth, probability, average="macro"))
    assert ours.f1_micro == pytest.approx(100 * metrics.f1_score(truth, said, average="micro"))
    assert ours.f1_macro == pytest.approx(100 * metrics.f1_score(truth, said, average="macro"))
    assert class_f1(said, truth).tolist() == pytest.approx(metrics.f1_score(truth, said, average=None).tolist())
    assert ours.exact == pytest.approx(100 * metrics.accuracy_score(truth, said))


def test_a_perfect_order_has_all_the_precision_and_a_constant_one_the_share_of_the_class() -> None:
    truth = np.array([1, 1, 0, 0, 0], bool)
    assert average_precision(np.array([5.0, 4, 3, 2, 1]), truth) == 1.0
    assert average_precision(np.zeros(5), truth) == pytest.approx(0.4)


def test_a_class_that_no_video_has_counts_in_no_mean() -> None:
    truth = np.array([[1, 0], [0, 0]], bool)
    found = MultiLabelScores.of(np.array([[0.9, 0.9], [0.1, 0.1]]), truth)
    assert (found.map, found.f1_macro) == (100.0, 100.0)
    assert found.f1_micro == pytest.approx(100 * 2 / 3)


@pytest.mark.filterwarnings("error")
def test_a_sigmoid_of_anything_finite_is_a_probability() -> None:
    assert sigmoid(np.array([-1e30, 0.0, 1e30], np.float32)).tolist() == [0.0, 0.5, 1.0]


def test_views_are_merged_by_the_mean_of_their_sigmoids() -> None:
    logits = np.random.default_rng(0).standard_normal((2, 3, 2, 4)).astype(np.float32)
    expected = (1 / (1 + np.exp(-logits.astype(np.float64)))).mean(axis=(1, 2))
    assert np.allclose(merge_sigmoids(logits), expected, rtol=1e-12)


def full(**changes: object) -> ViewScores:
    labels = np.array([[1, 0, 1], [0, 1, 0], [0, 0, 0]])
    made = ViewScores(
        **{
            "rows": range(3), "labels": labels, "paths": ["a", "b", "c"], "clips": 2, "crops": 1, "classes": 3,
            "class_names": ["run", "jump", "swim"], **changes,
        }
    )  # fmt: skip
    for row in range(3):
        made.add_video(row, (8.0 * labels[row] - 4)[None, None].repeat(2, 0).astype(np.float32))
    return made


def test_a_summary_follows_from_the_scores_alone() -> None:
    summary = summarise_multi_label(full())
    assert (summary.merged.map, summary.merged.exact, summary.labels_per_video) == (100.0, 100.0, 1.0)
    assert [(one.name, one.videos, one.average_precision) for one in summary.classes] == [
        ("run", 1, 100.0), ("jump", 1, 100.0), ("swim", 1, 100.0)
    ]  # fmt: skip
    assert summary.metrics() == {"Final mAP": 100.0, "Final F1 micro": 100.0}
    json.dumps(summary.to_json())
    assert "merged" in summary.table()


def test_labels_of_several_classes_come_back_from_the_file(tmp_path: Path) -> None:
    scores = full()
    scores.save(tmp_path / "scores.npz")
    again = ViewScores.load(tmp_path / "scores.npz")
    assert again.multi_label
    assert again.labels.tolist() == scores.labels.tolist()
    assert again.fingerprint() == scores.fingerprint()
    with np.load(tmp_path / "scores.npz") as file:
        assert file["label"].shape == (3, 3)


def test_an_unreadable_video_has_no_yes() -> None:
    scores = full()
    scores.count_as_wrong(0, "gone")
    assert summarise_multi_label(scores).merged.exact == pytest.approx(200 / 3)


def test_scores_of_several_labels_have_no_accuracy() -> None:
    with pytest.raises(ScoresError, match="scores of a multi-label list"):
        summarise(full())


def test_labels_must_be_of_as_many_classes_as_the_scores() -> None:
    with pytest.raises(ValueError, match="labels of 3 classes for 4 classes"):
        full(classes=4, class_names=None)
