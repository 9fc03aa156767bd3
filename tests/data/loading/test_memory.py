"""The allocator of a process that loads videos."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource
import numpy as np
from umt.data.loading.memory import keep_freed_memory

def augment():
    clip = np.ones(2_000_000, np.uint8)
    return (clip + 1).sum()

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        augment()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
before = faults()
keep_freed_memory()
faults()
print(before, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators are left as they are")
def test_clips_pass_through_memory_that_the_process_already_has() -> None:
    out = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout
    before, after = map(int, out.split())
    assert before > 2000  # given back and faulted in again, page by page
    assert after < 100
