"""Computations that need no code of this library: ONNX and torch.export, run by themselves at any batch size."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.models.original import filled
from umt.data.transforms.normalize import normalize
from umt.errors import CheckpointError
from umt.models import VisionTransformer, create_model
from umt.models.files.hub import described
from umt.tools.export.command import main
from umt.tools.export.graphs import TRACED, compare, example, save_onnx, trace

pytestmark = pytest.mark.slow


def classifier() -> VisionTransformer:
    return filled(create_model("vit_tiny_patch8_48", num_classes=5))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The classifier in both forms."""
    place = tmp_path_factory.mktemp("graphs")
    torch.save({"model": classifier().state_dict()}, place / "weights.pth")
    flags = ["--model", "vit_tiny_patch8_48", "--format", "onnx", "torch_export"]
    assert main([str(place / "weights.pth"), "--output", str(place / "out"), *flags]) == 0
    return place / "out"


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_onnx_runtime_gives_the_model_s_logits_at_any_batch_size(folder: Path, batch: int) -> None:
    import onnxruntime

    video = torch.randn(batch, 3, 8, 48, 48)
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"video": video.numpy()})
    with torch.no_grad():
        expected = classifier()(video).numpy()
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_the_graph_has_onnx_s_own_operators_and_a_free_batch(folder: Path) -> None:
    import onnx

    model = onnx.load(folder / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert {(entry.domain, entry.version) for entry in model.opset_import} == {("", 20)}
    assert not model.functions
    axes = model.graph.input[0].type.tensor_type.shape.dim
    assert axes[0].dim_param
    assert [axis.dim_value for axis in axes[1:]] == [3, 8, 48, 48]


def test_a_program_runs_where_this_library_is_not(folder: Path, tmp_path: Path) -> None:
    video = torch.randn(3, 3, 8, 48, 48)
    with torch.no_grad():
        torch.save({"video": video, "logits": classifier()(video)}, tmp_path / "expected.pt")
    code = """
import sys, torch
model = torch.export.load(sys.argv[1]).module()
expected = torch.load(sys.argv[2])
torch.testing.assert_close(model(expected["video"]), expected["logits"], rtol=1e-4, atol=1e-5)
assert not any(name.split(".")[0] == "umt" for name in sys.modules)
"""
    command = [sys.executable, "-c", code, str(folder / "model.pt2"), str(tmp_path / "expected.pt")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr


def test_a_graph_that_is_too_large_for_one_file_is_two(tmp_path: Path) -> None:
    model = classifier()
    description = described(model)
    program = trace(model, example(description, TRACED, False))
    size = 2_000_000_000  # what a model of 500 M parameters has
    again = save_onnx(program, tmp_path / "model.onnx", opset=20, output="logits", size=size, facts={})
    assert (tmp_path / "model.onnx.data").stat().st_size > 3 * (tmp_path / "model.onnx").stat().st_size
    assert again is not None
    assert compare(model, again, "model.onnx", description, False).batches == (1, 3)


def test_a_graph_that_gives_other_numbers_is_refused() -> None:
    model = classifier()
    description = described(model)
    with pytest.raises(CheckpointError, match=r"model\.pt2 differs from the model by .*, which is more than rounding"):
        compare(model, lambda clip: model(clip) * 1.001, "model.pt2", description, False)


def test_with_preprocessing_a_graph_takes_frames_as_decoders_give_them(tmp_path: Path) -> None:
    import onnxruntime

    torch.save({"model": filled(create_model("pretrain_umt_tiny_patch8_48")).state_dict()}, tmp_path / "weights.pth")
    flags = ["--format", "safetensors", "onnx", "--with_preprocessing", "--opset", "18"]
    assert main([str(tmp_path / "weights.pth"), "--output", str(tmp_path / "out"), *flags]) == 0
    frames = torch.randint(0, 256, (2, 8, 48, 48, 3), dtype=torch.uint8)
    session = onnxruntime.InferenceSession(str(tmp_path / "out/model.onnx"), providers=["CPUExecutionProvider"])
    (features,) = session.run(["features"], {"video": frames.numpy()})
    model = VisionTransformer.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        expected = model(normalize(frames.permute(0, 4, 1, 2, 3).contiguous())).numpy()
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-4)
