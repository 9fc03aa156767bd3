"""The rules for data of one's own: a table of what they give, and laws that hold for any size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umt.optim.schedule import scaled_lr
from umt.tasks.classify import small_data
from umt.tasks.classify.small_data import Task

videos = st.integers(1, 2_000_000)


@pytest.mark.parametrize(
    ("n", "epochs", "per_step", "layer_decay", "drop_path"),
    [
        (20, 100, 2, 0.70, 0.2),
        (100, 100, 8, 0.70, 0.2),
        (300, 94, 32, 0.70, 0.2),
        (1_000, 63, 64, 0.70, 0.2),
        (3_570, 41, 64, 0.70, 0.2),  # HMDB51
        (9_537, 30, 64, 0.70, 0.2),  # UCF101
        (168_913, 11, 64, 0.75, 0.1),  # SSv2
        (246_535, 10, 64, 0.75, 0.1),  # Kinetics-400
    ],
)
def test_the_table_of_the_documentation(
    n: int, epochs: int, per_step: int, layer_decay: float, drop_path: float
) -> None:
    task = Task(n, 10)
    assert small_data.epochs(task) == epochs
    assert small_data.videos_per_step(n) == per_step
    assert small_data.layer_decay(task) == layer_decay
    assert small_data.drop_path(task) == drop_path


@pytest.mark.parametrize(
    ("task", "clips", "rate"),
    [
        (Task(168_913, 174), 512, 4.2e-4),  # the published SSv2 recipe has 4e-4
        (Task(300, 10), 8, 5.3e-5),  # transformers' guide has 5e-5
        (Task(9_537, 101), 256, 3e-4),
        (Task(9_537, 101, depth=24), 256, 1.5e-4),
        (Task(320, 16, depth=4), 8, 1.4e-3),  # the quickstart has 2e-3
        (Task(9_537, 101, random=True), 256, 5e-4),
    ],
)
def test_the_rate_of_a_step_lies_near_published_ones(task: Task, clips: int, rate: float) -> None:
    assert scaled_lr(small_data.lr(task, clips), clips) == pytest.approx(rate, rel=0.02)


@given(videos, videos)
def test_more_data_never_means_more_epochs_or_smaller_steps(one: int, other: int) -> None:
    less, more = sorted((one, other))
    assert small_data.epochs(Task(less, 2)) >= small_data.epochs(Task(more, 2))
    assert small_data.videos_per_step(less) <= small_data.videos_per_step(more)
    assert small_data.layer_decay(Task(less, 2)) <= small_data.layer_decay(Task(more, 2))


@given(videos, st.sampled_from([4, 12, 24]), st.sampled_from([1, 2, 4, 8]))
def test_a_step_fits_the_data_and_leaves_out_little(n: int, depth: int, gpus: int) -> None:
    made = small_data.batch(Task(n, 2, depth=depth, world_size=gpus))
    per_step = made.batch_size * made.update_freq * gpus
    if n < gpus:
        return  # fewer videos than GPUs: refused elsewhere
    assert 1 <= per_step <= max(n, gpus)
    if n >= 16 * gpus:
        assert n % per_step < n / 8
        assert n // per_step >= 8


@given(st.integers(16, 10_000))
def test_a_run_has_hundreds_of_steps_and_not_many_thousands(n: int) -> None:
    steps = small_data.epochs(Task(n, 2)) * (n // small_data.videos_per_step(n))
    assert 500 <= steps <= 6_000


@given(st.integers(1, 4096), st.integers(1, 4096))
def test_more_clips_never_mean_a_smaller_rate(one: int, other: int) -> None:
    less, more = sorted((one, other))
    for task in (Task(100, 2), Task(100, 2, depth=4), Task(100, 2, random=True)):
        rates = [scaled_lr(small_data.lr(task, clips), clips) for clips in (less, more)]
        assert rates[0] <= rates[1] * 1.01  # three digits of --lr


@given(st.integers(1, 500))
def test_a_warm_up_is_shorter_than_its_run(epochs: int) -> None:
    assert 0 <= small_data.warmup_epochs(epochs) < max(epochs, 1)
    assert small_data.warmup_epochs(epochs) <= 5


@pytest.mark.parametrize(
    ("n", "classes", "mixes"), [(1_999, 100, False), (2_000, 9, False), (2_000, 10, True), (50_000, 100, True)]
)
def test_clips_are_mixed_where_there_are_many_and_of_many_classes(n: int, classes: int, mixes: bool) -> None:
    assert small_data.mixes(Task(n, classes)) is mixes


def test_random_weights_are_trained_in_all_layers_alike() -> None:
    task = Task(1_000, 10, random=True)
    assert (small_data.layer_decay(task), small_data.drop_path(task)) == (1.0, 0.0)
