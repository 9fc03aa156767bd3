"""`hubconf.py`: what torch.hub finds in the repository."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

from umt.errors import CheckpointError
from umt.models import create_model, list_models

ROOT = Path(__file__).resolve().parents[2]


def load(*arguments: Any, **keywords: Any) -> Any:
    return torch.hub.load(str(ROOT), *arguments, source="local", **keywords)


def test_torch_hub_lists_every_model_and_nothing_else() -> None:
    # The rule of torch.hub.list, which itself takes no local folder.
    content = runpy.run_path(str(ROOT / "hubconf.py"))
    entries = [name for name, value in content.items() if callable(value) and not name.startswith("_")]
    assert sorted(entries) == sorted([*list_models(), "pretrained"])
    assert content["vit_base_patch16_224"].__doc__.startswith("ViT-B/16 video classifier.")


def test_an_entry_gives_a_fresh_model_or_a_trained_one(tmp_path: Path) -> None:
    fresh = load("vit_tiny_patch8_48", num_classes=3)
    torch.save({"model": fresh.state_dict()}, tmp_path / "weights.pth")
    video = torch.randn(1, 3, 8, 48, 48)
    for trained in (
        load("vit_tiny_patch8_48", pretrained=str(tmp_path / "weights.pth")),
        load("pretrained", str(tmp_path / "weights.pth")),
        load("pretrained", str(tmp_path / "weights.pth"), architecture="vit_tiny_patch8_48"),
    ):
        assert torch.equal(trained(video), fresh.eval()(video))
        assert trained.description.arguments["num_classes"] == 3
    with pytest.raises(CheckpointError, match="does not exist"):
        load("vit_tiny_patch8_48", pretrained=str(tmp_path / "missing.pth"))


def test_a_model_of_the_hub_is_the_library_s(tmp_path: Path) -> None:
    assert type(load("vit_tiny_patch8_64")).__name__ == type(create_model("vit_tiny_patch8_64")).__name__


def test_a_teacher_has_its_weights_by_torch_hub_too(tmp_path: Path) -> None:
    fresh = load("clip_tiny_patch8_48")
    torch.save(fresh.state_dict(), tmp_path / "clip.pth")
    trained = load("clip_tiny_patch8_48", pretrained=str(tmp_path / "clip.pth"), return_layers=2)
    assert not trained.training
    assert torch.equal(trained.conv1.weight, fresh.conv1.weight)
    assert len(trained.returned) == 2
