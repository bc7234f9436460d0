"""Whatever went wrong in a round of secure mode: the record that each node archives proves it to an outsider."""

from collections.abc import Callable

import pytest

from folkmoot.protocol.effects import ArchiveRound, Effect
from folkmoot.protocol.messages import Commitment, Lock, Roster, Signed
from folkmoot.protocol.record import RoundRecord
from folkmoot.protocol.secure import verify
from folkmoot.testnet.simulation.faults import Faults
from folkmoot.testnet.simulation.federation import Simulation
from folkmoot.testnet.simulation.node import Node


class Trusting:
    """Signatures are checked elsewhere (`tests/unit/test_audit_secure.py`)."""

    def verify(self, signed: Signed) -> None:
        """All are good."""


class Recording(Simulation):
    """Keeps what every node archives."""

    def __init__(self, seed: int, faults: Faults) -> None:
        super().__init__(seed, 4, 5, faults, secure=True)
        self.records: list[RoundRecord] = []

    def _carry_out(self, node: Node, effect: Effect) -> None:
        if isinstance(effect, ArchiveRound):
            self.records.append(effect.record)
        super()._carry_out(node, effect)


@pytest.mark.parametrize(
    "faults",
    [
        lambda seed: Faults(loss=0.1, duplicate=0.2, latency=(0.005, 1.0)),
        lambda seed: Faults(latency=(0.005, 0.3), crashes=5, broken_off=5),
        lambda seed: Faults(latency=(0.005, 0.3), partitions=4),
        lambda seed: Faults(latency=(0.005, 0.3), two_faced=(seed % 4,)),
        lambda seed: Faults(latency=(0.005, 0.3), dead=(seed % 4,)),
        lambda seed: Faults(latency=(0.005, 0.3), wrong_sums=(seed % 4,)),
        lambda seed: Faults(latency=(0.005, 0.3), wrong_prints=(seed % 4,)),
        lambda seed: Faults(latency=(0.005, 0.3), odd_seeds=(seed % 4,)),
    ],
    ids=["losses", "crashes", "partitions", "two-faced", "dead", "wrong sums", "wrong prints", "odd seeds"],
)
def test_every_archived_record_holds_what_an_auditor_needs(faults: Callable[[int], Faults]) -> None:
    for seed in range(4):
        simulation = Recording(seed, faults(seed))
        simulation.run(1200.0)
        assert len(simulation.records) >= 5
        for record in simulation.records:
            check(simulation, record)


def check(simulation: Simulation, record: RoundRecord) -> None:
    """The record holds sums, a quorum's fingerprints and all that takes the masks off."""
    unmasking, roster, lock = record.unmasking, record.roster.body, record.opening.locks[0].body
    assert unmasking is not None and isinstance(roster, Roster) and isinstance(lock, Lock)
    bodies = (signed.body for signed in record.commitments)
    commitments = {body.member: body for body in bodies if isinstance(body, Commitment)}
    round_ = verify.MaskedRound(simulation.federation, roster, record.opening.survivors, commitments, lock)
    verify.verify_commitments(round_)
    assert len(verify.verify_sums(round_, unmasking.sums, Trusting())) == 4
    for signed in unmasking.fingerprints:
        verify.verify_fingerprint(round_, signed, Trusting())
    assert verify.is_quorum(round_, unmasking.fingerprints)
    releases = verify.verify_releases(round_, unmasking.seeds, unmasking.shares)
    assert not verify.missing_seeds(round_, releases)
    assert not verify.missing_shares(round_, releases)
