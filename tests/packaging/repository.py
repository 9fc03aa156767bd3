"""The files of the repository and what pyproject.toml says, for the tests of this folder."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@cache
def _git_files(*patterns: str) -> tuple[Path, ...]:
    if not (ROOT / ".git").exists():
        return ()
    names = subprocess.run(
        ["git", "ls-files", "-z", "--", *patterns], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return tuple(ROOT / name for name in names.stdout.split("\0") if name and (ROOT / name).is_file())


def tracked(*patterns: str) -> tuple[Path, ...]:
    """Files under version control that match the git patterns; outside a checkout the test skips."""
    return _git_files(*patterns) or pytest.skip("not a git checkout, or no such file")


@cache
def project() -> dict[str, Any]:
    """The table [project] of pyproject.toml."""
    toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")  # pytest brings tomli
    table: dict[str, Any] = toml.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return table


def package(requirement: str) -> str:
    """The normal form of the name in a requirement: "Jinja2>=3.1" -> "jinja2"."""
    name = re.match(r"[\w.-]+", requirement)
    assert name, requirement
    return re.sub(r"[-_.]+", "-", name.group()).lower()
