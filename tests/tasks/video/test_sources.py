"""The lists of a run: one or several, with a prefix and a separator each, files or URLs."""

from __future__ import annotations

from pathlib import Path

import pytest

from umt.errors import AnnotationError, ConfigError
from umt.run.command_line import parse
from umt.run.plan import render_dry_run
from umt.run.same_recipe import changes
from umt.tasks.base import Recipe, recipe_class
from umt.tasks.classify.lists import list_files, training_files
from umt.tasks.video.sources import Source, sources


def pretrain(*words: str, files: bool = False) -> Recipe:
    return parse("pretrain", ["--dry_run", *words], files=files)


def finetune(*words: str) -> Recipe:
    return parse("finetune", ["--dry_run", *words], files=False)


def test_one_prefix_and_separator_serve_all_lists() -> None:
    config = pretrain("--data_path", "a.csv", "b.csv", "--prefix", "/videos", "--split", ",")
    assert sources(config.data) == (Source("a.csv", "/videos", ","), Source("b.csv", "/videos", ","))


def test_every_list_may_have_its_own() -> None:
    words = ["--data_path", "a.csv", "s3://lists/b.csv", "--prefix", "/a", "s3://b", "--split", ",", " "]
    assert sources(pretrain(*words).data) == (Source("a.csv", "/a", ","), Source("s3://lists/b.csv", "s3://b", " "))


def test_a_single_value_stays_what_it_was() -> None:
    data = pretrain("--data_path", "a.csv", "--prefix", "/a").data
    assert (data.data_path, data.prefix, data.split) == ("a.csv", "/a", " ")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--prefix", "/a", "/b"], "--prefix (/a /b) has 2 values for 3 lists of --data_path. Give one for all"),
        (["--split", ",", ";"], "--split (, ;) has 2 values for 3 lists of --data_path."),
        (["--data_weights", "1", "2"], "--data_weights (1 2) has 2 values for 3 lists of --data_path."),
        (["--data_weights", "1", "2", "0"], "--data_weights (1.0 2.0 0.0) must be above 0. Try --data_weights 2 1."),
        (["--data_weights", "1", "two", "3"], "--data_weights (two) must be a number. Try --data_weights 2 1."),
        (["--split", ",", "", ";"], "--split () must be the character between the columns"),
        (
            ["--shard_shuffle", "4", "--prefix", "s3://b"],
            "--shard_shuffle (4) reads remote shards as a whole and",
        ),
    ],
)
def test_what_does_not_fit_the_lists_is_refused(words: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        pretrain("--data_path", "a.csv", "b.csv", "c.csv", *words)
    assert str(error.value).startswith(sentence)


def test_finetuning_trains_on_all_folders_and_tests_on_the_first() -> None:
    config = finetune("--data_path", "one", "two")
    assert training_files(config) == ["one/train.csv", "two/train.csv"]
    assert [path for path, _ in list_files(config)] == [
        "one/train.csv", "two/train.csv", "one/val.csv", "one/test.csv",
    ]  # fmt: skip


def test_a_folder_by_url_keeps_its_slashes() -> None:
    (path, _), *_ = list_files(finetune("--data_path", "s3://bucket/lists"))
    assert path == "s3://bucket/lists/train.csv"


def test_the_dry_run_says_what_is_mixed(tmp_path: Path) -> None:
    for name, rows in (("a.csv", 30), ("b.csv", 20)):
        (tmp_path / name).write_text("".join(f"{i}.mp4 0\n" for i in range(rows)))
    lists = [str(tmp_path / "a.csv"), str(tmp_path / "b.csv")]
    words = ["--data_path", *lists, "--data_weights", "2", "1", "--batch_size", "5", "--shard_shuffle", "8"]
    text = render_dry_run(pretrain(*words, "--cache_dir", "/scratch"), {})
    assert f"lists        {lists[0]}, {lists[1]}\n" in text
    assert f"videos       50 for training (counted in {lists[0]} and {lists[1]})" in text
    assert "mixture      2 training lists, drawn like 2 : 1\n" in text
    assert "order        shard by shard, 8 at a time\n" in text
    assert "cache        /scratch, at most 50 GB\n" in text
    assert "schedule     800 epochs x 10 = 8000 steps" in text


def test_a_dry_run_asks_no_store() -> None:
    text = render_dry_run(pretrain("--data_path", "s3://no-bucket/train.csv", "--prefix", "s3://no-bucket"), {})
    assert "lists        s3://no-bucket/train.csv\n" in text
    assert "s3://no-bucket/train.csv is not looked at" in text


def test_lists_that_number_their_classes_differently_do_not_mix(tmp_path: Path) -> None:
    for name, classes in (("one", "bending\njumping\n"), ("two", "jumping\nbending\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "labels.txt").write_text(classes)
        for split in ("train", "val", "test"):
            (tmp_path / name / f"{split}.csv").write_text("a.mp4 0\nb.mp4 1\n")
    words = ["--data_path", str(tmp_path / "one"), str(tmp_path / "two"), "--nb_classes", "2"]
    with pytest.raises(ConfigError, match=r"mixes lists that number their classes differently: .*one/labels"):
        parse("finetune", [*words, "--output_dir", str(tmp_path / "out")])
    (tmp_path / "two" / "labels.txt").write_text("bending\njumping\n")
    parse("finetune", [*words, "--output_dir", str(tmp_path / "out")])


def test_a_label_outside_the_classes_is_found_in_every_list(tmp_path: Path) -> None:
    for name, label in (("one", 1), ("two", 2)):
        (tmp_path / name).mkdir()
        for split in ("train", "val", "test"):
            (tmp_path / name / f"{split}.csv").write_text(f"a.mp4 0\nb.mp4 {label}\n")
    words = ["--data_path", str(tmp_path / "one"), str(tmp_path / "two"), "--nb_classes", "2"]
    with pytest.raises(AnnotationError, match=r"two/train\.csv:2: label 2 is outside 0\.\.1"):
        parse("finetune", [*words, "--output_dir", str(tmp_path / "out")])


def test_a_run_goes_on_with_another_cache_but_not_with_other_draws() -> None:
    then = pretrain("--data_path", "a.csv", "b.csv").values()
    now = pretrain("--data_path", "/moved/a.csv", "/moved/b.csv", "--cache_dir", "/scratch").values()
    assert changes(recipe_class("pretrain"), then, now) == ([], [])
    for words in (["--data_weights", "2", "1"], ["--shard_shuffle", "2"]):
        refused, _ = changes(recipe_class("pretrain"), then, pretrain("--data_path", "a.csv", "b.csv", *words).values())
        assert len(refused) == 1
        assert refused[0].startswith(words[0])
