"""Flags that say what is learnt: model, data, augmentation, optimiser. `schema.py` says what all flags have in common.

A change of one of them makes another run, unless `recipe.py` says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

from umt.config.flags import Group, flag
from umt.optim.schedule import FINETUNE_WARMUP_LR, PRETRAIN_WARMUP_LR

ORDERS = ("auto", "umt", "alphabetical")
CLASS_WEIGHTS = ("none", "balanced", "sqrt", "effective")
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

    clip_teacher: str = flag("clip_b16", "frozen image teacher: clip_b16, clip_l14, ... or timm:NAME")
    clip_teacher_weights: str = flag("", "file or URL of the teacher's weights; empty: timm downloads its own")
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
    freeze_blocks: int = flag(
        0, "keep the patch embedding and so many of the first blocks as they start; all of them: train the head alone",
        at_least=0,
    )  # fmt: skip
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
    multi_label: bool = flag(False, "a video has several labels or none, `path,3|17|42`: a yes or no for each class")
    class_weights: str = flag(
        "none", "what rare classes count more in the loss by: none, balanced, sqrt, effective, or a file"
    )
    shots: int | None = flag(
        None, "train on so many videos of each class, drawn by --seed; default: all", at_least=1, example="5"
    )


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

    flip: bool | None = flag(
        None, "flip half of the training clips left to right; default: unless the data set's labels say left and right",
        example="False",
    )  # fmt: skip
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
