"""The distribution's name in every sentence, and its extras."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.packaging.repository import ROOT, project, tracked
from umt.errors import DISTRIBUTION, install

# A command that would fetch the project of PyPI that is called umt, and an extra under that name.
STRANGER = re.compile(
    r"\b(?:install|download|add) [^\n`;&|]*?(?<![\w./-])umt(?![\w/-]|\.\w)|(?<![\w.-])umt\[(?=[a-z$])",
)


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
