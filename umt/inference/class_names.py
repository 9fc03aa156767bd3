"""What the classes of a head are called. A checkpoint or a person says it; it is never guessed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from umt.data import labels as orders
from umt.errors import ConfigError


def how(classes: int) -> str:
    """What to do about `classes` classes without names."""
    fitting = _orders_of(classes)
    known = f"{' or '.join(fitting)} (the order of the training list), or " if fitting else ""
    return f"Name them: labels= (--labels) takes {known}a file with one name per line."


def class_names(
    source: str, classes: int, stored: Sequence[str] | None, labels: str | Path | Sequence[str] | None
) -> tuple[str, ...] | None:
    """Names of the `classes` rows of the head of `source`; None where they are not known.

    `stored`: with the weights. `labels`: by the caller, an order of `umt.data.labels.ORDERS`, a file, or the names.
    Raises ConfigError for another number of names, and where both are published orders of the same size but differ.
    """
    if labels is None:
        return None if stored is None else tuple(stored)
    if isinstance(labels, str | Path):
        where, names = f"labels ({labels})", _read(str(labels))
    else:
        where, names = "labels", tuple(str(name) for name in labels)
    if len(names) != classes:
        fitting = _orders_of(classes)
        hint = f"Of that size are {', '.join(fitting)}." if fitting else "Give the names that it was trained with."
        raise ConfigError(f"{where} names {len(names)} classes, but {source} has {classes}. {hint}")
    if stored is not None and {orders.order_of(stored), orders.order_of(names)} == {"k400", "k400_umt"}:
        raise ConfigError(
            f"{where} is {orders.ORDERS[str(orders.order_of(names))]}, but {source} says that its classes are "
            f"{orders.ORDERS[str(orders.order_of(stored))]}. Leave labels out."
        )
    return names


def numbered(classes: int) -> tuple[str, ...]:
    """`class 0`, `class 1`, ..., in place of names."""
    return tuple(f"class {number}" for number in range(classes))


def _orders_of(classes: int) -> list[str]:
    return [order for order in orders.ORDERS if len(orders.names_of(order)) == classes]


def _read(labels: str) -> tuple[str, ...]:
    if labels in orders.ORDERS:
        return orders.names_of(labels)
    if not Path(labels).is_file():
        raise ConfigError(f"labels ({labels}) is neither a file nor a known order ({', '.join(orders.ORDERS)}).")
    return tuple(orders.read_names(Path(labels)))
