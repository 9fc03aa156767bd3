"""What is looked at in a pickle of somebody else's before any of it is read. No torch."""

from __future__ import annotations

import io
import itertools
import pickletools

_MOST = 1_000_000  # operations that are looked at; weights of a large model have some ten thousand
_FIRST = 5  # pickles of a file: torch's old form has its numbers in three before the content


def memo_is_sound(content: bytes) -> bool:
    """Whether no entry of the memo lies beyond the pickle's own length: for such a number memory would be taken first.

    Raises ValueError for bytes that are no pickle.
    """
    return all(
        int(argument or 0) <= len(content)
        for code, argument, _ in pickletools.genops(content)
        if code.name in ("PUT", "LONG_BINPUT")
    )


def named_in(content: bytes) -> list[str]:
    """The classes and functions that pickles of protocol 4 and later name, as far as they can be read."""
    stream, found = io.BytesIO(content), list[str]()
    memo: list[str] = []
    try:
        for _ in range(_FIRST):
            texts: list[str] = []
            memo.clear()
            for code, argument, _ in itertools.islice(pickletools.genops(stream), _MOST):
                if code.name == "STACK_GLOBAL":
                    found.append(".".join(texts[-2:]))
                elif code.name == "MEMOIZE":
                    memo.append(texts[-1] if texts else "")
                elif code.name in ("BINGET", "LONG_BINGET"):
                    texts.append(memo[argument] if argument is not None and argument < len(memo) else "")
                elif isinstance(argument, str):
                    texts.append(argument)
    except (ValueError, IndexError, OverflowError, MemoryError):
        pass  # the end of what is a pickle
    return found
