"""The published checkpoints of UMT by name: what each file is, and where it lies. No torch.

The rows are those of the original's model zoo (MODEL_ZOO.md has them with their scripts and logs, and says where the
original contradicts itself). A name is a file's stem: `b16_ptk710_ftk710_ftk400_f8_res224`. The original publishes no
hashes, so none stand here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from umt import spelling

_FOLDER = "https://pjlab-gvm-data.oss-cn-shanghai.aliyuncs.com/umt/single_modality/"
MIRROR = "hf://OpenGVLab/UMT"


@dataclass(frozen=True)
class Published:
    """One file. `labels`: the order of its classes, a file of umt/data/labels; "" for a pretrained one."""

    name: str
    data_set: str
    model: str
    num_frames: int
    input_size: int
    num_classes: int
    labels: str
    test_clips: int
    test_crops: int
    top1: float | None  # in percent, over all views

    @property
    def file(self) -> str:
        return f"{self.name}.pth"

    @property
    def url(self) -> str:
        return _FOLDER + self.file

    @property
    def sampling(self) -> str:
        return "ssv2" if self.data_set == "ssv2" else "sparse"


def _row(name: str, top1: float | None = None) -> Published:
    """A row from its name: `b16_ptk710_ftk710_ftk400_f8_res224` is built of what it is."""
    parts = name.split("_")
    size = {"b16": "base", "l16": "large"}[parts[0]]
    frames, pixels = int(parts[-2].removeprefix("f")), int(parts[-1].removeprefix("res"))
    tuned = [part.removeprefix("ft") for part in parts if part.startswith("ft")]
    if not tuned:
        return Published(name, "k710", f"pretrain_umt_{size}_patch16_{pixels}", frames, pixels, 0, "", 0, 0, None)
    data_set = tuned[-1]
    classes = {"k400": 400, "k600": 600, "k700": 700, "k710": 710, "mitv1": 339, "ssv2": 174}[data_set]
    order = "k400_umt" if data_set == "k400" else data_set
    clips = 2 if data_set == "ssv2" else 4
    return Published(name, data_set, f"vit_{size}_patch16_{pixels}", frames, pixels, classes, order, clips, 3, top1)


PUBLISHED: dict[str, Published] = {
    row.name: row
    for row in (
        _row("b16_ptk710_f8_res224"),
        _row("l16_ptk710_f8_res224"),
        _row("b16_ptk710_ftk710_f8_res224", 81.9),
        _row("l16_ptk710_ftk710_f8_res224", 86.0),
        _row("b16_ptk710_ftk710_ftk400_f8_res224", 87.4),
        _row("l16_ptk710_ftk710_ftk400_f8_res224", 90.3),
        _row("l16_ptk710_ftk710_ftk400_f16_res224", 90.6),
        _row("b16_ptk710_ftk710_ftk600_f8_res224", 87.8),
        _row("l16_ptk710_ftk710_ftk600_f8_res224", 90.4),
        _row("l16_ptk710_ftk710_ftk600_f16_res224", 90.5),
        _row("b16_ptk710_ftk710_ftk700_f8_res224", 78.5),
        _row("l16_ptk710_ftk710_ftk700_f8_res224", 83.2),
        _row("l16_ptk710_ftk710_ftk700_f16_res224", 83.6),
        _row("b16_ptk710_ftk710_ftk400_ftmitv1_f8_res224", 44.6),
        _row("b16_ptk710_ftk710_ftk400_ftmitv1_f8_res384", 45.5),
        _row("l16_ptk710_ftk710_ftk400_ftmitv1_f8_res224", 48.0),
        _row("l16_ptk710_ftk710_ftk400_ftmitv1_f8_res384", 48.7),
        _row("b16_ptk710_ftk710_ftssv2_f8_res224", 70.8),
        _row("l16_ptk710_ftk710_ftssv2_f8_res224", 74.7),
    )
}


def find(name: str) -> Published | None:
    """The row of a name or file name; None for another."""
    return PUBLISHED.get(name.removesuffix(".pth"))


def nearest(name: str) -> list[str]:
    """Names of rows that resemble `name`, the nearest first."""
    return spelling.nearest(name.removesuffix(".pth"), list(PUBLISHED), cutoff=0.75)


def names_of(order: str) -> tuple[str, ...]:
    """Class names of a label order, from the package's files."""
    file = Path(__file__).parents[2] / "data" / "labels" / f"{order}.txt"
    return tuple(file.read_text(encoding="utf-8").splitlines())
