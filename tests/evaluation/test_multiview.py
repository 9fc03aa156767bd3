"""Merging views: the mean over views of each view's softmax, in float64."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umt.evaluation import multiview
from umt.evaluation.metrics import label_rank
from umt.evaluation.multiview import merge, rank_views, softmax, spread


def logits(videos: int = 5, clips: int = 4, crops: int = 3, classes: int = 7) -> np.ndarray:
    return (3 * np.random.default_rng(0).standard_normal((videos, clips, crops, classes))).astype(np.float32)


def test_merging_is_the_mean_of_softmaxes_not_the_softmax_of_a_mean() -> None:
    views = np.log(np.array([[[[0.9, 0.1]], [[0.9, 0.1]], [[1e-6, 1 - 1e-6]]]]))
    np.testing.assert_allclose(merge(views), [[0.6, 0.4]], atol=1e-5)
    assert views.mean(axis=(1, 2)).argmax() == 1


def test_merging_is_done_in_float64() -> None:
    views = logits()
    exact = np.exp(views.astype(np.float64))
    exact /= exact.sum(-1, keepdims=True)
    merged = merge(views)
    assert merged.dtype == np.float64
    np.testing.assert_allclose(merged, exact.mean((1, 2)), rtol=1e-14)


def test_large_logits_do_not_overflow() -> None:
    assert softmax(np.array([1e4, 0.0], np.float32)).tolist() == [1.0, 0.0]


def test_merging_in_chunks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    views, label = logits(), np.arange(5)
    whole, whole_ranks = merge(views), rank_views(views, label)
    monkeypatch.setattr(multiview, "CHUNK_BYTES", 1)
    assert (merge(views) == whole).all()
    assert (rank_views(views, label).grid == whole_ranks.grid).all()


def test_the_last_cell_of_the_grid_is_the_merged_result() -> None:
    label = np.arange(5)
    ranks = rank_views(logits(), label)
    assert (ranks.grid[-1, -1] == ranks.merged).all()
    assert (ranks.merged == label_rank(merge(logits()), label)).all()


def test_a_cell_of_the_grid_merges_that_many_clips_and_crops() -> None:
    views, label = logits(), np.arange(5)
    ranks = rank_views(views, label)
    fewer = views[:, [1, 3]][:, :, [1]]
    assert (ranks.grid[1, 0] == label_rank(merge(fewer), label)).all()


def test_a_clip_merges_its_crops_only() -> None:
    views, label = logits(), np.arange(5)
    assert (rank_views(views, label).clip[:, 2] == label_rank(merge(views[:, 2:3]), label)).all()


@given(st.integers(1, 12), st.data())
def test_fewer_views_are_spread_evenly_without_repeats(available: int, data: st.DataObject) -> None:
    wanted = data.draw(st.integers(1, available))
    chosen = spread(available, wanted).tolist()
    assert sorted(set(chosen)) == chosen
    assert set(chosen) <= set(range(available))


def test_one_of_three_crops_is_the_centre_and_two_are_the_ends() -> None:
    assert (spread(3, 1).tolist(), spread(3, 2).tolist()) == ([1], [0, 2])
