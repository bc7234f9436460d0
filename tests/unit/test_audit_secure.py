"""The audit of rounds in secure mode: all is well without any secret, then one thing is wrong and its check says so."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from audited_federation import CONTRACT, NAMES, AuditedFederation, record, removal
from masked_federation import MaskedFederation, MaskedRoundMade, Tamper, keep_shard

from folkmoot.ledger.audit import AuditReport, Source, Status, run_audit
from folkmoot.ledger.memory import MemoryLedger
from folkmoot.ledger.memory_chain import MemoryChain
from folkmoot.node.archive import Archive
from folkmoot.protocol.blob import ref_of
from folkmoot.protocol.charter_tables import Averaging, Schedule
from folkmoot.protocol.messages import (
    Commitment,
    Evidence,
    Fingerprint,
    Share,
    Sum,
    Unmasking,
    encode,
)
from folkmoot.protocol.record import RoundRecord, encode_record
from folkmoot.protocol.secure.dealing import shards_root
from folkmoot.protocol.secure.layout import ShardLayout

ROUND_CHECKS = (
    *("records", "rosters", "certificates", "openings", "statements", "commitments", "inclusion"),
    *("sums", "fingerprints", "releases", "replay", "equivocation"),
)


@pytest.fixture
def federation() -> MaskedFederation:
    made = MaskedFederation()
    made.add_masked_round()
    made.add_masked_round(survivors=(0, 1, 3))
    made.add_masked_round()
    return made


@pytest.fixture
def home(federation: MaskedFederation, tmp_path: Path) -> Path:
    return federation.write_home(tmp_path / "alice", with_keys=False).path


def audit(federation: AuditedFederation, *homes: Path) -> AuditReport:
    return run_audit(federation.ledger(), [Source.of_home(home) for home in homes], contract=CONTRACT)


def not_passed(report: AuditReport) -> dict[str, str]:
    return {one.id: one.status.value for one in report.checks if one.status not in ("PASS", "SKIPPED")}


def edit(home: Path, number: int, **changes: Any) -> None:
    """Change fields of what took the masks off in an archived record."""
    archive = Archive(home / "archive")
    data = archive.record(number)
    assert data is not None
    record = msgspec.msgpack.decode(data, type=RoundRecord)
    unmasking = msgspec.structs.replace(record.unmasking or Unmasking((), (), ()), **changes)
    archive.add_record(number, encode_record(msgspec.structs.replace(record, unmasking=unmasking)))


def flip(data: bytes, at: int = 0) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def with_tampered_round(tmp_path: Path, tamper: Tamper) -> tuple[MaskedFederation, Path]:
    """A good round, and one in which somebody did wrong; alice's home without the masked shards."""
    federation = MaskedFederation()
    federation.add_masked_round()
    federation.add_masked_round(tamper=tamper)
    home = federation.write_home(tmp_path / "alice", with_keys=False).path
    forget_shards(home)
    return federation, home


def forget_shards(home: Path) -> None:
    for path in (home / "archive" / "masked").glob("*/*"):
        path.unlink()


def keep_all_shards(made: MaskedRoundMade, home: Path) -> None:
    for dealt in made.dealt.values():
        for data in dealt.shards:
            keep_shard(home / "archive", 0, data)


# --- all is well ------------------------------------------------------------------------------------------------------


def test_archive_without_any_secret_passes_every_check(federation: MaskedFederation, home: Path) -> None:
    report = audit(federation, home)
    assert (report.status, not_passed(report)) == (Status.PASS, {}), report
    assert {report.check(id_).status for id_ in ROUND_CHECKS} == {Status.PASS}
    assert report.check("replay").detail == "3 records"
    assert report.check("payloads").status is Status.SKIPPED
    assert "7 of 16 masked shards" in report.check("payloads").detail


@pytest.mark.parametrize("bits", [8, 32])
def test_all_rings_replay(bits: int, tmp_path: Path) -> None:
    federation = MaskedFederation(ring=bits)
    federation.add_masked_round(survivors=(1, 2, 3))
    report = audit(federation, federation.write_home(tmp_path / "alice", with_keys=False).path)
    assert (not_passed(report), report.check("replay").detail) == ({}, "1 records")


def test_groups_before_and_after_a_member_leaves(tmp_path: Path) -> None:
    names = (*NAMES, "erin", "frank", "grace")
    schedule = Schedule(rounds=9, max_ahead=1)
    made = MaskedFederation(names=names, schedule=schedule, group_size=3)
    ledger = MemoryLedger(MemoryChain(made.identity), bytes(20))
    record(ledger, made.add_masked_round(survivors=tuple(range(7))).finalize)
    amendment, after = removal(made, "grace", effective=3)
    record(ledger, amendment)
    record(ledger, made.add_masked_round(survivors=tuple(range(7))).finalize)
    made.change_charter(after)
    record(ledger, made.add_masked_round(survivors=tuple(range(6))).finalize)
    home = made.write_home(tmp_path / "alice", with_keys=False).path
    report = run_audit(ledger, [Source.of_home(home)], contract=CONTRACT)
    assert not_passed(report) == {}, [
        (one.id, one.detail) for one in report.checks if one.id in not_passed(report)
    ]
    assert report.check("amendments").detail.startswith("1 amendment")
    assert report.check("replay").detail == "3 records"


IN_GROUPS = (*NAMES, "erin", "frank", "grace", "heidi", "ivan")
ROBUST = Averaging(mode="secure", weight_cap=200, robust="nnm")


def with_robust_groups(tmp_path: Path, **tamper: Any) -> tuple[MaskedFederation, Path]:
    """Three groups of three; one of them is away in the second round."""
    made = MaskedFederation(names=IN_GROUPS, group_size=3, averaging=ROBUST)
    made.add_masked_round(survivors=tuple(range(9)), tamper=Tamper(**tamper))
    away = made.federation.groups(2).of(4).members
    made.add_masked_round(survivors=tuple(member for member in range(9) if member not in away))
    home = made.write_home(tmp_path / "alice", with_keys=False).path
    forget_shards(home)
    return made, home


def test_a_robust_rule_across_groups_replays(tmp_path: Path) -> None:
    made, home = with_robust_groups(tmp_path)
    report = audit(made, home)
    assert not_passed(report) == {}, report
    assert report.check("replay").detail == "2 records"
    layout = made.layout
    assert (layout.members, layout.shards) == (3, 9)
    sizes = [[signed.body.size for signed in one.unmasking.sums] for one in made.masked_rounds]
    assert sizes == [[crowds * layout.sum_bytes(shard) for shard in range(9)] for crowds in (3, 2)]


def test_what_is_moved_from_a_groups_sum_to_anothers_does_not_pass(tmp_path: Path) -> None:
    """The sum of all members is as it was, and so are their fingerprints' sums."""

    def move(shard: int, data: bytes) -> bytes:
        return moved(data, made_layout) if shard == 1 else data

    made_layout = MaskedFederation(names=IN_GROUPS, group_size=3, averaging=ROBUST).layout
    made, home = with_robust_groups(tmp_path, total=move)
    report = audit(made, home)
    assert not_passed(report)["fingerprints"] == "FAIL"
    assert "do not add up to that of the sum" in report.check("fingerprints").detail
    keep_all_shards(made.masked_rounds[0], home)
    assert "signed a sum of shard 1 that is not" in audit(made, home).check("fingerprints").detail


def moved(data: bytes, layout: ShardLayout) -> bytes:
    """One unit of the first value from the first crowd's sum to the second's."""
    changed = bytearray(data)
    for offset, by in ((0, -1), (layout.sum_bytes(1), 1)):
        np.frombuffer(changed, dtype="<i2", count=1, offset=offset)[0] += by
    return bytes(changed)


def test_masked_shards_are_all_found_in_all_homes(federation: MaskedFederation, tmp_path: Path) -> None:
    homes = [federation.write_home(tmp_path / str(member), member).path for member in range(4)]
    report = audit(federation, *homes)
    assert (report.check("payloads").status, report.check("payloads").detail) == (Status.PASS, "3 records")


def test_bare_archive_is_not_replayed(federation: MaskedFederation, home: Path) -> None:
    charter = Source.of_home(home).charter()
    sources = [Source(home / "archive")]
    report = run_audit(federation.ledger(), sources, contract=CONTRACT, charter=charter)
    assert (report.status, report.check("replay").status) == (Status.PASS, Status.SKIPPED)
    assert report.check("releases").status is Status.PASS


def test_silent_survivors_shards_are_measured_where_an_archive_has_them(
    federation: MaskedFederation, home: Path
) -> None:
    made = federation.masked_rounds[0]
    edit(home, 1, fingerprints=made.unmasking.fingerprints[:3])
    report = audit(federation, home)
    assert not_passed(report) == {"fingerprints": "INCONCLUSIVE"}
    assert "fingerprints of dave" in report.check("fingerprints").detail
    keep_all_shards(made, home)
    assert not_passed(audit(federation, home)) == {}


def test_fingerprints_of_another_archive_fill_the_gap(
    federation: MaskedFederation, home: Path, tmp_path: Path
) -> None:
    edit(home, 1, fingerprints=federation.masked_rounds[0].unmasking.fingerprints[:1])
    assert not_passed(audit(federation, home)) == {"fingerprints": "INCONCLUSIVE"}
    other = federation.write_home(tmp_path / "bob", 1).path
    assert not_passed(audit(federation, home, other)) == {}


def test_fingerprints_of_another_attempt_are_no_quorum(federation: MaskedFederation, home: Path) -> None:
    made = federation.masked_rounds[0]
    later = []
    for signed in made.unmasking.fingerprints:
        assert isinstance(signed.body, Fingerprint)
        later.append(federation.say(signed.member, msgspec.structs.replace(signed.body, attempt=1)))
    edit(home, 1, fingerprints=tuple(later))
    report = audit(federation, home)
    assert not_passed(report) == {"fingerprints": "INCONCLUSIVE"}
    assert "of the attempt that was locked" in report.check("fingerprints").detail


# --- one thing is wrong -----------------------------------------------------------------------------------------------


def test_sum_that_is_withheld(federation: MaskedFederation, home: Path) -> None:
    body = federation.masked_rounds[1].unmasking.sums[2].body
    assert isinstance(body, Sum)
    path = Archive(home / "archive").path(body.root)
    assert path is not None
    path.unlink()
    report = audit(federation, home)
    assert not_passed(report) == {"sums": "INCONCLUSIVE"}
    assert "sum of shard 2" in report.check("sums").detail
    assert "not checked: round 2" in report.check("fingerprints").detail


def test_sum_whose_bytes_are_damaged(federation: MaskedFederation, home: Path) -> None:
    body = federation.masked_rounds[1].unmasking.sums[2].body
    assert isinstance(body, Sum)
    path = Archive(home / "archive").path(body.root)
    assert path is not None
    path.write_bytes(flip(path.read_bytes()))
    assert not_passed(audit(federation, home)) == {"sums": "FAIL"}


def test_sum_with_another_members_signature(federation: MaskedFederation, home: Path) -> None:
    first, second, *rest = federation.masked_rounds[0].unmasking.sums
    forged = msgspec.structs.replace(second, signature=first.signature)
    edit(home, 1, sums=(first, forged, *rest))
    assert not_passed(audit(federation, home)) == {"sums": "FAIL"}


@pytest.mark.parametrize("count", [0, 3], ids=["none", "three"])
def test_sums_that_are_not_one_for_each_shard(federation: MaskedFederation, home: Path, count: int) -> None:
    edit(home, 1, sums=federation.masked_rounds[0].unmasking.sums[:count])
    assert not_passed(audit(federation, home)) == {"sums": "FAIL"}


def test_record_that_does_not_say_what_took_the_masks_off(federation: MaskedFederation, home: Path) -> None:
    record = msgspec.structs.replace(federation.rounds[1].record, unmasking=None)
    Archive(home / "archive").add_record(2, encode_record(record))
    assert not_passed(audit(federation, home)) == {"sums": "FAIL", "releases": "FAIL"}


def test_sums_that_were_not_locked(tmp_path: Path) -> None:
    federation, home = with_tampered_round(tmp_path, Tamper(sums=flip))
    report = audit(federation, home)
    assert not_passed(report) == {"sums": "FAIL"}
    assert "not those that a quorum locked" in report.check("sums").detail


def test_wrong_sum_that_a_quorum_locked(tmp_path: Path) -> None:
    tamper = Tamper(total=lambda shard, data: flip(data) if shard == 2 else data)
    federation, home = with_tampered_round(tmp_path, tamper)
    report = audit(federation, home)
    # The model follows from the sums: only the fingerprints show that those are wrong.
    assert not_passed(report) == {"fingerprints": "FAIL"}
    assert "shard 2 do not add up" in report.check("fingerprints").detail
    keep_all_shards(federation.masked_rounds[1], home)
    report = audit(federation, home)
    assert (not_passed(report), report.exit_code) == ({"fingerprints": "MISBEHAVIOUR"}, 4)
    assert "carol signed a sum of shard 2" in report.check("fingerprints").detail


def test_wrong_fingerprint(tmp_path: Path) -> None:
    def lie(member: int, values: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
        return ((values[0][0] ^ 1, values[0][1]), *values[1:]) if member == 1 else values

    federation, home = with_tampered_round(tmp_path, Tamper(print=lie))
    assert not_passed(audit(federation, home)) == {"fingerprints": "FAIL"}
    keep_all_shards(federation.masked_rounds[1], home)
    report = audit(federation, home)
    assert (not_passed(report), report.exit_code) == ({"fingerprints": "MISBEHAVIOUR"}, 4)
    assert "bob signed a fingerprint of its shard 0" in report.check("fingerprints").detail
    assert report.check("replay").status is Status.PASS


def test_fingerprint_that_was_changed_afterwards(federation: MaskedFederation, home: Path) -> None:
    first, *rest = federation.masked_rounds[0].unmasking.fingerprints
    assert isinstance(first.body, Fingerprint)
    body = msgspec.structs.replace(first.body, values=flip(first.body.values, 7))
    edit(home, 1, fingerprints=(msgspec.structs.replace(first, body=body), *rest))
    assert not_passed(audit(federation, home)) == {"fingerprints": "FAIL"}


def test_seed_that_is_not_the_one_committed_to(federation: MaskedFederation, home: Path) -> None:
    first, *rest = federation.masked_rounds[1].unmasking.seeds
    ((left_out, seed),) = first.seeds
    wrong = msgspec.structs.replace(first, seeds=((left_out, flip(seed)),))
    edit(home, 2, seeds=(wrong, *rest))
    report = audit(federation, home)
    assert not_passed(report) == {"releases": "FAIL"}
    assert "not checked: round 2" in report.check("replay").detail


def test_share_that_is_not_the_one_committed_to(federation: MaskedFederation, home: Path) -> None:
    first, *rest = federation.masked_rounds[0].unmasking.shares
    (member, value), *others = first.shares
    wrong = msgspec.structs.replace(first, shares=((member, flip(value)), *others))
    edit(home, 1, shares=(wrong, *rest))
    assert not_passed(audit(federation, home)) == {"releases": "FAIL"}


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        (lambda made: {"seeds": made.seeds[:2]}, "INCONCLUSIVE"),
        (lambda made: {"shares": made.shares[:1]}, "INCONCLUSIVE"),
        (lambda made: {"seeds": made.seeds[::-1]}, "FAIL"),
        (lambda made: {"shares": (made.shares[0], made.shares[0])}, "FAIL"),
        (lambda made: {"seeds": (msgspec.structs.replace(made.seeds[0], round=1),)}, "FAIL"),
        (lambda made: {"shares": (msgspec.structs.replace(made.shares[0], survivors=bytes(32)),)}, "FAIL"),
        (lambda made: {"seeds": (msgspec.structs.replace(made.seeds[0], member=2),)}, "FAIL"),
        (lambda made: {"shares": (msgspec.structs.replace(made.shares[0], member=9),)}, "FAIL"),
        (lambda made: {"seeds": (msgspec.structs.replace(made.seeds[0], seeds=()),)}, "FAIL"),
    ],
    ids=[
        "too few seeds", "too few shares", "order", "twice", "round", "set", "not a survivor", "no member", "empty",
    ],
)  # fmt: skip
def test_releases_that_are_not_what_they_must_be(
    federation: MaskedFederation, home: Path, change: Callable[[Unmasking], dict[str, Any]], verdict: str
) -> None:
    edit(home, 2, **change(federation.masked_rounds[1].unmasking))
    assert not_passed(audit(federation, home)) == {"releases": verdict}


def test_seeds_though_nobody_was_left_out(federation: MaskedFederation, home: Path) -> None:
    seeds = federation.masked_rounds[1].unmasking.seeds
    first, _, third = federation.masked_rounds
    stray = msgspec.structs.replace(seeds[0], round=1, survivors=first.record.opening.survivors.digest)
    edit(home, 1, seeds=(stray,))
    assert not_passed(audit(federation, home)) == {"releases": "FAIL"}
    assert third.unmasking.seeds == ()


def test_model_that_the_sums_do_not_give(tmp_path: Path) -> None:
    tamper = Tamper(model=lambda model: np.nextafter(model, np.float32(9)))
    federation, home = with_tampered_round(tmp_path, tamper)
    assert not_passed(audit(federation, home)) == {"replay": "FAIL"}


def _other_pair_seeds(body: Commitment) -> Commitment:
    if body.member != 1:
        return body
    return msgspec.structs.replace(body, seeds=(body.seeds[2], body.seeds[1], body.seeds[0], body.seeds[3]))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda body: msgspec.structs.replace(body, seeds=body.seeds[:3]), "one pair seed for each"),
        (lambda body: msgspec.structs.replace(body, shares=body.shares[:1]), "Feldman"),
        (lambda body: msgspec.structs.replace(body, shares=(bytes(32), body.shares[1])), "Feldman"),
        (lambda body: msgspec.structs.replace(body, shards=body.shards[::-1]), "does not cover"),
        (lambda body: msgspec.structs.replace(body, size=body.size + 2), "bytes"),
        (lambda body: msgspec.structs.replace(body, key=b"\x01" * 32), "content key"),
        (_other_pair_seeds, "members 0 and 1 committed to different pair seeds"),
    ],
    ids=["seeds", "shares", "point", "shards", "size", "key", "quarrel"],
)
def test_commitment_that_is_not_well_formed(
    tmp_path: Path, change: Callable[[Commitment], Commitment], says: str
) -> None:
    federation, home = with_tampered_round(tmp_path, Tamper(commitment=change))
    report = audit(federation, home)
    assert not_passed(report) == {"commitments": "FAIL"}
    assert says in report.check("commitments").detail


def test_commitment_to_more_shards_than_there_are(tmp_path: Path) -> None:
    def longer(body: Commitment) -> Commitment:
        shards = (*body.shards, bytes(32))
        return msgspec.structs.replace(body, shards=shards, root=shards_root(shards))

    federation, home = with_tampered_round(tmp_path, Tamper(commitment=longer))
    assert not_passed(audit(federation, home)) == {"commitments": "FAIL"}


def test_masked_shard_that_is_damaged(federation: MaskedFederation, home: Path) -> None:
    own = federation.masked_rounds[0].dealt[0].shards[0]
    path = home / "archive" / "masked" / "0" / ref_of(own).root.hex()
    path.write_bytes(flip(path.read_bytes()))
    report = audit(federation, home)
    # Told once; for the fingerprints it is as if it were not there.
    assert not_passed(report) == {"payloads": "FAIL"}


# --- contradictions ---------------------------------------------------------------------------------------------------


def test_two_sums_of_one_member_are_evidence(
    federation: MaskedFederation, home: Path, tmp_path: Path
) -> None:
    signed = federation.masked_rounds[0].unmasking.sums[1]
    assert isinstance(signed.body, Sum)
    other = federation.say(1, msgspec.structs.replace(signed.body, root=b"\x07" * 32))
    Archive(home / "archive").add_bytes(encode(Evidence(signed, other)))
    report = audit(federation, home)
    assert not_passed(report) == {"equivocation": "MISBEHAVIOUR"}
    assert "bob signed two different Sums for round 1" in report.check("equivocation").detail


@pytest.mark.parametrize("good", [False, True], ids=["bad", "good"])
def test_dealt_share_is_held_against_its_commitment(
    federation: MaskedFederation, home: Path, good: bool
) -> None:
    made = federation.masked_rounds[0]
    commitment = made.record.commitments[2]
    released = dict(made.unmasking.shares[0].shares)[2]
    value = released if good else flip(released)
    assert isinstance(commitment.body, Commitment)
    share = federation.say(2, Share(1, commitment.body.roster, 0, value))
    Archive(home / "archive").add_bytes(encode(Evidence(commitment, share)))
    report = audit(federation, home)
    assert not_passed(report) == ({} if good else {"equivocation": "MISBEHAVIOUR"})
    assert good or "carol dealt a share" in report.check("equivocation").detail


def test_open_mode_says_that_it_has_no_masks(tmp_path: Path) -> None:
    federation = AuditedFederation()
    federation.add_round()
    report = audit(federation, federation.write_home(tmp_path / "alice").path)
    assert report.status is Status.PASS
    assert {report.check(id_).detail for id_ in ("sums", "fingerprints", "releases")} == {
        "open mode has no masks"
    }
