"""One heap for all threads of the daemon.

glibc gives each thread a heap of its own, and keeps in each what was ever in use there. A daemon's worker threads take
turns with the same kind of work, so those heaps only hold the same memory several times.
"""

import ctypes

_M_ARENA_MAX = -8  # from glibc's malloc.h


def share_one_heap() -> None:
    """Before any thread is started; does nothing where the C library is not glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
