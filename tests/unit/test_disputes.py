"""A dispute from draft to report: three homes answer, an auditor opens one update; then something is wrong."""

import json
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
from audited_federation import CONTRACT, NAMES, record, removal
from click.testing import CliRunner
from masked_federation import Dealt, MaskedFederation, Tamper, keep_shard
from nacl.public import PrivateKey

from folkmoot.ledger.audit.dispute import DisputeReport, run_dispute
from folkmoot.ledger.audit.in_force import Ground
from folkmoot.ledger.audit.sources import Source
from folkmoot.ledger.memory import MemoryChain, MemoryLedger
from folkmoot.ledger.permit_files import load_permit, write_permit, write_signature
from folkmoot.node import disputes
from folkmoot.node.charters import keep_amendments
from folkmoot.node.cli import cli
from folkmoot.node.config import Home
from folkmoot.node.disputes import DisputeError, Party
from folkmoot.node.keys import KeysError
from folkmoot.node.store import PERMITTED, Journal, StoreError
from folkmoot.protocol.blob import ref_of
from folkmoot.protocol.charter_tables import Schedule
from folkmoot.protocol.errors import CharterError, Reject
from folkmoot.protocol.governance import Amendment
from folkmoot.protocol.messages import Commitment
from folkmoot.protocol.secure.dealing import shards_root
from folkmoot.protocol.secure.permit import Permit
from folkmoot.protocol.toml import ConfigError

AUDITOR = PrivateKey(b"\x05" * 32)
KEY = bytes(AUDITOR.public_key).hex()
SECRETS = {KEY: bytes(AUDITOR)}


class Case:
    """Homes of all four, and a permit for bob's update of round 1 that three members signed."""

    def __init__(
        self, path: Path, federation: MaskedFederation, amendments: Sequence[Amendment] = ()
    ) -> None:
        """The permit is for the last round. `amendments`: those that the homes know of."""
        self.federation, self.number = federation, len(federation.rounds)
        self.homes = [
            federation.write_node(path / name, place) for place, name in enumerate(federation.names)
        ]
        for home in self.homes:
            with Journal.open(home.store) as journal:
                keep_amendments(journal, amendments)
        self.file = path / "permit.toml"
        self.permit = self.draft("bob")
        write_permit(self.file, self.permit)
        self.sign(self.file, self.permit)

    def party(self, member: int) -> Party:
        return Party.at(self.homes[member], self.number)

    def draft(self, *members: str, round_: int = 0, reason: str = "to see") -> Permit:
        return self.party(0).draft(round_ or self.number, KEY, members, reason)

    def sign(self, file: Path, permit: Permit) -> None:
        for member in range(self.federation.charter.quorum):
            write_signature(file, self.federation.names[member], self.party(member).sign(permit))

    def signed(self, name: str, permit: Permit) -> Path:
        """Another permit, signed by a quorum."""
        file = self.file.with_name(name)
        write_permit(file, permit)
        self.sign(file, permit)
        return file

    def answers(self, *members: int) -> dict[str, bytes]:
        signed = load_permit(self.file)
        return {self.federation.names[member]: self.party(member).answer(signed) for member in members}

    def report(
        self, answers: dict[str, bytes], *homes: int, ledger: MemoryLedger | None = None
    ) -> DisputeReport:
        sources = [Source.of_home(self.homes[member].path) for member in homes or (1,)]
        ledgers = [ledger] if ledger else []
        ground = Ground(CONTRACT, sources, ledgers=ledgers, names=["RPC 1"], development=True)
        return run_dispute(ground, load_permit(self.file), answers, SECRETS)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    federation = MaskedFederation()
    federation.add_masked_round()
    return Case(tmp_path, federation)


def statuses(report: DisputeReport) -> dict[str, str]:
    return {check.id: check.status.value for check in report.checks}


def not_passed(report: DisputeReport) -> dict[str, str]:
    return {id_: status for id_, status in statuses(report).items() if status != "PASS"}


# --- all is well ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_update_is_opened_with_everybodys_answers(tmp_path: Path, bits: int) -> None:
    federation = MaskedFederation(ring=bits)
    trained: list[list[np.ndarray]] = []  # type: ignore[type-arg]
    train = federation._train

    def remember() -> list[np.ndarray]:  # type: ignore[type-arg]
        trained.append(train())
        return trained[-1]

    federation._train = remember  # type: ignore[method-assign]
    federation.add_masked_round()
    case = Case(tmp_path, federation)
    report = case.report(case.answers(0, 2, 3))
    assert (report.exit_code, not_passed(report)) == (0, {}), report
    (update,) = report.updates
    assert (update.member, update.weight) == ("bob", round(101 * 255 / 200))
    weight, bias = np.split(trained[0][1].astype(np.float64), [210])
    step = 255 / update.weight * 2.0**-federation.layout.value_bits
    for tensor, values in zip(update.tensors, (weight, bias), strict=True):
        assert tensor.largest == pytest.approx(np.abs(values).max(), abs=step)
        assert tensor.norm == pytest.approx(np.linalg.norm(values), abs=step * len(values) ** 0.5)
    assert [tensor.name for tensor in update.tensors] == ["weight", "bias"]


def test_masks_of_a_member_left_out_are_taken_from_the_record(tmp_path: Path) -> None:
    federation = MaskedFederation(names=(*NAMES, "erin"))
    federation.add_masked_round(survivors=(0, 1, 2, 3))
    case = Case(tmp_path, federation)
    report = case.report(case.answers(0, 2, 3))
    assert (report.exit_code, not_passed(report), len(report.updates)) == (0, {}, 1)


# --- what a node refuses ----------------------------------------------------------------------------------------------


def test_answer_needs_a_quorums_signatures(case: Case) -> None:
    (case.file.parent / "permit.sig" / "carol.sig").write_text("00")
    with pytest.raises(Reject, match="signed by 2 of 4"):
        case.answers(0)
    with Journal.open(case.homes[0].store) as journal:
        assert journal.entries_of(1, PERMITTED) == []


def test_second_permit_that_leaves_too_few_hidden_is_not_answered(case: Case) -> None:
    case.answers(0)
    other = msgspec.structs.replace(case.permit, members=("carol",), auditor="07" * 32)
    file = case.signed("carol.toml", other)
    with pytest.raises(Reject, match="only 2 of 4"):
        case.party(0).answer(load_permit(file))
    # Who has answered neither may answer either, but then not the first any more.
    assert case.party(3).answer(load_permit(file))
    with pytest.raises(Reject, match="only 2 of 4"):
        case.answers(3)


def test_same_member_for_another_auditor_opens_nothing_new(case: Case) -> None:
    case.answers(0)
    again = msgspec.structs.replace(case.permit, auditor="07" * 32)
    assert case.party(0).answer(load_permit(case.signed("again.toml", again)))


def test_no_auditor_can_read_two_of_four_whatever_quorums_sign(case: Case) -> None:
    """To open a member takes an answer of every other survivor, and each of them counts."""
    other = case.signed("other.toml", msgspec.structs.replace(case.permit, members=("carol",)))
    first, second = load_permit(case.file), load_permit(other)
    given: dict[str, set[int]] = {"bob": set(), "carol": set()}
    for member in range(4):
        for signed in (first, second) if member % 2 else (second, first):
            try:
                case.party(member).answer(signed)
            except Reject:
                continue
            given[signed.permit.members[0]].add(member)
    opened = [name for name, who in given.items() if who >= set(range(4)) - {NAMES.index(name)}]
    assert len(opened) < 2


def test_answering_twice_gives_the_same_bytes_and_counts_once(case: Case) -> None:
    assert case.answers(0) == case.answers(0)
    with Journal.open(case.homes[0].store) as journal:
        assert len(journal.entries_of(1, PERMITTED)) == 1


def test_permit_is_journalled_before_the_answer_is_given(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object) -> bytes:
        raise RuntimeError("killed")

    monkeypatch.setattr(disputes, "seal_answer", die)
    with pytest.raises(RuntimeError):
        case.answers(0)
    with Journal.open(case.homes[0].store) as journal:
        assert len(journal.entries_of(1, PERMITTED)) == 1


def test_erased_epoch_is_not_answered(case: Case) -> None:
    with Journal.open(case.homes[0].store) as journal:
        journal.erase_epochs(1)
    with pytest.raises(DisputeError, match="erased"):
        case.answers(0)


def test_running_node_is_told_to_be_stopped(case: Case) -> None:
    with Journal.open(case.homes[0].store), pytest.raises(StoreError, match="another process"):
        case.answers(0)


def test_named_member_has_nothing_to_answer(case: Case) -> None:
    with pytest.raises(Reject, match="nothing to answer"):
        case.answers(1)


def test_two_of_four_are_not_even_drafted(case: Case) -> None:
    with pytest.raises(Reject, match="only 2 of 4"):
        case.draft("bob", "carol")
    with pytest.raises(CharterError, match="no member 'erin'"):
        case.draft("erin")
    with pytest.raises(DisputeError, match="no record of round 2"):
        case.draft("bob", round_=2)


# --- what an auditor finds --------------------------------------------------------------------------------------------


def test_without_all_answers_the_update_stays_hidden(case: Case) -> None:
    report = case.report(case.answers(0, 2))
    assert not_passed(report) == {"answers": "INCONCLUSIVE", "encoding": "SKIPPED"}
    assert "bob stays hidden: no good answer of dave" in report.check("answers").detail
    assert (report.exit_code, report.updates) == (3, ())


def test_without_the_auditors_key_nothing_opens(case: Case) -> None:
    sources = [Source.of_home(case.homes[1].path)]
    report = run_dispute(Ground(CONTRACT, sources), load_permit(case.file), case.answers(0), {})
    assert not_passed(report) == {"answers": "INCONCLUSIVE", "encoding": "SKIPPED"}


def test_answer_of_rubbish_is_told_with_its_file(case: Case) -> None:
    report = case.report({**case.answers(0, 2, 3), "mallory.ans": bytes(80)})
    assert not_passed(report) == {"answers": "FAIL"}
    assert "mallory.ans" in report.check("answers").detail
    assert len(report.updates) == 1


def test_permit_without_a_quorum_opens_nothing(case: Case) -> None:
    answers = case.answers(0, 2, 3)
    (case.file.parent / "permit.sig" / "carol.sig").unlink()
    report = case.report(answers)
    assert statuses(report) == {
        "record": "PASS", "permit": "FAIL", "answers": "SKIPPED", "shards": "SKIPPED", "fingerprints": "SKIPPED",
        "encoding": "SKIPPED", "charter": "PASS",
    }  # fmt: skip
    assert report.updates == ()


def test_round_that_no_archive_has(case: Case) -> None:
    answers = case.answers(0, 2, 3)
    (case.homes[1].archive / "rounds" / "00000001.record").unlink()
    report = case.report(answers)
    assert not_passed(report)["record"] == "INCONCLUSIVE"
    assert not_passed(case.report(answers, 1, 2)) == {}


def test_shards_that_nobody_shows(case: Case) -> None:
    answers = case.answers(0, 2, 3)
    # Alice holds of bob's vector only the shard that she summed.
    report = case.report(answers, 0)
    assert not_passed(report) == {"shards": "INCONCLUSIVE", "fingerprints": "SKIPPED", "encoding": "SKIPPED"}
    assert "shards 1, 2, 3 of bob's" in report.check("shards").detail
    assert not_passed(case.report(answers, 0, 1)) == {}


def test_wrong_fingerprint_convicts_its_member(tmp_path: Path) -> None:
    def lie(member: int, values: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
        return ((values[0][0] ^ 1, values[0][1]), *values[1:]) if member == 1 else values

    federation = MaskedFederation()
    federation.add_masked_round(tamper=Tamper(print=lie))
    case = Case(tmp_path, federation)
    report = case.report(case.answers(0, 2, 3))
    assert (not_passed(report), report.exit_code) == ({"fingerprints": "MISBEHAVIOUR"}, 4)
    assert len(report.updates) == 1


def _shift(dealt: Dealt, at: int, by: int) -> Dealt:
    """Bob's vector with something added to one ring value, and committed to like that."""
    values = np.frombuffer(b"".join(dealt.shards), dtype="<u2").copy()
    values[at : at + 1] += np.uint16(by)  # in the ring: a lone value would warn of its overflow
    data, shards, start = values.tobytes(), list[bytes](), 0
    for shard in dealt.shards:
        shards.append(data[start : start + len(shard)])
        start += len(shard)
    roots = tuple(ref_of(shard).root for shard in shards)
    commitment: Commitment = msgspec.structs.replace(dealt.commitment, shards=roots, root=shards_root(roots))
    return Dealt(commitment, shards, dealt.polynomial, dealt.seeds)


@pytest.mark.parametrize(
    ("at", "by", "says"),
    [
        (0, 1000, "begin with a weight"),
        (5, 1, "begin with a weight"),
        (100, 1 << 15, "beyond the range"),
        (319, 1, "padding is not zero"),
    ],
    ids=["weight", "weight block", "value", "padding"],
)
def test_vector_that_no_honest_member_sends_convicts_it(tmp_path: Path, at: int, by: int, says: str) -> None:
    federation = MaskedFederation()
    federation.add_masked_round(
        tamper=Tamper(dealt=lambda member, dealt: _shift(dealt, at, by) if member == 1 else dealt)
    )
    case = Case(tmp_path, federation)
    report = case.report(case.answers(0, 2, 3))
    assert (not_passed(report), report.exit_code) == ({"encoding": "MISBEHAVIOUR"}, 4)
    assert says in report.check("encoding").detail and "bob put" in report.check("encoding").detail
    assert report.updates == ()


# --- commands ---------------------------------------------------------------------------------------------------------


def test_commands_lead_from_draft_to_report(tmp_path: Path) -> None:
    federation = MaskedFederation()
    federation.add_masked_round()
    homes = [federation.write_node(tmp_path / name, place) for place, name in enumerate(NAMES)]
    permit, own = tmp_path / "permit.toml", tmp_path / "notary"
    (own / "keys").mkdir(parents=True)
    (own / "keys" / "sealing.key").write_text(bytes(AUDITOR).hex())

    def run(*arguments: object) -> str:
        done = CliRunner().invoke(cli, list(map(str, arguments)), catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    run(
        *("dispute", "permit", "--home", homes[0].path, "--round", 1, "--auditor", KEY),
        *("--member", "bob", "--reason", "to see", "--out", permit),
    )
    with pytest.raises(ConfigError, match="cannot be written"):
        write_permit(permit, load_permit(permit).permit)
    answers: list[object] = []
    for member in (0, 2, 3):
        assert "to see" in run("dispute", "sign", "--home", homes[member].path, "--permit", permit)
    for member in (0, 2, 3):
        out = tmp_path / f"{NAMES[member]}.answer"
        run("dispute", "answer", "--home", homes[member].path, "--permit", permit, "--out", out)
        answers += ["--answers", out]
    common = ("--permit", permit, "--contract", f"0x{CONTRACT.hex()}", "--home", own, "--home", homes[1].path)
    report = json.loads(run("audit", "dispute", *common, *answers, "--json"))
    assert (report["status"], report["format"]) == ("PASS", "folkmoot/v1/dispute")
    assert [update["member"] for update in report["updates"]] == ["bob"]
    assert "dispute: PASS" in run("audit", "dispute", *common, *answers)


def test_home_that_is_not_a_members_cannot_take_part(case: Case) -> None:
    other = Home(case.homes[0].path)
    (other.keys / "identity.key").write_text("11" * 32)
    with pytest.raises(KeysError, match="holds no identity key that the charter names"):
        Party.at(other, 1)


def test_auditor_without_a_charter_is_told(case: Case, tmp_path: Path) -> None:
    with pytest.raises(CharterError, match="no charter"):
        run_dispute(Ground(CONTRACT, [Source(tmp_path)]), load_permit(case.file), {}, SECRETS)


def test_charter_that_a_member_did_not_sign_opens_nothing(case: Case) -> None:
    answers = case.answers(0, 2, 3)
    (case.homes[1].path / "charter.sig" / "dave.sig").unlink()
    report = case.report(answers)
    assert (statuses(report).pop("charter"), report.updates) == ("FAIL", ())
    assert {status for id_, status in statuses(report).items() if id_ != "charter"} == {"SKIPPED"}


# --- under an amended charter -----------------------------------------------------------------------------------------


@pytest.fixture
def amended(tmp_path: Path) -> tuple[Case, MemoryLedger]:
    """Two rounds of five members, then one of the four that remain: the permit is for that one."""
    federation = MaskedFederation(names=(*NAMES, "erin"), schedule=Schedule(rounds=9, max_ahead=1))
    ledger = MemoryLedger(MemoryChain(federation.identity), bytes(20))
    record(ledger, federation.add_masked_round().finalize)
    amendment, after = removal(federation, "erin", effective=3)
    record(ledger, amendment)
    record(ledger, federation.add_masked_round().finalize)
    federation.change_charter(after)
    record(ledger, federation.add_masked_round().finalize)
    return Case(tmp_path, federation, [amendment.amendment]), ledger


def test_round_under_an_amended_charter_is_opened(amended: tuple[Case, MemoryLedger]) -> None:
    case, ledger = amended
    report = case.report(case.answers(0, 2, 3), ledger=ledger)
    assert (report.exit_code, not_passed(report)) == (0, {}), report
    assert [update.member for update in report.updates] == ["bob"]


def test_only_the_ledger_says_which_charter_was_in_force(amended: tuple[Case, MemoryLedger]) -> None:
    case, _ = amended
    report = case.report(case.answers(0, 2, 3))
    assert (report.check("charter").status, report.updates, report.exit_code) == ("INCONCLUSIVE", (), 3)
    assert "name its ledger too" in report.check("charter").detail


def test_amended_charter_that_was_not_given(amended: tuple[Case, MemoryLedger]) -> None:
    case, ledger = amended
    answers = case.answers(0, 2, 3)
    for path in case.homes[1].charters.iterdir():
        path.unlink()
    report = case.report(answers, ledger=ledger)
    assert (report.check("charter").status, report.updates) == ("INCONCLUSIVE", ())
    assert "was not given" in report.check("charter").detail


def test_ledger_that_does_not_answer_is_not_taken_for_one_without_amendments(
    amended: tuple[Case, MemoryLedger],
) -> None:
    case, ledger = amended
    answers = case.answers(0, 2, 3)
    ledger.down = True
    report = case.report(answers, ledger=ledger)
    assert (report.exit_code, report.updates) == (5, ())


def test_round_before_the_amendment_is_under_the_founding_charter(tmp_path: Path) -> None:
    federation = MaskedFederation(names=(*NAMES, "erin"), schedule=Schedule(rounds=9, max_ahead=1))
    ledger = MemoryLedger(MemoryChain(federation.identity), bytes(20))
    record(ledger, federation.add_masked_round().finalize)
    amendment, _ = removal(federation, "erin", effective=3)
    record(ledger, amendment)
    case = Case(tmp_path, federation, [amendment.amendment])
    answers = case.answers(0, 2, 3)
    assert not_passed(case.report(answers, ledger=ledger)) == {}
    assert not_passed(case.report(answers)) == {}


def test_masked_shard_may_come_from_any_archive(case: Case) -> None:
    answers = case.answers(0, 2, 3)
    for data in case.federation.masked_rounds[0].dealt[1].shards:
        keep_shard(case.homes[3].archive, 0, data)
    assert not_passed(case.report(answers, 3)) == {}
