"""Keeps freed memory for the next batch, instead of giving it back to the system and asking for it again."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of glibc's mallopt(3)


def keep_freed_memory() -> bool:
    """Tell the C library's allocator not to return memory to the system, for the rest of this process.

    BatchDataset and activations of some megabytes are freed at every step. By default each is mapped anew, and the system
    clears every page of it first: a quarter of a small network's training step on a CPU.

    Returns:
        Whether the allocator knows how, which glibc's does and others need not.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, 2**31 - 1))
