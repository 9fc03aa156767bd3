"""A real web server on loopback that gives files, whole or in part, and counts what it is asked for."""

from __future__ import annotations

import contextlib
import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path


class Web(http.server.SimpleHTTPRequestHandler):
    """The first `broken` requests are answered by an error of the server. `asked` has the names of all.

    A `simple` server knows no ranges and tells no sizes.
    """

    broken = 0
    simple = False
    asked: list[str]

    def do_GET(self) -> None:
        type(self).asked.append(self.path)
        if type(self).broken > 0:
            type(self).broken -= 1
            self.send_error(503)
            return
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        part = self.headers.get("Range")
        if part and not self.simple:
            first, last = (int(word) for word in part.removeprefix("bytes=").split("-"))
            whole, content = len(content), content[first : last + 1]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{first + len(content) - 1}/{whole}")
        else:
            self.send_response(200)
        if not self.simple:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_HEAD(self) -> None:
        if not self.simple:
            super().do_HEAD()
            return
        self.send_response(200)
        self.end_headers()

    def log_message(self, *words: object) -> None:
        pass


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[tuple[str, type[Web]]]:
    """The server's address, and the class that answers."""
    handler = type("Handler", (Web,), {"asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", handler
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
