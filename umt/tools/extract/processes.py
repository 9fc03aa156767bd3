"""`--processes N`: the same command N times on this machine, numbered as torchrun numbers them; it ends as one.

And how processes, also those of torchrun or srun, agree on an error: none waits for one that has ended.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from umt.errors import EXIT_PEER_LOST, PeerLostError, UserError

if TYPE_CHECKING:
    from umt.engine.runtime import Runtime

T = TypeVar("T")
_CHILD = "UMT_ENDS_WITH_STDIN"


def start(count: int, argv: Sequence[str]) -> int:
    """Runs `python -m umt ARGV` as `count` processes; their exit code. Raises PeerLostError for one that was killed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    crew = []
    try:
        for rank in range(count):
            numbers = {**common, _CHILD: 1, "RANK": rank, "LOCAL_RANK": rank}
            crew.append(
                subprocess.Popen(
                    [sys.executable, "-m", "umt", *argv],
                    stdin=subprocess.PIPE,
                    env={**os.environ, **{name: str(value) for name, value in numbers.items()}},
                )
            )
        while all(process.poll() in (None, 0) for process in crew):
            if all(process.returncode == 0 for process in crew):
                return 0
            time.sleep(0.05)
        for rank, process in enumerate(crew):
            if process.returncode is not None and process.returncode < 0:
                name = signal.Signals(-process.returncode).name
                raise PeerLostError(f"process {rank} of {count} was killed ({name}). The same command goes on.")
        # A mistake ends them all at about the same time; whichever runs on waits for one that has ended.
        for process in crew:
            _wait(process)
        return next((process.returncode for process in crew if process.returncode > 0), EXIT_PEER_LOST)
    finally:
        for process in crew:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def end_with_parent() -> None:
    """In a process that `start` has made: it ends when its parent does, even if that was killed."""
    if _CHILD not in os.environ:
        return

    def wait() -> None:
        while os.read(0, 1024):
            pass
        os._exit(EXIT_PEER_LOST)

    threading.Thread(target=wait, daemon=True).start()


# ---- what processes agree on


def together(run: Runtime, do: Callable[[], T]) -> T:
    """What `do` gives here. If it raises a UserError in any process, all of them end with it, and rank 0 prints it."""
    result: Any = None
    error: UserError | None = None
    try:
        result = do()
    except UserError as raised:
        error = raised
    for other in gathered(error):
        if other is not None:
            raise _printed_once(run, other)
    return result


def gathered(value: T) -> list[T]:
    """`value` of every process. Raises PeerLostError if one is lost."""
    from umt.engine import runtime

    try:
        return runtime.gather_objects(value)
    except RuntimeError as lost:
        cause = str(lost).splitlines()[0][:120]
        raise PeerLostError(f"another process of this run is lost ({cause}). The same command goes on.") from None


def agreed(run: Runtime, decide: Callable[[], T]) -> T:
    """What rank 0 decides; if that is an error, all ranks end with it."""
    from umt.engine import runtime

    outcome: Any = None
    if run.is_main:
        try:
            outcome = decide()
        except UserError as error:
            outcome = error
    outcome = runtime.broadcast_object(outcome)
    if isinstance(outcome, UserError):
        raise _printed_once(run, outcome)
    return outcome


def _printed_once(run: Runtime, error: UserError) -> BaseException:
    return error if run.is_main else SystemExit(2)
