"""No memory of this process on a disk: the daemon holds keys, mask secrets and its member's updates.

A core dump would hold them all, in a file that whoever collects crash reports can read.
"""

import ctypes
import resource

from folkmoot.protocol.errors import FolkmootError

_PR_SET_DUMPABLE = 4  # from Linux's prctl.h


def forbid_core_dumps() -> None:
    """For this process and, as far as the size of a dump goes, for all that it starts.

    On Linux the process is marked as undumpable too: a limit of size does not bind a dump that is piped to a crash
    handler, and no other process of the same user may then read this one's memory. Raises `FolkmootError` where
    neither can be had.
    """
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (OSError, ValueError) as error:
        raise FolkmootError(f"cannot forbid core dumps, which would hold secret keys: {error}") from error
    prctl = getattr(ctypes.CDLL(None, use_errno=True), "prctl", None)  # not on macOS
    if prctl is not None and prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise FolkmootError(
            f"cannot mark the process as undumpable, it would show secret keys: errno {ctypes.get_errno()}"
        )
