"""Where the hub is not there, its package is not waited for and nothing but the sentence is printed."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator

import pytest

from umt.errors import CheckpointError
from umt.models.files.fetch import fetch
from umt.models.files.hub_access import asking_the_hub, hub_is_reachable

constants = pytest.importorskip("huggingface_hub.constants")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for scheme in ("http", "https", "all"):
        monkeypatch.delenv(f"{scheme}_proxy", raising=False)
        monkeypatch.delenv(f"{scheme}_proxy".upper(), raising=False)


@pytest.fixture
def listening() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return address


def test_a_hub_that_takes_connections_is_reachable(listening: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", listening)
    assert hub_is_reachable()


def test_a_hub_that_refuses_them_is_not(nowhere: str) -> None:
    assert not hub_is_reachable()


def test_behind_a_proxy_only_the_proxy_can_tell(nowhere: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    assert hub_is_reachable()


def test_offline_a_sentence_comes_at_once_and_alone(nowhere: str, caplog: pytest.LogCaptureFixture) -> None:
    began = time.monotonic()
    with pytest.raises(CheckpointError, match="is not in the hub's cache here, and the hub cannot be reached"):
        fetch("hf://nobody-of-that-name/nothing/w.pth")
    assert time.monotonic() - began < 5  # with its retries 23 seconds
    assert not [record for record in caplog.records if record.name.startswith("huggingface_hub")]


def test_offline_the_weights_of_timm_are_a_sentence_too(nowhere: str) -> None:
    pytest.importorskip("timm")
    from umt.models.teachers.timm import load_timm

    began = time.monotonic()
    with pytest.raises(CheckpointError, match=r"they are not in the hub's cache here, and the hub cannot be reached"):
        load_timm("vit_tiny_patch16_224")
    assert time.monotonic() - began < 5


def test_afterwards_the_package_is_as_it_was(nowhere: str) -> None:
    log = logging.getLogger("huggingface_hub.utils._http")
    before = log.level
    with asking_the_hub():
        assert constants.HF_HUB_OFFLINE
        assert log.level == logging.ERROR
    assert not constants.HF_HUB_OFFLINE
    assert log.level == before
