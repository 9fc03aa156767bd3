"""Reading URLs, against a real S3 server, a real web server and memory."""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from tests.web import Web, serving
from umt.data.storage import remote
from umt.data.storage.remote import MissingError, RemoteError
from umt.data.storage.urls import is_url, join
from umt.errors import ConfigError


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, type[Web]]]:
    monkeypatch.setattr(remote, "PAUSE", 0.01)
    (tmp_path / "v.bin").write_bytes(bytes(range(256)))
    with serving(tmp_path) as served:
        yield served


def test_what_stands_before_two_slashes_makes_a_url() -> None:
    assert all(map(is_url, ["s3://b/k", "memory://x", "https://h/f", "gs://b", "hf://datasets/a/b"]))
    assert not any(map(is_url, ["/a/b.mp4", "a:b/c.mp4", "C:\\videos\\a.mp4", "s3/b.mp4", ""]))


@pytest.mark.parametrize(
    ("prefix", "path", "whole"),
    [
        ("s3://b/k400", "a/x.mp4", "s3://b/k400/a/x.mp4"),
        ("s3://b/k400/", "x.mp4", "s3://b/k400/x.mp4"),
        ("memory://", "x.mp4", "memory://x.mp4"),
        ("/videos", "s3://b/x.mp4", "s3://b/x.mp4"),
        ("/videos", "x.mp4", "/videos/x.mp4"),
        ("/videos", "/other/x.mp4", "/other/x.mp4"),
        ("", "x.mp4", "x.mp4"),
    ],
)
def test_a_path_is_joined_to_a_folder_or_a_url(prefix: str, path: str, whole: str) -> None:
    assert join(prefix, path) == whole


def test_an_s3_object_is_read_as_a_whole_and_in_part(bucket: str, mp4s: Path) -> None:
    content = (mp4s / "v3.mp4").read_bytes()
    assert remote.read(f"{bucket}/v3.mp4") == content
    assert remote.read(f"{bucket}/v3.mp4", 100, 50) == content[100:150]
    assert remote.stat(f"{bucket}/v3.mp4").size == len(content)


def test_an_s3_object_that_changed_has_another_tag(bucket: str) -> None:
    tags = []
    for content in (b"one", b"two"):
        remote.client(bucket).pipe_file(f"{bucket}/changing", content)
        tags.append(remote.stat(f"{bucket}/changing").tag)
    assert tags[0] != tags[1]
    assert all(tags)


def test_a_download_is_the_object(bucket: str, mp4s: Path, tmp_path: Path) -> None:
    content = (mp4s / "v3.mp4").read_bytes()
    (tmp_path / "copy").touch()
    remote.download(f"{bucket}/v3.mp4", str(tmp_path / "copy"), len(content))
    assert (tmp_path / "copy").read_bytes() == content


@pytest.mark.parametrize(
    ("key", "cause"),
    [
        ("videos/k400/none.mp4", "^no such object$"),
        ("nobody-has-this/v0.mp4", "^no such bucket$"),
    ],
)
def test_a_missing_key_and_a_missing_bucket_are_told_apart(bucket: str, key: str, cause: str) -> None:
    with pytest.raises(MissingError, match=cause):
        remote.read(f"s3://{key}")
    assert not remote.exists(f"s3://{key}")


def test_a_folder_is_there_but_is_no_file(bucket: str) -> None:
    assert remote.exists(bucket)
    with pytest.raises(MissingError, match="a folder, not a file"):
        remote.stat(bucket)


def test_without_credentials_the_cause_is_said_at_once(s3: str, tmp_path: Path) -> None:
    code = (
        "import sys, time; from umt.data.storage import remote\n"
        "start = time.monotonic()\n"
        "try: remote.read('s3://videos/k400/v0.mp4')\n"
        "except remote.RemoteError as error: print(error, time.monotonic() - start < 5)"
    )
    bare = {name: value for name, value in os.environ.items() if "KEY" not in name}
    done = subprocess.run([sys.executable, "-c", code], env={**bare, "HOME": str(tmp_path)}, capture_output=True)
    assert done.stdout.decode().startswith("no credentials; for s3:// set AWS_ACCESS_KEY_ID")
    assert done.stdout.decode().endswith(" True\n")


@pytest.mark.parametrize(("url", "package", "extra"), [("s3", "s3fs", "storage"), ("gs", "gcsfs", "gs")])
def test_a_package_that_is_missing_is_named_with_the_extra(url: str, package: str, extra: str) -> None:
    code = (
        f"import sys; sys.modules['{package}'] = None\n"  # what Python itself leaves where an import fails
        "from umt.data.storage import remote\n"
        f"remote.read('{url}://videos/k400/v0.mp4')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert f"ConfigError: {url}:// needs the package {package}, which is not installed" in done.stderr
    assert f"pip install 'umt-video[{extra}]'" in done.stderr


def test_a_hub_that_does_not_answer_is_an_error_of_the_url() -> None:
    code = (
        "from umt.data.storage import remote\n"
        "remote.PAUSE = 0.01\n"
        "try: remote.read('hf://datasets/nobody/videos/a.mp4')\n"
        "except remote.RemoteError as error: print(error)"
    )
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert "after 4 attempts" in done.stdout, done.stderr


def test_an_unknown_kind_of_url_is_refused() -> None:
    with pytest.raises(ConfigError, match="petrel:// is not a kind of URL that fsspec knows"):
        remote.read("petrel://bucket/key")


def test_a_store_that_does_not_answer_is_tried_a_few_times_and_no_more(web: tuple[str, type[Web]]) -> None:
    url, handler = web
    handler.broken = 2
    assert remote.read(f"{url}/v.bin") == bytes(range(256))
    handler.broken, handler.asked = 100, []
    with pytest.raises(RemoteError, match=r"503.* after 4 attempts"):
        remote.read(f"{url}/v.bin")
    assert len(handler.asked) == remote.ATTEMPTS


@pytest.mark.parametrize("kind", ["http", "s3"])
def test_a_store_that_falls_silent_is_given_up(kind: str, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and says nothing
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        for name, value in (("_clients", {}), ("PAUSE", 0.01), ("SILENCE", 0.2)):
            monkeypatch.setattr(remote, name, value)
        start = time.monotonic()
        with pytest.raises(RemoteError, match="after 4 attempts"):
            remote.read(f"{address}/v.bin" if kind == "http" else "s3://videos/v.bin")
        assert 0.7 < time.monotonic() - start < 10


def test_a_file_of_a_web_server_is_read_in_part(web: tuple[str, type[Web]]) -> None:
    assert remote.read(f"{web[0]}/v.bin", 7, 3) == bytes([7, 8, 9])
    with pytest.raises(MissingError):
        remote.read(f"{web[0]}/none")


def test_a_web_server_that_knows_no_ranges_is_read_in_part(web: tuple[str, type[Web]]) -> None:
    web[1].simple = True
    assert remote.read(f"{web[0]}/v.bin", 7, 3) == bytes([7, 8, 9])
    assert remote.read(f"{web[0]}/v.bin", 0, 256) == bytes(range(256))


def test_bytes_that_are_not_there_are_an_error(web: tuple[str, type[Web]]) -> None:
    with pytest.raises(RemoteError, match="6 bytes came instead of 10, after 4 attempts"):
        remote.read(f"{web[0]}/v.bin", 250, 10)


def test_memory_is_read_like_any_store() -> None:
    fsspec.filesystem("memory").pipe_file("/remote/x", b"content")
    assert remote.read("memory://remote/x", 3, 2) == b"te"
    assert remote.stat("memory://remote/x").size == 7
    assert not remote.exists("memory://remote/y")


def _read_all(folder: str, answers: multiprocessing.SimpleQueue[tuple[int, int, list[bytes]]]) -> None:
    parts = [remote.read(f"{folder}/v{i % 7}.mp4", 10 * i, 10) for i in range(30)]
    answers.put((os.getpid(), id(remote.client(folder)), parts))


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_processes_read_side_by_side_with_clients_of_their_own(bucket: str, mp4s: Path, method: str) -> None:
    parents = remote.client(bucket)
    assert remote.exists(bucket)  # so that there are sockets which a fork would share
    context = multiprocessing.get_context(method)
    answers = context.SimpleQueue()
    processes = [context.Process(target=_read_all, args=(bucket, answers)) for _ in range(3)]
    for process in processes:
        process.start()
    expected = [(mp4s / f"v{i % 7}.mp4").read_bytes()[10 * i : 10 * i + 10] for i in range(30)]
    until = time.monotonic() + 60
    for _ in processes:
        assert time.monotonic() < until
        _, client, parts = answers.get()
        assert parts == expected
        assert method == "spawn" or client != id(parents)
    for process in processes:
        process.join(20)
        assert process.exitcode == 0
    assert remote.client(bucket) is parents
    assert remote.read(f"{bucket}/v0.mp4", 0, 4) == (mp4s / "v0.mp4").read_bytes()[:4]
