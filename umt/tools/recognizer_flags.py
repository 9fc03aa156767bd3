"""The flags by which the tools name a model and say how its videos are taken, and the recognizer that they mean."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from umt.command_line import Parser
from umt.data.catalog import SAMPLINGS
from umt.errors import ConfigError

if TYPE_CHECKING:
    from umt.inference.recognizer import Recognizer

_MODEL = ("model", "num_frames", "input_size", "tubelet_size", "sha256")
_TAKEN = ("sampling", "sampling_rate", "short_side_size", "decoder", "batch_size", "precision")


def add_model_flags(parser: Parser, *, labels: bool) -> None:
    """--checkpoint and what `umt.load` takes."""
    model = parser.add_argument_group("the model").add_argument
    model("--checkpoint", metavar="WEIGHTS", help="file, exported folder, URL, hf://OWNER/REPO, or name of the zoo")
    model("--sha256", metavar="HASH", help="hash that the file must have")
    model("--model", metavar="NAME", help="architecture, where the weights do not tell")
    model("--num_frames", type=int, metavar="N", help="frames of a clip; default: as trained")
    model("--input_size", type=int, metavar="PIXELS", help="side of a frame; default: as trained")
    model("--tubelet_size", type=int, metavar="N", help="frames of a token; default: as trained")
    if labels:
        model("--labels", metavar="ORDER|FILE",
              help="class names, where the weights do not say them: k400_umt, k400, ssv2, ..., or a file")  # fmt: skip


def add_view_flags(parser: Parser, *, many: bool = True, aside: str = "") -> None:
    """How frames are taken and computed on; `many`: of so many videos that processes decode and batches are filled.

    `aside`: what the flags of these processes do not act on, for the help.
    """
    taken = parser.add_argument_group("its frames (default: as it was trained)").add_argument
    taken("--sampling", choices=SAMPLINGS, help="how frames are taken from a video")
    taken("--sampling_rate", type=int, metavar="N", help="distance of frames where sampling is dense")
    taken("--short_side_size", type=int, metavar="PIXELS", help="short side of a frame before crops are taken")
    taken("--decoder", default="auto", metavar="NAME", help="video reader: auto, pyav, torchcodec, decord")
    run = parser.add_argument_group("the machine").add_argument
    run("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda or cuda:N")
    run("--precision", default="auto", metavar="NAME", help="auto (bf16 where it is native), bf16, fp16 or fp32")
    if not many:
        return
    run("--batch_size", type=int, default=8, metavar="N", help="views in one forward pass (8)")
    run(
        "--num_workers",
        type=int,
        metavar="N",
        help=f"processes that decode; default: by the cores and the videos{aside}",
    )
    run("--decode_timeout", type=float, default=120.0, metavar="SECONDS",
        help=f"that a worker may read one file (120); 0: for ever{aside}")  # fmt: skip


def check_numbers(words: Namespace, *names: str) -> None:
    """Raises ConfigError for a given number below 1."""
    for name in names:
        value = getattr(words, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name} ({value}) must be at least 1.")


def check_workers(words: Namespace) -> None:
    """Raises ConfigError for what no number of processes, and no time, can be."""
    if words.num_workers is not None and words.num_workers < 0:
        raise ConfigError(f"--num_workers ({words.num_workers}) must be at least 0.")
    if not words.decode_timeout >= 0:
        raise ConfigError(f"--decode_timeout ({words.decode_timeout:g}) must be at least 0 seconds; 0 waits for ever.")


def load_recognizer(words: Namespace, device: str, labels: Any = None) -> Recognizer:
    """What `umt.load` makes of the flags. Raises CheckpointError, ConfigError."""
    from umt.data.video.reader import choose
    from umt.inference.recognizer import load

    choose(words.decoder)
    told = vars(words)
    named = {name: told[name] for name in (*_MODEL, *_TAKEN) if told.get(name) is not None}
    return load(words.checkpoint, device=device, labels=labels, **named)


def workers_for(words: Namespace, videos: int, on_gpu: bool, share: int = 1) -> int:
    """Processes that decode: as asked, else none for a few videos, and the cores that computing leaves."""
    from umt.cores import usable_cores

    if words.num_workers is not None:
        return int(words.num_workers)
    if videos < 4:
        return 0
    cores = usable_cores() // share
    return max(min(cores - 1, 12), 0) if on_gpu else min(cores // 4, 4)


def unread(failed: int, videos: int, first: str) -> str:
    """What is said at the end of videos that could not be read; `first`: the first cause, a sentence."""
    if videos == 1:
        return f"The video could not be read: {first}"
    if failed == videos:
        return f"None of {videos} videos could be read, the first: {first}"
    return f"{failed} of {videos} videos could not be read, the first: {first} The others are done."
