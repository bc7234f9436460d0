"""The audit of a whole small record: all is well, then one thing is wrong and exactly its check says so."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from audited_federation import CHAIN_ID, CONTRACT, AuditedFederation
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nacl.public import PrivateKey

from folkmoot.ledger.audit import AuditReport, Source, Status, run_audit
from folkmoot.ledger.audit.ledger_checks import PublicRecord
from folkmoot.ledger.errors import LedgerUnavailable, WrongLedger
from folkmoot.ledger.port import AmendmentRecord, LedgerHead, LedgerIdentity, Record
from folkmoot.node.archive import Archive
from folkmoot.node.store import Journal, Secret
from folkmoot.protocol.charter_tables import Auditor, Averaging
from folkmoot.protocol.fork import Fork, RecordedRound, encode_fork
from folkmoot.protocol.messages import Commitment, Evidence, Statement, Vote, encode
from folkmoot.protocol.record import RoundRecord, encode_record
from folkmoot.protocol.typed_data import struct_hash

LEDGER_CHECKS = [
    "ledger", "agreement", "chain-id", "code-hash", "rounds", "hash-chain", "quorum", "bases", "finality",
]  # fmt: skip
ARCHIVE_CHECKS = [
    "records", "rosters", "certificates", "openings", "statements", "commitments", "inclusion", "payloads", "sums",
    "fingerprints", "releases", "replay", "equivocation",
]  # fmt: skip
LATER_CHECKS = ["headers", "proof", "memory", "amendments", "reports", "participation", "privacy"]
PROOF_CHECKS = {"headers", "proof", "memory"}
"""Skipped here: the ledger in memory proves nothing, and nothing is remembered."""
SECURE_CHECKS = {"sums", "fingerprints", "releases"}


@dataclass
class Doctored:
    """A ledger through an RPC that lies."""

    real: PublicRecord
    identity_: Callable[[LedgerIdentity], LedgerIdentity] = lambda identity: identity
    head_: Callable[[LedgerHead], LedgerHead] = lambda head: head
    records_: Callable[[list[Record]], list[Record]] = lambda records: records

    def identity(self) -> LedgerIdentity:
        return self.identity_(self.real.identity())

    def head(self) -> LedgerHead:
        return self.head_(self.real.head())

    def records(self, first: int, last: int | None = None) -> list[Record]:
        return self.records_(self.real.records(first, last))

    def amendments(self) -> list[AmendmentRecord]:
        return self.real.amendments()


@pytest.fixture
def federation() -> AuditedFederation:
    made = AuditedFederation()
    made.add_round()
    made.add_round(survivors=(0, 1, 3))
    made.add_round()
    return made


@pytest.fixture
def home(federation: AuditedFederation, tmp_path: Path) -> Path:
    return federation.write_home(tmp_path / "alice").path


def audit(ledger: PublicRecord, *homes: Path, others: Sequence[PublicRecord] = ()) -> AuditReport:
    return run_audit(ledger, [Source.of_home(home) for home in homes], contract=CONTRACT, others=others)


def not_passed(report: AuditReport) -> dict[str, str]:
    """The checks that found something, by id; what was skipped is not among them."""
    return {
        check.id: check.status.value for check in report.checks if check.status not in ("PASS", "SKIPPED")
    }


def edit_record(home: Path, number: int, **changes: object) -> RoundRecord:
    """Change fields of an archived record."""
    archive = Archive(home / "archive")
    data = archive.record(number)
    assert data is not None
    changed = msgspec.structs.replace(msgspec.msgpack.decode(data, type=RoundRecord), **changes)
    archive.add_record(number, encode_record(changed))
    return changed


def blob_path(federation: AuditedFederation, home: Path, number: int, place: int = 0) -> Path:
    """The payload of the survivor at `place` of a round."""
    commitment = federation.rounds[number - 1].record.commitments[place].body
    assert isinstance(commitment, Commitment)
    path = Archive(home / "archive").path(commitment.root)
    assert path is not None
    return path


# --- all is well ------------------------------------------------------------------------------------------------------


def test_whole_record_passes_every_check(federation: AuditedFederation, home: Path) -> None:
    ledger = federation.ledger()
    report = audit(ledger, home, others=[ledger])
    assert [check.id for check in report.checks] == [
        *LEDGER_CHECKS,
        "charter",
        *ARCHIVE_CHECKS,
        *LATER_CHECKS,
    ]
    assert {
        check.id for check in report.checks if check.status is not Status.PASS
    } == SECURE_CHECKS | PROOF_CHECKS | {"privacy"}
    assert (report.status, report.exit_code) == (Status.PASS, 0)
    assert report.check("replay").detail == "3 records"


def test_federation_without_a_round_passes(tmp_path: Path) -> None:
    founded = AuditedFederation()
    report = audit(founded.ledger(), founded.write_home(tmp_path / "alice").path)
    assert (report.status, not_passed(report)) == (Status.PASS, {})


def test_ledger_alone_needs_nothing_else(federation: AuditedFederation) -> None:
    report = audit(federation.ledger())
    assert report.status is Status.PASS
    statuses = {check.id: check.status for check in report.checks}
    assert [id_ for id_ in LEDGER_CHECKS if statuses[id_] is not Status.PASS] == ["agreement"]
    assert {statuses[id_] for id_ in ("charter", *ARCHIVE_CHECKS)} == {Status.SKIPPED}


def test_replay_is_skipped_without_keys(federation: AuditedFederation, tmp_path: Path) -> None:
    home = federation.write_home(tmp_path / "alice", with_keys=False).path
    report = audit(federation.ledger(), home)
    assert report.check("replay").status is Status.SKIPPED
    assert (report.status, not_passed(report)) == (Status.PASS, {})


def test_bare_archive_is_checked_with_a_charter_from_elsewhere(
    federation: AuditedFederation, home: Path
) -> None:
    charter = Source.of_home(home).charter()
    report = run_audit(
        federation.ledger(), [Source(home / "archive")], contract=CONTRACT, charter=charter, development=True
    )
    assert (report.status, not_passed(report)) == (Status.PASS, {})
    assert report.check("payloads").detail == "3 records"
    assert report.check("finality").status is Status.SKIPPED
    assert report.notes == ("development chain, not evidence",)


def test_ill_formed_payload_counts_as_zero_and_is_told(federation: AuditedFederation, tmp_path: Path) -> None:
    federation.add_round(spoilt=(2,))
    report = audit(federation.ledger(), federation.write_home(tmp_path / "alice").path)
    assert (report.status, report.check("replay").detail) == (Status.PASS, "4 records")
    assert report.notes == ("round 4: the payload of carol is ill-formed and counted as zero",)


def test_homes_make_up_for_each_others_gaps(federation: AuditedFederation, tmp_path: Path) -> None:
    first, second = (
        federation.write_home(tmp_path / name, member).path for member, name in enumerate(("alice", "bob"))
    )
    (first / "archive" / "rounds" / "00000001.record").unlink()
    blob_path(federation, second, 2).unlink()
    ledger = federation.ledger()
    assert audit(ledger, first, second).status is Status.PASS
    assert not_passed(audit(ledger, first)) == {"records": "INCONCLUSIVE"}


def test_replay_takes_the_base_from_the_models_if_the_round_before_is_missing(
    federation: AuditedFederation, home: Path
) -> None:
    (home / "archive" / "rounds" / "00000001.record").unlink()
    report = audit(federation.ledger(), home)
    # Model 1 is nowhere, so round 2 cannot be replayed, nor round 3 after it.
    assert not_passed(report) == {"records": "INCONCLUSIVE"}
    assert report.check("replay").status is Status.SKIPPED
    assert "rests on the replay of the round before it" in report.check("replay").detail
    (home / "models" / f"{federation.rounds[0].record.model.root.hex()}.f32").write_bytes(
        federation.models[1].tobytes()
    )
    report = audit(federation.ledger(), home)
    assert not_passed(report) == {"records": "INCONCLUSIVE"}
    assert report.check("replay").detail == "2 records"


def test_content_key_that_the_node_kept_opens_what_its_sealing_key_does_not(
    federation: AuditedFederation, tmp_path: Path
) -> None:
    home = federation.write_home(tmp_path / "alice").path
    (home / "keys" / "sealing.key").write_text("11" * 32)
    assert not_passed(audit(federation.ledger(), home)) == {"replay": "INCONCLUSIVE"}
    Journal.create(home / "store.sqlite")
    with Journal.open(home / "store.sqlite") as journal:
        for number, made in enumerate(federation.rounds, start=1):
            for signed in made.record.commitments:
                assert isinstance(signed.body, Commitment)
                key = federation.content_key(number, signed.member)
                journal.append([], [Secret(number, signed.body.roster, signed.member, key)])
    assert audit(federation.ledger(), home).status is Status.PASS


def test_auditor_whom_the_charter_names_replays_with_its_own_key(tmp_path: Path) -> None:
    key = PrivateKey(b"\x05" * 32)
    auditor = Auditor(name="notary", sealing_key=bytes(key.public_key).hex())
    federation = AuditedFederation(auditors=(auditor,))
    federation.add_round(survivors=(0, 1, 3))
    member = federation.write_home(tmp_path / "alice", with_keys=False).path
    own = tmp_path / "notary"
    for folder in ("keys", "models"):
        (own / folder).mkdir(parents=True)
    (own / "keys" / "sealing.key").write_text(bytes(key).hex())
    (member / "models").rename(own / "models")
    sources = [Source(member / "archive"), Source.of_home(own)]
    charter = Source.of_home(member).charter()
    report = run_audit(federation.ledger(), sources, contract=CONTRACT, charter=charter)
    assert (report.status, report.check("replay").detail) == (Status.PASS, "1 records")


def test_a_robust_rule_is_replayed(tmp_path: Path) -> None:
    federation = AuditedFederation(averaging=Averaging(robust="nnm"))
    federation.add_round(survivors=(0, 1, 3))
    report = audit(federation.ledger(), federation.write_home(tmp_path / "alice").path)
    assert (report.status, report.check("replay").detail) == (Status.PASS, "1 records")


# --- one thing is wrong -----------------------------------------------------------------------------------------------


def test_ledger_that_does_not_answer(federation: AuditedFederation, home: Path) -> None:
    ledger = federation.ledger()
    ledger.down = True
    report = audit(ledger, home)
    assert not_passed(report) == {"ledger": "UNREACHABLE"}
    assert report.exit_code == 5
    assert report.check("payloads").status is Status.PASS


def test_rpcs_that_disagree(federation: AuditedFederation, home: Path) -> None:
    ledger = federation.ledger()

    def other_model(records: list[Record]) -> list[Record]:
        statement = msgspec.structs.replace(records[2].statement, model=bytes(32))
        return [*records[:2], msgspec.structs.replace(records[2], statement=statement)]

    report = audit(ledger, home, others=[Doctored(ledger, records_=other_model)])
    assert (not_passed(report), report.exit_code) == ({"agreement": "FAIL"}, 1)


def test_rpc_that_is_behind_agrees(federation: AuditedFederation) -> None:
    ledger = federation.ledger()
    head = msgspec.structs.replace(ledger.head(), height=2, digest=ledger.records(2)[0].digest)
    behind = Doctored(ledger, head_=lambda _: head)
    assert audit(ledger, others=[behind]).check("agreement").status is Status.PASS


def test_second_rpc_that_does_not_answer(federation: AuditedFederation, home: Path) -> None:
    down = federation.ledger()
    down.down = True
    report = audit(federation.ledger(), home, others=[down])
    assert (not_passed(report), report.exit_code) == ({"ledger": "UNREACHABLE"}, 5)


def test_chain_that_is_not_the_charters(tmp_path: Path) -> None:
    elsewhere = AuditedFederation(charter_chain_id=CHAIN_ID + 1)
    elsewhere.add_round()
    report = audit(elsewhere.ledger(), elsewhere.write_home(tmp_path / "alice").path)
    assert (not_passed(report), report.exit_code) == ({"chain-id": "FAIL"}, 1)


def test_contract_with_other_code(federation: AuditedFederation, home: Path) -> None:
    ledger = Doctored(
        federation.ledger(), identity_=lambda found: msgspec.structs.replace(found, code_hash=bytes(32))
    )
    report = audit(ledger, home)
    assert (not_passed(report), report.exit_code) == ({"code-hash": "FAIL"}, 1)


def test_address_without_our_contract(federation: AuditedFederation, home: Path) -> None:
    def refuse(_: LedgerIdentity) -> LedgerIdentity:
        raise WrongLedger("the code", "a RoundLedger", "empty", "check the address")

    report = audit(Doctored(federation.ledger(), identity_=refuse), home)
    assert (not_passed(report), report.exit_code) == ({"code-hash": "FAIL"}, 1)


def test_gap_in_the_events(federation: AuditedFederation, home: Path) -> None:
    ledger = Doctored(federation.ledger(), records_=lambda found: [found[0], found[2]])
    report = audit(ledger, home)
    assert (not_passed(report), report.exit_code) == ({"rounds": "FAIL"}, 1)
    assert "2 are missing" in report.check("rounds").detail


def test_head_that_the_events_do_not_lead_to(federation: AuditedFederation, home: Path) -> None:
    ledger = Doctored(federation.ledger(), head_=lambda head: msgspec.structs.replace(head, digest=bytes(32)))
    assert not_passed(audit(ledger, home)) == {"hash-chain": "FAIL"}


def test_event_whose_digest_is_not_its_statements(federation: AuditedFederation, home: Path) -> None:
    ledger = Doctored(
        federation.ledger(),
        records_=lambda found: [msgspec.structs.replace(found[0], digest=bytes(32)), *found[1:]],
    )
    assert not_passed(audit(ledger, home)) == {"hash-chain": "FAIL"}


@pytest.mark.parametrize("forged", [False, True], ids=["too few", "forged"])
def test_statement_without_its_quorum(federation: AuditedFederation, home: Path, forged: bool) -> None:
    def weaken(found: list[Record]) -> list[Record]:
        first = found[0].signatures[:2]
        last = (first[0],) if not forged else (bytes(64),)
        changed = msgspec.structs.replace(
            found[0], signatures=first + last, signers=(*found[0].signers[:2], found[0].signers[0])
        )
        return [changed, *found[1:]]

    report = audit(Doctored(federation.ledger(), records_=weaken), home)
    assert (not_passed(report), report.exit_code) == ({"quorum": "FAIL"}, 1)


def test_statement_recorded_through_another_contract_is_proven_by_archives(
    federation: AuditedFederation, home: Path
) -> None:
    ledger = Doctored(
        federation.ledger(),
        records_=lambda found: [msgspec.structs.replace(one, signatures=(), signers=()) for one in found],
    )
    assert (not_passed(audit(ledger)), audit(ledger).exit_code) == ({"quorum": "INCONCLUSIVE"}, 3)
    assert audit(ledger, home).status is Status.PASS


def test_round_that_does_not_start_from_the_model_before_it(
    federation: AuditedFederation, tmp_path: Path
) -> None:
    federation.add_round(base=federation.models[0])
    report = audit(federation.ledger(), federation.write_home(tmp_path / "alice").path)
    assert not_passed(report) == {"bases": "FAIL"}


def test_blocks_that_are_not_final(federation: AuditedFederation, home: Path) -> None:
    report = audit(federation.ledger(finality=2), home)
    assert (not_passed(report), report.exit_code) == ({"finality": "INCONCLUSIVE"}, 3)
    assert "rounds 2 to 3" in report.check("finality").detail


def test_charter_that_one_member_did_not_sign(federation: AuditedFederation, home: Path) -> None:
    (home / "charter.sig" / "carol.sig").unlink()
    report = audit(federation.ledger(), home)
    assert (not_passed(report), report.exit_code) == ({"charter": "FAIL"}, 1)
    assert "carol" in report.check("charter").detail
    assert {report.check(id_).status for id_ in ARCHIVE_CHECKS} == {Status.SKIPPED}


def test_charter_that_was_changed_after_signing(federation: AuditedFederation, home: Path) -> None:
    text = (home / "charter.toml").read_text()
    (home / "charter.toml").write_text(text.replace("max_ahead = 50", "max_ahead = 51"))
    report = audit(federation.ledger(), home)
    assert not_passed(report) == {"charter": "FAIL"}


def test_homes_of_different_federations(federation: AuditedFederation, home: Path, tmp_path: Path) -> None:
    other = AuditedFederation(charter_chain_id=CHAIN_ID + 1).write_home(tmp_path / "other").path
    assert not_passed(audit(federation.ledger(), home, other)) == {"charter": "FAIL"}


def test_record_that_does_not_decode(federation: AuditedFederation, home: Path) -> None:
    path = home / "archive" / "rounds" / "00000003.record"
    path.write_bytes(path.read_bytes()[:-1])
    report = audit(federation.ledger(), home)
    assert (not_passed(report), report.exit_code) == ({"records": "FAIL"}, 1)


def test_record_that_is_missing(federation: AuditedFederation, home: Path) -> None:
    (home / "archive" / "rounds" / "00000003.record").unlink()
    report = audit(federation.ledger(), home)
    assert (not_passed(report), report.exit_code) == ({"records": "INCONCLUSIVE"}, 3)
    assert report.check("records").detail == "round 3: no archive given has a record"


def test_roster_that_its_proposer_did_not_sign(federation: AuditedFederation, home: Path) -> None:
    roster = federation.rounds[1].record.roster
    edit_record(home, 2, roster=msgspec.structs.replace(roster, signature=bytes(64)))
    report = audit(federation.ledger(), home)
    assert not_passed(report) == {"rosters": "FAIL"}
    assert "not checked: round 2" in report.check("commitments").detail


def test_certificate_without_its_quorum(federation: AuditedFederation, home: Path) -> None:
    certificate = federation.rounds[1].record.certificate
    edit_record(home, 2, certificate=msgspec.structs.replace(certificate, votes=certificate.votes[:-1]))
    assert not_passed(audit(federation.ledger(), home)) == {"certificates": "FAIL"}


def test_opening_without_its_quorum(federation: AuditedFederation, home: Path) -> None:
    opening = federation.rounds[1].record.opening
    edit_record(home, 2, opening=msgspec.structs.replace(opening, locks=opening.locks[:-1]))
    assert not_passed(audit(federation.ledger(), home)) == {"openings": "FAIL"}


def test_attestations_without_their_quorum(federation: AuditedFederation, home: Path) -> None:
    edit_record(home, 2, attestations=federation.rounds[1].record.attestations[:-1])
    assert not_passed(audit(federation.ledger(), home)) == {"statements": "FAIL"}


def test_record_of_another_round_in_its_place(federation: AuditedFederation, home: Path) -> None:
    rounds = home / "archive" / "rounds"
    (rounds / "00000003.record").write_bytes((rounds / "00000002.record").read_bytes())
    found = not_passed(audit(federation.ledger(), home))
    assert found == {
        "rosters": "FAIL", "openings": "FAIL", "statements": "FAIL", "inclusion": "FAIL",
    }  # fmt: skip


def test_round_that_is_not_on_the_ledger_yet(federation: AuditedFederation, tmp_path: Path) -> None:
    ledger = federation.ledger()
    federation.add_round()
    report = audit(ledger, federation.write_home(tmp_path / "alice").path)
    assert not_passed(report) == {"statements": "INCONCLUSIVE", "inclusion": "INCONCLUSIVE"}


def test_commitment_with_a_bad_signature(federation: AuditedFederation, home: Path) -> None:
    first, *rest = federation.rounds[1].record.commitments
    forged = msgspec.structs.replace(first, signature=rest[0].signature)
    edit_record(home, 2, commitments=(forged, *rest))
    assert not_passed(audit(federation.ledger(), home)) == {"commitments": "FAIL"}


def test_statement_whose_archive_root_covers_something_else(
    federation: AuditedFederation, tmp_path: Path
) -> None:
    federation.add_round(archive=b"\x01" * 32)
    report = audit(federation.ledger(), federation.write_home(tmp_path / "alice").path)
    assert not_passed(report) == {"inclusion": "FAIL"}


def test_payload_that_is_withheld(federation: AuditedFederation, home: Path) -> None:
    blob_path(federation, home, 2, place=2).unlink()
    report = audit(federation.ledger(), home)
    assert not_passed(report) == {"payloads": "INCONCLUSIVE"}
    assert "withheld" in report.check("payloads").detail and "dave" in report.check("payloads").detail
    assert report.exit_code == 3


def test_payload_with_wrong_bytes(federation: AuditedFederation, home: Path) -> None:
    path = blob_path(federation, home, 3)
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    report = audit(federation.ledger(), home)
    assert (not_passed(report), report.exit_code) == ({"payloads": "FAIL"}, 1)
    assert f"{path.name} in {home}" in report.check("payloads").detail


def test_sums_that_the_payloads_do_not_give(federation: AuditedFederation, tmp_path: Path) -> None:
    federation.add_round(sums=bytes(32))
    report = audit(federation.ledger(), federation.write_home(tmp_path / "alice").path)
    assert (not_passed(report), report.exit_code) == ({"replay": "FAIL"}, 1)


def test_model_that_the_payloads_do_not_give(federation: AuditedFederation, tmp_path: Path) -> None:
    federation.add_round(model=federation.models[0])
    report = audit(federation.ledger(), federation.write_home(tmp_path / "alice").path)
    assert (not_passed(report), report.exit_code) == ({"replay": "FAIL"}, 1)


def test_damaged_sealing_key(federation: AuditedFederation, home: Path) -> None:
    (home / "keys" / "sealing.key").write_text("not hex")
    report = audit(federation.ledger(), home)
    assert not_passed(report) == {"replay": "INCONCLUSIVE"}


# --- misbehaviour -----------------------------------------------------------------------------------------------------


def two_votes(federation: AuditedFederation, member: int = 2) -> Evidence:
    """In an attempt of which the records hold no vote."""
    votes = (
        federation.say(member, Vote(federation.federation.id, 2, 5, digest))
        for digest in (bytes(32), b"\x01" * 32)
    )
    return Evidence(*votes)


def test_evidence_in_an_archive_convicts(federation: AuditedFederation, home: Path) -> None:
    Archive(home / "archive").add_bytes(encode(two_votes(federation)))
    report = audit(federation.ledger(), home)
    assert (not_passed(report), report.exit_code) == ({"equivocation": "MISBEHAVIOUR"}, 4)
    assert report.check("equivocation").detail == "carol signed two different Votes for round 2"


def test_who_signed_both_of_two_histories_is_convicted(federation: AuditedFederation, home: Path) -> None:
    """As a node keeps it that was rolled back: its own round, and what the ledger has."""
    made, others = (
        federation.rounds[1],
        msgspec.structs.replace(federation.rounds[1].statement, model=bytes(32)),
    )
    attested = tuple(federation.say(member, others) for member in (0, 2))
    fork = Fork(struct_hash(made.statement), made.record, RecordedRound(others, attested))
    Archive(home / "archive").add_fork(2, struct_hash(made.statement), encode_fork(fork))
    (home / "archive" / "forks" / f"00000003-{'0' * 16}.fork").write_bytes(b"?")
    report = audit(federation.ledger(), home)
    assert (not_passed(report), report.exit_code) == ({"equivocation": "MISBEHAVIOUR"}, 4)
    names = {finding.member for finding in report.findings if finding.check == "equivocation"}
    signed = {one.member for one in made.record.attestations}
    assert names == {federation.charter.members[member].name for member in signed & {0, 2}} != set()


def test_forged_evidence_convicts_nobody(federation: AuditedFederation, home: Path) -> None:
    evidence = two_votes(federation)
    forged = msgspec.structs.replace(evidence, second=msgspec.structs.replace(evidence.second, member=1))
    Archive(home / "archive").add_bytes(encode(forged))
    Archive(home / "archive").add_bytes(encode(forged)[:-1])
    assert audit(federation.ledger(), home).status is Status.PASS


def test_two_statements_for_one_round_convict_and_outweigh_a_failure(
    federation: AuditedFederation, home: Path
) -> None:
    ledger = federation.ledger()

    def fork(found: list[Record]) -> list[Record]:
        statement: Statement = msgspec.structs.replace(found[2].statement, model=bytes(32))
        signed = [federation.say(member, statement) for member in (0, 1, 2)]
        fields = {
            "statement": statement,
            "digest": struct_hash(statement),
            "signatures": tuple(one.signature for one in signed),
            "signers": tuple(federation.keys[one.member].audit.address for one in signed),
        }
        return [*found[:2], msgspec.structs.replace(found[2], **fields)]

    report = audit(ledger, home, others=[Doctored(ledger, records_=fork)])
    assert not_passed(report) == {"agreement": "FAIL", "equivocation": "MISBEHAVIOUR"}
    assert (report.status, report.exit_code) == (Status.MISBEHAVIOUR, 4)


def test_failure_outweighs_an_unreachable_ledger_and_that_a_missing_record(
    federation: AuditedFederation, home: Path
) -> None:
    ledger = federation.ledger()
    ledger.down = True
    (home / "archive" / "rounds" / "00000003.record").unlink()
    blob_path(federation, home, 1).unlink()
    assert audit(ledger, home).exit_code == 5
    path = home / "archive" / "rounds" / "00000002.record"
    path.write_bytes(b"")
    assert audit(ledger, home).exit_code == 1


# --- hostile archives -------------------------------------------------------------------------------------------------


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 10**6), value=st.integers(1, 255))
def test_record_changed_in_any_byte_never_passes_or_raises(
    federation: AuditedFederation, home: Path, place: int, value: int
) -> None:
    data = bytearray(encode_record(federation.rounds[1].record))
    data[place % len(data)] ^= value
    (home / "archive" / "rounds" / "00000002.record").write_bytes(data)
    assert audit(federation.ledger(), home).exit_code in (1, 3, 4)


def test_details_hold_no_control_characters(federation: AuditedFederation) -> None:
    def refuse(_: LedgerIdentity) -> LedgerIdentity:
        raise LedgerUnavailable("\x1b[2J gone\n")

    detail = audit(Doctored(federation.ledger(), identity_=refuse)).check("ledger").detail
    assert detail == "RPC 1: ?[2J gone?"
