"""Looks into H.264 packets: which frames can be left out, and where decoding can begin.

ITU-T H.264 (ISO/IEC 14496-10): section 7.4.1 (types of parts, nal_ref_idc), 7.4.3 (slice_type); Annex B (start codes);
ISO/IEC 14496-15 (lengths instead of start codes in MP4 and Matroska).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_SLICE, _KEY_SLICE = 1, 5
_BESIDE = {6, 9, 12}  # supplemental information, a delimiter, filler: no decoding needs them
_INTRA = {2, 4, 7, 9}  # types of slices that are predicted from nothing
_START = re.compile(b"\0\0\1")


def parts(packet: bytes, prefix: int | None) -> Iterator[bytes]:
    """The parts (NAL units) of a packet, each behind its length in `prefix` bytes, or behind a start code if None."""
    if prefix is None:
        starts = [match.end() for match in _START.finditer(packet)]
        for start, end in zip(starts, [*(s - 3 for s in starts[1:]), len(packet)], strict=True):
            yield packet[start:end]
        return
    at = 0
    while at + prefix < len(packet):
        end = at + prefix + int.from_bytes(packet[at : at + prefix], "big")
        yield packet[at + prefix : end]
        at = end


def prefix_of(config: bytes | None) -> int | None:
    """How many bytes the length of a part takes, from the decoder's configuration; None: start codes."""
    return 1 + (config[4] & 3) if config and len(config) > 4 and config[0] == 1 else None


def needed(packet: bytes, prefix: int | None) -> bool:
    """Whether another frame may be predicted from this one, or the packet brings something else, such as parameters."""
    for part in parts(packet, prefix):
        kind = part[0] & 31 if part else -1
        if part[0] & 0x60 if kind == _SLICE else kind not in _BESIDE:
            return True
    return False


def begins_anew(packet: bytes, prefix: int | None) -> bool:
    """Whether this is an IDR frame: neither it nor any later one is predicted from earlier ones."""
    return any(part[0] & 31 == _KEY_SLICE for part in parts(packet, prefix) if part)


def is_intra(packet: bytes, prefix: int | None) -> bool:
    """Whether the frame itself is predicted from nothing: IDR, or slices of type I alone."""
    kinds = [(part[0] & 31, part) for part in parts(packet, prefix) if part]
    slices = [part for kind, part in kinds if kind == _SLICE]
    return any(kind == _KEY_SLICE for kind, _ in kinds) or (bool(slices) and all(map(_intra_slice, slices)))


def _intra_slice(part: bytes) -> bool:
    # The header begins with two numbers in Exp-Golomb code: the first macroblock, and the type.
    bits = "".join(f"{byte:08b}" for byte in part[1:16].replace(b"\0\0\3", b"\0\0"))
    at = 0
    value = 0
    for _ in range(2):
        zeros = bits.find("1", at) - at
        if zeros < 0:
            return False
        at += zeros
        value = int(bits[at : at + zeros + 1] or "0", 2) - 1
        at += zeros + 1
    return value in _INTRA
