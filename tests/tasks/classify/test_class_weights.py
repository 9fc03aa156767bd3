"""How much each class counts: formulas, their scale, and files of weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umt.errors import AnnotationError, ConfigError
from umt.tasks.classify.class_weights import class_weights, positive_weights, read_weights

KINDS = ["balanced", "sqrt", "effective"]
counts_of = st.lists(st.integers(1, 5000), min_size=2, max_size=12)


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    # n / (K n_k), its `compute_class_weight("balanced", ...)`.
    assert class_weights("balanced", [10, 30, 60]).tolist() == pytest.approx([100 / 30, 100 / 90, 100 / 180])


def test_the_effective_number_of_a_thousand_videos_is_far_below_it() -> None:
    few, many = class_weights("effective", [10, 1000])
    assert few / many == pytest.approx((1 - 0.999**1000) / (1 - 0.999**10))


@settings(max_examples=40)
@given(st.sampled_from(KINDS), counts_of)
def test_weights_leave_the_mean_over_videos_at_one_and_favour_the_rare(kind: str, counts: list[int]) -> None:
    weights = class_weights(kind, counts)
    assert (weights * counts).sum() == pytest.approx(sum(counts))
    order = np.argsort(counts, kind="stable")
    assert (np.diff(weights[order]) <= 1e-9).all()


@pytest.mark.parametrize("kind", KINDS)
def test_balanced_classes_all_count_one(kind: str) -> None:
    assert class_weights(kind, [7, 7, 7]).tolist() == pytest.approx([1, 1, 1])


def test_a_class_without_videos_has_a_finite_weight() -> None:
    assert np.isfinite(class_weights("balanced", [0, 5])).all()


@pytest.mark.parametrize(("kind", "ratio"), [("balanced", 9.0), ("sqrt", 3.0)])
def test_a_rare_yes_counts_by_the_ratio_of_noes(kind: str, ratio: float) -> None:
    assert positive_weights(kind, [10, 50], 100).tolist() == pytest.approx([ratio, 1.0])


def test_an_unknown_kind_is_a_sentence() -> None:
    with pytest.raises(
        ConfigError, match=r"--class_weights \(cubic\) is neither a file nor one of none, balanced, sqrt"
    ):
        class_weights("cubic", [1, 2])


@pytest.mark.parametrize("text", ["run,2\njump,0.5\n", "1 0.5\n0 2\n", "2\n0.5\n", "jump\t.5\n\nrun\t2\n"])
def test_a_file_names_classes_numbers_them_or_follows_their_order(text: str, tmp_path: Path) -> None:
    (tmp_path / "w.txt").write_text(text)
    assert read_weights(tmp_path / "w.txt", 2, ["run", "jump"]).tolist() == [2, 0.5]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("run,2\n", r"w.txt has weights of 1 of 2 classes"),
        ("run,2\nrun,3\n", r"w.txt:2: class 'run' has a weight already"),
        ("run,2\nswim,3\n", r"w.txt:2: 'swim' is none of the 2 classes"),
        ("run,2\njump,-1\n", r"w.txt:2: `jump,-1` does not end in a weight above 0"),
        ("run,two\n", r"w.txt:1: `run,two` does not end in a weight above 0"),
    ],
)
def test_a_faulty_file_is_said_with_its_line(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "w.txt").write_text(text)
    with pytest.raises(AnnotationError, match=sentence):
        read_weights(tmp_path / "w.txt", 2, ["run", "jump"])
