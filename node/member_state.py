"""Vectors that this member keeps for itself from round to round, and that advance with the rounds it is part of.

Files in HOME/updates: `NAME-<round>.f32` is the vector after a round that this node was part of, and
`NAME-<round>-<key>.staged` what it will be if that round ends so: the key is the roster's or the base model's digest,
whichever the vector depends on. Reading takes the newest of the rounds before and staging writes another, so that asked
again, a node does the same. See docs/decisions/member-state.md.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from folkmoot.node.train.vectors import read_pieces
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.messages import SurvivorSet
from folkmoot.protocol.ring import CHUNK_VALUES, Float32s
from folkmoot.protocol.types import Digest, Round


class MemberState:
    """One vector of one member, flat float32 of `values`; zeros before the first round. Blocks on the disk."""

    def __init__(self, folder: Path, name: str, values: int, *, outlives_loss: bool) -> None:
        """`outlives_loss`: if a round that counted this member left nothing staged, the older vector still serves."""
        self._folder = folder
        self._name = name
        self._values = values
        self._outlives_loss = outlives_loss

    def before(self, round_: Round) -> Path | None:
        """The file of the vector before `round_`; None while it is zeros."""
        known = (path for path in self._folder.glob(f"{self._name}-*.f32") if _round_of(path) < round_)
        return max(known, key=_round_of, default=None)

    def staged(self, round_: Round, key: Digest) -> Path:
        """Where what it will be is written, whole, by whoever computes it."""
        return self._folder / f"{self._name}-{round_:06d}-{key.hex()[:16]}.staged"

    def stage(self, round_: Round, key: Digest) -> Iterator[Float32s]:
        """The vector before `round_`, in pieces of CHUNK_VALUES, to be changed in place into the one after it.

        A piece is written down when the next is asked for, and all of it put in place at the end. Raises
        `TrainerError` for a damaged file, `OSError`.
        """
        staged = self.staged(round_, key)
        partial = staged.with_suffix(".part")
        with partial.open("wb") as file:
            for piece in self._pieces(round_):
                yield piece
                file.write(piece.data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(staged)

    def close(self, round_: Round, key: Digest | None, *, included: bool) -> None:
        """The round is done: keep what was staged if my update is in the model, and drop what the round leaves behind.

        `key` tells how it ended, None if that is not known here. May be told again of a round, after a restart.
        """
        place = self._folder / f"{self._name}-{round_:06d}.f32"
        if included and key is not None and self.staged(round_, key).is_file():
            self.staged(round_, key).replace(place)
        is_used_up = included and (place.is_file() or not self._outlives_loss)
        for path in self._folder.glob(f"{self._name}-*.*"):
            is_old = (
                is_used_up and _round_of(path) < round_
                if path.suffix == ".f32"
                else _round_of(path) <= round_
            )
            if is_old:
                path.unlink(missing_ok=True)

    def give_up(self, round_: Round) -> None:
        """Drop what is from that round on, whose history no longer counts. Older is gone by then: zeros again."""
        for path in self._folder.glob(f"{self._name}-*.*"):
            if _round_of(path) >= round_:
                path.unlink(missing_ok=True)

    def _pieces(self, round_: Round) -> Iterator[Float32s]:
        newest = self.before(round_)
        if newest is not None:
            yield from read_pieces(newest, self._values, CHUNK_VALUES)
            return
        for at in range(0, self._values, CHUNK_VALUES):
            yield np.zeros(min(CHUNK_VALUES, self._values - at), dtype="<f4")


@dataclass(frozen=True, slots=True)
class MemberStates:
    """All vectors of a member. `residuals`: what writing updates down has lost of them. `own`: its correction's."""

    residuals: MemberState
    own: MemberState

    @classmethod
    def of(cls, charter: Charter, folder: Path) -> "MemberStates":
        """Those in `folder`, HOME/updates."""
        return cls(
            MemberState(folder, "residual", charter.update_values, outlives_loss=False),
            MemberState(folder, "own", charter.model.parameters, outlives_loss=True),
        )

    def close(self, round_: Round, survivors: SurvivorSet | None, *, included: bool) -> None:
        """The round is done, with these survivors if that is known; `included`: my update is in its model."""
        roster, base = (None, None) if survivors is None else (survivors.roster, survivors.base)
        self.residuals.close(round_, roster, included=included)
        self.own.close(round_, base, included=included)

    def roll_back(self, round_: Round) -> None:
        """The rounds from that one on are undone."""
        for state in (self.residuals, self.own):
            state.give_up(round_)


def _round_of(path: Path) -> Round:
    return int(path.stem.split("-")[1])
