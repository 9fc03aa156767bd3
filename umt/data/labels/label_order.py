"""In which order a list numbers its classes, in which order a head does, and whether the two fit. No torch.

For a list the first of these decides: the class folders of `image_folder`; labels.txt next to it; --label_order; a data
set that has only one order; the class folders in its paths. For a head: the names in the checkpoint, else
--head_label_order, else the number of its classes, as for the published weights.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from umt.data import catalog, labels
from umt.errors import AnnotationError, CheckpointError, ConfigError

if TYPE_CHECKING:
    from umt.data.lists.video_list import VideoList

_SAMPLE = 2000  # rows whose folders are looked at
_ENOUGH = 5  # of them with a known class, for a judgement


@dataclass(frozen=True)
class Order:
    """Class names in the order of the labels (None: not known), and where they come from, for messages."""

    names: tuple[str, ...] | None
    source: str = ""
    assumed: bool = False

    def __str__(self) -> str:
        known = self.names and labels.order_of(self.names)
        return f"{labels.ORDERS[known] if known else 'an order of its own'}, by {self.source}"


@dataclass(frozen=True)
class Settled:
    """The class names of a run, in order, and the rows of the head that it starts from (None: all of them)."""

    names: tuple[str, ...] | None = None
    head_rows: list[int] | None = None
    warning: str = ""
    note: str = ""  # for the log: what was done to the head


# ---- a list


def of_list(
    data_path: str, *, data_set: str, classes: int, flag: str = "auto", videos: VideoList | None = None
) -> Order:
    """The order of the lists of --data_path. `flag`: --label_order; `videos`: one of the lists, if it was read.

    Raises:
        AnnotationError: labels.txt has another number of classes, or contradicts the class folders in the paths.
        ConfigError: `flag` contradicts labels.txt, or is not an order of this data set.
    """
    if videos is not None and videos.class_names is not None:
        what = "class folders of" if catalog.get(data_set).lists == "folders" else "names in the lists of"
        return Order(tuple(videos.class_names), f"the {what} {data_path}")
    named = _named("label_order", flag, data_set, classes)
    file = Path(data_path) / labels.LABELS_FILE
    if data_path and catalog.get(data_set).lists == "csv" and file.is_file():
        names = labels.read_names(file)
        if len(names) != classes:
            raise AnnotationError(
                f"{file} names {len(names)} classes, --nb_classes is {classes}. Try --nb_classes {len(names)}, or "
                "other lists."
            )
        stated = Order(names, str(file))
        if named is not None and not labels.same(names, named):
            raise ConfigError(f"--label_order {flag} contradicts {stated}. Leave the flag out, or give other lists.")
    elif named is not None:
        stated = Order(named, f"--label_order {flag}")
    elif not catalog.get(data_set).is_kinetics:
        stated = Order(catalog.get(data_set).class_names(classes), f"--data_set {data_set}")
    else:
        stated = Order(None)
    seen = None if videos is None else of_folders(videos, classes)
    if videos is None or seen is None:
        return stated
    folders = Order(seen, f"the class folders in {videos.source}")
    if stated.names is None:
        return folders
    if labels.order_of(stated.names) is not None and not labels.same(stated.names, seen):
        raise AnnotationError(f"{folders}, contradicts {stated}. Write the lists again with umt data prepare.")
    return stated


def _named(flag: str, value: str, data_set: str, classes: int) -> tuple[str, ...] | None:
    """The names that --label_order or --head_label_order stands for."""
    if value == "auto":
        return None
    order = "k400" if value == "alphabetical" and classes == 400 else labels.KINETICS.get(classes)
    if not catalog.get(data_set).is_kinetics or order is None or (value == "alphabetical" and classes != 400):
        raise ConfigError(
            f"--{flag} {value} is for Kinetics-400, which has two orders, not for --data_set {data_set} with {classes} "
            "classes. Leave the flag out."
        )
    return labels.names_of(order)


def of_folders(videos: VideoList, classes: int) -> tuple[str, ...] | None:
    """The order in which labels fit the class folders of the paths (`yoga/x.mp4,399`); None if none fits.

    Of the orders that are known here, and the alphabetical ones.
    """
    step = max(len(videos) // _SAMPLE, 1)
    seen = [(labels.plain(os.path.basename(os.path.dirname(videos.path(row)))), int(videos.labels[row]))
            for row in range(0, len(videos), step)]  # fmt: skip
    for order in labels.ORDERS:
        names = labels.names_of(order)
        if len(names) != classes:
            continue
        for candidate in (names, tuple(sorted(names))):
            place = {name: i for i, name in enumerate(candidate)}
            numbers = {plain: place[names[label]] for plain, label in labels.numbers(order).items()}
            known = [numbers[name] == label for name, label in seen if name in numbers]
            if len(known) >= max(_ENOUGH, len(seen) // 2) and sum(known) >= 0.9 * len(known):
                return candidate
    return None


def agreed(orders: Sequence[Order]) -> Order:
    """The order of lists that are trained on together. Raises ConfigError where two of them differ."""
    known = [order for order in orders if order.names is not None]
    for order in known[1:]:
        if not labels.same(known[0].names or (), order.names or ()):
            raise ConfigError(
                f"--data_path mixes lists that number their classes differently: {known[0]}, and {order}. Bring them "
                "into one order first, with umt data prepare."
            )
    return known[0] if known else Order(None)


# ---- a head


def of_head(
    path: str,
    rows: int,
    names: Sequence[str] | None,
    *,
    data_set: str,
    flag: str = "auto",
    may_be_published: bool = True,
) -> Order:
    """The order of a head of `rows` classes.

    `names`: those that its file holds; `flag`: --head_label_order; `may_be_published`: it looks like the original's, so
    the number of its classes decides.
    """
    if names is not None and len(names) == rows:
        return Order(tuple(names), path)
    if flag != "auto":
        return Order(_named("head_label_order", flag, data_set, rows), f"--head_label_order {flag}")
    if not may_be_published:
        return Order(None)
    if catalog.get(data_set).is_kinetics:
        order = labels.KINETICS.get(rows)
        source = "the number of its classes, as the file names none"
        return Order(labels.names_of(order), source, assumed=True) if order else Order(None)
    return Order(catalog.get(data_set).class_names(rows), f"--data_set {data_set}", assumed=True)


def settle(
    path: str,
    listed: Order,
    head: Order,
    *,
    rows: int,
    classes: int,
    data_set: str,
    test: bool,
    may_take_rows: bool = True,
) -> Settled:
    """Fits a head of `rows` classes to lists of `classes`. Raises CheckpointError where they contradict each other.

    Where both name their classes, the head's rows are taken by name: in the lists' order, and only those in the lists.

    Args:
        path: the weights, for messages.
        test: they are only tested, so a new head is not a remedy.
        may_take_rows: False: the weights are loaded as they are, so another order is a contradiction.
    """
    if rows == classes:
        if listed.names is None or head.names is None:
            return Settled(listed.names or head.names, None, _order_unknown(path, listed, head))
        if labels.same(listed.names, head.names):
            return Settled(listed.names)
        if head.assumed or not may_take_rows:
            raise CheckpointError(_contradiction(path, listed, head, test=test))
        return _by_name(path, listed, head, test=test)
    is_k710 = head.names is not None and labels.order_of(head.names) == "k710"
    kinetics_710 = rows == 710 and catalog.get(data_set).is_kinetics and is_k710
    if listed.names is not None and head.names is not None and not head.assumed and may_take_rows and not kinetics_710:
        return _by_name(path, listed, head, test=test)
    if not kinetics_710:
        return Settled(listed.names)
    names = listed.names or (labels.names_of(labels.KINETICS[classes]) if classes in labels.KINETICS else None)
    return Settled(names, catalog.k710_head_rows(classes, listed.names), _order_unknown(path, listed, Order(names)))


def _by_name(path: str, listed: Order, head: Order, *, test: bool) -> Settled:
    """The rows of the head whose names the lists have, in the lists' order."""
    assert listed.names is not None
    assert head.names is not None
    rows = labels.rows_by_name(listed.names, head.names)
    missing = [f"'{name}'" for name, row in zip(listed.names, rows, strict=True) if row is None]
    if missing:
        some = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        remedy = "Test on lists of its classes." if test else "Give --delete_head for a new head."
        raise CheckpointError(
            f"The head of {path} has no class {some}, of the {len(rows)} that the lists have ({listed}); it has "
            f"{len(head.names)} ({head}). {remedy}"
        )
    if len(rows) == len(head.names):
        what = f"numbers its {len(rows)} classes differently from the lists: its rows are put in their order, by name"
    else:
        what = f"has {len(head.names)} classes, of which the lists have {len(rows)}: their rows are taken, by name"
    return Settled(listed.names, [row for row in rows if row is not None], note=f"The head of {path} {what}.")


def _order_unknown(path: str, listed: Order, head: Order) -> str:
    if listed.names is not None and head.names is None:
        return (
            f"It is not known in which order the head of {path} numbers its {len(listed.names)} classes: it is assumed "
            f"to be that of the lists ({listed})."
        )
    known = None if head.names is None else labels.order_of(head.names)
    if listed.names is not None or known not in labels.KINETICS.values():
        return ""
    more = ", or --label_order" if known == "k400_umt" else ""
    return (
        f"It is not known in which order the lists number their {len(head.names or ())} classes: it is assumed to be "
        f"that of the weights, {labels.ORDERS[str(known)]}. Other lists are often alphabetical: check it, and state it "
        f"by labels.txt next to them{more}."
    )


def _contradiction(path: str, listed: Order, head: Order, *, test: bool) -> str:
    assert listed.names is not None
    assert head.names is not None
    first = next(i for i, (a, b) in enumerate(zip(head.names, listed.names, strict=True)) if a != b)
    remedies = ["Give lists in the order of the weights"]
    if {labels.order_of(listed.names), labels.order_of(head.names)} == {"k400", "k400_umt"}:
        order, other = ("alphabetical", "umt") if labels.order_of(head.names) == "k400" else ("umt", "alphabetical")
        remedies = [f"Write the lists with umt data prepare k400 --label_order {order}"]
        remedies += [f"give --head_label_order {other} if that is the order of the weights"] if head.assumed else []
    remedies += [] if test else ["--delete_head for a new head"]
    return (
        f"The labels of the lists contradict the head of {path}: class {first} is '{listed.names[first]}' in the "
        f"lists ({listed}) and '{head.names[first]}' in the head ({head}). {', or '.join(remedies)}."
    )
