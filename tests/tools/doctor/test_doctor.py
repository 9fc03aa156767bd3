"""`umt doctor` on this machine, complete and with things taken away: findings, remedies, exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import av
import pytest
import torch

from umt.errors import ConfigError
from umt.tools.doctor import examine
from umt.tools.doctor.checks import machine, writable

ROOT = Path(__file__).resolve().parents[3]


def command(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "umt", "doctor", *words],
        env={**os.environ, **environ}, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def without(tmp_path: Path, module: str) -> str:
    """A PYTHONPATH on which `module` is broken, as a wheel for another machine is."""
    (tmp_path / f"{module}.py").write_text("raise ImportError('libbroken.so: wrong architecture')\n")
    return str(tmp_path)


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """By name: the findings of a complete machine, as a program reads them."""
    done = command("--json", "--folder", str(tmp_path_factory.mktemp("folder")))
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads(done.stdout)
    assert content["healthy"]
    return {finding["name"]: finding for finding in content["findings"]}


@pytest.mark.slow
def test_versions_are_those_of_the_packages(findings: dict[str, dict[str, Any]]) -> None:
    assert findings["torch"]["detail"] == torch.__version__.split("+")[0]
    assert findings["av"]["detail"] == av.__version__
    assert f"Python {sys.version.split()[0]}" in findings["umt"]["detail"]


@pytest.mark.slow
def test_the_reader_that_training_needs_has_decoded_and_names_its_ffmpeg(findings: dict[str, dict[str, Any]]) -> None:
    codec = ".".join(map(str, av.library_versions["libavcodec"]))
    assert findings["pyav"]["state"] == "ok"
    assert findings["pyav"]["detail"] == f"{av.__version__}, its own FFmpeg (libavcodec {codec}); decodes H.264"


@pytest.mark.slow
def test_packages_that_some_commands_need_are_named_with_their_purpose(findings: dict[str, dict[str, Any]]) -> None:
    assert findings["safetensors"]["detail"] == f"{metadata.version('safetensors')}: weights as safetensors"
    assert findings["pyarrow"]["needed_for"] == "options"


@pytest.mark.slow
def test_precision_is_what_a_run_takes(findings: dict[str, dict[str, Any]]) -> None:
    from umt.engine.runtime import choose_device, choose_precision, find_world

    taken = choose_precision("auto", choose_device("auto", find_world({})))
    assert findings["precision"]["detail"].endswith(f"--precision auto takes {taken}")


@pytest.mark.slow
def test_every_finding_that_is_not_ok_says_what_to_do_or_is_a_bare_fact(findings: dict[str, dict[str, Any]]) -> None:
    silent = [f["name"] for f in findings.values() if f["state"] == "missing" and not f["remedy"]]
    assert silent == []


def test_the_table_ends_with_what_is_missing_and_whether_training_can_run() -> None:
    text, healthy = examine([])
    lines = text.splitlines()
    assert healthy
    assert lines[0] == "training:"
    assert lines[-1] == "Training can run here."
    assert lines[-2].startswith(("Something is missing for: ", "Nothing is missing."))


@pytest.mark.slow
def test_a_broken_package_is_named_with_its_reason_and_the_code_is_1(tmp_path: Path) -> None:
    done = command(PYTHONPATH=without(tmp_path, "cv2"))
    assert done.returncode == 1
    assert "missing  cv2             libbroken.so: wrong architecture  -> pip install 'umt-video[train]'" in done.stdout
    assert done.stdout.splitlines()[-1] == "Training cannot run here."
    assert done.stderr == ""


@pytest.mark.slow
def test_a_broken_reader_that_another_replaces_is_a_warning(tmp_path: Path) -> None:
    done = command(PYTHONPATH=without(tmp_path, "decord"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "  warning  decord " in done.stdout
    assert "Training can run here." in done.stdout


@pytest.mark.slow
def test_a_command_that_is_not_on_path_is_missing_and_training_can_run_without_it(tmp_path: Path) -> None:
    done = command("--json", PATH=str(tmp_path), CXX="no-such-compiler")
    findings = {f["name"]: f for f in json.loads(done.stdout)["findings"]}
    assert done.returncode == 0
    assert (findings["srun"]["state"], findings["srun"]["detail"]) == ("missing", "not on PATH")
    assert (findings["compiler"]["state"], findings["compiler"]["detail"]) == ("missing", "no no-such-compiler")


def test_a_folder_that_cannot_be_written_keeps_training_from_running() -> None:
    (finding,) = writable(["/proc/umt/outputs"])  # not even root writes there
    assert (finding.state, finding.needed_for) == ("missing", "training")
    assert finding.detail.startswith("/proc/umt/outputs: ")
    assert finding.remedy == "give another --output_dir, or change its permissions"


def test_of_a_folder_that_does_not_exist_the_nearest_above_is_checked(tmp_path: Path) -> None:
    (finding,) = writable([str(tmp_path / "not" / "yet")])
    assert finding.detail.startswith(f"{tmp_path / 'not' / 'yet'}: writable, ")
    assert list(tmp_path.iterdir()) == []


def test_cores_are_those_that_a_run_may_use() -> None:
    cores = next(machine())
    assert f"{len(os.sched_getaffinity(0))} by affinity" in cores.detail


def test_another_word_is_refused() -> None:
    with pytest.raises(ConfigError, match="umt doctor: there is no flag --fix"):
        examine(["--fix"])
    with pytest.raises(ConfigError, match="umt doctor: argument --folder: expected at least one argument"):
        examine(["--folder"])


@pytest.mark.gpu
def test_every_gpu_is_listed_with_its_memory() -> None:
    text, _ = examine([])
    for number in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(number)
        assert f"{facts.name}, {facts.total_memory / 2**30:.1f} GiB" in text
