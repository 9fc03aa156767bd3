"""Looks into H.264 packets: which frames can be left out, and where decoding can begin.

ITU-T H.264 (ISO/IEC 14496-10): section 7.4.1 (types of parts, nal_ref_idc), 7.4.3 (slice_type), 7.3.2.1.1 (sequence
parameter sets), 9.1 (Exp-Golomb numbers), Annex B (start codes); ISO/IEC 14496-15 (lengths instead of them, in MP4).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_SLICE, _KEY_SLICE, _PARAMETERS = 1, 5, 7
_NOT_DECODED = {6, 9, 12}  # supplemental information, a delimiter, filler
_INTRA = {2, 4, 7, 9}  # types of slices that are predicted from nothing
_PROFILES_WITH_CHROMA = {100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135}
_START = re.compile(b"\0\0\1")


def parts(packet: bytes, prefix: int | None) -> Iterator[bytes]:
    """The parts (NAL units) of a packet, each after its length in `prefix` bytes, or after a start code if None."""
    if prefix is None:
        starts = [match.end() for match in _START.finditer(packet)]
        # Without a start code, as in a damaged packet, there is no part.
        for start, end in zip(starts, [*(s - 3 for s in starts[1:]), len(packet)], strict=False):
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
    """Whether another frame may be predicted from this one, or the packet holds anything else, such as parameters."""
    for part in parts(packet, prefix):
        kind = part[0] & 31 if part else -1
        if part[0] & 0x60 if kind == _SLICE else kind not in _NOT_DECODED:
            return True
    return False


def is_idr(packet: bytes, prefix: int | None) -> bool:
    """Whether this is an IDR frame, at which decoding can begin: neither it nor a later one needs earlier ones."""
    return any(part[0] & 31 == _KEY_SLICE for part in parts(packet, prefix) if part)


def is_intra(packet: bytes, prefix: int | None) -> bool:
    """Whether the frame itself is predicted from nothing: IDR, or slices of type I alone."""
    kinds = [(part[0] & 31, part) for part in parts(packet, prefix) if part]
    slices = [part for kind, part in kinds if kind == _SLICE]
    return any(kind == _KEY_SLICE for kind, _ in kinds) or (bool(slices) and all(map(_intra_slice, slices)))


def _intra_slice(part: bytes) -> bool:
    bits = _Bits(part[1:40])
    try:
        bits.number()  # its first macroblock
        return bits.number() in _INTRA
    except EOFError:
        return False


def may_be_interlaced(config: bytes | None) -> bool:
    """Whether the configuration allows frames that are two fields, whose colours are separate."""
    if prefix_of(config) is None:
        sets = [part for part in parts(config or b"", None) if part and part[0] & 31 == _PARAMETERS]
    else:
        assert config is not None
        sets = [config[8 : 8 + int.from_bytes(config[6:8], "big")]] if len(config) > 8 else []
    try:
        return any(not _frames_only(_Bits(parameters[1:])) for parameters in sets)
    except EOFError:  # cut off: the decoder will fail with it
        return False


def _frames_only(bits: _Bits) -> bool:
    """frame_mbs_only_flag of a sequence parameter set, section 7.3.2.1.1; the fields before it are skipped."""
    profile = bits.fixed(8)
    bits.fixed(16)
    bits.number()
    if profile in _PROFILES_WITH_CHROMA:
        chroma = bits.number()
        if chroma == 3:
            bits.fixed(1)
        bits.number()
        bits.number()
        bits.fixed(1)
        if bits.fixed(1):
            for i in range(12 if chroma == 3 else 8):
                if bits.fixed(1):
                    _skip_scaling_list(bits, 16 if i < 6 else 64)
    bits.number()
    order = bits.number()
    if order == 0:
        bits.number()
    elif order == 1:
        bits.fixed(1)
        bits.number()
        bits.number()
        for _ in range(bits.number()):
            bits.number()
    bits.number()
    bits.fixed(1)
    bits.number()
    bits.number()
    return bits.fixed(1) == 1


def _skip_scaling_list(bits: _Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            code = bits.number()
            following = (last + ((code + 1) // 2 if code % 2 else -(code // 2))) % 256
        last = following or last


class _Bits:
    """Numbers in Exp-Golomb code and of fixed length. Raises EOFError at the end."""

    def __init__(self, content: bytes) -> None:
        # Within a part, 0 0 3 is written for 0 0, so that no start code can occur.
        self._bits = "".join(f"{byte:08b}" for byte in content.replace(b"\0\0\3", b"\0\0"))
        self._at = 0

    def fixed(self, count: int) -> int:
        if self._at + count > len(self._bits):
            raise EOFError
        self._at += count
        return int(self._bits[self._at - count : self._at] or "0", 2)

    def number(self) -> int:
        first = self._bits.find("1", self._at)
        if first < 0:
            raise EOFError
        zeros = first - self._at
        self._at = first
        return self.fixed(zeros + 1) - 1
