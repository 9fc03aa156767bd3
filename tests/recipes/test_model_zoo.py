"""MODEL_ZOO.md against the published table and against what the scripts resolve to."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

from tests.recipes.conftest import ROOT, SCRIPTS, DryRun, rows

TEXT = (ROOT / "MODEL_ZOO.md").read_text(encoding="utf-8")
PUBLISHED = rows("published/umt_model_zoo.csv")
# Decided in MODEL_ZOO.md, where the published table contradicts itself: weights -> label and views here.
DECIDED = {
    "b16_ptk710_ftk710_ftk400_ftmitv1_f8_res384.pth": ("UMT-B/16 at 384 px", "8x3x4"),
    "l16_ptk710_ftk710_ftk400_ftmitv1_f8_res224.pth": ("UMT-L/16", "8x3x4"),
    "l16_ptk710_ftk710_ftk400_ftmitv1_f8_res384.pth": ("UMT-L/16 at 384 px", "8x3x4"),
    "b16_ptk710_ftk710_ftssv2_f8_res224.pth": ("UMT-B/16", "8x3x2"),
    "l16_ptk710_ftk710_ftssv2_f8_res224.pth": ("UMT-L/16", "8x3x2"),
}


@dataclass(frozen=True)
class Row:
    """A row of MODEL_ZOO.md that has weights: cells by column name, notes like [1] taken off, links by their text."""

    cells: dict[str, str]
    links: dict[str, str]


def zoo() -> list[Row]:
    found, header = [], []
    for line in TEXT.splitlines():
        if not line.startswith("|"):
            header = []
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not header:
            header = cells
        elif "](" in line:
            links = dict(re.findall(r"\[([^\]]+)\]\(([^)]+)\)", line))
            plain = [re.sub(r"( \[\d\])+$", "", cell) for cell in cells]
            found.append(Row(dict(zip(header, plain, strict=True)), links))
    return found


GPUS = "Recipe's GPUs"
ZOO = zoo()
PAIRS = list(zip(PUBLISHED, ZOO, strict=True))
every_row = pytest.mark.parametrize(
    ("published", "row"), PAIRS, ids=[p["checkpoint"].split("/")[-1] for p in PUBLISHED]
)


def script_of(row: Row) -> str:
    (link,) = (to for to in row.links.values() if to.endswith(".sh"))
    return link.removeprefix("exp/").removesuffix(".sh")


@every_row
def test_a_row_keeps_the_published_links(published: dict[str, str], row: Row) -> None:
    assert (row.links["weights"], row.links["log"]) == (published["checkpoint"], published["log"])
    assert f"exp/{script_of(row)}.sh" == published["script"]
    assert script_of(row) in SCRIPTS


@every_row
def test_a_row_keeps_the_published_number(published: dict[str, str], row: Row) -> None:
    assert row.cells.get("Top-1", "") == published["top1"]
    assert row.cells["Setting"] == published["setting"]


@every_row
def test_a_row_says_what_was_published_or_decided(published: dict[str, str], row: Row) -> None:
    label, views = DECIDED.get(
        published["checkpoint"].split("/")[-1],
        (published["model"].replace(" 384↑", " at 384 px"), published["frames_x_crops_x_clips"]),
    )
    assert (row.cells["Model"], row.cells.get("Views", "")) == (label, views)


@every_row
def test_a_row_is_what_its_script_runs(published: dict[str, str], row: Row, dry_runs: dict[str, DryRun]) -> None:
    facts = dry_runs[script_of(row)].facts
    assert f"(recipe: {row.cells[GPUS]} GPUs)" in facts["batch"]
    assert {"UMT-B/16": "width 768,", "UMT-L/16": "width 1024,"}[row.cells["Model"][:8]] in facts["model"]
    assert ("384 x 384" in facts["input"]) == row.cells["Model"].endswith(" at 384 px")
    if published["section"] != "Pretraining":
        frames, crops, clips = row.cells["Views"].split("x")
        assert facts["input"].startswith(f"{frames} frames ")
        assert facts["views"].startswith(f"{clips} clips x {crops} crops ")
    else:
        assert published["setting"] == f"K710 {facts['schedule'].split()[0]}e"


@every_row
def test_a_script_states_the_published_number(published: dict[str, str], row: Row) -> None:
    said = re.search(r"Published: ([\d.]+) top-1", SCRIPTS[script_of(row)].read_text(encoding="utf-8"))
    assert (said[1] if said else "") == published["top1"]


def test_every_script_has_a_row() -> None:
    assert sorted(map(script_of, ZOO)) == sorted(SCRIPTS)


def test_the_table_says_whose_results_these_are() -> None:
    assert "published results of the original weights" in " ".join(TEXT.split())
    assert "the numbers are not runs of this library" in TEXT


def test_detection_stands_as_coming() -> None:
    section = TEXT.split("## AVA v2.2 detection")[1].split("## ")[0]
    assert "Coming" in section
    assert "| UMT-B/16 | 8 | 33.5 |" in section
    assert "| UMT-L/16 | 8 | 39.8 |" in section


def test_links_into_the_repository_lead_somewhere() -> None:
    for link in re.findall(r"\]\(((?!https://)[^)#]+)", TEXT):
        assert (ROOT / link).exists(), link


def test_the_page_on_reproducing_expects_the_published_numbers() -> None:
    page = (ROOT / "docs" / "reproduce.md").read_text(encoding="utf-8")
    expected = dict(re.findall(r"^\| [^|]+ \| `(\S+)\.sh` \| ([\d.]+) \|$", page, re.MULTILINE))
    finetuned = [(published, row) for published, row in PAIRS if published["top1"]]
    assert expected == {script_of(row).removeprefix("finetuning/"): published["top1"] for published, row in finetuned}


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_page_on_reproducing_says_the_global_batch_of_a_recipe(script: str, dry_runs: dict[str, DryRun]) -> None:
    page = (ROOT / "docs" / "reproduce.md").read_text(encoding="utf-8")
    table = dict(re.findall(r"\| (\d+ x \d+) \| `--global_batch_size (\d+)` \|", page))
    said = re.match(r"(\d+) GPUs x (\d+) videos x 1 accumulated = (\d+) videos", dry_runs[script].facts["batch"])
    assert said is not None
    gpus, batch, total = said.groups()
    assert table[f"{gpus} x {batch}"] == total
