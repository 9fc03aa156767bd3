"""Runs whose weights lie on a web server: fetched once for all processes, held against a hash, and recorded."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.end_to_end.conftest import CLASSES, Command, Data, environment, with_flags
from tests.end_to_end.test_two_processes import torchrun
from tests.web import serving
from umt.models import create_model

TINY = {"image_size": 64, "num_frames": 8}


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.slow
def test_a_teacher_by_url_is_fetched_once_for_two_processes(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "served").mkdir()
    shutil.copy(data.folder / "teacher.pth", tmp_path / "served" / "vit.pth")
    monkeypatch.setenv("UMT_CACHE", str(tmp_path / "cache"))
    with serving(tmp_path / "served") as (address, web):
        url = f"{address}/vit.pth#sha256={sha256(data.folder / 'teacher.pth')}"
        words = with_flags(
            data.pretrain, clip_teacher_weights=url, output_dir=tmp_path / "out", epochs=1, warmup_epochs=0
        )
        torchrun(*words, cwd=tmp_path)
        assert web.asked == ["/vit.pth"]
    recorded = json.loads((tmp_path / "out" / "config.json").read_text())["weights"]
    assert recorded == {"clip_teacher_weights": {"source": url, "sha256": url[-64:]}}


@pytest.mark.slow
def test_weights_by_url_start_a_finetuning_and_another_hash_stops_it(data: Data, umt: Command, tmp_path: Path) -> None:
    (tmp_path / "served").mkdir()
    file = tmp_path / "served" / "w.pth"
    torch.save({"model": create_model("vit_tiny_patch8_64", num_classes=CLASSES, **TINY).state_dict()}, file)
    env = environment(UMT_CACHE=str(tmp_path / "cache"))
    with serving(tmp_path / "served") as (address, web):
        flags = {"epochs": 1, "warmup_epochs": 0, "num_sample": 1, "aa": "none", "model_ema": False}
        words = with_flags(data.finetune, **flags, finetune=f"{address}/w.pth", output_dir=tmp_path / "out")
        umt(*words, env=env)
        assert web.asked == ["/w.pth"]
        recorded = json.loads((tmp_path / "out" / "config.json").read_text())["weights"]
        assert recorded == {"finetune": {"source": f"{address}/w.pth", "sha256": sha256(file)}}
        wrong = f"{address}/w.pth#sha256={'0' * 64}"
        done = umt(*with_flags(words, finetune=wrong, output_dir=tmp_path / "other"), env=env, code=2)
        assert f"{address}/w.pth has the sha256 {sha256(file)}, not {'0' * 64}" in done.stderr
