"""Which order of classes a list speaks, which one a head does, and whether the two may meet. No torch.

What says it for a list, the first that does: the class folders of `image_folder`; labels.txt beside it; --label_order;
a data set that has one order only; the class folders in its paths. For a head: the names in the checkpoint, else
--head_label_order, else the number of its classes, by which the published weights are known.
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
    """Class names in the order of the labels (None: nothing says them), and what says so, for a person."""

    names: tuple[str, ...] | None
    source: str = ""
    assumed: bool = False

    def __str__(self) -> str:
        known = self.names and labels.order_of(self.names)
        return f"{labels.ORDERS[known] if known else 'an order of its own'}, by {self.source}"


@dataclass(frozen=True)
class Settled:
    """What a run numbers its classes by, and the rows of the head that it starts from (None: all of them)."""

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
        ConfigError: `flag` contradicts labels.txt, or is no order of this data set.
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
                f"{file} names {len(names)} classes, --nb_classes is {classes}. Try --nb_classes {len(names)}, or take "
                "other lists."
            )
        told = Order(names, str(file))
        if named is not None and not labels.same(names, named):
            raise ConfigError(f"--label_order {flag} contradicts {told}. Leave the flag out, or take other lists.")
    elif named is not None:
        told = Order(named, f"--label_order {flag}")
    elif not catalog.get(data_set).is_kinetics:
        told = Order(catalog.get(data_set).class_names(classes), f"--data_set {data_set}")
    else:
        told = Order(None)
    seen = None if videos is None else of_folders(videos, classes)
    if seen is None:
        return told
    folders = Order(seen, f"the class folders in {videos.source}")  # type: ignore[union-attr]
    if told.names is None:
        return folders
    if labels.order_of(told.names) is not None and not labels.same(told.names, seen):
        raise AnnotationError(f"{folders}, is at odds with {told}. Write the lists again with umt data prepare.")
    return told


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
    """The order in which labels fit the class folders of the paths (`yoga/x.mp4,399`); None if none is seen.

    Looked for are the orders that are known here, and the alphabetical ones.
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
    """The order of lists that are trained on together. Raises ConfigError where two of them number otherwise."""
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
    that the number of its classes tells their order.
    """
    if names is not None and len(names) == rows:
        return Order(tuple(names), path)
    if flag != "auto":
        return Order(_named("head_label_order", flag, data_set, rows), f"--head_label_order {flag}")
    if not may_be_published:
        return Order(None)
    if catalog.get(data_set).is_kinetics:
        order = labels.KINETICS.get(rows)
        told = "the number of its classes, as the file names none"
        return Order(labels.names_of(order), told, assumed=True) if order else Order(None)
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
    """Brings a head of `rows` classes and lists of `classes` together. Raises CheckpointError where they are at odds.

    Where both say the names of their classes, the head's rows are taken by name: in the lists' order, and only those
    that they name.

    Args:
        path: the weights, for a person.
        test: they are only tested, so a new head is no remedy.
        may_take_rows: False: the weights are loaded as they stand, so another order is at odds.
    """
    if rows == classes:
        if listed.names is None or head.names is None:
            return Settled(listed.names or head.names, None, _untold(path, listed, head))
        if labels.same(listed.names, head.names):
            return Settled(listed.names)
        if head.assumed or not may_take_rows:
            raise CheckpointError(_at_odds(path, listed, head, test=test))
        return _by_name(path, listed, head, test=test)
    own = head.names is not None and labels.order_of(head.names) != "k710"
    kinetics_710 = rows == 710 and catalog.get(data_set).is_kinetics and head.names is not None and not own
    if listed.names is not None and head.names is not None and not head.assumed and may_take_rows and not kinetics_710:
        return _by_name(path, listed, head, test=test)
    if not kinetics_710:
        return Settled(listed.names)
    names = listed.names or (labels.names_of(labels.KINETICS[classes]) if classes in labels.KINETICS else None)
    return Settled(names, catalog.k710_head_rows(classes, listed.names), _untold(path, listed, Order(names)))


def _by_name(path: str, listed: Order, head: Order, *, test: bool) -> Settled:
    """The rows of the head whose names the lists have, in the lists' order."""
    assert listed.names is not None
    assert head.names is not None
    found = labels.rows_by_name(listed.names, head.names)
    lost = [f"'{name}'" for name, row in zip(listed.names, found, strict=True) if row is None]
    if lost:
        some = ", ".join(lost[:5]) + (f" and {len(lost) - 5} more" if len(lost) > 5 else "")
        remedy = "Test on lists of its classes." if test else "Give --delete_head for a new head."
        raise CheckpointError(
            f"The head of {path} has no class {some}, of the {len(found)} that the lists have ({listed}); its own are "
            f"{len(head.names)} ({head}). {remedy}"
        )
    rows = [row for row in found if row is not None]
    if len(rows) == len(head.names):
        done = f"numbers its {len(rows)} classes otherwise than the lists: its rows are put in their order, by name"
    else:
        done = f"has {len(head.names)} classes, of which the lists have {len(rows)}: their rows are taken, by name"
    return Settled(listed.names, rows, note=f"The head of {path} {done}.")


def _untold(path: str, listed: Order, head: Order) -> str:
    if listed.names is not None and head.names is None:
        return (
            f"Nothing says in which order the head of {path} numbers its {len(listed.names)} classes: they are taken "
            f"to follow the lists ({listed})."
        )
    known = None if head.names is None else labels.order_of(head.names)
    if listed.names is not None or known not in labels.KINETICS.values():
        return ""
    more = ", or --label_order" if known == "k400_umt" else ""
    return (
        f"Nothing says in which order the lists number their {len(head.names or ())} classes: they are taken to follow "
        f"the weights, {labels.ORDERS[str(known)]}. Other lists are often alphabetical: check it; labels.txt beside "
        f"them says it{more}."
    )


def _at_odds(path: str, listed: Order, head: Order, *, test: bool) -> str:
    assert listed.names is not None
    assert head.names is not None
    first = next(i for i, (a, b) in enumerate(zip(head.names, listed.names, strict=True)) if a != b)
    remedies = ["Give lists in the order of the weights"]
    if {labels.order_of(listed.names), labels.order_of(head.names)} == {"k400", "k400_umt"}:
        wanted, other = ("alphabetical", "umt") if labels.order_of(head.names) == "k400" else ("umt", "alphabetical")
        remedies = [f"Write the lists with umt data prepare k400 --label_order {wanted}"]
        remedies += [f"give --head_label_order {other} if the weights speak that order"] if head.assumed else []
    remedies += [] if test else ["--delete_head for a new head"]
    return (
        f"The labels of the lists and the head of {path} are at odds: class {first} is '{listed.names[first]}' in the "
        f"lists ({listed}) and '{head.names[first]}' in the head ({head}). {', or '.join(remedies)}."
    )
