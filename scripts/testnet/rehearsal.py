"""A federation in one process, for measuring how well it learns: the trainer's and the protocol's own functions, round
after round, without daemons, network and ledger.

What goes over the wire is encoded and decoded, sums are the exact integers of the mode, the mean takes the charter's
outer rule; only ballots and seals are left out, which change no bit of it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import msgspec
import numpy as np

from folkmoot.node.train import local, models
from folkmoot.node.train.fitting import Turn, fit
from folkmoot.node.train.objectives import Classification
from folkmoot.node.train.steering import Carried
from folkmoot.protocol.aggregate import Method, aggregate
from folkmoot.protocol.charter import Averaging, Secrecy, Training
from folkmoot.protocol.codec import codec_named, encode_vector
from folkmoot.protocol.outer import Outer, in_memory, take_step
from folkmoot.protocol.payload_sums import Payload
from folkmoot.protocol.ring import CHUNK_VALUES, Float32s, Int8s, Layout, compute_exponents, weight_of
from folkmoot.protocol.secure.encoding import RingDecoder, RingEncoder, member_weight
from folkmoot.protocol.secure.layout import ShardLayout
from folkmoot.testnet.examples import Rows


@dataclass(frozen=True)
class Terms:
    """What a charter says of learning, and the model."""

    kind: str
    layers: tuple[int, ...]
    training: Training
    averaging: Averaging = field(default_factory=Averaging)
    secrecy: Secrecy = field(default_factory=Secrecy)


class Rehearsal:
    """A federation at work: `snapshot` is what its members hold after the last round."""

    def __init__(self, terms: Terms, shares: Sequence[Rows], seed: int) -> None:
        """`shares`: each member's rows; `seed` draws the starting weights and the order of training."""
        self._terms = terms
        self._training = msgspec.structs.replace(terms.training, seed=seed)
        self._rows = [local.Rows.of(rows.x, rows.y) for rows in shares]
        self._module = models.build_seeded(terms.kind, terms.layers, seed)
        tensors = models.layout(self._module)
        weights = models.to_vector(self._module)
        has_controls = terms.training.correction == "scaffold"
        self._outer = Outer(len(weights), terms.averaging, (), has_controls, len(shares))
        self._sizes = [tensor.size for tensor in tensors] * (2 if has_controls else 1)
        self._own = [np.zeros(len(weights), np.float32) for _ in shares]
        self._objective = Classification(terms.layers[-1], terms.layers[-1])
        self.round = 0
        self.snapshot = self._outer.start(weights)

    @property
    def model(self) -> Float32s:
        """The parameters, flat."""
        return self.snapshot[: self._outer.parameters]

    def play(self, members: Sequence[int] | None = None) -> None:
        """One round, in which these members (all) take part."""
        self.round += 1
        chosen = range(len(self._rows)) if members is None else members
        common = self.snapshot[-self._outer.parameters :]
        updates = []
        for member in chosen:
            turn = Turn(f"node-{member}", self.round, self.model, Carried(self._own[member], common))
            made = fit(self._module, self._objective, self._rows[member], self._training, turn, _unwatched)
            self._own[member] = made.own
            updates.append(made.sent)
        exponents = np.max([self._exponents(update) for update in updates], axis=0).astype(np.int8)
        average = self._average_secure if self._terms.averaging.mode == "secure" else self._average_open
        self.snapshot = average(list(chosen), updates, exponents.tobytes())

    def accuracies(self, test: Rows) -> tuple[float, list[float]]:
        """Accuracy on the rows of `test`, and as each member would see it: on rows with its own mix of classes."""
        models.load_vector(self._module, self.model)
        self._module.eval()
        rows = local.Rows.of(test.x, test.y)
        right = (self._module(rows.x).argmax(dim=1) == rows.y).numpy()
        classes = range(self._terms.layers[-1])
        by_class = np.array([right[test.y == label].mean() for label in classes])
        mixes = [np.bincount(rows.y.numpy(), minlength=len(classes)) / len(rows) for rows in self._rows]
        return float(right.mean()), [float(mix @ by_class) for mix in mixes]

    def _exponents(self, update: Float32s) -> Int8s:
        averaging = self._terms.averaging
        return compute_exponents(update, Layout(self._sizes), averaging.exponent_min, averaging.exponent_max)

    def _average_open(self, members: list[int], updates: list[Float32s], exponents: bytes) -> Float32s:
        codec, cap = codec_named(self._terms.averaging.codec), self._terms.averaging.weight_cap
        payloads = [
            Payload(
                member,
                weight_of(len(self._rows[member]), cap),
                partial(list, [b"".join(encode_vector(codec, update))]),
            )
            for member, update in zip(members, updates, strict=True)
        ]
        method = Method(self._terms.averaging.codec, tuple(self._sizes), self._outer)
        return aggregate(method, exponents, payloads, self.snapshot).model

    def _average_secure(self, members: list[int], updates: list[Float32s], exponents: bytes) -> Float32s:
        """Without masks, which are gone from every sum."""
        layout = ShardLayout(sum(self._sizes), self._terms.secrecy.ring, len(self._rows), 1)
        total, weights = np.zeros(layout.parameters, dtype=layout.dtype), 0
        for member, update in zip(members, updates, strict=True):
            weight = member_weight(len(self._rows[member]), self._terms.averaging.weight_cap)
            values = np.zeros_like(total)
            RingEncoder(layout, self._sizes, exponents, weight).encode(update, 0, values)
            total += values
            weights += weight
        decoder = RingDecoder(layout, self._sizes, exponents)

        def means() -> Iterator[Float32s]:
            for at in range(0, len(total), CHUNK_VALUES):
                sums = total[at : at + CHUNK_VALUES]
                mean = np.empty(len(sums), dtype=np.float32)
                decoder.mean(sums, weights, at, mean)
                yield mean

        snapshots = in_memory(self._outer, self.snapshot)
        return take_step(self._outer, means(), len(members), snapshots)[0]


def _unwatched(done: int, total: int) -> None:
    """Nobody waits for the progress of a rehearsal."""
