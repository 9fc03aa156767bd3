"""Class names, and the orders in which lists and checkpoints number them. No torch, no numpy.

An order is just its list of names, that of class 0 first. `labels.txt` next to a list, and the key `class_names` of a
checkpoint, say which one is meant; `order_of` finds its name among those that this library knows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from pathlib import Path

from umt.data.once import once
from umt.errors import AnnotationError

FOLDER = Path(__file__).parent
LABELS_FILE = "labels.txt"  # next to a list: one class name per line, in the order of the labels
# Known orders: file -> its name in messages.
ORDERS = {
    "k400_umt": "Kinetics-400 in the published UMT order",
    "k400": "Kinetics-400 in alphabetical order",
    "k600": "Kinetics-600 in the published UMT order",
    "k700": "Kinetics-700 in the published UMT order",
    "k710": "Kinetics-710",
    "ssv2": "Something-Something V2",
    "mitv1": "Moments in Time V1",
    "ucf101": "UCF101",
    "hmdb51": "HMDB51",
}
# Classes of a Kinetics set -> the order of the published weights.
KINETICS = {400: "k400_umt", 600: "k600", 700: "k700", 710: "k710"}


@cache
def names_of(order: str) -> tuple[str, ...]:
    """Names of the order `order`, a key of `ORDERS`."""
    return tuple((FOLDER / f"{order}.txt").read_text(encoding="utf-8").splitlines())


def order_of(names: Sequence[str]) -> str | None:
    """The key of `ORDERS` whose names these are, in this order; None if there is none."""
    plain_names = [plain(name) for name in names]
    return next((order for order in ORDERS if [plain(name) for name in names_of(order)] == plain_names), None)


def same(first: Sequence[str], second: Sequence[str]) -> bool:
    """Whether both number the same classes equally; case and punctuation of names that are known here do not count."""
    order = order_of(first)
    return list(first) == list(second) or (order is not None and order == order_of(second))


@lru_cache(maxsize=100_000)
def plain(name: str) -> str:
    """The form in which class names are compared: `Petting_animal (not cat)` equals `petting animal (not cat)`."""
    return "".join(c for c in name.casefold() if c.isalnum())


@lru_cache(maxsize=1)
def k710_index() -> dict[str, list[int]]:
    """Set -> Kinetics-710 label of each of its classes; sets are k400, k400_umt, k600, k700."""
    index: dict[str, list[int]] = json.loads((FOLDER / "k710_index.json").read_text(encoding="utf-8"))
    return index


@cache
def numbers(order: str) -> dict[str, int]:
    """`plain` name -> label in `order`, including names that only official annotations have."""
    known = {plain(name): label for label, name in enumerate(names_of(order))}
    aliases = json.loads((FOLDER / "aliases.json").read_text(encoding="utf-8")).get(order, {})
    for name, ours in aliases.items():
        known.setdefault(plain(name), known[plain(ours)])
    if order == "k400_umt":  # official annotations have the names of `k400`
        for name, row in zip(names_of("k400"), k710_index()["k400"], strict=True):
            known.setdefault(plain(name), row)
    elif order == "k400":
        for name, row in zip(names_of("k400"), k710_index()["k400"], strict=True):
            known.setdefault(plain(names_of("k400_umt")[row]), known[plain(name)])
    return known


def rows_by_name(names: Sequence[str], head: Sequence[str]) -> list[int | None]:
    """For each of `names` its place in `head`, each place at most once; None where no name there is the same.

    Names compare by `plain`, and for a known order also by the names that official annotations have for its classes.
    """
    exact = {name: row for row, name in enumerate(head)}
    plainly: dict[str, int | None] = {}
    for row, name in enumerate(head):
        plainly[plain(name)] = None if plain(name) in plainly else row  # of two that are equal, only the exact name
    order = order_of(head)
    aliases = numbers(order) if order else {}
    rows: list[int | None] = []
    taken: set[int] = set()
    for name in names:
        place = exact.get(name, plainly.get(plain(name), aliases.get(plain(name))))
        rows.append(None if place in taken else place)
        taken |= set() if place is None else {place}
    return rows


def read_names(file: Path) -> tuple[str, ...]:
    """Class names of a label file, one per line. Raises AnnotationError if it is empty or names a class twice."""
    return once([str(file)], "names", lambda: _read_names(file))


def _read_names(file: Path) -> tuple[str, ...]:
    try:
        names = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise AnnotationError(f"{file} cannot be read as class names, one per line in UTF-8: {error}.") from None
    while names and not names[-1]:
        names.pop()
    if not names:
        raise AnnotationError(f"{file} is empty; it should hold one class name per line. Fill it or remove it.")
    seen: dict[str, int] = {}
    for line, name in enumerate(names, 1):
        if not name:
            raise AnnotationError(
                f"{file}:{line}: an empty line; the line number is the label, so no line may be empty."
            )
        if name in seen:
            raise AnnotationError(f"{file}:{line}: '{name}' is in line {seen[name]} too; a class has one label.")
        seen[name] = line
    return tuple(names)


def text_of(names: Iterable[str]) -> str:
    """What a label file holds."""
    return "".join(f"{name}\n" for name in names)
