"""The runs whose files are compared with those that were stored; each runs once, when a test asks for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.frozen import observed


@pytest.fixture(scope="session")
def pretraining(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return observed.pretraining(tmp_path_factory.mktemp("pretraining"))


@pytest.fixture(scope="session")
def stopped_pretraining(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return observed.stopped_pretraining(tmp_path_factory.mktemp("stopped"))


@pytest.fixture(scope="session")
def finetuning(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return observed.finetuning(tmp_path_factory.mktemp("finetuning"))
