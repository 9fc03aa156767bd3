"""Where the videos of lists are, from the flags that say it: shards, stores, the cache; several lists become one."""

from __future__ import annotations

import dataclasses
import functools

from umt.data.lists.video_list import VideoList
from umt.data.loading.clips import Videos
from umt.data.loading.epoch_order import ByShard, EpochOrder, Mixed, Shuffled
from umt.data.loading.loaders import Workers
from umt.data.loading.mixing import MixedList, MixedVideos, mixed
from umt.data.storage.cache import Cache
from umt.data.storage.source import Storage, storage_of
from umt.data.storage.urls import is_url
from umt.errors import ConfigError
from umt.flags.loading import LoadingConfig
from umt.tasks.base import Place
from umt.tasks.video.flags import DataConfig
from umt.tasks.video.sources import sources


@functools.lru_cache(maxsize=8)
def storage(videos: VideoList) -> Storage:
    """Where the rows of one list are, without a cache. An index of shards is read once."""
    return storage_of(videos)


def opened(data: DataConfig, videos: VideoList, place: Place, *, training: bool = False) -> Videos:
    """The rows of `videos`, ready to be read from wherever they are."""
    whole = training and data.shard_shuffle > 0
    parts = []
    for part in videos.parts if isinstance(videos, MixedList) else (videos,):
        where = storage(part)
        remote = is_url(part.prefix) or any("://" in part.path(row) for row in range(min(len(part), 1000)))
        cached = _cache(data.cache_dir, int(data.cache_size_gb * 1e9), place.world.local_rank == 0) if remote else None
        parts.append(Videos(part, data.decoder, storage=dataclasses.replace(where, cache=cached, whole_shards=whole)))
    return mixed(parts, videos)


@functools.lru_cache(maxsize=1)
def _cache(folder: str, limit: int, main: bool) -> Cache | None:
    if not folder:
        return None
    cache = Cache(folder, limit)
    cache.prepare(main=main)
    return cache


def workers(data: DataConfig, loading: LoadingConfig, place: Place) -> Workers:
    """The processes that read videos."""
    return Workers(
        num_workers=loading.processes(),
        pin_memory=loading.pin_mem and place.device.type == "cuda",
        timeout=loading.decode_timeout,
        start_method="spawn" if data.decoder == "torchcodec-cuda" else None,  # CUDA does not survive a fork
    )


def epochs(data: DataConfig, videos: Videos) -> EpochOrder:
    """The order of the epochs of `videos`. Raises ConfigError where --shard_shuffle or --data_weights cannot work."""
    parts = videos.parts if isinstance(videos, MixedVideos) else (videos,)
    orders = [_epochs_of(data, part, len(parts)) for part in parts]
    if data.shard_shuffle and not any(isinstance(order, ByShard) for order in orders):
        prefixes = " ".join(source.prefix or "none" for source in sources(data))
        raise ConfigError(
            f"--shard_shuffle ({data.shard_shuffle}) wants shards, but --prefix ({prefixes}) holds none that umt data "
            "shard has written. Leave it out."
        )
    if len(orders) == 1:
        return orders[0]
    return Mixed(tuple(orders), data.data_weights or tuple(float(len(part)) for part in parts))


def _epochs_of(data: DataConfig, videos: Videos, lists: int) -> EpochOrder:
    shards = videos.storage.shards
    if not data.shard_shuffle or shards is None:
        return Shuffled(len(videos))
    if videos.fetches_shards:
        sizes = sorted((shard.size for shard in shards.shards), reverse=True)
        needed = lists * sum(sizes[: 2 * data.shard_shuffle])
        if needed > data.cache_size_gb * 1e9:
            raise ConfigError(
                f"--cache_size_gb ({data.cache_size_gb:g}) is too small for --shard_shuffle {data.shard_shuffle}: the "
                f"shards in use and the next ones take {needed / 1e9:.3g} GB. Try --cache_size_gb "
                f"{1.2 * needed / 1e9:.2g}, or a smaller --shard_shuffle."
            )
    return ByShard(shards.shard, data.shard_shuffle)
