"""The files of a run have the names, keys and types of before (tests/frozen/record.py); values are not compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.frozen import observed

EXPECTED = observed.golden("files.json")


@pytest.fixture(scope="module")
def files(pretraining: Path, stopped_pretraining: Path, finetuning: Path) -> dict[str, dict[str, Any]]:
    runs = {"pretraining": pretraining, "stopped_pretraining": stopped_pretraining, "finetuning": finetuning}
    return {name: observed.files(output) for name, output in runs.items()}


@pytest.mark.parametrize(("run", "file"), [(run, file) for run in EXPECTED for file in EXPECTED[run]])
def test_a_file_has_the_structure_of_before(run: str, file: str, files: dict[str, dict[str, Any]]) -> None:
    assert files[run][file] == EXPECTED[run][file]
