"""What an official annotation says, in any form of file: clips, their labels, and the names of the classes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Clip:
    """One annotated clip. `label` -1: the annotation has none."""

    video: str  # what it was cut from: clips of one video count as one where sets are merged
    shown: str  # the usual name of its file, for a person
    stems: tuple[str, ...]  # names without ending under which it may lie, the surest first
    label: int
    folder: str  # the folder that it usually lies in: its class
    source: str  # the set whose annotation names it, e.g. k400


@dataclass
class Official:
    """The annotation of a data set: `splits` maps train, val and (perhaps) test to clips in the annotation's order."""

    names: list[str]  # class names in label order
    splits: dict[str, list[Clip]]
    files: list[Path]  # that it was read from
    same_name_is_same_clip: bool = False  # two files of one name are copies: either will do
    notes: dict[str, int] = field(default_factory=dict)  # what was done to the annotation, counted
