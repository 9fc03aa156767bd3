"""The words of `umt extract`, and the order in which things are done."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umt.errors import ConfigError, UserError
from umt.flags.command_line import COUNT, Parser
from umt.tools.recognizer_flags import (
    add_clip_flags,
    add_list_flags,
    add_model_flags,
    add_view_flags,
    load_recognizer,
    unread,
    workers_for,
)

if TYPE_CHECKING:
    from umt.data.lists.video_list import VideoList
    from umt.engine.runtime import Runtime
    from umt.inference.extraction import Extractor
    from umt.inference.feature_folder import Group, Unread
    from umt.inference.parts import ClipParts

ABOUT = """Features of every video of a list, together with the exact recipe.

LIST is a list of videos (csv, text, parquet, local or by URL) or a folder of videos. Stopped and started again, the
same command goes on, with any number of processes (--processes, torchrun or srun), and the files come out the same to
the bit. Exit code 2: some video could not be read (failures.jsonl names them; the others are done)."""


def parse(argv: Sequence[str]) -> Namespace:
    """The words of the command line. Raises ConfigError."""
    parser = Parser("umt extract", ABOUT, "umt extract LIST --checkpoint WEIGHTS --output DIR [flags]")
    parser.add_argument("list", nargs="?", metavar="LIST")
    add_model_flags(parser)
    what = parser.add_argument_group("what is taken").add_argument
    what("--layer", nargs="+", metavar="LAYER",
         help="numbers of blocks (-1: the last), pre_logits (what the head is fed), or names of modules; "
              "default: pre_logits of a classifier, else -1")  # fmt: skip
    what("--pool", default="mean", help="mean of all tokens (default), spatial: of each moment, none, or first")
    add_clip_flags(what, sliding="--clip_stride")
    what("--clip_stride", type=COUNT, metavar="FRAMES", help="slide: a clip begins every so many frames")
    add_list_flags(what)
    what("--frame_folders", action="store_true", help="rows are folders of frames: path, frames, label")
    out = parser.add_argument_group("where it goes").add_argument
    out("--output", metavar="DIR", help="folder of the features")
    out("--format", default="npz", help="npz: a file a video (default); parquet or safetensors: shards")
    out("--shard_size", type=COUNT, metavar="ROWS", help="rows of a shard (256; 16 with --pool none)")
    out("--dtype", default="fp16", help="fp16 (default), fp32, or bf16 (safetensors only)")
    out("--skip_unreadable", action="store_true", help="a video that cannot be read is no failure")
    add_view_flags(parser)
    run = parser.add_argument_group("processes").add_argument
    run("--processes", type=COUNT, default=1, metavar="N", help="processes on this machine, each with a GPU if any")
    run("--threads", type=COUNT, metavar="N", help="CPU threads of a process; kept when it goes on")
    words = parser.words(argv)
    if not words.list or not words.checkpoint or not words.output:
        raise ConfigError(
            "umt extract takes a list, --checkpoint and --output, e.g. umt extract train.csv --checkpoint best.pth "
            "--output features."
        )
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
    from umt.inference import feature_files, features
    from umt.tools.extract.processes import end_with_parent, start

    feature_files.check(words.format, words.dtype)
    folder = Path(words.output)
    recipe = features.recipe(folder) if (folder / features.RECIPE).exists() else {}
    if words.processes > 1 and "RANK" not in os.environ:
        from umt import devices

        # What each process would say for itself before it knows of the others.
        devices.choose_precision(words.precision, devices.choose_device(words.device, words.processes - 1))
        return start(words.processes, ["extract", *argv])
    end_with_parent()
    from umt.engine import logs, runtime

    threads = words.threads or recipe.get("computed", {}).get("threads", 0)
    # Some ranks have less to do: the group must wait for the slowest.
    run = runtime.start(device=words.device, precision=words.precision, threads=threads, timeout_minutes=7 * 24 * 60)
    logs.setup_console(main=run.is_main)
    try:
        return _extract(words, run)
    finally:
        runtime.stop()


def _extract(words: Namespace, run: Runtime) -> int:
    from umt.inference import feature_folder
    from umt.inference.extraction import Extractor, usual_layer
    from umt.inference.sources import read_rows
    from umt.tools.extract.processes import agreed, gathered, together

    def read() -> tuple[VideoList, Extractor]:
        videos = read_rows(words.list, split=words.split, prefix=words.prefix, frame_folders=words.frame_folders)
        model = load_recognizer(words, str(run.device))
        return videos, Extractor(model, words.layer or [usual_layer(model)], words.pool)

    videos, extractor = together(run, read)
    folder = Path(words.output)
    groups = feature_folder.groups(folder, words.format, len(videos), words.shard_size, words.batch_size)
    rows, recipe = together(run, lambda: _prepared(words, run, videos, extractor))
    todo, failed_before = agreed(run, lambda: _begin(folder, recipe, groups))
    failures = together(
        run, lambda: _compute(words, run, extractor, rows, todo[run.world.rank :: run.world.size], failed_before)
    )
    failed = sorted((failure for part in gathered(failures) for failure in part), key=lambda failure: failure.row)
    return _end(words, run, folder, videos, failed)


def _prepared(
    words: Namespace, run: Runtime, videos: VideoList, extractor: Extractor
) -> tuple[ClipParts, dict[str, Any]]:
    """The clips of every row, and the recipe of their features."""
    from umt.data.loading.clips import Videos
    from umt.data.sampling import views_sampler
    from umt.data.storage.source import storage_of
    from umt.inference.parts import ClipParts, Sliding, most_clips
    from umt.tools.extract.recipe import recipe_of

    about, views = extractor.recognizer.description, extractor.recognizer.views
    sliding = words.clip_stride is not None
    clips = words.clips or about.test_clips
    crops = words.crops or (1 if sliding else about.test_crops)
    recipe = recipe_of(words, extractor, videos, clips=clips, crops=crops, threads=run.threads)
    transform = views.transform(crops)
    rows = Videos(videos, words.decoder, storage=storage_of(videos))
    if not sliding:
        sample = views_sampler(views.sampling, views.num_frames, clips, views.sampling_rate)
        return ClipParts(rows, sample, transform), recipe
    size = transform.input_size or transform.short_side_size
    most = most_clips(views.num_frames, size, crops, words.batch_size)
    return ClipParts(rows, Sliding(views.num_frames, words.clip_stride, views.sampling_rate), transform, most), recipe


def _begin(folder: Path, recipe: dict[str, Any], groups: list[Group]) -> tuple[list[Group], frozenset[int]]:
    """The groups that are still to be made, once the recipe is settled, and the rows that were unreadable before."""
    from umt.inference import feature_folder

    feature_folder.settle(folder, recipe)
    missing = [group.missing() for group in groups]
    rows, left = sum(len(group.rows) for group in groups), sum(map(len, missing))
    if left < rows:
        print(f"{rows - left} of {rows} videos are done already.", flush=True)
    return [group for group, gone in zip(groups, missing, strict=True) if gone], feature_folder.failed_rows(folder)


def _compute(
    words: Namespace, run: Runtime, extractor: Extractor, rows: ClipParts, todo: list[Group],
    failed_before: frozenset[int],
) -> list[Unread]:  # fmt: skip
    from tqdm import tqdm

    from umt.data.loading.loaders import Workers
    from umt.inference import feature_pass
    from umt.inference.feature_files import DTYPES

    workers = Workers(
        workers_for(words, len(rows), run.device.type == "cuda", run.world.local_size), timeout=words.decode_timeout
    )
    with tqdm(
        desc="extract", unit="video", total=sum(len(group.rows) for group in todo), leave=False, dynamic_ncols=True,
        disable=None if run.is_main else True,
    ) as bar:  # fmt: skip
        try:
            return feature_pass.extract(
                [extractor], rows, [[group] for group in todo], dtype=DTYPES[words.dtype], workers=workers,
                progress=bar.update, failed_before=failed_before,
            )  # fmt: skip
        finally:
            workers.close()


def _end(words: Namespace, run: Runtime, folder: Path, videos: VideoList, failed: list[Unread]) -> int:
    from umt.inference import feature_folder

    if run.is_main:
        feature_folder.write_failures(folder, failed)
        print(f"{folder}: {len(videos) - len(failed)} of {len(videos)} videos, {words.format}, recipe.json", flush=True)
    if not failed or words.skip_unreadable:
        return 0
    if not run.is_main:
        return 2
    ledger = folder / feature_folder.FAILURES
    raise UserError(
        f"{unread(len(failed), len(videos), failed[0].cause)} {ledger} names {'it' if len(failed) == 1 else 'them'}. "
        "Mend that and run the same command again, or give --skip_unreadable."
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
