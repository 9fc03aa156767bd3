"""Cleaned lists: written beside the old ones, and good."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.tools.data.check.conftest import Check
from umt.data.lists.reading import read_list
from umt.errors import ConfigError
from umt.tools.data.check import main

THERE = ("a.mp4", "b c.mp4", "d,e.mp4", "é.mp4", "f;1.mp4", 'g"h.mp4')


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in THERE:
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def test_a_cleaned_list_lies_beside_the_old_one_and_says_what_is_gone(check: Check, folder: Path) -> None:
    old = b'\xef\xbb\xbfa.mp4,0\r\ngone.mp4,1\r\n"b c.mp4",1\r\nnonsense\r\na.mp4,0\r\nd,e.mp4,9\r\n'
    (folder / "train.csv").write_bytes(old)
    done = check(folder / "train.csv", "--prefix", folder, "--nb_classes", 2, "--fix")
    assert done.code == 1
    assert (folder / "train.csv").read_bytes() == old
    assert (folder / "train.fixed.csv").read_bytes() == b"a.mp4,0\nb c.mp4,1\n"
    assert done.report["fixed"][0]["left_out"] == {"malformed": 1, "label": 1, "missing": 1, "duplicate": 1}
    assert f"Written: {folder / 'train.fixed.csv'}, 2 rows, --split ','. Left out:" in done.text
    assert check(folder / "train.fixed.csv", "--prefix", folder, "--nb_classes", 2).code == 0


def test_the_lists_of_a_folder_are_cleaned_into_a_folder_that_a_run_takes(check: Check, folder: Path) -> None:
    (folder / "train.csv").write_text("a.mp4,0\nb c.mp4,0\n")
    (folder / "val.csv").write_text("a.mp4,0\n")
    (folder / "labels.txt").write_text("jump\n")
    check(folder, "--prefix", folder, "--fix")
    assert (folder / "fixed" / "labels.txt").read_text() == "jump\n"
    assert (folder / "fixed" / "train.csv").read_text() == "b c.mp4,0\n"
    assert (folder / "fixed" / "val.csv").read_text() == "a.mp4,0\n"


def test_with_a_wrong_separator_the_cleaned_list_has_the_one_that_was_asked_for(check: Check, folder: Path) -> None:
    (folder / "train.csv").write_text("a.mp4,0\nb c.mp4,0\n")
    check(folder / "train.csv", "--prefix", folder, "--split", " ", "--fix")
    assert (folder / "train.fixed.csv").read_text() == "a.mp4 0\nb c.mp4 0\n"


def test_columns_that_a_header_orders_come_in_the_usual_order(check: Check, folder: Path) -> None:
    (folder / "train.csv").write_text('label,path\n3,"d,e.mp4"\n')
    check(folder / "train.csv", "--prefix", folder, "--fix")
    assert (folder / "train.fixed.csv").read_text() == "d,e.mp4,3\n"


def test_frame_folders_keep_their_numbers(check: Check, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("a 48 0\nb 48\n")
    check(tmp_path / "train.csv", "--lines_only", "--use_decord", "False", "--fix")
    assert (tmp_path / "train.fixed.csv").read_text() == "a 48 0\n"


def test_parquet_stays_parquet(check: Check, folder: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table({"path": ["a.mp4", "gone"], "label": [0, 1]}), folder / "train.parquet")
    check(folder / "train.parquet", "--prefix", folder, "--fix")
    videos = read_list(folder / "train.fixed.parquet")
    assert (len(videos), videos.path(0)) == (1, "a.mp4")


def test_a_list_of_which_nothing_is_left_is_not_written(check: Check, folder: Path) -> None:
    (folder / "train.csv").write_text("gone.mp4,0\n")
    assert "no row is left, so nothing is written" in check(folder / "train.csv", "--prefix", folder, "--fix").text
    assert not list(folder.glob("*fixed*"))


def test_a_folder_per_class_has_no_list_to_clean(folder: Path) -> None:
    (folder / "jump").mkdir()
    for name in "abc":
        (folder / "jump" / f"{name}.mp4").write_bytes(b"x")
    with pytest.raises(
        ConfigError, match="--fix writes lists next to lists, which a folder per class and a URL do not have"
    ):
        main([str(folder), "--fix", "--no_cache"])


WORDS = ["0", "1", "7", "-1", "x", "path", "label", "gone.mp4", " a.mp4", '"b c.mp4"']
FIELDS = st.sampled_from([*THERE, *WORDS, ",", ",", ";", " ", "\t", "\n", "\r\n", "\n", "\ufeff", '"'])
LINES = st.builds(
    lambda path, gap, label, end: path + gap + label + end,
    st.sampled_from([*THERE, "gone.mp4"]),
    st.sampled_from([",", " ", ", ", ";"]),
    st.sampled_from("0123"),
    st.sampled_from(["\n", "\r\n"]),
)
TEXTS = st.lists(st.one_of(LINES, LINES, FIELDS), max_size=16).map("".join)


@settings(max_examples=60, deadline=None)
@given(train=TEXTS, val=TEXTS, split=st.sampled_from([None, ",", " "]), classes=st.sampled_from([None, 3]))
@example(train="a.mp4,0\nb c.mp4,0\n", val="a.mp4,0\n", split=" ", classes=None)
def test_a_cleaned_list_passes_the_check(
    tmp_path_factory: pytest.TempPathFactory, train: str, val: str, split: str | None, classes: int | None
) -> None:
    folder = tmp_path_factory.mktemp("fixed")
    for name in THERE:
        (folder / name).write_bytes(name.encode())
    for name, text in (("train", train), ("val", val)):
        (folder / f"{name}.csv").write_text(text, encoding="utf-8", newline="")
    flags = ["--prefix", str(folder), "--no_cache", "--hash"]
    flags += ["--split", split] if split else []
    flags += ["--nb_classes", str(classes)] if classes else []
    with contextlib.redirect_stdout(io.StringIO()) as said:
        code = main([str(folder), *flags, "--fix"])
        written = sorted(map(str, (folder / "fixed").glob("*.csv")))
        if written:
            code_of_fixed = main([*written, *flags])
    assert code in (0, 1)
    assert not written or code_of_fixed == 0, said.getvalue()
