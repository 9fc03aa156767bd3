#!/usr/bin/env python3
"""CPU time of a clip from each kind of storage, as a ratio to the plain file: shards, a store, a store with a cache.

    python scripts/bench_storage.py train.csv --prefix videos --split ,

The store is moto's S3 server on this machine (`pip install 'umt-video[storage]' 'moto[server]' boto3`), so its figures
are the overhead of the client, not of a network. Rounds alternate between the kinds; the least counts.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from umt.data.lists.reading import read_list
from umt.data.lists.video_list import VideoList
from umt.data.loading.clips import Videos
from umt.data.sampling import sparse_val
from umt.data.storage.cache import Cache
from umt.data.storage.source import storage_of
from umt.tools.data.shard import shard

ROUNDS = 7


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """The address of an S3 server that runs in a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    os.environ |= {
        "AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip
    words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            time.sleep(0.1)
        yield address
    finally:
        server.kill()
        server.wait()


def upload(folder: Path, address: str) -> str:
    """Copies the files of `folder` into a bucket of the server; its URL."""
    import boto3

    store = boto3.client("s3", endpoint_url=address)
    store.create_bucket(Bucket="bench")
    for path in folder.rglob("*"):
        if path.is_file():
            store.upload_file(str(path), "bench", f"{folder.name}/{path.relative_to(folder)}")
    return f"s3://bench/{folder.name}"


def seconds(videos: Videos) -> float:
    """CPU seconds of this process for one clip of 8 sparse frames of every row."""
    start = time.process_time()
    for row in range(len(videos)):
        with videos.open(row) as video:
            video.frames(sparse_val(len(video), num_frames=8))
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("list")
    parser.add_argument("--prefix", default="")
    parser.add_argument("--split", default=" ")
    parser.add_argument("--videos", type=int, default=30, help="rows that are read in a round")
    words = parser.parse_args()
    plain = read_list(words.list, separator=words.split, prefix=words.prefix, labels_optional=True)
    chosen = np.unique(np.linspace(0, len(plain) - 1, words.videos).astype(int)).tolist()
    paths = [plain.path(row) for row in chosen]

    def rows(prefix: str) -> VideoList:
        return VideoList("bench", paths, [0] * len(paths), prefix=prefix)

    with tempfile.TemporaryDirectory() as top, serving() as address:
        files, shards = Path(top, "files"), Path(top, "shards")
        for row, path in zip(chosen, paths, strict=True):
            copy = files / path
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(Path(plain.file(row)).read_bytes())
        (Path(top) / "bench.csv").write_text("".join(f"{path},0\n" for path in paths))
        shard([str(Path(top, "bench.csv"))], str(shards), prefix=str(files), separator=",")
        cache = Cache(str(Path(top, "cache")), 10**10)
        cache.prepare()
        stores = {folder.name: upload(folder, address) for folder in (files, shards)}
        kinds = {
            "plain files": Videos(rows(str(files))),
            "local shards": Videos(rows(str(shards)), storage=storage_of(rows(str(shards)))),
            "S3, a file a video": Videos(rows(stores["files"])),
            "S3, a file a video, cached": Videos(
                rows(stores["files"]), storage=storage_of(rows(stores["files"]), cache=cache)
            ),
            "S3, shards, each video by itself": Videos(
                rows(stores["shards"]), storage=storage_of(rows(stores["shards"]))
            ),
            "S3, whole shards, cached": Videos(
                rows(stores["shards"]), storage=storage_of(rows(stores["shards"]), cache=cache, whole_shards=True)
            ),
        }
        times: dict[str, list[float]] = {kind: [] for kind in kinds}
        for videos in kinds.values():
            seconds(videos)  # fills caches
        for _ in range(ROUNDS):
            for kind, videos in kinds.items():
                times[kind].append(seconds(videos))
    base = min(times["plain files"])
    size = sum(os.path.getsize(plain.file(row)) for row in chosen) / len(chosen)
    print(
        f"{len(paths)} videos of {size / 1e6:.2f} MB on average, a clip of 8 frames of each, least of {ROUNDS} rounds"
    )
    for kind, found in times.items():
        least = min(found)
        print(f"{kind:<34} {least / base:5.2f}x  {(least - base) / len(paths) * 1e3:+6.2f} ms a clip")


if __name__ == "__main__":
    main()
