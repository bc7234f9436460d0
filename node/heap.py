"""One heap for all threads of the daemon.

glibc gives each thread a heap of its own, and keeps in each what was ever in use there. A daemon's worker threads take
turns with the same kind of work, so those heaps only hold the same memory several times.

What is free between things that are still used stays with the process, until it is told to give it back.
"""

import ctypes

_M_ARENA_MAX = -8  # from glibc's malloc.h


def share_one_heap() -> None:
    """Before any thread is started; does nothing where the C library is not glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def give_back() -> None:
    """Let the system have the pages that nothing lies on any more, some milliseconds' work; as above without glibc."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
