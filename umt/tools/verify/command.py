"""`umt verify MODEL LIST`: tests a checkpoint on a list and compares the result with the published number.

MODEL: a row of MODEL_ZOO.md by the name of its weights, or a checkpoint (path, URL, hub). LIST: the test list, or the
folder that holds test.csv. All other flags go to `umt test`, e.g. --prefix, --split, --device, --batch_size; what they
do not give comes from the row, or from the checkpoint.
Exit code: 0 it agrees, 1 it differs, 2 there are too few videos to say.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from umt.errors import ConfigError
from umt.flags.command_line import COUNT, Number, Parser, last_value
from umt.flags.parser import flag_names
from umt.processes import speaks
from umt.run.command_line import parse
from umt.spelling import did_you_mean
from umt.tasks.base import recipe_class
from umt.tools.verify.checkpoint import refuse_another_head, stated_by
from umt.tools.verify.expected import expected_row
from umt.tools.verify.given_list import ListFlags, prepare
from umt.tools.verify.report import Report, compared, headline, renumbered
from umt.tools.verify.verdict import EXIT_CODES, MAX_INTERVAL, judge
from umt.tools.verify.zoo import Row

_POINTS = Number(float, at_least=0)


def _parser() -> Parser:
    parser = Parser("umt verify", str(__doc__), "umt verify MODEL LIST [flags] [flags of umt test]")
    add = parser.add_argument
    add("model", metavar="MODEL", help="row of the zoo, or a checkpoint")
    add("list", metavar="LIST", help="test list, or the folder of test.csv")
    add("--row", metavar="NAME", help="the row with which a checkpoint is compared (default: its file name)")
    add("--zoo", metavar="FILE", help="rows of your own: JSON, or Markdown in the form of MODEL_ZOO.md")
    add("--expect", metavar="TOP1|test.json", help="instead of a row: a number, or the test.json of another run")
    add("--official_videos", type=COUNT, metavar="N", help="videos of the list on which the number was measured "
        "(default: the row's; with --expect TOP1 those of LIST)")  # fmt: skip
    add("--tolerance", type=_POINTS, metavar="T", help="points (default: 0.1, and the possible effect of the videos "
        "that are missing)")  # fmt: skip
    add("--max_interval", type=_POINTS, default=MAX_INTERVAL, metavar="W", help="with videos missing, a 95 %% interval "
        f"wider than this says nothing (default: {MAX_INTERVAL:g} points)")  # fmt: skip
    add("--sample", type=COUNT, metavar="N", help="test only N random lines of LIST, the same each time")
    add("--json", action="store_true", help="print JSON instead of the table")
    return parser


def main(argv: Sequence[str]) -> int:
    """Runs `umt verify ARGV`; returns its exit code. Raises UserError for what the caller can mend."""
    words, passed = _words(argv)
    row = expected_row(words)
    stated = stated_by(words.model, fetching="data_set" not in row.flags)
    stated = replace(stated, flags={**stated.flags, **row.flags})
    if not any(flag in stated.flags or last_value(passed, flag) for flag in ("data_set", "nb_classes")):
        raise ConfigError(
            f"{words.model} does not state how it is tested. Give the flags of its test, e.g. --model "
            "vit_base_patch16_224 --num_frames 8 --data_set Kinetics_sparse --nb_classes 400, or --row NAME."
        )
    if not last_value(passed, "nb_classes"):
        refuse_another_head(words.model, row)
    output = last_value(passed, "output_dir") or str(Path("outputs", "verify", row.name))
    _refuse_overwriting(row, Path(output))
    prepared = prepare(words.list, Path(output), stated, _list_flags(words, passed))
    _require_enough(words.official_videos, prepared.videos)
    row = replace(row, videos=row.videos or prepared.lines, decided=_notes(row, passed))
    defaults = [word for flag, value in {**stated.flags, **prepared.flags}.items() for word in (f"--{flag}", value)]
    run = ["--data_path", prepared.folder, "--finetune", words.model, "--output_dir", output]
    _test([*run, *defaults, *passed, "--eval"])
    return _report(words, row, Path(output)) if speaks(os.environ) else 0


def _words(argv: Sequence[str]) -> tuple[Any, list[str]]:
    """The words of this command, and those for `umt test`."""
    if {"-h", "--help"} & set(argv):
        return _parser().words(["--help"]), []
    if len(argv) < 2 or any(word.startswith("-") for word in argv[:2]):
        raise ConfigError(
            "umt verify takes MODEL and LIST first, e.g. umt verify b16_ptk710_ftk710_ftk400_f8_res224 "
            "lists/k400/test.csv."
        )
    words, passed = _parser().known_words(argv)
    known = flag_names(recipe_class("finetune"))
    for flag in (word.split("=")[0] for word in passed if word.startswith("--")):
        if flag not in known:
            choices = [*(f"--{name}" for name in vars(words)), *known]
            hint = did_you_mean(flag, choices, "umt verify --help and umt test --help list them.")
            raise ConfigError(f"umt verify: there is no flag {flag}. {hint}")
    return words, passed


def _notes(row: Row, passed: Sequence[str]) -> str:
    """What was decided about a row, and which flags differ from it."""
    changed = [
        f"--{flag} {last_value(passed, flag)} ({value})"
        for flag, value in row.flags.items()
        if flag != "split" and last_value(passed, flag) not in ("", value)
    ]
    note = f"not tested as its row is: {', '.join(changed)}" if changed else ""
    return "; ".join(filter(None, (row.decided, note)))


def _list_flags(words: Any, passed: Sequence[str]) -> ListFlags:
    return ListFlags(
        split=last_value(passed, "split"),
        prefix=last_value(passed, "prefix"),
        data_set=last_value(passed, "data_set"),
        frame_folders=last_value(passed, "use_decord").lower() == "false" or "--no_use_decord" in passed,
        sample=words.sample,
    )


def _refuse_overwriting(row: Row, output: Path) -> None:
    """The test would replace the other run's test.json before the two are compared."""
    if Path(row.source).is_file() and Path(row.source).resolve() == (output / "test.json").resolve():
        raise ConfigError(
            f"--expect ({row.source}) lies in --output_dir ({output}), whose test.json this test writes. Give another "
            "--output_dir."
        )


def _require_enough(official: int | None, videos: int | None) -> None:
    if official is not None and videos is not None and videos > official:
        raise ConfigError(
            f"--official_videos ({official}) must not be below the {videos} videos of LIST. Leave it out, or give the "
            "list on which the number was measured."
        )


def _test(argv: list[str]) -> None:
    """`umt test ARGV`, in this process."""
    from umt.engine.preemption import Preemption

    config = parse("finetune", argv)
    with Preemption(max_hours=config.runtime.max_hours) as preemption:
        from umt.run.execute import execute

        execute(config, preemption)


def _report(words: Any, row: Row, output: Path) -> int:
    tested = json.loads((output / "test.json").read_text(encoding="utf-8"))
    metric, measured = headline(tested)
    videos = int(tested["videos"])
    _require_enough(words.official_videos, videos)
    interval = (float(tested["interval"][0]), float(tested["interval"][1])) if "interval" in tested else None
    verdict = judge(
        measured,
        row.top1,
        interval=interval or (0.0, 100.0),
        videos=videos,
        official=row.videos,
        tolerance=words.tolerance,
        max_interval=words.max_interval,
    )
    report = Report(
        row=row,
        metric=metric,
        measured=measured,
        interval=interval,
        videos=videos,
        unreadable=len(tested["unreadable"]),
        clips=tested["clips"],
        crops=tested["crops"],
        provenance=tested["provenance"],
        verdict=verdict,
        compared=compared(output, Path(row.source)) if words.expect and Path(row.source).is_file() else "",
        hint=renumbered(output, row.top1, measured) if verdict.word == "differs" else "",
    )
    text = json.dumps(asdict(report), indent=1)
    (output / "verify.json").write_text(text, encoding="utf-8")
    print(text if words.json else report.table())
    return EXIT_CODES[verdict.word]
