"""The allocator of a process that loads videos."""

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h


def keep_freed_memory() -> None:
    """Lets glibc keep what is freed for the next clip, instead of giving it back to the kernel, time after time.

    A clip passes through several buffers of some megabytes, and each page of a new one costs a fault: on a virtual
    machine 1.8 us, so that fresh memory took longer than a look-up table over the whole clip. The process stays as
    large as it once was. Other allocators (musl, jemalloc, macOS) are left as they are.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(_TRIM_THRESHOLD, 1 << 30)
    mallopt(_MMAP_THRESHOLD, 32 << 20)  # the most that glibc takes
