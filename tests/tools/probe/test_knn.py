"""Nearest neighbours against brute force, votes against the formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from umt.tools.probe.knn import nearest, vote
from umt.tools.probe.table import Table


@settings(max_examples=25, deadline=None)
@given(queries=st.integers(1, 20), bank=st.integers(1, 40), count=st.integers(1, 50), part=st.integers(1, 45))
def test_the_neighbours_are_those_of_brute_force_however_the_bank_is_parted(
    queries: int, bank: int, count: int, part: int
) -> None:
    rng = np.random.default_rng(queries * 1000 + bank)
    asked, known = (rng.normal(size=(n, 5)).astype(np.float32) for n in (queries, bank))
    similarity, rows = nearest(Table(asked), Table(known), count, part=part)
    units = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (asked, known)]
    cosine = units[0] @ units[1].T
    expected = np.argsort(-cosine, axis=1, kind="stable")[:, :count]
    np.testing.assert_allclose(similarity, np.take_along_axis(cosine, expected, 1), atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(cosine, rows.numpy(), 1), similarity, atol=1e-6)


def test_the_length_of_a_feature_does_not_count() -> None:
    rng = np.random.default_rng(0)
    asked, known = (rng.normal(size=(n, 5)).astype(np.float32) for n in (4, 9))
    lengths = rng.uniform(0.1, 10, size=(9, 1)).astype(np.float32)
    assert torch.equal(
        nearest(Table(asked), Table(known), 3)[1], nearest(Table(asked * 7), Table(known * lengths), 3)[1]
    )


def test_votes_are_weighted_by_the_exponential_of_similarity_over_temperature() -> None:
    similarity = torch.tensor([[0.9, 0.8, 0.5, 0.1]])
    labels = torch.tensor([[2, 0, 2, 1]])
    weights = np.exp(np.array([0.9, 0.8, 0.5]) / 0.07)
    expected = np.array([weights[1], 0, weights[0] + weights[2]]) / weights.sum()
    np.testing.assert_allclose(vote(similarity, labels, 3, 3, 0.07)[0], expected, rtol=1e-5)


@pytest.mark.parametrize("temperature", [1e-4, 100.0])
def test_votes_stay_finite_at_any_temperature(temperature: float) -> None:
    votes = vote(torch.tensor([[1.0, 0.99, -1.0]]), torch.tensor([[0, 1, 1]]), 2, 3, temperature)
    assert votes.sum().item() == pytest.approx(1)
