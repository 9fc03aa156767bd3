"""What is looked at in a pickle of somebody else's before any of it is read. No torch."""

from __future__ import annotations

import pickletools


def memo_is_sound(content: bytes) -> bool:
    """Whether no entry of the memo lies beyond the pickle's own length: for such a number memory would be taken first.

    Raises ValueError for bytes that are no pickle.
    """
    return all(
        int(argument or 0) <= len(content)
        for code, argument, _ in pickletools.genops(content)
        if code.name in ("PUT", "LONG_BINPUT")
    )
