"""Runs on shards, stores and several lists: the same batches, checkpoints and resumes as on plain files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Command, Data, with_flags
from tests.end_to_end.test_resume import assert_kills_leave_no_trace, said, words_of
from tests.end_to_end.test_two_processes import torchrun
from tests.same_batches import assert_same
from tests.same_run import differences
from tests.web import serving
from umt.data.loading.loaders import TestLoader, TrainLoader
from umt.engine import checkpoints
from umt.engine.runtime import Runtime
from umt.errors import AnnotationError, ConfigError
from umt.run.command_line import parse
from umt.tasks.classify.data import evaluation_list, test_loader, train_loader, training_list
from umt.tasks.classify.recipe import ClassifyRecipe
from umt.tools.data.shard import shard


@pytest.fixture(scope="module")
def shards(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set as shards of a few videos each."""
    out = tmp_path_factory.mktemp("shards") / "k400"
    lists = [str(data.folder / f"{split}.csv") for split in ("train", "val", "test")]
    shard(lists, str(out), prefix=str(data.folder), separator=",", shard_size=120_000)
    assert len(list(out.glob("train-*.tar"))) > 4
    return out


def training(flags: list[str], tmp_path: Path, *words: object) -> TrainLoader:
    task, *rest = flags
    config = parse(task, [*rest, "--output_dir", str(tmp_path / "out"), *map(str, words)])
    run = Runtime()
    return train_loader(config, training_list(config), run)


def views_of(flags: list[str], tmp_path: Path, *words: object) -> TestLoader:
    config = parse("finetune", [*flags[1:], "--output_dir", str(tmp_path / "out"), *map(str, words)])
    assert isinstance(config, ClassifyRecipe)
    run = Runtime()
    return test_loader(config, evaluation_list(config, "test", run), run, frozenset())


@pytest.mark.parametrize("task", ["pretrain", "finetune"])
def test_a_run_on_shards_sees_the_batches_of_the_folder(data: Data, shards: Path, tmp_path: Path, task: str) -> None:
    flags = getattr(data, task)
    path = shards / "train.csv" if task == "pretrain" else shards
    sharded = training(flags, tmp_path, "--data_path", path, "--prefix", shards)
    for epoch in range(2):
        assert_same(sharded.batches(epoch), training(flags, tmp_path).batches(epoch))


def test_a_test_on_remote_shards_sees_the_views_of_the_folder(data: Data, shards: Path, tmp_path: Path) -> None:
    with serving(shards) as (url, _):
        remote = views_of(data.finetune, tmp_path, "--data_path", url, "--prefix", url)
        assert_same(remote, views_of(data.finetune, tmp_path))


def test_a_run_streams_remote_shards_through_its_cache(data: Data, shards: Path, tmp_path: Path) -> None:
    words = ["--data_path", shards / "train.csv", "--shard_shuffle", 2]
    with serving(shards) as (url, _):
        remote = training(data.pretrain, tmp_path, *words, "--prefix", url, "--cache_dir", tmp_path / "cache")
        assert_same(remote.batches(1), training(data.pretrain, tmp_path, *words, "--prefix", shards).batches(1))
    assert sum(p.is_file() for p in (tmp_path / "cache" / "objects").rglob("*")) == len(list(shards.glob("train-*")))


def test_the_list_and_the_videos_come_from_s3(data: Data, s3: str, tmp_path: Path) -> None:
    import boto3

    store = boto3.client("s3", endpoint_url=s3)
    store.create_bucket(Bucket="whole-run")
    for path in data.folder.iterdir():
        store.upload_file(str(path), "whole-run", f"a/{path.name}")
    words = ["--data_path", "s3://whole-run/a/train.csv", "--prefix", "s3://whole-run/a"]
    assert_same(training(data.pretrain, tmp_path, *words).batches(0), training(data.pretrain, tmp_path).batches(0))


def test_lists_are_mixed_by_weight_each_with_its_prefix(data: Data, shards: Path, tmp_path: Path) -> None:
    lists = ["--data_path", shards / "val.csv", data.folder / "train.csv", "--prefix", shards, data.folder]
    plain = training(data.pretrain, tmp_path, *lists)
    assert sorted(plain.order(0)) == list(range(30))
    weighted = training(data.pretrain, tmp_path, *lists, "--data_weights", 2, 1)
    assert [int((weighted.order(epoch) % 30 < 6).sum()) for epoch in range(3)] == [20, 20, 20]
    paths = [path for batch in weighted.batches(0) for path in batch.paths]
    assert {path.split("_")[0] for path in paths} == {"val", "train"}


def test_finetuning_on_two_folders_tests_on_the_first(data: Data, shards: Path, tmp_path: Path) -> None:
    words = ["--data_path", shards, data.folder, "--prefix", shards, data.folder]
    assert len(training(data.finetune, tmp_path, *words).clips) == 48
    assert_same(views_of(data.finetune, tmp_path, *words), views_of(data.finetune, tmp_path))


def test_shards_that_are_wanted_and_not_there_are_said(data: Data, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--shard_shuffle \(3\) wants shards, but --prefix .* holds none that umt"):
        training(data.pretrain, tmp_path, "--shard_shuffle", 3)


def test_a_cache_too_small_for_the_windows_is_said(data: Data, shards: Path, tmp_path: Path) -> None:
    words = ["--data_path", shards / "train.csv", "--cache_dir", tmp_path / "cache", "--cache_size_gb", 0.0002]
    sentence = r"--cache_size_gb \(0\.0002\) is too small for --shard_shuffle 2: .* take 0\.0"
    with serving(shards) as (url, _), pytest.raises(ConfigError, match=sentence):
        training(data.pretrain, tmp_path, *words, "--prefix", url, "--shard_shuffle", 2)


@pytest.mark.slow
def test_a_wrong_bucket_ends_the_start_with_a_sentence(data: Data, s3: str, umt: Command, tmp_path: Path) -> None:
    done = umt(*with_flags(data.pretrain, prefix="s3://wrong", output_dir=tmp_path / "out"), code=2)
    assert "none of 12 videos looked up is there, first s3://wrong/train_0.mp4. Check --prefix" in done.stderr


def test_a_bucket_without_lists_is_said(data: Data, s3: str, tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r"s3://wrong/train\.csv does not exist: no such bucket\."):
        training(data.pretrain, tmp_path, "--data_path", "s3://wrong/train.csv")


@pytest.mark.slow
def test_a_run_killed_in_mid_epoch_on_streamed_shards_and_two_lists_ends_like_one_left_alone(
    data: Data, shards: Path, umt: Command, tmp_path: Path
) -> None:
    flags = [*data.pretrain, "--data_path", str(shards / "train.csv"), str(data.folder / "val.csv")]
    flags += ["--data_weights", "3", "1", "--shard_shuffle", "2", "--num_workers", "2"]
    with serving(shards) as (url, _):
        flags += ["--prefix", url, str(data.folder), "--cache_dir", "cache"]
        words = words_of(flags, save_every_steps=1)
        assert_kills_leave_no_trace(words, [said("epoch 1/2 step 3/7"), said("epoch 2/2 step 2/7")], umt, tmp_path)


@pytest.mark.slow
def test_two_processes_share_a_cache_and_end_as_on_local_shards(data: Data, shards: Path, tmp_path: Path) -> None:
    words = [*data.pretrain, "--data_path", str(shards / "train.csv"), "--shard_shuffle", "2", "--num_workers", "1"]
    words += ["--batch_size", "2", "--epochs", "1", "--warmup_epochs", "0"]
    with serving(shards) as (url, web):
        more = {"cache_dir": tmp_path / "cache", "prefix": url, "output_dir": tmp_path / "streamed"}
        torchrun(*with_flags(words, **more), cwd=tmp_path)
        asked = Counter(web.asked)
    torchrun(*with_flags(words, prefix=shards, output_dir=tmp_path / "local"), cwd=tmp_path)
    assert all(asked[f"/{path.name}"] == 1 for path in shards.glob("train-*.tar"))
    one, other = (checkpoints.load(tmp_path / name / checkpoints.LATEST) for name in ("streamed", "local"))
    assert differences(one["model"], other["model"]) == []
