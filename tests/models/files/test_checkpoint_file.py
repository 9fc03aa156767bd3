"""Files that are no checkpoint, or a hostile one: one sentence each, and nothing of them runs."""

import io
import os
import pickle
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from umt.errors import CheckpointError
from umt.models.files.checkpoint_file import read_state_dict


class Hostile:
    """Unpickled without restraint, this makes the folder `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_that_would_run_code_is_refused_unrun(tmp_path: Path, legacy: bool) -> None:
    file = tmp_path / "weights.pth"
    content = {"model": {"weight": torch.ones(1)}, "args": Hostile(tmp_path / "made")}
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(CheckpointError, match=r"weights.pth pickles \w+\.mkdir, which could run code"):
        read_state_dict(file)
    assert not (tmp_path / "made").exists()


def test_a_bare_hostile_pickle_is_refused_unrun(tmp_path: Path) -> None:
    file = tmp_path / "weights.pkl"
    file.write_bytes(pickle.dumps(Hostile(tmp_path / "made"), protocol=2))
    with pytest.raises(CheckpointError, match=r"weights\.pkl"):
        read_state_dict(file)
    assert not (tmp_path / "made").exists()


def test_reading_allows_no_class_beyond_the_call(tmp_path: Path) -> None:
    before = set(torch.serialization.get_safe_globals())
    torch.save({"weight": torch.ones(1)}, tmp_path / "weights.pth")
    read_state_dict(tmp_path / "weights.pth")
    assert set(torch.serialization.get_safe_globals()) == before


def test_old_files_load(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(1)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert torch.equal(read_state_dict(tmp_path / "old.pth")["weight"], torch.ones(1))


def checkpoint() -> bytes:
    buffer = io.BytesIO()
    torch.save({"model": {"weight": torch.arange(100.0), "bias": torch.ones(3)}}, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git-lfs pointer.*git lfs pull"),
        (b"\n<!DOCTYPE html><html>Quota exceeded</html>", "is a web page, not weights"),
        (b"<html><body>404</body></html>", "is a web page, not weights"),
        (b"path,label\na.mp4,3\n", "is not a PyTorch checkpoint"),
        (checkpoint()[:-200], "is truncated"),
        (checkpoint()[:600], "is truncated"),
        (b"\x80\x02}", "is truncated or damaged|is damaged"),
    ],
)
def test_what_is_no_checkpoint_gets_its_sentence(tmp_path: Path, content: bytes, sentence: str) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=sentence) as caught:
        read_state_dict(file)
    assert str(file) in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.pth does not exist"):
        read_state_dict(tmp_path / "none.pth")


def test_a_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is a folder.*mp_rank_00_model_states\.pt"):
        read_state_dict(tmp_path)


def test_a_tensor_alone_is_no_state_dict(tmp_path: Path) -> None:
    torch.save(torch.ones(2), tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="holds a Tensor, not a dictionary of weights"):
        read_state_dict(tmp_path / "weights.pth")


def test_a_torchscript_archive_is_read_like_any_file_of_weights(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 3)), str(tmp_path / "linear.pt"))
    assert set(read_state_dict(tmp_path / "linear.pt")) == {"weight", "bias"}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(1, len(checkpoint()) - 1))
def test_a_file_cut_anywhere_is_a_sentence(tmp_path: Path, cut: int) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(checkpoint()[:cut])
    with pytest.raises(CheckpointError):
        read_state_dict(file)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(min_size=1, max_size=60), start=st.sampled_from([b"", b"\x80\x02", b"PK\x03\x04"]))
def test_noise_is_a_sentence(tmp_path: Path, content: bytes, start: bytes) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(start + content)
    with pytest.raises(CheckpointError):
        read_state_dict(file)


def test_a_bare_pickle_of_numbers_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "weights.pkl").write_bytes(pickle.dumps({"epoch": 3}, protocol=2))
    with pytest.raises(CheckpointError, match=r"weights\.pkl is truncated or damaged"):
        read_state_dict(tmp_path / "weights.pkl")
