"""Which file serves as which split, where people have not made all three. No numpy: a dry run asks, too."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from umt.data.storage.urls import is_url, join

ONE_IN = 10  # training videos of a class that are held out where there is neither a val nor a test list
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class SplitFile:
    """The list of a split. `part`: whether of a training list it is what is "kept" or "held out"; "" the whole list."""

    path: str
    part: str = ""
    note: str = ""


def list_file(folder: str, split: str) -> str:
    """The list of a split: `split.csv`, or in a folder of this machine `split.parquet` where there is no csv."""
    csv, parquet = join(folder, f"{split}.csv"), join(folder, f"{split}.parquet")
    return parquet if not is_url(folder) and os.path.isfile(parquet) and not os.path.isfile(csv) else csv


def split_file(folder: str, split: str, there: Sequence[str]) -> SplitFile:
    """The list that serves as `split`; `there`: files of the splits that are there, the training list among them.

    Of val and test one may be missing: the other serves for both. Without either, some training videos are held out.
    """
    files = {os.path.splitext(os.path.basename(file))[0]: file for file in there}
    held = {"val", "test"}.isdisjoint(files)
    note = f"{folder} has no val and no test list: 1 in {ONE_IN} videos of a class is held out, chosen by a hash."
    if split == "train":
        return SplitFile(files["train"], "kept", note) if held else SplitFile(files["train"])
    if held:
        return SplitFile(files["train"], "held out", note)
    other = {"val": "test", "test": "val"}[split]
    if split in files:
        return SplitFile(files[split])
    return SplitFile(files[other], "", f"{folder} has no {split} list: {os.path.basename(files[other])} is used.")
