"""Rounds that were finished under an earlier charter, and that the ledger does not have yet."""

from folkmoot.node.archive import Archive
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.closing import submitting_before
from folkmoot.protocol.effects import Record
from folkmoot.protocol.messages import Statement
from folkmoot.protocol.record import decode_record
from folkmoot.protocol.timeline import Timeline
from folkmoot.protocol.typed_data import struct_hash
from folkmoot.protocol.types import Round


def unrecorded(
    archive: Archive, recorded: Round, first: Round, timeline: Timeline, name: str
) -> list[Record]:
    """Statements of the rounds after `recorded` and before `first`, under their quorums, for the outbox.

    As the machine of their own term would hand them in; `name` is this member's. Raises `RemoteProtocolError` where the
    archive is damaged, `CharterMissing`.
    """
    rounds = [round_ for round_ in archive.rounds() if recorded < round_ < first]
    return [_record(archive.record(round_) or b"", timeline.charter_at(round_), name) for round_ in rounds]


def _record(data: bytes, charter: Charter, name: str) -> Record:
    record = decode_record(data)
    statement = record.attestations[0].body
    assert isinstance(statement, Statement)
    turn = len(submitting_before(charter, charter.find_member(name), record.opening))
    return Record(statement, struct_hash(statement), record.attestations, turn)
