"""Which frames of a video make a clip: pure index arithmetic, no video is touched.

Paper: https://arxiv.org/abs/2303.16058 (sparse sampling after TSN, https://arxiv.org/abs/1608.00859). Letters: L
frames in the video (`length`), n frames in a clip (`num_frames`), r the stride of dense sampling, S clips of a test
video. Every function returns 0-based int64 indices within the video, never decreasing: (n,) for one clip, (S, n) for
the clips of a test. Random laws draw from the generator that they are given and from nothing else.

The laws are those of the published training, so that published weights are tested on the frames that their numbers
were measured on, even where they are odd: rounding half to even, a tail that training never sees.
`tests/data/test_sampling.py` checks every index. Where the original's rule fails (negative indices, a division by zero,
a short video that becomes n copies of its first frame) the docstring says what is done instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from umt.errors import ConfigError, VideoError

Indices = NDArray[np.int64]
Law = Callable[..., Indices]


def _check(length: int, num_frames: int, *positive: int) -> None:
    if length < 1:
        raise VideoError(f"a video of {length} frames has none to sample. Is the file whole?")
    for value in (num_frames, *positive):
        if value < 1:
            raise ValueError(f"numbers of frames, strides and clips are at least 1, not {value}")


def spread(length: int, num_frames: int) -> Indices:
    """The middles of n equal parts of the video, (n,): one shorter than n repeats each of its frames equally often."""
    _check(length, num_frames)
    return (2 * np.arange(num_frames) + 1) * length // (2 * num_frames)


# Sparse: n equal segments over the whole video, one frame of each (Kinetics_sparse, mitv1_sparse).


def sparse_train(length: int, num_frames: int, rng: np.random.Generator) -> Indices:
    """One uniform frame of each of n segments, (n,); neighbouring segments share the frame at their border."""
    _check(length, num_frames)
    borders = np.rint((length - 1) / num_frames * np.arange(num_frames + 1)).astype(np.int64)
    return np.minimum(rng.integers(borders[:-1], borders[1:], endpoint=True), length - 1)


def sparse_test(length: int, num_frames: int, num_clips: int) -> Indices:
    """S clips, (S, n): clip c takes of each segment the frame (c + 1) / (S + 1) of the way through it."""
    _check(length, num_frames, num_clips)
    segment = (length - 1) / num_frames
    starts = np.rint(segment * np.arange(num_frames))
    offsets = np.floor(segment / (num_clips + 1) * np.arange(1, num_clips + 1))
    return np.minimum(starts + offsets[:, None], length - 1).astype(np.int64)


def sparse_val(length: int, num_frames: int) -> Indices:
    """The clip of a test with one clip, (n,): the middle of each segment."""
    return sparse_test(length, num_frames, 1)[0]


# SSV2: TSN segments of whole frames.


def segments_train(length: int, num_frames: int, rng: np.random.Generator) -> Indices:
    """One uniform frame of each of n segments of L // n frames, (n,): SSV2 training and sparse pretraining.

    The last L - n * (L // n) frames are never drawn, as in the original. A video shorter than n is `spread`; the
    original makes n copies of frame 0 of it.
    """
    _check(length, num_frames)
    segment = length // num_frames
    if segment == 0:
        return spread(length, num_frames)
    return np.arange(num_frames) * segment + rng.integers(0, segment, size=num_frames)


def ssv2_test(length: int, num_frames: int, num_clips: int) -> Indices:
    """S clips, (S, n): frame x of clip c is int(L / n * (x + c / S)), so the clips interleave.

    The original computes the same for two clips and cannot cut more; its raw-frame variant has this rule for any S.
    """
    _check(length, num_frames, num_clips)
    shift = np.arange(num_clips)[:, None] / num_clips
    indices = (length / num_frames * (np.arange(num_frames) + shift)).astype(np.int64)
    return np.minimum(indices, length - 1)


def ssv2_val(length: int, num_frames: int) -> Indices:
    """The second of two test clips, (n,): the middle of each segment."""
    return ssv2_test(length, num_frames, 2)[1]


def ssv2_frames_val(length: int, num_frames: int) -> Indices:
    """Validation clip of SSV2 read from a folder of frames, (n,): middles of segments of L // n whole frames.

    A folder shorter than n repeats frame 0 at the front and then shows every frame once, as the original does there.
    """
    _check(length, num_frames)
    segment = length // num_frames
    if segment == 0:
        return np.maximum(np.arange(num_frames) - (num_frames - length), 0)
    return np.arange(num_frames) * segment + segment // 2


# Dense: n frames, every r-th of one window of n * r frames (Kinetics, UCF101, HMDB51).


def _window(start: int, num_frames: int, stride: int) -> Indices:
    end = start + num_frames * stride
    points = np.linspace(start, end, num_frames)
    return np.clip(points, start, end - 1).astype(np.int64)


def _whole_video(length: int, num_frames: int, stride: int) -> Indices:
    """A video no longer than the window: L // r points over all of it, then its last frame until there are n."""
    points = np.full(num_frames, length, dtype=np.float64)
    points[: length // stride] = np.linspace(0, length, length // stride)
    return np.clip(points, 0, length - 1).astype(np.int64)


def dense_train(length: int, num_frames: int, stride: int, rng: np.random.Generator) -> Indices:
    """n points over a window of n * r frames, (n,); its start is uniform in 0..L - n * r - 1 (never the last place)."""
    _check(length, num_frames, stride)
    room = length - num_frames * stride
    if room <= 0:
        return _whole_video(length, num_frames, stride)
    return _window(int(rng.integers(0, room)), num_frames, stride)


def dense_val(length: int, num_frames: int, stride: int) -> Indices:
    """The validation clip, (n,), spaced as in training.

    The original's window ends where the centre window begins. It is used where it is within the video (L >= 3 * n * r);
    for shorter videos, where the original has negative indices, the centre window is used.
    """
    _check(length, num_frames, stride)
    room = length - num_frames * stride
    if room <= 0:
        return _whole_video(length, num_frames, stride)
    centre = room // 2
    before = centre - num_frames * stride
    return _window(before if before >= 0 else centre, num_frames, stride)


def dense_test(length: int, num_frames: int, stride: int, num_clips: int) -> Indices:
    """S clips, (S, n), every r-th frame; starts evenly from the first place to the last, of a single clip the centre.

    A clip that would run out of the video repeats its last frame.
    """
    _check(length, num_frames, stride, num_clips)
    room = max(length - num_frames * stride, 0)
    if num_clips == 1:
        starts = np.array([room // 2])
    else:
        starts = (np.arange(num_clips) * (room / (num_clips - 1))).astype(np.int64)
    last = (length - 1 - starts) // stride
    steps = np.minimum(np.arange(num_frames), last[:, None])
    return starts[:, None] + steps * stride


# Pretraining.


def pretrain_dense(length: int, num_frames: int, stride: int, rng: np.random.Generator) -> Indices:
    """Pretraining clip of one segment, (n,): every r-th frame from a start uniform in 0..L - n * r.

    A step that would reach the last frame of the video or pass it is not made; the frame before it repeats.
    """
    _check(length, num_frames, stride)
    start = int(rng.integers(0, max(length - num_frames * stride, 0), endpoint=True))
    last = max((length - 2 - start) // stride, 0)
    return start + stride * np.minimum(np.arange(num_frames), last)


# Laws by name: the names of `umt.data.catalog` (`DatasetSpec.sampling`), and two of pretraining: of several segments,
# and of one.


@dataclass(frozen=True)
class Laws:
    """The laws of one way of sampling. Pretraining has no validation and no test.

    Attributes:
        strided: whether they take a stride (--sampling_rate).
        validation_of_folders: for folders of frames, where it is another law than for videos.
    """

    training: Law
    validation: Law | None = None
    views: Law | None = None
    validation_of_folders: Law | None = None
    strided: bool = False


LAWS: dict[str, Laws] = {
    "sparse": Laws(sparse_train, sparse_val, sparse_test),
    "dense": Laws(dense_train, dense_val, dense_test, strided=True),
    "ssv2": Laws(segments_train, ssv2_val, ssv2_test, ssv2_frames_val),
    "pretrain_sparse": Laws(segments_train),
    "pretrain_dense": Laws(pretrain_dense, strided=True),
}


def training_sampler(kind: str, num_frames: int, sampling_rate: int = 1) -> Callable[..., Indices]:
    """(L, rng=) -> (n,): the training law of `kind`, a key of `LAWS`. Raises ConfigError for another name."""
    return _sampler(kind, lambda laws: laws.training, num_frames, sampling_rate)


def validation_sampler(
    kind: str, num_frames: int, sampling_rate: int = 1, *, frame_folders: bool = False
) -> Callable[[int], Indices]:
    """L -> (n,): the validation clip of `kind` ("sparse", "dense", "ssv2")."""

    def law(laws: Laws) -> Law | None:
        return laws.validation_of_folders if frame_folders and laws.validation_of_folders else laws.validation

    return _sampler(kind, law, num_frames, sampling_rate)


def views_sampler(kind: str, num_frames: int, num_clips: int, sampling_rate: int = 1) -> Callable[[int], Indices]:
    """L -> (S, n): the test clips of `kind` ("sparse", "dense", "ssv2")."""
    return _sampler(kind, lambda laws: laws.views, num_frames, sampling_rate, num_clips=num_clips)


def _sampler(kind: str, use: Callable[[Laws], Law | None], num_frames: int, stride: int, **more: int) -> Law:
    fitting = {name: law for name, laws in LAWS.items() if (law := use(laws)) is not None}
    if kind not in fitting:
        raise ConfigError(f"frame sampling ({kind}) must be one of {', '.join(fitting)}.")
    if LAWS[kind].strided:
        more["stride"] = stride
    return partial(fitting[kind], num_frames=num_frames, **more)
