"""What is to be transcoded, and where each copy goes: the folders stay, the ending becomes .mp4."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from umt.data.lists.class_folders import VIDEO_ENDINGS
from umt.data.lists.lines import Form, Row, separator_of
from umt.data.lists.reading import read_list
from umt.data.lists.video_list import VideoList
from umt.errors import AnnotationError, ConfigError
from umt.tools.data.transcode.crew import Job


@dataclass
class Plan:
    """The jobs, each video once, and the lists that want to be written anew.

    Attributes:
        lists: what to write into --out: name of the list, the list, and the job of each of its rows.
    """

    jobs: list[Job] = field(default_factory=list)
    lists: list[tuple[str, VideoList, list[Job]]] = field(default_factory=list)


def make_plan(given: Sequence[str], out: Path, *, prefix: str = "", separator: str = " ") -> Plan:
    """The plan for a folder of videos, or for lists. Raises ConfigError and AnnotationError."""
    if len(given) == 1 and os.path.isdir(given[0]):
        top = os.path.abspath(given[0])
        files = sorted(os.path.join(at, name) for at, _, names in os.walk(top) for name in names)
        # Copies that lie in a folder within are no originals.
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
    wanted = sorted({source for files in sources for source in files})
    urls = [source for source in wanted if "://" in source]
    if urls:
        raise ConfigError(f"--videos: {urls[0]} is no file of this machine. Copy the videos here first.")
    jobs = _jobs([os.path.abspath(source) for source in wanted], _top(wanted, prefix), out)
    new = [(Path(name).with_suffix(".csv").name, v) for name, v in zip(given, lists, strict=True)]
    return Plan(
        list(jobs.values()),
        [(name, v, [jobs[os.path.abspath(f)] for f in files]) for (name, v), files in zip(new, sources, strict=True)],
    )


def _top(files: Sequence[str], prefix: str) -> str:
    """The folder whose inside is kept as it is: the prefix, or else what all files have in common."""
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
        name = os.path.relpath(file if stem in twice else stem, top) + ".mp4"  # a.avi beside a.mp4: a.avi.mp4
        target = os.path.join(os.path.abspath(out), name)
        if os.path.realpath(target) in originals:
            raise ConfigError(f"--out ({out}) would write over the original {file}. Give another folder.")
        jobs[file] = Job(file, target, name)
    return jobs


def write_list(path: Path, videos: VideoList, jobs: Sequence[Job], done: set[str], separator: str) -> int:
    """Writes the list with the copies' paths, without the rows whose copy is not `done`; says how many rows it has."""
    form = Form(separator_of(separator))
    lines = []
    for row, job in enumerate(jobs):
        if job.name not in done:
            continue
        label = int(videos.labels[row])
        if label >= 0:
            lines.append(form.line(Row(job.name, -1, label)))
        elif job.name != job.name.strip() or "\n" in job.name:
            raise AnnotationError(f"The path {job.name!r} cannot stand in a list of text. Rename the file.")
        else:
            lines.append(job.name)
    temporary = path.with_name(path.name + ".part")
    temporary.write_text("".join(f"{line}\n" for line in lines), "utf-8", "surrogateescape")
    temporary.replace(path)
    return len(lines)
