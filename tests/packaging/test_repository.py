"""What holds for the files of the repository: scripts, documents, versions, and no trace of a machine."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import umt
from tests.packaging.repository import ROOT, package, project, tracked

NEW_IN_311 = re.compile(
    r"\b(?:import tomllib|from tomllib|enum\.StrEnum|import StrEnum|ExceptionGroup|datetime\.UTC|import UTC"
    r"|typing import [^\n]*\b(?:Self|Never|LiteralString|assert_never|assert_type|override|Required|NotRequired)\b"
    r"|except\*|hashlib\.file_digest|contextlib\.chdir|itertools\.batched|add_note\()"
)


def documents() -> tuple[Path, ...]:
    return tracked("*.md")


def prose(document: Path) -> str:
    """Its text without fenced code."""
    return re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.M | re.S)


def test_every_link_in_the_documents_leads_to_a_file() -> None:
    dead = []
    for document in documents():
        for target in re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", prose(document)):
            link = (target[0] or target[1]).split("#")[0]
            if link and not re.match(r"[a-z]+:", link) and not (document.parent / link).exists():
                dead.append(f"{document.relative_to(ROOT)}: {link}")
    assert not dead


def test_every_anchor_in_the_documents_is_a_heading() -> None:
    dead = []
    for document in documents():
        for path, anchor in re.findall(r"\]\(([^)\s:#]*)#([^)\s]+)\)", prose(document)):
            page = document.parent / path if path else document
            headings = (
                re.findall(r"^#+ (.+)$", prose(page), flags=re.M) if page.suffix == ".md" and page.exists() else []
            )
            anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            if page.suffix == ".md" and anchor not in anchors:
                dead.append(f"{document.relative_to(ROOT)}: {path}#{anchor}")
    assert not dead


def test_every_repository_path_in_the_documents_exists() -> None:
    path = re.compile(r"(?<![\w/.<>-])((?:scripts|exp|docs|tests|umt|\.ci)/[\w./-]*\w)(?![\w*<{/])")
    missing = []
    for document in documents():
        for name in path.findall(document.read_text(encoding="utf-8")):
            if not (ROOT / name).exists():
                missing.append(f"{document.relative_to(ROOT)}: {name}")
    assert not missing


def test_the_two_commands_of_the_readme_exist() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for command in ("scripts/quickstart.sh", "scripts/test.sh"):
        assert f"bash {command}" in readme
        assert (ROOT / command).is_file()


def test_every_umt_command_of_the_documents_is_one() -> None:
    usage = subprocess.run([sys.executable, "-m", "umt", "--help"], capture_output=True, text=True, timeout=60)
    assert usage.returncode == 0, usage.stderr
    for document in documents():
        blocks = re.findall(
            r"^```(?:bash|sh|console)\n(.*?)^```", document.read_text(encoding="utf-8"), flags=re.M | re.S
        )
        for command in re.findall(r"^(?:\$ )?(?:python -m )?umt ([a-z]\w*)", "\n".join(blocks), flags=re.M):
            assert re.search(rf"\b{command}\b", usage.stdout), f"{document.relative_to(ROOT)}: umt {command}"


def test_no_file_names_a_machine_or_a_package_registry() -> None:
    foreign = re.compile(
        r"/(?:home|root|Users)/\w|/work/|/tmp/work|/opt/pypi|\.pyenv/"
        r"|pypi\.org|pythonhosted\.org|download\.pytorch\.org|pypi\.tuna|anaconda\.org"
    )
    found = []
    for file in tracked():
        if file.suffix in {".npz", ".gz", ".png", ".jpg", ".gif", ".mp4", ".webp", ".xz"} or file == Path(__file__):
            continue
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            if foreign.search(line):
                found.append(f"{file.relative_to(ROOT)}:{number}: {line.strip()}")
    assert not found


def test_no_file_is_larger_than_two_megabytes() -> None:
    assert not [str(file.relative_to(ROOT)) for file in tracked() if file.stat().st_size > 2 * 2**20]


def test_the_citation_and_the_package_have_one_version() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^version: (.+)$", citation, flags=re.M).group(1) == umt.__version__  # type: ignore[union-attr]


def test_the_changelog_speaks_of_this_version() -> None:
    assert umt.__version__ in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_requirement_has_a_tested_version() -> None:
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pinned = {package(name) for name in re.findall(r"^([\w.-]+)==", constraints, flags=re.M)}
    extras = project()["optional-dependencies"].values()
    required = {package(text) for texts in (project()["dependencies"], *extras) for text in texts}
    assert required - {project()["name"]} <= pinned


def test_the_source_is_python_310() -> None:
    newer = []
    for file in tracked("*.py"):
        text = file.read_text(encoding="utf-8")
        ast.parse(text, filename=str(file), feature_version=(3, 10))
        if file != Path(__file__) and NEW_IN_311.search(text):
            newer.append(str(file.relative_to(ROOT)))
    assert not newer


def test_every_source_file_says_what_it_is() -> None:
    bare = [
        str(file.relative_to(ROOT))
        for file in tracked("umt/*.py", "scripts/*.py", "tests/*.py")
        if file.stat().st_size and not ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
    ]
    assert not bare


def test_no_source_file_outgrows_its_room() -> None:
    lengths = {str(f.relative_to(ROOT)): len(f.read_text(encoding="utf-8").splitlines()) for f in tracked("umt/*.py")}
    assert not {name: length for name, length in lengths.items() if length > 450}
    assert not [name for name in lengths if Path(name).stem in {"utils", "misc", "helpers"}]


@pytest.mark.slow
def test_every_shell_script_passes_shellcheck() -> None:
    shellcheck = shutil.which("shellcheck", path=str(Path(sys.executable).parent)) or shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed")
    scripts = [str(file.relative_to(ROOT)) for file in tracked("*.sh", ".ci/run")]
    done = subprocess.run([shellcheck, *scripts], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout


def test_every_shell_script_begins_with_bash_and_a_sentence() -> None:
    for file in tracked("*.sh", ".ci/run"):
        lines = file.read_text(encoding="utf-8").splitlines()
        assert lines[0] == "#!/usr/bin/env bash", file
        assert lines[1].startswith("# "), file
        assert len(lines[1]) > 20, file


def test_imports_point_down() -> None:
    pytest.importorskip("importlinter")
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([str(lint), "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
