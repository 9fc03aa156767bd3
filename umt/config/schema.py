"""Every flag with its type, default, range and meaning, for pretraining and for finetuning.

Names and defaults are those of the original's command line, with these exceptions, each because the original's default
could not run UMT at all: for pretraining the model, the mask, the tubelet, the sampling and the decoder widths (which
are taken from student and teacher unless given). `docs/migrate.md` lists them. What is checked here is one value at a
time; `checks.py` holds values against each other, `plan.py` computes what follows from them.
"""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass, field
from typing import Any, ClassVar

from umt.config.flags import Group, flag
from umt.optim.schedule import FINETUNE_WARMUP_LR, PRETRAIN_WARMUP_LR

PRECISIONS = ("auto", "bf16", "fp16", "fp32")
ORDERS = ("auto", "umt", "alphabetical")
DECODERS = ("auto", "pyav", "torchcodec", "decord", "torchcodec-cuda")


@dataclass(frozen=True)
class ModelConfig(Group):
    """Model"""

    model: str = flag("vit_base_patch16_224", "entry point of the model, see umt.models.list_models()")
    input_size: int = flag(224, "height and width of the input in pixels", at_least=1)
    tubelet_size: int = flag(2, "frames that one token covers", at_least=1)
    drop_path: float = flag(0.0, "rate of stochastic depth in the last block, rising from 0", at_least=0, below=1)
    use_learnable_pos_emb: bool = flag(False, "train the position table instead of keeping the sinusoids fixed")
    use_checkpoint: bool = flag(False, "recompute activations in the backward pass to save memory")
    checkpoint_num: int = flag(0, "with --use_checkpoint: how many of the first blocks recompute", at_least=0)


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

    clip_teacher: str = flag("clip_b16", "entry point of the frozen image teacher")
    clip_teacher_weights: str = flag("", "file with the teacher's weights (CLIP's state dict or its visual part)")
    clip_input_resolution: int = flag(224, "pixels at which the teacher sees a frame", at_least=1)
    clip_norm_type: str = flag("l2", "normalisation of targets and predictions", choices=("l2", "none"))
    clip_return_layer: int = flag(1, "how many blocks are aligned, counted from the last", at_least=1)
    clip_return_interval: float = flag(1.0, "distance of the aligned teacher blocks", at_least=1)
    clip_loss_type: str = flag("l2", "alignment loss", choices=("l2", "mse", "smooth_l1"))
    clip_loss_ratio: float = flag(1.0, "factor of the alignment loss", above=0)
    mask_type: str = flag("attention", "how tokens are masked", choices=("attention", "tube", "random"))
    mask_ratio: float = flag(0.75, "share of the tokens that the student does not see", at_least=0, below=1)


@dataclass(frozen=True)
class ClassifierConfig(ModelConfig):
    """Model"""

    drop_path: float = flag(0.1, "rate of stochastic depth in the last block, rising from 0", at_least=0, below=1)
    fc_drop_rate: float = flag(0.0, "dropout before the head", at_least=0, below=1)
    drop: float = flag(0.0, "dropout of the MLPs and projections", at_least=0, below=1)
    attn_drop_rate: float = flag(0.0, "dropout of the attention weights", at_least=0, below=1)
    init_scale: float = flag(0.001, "factor of the head's initial weights", at_least=0)
    use_mean_pooling: bool = flag(True, "average the tokens; --use_cls takes the first one instead")
    finetune: str = flag("", "weights to start from: a pretraining or a classification checkpoint")
    delete_head: bool = flag(False, "start with a new head, whatever head --finetune has")
    model_key: str = flag("model|module", "keys under which --finetune may hold the weights")
    model_prefix: str = flag("", "prefix of the weights' names that is dropped")
    model_ema: bool = flag(False, "keep an exponential moving average of the weights and evaluate it too")
    model_ema_decay: float = flag(0.9999, "decay of the moving average", above=0, below=1)


@dataclass(frozen=True)
class DataConfig(Group):
    """Data"""

    data_path: str | tuple[str, ...] = flag(
        "", "list file (pretraining) or folder of train.csv, val.csv, test.csv (finetuning); several are mixed"
    )
    data_weights: tuple[float, ...] | None = flag(
        None, "shares of several lists in an epoch; default: their sizes", above=0, example="2 1"
    )
    data_set: str = flag("", "data set of the catalogue", example="Kinetics_sparse")
    prefix: str | tuple[str, ...] = flag(
        "", "folder or URL joined before the paths of the lists, or the shards of `umt data shard`; one, or one a list"
    )
    split: str | tuple[str, ...] = flag(" ", "separator of the lists' columns; one, or one a list")
    shard_shuffle: int = flag(
        0, "read shards in a shuffled order, so many at a time; 0: videos in any order, each read by itself", at_least=0
    )
    cache_dir: str = flag("", "folder of copies of what comes from a remote store; default: none")
    cache_size_gb: float = flag(50.0, "size of --cache_dir, at most, in 10**9 bytes", above=0)
    num_frames: int = flag(16, "frames of a clip", at_least=1)
    sampling_rate: int = flag(4, "distance of the frames of a dense clip", at_least=1)
    num_sample: int = flag(1, "copies of every video in a batch, each augmented anew, from one decode", at_least=1)
    use_decord: bool = flag(True, "lists name videos; False: folders of frames, `path frames label`")
    decoder: str = flag("auto", "video reader; auto takes what is right on this machine", choices=DECODERS)
    decode_timeout: float = flag(
        120.0, "seconds after which a video that is still being read counts as unreadable; 0: never", at_least=0
    )
    max_failures: float = flag(
        0.01, "share of the training videos that may be unreadable before the run stops", at_least=0, at_most=1
    )
    num_workers: int | None = flag(
        None, "processes that load data, per GPU; default: 10, or the CPU cores if fewer", at_least=0, example="8"
    )
    pin_mem: bool = flag(True, "page-locked batches, for faster copies to the GPU")


@dataclass(frozen=True)
class PretrainDataConfig(DataConfig):
    """Data"""

    data_set: str = flag("Kinetics_sparse", "data set of the catalogue; pretraining reads any list of videos")
    num_frames: int = flag(8, "frames of a clip", at_least=1)
    num_segments: int = flag(8, "1: a dense clip at --sampling_rate; else one frame from each segment", at_least=1)
    sampling_rate: int = flag(1, "distance of the frames of a dense clip", at_least=1)


@dataclass(frozen=True)
class FinetuneDataConfig(DataConfig):
    """Data"""

    data_set: str = flag("Kinetics", "data set of the catalogue")
    nb_classes: int = flag(400, "classes of the head; must equal the data set's", at_least=1)
    label_order: str = flag(
        "auto", "Kinetics-400: order of the lists' labels, where no labels.txt beside them says it", choices=ORDERS
    )
    head_label_order: str = flag(
        "auto", "Kinetics-400: order of the head of --finetune, where its file does not say it", choices=ORDERS
    )
    num_sample: int = flag(2, "copies of every video in a batch, each augmented anew, from one decode", at_least=1)


@dataclass(frozen=True)
class PretrainAugmentConfig(Group):
    """Augmentation"""

    flip: bool = flag(False, "flip half of the clips left to right")
    color_jitter: float = flag(
        0.0, "strength of brightness, contrast and saturation jitter, one draw a clip", at_least=0
    )


@dataclass(frozen=True)
class FinetuneAugmentConfig(Group):
    """Augmentation"""

    aa: str = flag("rand-m7-n4-mstd0.5-inc1", "RandAugment policy; empty or none: off")
    smoothing: float = flag(0.1, "label smoothing", at_least=0, below=1)
    train_interpolation: str = flag(
        "bicubic", "interpolation of RandAugment's warps", choices=("bicubic", "bilinear", "random")
    )
    crop_scale: tuple[float, float] = flag(
        (0.08, 1.0), "least and greatest share of the picture in a training crop", above=0, at_most=1
    )
    short_side_size: int | None = flag(
        None, "short side of validation and test frames; default: --input_size", at_least=1, example="224"
    )
    reprob: float = flag(0.25, "probability of random erasing", at_least=0, at_most=1)
    remode: str = flag("pixel", "what random erasing writes: noise, a colour, zero", choices=("pixel", "rand", "const"))
    recount: int = flag(1, "rectangles of random erasing, at most", at_least=1)
    mixup: float = flag(0.8, "alpha of mixup; 0: off", at_least=0)
    cutmix: float = flag(1.0, "alpha of cutmix; 0: off", at_least=0)
    cutmix_minmax: tuple[float, float] | None = flag(
        None, "least and greatest share of the side that cutmix pastes", at_least=0, at_most=1, example="0.2 0.8"
    )
    mixup_prob: float = flag(1.0, "probability that a batch is mixed", at_least=0, at_most=1)
    mixup_switch_prob: float = flag(0.5, "probability of cutmix where both are on", at_least=0, at_most=1)
    mixup_mode: str = flag("batch", "draw per batch, pair or element", choices=("batch", "pair", "elem"))


@dataclass(frozen=True)
class OptimConfig(Group):
    """Batch, optimiser and schedule"""

    batch_size: int = flag(64, "videos per GPU and micro-batch, not counting the copies of --num_sample", at_least=1)
    update_freq: int = flag(1, "micro-batches that are accumulated for one step", at_least=1)
    global_batch_size: int | None = flag(
        None, "videos per step over all GPUs; the accumulation follows from it", at_least=1, example="256"
    )
    recipe_gpus: int | None = flag(
        None, "GPUs that the recipe was made for; a run says how it differs", at_least=1, example="16"
    )
    recipe_batch: int | None = flag(
        None, "--batch_size that the recipe was made for; default: the first that is said", at_least=1, example="16"
    )
    epochs: int = flag(30, "passes over the data", at_least=1)
    opt: str = flag("adamw", "optimiser")
    opt_eps: float = flag(1e-8, "epsilon of the optimiser", above=0)
    opt_betas: tuple[float, float] | None = flag(
        None, "betas of the optimiser; default: the optimiser's own", at_least=0, below=1, example="0.9 0.999"
    )
    momentum: float = flag(0.9, "momentum of SGD", at_least=0, below=1)
    clip_grad: float | None = flag(None, "greatest norm of the gradient; default: no clipping", above=0, example="1.0")
    weight_decay: float = flag(0.05, "weight decay", at_least=0)
    weight_decay_end: float | None = flag(
        None, "weight decay at the end of its cosine; default: constant", at_least=0, example="0.05"
    )
    lr: float = flag(1e-3, "learning rate for 256 samples a step; the run's is scaled by its samples a step", above=0)
    min_lr: float = flag(1e-6, "where the cosine ends, scaled like --lr", at_least=0)
    warmup_lr: float = flag(FINETUNE_WARMUP_LR, "where the warm-up starts, scaled like --lr", at_least=0)
    warmup_epochs: int = flag(5, "epochs of warm-up", at_least=0)
    warmup_steps: int = flag(-1, "steps of warm-up; wins over --warmup_epochs when above 0", at_least=-1)


@dataclass(frozen=True)
class PretrainOptimConfig(OptimConfig):
    """Batch, optimiser and schedule"""

    epochs: int = flag(800, "passes over the data", at_least=1)
    lr: float = flag(1.5e-4, "learning rate for 256 samples a step; the run's is scaled by its samples a step", above=0)
    min_lr: float = flag(1e-5, "where the cosine ends, scaled like --lr", at_least=0)
    warmup_lr: float = flag(PRETRAIN_WARMUP_LR, "where the warm-up starts, scaled like --lr", at_least=0)
    warmup_epochs: int = flag(40, "epochs of warm-up", at_least=0)


@dataclass(frozen=True)
class FinetuneOptimConfig(OptimConfig):
    """Batch, optimiser and schedule"""

    layer_decay: float = flag(0.75, "factor of the learning rate from block to block; 1: off", above=0, at_most=1)


@dataclass(frozen=True)
class EvalConfig(Group):
    """Validation and test"""

    eval: bool = flag(False, "only test")
    test_best: bool = flag(False, "test the best checkpoint instead of the last")
    disable_eval_during_finetuning: bool = flag(False, "no validation after each epoch")
    test_num_segment: int = flag(5, "clips of a test video", at_least=1)
    test_num_crop: int = flag(3, "crops of a test clip", at_least=1)
    count_unreadable_as_wrong: bool = flag(
        False, "count a video that cannot be read as wrong, and report it, instead of stopping"
    )


@dataclass(frozen=True)
class CheckpointConfig(Group):
    """Output and checkpoints"""

    output_dir: str = flag("", "folder of checkpoints, logs and results", example="outputs/my_run")
    log_dir: str | None = flag(None, "folder of the TensorBoard files; default: --output_dir", example="outputs/my_run")
    job_name: str = flag("", "name of the run in logs; default: the output folder's")
    resume: str = flag("", "checkpoint to continue from")
    auto_resume: bool = flag(True, "continue from the newest checkpoint in --output_dir")
    save_ckpt: bool = flag(True, "write checkpoints")
    save_ckpt_freq: int = flag(100, "epochs between numbered checkpoints", at_least=1)
    save_every_minutes: float = flag(
        15.0, "minutes between writes of the latest checkpoint; 0: only by epoch", at_least=0
    )
    save_every_steps: int = flag(0, "steps between writes of the latest checkpoint; 0: only by epoch", at_least=0)
    keep_last: int | None = flag(
        None, "how many numbered checkpoints stay, the newest; default: all", at_least=1, example="3"
    )
    save_in_background: bool = flag(False, "write checkpoints beside the next steps instead of between them")


@dataclass(frozen=True)
class PretrainCheckpointConfig(CheckpointConfig):
    """Output and checkpoints"""

    save_ckpt_freq: int = flag(50, "epochs between numbered checkpoints", at_least=1)


@dataclass(frozen=True)
class ParallelConfig(Group):
    """Several processes"""

    enable_deepspeed: bool = flag(False, "hold weights and optimiser by DeepSpeed instead of DDP")
    zero_stage: int = flag(
        0,
        "what --enable_deepspeed shares out: 1 the optimiser's state, 2 gradients too, 3 weights too",
        at_least=0,
        at_most=3,
    )
    deepspeed_config: str = flag("", "DeepSpeed's JSON file, whose entries come on top of those that the flags make")
    fsdp: bool = flag(False, "share out weights, gradients and optimiser state by PyTorch's FSDP2 instead of DDP")
    timeout_minutes: float = flag(30.0, "minutes that a process waits for another before the job ends", above=0)


@dataclass(frozen=True)
class RuntimeConfig(Group):
    """Machine"""

    device: str = flag("auto", "where to run; auto takes the GPU if there is one", choices=("auto", "cuda", "cpu"))
    precision: str = flag(
        "auto", "auto: bf16 where the device has it natively, else fp16 (GPU), fp32 (CPU)", choices=PRECISIONS
    )
    seed: int = flag(0, "seed of every random draw", at_least=0)
    threads: int | None = flag(None, "CPU threads of torch; default: torch's own choice", at_least=1, example="2")
    log_every: int = flag(10, "steps between log lines", at_least=1)
    max_hours: float | None = flag(
        None,
        "hours after which the run saves and exits as if it were preempted; default: none",
        above=0,
        example="23.5",
    )
    requeue: bool = flag(True, "on SLURM, requeue the job when it is preempted or reaches --max_hours")
    on_nan: str = flag(
        "stop",
        "a loss that is no number: stop, or go back to the last checkpoint and skip the batch",
        choices=("stop", "rollback"),
    )
    dry_run: bool = flag(False, "print the resolved run and stop; needs no torch, GPU or videos")


@dataclass(frozen=True)
class PretrainConfig:
    """A pretraining run: a student is aligned with a frozen image teacher."""

    task: ClassVar[str] = "pretrain"
    model: StudentConfig = field(default_factory=StudentConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    data: PretrainDataConfig = field(default_factory=PretrainDataConfig)
    augment: PretrainAugmentConfig = field(default_factory=PretrainAugmentConfig)
    optim: PretrainOptimConfig = field(default_factory=PretrainOptimConfig)
    checkpoint: PretrainCheckpointConfig = field(default_factory=PretrainCheckpointConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)


@dataclass(frozen=True)
class FinetuneConfig:
    """A finetuning run: a classifier is trained, validated and tested."""

    task: ClassVar[str] = "finetune"
    model: ClassifierConfig = field(default_factory=ClassifierConfig)
    data: FinetuneDataConfig = field(default_factory=FinetuneDataConfig)
    augment: FinetuneAugmentConfig = field(default_factory=FinetuneAugmentConfig)
    optim: FinetuneOptimConfig = field(default_factory=FinetuneOptimConfig)
    evaluation: EvalConfig = field(default_factory=EvalConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)


Config = PretrainConfig | FinetuneConfig
CONFIGS: dict[str, type[PretrainConfig] | type[FinetuneConfig]] = {
    "pretrain": PretrainConfig,
    "finetune": FinetuneConfig,
}


def groups(config: type[PretrainConfig] | type[FinetuneConfig]) -> dict[str, type[Group]]:
    """The groups of a run's flags, in order."""
    hints = typing.get_type_hints(config)
    return {f.name: hints[f.name] for f in dataclasses.fields(config)}


def build(task: str, values: dict[str, Any]) -> Config:
    """A run from flat flag names and typed values; what is not named keeps its default. KeyError for another name."""
    left = dict(values)
    parts: dict[str, Any] = {}
    for name, group in groups(CONFIGS[task]).items():
        names = [f.name for f in dataclasses.fields(group)]
        parts[name] = group(**{n: left.pop(n) for n in names if n in left})
    if left:
        raise KeyError(f"no flag of {task} is called {', '.join(left)}")
    return CONFIGS[task](**parts)


def flatten(config: Config) -> dict[str, Any]:
    """Every flag and its value, flat, as `build` takes it."""
    return {k: v for part in dataclasses.fields(config) for k, v in vars(getattr(config, part.name)).items()}
