"""Memory that was used once does not stay with the process."""

import subprocess
import sys

import pytest

SCRIPT = """
import os
from folkmoot.node.heap import give_back, share_one_heap
from folkmoot.node.status_file import rss_mb

share_one_heap()
kept = [bytes(20_000) for _ in range(4000)]  # 80 MB, too small to be given back one by one
del kept[1:-1]
kept += [bytes(20_000) for _ in range(10)]  # on top, so that the heap does not just shrink
before = rss_mb(os.getpid())
give_back()
print(before - rss_mb(os.getpid()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_free_memory_between_used_goes_back_to_the_system() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert float(done.stdout) > 50
