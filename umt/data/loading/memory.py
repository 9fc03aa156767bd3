"""The allocator of a process that loads videos."""

import ctypes
import itertools
from typing import Any

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h


def keep_freed_memory() -> None:
    """Lets glibc keep freed memory for the next clip, instead of giving it back to the kernel each time.

    A clip passes through several buffers of some megabytes, and each new page costs a fault: on a virtual machine
    1.8 us, so that fresh memory took longer than a look-up table over the whole clip. The process stays as large as it
    once was. Other allocators (musl, jemalloc, macOS) are left as they are.
    """
    mallopt = _of_glibc("mallopt")
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, 1 << 30)
        mallopt(_MMAP_THRESHOLD, 32 << 20)  # the most that glibc takes


def tidy_heap() -> None:
    """Every `_EVERY` calls, glibc gives free pages within the heap back.

    A demuxer leaves holes that nothing else fits into: 37 MiB after 20 000 files.
    """
    if next(_calls) % _EVERY == 0:
        trim = _of_glibc("malloc_trim")
        if trim is not None:
            trim(0)


def _of_glibc(name: str) -> Any:
    try:
        return getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError, TypeError):
        return None


_calls = itertools.count(1)
_EVERY = 200
