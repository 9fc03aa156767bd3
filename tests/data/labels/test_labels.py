"""Class names and the orders they come in."""

from __future__ import annotations

from pathlib import Path

import pytest

from umt.data import labels
from umt.errors import AnnotationError


@pytest.mark.parametrize("order", labels.ORDERS)
def test_an_order_is_recognised_by_its_names(order: str) -> None:
    names = labels.names_of(order)
    assert labels.order_of(names) == order
    assert labels.order_of([name.upper().replace(" ", "_") for name in names]) == order


def test_the_two_orders_of_kinetics_400_are_not_the_same() -> None:
    assert not labels.same(labels.names_of("k400"), labels.names_of("k400_umt"))


def test_other_names_are_no_known_order() -> None:
    assert labels.order_of(["juggling", "cooking"]) is None
    assert labels.same(["c", "c++"], ["c", "c++"])
    assert not labels.same(["c", "c++"], ["c", "c#"])


def test_official_names_of_kinetics_400_lead_to_the_published_rows() -> None:
    rows = [labels.numbers("k400_umt")[labels.plain(name)] for name in labels.names_of("k400")]
    assert rows == labels.k710_index()["k400"]


@pytest.mark.parametrize("order", ["k600", "k700"])
def test_names_that_an_edition_changed_are_known(order: str) -> None:
    numbers, names = labels.numbers(order), labels.names_of(order)
    assert names[numbers[labels.plain("throwing ball (not baseball or American football)")]] == "throwing ball"
    assert names[numbers[labels.plain("archaeological excavation")]] == "archaeological excavation"


def test_every_kinetics_map_leads_to_a_row_of_the_same_name() -> None:
    all_names = labels.names_of("k710")
    for order in ("k400_umt", "k600", "k700"):
        rows = labels.k710_index()[order]
        assert [all_names[row] for row in rows] == list(labels.names_of(order))


def test_a_label_file_is_read_whatever_its_line_ends(tmp_path: Path) -> None:
    file = tmp_path / "labels.txt"
    file.write_bytes(b"\xef\xbb\xbfarm wrestling\r\nyoga\r\n\r\n")
    assert labels.read_names(file) == ("arm wrestling", "yoga")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is empty; it should hold one class name per line"),
        ("a\n\nb\n", "labels.txt:2: an empty line"),
        ("a\nb\na\n", "labels.txt:3: 'a' is in line 1 too"),
    ],
)
def test_a_label_file_that_numbers_nothing_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "labels.txt").write_text(text)
    with pytest.raises(AnnotationError, match=complaint):
        labels.read_names(tmp_path / "labels.txt")
