"""The flags by which the tools name a model, its videos and how they are taken, and the recognizer that they mean."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from umt.data.catalog import SAMPLINGS
from umt.flags.command_line import COUNT, COUNT_OR_0, SECONDS_OR_0, Parser

if TYPE_CHECKING:
    from umt.inference.recognizer import Recognizer

_LOADING = ("model", "num_frames", "input_size", "tubelet_size", "sha256")
SAMPLING = ("sampling", "sampling_rate", "short_side_size")
_RUNNING = ("decoder", "batch_size", "precision")


def add_model_flags(parser: Parser, *, labels: bool = False, several: bool = False) -> None:
    """--checkpoint and what `umt.load` takes; `several`: of several checkpoints, or none."""
    add = parser.add_argument_group("the model").add_argument
    if several:
        add("--checkpoint", nargs="+", metavar="WEIGHTS",
            help="files, exported folders, URLs, hf://OWNER/REPO, zoo names; none: random weights")  # fmt: skip
    else:
        add("--checkpoint", metavar="WEIGHTS", help="file, exported folder, URL, hf://OWNER/REPO, or name of the zoo")
        add("--sha256", metavar="HASH", help="hash that the file must have")
    add("--model", metavar="NAME", help="architecture, where the weights do not name it")
    add("--num_frames", type=COUNT, metavar="N", help="frames of a clip; default: as trained")
    add("--input_size", type=COUNT, metavar="PIXELS", help="side of a frame; default: as trained")
    add("--tubelet_size", type=COUNT, metavar="N", help="frames of a token; default: as trained")
    if labels:
        add("--labels", metavar="ORDER|FILE",
            help="class names, where the weights have none: k400_umt, k400, ssv2, ..., or a file")  # fmt: skip


def add_clip_flags(add: Callable[..., object], *, sliding: str) -> None:
    """--clips and --crops; `sliding`: the flag that takes clips by time instead."""
    add("--clips", type=COUNT, metavar="N", help="clips over the whole video; default: the model's, as in a test")
    add("--crops", type=COUNT, metavar="N", help=f"crops of a clip; default: the model's; 1 with {sliding}")


def add_list_flags(add: Callable[..., object]) -> None:
    """--split and --prefix."""
    add("--split", metavar="CHAR", help="separator of lists; default: the one that fits")
    add("--prefix", default="", metavar="DIR", help="folder, URL or shards joined before the paths of lists")


def add_view_flags(parser: Parser, *, many: bool = True, aside: str = "", batch_size: int = 8) -> None:
    """How frames are taken and computed on; `many`: of so many videos that processes decode and batches are filled.

    `aside`: what the flags of these processes do not apply to, for the help.
    """
    add = parser.add_argument_group("its frames (default: as it was trained)").add_argument
    add("--sampling", choices=SAMPLINGS, help="how frames are taken from a video")
    add("--sampling_rate", type=COUNT, metavar="N", help="distance of frames where sampling is dense")
    add("--short_side_size", type=COUNT, metavar="PIXELS", help="short side of a frame before crops are taken")
    add("--decoder", default="auto", metavar="NAME", help="video reader: auto, pyav, torchcodec, decord")
    add = parser.add_argument_group("the machine").add_argument
    add("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda or cuda:N")
    add("--precision", default="auto", metavar="NAME", help="auto (bf16 where it is native), bf16, fp16 or fp32")
    if many:
        add("--batch_size", type=COUNT, default=batch_size, metavar="N",
            help=f"views in one forward pass ({batch_size})")  # fmt: skip
        add("--num_workers", type=COUNT_OR_0, metavar="N",
            help=f"processes that decode; default: by the cores and the videos{aside}")  # fmt: skip
        add("--decode_timeout", type=SECONDS_OR_0, default=120.0, metavar="SECONDS",
            help=f"limit for reading one file (120); 0: none{aside}")  # fmt: skip


def given(words: Namespace, *names: str) -> dict[str, Any]:
    """The flags of `names` that the tool has and that were given a value."""
    values = vars(words)
    return {name: values[name] for name in names if values.get(name) is not None}


def load_recognizer(words: Namespace, device: str, labels: Any = None, *, source: str | None = None) -> Recognizer:
    """What `umt.load` makes of the flags; `source`: one of several checkpoints. Raises CheckpointError, ConfigError."""
    from umt.data.video.reader import choose
    from umt.inference.recognizer import load

    choose(words.decoder)
    flags = given(words, *_LOADING, *SAMPLING, *_RUNNING)
    return load(words.checkpoint if source is None else source, device=device, labels=labels, **flags)


def workers_for(words: Namespace, videos: int, on_gpu: bool, share: int = 1) -> int:
    """Processes that decode: as many as the flag says, else none for a few videos, and the cores that computing leaves.

    `share`: processes of this tool on this machine.
    """
    from umt.cores import usable_cores

    if words.num_workers is not None:
        return int(words.num_workers)
    if videos < 4:
        return 0
    cores = usable_cores() // share
    return max(min(cores - 1, 12), 0) if on_gpu else min(cores // 4, 4)


def unread(failed: int, videos: int, first: str) -> str:
    """The sentence at the end about videos that could not be read; `first`: the first cause, a sentence."""
    if videos == 1:
        return f"The video could not be read: {first}"
    if failed == videos:
        return f"None of {videos} videos could be read, the first: {first}"
    return f"{failed} of {videos} videos could not be read, the first: {first} The others are done."
