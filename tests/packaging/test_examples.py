"""The Python in README.md and docs/extend.md runs as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = """
import torch
from umt.models import create_model
model = create_model("vit_base_patch16_224", num_frames=8, tubelet_size=1, num_classes=400)
torch.save({"module": model.state_dict()}, "b16_ptk710_ftk710_ftk400_f8_res224.pth")
"""


def python_of(section: str) -> str:
    return "\n".join(re.findall(r"^```python\n(.*?)^```", section, flags=re.M | re.S))


def sections(document: Path) -> dict[str, str]:
    """Heading -> Python of that section, of those that have any."""
    parts = re.split(r"^## (.+)\n", document.read_text(encoding="utf-8"), flags=re.M)
    return {title: python_of(body) for title, body in zip(parts[1::2], parts[2::2], strict=True) if python_of(body)}


def run(code: str, folder: Path) -> str:
    (folder / "example.py").write_text(code, encoding="utf-8")
    done = subprocess.run([sys.executable, "example.py"], cwd=folder, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_example_of_the_readme_runs(tmp_path: Path) -> None:
    run(WEIGHTS, tmp_path)
    assert "vit_base_patch16_224" in run(sections(ROOT / "README.md")["Use the models"], tmp_path)


@pytest.mark.parametrize(
    "title", ["A new model", *(pytest.param(t, marks=pytest.mark.slow) for t in ("A new data set", "A new task"))]
)
def test_the_examples_of_extending_run(title: str, tmp_path: Path) -> None:
    run(sections(ROOT / "docs/extend.md")[title], tmp_path)
