"""Flags of finetuning: classifier, data and classes, augmentation, schedule."""

from __future__ import annotations

from dataclasses import dataclass

from umt.data.labels import LIST_ORDERS
from umt.flags.group import Group, flag
from umt.flags.optim import OptimConfig
from umt.tasks.video.flags import DataConfig, ModelConfig

CLASS_WEIGHTS = ("none", "balanced", "sqrt", "effective")


@dataclass(frozen=True)
class ClassifierConfig(ModelConfig):
    """Model"""

    drop_path: float = flag(0.1, "rate of stochastic depth in the last block, rising from 0", at_least=0, below=1)
    fc_drop_rate: float = flag(0.0, "dropout before the head", at_least=0, below=1)
    drop: float = flag(0.0, "dropout of the MLPs and projections", at_least=0, below=1)
    attn_drop_rate: float = flag(0.0, "dropout of the attention weights", at_least=0, below=1)
    init_scale: float = flag(0.001, "factor of the head's initial weights", at_least=0, on_resume="ignore")
    use_mean_pooling: bool = flag(
        True, "average the tokens; --use_cls takes the first one instead", off=("use_cls", "no_use_mean_pooling")
    )
    finetune: str = flag("", "weights to start from: a pretraining or a classification checkpoint", on_resume="ignore")
    delete_head: bool = flag(False, "start with a new head, whatever head --finetune has", on_resume="ignore")
    freeze_blocks: int = flag(
        0, "keep the patch embedding and so many of the first blocks as they start; all of them: train the head alone",
        at_least=0,
    )  # fmt: skip
    model_key: str = flag("model|module", "keys under which --finetune may hold the weights", on_resume="ignore")
    model_prefix: str = flag("", "prefix of the weights' names that is dropped", on_resume="ignore")
    model_ema: bool = flag(
        False, "keep an exponential moving average of the weights and evaluate it too", on_resume="say"
    )
    model_ema_decay: float = flag(0.9999, "decay of the moving average", above=0, below=1, on_resume="say")


@dataclass(frozen=True)
class FinetuneDataConfig(DataConfig):
    """Data"""

    data_set: str = flag("Kinetics", "data set of the catalogue")
    nb_classes: int = flag(400, "classes of the head; must equal the data set's", at_least=1)
    label_order: str = flag(
        "auto",
        "Kinetics-400: order of the lists' labels, where no labels.txt next to them says it",
        choices=LIST_ORDERS,
        on_resume="ignore",
    )
    head_label_order: str = flag(
        "auto",
        "Kinetics-400: order of the head of --finetune, where its file does not say it",
        choices=LIST_ORDERS,
        on_resume="ignore",
    )
    num_sample: int = flag(
        2, "copies of every video in a batch, each augmented differently, from one decode", at_least=1
    )
    multi_label: bool = flag(False, "a video has several labels or none, `path,3|17|42`: a yes or no for each class")
    class_weights: str = flag(
        "none", "what rare classes count more in the loss by: none, balanced, sqrt, effective, or a file"
    )
    shots: int | None = flag(
        None, "train on so many videos of each class, drawn by --seed; default: all", at_least=1, example="5"
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
class FinetuneOptimConfig(OptimConfig):
    """Batch, optimiser and schedule"""

    layer_decay: float = flag(0.75, "factor of the learning rate from block to block; 1: off", above=0, at_most=1)
