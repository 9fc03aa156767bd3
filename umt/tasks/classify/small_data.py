"""How to finetune on the user's own data: epochs, batch, rates and mixing as functions of its size. Pure arithmetic.

Points that the rules go through, or between, are recipes that people have published:

  UMT       Kinetics-400, 246 535 videos, from weights tuned on Kinetics-710: 5 epochs. SSv2, 168 913, from pretrained
            weights: 30. B/16 with layer decay 0.75 and drop path 0.1, L/16 with 0.85, 0.2 and half the rate. For SSv2
            4e-4 at 512 clips a step, for Moments in Time 2e-4 (exp/finetuning).
  VideoMAE  UCF101, 9 537 videos: 100 epochs, 5e-4 at 256 clips a step, layer decay 0.7, drop path 0.2
            (https://github.com/MCG-NJU/VideoMAE/tree/main/scripts/ucf101); warm-up of 5 epochs throughout.
  transformers' guide to video classification: 300 videos of 10 classes, 4 epochs, 5e-5 at 8 clips a step
            (https://huggingface.co/docs/transformers/tasks/video_classification).
  quickstart  the tiny models, 320 videos of 16 classes: 2e-3 at 8 clips a step, frames cropped little
            (scripts/quickstart.sh).

Letters: n training videos, K classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

LARGE = 20  # blocks; from here on a model is called large
SMALL = 20_000  # training videos; below it the published recipes decay more from layer to layer and drop more
MIXES_FROM = 2_000, 10  # training videos and classes from which on mixup and cutmix help more than they blur
TINY = 12  # blocks; models with fewer are those of the quickstart
_LR, _LR_RANDOM, _LR_TINY, _LR_CLIPS = 3e-4, 5e-4, 8e-3, 256
_LR_MOST = 2e-3  # above it the tiny models did not learn
_REFERENCE_BATCH = 256  # clips for which --lr is given


@dataclass(frozen=True)
class Task:
    """What the rules look at. `depth`: blocks of the model; `random`: no weights to start from."""

    videos: int
    classes: int
    depth: int = 12
    random: bool = False
    world_size: int = 1


def epochs(task: Task) -> int:
    """Ten times the data, half the epochs: 50 (2000 / n)^(1/3), within 10..100.

    It gives 30 for UCF101's size and 11 for that of SSv2, between what weights of images or other videos need and what
    weights that know actions do. Below 250 videos the bound is what ends it: they are learnt by heart by then.
    """
    return min(max(round(50 * (2000 / max(task.videos, 1)) ** (1 / 3)), 10), 100)


@dataclass(frozen=True)
class Batch:
    """Videos a GPU and micro-batch, and micro-batches a step."""

    batch_size: int
    update_freq: int


def videos_per_step(videos: int) -> int:
    """The greatest power of two up to an eighth of the data, within 2..64: no epoch leaves out more than that.

    An epoch drops its incomplete last step, so a step must be small next to the data. One video alone makes a step.
    """
    return min(2 ** int(math.log2(max(videos // 8, 2))), 64, max(videos, 1))


def batch(task: Task) -> Batch:
    """`videos_per_step`, as many at once as a GPU of 16 GB takes (two copies each, bf16), and the rest accumulated."""
    per_step = videos_per_step(task.videos)
    at_once = 64 if task.depth < TINY else 4 if task.depth >= LARGE else 8
    size = max(min(at_once, per_step // task.world_size), 1)
    return Batch(size, max(per_step // (size * task.world_size), 1))


def lr(task: Task, clips: int) -> float:
    """--lr, which a run multiplies by clips / 256, for a step of `clips` clips.

    The rate of the step grows with the root of its clips: what keeps Adam's noise as it is
    (https://arxiv.org/abs/2205.10287), and the way from 3e-4 at 256 clips to 5e-5 at 8. Half of it for a large model.
    """
    if task.depth < TINY:
        reference = _LR_TINY
    elif task.random:
        reference = _LR_RANDOM
    else:
        reference = _LR / (2 if task.depth >= LARGE else 1)
    rate = min(reference * math.sqrt(clips / _LR_CLIPS), _LR_MOST)
    return float(f"{rate * _REFERENCE_BATCH / clips:.3g}")


def warmup_epochs(run_epochs: int) -> int:
    """A tenth of the epochs, within 1..5; none of a single epoch."""
    return 0 if run_epochs < 2 else min(max(round(run_epochs / 10), 1), 5)


def layer_decay(task: Task) -> float:
    """0.75 for 12 blocks, 0.85 for 24; 0.05 less for little data, which the lower blocks need not follow."""
    if task.random:
        return 1.0
    return round((0.85 if task.depth >= LARGE else 0.75) - (0.05 if task.videos < SMALL else 0.0), 2)


def drop_path(task: Task) -> float:
    """0.1; 0.2 for a large model and for little data; none for weights that have to be found first."""
    if task.random:
        return 0.0
    return 0.2 if task.depth >= LARGE or task.videos < SMALL else 0.1


def mixes(task: Task) -> bool:
    """Whether mixup and cutmix are on: not on little data or few classes, where most mixtures are of one class."""
    return task.videos >= MIXES_FROM[0] and task.classes >= MIXES_FROM[1]


def num_sample(task: Task) -> int:
    """Copies of a video from one decode: 2, as published up to Kinetics' size; 1 for more data and for tiny models."""
    return 2 if task.videos < 500_000 and task.depth >= TINY else 1


def small_frames(input_size: int) -> bool:
    """Whether frames are so small that a crop of a twelfth of them, or RandAugment, leaves nothing to be seen."""
    return input_size < 112
