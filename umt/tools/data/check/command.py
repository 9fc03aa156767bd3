"""The flags of `umt data check`, and the order of its checks."""

from __future__ import annotations

import json
import os
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from umt.cores import usable_cores
from umt.data import catalog
from umt.data.lists.lines import separator_of
from umt.data.storage.urls import is_url
from umt.errors import AnnotationError, ConfigError, OutputError
from umt.flags.command_line import COUNT, SECONDS_OR_0, SHARE, Parser
from umt.tasks.classify.flags import ORDERS
from umt.tasks.video.flags import DECODERS
from umt.tools.data.check import across, files
from umt.tools.data.check.cache import Cache, cache_folder, versions
from umt.tools.data.check.findings import OF_FILES, WARNING, Finding
from umt.tools.data.check.fix import describe, fix
from umt.tools.data.check.lists import Checked, Reading, find_lists, read, read_class_folders
from umt.tools.data.check.report import Report

_SHORT = 4  # files that need no progress bar
_EVERY = 60.0  # seconds between lines of progress where there is no terminal

ABOUT = """Checks every line of lists and whether the files exist; with --decode also every file.

LIST is a list of videos (csv, text, parquet), a folder with train, val and test lists, or one with a folder per class.
Exit code: 0 a run can train on it (there may be warnings), 1 it cannot, 2 the command is wrong."""


def _words(argv: Sequence[str]) -> Namespace:
    parser = Parser("umt data check", ABOUT)
    add = parser.add_argument
    add("lists", nargs="+", metavar="LIST")
    depth = parser.add_argument_group("depth").add_argument
    depth("--lines_only", action="store_true", help="do not look for the files, which may be elsewhere")
    depth("--decode", action="store_true", help="decode every file from its start to its end, and compare contents")
    depth("--hash", action="store_true", help="compare contents without decoding")
    run = parser.add_argument_group("as a run has them").add_argument
    run("--split", metavar="CHAR", help="separator of the columns; by default it is detected and named")
    run("--prefix", default="", metavar="DIR", help="folder joined before the paths")
    run("--data_set", default="", metavar="NAME", help="data set of the catalogue: its classes, its sampling")
    run("--nb_classes", type=COUNT, metavar="N", help="labels must be below; default: the data set's, or any")
    run("--num_frames", type=COUNT, default=8, metavar="N", help="frames of a clip (8): shorter videos are named")
    run("--sampling_rate", type=COUNT, default=4, metavar="N", help="distance of frames where sampling is dense (4)")
    run("--use_decord", default="True", metavar="BOOL", help="False: rows are folders of frames, `path frames label`")
    run("--decoder", default="auto", choices=DECODERS, help="video reader of the run (auto)")
    run("--decode_timeout", type=SECONDS_OR_0, default=120.0, metavar="SECONDS",
        help="that decoding one file may take (120); 0: no limit")  # fmt: skip
    run("--label_order", default="auto", choices=ORDERS, help="Kinetics-400: order of the labels, as in a run")
    run("--pretrain", action="store_true", help="as pretraining reads it: labels unused, .mp4 added to bare names")
    run("--max_failures", type=SHARE, default=0.0, metavar="SHARE",
        help="share of a training list's files that may be unreadable, as warnings (0; a run allows 0.01)")  # fmt: skip
    more = parser.add_argument_group("the work").add_argument
    more("--num_workers", type=COUNT, metavar="N", help="processes that decode; default: the CPU cores")
    more("--cache", metavar="DIR", help="results of earlier checks; default: $UMT_CACHE, else ~/.cache/umt")
    more("--no_cache", action="store_true", help="look at every file again, and remember nothing")
    out = parser.add_argument_group("output").add_argument
    out("--json", metavar="FILE", help="the whole report for programs; - prints it instead of the summary")
    out("--fix", action="store_true", help="write lists without the bad rows, next to the old lists")
    words = parser.words(argv)
    if words.lines_only and (words.decode or words.hash):
        raise ConfigError("--lines_only does not look at files, --decode and --hash do. Leave one of them out.")
    if words.use_decord.lower() not in ("true", "false", "1", "0"):
        raise ConfigError(f"--use_decord ({words.use_decord}) must be True or False.")
    if words.prefix and not is_url(words.prefix) and not words.lines_only and not os.path.isdir(words.prefix):
        raise ConfigError(f"--prefix ({words.prefix}) is not a folder. It is joined before the paths of the lists.")
    return words


def main(argv: Sequence[str]) -> int:
    """Runs `umt data check ARGV`; returns 0 (a run can train on it) or 1. Raises UserError for a wrong command."""
    words = _words(argv)
    start = time.perf_counter()
    known = catalog.get(words.data_set) if words.data_set else None
    classes = words.nb_classes or (known.classes if known else None)
    frame_folders = words.use_decord.lower() in ("false", "0")
    how = Reading(words.split, words.prefix, frame_folders, words.pretrain)
    lists, folder, fixable = _read(words.lists, how, classes)
    report = examine(lists, words, classes, clip=words.num_frames * (
        words.sampling_rate if known and known.sampling == "dense" else 1))  # fmt: skip
    if words.fix:
        if not fixable:
            raise ConfigError(
                "--fix writes lists next to lists, which a folder per class and a URL do not have. Mend or copy them."
            )
        split = None if words.split is None else separator_of(words.split)
        # The labels of a cleaned list are numbers, so lists with names of classes cannot be written.
        numbered = [checked for checked in lists if not checked.named]
        report.fixed = fix(numbered, report.findings, folder, frame_folders=frame_folders, split=split)
    report.seconds = time.perf_counter() - start
    if words.json == "-":
        print(json.dumps(report.as_json(), indent=1))
        return 0 if report.trainable else 1
    if words.json:
        _write_json(Path(words.json), report)
    print(report.text())
    for fixed in report.fixed:
        print(f"\n{describe(fixed)}")
    return 0 if report.trainable else 1


def _read(given: Sequence[str], how: Reading, classes: int | None) -> tuple[list[Checked], str | None, bool]:
    """The lists, the folder that holds them if one was given, and whether --fix can write all of them."""
    lists: list[Checked] = []
    fixable = True
    for name in dict.fromkeys(n if is_url(n) else os.path.normpath(n) for n in given):
        fixable = fixable and not is_url(name)
        if not os.path.isdir(name):
            lists.append(read(name, how))
        elif inside := find_lists(name):
            lists += [read(path, how) for path in inside]
        elif any(entry.is_dir() for entry in os.scandir(name)):
            lists += read_class_folders(name, classes)
            fixable = False
        else:
            raise AnnotationError(
                f"{name} holds neither train, val and test lists nor a folder per class. Name the lists themselves."
            )
    return lists, given[0] if len(given) == 1 and os.path.isdir(given[0]) else None, fixable


def examine(lists: list[Checked], words: Namespace, classes: int | None, clip: int) -> Report:
    """All findings about `lists`, as thoroughly as the flags ask for."""
    depth = "lines" if words.lines_only else "decoded" if words.decode else "looked for"
    findings: list[Finding] = [finding for checked in lists for finding in checked.findings]
    findings += across.labels(lists, classes, words.pretrain)
    if words.data_set and classes and not words.pretrain:
        findings += across.label_orders(lists, words.data_set, classes, words.label_order)
    rows = across.Files(lists)
    findings += across.repeats(rows)
    report = Report(lists, len(rows.names), findings, depth)
    if not words.lines_only:
        cache = Cache(
            None if words.no_cache else Path(words.cache) if words.cache else cache_folder(), versions(words.decoder)
        )
        try:
            seen = files.on_disk(rows, _bar)
            findings += files.of_disk(rows, seen)
            if words.decode:
                facts, report.known = files.decoded(
                    rows, seen, cache, _bar,
                    workers=words.num_workers or usable_cores(), limit=words.decode_timeout, decoder=words.decoder,
                )  # fmt: skip
                report.decoded = len(facts)
                findings += files.of_facts(rows, facts, clip)
            if words.decode or words.hash:
                findings += files.same_content(rows, seen, cache, _bar)
        finally:
            cache.close()
    report.findings = _allowed(lists, findings, words.max_failures)
    return report


def _allowed(lists: Sequence[Checked], findings: list[Finding], share: float) -> list[Finding]:
    """The findings; unreadable files of a training list become warnings if they are at most that share of it."""
    mild = set()
    for checked in lists:
        broken = sum(f.source == checked.source and f.kind in OF_FILES for f in findings)
        if checked.role != "held out" and 0 < broken <= share * len(checked.videos):
            mild.add(checked.source)
    return [replace(f, weight=WARNING) if f.source in mild and f.kind in OF_FILES else f for f in findings]


def _bar(total: int, what: str) -> Callable[[], None]:
    """A progress bar on a terminal, and one line per minute in the log of a batch job."""
    from tqdm import tqdm

    on_terminal = sys.stderr.isatty()
    bar = tqdm(total=total, desc=what, unit="file", disable=not on_terminal or total < _SHORT, leave=False)
    done, printed = 0, time.monotonic()

    def step() -> None:
        nonlocal done, printed
        done += 1
        bar.update()
        if done >= total:
            bar.close()
        if not on_terminal and time.monotonic() - printed > _EVERY:
            printed = time.monotonic()
            print(f"{what}: {done} of {total} files", file=sys.stderr, flush=True)

    return step


def _write_json(file: Path, report: Report) -> None:
    try:
        file.write_text(json.dumps(report.as_json(), indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"--json ({file}) cannot be written: {error.strerror}. Give another place.") from None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
