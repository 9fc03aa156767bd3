"""Weights by URL, hub name and published name: real servers, real processes, a sentence for each way it can fail."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools.export.hub_server import Hub
from umt.errors import CheckpointError
from umt.models.files import fetch as fetching
from umt.models.files.fetch import fetch, is_remote, path_here

CONTENT = bytes(range(256)) * 40_000  # 10 MB, so that a cut-off answer is a part
HEX = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.BaseHTTPRequestHandler):
    """Gives `content` under any name but /missing; `cut`: closes the connection after so many bytes, once."""

    content = CONTENT
    tag = '"1"'
    cut = 0
    slow: float = 0.0
    chunked = False
    error = ""
    url = ""
    asked: list[str]

    def do_GET(self) -> None:
        cls, start = type(self), 0
        cls.asked.append(self.headers.get("Range", "whole"))
        if self.path.startswith("/missing"):
            self.send_error(404, "Not Found")
            return
        if self.headers.get("If-Range") == cls.tag and "Range" in self.headers:
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
            self.send_response(206)
        else:
            self.send_response(200)
        part = cls.content[start:]
        if cls.chunked:  # tells no length, and breaks off in the middle
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"ffff\r\nabc")
            return
        self.send_header("Content-Length", str(len(part)))
        self.send_header("ETag", cls.tag)
        self.end_headers()
        threading.Event().wait(cls.slow)
        cut, cls.cut = cls.cut, 0
        self.wfile.write(part[:cut] if cut else part)

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Server]]:
    """What answers; its `url` is an address. The cache is a folder of the test."""
    monkeypatch.setenv("UMT_CACHE", str(tmp_path / "cache"))
    with answering() as handler:
        yield handler


@contextlib.contextmanager
def answering(**how: object) -> Iterator[type[Server]]:
    handler = type("Handler", (Server,), {"asked": [], **how})
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    handler.url = f"http://127.0.0.1:{running.server_address[1]}/weights.pth"
    thread = threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield handler
    finally:
        running.shutdown()
        thread.join()
        running.server_close()


def test_a_url_is_fetched_once(server: type[Server]) -> None:
    assert path_here(server.url) is None
    path = fetch(server.url)
    assert path.read_bytes() == CONTENT
    assert path.name == "weights.pth"
    assert fetch(server.url) == path == path_here(server.url)
    assert server.asked == ["whole"]
    assert [entry.name for entry in path.parent.iterdir() if not entry.name.startswith(".")] == ["weights.pth"]


def test_a_hash_is_held_against_the_file(server: type[Server]) -> None:
    assert fetch(f"{server.url}#sha256={HEX}") == fetch(server.url, sha256=HEX.upper())
    wrong = "0" * 64
    with pytest.raises(CheckpointError, match=rf"has the sha256 {HEX}, not {wrong}: it is another file, or damaged"):
        fetch(f"{server.url}#sha256={wrong}")


def test_half_a_hash_is_refused_before_anything_is_fetched(server: type[Server]) -> None:
    with pytest.raises(CheckpointError, match=r"64 hexadecimal digits, and '123abc' does not"):
        fetch(f"{server.url}#sha256=123abc")
    assert server.asked == []


def test_a_hash_of_a_local_file_is_checked_too(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(b"abc")
    right = hashlib.sha256(b"abc").hexdigest()
    assert fetch(f"{tmp_path / 'w.pth'}#sha256={right}") == tmp_path / "w.pth"
    (tmp_path / "w.pth").write_bytes(b"abd")
    with pytest.raises(CheckpointError, match="it is another file, or damaged"):
        fetch(tmp_path / "w.pth", sha256=right)


def test_a_download_that_was_cut_off_goes_on_where_it_stopped(server: type[Server]) -> None:
    server.cut = 3_000_000
    with pytest.raises(CheckpointError, match=r"was cut off after 3000000 of 10240000 bytes.*it continues from there"):
        fetch(server.url)
    assert path_here(server.url) is None
    assert fetch(server.url, sha256=HEX).read_bytes() == CONTENT
    assert server.asked == ["whole", "bytes=3000000-"]


def test_a_file_that_changed_meanwhile_is_fetched_anew(server: type[Server]) -> None:
    server.cut = 3_000_000
    with pytest.raises(CheckpointError, match="cut off"):
        fetch(server.url)
    server.tag, server.content = '"2"', CONTENT[::-1]
    assert fetch(server.url).read_bytes() == CONTENT[::-1]


def test_a_missing_page_is_a_sentence(server: type[Server]) -> None:
    url = server.url.replace("weights", "missing")
    with pytest.raises(CheckpointError, match=rf"{url} cannot be fetched: the server says 404 Not Found\. Check the"):
        fetch(url)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"\n<!DOCTYPE html><html>sign in</html>", "is a web page, not weights: the download failed"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "is a git-lfs pointer, not the weights"),
        (b"", r"is empty \(0 bytes\)"),
    ],
)
def test_what_is_no_weights_is_not_kept(server: type[Server], content: bytes, sentence: str) -> None:
    server.content = content
    with pytest.raises(CheckpointError, match=sentence):
        fetch(server.url)
    server.content = CONTENT  # the server has mended it
    assert fetch(server.url).read_bytes() == CONTENT


def test_no_network_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UMT_CACHE", str(tmp_path))
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(
        CheckpointError, match=r"cannot be fetched: .*refused.* Check the network, or fetch it elsewhere"
    ):
        fetch(f"http://127.0.0.1:{port}/w.pth")


def test_a_connection_that_breaks_is_a_sentence(server: type[Server]) -> None:
    server.chunked, server.protocol_version = True, "HTTP/1.1"
    with pytest.raises(CheckpointError, match=r"cannot be fetched: .* Check the network") as refused:
        fetch(server.url)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("url", ["http://", "https:///w.pth", "http://[::1/w.pth", "http://host:port/w.pth"])
def test_a_malformed_url_is_a_sentence(url: str) -> None:
    with pytest.raises(CheckpointError, match="cannot be fetched"):
        fetch(url)


def test_a_cache_that_cannot_be_written_is_a_sentence(
    server: type[Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("UMT_CACHE", str(tmp_path / "file"))
    with pytest.raises(
        CheckpointError, match=r"cannot be kept in .*Free some space, or name another folder in UMT_CACHE"
    ):
        fetch(server.url)


@pytest.mark.slow
def test_processes_that_want_the_same_file_fetch_it_once(server: type[Server]) -> None:
    server.slow = 0.4
    code = f"from umt.models.files.fetch import fetch; print(len(fetch({server.url!r}, sha256={HEX!r}).read_bytes()))"
    running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert {process.communicate(timeout=60)[0].strip() for process in running} == {str(len(CONTENT))}
    assert server.asked == ["whole"]


def test_a_published_name_near_a_wrong_one_is_told() -> None:
    with pytest.raises(
        CheckpointError, match=r"does not exist\. The nearest published weights are b16_ptk710_ftk710_ftk400_f8_res224"
    ):
        fetch("b16_ptk710_ftk710_ftk400_f8_res256")


def test_a_path_that_does_not_exist_is_said_to_be_one() -> None:
    with pytest.raises(CheckpointError, match=r"no/such/file.pth does not exist\. Check the path"):
        fetch("no/such/file.pth")


def test_what_lies_elsewhere_is_known_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = "l16_ptk710_ftk710_f8_res224"
    assert [is_remote(s) for s in ("https://a/b.pth", "hf://a/b/c.pth", name, f"{name}.pth", "w.pth", "")] == [
        True, True, True, True, False, False,
    ]  # fmt: skip
    Path(f"{name}.pth").write_bytes(b"here")
    assert not is_remote(f"{name}.pth")
    assert fetch(f"{name}.pth") == Path(f"{name}.pth")


@pytest.mark.parametrize("name", ["hf://owner", "hf://", "hf://owner/repo@", "hf:///repo/file"])
def test_a_malformed_hub_name_is_refused(name: str) -> None:
    with pytest.raises(CheckpointError, match="is not a name of the hub"):
        fetch(name)


# --- the hub's own client ---


def refuse(handler: Server) -> None:
    """Answers as the hub does for what is not there."""
    handler.send_response(403 if handler.error == "GatedRepo" else 404)
    handler.send_header("X-Error-Code", handler.error)
    handler.send_header("X-Error-Message", "no")
    handler.end_headers()


def hub_says(name: str, **environment: str) -> str:
    """What `fetch(name)` gives or says in a process with these variables, which the client reads at its import."""
    code = f"""
from umt.errors import CheckpointError
from umt.models.files.fetch import fetch
try:
    print(fetch({name!r}))
except CheckpointError as error:
    print(error)
"""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env={**kept, **environment}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hf://OpenGVLab/UMT/b16.pth", "hf://OpenGVLab/UMT"])
def test_offline_the_hub_is_a_sentence(tmp_path: Path, name: str) -> None:
    said = hub_says(name, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path))
    assert said.startswith(f"{name} is not in the hub's cache here, and HF_HUB_OFFLINE is set.")
    assert len(said.splitlines()) == 1


@pytest.mark.slow
def test_of_a_repository_the_weights_are_fetched_in_one_form(tmp_path: Path) -> None:
    with Hub() as hub:
        common = {"config.json": b"{}", "pytorch_model.bin": b"bin", "training.py": b"", "optimizer.bin": b""}
        hub.repositories["me/both"] = {**common, "model.safetensors": b"safe"}
        hub.repositories["me/bin"] = common
        hub.repositories["me/none"] = {"config.json": b"{}"}
        where = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path)}
        both, only, none = (hub_says(f"hf://me/{name}", **where) for name in ("both", "bin", "none"))
    assert {entry.name for entry in Path(both).iterdir()} == {"config.json", "model.safetensors"}
    assert {entry.name for entry in Path(only).iterdir()} == {"config.json", "pytorch_model.bin"}
    assert none.startswith("hf://me/none has no model*.safetensors or pytorch_model*.bin or ")


@pytest.mark.slow
def test_what_the_hub_s_cache_has_needs_no_network(tmp_path: Path) -> None:
    repo = tmp_path / "hub" / "models--OpenGVLab--UMT"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("0" * 40)
    (repo / "snapshots" / ("0" * 40)).mkdir(parents=True)
    (repo / "snapshots" / ("0" * 40) / "b16.pth").write_bytes(b"weights")
    said = hub_says("hf://OpenGVLab/UMT/b16.pth", HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path))
    assert Path(said).read_bytes() == b"weights"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        ("EntryNotFound", "owner/repo has no file w.pth. Look at its files on the hub."),
        ("RepoNotFound", "the hub has no owner/repo, or it is private."),
        ("RevisionNotFound", "owner/repo has no revision v2."),
        ("GatedRepo", "is behind a licence form: accept it on https://huggingface.co/owner/repo"),
    ],
)
def test_what_the_hub_refuses_is_a_sentence(tmp_path: Path, error: str, sentence: str) -> None:
    with answering(error=error, do_HEAD=refuse, do_GET=refuse) as hub:
        address = hub.url.rpartition("/")[0]
        said = hub_says("hf://owner/repo@v2/w.pth", HF_ENDPOINT=address, HF_HOME=str(tmp_path))
    assert sentence in said
    assert len(said.splitlines()) == 1


def test_fetching_needs_no_torch() -> None:
    code = "import sys, umt.models.files.fetch, umt.models.files.description; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_the_cache_has_a_place_without_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("UMT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert fetching.cache_folder() == tmp_path / "umt"
