"""Which file a process that loads data is reading now, for the process that watches it (`umt.data.loading.pool`).

A decoder hangs or crashes in C, where no Python exception reaches it: the whole process must be ended. The file that it
was reading is on its `Board`, in memory that outlives it, and the processes that come after refuse that file.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Mapping
from multiprocessing.context import BaseContext
from typing import Any

from umt.errors import VideoError

_HEAD = struct.Struct("QH")  # how often the board was written, bytes of the name
_NAME = 4096


class Board:
    """The name of one file, written by a worker and read by its parent."""

    def __init__(self, context: BaseContext) -> None:
        self._memory: Any = context.RawArray(ctypes.c_char, _HEAD.size + _NAME)
        self._written = 0

    def write(self, name: str) -> None:
        """ "" says that nothing is being read."""
        encoded = name.encode("utf-8", "surrogateescape")[:_NAME]
        self._written += 1
        self._memory[_HEAD.size : _HEAD.size + len(encoded)] = encoded
        self._memory[: _HEAD.size] = _HEAD.pack(self._written, len(encoded))

    def read(self) -> tuple[int, str]:
        """How often it was written, and the name. Two equal answers: the same read is still going on."""
        written, length = _HEAD.unpack(self._memory[: _HEAD.size])
        return written, self._memory[_HEAD.size : _HEAD.size + length].decode("utf-8", "surrogateescape")


_board: Board | None = None  # of this process; None where no other watches it
_refused: dict[str, str] = {}  # names and causes


def attach(board: Board) -> None:
    """From now on this process writes on `board` what it reads."""
    global _board
    _board = board


def is_watched() -> bool:
    """Whether this process is a worker."""
    return _board is not None


def refuse(names: Mapping[str, str]) -> None:
    """Files that this process will not read again, and why."""
    _refused.update(names)


def begin(name: str) -> None:
    """This process is about to read `name`. Raises VideoError if an earlier try hung or crashed."""
    if name in _refused:
        raise VideoError(f"{name}: cannot be read as a video ({_refused[name]}).")
    if _board is not None:
        _board.write(name)


def end() -> None:
    """This process has finished reading a file."""
    if _board is not None:
        _board.write("")
