"""Which videos are done, in a file next to the copies that gets a line per video, so that a stopped run continues."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from umt.errors import ConfigError
from umt.formats import Format
from umt.tools.data.transcode.crew import Job
from umt.tools.data.transcode.encode import Settings, Written

NAME = "transcoded.jsonl"
FAILED = "failed.jsonl"
FORMAT = Format("a record of transcoded videos", ConfigError)


class Manifest:
    """`transcoded.jsonl`: the settings, then a line for each copy with the size and date of its original."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        """Raises ConfigError where `folder` holds copies of other settings, or the record of a later version."""
        self._path = folder / NAME
        self.new = not self._path.exists()  # whether this command has not written into `folder` before
        self._done: dict[str, dict[str, Any]] = {}
        if self._path.exists():
            whole = [line for line in self._path.read_text("utf-8").splitlines(keepends=True) if line.endswith("\n")]
            head = json.loads(whole[0]) if whole else {"settings": asdict(settings)}
            FORMAT.check(head, self._path)
            different = {k: v for k, v in head["settings"].items() if v != asdict(settings).get(k)}
            if different:
                flags = " ".join(f"--{name} {value}" for name, value in different.items())
                raise ConfigError(f"--out ({folder}) holds copies made with {flags}. Give these, or another --out.")
            self._done = {entry["path"]: entry for entry in map(json.loads, whole[1:])}
            self._path.write_text("".join(whole), "utf-8")  # without the half of a line that a crash left
        self._settings = settings

    def done(self, job: Job) -> bool:
        """Whether the copy is there and made from the original as it is now."""
        entry = self._done.get(job.name)
        return (
            entry is not None
            and os.path.exists(job.target)
            and os.path.getsize(job.target) == entry["bytes"]
            and os.path.exists(job.source)
            and _size_and_time(job.source) == (entry["original_bytes"], entry["original_time"])
        )

    def add(self, job: Job, written: Written) -> None:
        """The copy of `job` is there."""
        size, changed = _size_and_time(job.source)
        entry = {"path": job.name, "original": job.source, "original_bytes": size, "original_time": changed}
        self._done[job.name] = {**entry, **asdict(written)}
        self._line(self._done[job.name])

    def sizes(self, jobs: list[Job]) -> tuple[int, int]:
        """Bytes of the originals and of the copies of those of `jobs` that are done."""
        entries = [self._done[job.name] for job in jobs if job.name in self._done]
        return sum(e["original_bytes"] for e in entries), sum(e["bytes"] for e in entries)

    def begin(self) -> None:
        """Locks the folder. Raises ConfigError while another process writes into it."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115 (open, and locked, as long as this lives)
        try:
            import fcntl

            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # Windows
            pass
        except BlockingIOError:
            raise ConfigError(
                f"--out ({self._path.parent}): another process is transcoding into it. Wait for it."
            ) from None
        if not self._path.stat().st_size:
            self._line({**FORMAT.stamp(), "settings": asdict(self._settings)})

    def _line(self, entry: dict[str, Any]) -> None:
        self._file.write(json.dumps(entry, ensure_ascii=True) + "\n")
        self._file.flush()


def _size_and_time(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns
