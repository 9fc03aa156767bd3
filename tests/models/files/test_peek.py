"""What a file of weights is, without torch and without running anything of it."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from umt.models import create_model
from umt.models.files.peek import Start, peek


@pytest.mark.parametrize(
    ("name", "key"), [("vit_tiny_patch8_48", "model"), ("vit_tiny_patch8_64", "module"), ("vit_tiny_patch8_48", None)]
)
def test_a_classifier_is_known_by_its_shapes(name: str, key: str | None, tmp_path: Path) -> None:
    state = create_model(name, num_classes=7).state_dict()
    torch.save({key: state} if key else state, tmp_path / "w.pth")
    found = peek(str(tmp_path / "w.pth"))
    assert (found.model, found.tubelet_size, found.head) == (name, 1, 7)


def test_a_student_becomes_the_classifier_of_its_size(tmp_path: Path) -> None:
    state = create_model("pretrain_umt_tiny_patch8_48").state_dict()
    torch.save({"model": state, "args": argparse.Namespace(model="x")}, tmp_path / "w.pth")
    found = peek(str(tmp_path / "w.pth"))
    assert (found.model, found.head) == ("vit_tiny_patch8_48", 0)


def test_a_safetensors_header_is_enough(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(
        create_model("vit_tiny_patch8_64", num_classes=3, tubelet_size=2).state_dict(), tmp_path / "w.safetensors"
    )
    found = peek(str(tmp_path / "w.safetensors"))
    assert (found.model, found.tubelet_size, found.head) == ("vit_tiny_patch8_64", 2, 3)


def test_an_exported_folder_says_it_in_words(tmp_path: Path) -> None:
    described = {
        "umt_model": 1,
        "model": "vit_base_patch16_224",
        "arguments": {"num_frames": 16, "tubelet_size": 1, "image_size": 224, "num_classes": 2},
        "labels": ["a", "b"],
    }
    (tmp_path / "config.json").write_text(json.dumps(described))
    assert peek(str(tmp_path)) == Start(str(tmp_path), "vit_base_patch16_224", 16, 1, 224, 2, ("a", "b"))


def test_the_folder_of_a_run_says_it_by_its_flags(tmp_path: Path) -> None:
    flags = {"task": "finetune", "model": "vit_tiny_patch8_48", "num_frames": 4, "tubelet_size": 1, "input_size": 48}
    (tmp_path / "config.json").write_text(json.dumps({**flags, "nb_classes": 2, "class_names": ["a", "b"]}))
    found = peek(str(tmp_path))
    assert (found.model, found.num_frames, found.head, found.names) == ("vit_tiny_patch8_48", 4, 2, ("a", "b"))


def test_a_folder_of_transformers_is_known_by_its_sizes(tmp_path: Path) -> None:
    told = {
        "hidden_size": 768, "num_hidden_layers": 12, "patch_size": 16, "num_frames": 16, "tubelet_size": 2,
        "image_size": 224, "architectures": ["VideoMAEForVideoClassification"], "id2label": {"0": "a", "1": "b"},
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(told))
    assert peek(str(tmp_path)) == Start(str(tmp_path), "vit_base_patch16_224", 16, 2, 224, 2)


def test_a_file_of_the_zoo_has_its_frames_from_its_name_and_the_rest_from_its_shapes(tmp_path: Path) -> None:
    file = tmp_path / "l16_ptk710_ftk710_ftk400_f16_res224.pth"
    torch.save({"module": create_model("vit_tiny_patch8_48", num_classes=7).state_dict()}, file)
    found = peek(str(file))
    assert (found.model, found.head, found.num_frames, found.input_size) == ("vit_tiny_patch8_48", 7, 16, 224)


def test_no_weights_are_not_the_folder_where_a_command_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model": "vit_tiny_patch8_48", "arguments": {}}))
    monkeypatch.chdir(tmp_path)
    assert peek("") == Start("")


@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04 but no zip", b"\x80\x04K\x01.", b"\xff" * 64])
def test_what_is_no_checkpoint_tells_nothing(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    assert peek(str(tmp_path / "w.pth")) == Start(str(tmp_path / "w.pth"))


class _Hostile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def test_a_hostile_file_runs_nothing(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        archive.writestr("w/data.pkl", pickle.dumps({"model": _Hostile(tmp_path / "made")}, protocol=2))
    assert peek(str(tmp_path / "w.pth")).model is None
    assert not (tmp_path / "made").exists()


def test_a_pickle_that_asks_for_memory_does_not_get_it(tmp_path: Path) -> None:
    far = (
        b"\x80\x02}r" + (2**25).to_bytes(4, "little") + b"."
    )  # LONG_BINPUT: a memo of so many entries, and as many more
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        archive.writestr("w/data.pkl", far)
    script = "import re, sys; from umt.models.files.peek import peek; peek(sys.argv[1]); "
    script += "print(re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1])"  # most that was held
    words = [sys.executable, "-c", script, str(tmp_path / "w.pth")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 256 << 10  # KiB; such a memo has 512 MiB


def test_no_source_is_not_the_folder_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"umt_model": 1, "model": "vit_tiny_patch8_48", "arguments": {}}))
    monkeypatch.chdir(tmp_path)
    assert peek(".").model == "vit_tiny_patch8_48"
    assert peek("") == Start("")


def test_peeking_imports_no_torch(tmp_path: Path) -> None:
    torch.save({"model": create_model("vit_tiny_patch8_48").state_dict()}, tmp_path / "w.pth")
    script = (
        "import sys; from umt.models.files.peek import peek; print(peek(sys.argv[1]).model, 'torch' in sys.modules)"
    )
    words = [sys.executable, "-c", script, str(tmp_path / "w.pth")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["vit_tiny_patch8_48", "False"]
