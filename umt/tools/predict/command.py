"""The words of `umt predict`, and the order in which things are done."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence

from umt.errors import ConfigError, UserError
from umt.flags.command_line import Number, Parser, last_value
from umt.tasks.base import Kind
from umt.tasks.base.weights import kind_of_weights
from umt.tools.recognizer_flags import (
    add_clip_flags,
    add_list_flags,
    add_model_flags,
    add_view_flags,
    load_recognizer,
    unread,
)

_POSITIVE = Number(float, above=0, below=float("inf"), rule="must be above 0")

ABOUT = """What is in a video: the likeliest classes, of the whole video or of a sliding window.

VIDEO is a file, a folder of videos or of frames, a pattern ('clips/**/*.mp4'), a URL, or a list (csv, txt, parquet).
For a whole video the clips and crops of a test are averaged; the numbers are those of umt test. With --window a video
of any length is read window by window. Exit code 2: some video could not be read (the others are done)."""


def parse(argv: Sequence[str], kind: Kind | None = None) -> Namespace:
    """The words of the command line; some flags are of `kind`, that of the checkpoint. Raises ConfigError."""
    kind = kind or kind_of_weights(last_value(argv, "checkpoint"))
    parser = Parser("umt predict", ABOUT, "umt predict VIDEO ... --checkpoint WEIGHTS [flags]")
    parser.add_argument("videos", nargs="*", metavar="VIDEO")
    add_model_flags(parser, labels=True)
    views = parser.add_argument_group("the videos and their views").add_argument
    add_clip_flags(views, sliding="--window")
    views("--window", type=_POSITIVE, metavar="SECONDS", help="one answer for each window of this length")
    views("--stride", type=_POSITIVE, metavar="SECONDS", help="from one window's start to the next; default: --window")
    views("--fps", type=_POSITIVE, metavar="N", help="frames per second of folders of frames, for --window")
    add_list_flags(views)
    views("--skip_unreadable", action="store_true", help="report a video that cannot be read, but do not fail")
    out = parser.add_argument_group("output").add_argument
    kind.offer("predict").add_flags(out)
    out("--json", metavar="FILE", help="everything for programs; - is the standard output, instead of the table")
    out("--csv", metavar="FILE", help="a line for each class; - is the standard output")
    out("--render", metavar="OUT", help="the video with the classes drawn in, as MP4; a folder for several videos")
    add_view_flags(parser, aside="; of whole videos, not with --window")
    words = parser.words(argv)
    if not words.videos or not words.checkpoint:
        raise ConfigError("umt predict takes videos and --checkpoint, e.g. umt predict a.mp4 --checkpoint best.pth.")
    if words.stride is not None and words.window is None:
        raise ConfigError("--stride is the distance of windows: give --window too, e.g. --window 2 --stride 1.")
    if words.window is not None and words.clips is not None:
        raise ConfigError("--clips spreads over a whole video, --window cuts it up. Leave one of them out.")
    if words.json == "-" and words.csv == "-":
        raise ConfigError("--json - and --csv - both want the standard output. Give one of them a file.")
    return words


def main(argv: Sequence[str]) -> int:
    """Runs `umt predict ARGV`; returns its exit code. Raises UserError for what the caller can mend."""
    kind = kind_of_weights(last_value(argv, "checkpoint"))
    words = parse(argv, kind)
    from umt.inference.sources import find_videos
    from umt.tools.predict.output import opened
    from umt.tools.predict.run import predict_all

    videos = find_videos(words.videos, split=words.split, prefix=words.prefix)
    model = load_recognizer(words, words.device, words.labels, load=kind.offer("load"))
    predictor = kind.offer("predict").of(model, words)
    with opened(words, predictor) as output:
        failures = predict_all(words, model, predictor, videos, output)
        output.end(failures, checkpoint=str(words.checkpoint), model=model.description.model)
    if failures and not words.skip_unreadable:
        raise UserError(
            f"{unread(len(failures), len(videos), failures[0].cause)} --skip_unreadable makes it no failure."
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
