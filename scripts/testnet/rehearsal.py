"""A federation in one process, for measuring how well it learns: the trainer's and the protocol's own functions, round
after round, without daemons, network and ledger.

What goes over the wire is encoded and decoded, sums are the exact integers of the mode, the mean takes the charter's
outer rule (`rehearsed_sums.py`); only ballots, masks and seals are left out, which change no bit of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from folkmoot.node.train import local, models
from folkmoot.node.train.fitting import Turn, fit
from folkmoot.node.train.objectives import Classification
from folkmoot.node.train.steering import Carried
from folkmoot.protocol.certificates import common_exponents
from folkmoot.protocol.charter import (
    Averaging,
    Charter,
    LedgerTerms,
    Member,
    Model,
    Schedule,
    Secrecy,
    Training,
)
from folkmoot.protocol.charter_options import check_options
from folkmoot.protocol.outer import Outer
from folkmoot.protocol.ring import Float32s, Layout, compute_exponents
from folkmoot.testnet.attacks import Attack, Floats, View
from folkmoot.testnet.examples import Rows
from folkmoot.testnet.rehearsed_sums import OpenSums, SecureSums, Sent


@dataclass(frozen=True)
class Terms:
    """What a charter says of learning, and the model."""

    kind: str
    layers: tuple[int, ...]
    training: Training
    averaging: Averaging = field(default_factory=Averaging)
    secrecy: Secrecy = field(default_factory=Secrecy)

    def charter(self, members: int, seed: int) -> Charter:
        """A charter of so many members without keys; raises `CharterError` where options do not combine."""
        module = models.build_seeded(self.kind, self.layers, seed)
        model = {"kind": self.kind, "layers": self.layers, "initial": "0" * 64}
        charter = Charter(
            name="rehearsal",
            model=msgspec.convert({**model, "tensors": models.layout(module)}, Model),
            schedule=Schedule(rounds=1),
            ledger=LedgerTerms(chain_id=1, code_hash="0" * 64),
            training=msgspec.structs.replace(self.training, seed=seed),
            averaging=self.averaging,
            secrecy=self.secrecy,
            members=tuple(_member(number) for number in range(members)),
        )
        check_options(charter, "rehearsal")
        return charter


def _member(number: int) -> Member:
    key = f"{number:064x}"
    return Member(
        name=f"node-{number}", peer_id=key, identity_key=key, sealing_key=key, audit_key=f"0x{number:040x}"
    )


class Rehearsal:
    """A federation at work: `snapshot` is what its members hold after the last round."""

    def __init__(
        self,
        terms: Terms,
        shares: Sequence[Rows],
        seed: int,
        attack: Attack | None = None,
        attackers: Sequence[int] = (),
        max_steps: Sequence[int] = (),
    ) -> None:
        """`shares`: each member's rows; `seed` draws the starting weights and the order of training.

        The `attackers` send what `attack` makes of the others' updates. `max_steps`: what each member takes at most in
        a round (0: what the charter says), as in its `node.toml`.
        """
        self.charter = terms.charter(len(shares), seed)
        self._rows = [local.Rows.of(rows.x, rows.y) for rows in shares]
        self._module = models.build_seeded(terms.kind, terms.layers, seed)
        weights = models.to_vector(self._module)
        self._outer = Outer.of(self.charter)
        self._own = [np.zeros(len(weights), np.float32) for _ in shares]
        self._objective = Classification(terms.layers[-1], terms.layers[-1])
        self._max_steps = max_steps or [0] * len(shares)
        self._sums = SecureSums(self.charter) if self.charter.is_secure else OpenSums(self.charter)
        self._attack, self._attackers = attack, tuple(attackers)
        self._random, self._before = np.random.default_rng(seed), np.empty(0, np.float32)
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
        updates = {member: self._train(member) for member in chosen if member not in self._attackers}
        if self._attack is not None:
            updates |= self._forge(self._attack, updates, [one for one in chosen if one in self._attackers])
        sent = self._sent(updates)
        self.snapshot = self._sums.step(self.round, self.snapshot, sent, self._exponents(sent))

    def accuracies(self, test: Rows) -> tuple[float, list[float]]:
        """Accuracy on the rows of `test`, and as each member would see it: on rows with its own mix of classes."""
        right = self.predicted(test) == test.y
        classes = range(self.charter.model.outputs)
        by_class = np.array([right[test.y == label].mean() for label in classes])
        mixes = [np.bincount(rows.y.numpy(), minlength=len(classes)) / len(rows) for rows in self._rows]
        return float(right.mean()), [float(mix @ by_class) for mix in mixes]

    def predicted(self, test: Rows) -> np.ndarray:
        """The class that the model finds most likely for each row."""
        models.load_vector(self._module, self.model)
        self._module.eval()
        found: np.ndarray = self._module(local.Rows.of(test.x, test.y).x).argmax(dim=1).numpy()
        return found

    def _train(self, member: int) -> Float32s:
        training, most = self.charter.training, self._max_steps[member]
        if most:
            training = msgspec.structs.replace(training, steps=min(most, training.steps or most))
        common = self.snapshot[-self._outer.parameters :]
        turn = Turn(f"node-{member}", self.round, self.model, Carried(self._own[member], common))
        made = fit(self._module, self._objective, self._rows[member], training, turn, _unwatched)
        self._own[member] = made.own
        return made.sent

    def _forge(
        self, attack: Attack, honest: dict[int, Float32s], attackers: Sequence[int]
    ) -> dict[int, Float32s]:
        """What the attackers send, who know everything."""

        def aggregate(rows: Floats) -> Floats:
            updates = rows.astype(np.float32)
            sent = self._sent(dict(zip((*honest, *attackers), updates, strict=True)))
            return self._sums.mean(self.round, sent, self._exponents(sent))

        rows = np.stack(list(honest.values()))
        before = self._before if len(self._before) else np.zeros_like(rows)
        forged = attack(View(rows, before, len(attackers), aggregate, self._random))
        self._before = rows
        return dict(zip(attackers, forged.astype(np.float32), strict=True))

    def _sent(self, updates: dict[int, Float32s]) -> list[Sent]:
        return [Sent(member, len(self._rows[member]), updates[member]) for member in sorted(updates)]

    def _exponents(self, sent: Sequence[Sent]) -> bytes:
        averaging, layout = self.charter.averaging, Layout(self.charter.update_sizes)
        bounds = averaging.exponent_min, averaging.exponent_max
        announced = [compute_exponents(self._sums.written(one), layout, *bounds).tobytes() for one in sent]
        return common_exponents(announced, self.charter.faults)


def _unwatched(done: int, total: int) -> None:
    """Nobody waits for the progress of a rehearsal."""
