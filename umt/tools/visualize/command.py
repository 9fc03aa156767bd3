"""The words of `umt visualize`, and the order in which things are done."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from umt.errors import ConfigError
from umt.flags.command_line import COUNT, SHARE, Number, Parser
from umt.tools.recognizer_flags import add_model_flags, add_view_flags, load_recognizer

ABOUT = """What a model looks at, as one page, and for each video a PNG and a GIF: the teacher's saliency, the tokens
that pretraining leaves visible, how closely the student follows the teacher, attention and its rollout, and for a
classifier where its answers come from.

  umt visualize a.mp4 b.mp4 --checkpoint pretrained.pth --output looks     the teacher is the one that the run names
  umt visualize a.mp4 --checkpoint best.pth --teacher clip_b16 --teacher_weights clip_b16.pth

What a checkpoint cannot show is said on the page: a finetuned one has no teacher, a pretrained one no classes."""


def parse(argv: Sequence[str]) -> Namespace:
    """The words of the command line. Raises ConfigError."""
    parser = Parser("umt visualize", ABOUT, "umt visualize VIDEO ... --checkpoint WEIGHTS [flags]")
    parser.add_argument("videos", nargs="*", metavar="VIDEO", help="files, folders, patterns, URLs, or lists")
    add_model_flags(parser, labels=True)
    more = parser.add_argument_group("the teacher and the mask (default: those of the run)").add_argument
    more("--teacher", metavar="NAME", help="image teacher, e.g. clip_b16 or timm:NAME; none: without one")
    more("--teacher_weights", metavar="FILE", help="its weights")
    more("--teacher_resolution", type=COUNT, metavar="PIXELS", help="side of its frames, so that the grids match")
    more("--mask_type", choices=("attention", "tube", "random"), help="default: that of the run, else attention")
    ratio = Number(float, at_least=0, below=1, remedy="Try --mask_ratio 0.8.")
    more("--mask_ratio", type=ratio, metavar="R", help="share of the tokens that is hidden (0.8)")
    more("--seed", type=int, default=0, help="of the mask (0)")
    out = parser.add_argument_group("what is shown").add_argument
    out("--output", type=Path, default=Path("visualize"), metavar="DIR", help="folder of the page (visualize)")
    out("--topk", type=COUNT, default=2, metavar="K", help="classes whose maps are shown (2)")
    out("--frames", type=COUNT, default=8, metavar="N", help="frames side by side on page and sheet (8)")
    out("--residual", type=SHARE, default=0.5, metavar="R", help="share of the skip connection in rollout (0.5)")
    out("--limit", type=COUNT, default=20, metavar="N", help="videos that are shown of many (20)")
    add_view_flags(parser, many=False)
    words = parser.words(argv)
    if not words.videos or not words.checkpoint:
        raise ConfigError(
            "umt visualize takes videos and --checkpoint, e.g. umt visualize a.mp4 --checkpoint checkpoint-latest.pth."
        )
    return words


def main(argv: Sequence[str]) -> int:
    """Runs `umt visualize ARGV`; returns its exit code. Raises UserError for what the caller can mend."""
    words = parse(argv)
    from umt.tools.visualize.report import visualize

    print(visualize(words, ["umt", "visualize", *argv], load_recognizer(words, words.device, words.labels)))
    return 0
