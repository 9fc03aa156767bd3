"""Files that would run a command when unpickled, wherever weights are taken from: refused, and nothing ran."""

from __future__ import annotations

import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from umt.errors import CheckpointError
from umt.models import create_model, load_weights
from umt.models.files.pretrained import load_pretrained
from umt.models.files.weights import read_head


class Hostile:
    """Unpickled without restraint, this runs `touch MARKER`."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return os.system, (f"touch '{self.marker}'",)


def new_file(folder: Path, content: object) -> Path:
    torch.save(content, folder / "w.pth")
    return folder / "w.pth"


def old_file(folder: Path, content: object) -> Path:
    torch.save(content, folder / "w.pth", _use_new_zipfile_serialization=False)
    return folder / "w.pth"


def bare_pickle(folder: Path, content: object) -> Path:
    (folder / "w.pkl").write_bytes(pickle.dumps(content, protocol=2))
    return folder / "w.pkl"


def newest_pickle(folder: Path, content: object) -> Path:
    (folder / "w.pkl").write_bytes(pickle.dumps(content, protocol=5))
    return folder / "w.pkl"


def called_safetensors(folder: Path, content: object) -> Path:
    torch.save(content, folder / "model.safetensors")
    return folder / "model.safetensors"


def hub_folder(folder: Path, content: object) -> Path:
    (folder / "config.json").write_text('{"model_type": "videomae"}')
    torch.save(content, folder / "pytorch_model.bin")
    return folder


def sharded_hub_folder(folder: Path, content: object) -> Path:
    torch.save({"weight": torch.ones(1)}, folder / "pytorch_model-1.bin")
    torch.save(content, folder / "pytorch_model-2.bin")
    shards = '{"weight_map": {"a": "pytorch_model-1.bin", "b": "pytorch_model-2.bin"}}'
    (folder / "pytorch_model.bin.index.json").write_text(shards)
    return folder


def deepspeed_folder(folder: Path, content: object) -> Path:
    (folder / "checkpoint-best").mkdir()
    (folder / "latest").write_text("checkpoint-best")
    torch.save(content, folder / "checkpoint-best" / "mp_rank_00_model_states.pt")
    return folder


def run_folder(folder: Path, content: object) -> Path:
    torch.save(content, folder / "checkpoint-best.pth")
    return folder


def package(folder: Path, content: object) -> Path:
    with torch.package.PackageExporter(folder / "w.pt") as exporter:
        exporter.extern("**")
        exporter.save_pickle("model", "model.pkl", content)
    return folder / "w.pt"


def tar(folder: Path, content: object) -> Path:
    with tarfile.open(folder / "w.tar", "w") as archive:
        archive.add(bare_pickle(folder, content), "pickle")
    return folder / "w.tar"


FORMS: list[Callable[[Path, object], Path]] = [
    new_file, old_file, bare_pickle, newest_pickle, called_safetensors, hub_folder, sharded_hub_folder,
    deepspeed_folder, run_folder, package, tar,
]  # fmt: skip


def test_the_command_would_run_if_anything_unpickled_it(tmp_path: Path) -> None:
    pickle.loads(bare_pickle(tmp_path, Hostile(tmp_path / "marker")).read_bytes())
    assert (tmp_path / "marker").exists()


@pytest.mark.filterwarnings("ignore:TypedStorage")  # torch's, of its own packages
@pytest.mark.parametrize("form", FORMS, ids=[form.__name__ for form in FORMS])
def test_a_hostile_file_is_refused_and_did_not_run(tmp_path: Path, form: Callable[[Path, object], Path]) -> None:
    marker = tmp_path / "marker"
    state = {"patch_embed.proj.weight": torch.zeros(96, 3, 1, 8, 8), "blocks.0.mlp.fc1.weight": torch.zeros(384, 96)}
    (tmp_path / "files").mkdir()
    source = form(tmp_path / "files", {"model": state, "args": Hostile(marker), **state})
    model = create_model("vit_tiny_patch8_64", depth=1)
    for load in (load_pretrained, read_head, lambda source: load_weights(model, source)):
        with pytest.raises(CheckpointError) as refused:
            load(source)
        assert len(str(refused.value).splitlines()) == 1
    assert not marker.exists()


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("in_a_zip", [False, True])
def test_a_hostile_file_of_any_protocol_is_refused_by_name_without_a_warning(
    tmp_path: Path, protocol: int, in_a_zip: bool
) -> None:
    file, marker = tmp_path / "w.pth", tmp_path / "marker"
    content = {"epoch": 1, "args": Hostile(marker)}  # bare, a tensor would be refused first
    if in_a_zip:
        torch.save({"model": {"weight": torch.zeros(2)}, **content}, file, pickle_protocol=protocol)
    else:
        file.write_bytes(pickle.dumps(content, protocol=protocol))
    with pytest.raises(CheckpointError, match=r"w\.pth pickles posix\.system, .* so it is refused\."):
        read_head(file)
    assert not marker.exists()


def test_weights_in_a_protocol_that_torch_does_not_read_are_told_so(tmp_path: Path) -> None:
    torch.save({"model": {"weight": torch.zeros(2)}}, tmp_path / "w.pth", pickle_protocol=4)
    with pytest.raises(CheckpointError, match=r"w\.pth is pickled in protocol 4 or later, which is not read here"):
        read_head(tmp_path / "w.pth")


def test_shards_outside_of_the_folder_are_not_read(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(1)}, tmp_path / "secret.bin")
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "../secret.bin"}}')
    with pytest.raises(CheckpointError, match=r"names the shard \.\./secret\.bin, which is not next to it"):
        read_head(tmp_path / "hub")
