"""`umt verify` before anything is tested: its words, the expected number, what a checkpoint states."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from umt.errors import CheckpointError, ConfigError
from umt.tools.verify import command as verify
from umt.tools.verify.checkpoint import stated_by
from umt.tools.verify.command import main
from umt.tools.verify.expected import expected_row
from umt.tools.verify.zoo import published_rows

ROW = "b16_ptk710_ftk710_ftk400_f8_res224"


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ([], "umt verify takes MODEL and LIST first, e.g. umt verify b16_"),
        (["--prefix", "p", ROW, "l.csv"], "umt verify takes MODEL and LIST first"),
        ([ROW, "l.csv", "--tolerence", "1"], "there is no flag --tolerence. Did you mean --tolerance"),
        ([ROW, "l.csv", "--nosuch"], "no flag --nosuch. umt verify --help and umt test --help list them"),
        ([ROW, "l.csv", "--bath_size", "4"], "umt verify: there is no flag --bath_size. Did you mean --batch_size"),
        ([ROW, "l.csv", "--official_videos", "0"], r"--official_videos \(0\) must be at least 1"),
        ([ROW, "l.csv", "--tolerance", "-1"], r"--tolerance \(-1\) must be at least 0"),
        ([ROW, "l.csv", "--sample", "0"], r"--sample \(0\) must be at least 1"),
        ([ROW, "l.csv", "--expect", "87.4", "--row", ROW], "--expect and --row or --zoo both say"),
        ([ROW, "l.csv", "--expect", "874"], r"--expect \(874\) must be a top-1 in percent"),
        ([ROW, "l.csv", "--expect", "-5"], r"--expect \(-5\) must be a top-1 in percent\. Try --expect 87\.4"),
        ([ROW, "l.csv", "--expect", "none.json"], r"--expect \(none\.json\) is neither a number nor a file"),
        (["my.pth", "l.csv"], r"MODEL_ZOO\.md has no number for 'my'.*Name a row with --row, or give a number"),
        ([ROW[:-1] + "5", "l.csv"], f"has no number for .* Did you mean {ROW}"),
        (["b16_ptk710_f8_res224", "l.csv"], "These weights are only pretrained, so they have no accuracy"),
        ([ROW, "none.csv"], r"LIST \(none\.csv\) does not exist. Give the test list"),
    ],
)
def test_what_cannot_be_is_a_sentence(argv: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        main(argv)


def test_weights_that_do_not_state_their_test_need_its_flags(tmp_path: Path) -> None:
    torch.save({"model": {"head.bias": torch.zeros(2)}}, tmp_path / "w.pth")
    with pytest.raises(ConfigError, match=r"w\.pth does not state how it is tested\. Give the flags of its test"):
        main([str(tmp_path / "w.pth"), "list.csv", "--expect", "50"])


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("none.pth", r"none\.pth does not exist"),
        ("http://127.0.0.1:9/x.pth", r"x\.pth cannot be fetched: .*Check the network"),
        (__file__ + "#sha256=" + "0" * 64, r"has the sha256 .*, not 0000"),
    ],
)
def test_missing_weights_are_reported_before_missing_flags(model: str, sentence: str) -> None:
    with pytest.raises(CheckpointError, match=sentence):
        main([model, "list.csv", "--expect", "50"])


def test_the_folder_of_a_run_states_its_test(tmp_path: Path) -> None:
    config = {"model": "vit_tiny_patch8_48", "data_set": "SSV2", "nb_classes": 3}
    (tmp_path / "config.json").write_text(json.dumps(config))
    torch.save({"model": {"head.bias": torch.zeros(3)}, "config": config}, tmp_path / "checkpoint-best.pth")
    assert stated_by(str(tmp_path), fetching=True).flags == {key: str(value) for key, value in config.items()}


def test_flags_of_the_test_are_passed_on() -> None:
    words, passed = verify._words([ROW, "l.csv", "--prefix", "p", "--tolerance=0.3", "--split", ",", "--json"])
    assert (words.model, words.list, words.tolerance, words.json) == (ROW, "l.csv", 0.3, True)
    assert passed == ["--prefix", "p", "--split", ","]


def test_flags_that_change_a_row_are_noted() -> None:
    row = published_rows()[ROW]
    note = verify._notes(row, ["--test_num_crop", "1", "--test_num_segment=4", "--split", " ", "--batch_size", "4"])
    assert note == "not tested as its row is: --test_num_crop 1 (3)"


def test_a_checkpoint_is_compared_with_the_row_of_its_name() -> None:
    words, _ = verify._words([f"/weights/{ROW}.pth", "l.csv", "--official_videos", "19877"])
    row = expected_row(words)
    assert (row.name, row.top1, row.videos) == (ROW, 87.4, 19_877)


def test_the_number_of_another_run_is_of_its_videos_and_views(tmp_path: Path) -> None:
    content = {"merged": {"top1": 71.25}, "videos": 80, "clips": 2, "crops": 1}
    (tmp_path / "test.json").write_text(json.dumps(content))
    words, _ = verify._words(["runs/x/checkpoint-best.pth", "l.csv", "--expect", str(tmp_path)])
    row = expected_row(words)
    assert (row.name, row.top1, row.videos) == ("x-checkpoint-best", 71.25, 80)
    assert row.flags == {"test_num_segment": "2", "test_num_crop": "1"}


def test_another_json_file_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "test.json").write_text("{}")
    words, _ = verify._words(["x.pth", "l.csv", "--expect", str(tmp_path)])
    with pytest.raises(ConfigError, match=r"is not the test\.json of a test: KeyError"):
        expected_row(words)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run with two classes, and a list `list.csv` of three videos next to it."""
    folder = tmp_path / "run"
    folder.mkdir()
    config = {"data_set": "image_folder", "nb_classes": 2, "class_names": ["cat", "dog"], "split": " "}
    torch.save({"model": {"head.bias": torch.zeros(2)}, "config": config}, folder / "checkpoint-best.pth")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "test.json").write_text(json.dumps({"merged": {"top1": 50.0}, "videos": 3, "clips": 1, "crops": 1}))
    (tmp_path / "list.csv").write_text("a.mp4,cat\nb.mp4,dog\nc.mp4,dog\n")
    return folder


def test_the_test_json_that_is_compared_with_is_not_overwritten(run: Path) -> None:
    argv = [str(run), str(run.parent / "list.csv"), "--expect", str(run / "test.json"), "--output_dir", str(run)]
    with pytest.raises(ConfigError, match=r"test\.json\) lies in --output_dir .* Give another --output_dir"):
        main(argv)


def test_a_number_of_fewer_videos_than_the_list_has_is_refused(run: Path) -> None:
    argv = [str(run), str(run.parent / "list.csv"), "--expect", "50", "--official_videos", "2"]
    with pytest.raises(ConfigError, match=r"--official_videos \(2\) must not be below the 3 videos of LIST"):
        main([*argv, "--output_dir", str(run.parent / "out")])


def test_a_run_states_its_classes_and_its_data(run: Path) -> None:
    stated = stated_by(str(run), fetching=True)
    assert (stated.names, stated.flags["split"]) == (("cat", "dog"), " ")


def test_weights_with_other_classes_than_the_row_are_refused(tmp_path: Path) -> None:
    torch.save({"model": {"head.weight": torch.zeros(16, 8), "head.bias": torch.zeros(16)}}, tmp_path / "w.pth")
    with pytest.raises(
        ConfigError,
        match=rf"w\.pth has a head of 16 classes, but the row {ROW} has 400: they are of different data sets\.",
    ):
        main([str(tmp_path / "w.pth"), "list.csv", "--row", ROW])
