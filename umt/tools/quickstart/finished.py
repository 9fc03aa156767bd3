"""What a finished quickstart left in its folder. Shapes: R videos, K classes."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from umt.errors import UserError
from umt.evaluation.multiview import merge
from umt.evaluation.scores import ViewScores
from umt.evaluation.summary import Summary, summarise
from umt.tools.quickstart.figures import Logs

TESTED = {"finetune": "pretrained", "scratch": "from scratch"}  # run -> what it is called in the report
_RUNS = ("pretrain", *TESTED)
_AGAIN = "Run scripts/quickstart.sh again, it goes on where it stopped; --fresh starts over."
_WIDTH = 108  # of a line of a command


class ReportError(UserError):
    """The folder does not hold a finished quickstart."""


@dataclass(frozen=True)
class Tested:
    """One finished test: its numbers, and its answer to every video."""

    summary: Summary
    labels: NDArray[np.int64]  # (R,)
    probability: NDArray[np.float64]  # (R, K), merged over the views

    @property
    def correct(self) -> NDArray[np.bool_]:
        """(R,): whether the true class comes first."""
        return self.probability.argmax(1) == self.labels


@dataclass(frozen=True)
class Finished:
    """A finished quickstart.

    Attributes:
        tests: of the runs `TESTED`.
        logs: lines of log.txt, of all runs and of the teacher.
        flags: run -> flag -> value, from config.json.
        seconds: how long each stage took, where its files tell.
        commands: run -> its command line.
        probes: content of probe/results.json.
    """

    folder: Path
    classes: list[str]
    tests: dict[str, Tested]
    logs: Logs
    flags: dict[str, dict[str, Any]]
    seconds: dict[str, float]
    commands: dict[str, str]
    probes: dict[str, Any]


def read(folder: Path) -> Finished:
    """Reads a finished quickstart. ReportError naming the file that is missing, or tests that cannot be compared."""
    classes = [line for line in _text(folder / "data" / "labels.txt").splitlines() if line]
    logs = {
        run: [json.loads(line) for line in _text(folder / run / "log.txt").splitlines()] for run in ("teacher", *_RUNS)
    }
    flags = {run: json.loads(_text(folder / run / "config.json")) for run in _RUNS}
    scores = {run: ViewScores.load(present(folder / run / "scores.npz")) for run in TESTED}
    finetuned, scratch = scores.values()
    same = finetuned.classes == scratch.classes == len(classes) and finetuned.paths == scratch.paths
    if not (same and np.array_equal(finetuned.labels, scratch.labels)):
        raise ReportError(f"{folder}: the two tests and data/labels.txt do not agree in videos or classes. {_AGAIN}")
    for test in scores.values():
        test.class_names = classes
    probes = json.loads(_text(folder / "probe" / "results.json"))
    return Finished(
        folder,
        classes,
        tests={run: Tested(summarise(test), test.labels, merge(test.logits)) for run, test in scores.items()},
        logs=logs,
        flags=flags,
        seconds={**_seconds(folder, logs), "the probes": probes["seconds"]},
        commands={
            **{run: _command(folder / run) for run in _RUNS},
            "probe": typed(["probe", *probes["command"][2:]]),
        },
        probes=probes,
    )


def present(path: Path) -> Path:
    """`path`, if there is such a file; ReportError else."""
    if not path.is_file():
        raise ReportError(f"{path} is missing, so the quickstart has not finished. {_AGAIN}")
    return path


def _text(path: Path) -> str:
    return present(path).read_text(encoding="utf-8")


def _command(run: Path) -> str:
    """The command that started `run`."""
    last = json.loads(_text(run / "environment.jsonl").splitlines()[-1])
    words = [str(word) for word in last["command"]]
    start = next((i for i, word in enumerate(words) if word in ("pretrain", "finetune", "test")), len(words))
    return typed(words[start:])


def typed(words: Sequence[str]) -> str:
    """`python -m umt WORDS` as a person types it: in lines of whole flags, each at most `_WIDTH` wide."""
    flags: list[list[str]] = [["python", "-m", "umt"]]
    for word in words:
        if word.startswith("--"):
            flags.append([])
        flags[-1].append(word)
    lines = [shlex.join(flags[0])]
    for flag in map(shlex.join, flags[1:]):
        if len(lines[-1]) + 1 + len(flag) <= _WIDTH:
            lines[-1] += f" {flag}"
        else:
            lines.append(f"    {flag}")
    return " \\\n".join(lines)


def _seconds(folder: Path, logs: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, float]:
    """Stages and their seconds: training and validation from the logs, the test from the times of its files."""
    stages = {}
    for run, name in (("pretrain", "pretraining"), ("finetune", "finetuning"), ("scratch", "training from scratch")):
        stages[name] = sum(line.get("train_seconds", 0) + line.get("val_seconds", 0) for line in logs[run])
    trained, tested = (folder / "finetune" / name for name in ("checkpoint-latest.pth", "test.json"))
    if trained.exists() and tested.exists():
        stages["a test"] = tested.stat().st_mtime - trained.stat().st_mtime
    # A test that was continued later counts the pause between; what took hours was such a pause.
    return {name: value for name, value in stages.items() if 0 < value < 3600}
