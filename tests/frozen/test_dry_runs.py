"""Every experiment script prints the run that it printed before (tests/frozen/record.py)."""

from __future__ import annotations

import pytest

from tests.frozen import observed
from tests.recipes.conftest import SCRIPTS

EXPECTED = observed.golden("dry_runs.json")


def test_the_scripts_are_those_of_before() -> None:
    assert set(SCRIPTS) == {name for name in EXPECTED if not name.endswith("on 1 GPU")}


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_resolves_to_the_run_of_before(script: str) -> None:
    assert observed.dry_run(script) == EXPECTED[script]


@pytest.mark.parametrize("script", observed.ONE_SCRIPT_PER_TASK)
def test_a_script_on_one_gpu_says_how_it_differs_from_its_recipe(script: str) -> None:
    lines = observed.dry_run(script, gpus=1)
    assert lines[-1].startswith("  NOTE: GPUs x batch x accumulation = ")
    assert lines == EXPECTED[f"{script} on 1 GPU"]
