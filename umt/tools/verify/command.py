"""`umt verify MODEL LIST`: tests a checkpoint on a list and holds the number against the published one.

MODEL: a row of MODEL_ZOO.md by the name of its weights, or a checkpoint (path, URL, hub). LIST: the test list, or the
folder that holds test.csv. What is not listed here goes to `umt test`, e.g. --prefix, --split, --device, --batch_size;
what it does not say comes from the row, or from the checkpoint.
Exit code: 0 it agrees, 1 it differs, 2 there are too few videos to say.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from umt.data import catalog
from umt.errors import CheckpointError, ConfigError
from umt.flags.command_line import Parser
from umt.models.files import published
from umt.spelling import did_you_mean
from umt.tools.verify.given_list import Given, Told, prepare
from umt.tools.verify.report import Report, compared, measured_by, renumbered
from umt.tools.verify.verdict import EXIT_CODES, MAX_INTERVAL, judge
from umt.tools.verify.zoo import Row, published_rows, read_zoo

log = logging.getLogger("umt")

# Flags of a training that decide how its checkpoint is tested.
_OF_A_TEST = ("model", "num_frames", "tubelet_size", "input_size", "short_side_size", "use_mean_pooling",
              "use_learnable_pos_emb", "data_set", "nb_classes", "multi_label", "sampling_rate", "test_num_segment",
              "test_num_crop", "split")  # fmt: skip


def _parser() -> Parser:
    parser = Parser("umt verify", str(__doc__), "umt verify MODEL LIST [flags] [flags of umt test]")
    add = parser.add_argument
    add("model", metavar="MODEL", help="row of the zoo, or a checkpoint")
    add("list", metavar="LIST", help="test list, or the folder of test.csv")
    add("--row", metavar="NAME", help="the row that a checkpoint is held against (default: its file name)")
    add("--zoo", metavar="FILE", help="rows of your own: JSON, or Markdown in the form of MODEL_ZOO.md")
    add("--expect", metavar="TOP1|test.json", help="instead of a row: a number, or the test.json of another run")
    add("--official_videos", type=int, metavar="N", help="videos of the list that the number is of (default: the "
        "row's; with --expect TOP1 those of LIST)")  # fmt: skip
    add("--tolerance", type=float, metavar="T", help="points (default: 0.1, and what the missing videos may make)")
    add("--max_interval", type=float, default=MAX_INTERVAL, metavar="W", help="with videos missing, a 95 %% interval "
        f"wider than this says nothing (default: {MAX_INTERVAL:g} points)")  # fmt: skip
    add("--sample", type=int, metavar="N", help="test N lines of LIST only, drawn by chance, the same each time")
    add("--json", action="store_true", help="print JSON instead of the table")
    return parser


def main(argv: Sequence[str]) -> int:
    """Runs `umt verify ARGV`; returns its exit code. Raises UserError for what the caller can mend."""
    words, passed = _words(list(argv))
    row = _expected(words)
    told = _of_checkpoint(words.model, fetching="data_set" not in row.flags)
    told = replace(told, flags={**told.flags, **row.flags})
    flags = told.flags
    if not any(flag in flags or _last(passed, flag) for flag in ("data_set", "nb_classes")):
        raise ConfigError(
            f"{words.model} does not say how it is tested. Give the flags of its test, e.g. --model "
            "vit_base_patch16_224 --num_frames 8 --data_set Kinetics_sparse --nb_classes 400, or --row NAME."
        )
    if not _last(passed, "nb_classes"):
        _refuse_another_head(words.model, row)
    output = _last(passed, "output_dir") or str(Path("outputs", "verify", row.name))
    _refuse_overwriting(row, Path(output))
    made = prepare(words.list, Path(output), told, _given(words, passed))
    _require_enough(words.official_videos, made.videos)
    row = replace(row, videos=row.videos or made.lines, decided=_notes(row, passed))
    given = [word for flag, value in {**flags, **made.flags}.items() for word in (f"--{flag}", value)]
    run = ["--data_path", made.folder, "--finetune", words.model, "--output_dir", output, *given, *passed, "--eval"]
    _test(run)
    if os.environ.get("RANK", "0") != "0":
        return 0
    return _report(words, row, Path(output))


def _words(argv: list[str]) -> tuple[Any, list[str]]:
    """Our own words, and those for `umt test`."""
    parser = _parser()
    flags = [flag for action in parser._actions for flag in action.option_strings]
    if any(word in ("-h", "--help") for word in argv):
        return parser.words(["--help"]), []
    if len(argv) < 2 or any(word.startswith("-") for word in argv[:2]):
        raise ConfigError(
            "umt verify takes MODEL and LIST first, e.g. umt verify b16_ptk710_ftk710_ftk400_f8_res224 "
            "lists/k400/test.csv."
        )
    own, passed = list(argv[:2]), list[str]()
    into = passed
    for word in argv[2:]:
        if word.startswith("--"):
            into = own if word.split("=")[0] in flags else passed
        into.append(word)
    _require_known(passed, flags)
    return parser.words(own), passed


def _require_known(passed: Sequence[str], own: Sequence[str]) -> None:
    from umt.config import cli

    names = [flag.lstrip("-") for action in cli.parser("finetune")._actions for flag in action.option_strings]
    for word in (word.split("=")[0].removeprefix("--") for word in passed if word.startswith("--")):
        if word not in names:
            known = [*own, *(f"--{name}" for name in names)]
            hint = did_you_mean(word, known, "umt verify --help and umt test --help list them.")
            raise ConfigError(f"umt verify: there is no flag --{word}. {hint}")


def _last(words: Sequence[str], flag: str) -> str:
    """The value of the last `--flag value` or `--flag=value`."""
    value = ""
    for i, word in enumerate(words):
        if word == f"--{flag}" and i + 1 < len(words):
            value = words[i + 1]
        elif word.startswith(f"--{flag}="):
            value = word.partition("=")[2]
    return value


def _notes(row: Row, passed: Sequence[str]) -> str:
    """What was decided of a row, and what flags have changed of it."""
    other = [
        f"--{flag} {_last(passed, flag)} ({value})"
        for flag, value in row.flags.items()
        if flag != "split" and _last(passed, flag) not in ("", value)
    ]
    changed = f"not tested as its row is: {', '.join(other)}" if other else ""
    return "; ".join(filter(None, (row.decided, changed)))


def _given(words: Any, passed: Sequence[str]) -> Given:
    return Given(
        split=_last(passed, "split"),
        prefix=_last(passed, "prefix"),
        data_set=_last(passed, "data_set"),
        frame_folders=_last(passed, "use_decord").lower() == "false" or "--no_use_decord" in passed,
        sample=words.sample,
    )


def _refuse_overwriting(row: Row, output: Path) -> None:
    """The other run's test.json would become this one's before the two are compared."""
    if Path(row.source).is_file() and Path(row.source).resolve() == (output / "test.json").resolve():
        raise ConfigError(
            f"--expect ({row.source}) lies in --output_dir ({output}), whose test.json this test writes. Give another "
            "--output_dir."
        )


def _require_enough(official: int | None, videos: int | None) -> None:
    if official is not None and videos is not None and videos > official:
        raise ConfigError(
            f"--official_videos ({official}) must not be below the {videos} videos of LIST. Leave it out, or give the "
            "list that the number is of."
        )


# ---- what is expected


def _expected(words: Any) -> Row:
    place = Path(words.model.split("#")[0].rstrip("/"))
    stem = place.name.removesuffix(".pth").removesuffix(".safetensors")
    for flag, value in (("tolerance", words.tolerance), ("max_interval", words.max_interval)):
        if value is not None and not value >= 0:
            raise ConfigError(f"--{flag} ({value:g}) must not be below 0.")
    for flag, value in (("sample", words.sample), ("official_videos", words.official_videos)):
        if value is not None and value < 1:
            raise ConfigError(f"--{flag} ({value}) must be at least 1.")
    if words.expect is not None:
        if words.row or words.zoo:
            raise ConfigError("--expect and --row or --zoo both say what the number should be. Leave out one of them.")
        own = f"{place.parent.name}-{stem}" if stem.startswith("checkpoint") and place.parent.name else stem
        return _of_expect(words.expect, own, words.official_videos)
    rows = read_zoo(words.zoo) if words.zoo else published_rows()
    name = words.row or stem
    if name not in rows:
        hint = did_you_mean(name, list(rows), f"Its rows are {', '.join(list(rows)[:4])}, ...")
        where = words.zoo or "MODEL_ZOO.md"
        if published.find(name) is not None and not words.zoo:
            hint = "It is pretrained, and has no accuracy. Name a finetuned one."
        raise ConfigError(
            f"{where} has no number for '{name}'. {hint} Name it with --row, or give a number with --expect."
        )
    row = rows[name]
    return replace(row, videos=words.official_videos or row.videos)


def _of_expect(said: str, stem: str, official: int | None) -> Row:
    try:
        top1 = float(said)
    except ValueError:
        return _of_test(Path(said), stem, official)
    if not 0 <= top1 <= 100:
        raise ConfigError(f"--expect ({said}) must be a top-1 in percent. Try --expect 87.4.")
    return Row(stem, top1, "--expect", videos=official)


def _of_test(file: Path, stem: str, official: int | None) -> Row:
    file = file / "test.json" if file.is_dir() else file
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        flags = {"test_num_segment": str(int(content["clips"])), "test_num_crop": str(int(content["crops"]))}
        return Row(stem, measured_by(content), str(file), flags, official or int(content["videos"]))
    except FileNotFoundError:
        raise ConfigError(f"--expect ({file}) is neither a number nor a file. Try --expect 87.4.") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"--expect ({file}) is not the test.json of a test: {error!r}.") from None


# ---- what is tested


def _refuse_another_head(model: str, row: Row) -> None:
    """Before a run would say, with flags of a training, that the head does not fit; 710 classes serve their parts."""
    from umt.models.files.peek import peek

    wanted, head = row.flags.get("nb_classes", ""), peek(model).head
    if wanted and head not in (0, 710, int(wanted)):
        raise ConfigError(
            f"{model} has a head of {head} classes, and the row {row.name} is of {wanted}: that is of another data "
            "set. Name its own with --row, or give a number with --expect."
        )


def _of_checkpoint(model: str, *, fetching: bool) -> Told:
    """What a checkpoint says itself: of its training, or of an exported folder's description."""
    path = Path(model)
    if not path.exists() and not fetching:  # a name or URL: the row says it
        return Told()
    from umt.models.files.fetch import fetch

    path = fetch(model)
    if (path / "config.json").is_file() and (told := _of_description(path / "config.json")):
        return told
    from umt.models.files.checkpoint_file import read_content  # torch

    content = read_content(path, lazily=True)
    config = content.get("config") if isinstance(content, Mapping) else None
    if not isinstance(config, Mapping):
        return Told()
    first = {flag: value[0] if isinstance(value, (list, tuple)) and value else value for flag, value in config.items()}
    flags = {flag: str(first[flag]) for flag in _OF_A_TEST if first.get(flag) is not None}
    return Told(flags, tuple(config.get("class_names") or ()) or None, str(first.get("data_path") or ""))


def _of_description(file: Path) -> Told | None:
    from umt.models.description import Description

    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}.") from None
    if "umt_model" not in content:
        return None
    told = Description.from_json(content, str(file))
    flags = {
        "model": told.model,
        "num_frames": told.num_frames,
        "tubelet_size": told.arguments.get("tubelet_size", 1),
        "input_size": told.input_size,
        "short_side_size": told.short_side_size,
        "data_set": catalog.sampled_as(told.sampling),
        "nb_classes": told.arguments.get("num_classes"),
        "test_num_segment": told.test_clips,
        "test_num_crop": told.test_crops,
    }
    return Told({flag: str(value) for flag, value in flags.items() if value is not None}, told.labels)


def _test(argv: list[str]) -> None:
    """`umt test ARGV`, in this process."""
    from umt.config.cli import parse
    from umt.engine.preemption import Preemption

    config = parse("finetune", argv)
    with Preemption(max_hours=config.runtime.max_hours) as preemption:
        from umt.assemble import execute

        execute(config, preemption)


# ---- what comes of it


def _report(words: Any, row: Row, output: Path) -> int:
    tested = json.loads((output / "test.json").read_text(encoding="utf-8"))
    measured, videos, many = measured_by(tested), int(tested["videos"]), tested.get("multi_label", False)
    _require_enough(words.official_videos, videos)
    interval = None if many else (float(tested["interval"][0]), float(tested["interval"][1]))
    verdict = judge(
        measured,
        row.top1,
        interval=interval or (0.0, 100.0),
        videos=videos,
        official=row.videos,
        tolerance=words.tolerance,
        max_interval=words.max_interval,
    )
    low = verdict.word == "differs" and measured < row.top1 and not many
    made = Report(
        row=row,
        metric="mAP" if many else "top-1",
        measured=measured,
        interval=interval,
        videos=videos,
        unreadable=len(tested["unreadable"]),
        clips=tested["clips"],
        crops=tested["crops"],
        provenance=tested["provenance"],
        verdict=verdict,
        compared=compared(output, Path(row.source)) if words.expect and Path(row.source).is_file() else "",
        hint=renumbered(output, row.top1, measured) if low else "",
    )
    text = json.dumps(asdict(made), indent=1)
    (output / "verify.json").write_text(text, encoding="utf-8")
    print(text if words.json else made.table())
    return EXIT_CODES[verdict.word]
