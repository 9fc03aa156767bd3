"""TorchScript archives: their tensors are read, and nothing of them runs."""

import io
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from umt.errors import CheckpointError
from umt.models.files.torchscript_file import read_torchscript

RAN: list[str] = []


class QuickGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class Tower(nn.Module):
    """A module with all that OpenAI's archives have: fp16 weights, scalars as buffers, lists, a nested module."""

    def __init__(self) -> None:
        super().__init__()
        self.class_embedding = nn.Parameter(torch.randn(6).half())
        self.blocks = nn.Sequential(nn.Linear(6, 4), QuickGELU())
        self.register_buffer("input_resolution", torch.tensor(224))
        self.register_buffer("seen", torch.tensor([True, False]))
        self.turned = nn.Parameter(torch.randn(3, 5).t())
        self.sizes = [1, 2]
        self.names = ["a", "b"]
        self.several = [torch.ones(2)]

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x) + self.class_embedding[:4]


def archived(module: nn.Module, file: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(module), str(file))
    return file


def forged(file: Path, pickled: bytes, **records: bytes) -> Path:
    """An archive whose tree of modules is `pickled`."""
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", pickled)
        archive.writestr("a/constants.pkl", b"")
        for name, content in records.items():
            archive.writestr(f"a/data/{name[1:]}", content)
    return file


def test_an_archive_gives_what_its_module_holds(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Tower()
    read = read_torchscript(archived(module, tmp_path / "tower.pt"))
    expected = module.state_dict()
    assert {name: value.dtype for name, value in read.state.items()} == {
        name: value.dtype for name, value in expected.items()
    }
    assert all(torch.equal(read.state[name], value) for name, value in expected.items())
    assert any(name.endswith("QuickGELU") for name in read.types)


def test_code_that_loading_would_run_is_not_run(tmp_path: Path) -> None:
    class Waking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("weight", torch.ones(1))

        @torch.jit.export
        def __getstate__(self) -> tuple[Tensor, bool]:
            return self.weight, self.training

        @torch.jit.export
        def __setstate__(self, state: tuple[Tensor, bool]) -> None:
            self.weight = state[0]
            self.training = state[1]
            assert False, "torch.jit.load has run this"  # noqa: B011, PT015

        def forward(self, x: Tensor) -> Tensor:
            return x * self.weight

    file = archived(Waking(), tmp_path / "waking.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(torch.jit.Error, match=r"torch\.jit\.load has run this"):
            torch.jit.load(str(file))
    assert read_torchscript(file).state == {}


def _note(word: str) -> str:
    RAN.append(word)
    return word


class Hostile:
    def __reduce__(self) -> tuple[Callable[[str], str], tuple[str]]:
        return _note, ("ran",)


def test_a_pickle_that_would_run_code_is_refused_unrun(tmp_path: Path) -> None:
    file = forged(tmp_path / "hostile.pt", pickle.dumps(Hostile(), protocol=2))
    with pytest.raises(CheckpointError, match=r"TorchScript archive that names .*_note, which no weights need"):
        read_torchscript(file)
    assert RAN == []


MODULE = b"\x80\x02c__torch__\nM\n)\x81"
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpu"


@pytest.mark.parametrize(
    ("pickled", "sentence"),
    [
        (b"\x80\x02cbuiltins\neval\n.", "names builtins.eval"),
        (b"\x80\x02ctorch.jit\nload\n.", "names torch.jit.load"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}b.", "a constructor with a state"),
        (MODULE + b"}X\x01\0\0\0w" + TENSOR + b"K\x01tQK\0(J\0\0\0\x40t(K\0t\x89}tRsb.", "larger than its storage"),
        (MODULE + b"}X\x01\0\0\0w" + TENSOR + b"K\x01tQK\x05(K\x01t(K\x01t\x89}tRsb.", "larger than its storage"),
        (MODULE + b"}r\xff\xff\xff\x7fb.", "an impossible place in its memo"),
        (b"\x80\x02}.", "no module at its top"),
        (MODULE + b"}X\x01\0\0\0w" + TENSOR + b"K\x02tQK\0(K\x02t(K\x01t\x89}tRsb.", "damaged TorchScript archive"),
        (MODULE[:-1], "damaged TorchScript archive"),
        (b"", "damaged TorchScript archive"),
    ],
)
def test_a_forged_archive_gets_its_sentence(tmp_path: Path, pickled: bytes, sentence: str) -> None:
    with pytest.raises(CheckpointError, match=sentence):
        read_torchscript(forged(tmp_path / "forged.pt", pickled, _0=b"\0\0\0\0"))


def test_modules_that_hold_each_other_end(tmp_path: Path) -> None:
    marked = b"\x80\x02c__torch__\nM\n)\x81q\0}(X\x04\0\0\0selfh\0X\x01\0\0\0w" + TENSOR
    file = forged(tmp_path / "around.pt", marked + b"K\x01tQK\0(K\x01t(K\x01t\x89}tRub.", _0=b"\0\0\x80\x3f")
    assert read_torchscript(file).state == {"w": torch.ones(1)}


def test_a_record_that_unfolds_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "packed.pt"
    with zipfile.ZipFile(file, "w", compression=zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", MODULE + b"}b.")
        archive.writestr("a/constants.pkl", b"")
    with pytest.raises(CheckpointError, match=r"names a compressed record a/data\.pkl"):
        read_torchscript(file)


def linear_archive() -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(nn.Linear(3, 2)), buffer)
    return buffer.getvalue()


LINEAR = linear_archive()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_archive_is_a_sentence_or_tensors(tmp_path: Path, data: Any) -> None:
    content, file = bytearray(LINEAR), tmp_path / "damaged.pt"
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    try:
        state = read_torchscript(file).state
    except CheckpointError:
        return
    assert all(isinstance(value, Tensor) for value in state.values())
