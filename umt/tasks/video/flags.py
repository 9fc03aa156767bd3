"""Flags of a model of videos and of its data, as far as the tasks on videos share them."""

from __future__ import annotations

from dataclasses import dataclass

from umt.data.video import READERS
from umt.flags.group import Group, flag


@dataclass(frozen=True)
class ModelConfig(Group):
    """Model"""

    model: str = flag("vit_base_patch16_224", "entry point of the model, see umt.models.list_models()")
    input_size: int = flag(224, "height and width of the input in pixels", at_least=1)
    tubelet_size: int = flag(2, "frames that one token covers", at_least=1)
    drop_path: float = flag(0.0, "rate of stochastic depth in the last block, rising from 0", at_least=0, below=1)
    use_learnable_pos_emb: bool = flag(False, "train the position table instead of keeping the sinusoids fixed")
    use_checkpoint: bool = flag(False, "recompute activations in the backward pass to save memory", on_resume="ignore")
    checkpoint_num: int = flag(
        0, "with --use_checkpoint: how many of the first blocks recompute", at_least=0, on_resume="ignore"
    )


@dataclass(frozen=True)
class DataConfig(Group):
    """Data"""

    data_path: str | tuple[str, ...] = flag(
        "",
        "list file (pretraining) or folder of train.csv, val.csv, test.csv (finetuning); several are mixed",
        on_resume="ignore",
    )
    data_weights: tuple[float, ...] | None = flag(
        None, "shares of several lists in an epoch; default: their sizes", above=0, example="2 1"
    )
    data_set: str = flag("", "data set of the catalogue", example="Kinetics_sparse")
    prefix: str | tuple[str, ...] = flag(
        "",
        "folder or URL joined before the paths of the lists, or the shards of `umt data shard`; one, or one a list",
        on_resume="ignore",
    )
    split: str | tuple[str, ...] = flag(" ", "separator of the lists' columns; one, or one a list", on_resume="ignore")
    shard_shuffle: int = flag(
        0, "read shards in a shuffled order, so many at a time; 0: videos in any order, each read by itself", at_least=0
    )
    cache_dir: str = flag("", "folder of copies of what comes from a remote store; default: none", on_resume="ignore")
    cache_size_gb: float = flag(50.0, "size of --cache_dir, at most, in 10**9 bytes", above=0, on_resume="ignore")
    num_frames: int = flag(16, "frames of a clip", at_least=1)
    sampling_rate: int = flag(4, "distance of the frames of a dense clip", at_least=1)
    num_sample: int = flag(
        1, "copies of every video in a batch, each augmented differently, from one decode", at_least=1
    )
    use_decord: bool = flag(
        True, "lists name videos; False: folders of frames, `path frames label`", on_resume="ignore"
    )
    decoder: str = flag(
        "auto", "video reader; auto takes what is right on this machine", choices=READERS, on_resume="ignore"
    )
