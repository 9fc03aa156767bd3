"""A wish to stop that comes from outside: a signal, --max_hours, or another rank. The run acts on it at its next step.

`Preemption` only remembers; the trainer asks it once a step, and all ranks agree. No torch here, so that the handlers
are there before torch has been imported. They belong to whoever owns the process, and go when the `with` block ends.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from types import FrameType, TracebackType
from typing import Any

log = logging.getLogger(__name__)
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
# Schedulers and launchers pass one signal on by several ways within moments; after this, another SIGTERM counts again.
PATIENCE_SECONDS = 10.0


class Preemption:
    """Remembers that the run is asked to stop, and by what."""

    def __init__(self, *, max_hours: float | None = None) -> None:
        """`max_hours`: counted from now; None: no limit."""
        self._deadline = None if max_hours is None else time.monotonic() + 3600 * max_hours
        self._max_hours = max_hours
        self._reason: str | None = None
        self._asked_at = 0.0
        self._before: dict[signal.Signals, Any] = {}

    @property
    def reason(self) -> str | None:
        """What asked for the stop, as the start of a sentence; None while nothing has."""
        if self._reason is None and self._deadline is not None and time.monotonic() >= self._deadline:
            self._reason = f"--max_hours ({self._max_hours:g}) are over"
        return self._reason

    def ask(self, reason: str) -> None:
        """Asks for the stop; the first reason stays."""
        if self._reason is None:
            self._reason, self._asked_at = reason, time.monotonic()

    def __enter__(self) -> Preemption:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            for number in SIGNALS:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self._reason is None:
            self.ask(f"{name} was received")
        elif number == signal.SIGTERM and time.monotonic() - self._asked_at > PATIENCE_SECONDS:
            # No step has ended since: whoever asks again wants the process gone. That costs what a SIGKILL costs, the
            # steps since the last checkpoint.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


def job_of(environ: Mapping[str, str]) -> str | None:
    """The SLURM job (or array task) that this process is part of, as `scontrol` names it; None outside SLURM."""
    array, task = environ.get("SLURM_ARRAY_JOB_ID"), environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else environ.get("SLURM_JOB_ID") or None


def requeue(job: str) -> str:
    """Puts the SLURM job back into the queue, unless someone has cancelled it; a sentence on what came of it.

    `scontrol requeue` would bring a cancelled job back to life, and a cancelled job gets the same SIGTERM as a
    preempted one. A job that was warned still runs. One that SLURM is ending is COMPLETING: at its time limit it wants
    the requeue, preempted it is about to start again anyway, and cancelled it stays so.
    """
    output = _scontrol("show", "job", "--oneliner", job)[1]
    facts = dict(word.split("=", 1) for word in output.split() if "=" in word)
    if facts.get("JobState") in ("COMPLETING", "CANCELLED") and facts.get("Reason") != "TimeLimit":
        if facts.get("Restarts", "0") != os.environ.get("SLURM_RESTART_COUNT", "0"):
            return f"SLURM is requeueing job {job}, which goes on by itself."
        return f"SLURM job {job} was cancelled, so it is not requeued: the same command goes on from here."
    code, output = _scontrol("requeue", job)
    if code == 0:
        return f"SLURM job {job} is requeued and goes on by itself."
    return f"SLURM did not requeue job {job} ({output.strip() or f'code {code}'}): the same command goes on from here."


def _scontrol(*words: str) -> tuple[int, str]:
    """Exit code and output."""
    try:
        done = subprocess.run(["scontrol", *words], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return 1, f"scontrol {words[0]}: {error}"
    return done.returncode, done.stdout + done.stderr
