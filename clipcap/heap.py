"""Keeping the memory that a model's tensors have left, instead of returning it to the system.

glibc maps each large tensor anew, and returns the top of its heap as soon as it is free. The
system has to clear every page of it again then, thousands for one image: on a CPU, a sixth of the
time that captioning takes and a third of what training takes.

Source: mallopt(3).
"""

from __future__ import annotations

import ctypes
import sys

# From glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8
INT_MAX = 2**31 - 1


def keep_freed_memory() -> bool:
    """Make what is freed stay with this process, for whatever it allocates next.

    For programs, before they start threads: it holds for the whole process, which will never take
    less memory again than it has taken at most. Returns whether the C library can do so.
    """
    if sys.platform != "linux":
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    settings = {
        # One heap: those of threads cannot hold a large tensor, and are unmapped when empty.
        M_ARENA_MAX: 1,
        M_MMAP_MAX: 0,
        M_TRIM_THRESHOLD: INT_MAX,
    }
    return all([library.mallopt(name, value) for name, value in settings.items()])
