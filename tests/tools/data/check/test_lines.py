"""What a check finds in the lines of lists, without looking for files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tools.data.check.conftest import Check
from umt.data import labels
from umt.errors import AnnotationError, ConfigError
from umt.tools.data.check import main


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "train.csv"


def test_a_good_list_may_be_trained_on(check: Check, file: Path) -> None:
    file.write_text("a.mp4,0\nb.mp4,1\n")
    done = check(file, "--lines_only", "--nb_classes", 2)
    assert (done.code, done.found(), done.report["may_be_trained_on"]) == (0, [], True)
    assert "2 rows  train, separator ','" in done.text
    assert "No problems found; this list can be trained on." in done.text


@pytest.mark.parametrize("separator", [",", " ", "\t", ";", "|"])
def test_the_separator_is_found_out(check: Check, file: Path, separator: str) -> None:
    file.write_text(f"a b,c.mp4{separator}0\nb.mp4{separator}1\n")
    assert check(file, "--lines_only").found("malformed", "separator") == []


def test_the_verdict_counts_errors_and_warnings(check: Check, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("a b.mp4,0\nb.mp4,1\n")
    (tmp_path / "val.csv").write_text("c.mp4,0\n")
    warned = check(tmp_path, "--lines_only").text.splitlines()[-1]
    assert warned == "2 warnings, no errors; these lists can be trained on."
    failed = check(tmp_path / "train.csv", "--lines_only", "--nb_classes", 1).text.splitlines()[-1]
    assert failed == "1 error and 1 warning: this list cannot be trained on."


def test_a_wrong_separator_is_named_once_and_the_check_goes_on(check: Check, file: Path) -> None:
    file.write_text("a.mp4,0\nb.mp4,9\n")
    done = check(file, "--lines_only", "--split", " ", "--nb_classes", 2)
    assert done.code == 1
    assert done.found("separator", "label") == [("separator", 1, "a.mp4,0"), ("label", 2, "b.mp4")]
    assert "--split ' ' does not separate the columns, --split ',' does" in done.text


def test_lines_that_are_no_rows_are_named_each(check: Check, file: Path) -> None:
    file.write_text("a.mp4,0\nb.mp4\nc.mp4,x\nd.mp4 1\n")
    done = check(file, "--lines_only")
    assert [line for _, line, _ in done.found("malformed")] == [2, 3, 4]
    assert done.code == 1
    assert f"{file}:2" in done.text


def test_a_header_is_no_finding_and_lines_keep_their_numbers(check: Check, file: Path) -> None:
    file.write_text("label,path\n0,a.mp4\n7,b.mp4\n")
    assert check(file, "--lines_only", "--nb_classes", 2).found("malformed", "label") == [("label", 3, "b.mp4")]


def test_a_list_that_counts_from_one_is_told_so(check: Check, file: Path) -> None:
    file.write_text("a.mp4,1\nb.mp4,2\n")
    assert "1-based?" in check(file, "--lines_only", "--nb_classes", 2).detail("label")


def test_the_classes_of_a_data_set_are_known(check: Check, file: Path) -> None:
    file.write_text("a.mp4,101\n")
    assert check(file, "--lines_only", "--data_set", "UCF101").found("label") == [("label", 1, "a.mp4")]


def test_classes_without_a_sample_are_counted_and_named(check: Check, file: Path) -> None:
    file.write_text("a.mp4,0\nb.mp4,3\n")
    done = check(file, "--lines_only", "--nb_classes", 5)
    assert (done.code, done.report["counts"]) == (0, {"no_samples": 3})
    assert done.detail("no_samples") == "3 of 5: 1, 2, 4"


def test_labels_in_another_order_than_labels_txt_says_are_an_error(check: Check, tmp_path: Path) -> None:
    names = labels.names_of("k400_umt")
    rows = [f"{name}/{i}.mp4,{label}\n" for label, name in enumerate(names) for i in range(2)]
    (tmp_path / "train.csv").write_text("".join(rows))
    words = (tmp_path / "train.csv", "--lines_only", "--data_set", "Kinetics_sparse", "--nb_classes", 400)
    assert check(*words).code == 0
    wrong = check(*words, "--label_order", "alphabetical")
    assert (wrong.code, wrong.found("label_order")) == (1, [("label_order", 0, "")])


def test_a_pretraining_list_needs_no_labels(check: Check, file: Path) -> None:
    file.write_text("a\nb\n")
    assert check(file, "--lines_only", "--pretrain").found() == []
    assert check(file, "--lines_only").code == 1


def test_what_other_readers_stumble_over_is_a_warning_with_its_line(check: Check, file: Path) -> None:
    file.write_bytes('\ufeffa.mp4,0\r\n"b.mp4",0\r\nc d.mp4,0\r\né.mp4,0\r\ne.mp4, 0\r\nf.mp4,0 \r\n'.encode())
    done = check(file, "--lines_only")
    assert done.code == 0
    spaces = [("spaces", 3, "c d.mp4"), ("spaces", 5, "e.mp4"), ("spaces", 6, "")]
    others = [("bom", 1, ""), ("line_ends", 1, ""), ("quotes", 2, "b.mp4"), ("non_ascii", 4, "é.mp4")]
    assert sorted(done.found()) == sorted([*spaces, *others])
    assert done.detail("line_ends") == "on every line"


def test_what_every_line_has_is_told_of_the_first_thousand_and_counted_for_the_others(check: Check, file: Path) -> None:
    file.write_text("".join(f"a {i}.mp4,0\n" for i in range(1500)))
    done = check(file, "--lines_only")
    assert (len(done.found("spaces")), done.report["counts"]) == (1001, {"spaces": 1500})
    assert done.report["findings"][-1]["detail"] == "on 500 further lines"


def test_mixed_line_ends_are_counted(check: Check, file: Path) -> None:
    file.write_bytes(b"a.mp4,0\nb.mp4,0\r\nc.mp4,0\n")
    done = check(file, "--lines_only")
    assert (done.found(), done.detail("line_ends")) == ([("line_ends", 2, "")], "on 1 of 3 lines")


def test_a_path_that_comes_twice_is_a_warning_and_with_two_labels_an_error(check: Check, file: Path) -> None:
    file.write_text("a.mp4,0\nx/../b.mp4,1\na.mp4,0\nb.mp4,0\n")
    done = check(file, "--lines_only")
    assert done.found() == [("duplicate", 3, "a.mp4"), ("two_labels", 2, "x/../b.mp4"), ("two_labels", 4, "b.mp4")]
    assert done.detail("duplicate") == "also train.csv:1"
    assert done.detail("two_labels") == "1 here, 0 in train.csv:4"


def test_a_training_video_that_is_held_out_is_an_error_and_test_may_repeat_validation(
    check: Check, tmp_path: Path
) -> None:
    for split, text in {"train": "a.mp4,0\nb.mp4,0\n", "val": "b.mp4,0\nc.mp4,0\n", "test": "c.mp4,0\n"}.items():
        (tmp_path / f"{split}.csv").write_text(text)
    done = check(tmp_path, "--lines_only")
    assert (done.code, done.found()) == (1, [("leaked", 2, "b.mp4")])
    assert done.detail("leaked") == "also val.csv:1"


def test_what_is_no_text_is_a_finding_and_other_lists_are_checked_all_the_same(check: Check, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_bytes(b"\xff\xfea\x00")
    (tmp_path / "val.csv").write_text("a.mp4,0\na.mp4,0\n")
    done = check(tmp_path, "--lines_only")
    assert done.found() == [("list", 0, ""), ("duplicate", 2, "a.mp4")]
    assert "iconv -f UTF-16" in done.detail("list")


def test_an_empty_list_may_not_be_trained_on(check: Check, file: Path) -> None:
    file.write_text("\n")
    assert check(file, "--lines_only").found() == [("list", 0, "")]


def test_parquet_is_checked_by_row(check: Check, tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "train.parquet"
    parquet.write_table(arrow.table({"path": ["a", None, "a", "b"], "label": [0, 0, 0, 7]}), file)
    done = check(file, "--lines_only", "--nb_classes", 2)
    assert done.found("malformed", "label", "duplicate") == [
        ("malformed", 2, ""),
        ("label", 4, "b"),
        ("duplicate", 3, "a"),
    ]


def test_the_summary_is_capped_and_json_has_all(check: Check, file: Path) -> None:
    file.write_text("".join(f"{i}.mp4,9\n" for i in range(100)))
    done = check(file, "--lines_only", "--nb_classes", 2)
    assert "... and 97 more" in done.text
    assert len(done.found("label")) == 100
    assert len(done.text.splitlines()) < 20


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--nb_classes", "0"], r"--nb_classes \(0\) must be at least 1"),
        (["--decode_timeout", "-1"], r"--decode_timeout \(-1\) must be at least 0"),
        (["--max_failures", "2"], r"--max_failures \(2\) is a share"),
        (["--lines_only", "--decode"], r"--lines_only does not look at files"),
        (["--decod"], r"there is no flag --decod\. Did you mean --decode"),
        (["--use_decord", "maybe"], r"--use_decord \(maybe\) must be True or False"),
        (["--split", "::"], r"--split \('::'\) must be one character"),
        (["--prefix", "/nowhere"], r"--prefix \(/nowhere\) is not a folder"),
        (["--data_set", "K400"], r"--data_set \(K400\) is not known"),
    ],
)
def test_a_wrong_command_is_a_sentence(file: Path, words: list[str], sentence: str) -> None:
    file.write_text("a.mp4,0\n")
    with pytest.raises(ConfigError, match=sentence):
        main([str(file), *words])


def test_a_list_that_is_not_there_is_no_finding_but_a_wrong_command(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r"train\.csv does not exist"):
        main([str(tmp_path / "train.csv")])
    with pytest.raises(AnnotationError, match=r"holds neither train, val and test lists nor a folder per class"):
        main([str(tmp_path)])


# Labels that are names, or several a video


def test_a_list_that_names_its_classes_is_read_by_them(check: Check, tmp_path: Path) -> None:
    for name in "abcd":
        (tmp_path / f"{name}.mp4").write_bytes(name.encode())
    (tmp_path / "train.csv").write_text("path,label\na.mp4,run\nb.mp4,jump|run\nc.mp4,\n")
    (tmp_path / "val.csv").write_text("d.mp4,jump\na.mp4,run\nb.mp4,runing\n")
    done = check(tmp_path, "--prefix", tmp_path, "--fix")
    found = {(f["kind"], f["path"]) for f in done.report["findings"] if f["path"]}
    assert found == {("malformed", "b.mp4"), ("leaked", "a.mp4")}
    assert "'runing' is none of the classes of" in done.text
    assert done.report["fixed"] == []


def test_several_numbers_are_labels_of_one_video(check: Check, tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.mp4").write_bytes(name.encode())
    (tmp_path / "train.csv").write_text("a.mp4,1|0\nb.mp4,1\nc.mp4,\n")
    done = check(tmp_path / "train.csv", "--prefix", tmp_path)
    assert (done.code, done.report["findings"]) == (0, [])


def test_words_without_files_are_no_names_of_classes(check: Check, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("no list\nat all\n")
    assert {f["kind"] for f in check(tmp_path / "train.csv").report["findings"]} == {"malformed"}
