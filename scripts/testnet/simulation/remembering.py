"""What makes simulations fast: work that every node does alike is done once, and no garbage is looked for."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from folkmoot.protocol.messages import Signed
from folkmoot.protocol.secure import dealing
from folkmoot.protocol.signing import Verifier

REMEMBERED = 1 << 16

_CHECKS = ("verify_share", "verify_commitments")
"""Pure functions that take most of secure mode's time in large federations."""


class RememberingVerifier:
    """Checks a signature once, though it reaches every node: all of them are shown the same object."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier
        self._good: dict[int, Signed] = {}

    def verify(self, signed: Signed) -> None:
        """Raise `RemoteProtocolError` on a bad signature."""
        if self._good.get(id(signed)) is signed:
            return
        self._verifier.verify(signed)
        self._good[id(signed)] = signed  # and so keeps the object, whose id nothing else can get


@contextmanager
def without_collector() -> Iterator[None]:
    """Meanwhile no garbage is looked for: there is hardly any, and looking took a third of a large run's time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def remembered_shares() -> Iterator[None]:
    """Meanwhile nothing about Feldman commitments is computed twice. A daemon checks each share once anyway."""
    honest: dict[str, Callable[..., Any]] = {name: getattr(dealing, name) for name in _CHECKS}
    try:
        for name, check in honest.items():
            setattr(dealing, name, lru_cache(REMEMBERED)(check))
        yield
    finally:
        for name, check in honest.items():
            setattr(dealing, name, check)
