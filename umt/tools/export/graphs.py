"""A model as a computation that needs no code of ours: torch.export and ONNX, compared with the model they come from.

Shapes: B clips, T frames, H x W pixels, K classes.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from umt.errors import CheckpointError, ConfigError, install
from umt.models.files.description import Description
from umt.models.specs import image_shape

TRACED = 2  # clips in the example that is traced; 0 and 1 would be taken for constants
BATCHES = (1, 3)  # compared at sizes that were not traced
TOLERANCE = 1e-4  # of the largest output
_WHOLE_FILE = 1_900_000_000  # bytes; protobuf ends at 2 GiB


@dataclass(frozen=True)
class Check:
    """How far an exported computation is from the model: largest difference and largest output, over the batches."""

    difference: float
    largest: float
    batches: Sequence[int]

    def __str__(self) -> str:
        sizes = ", ".join(map(str, self.batches))
        return f"differs from the model by {self.difference:.1e} at most, of {self.largest:.3g} (batches of {sizes})"


class WithPreprocessing(nn.Module):
    """The model behind its normalisation: frames as a decoder gives them."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, description: Description) -> None:
        super().__init__()
        self.model = model
        for name, values in (("mean", description.mean), ("std", description.std)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1, 1))

    def forward(self, frames: Tensor) -> Tensor:
        """frames (B, T, H, W, 3) uint8, RGB -> what the model gives."""
        return self.model((frames.permute(0, 4, 1, 2, 3).float() / 255 - self.mean) / self.std)


def example(description: Description, batch: int, preprocessing: bool) -> Tensor:
    """Noise of the shape and type that the computation takes, the same at every call."""
    height, width = image_shape(description.arguments["image_size"])
    generator = torch.Generator().manual_seed(batch)
    if preprocessing:
        shape = (batch, description.num_frames, height, width, 3)
        return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return torch.randn(batch, 3, description.num_frames, height, width, generator=generator)


def trace(model: nn.Module, clip: Tensor) -> Any:
    """`model` as a `torch.export.ExportedProgram` of any batch size. `clip`: an example of two."""
    batch = torch.export.Dim("batch")
    with torch.no_grad(), _quiet():
        return torch.export.export(model.eval(), (clip,), dynamic_shapes=({0: batch},))


def save_program(program: Any, path: Path) -> Callable[[Tensor], Tensor]:
    """Writes `program` to `path`; gives what was read back, to be run."""
    content = io.BytesIO()  # torch's own writer ends the process where the disk is full
    with _quiet():
        torch.export.save(program, content)
        path.write_bytes(content.getbuffer())
        again: Callable[[Tensor], Tensor] = torch.export.load(path).module()
    return again


def save_onnx(
    program: Any, path: Path, *, opset: int, output: str, size: int, facts: dict[str, str]
) -> Callable[[Tensor], Tensor] | None:
    """Writes `program` as ONNX to `path`; gives it as ONNX Runtime runs it, None where that is not installed.

    `output`: name of what it gives; `size`: bytes of the weights; `facts`: metadata. Raises ConfigError without onnx.
    """
    try:
        import onnxscript  # noqa: F401
    except ImportError:
        raise ConfigError(f"--format onnx needs onnx and onnxscript. Run: {install('onnx')}") from None
    with _quiet():
        exported = torch.onnx.export(
            program, dynamo=True, opset_version=opset, input_names=["video"], output_names=[output], verbose=False
        )
        assert exported is not None
        exported.model.metadata_props.update(facts)
        if size > _WHOLE_FILE:
            exported.save(path, external_data=True)
        else:
            path.write_bytes(exported.model_proto.SerializeToString())
    try:
        import onnxruntime
    except ImportError:
        return None
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda clip: torch.from_numpy(session.run(None, {"video": clip.numpy()})[0])


def compare(
    model: nn.Module, exported: Callable[[Tensor], Tensor], what: str, description: Description, preprocessing: bool
) -> Check:
    """Runs both on the same noise. Raises CheckpointError where they differ by more than rounding."""
    difference = largest = 0.0
    for batch in BATCHES:
        clip = example(description, batch, preprocessing)
        with torch.no_grad():
            expected, actual = model(clip), exported(clip)
        if actual.shape != expected.shape:
            raise CheckpointError(
                f"{what} gives {tuple(actual.shape)}, the model {tuple(expected.shape)}: not written."
            )
        difference = max(difference, (actual - expected).abs().max().item())
        largest = max(largest, expected.abs().max().item())
    if not difference <= TOLERANCE * max(largest, 1e-6):
        raise CheckpointError(
            f"{what} differs from the model by {difference:.1e}, of {largest:.3g}, which is more than rounding: "
            "not written. Try other versions of torch and onnxscript."
        )
    return Check(difference, largest, BATCHES)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' progress and advice, which are not for the user of this tool."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
