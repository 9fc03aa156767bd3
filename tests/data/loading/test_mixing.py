"""Several lists as one: rows, prefixes, and the same draws whatever reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.same_batches import assert_same
from umt.data import sampling
from umt.data.lists.reading import read_list
from umt.data.lists.video_list import VideoList
from umt.data.loading.clips import TrainClips, Videos
from umt.data.loading.epoch_order import Mixed, Shuffled
from umt.data.loading.loaders import TrainLoader, Workers
from umt.data.loading.mixing import mixed
from umt.data.transforms.pipelines import PretrainTransform
from umt.errors import ConfigError, VideoError


def two_lists(folder: Path) -> Videos:
    few = VideoList("few.csv", ["v0.mp4", "v1.mp4"], [0, 1], prefix=str(folder))
    return mixed([Videos(few), Videos(read_list(folder / "train.csv", separator=",", prefix=str(folder)))])


def loader(folder: Path, weights: tuple[float, ...] = (1, 1), **options: object) -> TrainLoader:
    clips = TrainClips(
        two_lists(folder), sampling.training_sampler("pretrain_sparse", 4), PretrainTransform(16, True), seed=1
    )
    epochs = Mixed((Shuffled(2), Shuffled(7)), weights)
    return TrainLoader(clips, **{"batch_size": 3, "seed": 1, "epochs": epochs, **options})  # type: ignore[arg-type]


def test_rows_are_those_of_one_list_after_the_other(mp4s: Path) -> None:
    videos = two_lists(mp4s)
    assert len(videos) == 9
    assert [videos.list.path(row) for row in (0, 1, 2, 8)] == ["v0.mp4", "v1.mp4", "v0.mp4", "v6.mp4"]
    assert videos.list.file(8) == str(mp4s / "v6.mp4")
    assert videos.list.labels.tolist() == [0, 1, 0, 1, 2, 0, 1, 2, 0]
    with videos.open(8) as video:
        assert len(video) == 26


def test_every_list_has_its_own_prefix(mp4s: Path, tmp_path: Path) -> None:
    other = VideoList("other.csv", ["v0.mp4"], [0], prefix=str(tmp_path))
    videos = mixed([Videos(read_list(mp4s / "train.csv", separator=",", prefix=str(mp4s))), Videos(other)])
    videos.open(0).close()
    with pytest.raises(VideoError, match=str(tmp_path / "v0.mp4")):
        videos.open(7)


def test_one_list_stays_itself(mp4s: Path) -> None:
    alone = Videos(read_list(mp4s / "train.csv", separator=","))
    assert mixed([alone]) is alone


def test_workers_change_nothing_in_a_mixture(mp4s: Path) -> None:
    many = loader(mp4s, workers=Workers(2))
    assert_same([*many.batches(0), *many.batches(1)], [*loader(mp4s).batches(0), *loader(mp4s).batches(1)])
    many.close()


def test_starting_in_mid_epoch_gives_the_rest_of_a_mixture(mp4s: Path) -> None:
    assert_same(loader(mp4s).batches(5, start=1), list(loader(mp4s).batches(5))[1:])


def test_a_step_of_a_mixture_is_the_same_whatever_the_number_of_ranks(mp4s: Path) -> None:
    (alone,) = loader(mp4s, batch_size=8).batches(0)
    ranks = [next(loader(mp4s, batch_size=4, rank=rank, world_size=2).batches(0)) for rank in range(2)]
    assert [row for batch in ranks for row in batch.row.tolist()] == alone.row.tolist()
    assert [seed for batch in ranks for seed in batch.seed.tolist()] == alone.seed.tolist()


def test_a_video_that_comes_twice_in_an_epoch_is_augmented_anew(mp4s: Path) -> None:
    (batch,) = loader(mp4s, (8, 1), batch_size=9).batches(0)
    rows = batch.row.tolist()
    assert sorted(rows)[:8] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert len(set(batch.seed.tolist())) == 9
    same = [batch.video[place].numpy() for place, row in enumerate(rows) if row == 0]
    assert not all(np.array_equal(same[0], other) for other in same[1:])


def test_videos_and_frame_folders_do_not_mix(mp4s: Path) -> None:
    folders = VideoList("frames.csv", ["a"], [0], [12])
    with pytest.raises(ConfigError, match="mixes lists of videos and lists of frame folders"):
        mixed([two_lists(mp4s), Videos(folders)])
