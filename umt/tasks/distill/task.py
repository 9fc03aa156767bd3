"""Unmasked teacher: a student that sees few tokens predicts a frozen image teacher's features of the same tokens.

Paper: https://arxiv.org/abs/2303.16058, section 3. Shapes: B clips, T frames, H x W pixels, N tokens a frame, D teacher
width, E output width, K aligned layers, V visible tokens a clip.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from umt.data.loading.clip_batch import ClipBatch
from umt.data.masking import visible_count, visible_tokens
from umt.data.transforms.normalize import normalize
from umt.errors import ConfigError
from umt.models.teachers.base import Teacher, as_module
from umt.models.vit.student import Student
from umt.tasks.base import StepOutput
from umt.tasks.video.task import ClipTask

LOSSES = ("l2", "mse", "smooth_l1")


def alignment_loss(prediction: Tensor, target: Tensor, kind: str = "l2") -> Tensor:
    """prediction, target (K, B, V, E) -> scalar float32, computed in float32 whatever the precision of the step.

    `l2`: mean of 2 - 2 <p, t>, the squared distance of unit vectors (it takes them for unit vectors). `mse` and
    `smooth_l1` (beta 1): mean over every element.
    """
    with torch.autocast(prediction.device.type, enabled=False):
        prediction, target = prediction.float(), target.float()
        if kind == "l2":
            return (2 - 2 * (prediction * target).sum(-1)).mean()
        if kind == "mse":
            return F.mse_loss(prediction, target)
        if kind == "smooth_l1":
            return F.smooth_l1_loss(prediction, target)
    raise ConfigError(f"--clip_loss_type ({kind}) is not a loss. Choose one of {', '.join(LOSSES)}.")


class Distill(ClipTask):
    """Pretrains `student` against the frozen `teacher`.

    Args:
        student: (video (B, 3, T, H, W), visible (B, V)) -> (K, B, V, E).
        teacher: video -> (K features (B, T * N, D), saliency (B, T, N)), with `project(features, visible)` ->
            (K, B, V, E). It resizes the clip to its own size. It is frozen here, put into evaluation mode, and no part
            of the task's state.
        mask_type: attention (sampled by the teacher's saliency), tube or random.
        mask_ratio: share of the tokens that the student does not see.
        loss: l2 | mse | smooth_l1, see `alignment_loss`.
        loss_weight: factor of the loss (`--clip_loss_ratio`).

    Raises ConfigError for an unknown mask or loss, and where token grids, widths or numbers of layers differ.
    """

    def __init__(
        self,
        student: Student,
        teacher: Teacher,
        *,
        mask_type: str = "attention",
        mask_ratio: float = 0.8,
        loss: str = "l2",
        loss_weight: float = 1.0,
    ) -> None:
        if loss not in LOSSES:
            raise ConfigError(f"--clip_loss_type ({loss}) is not a loss. Choose one of {', '.join(LOSSES)}.")
        visible_count(mask_type, mask_ratio, 1, 1)  # refuses an unknown mask or ratio now, not at the first step
        _check_pair(student, teacher)
        self.model: nn.Module = student
        self.teacher = teacher
        as_module(teacher).requires_grad_(False).eval()
        self.mask_type = mask_type
        self.mask_ratio = mask_ratio
        self.loss = loss
        self.loss_weight = loss_weight

    def training_step(self, batch: ClipBatch, seed: int) -> StepOutput:
        """Loss of one micro-batch. `seed` is not used: what is random in a mask is the batch's noise."""
        return self.align(normalize(batch.video), batch.noise)

    def align(self, video: Tensor, noise: Tensor | None) -> StepOutput:
        """The method: normalised video (B, 3, T, H, W), mask noise (B, T, N) uniform in (0, 1) -> loss and metrics."""
        with torch.no_grad():
            features, saliency = self.teacher(video)  # K x (B, T N, D), (B, T, N)
            visible = self.visible(noise, saliency)  # (B, V)
            target = self.teacher.project(features, visible)  # (K, B, V, E)
        prediction = self.model(video, visible)
        loss = self.loss_weight * alignment_loss(prediction, target, self.loss)
        return StepOutput(loss, {"loss": loss.detach(), **alignment_metrics(prediction, target)})

    def visible(self, noise: Tensor | None, saliency: Tensor) -> Tensor:
        """noise (B, T, N) uniform in (0, 1), saliency (B, T, N) -> indices of the visible tokens (B, V), ascending."""
        if noise is None or noise.shape != saliency.shape:
            raise ConfigError(
                f"pretraining needs mask noise of the token grid {tuple(saliency.shape)} in its batches, got "
                f"{None if noise is None else tuple(noise.shape)}; make the loader for this student."
            )
        return visible_tokens(self.mask_type, self.mask_ratio, noise, saliency)

    def to(self, device: torch.device) -> None:
        """Moves student and teacher to `device`."""
        super().to(device)
        as_module(self.teacher).to(device)


def _check_pair(student: Student, teacher: Teacher) -> None:
    frames, tubelet = student.clip_shape[0], teacher.tubelet_size
    seen = (frames // tubelet, *teacher.patch_grid)
    if student.grid != seen or frames % tubelet:
        raise ConfigError(
            f"the student's token grid {student.grid} and the teacher's {seen} (frames, height, width) must be equal. "
            f"The teacher's tokens span {tubelet} frame(s), so use --tubelet_size {tubelet}; and make "
            f"--clip_input_resolution / {teacher.patch_size} equal to --input_size / {student.patch_size}."
        )
    if len(student.returned) != len(teacher.returned):
        raise ConfigError(
            f"the student aligns {len(student.returned)} layers and the teacher returns {len(teacher.returned)}; give "
            f"both the same --clip_return_layer."
        )
    width = student.get_parameter("clip_decoder.0.norm.weight").numel()
    if width != teacher.output_dim:
        raise ConfigError(
            f"--clip_output_dim ({width}) must be the teacher's output width, --clip_output_dim {teacher.output_dim}."
        )


@torch.no_grad()
def alignment_metrics(prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
    """prediction, target (K, B, V, E) -> scalars: mean cosine, that of each layer, and how much predictions vary.

    `feature_std`: standard deviation over all visible tokens of the unit-norm prediction, times sqrt(E): about 1 for
    features spread over the sphere, 0 for collapsed ones. `target_std` is the same of the teacher.
    """
    prediction, target = (F.normalize(x.float(), dim=-1) for x in (prediction, target))
    cosine = (prediction * target).sum(-1).mean((1, 2))  # (K,)
    scale = prediction.shape[-1] ** 0.5
    spread = [x.flatten(1, 2).var(1, correction=0).mean().sqrt() * scale for x in (prediction, target)]
    metrics = {"cosine": cosine.mean(), "feature_std": spread[0], "target_std": spread[1]}
    return {**metrics, **{f"cosine_layer{k}": value for k, value in enumerate(cosine.unbind())}}
