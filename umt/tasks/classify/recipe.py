"""A finetuning run: which flags exist and what they must satisfy. checks.py holds values against each other."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from umt.data import catalog
from umt.data.labels.label_order import agreed, of_list
from umt.flags.flag_groups import Choice
from umt.flags.legacy import COMMON, DEAD_TOO
from umt.flags.loading import LoadingConfig
from umt.flags.run import CheckpointConfig, EvalConfig, ParallelConfig, RuntimeConfig
from umt.models.specs import ModelSpec
from umt.tasks.base import Parts, Place, Recipe, Start
from umt.tasks.classify import checks, lists, own_data
from umt.tasks.classify.flags import ClassifierConfig, FinetuneAugmentConfig, FinetuneDataConfig, FinetuneOptimConfig
from umt.tasks.video.model_facts import data_facts, listed, model_facts, spec, there, token_grid
from umt.tasks.video.sources import counted, sources


@dataclass(frozen=True)
class ClassifyRecipe(Recipe):
    """A finetuning run: a classifier is trained, validated and tested."""

    command: ClassVar[str] = "finetune"
    kind: ClassVar[str] = "umt.tasks.classify.kind:KIND"
    variables: ClassVar[Mapping[str, str]] = {"finetune": "MODEL_PATH"}
    legacy: ClassVar[Mapping[str, str]] = {
        **COMMON,
        "color_jitter": DEAD_TOO + "; --aa holds the colour operations",
        "crop_pct": DEAD_TOO,
        "resplit": DEAD_TOO,
        "eval_data_path": DEAD_TOO + "; --data_path holds train.csv, val.csv and test.csv",
        "num_segments": "the data set decides how frames are sampled, --num_frames how many",
        "dist_eval": "validation and test are always shared by all processes, and every view counts once",
        "model_ema_force_cpu": "the moving average lives where the model does",
    }

    model: ClassifierConfig = field(default_factory=ClassifierConfig)
    data: FinetuneDataConfig = field(default_factory=FinetuneDataConfig)
    loading: LoadingConfig = field(default_factory=LoadingConfig)
    augment: FinetuneAugmentConfig = field(default_factory=FinetuneAugmentConfig)
    optim: FinetuneOptimConfig = field(default_factory=FinetuneOptimConfig)
    evaluation: EvalConfig = field(default_factory=EvalConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    choices: tuple[Choice, ...] = ()

    @classmethod
    def complete(cls, values: dict[str, Any], world_size: int) -> tuple[dict[str, Any], tuple[Choice, ...]]:
        """For the user's own data, every value that was not given is chosen by what is found (docs/own_dataset.md)."""
        return own_data.complete(values, world_size=world_size) if own_data.asked_for(values) else (values, ())

    @property
    def only_tests(self) -> bool:
        """--eval."""
        return self.evaluation.eval

    @property
    def tests_best(self) -> bool:
        """--test_best."""
        return self.evaluation.test_best

    @property
    def copies(self) -> int:
        """--num_sample."""
        return self.data.num_sample

    @property
    def sizes(self) -> ModelSpec:
        """Of the classifier."""
        return spec("model", self.model.model, "classifier")

    @property
    def grid(self) -> tuple[int, int, int]:
        """(T', H', W') tokens of a clip."""
        return token_grid(self.model, self.data.num_frames, self.sizes.patch_size)

    @property
    def mixes(self) -> bool:
        """Whether clips are mixed in pairs."""
        augment = self.augment
        return augment.mixup > 0 or augment.cutmix > 0 or augment.cutmix_minmax is not None

    @property
    def is_own(self) -> bool:
        """Whether the videos are the user's own, for which no number is published."""
        return self.data.data_set in catalog.OWN

    def check(self) -> None:
        """Model, mixing, views, classes and data."""
        checks.check(self)

    def check_files(self) -> None:
        """Lists and their lines, classes, and the size of published weights."""
        checks.check_files(self)

    def weights(self) -> dict[str, str]:
        """--finetune."""
        return {"finetune": self.model.finetune} if self.model.finetune else {}

    def initial_weights(self) -> str:
        """A run that goes on has the weights of its checkpoint."""
        return "finetune"

    def training_rows(self) -> tuple[int | None, str]:
        """Counted in the lists or class folders, else the official size."""
        data = self.data
        given = [source.path for source in sources(data)]
        if given[0] and all(map(os.path.isdir, given)):
            if data.data_set == "video_list" or data.shots is not None:
                rows = [lists.read_split(self, "train", source) for source in sources(data)]
                return sum(map(len, rows)), rows[0].note.rstrip(".") or f"counted in {' and '.join(given)}"
            if catalog.get(data.data_set).lists == "folders":
                from umt.data.lists.class_folders import read_folders  # numpy takes half of a dry run

                return sum(
                    len(read_folders(path, split="train")) for path in given
                ), f"counted in {' and '.join(given)}"
        return counted(lists.training_files(self), data.data_set, data.nb_classes)

    def facts(self, rows: str) -> dict[str, str]:
        """Model and what it starts from, data and classes, views."""
        model, data, evaluation = self.model, self.data, self.evaluation
        start = there(model.finetune) if model.finetune else "random weights"
        facts = model_facts(model, self.sizes, data.num_frames)
        facts["start from"] = start + (", with a new head" if model.delete_head else "")
        if model.freeze_blocks:
            alone = ": the head alone is trained" if model.freeze_blocks == self.sizes.depth else ""
            facts["frozen"] = f"the embedding and the first {model.freeze_blocks} of {self.sizes.depth} blocks{alone}"
        if catalog.get(data.data_set).lists == "folders":
            where = ", ".join(f"the class folders of {there(source.path)}" for source in sources(data))
        else:
            where = listed([path for path, _ in lists.list_files(self)])
        facts |= data_facts(data, where, rows)
        facts["data"] += f", {data.nb_classes} classes" + ", several a video" * data.multi_label
        if data.class_weights != "none":
            facts["weighted"] = f"classes count in the loss by {data.class_weights}"
        order = agreed(
            [
                of_list(source.path, data_set=data.data_set, classes=data.nb_classes, flag=data.label_order)
                for source in sources(data)
            ]
        )
        if order.names is not None:
            facts["labels"] = str(order)
        clips, crops = evaluation.test_num_segment, evaluation.test_num_crop
        facts["views"] = f"{clips} clips x {crops} crops = {clips * crops}"
        return facts

    def derived(self) -> dict[str, Any]:
        """Token grid."""
        return {"grid": self.grid, "visible": None}

    def remarks(self) -> list[str]:
        """For the user's own videos: how many each class has."""
        if not self.choices:
            return []
        from umt.data.lists.balance import balance_of

        rows = lists.read_split(self, "train", sources(self.data)[0])
        return balance_of(rows, self.data.nb_classes).lines()

    def warning(self) -> str:
        """What the chosen values cannot make good."""
        return "" if self.model.finetune or self.evaluation.eval else own_data.RANDOM_START

    def build(self, place: Place, start: Start | None = None) -> Parts:
        """Classifier, loss and clips; see `umt.tasks.classify.build`."""
        from umt.tasks.classify.build import build_parts

        return build_parts(self, place, start)
