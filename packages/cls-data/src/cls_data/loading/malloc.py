"""Tune the C allocator for CPU training."""

import ctypes
import sys

_M_TRIM_THRESHOLD = -1  # parameters of glibc's mallopt(3)
_M_MMAP_MAX = -4


def keep_freed_memory() -> bool:
    """Tell the C allocator to keep freed memory; return whether it supports that, as glibc's does.

    Each step frees batches and activations of several megabytes. By default the system maps and
    clears new pages for each of them, a quarter of a small network's training step on a CPU.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
