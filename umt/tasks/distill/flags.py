"""Flags of pretraining: student, teacher, mask and loss, data, augmentation, schedule."""

from __future__ import annotations

from dataclasses import dataclass

from umt.flags.group import Group, flag
from umt.flags.optim import OptimConfig
from umt.flags.run import CheckpointConfig
from umt.tasks.video.flags import DataConfig, ModelConfig


@dataclass(frozen=True)
class StudentConfig(ModelConfig):
    """Student"""

    model: str = flag("pretrain_umt_base_patch16_224", "entry point of the student, see umt.models.list_models()")
    tubelet_size: int = flag(1, "frames that one token covers; the image teacher aligns with 1", at_least=1)
    clip_decoder_embed_dim: int | None = flag(
        None, "width that the decoders take; default: the student's, the only one that fits", at_least=1, example="768"
    )
    clip_output_dim: int | None = flag(
        None, "width that the decoders give; default: the teacher's output", at_least=1, example="512"
    )
    clip_student_return_interval: float = flag(1.0, "distance of the aligned student blocks, from the last", at_least=1)


@dataclass(frozen=True)
class TeacherConfig(Group):
    """Teacher, mask and loss"""

    clip_teacher: str = flag("clip_b16", "frozen image teacher: clip_b16, clip_l14, ... or timm:NAME")
    clip_teacher_weights: str = flag(
        "", "file or URL of the teacher's weights; empty: timm downloads its own", on_resume="ignore"
    )
    clip_input_resolution: int = flag(224, "pixels at which the teacher sees a frame", at_least=1)
    clip_norm_type: str = flag("l2", "normalisation of targets and predictions", choices=("l2", "none"))
    clip_return_layer: int = flag(1, "how many blocks are aligned, counted from the last", at_least=1)
    clip_return_interval: float = flag(1.0, "distance of the aligned teacher blocks", at_least=1)
    clip_loss_type: str = flag("l2", "alignment loss", choices=("l2", "mse", "smooth_l1"))
    clip_loss_ratio: float = flag(1.0, "factor of the alignment loss", above=0)
    mask_type: str = flag("attention", "how tokens are masked", choices=("attention", "tube", "random"))
    mask_ratio: float = flag(0.75, "share of the tokens that the student does not see", at_least=0, below=1)


@dataclass(frozen=True)
class PretrainDataConfig(DataConfig):
    """Data"""

    data_set: str = flag("Kinetics_sparse", "data set of the catalogue; pretraining reads any list of videos")
    num_frames: int = flag(8, "frames of a clip", at_least=1)
    num_segments: int = flag(8, "1: a dense clip at --sampling_rate; else one frame from each segment", at_least=1)
    sampling_rate: int = flag(1, "distance of the frames of a dense clip", at_least=1)


@dataclass(frozen=True)
class PretrainAugmentConfig(Group):
    """Augmentation"""

    flip: bool = flag(False, "flip half of the clips left to right")
    color_jitter: float = flag(
        0.0, "strength of brightness, contrast and saturation jitter, one draw a clip", at_least=0
    )


@dataclass(frozen=True)
class PretrainOptimConfig(OptimConfig):
    """Batch, optimiser and schedule"""

    epochs: int = flag(800, "passes over the data", at_least=1, on_resume="say")
    lr: float = flag(1.5e-4, "learning rate for 256 samples a step; the run's is scaled by its samples a step", above=0)
    min_lr: float = flag(1e-5, "where the cosine ends, scaled like --lr", at_least=0)
    # The original scales its --warmup_lr (1e-6) and then never passes it on, so every published pretraining started at
    # 0. Here the flag works and its default is 0: the published numbers, on purpose.
    warmup_lr: float = flag(0.0, "where the warm-up starts, scaled like --lr", at_least=0)
    warmup_epochs: int = flag(40, "epochs of warm-up", at_least=0, on_resume="say")


@dataclass(frozen=True)
class PretrainCheckpointConfig(CheckpointConfig):
    """Output and checkpoints"""

    save_ckpt_freq: int = flag(50, "epochs between numbered checkpoints", at_least=1)
