"""What runs in a process of `umt.data.loading.pool`, and how its items travel to the parent.

Nothing here needs torch unless items hold tensors: the tools that check and transcode videos have none in their
workers.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import TYPE_CHECKING, Any

from umt.data.video import guard
from umt.data.video.guard import Board

if TYPE_CHECKING:
    import torch

ORPHAN = 5.0  # seconds between a worker's looks at whether its parent lives
SMALL = 1 << 16  # bytes of a tensor that travels by value


@dataclass(frozen=True)
class Raised:
    """An exception in a worker, as text: the exception itself may not survive pickling."""

    text: str
    starting: bool = False  # before the first item

    @property
    def last_line(self) -> str:
        """Type and message, without the traceback."""
        return self.text.strip().splitlines()[-1]


def work(
    make: Callable[[Any], Any],
    start: Callable[[], None],
    pipe: Connection[Any, Any],
    board: Board,
    board_names_items: bool,
) -> None:
    """Makes items until the pipe closes. On `board` stands which item is being made, or else which file is read."""
    parent = os.getppid()  # under "forkserver" not the pool's process, but it ends with it
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent ends this one
    try:
        try:
            start()
        except Exception:  # noqa: BLE001 - a package that cannot be imported, for instance
            pipe.send((0, 0, Raised(traceback.format_exc(), starting=True)))
            return
        # After `start`, which may block signals for all threads to come.
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
        if not board_names_items:
            guard.attach(board)
        while True:
            turn, number, entry, refused = pipe.recv()
            guard.refuse(refused)
            if board_names_items:
                board.write(f"{turn} {number}")
            try:
                item = make(entry)
            except Exception:  # noqa: BLE001 - any error is the consumer's to raise
                item = Raised(traceback.format_exc())
            board.write("")
            _send(pipe, (turn, number, item))
            del item  # or its memory would be kept while the next item is made
    except (EOFError, ConnectionError):
        return


def _end_with(parent: int) -> None:
    """Ends this process soon after its parent, even in the middle of a file that hangs.

    The pipe alone does not tell: forked siblings hold its other end open.
    """
    while os.getppid() == parent:
        time.sleep(ORPHAN)
    os._exit(0)


class _Pickler(ForkingPickler):
    """Large tensors travel as shared memory, each by its own connection; small ones are quicker by value."""

    def reducer_override(self, thing: Any) -> Any:
        torch = sys.modules.get("torch")
        if torch and type(thing) is torch.Tensor and thing.nbytes < SMALL and not thing.is_shared():
            return torch.from_numpy, (thing.numpy(),)
        return NotImplemented


def _send(pipe: Connection[Any, Any], message: Any) -> None:
    buffer = io.BytesIO()
    _Pickler(buffer, pickle.HIGHEST_PROTOCOL).dump(message)
    pipe.send_bytes(buffer.getbuffer())


def empty_to_send(shape: tuple[int, ...]) -> torch.Tensor:
    """uint8 of that shape; in a worker it is in memory shared with the parent, so that sending it copies nothing."""
    import torch

    if not guard.is_watched() or math.prod(shape) < SMALL:
        return torch.empty(shape, dtype=torch.uint8)
    shared = torch.UntypedStorage._new_shared(math.prod(shape))  # as torch's own collate function does
    return torch.empty(0, dtype=torch.uint8).set_(shared).view(shape)
