"""The published numbers as programs read them, against MODEL_ZOO.md and the scripts of the experiments."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from umt.data import catalog
from umt.errors import ConfigError
from umt.run.command_line import parse
from umt.tools.verify.zoo import OFFICIAL_VIDEOS, published_rows, read_zoo

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "MODEL_ZOO.md"
ROWS = published_rows()


def script_of(name: str) -> list[str]:
    """The words of the experiment whose line in MODEL_ZOO.md has these weights."""
    line = next(line for line in PAGE.read_text(encoding="utf-8").splitlines() if f"/{name}.pth)" in line)
    link = re.search(r"\((exp/[^)]+\.sh)\)", line)
    assert link is not None
    text = (ROOT / link[1]).read_text(encoding="utf-8").replace("\\\n", " ")
    return shlex.split(text[text.index("launch finetune") :])


def test_the_rows_are_those_of_the_page() -> None:
    page = read_zoo(PAGE)
    assert {name: row.top1 for name, row in page.items()} == {name: row.top1 for name, row in ROWS.items()}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_is_tested_with_the_views_of_the_page(name: str) -> None:
    assert read_zoo(PAGE)[name].flags == ROWS[name].flags


@pytest.mark.parametrize("name", ROWS)
def test_a_row_is_tested_as_its_script_tests(name: str) -> None:
    words = script_of(name)
    said = {flag: words[words.index(f"--{flag}") + 1] for flag in ROWS[name].flags}
    assert said == ROWS[name].flags


@pytest.mark.parametrize("name", ROWS)
def test_a_row_that_the_page_marks_says_what_was_decided(name: str) -> None:
    line = next(line for line in PAGE.read_text(encoding="utf-8").splitlines() if f"/{name}.pth)" in line)
    frames_16 = "16x3x4" in line  # note 5 stands for all of them
    assert bool(ROWS[name].decided) == (bool(re.search(r"\[\d\] ", line)) or frames_16)


@pytest.mark.parametrize("name", ROWS)
def test_the_flags_of_a_row_are_a_run(name: str) -> None:
    words = [word for flag, value in ROWS[name].flags.items() for word in (f"--{flag}", value)]
    config = parse("finetune", [*words, "--finetune", name, "--data_path", "lists", "--eval"], files=False)
    assert str(config.model.model) == ROWS[name].flags["model"]


def test_the_official_test_lists_are_smaller_than_the_training_lists() -> None:
    sizes = {"k400": 400, "k600": 600, "k700": 700, "k710": 710}
    for data_set, videos in OFFICIAL_VIDEOS.items():
        name = {"ssv2": "SSV2", "mitv1": "mitv1_sparse"}.get(data_set, "Kinetics_sparse")
        training = catalog.official_size(name, sizes.get(data_set) or catalog.get(name).classes)
        assert training is not None
        assert training / 25 < videos < training / 5


# ---- one's own


def test_markdown_in_the_form_of_the_page_is_a_zoo(tmp_path: Path) -> None:
    (tmp_path / "zoo.md").write_text(
        "# Ours\n\n| Model | Views | Top-1 | Videos | Flags | Weights |\n|---|---|---|---|---|---|\n"
        "| tiny | 8x3x2 [1] | 77.8 | 1 036 | `--model vit_tiny_patch8_64 --nb_classes 4` | [w](runs/a/tiny.pth) |\n"
        "| pretrained | | | | | [w](b.pth) |\n\ntext\n\n| Name | Weights | Top-1 |\n|---|---|---|\n"
        "| c | [w](checkpoint-best.pth) | 5 |\n"
    )
    rows = read_zoo(tmp_path / "zoo.md")
    assert list(rows) == ["tiny", "c"]
    assert (rows["tiny"].top1, rows["tiny"].videos, rows["tiny"].source) == (77.8, 1036, "zoo.md")
    assert rows["tiny"].flags == {
        "num_frames": "8", "test_num_crop": "3", "test_num_segment": "2", "model": "vit_tiny_patch8_64",
        "nb_classes": "4",
    }  # fmt: skip


def test_json_is_a_zoo(tmp_path: Path) -> None:
    rows = [{"name": "a", "top1": 50, "videos": 9, "flags": {"--num_frames": 4}}, {"name": "b", "top1": 1.5}]
    (tmp_path / "zoo.json").write_text(json.dumps(rows))
    found = read_zoo(tmp_path / "zoo.json")
    assert (found["a"].flags, found["a"].videos) == ({"num_frames": "4"}, 9)
    assert (found["b"].flags, found["b"].videos) == ({}, None)


def test_a_row_of_the_page_keeps_its_flags_in_a_zoo_of_ones_own(tmp_path: Path) -> None:
    name = "b16_ptk710_ftk710_ftk400_f8_res224"
    (tmp_path / "zoo.json").write_text(json.dumps([{"name": name, "top1": 86.9, "flags": {"test_num_crop": 1}}]))
    row = read_zoo(tmp_path / "zoo.json")[name]
    assert row.flags == {**ROWS[name].flags, "test_num_crop": "1"}
    assert (row.top1, row.videos) == (86.9, 19_906)


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("zoo.md", "no table", "holds no row with weights and a top-1"),
        ("zoo.json", "{", r"cannot be read as rows of a zoo"),
        ("zoo.json", '[{"name": "a"}]', r"KeyError\('top1'\)"),
        ("zoo.json", '[{"name": "a", "top1": 1}, {"name": "a", "top1": 2}]', "has two rows of a"),
        ("zoo.md", "| Weights | Top-1 | Views |\n|---|---|---|\n| [w](a.pth) | 5 | 8x3 |\n", "cannot be read as rows"),
    ],
)
def test_a_file_that_is_no_zoo_is_a_sentence(tmp_path: Path, name: str, text: str, sentence: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=sentence):
        read_zoo(tmp_path / name)


def test_a_zoo_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--zoo \(.*none\.md\) cannot be read: No such file"):
        read_zoo(tmp_path / "none.md")
