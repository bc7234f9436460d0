"""How a living federation records: every few rounds if the charter says so, one by one if nothing else is left."""

from pathlib import Path

import living_federation
import msgspec
import pytest
from audited_federation import AuditedFederation
from living_federation import House, LivingFederation, in_virtual_time

from folkmoot.protocol.messages import Final, Signed, Statement, decode_frame


def is_attestation(data: bytes) -> bool:
    frame = decode_frame(data)
    return isinstance(frame, Final) or (isinstance(frame, Signed) and isinstance(frame.body, Statement))


class Muffled(living_federation.Tap):
    """Loses every attestation, on direct streams and in gossip."""

    async def send(self, member: int, data: bytes) -> None:
        if not is_attestation(data):
            await super().send(member, data)

    async def publish(self, data: bytes) -> None:
        if not is_attestation(data):
            await super().publish(data)


def is_archived(house: House) -> bool:
    return house.archive.rounds() == [1, 2, 3]


def test_the_ledger_gathers_what_members_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(living_federation, "Tap", Muffled)

    async def story() -> None:
        federation = LivingFederation(tmp_path, rounds=3)
        # Every home gets its record with a quorum, as if that had come over the wires.
        await federation.run(until=lambda one: one.is_complete() and all(map(is_archived, one.houses)))
        federation.check()
        for record in federation.chain.records():
            assert len(record.signers) == 3
        paid = [federation.chain.nonce(bytes([member + 1]) * 20) for member in range(4)]
        assert all(transactions <= 3 for transactions in paid)

    in_virtual_time(story)


def test_rounds_are_recorded_as_seldom_as_the_charter_says(tmp_path: Path) -> None:
    async def story() -> None:
        terms = AuditedFederation().charter.ledger
        federation = LivingFederation(tmp_path, rounds=7, ledger=msgspec.structs.replace(terms, cadence=3))
        await federation.run()
        federation.check()
        records = federation.chain.records()
        transactions = list(dict.fromkeys(record.transaction for record in records))
        assert [
            [record.statement.round for record in records if record.transaction == one]
            for one in transactions
        ] == [[1, 2, 3], [4, 5, 6], [7]]

    in_virtual_time(story)
