"""The words of `umt extract`, and the order in which things are done."""

from __future__ import annotations

import json
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from umt.command_line import Parser
from umt.errors import ConfigError, PeerLostError, UserError
from umt.tools.recognizer_flags import (
    add_model_flags,
    add_view_flags,
    check_numbers,
    check_workers,
    load_recognizer,
    unread,
    workers_for,
)

if TYPE_CHECKING:
    from umt.data.lists.video_list import VideoList
    from umt.engine.runtime import Runtime
    from umt.tools.extract.work import Unread

T = TypeVar("T")
FAILURES = "failures.jsonl"

ABOUT = """Features of every video of a list, with the exact recipe beside them.

LIST is a list of videos (csv, text, parquet, local or by URL) or a folder of videos. Stopped and started again, the
same command goes on, with any number of processes (--processes, torchrun or srun), and the files come out the same to
the bit. Exit code 2: some video could not be read (failures.jsonl names them; the others are done)."""


def parse(argv: Sequence[str]) -> Namespace:
    """The words of the command line. Raises ConfigError."""
    parser = Parser("umt extract", ABOUT, "umt extract LIST --checkpoint WEIGHTS --output DIR [flags]")
    parser.add_argument("list", nargs="?", metavar="LIST")
    add_model_flags(parser, labels=False)
    what = parser.add_argument_group("what is taken").add_argument
    what("--layer", nargs="+", metavar="LAYER",
         help="numbers of blocks (-1: the last), pre_logits (what the head is fed), or names of modules; "
              "default: pre_logits of a classifier, else -1")  # fmt: skip
    what("--pool", default="mean", help="mean of all tokens (default), spatial: of each moment, none, or first")
    what("--clips", type=int, metavar="N", help="clips over the whole video; default: the model's, as in a test")
    what("--crops", type=int, metavar="N", help="crops of a clip; default: the model's, with --clip_stride 1")
    what("--clip_stride", type=int, metavar="FRAMES", help="slide: a clip begins every so many frames")
    what("--split", metavar="CHAR", help="separator of the list; default: found out")
    what("--prefix", default="", metavar="DIR", help="folder, URL or shards joined before the list's paths")
    what("--frame_folders", action="store_true", help="rows are folders of frames: path, frames, label")
    out = parser.add_argument_group("where it goes").add_argument
    out("--output", metavar="DIR", help="folder of the features")
    out("--format", default="npz", help="npz: a file a video (default); parquet or safetensors: shards")
    out("--shard_size", type=int, metavar="ROWS", help="rows of a shard (256; 16 with --pool none)")
    out("--dtype", default="fp16", help="fp16 (default), fp32, or bf16 (safetensors only)")
    out("--skip_unreadable", action="store_true", help="a video that cannot be read is no failure")
    add_view_flags(parser)
    run = parser.add_argument_group("processes").add_argument
    run("--processes", type=int, default=1, metavar="N", help="processes on this machine, each with a GPU if there are")
    run("--threads", type=int, metavar="N", help="CPU threads of a process; kept when it goes on")
    words = parser.words(argv)
    if not words.list or not words.checkpoint or not words.output:
        raise ConfigError(
            "umt extract takes a list, --checkpoint and --output, e.g. umt extract train.csv --checkpoint best.pth "
            "--output features."
        )
    check_numbers(
        words, "clips", "crops", "clip_stride", "shard_size", "batch_size", "processes", "num_frames", "input_size",
        "short_side_size", "threads",
    )  # fmt: skip
    check_workers(words)
    for name, known in (("format", ("npz", "parquet", "safetensors")), ("dtype", ("fp16", "fp32", "bf16")),
                        ("pool", ("mean", "spatial", "none", "first"))):  # fmt: skip
        if getattr(words, name) not in known:
            raise ConfigError(f"--{name} ({getattr(words, name)}) must be one of {', '.join(known)}.")
    if words.clips is not None and words.clip_stride is not None:
        raise ConfigError("--clips spreads over a whole video, --clip_stride slides over it. Leave one of them out.")
    words.shard_size = words.shard_size or (16 if words.pool == "none" else 256)
    words.argv = list(argv)
    return words


def main(argv: Sequence[str]) -> int:
    """Runs `umt extract ARGV`; returns its exit code. Raises UserError for what the caller can mend."""
    words = parse(argv)
    from umt.inference import feature_files

    feature_files.check(words.format, words.dtype)
    if words.processes > 1 and "RANK" not in os.environ:
        from umt.tools.extract.processes import start

        _check_once(words)
        return start(words.processes, ["extract", *argv])
    from umt.tools.extract.processes import end_with_parent

    end_with_parent()
    from umt.engine import logs, runtime
    from umt.tools.extract import recipe

    there = recipe.load(Path(words.output))
    threads = words.threads or (there or {}).get("computed", {}).get("threads", 0)
    # Ranks finish when they finish: the group must not give up on the slowest.
    run = runtime.start(
        device=words.device, precision=words.precision, threads=threads, timeout_minutes=7 * 24 * 60
    )  # fmt: skip
    logs.setup_console(main=run.is_main)
    try:
        return _extract(words, run)
    finally:
        runtime.stop()


def _check_once(words: Namespace) -> None:
    """What each process would say for itself before it knows of the others. Raises UserError."""
    from umt import devices
    from umt.tools.extract import recipe

    devices.choose_precision(words.precision, devices.choose_device(words.device, words.processes - 1))
    recipe.load(Path(words.output))


def _extract(words: Namespace, run: Runtime) -> int:
    from tqdm import tqdm

    from umt.data.loading.clips import Videos
    from umt.data.loading.loaders import Workers
    from umt.data.sampling import views_sampler
    from umt.data.storage.source import storage_of
    from umt.inference.extraction import Extractor, usual_layer
    from umt.inference.feature_files import DTYPES
    from umt.inference.parts import ClipParts, Sliding, most_clips
    from umt.inference.sources import read_rows
    from umt.tools.extract import recipe, work

    def read() -> tuple[VideoList, Extractor]:
        found = read_rows(words.list, split=words.split, prefix=words.prefix, frame_folders=words.frame_folders)
        model = load_recognizer(words, str(run.device))
        return found, Extractor(model, words.layer or [usual_layer(model)], words.pool)

    videos, extractor = _together(run, read)
    model = extractor.recognizer
    views, sliding = model.views, words.clip_stride is not None
    clips = words.clips or model.description.test_clips
    crops = words.crops or (1 if sliding else model.description.test_crops)
    made = recipe.make(words, extractor, videos, clips=clips, crops=crops, threads=run.threads)
    folder = Path(words.output)
    todo, failed_before = _agreed(
        run,
        lambda: _begin(
            folder, made, work.groups(folder, words.format, len(videos), words.shard_size, words.batch_size)
        ),
    )
    transform = views.transform(crops)
    size = transform.input_size or transform.short_side_size
    rows = ClipParts(
        Videos(videos, words.decoder, storage=storage_of(videos)),
        Sliding(views.num_frames, words.clip_stride, views.sampling_rate)
        if sliding
        else views_sampler(views.sampling, views.num_frames, clips, views.sampling_rate),
        transform,
        most=most_clips(views.num_frames, size, crops, words.batch_size) if sliding else 0,
    )
    mine = todo[run.world.rank :: run.world.size]
    workers = Workers(
        workers_for(words, len(videos), run.device.type == "cuda", run.world.local_size), timeout=words.decode_timeout
    )
    with tqdm(
        desc="extract", unit="video", total=sum(len(group.rows) for group in mine), leave=False, dynamic_ncols=True,
        disable=None if run.is_main else True,
    ) as bar:  # fmt: skip

        def compute() -> list[Unread]:
            try:
                return work.extract(
                    extractor, rows, mine, dtype=DTYPES[words.dtype], workers=workers, progress=bar.update,
                    failed_before=failed_before,
                )  # fmt: skip
            finally:
                workers.close()

        own = _together(run, compute)
    failed = sorted((one for part in _gathered(own) for one in part), key=lambda one: one.row)
    return _end(words, run, folder, videos, failed)


def _begin(folder: Path, made: dict[str, Any], groups: list[Any]) -> tuple[list[Any], frozenset[int]]:
    """The groups that are still to be made, once the recipe is settled, and the rows that were unreadable before."""
    from umt.tools.extract import recipe

    recipe.settle(folder, made)
    gone = [(group, group.missing()) for group in groups]
    rows, left = sum(len(group.rows) for group in groups), sum(len(missing) for _, missing in gone)
    if left < rows:
        print(f"{rows - left} of {rows} videos are done already.", flush=True)
    ledger = folder / FAILURES
    failed = ledger.read_text().splitlines() if ledger.exists() else []
    return [group for group, missing in gone if missing], frozenset(int(json.loads(line)["row"]) for line in failed)


def _together(run: Runtime, do: Callable[[], T]) -> T:
    """What `do` gives here. If it raises a UserError in any process, all of them end with it, and one tells it."""
    made: Any = None
    error: UserError | None = None
    try:
        made = do()
    except UserError as raised:
        error = raised
    for one in _gathered(error):  # no process waits for one that has gone
        if one is not None:
            raise _said_once(run, one)
    return made


def _gathered(value: T) -> list[T]:
    """`value` of every process. Raises PeerLostError if one is gone."""
    from umt.engine import runtime

    try:
        return runtime.gather_objects(value)
    except RuntimeError as lost:
        cause = str(lost).splitlines()[0][:120]
        raise PeerLostError(f"another process of this run is lost ({cause}). The same command goes on.") from None


def _agreed(run: Runtime, decide: Any) -> Any:
    """What rank 0 decides; if that is an error, all ranks raise it."""
    from umt.engine import runtime

    outcome: Any = None
    if run.is_main:
        try:
            outcome = decide()
        except UserError as error:
            outcome = error
    outcome = runtime.broadcast_object(outcome)
    if isinstance(outcome, UserError):
        raise _said_once(run, outcome)
    return outcome


def _said_once(run: Runtime, error: UserError) -> BaseException:
    """What all processes know is told by one."""
    return error if run.is_main else SystemExit(2)


def _end(words: Namespace, run: Runtime, folder: Path, videos: VideoList, failed: list[Unread]) -> int:
    from umt.engine.checkpoints import replacing

    ledger = folder / FAILURES
    if run.is_main:
        if failed:
            lines = (json.dumps({"row": one.row, "path": one.path, "cause": one.cause}) + "\n" for one in failed)
            with replacing(ledger) as file:
                file.write("".join(lines).encode())
        else:
            ledger.unlink(missing_ok=True)
        print(f"{folder}: {len(videos) - len(failed)} of {len(videos)} videos, {words.format}, recipe.json", flush=True)
    if not failed or words.skip_unreadable:
        return 0
    if not run.is_main:
        return 2
    raise UserError(
        f"{unread(len(failed), len(videos), failed[0].cause)} {ledger} names {'it' if len(failed) == 1 else 'them'}. "
        "Mend that and run the same command again, or give --skip_unreadable."
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
