"""Stores what a user sees now as what the tests of this folder expect: `python -m tests.frozen.record WHAT ...`.

The tests hold the command line and the files of runs while the code behind them moves. A change that a user is meant
to see is recorded by its name, in the commit that makes it, so that the difference of the golden file can be read:
dry_runs, help, files, scores. `videos` renders the videos of the runs again; another encoder gives other pixels, so
the scores have to be recorded after it.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.frozen import observed
from tests.videos import render


def record_dry_runs() -> None:
    write("dry_runs.json", observed.dry_runs())


def record_help() -> None:
    commands = [*observed.commands(), *observed.commands("data"), *observed.commands("weights")]
    flags = {command: observed.flag_table(command) for command in observed.COMMANDS}
    write("help.json", {"commands": commands, "flags": flags})


def record_files() -> None:
    content = {}
    for run in (observed.pretraining, observed.stopped_pretraining, observed.finetuning):
        with tempfile.TemporaryDirectory() as folder:
            content[run.__name__] = observed.files(run(Path(folder)))
    write("files.json", content)


def record_scores() -> None:
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(observed.finetuning(Path(folder)) / "scores.npz", observed.FROZEN)


def record_videos() -> None:
    """Four videos of different lengths, one a class; small enough for the repository."""
    observed.VIDEOS.mkdir(parents=True, exist_ok=True)
    lines = []
    for i in range(4):
        lines.append(f"{i}.mp4,{i}\n")
        options = {"crf": "24"}
        render(observed.VIDEOS / f"{i}.mp4", frames=12 + i, width=64, height=48, label=i, options=options)
    for name, count in (("train", 4), ("val", 2), ("test", 3)):
        (observed.VIDEOS / f"{name}.csv").write_text("".join(lines[:count]))


def write(name: str, content: Any) -> None:
    text = json.dumps(content, indent=1, ensure_ascii=False)
    (observed.FROZEN / name).write_text(text + "\n", encoding="utf-8")


RECORDS = {
    "dry_runs": record_dry_runs,
    "help": record_help,
    "files": record_files,
    "scores": record_scores,
    "videos": record_videos,
}

if __name__ == "__main__":
    if not sys.argv[1:] or not set(sys.argv[1:]) <= set(RECORDS):
        sys.exit(f"Name what to record: {', '.join(RECORDS)}.")
    for what in sys.argv[1:]:
        RECORDS[what]()
