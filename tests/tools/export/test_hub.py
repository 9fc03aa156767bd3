"""Up to the hub and down again, over HTTP, with the hub's own client in processes of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.models.original import filled
from tests.tools.export.hub_server import TOKEN, Hub
from umt.models import create_model

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        yield server


def run(hub: Hub, folder: Path, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
    cleared = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    settings = {"HF_ENDPOINT": hub.address, "HF_HOME": str(folder / "home"), "PYTHONPATH": str(ROOT)}
    settings |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_TOKEN": TOKEN, **more}
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env={**cleared, **settings}, capture_output=True, text=True, timeout=200
    )


def test_an_export_goes_to_the_hub_and_comes_back(hub: Hub, tmp_path: Path) -> None:
    model = filled(create_model("vit_tiny_patch8_48", num_classes=2))
    config = {"task": "finetune", "model": "vit_tiny_patch8_48", "num_frames": 8, "input_size": 48,
              "class_names": ["waving", "walking"]}  # fmt: skip
    torch.save({"model": model.state_dict(), "config": config}, tmp_path / "weights.pth")
    pushed = run(
        hub, tmp_path, "-m", "umt", "export", "weights.pth", "--output", "out", "--push_to_hub", "us/walk", "--private"
    )
    assert pushed.returncode == 0, pushed.stderr
    assert f"uploaded: {hub.address}/us/walk/commit/" in pushed.stdout
    files = hub.repositories["us/walk"]
    assert {"config.json", "model.safetensors", "README.md", "export.json"} <= files.keys()
    assert files["model.safetensors"] == (tmp_path / "out/model.safetensors").read_bytes()
    assert b'umt.load("hf://us/walk")' in files["README.md"]
    assert hub.private["us/walk"]

    video = torch.randn(1, 3, 8, 48, 48)
    torch.save({"video": video, "logits": model(video).detach()}, tmp_path / "expected.pt")
    code = """
import torch
from umt.models import VisionTransformer
from umt.models.files.pretrained import load_pretrained
expected = torch.load("expected.pt")
model = VisionTransformer.from_pretrained("us/walk")
assert model.description.labels == ("waving", "walking")
for one in (model, VisionTransformer.from_pretrained("us/walk", local_files_only=True), load_pretrained("hf://us/walk").model):
    assert torch.equal(one(expected["video"]), expected["logits"])
print(model.push_to_hub("us/copy"))
try:
    VisionTransformer.from_pretrained("us/nothing")
except ValueError as error:
    print(error)
"""
    pulled = run(hub, tmp_path, "-c", code)
    assert pulled.returncode == 0, pulled.stderr
    assert f"{hub.address}/us/copy" in pulled.stdout
    assert "us/nothing: the hub has no us/nothing, or it is private" in pulled.stdout
    assert hub.repositories["us/copy"]["model.safetensors"] == files["model.safetensors"]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"HF_TOKEN": "hf_wrong"}, "the hub refuses, 401: .*To log in, run: hf auth login"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "the hub cannot be reached .*Connection refused"),
    ],
)
def test_an_upload_that_fails_leaves_the_folder_and_says_why(
    settings: dict[str, str], sentence: str, hub: Hub, tmp_path: Path
) -> None:
    create_model("vit_tiny_patch8_48", num_classes=2).save_pretrained(tmp_path / "in")
    command = ["-m", "umt", "export", "in", "--output", "out", "--push_to_hub", "us/walk"]
    refused = run(hub, tmp_path, *command, **settings)
    assert refused.returncode == 2
    assert re.fullmatch(f"umt: us/walk: {sentence}.*\n", refused.stderr), refused.stderr
    assert (tmp_path / "out/model.safetensors").exists()
