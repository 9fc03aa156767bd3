"""What the classes of a head are called. Names are told, by a checkpoint or a person, and never guessed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from umt.data import labels as orders
from umt.errors import ConfigError


def how(classes: int) -> str:
    """What to do about `classes` classes without names."""
    fits = [order for order in orders.ORDERS if len(orders.names_of(order)) == classes]
    known = f"{' or '.join(fits)}, whichever they are, or " if fits else ""
    return f"Name them: labels= (--labels) takes {known}a file with a name a line."


def class_names(
    source: str, classes: int, told: Sequence[str] | None, wanted: str | Path | Sequence[str] | None
) -> tuple[str, ...] | None:
    """Names of the `classes` rows of the head of `source`; None where nobody says them.

    `told`: by the checkpoint. `wanted`: by the caller, an order of `umt.data.labels.ORDERS`, a file, or the names.
    Raises ConfigError for another number of names, and where both are published orders of the same size but differ.
    """
    if wanted is None:
        return None if told is None else tuple(told)
    if isinstance(wanted, str | Path):
        says, names = f"labels ({wanted})", _read(str(wanted))
    else:
        says, names = "labels", tuple(str(name) for name in wanted)
    if len(names) != classes:
        fits = [order for order in orders.ORDERS if len(orders.names_of(order)) == classes]
        hint = f"Of that size are {', '.join(fits)}." if fits else "Give the names that it was trained with."
        raise ConfigError(f"{says} names {len(names)} classes, but {source} has {classes}. {hint}")
    if told is not None and {orders.order_of(told), orders.order_of(names)} == {"k400", "k400_umt"}:
        raise ConfigError(
            f"{says} is {orders.ORDERS[str(orders.order_of(names))]}, but {source} says that it speaks "
            f"{orders.ORDERS[str(orders.order_of(told))]}. Leave labels out."
        )
    return names


def numbered(classes: int) -> tuple[str, ...]:
    """`class 0`, `class 1`, ...: what stands where there are no names."""
    return tuple(f"class {number}" for number in range(classes))


def _read(wanted: str) -> tuple[str, ...]:
    if wanted in orders.ORDERS:
        return orders.names_of(wanted)
    if not Path(wanted).is_file():
        raise ConfigError(f"labels ({wanted}) is neither a file nor a known order ({', '.join(orders.ORDERS)}).")
    return tuple(orders.read_names(Path(wanted)))
