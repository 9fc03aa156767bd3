"""How the main process writes checkpoints: at once or during the next steps, and how many of them stay."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from umt.engine import checkpoints


class Saver:
    """Writes a run's checkpoints into one folder. Only the main process has work here; elsewhere nothing is written."""

    def __init__(
        self, folder: Path | None, *, main: bool = True, keep_last: int | None = None, background: bool = False
    ) -> None:
        """`folder`: None saves nothing. `keep_last`: numbered checkpoints that stay. `background`: write in a thread,
        from a copy in memory, so that the next steps need not wait; one write at a time.
        """
        self.folder = folder
        self.main = main
        self.keep_last = keep_last
        self.background = background
        self._saved_at = time.monotonic()
        self._writing: threading.Thread | None = None
        self._error: Exception | None = None
        if folder is not None and main:
            checkpoints.check_writable(folder)

    def minutes_since_last(self) -> float:
        """Since the last write began, or since this object was made."""
        return (time.monotonic() - self._saved_at) / 60

    def write(self, state: Mapping[str, Any], names: list[str], *, epoch: int) -> None:
        """Writes `state` under each of `names`; a write that is still on its way is waited for first.

        `epoch`: of this state; numbered checkpoints beyond it are another run's, and are left alone.

        Raises:
            OutputError: no room or no right to write, also if it was the write before this one that failed.
        """
        self.wait()
        if self.folder is None or not self.main:
            return
        self._saved_at = time.monotonic()
        if not self.background:
            self._write(state, names, epoch)
            return
        copy = _copied(state)
        self._writing = threading.Thread(target=self._write_quietly, args=(copy, names, epoch), name="checkpoint")
        self._writing.start()

    def _write(self, state: Mapping[str, Any], names: list[str], epoch: int) -> None:
        assert self.folder is not None
        checkpoints.save_as(state, self.folder, names)
        if self.keep_last is not None:
            checkpoints.keep_newest(self.folder, self.keep_last, epoch=epoch)

    def _write_quietly(self, state: Mapping[str, Any], names: list[str], epoch: int) -> None:
        try:
            self._write(state, names, epoch)
        except Exception as error:  # noqa: BLE001  (whatever it is, the training thread raises it)
            self._error = error

    def check(self) -> None:
        """Raises what a write in the background has met by now."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def wait(self) -> None:
        """Until nothing is being written any more. Raises what the write in the background has met."""
        if self._writing is not None:
            self._writing.join()
            self._writing = None
        self.check()


def _copied(value: Any) -> Any:
    """`value` with every tensor copied to the CPU, so that the next steps may change the originals."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _copied(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(entry) for entry in value)
    return value
