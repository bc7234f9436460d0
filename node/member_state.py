"""Vectors that this member keeps for itself from round to round, and that advance with the rounds it is part of.

Files in HOME/updates: `NAME-<round>.f32` is the vector after a round that this node was part of, and
`NAME-<round>-<key>.staged` what it will be if that round ends so: the key is the roster's or the base model's digest,
whichever the vector depends on. Reading takes the newest of the rounds before and staging writes another, so that asked
again, a node does the same. See docs/decisions/member-state.md.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from folkmoot.node.train.vectors import read_pieces
from folkmoot.node.train.wire import OWN, PERSONAL
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.messages import SurvivorSet
from folkmoot.protocol.parts import Parts
from folkmoot.protocol.ring import CHUNK_VALUES, Float32s
from folkmoot.protocol.types import Digest, Round


class MemberState:
    """One vector of one member, flat float32 of `values`. Blocks on the disk.

    Before the first round it is zeros, or whatever its reader takes a missing file for.
    """

    def __init__(self, folder: Path, name: str, values: int, *, outlives_loss: bool = True) -> None:
        """`outlives_loss`: if a round that counted this member left nothing staged, the older vector still serves.

        Then older ones stay too, until no roll-back can ask for them (`settle`).
        """
        self.values = values
        self._folder = folder
        self._name = name
        self._outlives_loss = outlives_loss

    def before(self, round_: Round) -> Path | None:
        """The file of the vector before `round_`; None while there is none."""
        return self._newest(lambda path: round_kept(path) < round_)

    def newest(self) -> Path | None:
        """The file of the vector as it is now; None while there is none."""
        return self._newest(lambda path: True)

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
        if included and key is not None and self.staged(round_, key).is_file():
            self.staged(round_, key).replace(self._folder / f"{self._name}-{round_:06d}.f32")
        self._drop("*.staged", lambda path: round_kept(path) <= round_)
        self._drop("*.part", lambda path: round_kept(path) <= round_)
        if included and not self._outlives_loss:
            self._drop("*.f32", lambda path: round_kept(path) < round_)

    def settle(self, round_: Round) -> None:
        """Rounds up to that one are final: of the vectors after them only the newest can be asked for."""
        newest = self.before(round_ + 1)
        if newest is not None:
            self._drop("*.f32", lambda path: round_kept(path) < round_kept(newest))

    def give_up(self, round_: Round) -> None:
        """Drop what is from that round on, whose history no longer counts."""
        self._drop("*", lambda path: round_kept(path) >= round_)

    def _pieces(self, round_: Round) -> Iterator[Float32s]:
        newest = self.before(round_)
        if newest is not None:
            yield from read_pieces(newest, self.values, CHUNK_VALUES)
            return
        for at in range(0, self.values, CHUNK_VALUES):
            yield np.zeros(min(CHUNK_VALUES, self.values - at), dtype="<f4")

    def _newest(self, is_meant: Callable[[Path], bool]) -> Path | None:
        known = filter(is_meant, self._folder.glob(f"{self._name}-*.f32"))
        return max(known, key=round_kept, default=None)

    def _drop(self, kind: str, is_meant: Callable[[Path], bool]) -> None:
        for path in filter(is_meant, self._folder.glob(f"{self._name}-{kind}")):
            path.unlink(missing_ok=True)


class Residuals:
    """What writing updates down has lost of them: a vector for each fragment of the model, each with its own rounds."""

    def __init__(self, charter: Charter, folder: Path) -> None:
        count = charter.averaging.fragments
        names = ["residual"] if count == 1 else [f"residual{number}" for number in range(count)]
        values = charter.update_values
        self._states = [MemberState(folder, name, values, outlives_loss=False) for name in names]

    def at(self, round_: Round) -> MemberState:
        """That of what travels in a round."""
        return self._states[(round_ - 1) % len(self._states)]

    def before(self, round_: Round) -> Path | None:
        """See `MemberState.before`."""
        return self.at(round_).before(round_)

    def stage(self, round_: Round, key: Digest) -> Iterator[Float32s]:
        """See `MemberState.stage`."""
        return self.at(round_).stage(round_, key)

    def close(self, round_: Round, key: Digest | None, *, included: bool) -> None:
        """See `MemberState.close`."""
        self.at(round_).close(round_, key, included=included)

    def give_up(self, round_: Round) -> None:
        """See `MemberState.give_up`."""
        for state in self._states:
            state.give_up(round_)


@dataclass(frozen=True, slots=True)
class MemberStates:
    """All vectors of a member. `residuals`: what writing updates down has lost of them.

    `kept`: those that its trainer reads and writes, by the names that they have there (`train/wire.py`).
    """

    residuals: Residuals
    kept: Mapping[str, MemberState]

    @classmethod
    def of(cls, charter: Charter, folder: Path, beside: Sequence[str] = ()) -> "MemberStates":
        """Those in `folder`, HOME/updates; `beside` names the models that this member trains for itself."""
        parts = Parts(charter.model.tensors)
        sizes = dict.fromkeys(beside, parts.size - parts.count("frozen"))
        if charter.training.correction != "none" or charter.averaging.fragments > 1:
            sizes[OWN] = charter.model.shared_values
        if parts.count("personal"):
            sizes[PERSONAL] = parts.count("personal")
        return cls(
            Residuals(charter, folder),
            {name: MemberState(folder, name, values) for name, values in sizes.items()},
        )

    def close(self, round_: Round, survivors: SurvivorSet | None, *, included: bool) -> None:
        """The round is done, with these survivors if that is known; `included`: my update is in its model."""
        roster, base = (None, None) if survivors is None else (survivors.roster, survivors.base)
        self.residuals.close(round_, roster, included=included)
        for state in self.kept.values():
            state.close(round_, base, included=included)

    def settle(self, round_: Round) -> None:
        """The rounds up to that one are final."""
        for state in self.kept.values():
            state.settle(round_)

    def roll_back(self, round_: Round) -> None:
        """The rounds from that one on are undone."""
        self.residuals.give_up(round_)
        for state in self.kept.values():
            state.give_up(round_)


def round_kept(path: Path) -> Round:
    """The round that a file of such a vector is from."""
    return int(path.stem.split("-")[1])
