"""`umt regress`: its flags and what they must satisfy. No torch before `build`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from umt.errors import AnnotationError, ConfigError
from umt.flags.flag_groups import Choice
from umt.flags.group import Group, flag
from umt.flags.loading import LoadingConfig
from umt.flags.optim import OptimConfig
from umt.flags.run import CheckpointConfig, EvalConfig, ParallelConfig, RuntimeConfig
from umt.tasks.base import Parts, Place, Recipe, Start


@dataclass(frozen=True)
class RegressModel(Group):
    """Model"""

    model: str = flag("vit_tiny_patch8_64", "entry point of the model")
    input_size: int = flag(32, "height and width of the input in pixels", at_least=8)
    tubelet_size: int = flag(1, "frames that one token covers", at_least=1)


@dataclass(frozen=True)
class RegressData(Group):
    """Data"""

    data_path: str = flag("", "folder of train.csv, val.csv and test.csv, of lines `video,number`", on_resume="ignore")
    num_frames: int = flag(4, "frames of a clip", at_least=1)
    clip_stride: int = flag(8, "in a test a clip begins every so many frames: longer videos have more", at_least=1)
    scale: float = flag(1.0, "what the numbers are divided by", above=0)


@dataclass(frozen=True)
class RegressRecipe(Recipe):
    """Learns one number from a clip."""

    command: ClassVar[str] = "regress"
    kind: ClassVar[str] = "umt_regress.kind:KIND"

    model: RegressModel = field(default_factory=RegressModel)
    data: RegressData = field(default_factory=RegressData)
    loading: LoadingConfig = field(default_factory=LoadingConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    evaluation: EvalConfig = field(default_factory=EvalConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    choices: tuple[Choice, ...] = ()

    @property
    def only_tests(self) -> bool:
        """--eval."""
        return self.evaluation.eval

    @property
    def tests_best(self) -> bool:
        """--test_best."""
        return self.evaluation.test_best

    def check(self) -> None:
        """Frames and pixels are whole tokens."""
        if self.data.num_frames % self.model.tubelet_size:
            raise ConfigError(
                f"--num_frames ({self.data.num_frames}) must be a multiple of --tubelet_size "
                f"({self.model.tubelet_size}). Try --num_frames {self.model.tubelet_size}."
            )

    def check_files(self) -> None:
        """The lists, line by line."""
        from umt_regress.lists import read

        if not self.data.data_path:
            raise AnnotationError("--data_path is missing. Give the folder of train.csv, val.csv and test.csv.")
        for split in ("train", "val", "test"):
            read(Path(self.data.data_path) / f"{split}.csv")

    def training_rows(self) -> tuple[int | None, str]:
        """Counted in train.csv."""
        from umt_regress.lists import read

        file = Path(self.data.data_path) / "train.csv"
        return (len(read(file)[0]), f"counted in {file}") if file.is_file() else (None, f"unknown, {file} is not there")

    def facts(self, rows: str) -> dict[str, str]:
        """Model and data."""
        size = self.model.input_size
        return {
            "model": f"{self.model.model}, one number",
            "input": f"{self.data.num_frames} frames of {size} x {size}",
            "videos": rows,
        }

    def build(self, place: Place, start: Start | None = None) -> Parts:
        """See `umt_regress.build`."""
        from umt_regress.build import build_parts

        return build_parts(self, place)
