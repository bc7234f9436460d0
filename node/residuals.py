"""What the 8-bit ring's rounding lost of this member's updates, kept so that the next update makes up for it.

Files in HOME/updates: `residual-<round>.f32` is the residual after a round that this node was part of, and
`residual-<round>-<roster>.staged` what it will be if that roster decides the round. Encoding a round reads the newest
residual of the rounds before it and stages another, so that asked again, it gives the same.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from folkmoot.node.train.vectors import read_pieces
from folkmoot.protocol.ring import CHUNK_VALUES, Float32s
from folkmoot.protocol.types import Digest, Round


class Residuals:
    """The residuals of one member, flat float32 vectors of `parameters` values. Every method blocks on the disk."""

    def __init__(self, folder: Path, parameters: int) -> None:
        self._folder = folder
        self._parameters = parameters

    def stage(self, round_: Round, roster: Digest) -> Iterator[Float32s]:
        """The residual before `round_`, in pieces of CHUNK_VALUES, to be changed in place into the one after it.

        A piece is written down when the next is asked for, and all of it put in place at the end. Raises
        `TrainerError` for a damaged file, `OSError`.
        """
        staged = self._staged(round_, roster)
        partial = staged.with_suffix(".part")
        with partial.open("wb") as file:
            for piece in self._before(round_):
                yield piece
                file.write(piece.data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(staged)

    def decide(self, round_: Round, roster: Digest) -> None:
        """The round is decided, with this roster, and my update is in it."""
        staged = self._staged(round_, roster)
        if staged.is_file():
            staged.replace(self._place(round_))

    def close(self, round_: Round, *, included: bool) -> None:
        """The round is done: drop what it leaves behind.

        If my update is in the model but what it lost is not known (another node told how the round ended), there is no
        residual: the older one has been made up for.
        """
        for path in self._folder.glob("residual-*.*"):
            is_residual = path.suffix == ".f32"
            if (included and _round_of(path) < round_) if is_residual else _round_of(path) <= round_:
                path.unlink(missing_ok=True)

    def give_up(self, round_: Round) -> None:
        """Drop the residuals from that round on. Older ones are gone by then: the next update begins without."""
        for path in self._folder.glob("residual-*.*"):
            if _round_of(path) >= round_:
                path.unlink(missing_ok=True)

    def _before(self, round_: Round) -> Iterator[Float32s]:
        known = (path for path in self._folder.glob("residual-*.f32") if _round_of(path) < round_)
        newest = max(known, key=_round_of, default=None)
        if newest is not None:
            yield from read_pieces(newest, self._parameters, CHUNK_VALUES)
            return
        for at in range(0, self._parameters, CHUNK_VALUES):
            yield np.zeros(min(CHUNK_VALUES, self._parameters - at), dtype="<f4")

    def _place(self, round_: Round) -> Path:
        return self._folder / f"residual-{round_:06d}.f32"

    def _staged(self, round_: Round, roster: Digest) -> Path:
        return self._folder / f"residual-{round_:06d}-{roster.hex()[:16]}.staged"


def _round_of(path: Path) -> Round:
    return int(path.stem.split("-")[1])
