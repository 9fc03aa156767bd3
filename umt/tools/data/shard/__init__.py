"""`umt data shard LIST ... --out DIR`: the videos of lists as tar files in the webdataset form.

DIR then holds the shards, their index `shards.idx`, and the lists, whose rows are the original's: a run reads them with
`--data_path DIR --prefix DIR` (a folder or a URL) and gets the same batches, to the bit, as from the plain files. A
video that is in several lists is stored once. Within a list the videos are shuffled, so that every shard holds all
classes, as reading shard by shard needs; the order of the rows of a list stays.

The same lists and videos give the same bytes. Stopped and started again, it writes the shards that are missing.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import tarfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from umt.data.labels import LABELS_FILE
from umt.data.lists.lines import Form, Row, separator_of
from umt.data.lists.reading import read_list
from umt.data.lists.video_list import VideoList
from umt.data.storage import remote
from umt.data.storage.shards import INDEX, Place, read_index, write_index
from umt.data.storage.urls import is_url
from umt.errors import AnnotationError, ConfigError, OutputError
from umt.flags.command_line import COUNT, Parser
from umt.randomness import generator
from umt.tools.data.shard.tar import BLOCK, Part, Video, facts_of, padded, put, write_all

log = logging.getLogger(__name__)

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
          "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}  # fmt: skip


def main(argv: Sequence[str]) -> int:
    """Runs `umt data shard ARGV`; returns its exit code. Raises UserError for what the caller can mend."""
    parser = Parser("umt data shard", str(__doc__).split("\n\n")[0], "umt data shard LIST [LIST ...] --out DIR [flags]")
    parser.add_argument("lists", nargs="*", metavar="LIST", help="lists of videos, e.g. train.csv val.csv test.csv")
    parser.add_argument("--out", metavar="DIR", help="folder of the shards, the index and the lists")
    parser.add_argument(
        "--prefix", default="", metavar="DIR", help="folder or URL joined before the paths of the lists"
    )
    parser.add_argument(
        "--split", default=" ", metavar="CHAR", help="separator of the lists' columns (default: a space)"
    )
    parser.add_argument("--shard_size", default="1GB", metavar="SIZE", help="size of a shard, at most (default: 1GB)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the shuffle before packing (default: 0)")
    parser.add_argument("--workers", type=COUNT, default=4, metavar="N", help="shards written at once (default: 4)")
    parser.add_argument("--skip_missing", action="store_true", help="leave out rows whose file is missing or empty")
    parser.add_argument(
        "--verify", metavar="DIR", help="instead: read the shards of DIR and compare them with the index"
    )
    words = parser.words(argv)
    if words.verify:
        return verify(words.verify)
    if not words.lists or not words.out:
        raise ConfigError("umt data shard takes lists and --out, e.g. umt data shard train.csv val.csv --out shards.")
    shard(
        words.lists,
        words.out,
        prefix=words.prefix,
        separator=words.split,
        shard_size=bytes_of(words.shard_size),
        seed=words.seed,
        workers=words.workers,
        skip_missing=words.skip_missing,
    )
    return 0


def bytes_of(size: str) -> int:
    """`1GB`, `500 MB`, `2GiB` or a number of bytes. Raises ConfigError."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", size)
    if match is None or match[2].upper() not in _UNITS or not float(match[1]) > 0:
        raise ConfigError(f"--shard_size ({size}) must be a size. Try --shard_size 1GB.")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def shard(
    lists: Sequence[str],
    out: str,
    *,
    prefix: str = "",
    separator: str = " ",
    shard_size: int = 10**9,
    seed: int = 0,
    workers: int = 4,
    skip_missing: bool = False,
) -> None:
    """Writes the shards, the index and the lists. Raises AnnotationError, VideoError and OutputError."""
    stems = [Path(name).stem for name in lists]
    if len(set(stems)) < len(stems):
        raise ConfigError(f"{' and '.join(lists)} have the same name, which their shards would share. Rename one.")
    for name in lists:
        if os.path.exists(name) and os.path.realpath(name) == os.path.realpath(Path(out, _list_name(name))):
            raise ConfigError(f"--out ({out}) is the folder of {name}, which would be replaced. Give another folder.")
    names = _class_names(lists)
    read = [read_list(name, separator=separator, prefix=prefix, labels_optional=True) for name in lists]
    try:
        os.makedirs(out, exist_ok=True)
        files = _look(read, skip_missing=skip_missing)
        parts = _pack(stems, read, files, shard_size, seed)
        written = write_all(Path(out), parts, workers)
        _write_lists(Path(out), lists, read, files, separator)
        if names is not None:
            put(Path(out, LABELS_FILE), names)
        shards, places = [written[part.name][0] for part in parts], []
        for number, part in enumerate(parts):
            places += [replace(place, shard=number) for place in written[part.name][1]]
        put(Path(out, INDEX), write_index(shards, places))
    except OSError as error:
        raise OutputError(f"--out ({out}) cannot be written: {error.strerror or error}.") from error
    for part in parts:
        with suppress(FileNotFoundError):
            Path(out, part.name).with_suffix(".idx").unlink()
    total = sum(s.size for s in shards)
    print(f"{len(files)} videos of {', '.join(lists)} in {len(shards)} shards, {total / 1e9:.2f} GB: {out}")
    print(f"To train from them: --data_path {_data_path(out, lists)} --prefix {out}")
    stray = sorted({p.name for p in Path(out).glob("*.tar")} - {s.name for s in shards})
    if stray:
        print(f"{len(stray)} other tar files there belong to no list, first {stray[0]}. Are they of an earlier run?")


def _class_names(lists: Sequence[str]) -> bytes | None:
    """The labels.txt next to the lists, which numbers their classes. Raises ConfigError for two that differ."""
    files = [Path(name).parent / LABELS_FILE for name in lists if not is_url(name)]
    contents = {file: file.read_bytes() for file in files if file.is_file()}
    if len(set(contents.values())) > 1:
        raise ConfigError(
            f"{' and '.join(map(str, contents))} differ, but shards have one {LABELS_FILE}. Shard the lists separately."
        )
    return next(iter(contents.values()), None)


def _data_path(out: str, lists: Sequence[str]) -> str:
    return out if any(Path(name).stem in ("val", "test") for name in lists) else str(Path(out, _list_name(lists[0])))


def _look(lists: Sequence[VideoList], *, skip_missing: bool) -> dict[str, Video]:
    """The videos of all lists by path, each once, with their sizes."""
    rows = {videos.path(row): (videos, row) for videos in reversed(lists) for row in reversed(range(len(videos)))}

    def look(path: str) -> Video:
        videos, row = rows[path]
        return _measured(Video(path, int(videos.labels[row]), videos.file(row)))

    with ThreadPoolExecutor(16) as pool:
        measured = list(tqdm(pool.map(look, rows), "looking", len(rows), unit="video", disable=None, leave=False))
    lacking = [video for video in measured if video.size == 0]
    if lacking and not skip_missing:
        videos, row = rows[lacking[0].path]
        raise AnnotationError(
            f"{len(lacking)} of {len(measured)} videos are missing or empty, first {lacking[0].file} (row {row} of "
            f"{videos.source}, counted from 0). Check --prefix ({videos.prefix or 'none'}), or give --skip_missing."
        )
    if len(lacking) == len(measured):
        raise AnnotationError(f"No video is there, first {lacking[0].file}. Check --prefix.")
    return {video.path: video for video in measured if video.size}


def _measured(video: Video) -> Video:
    """The video with its size; 0: it is not there."""
    if is_url(video.file):
        try:
            return replace(video, size=remote.stat(video.file).size)
        except remote.MissingError:
            return video
        except remote.RemoteError as error:
            raise AnnotationError(f"{video.file} cannot be read: {error}.") from None
    # Pretraining lists may name videos without their ending.
    for file in (video.file, *([] if "." in os.path.basename(video.file) else [f"{video.file}.mp4"])):
        if os.path.isdir(file):
            raise AnnotationError(f"{file} is a folder; shards are made of video files only.")
        with suppress(OSError):
            facts = os.stat(file)
            return replace(video, file=file, size=facts.st_size, changed=facts.st_mtime)
    return video


def _pack(
    stems: Sequence[str], lists: Sequence[VideoList], files: dict[str, Video], shard_size: int, seed: int
) -> list[Part]:
    packed: list[Part] = []
    left = dict(files)
    for stem, videos in zip(stems, lists, strict=True):
        paths = dict.fromkeys(videos.path(row) for row in range(len(videos)))
        mine = [left.pop(path) for path in paths if path in left]
        order = generator(seed, "shards").permutation(len(mine))
        parts: list[Part] = []
        filled = 0
        for number, place in enumerate(order.tolist()):
            takes = sum(padded(size) + BLOCK for size in (mine[place].size, len(facts_of(mine[place]))))
            if not parts or filled + takes > shard_size - 2 * tarfile.RECORDSIZE:
                parts.append(Part(f"{stem}-{len(parts):06d}.tar", number))
                filled = 0
            parts[-1].videos.append(mine[place])
            filled += takes
        packed += parts
    return packed


def _list_name(source: str) -> str:
    return f"{Path(source).stem}.csv"


def _write_lists(
    out: Path, sources: Sequence[str], lists: Sequence[VideoList], files: dict[str, Video], separator: str
) -> None:
    """Each list with the rows whose files are there. A parquet list becomes a csv."""
    form = Form(separator_of(separator))
    for source, videos in zip(sources, lists, strict=True):
        paths = [videos.path(row) for row in range(len(videos))]
        lines = [
            form.line(Row(path, -1, label)) + "\n"
            for path, label in zip(paths, videos.labels.tolist(), strict=True)
            if path in files
        ]
        put(out / _list_name(source), "".join(lines).encode("utf-8", "surrogateescape"))


def verify(folder: str) -> int:
    """Reads all shards of `folder` and compares every video with its hash. Prints what differs; then 1, else 0."""
    source = Path(folder, INDEX)
    try:
        shards, places = read_index(source.read_bytes(), str(source))
    except OSError as error:
        raise AnnotationError(f"{source} cannot be read: {error.strerror}. Is --verify a folder of shards?") from None
    wrong: Counter[str] = Counter()
    for place in tqdm(places, "verifying", unit="video", disable=None, leave=False):
        name = shards[place.shard].name
        if not _is_whole(Path(folder, name), place):
            wrong[name] += 1
            print(f"{name}: {place.path} differs from its hash")
    print(f"{len(places) - wrong.total()} of {len(places)} videos in {len(shards)} shards are as the index says")
    return 1 if wrong else 0


def _is_whole(path: Path, place: Place) -> bool:
    try:
        with path.open("rb") as file:
            file.seek(place.start)
            return hashlib.sha256(file.read(place.size)).hexdigest() == place.digest
    except OSError:
        return False
