"""Epochs: which rows, in which order, as a function of (seed, epoch) alone."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umt.data.loading.epoch_order import ByShard, EpochOrder, Mixed, Shuffled, fetched_ahead
from umt.errors import ConfigError
from umt.randomness import generator

SEEDS = st.integers(0, 2**31)
EPOCHS = st.integers(0, 900)


@st.composite
def by_shard(draw: st.DrawFn) -> ByShard:
    shard = draw(st.lists(st.integers(0, 9), min_size=1, max_size=60))
    return ByShard(np.array(shard, dtype=np.int32), draw(st.integers(1, 12)))


@st.composite
def mixed(draw: st.DrawFn) -> Mixed:
    parts: list[EpochOrder] = draw(
        st.lists(st.one_of(st.integers(5, 40).map(Shuffled), by_shard()), min_size=2, max_size=4)
    )
    weights = draw(st.lists(st.floats(0.5, 4), min_size=len(parts), max_size=len(parts)))
    try:
        return Mixed(tuple(parts), tuple(weights))
    except ConfigError:
        return Mixed(tuple(parts), tuple(float(len(part)) for part in parts))


def test_one_list_is_shuffled_as_ever() -> None:
    assert Shuffled(50).draws(3, 7).tolist() == generator(3, 7, "order").permutation(50).tolist()


@given(by_shard(), SEEDS, EPOCHS)
def test_reading_by_shard_takes_every_row_once(order: ByShard, seed: int, epoch: int) -> None:
    draws = order.draws(seed, epoch)
    assert sorted(draws) == list(range(len(order)))
    assert draws.tolist() == order.draws(seed, epoch).tolist()


@given(by_shard(), SEEDS, EPOCHS)
def test_reading_by_shard_needs_no_more_than_a_window_of_shards_at_once(order: ByShard, seed: int, epoch: int) -> None:
    shards = order.shard[order.draws(seed, epoch)].tolist()
    first = {shard: shards.index(shard) for shard in shards}
    last = {shard: len(shards) - 1 - shards[::-1].index(shard) for shard in shards}
    for place in range(len(shards)):
        assert sum(first[s] <= place <= last[s] for s in first) <= order.window


def test_reading_by_shard_differs_between_epochs_in_shards_and_within_them() -> None:
    order = ByShard(np.repeat(np.arange(20, dtype=np.int32), 30), 4)
    first, second = order.draws(1, 0), order.draws(1, 1)
    assert order.shard[first[:120]].tolist() != order.shard[second[:120]].tolist()
    assert set(order.shard[first[:120]]) != set(order.shard[second[:120]])
    assert len(set(order.shard[first[:20]])) > 1  # the shards of a window are mixed


@given(mixed(), SEEDS, EPOCHS)
def test_a_mixture_gives_every_list_its_share_and_no_draw_twice(order: Mixed, seed: int, epoch: int) -> None:
    draws = order.draws(seed, epoch)
    assert len(draws) == len(order) == sum(order.quotas())
    assert len(set(draws.tolist())) == len(draws)
    starts = np.cumsum([0, *map(len, order.parts)])
    counts = np.histogram(draws % len(order), starts)[0]
    assert counts.tolist() == order.quotas()
    for quota, weight in zip(order.quotas(), order.weights, strict=True):
        assert abs(quota - len(order) * weight / sum(order.weights)) < 1
    assert draws.tolist() == order.draws(seed, epoch).tolist()


@given(mixed(), SEEDS)
def test_a_mixture_gives_no_row_twice_before_all_of_its_list(order: Mixed, seed: int) -> None:
    starts = np.cumsum([0, *map(len, order.parts)])
    counts = np.zeros(len(order), dtype=int)
    for epoch in range(4):
        np.add.at(counts, order.draws(seed, epoch) % len(order), 1)
        for start, end in itertools.pairwise(starts):
            assert counts[start:end].max() - counts[start:end].min() <= 1


def test_repetitions_are_numbered() -> None:
    order = Mixed((Shuffled(2), Shuffled(10)), (5, 1))
    draws = order.draws(0, 0)
    assert order.quotas() == [10, 2]
    assert sorted(draw for draw in draws.tolist() if draw % 12 < 2) == [
        k * 12 + row for k in range(5) for row in (0, 1)
    ]


def test_weights_like_the_sizes_are_one_pass_over_all() -> None:
    assert sorted(Mixed((Shuffled(7), Shuffled(3)), (7, 3)).draws(0, 5)) == list(range(10))


def test_lists_of_one_size_are_shuffled_apart() -> None:
    draws = Mixed((Shuffled(40), Shuffled(40)), (1, 1)).draws(0, 0)
    assert draws[draws < 40].tolist() != (draws[draws >= 40] - 40).tolist()


def test_a_list_that_would_get_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--data_weights \(1000 1\) leaves list 2 without a video in an epoch of 20"):
        Mixed((Shuffled(10), Shuffled(10)), (1000, 1))
    with pytest.raises(ConfigError, match=r"--data_weights has 1 numbers for 2 lists\."):
        Mixed((Shuffled(10), Shuffled(10)), (1,))


@given(st.one_of(by_shard(), mixed()), SEEDS, st.integers(0, 30))
def test_every_shard_is_fetched_before_its_first_use_and_once(order: ByShard | Mixed, seed: int, start: int) -> None:
    draws = order.draws(seed, 0)[start:]
    fetched = fetched_ahead(order, draws)
    shards = order.shards()
    used = set() if shards is None else {int(s) for s in shards[draws % len(order)] if s >= 0}
    assert sorted(used) == sorted(int(shards[row]) for _, row in fetched) if shards is not None else fetched == []
    assert [place for place, _ in fetched] == sorted(place for place, _ in fetched)
    for place, row in fetched:
        assert place <= [int(s) for s in shards[draws % len(order)]].index(int(shards[row]))  # type: ignore[index]
