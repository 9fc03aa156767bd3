"""The wheel and the source archive that `python -m build` makes of the tracked files, in environments of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import umt
from tests.packaging.repository import ROOT, tracked
from umt.errors import DISTRIBUTION

pytestmark = pytest.mark.slow
STEM = f"{DISTRIBUTION.replace('-', '_')}-{umt.__version__}"
WHEEL, SOURCE = f"{STEM}-py3-none-any.whl", f"{STEM}.tar.gz"


def run(*command: str | Path, folder: Path) -> str:
    """Standard output of a command that sees nothing of this checkout."""
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(list(map(str, command)), cwd=folder, env=outside, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with both files. They are made of a copy, so that nothing that an earlier build left gets in."""
    copy, output = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("built")
    for file in tracked():
        target = copy / file.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    run(sys.executable, "-m", "build", "--outdir", output, copy, folder=output)
    return output


def contents(built: Path) -> tuple[set[str], set[str]]:
    """Names of the files in the wheel and in the source archive."""
    with zipfile.ZipFile(built / WHEEL) as wheel, tarfile.open(built / SOURCE) as source:
        return set(wheel.namelist()), set(source.getnames())


def test_the_build_gives_one_wheel_and_one_source_archive(built: Path) -> None:
    assert {file.name for file in built.iterdir()} == {WHEEL, SOURCE}


def test_every_file_of_the_package_is_in_both(built: Path) -> None:
    files = {file.relative_to(ROOT).as_posix() for file in tracked("umt")}
    wheel, source = contents(built)
    assert not files - wheel
    assert not {f"{STEM}/{name}" for name in files} - source


def test_the_licence_and_the_notice_are_in_both(built: Path) -> None:
    wheel, source = contents(built)
    assert {f"{STEM}.dist-info/licenses/{name}" for name in ("LICENSE", "NOTICE")} <= wheel
    assert {f"{STEM}/{name}" for name in ("LICENSE", "NOTICE")} <= source


@pytest.mark.parametrize("name", [WHEEL, SOURCE])
def test_the_command_runs_in_an_environment_without_any_other_package(built: Path, name: str, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", environment, folder=tmp_path)
    python, command = environment / "bin/python", environment / "bin/umt"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", built / name, folder=tmp_path)
    packages = "from importlib.metadata import distributions; print([d.name for d in distributions()])"
    assert run(python, "-c", packages, folder=tmp_path) == f"['{DISTRIBUTION}']\n"
    assert run(command, "--version", folder=tmp_path) == f"{umt.__version__}\n"
    assert "umt COMMAND --help lists the flags" in run(command, "--help", folder=tmp_path)
