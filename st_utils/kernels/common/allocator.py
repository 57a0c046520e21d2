"""Makes the C library's allocator keep what a training step frees.

    keep_freed_memory()      # once, before training; True where the C library is glibc

Without it, a step on a CPU spends part of its time in page faults.
"""

from __future__ import annotations

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Keep freed blocks of any size for the next step; returns whether the C library accepts that.

    By default glibc maps large blocks at each allocation and unmaps them when they are freed: in every step the system
    maps and clears the same pages again. With this the process keeps the size of its peak. Other C libraries (musl,
    macOS, Windows) are left as they are.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(M_MMAP_THRESHOLD, LARGEST) and libc.mallopt(M_TRIM_THRESHOLD, LARGEST))
