"""Files that a folder of videos may hold, most of them damaged: what the fuzz of the readers is fed.

`sources` renders a few whole videos and other files; `variant(n)` damages one of them, a function of (seed, n) alone.
"""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from tests.videos import cut, picture, render, rotate
from umt.randomness import generator

HUGE = (0, 1, 7, 8, 0x7FFF, 0xFFFF, 0x00FFFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
PARENTS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"moof", b"traf", b"mvex", b"udta")


@dataclass(frozen=True)
class Sources:
    """Whole files by what they are; `mp4s` names those that are MP4 of H.264, which most kinds of damage start from."""

    files: dict[str, bytes]
    mp4s: tuple[str, ...]


def sources(folder: Path) -> Sources:
    """Renders them: a second or two."""
    made: dict[str, Path] = {}

    def add(name: str, ending: str = ".mp4", **options: object) -> Path:
        made[name] = render(folder / f"{name.replace(' ', '_')}{ending}", **{"frames": 14, **options})  # type: ignore[arg-type]
        return made[name]

    add("plain")
    add("one group", gop=250, frames=20)
    add("with sound", audio=True)
    add("open groups", open_gop=True, gop=6)
    add("index first", muxer={"movflags": "faststart"})
    add("in fragments", muxer={"movflags": "frag_keyframe+empty_moov"})
    add("baseline", b_frames=0, options={"profile": "baseline"})
    add("one frame", frames=1)
    add("wide", width=640, height=16)
    add("tiny", width=2, height=2)
    add("variable rate", pts=[0, 1, 5, 6, 20, 21, 40, 41, 42, 43, 100, 101, 102, 300])
    made["stream copy"] = cut(made["with sound"], folder / "cut.mp4", 7)
    mp4s = tuple(made)
    for degrees in (90, 180, 270):
        made[f"rotated {degrees}"] = rotate(add("to rotate"), degrees).rename(folder / f"rotated{degrees}.mp4")
    del made["to rotate"]
    add("odd size", width=63, height=47, pix_fmt="yuv444p")
    add("odd size 4:2:0", codec="mpeg4", width=63, height=47)
    add("grey", pix_fmt="gray")
    add("10 bits", pix_fmt="yuv420p10le")
    add("4:2:2, 10 bits", pix_fmt="yuv422p10le")
    add("MPEG-4 part 2", codec="mpeg4")
    add("Motion JPEG", codec="mjpeg", pix_fmt="yuvj420p")
    add("Matroska", ".mkv")
    add("WebM", ".webm", codec="libvpx-vp9")
    add("VP8", ".webm", codec="libvpx")
    add("AVI", ".avi", codec="mpeg4", b_frames=0)
    add("transport stream", ".ts")
    add("program stream", ".mpg", codec="mpeg2video")
    add("Flash", ".flv")
    add("bare H.264", ".h264")
    add("animated GIF", ".gif", codec="gif", pix_fmt="rgb8")
    files = {name: path.read_bytes() for name, path in made.items()}
    image = picture(0, 64, 48)
    for ending in (".jpg", ".png", ".webp", ".bmp", ".tiff"):
        files[f"image {ending}"] = cv2.imencode(ending, image)[1].tobytes()
    files |= {f"sound {ending}": _sound(folder, ending) for ending in (".m4a", ".mp3", ".wav")}
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("video.mp4", files["plain"])
    files |= {
        "zip": archive.getvalue(),
        "gzip": gzip.compress(files["plain"], mtime=0),
        "web page": b"<!doctype html><html><head><title>404 Not Found</title></head><body>gone</body></html>\n" * 20,
        "JSON": b'{"error": {"code": 403, "message": "Video unavailable"}}',
        "LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n",
        "play list": b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:9.0,\n/etc/passwd\n#EXT-X-ENDLIST\n",
        "list of files": b"ffconcat version 1.0\nfile '/etc/hostname'\n",
        "zeros": bytes(65536),
        "noise": generator(0, "noise").bytes(65536),
        "one byte": b"\0",
        "no frame": _without_frames(files["plain"]),
        "index alone": b"".join(data for kind, data in _top(files["plain"]) if kind in (b"ftyp", b"moov")),
        "frames alone": b"".join(data for kind, data in _top(files["plain"]) if kind in (b"ftyp", b"mdat")),
    }
    return Sources(files, mp4s)


def _sound(folder: Path, ending: str) -> bytes:
    path = folder / f"sound{ending}"
    with av.open(str(path), "w") as container:
        codec = {".m4a": "aac", ".mp3": "libmp3lame", ".wav": "pcm_s16le"}[ending]
        stream = container.add_stream(codec, rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.int16), format="s16", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = 16000, Fraction(1, 16000), 0
        container.mux([*stream.encode(frame), *stream.encode(None)])
    return path.read_bytes()


def _top(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        yield kind, data[at : at + size]
        at += size


def _without_frames(data: bytes) -> bytes:
    """The MP4 with all its tables empty."""
    made = bytearray(data)
    for kind, at, _ in boxes(data):
        if kind in (b"stts", b"ctts", b"stss", b"stsc", b"stsz", b"stco"):
            struct.pack_into(">I", made, at + (16 if kind == b"stsz" else 12), 0)
    return bytes(made)


def boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[bytes, int, int]]:
    """Name, first byte and size of every box of an MP4, depth first."""
    at, end = start, len(data) if end is None else end
    while at + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, at)
        if not 8 <= size <= end - at:
            return
        yield kind, at, size
        if kind in PARENTS:
            yield from boxes(data, at + 8, at + size)
        at += size


# ---- kinds of damage: (data, rng) -> data

Damage = Callable[[bytes, np.random.Generator], bytes]


def _place(data: bytes, rng: np.random.Generator, within: bytes | None = None) -> int:
    """Any byte, or one in the boxes of that name, if there are any."""
    found = [(at, size) for kind, at, size in boxes(data) if kind == within] if within else []
    at, size = found[rng.integers(len(found))] if found else (0, len(data))
    return int(at + rng.integers(size)) if size else 0


def truncated(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: int(rng.integers(len(data))) if rng.random() < 0.9 else int(rng.integers(1, 64))]


def bits_flipped(data: bytes, rng: np.random.Generator, within: bytes | None = None) -> bytes:
    made = bytearray(data)
    for _ in range(int(2 ** rng.uniform(0, 7))):
        made[_place(data, rng, within)] ^= 1 << int(rng.integers(8))
    return bytes(made)


def index_flipped(data: bytes, rng: np.random.Generator) -> bytes:
    return bits_flipped(data, rng, b"moov")


def codec_header_flipped(data: bytes, rng: np.random.Generator) -> bytes:
    return bits_flipped(data, rng, b"stsd")


def zeroed(data: bytes, rng: np.random.Generator) -> bytes:
    at, length = _place(data, rng), int(2 ** rng.uniform(2, 13))
    return data[:at] + bytes(min(length, len(data) - at)) + data[at + length :]


def overwritten(data: bytes, rng: np.random.Generator) -> bytes:
    at, length = _place(data, rng), int(2 ** rng.uniform(2, 11))
    return data[:at] + rng.bytes(min(length, len(data) - at)) + data[at + length :]


def bytes_lost(data: bytes, rng: np.random.Generator) -> bytes:
    at = _place(data, rng)
    return data[:at] + data[at + int(2 ** rng.uniform(0, 11)) :]


def bytes_repeated(data: bytes, rng: np.random.Generator) -> bytes:
    at, length = _place(data, rng), int(2 ** rng.uniform(0, 11))
    return data[: at + length] + data[at:]


def tail_added(data: bytes, rng: np.random.Generator) -> bytes:
    return data + (bytes(4096) if rng.random() < 0.5 else rng.bytes(4096))


def box_size_changed(data: bytes, rng: np.random.Generator) -> bytes:
    made, found = bytearray(data), list(boxes(data))
    if not found:
        return overwritten(data, rng)
    _, at, size = found[rng.integers(len(found))]
    if rng.random() < 0.3 and size >= 16:  # the form with 64 bits
        struct.pack_into(">I", made, at, 1)
        sizes = (0, 15, 1 << 31, 1 << 40, 1 << 62, 1 << 63, (1 << 64) - 1)
        struct.pack_into(">Q", made, at + 8, sizes[rng.integers(len(sizes))])
    else:
        struct.pack_into(">I", made, at, int(rng.choice([*HUGE, size - 1, size + 1])))
    return bytes(made)


def number_changed(data: bytes, rng: np.random.Generator) -> bytes:
    """A count or an entry of a table, a size in pixels, a time scale, a duration: any aligned number of the index."""
    made = bytearray(data)
    wanted = (
        b"stts",
        b"ctts",
        b"stss",
        b"stsc",
        b"stsz",
        b"stco",
        b"elst",
        b"mvhd",
        b"mdhd",
        b"tkhd",
        b"trun",
        b"stsd",
    )
    found = [(at, size) for kind, at, size in boxes(data) if kind in wanted and size >= 12]
    if not found:
        return overwritten(data, rng)
    for _ in range(int(rng.integers(1, 3))):
        at, size = found[rng.integers(len(found))]
        place = at + 8 + 4 * int(rng.integers((size - 8) // 4 if rng.random() < 0.5 else min((size - 8) // 4, 4)))
        struct.pack_into(">I", made, place, int(rng.choice(HUGE)))
    return bytes(made)


def matrix_changed(data: bytes, rng: np.random.Generator) -> bytes:
    made = bytearray(data)
    for kind, at, _ in boxes(data):
        if kind == b"tkhd":
            numbers = rng.choice([0, 1 << 16, -(1 << 16), 46341, -46341, 1, 2**31 - 1], size=4)
            a, b, c, d = map(int, numbers)
            struct.pack_into(">5i", made, at + 48, a, b, 0, c, d)
    return bytes(made)


def untouched(data: bytes, rng: np.random.Generator) -> bytes:
    return data


DAMAGES: dict[str, Damage] = {
    "truncated": truncated,
    "bits flipped": bits_flipped,
    "bits of the index flipped": index_flipped,
    "bits of the codec's header flipped": codec_header_flipped,
    "a run of zeros": zeroed,
    "a run of noise": overwritten,
    "bytes lost": bytes_lost,
    "bytes repeated": bytes_repeated,
    "something behind the end": tail_added,
    "a box's size changed": box_size_changed,
    "a number of the index changed": number_changed,
    "the matrix changed": matrix_changed,
}
WHOLE = "whole, or another kind of file"
ENDINGS = (".mp4", ".mkv", ".avi", ".ts", ".webm", ".mov", "")


@dataclass(frozen=True)
class Variant:
    """A file of the fuzz: what was done to what, the ending that it is given, and its bytes."""

    damage: str
    source: str
    ending: str
    data: bytes


def variant(whole: Sources, seed: int, number: int) -> Variant:
    """The first ones are every source untouched; then damage after damage, in turns."""
    rng, names = generator(seed, "fuzz", number), list(whole.files)
    if number < len(names):
        damage, name = WHOLE, names[number]
    else:
        damage = list(DAMAGES)[number % len(DAMAGES)]
        # Half of them are of MP4 with H.264, which is what most lists are of.
        name = str(rng.choice(whole.mp4s if rng.random() < 0.5 else names))
    apply = DAMAGES.get(damage, untouched)
    data = apply(whole.files[name], rng)
    ending = ".mp4" if rng.random() < 0.8 else str(rng.choice(ENDINGS))
    return Variant(damage, name, ending, data)
