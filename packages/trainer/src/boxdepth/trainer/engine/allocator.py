"""The C library's memory: kept from step to step instead of given back after each."""

import ctypes
import os
from typing import Final

_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
"""Numbers of glibc's `mallopt`."""

LARGEST_KEPT: Final = 32 << 20
"""Bytes of the largest piece that is kept: what glibc goes up to by itself. Larger ones go back."""

OF_THE_USER: Final = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Let glibc keep what a step frees: the next one takes it again without a page fault.

    For a process that trains; it stays as large as it was at its largest.  What the user has set in
    the environment stands.

    Returns:
        Whether anything was changed: False with another C library, too.
    """
    if any(name in os.environ for name in OF_THE_USER):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):  # no glibc
        return False
    return bool(mallopt(_MMAP_THRESHOLD, LARGEST_KEPT) and mallopt(_TRIM_THRESHOLD, 2**31 - 1))
