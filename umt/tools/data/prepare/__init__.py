"""`umt data prepare`: official annotation files and a folder of videos -> lists, class names and a manifest.

Reading order: clips.py, what an annotation says; kinetics.py, others.py and folder.py, one reader per data set;
disk.py, which videos are there; match.py, which clip is which video; output.py, what is written.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umt.errors import AnnotationError, ConfigError
from umt.flags.command_line import Parser
from umt.spelling import did_you_mean

if TYPE_CHECKING:
    from umt.tools.data.prepare.clips import Official
    from umt.tools.data.prepare.match import Matched

DESCRIPTION = """Writes train.csv, val.csv, test.csv, labels.txt and manifest.json for a data set, from its official
annotation files and the videos on disk. Missing videos are counted, and named in missing.txt. Nothing is downloaded."""


@dataclass(frozen=True)
class Target:
    """How runs read a data set's lists."""

    data_set: str
    separator: str
    scripts: str = ""


DATASETS = {
    "k400": Target("Kinetics_sparse", ",", "exp/finetuning/k400"),
    "k600": Target("Kinetics_sparse", ",", "exp/finetuning/k600"),
    "k700": Target("Kinetics_sparse", ",", "exp/finetuning/k700"),
    "k710": Target("Kinetics_sparse", ",", "exp/finetuning/k710"),
    "ssv2": Target("SSV2", " ", "exp/finetuning/ssv2"),
    "mitv1": Target("mitv1_sparse", " ", "exp/finetuning/mitv1"),
    "ucf101": Target("UCF101", " "),
    "hmdb51": Target("HMDB51", " "),
    "folder": Target("Kinetics_sparse", ","),
}


def _parser() -> Parser:
    parser = Parser("umt data prepare", DESCRIPTION)
    add = parser.add_argument
    add("dataset", metavar="|".join(DATASETS), help="folder: your own videos, in a folder per class")
    add("--videos", nargs="+", required=True, type=Path, metavar="DIR", help="where the videos are, at any depth")
    add("--annotations", nargs="+", default=[], type=Path, metavar="DIR", help="where the official lists are; "
        "default: in or next to --videos")  # fmt: skip
    add("--out", required=True, type=Path, metavar="DIR", help="folder of the lists: the --data_path of a run")
    add("--label_order", choices=("umt", "alphabetical"), default="umt", help="k400: the order of the published UMT "
        "weights, or the alphabetical order of most other lists and weights (default: umt)")  # fmt: skip
    add("--split", type=int, choices=(1, 2, 3), default=1, help="ucf101, hmdb51: official split (default: 1)")
    add("--test", choices=("val", "official"), default="val", help="test.csv: the validation list again, as in "
        "published tables, or the official test list if it has labels (default: val)")  # fmt: skip
    add("--frame_folders", action="store_true", help="folders of frames (img_00001.jpg, ...) instead of videos")
    add("--force", action="store_true", help="replace lists that are in --out already")
    return parser


def main(argv: Sequence[str]) -> int:
    """Runs `umt data prepare ARGV`; returns its exit code. Raises UserError for what the caller can mend."""
    words = _parser().words(argv)
    if words.dataset not in DATASETS:
        hint = did_you_mean(words.dataset, list(DATASETS), count=1, cutoff=0.5)
        raise ConfigError(f"umt data prepare: '{words.dataset}' is not a data set. {hint}")
    for line in prepare(
        words.dataset, videos=words.videos, annotations=words.annotations, out=words.out,
        label_order=words.label_order, split=words.split, test=words.test, frame_folders=words.frame_folders,
        force=words.force,
    ):  # fmt: skip
        print(line)
    return 0


def prepare(
    dataset: str,
    *,
    videos: Sequence[Path],
    out: Path,
    annotations: Sequence[Path] = (),
    label_order: str = "umt",
    split: int = 1,
    test: str = "val",
    frame_folders: bool = False,
    force: bool = False,
) -> list[str]:
    """Writes the lists of `dataset` into `out`; returns a summary, line by line.

    Raises:
        AnnotationError: no annotation, a broken one, no videos, or none that the annotation names.
        OutputError: `out` holds lists already and not `force`, or cannot be written.
    """
    from umt.tools.data.prepare import disk, folder, kinetics, others, output
    from umt.tools.data.prepare.match import match

    target = DATASETS[dataset]
    output.refuse_to_overwrite(out, force=force)
    notes: dict[str, int] = {}
    sources: list[Path] = []
    summary: list[str] = []
    splits: dict[str, Matched]
    if dataset == "folder":
        _refuse_for_folders(annotations, videos, frame_folders=frame_folders)
        names, splits, note = folder.read(videos[0])
        root, order = os.path.abspath(videos[0]), "alphabetical"
        summary += [note] if note else []
    else:
        disk.require_folders(videos)
        if label_order == "alphabetical" and dataset != "k400":
            raise ConfigError(
                f"--label_order alphabetical is for k400; {dataset} has only one order of labels. Leave the flag out."
            )
        if dataset.startswith("k"):
            official = kinetics.read(dataset, annotations, videos, label_order)
        else:
            official = others.READERS[dataset](annotations, videos, split)
        _settle_test(dataset, official, test)
        there = disk.scan(videos, frame_folders=frame_folders)
        splits = {name: match(official, name, there) for name in ("train", "val") if official.splits.get(name)}
        if official.splits["test"] is official.splits.get("val") and "val" in splits:
            splits["test"] = splits["val"]
        elif official.splits["test"]:
            splits["test"] = match(official, "test", there)
        if not any(matched.rows for matched in splits.values()):
            expected = next(matched.missing[0][0] for matched in splits.values() if matched.missing)
            raise AnnotationError(
                f"{dataset}: none of the {there.files} videos below {there.root} is in the annotation. It expects "
                f"names like {expected}; there are {' and '.join(there.examples())}. Check --videos and {dataset}."
            )
        root, order, names, notes = there.root, label_order, official.names, official.notes
        sources = official.files
        summary.append(f"{dataset}: {_number(there.files)} {'folders' if frame_folders else 'videos'} below {root}")
    manifest = _manifest(dataset, target, root, order, split, test, sources, notes)
    output.write(out, output.files_of(names, splits, target.separator, manifest))
    summary += _report(dataset, target, out, root, names, splits, notes)
    return [*summary, "folders of frames need --use_decord False"] if frame_folders else summary


def _refuse_for_folders(annotations: Sequence[Path], videos: Sequence[Path], *, frame_folders: bool) -> None:
    if annotations:
        raise ConfigError("folder takes its classes from the folders' names: leave out --annotations.")
    if len(videos) > 1:
        raise ConfigError("folder takes a single --videos, which holds a folder per class.")
    if frame_folders:
        raise ConfigError("folder lists videos; folders of frames are read without a list, by --data_set image_folder.")


def _settle_test(dataset: str, official: Official, test: str) -> None:
    """Published tables test on the validation set; test labels were long held back."""
    if test == "val":
        official.splits["test"] = official.splits.get("val", [])
        return
    clips = official.splits.get("test", [])
    if not clips:
        raise AnnotationError(f"{dataset}: there is no official test list. Add it, or leave out --test official.")
    unlabelled = sum(clip.label < 0 for clip in clips)
    if unlabelled:
        raise AnnotationError(
            f"{dataset}: {unlabelled} of {len(clips)} official test videos have no label, so nothing can be scored. "
            "Leave out --test official."
        )


def _manifest(
    dataset: str, target: Target, root: str, order: str, split: int, test: str, sources: list[Path],
    notes: dict[str, int],
) -> dict[str, Any]:  # fmt: skip
    from umt.tools.data.prepare.output import digest

    read = [{"file": os.path.abspath(file), "sha256": digest(file.read_bytes())} for file in sources]
    return {
        "dataset": dataset,
        "label_order": order,
        "test": test,
        **({"split": split} if dataset in ("ucf101", "hmdb51") else {}),
        "videos": root,
        "data_set": target.data_set,
        "separator": target.separator,
        "annotations": read,
        "notes": notes,
    }


def _report(
    dataset: str,
    target: Target,
    out: Path,
    root: str,
    names: list[str],
    splits: dict[str, Matched],
    notes: dict[str, int],
) -> list[str]:
    from umt.tools.data.prepare import output

    lines = []
    for split, matched in splits.items():
        if split == "test" and matched is splits.get("val"):
            official = "" if dataset in ("ucf101", "hmdb51") else "; --test official takes the official test list"
            lines.append(f"test: val again, as in published tables{official}")
            continue
        lines.append(f"{split}: {_number(len(matched.rows))} of {_number(matched.official)}")
        if matched.repeated:
            lines.append(f"  {_number(matched.repeated)} annotated more than once, listed once")
        empty = len(names) - len({row.label for row in matched.rows})
        if matched.rows and empty:
            lines.append(f"  {empty} of {len(names)} classes have no video")
        if not matched.rows:
            lines.append(f"  no {split}.csv is written")
    lines += [f"{name}: {_number(count)}" for name, count in notes.items() if count]
    missing = sum(len(matched.missing) for matched in output.once(splits))
    if missing:
        lines.append(f"{_number(missing)} missing, named in {out / 'missing.txt'}")
    if sum(len(matched.rows) for matched in output.once(splits)) < missing:
        lines.append("  most are missing. Is --videos complete, and are the annotations of the same edition?")
    lines.append(f"lists, labels.txt ({len(names)} classes) and manifest.json are in {out}")
    place = f"DATA_PATH={shlex.quote(str(out))} PREFIX={shlex.quote(root)}"
    if target.scripts:
        lines.append(f"for the scripts of {target.scripts}: {place}")
        if dataset == "k710":
            alone = shlex.quote(str(out / "train.csv"))
            lines.append(f"for those of exp/pretraining: DATA_PATH={alone} PREFIX={shlex.quote(root)}")
    else:
        lines.append(
            f"for a run: --data_set {target.data_set} --nb_classes {len(names)} --data_path {shlex.quote(str(out))} "
            f"--prefix {shlex.quote(root)} --split {shlex.quote(target.separator)}"
        )
    return lines


def _number(count: int) -> str:
    return f"{count:,}".replace(",", " ")
