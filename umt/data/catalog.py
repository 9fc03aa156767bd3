"""What is known of each `--data_set`: classes, sampling, flips, lists, sizes, label order. A new one is one entry.

No torch and no numpy here: a recipe resolves from this in a fraction of a second.

Sizes are those of the published training lists. Copies of the data are smaller (videos vanish), so they serve only to
count steps where the list is not at hand. Sources: Kinetics-400 246,535 (official train list), Kinetics-600 370,582
and Kinetics-700 542,352 (original lists as FiftyOne's dataset zoo counts them, the latter the 2020 edition),
Kinetics-710 658,340 (UniFormerV2, https://arxiv.org/abs/2211.09552, which merged it), Moments in Time V1 802,264
(https://arxiv.org/abs/1801.03150), Something-Something V2 168,913 (its official list), UCF101 9,537 and HMDB51 3,570
(split 1 of each).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from umt.data import labels
from umt.errors import ConfigError

Sampling = Literal["sparse", "dense", "ssv2"]  # keys of `umt.data.sampling.LAWS`
SAMPLINGS: tuple[Sampling, ...] = get_args(Sampling)


@dataclass(frozen=True)
class DatasetSpec:
    """One data set. `classes` None: `--nb_classes` decides."""

    name: str
    sampling: Sampling
    classes: int | None = None
    flip_keeps_label: bool = True
    lists: Literal["csv", "folders"] = "csv"
    separator: str = " "  # of the lists as commonly published: a hint for messages, the flag decides
    train_sizes: dict[int, int] = field(default_factory=dict)  # classes -> training videos
    label_orders: dict[int, str] = field(default_factory=dict)  # classes -> order, a file of umt/data/labels

    @property
    def is_kinetics(self) -> bool:
        """Whether its classes are those of Kinetics-400, -600, -700 or -710."""
        return self.label_orders is labels.KINETICS

    def class_names(self, classes: int) -> tuple[str, ...] | None:
        """Names in label order, that of the published weights; None for classes that no published weights have."""
        order = self.label_orders.get(classes)
        return None if order is None else labels.names_of(order)


_KINETICS_SIZES = {400: 246_535, 600: 370_582, 700: 542_352, 710: 658_340}

CATALOG: dict[str, DatasetSpec] = {
    spec.name: spec
    for spec in (
        DatasetSpec(
            "Kinetics_sparse", "sparse", separator=",", train_sizes=_KINETICS_SIZES, label_orders=labels.KINETICS
        ),
        DatasetSpec("Kinetics", "dense", separator=",", train_sizes=_KINETICS_SIZES, label_orders=labels.KINETICS),
        # "Moving something from left to right" mirrored is another class.
        DatasetSpec(
            "SSV2", "ssv2", 174, flip_keeps_label=False, train_sizes={174: 168_913}, label_orders={174: "ssv2"}
        ),
        DatasetSpec("mitv1_sparse", "sparse", 339, train_sizes={339: 802_264}, label_orders={339: "mitv1"}),
        DatasetSpec("UCF101", "dense", 101, train_sizes={101: 9_537}, label_orders={101: "ucf101"}),
        DatasetSpec("HMDB51", "dense", 51, train_sizes={51: 3_570}, label_orders={51: "hmdb51"}),
        # The user's own videos, as a folder per class or as lists, which may name the classes: sampled sparsely, as in
        # the published finetuning.
        DatasetSpec("image_folder", "sparse", lists="folders"),
        DatasetSpec("video_list", "sparse", separator=","),
    )
}


def get(name: str) -> DatasetSpec:
    """The entry of `--data_set name`. Raises `ConfigError` naming those that exist."""
    try:
        return CATALOG[name]
    except KeyError:
        raise ConfigError(f"--data_set ({name}) is not known. Choose one of {', '.join(CATALOG)}.") from None


OWN = ("image_folder", "video_list")


def sampled_as(sampling: Sampling) -> str:
    """The first `--data_set` that is sampled so: for weights that name their sampling, and no data set."""
    return next(spec.name for spec in CATALOG.values() if spec.sampling == sampling)


def official_size(name: str, classes: int | None = None) -> int | None:
    """Videos in the published training list of `--data_set name`; None where there is no such list.

    Without `classes` (pretraining has none) it is the largest list, for Kinetics that of Kinetics-710.
    """
    sizes = get(name).train_sizes
    return sizes.get(max(sizes, default=0) if classes is None else classes)


def k710_head_rows(classes: int, names: Sequence[str] | None = None) -> list[int] | None:
    """Rows of a 710-class head that serve the classes of another Kinetics set, in label order; None: no such map.

    `names`: the classes in label order, where it is another than that of the published weights. In theirs the 400
    classes of `k400_umt.txt` are rows 0 to 399 as they stand.
    """
    order = labels.KINETICS.get(classes)
    if order == "k710" and (names is None or labels.order_of(names) == order):
        return list(range(710))
    rows = labels.k710_index().get(order or "")
    if rows is None or names is None:
        return None if rows is None else list(rows)
    numbers = labels.numbers(str(order))
    mapped = [numbers.get(labels.plain(name), -1) for name in names]
    return [rows[label] for label in mapped] if sorted(mapped) == list(range(classes)) else None
