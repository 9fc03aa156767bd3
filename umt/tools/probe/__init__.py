"""`umt probe`: what frozen features know, by nearest neighbours, linear layers and attentive pooling.

Reading order: `main`; lists.py (who trains, who chooses, who tests), sources.py and features.py (one pass over the
videos), experiment.py (one probe), knn.py, linear.py and attentive.py on heads.py (many settings at once), report.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from umt.errors import ConfigError
from umt.flags.command_line import COUNT, COUNT_OR_0, Number, Parser
from umt.tools.recognizer_flags import add_list_flags, add_model_flags, add_view_flags

PROBES = ("knn", "linear", "attentive")

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


_POSITIVE = Number(float, above=0)


def _parser() -> Parser:
    parser = Parser("umt probe", DESCRIPTION, usage=USAGE)
    add_model_flags(parser, several=True)
    add = parser.add_argument_group("the videos").add_argument
    add("--data_path", default="", metavar="DIR", help="folder of train.csv, val.csv, test.csv, or of class folders")
    for name in ("train", "val", "test"):
        add(f"--{name}_list", default="", metavar="FILE", help=f"the {name} list, instead of that of --data_path")
    add_list_flags(add)
    add("--train_clips", type=COUNT, default=1, metavar="N", help="clips of each training video (1)")
    add(
        "--test_clips", type=COUNT, default=1, metavar="N", help="clips of each test video, whose scores are merged (1)"
    )
    add("--test_crops", type=COUNT, default=1, metavar="N", help="crops of each test clip (1)")
    add("--features", type=Path, metavar="DIR", help="instead: what umt extract wrote into DIR/train, /val and /test")
    add("--count_unreadable_as_wrong", action="store_true", help="go on past test videos that cannot be read")
    add = parser.add_argument_group("the probes").add_argument
    add("--probes", nargs="+", choices=PROBES, default=list(PROBES))
    add("--layer", type=int, default=-1, help="block whose tokens are taken, from 0; -1: the last (default)")
    add("--knn_k", type=COUNT, nargs="+", metavar="K", help="neighbours (default: 1 5 10 20 50 100 200)")
    add("--knn_temperature", type=_POSITIVE, nargs="+", metavar="T", help="temperatures (default: 0.02 0.07 0.2)")
    for probe, lrs, decays, epochs in (("linear", "0.001 0.003 ... 1", "0 0.001 0.01", 100),
                                       ("attentive", "0.0003 0.001 ... 0.03", "0.01 0.1", 20)):  # fmt: skip
        add(f"--{probe}_lr", type=_POSITIVE, nargs="+", metavar="LR", help=f"learning rates (default: {lrs})")
        add(f"--{probe}_weight_decay", type=Number(float, at_least=0), nargs="+", metavar="W",
            help=f"weight decays (default: {decays})")  # fmt: skip
        add(f"--{probe}_epochs", type=COUNT, metavar="N", help=f"epochs (default: {epochs}; more for few videos)")
    add("--seed", type=COUNT_OR_0, default=0, metavar="N", help="of random weights and of the order of training (0)")
    add("--token_grid", type=COUNT, nargs=3, metavar=("T", "H", "W"), help="grid to which kept tokens are pooled")
    add("--max_gb", type=_POSITIVE, default=64.0, metavar="GB", help="room for tokens; pooled in space to fit (64)")
    add("--output", type=Path, default=Path("probe"), metavar="DIR", help="folder of the results (probe)")
    add_view_flags(parser, batch_size=32)
    return parser


def _check(words: argparse.Namespace) -> None:
    """ConfigError for flags that contradict each other, and for those that are missing."""
    if words.features and (words.checkpoint or words.data_path or words.train_list):
        raise ConfigError("--features already holds the features. Leave --checkpoint and the lists out.")
    if not words.features and not words.checkpoint:
        raise ConfigError("umt probe: --checkpoint is missing. Give weights, or none and a --model; or --features DIR.")
    if not words.features and not words.data_path and not words.train_list:
        raise ConfigError("umt probe: --data_path is missing. Give a folder of lists, or --train_list and --test_list.")
