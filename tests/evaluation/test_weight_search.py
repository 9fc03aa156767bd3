"""The search for weights: exact on grids, never worse than equal weights, the same by the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umt.errors import ScoresError
from umt.evaluation.fusing import MODES, ONE_CLASS, Mode
from umt.evaluation.weight_search import Objective, fit_temperature, folds, search, simplex, stratified

K = 6
few = settings(max_examples=12, deadline=None)
modes, objectives = st.sampled_from(MODES), st.sampled_from(["top1", "cross_entropy"])


def noisy(members: int, videos: int = 60, seed: int = 0) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Logits of members that each see the truth through noise of their own; labels; what was read."""
    random = np.random.default_rng(seed)
    labels = random.integers(K, size=videos)
    logits = [
        (1.5 * np.eye(K)[labels] + (0.5 + m) * random.standard_normal((videos, K)))[:, None] for m in range(members)
    ]
    return logits, labels, np.ones((members, videos), bool)


def judged(
    parts: list[np.ndarray], labels: np.ndarray, read: np.ndarray, weights: np.ndarray, mode: Mode
) -> tuple[float, float]:
    """(top-1, cross-entropy) by fusing, which the search does not."""
    result = ONE_CLASS.outcome(*ONE_CLASS.fuse(parts, weights, mode, read), labels)
    return result.accuracy.top1, result.cross_entropy


@few
@given(mode=modes, objective=objectives, members=st.sampled_from([2, 3]), seed=st.integers(0, 99))
def test_on_a_grid_nothing_is_better(mode: Mode, objective: Objective, members: int, seed: int) -> None:
    logits, labels, read = noisy(members, 40, seed)
    read[0, :3] = False
    parts = [ONE_CLASS.values(one, mode) for one in logits]
    fitted = search(parts, labels, read, mode=mode, objective=objective, step=0.1)
    all_of_it = [judged(parts, labels, read, w, mode) for w in simplex(members, 10)]
    if objective == "top1":
        assert fitted.top1 >= max(top1 for top1, _ in all_of_it)
    else:
        assert fitted.cross_entropy <= min(entropy for _, entropy in all_of_it) + 1e-9


@few
@given(mode=modes, members=st.integers(1, 5), seed=st.integers(0, 99))
def test_what_is_found_is_what_fusing_with_it_gives(mode: Mode, members: int, seed: int) -> None:
    logits, labels, read = noisy(members, 30, seed)
    read[0, 0] = False
    parts = [ONE_CLASS.values(one, mode) for one in logits]
    fitted = search(parts, labels, read, mode=mode, step=0.2)
    assert (fitted.top1, fitted.cross_entropy) == pytest.approx(judged(parts, labels, read, fitted.weights, mode))
    assert fitted.weights.sum() == pytest.approx(1)


@few
@given(mode=modes, objective=objectives, seed=st.integers(0, 99))
def test_many_members_are_no_worse_than_equal_weights_or_any_alone(mode: Mode, objective: Objective, seed: int) -> None:
    logits, labels, read = noisy(5, 40, seed)
    parts = [ONE_CLASS.values(one, mode) for one in logits]
    fitted = search(parts, labels, read, mode=mode, objective=objective, step=0.2)
    rivals = [judged(parts, labels, read, w, mode) for w in [np.full(5, 0.2), *np.eye(5)]]
    if objective == "top1":
        assert fitted.top1 >= max(top1 for top1, _ in rivals)
    else:
        assert fitted.cross_entropy <= min(entropy for _, entropy in rivals) + 1e-9


@pytest.mark.parametrize("mode", MODES)
def test_the_ascent_finds_the_optimum_of_the_cross_entropy(mode: Mode) -> None:
    logits, labels, read = noisy(4, 80, 5)
    parts = [ONE_CLASS.values(one, mode) for one in logits]
    fitted = search(parts, labels, read, mode=mode, objective="cross_entropy", step=0.05)
    best = min(judged(parts, labels, read, w, mode)[1] for w in simplex(4, 20))
    assert fitted.cross_entropy <= best + 1e-4


def test_a_member_that_knows_nothing_gets_little_weight() -> None:
    logits, labels, read = noisy(3, 400)
    logits[2] = 3 * np.random.default_rng(9).standard_normal(logits[2].shape)
    for objective in ("top1", "cross_entropy"):
        parts = [ONE_CLASS.values(one, "mean") for one in logits]
        assert search(parts, labels, read, mode="mean", objective=objective).weights[2] <= 0.1  # type: ignore[arg-type]


def test_among_equals_the_weights_are_even() -> None:
    logits, labels, read = noisy(3)
    parts = [ONE_CLASS.values(logits[0], "mean")] * 3
    np.testing.assert_allclose(search(parts, labels, read, mode="mean").weights, 1 / 3)


def test_the_same_seed_finds_the_same_weights() -> None:
    logits, labels, read = noisy(4)
    parts = [ONE_CLASS.values(one, "mean") for one in logits]
    one, two = (search(parts, labels, read, mode="mean", seed=3, step=0.2) for _ in range(2))
    np.testing.assert_array_equal(one.weights, two.weights)


def test_videos_without_labels_are_no_ground_for_a_search() -> None:
    logits, labels, read = noisy(2)
    with pytest.raises(ScoresError, match=r"a search for weights needs labels, and \d+ of \d+ videos have one"):
        search([ONE_CLASS.values(one, "mean") for one in logits], labels - 1, read, mode="mean")


@pytest.mark.parametrize(("members", "parts", "points"), [(1, 7, 1), (2, 100, 101), (3, 20, 231)])
def test_the_grid_is_the_whole_simplex(members: int, parts: int, points: int) -> None:
    grid = simplex(members, parts)
    assert len(np.unique(grid, axis=0)) == len(grid) == points
    np.testing.assert_allclose(grid.sum(axis=1), 1)


def test_a_temperature_undoes_one() -> None:
    logits, labels, _ = noisy(1, 2000)
    random = np.random.default_rng(0)
    honest = np.log(ONE_CLASS.values(logits[0], "mean"))[:, None]
    drawn = (honest[:, 0] + random.gumbel(size=(2000, K))).argmax(axis=1)  # labels by those very probabilities
    assert fit_temperature(honest, drawn, "mean") == pytest.approx(1, abs=0.1)
    assert fit_temperature(3 * honest, drawn, "mean") == pytest.approx(3, abs=0.3)
    assert labels.shape == drawn.shape


@few
@given(share=st.floats(0.1, 0.9), classes=st.integers(1, 9), seed=st.integers(0, 99))
def test_a_fraction_is_that_of_every_class(share: float, classes: int, seed: int) -> None:
    labels = np.random.default_rng(seed).integers(classes, size=300)
    chosen = stratified(labels, share, seed=seed)
    for label in range(classes):
        assert abs(chosen[labels == label].sum() - share * (labels == label).sum()) <= 1


def test_a_fraction_of_classes_with_one_video_each_takes_some() -> None:
    assert stratified(np.arange(400), 0.5).sum() == pytest.approx(200, abs=40)


@few
@given(number=st.integers(2, 7), seed=st.integers(0, 99))
def test_folds_share_every_class(number: int, seed: int) -> None:
    labels = np.random.default_rng(seed).integers(4, size=200)
    fold = folds(labels, number, seed=seed)
    for label in range(4):
        counts = np.bincount(fold[labels == label], minlength=number)
        assert counts.max() - counts.min() <= 1
