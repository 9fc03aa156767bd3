"""The Python of docs/use_elsewhere.md runs as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/use_elsewhere.md").read_text(encoding="utf-8")
PARTS = re.split(r"^## (.+)\n", PAGE, flags=re.M)
SECTIONS = {title: "\n".join(re.findall(r"^```python\n(.*?)^```", body, flags=re.M | re.S))
            for title, body in zip(PARTS[1::2], PARTS[2::2], strict=True)}  # fmt: skip


def run(folder: Path, code: str, *launcher: str) -> str:
    (folder / "example.py").write_text(code, encoding="utf-8")
    settings = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launcher, "example.py"]
    done = subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_a_backbone_with_a_custom_head_trains(capsys: pytest.CaptureFixture[str]) -> None:
    code = SECTIONS["A backbone"] + SECTIONS["Your own head"]
    exec(compile(code, "docs/use_elsewhere.md", "exec"), {"__name__": "example"})
    shown = capsys.readouterr().out
    assert "torch.Size([2, 96]) torch.Size([2, 512, 96])" in shown
    assert "(8, 8, 8) 96 4 8 1" in shown


@pytest.mark.slow
def test_the_page_from_its_start_to_compiling_runs(tmp_path: Path) -> None:
    titles = ["A backbone", "Your own head", "timm", "torch.compile"]
    shown = run(tmp_path, "\n".join(SECTIONS[title] for title in titles))
    assert "[torch.Size([1, 512, 96]), torch.Size([1, 512, 96])] [96, 96]" in shown


@pytest.mark.slow
def test_two_processes_share_the_weights(tmp_path: Path) -> None:
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    assert run(tmp_path, SECTIONS["FSDP2"], *launcher).count("[(2, 512, 96), (2, 512, 96)]") == 2
