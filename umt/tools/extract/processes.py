"""`--processes N`: the same command N times on this machine, numbered as torchrun numbers them; it ends as one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from umt.errors import EXIT_PEER_LOST, PeerLostError

_TOLD = "UMT_ENDS_WITH_STDIN"


def start(count: int, argv: Sequence[str]) -> int:
    """Runs `python -m umt ARGV` as `count` processes; their exit code. Raises PeerLostError for one that was killed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, _TOLD: 1}
    crew = []
    try:
        for rank in range(count):
            own = {**common, "RANK": rank, "LOCAL_RANK": rank}
            crew.append(
                subprocess.Popen(
                    [sys.executable, "-m", "umt", *argv],
                    stdin=subprocess.PIPE,
                    env={**os.environ, **{name: str(value) for name, value in own.items()}},
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
        # A mistake ends them all at about the same time; who is still there then waits for somebody who has gone.
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
    if _TOLD not in os.environ:
        return

    def wait() -> None:
        while os.read(0, 1024):
            pass
        os._exit(EXIT_PEER_LOST)

    threading.Thread(target=wait, daemon=True).start()
