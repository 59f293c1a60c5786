"""How the C library hands out memory for tensors."""

from __future__ import annotations

import ctypes
import os
import platform

# Parameters of mallopt(3), in bytes.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
KEPT = 512 << 20
LARGEST_KEPT = 256 << 20
GROWN_BY = 64 << 20


def keep_freed_memory() -> None:
    """glibc returns what large tensors leave behind at once, and each step of a model that needs
    as much again waits for the system to clear it page by page: a tenth of the time of decoding,
    of encoding and of training. So up to half a gigabyte is kept.

    For the whole process, so only a program should ask for it. Does nothing where the C library
    is another one, or `MALLOC_TRIM_THRESHOLD_` says what to keep.
    """
    if platform.libc_ver()[0] != "glibc" or "MALLOC_TRIM_THRESHOLD_" in os.environ:
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)
    mallopt(M_TRIM_THRESHOLD, KEPT)
    mallopt(M_TOP_PAD, GROWN_BY)
