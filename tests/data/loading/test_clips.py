"""Data sets: what a row becomes, and that it depends on (seed, epoch, row, copy) alone."""

from __future__ import annotations

import dataclasses
import shutil
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.videos import played
from umt.data import sampling
from umt.data.lists.reading import read_list
from umt.data.loading.clips import Sample, TrainClips, Videos, ViewClips
from umt.data.transforms.erasing import draw_erase_box
from umt.data.transforms.pipelines import EvalTransform, FinetuneTransform, PretrainTransform, TestTransform
from umt.errors import ConfigError, VideoError
from umt.randomness import generator, key


def videos(folder: Path, name: str = "train.csv", prefix: Path | None = None) -> Videos:
    return Videos(read_list(folder / name, separator=",", prefix=str(prefix or folder)))


def pretraining(folder: Path, prefix: Path | None = None, **changes: object) -> TrainClips:
    sampler = sampling.training_sampler("pretrain_sparse", 8)
    clips = TrainClips(videos(folder, prefix=prefix), sampler, PretrainTransform(32, True), seed=5, noise_shape=(8, 4))
    return dataclasses.replace(clips, **changes)


def same(first: Sample, other: Sample) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(vars(first).values(), vars(other).values(), strict=True))


def test_a_sample_is_a_function_of_seed_epoch_row_and_copy(mp4s: Path) -> None:
    (first, *_), _ = pretraining(mp4s, copies=2).read(3, 4)
    (again,), _ = pretraining(mp4s).read(3, 4)
    assert same(first, again)
    assert first.seed == key(5, 3, 4, 0)


@pytest.mark.parametrize(("epoch", "seed"), [(4, 5), (3, 6)])
def test_another_epoch_or_seed_gives_another_sample(mp4s: Path, epoch: int, seed: int) -> None:
    (first,), _ = pretraining(mp4s).read(3, 4)
    (other,), _ = pretraining(mp4s, seed=seed).read(epoch, 4)
    assert not np.array_equal(first.video, other.video)
    assert first.noise is not None
    assert not np.array_equal(first.noise, other.noise)


def test_copies_show_the_same_frames_augmented_differently(mp4s: Path) -> None:
    def untouched(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return frames

    (first, second), _ = pretraining(mp4s, copies=2, transform=untouched).read(0, 1)
    np.testing.assert_array_equal(first.video, second.video)
    np.testing.assert_array_equal(
        first.video, played(mp4s / "v1.mp4")[sampling.segments_train(21, 8, generator(5, 0, 1, "frames"))]
    )
    (first, second), _ = pretraining(mp4s, copies=2).read(0, 1)
    assert not np.array_equal(first.video, second.video)
    assert [first.copy, second.copy] == [0, 1]


def test_mask_noise_lies_strictly_between_0_and_1(mp4s: Path) -> None:
    (sample,), _ = pretraining(mp4s, noise_shape=(8, 14 * 14)).read(0, 0)
    assert sample.noise is not None
    assert sample.noise.dtype == np.float32
    assert sample.noise.shape == (8, 196)
    assert 0 < sample.noise.min() < 0.01 < 0.99 < sample.noise.max() < 1


def test_finetuning_samples_carry_an_erase_box_and_frames_of_the_model(mp4s: Path) -> None:
    clips = TrainClips(
        videos(mp4s),
        sampling.training_sampler("sparse", 4),
        FinetuneTransform(32),
        copies=2,
        erase=partial(draw_erase_box, probability=1.0),
    )
    samples, failures = clips.read(0, 2)
    assert not failures
    assert all(s.video.shape == (4, 32, 32, 3) and s.video.dtype == np.uint8 and s.label == 2 for s in samples)
    assert all(s.erase is not None and s.erase.shape == (4,) and s.erase[2] > 0 for s in samples)


def test_validation_is_one_central_view(mp4s: Path) -> None:
    clips = ViewClips(videos(mp4s), sampling.validation_sampler("sparse", 4), EvalTransform(32, 32))
    (sample,), failures = clips.read(0, 3)
    expected = EvalTransform(32, 32)(played(mp4s / "v3.mp4")[sampling.sparse_val(23, 4)])
    np.testing.assert_array_equal(sample.video, expected)
    assert (sample.row, sample.label, sample.path, failures) == (3, 0, "v3.mp4", [])


def test_each_test_view_is_what_it_would_be_alone(mp4s: Path) -> None:
    transform = TestTransform(32, 3)
    samples, _ = ViewClips(videos(mp4s), sampling.views_sampler("sparse", 8, 4), transform).read(0, 6)
    frames = played(mp4s / "v6.mp4")
    assert [(s.clip, s.crop) for s in samples] == [(c, k) for c in range(4) for k in range(3)]
    for sample in samples:
        alone = transform(frames[sampling.sparse_test(26, 8, 4)[sample.clip]])[sample.crop]
        np.testing.assert_array_equal(sample.video, alone)


@pytest.mark.parametrize("kind", ["sparse", "dense", "ssv2"])
def test_every_kind_of_sampling_serves_training_validation_and_test(kind: str) -> None:
    assert sampling.training_sampler(kind, 8, 2)(40, rng=generator(0)).shape == (8,)
    assert sampling.validation_sampler(kind, 8, 2)(40).shape == (8,)
    assert sampling.views_sampler(kind, 8, 3, 2)(40).shape == (3, 8)


def test_an_unknown_kind_of_sampling_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"frame sampling \(uniform\) must be one of sparse, dense, ssv2"):
        sampling.views_sampler("uniform", 8, 1)


@pytest.fixture
def damaged(mp4s: Path, tmp_path: Path) -> Path:
    """The videos, of which row 2 is empty."""
    for file in mp4s.iterdir():
        shutil.copy(file, tmp_path)
    (tmp_path / "v2.mp4").write_bytes(b"")
    return tmp_path


def test_an_unreadable_training_video_is_replaced_by_the_same_one_every_time(damaged: Path) -> None:
    (first,), failures = pretraining(damaged).read(0, 2)
    (second,), _ = pretraining(damaged).read(0, 2)
    assert same(first, second)
    assert first.row != 2
    assert first.path == f"v{first.row}.mp4"
    assert first.label == first.row % 3
    assert failures[0]["row"] == 2
    assert failures[0]["path"] == "v2.mp4"
    assert "0 bytes" in str(failures[0]["cause"])


def test_replacements_differ_between_epochs(damaged: Path) -> None:
    assert len({pretraining(damaged).read(epoch, 2)[0][0].row for epoch in range(8)}) > 1


def test_a_replacement_is_not_the_clip_that_its_own_row_gives(damaged: Path) -> None:
    (stand_in,), _ = pretraining(damaged).read(0, 2)
    (itself,), _ = pretraining(damaged).read(0, stand_in.row)
    assert stand_in.seed != itself.seed
    assert not np.array_equal(stand_in.video, itself.video)


def test_a_wrong_prefix_stops_promptly_and_says_so(mp4s: Path) -> None:
    start = time.monotonic()
    with pytest.raises(
        VideoError, match=r"train\.csv: 10 videos in a row cannot be read, first /nowhere/v\d.mp4.*Check --prefix"
    ):
        pretraining(mp4s, prefix=Path("/nowhere")).read(0, 0)
    assert time.monotonic() - start < 5


def views(folder: Path, **changes: object) -> ViewClips:
    clips = ViewClips(videos(folder), sampling.views_sampler("sparse", 8, 2), TestTransform(32, 3))
    return dataclasses.replace(clips, **changes)


def test_an_unreadable_test_video_is_named_not_replaced(damaged: Path) -> None:
    with pytest.raises(
        VideoError, match=r"v2\.mp4: .* \(0 bytes\)\. It is row 2 of .*train\.csv.*--count_unreadable_as_wrong"
    ):
        views(damaged).read(0, 2)


def test_an_unreadable_test_video_may_be_reported_instead(damaged: Path) -> None:
    samples, failures = views(damaged, count_unreadable_as_wrong=True).read(0, 2)
    assert samples == []
    assert [(f["row"], f["path"]) for f in failures] == [(2, "v2.mp4")]


def test_equal_names_in_different_folders_stay_apart(mp4s: Path, tmp_path: Path) -> None:
    for i, name in enumerate(("a", "b")):
        (tmp_path / name).mkdir()
        shutil.copy(mp4s / f"v{i}.mp4", tmp_path / name / "x.y.mp4")
    (tmp_path / "train.csv").write_text("a/x.y.mp4,0\nb/x.y.mp4,1\n")
    clips = views(tmp_path)
    assert [(s.row, s.path) for row in (0, 1) for s in clips.read(0, row)[0][:1]] == [
        (0, "a/x.y.mp4"),
        (1, "b/x.y.mp4"),
    ]
