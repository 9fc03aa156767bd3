"""Videos through a model: whole, by the loader of a test, or window by window in one pass."""

from __future__ import annotations

import itertools
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from tqdm import tqdm

from umt.data.lists.video_list import VideoList
from umt.data.loading.clips import Videos
from umt.data.loading.loaders import TestLoader, Workers
from umt.errors import ConfigError, VideoError
from umt.inference.recognizer import Recognizer
from umt.inference.windows import Window
from umt.tools.predict.output import Output
from umt.tools.predict.predictor import Failure, Part, Predictor
from umt.tools.predict.render import render
from umt.tools.recognizer_flags import workers_for


def predict_all(
    words: Namespace, model: Recognizer, predictor: Predictor, videos: VideoList, output: Output
) -> list[Failure]:
    """Writes the answers for every video; returns those that could not be read. Raises ConfigError, OutputError."""
    targets = _targets(words.render, videos)
    failures: list[Failure] = []
    with tqdm(desc="predict", unit="video", total=len(videos), disable=None, leave=False, dynamic_ncols=True) as bar:
        answers: Iterator[tuple[int, Iterable[Part] | Failure]] = _wholes(words, model, predictor, videos)
        if words.window:
            answers = _windows(words, model, predictor, videos, bar)
        for row, parts in answers:
            name = videos.file(row)
            try:
                if isinstance(parts, Failure):
                    raise VideoError(parts.cause)
                written = output.video(name, parts)
                if targets is not None:
                    bar.set_postfix_str(f"drawing {Path(targets[row]).name}")
                    render(name, targets[row], written, predictor, words.fps)
            except VideoError as error:
                failures.append(Failure(name, str(error)))
                with tqdm.external_write_mode(file=sys.stderr):
                    print(f"umt predict: {error}", file=sys.stderr, flush=True)
            bar.update()
    return failures


def _wholes(
    words: Namespace, model: Recognizer, predictor: Predictor, videos: VideoList
) -> Iterator[tuple[int, Iterable[Part] | Failure]]:
    """From the views that `umt test` takes, in batches of the same size."""
    clips = words.clips or model.description.test_clips
    crops = words.crops or model.description.test_crops
    workers = Workers(
        workers_for(words, len(videos), model.device.type == "cuda"),
        timeout=words.decode_timeout,
        start_method="spawn" if words.decoder == "torchcodec-cuda" else None,
    )
    loader = TestLoader(model.views.clips(Videos(videos, words.decoder), clips, crops), workers=workers)
    try:
        for batch in loader:
            for failure in batch.failures:
                yield int(failure["row"]), Failure(str(failure["path"]), str(failure["cause"]))
            if len(batch):
                outputs = predictor.outputs(rearrange(batch.video, "v c t h w -> v t h w c"))
                yield int(batch.row[0]), [Part(predictor.answer(outputs))]
    finally:
        loader.close()


def _windows(
    words: Namespace, model: Recognizer, predictor: Predictor, videos: VideoList, bar: tqdm
) -> Iterator[tuple[int, Iterable[Part] | Failure]]:
    for row in range(len(videos)):
        windows = model.windows(videos.file(row), words.window, words.stride, crops=words.crops or 1, fps=words.fps)
        yield row, _parts(predictor, windows, model.batch_size, bar)


def _parts(predictor: Predictor, windows: Iterator[Window], batch_size: int, bar: tqdm) -> Iterator[Part]:
    """As many windows at a time as fill a batch."""
    while group := list(itertools.islice(windows, 1)):
        group += itertools.islice(windows, max(batch_size // len(group[0].views), 1) - 1)
        outputs = predictor.outputs(torch.from_numpy(np.concatenate([window.views for window in group])))
        for window, output in zip(group, outputs.unflatten(0, (len(group), -1)), strict=True):
            yield Part(predictor.answer(output), window.start, window.end)
        bar.set_postfix_str(f"{group[-1].end:.0f} s")


def _targets(out: str | None, videos: VideoList) -> list[str] | None:
    """Where the drawn video of each row goes. Raises ConfigError where two would be one, or it is the video itself."""
    if out is None:
        return None
    names = [videos.file(row) for row in range(len(videos))]
    if len(names) == 1 and Path(out).suffix and not Path(out).is_dir():
        if Path(out).suffix.lower() != ".mp4":
            raise ConfigError(f"--render ({out}) is written as MP4. Call it {Path(out).with_suffix('.mp4')}.")
        targets = [Path(out)]
    elif Path(out).suffix.lower() == ".mp4":
        raise ConfigError(f"--render ({out}) is one file for {len(names)} videos. Name a folder.")
    else:
        targets = [Path(out) / f"{Path(name).stem}.mp4" for name in names]
        if len(set(targets)) < len(targets):  # two videos of one name, in two folders
            targets = [Path(out) / f"{row:05d}-{Path(name).stem}.mp4" for row, name in enumerate(names)]
    for target, name in zip(targets, names, strict=True):
        if target.exists() and Path(name).exists() and target.samefile(name):
            raise ConfigError(f"--render would write over the video {name} itself. Give another place.")
    return [str(target) for target in targets]
