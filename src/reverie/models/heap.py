"""Memory between two products: a process that computes on a CPU keeps what it has."""

import ctypes
import os
import platform

MMAP_THRESHOLD, TRIM_THRESHOLD, TOP_PAD = -3, -1, -2
"""The numbers of glibc's malloc.h."""
OWN_WISHES = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_")


def keep_memory() -> bool:
    """Makes this process keep up to 1 GiB that it has freed; whether that was done.

    glibc returns freed blocks of 32 MiB and more to the system, and asks for them again a moment later, page by page,
    each filled with zeros: a tenth of the time of painting batches on two cores (docs/speed.md). Blocks of 128 MiB and
    more, such as weights, still go back. Whoever tunes malloc by the environment is left alone, as are other systems.
    """
    if platform.libc_ver()[0] != "glibc" or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    if any(name in os.environ for name in OWN_WISHES):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all([mallopt(MMAP_THRESHOLD, 2**27), mallopt(TRIM_THRESHOLD, 2**30), mallopt(TOP_PAD, 2**26)])
