"""Files and folders of weights: what is read, and what is said of those that are damaged or incomplete."""

from __future__ import annotations

import argparse
import io
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from umt.errors import CheckpointError
from umt.models.files.checkpoint_file import read_state_dict

STATE = {"head.weight": torch.arange(100.0).reshape(5, 20), "head.bias": torch.ones(5)}
WHOLE = save(STATE)


def same(state: dict[str, torch.Tensor]) -> bool:
    return state.keys() == STATE.keys() and all(torch.equal(STATE[name], value) for name, value in state.items())


def test_safetensors_are_read_whatever_they_are_called(tmp_path: Path) -> None:
    for name in ("w.safetensors", "w.pth"):
        (tmp_path / name).write_bytes(WHOLE)
        assert same(read_state_dict(tmp_path / name))


def test_shards_are_one_state_dict(tmp_path: Path) -> None:
    for i, (name, value) in enumerate(STATE.items()):
        save_file({name: value}, tmp_path / f"model-{i}.safetensors")
    shards = {name: f"model-{i}.safetensors" for i, name in enumerate(STATE)}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    assert same(read_state_dict(tmp_path))
    assert same(read_state_dict(tmp_path / "model.safetensors.index.json"))
    (tmp_path / "model-1.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"names the shard model-1\.safetensors, which is not next to it"):
        read_state_dict(tmp_path)


def test_a_deepspeed_checkpoint_is_found_by_folder_parent_or_file(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoint-best"
    folder.mkdir(parents=True)
    torch.save({"module": STATE, "ds_version": "0.9", "epoch": 3}, folder / "mp_rank_00_model_states.pt")
    (tmp_path / "run" / "latest").write_text("checkpoint-best\n")
    for source in (folder, folder.parent, folder / "mp_rank_00_model_states.pt"):
        assert same(read_state_dict(source))


def test_deepspeed_s_shares_want_to_be_brought_together(tmp_path: Path) -> None:
    (tmp_path / "zero_pp_rank_0_mp_rank_00_model_states.pt").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"ZeRO stage 3, in shares\. Merge them with the zero_to_fp32\.py"):
        read_state_dict(tmp_path)


@pytest.mark.parametrize("tag", ["gone", "../elsewhere", ""])
def test_a_latest_that_names_nothing_is_a_sentence(tmp_path: Path, tag: str) -> None:
    (tmp_path / "latest").write_text(tag)
    with pytest.raises(CheckpointError, match=r"latest names .*, which is not a folder next to it"):
        read_state_dict(tmp_path)


def test_the_best_of_a_run_is_taken_before_its_latest(tmp_path: Path) -> None:
    torch.save({"model": {"weight": torch.zeros(1)}}, tmp_path / "checkpoint-latest.pth")
    torch.save({"model": STATE}, tmp_path / "checkpoint-best.pth")
    assert same(read_state_dict(tmp_path))


def test_what_training_loops_leave_beside_the_weights_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("deepspeed", "deepspeed.runtime", "deepspeed.runtime.fp16", "deepspeed.runtime.fp16.loss_scaler"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    module = sys.modules["deepspeed.runtime.fp16.loss_scaler"]
    scaler = type("LossScaler", (), {"__module__": module.__name__})
    monkeypatch.setattr(module, "LossScaler", scaler, raising=False)
    args = argparse.Namespace(output_dir=Path("outputs/run"), lr=1e-3)
    left = {"max_accuracy": np.float64(81.9), "seen": np.int64(3), "loss_scaler": scaler(), "args": args}
    torch.save({"model": STATE, **left}, tmp_path / "w.pth")
    assert same(read_state_dict(tmp_path / "w.pth"))


def test_a_folder_of_something_else_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "video.mp4").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"is a folder without weights .* It holds video\.mp4\. Name the file"):
        read_state_dict(tmp_path)


def test_a_damaged_index_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": [')
    with pytest.raises(CheckpointError, match="is damaged or not an index of shards"):
        read_state_dict(tmp_path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, len(WHOLE) - 1), name=st.sampled_from(["w.safetensors", "w.pth"]))
def test_safetensors_cut_anywhere_are_a_sentence(tmp_path: Path, cut: int, name: str) -> None:
    (tmp_path / name).write_bytes(WHOLE[:cut])
    with pytest.raises(CheckpointError) as refused:
        read_state_dict(tmp_path / name)
    assert len(str(refused.value).splitlines()) == 1


def old_file() -> bytes:
    buffer = io.BytesIO()
    torch.save({"model": STATE}, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


OLD = old_file()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, len(OLD) - 1))
def test_a_file_of_torch_s_old_form_cut_anywhere_is_a_sentence(tmp_path: Path, cut: int) -> None:
    (tmp_path / "w.pth").write_bytes(OLD[:cut])
    with pytest.raises(CheckpointError) as refused:
        read_state_dict(tmp_path / "w.pth")
    assert len(str(refused.value).splitlines()) == 1


def test_a_zip_whose_end_is_damaged_is_a_sentence(tmp_path: Path) -> None:
    torch.save({"model": STATE}, tmp_path / "w.pth")
    content = bytearray((tmp_path / "w.pth").read_bytes())
    content[content.rindex(b"PK\x06\x07") + 16] = 7  # it says that it goes over seven disks
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match="is truncated"):
        read_state_dict(tmp_path / "w.pth")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(min_size=1, max_size=80))
def test_noise_called_safetensors_is_a_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError):
        read_state_dict(tmp_path / "w.safetensors")
