"""What must hold when a run is over: the ledger, the disks, the archives and the models tell one story."""

from typing import Protocol

from folkmoot.protocol.certificates import (
    compute_statement,
    verify_certificate,
    verify_final,
    verify_opening,
    verify_roster,
)
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.messages import Final, Statement, body_digest, encode, roster_digest
from folkmoot.protocol.messages import Roster as RosterBody
from folkmoot.protocol.record import RoundRecord
from folkmoot.protocol.typed_data import struct_hash
from folkmoot.protocol.types import Digest, Round
from folkmoot.testnet.simulation.chain import SimulatedLedger
from folkmoot.testnet.simulation.charters import Charters
from folkmoot.testnet.simulation.faults import Faults
from folkmoot.testnet.simulation.histories import Histories
from folkmoot.testnet.simulation.invariants import Broken
from folkmoot.testnet.simulation.lives import Lives
from folkmoot.testnet.simulation.node import Node
from folkmoot.testnet.simulation.trace import describe_frame
from folkmoot.testnet.simulation.workshop import Workshop


class Finished(Protocol):
    """A simulation whose run is over."""

    charters: Charters
    faults: Faults
    ledger: SimulatedLedger
    lives: Lives
    histories: Histories
    stands: bool
    honest: list[Node]

    @property
    def workshop(self) -> Workshop:
        """Where payloads and sums are."""
        ...


class Afterwards:
    """Raises `Broken`."""

    def __init__(self, finished: Finished) -> None:
        self._all = finished
        self._charters = finished.charters
        self._statements = [record.statement for record in finished.ledger.chain.records()]
        self._replayed: dict[bytes, None] = {}

    def check(self) -> None:
        """Look at everything."""
        self._check_chain()
        for node in self._all.honest:
            self._check_models(node)
            self._all.histories.check_proofs(node, list(map(struct_hash, self._statements)))
            self._check_journal(node)
            for round_, record in node.records.items():
                if self._all.stands and round_ > len(self._statements):
                    continue
                self._check_record(node, round_, record)

    def _check_chain(self) -> None:
        """Every round is recorded once, each statement on the one before it."""
        previous: Digest = self._charters.id
        for number, statement in enumerate(self._statements, start=1):
            charter = self._charters.at(number).federation.charter
            if (statement.round, statement.previous, statement.config) != (number, previous, charter.digest):
                raise Broken(
                    f"record {number} is of round {statement.round}, or of another charter than was in force, or does "
                    "not continue the one before"
                )
            previous = struct_hash(statement)

    def _check_models(self, node: Node) -> None:
        """What the ledger says is what the node holds."""
        for round_, model in node.models.items():
            if self._all.stands and round_ > len(self._statements):
                continue
            if self._statements[round_ - 1].model != model:
                raise Broken(f"{node.name} holds another model of round {round_} than is recorded")
        newest = self._charters.newest
        if self._all.stands:
            return
        if newest.has(node) and newest.federation.charter.schedule.rounds not in node.models:
            raise Broken(f"{node.name} does not hold the last model")

    # --- disks ----------------------------------------------------------------------------------------------

    def _check_journal(self, node: Node) -> None:
        """Nothing that was journalled is lost: a restarted node stands where this one does, and knows what it said."""
        if node.machine is None:  # it is no member any more
            return
        again = self._all.lives.make_machine(node)
        if node.is_forgetful:
            again.forget_what_was_signed()
        again.restore(node.read(), 0.0)
        here, there = node.machine.current, again.current
        stands = (here.round, here.base, here.previous)
        if (there.round, there.base, there.previous) != stands:
            raise Broken(f"{node.name} would begin again in round {there.round}, it is in round {here.round}")
        if node.person in self._all.faults.rewound:  # it hears from others what it said
            return
        said = {encode(one) for one in again.said}
        for signed in node.machine.said:
            if signed.body.round >= here.round - 1 and encode(signed) not in said:
                raise Broken(f"{node.name} would not remember that it signed {describe_frame(signed)}")

    # --- archives -------------------------------------------------------------------------------------------

    def _check_record(self, node: Node, round_: Round, record: RoundRecord) -> None:
        """An outsider finds the record whole and right, and comes to the same model."""
        key = encode(record)
        if key in self._replayed:
            return
        self._replayed[key] = None
        try:
            self._verify(record)
            replayed = self._all.workshop.replay(record)
        except RemoteProtocolError as error:
            raise Broken(f"{node.name}'s record of round {round_} does not verify: {error}") from error
        recorded = self._statements[round_ - 1]
        if record.attestations[0].body != recorded:
            raise Broken(f"{node.name}'s record of round {round_} is of another statement than the ledger's")
        if replayed != recorded.model:
            raise Broken(
                f"{node.name}'s record of round {round_} leads to another model than the recorded one"
            )

    def _verify(self, record: RoundRecord) -> None:
        era = self._charters.at(record.certificate.survivors.round)
        federation, verifier = era.federation, era.verifier
        verify_roster(record.roster, federation, verifier)
        verify_certificate(record.certificate, federation, verifier)
        verify_opening(record.opening, federation, verifier)
        statement = verify_final(Final(record.attestations, record.model), federation, verifier)
        survivors = record.certificate.survivors
        assert isinstance(record.roster.body, RosterBody)
        committed = [body_digest(one.body) for one in record.commitments]
        same = (
            record.opening.survivors == survivors,
            roster_digest(record.roster.member, record.roster.body) == survivors.roster,
            committed == [survivor.commitment for survivor in survivors.survivors],
            isinstance(statement, Statement)
            and statement == compute_statement(federation, survivors, record.model.root),
        )
        if not all(same):
            raise RemoteProtocolError("its parts are not of one round")
