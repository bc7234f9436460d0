"""A process that holds keys leaves no memory of itself on disks."""

import resource
import subprocess
import sys
from collections.abc import Callable

import pytest

from folkmoot.node import no_dumps
from folkmoot.protocol.errors import FolkmootError

PROGRAM = """
import ctypes, resource, subprocess, sys
from folkmoot.node.no_dumps import forbid_core_dumps

resource.setrlimit(resource.RLIMIT_CORE, resource.getrlimit(resource.RLIMIT_CORE)[1:] * 2)
forbid_core_dumps()
get = getattr(ctypes.CDLL(None), "prctl", lambda *_: 0)
child = "import resource; print(*resource.getrlimit(resource.RLIMIT_CORE))"
print(get(3, 0, 0, 0, 0), *resource.getrlimit(resource.RLIMIT_CORE), flush=True)
subprocess.run([sys.executable, "-c", child], check=True)
"""


def test_neither_the_process_nor_its_children_dump_core() -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["0", "0", "0", "0", "0"]


def refuse(*_: object) -> None:
    raise ValueError("not allowed to raise maximum limit")


def fail(*_: object) -> int:
    return -1


@pytest.mark.parametrize(
    ("patch", "reason"),
    [
        (lambda patch: patch.setattr(resource, "setrlimit", refuse), "cannot forbid core dumps.*not allowed"),
        (
            lambda patch: (
                patch.setattr(resource, "setrlimit", lambda *_: None),
                patch.setattr(no_dumps.ctypes, "CDLL", lambda *_, **__: type("Library", (), {"prctl": fail})),
            ),
            "cannot mark the process as undumpable",
        ),
    ],
    ids=["limit", "prctl"],
)
def test_a_system_that_refuses_is_named(
    patch: Callable[[pytest.MonkeyPatch], object], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    patch(monkeypatch)
    with pytest.raises(FolkmootError, match=reason):
        no_dumps.forbid_core_dumps()
