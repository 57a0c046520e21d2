"""Makes the C library's allocator keep what a training step frees.

    keep_freed_memory()      # True where the C library is glibc

The first kernel that is loaded calls it (compiler.py), so that a step on a CPU does not spend a part of its time in
page faults. ZOO_KEEP_FREED_MEMORY=0 in the environment leaves the allocator as it is, for programs that must give
memory back.
"""

from __future__ import annotations

import ctypes
import os
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Keep freed blocks of any size for the next step; returns whether that is wanted and the C library accepts it.

    By default glibc maps large blocks at each allocation and unmaps them when they are freed: in every step the system
    maps and clears the same pages again. With this the process keeps the size of its peak. Other C libraries (musl,
    macOS, Windows) are left as they are.
    """
    if os.environ.get("ZOO_KEEP_FREED_MEMORY") == "0":
        return False
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(M_MMAP_THRESHOLD, LARGEST) and libc.mallopt(M_TRIM_THRESHOLD, LARGEST))
