"""The outer rule: from the mean of the members' updates to the next model, the same bits everywhere.

Every member computes it for itself, so that there is no server whose optimiser it could be. Where x is the model, d the
mean and the rest the rule's state, zeros at first:

    fedavg    x += rate d                                                      (McMahan et al. 2017)
    fedavgm   v = momentum v + d;  x += rate v                                 (Hsu et al. 2019)
    nesterov  v = momentum v + d;  x += rate (d + momentum v)                  (DiLoCo, Douillard et al. 2023)
    fedadam   m = momentum m + (1 - momentum) d;  s = second_momentum s + (1 - second_momentum) d^2;
              x += rate m / (sqrt(s) + epsilon)                                (Reddi et al. 2021)
    fedyogi   as fedadam, but s -= (1 - second_momentum) d^2 sign(s - d^2)     (Reddi et al. 2021)

A tensor of statistics takes the plain mean, x += d, whatever the rule. With SCAFFOLD the mean of the members' control
variates c is kept too: c += (summed members / all members) mean(change of c).

What all agree on is the *snapshot*, one flat float32 vector: the parameters, then each state, then c. A model's digest
is over that. One numpy call per operation, float32 in and out, no reductions (PROTOCOL section 5).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from typing import Generic, Self, TypeAlias, TypeVar

import msgspec
import numpy as np

from folkmoot.protocol.blob import ref_of
from folkmoot.protocol.charter import STATES, Charter
from folkmoot.protocol.charter_tables import Averaging, Tensor
from folkmoot.protocol.errors import LocalProtocolError
from folkmoot.protocol.outer_rules import RULES, Rates
from folkmoot.protocol.parts import Parts
from folkmoot.protocol.pieces import Buffer
from folkmoot.protocol.reader import Reader
from folkmoot.protocol.ring import CHUNK_VALUES, Float32s
from folkmoot.protocol.types import Round

OpenAt: TypeAlias = Callable[[int], Iterable[Buffer]]
"""Begins a pass over some bytes from a place on, in pieces of any size; every pass must give the same bytes."""

Piece: TypeAlias = tuple[int, Float32s]
"""The next values of one section of a snapshot (0: the parameters), to be used before the next is asked for."""

Stored = TypeVar("Stored")


@dataclass(frozen=True, slots=True)
class Outer:
    """An outer rule on a model of `parameters` values in a federation of so many `members`.

    `statistics` are the ranges of the flat vector that take the plain mean; `has_controls`: SCAFFOLD's variates follow.
    """

    parameters: int
    averaging: Averaging = field(default_factory=Averaging)
    statistics: tuple[tuple[int, int], ...] = ()
    has_controls: bool = False
    members: int = 1
    span: tuple[int, int] | None = None
    """The only values that an update is of (`Charter.fragment`); it is `padded` to a length that all rounds have."""
    padded: int = 0

    @classmethod
    def of(cls, charter: Charter, round_: Round | None = None) -> Self:
        """The charter's; of a model in fragments, a round's step is to be told the round."""
        ends = list(accumulate(charter.model.sizes))
        ranges = zip(charter.model.shared, ends, strict=True)
        return cls(
            parameters=charter.model.shared_values,
            averaging=charter.averaging,
            statistics=tuple((end - tensor.size, end) for tensor, end in ranges if tensor.statistic),
            has_controls=charter.has_controls,
            members=len(charter.members),
            span=charter.fragment(round_) if round_ is not None else None,
            padded=charter.update_values,
        )

    @property
    def states(self) -> int:
        """Vectors of state behind the parameters."""
        return STATES[self.averaging.rule]

    @property
    def sections(self) -> int:
        """Vectors of a snapshot, each of `parameters` values."""
        return 1 + self.states + self.has_controls

    @property
    def update_values(self) -> int:
        """Length of a member's update: its change of the parameters and, with SCAFFOLD, of its control variates."""
        return self.padded if self.span is not None else self.parameters * (1 + self.has_controls)

    def start(self, weights: Float32s) -> Float32s:
        """The snapshot before the first round: the starting weights, and nothing remembered."""
        snapshot = np.zeros(self.parameters * self.sections, dtype="<f4")
        snapshot[: self.parameters] = weights
        return snapshot


@dataclass(frozen=True, slots=True)
class Start:
    """How a federation begins: the snapshot, and what its personal and frozen tensors hold (`parts.py`); flat."""

    snapshot: Float32s
    personal: Float32s
    frozen: Float32s

    @classmethod
    def of(cls, charter: Charter, weights: Float32s) -> Self:
        """From a model's whole vector."""
        parts, whole = Parts(charter.model.tensors), weights.astype("<f4", copy=False)
        snapshot = Outer.of(charter).start(parts.take(whole, "shared"))
        return cls(snapshot, parts.take(whole, "personal"), parts.take(whole, "frozen"))

    @staticmethod
    def unknown(tensors: Sequence[Tensor]) -> dict[str, str]:
        """Stands for `digests` in a draft of a model with these tensors, until the weights are known."""
        parts = {tensor.part for tensor in tensors}
        named = {"initial": "shared", "personal_start": "personal", "frozen_values": "frozen"}
        return {name: "0" * 64 for name, part in named.items() if part in parts or part == "shared"}

    def digests(self) -> dict[str, str]:
        """What the charter's model says of it."""
        rest = {"personal_start": self.personal, "frozen_values": self.frozen}
        return {"initial": _digest(self.snapshot)} | {
            name: _digest(values) if len(values) else "" for name, values in rest.items()
        }


def _digest(vector: Float32s) -> str:
    return ref_of(vector.data).root.hex()


def with_start(charter: Charter, weights: Float32s) -> Charter:
    """The charter that begins from these weights, a whole vector."""
    digests = Start.of(charter, weights).digests()
    return msgspec.structs.replace(charter, model=msgspec.structs.replace(charter.model, **digests))


@dataclass(frozen=True, slots=True)
class Snapshots(Generic[Stored]):
    """Where the snapshot before a round lies, and what becomes of the one after it.

    `base` opens the one before, and `unchanged` stands for it. `store` is handed the new one in pieces, those of each
    section in order, and returns what stands for it. If the iteration raises, `store` must keep nothing and let the
    exception pass: the pieces were no snapshot, and it may be called again.
    """

    base: OpenAt
    store: Callable[[Iterator[Piece]], Stored]
    unchanged: Stored


def in_memory(outer: Outer, base: Float32s) -> Snapshots[Float32s]:
    """Both as whole vectors; raises LocalProtocolError for a base that is none."""
    length = outer.parameters * outer.sections
    if base.dtype != np.float32 or base.shape != (length,):
        raise LocalProtocolError(f"base is {base.dtype}{base.shape}, expected float32({length},)")
    flat = base.astype("<f4", copy=False).data.cast("B")
    return Snapshots(lambda start: [flat[start:]], partial(collect, outer), base)


class NoMeanError(Exception):
    """There is no mean: the round changes nothing."""


def take_step(
    outer: Outer, mean: Iterable[Float32s], summed: int, snapshots: Snapshots[Stored]
) -> tuple[Stored, bool]:
    """The snapshot after a round, and whether it is another than before.

    `mean` comes in pieces of at most CHUNK_VALUES, which are overwritten, of the updates of `summed` members. It is
    read to its end in any case, and may end in `NoMeanError`.
    """
    step = OuterStep(outer, snapshots.base, summed)

    def pieces() -> Iterator[Piece]:
        yield from step.begin()
        for piece in mean:
            yield from step.take(piece)
        yield from step.end()

    try:
        return snapshots.store(pieces()), True
    except NoMeanError:
        return snapshots.unchanged, False


class OuterStep:
    """One round's step, given the mean piece by piece. Holds scratch memory for a few chunks, so it is for one thread.

    `is_finite` turns False at the first value that is not: then the round changes neither model nor state.
    """

    def __init__(self, outer: Outer, base: OpenAt, summed: int) -> None:
        """`base` opens the snapshot before; `summed` is the number of members in the mean."""
        self.is_finite = True
        self._outer, self._rates = outer, Rates.of(outer.averaging)
        self._rule = RULES[outer.averaging.rule]
        self._readers = [
            Reader(base(4 * outer.parameters * section), "base model") for section in range(outer.sections)
        ]
        self._share = np.divide(np.float32(summed), np.float32(outer.members))
        self._span = outer.span or (0, outer.update_values)
        self._at = 0
        self._taken = 0
        length = min(CHUNK_VALUES, outer.parameters)
        self._states = [np.empty(length, dtype="<f4") for _ in range(outer.states)]
        self._scratch = np.empty(length, dtype="<f4")

    def begin(self) -> Iterator[Piece]:
        """What lies before the values that the mean is of, as it was; before the first `take`."""
        yield from self._pass_on(self._span[0])

    def take(self, mean: Float32s) -> Iterator[Piece]:
        """The next values of the new snapshot, for the next at most CHUNK_VALUES of the mean, which is overwritten."""
        self._taken += len(mean)
        mean = mean[: self._span[1] - self._at]  # without what a fragment is filled up with
        while len(mean) and self.is_finite:
            piece = mean[: self._outer.parameters - self._at % self._outer.parameters]
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                pieces = (
                    self._parameters(piece) if self._at < self._outer.parameters else self._controls(piece)
                )
            self.is_finite = all(bool(np.isfinite(values).all()) for _, values in pieces)
            self._at += len(piece)
            mean = mean[len(piece) :]
            if self.is_finite:
                yield from pieces

    def end(self) -> Iterator[Piece]:
        """After the whole mean, the rest of the snapshot as it was; raises NoMeanError if a result was not finite.

        And LocalProtocolError if the mean was too short, or the base is of another length.
        """
        if not self.is_finite:
            raise NoMeanError
        if self._taken != self._outer.update_values:
            raise LocalProtocolError(
                f"a mean of {self._taken} values, an update has {self._outer.update_values}"
            )
        if self._outer.span is not None:
            yield from self._pass_on(self._outer.parameters)
        self._readers[-1].finish()

    def _pass_on(self, until: int) -> Iterator[Piece]:
        """The snapshot's sections up to a parameter, unchanged."""
        while self._at < until:
            count = min(CHUNK_VALUES, until - self._at)
            for section in range(self._outer.sections):
                yield section, self._read(section, count)
            self._at += count

    def _parameters(self, mean: Float32s) -> list[Piece]:
        base = self._read(0, len(mean))
        states = [state[: len(mean)] for state in self._states]
        for section, state in enumerate(states, 1):
            np.copyto(state, self._read(section, len(mean)))
        plain = [(span, np.add(base[span], mean[span])) for span in self._plain(len(mean))]
        model = self._rule(self._rates, base, mean, states, self._scratch[: len(mean)])
        for span, values in plain:
            model[span] = values
            for state in states:
                state[span] = 0
        return [(0, model), *enumerate(states, 1)]

    def _controls(self, mean: Float32s) -> list[Piece]:
        section = self._outer.sections - 1
        np.multiply(mean, self._share, out=mean)
        np.add(self._read(section, len(mean)), mean, out=mean)
        return [(section, mean)]

    def _read(self, section: int, count: int) -> Float32s:
        return np.frombuffer(self._readers[section].take(4 * count), dtype="<f4")

    def _plain(self, count: int) -> Iterator[slice]:
        """Where the next `count` parameters are statistics."""
        for start, stop in self._outer.statistics:
            low, high = max(start - self._at, 0), min(stop - self._at, count)
            if low < high:
                yield slice(low, high)


def collect(outer: Outer, pieces: Iterable[Piece]) -> Float32s:
    """A whole snapshot from its pieces."""
    snapshot = np.empty(outer.parameters * outer.sections, dtype="<f4")
    ends = [outer.parameters * section for section in range(outer.sections)]
    for section, values in pieces:
        snapshot[ends[section] : ends[section] + len(values)] = values
        ends[section] += len(values)
    return snapshot
