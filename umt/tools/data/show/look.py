"""Reads what the page shows, in processes that may hang or crash without harm (`umt.data.loading.pool`).

Letters: T frames of a clip, H x W pixels, T' x h x w tokens.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import av
import numpy as np
import torch
from einops import rearrange, repeat
from numpy.typing import NDArray
from tqdm import tqdm

from umt.config.schema import FinetuneConfig, PretrainConfig
from umt.data.loading.clips import Sample, TrainClips, ViewClips
from umt.data.loading.pool import Pool
from umt.data.masking import visible_tokens
from umt.data.transforms.erasing import erase
from umt.data.transforms.normalize import MEAN, STD, normalize
from umt.data.video import guard
from umt.data.video.decoders import Frames
from umt.errors import VideoError
from umt.randomness import generator
from umt.tools.data.show.plan import Shown

_SEED = 0  # of the choice of videos
EPOCH = 0


@dataclass
class File:
    """What one video is like, or why it cannot be read."""

    row: int
    cause: str = ""
    width: int = 0
    height: int = 0
    frames: int = 0
    fps: float = 0.0  # 0: frames in a folder have none
    codec: str = ""
    reader: str = ""  # the class that read it
    seconds: float = 0.0  # that a training clip's frames took, opening included


@dataclass
class Strip:
    """Frames in a row, as the model gets them."""

    title: str
    frames: Frames  # (T, H, W, 3)
    numbers: list[int]  # of the frames in the video
    noise: NDArray[np.float32] | None = None  # (T', N), from which the mask is drawn
    visible: NDArray[np.bool_] | None = None  # (T, h, w): the tokens that the student sees


@dataclass
class Clip:
    """One video of the page."""

    row: int
    strips: list[Strip]


@dataclass
class Seen:
    """All that was read."""

    files: list[File]
    clips: list[Clip]
    notes: list[str] = field(default_factory=list)

    @property
    def readable(self) -> list[File]:
        return [file for file in self.files if not file.cause]


@dataclass
class _Recorder:
    """A sampling law that remembers what it drew last."""

    law: Callable[..., NDArray[np.int64]]
    numbers: list[int] = field(default_factory=list)

    def __call__(self, length: int, **rng: Any) -> NDArray[np.int64]:
        drawn = self.law(length, **rng)
        self.numbers = drawn.tolist()
        return drawn


@dataclass(frozen=True)
class _Reader:
    """What a process does with a row: ("file", row) -> File, ("clip", row) -> (Samples of training, of validation)."""

    train: TrainClips
    validation: ViewClips | None

    def __call__(self, work: tuple[str, int]) -> Any:
        kind, row = work
        try:
            return self._file(row) if kind == "file" else self._clip(row)
        except VideoError as error:
            return File(row, cause=str(error))

    def _file(self, row: int) -> File:
        videos, file = self.train.videos, File(row)
        began = time.perf_counter()
        with videos.open(row, alone=True) as video:
            file.frames, file.reader = len(video), type(video).__name__
            drawn = self.train.sample(len(video), rng=generator(self.train.seed, EPOCH, row, "frames"))
            file.height, file.width = video.frames(drawn).shape[1:3]
        file.seconds = time.perf_counter() - began
        if int(videos.list.num_frames[row]) < 0:
            with videos.storage.path(videos.list, row, alone=True) as path:
                guard.begin(path)
                file.fps, file.codec = _rate_and_codec(path)
        return file

    def _clip(self, row: int) -> list[tuple[Sample, list[int]]]:
        law = _Recorder(self.train.sample)
        samples, failures = replace(self.train, sample=law).read(EPOCH, row)
        if failures:
            raise VideoError(str(failures[0]["cause"]))
        made = [(sample, law.numbers) for sample in samples]
        if self.validation is not None:
            law = _Recorder(self.validation.sample)
            (sample, *_), _ = replace(self.validation, sample=law).read(EPOCH, row)
            made.append((sample, law.numbers))
        return made


def _rate_and_codec(path: str) -> tuple[float, str]:
    try:
        with av.open(path, metadata_errors="replace") as container:
            stream = container.streams.video[0]
            return float(stream.average_rate or 0), str(stream.codec_context.name)
    except av.FFmpegError:  # the readers have said what is to be said
        return 0.0, ""


def look(shown: Shown, *, clips: int, files: int, processes: int) -> Seen:
    """Looks into `files` videos drawn by lot, and makes clips of `clips` of them, of as many classes as there are."""
    rows = generator(_SEED, "show").permutation(len(shown.videos))[:files].tolist()
    make = _Reader(shown.train, shown.validation)
    timeout = shown.config.data.decode_timeout
    pool = Pool(make, workers=min(processes, len(rows)), timeout=timeout, start=_one_thread)

    def read(kind: str, wanted: Sequence[int]) -> list[Any]:
        items = pool.run([(kind, row) for row in wanted])
        return list(tqdm(items, desc=kind, unit="video", total=len(wanted), leave=False, disable=None))

    try:
        seen = Seen(read("file", rows), [])
        chosen = choose([file.row for file in seen.readable], shown.videos.labels, clips)
        for row, made in zip(chosen, read("clip", chosen), strict=True):
            if isinstance(made, File):  # readable when it was measured, and not now
                seen.files = [made if file.row == row else file for file in seen.files]
            else:
                seen.clips.append(Clip(row, _strips(shown, made)))
    finally:
        pool.close()
    if isinstance(shown.config, PretrainConfig):
        seen.notes.append(_mask(shown, shown.config, seen.clips))
    return seen


def _one_thread() -> None:
    import cv2

    torch.set_num_threads(1)
    cv2.setNumThreads(0)


def choose(rows: Sequence[int], labels: NDArray[np.int64], count: int) -> list[int]:
    """The first `count` of `rows`, but a class has its second turn only when all others have had their first."""
    seen: Counter[int] = Counter()
    turns = []
    for place, row in enumerate(rows):
        label = int(labels[row])
        turns.append((seen[label] if label >= 0 else 0, place))
        seen[label] += 1
    return [rows[place] for _, place in sorted(turns)[:count]]


def _strips(shown: Shown, made: list[tuple[Sample, list[int]]]) -> list[Strip]:
    strips = []
    copies = len(made) - (shown.validation is not None)
    for number, (sample, numbers) in enumerate(made):
        if number == copies:
            title = "validation"
        else:
            title = "training" if copies == 1 else f"training, copy {number + 1}"
        strips.append(Strip(title, _erased(shown, sample), numbers, sample.noise))
    return strips


def _erased(shown: Shown, sample: Sample) -> Frames:
    """The clip with its rectangles of random erasing, which the device fills."""
    if sample.erase is None or not isinstance(shown.config, FinetuneConfig):
        return sample.video
    video = normalize(torch.from_numpy(rearrange(sample.video, "t h w c -> 1 c t h w").copy()))
    boxes, seeds = torch.from_numpy(np.asarray(sample.erase))[None], torch.tensor([sample.seed])
    filled = rearrange(erase(video, boxes, seeds, shown.config.augment.remode), "1 c t h w -> t h w c").numpy()
    return ((filled * np.array(STD) + np.array(MEAN)) * 255).round().clip(0, 255).astype(np.uint8)


def _mask(shown: Shown, config: PretrainConfig, clips: list[Clip]) -> str:
    """Gives every clip its mask; a sentence on where it comes from."""
    settings, (time_, height, width) = config.teacher, shown.grid
    teacher = None
    if settings.mask_type == "attention" and settings.clip_teacher_weights:  # nothing is downloaded for a look
        from umt.models.teacher import as_module, create_teacher

        teacher, _ = create_teacher(
            settings.clip_teacher,
            image_size=settings.clip_input_resolution,
            return_layers=settings.clip_return_layer,
            weights=settings.clip_teacher_weights,
        )
        as_module(teacher).eval()
    for clip in clips:
        for strip in clip.strips:
            assert strip.noise is not None
            noise = torch.from_numpy(strip.noise)[None]
            saliency = torch.ones_like(noise)
            if teacher is not None:
                with torch.no_grad():
                    video = normalize(torch.from_numpy(rearrange(strip.frames, "t h w c -> 1 c t h w").copy()))
                    _, saliency = teacher(video)
            chosen = visible_tokens(settings.mask_type, settings.mask_ratio, noise, saliency)
            seen = torch.zeros(time_ * height * width, dtype=torch.bool).scatter_(0, chosen[0], True)
            span = len(strip.frames) // time_  # frames of a token
            strip.visible = repeat(seen, "(t h w) -> (t span) h w", h=height, w=width, span=span).numpy()
    if settings.mask_type != "attention":
        return f"The masks are those of --mask_type {settings.mask_type}, as the run draws them."
    if teacher is not None:
        return "The masks follow the attention of the teacher, as in the run."
    return (
        "Without --clip_teacher_weights there is no attention to follow: these masks have the run's share and noise, "
        "but every patch has the same chance."
    )
