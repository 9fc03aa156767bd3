"""The process that looks at files: a question a line comes in, an answer a line goes out.

Run as `python -m umt.tools.data.check.worker`. It ends itself when a file takes too long: the kernel's alarm needs
nobody who listens, while a decoder that hangs in C never gives the word back to Python.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import asdict

from umt.tools.data.check.looking import look


def serve() -> None:
    """Answers until the questions end."""
    # Now, so that no file's time goes into it.
    import av
    import cv2  # noqa: F401

    from umt.data.video import (
        probe,  # noqa: F401
        reader,
    )

    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)  # a file may be told what the one before it was told
    # Nothing but answers may reach the parent: libraries that print do so where nobody reads.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    print(json.dumps({"ready": reader.ORDER}), file=answers, flush=True)
    os.dup2(nowhere, 2)
    for line in sys.stdin:
        question = json.loads(line)
        alarm(question["limit"])
        facts = look(question["path"], question["decoder"], question["frames"], question["part"])
        alarm(0)
        print(json.dumps(asdict(facts)), file=answers, flush=True)


def alarm(seconds: float) -> None:
    """Death in so many seconds; 0: no longer."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    serve()
