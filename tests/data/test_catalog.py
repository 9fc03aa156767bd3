"""The catalogue: facts of the data sets."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from umt.data import catalog, labels
from umt.errors import ConfigError

GOLDEN = Path(__file__).parents[1] / "golden" / "umt"


@pytest.mark.parametrize("spec", catalog.CATALOG.values(), ids=lambda s: s.name)
def test_every_label_order_has_one_name_per_class(spec: catalog.DatasetSpec) -> None:
    for classes in spec.label_orders:
        names = spec.class_names(classes)
        assert names is not None
        assert len(names) == len(set(names)) == classes


def test_flips_keep_the_label_everywhere_but_in_ssv2() -> None:
    assert [s.name for s in catalog.CATALOG.values() if not s.flip_keeps_label] == ["SSV2"]


def test_an_unknown_data_set_names_the_known_ones() -> None:
    with pytest.raises(
        ConfigError, match=r"--data_set \(Kinetic\) is not known. Choose one of Kinetics_sparse, .*SSV2"
    ):
        catalog.get("Kinetic")


def test_a_710_class_head_serves_umt_k400_by_its_first_400_rows() -> None:
    assert catalog.k710_head_rows(400) == list(range(400))


def test_a_710_class_head_serves_k710_unchanged() -> None:
    assert catalog.k710_head_rows(710) == list(range(710))


@pytest.mark.parametrize("classes", [600, 700])
def test_head_rows_lead_to_the_same_class_where_both_editions_name_it_alike(classes: int) -> None:
    spec = catalog.get("Kinetics")
    names, all_names, rows = spec.class_names(classes), spec.class_names(710), catalog.k710_head_rows(classes)
    assert names is not None
    assert all_names is not None
    assert rows is not None
    assert len(set(rows)) == classes
    shared = [(name, all_names[row]) for name, row in zip(names, rows, strict=True) if name in all_names]
    assert len(shared) > 0.9 * classes
    assert all(name == mapped for name, mapped in shared)


@pytest.mark.parametrize("order", ["k400", "k600", "k700"])
def test_a_710_class_head_serves_the_official_classes_in_any_order(order: str) -> None:
    names = sorted(labels.names_of(order), reverse=True)
    rows = catalog.k710_head_rows(len(names), names)
    assert rows is not None
    published = dict(zip(labels.names_of(order), labels.k710_index()[order], strict=True))
    assert rows == [published[name] for name in names]


def test_a_710_class_head_has_no_rows_for_other_classes() -> None:
    names = ["my class", *labels.names_of("k600")[1:]]
    assert catalog.k710_head_rows(600, names) is None
    assert catalog.k710_head_rows(600, [names[1], *names[1:]]) is None


def test_other_class_counts_have_no_head_map() -> None:
    assert catalog.k710_head_rows(339) is None


def test_pretraining_counts_kinetics_710() -> None:
    assert catalog.official_size("Kinetics_sparse") == catalog.official_size("Kinetics_sparse", 710)
    assert catalog.official_size("image_folder") is None


def test_the_golden_head_map_is_the_packages() -> None:
    facts = json.loads((GOLDEN / "heads_k710.json").read_text())
    assert facts["k400"].startswith("rows 0..399")


@pytest.mark.parametrize("module", ["umt.data.catalog", "umt.data.lists.reading"])
def test_facts_and_lists_need_no_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit(any(m in sys.modules for m in ('torch', 'pandas', 'av', 'cv2')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
