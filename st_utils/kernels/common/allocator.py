"""The C library's allocator, told to keep what a training step frees."""

from __future__ import annotations

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Keep freed blocks for the next step, whatever their size; whether the C library could be told so.

    glibc maps large blocks anew at each allocation and gives them back when they are freed: every step then waits
    for the system to clear and map the same pages again. The process keeps the size of its peak. Other C libraries
    (musl, macOS, Windows) are left as they are.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(M_MMAP_THRESHOLD, LARGEST) and libc.mallopt(M_TRIM_THRESHOLD, LARGEST))
