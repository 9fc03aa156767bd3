"""What to transcode, and where each copy goes: the folders stay, the file extension becomes .mp4."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from umt.data.lists.lines import Form, Row, fits_a_line, separator_of
from umt.data.lists.reading import read_list
from umt.data.lists.video_list import VideoList
from umt.data.video.video_reader import VIDEO_ENDINGS
from umt.errors import AnnotationError, ConfigError
from umt.tools.data.transcode.crew import Job
from umt.writing import whole


@dataclass
class Plan:
    """The jobs, each video once, and the lists to write for the copies.

    Attributes:
        lists: name in --out, the original list, and the job of each of its rows.
    """

    jobs: list[Job] = field(default_factory=list)
    lists: list[tuple[str, VideoList, list[Job]]] = field(default_factory=list)


def make_plan(given: Sequence[str], out: Path, *, prefix: str = "", separator: str = " ") -> Plan:
    """The plan for a folder of videos, or for lists. Raises ConfigError and AnnotationError."""
    if len(given) == 1 and os.path.isdir(given[0]):
        top = os.path.abspath(given[0])
        files = sorted(os.path.join(at, name) for at, _, names in os.walk(top) for name in names)
        # Copies in a folder below are not originals.
        copies = os.path.join(os.path.abspath(out), "")
        within = copies != os.path.join(top, "")
        files = [f for f in files if f.lower().endswith(VIDEO_ENDINGS) and not (within and f.startswith(copies))]
        if not files:
            raise ConfigError(f"--videos ({given[0]}) holds no video ({', '.join(VIDEO_ENDINGS)}).")
        jobs = _jobs(files, top, out)
        return Plan(list(jobs.values()))
    if len({Path(name).name for name in given}) < len(given):
        raise ConfigError(f"--videos ({' '.join(given)}): two lists have the same name, and so would the new ones.")
    lists = [
        read_list(name, separator=separator, prefix=prefix, labels_optional=True, extension=".mp4") for name in given
    ]
    sources = [[videos.file(row) for row in range(len(videos))] for videos in lists]
    files = sorted({source for column in sources for source in column})
    urls = [source for source in files if "://" in source]
    if urls:
        raise ConfigError(f"--videos: {urls[0]} is not a file of this machine. Copy the videos here first.")
    jobs = _jobs([os.path.abspath(source) for source in files], _top(files, prefix), out)
    new = [(Path(name).with_suffix(".csv").name, v) for name, v in zip(given, lists, strict=True)]
    return Plan(
        list(jobs.values()),
        [(name, v, [jobs[os.path.abspath(f)] for f in column]) for (name, v), column in zip(new, sources, strict=True)],
    )


def _top(files: Sequence[str], prefix: str) -> str:
    """The folder below which paths are kept: the prefix, or else the common parent of all files."""
    absolute = [os.path.abspath(file) for file in files]
    top = os.path.abspath(prefix) if prefix else ""
    if top and all(file.startswith(top + os.sep) for file in absolute):
        return top
    return os.path.commonpath([os.path.dirname(file) for file in absolute])


def _jobs(files: Sequence[str], top: str, out: Path) -> dict[str, Job]:
    """{file: job}. Raises ConfigError where a copy would be written over an original."""
    stems = [os.path.splitext(file)[0] for file in files]
    twice = {stem for stem in stems if stems.count(stem) > 1} if len(set(stems)) < len(stems) else set()
    originals = {os.path.realpath(file) for file in files}
    jobs = {}
    for file, stem in zip(files, stems, strict=True):
        name = os.path.relpath(file if stem in twice else stem, top) + ".mp4"  # of a.avi next to a.mp4: a.avi.mp4
        target = os.path.join(os.path.abspath(out), name)
        if os.path.realpath(target) in originals:
            raise ConfigError(f"--out ({out}) would write over the original {file}. Give another folder.")
        jobs[file] = Job(file, target, name)
    return jobs


def write_list(path: Path, videos: VideoList, jobs: Sequence[Job], done: set[str], separator: str) -> int:
    """Writes the list with the paths of the copies that are `done`; returns how many rows it has."""
    form = Form(separator_of(separator))
    lines = []
    for row, job in enumerate(jobs):
        if job.name not in done:
            continue
        label = int(videos.labels[row])
        if label >= 0:
            lines.append(form.line(Row(job.name, -1, label)))
        elif not fits_a_line(job.name):
            raise AnnotationError(f"The path {job.name!r} cannot be written into a list of text. Rename the file.")
        else:
            lines.append(job.name)
    with whole(path, flush=False) as unfinished:
        unfinished.write_text("".join(f"{line}\n" for line in lines), "utf-8", "surrogateescape")
    return len(lines)
