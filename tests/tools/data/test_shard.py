"""`umt data shard`: tar files that any webdataset reader reads, and from which a run gets the batches of the folder."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from tests.same_batches import assert_same
from tests.videos import render
from umt.data import sampling
from umt.data.lists.reading import read_list
from umt.data.loading.clips import TrainClips, Videos, ViewClips
from umt.data.loading.loaders import TestLoader, TrainLoader, Workers
from umt.data.storage.cache import Cache
from umt.data.storage.presence import require_files
from umt.data.storage.shards import read_index
from umt.data.storage.source import storage_of
from umt.data.transforms.pipelines import PretrainTransform, TestTransform
from umt.errors import AnnotationError, ConfigError, VideoError
from umt.tools.data import shard


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine videos in class folders, one with spaces and signs in its name, and the lists train.csv and val.csv."""
    top = tmp_path_factory.mktemp("videos")
    names = [f"class {i % 3}/v{i}.mp4" for i in range(8)] + ['class 1/ü, "quoted".mp4']
    for i, name in enumerate(names):
        (top / name).parent.mkdir(exist_ok=True)
        render(top / name, frames=12 + i, label=i % 3)
    rows = [(f'"{n.replace(chr(34), chr(34) * 2)}"' if '"' in n else n, i % 3) for i, n in enumerate(names)]
    (top / "train.csv").write_text("".join(f"{name},{label}\n" for name, label in rows[2:]))
    (top / "val.csv").write_text("".join(f"{name},{label}\n" for name, label in rows[:4]))
    return top


def make(folder: Path, out: Path, *words: str, size: str = "60KB", lists: tuple[str, ...] = ("train", "val")) -> Path:
    names = [str(folder / f"{name}.csv") for name in lists]
    words = ("--out", str(out), "--prefix", str(folder), "--split", ",", "--shard_size", size, *words)
    assert shard.main([*names, *words]) == 0
    return out


def contents(out: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in out.iterdir()}


def videos(
    source: Path, prefix: str | Path, name: str = "train", cache: Cache | None = None, **options: bool
) -> Videos:
    rows = read_list(source / f"{name}.csv", separator=",", prefix=str(prefix))
    return Videos(rows, storage=storage_of(rows, cache=cache, **options))


def loader(opened: Videos, **options: object) -> TrainLoader:
    made = TrainClips(
        opened, sampling.training_sampler("pretrain_sparse", 4), PretrainTransform(16, True), seed=1, copies=2
    )
    return TrainLoader(made, **{"batch_size": 2, "seed": 1, **options})  # type: ignore[arg-type]


def test_batches_from_shards_are_those_of_the_folder(folder: Path, tmp_path: Path) -> None:
    out = make(folder, tmp_path)
    assert len(list(out.glob("train-*.tar"))) > 2
    for epoch in range(2):
        assert_same(loader(videos(out, out)).batches(epoch), loader(videos(folder, folder)).batches(epoch))
    assert_same(loader(videos(out, out)).batches(1, start=2), list(loader(videos(folder, folder)).batches(1))[2:])


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_read_shards_side_by_side(folder: Path, tmp_path: Path, method: str) -> None:
    out = make(folder, tmp_path)
    many = loader(videos(out, out), workers=Workers(3, start_method=method))
    assert_same(many.batches(0), loader(videos(folder, folder)).batches(0))
    many.close()


def test_test_views_from_shards_are_those_of_the_folder(folder: Path, tmp_path: Path) -> None:
    out = make(folder, tmp_path)

    def views(prefix: Path) -> TestLoader:
        made = ViewClips(videos(prefix, prefix, "val"), sampling.views_sampler("sparse", 4, 2), TestTransform(16, 3))
        return TestLoader(made)

    assert_same(views(out), views(folder))


def test_shards_in_s3_give_the_batches_of_the_folder(folder: Path, tmp_path: Path, s3: str) -> None:
    import boto3

    out = make(folder, tmp_path / "out")
    store = boto3.client("s3", endpoint_url=s3)
    store.create_bucket(Bucket="shards")
    for path in out.iterdir():
        store.upload_file(str(path), "shards", f"k400/{path.name}")
    cache = Cache(str(tmp_path / "cache"), 10**8)
    cache.prepare()
    wanted = list(loader(videos(folder, folder)).batches(0))
    assert_same(loader(videos(out, "s3://shards/k400")).batches(0), wanted)
    for whole in (False, True):
        opened = videos(out, "s3://shards/k400", cache=cache, whole_shards=whole)
        assert_same(loader(opened).batches(0), wanted)
    store.delete_object(Bucket="shards", Key="k400/train-000000.tar")  # what is cached needs no store
    assert_same(loader(opened).batches(0), wanted)


def test_a_shard_is_what_webdataset_expects(folder: Path, tmp_path: Path) -> None:
    out = make(folder, tmp_path)
    seen = {}
    for path in sorted(out.glob("*.tar")):
        assert path.stat().st_size <= 60_000
        with tarfile.open(path) as tar:
            names = tar.getnames()
            assert [Path(n).suffix for n in names] == [".mp4", ".json"] * (len(names) // 2)
            for video, facts in zip(names[::2], names[1::2], strict=True):
                assert Path(video).stem == Path(facts).stem
                told = json.load(tar.extractfile(facts))  # type: ignore[arg-type]
                seen[told["path"]] = told["label"]
                assert tar.extractfile(video).read() == (folder / told["path"]).read_bytes()  # type: ignore[union-attr]
    rows = read_list(folder / "train.csv", separator=",")
    assert {rows.path(i): int(rows.labels[i]) for i in range(len(rows))}.items() <= seen.items()
    assert len(seen) == 9  # the videos of both lists, each once


def test_the_index_tells_where_every_video_lies(folder: Path, tmp_path: Path) -> None:
    out = make(folder, tmp_path)
    shards, places = read_index((out / "shards.idx").read_bytes(), "shards.idx")
    for place in places:
        part = (out / shards[place.shard].name).read_bytes()[place.start : place.start + place.size]
        assert part == (folder / place.path).read_bytes()
        assert hashlib.sha256(part).hexdigest() == place.digest
    for told in shards:
        assert hashlib.sha256((out / told.name).read_bytes()).hexdigest() == told.digest


def test_the_same_videos_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    one = make(folder, tmp_path / "one", "--workers", "1")
    two = make(folder, tmp_path / "two", "--workers", "3")
    assert contents(one) == contents(two)
    assert not list(one.glob("*.part"))


def test_a_second_run_writes_nothing_anew(folder: Path, tmp_path: Path) -> None:
    out = make(folder, tmp_path)
    times = {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    make(folder, out)
    assert {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")} == times


def test_a_run_that_was_killed_goes_on_and_ends_with_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    whole = make(folder, tmp_path / "whole")
    out = tmp_path / "out"
    words = [str(folder / "train.csv"), str(folder / "val.csv"), "--out", str(out), "--prefix", str(folder)]
    words += ["--split", ",", "--shard_size", "60KB", "--workers", "1"]
    slow = f"""
import os, time
from umt.tools.data import shard
real = os.fsync
def fsync(file): real(file); time.sleep(0.4)
os.fsync = fsync
shard.main({words!r})
"""
    process = subprocess.Popen([sys.executable, "-c", slow])
    until = time.monotonic() + 60
    while len(list(out.glob("*.tar"))) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    assert 2 <= len(before) < len(list(whole.glob("*.tar")))
    assert not (out / "shards.idx").exists()
    make(folder, out)
    after = {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    assert contents(out) == contents(whole)
    assert {name: after[name] for name in list(before)[:-1]}.items() <= before.items()


def test_a_video_that_changed_is_packed_anew(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "videos"
    shutil.copytree(folder, source)
    out = make(source, tmp_path / "out")
    video = source / "class 0/v3.mp4"
    content = bytearray(video.read_bytes())
    content[-1] ^= 1
    video.write_bytes(content)
    os.utime(video, (time.time() + 10,) * 2)
    make(source, out)
    assert shard.main(["--verify", str(out)]) == 0
    _, places = read_index((out / "shards.idx").read_bytes(), "")
    assert {p.path: p.digest for p in places}["class 0/v3.mp4"] == hashlib.sha256(content).hexdigest()


def test_a_label_that_changed_is_written_anew(folder: Path, tmp_path: Path) -> None:
    for name, label in (("one", 0), ("one", 1)):
        (tmp_path / f"{name}.csv").write_text(f"class 0/v0.mp4,{label}\nclass 0/v3.mp4,0\n")
        words = [str(tmp_path / "one.csv"), "--prefix", str(folder), "--split", ",", "--out", str(tmp_path / "out")]
        shard.main(words)
        with tarfile.open(tmp_path / "out" / "one-000000.tar") as tar:
            told = [json.load(tar.extractfile(name)) for name in tar.getnames()[1::2]]  # type: ignore[arg-type]
        assert {"path": "class 0/v0.mp4", "label": label} in told


def test_verify_finds_a_changed_byte(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = make(folder, tmp_path)
    assert shard.main(["--verify", str(out)]) == 0
    tar = out / "train-000000.tar"
    content = bytearray(tar.read_bytes())
    content[2000] ^= 1
    tar.write_bytes(content)
    assert shard.main(["--verify", str(out)]) == 1
    assert "train-000000.tar: " in capsys.readouterr().out


def test_a_changed_byte_in_a_store_is_an_unreadable_video(folder: Path, tmp_path: Path) -> None:
    import fsspec

    out = make(folder, tmp_path, size="1GB")
    store = fsspec.filesystem("memory")
    content = bytearray((out / "train-000000.tar").read_bytes())
    content[2000] ^= 1
    store.pipe_file("/changed/train-000000.tar", bytes(content))
    store.pipe_file("/changed/shards.idx", (out / "shards.idx").read_bytes())
    opened = videos(out, "memory://changed")
    sentence = "does not hold the bytes that its index says"
    changed = [row for row in range(len(opened)) if sentence in complaint(opened, row)]
    assert len(changed) == 1
    assert complaint(opened, changed[0]).startswith("memory://changed/train-000000.tar:class ")
    assert [complaint(opened, row) for row in range(len(opened)) if row not in changed] == [""] * 6


def complaint(opened: Videos, row: int) -> str:
    try:
        opened.open(row).close()
    except VideoError as error:
        return str(error)
    return ""


def test_missing_and_empty_videos_are_counted_or_left_out(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "videos"
    shutil.copytree(folder, source)
    (source / "class 0/v3.mp4").unlink()
    (source / "class 1/v4.mp4").write_bytes(b"")
    with pytest.raises(
        AnnotationError, match=r"2 of 9 videos are missing or empty, first .*v[34]\.mp4 .*--skip_missing"
    ):
        make(source, tmp_path / "out")
    out = make(source, tmp_path / "out", "--skip_missing")
    rows = read_list(out / "train.csv", separator=",", prefix=str(out))
    assert len(rows) == 5
    require_files(rows, storage_of(rows))


def test_a_row_that_is_in_no_shard_is_said(folder: Path, tmp_path: Path) -> None:
    out = make(folder, tmp_path, lists=("val",))
    rows = read_list(folder / "train.csv", separator=",", prefix=str(out))
    with pytest.raises(AnnotationError, match=r"5 of 7 videos cannot be read: no such file, first .*shards\.idx:class"):
        require_files(rows, storage_of(rows))
    with pytest.raises(VideoError, match=r"shards\.idx:class 1/v4\.mp4: .*not in the shards of"):
        Videos(rows, storage=storage_of(rows)).open(2)


def test_a_shard_that_is_not_whole_is_refused_before_a_run(folder: Path, tmp_path: Path) -> None:
    out = make(folder, tmp_path)
    tar = out / "train-000001.tar"
    tar.write_bytes(tar.read_bytes()[:-1])
    with pytest.raises(AnnotationError, match=r"train-000001\.tar has \d+ bytes, but shards\.idx next to it says \d+"):
        videos(out, out)
    tar.unlink()
    with pytest.raises(AnnotationError, match=r"train-000001\.tar is not there, but shards\.idx next to it names it"):
        videos(out, out)


@pytest.mark.parametrize(
    "damage",
    [lambda c: c[:-40], lambda c: b"", lambda c: c.replace(b"umt shards", b"of others"), lambda c: b"[]\n"],
)
def test_a_damaged_index_is_a_sentence(folder: Path, tmp_path: Path, damage) -> None:  # type: ignore[no-untyped-def]
    out = make(folder, tmp_path)
    (out / "shards.idx").write_bytes(damage((out / "shards.idx").read_bytes()))
    with pytest.raises(AnnotationError, match=r"shards\.idx is not a complete index of shards .*Copy it again"):
        videos(out, out)


def test_pretraining_lists_may_leave_out_the_ending(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("class 0/v0 0\nclass 1/v1 0\n")
    out = tmp_path / "out"
    shard.main([str(tmp_path / "list.txt"), "--out", str(out), "--prefix", str(folder)])
    rows = read_list(out / "list.csv", prefix=str(out), extension=".mp4", labels_optional=True)
    plain = read_list(tmp_path / "list.txt", prefix=str(folder), extension=".mp4", labels_optional=True)
    assert_same(loader(Videos(rows, storage=storage_of(rows))).batches(0), loader(Videos(plain)).batches(0))


def test_videos_are_packed_from_a_store(folder: Path, tmp_path: Path) -> None:
    import fsspec

    store = fsspec.filesystem("memory")
    for path in folder.rglob("*.mp4"):
        store.pipe_file(f"/packed/{path.relative_to(folder)}", path.read_bytes())
    names = [str(folder / f"{name}.csv") for name in ("train", "val")]
    shard.main([*names, "--out", str(tmp_path / "a"), "--prefix", "memory://packed", "--split", ","])
    assert contents(tmp_path / "a") == contents(make(folder, tmp_path / "b", size="1GB"))


@pytest.mark.parametrize(
    ("size", "number"), [("1GB", 10**9), ("1.5 MB", 1_500_000), ("2GiB", 2 << 30), ("10240", 10240), ("3kb", 3000)]
)
def test_sizes_are_read_as_people_write_them(size: str, number: int) -> None:
    assert shard.bytes_of(size) == number


@pytest.mark.parametrize("size", ["", "big", "0", "-1GB", "1XB"])
def test_what_is_no_size_is_refused(size: str) -> None:
    with pytest.raises(ConfigError, match=r"--shard_size \(.*\) must be a size\. Try --shard_size 1GB\."):
        shard.bytes_of(size)


def test_the_class_names_beside_the_lists_go_with_them(folder: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        shutil.copy(folder / "train.csv", tmp_path / name / f"{name}.csv")
        (tmp_path / name / "labels.txt").write_text("a\nb\nc\n")
    words = [str(tmp_path / "one" / "one.csv"), str(tmp_path / "two" / "two.csv"), "--prefix", str(folder)]
    words += ["--split", ",", "--out", str(tmp_path / "out")]
    shard.main(words)
    assert (tmp_path / "out" / "labels.txt").read_text() == "a\nb\nc\n"
    (tmp_path / "two" / "labels.txt").write_text("b\na\nc\n")
    with pytest.raises(ConfigError, match=r"two/labels\.txt differ, but shards have one labels\.txt"):
        shard.main(words)


def test_lists_are_not_replaced_by_those_of_the_shards(folder: Path) -> None:
    before = (folder / "train.csv").read_bytes()
    with pytest.raises(ConfigError, match=r"--out \(.*\) is the folder of .*train\.csv, which would be replaced"):
        make(folder, folder)
    assert (folder / "train.csv").read_bytes() == before


def test_two_lists_of_one_name_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="have the same name"):
        make(folder, tmp_path, lists=("train", "train"))
