"""A server that speaks as much of the Hugging Face hub's protocol as an upload and a download of small files need."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

TOKEN = "hf_of_this_test"
COMMIT = "c" * 40


class Hub(ThreadingHTTPServer):
    """Repositories by name: their files, and whether they are private."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}

    def __enter__(self) -> Hub:
        Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.split("?")[0]
        if path == "/api/validate-yaml":
            return self._answer({"errors": [], "warnings": []})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._answer({"error": "Invalid credentials"}, 401)
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            self.server.repositories.setdefault(name, {})
            self.server.private[name] = asked.get("private") is True or asked.get("visibility") == "private"
            return self._answer({"url": f"{self.server.address}/{name}", "name": name})
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            return self._answer({"files": files})
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.server.repositories[match[1]][line["value"]["path"]] = content
            url = f"{self.server.address}/{match[1]}/commit/{COMMIT}"
            return self._answer({"success": True, "commitOid": COMMIT, "commitUrl": url, "hookOutput": ""})
        return self._answer({"error": "unknown"}, 404)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/[^/]+)?", path):
            files = self.server.repositories.get(match[1])
            if files is None:
                return self._missing("RepoNotFound")
            siblings = [{"rfilename": name} for name in files]
            return self._answer({"id": match[1], "sha": COMMIT, "siblings": siblings, "private": False, "tags": []})
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/[^/]+", path):
            files = self.server.repositories.get(match[1], {})
            listed = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in files.items()
            ]
            return self._answer(listed)
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            files = self.server.repositories.get(match[1])
            if files is None or match[2] not in files:
                return self._missing("RepoNotFound" if files is None else "EntryNotFound")
            content = files[match[2]]
            tag = hashlib.sha256(content).hexdigest()
            return self._send(content, 200, {"X-Repo-Commit": COMMIT, "ETag": f'"{tag}"'})
        return self._answer({"error": "unknown"}, 404)

    def _missing(self, code: str) -> None:
        self._send(b"", 404, {"X-Error-Code": code, "X-Error-Message": "not found"})

    def _answer(self, content: Any, status: int = 200) -> None:
        self._send(json.dumps(content).encode(), status, {"Content-Type": "application/json"})

    def _send(self, content: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass
