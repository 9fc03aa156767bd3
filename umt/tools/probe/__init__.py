"""`umt probe`: what frozen features know, by nearest neighbours, linear layers and attentive pooling.

Reading order: `main`; lists.py (who trains, who chooses, who tests), sources.py and features.py (one pass over the
videos), experiment.py (one probe), knn.py, linear.py and attentive.py on heads.py (many settings at once), report.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from umt.command_line import Parser
from umt.data.catalog import SAMPLINGS
from umt.errors import ConfigError

DESCRIPTION = """Frozen features of the training and test videos, and what can be told from them: by nearest neighbours,
by linear layers, and by attentive pooling over all tokens. Nothing of the model is trained.

  umt probe --checkpoint pretrained.pth --data_path DIR
  umt probe --checkpoint pretrained.pth none --data_path DIR      and the same model with random weights: the floor
  umt probe --checkpoint none --model vit_base_patch16_224 --data_path DIR
  umt probe --features FEATURES --probes knn linear               what umt extract wrote into FEATURES/train and /test

DIR has train.csv and val.csv, test.csv or both, or a folder for each class. Settings (neighbours, learning rates,
weight decays) are chosen on val, or where that is the only test on training videos that are held out; never on the
test. Many settings are trained in one pass. The features are kept, so a second probe does not decode again."""
USAGE = "umt probe --checkpoint FILE [...] --data_path DIR [--flag value ...]"


def main(argv: Sequence[str]) -> int:
    """Command line; returns the exit code. Raises UserError for what the caller can mend."""
    words = _parser().words(argv)
    _check(words)
    from umt.tools.probe.command import run

    print(run(words, ["umt", "probe", *argv]))
    return 0


def _parser() -> Parser:
    parser = Parser("umt probe", DESCRIPTION, usage=USAGE)
    add = parser.add_argument
    add("--checkpoint", nargs="+", metavar="FILE", help="weights, several or one; none: random weights")
    add("--model", help="architecture, where the weights do not tell it or there are none")
    add("--num_frames", type=int, help="frames of a clip (default: as the weights say)")
    add("--input_size", type=int, help="pixels of a frame (default: as the weights say)")
    add("--tubelet_size", type=int, help="frames of a token (default: as the weights say)")
    add("--data_path", default="", metavar="DIR", help="folder of train.csv, val.csv, test.csv, or of class folders")
    for name in ("train", "val", "test"):
        add(f"--{name}_list", default="", metavar="FILE", help=f"the {name} list, instead of that of --data_path")
    add("--prefix", help="folder before every path of the lists (default: none, or the folder of the list)")
    add("--split", default="", help="separator of the lists' columns (default: found)")
    add("--sampling", choices=SAMPLINGS, help="how frames are taken (default: as the weights say)")
    add("--train_clips", type=int, default=1, help="clips of each training video (default: 1)")
    add("--test_clips", type=int, default=1, help="clips of each test video, whose scores are merged (default: 1)")
    add("--test_crops", type=int, default=1, help="crops of each test clip (default: 1)")
    add("--layer", type=int, default=-1, help="block whose tokens are taken, from 0; -1: the last (default)")
    add("--probes", nargs="+", choices=("knn", "linear", "attentive"), default=["knn", "linear", "attentive"])
    add("--knn_k", type=int, nargs="+", metavar="K", help="neighbours (default: 1 5 10 20 50 100 200)")
    add("--knn_temperature", type=float, nargs="+", metavar="T", help="temperatures (default: 0.02 0.07 0.2)")
    add("--linear_lr", type=float, nargs="+", metavar="LR", help="learning rates (default: 0.001 0.003 ... 1)")
    add("--linear_weight_decay", type=float, nargs="+", metavar="W", help="weight decays (default: 0 0.001 0.01)")
    add("--linear_epochs", type=int, help="epochs (default: 100, more for few videos)")
    add("--attentive_lr", type=float, nargs="+", metavar="LR", help="learning rates (default: 0.0003 0.001 ... 0.03)")
    add("--attentive_weight_decay", type=float, nargs="+", metavar="W", help="weight decays (default: 0.01 0.1)")
    add("--attentive_epochs", type=int, help="epochs (default: 20, more for few videos)")
    add("--token_grid", type=int, nargs=3, metavar=("T", "H", "W"), help="grid to which kept tokens are pooled")
    add("--max_gb", type=float, default=64.0, help="room for tokens, which are pooled in space to fit (default: 64)")
    add("--output", type=Path, default=Path("probe"), help="folder of the results (default: probe)")
    add("--features", type=Path, metavar="DIR", help="what umt extract wrote into DIR/train, DIR/val and DIR/test")
    add("--count_unreadable_as_wrong", action="store_true", help="go on past test videos that cannot be read")
    add("--batch_size", type=int, default=32, help="clips in a forward pass (default: 32)")
    add("--num_workers", type=int, help="processes that decode (default: by the cores and the videos)")
    add("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    add("--precision", default="auto", choices=("auto", "bf16", "fp16", "fp32"))
    add("--seed", type=int, default=0, help="of random weights and of the order of training (default: 0)")
    return parser


def _check(words: argparse.Namespace) -> None:
    """ConfigError for numbers that cannot work."""
    positive = (
        "num_frames", "input_size", "tubelet_size", "train_clips", "test_clips", "test_crops", "knn_k",
        "knn_temperature", "linear_lr", "linear_epochs", "attentive_lr", "attentive_epochs", "token_grid", "max_gb",
        "batch_size",
    )  # fmt: skip
    for name in (*positive, "linear_weight_decay", "attentive_weight_decay", "num_workers", "seed"):
        value, told = getattr(words, name), "above 0" if name in positive else "at least 0"
        for one in value if isinstance(value, list) else [value]:
            if one is not None and not (one > 0 or (one == 0 and name not in positive)):
                raise ConfigError(f"--{name} ({one:g}) must be {told}. Leave it out for the default.")
    if words.features and (words.checkpoint or words.data_path or words.train_list):
        raise ConfigError("--features are there already: leave --checkpoint and the lists out.")
    if not words.features and not words.checkpoint:
        raise ConfigError("umt probe: --checkpoint is missing. Give weights, or none and a --model; or --features DIR.")
    if not words.features and not words.data_path and not words.train_list:
        raise ConfigError("umt probe: --data_path is missing. Give a folder of lists, or --train_list and --test_list.")
