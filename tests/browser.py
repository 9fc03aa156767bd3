"""A real browser for tests of pages: headless Chromium, spoken to over a pipe in the DevTools protocol."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROGRAM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
WITHOUT = "Chromium is not installed (Debian: apt-get install chromium)"


@dataclass
class Visit:
    """What a page did when it was opened."""

    pictures: list[tuple[str, int]]  # description and width in pixels of each; 0: it did not load
    text: str  # what a reader sees
    complaints: list[str] = field(default_factory=list)  # of the console: errors, warnings, refusals, dialogs
    requests: list[str] = field(default_factory=list)  # what was asked for beside the page itself and what it holds


class _Talk:
    def __init__(self, process: subprocess.Popen[bytes], send: int, receive: int) -> None:
        self._process, self._send, self._receive = process, send, receive
        self._rest, self._last = b"", 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        os.write(self._send, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._last:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def wait(self, method: str) -> None:
        while not any(event.get("method") == method for event in self.events):
            self.events.append(self._next())

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            more = os.read(self._receive, 1 << 16)
            assert more, f"the browser has ended, exit code {self._process.wait()}"
            self._rest += more
        message, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found


@contextmanager
def _browser(profile: Path) -> Iterator[_Talk]:
    assert PROGRAM is not None
    its_in, our_out = os.pipe()
    our_in, its_out = os.pipe()
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    flags += [f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"]
    # The protocol is spoken on the descriptors 3 and 4.
    words = ["bash", "-c", f'exec "$@" 3<&{its_in} 4>&{its_out}', "-", PROGRAM, *flags]
    process = subprocess.Popen(
        words, pass_fds=(its_in, its_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )  # fmt: skip
    os.close(its_in)
    os.close(its_out)
    try:
        yield _Talk(process, our_out, our_in)
    finally:
        process.kill()
        process.wait()
        os.close(our_out)
        os.close(our_in)


def visit(page: Path, profile: Path) -> Visit:
    """Opens `page`; `profile` is an empty folder for the browser's own files."""
    with _browser(profile) as talk:
        target = talk.call("Target.createTarget", url="about:blank")["targetId"]
        session = talk.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Runtime", "Log", "Page", "Network"):
            talk.call(f"{domain}.enable", session)
        talk.call("Page.navigate", session, url=page.as_uri())
        talk.wait("Page.loadEventFired")

        def evaluate(code: str) -> Any:
            return talk.call("Runtime.evaluate", session, expression=code, returnByValue=True)["result"]["value"]

        seen = Visit(
            [(alt, width) for alt, width in evaluate("[...document.images].map(i => [i.alt, i.naturalWidth])")],
            evaluate("document.body.innerText"),
        )
        for event in talk.events:
            method, values = event["method"], event.get("params", {})
            if method == "Runtime.exceptionThrown":
                seen.complaints.append(values["exceptionDetails"]["text"])
            elif method == "Log.entryAdded":
                seen.complaints.append(values["entry"]["text"])
            elif method == "Runtime.consoleAPICalled":
                seen.complaints.append(str(values["args"]))
            elif method == "Page.javascriptDialogOpening":
                seen.complaints.append(values["message"])
            elif method == "Network.requestWillBeSent":
                url = values["request"]["url"]
                if url != page.as_uri() and not url.startswith("data:"):
                    seen.requests.append(url)
    return seen
