"""A pretraining run: which flags exist and what they must satisfy."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from umt.data.storage.urls import is_url
from umt.errors import AnnotationError, CheckpointError, ConfigError
from umt.flags.flag_groups import Choice
from umt.flags.legacy import COMMON, DEAD_TOO
from umt.flags.loading import LoadingConfig
from umt.flags.run import ParallelConfig, RuntimeConfig
from umt.models.specs import ModelSpec
from umt.models.teachers import timm_names
from umt.tasks.base import Parts, Place, Recipe, Start
from umt.tasks.distill.flags import (
    PretrainAugmentConfig,
    PretrainCheckpointConfig,
    PretrainDataConfig,
    PretrainOptimConfig,
    StudentConfig,
    TeacherConfig,
)
from umt.tasks.video.model_facts import (
    check_divides,
    check_recomputation,
    data_facts,
    listed,
    model_facts,
    spec,
    there,
    token_grid,
)
from umt.tasks.video.sources import check_data, check_prefixes, counted, require_path, sources


@dataclass(frozen=True)
class DistillRecipe(Recipe):
    """A pretraining run: a student is aligned with a frozen image teacher."""

    command: ClassVar[str] = "pretrain"
    kind: ClassVar[str] = "umt.tasks.distill.kind:KIND"
    variables: ClassVar[Mapping[str, str]] = {"clip_teacher_weights": "TEACHER_PATH"}
    legacy: ClassVar[Mapping[str, str]] = {
        **COMMON,
        "decoder_depth": DEAD_TOO,
        "normlize_target": DEAD_TOO + "; --clip_norm_type normalises the targets",
        "clip_decoder_type": "there is one kind of decoder, linear and LayerNorm",
        "clip_return_attn": "the teacher gives its attention whenever --mask_type attention needs it",
        "train_interpolation": DEAD_TOO,
        "test_best": "pretraining has no test",
    }

    model: StudentConfig = field(default_factory=StudentConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    data: PretrainDataConfig = field(default_factory=PretrainDataConfig)
    loading: LoadingConfig = field(default_factory=LoadingConfig)
    augment: PretrainAugmentConfig = field(default_factory=PretrainAugmentConfig)
    optim: PretrainOptimConfig = field(default_factory=PretrainOptimConfig)
    checkpoint: PretrainCheckpointConfig = field(default_factory=PretrainCheckpointConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    choices: tuple[Choice, ...] = ()

    @property
    def copies(self) -> int:
        """--num_sample."""
        return self.data.num_sample

    @property
    def sizes(self) -> ModelSpec:
        """Of the student."""
        return spec("model", self.model.model, "student")

    @property
    def grid(self) -> tuple[int, int, int]:
        """(T', H', W') tokens of a clip."""
        return token_grid(self.model, self.data.num_frames, self.sizes.patch_size)

    @property
    def visible(self) -> int:
        """Tokens of a frame that the student sees, on average."""
        tokens = self.grid[1] * self.grid[2]
        return tokens - int(tokens * self.teacher.mask_ratio)

    def check(self) -> None:
        """Student against teacher, frames, and the data."""
        _check_pair(self)
        data = self.data
        if data.num_segments not in (1, data.num_frames):
            raise ConfigError(
                f"--num_segments ({data.num_segments}) must be 1 (a dense clip) or equal --num_frames "
                f"({data.num_frames}), one frame from each segment. Try --num_segments {data.num_frames}."
            )
        check_data(data)
        check_recomputation(self.model)

    def check_files(self) -> None:
        """The list, line by line, and that there is a teacher."""
        from umt.data.lists.reading import read_list  # here, because numpy comes with it

        if not self.data.data_path:
            raise AnnotationError("--data_path is missing. Give the list file.")
        for source in sources(self.data):
            if is_url(source.path):  # what a store has is found when it is read
                continue
            require_path(source.path)
            if os.path.isdir(source.path):
                raise AnnotationError(
                    f"--data_path ({source.path}) is a folder; pretraining takes the list itself. "
                    f"Try --data_path {os.path.join(source.path, 'train.csv')}."
                )
        for source in sources(self.data):
            read_list(
                source.path, separator=source.separator, frame_folders=not self.data.use_decord, labels_optional=True
            )
        check_prefixes(self.data)
        teacher = self.teacher
        if not teacher.clip_teacher_weights and not timm_names.is_timm(teacher.clip_teacher):  # timm downloads its own
            raise CheckpointError(
                f"--clip_teacher_weights is missing: {teacher.clip_teacher} would teach from random weights. "
                "Give the file of CLIP's weights, e.g. --clip_teacher_weights data/clip/vit_b16.pth; "
                "umt weights clip makes it."
            )

    def weights(self) -> dict[str, str]:
        """Those of the teacher, which a run needs whenever it starts."""
        source = self.teacher.clip_teacher_weights
        return {"clip_teacher_weights": source} if source else {}

    def training_rows(self) -> tuple[int | None, str]:
        """Counted in the lists, else the official size of the largest."""
        return counted([source.path for source in sources(self.data)], self.data.data_set)

    def facts(self, rows: str) -> dict[str, str]:
        """Student, teacher, mask and data."""
        teacher, (_, h, w) = self.teacher, self.grid
        unnamed = "timm's own, downloaded" if timm_names.is_timm(teacher.clip_teacher) else "none"
        source = there(teacher.clip_teacher_weights) if teacher.clip_teacher_weights else unnamed
        return {
            **model_facts(self.model, self.sizes, self.data.num_frames),
            "teacher": f"{teacher.clip_teacher} at {teacher.clip_input_resolution} px, last "
            f"{teacher.clip_return_layer} layers, {teacher.clip_loss_type} loss, weights {source}",
            "mask": f"{teacher.mask_type} {teacher.mask_ratio:g}: {self.visible} of {h * w} tokens a frame visible",
            **data_facts(self.data, listed([source.path for source in sources(self.data)]), rows),
        }

    def derived(self) -> dict[str, Any]:
        """Token grid, and how many tokens of a frame are visible."""
        return {"grid": self.grid, "visible": self.visible}

    def build(self, place: Place, start: Start | None = None) -> Parts:
        """Student, teacher and their clips; see `umt.tasks.distill.data`."""
        from umt.tasks.distill.data import build_parts

        return build_parts(self, place)


class TeacherSizes(NamedTuple):
    """Of a teacher; None where only the library that has it can tell, which is asked when the run starts."""

    patch: int | None
    output: int | None
    depth: int | None


def teacher_sizes(name: str) -> TeacherSizes:
    """What is known of --clip_teacher without torch: all of a CLIP, and the patch that a name of timm's gives away."""
    if timm_names.is_timm(name):
        return TeacherSizes(timm_names.patch_size(name), None, None)
    sizes = spec("clip_teacher", name, "teacher")
    return TeacherSizes(sizes.patch_size, sizes.output_dim, sizes.depth)


def _check_pair(recipe: DistillRecipe) -> None:
    model, asked = recipe.model, recipe.teacher
    student, teacher = recipe.sizes, teacher_sizes(asked.clip_teacher)
    grid, resolution = recipe.grid, asked.clip_input_resolution
    if teacher.patch is not None:
        check_divides("clip_input_resolution", resolution, teacher.patch, f"the patch of {asked.clip_teacher}")
        side = resolution // teacher.patch
        if side != grid[1]:
            raise ConfigError(
                f"--clip_input_resolution ({resolution}) gives {asked.clip_teacher} {side} x {side} tokens a frame, "
                f"but --input_size ({model.input_size}) gives the student {grid[1]} x {grid[2]}. "
                f"Try --clip_input_resolution {grid[1] * teacher.patch}."
            )
    if model.tubelet_size != 1:
        raise ConfigError(
            f"--tubelet_size ({model.tubelet_size}) must be 1: the image teacher has tokens for every frame. "
            f"Try --tubelet_size 1."
        )
    for flag, value, width, whose in (
        ("clip_decoder_embed_dim", model.clip_decoder_embed_dim, student.width, f"the width of {model.model}"),
        ("clip_output_dim", model.clip_output_dim, teacher.output, f"the output of {asked.clip_teacher}"),
    ):
        if None not in (value, width) and value != width:
            raise ConfigError(f"--{flag} ({value}) must be {width}, {whose}. Leave it out or give --{flag} {width}.")
    for flag, interval, depth in (
        ("clip_student_return_interval", model.clip_student_return_interval, student.depth),
        ("clip_return_interval", asked.clip_return_interval, teacher.depth),
    ):
        reach = int((asked.clip_return_layer - 1) * interval) + 1
        if depth is not None and reach > depth:
            raise ConfigError(
                f"--clip_return_layer ({asked.clip_return_layer}) with --{flag} ({interval:g}) reaches {reach} "
                f"blocks back, but there are {depth}. Try --clip_return_layer {int((depth - 1) / interval) + 1}."
            )
