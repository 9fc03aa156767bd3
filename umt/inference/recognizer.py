"""`umt.load`: from a checkpoint to class names in four lines.

    model = umt.load("checkpoint.pth")
    views = model.transform("video.mp4")
    probabilities = model.predict(views)
    print(model.labels[probabilities.argmax()])

Shapes: V views of T frames of H x W pixels, K classes.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from umt import devices
from umt.data.transforms.normalize import normalize
from umt.errors import CheckpointError, ConfigError
from umt.evaluation.answers import answers
from umt.inference.class_names import class_names, how, numbered
from umt.inference.views import Source, Views
from umt.inference.windows import Window, windows
from umt.models.files.description import Description, Sampling
from umt.models.files.pretrained import load_pretrained
from umt.models.specs import image_shape

__all__ = ["Recognizer", "load"]
log = logging.getLogger(__name__)


class Recognizer:
    """A model with what is needed to use it. Made by `umt.load`.

    Attributes:
        model: in evaluation mode, on `device`.
        description: its architecture, frames, sizes and normalisation, and where it comes from.
        named: whether the names of its classes are known.
        views: how it wants its frames; `batch_size` views go through it at a time.
    """

    def __init__(
        self,
        model: nn.Module,
        description: Description,
        *,
        device: torch.device,
        precision: str,
        labels: Sequence[str] | None = None,
        batch_size: int = 8,
        decoder: str = "auto",
    ) -> None:
        self.model = model.to(device).eval().requires_grad_(False)
        self.description, self.device, self.precision, self.batch_size = description, device, precision, batch_size
        self.num_classes = int(getattr(model, "num_classes", 0))
        self.named = labels is not None
        self._labels = tuple(labels) if labels is not None else None
        self.views = Views(
            description.num_frames,
            description.input_size,
            description.short_side_size,
            description.sampling,
            description.sampling_rate,
            decoder,
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """K class names; "class 17" where they are not known, with one warning. Empty without a head."""
        if self._labels is None:
            self._labels = numbered(self.num_classes)
            if self._labels:
                source = self.description.provenance.get("source", self.description.model)
                log.warning("%s does not name its %d classes. %s", source, self.num_classes, how(self.num_classes))
        return self._labels

    def transform(self, video: Source, clips: int = 1, crops: int = 1) -> Tensor:
        """A video as views (clips * crops, T, H, W, 3) uint8, on the CPU: those that `umt test` makes of it.

        `video`: a file, a folder of frames, a URL, or frames (L, H, W, 3) uint8 RGB, as an array or tensor. The
        published numbers take `description.test_clips` and `description.test_crops`. Raises VideoError.
        """
        array = video.numpy(force=True) if isinstance(video, Tensor) else video
        return torch.from_numpy(self.views.of(array, clips, crops))

    def windows(
        self, video: Source, window: float, stride: float | None = None, *, crops: int = 1, fps: float | None = None
    ) -> Iterator[Window]:
        """A video of any length, `window` seconds at a time; see `umt.inference.windows.windows`."""
        array = video.numpy(force=True) if isinstance(video, Tensor) else video
        return windows(self.views, array, window, stride, crops=crops, fps=fps)

    def predict(self, views: Tensor) -> Tensor:
        """views (V, T, H, W, 3) uint8 -> probabilities (K,) float64 on the CPU: the mean over the views, as in a test.

        Softmax of each view, or sigmoid where a video may have several classes (`description.multi_label`).
        """
        return self.merge(self.logits(views))

    def merge(self, logits: Tensor) -> Tensor:
        """logits (V, K) of the views of one video -> its probabilities (K,) float64; see `predict`."""
        merge = answers(self.description.multi_label).merge
        return torch.from_numpy(merge(logits.numpy()[None, :, None])[0])

    def logits(self, views: Tensor) -> Tensor:
        """views (V, T, H, W, 3) uint8 -> logits (V, K) float32 on the CPU. Raises ConfigError for a model without head.

        Raises ConfigError for views of another size than the model's, CheckpointError for scores that are no numbers.
        """
        if not self.num_classes:
            raise ConfigError(
                f"{self.description.architecture} has no classes to predict: it is a pretrained encoder. Finetune it, "
                "or take its features with umt extract."
            )
        logits = torch.cat([self._forward(batch) for batch in self.batches(views)]).cpu()
        self.require_finite(logits)
        return logits

    def require_finite(self, values: Tensor, what: str = "scores") -> None:
        """Raises CheckpointError for values of the model that are no numbers."""
        if not values.isfinite().all():
            source = self.description.provenance.get("source", self.description.model)
            raise CheckpointError(f"{source} gives {what} that are not finite. Check it, or take --precision fp32.")

    def batches(self, views: Tensor) -> Iterator[Tensor]:
        """views (V, T, H, W, 3) uint8 -> the model's input (B, 3, T, H, W), normalised, on its device, in turn."""
        shape = (self.views.num_frames, *image_shape(self.views.input_size), 3)
        if views.ndim != 5 or tuple(views.shape[1:]) != shape or views.dtype != torch.uint8:
            raise ConfigError(
                f"views must be (V, {', '.join(map(str, shape))}) uint8, not {tuple(views.shape)} {views.dtype}. "
                "transform() makes them."
            )
        for start in range(0, len(views), self.batch_size):
            batch = rearrange(views[start : start + self.batch_size].to(self.device), "v t h w c -> v c t h w")
            yield normalize(batch.contiguous(), self.description.mean, self.description.std)

    def autocast(self) -> torch.autocast:
        """Context of a forward pass in the model's precision."""
        return devices.autocast(self.device, self.precision)

    @torch.inference_mode()
    def _forward(self, batch: Tensor) -> Tensor:
        with self.autocast():
            logits: Tensor = self.model(batch)
        return logits.float()


def load(
    source: str | os.PathLike[str],
    *,
    device: str = "auto",
    precision: str = "auto",
    labels: str | Path | Sequence[str] | None = None,
    batch_size: int = 8,
    decoder: str = "auto",
    sampling: Sampling | None = None,
    sampling_rate: int | None = None,
    short_side_size: int | None = None,
    **keywords: Any,
) -> Recognizer:
    """A model ready to be used, from any weights that this library reads.

    Args:
        source: a checkpoint, an exported folder, a URL, `hf://OWNER/REPO`, or a name of the model zoo.
        device: auto (a GPU if there is one) | cpu | cuda | cuda:N. precision: auto | bf16 | fp16 | fp32.
        labels: class names, in place of those of the weights: an order ("k400_umt", "k400", "ssv2", ...), a
            file with one name per line, or the names.
        batch_size: views in one forward pass. decoder: the video reader.
        sampling, sampling_rate, short_side_size: how views are taken, in place of what the weights say.
        keywords: of `umt.models.load_pretrained`: model, num_frames, input_size, sha256, ... Of a teacher
            `model` is needed ("clip_b16").

    Raises CheckpointError for weights that cannot be loaded, ConfigError for what cannot be met.
    """
    chosen = devices.choose_device(device)
    settled = devices.choose_precision(precision, chosen)
    if batch_size < 1:
        raise ConfigError(f"batch_size ({batch_size}) must be at least 1.")
    for name, number in (("sampling_rate", sampling_rate), ("short_side_size", short_side_size)):
        if number is not None and number < 1:
            raise ConfigError(f"--{name} ({number}) must be at least 1.")
    loaded = load_pretrained(source, **keywords)
    classes = int(getattr(loaded.model, "num_classes", 0))
    names = class_names(str(source), classes, loaded.description.labels, labels) if classes else None
    taken = {"sampling": sampling, "sampling_rate": sampling_rate, "short_side_size": short_side_size}
    changes: dict[str, Any] = {name: value for name, value in taken.items() if value is not None}
    return Recognizer(
        loaded.model,
        dataclasses.replace(loaded.description, **changes),
        device=chosen,
        precision=settled,
        labels=names,
        batch_size=batch_size,
        decoder=decoder,
    )
