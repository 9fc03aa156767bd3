"""Loaders: the same batches whatever the number of workers, ranks or restarts."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from umt.data import sampling
from umt.data.lists.reading import read_list
from umt.data.lists.video_list import VideoList
from umt.data.loading.clip_batch import ClipBatch
from umt.data.loading.clips import TrainClips, Videos, ViewClips
from umt.data.loading.loaders import EvalLoader, TestLoader, TrainLoader, Workers
from umt.data.transforms.erasing import draw_erase_box
from umt.data.transforms.pipelines import EvalTransform, PretrainTransform, TestTransform
from umt.errors import ConfigError, VideoError


def listed(folder: Path) -> Videos:
    return Videos(read_list(folder / "train.csv", separator=",", prefix=str(folder)))


def training(folder: Path, **options: object) -> TrainLoader:
    clips = TrainClips(
        listed(folder),
        sampling.training_sampler("pretrain_sparse", 4),
        PretrainTransform(16, True),
        seed=1,
        copies=2,
        noise_shape=(4, 4),
        erase=partial(draw_erase_box, probability=0.5),
    )
    return TrainLoader(clips, **{"batch_size": 2, "seed": 1, **options})  # type: ignore[arg-type]


def views_of(folder: Path, *, lenient: bool = False, **options: object) -> TestLoader:
    clips = ViewClips(
        listed(folder), sampling.views_sampler("sparse", 4, 2), TestTransform(16, 3), count_unreadable_as_wrong=lenient
    )
    return TestLoader(clips, **options)  # type: ignore[arg-type]


def assert_same(first: Iterable[ClipBatch], second: Iterable[ClipBatch]) -> None:
    for a, b in zip(first, second, strict=True):
        for field in dataclasses.fields(ClipBatch):
            left, right = getattr(a, field.name), getattr(b, field.name)
            assert torch.equal(left, right) if isinstance(left, torch.Tensor) else left == right, field.name


def two_epochs(folder: Path, workers: Workers) -> list[ClipBatch]:
    loader = training(folder, workers=workers)
    try:
        return [*loader.batches(0), *loader.batches(1)]
    finally:
        loader.close()


@pytest.mark.timeout(60)
def test_forked_workers_do_not_wait_for_the_opencv_threads_of_their_parent(mp4s: Path) -> None:
    cv2.setNumThreads(4)
    for _ in range(3):
        cv2.GaussianBlur(np.zeros((2000, 2000, 3), np.uint8), (31, 31), 5)
    loaded = two_epochs(mp4s, Workers(num_workers=1, start_method="fork"))
    assert_same(loaded, two_epochs(mp4s, Workers()))


def test_two_workers_give_the_batches_that_none_give(mp4s: Path) -> None:
    assert_same(two_epochs(mp4s, Workers(2)), two_epochs(mp4s, Workers(0)))


@pytest.mark.slow
@pytest.mark.parametrize(("number", "method"), [(8, "fork"), (2, "spawn")])
def test_any_number_and_kind_of_workers_gives_the_same_batches(mp4s: Path, number: int, method: str) -> None:
    assert_same(two_epochs(mp4s, Workers(number, start_method=method)), two_epochs(mp4s, Workers(0)))


def test_copies_of_a_video_are_neighbours(mp4s: Path) -> None:
    batch = next(training(mp4s).batches(0))
    assert batch.video.shape == (4, 3, 4, 16, 16)
    assert batch.video.dtype == torch.uint8
    assert batch.row.tolist() == [batch.row[0], batch.row[0], batch.row[2], batch.row[2]]
    assert batch.copy.tolist() == [0, 1, 0, 1]
    assert batch.noise is not None
    assert batch.erase is not None
    assert (batch.noise.shape, batch.erase.shape, len(batch.paths)) == ((4, 4, 4), (4, 4), 4)


def test_the_order_differs_between_epochs_and_is_a_permutation(mp4s: Path) -> None:
    loader = training(mp4s)
    assert sorted(loader.order(0)) == sorted(loader.order(1)) == list(range(7))
    assert loader.order(0).tolist() != loader.order(1).tolist()


def test_starting_in_mid_epoch_gives_the_rest_of_it(mp4s: Path) -> None:
    loader = training(mp4s)
    assert_same(loader.batches(3, start=1), list(loader.batches(3))[1:])


def test_skipped_batches_are_not_decoded(mp4s: Path, tmp_path: Path) -> None:
    shutil.copytree(mp4s, tmp_path, dirs_exist_ok=True)
    loader = training(tmp_path)
    for row in loader.order(0)[:4]:
        (tmp_path / f"v{row}.mp4").unlink()
    assert [batch.failures for batch in loader.batches(0, start=2)] == [[]]


def test_an_epoch_left_early_does_not_disturb_the_next(mp4s: Path) -> None:
    loader = training(mp4s, workers=Workers(2))
    next(loader.batches(0))
    assert_same(loader.batches(1), training(mp4s).batches(1))
    loader.close()


def rows_of_steps(folder: Path, world_size: int, batch_size: int, accumulation: int = 1) -> list[set[int]]:
    ranks = [
        training(folder, batch_size=batch_size, rank=rank, world_size=world_size, accumulation=accumulation)
        for rank in range(world_size)
    ]
    epochs = [[batch.row.tolist() for batch in loader.batches(0)] for loader in ranks]
    steps = range(0, ranks[0].micro_batches_per_epoch(), accumulation)
    return [{row for e in epochs for b in e[s : s + accumulation] for row in b} for s in steps]


def test_a_step_sees_the_same_videos_whatever_the_number_of_ranks(mp4s: Path) -> None:
    alone = rows_of_steps(mp4s, 1, 4)
    assert rows_of_steps(mp4s, 2, 2) == rows_of_steps(mp4s, 1, 2, accumulation=2) == alone
    assert [len(step) for step in alone] == [4]  # 7 videos: the last, incomplete step is left out


def test_a_list_smaller_than_one_step_is_refused(mp4s: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"--batch_size \(4\) x 2 processes x 1 .* = 8 videos a step, but the list has only 7\. Try .* 3\.",
    ):
        training(mp4s, batch_size=4, world_size=2)


def test_iterating_leaves_the_global_generator_alone(mp4s: Path) -> None:
    state = torch.get_rng_state()
    list(training(mp4s).batches(0))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_replaced_video_is_reported_by_its_batch(mp4s: Path, tmp_path: Path) -> None:
    shutil.copytree(mp4s, tmp_path, dirs_exist_ok=True)
    (tmp_path / "v2.mp4").write_bytes(b"")
    loader = training(tmp_path, batch_size=7)
    (batch,) = loader.batches(0)
    assert {f["row"] for f in batch.failures} == {2}
    assert 2 not in batch.row.tolist()
    assert len(batch) == 14


@pytest.mark.parametrize("number", [0, 2])
def test_an_unreadable_list_stops_with_its_sentence_alone(number: int) -> None:
    videos = Videos(VideoList("gone.csv", ["a.mp4", "b.mp4"], [0, 0], prefix="/nowhere"))
    clips = TrainClips(videos, sampling.training_sampler("sparse", 4), PretrainTransform(16))
    loader = TrainLoader(clips, batch_size=1, workers=Workers(number))
    with pytest.raises(VideoError, match=r"^gone\.csv: 10 videos in a row cannot be read, [^\n]*$"):
        next(loader.batches(0))
    loader.close()


def test_ranks_share_the_rows_without_overlap_or_padding(mp4s: Path) -> None:
    rows = [[int(batch.row[0]) for batch in views_of(mp4s, rank=rank, world_size=3)] for rank in range(3)]
    assert rows == [[0, 3, 6], [1, 4], [2, 5]]


def test_a_rank_without_rows_has_no_batches(mp4s: Path) -> None:
    loader = views_of(mp4s, rank=8, world_size=9)
    assert (len(loader), list(loader)) == (0, [])


@pytest.mark.parametrize("number", [0, 2])
def test_a_test_batch_is_all_views_of_one_video_in_the_order_of_rows(mp4s: Path, number: int) -> None:
    loader = views_of(mp4s, done=[0, 4], workers=Workers(number))
    batches = list(loader)
    assert [sorted(set(b.row.tolist())) for b in batches] == [[1], [2], [3], [5], [6]]
    assert all(
        list(zip(b.clip.tolist(), b.crop.tolist(), strict=True)) == [(c, k) for c in (0, 1) for k in (0, 1, 2)]
        for b in batches
    )
    assert len(loader) == 5
    loader.close()


def test_validation_batches_hold_several_videos(mp4s: Path) -> None:
    clips = ViewClips(listed(mp4s), sampling.validation_sampler("sparse", 4), EvalTransform(16, 16))
    loader = EvalLoader(clips, batch_size=3)
    assert [b.row.tolist() for b in loader] == [[0, 1, 2], [3, 4, 5], [6]]
    assert len(loader) == 3
    assert_same(loader, list(loader))


def test_a_video_counted_as_wrong_is_a_batch_without_clips(mp4s: Path, tmp_path: Path) -> None:
    shutil.copytree(mp4s, tmp_path, dirs_exist_ok=True)
    (tmp_path / "v1.mp4").unlink()
    batch = list(views_of(tmp_path, lenient=True))[1]
    assert len(batch) == 0
    assert batch.failures[0]["row"] == 1


@pytest.mark.parametrize("number", [0, 2])
def test_an_unreadable_test_video_stops_the_test_and_is_named(mp4s: Path, tmp_path: Path, number: int) -> None:
    shutil.copytree(mp4s, tmp_path, dirs_exist_ok=True)
    (tmp_path / "v1.mp4").unlink()
    loader = views_of(tmp_path, workers=Workers(number))
    with pytest.raises(VideoError, match=r"v1\.mp4: cannot be read as a video \(no such file"):
        list(loader)
    loader.close()
