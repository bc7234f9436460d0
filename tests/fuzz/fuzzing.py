"""What all fuzz targets share: what a target is, and what counts as a finding.

A target reads bytes as a peer, an RPC or a stranger's file may bring them. It may refuse them with the errors that it
names, and nothing else; it may not take long, nor much memory.
"""

import contextlib
import importlib
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

TARGETS = (
    "addresses",
    "control",
    "message",
    "fork",
    "update",
    "charter",
    "permit",
    "journal",
    "ledger",
    "bundle",
)

SECONDS = 1.0
"""CPU time that one input may take."""
MEGABYTES = 256
"""By how much one input may raise the process's peak of memory."""

FINDINGS = Path(__file__).with_name("findings")
"""Inputs that once were findings, `<target>/<what it was>`; every run and the tests begin with them."""


class Finding(AssertionError):
    """An input that did what no input may do."""


@dataclass(frozen=True)
class Target:
    """One entry point: `read` takes the bytes in; `seeds` are good ones to begin with."""

    name: str
    read: Callable[[bytes], None]
    errors: tuple[type[Exception], ...]
    seeds: Callable[[], list[bytes]]
    max_bytes: int = 4096

    def try_input(self, data: bytes) -> None:
        """Raises `Finding`, or whatever `read` raised that is not among `errors`."""
        peak, began = _peak_megabytes(), time.process_time()
        with contextlib.suppress(self.errors):
            self.read(data)
        if (seconds := time.process_time() - began) > SECONDS:
            raise Finding(f"{self.name}: {len(data)} bytes took {seconds:.1f} s")
        if (more := _peak_megabytes() - peak) > MEGABYTES:
            raise Finding(f"{self.name}: {len(data)} bytes took {more:.0f} MB")

    def known(self) -> Iterator[bytes]:
        """Seeds, then what was found before."""
        yield from self.seeds()
        for path in sorted((FINDINGS / self.name).glob("*")):
            yield path.read_bytes()


def load(name: str) -> Target:
    """The target in `fuzz_<name>.py`."""
    target: Target = importlib.import_module(f"fuzz_{name}").TARGET
    return target


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
