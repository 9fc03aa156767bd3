"""What a run says and leaves behind: console lines or a progress bar, log.txt, steps.jsonl, tensorboard scalars.

log.txt has one JSON object per epoch with the original's names (train_*, val_*, epoch, n_parameters). All of a run's
record is a function of its steps, so a run that was cut and resumed leaves the same lines as one left alone, but for
the fields that `WALL_CLOCK` lists.
"""

from __future__ import annotations

import datetime
import json
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from umt.errors import OutputError
from umt.writing import replacing

log = logging.getLogger(__name__)
# The fields of log.txt that differ between two runs of the same recipe.
WALL_CLOCK = ("train_seconds", "train_data_share", "train_samples_per_second", "val_seconds", "rss_gb", "cuda_peak_gb")


class _ConsoleHandler(logging.StreamHandler[Any]):
    """Writes above a progress bar that may be on the screen, instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        if "tqdm" in sys.modules and sys.stderr.isatty():
            from tqdm import tqdm

            tqdm.write(self.format(record), file=sys.stderr)
        else:
            super().emit(record)


def setup_console(*, main: bool = True, level: int = logging.INFO) -> None:
    """For the command line: the library's messages go to stderr; from processes but the main one, errors only."""
    logger = logging.getLogger("umt")
    for handler in [h for h in logger.handlers if isinstance(h, _ConsoleHandler)]:
        logger.removeHandler(handler)
    handler = _ConsoleHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger.addHandler(handler)
    logger.setLevel(level if main else logging.ERROR)
    logger.propagate = False


def append_line(path: Path, content: Mapping[str, Any], *, sync: bool = True) -> None:
    """Adds one JSON line to `path`; `sync` waits until it is on the disk, safe from a power cut too.

    Raises:
        OutputError: the disk is full or the folder cannot be written.
    """
    line = json.dumps({k: _plain(v) for k, v in content.items()})
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            if sync:
                os.fsync(file.fileno())
    except OSError as error:
        raise OutputError(
            f"{path} could not be written: {error.strerror or error}. "
            "Free some space, then start the same command again: it resumes."
        ) from error


def _plain(value: Any) -> Any:
    """JSON has no nan or inf; null says that there is no number."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def cut_lines(path: Path, later: Callable[[dict[str, Any]], bool]) -> None:
    """Drops from the JSON lines of `path` everything from the first that is `later`, and a last line that a kill tore.

    The file is replaced as a whole; lines that stay keep their bytes.
    """
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept: list[str] = []
    for number, line in enumerate(lines):
        try:
            content = json.loads(line)
        except ValueError:
            if number == len(lines) - 1:
                break
            content = {}
        if isinstance(content, dict) and later(content):
            break
        kept.append(line if line.endswith("\n") else line + "\n")
    if kept != lines:
        with replacing(path) as file:
            file.write("".join(kept).encode())


def rss_gb() -> float:
    """Memory of this process in GB; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e9
    except OSError:
        return 0.0


def cuda_peak_gb() -> float:
    """Peak of CUDA memory in use in GB; 0 on the CPU."""
    return torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else 0.0


class Stopwatch:
    """Seconds spent since `restart`, and those of them spent waiting for data."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.began, self.waited, self.samples, self.steps = time.perf_counter(), 0.0, 0, 0

    def add(self, *, waited: float, samples: int) -> None:
        self.waited += waited
        self.samples += samples
        self.steps += 1

    @property
    def seconds(self) -> float:
        return max(time.perf_counter() - self.began, 1e-9)

    def rates(self) -> dict[str, float]:
        """seconds; data_share: fraction of them spent waiting for data; samples_per_second."""
        seconds = self.seconds
        return {
            "seconds": round(seconds, 3),
            "data_share": round(self.waited / seconds, 4),
            "samples_per_second": round(self.samples / seconds, 3),
        }


class RunLog:
    """Record of one run. Only the main process writes; in the others every call does nothing."""

    def __init__(
        self,
        output_dir: Path | None,
        *,
        tensorboard_dir: Path | None = None,
        log_every: int = 10,
        steps_file: bool = False,
        main: bool = True,
        progress_bar: bool | None = None,
    ) -> None:
        """output_dir: None leaves no files. log_every: steps between console lines. steps_file: also write steps.jsonl.
        progress_bar: None shows one when stderr is a terminal and prints lines otherwise.
        """
        self.output_dir = output_dir if main else None
        self.log_every = log_every
        self.steps_file = steps_file
        self.main = main
        self._tensorboard_dir = tensorboard_dir if main else None
        self._tensorboard: Any = None
        self._wants_bar = main and (sys.stderr.isatty() if progress_bar is None else progress_bar)
        self._bar: Any = None
        self._window, self._whole = Stopwatch(), Stopwatch()
        self._epochs, self._steps, self._step_seconds = 1, 1, 0.0

    # ---- life of a run

    def rewind(self, *, epoch: int, global_step: int) -> None:
        """Before the first step: drops what a killed run wrote after the checkpoint that this run starts from."""
        if self.output_dir is not None:
            # A line without an epoch is the final test's: it is of a run that ended here and now goes on.
            cut_lines(self.output_dir / "log.txt", lambda line: line.get("epoch", epoch) >= epoch)
            cut_lines(self.output_dir / "steps.jsonl", lambda line: line.get("step", -1) >= global_step)
            cut_lines(self.output_dir / "failures.jsonl", lambda line: line.get("step", -1) >= global_step)
        if self._tensorboard_dir is not None:
            self._tensorboard = _tensorboard(self._tensorboard_dir, global_step)

    def start_epoch(self, epoch: int, *, epochs: int, first_step: int, steps: int) -> None:
        self._epochs, self._steps = epochs, steps
        self._window.restart()
        self._whole.restart()
        if self._wants_bar and first_step < steps:
            self._bar = _progress_bar(f"epoch {epoch + 1}/{epochs}", first_step, steps)

    def step(self, epoch: int, step: int, values: Mapping[str, float], *, waited: float, samples: int) -> None:
        """One optimiser step: `values` to show, seconds `waited` for data, `samples` taken by all processes."""
        if not self.main:
            return
        self._window.add(waited=waited, samples=samples)
        self._whole.add(waited=waited, samples=samples)
        global_step = epoch * self._steps + step
        if self._bar is not None:
            self._bar.update(1)
        if (step + 1) % self.log_every and step + 1 != self._steps:
            return
        self._step_seconds = self._window.seconds / self._window.steps
        line = self._line(epoch, step, values)
        if self._bar is not None:
            self._bar.set_postfix_str(line)
        else:
            log.info("epoch %d/%d step %d/%d  %s", epoch + 1, self._epochs, step + 1, self._steps, line)
        self._window.restart()
        if self.steps_file and self.output_dir is not None:
            append_line(self.output_dir / "steps.jsonl", {"step": global_step, "epoch": epoch, **values}, sync=False)
        if self._tensorboard is not None:
            for name, value in values.items():
                head = "opt" if name in ("lr", "min_lr", "weight_decay", "loss_scale", "grad_norm") else "loss"
                self._tensorboard.add_scalar(f"{head}/{name}", value, global_step)

    def _line(self, epoch: int, step: int, values: Mapping[str, float]) -> str:
        rates = self._window.rates()
        remaining = (self._epochs - epoch) * self._steps - step - 1
        eta = datetime.timedelta(seconds=round(remaining * self._step_seconds))
        shown = [f"{name} {value:.4g}" for name, value in values.items() if name not in ("min_lr", "weight_decay")]
        shown += [f"{rates['samples_per_second']:.3g} samples/s", f"data {rates['data_share']:.0%}"]
        shown.append(f"rss {rss_gb():.1f} GB")
        if torch.cuda.is_available():
            shown.append(f"cuda {cuda_peak_gb():.1f} GB")
        return "  ".join([*shown, f"eta {eta}"])

    def end_steps(self) -> dict[str, float]:
        """Closes the epoch's progress bar; the wall-clock fields of its training part."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        fields = {f"train_{name}": value for name, value in self._whole.rates().items()}
        fields["rss_gb"] = round(rss_gb(), 3)
        if torch.cuda.is_available():
            fields["cuda_peak_gb"] = round(cuda_peak_gb(), 3)
        return fields

    def epoch(self, line: Mapping[str, Any], *, global_step: int) -> None:
        """Appends `line` to log.txt, shows its main numbers, and sends val_* to tensorboard."""
        if not self.main:
            return
        shown = {k: v for k, v in line.items() if k == "train_loss" or k.startswith("val_")}
        numbers = "  ".join(f"{name} {value:.5g}" for name, value in shown.items())
        log.info(
            "epoch %d/%d done in %.0f s  %s", line["epoch"] + 1, self._epochs, line.get("train_seconds", 0), numbers
        )
        if self.output_dir is not None:
            append_line(self.output_dir / "log.txt", line)
        if self._tensorboard is not None:
            for name, value in shown.items():
                if name.startswith("val_") and name not in WALL_CLOCK:
                    self._tensorboard.add_scalar(f"perf/{name}", value, global_step)
            self._tensorboard.flush()

    def append(self, line: Mapping[str, Any]) -> None:
        """A further line of log.txt, such as the final test's result."""
        if self.output_dir is not None:
            append_line(self.output_dir / "log.txt", line)

    def failure(self, line: Mapping[str, Any]) -> None:
        """A training video that could not be read and was replaced, into failures.jsonl."""
        if self.output_dir is not None:
            append_line(self.output_dir / "failures.jsonl", line)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        if self._tensorboard is not None:
            self._tensorboard.close()
            self._tensorboard = None


def _progress_bar(title: str, first: int, steps: int) -> Any:
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    return tqdm(desc=title, initial=first, total=steps, file=sys.stderr, leave=False, dynamic_ncols=True)


def _tensorboard(folder: Path, global_step: int) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        log.warning("tensorboardX is not installed, so no scalars are written to %s (pip install tensorboardX)", folder)
        return None
    # purge_step hides what a killed run wrote after its last checkpoint, and a restarted run what was there before. As
    # an event of its own it also starts all threads of the writer now: when memory has ended none can be started, and
    # the writer would wait at the exit indefinitely for one that never came.
    return SummaryWriter(str(folder), purge_step=global_step)
