"""Tells from the index of an MP4 alone, in a tenth of a millisecond, that nothing about the file is unusual.

`plain_index` avoids `umt.data.video.probe`, which reads every packet: most files of a data set are H.264 in MP4 as
encoders write it. A file that is not certainly plain is left to the probe. The index says where every packet is, which
is how `umt.data.video.pyav_readers.Direct` reads. `boxes` is the one walker of boxes.

Boxes and fields: ISO/IEC 14496-12 (moov, trak, elst, stts, ctts, stss, stsc, stsz, stco) and 14496-15 (avcC).
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from umt.data.video import h264

# Baseline, main, extended and high: profiles that hold 8-bit 4:2:0 only.
_PLAIN_PROFILES = {66, 77, 88, 100}
MOST_PIXELS = 1 << 26  # of a frame; 8K has half of that. A file of some kilobytes may ask for gigabytes
_LARGEST = 64 << 20  # bytes of an index; an hour of video has less than 4 MB
_HEAD = struct.Struct(">I4s")
_IDENTITY = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)


@dataclass(frozen=True)
class Index:
    """Where the L frames of a plain file are. "Packet" counts in the order of decoding, "frame" in that of showing.

    Attributes:
        offsets: (L,) first byte of each packet in the file.
        sizes: (L,) bytes of each packet.
        packets: (L,) the packet of each frame.
        keys: (K,) packets that are key frames, ascending; the first is 0.
        config: the decoder's configuration (the content of avcC).
    """

    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    packets: NDArray[np.int64]
    keys: NDArray[np.int64]
    config: bytes

    def __len__(self) -> int:
        return len(self.packets)

    @property
    def prefix(self) -> int | None:
        """As `umt.data.video.h264.parts` takes it."""
        return h264.prefix_of(self.config)

    def can_start_at(self, file: FileIO, keys: NDArray[np.int64]) -> bool:
        """Whether decoding can really begin at each of `keys`: a file may mark others as key frames."""
        places = zip(self.offsets[keys].tolist(), self.sizes[keys].tolist(), strict=True)
        return all(h264.is_idr(read_at(file, *place), self.prefix) for place in places)


def plain_index(path: str) -> Index | None:
    """The index of a plain file (closed groups, all frames shown, upright, even size, 8-bit 4:2:0, whole), or None."""
    try:
        with open(path, "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            moov = _moov(file, size)
            index = None if moov is None else _plain(moov, size)
            # The reader checks the other key frames when it gets to them.
            return index if index is not None and index.can_start_at(file, index.keys[:1]) else None
    except (struct.error, IndexError, KeyError, ValueError, OSError):  # a damaged index: the probe says of what kind
        return None


def plain_for_all(path: str, index: Index) -> bool:
    """Whether readers other than `Direct` can be trusted too: decoding can begin at every key frame, no fields."""
    if h264.may_be_interlaced(index.config):
        return False
    with open(path, "rb", buffering=0) as file:
        return index.can_start_at(file, index.keys)


def read_at(file: BinaryIO | FileIO, at: int, size: int) -> bytes:
    """`size` bytes from `at` on, or those up to the end."""
    file.seek(at)
    content = file.read(size)
    while len(content) < size and (more := file.read(size - len(content))):
        content += more
    return content


class Box(NamedTuple):
    """One box of an MP4: its kind, the first byte of its content, where its header says that it ends, and whether that
    is within what holds it."""

    kind: bytes
    start: int
    end: int
    fits: bool


def boxes(file: BinaryIO | FileIO, start: int, end: int) -> Iterator[Box]:
    """The boxes between two places of a file, one after the other. One that does not fit is the last."""
    while start + 8 <= end:
        file.seek(start)
        size, kind = _HEAD.unpack(file.read(8))
        head = 8
        if size == 1:
            size, head = int.from_bytes(file.read(8), "big"), 16
        stop = start + size if size else end
        fits = start + head <= stop <= end
        yield Box(kind, start + head, stop, fits)
        if not fits:
            return
        start = stop


def ends_early(path: str) -> bool:
    """Whether an MP4 is cut off: a box goes on after the end of the file, or there is no index."""
    kinds: set[bytes] = set()
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        for box in boxes(file, 0, size):
            if not kinds and box.kind not in (b"ftyp", b"styp", b"moov", b"mdat", b"free", b"skip", b"wide"):
                return False
            kinds.add(box.kind)
            if not box.fits:
                return box.end > size
    return b"mdat" in kinds and b"moov" not in kinds


def is_turned(path: str) -> bool:
    """Whether a track header of an MP4 asks the player to rotate or mirror (PyAV says it only of decoded frames)."""
    with open(path, "rb") as file:
        places = [(0, os.path.getsize(path))]
        for kind in (b"moov", b"trak", b"tkhd"):
            there = [box for place in places for box in boxes(file, *place)]
            places = [(box.start, box.end) for box in there if box.kind == kind and box.fits]
        return any(_turns(read_at(file, start, end - start)) for start, end in places)


def _turns(tkhd: bytes) -> bool:
    a, b, _, c, d = struct.unpack(">5i", tkhd[-44:-24])  # 9 numbers, then width and height
    return (b, c) != (0, 0) or a < 0 or d < 0


def _moov(file: FileIO, end: int) -> bytes | None:
    moov = next((box for box in boxes(file, 0, end) if box.kind == b"moov"), None)
    if moov is None or not moov.fits or moov.end - moov.start > _LARGEST:
        return None
    return read_at(file, moov.start, moov.end - moov.start)


def _contents(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of the boxes that `data` consists of."""
    for box in boxes(io.BytesIO(data), 0, len(data)):
        if not box.fits:
            raise ValueError("a box that does not fit")
        yield box.kind, data[box.start : box.end]


def _numbers(box: bytes, columns: int, kind: str = ">u4") -> NDArray[np.int64]:
    """The table of a box that holds version, flags, a count, and that many rows."""
    (count,) = struct.unpack_from(">I", box, 4)
    return np.frombuffer(box, kind, count * columns, 8).astype(np.int64).reshape(count, columns)


def _expanded(runs: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """The values of a table of (how many, value), `count` of them: a damaged table may ask for billions."""
    if (runs[:, 0] < 0).any() or runs[:, 0].sum() != count:
        raise ValueError("a table for another number of frames")
    return np.repeat(runs[:, 1], runs[:, 0])


def _plain(moov: bytes, file_size: int) -> Index | None:
    tracks = []
    movie_scale = 0
    for kind, content in _contents(moov):
        if kind == b"mvex":  # fragmented: the index is elsewhere
            return None
        if kind == b"mvhd":
            (movie_scale,) = struct.unpack_from(">I", content, 20 if content[0] else 12)
        if kind == b"trak":
            track = dict(_contents(content))
            media = dict(_contents(track[b"mdia"]))
            if media[b"hdlr"][8:12] == b"vide":
                tracks.append((track, media))
    if len(tracks) != 1 or tracks[0][0][b"tkhd"][-44:-8] != _IDENTITY:
        return None
    track, media = tracks[0]
    table = dict(_contents(dict(_contents(media[b"minf"]))[b"stbl"]))
    config = _plain_picture(table[b"stsd"])
    offsets, sizes = _places(table)
    if config is None or len(offsets) == 0 or (offsets + sizes).max() > file_size:
        return None
    decoded = _expanded(_numbers(table[b"stts"], 2), len(sizes))
    shown = np.cumsum(decoded) - decoded
    if b"ctts" in table:
        shown = shown + _expanded(_numbers(table[b"ctts"], 2, ">i4"), len(sizes))
    keys = _numbers(table[b"stss"], 1)[:, 0] - 1 if b"stss" in table else np.arange(len(shown))
    if len(np.unique(shown)) != len(shown) or not _closed(keys, shown):
        return None
    (scale,) = struct.unpack_from(">I", media[b"mdhd"], 20 if media[b"mdhd"][0] else 12)
    end = int(shown.max() + decoded[-1])
    if b"edts" in track and not _shows_all(dict(_contents(track[b"edts"])), int(shown.min()), end, scale, movie_scale):
        return None
    return Index(offsets=offsets, sizes=sizes, packets=np.argsort(shown), keys=keys, config=config)


def _plain_picture(stsd: bytes) -> bytes | None:
    """The decoder's configuration, if the pictures are plain."""
    (count,) = struct.unpack_from(">I", stsd, 4)
    kind, entry = next(_contents(stsd[8:]))
    if count != 1 or kind not in (b"avc1", b"avc3"):
        return None
    width, height = struct.unpack_from(">2H", entry, 24)
    config = dict(_contents(entry[78:]))[b"avcC"]
    fits = width % 2 == 0 and height % 2 == 0 and width * height <= MOST_PIXELS
    return config if config[1] in _PLAIN_PROFILES and fits else None


def _places(table: dict[bytes, bytes]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First byte and length of every packet."""
    same_size, count = struct.unpack_from(">2I", table[b"stsz"], 4)
    if same_size:
        raise ValueError("frames of one size are not H.264")
    sizes = np.frombuffer(table[b"stsz"], ">u4", count, 12).astype(np.int64)
    starts = _numbers(table[b"stco"], 1)[:, 0] if b"stco" in table else _numbers(table[b"co64"], 1, ">u8")[:, 0]
    runs = _numbers(table[b"stsc"], 3)
    per_chunk = np.repeat(runs[:, 1], np.diff(np.append(runs[:, 0], len(starts) + 1)))
    if per_chunk.sum() != count or (per_chunk < 1).any() or len(per_chunk) != len(starts):
        raise ValueError("chunks that do not hold the frames")
    before = np.cumsum(sizes) - sizes
    first = np.cumsum(per_chunk) - per_chunk  # packet that each chunk begins with
    return np.repeat(starts - before[first], per_chunk) + before, sizes


def _closed(keys: NDArray[np.int64], shown: NDArray[np.int64]) -> bool:
    """Whether no frame that is decoded after a key frame is shown before it."""
    earliest_from_here = np.minimum.accumulate(shown[::-1])[::-1]
    rising = bool((np.diff(keys) > 0).all())
    return len(keys) > 0 and keys[0] == 0 and rising and bool((earliest_from_here[keys] == shown[keys]).all())


def _shows_all(edts: dict[bytes, bytes], first: int, end: int, scale: int, movie_scale: int) -> bool:
    """Whether the edit list is one edit that begins with the first frame and lasts to the end, but for rounding."""
    elst = edts[b"elst"]
    version, count = elst[0], struct.unpack_from(">I", elst, 4)[0]
    if count != 1:
        return False
    duration, start, rate, fraction = struct.unpack_from(">Qqhh" if version else ">Iihh", elst, 8)
    lasts = (duration + 1) * scale >= (end - start) * movie_scale
    return 0 <= start <= first and lasts and (rate, fraction) == (1, 0)
