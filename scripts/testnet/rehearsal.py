"""A federation in one process, for measuring how well it learns: the trainer's and the protocol's own functions, round
after round, without daemons, network and ledger.

What goes over the wire is encoded and decoded, sums are the exact integers of the mode, the mean takes the charter's
outer rule (`rehearsed_sums.py`); only ballots, masks and seals are left out, which change no bit of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from folkmoot.node.charter_draft import model_terms
from folkmoot.node.train import local, models
from folkmoot.node.train.accounting import Budget
from folkmoot.node.train.custom import CustomSource
from folkmoot.node.train.fitting import Turn, fit
from folkmoot.node.train.noise import Noise
from folkmoot.node.train.objectives import Classification
from folkmoot.node.train.steering import Carried
from folkmoot.node.train.vectors import Fragment
from folkmoot.node.train.wire import Metrics
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.charter_options import check_options
from folkmoot.protocol.charter_tables import (
    Averaging,
    LedgerTerms,
    Member,
    Model,
    Privacy,
    Schedule,
    Secrecy,
    Training,
)
from folkmoot.protocol.outer import Outer, Start
from folkmoot.protocol.parts import Parts
from folkmoot.protocol.privacy import planned_rounds
from folkmoot.protocol.ring import Float32s
from folkmoot.protocol.secure.masked_noise import plan_noise
from folkmoot.testnet.attacks import Attack, Floats, View
from folkmoot.testnet.examples import Rows
from folkmoot.testnet.rehearsed_sums import Sent, sums_of


@dataclass(frozen=True)
class Terms:
    """What a charter says of learning, and the model; `shared` and `frozen` are patterns, as a draft takes them.

    `source`: where a custom model comes from.
    """

    kind: str
    layers: tuple[int, ...]
    training: Training
    averaging: Averaging = field(default_factory=Averaging)
    secrecy: Secrecy = field(default_factory=Secrecy)
    image: tuple[int, ...] = ()
    shared: str = ""
    frozen: str = ""
    source: CustomSource | None = None
    privacy: Privacy = field(default_factory=Privacy)
    rounds: int = 1

    def charter(self, members: int, seed: int) -> Charter:
        """A charter of so many members without keys; raises `CharterError` where options do not combine."""
        module = models.build_seeded(self.kind, self.layers, seed, self.source, self.image)
        table = {"kind": self.kind, "layers": self.layers, "image": self.image}
        patterns = {"shared": self.shared, "frozen": self.frozen}
        model = model_terms(table, models.layout(module), patterns)
        charter = Charter(
            name="rehearsal",
            model=msgspec.convert(model, Model),
            schedule=Schedule(rounds=self.rounds),
            ledger=LedgerTerms(chain_id=1, code_hash="0" * 64),
            training=msgspec.structs.replace(self.training, seed=seed),
            averaging=self.averaging,
            secrecy=self.secrecy,
            privacy=self.privacy,
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
        self._module = models.build_seeded(terms.kind, terms.layers, seed, terms.source, terms.image)
        tensors = self.charter.model.tensors
        models.freeze(self._module, {tensor.name for tensor in tensors if tensor.part == "frozen"})
        start = Start.of(self.charter, models.to_vector(self._module))
        self._parts, self._outer = Parts(tensors), Outer.of(self.charter)
        self._own = [np.zeros(self._outer.parameters, np.float32) for _ in shares]
        self._personal, self._frozen = [start.personal for _ in shares], start.frozen
        self._objective = Classification(terms.layers[-1], terms.layers[-1])
        self._max_steps = max_steps or [0] * len(shares)
        self._sums = sums_of(self.charter, self.charter.digest)
        self._attack, self._attackers = attack, tuple(attackers)
        self._random, self._before = np.random.default_rng(seed), np.empty(0, np.float32)
        self.round = 0
        self.snapshot = start.snapshot

    @property
    def model(self) -> Float32s:
        """The shared parameters, flat."""
        return self.snapshot[: self._outer.parameters]

    def model_of(self, member: int) -> Float32s:
        """The whole model as a member has it, flat."""
        personal = self._personal[member]
        return self._parts.join({"shared": self.model, "personal": personal, "frozen": self._frozen})

    def play(self, members: Sequence[int] | None = None) -> None:
        """One round, in which these members (all) take part."""
        self.round += 1
        chosen = range(len(self._rows)) if members is None else members
        updates = {member: self._train(member) for member in chosen if member not in self._attackers}
        if self._attack is not None:
            updates |= self._forge(self._attack, updates, [one for one in chosen if one in self._attackers])
        self.snapshot = self._sums.step(self.round, self.snapshot, self._sent(updates))

    def accuracies(self, test: Rows) -> tuple[float, list[float]]:
        """Accuracy on the rows of `test`, and as each member would see it: on rows with its own mix of classes.

        Where members have personal tensors, the first is the mean over all of them.
        """
        known = range(len(self._rows) if len(self._personal[0]) else 1)
        right = np.stack([self.predicted(test, member) == test.y for member in known])
        classes = self.charter.model.outputs
        by_class = np.stack([right[:, test.y == label].mean(axis=1) for label in range(classes)], axis=1)
        mixes = [np.bincount(rows.y.numpy(), minlength=classes) / len(rows) for rows in self._rows]
        own = np.broadcast_to(by_class, (len(mixes), classes))
        return float(right.mean()), [float(mix @ row) for mix, row in zip(mixes, own, strict=True)]

    def measure(self, rows: Rows, member: int = 0) -> Metrics:
        """The measures of a member's model on these rows, as a node takes them."""
        models.load_vector(self._module, self.model_of(member))
        return local.evaluate(self._module, self._objective, local.Rows.of(rows.x, rows.y), _unwatched)

    def predicted(self, test: Rows, member: int = 0) -> np.ndarray:
        """The class that a member's model finds most likely for each row; all have one if all of it is shared."""
        models.load_vector(self._module, self.model_of(member))
        self._module.eval()
        found: np.ndarray = self._module(local.Rows.of(test.x, test.y).x).argmax(dim=1).numpy()
        return found

    def _train(self, member: int) -> Float32s:
        training, most = self.charter.training, self._max_steps[member]
        if most:
            training = msgspec.structs.replace(training, steps=min(most, training.steps or most))
        common = self.snapshot[-self._outer.parameters :]
        carried, start = Carried(self._own[member], common), self.model_of(member)
        span = self.charter.fragment(self.round)
        fragment = None if span is None else Fragment(*span, self.charter.update_values)
        turn = Turn(f"node-{member}", self.round, start, carried, self._parts, fragment)
        rows = self._rows[member]
        noise = self._noise(rows, training) if self.charter.is_private else None
        made = fit(self._module, self._objective, rows, training, turn, _unwatched, noise=noise)
        self._own[member], self._personal[member] = made.own, made.personal
        return made.sent

    def _noise(self, rows: local.Rows, training: Training) -> Noise:
        """As a member's budget has it, with what the rounds before cost left out: they are planned to fit."""
        charter, steps = self.charter, local.count_steps(self._module, len(rows), training)
        plan, values = plan_noise(charter), charter.model.shared_values
        planned = planned_rounds(charter)
        return Budget(charter.privacy, planned, len(rows), training.batch, steps, plan, values).noise

    def _forge(
        self, attack: Attack, honest: dict[int, Float32s], attackers: Sequence[int]
    ) -> dict[int, Float32s]:
        """What the attackers send, who know everything."""

        def aggregate(rows: Floats) -> Floats:
            updates = rows.astype(np.float32)
            sent = self._sent(dict(zip((*honest, *attackers), updates, strict=True)))
            return self._sums.mean(self.round, sent)

        rows = np.stack(list(honest.values()))
        before = self._before if len(self._before) else np.zeros_like(rows)
        forged = attack(View(rows, before, len(attackers), aggregate, self._random))
        self._before = rows
        return dict(zip(attackers, forged.astype(np.float32), strict=True))

    def _sent(self, updates: dict[int, Float32s]) -> list[Sent]:
        claimed = self.charter.claimed_examples
        fragment = (self.round - 1) % self.charter.averaging.fragments
        return [Sent(one, claimed(len(self._rows[one])), updates[one], fragment) for one in sorted(updates)]


def _unwatched(done: int, total: int) -> None:
    """Nobody waits for the progress of a rehearsal."""
