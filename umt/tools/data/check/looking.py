"""Looks at files, each in a process that may hang or die because of it (`umt.data.loading.pool`)."""

from __future__ import annotations

import functools
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from umt.data.loading.pool import Pool
from umt.data.storage.urls import is_url
from umt.errors import VideoError

# How FFmpeg complains about a file that is shorter than its container promises.
_ENDS_EARLY = re.compile("ended prematurely|partial file", re.IGNORECASE)


@dataclass
class Facts:
    """What decoding shows of a file. `problem` is a kind of finding, "" if it can be read; `cause` says more."""

    problem: str = ""
    cause: str = ""
    frames: int = 0  # that a full decode gives
    announced: int = 0  # by the container; 0: it does not say
    width: int = 0
    height: int = 0
    rate: float = 0.0  # frames a second
    codec: str = ""
    damaged: int = 0  # errors that the decoder reported and concealed
    damage: str = ""  # the first of them
    seconds: float = 0.0  # that it took


class Task(NamedTuple):
    """A file to look at; `frames` is -1 for a video, else the listed number of images in a folder.

    `part`: the tar file, place and size of one that is in a shard.
    """

    path: str
    frames: int = -1
    part: tuple[str, int, int] | None = None


def look_at(tasks: Sequence[Task], *, workers: int, limit: float, decoder: str) -> Iterator[tuple[int, Facts]]:
    """Place in `tasks` and facts of each file, in any order.

    A file that takes more than `limit` seconds (0: any time) or whose process dies has that for its problem. Raises
    UserError where the processes cannot start.
    """
    if not tasks:
        return
    # Spawned: small, and nothing of this process, its threads above all, is in the way.
    pool = Pool(
        functools.partial(look, decoder=decoder),
        workers=max(1, min(workers, len(tasks))),
        start_method="spawn",
        timeout=limit,
        start=_start,
        lost=functools.partial(_lost, limit=limit),
    )
    try:
        yield from pool.finished(tasks)
    finally:
        pool.close()


def _start() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    # Now, so that no file's time goes into it.
    import av
    import cv2  # noqa: F401

    from umt.data.video import (
        probe,  # noqa: F401
        reader,  # noqa: F401
    )

    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)  # two files in a row may have the same damage
    nowhere = os.open(os.devnull, os.O_WRONLY)  # libraries print what is in the findings already
    for stream in (1, 2):
        os.dup2(nowhere, stream)


def _lost(task: Task, how: str, limit: float) -> Facts:
    return Facts("crashes", f"decoding it ended with {how}") if how else Facts("hangs", f"no end after {limit:g} s")


def look(task: Task, decoder: str = "auto") -> Facts:
    """Decodes the whole file: a video by PyAV, and three frames of it as runs do; or a folder of images."""
    start = time.perf_counter()
    if task.part is not None or is_url(task.path):
        facts = _elsewhere(task.path, decoder, task.part)
    else:
        facts = _video(task.path, decoder) if task.frames < 0 else _folder(task.path, task.frames)
    facts.seconds = round(time.perf_counter() - start, 3)
    return facts


def _elsewhere(name: str, decoder: str, part: Sequence[Any] | None) -> Facts:
    from umt.data.storage import remote
    from umt.data.storage.lending import path_of_bytes, path_of_part

    try:
        if part is None or is_url(part[0]):
            lent = path_of_bytes(remote.read(*(part or (name,))))
        else:
            lent = path_of_part(*part)
        with lent as path:
            facts = _video(path, decoder)
            facts.cause = facts.cause.replace(path, name)
            return facts
    except remote.RemoteError as error:
        return Facts("unreadable", str(error))
    except OSError as error:
        return Facts("unreadable", error.strerror or str(error))


def _folder(path: str, listed: int) -> Facts:
    from umt.data.video.reader import open_folder

    facts = Facts(codec="images")
    try:
        with open_folder(path, listed or None, "img_{:05}.jpg" if listed else None) as video:
            facts.announced = len(video)
            for number in range(len(video)):
                height, width = video.frames([number]).shape[1:3]
                if facts.frames and (width, height) != (facts.width, facts.height):
                    raise VideoError(
                        f"frame {number} is {width} x {height}, those before {facts.width} x {facts.height}."
                    )
                facts.frames, facts.width, facts.height = number + 1, width, height
    except VideoError as error:
        facts.problem, facts.cause = "undecodable", _cause(path, error)
    return facts


def _video(path: str, decoder: str) -> Facts:
    from umt.data.video.mp4 import ends_early
    from umt.data.video.probe import probe
    from umt.data.video.reader import open_video

    facts = Facts()
    try:
        known = probe(path)
        _decode(path, facts)
        if not facts.frames:
            raise VideoError("no frame of it can be decoded")
        if known.timed and facts.frames != len(known.times):
            facts.announced = len(known.times)
        # If all announced frames are there, only rubbish behind the end is cut off.
        lacking = not facts.announced or facts.frames < facts.announced
        if lacking and (_ENDS_EARLY.search(facts.damage) or (facts.announced and ends_early(path))):
            facts.problem, facts.cause = "truncated", f"the file ends early, after {facts.frames} frames"
            return facts
        with open_video(path, decoder) as video:
            last = len(video) - 1
            video.frames([0, last // 2, last])
            if len(video) != facts.frames:
                facts.announced = len(video)
    except VideoError as error:
        cause = _cause(path, error)
        facts.problem, facts.cause = "truncated" if "truncated" in str(error) else "undecodable", cause
        if ends_early(path):
            facts.problem, facts.cause = "truncated", f"its container goes on where the file ends ({cause})"
    return facts


def _decode(path: str, facts: Facts) -> None:
    import av

    with av.logging.Capture(local=True) as messages, av.open(path) as container:
        stream: Any = container.streams.video[0]
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        facts.codec, facts.rate = stream.codec_context.name, round(float(stream.average_rate or 0), 3)
        hidden = False
        try:
            for packet in container.demux(stream):
                hidden = hidden or packet.is_discard
                for frame in packet.decode():
                    if facts.frames and (frame.width, frame.height) != (facts.width, facts.height):
                        raise VideoError(f"its frames change size, after {facts.frames}")
                    facts.width, facts.height = frame.width, frame.height
                    facts.frames += 1
        except (av.FFmpegError, EOFError) as error:
            raise VideoError(
                f"decoding fails after {facts.frames} frames: {getattr(error, 'strerror', None) or error}"
            ) from None
        facts.announced = 0 if hidden else stream.frames
    wrong = [text.strip() for level, _, text in messages if level <= av.logging.ERROR]
    early = [text for text in wrong if _ENDS_EARLY.search(text)]
    facts.damaged, facts.damage = len(wrong), (early or wrong)[0][:200] if wrong else ""


def _cause(path: str, error: VideoError) -> str:
    """The cause without the name of the file, which the finding has."""
    text = str(error).replace(f"{path}: cannot be read as a video (", "").replace(f"{path}: ", "")
    return text.removesuffix(").").removeprefix("truncated: ").strip()[:300]
