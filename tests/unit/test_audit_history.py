"""Charters by round, what is remembered between audits, and what became of contributions that did not count."""

from pathlib import Path

import msgspec
import pytest
from audited_federation import CONTRACT, AuditedFederation, record, removal, signed_amendment
from nacl.public import PrivateKey

from folkmoot.ledger.audit import Audited, AuditReport, Source, audit, memory
from folkmoot.ledger.audit.memory import MemoryUnusable, Remembered
from folkmoot.ledger.audit.report import MemberRow
from folkmoot.ledger.memory import MemoryChain, MemoryLedger
from folkmoot.ledger.port import Record
from folkmoot.node.archive import Archive
from folkmoot.node.config import Home
from folkmoot.node.store import Journal
from folkmoot.protocol.charter_tables import Auditor, Schedule
from folkmoot.protocol.journal import Entry, Proposed, Said, encode_entry, entry_kind
from folkmoot.protocol.messages import (
    Commitment,
    Evidence,
    Omission,
    Proposal,
    Propose,
    Roster,
    Vote,
    encode,
    roster_digest,
)
from folkmoot.protocol.validation import omitted_digest


def not_passed(report: AuditReport) -> dict[str, str]:
    return {
        check.id: check.status.value for check in report.checks if check.status not in ("PASS", "SKIPPED")
    }


def run(ledger: MemoryLedger, *homes: Path, remembered: Remembered | None = None) -> Audited:
    sources = [Source.of_home(home) for home in homes]
    return audit([ledger], sources, contract=CONTRACT, recall=lambda _: remembered)


# --- charters by round ------------------------------------------------------------------------------------------------


@pytest.fixture
def amended(tmp_path: Path) -> tuple[AuditedFederation, MemoryLedger, Path]:
    """Two rounds of four members, two of the three that remain."""
    made = AuditedFederation(schedule=Schedule(rounds=9, max_ahead=1))
    ledger = MemoryLedger(MemoryChain(made.identity), bytes(20))
    record(ledger, made.add_round().finalize)
    amendment, after = removal(made, "dave", effective=3)
    record(ledger, amendment)
    record(ledger, made.add_round().finalize)
    made.change_charter(after)
    for _ in range(2):
        record(ledger, made.add_round(survivors=(0, 1, 2)).finalize)
    return made, ledger, made.write_home(tmp_path / "alice").path


def test_each_round_is_held_to_the_charter_in_force(
    amended: tuple[AuditedFederation, MemoryLedger, Path],
) -> None:
    _, ledger, home = amended
    report = run(ledger, home).report
    assert not_passed(report) == {}, report.findings
    assert report.check("replay").detail == "4 records"
    assert [row.survivors for row in report.rounds] == [4, 4, 3, 3]
    contributed = {member.name: (member.contributed, len(member.rounds)) for member in report.members}
    assert contributed == {"alice": (4, 0), "bob": (4, 0), "carol": (4, 0), "dave": (2, 0)}


def test_without_the_amended_charter_its_rounds_are_not_judged(
    amended: tuple[AuditedFederation, MemoryLedger, Path],
) -> None:
    _, ledger, home = amended
    for path in (home / "charters").iterdir():
        path.unlink()
    report = run(ledger, home).report
    assert not_passed(report) == {"amendments": "INCONCLUSIVE"}
    assert report.check("rosters").detail.startswith("2 ")


def test_an_amended_charter_may_lie_in_an_archive(
    amended: tuple[AuditedFederation, MemoryLedger, Path],
) -> None:
    made, ledger, home = amended
    for path in (home / "charters").iterdir():
        path.unlink()
    Archive(home / "archive").add_bytes(made.charter.encoded)
    assert not_passed(run(ledger, home).report) == {}


def test_an_auditor_with_another_key_later_opens_what_was_sealed_to_either(tmp_path: Path) -> None:
    old, new = PrivateKey(b"\x05" * 32), PrivateKey(b"\x06" * 32)
    made = AuditedFederation(schedule=Schedule(rounds=9, max_ahead=1), auditors=(_notary(old),))
    ledger = MemoryLedger(MemoryChain(made.identity), bytes(20))
    record(ledger, made.add_round().finalize)
    after = msgspec.structs.replace(made.charter, auditors=(_notary(new),))
    record(ledger, signed_amendment(made, after, effective=3))
    record(ledger, made.add_round().finalize)
    made.change_charter(after)
    record(ledger, made.add_round().finalize)
    member = made.write_home(tmp_path / "alice", with_keys=False).path
    own = tmp_path / "notary" / "keys"
    (own / "2").mkdir(parents=True)
    (own / "2" / "sealing.key").write_text(bytes(new).hex())
    assert run(ledger, member, own.parent).report.check("replay").status == "INCONCLUSIVE"
    (own / "sealing.key").write_text(bytes(old).hex())
    report = run(ledger, member, own.parent).report
    assert (not_passed(report), report.check("replay").detail) == ({}, "3 records")


def _notary(key: PrivateKey) -> Auditor:
    return Auditor(name="notary", sealing_key=bytes(key.public_key).hex())


# --- memory -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def federation() -> AuditedFederation:
    made = AuditedFederation()
    for _ in range(3):
        made.add_round()
    return made


def remembered_of(audited: Audited) -> Remembered:
    assert audited.memory is not None
    return audited.memory


def test_what_was_verified_is_looked_for_again(federation: AuditedFederation) -> None:
    first = remembered_of(run(federation.ledger()))
    assert (first.height, first.head) == (3, federation.head.hex())
    again = run(federation.ledger(), remembered=first)
    assert again.report.check("memory").status == "PASS"
    assert "round 3 is as an earlier audit verified it" in again.report.check("memory").detail


def test_a_fork_is_told_with_both_heads(federation: AuditedFederation) -> None:
    other = AuditedFederation()
    for survivors in ((0, 1, 2, 3), (0, 1, 2), (0, 1, 2)):
        other.add_round(survivors=survivors)
    fork = run(other.ledger(), remembered=remembered_of(run(federation.ledger())))
    assert (fork.report.exit_code, fork.memory) == (4, None)
    (finding,) = [one for one in fork.report.findings if one.check == "memory"]
    assert finding.what.startswith("fork: round 3") and finding.proof is not None
    heads = {finding.proof["remembered"]["shown"]["digest"], finding.proof["shown"]["digest"]}
    assert heads == {federation.head.hex(), other.head.hex()}


def test_who_attested_both_branches_is_convicted(federation: AuditedFederation, tmp_path: Path) -> None:
    first = remembered_of(run(federation.ledger()))
    other = AuditedFederation()
    for survivors in ((0, 1, 2, 3), (0, 1, 2), (0, 1, 2)):
        other.add_round(survivors=survivors)
    home = other.write_home(tmp_path / "alice").path
    report = run(other.ledger(), home, remembered=first).report
    told = {one.member for one in report.findings if one.check == "equivocation"}
    assert told == {"alice", "bob", "carol"}


def test_an_rpc_cannot_call_itself_a_development_node(federation: AuditedFederation) -> None:
    """Of those less is asked: it takes a chain id that only they have."""
    serious = AuditedFederation(chain_id=1)
    serious.add_round()
    for made, noted in ((federation, True), (serious, False)):
        report = audit([made.ledger()], contract=CONTRACT, development=True).report
        assert bool(report.notes) is noted
        assert report.check("finality").status == ("SKIPPED" if noted else "PASS")


def test_fewer_rounds_than_before_are_a_roll_back_or_an_rpc_behind(federation: AuditedFederation) -> None:
    first = remembered_of(run(federation.ledger()))
    fewer = AuditedFederation()
    fewer.add_round()
    ledger = fewer.ledger()
    behind = run(ledger, remembered=first).report
    assert (behind.check("memory").status, behind.exit_code) == ("INCONCLUSIVE", 3)
    rolled_back = run(ledger, remembered=msgspec.structs.replace(first, final_block=0)).report
    assert (rolled_back.check("memory").status, rolled_back.exit_code) == ("MISBEHAVIOUR", 4)


def test_only_final_rounds_are_remembered(federation: AuditedFederation) -> None:
    assert remembered_of(run(federation.ledger(finality=1))).height == 2


def test_nothing_is_remembered_of_what_does_not_hold(federation: AuditedFederation) -> None:
    class Forged(MemoryLedger):
        """The contract would refuse it; an RPC may show it all the same."""

        def records(self, first: int, last: int | None = None) -> list[Record]:
            found = super().records(first, last)
            return [msgspec.structs.replace(one, signatures=(bytes(64),) * 3) for one in found]

    forged = Forged(MemoryChain(federation.identity), bytes(20))
    federation.record_on(forged)
    audited = run(forged)
    assert (not_passed(audited.report), audited.memory) == ({"quorum": "FAIL"}, None)


def test_the_file_moves_forward_only(federation: AuditedFederation, tmp_path: Path) -> None:
    path = tmp_path / "state" / "file.json"
    assert memory.load(path) is None
    newer = remembered_of(run(federation.ledger()))
    older = remembered_of(run(federation.ledger(finality=2)))
    memory.save(path, newer)
    memory.save(path, older)
    assert memory.load(path) == newer
    assert [one.name for one in path.parent.iterdir()] == ["file.json"]


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b"x" * 70_000])
def test_a_damaged_file_is_said_and_not_passed_over(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(content)
    with pytest.raises(MemoryUnusable, match=r"file\.json"):
        memory.load(path)


# --- contributions ----------------------------------------------------------------------------------------------------


def journal(home: Path, number: int, *entries: Entry) -> None:
    Journal.create(Home(home).store)
    with Journal.open(Home(home).store) as open_journal:
        open_journal.append([(number, entry_kind(entry), encode_entry(entry)) for entry in entries])


def row(report: AuditReport, name: str) -> MemberRow:
    return next(member for member in report.members if member.name == name)


def commitment(federation: AuditedFederation, number: int, roster: bytes) -> Commitment:
    return Commitment(federation.federation.id, number, roster, 3, bytes(32), 100, bytes(32))


@pytest.fixture
def without_dave(federation: AuditedFederation, tmp_path: Path) -> tuple[AuditedFederation, bytes, Path]:
    """Round 4 has no contribution of dave's; the roster's digest, and dave's home."""
    made = federation.add_round(survivors=(0, 1, 2))
    assert isinstance(made.record.roster.body, Roster)
    name = roster_digest(made.record.roster.member, made.record.roster.body)
    return federation, name, federation.write_home(tmp_path / "dave", member=3).path


def state_of_dave(federation: AuditedFederation, home: Path) -> tuple[AuditReport, str, str]:
    report = run(federation.ledger(), home).report
    (one,) = row(report, "dave").rounds
    assert one.round == 4
    return report, one.state, one.why


def test_missing(without_dave: tuple[AuditedFederation, bytes, Path]) -> None:
    federation, _, home = without_dave
    report, state, _ = state_of_dave(federation, home)
    assert (state, report.exit_code) == ("missing", 0)
    assert row(report, "dave").contributed == 3 and row(report, "alice").contributed == 4


def test_archives_alone_name_who_was_left_out_and_say_that_they_do_not_show_why(
    without_dave: tuple[AuditedFederation, bytes, Path],
) -> None:
    federation, _, home = without_dave
    report, state, why = state_of_dave(federation, home)
    detail = report.check("participation").detail
    assert (state, report.check("participation").status) == ("missing", "PASS")
    assert "dave in round 4" in detail and "archives do not show" in why
    journal(home, 4, Said(federation.say(3, commitment(federation, 4, bytes(32)))))
    assert "dave" not in state_of_dave(federation, home)[0].check("participation").detail


def test_excluded_alone_is_inconclusive(without_dave: tuple[AuditedFederation, bytes, Path]) -> None:
    federation, roster, home = without_dave
    journal(home, 4, Said(federation.say(3, commitment(federation, 4, roster))))
    report, state, why = state_of_dave(federation, home)
    assert (state, report.exit_code) == ("excluded", 3)
    assert report.check("participation").status == "INCONCLUSIVE" and "may have been late" in why


def test_late_by_the_proposers_signed_word(without_dave: tuple[AuditedFederation, bytes, Path]) -> None:
    federation, roster, home = without_dave
    survivors = federation.rounds[3].record.opening.survivors
    omitted = (Omission(3, 1),)
    body = Proposal(federation.federation.id, 4, 0, survivors.digest, omitted_digest(omitted))
    journal(
        home,
        4,
        Said(federation.say(3, commitment(federation, 4, roster))),
        Proposed(Propose(federation.say(0, body), survivors, omitted, None)),
    )
    report, state, why = state_of_dave(federation, home)
    assert (state, report.exit_code) == ("late", 0) and "bob had not got it" in why


def test_late_for_another_attempt(without_dave: tuple[AuditedFederation, bytes, Path]) -> None:
    federation, _, home = without_dave
    journal(home, 4, Said(federation.say(3, commitment(federation, 4, bytes(32)))))
    assert state_of_dave(federation, home)[1] == "late"


def test_a_forged_journal_proves_nothing(without_dave: tuple[AuditedFederation, bytes, Path]) -> None:
    federation, roster, home = without_dave
    said = federation.say(3, commitment(federation, 4, roster))
    journal(home, 4, Said(msgspec.structs.replace(said, signature=bytes(64))))
    assert state_of_dave(federation, home)[1] == "missing"


def test_withheld(federation: AuditedFederation, tmp_path: Path) -> None:
    home = federation.write_home(tmp_path / "alice").path
    archive = Archive(home / "archive")
    paths = [
        archive.path(signed.body.root)
        for signed in federation.rounds[0].record.commitments
        if isinstance(signed.body, Commitment)
    ]
    assert paths[1] is not None
    paths[1].unlink()
    report = run(federation.ledger(), home).report
    states = {(one.round, member.name): one.state for member in report.members for one in member.rounds}
    assert states[1, "bob"] == "withheld"


def test_ill_formed_is_invalid(federation: AuditedFederation, tmp_path: Path) -> None:
    federation.add_round(spoilt=(2,))
    report = run(federation.ledger(), federation.write_home(tmp_path / "alice").path).report
    (one,) = row(report, "carol").rounds
    assert (one.round, one.state, report.exit_code) == (4, "invalid", 0)


def test_a_member_that_contradicts_itself(federation: AuditedFederation, tmp_path: Path) -> None:
    home = federation.write_home(tmp_path / "alice").path
    votes = (federation.say(1, Vote(federation.federation.id, 2, 9, bytes([value]) * 32)) for value in (1, 2))
    Archive(home / "archive").add_bytes(encode(Evidence(*votes)))
    report = run(federation.ledger(), home).report
    (one,) = row(report, "bob").rounds
    assert (one.round, one.state, report.exit_code) == (2, "equivocated", 4)
    (finding,) = report.findings
    assert (finding.member, finding.round) == ("bob", 2) and finding.proof is not None
