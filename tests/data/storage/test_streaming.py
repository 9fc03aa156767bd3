"""Remote shards read shard by shard: whole shards are fetched, each once and ahead of use, and nothing else changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.same_batches import assert_same
from tests.web import Web, serving
from umt.data import sampling
from umt.data.lists.reading import read_list
from umt.data.loading.clips import TrainClips, Videos
from umt.data.loading.epoch_order import ByShard
from umt.data.loading.loaders import TrainLoader, Workers
from umt.data.storage.cache import Cache
from umt.data.storage.source import storage_of
from umt.data.transforms.pipelines import PretrainTransform
from umt.tools.data.shard import shard


@pytest.fixture(scope="module")
def shards(mp4s: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven videos in at least four shards."""
    out = tmp_path_factory.mktemp("shards")
    shard([str(mp4s / "train.csv")], str(out), prefix=str(mp4s), separator=",", shard_size=50_000)
    assert len(list(out.glob("*.tar"))) >= 4
    return out


@pytest.fixture
def web(shards: Path) -> Iterator[tuple[str, type[Web]]]:
    with serving(shards) as served:
        yield served


def cache(folder: Path, limit: int = 10**8) -> Cache:
    stored = Cache(str(folder), limit)
    stored.prepare()
    return stored


def loader(prefix: object, shards: Path, cached: Cache | None = None, **options: object) -> TrainLoader:
    rows = read_list(shards / "train.csv", separator=",", prefix=str(prefix))
    storage = storage_of(rows, cache=cached, whole_shards=True)
    assert storage.shards is not None
    clips = TrainClips(
        Videos(rows, storage=storage),
        sampling.training_sampler("pretrain_sparse", 4),
        PretrainTransform(16, True),
        seed=1,
    )
    epochs = ByShard(storage.shards.shard, 1)
    return TrainLoader(clips, **{"batch_size": 1, "seed": 1, "epochs": epochs, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("workers", [Workers(0), Workers(2)])
def test_streamed_batches_are_those_of_local_shards_in_the_same_order(
    web: tuple[str, type[Web]], shards: Path, tmp_path: Path, workers: Workers
) -> None:
    streamed = loader(web[0], shards, cache(tmp_path), workers=workers)
    for epoch in range(2):
        assert_same(streamed.batches(epoch), loader(shards, shards).batches(epoch))
    assert_same(streamed.batches(0, start=3), list(loader(shards, shards).batches(0))[3:])
    streamed.close()


def test_every_shard_is_fetched_once_and_no_video_by_itself(
    web: tuple[str, type[Web]], shards: Path, tmp_path: Path
) -> None:
    streamed = loader(web[0], shards, cache(tmp_path), workers=Workers(3))
    list(streamed.batches(0))
    list(streamed.batches(1))
    streamed.close()
    asked = Counter(web[1].asked)
    assert asked.pop("/shards.idx") == 1
    assert asked == {f"/{path.name}": 1 for path in shards.glob("*.tar")}


def test_a_cache_for_two_windows_is_enough_for_an_epoch(
    web: tuple[str, type[Web]], shards: Path, tmp_path: Path
) -> None:
    largest = max(path.stat().st_size for path in shards.glob("*.tar"))
    cached = cache(tmp_path, 2 * largest)
    for place, _ in enumerate(loader(web[0], shards, cached).batches(0)):
        with cached._lock("count"):  # nobody evicts while it is added up
            stored = sum(p.stat().st_size for p in (tmp_path / "objects").rglob("*") if p.is_file())
        assert stored <= 2 * largest, place
    asked = Counter(web[1].asked)
    assert asked.total() <= 2 * len(list(shards.glob("*.tar"))) + 1


def test_a_cache_too_small_for_a_shard_reads_video_by_video(
    web: tuple[str, type[Web]], shards: Path, tmp_path: Path
) -> None:
    assert_same(loader(web[0], shards, cache(tmp_path, 1000)).batches(0), loader(shards, shards).batches(0))


def test_shards_are_fetched_ahead_of_their_use(web: tuple[str, type[Web]], shards: Path, tmp_path: Path) -> None:
    streamed = loader(web[0], shards, cache(tmp_path))
    clips = streamed.clips
    order = streamed.order(0)
    due = streamed._ahead(order, 0)
    of_row = streamed.epochs.shards()
    assert of_row is not None
    first_use = {int(of_row[row]): place for place, row in reversed(list(enumerate(order.tolist())))}
    for number, rows in due.items():
        assert all(number <= first_use[int(of_row[row])] for row in rows)
    clips.videos.storage.ahead(int(order[-1]))
    before = list(web[1].asked)
    clips.videos.open(int(order[-1])).close()
    assert web[1].asked == before


def test_a_replacement_does_not_fetch_a_shard_of_its_own(
    web: tuple[str, type[Web]], shards: Path, tmp_path: Path
) -> None:
    videos = loader(web[0], shards, cache(tmp_path)).clips.videos
    videos.open(0, alone=True).close()
    (stored,) = [p.stat().st_size for p in (tmp_path / "objects").rglob("*") if p.is_file()]
    assert stored not in {path.stat().st_size for path in shards.glob("*.tar")}
