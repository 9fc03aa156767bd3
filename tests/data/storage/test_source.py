"""Rows of a list wherever their bytes are: the same frames, the same rules for what cannot be read."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

from tests.same_batches import assert_same
from tests.videos import played
from tests.web import serving
from umt.data import sampling
from umt.data.lists.reading import read_list
from umt.data.lists.video_list import VideoList
from umt.data.loading.clips import TrainClips, Videos
from umt.data.loading.loaders import TrainLoader, Workers
from umt.data.storage.cache import Cache
from umt.data.storage.source import Storage
from umt.data.transforms.pipelines import PretrainTransform
from umt.data.video.reader import available
from umt.errors import VideoError


def videos(folder: str | Path, source: Path, *, decoder: str = "auto", cache: Cache | None = None) -> Videos:
    return Videos(
        read_list(source / "train.csv", separator=",", prefix=str(folder)), decoder, storage=Storage(cache=cache)
    )


def loader(opened: Videos, **options: object) -> TrainLoader:
    clips = TrainClips(opened, sampling.training_sampler("pretrain_sparse", 4), PretrainTransform(16, True), seed=1)
    return TrainLoader(clips, **{"batch_size": 2, "seed": 1, **options})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def memory(mp4s: Path) -> str:
    store = fsspec.filesystem("memory")
    for path in mp4s.iterdir():
        store.pipe_file(f"/source/{path.name}", path.read_bytes())
    return "memory://source"


@pytest.mark.parametrize("decoder", ["decord", "torchcodec", "pyav"])
def test_a_remote_video_gives_the_frames_of_the_file(memory: str, mp4s: Path, decoder: str) -> None:
    if not available(decoder):
        pytest.skip(f"{decoder} does not work here")
    with videos(memory, mp4s, decoder=decoder).open(3) as remote, videos(mp4s, mp4s, decoder=decoder).open(3) as local:
        assert len(remote) == len(local) == 23
        assert np.array_equal(remote.frames([22, 0, 7]), local.frames([22, 0, 7]))
        assert remote.path == "memory://source/v3.mp4"


@pytest.mark.parametrize(
    "workers",
    [
        Workers(0),
        pytest.param(Workers(2), marks=pytest.mark.slow),
        pytest.param(Workers(2, start_method="spawn"), marks=pytest.mark.slow),
    ],
)
def test_batches_from_s3_are_those_of_the_folder(bucket: str, mp4s: Path, workers: Workers) -> None:
    remote = loader(videos(bucket, mp4s), workers=workers)
    try:
        for epoch in range(2):
            assert_same(remote.batches(epoch), loader(videos(mp4s, mp4s)).batches(epoch))
    finally:
        remote.close()


def test_batches_through_the_cache_are_those_of_the_folder(bucket: str, mp4s: Path, tmp_path: Path) -> None:
    cache = Cache(str(tmp_path), 10**8)
    cache.prepare()
    for _ in range(2):
        assert_same(loader(videos(bucket, mp4s, cache=cache)).batches(0), loader(videos(mp4s, mp4s)).batches(0))
    assert len([p for p in (tmp_path / "objects").rglob("*") if p.is_file()]) == 6


def test_a_cached_video_that_changed_in_the_store_is_read_anew(mp4s: Path, tmp_path: Path) -> None:
    cache, store = Cache(str(tmp_path), 10**8), fsspec.filesystem("memory")
    cache.prepare()
    videos = VideoList("a.csv", ["v.mp4"], [0], prefix="memory://changing")
    lengths = []
    for name in ("v1.mp4", "v5.mp4"):
        store.pipe_file("/changing/v.mp4", (mp4s / name).read_bytes())
        with Videos(videos, storage=Storage(cache=cache)).open(0) as video:
            lengths.append(len(video))
    assert lengths == [21, 25]


def test_a_cache_that_cannot_be_written_changes_nothing_but_a_warning(
    memory: str, mp4s: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").touch()
    cache = Cache(str(tmp_path / "cache"), 10**8)
    cache.prepare()
    assert_same(loader(videos(memory, mp4s, cache=cache)).batches(0), loader(videos(mp4s, mp4s)).batches(0))
    assert len(caplog.records) == 1


def test_an_error_names_the_url_and_not_the_place_of_its_bytes(mp4s: Path) -> None:
    store = fsspec.filesystem("memory")
    store.pipe_file("/broken/v0.mp4", (mp4s / "v0.mp4").read_bytes()[:900])
    store.pipe_file("/broken/v1.mp4", b"")
    rows = VideoList("a.csv", ["v0.mp4", "v1.mp4", "v2.mp4"], [0, 0, 0], prefix="memory://broken")
    causes = [r"cannot be read as a video \(", r".*\(0 bytes", r".*\(no such object; is --prefix right"]
    for row, cause in enumerate(causes):
        with pytest.raises(VideoError, match=rf"^memory://broken/v{row}\.mp4: {cause}"):
            Videos(rows).open(row)


def test_frames_that_do_not_decode_are_an_error_of_the_url(mp4s: Path) -> None:
    content = bytearray((mp4s / "v0.mp4").read_bytes())
    start = content.index(b"mdat") + 4
    content[start + 2000 : start + 4000] = bytes(2000)
    fsspec.filesystem("memory").pipe_file("/damaged/v0.mp4", bytes(content))
    rows = VideoList("a.csv", ["v0.mp4"], [0], prefix="memory://damaged")
    with pytest.raises(VideoError, match=r"^memory://damaged/v0\.mp4: "), Videos(rows, "pyav").open(0) as video:
        video.frames(range(len(video)))


def test_an_unreadable_object_is_replaced_in_training_as_a_file_is(mp4s: Path, tmp_path: Path) -> None:
    shutil.copytree(mp4s, tmp_path, dirs_exist_ok=True)
    (tmp_path / "v2.mp4").unlink()
    store = fsspec.filesystem("memory")
    for path in tmp_path.glob("*.mp4"):
        store.pipe_file(f"/lacking/{path.name}", path.read_bytes())
    (remote,) = loader(videos("memory://lacking", mp4s), batch_size=7).batches(0)
    (local,) = loader(videos(tmp_path, mp4s), batch_size=7).batches(0)
    assert [(f["row"], f["path"]) for f in remote.failures] == [(f["row"], f["path"]) for f in local.failures]
    assert {f["row"] for f in remote.failures} == {2}
    assert_same([dataclasses.replace(remote, failures=[])], [dataclasses.replace(local, failures=[])])
    assert "memory://lacking/v2.mp4: cannot be read as a video (no such object" in str(remote.failures[0]["cause"])


def test_a_store_that_lost_everything_stops_the_run_with_a_sentence(s3: str, mp4s: Path) -> None:
    with pytest.raises(VideoError, match=r"10 videos in a row cannot be read, first s3://gone/v\d\.mp4: .*such bucket"):
        next(loader(videos("s3://gone", mp4s)).batches(0))


@pytest.fixture(scope="module")
def frames(mp4s: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Folders of frames of two videos: on this machine and in a store."""
    top, store = tmp_path_factory.mktemp("frames"), fsspec.filesystem("memory")
    for number in range(2):
        (top / f"{number}").mkdir()
        for place, frame in enumerate(played(mp4s / f"v{number}.mp4"), 1):
            path = top / f"{number}" / f"img_{place:05}.jpg"
            Image.fromarray(frame).save(path)
            store.pipe_file(f"/frames/{number}/{path.name}", path.read_bytes())
    return top, "memory://frames"


@pytest.mark.parametrize("counted", [True, False])
def test_a_folder_of_frames_in_a_store_gives_the_frames_of_the_folder(
    frames: tuple[Path, str], tmp_path: Path, counted: bool
) -> None:
    cache = Cache(str(tmp_path), 10**8)
    cache.prepare()
    for where in (None, cache):
        read = []
        for prefix in frames:
            rows = VideoList("a.csv", ["0", "1"], [0, 1], [20, 21] if counted else [0, 0], prefix=str(prefix))
            with Videos(rows, storage=Storage(cache=where)).open(1) as video:
                assert len(video) == 21
                read.append(video.frames([20, 0, 9]))
        assert np.array_equal(*read)


def test_a_frame_that_is_not_in_the_store_is_named(frames: tuple[Path, str]) -> None:
    rows = VideoList("a.csv", ["0", "7"], [0, 0], [30, 0], prefix=frames[1])
    with (
        pytest.raises(VideoError, match=r"^memory://frames/0/img_00025\.jpg: cannot be read as an image \(no such"),
        Videos(rows).open(0) as video,
    ):
        video.frames([24])
    with pytest.raises(VideoError, match=r"^memory://frames/7: cannot be read as a folder of frames \(no such object"):
        Videos(rows).open(1)


def test_a_store_that_tells_no_sizes_is_read_past_the_cache(mp4s: Path, tmp_path: Path) -> None:
    cache = Cache(str(tmp_path), 10**8)
    cache.prepare()
    with serving(mp4s) as (url, web):
        web.simple = True
        assert_same(loader(videos(url, mp4s, cache=cache)).batches(0), loader(videos(mp4s, mp4s)).batches(0))
    assert not [p for p in (tmp_path / "objects").rglob("*") if p.is_file()]
