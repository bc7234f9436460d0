"""A budget in a federation of real engines: it ends, the member says so, the others go on, and no crash forgets it."""

import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
import trio
from audited_federation import NAMES
from living_federation import Crash, House, LivingFederation, crash_after, in_virtual_time

from folkmoot.ledger.audit.checks import run_audit
from folkmoot.ledger.audit.report import AuditReport
from folkmoot.ledger.audit.sources import SignedCharter, Source
from folkmoot.node.privacy_log import PrivacyLog, PrivacyLogError
from folkmoot.node.train.accounting import Budget
from folkmoot.node.trainer import FakeTrainer, FitResult, KeptVectors
from folkmoot.protocol.charter import sign_charter
from folkmoot.protocol.charter_tables import Averaging, Privacy
from folkmoot.protocol.effects import Promote
from folkmoot.protocol.messages import Declined, Ready, Signed, decode_frame
from folkmoot.protocol.privacy import Cost, Owner, Spending, read_log

PRIVACY = Privacy(mechanism="records", epsilon="2", noise="1.2")
ROUNDS = 6
BOB = 1


class PrivateTrainer(FakeTrainer):
    """Learns without torch, and asks the real accountant before."""

    def __init__(self, parameters: int, member: str, rows: int) -> None:
        super().__init__(parameters, member, num_examples=rows, delay=1.0)
        self._budget = Budget(PRIVACY, ROUNDS, rows, batch=10, steps=20)

    async def fit(
        self,
        round: int,
        base: Path,
        update: Path,
        kept: KeptVectors,
        spent: Sequence[Cost] = (),
        fragment: tuple[int, int, int] | None = None,
    ) -> FitResult:
        epsilon = self._budget.with_next(spent)
        result = await super().fit(round, base, update)
        return msgspec.structs.replace(result, cost=self._budget.cost, epsilon=epsilon)


def found(path: Path, rows: Sequence[int], mode: str = "open") -> LivingFederation:
    federation = LivingFederation(
        path,
        rounds=ROUNDS,
        privacy=PRIVACY,
        averaging=Averaging(mode="secure" if mode == "secure" else "open"),
    )
    for house, count in zip(federation.houses, rows, strict=True):
        house.trainer = PrivateTrainer(federation.charter.model.parameters, NAMES[house.me], count)
    return federation


def audited(federation: LivingFederation) -> AuditReport:
    made, charter = federation.made, federation.charter
    signatures = {name: sign_charter(charter, made.keys[at].identity) for at, name in enumerate(NAMES)}
    return run_audit(
        federation.houses[0].ledger,
        [Source.of_home(house.path) for house in federation.houses],
        contract=made.contract,
        charter=SignedCharter(charter, signatures, "test"),
    )


def read(house: House) -> list[Spending]:
    return [line.spending for line in read_log((house.path / "privacy.jsonl").read_bytes()).lines]


@pytest.mark.parametrize("mode", ["open", "secure"])
def test_who_has_spent_its_budget_says_so_and_the_others_go_on(tmp_path: Path, mode: str) -> None:
    async def play() -> LivingFederation:
        federation = found(tmp_path, (2000, 200, 2000, 2000), mode)  # of few rows each step shows more
        await federation.run()
        return federation

    federation = in_virtual_time(play)
    federation.check()
    bob = federation.houses[BOB]
    spent = [one.round for one in read(bob)]
    assert spent and max(spent) < ROUNDS
    for round_, effect in bob.watched.rounds.items():
        assert (BOB in effect.participants) == (round_ in spent)
    assert "the privacy budget is spent" in bob.watched.refusals[-1]
    assert bob.watched.epsilon == read(bob)[-1].epsilon <= 2
    assert [one.round for one in read(federation.houses[0])] == list(range(1, ROUNDS + 1))
    said = [frame for data in dict.fromkeys(bob.said) if isinstance(frame := decode_frame(data), Signed)]
    declined = {one.body.round for one in said if one.member == BOB and isinstance(one.body, Declined)}
    assert declined == set(range(max(spent) + 1, ROUNDS + 1))
    report = audited(federation)
    assert report.status == "PASS", report.checks
    assert f"{3 * ROUNDS + len(spent)} updates" in report.check("privacy").detail


def test_nobody_waits_for_a_member_that_takes_no_part(tmp_path: Path) -> None:
    ended: dict[int, float] = {}

    async def play() -> None:
        federation = found(tmp_path, (2000, 10, 2000, 2000))
        watched = federation.houses[0].watched
        promoted = watched.promoted

        def note(effect: Promote) -> None:
            ended[effect.round] = trio.current_time()
            promoted(effect)

        watched.promoted = note  # type: ignore[method-assign]
        await federation.run()
        assert read(federation.houses[BOB]) == []

    in_virtual_time(play)
    seconds = [after - before for before, after in pairwise(ended.values())]
    assert max(seconds) < 2, seconds  # the least grace is two seconds, training takes one


def test_equal_weights_and_no_measures_go_over_the_wire(tmp_path: Path) -> None:
    async def play() -> LivingFederation:
        federation = found(tmp_path, (2000, 1000, 2000, 3000))
        await federation.run(until=lambda one: one.chain.head().height >= 1)
        return federation

    federation = in_virtual_time(play)
    frames = [decode_frame(data) for house in federation.houses for data in dict.fromkeys(house.said)]
    readies = [one.body for one in frames if isinstance(one, Signed) and isinstance(one.body, Ready)]
    assert readies
    assert {(one.num_examples, one.metrics) for one in readies} == {(65_535, ())}


@pytest.mark.parametrize("word", ["disclosure", "said", "began"])
def test_no_crash_makes_spending_forgotten(tmp_path: Path, word: str) -> None:
    """Bob dies right after something of round 1 (or of its update) is on the disk, and lives again."""

    async def dying(house: House) -> None:
        try:
            await house.live(on_append=crash_after(word))
        except* Crash:
            house.crashes += 1
        await house.live()

    async def play() -> LivingFederation:
        federation = found(tmp_path, (2000, 2000, 2000, 2000))
        await federation.run({BOB: dying})
        return federation

    federation = in_virtual_time(play)
    bob = federation.houses[BOB]
    assert bob.crashes == 1
    commitments = [line.commitment for line in read_log((bob.path / "privacy.jsonl").read_bytes()).lines]
    said = [frame for data in dict.fromkeys(bob.said) if isinstance(frame := decode_frame(data), Signed)]
    readies = [one.body for one in said if one.member == BOB and isinstance(one.body, Ready)]
    assert readies and {one.privacy_log for one in readies} <= set(commitments)


# --- the file ---------------------------------------------------------------------------------------------------------

OWNER = Owner(federation="ab" * 32, member="bob")


def spending(round_: int) -> Spending:
    cost = Cost(sample_rate=0.1, noise=1.0, steps=20)
    return Spending(
        round=round_,
        base="00" * 32,
        cost=cost,
        clip="1",
        epsilon=0.5 * round_,
        salt=bytes([round_]).hex() * 32,
    )


def test_a_log_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "privacy.jsonl"
    log = PrivacyLog.open(path, OWNER)
    written = [log.charge(spending(round_)) for round_ in (1, 2, 3)]
    again = PrivacyLog.open(path, OWNER, promised=written[1].chain).log
    assert list(again.lines) == written
    assert again == log.log == read_log(path.read_bytes())


def test_a_line_that_was_being_written_when_the_node_died_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "privacy.jsonl"
    log = PrivacyLog.open(path, OWNER)
    log.charge(spending(1))
    whole = path.read_bytes()
    log.charge(spending(2))
    for size in range(len(whole), path.stat().st_size):
        torn = tmp_path / "torn.jsonl"
        torn.write_bytes(path.read_bytes()[:size])
        again = PrivacyLog.open(torn, OWNER)
        assert [line.spending.round for line in again.log.lines] == [1]
        assert again.charge(spending(2)).chain == log.log.chain
        assert torn.read_bytes() == path.read_bytes()


def test_a_log_that_lacks_what_was_committed_to_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "privacy.jsonl"
    log = PrivacyLog.open(path, OWNER)
    log.charge(spending(1))
    older = path.read_bytes()
    promised = log.charge(spending(2)).chain
    path.write_bytes(older)
    with pytest.raises(PrivacyLogError, match="lacks updates that this node has committed to"):
        PrivacyLog.open(path, OWNER, promised)
    path.unlink()
    with pytest.raises(PrivacyLogError, match="lacks updates"):
        PrivacyLog.open(path, OWNER, promised)


def test_a_log_of_somebody_else_or_one_that_was_edited_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "privacy.jsonl"
    PrivacyLog.open(path, OWNER).charge(spending(1))
    with pytest.raises(PrivacyLogError, match="it is bob's"):
        PrivacyLog.open(path, Owner(federation="ab" * 32, member="carol"))
    path.write_bytes(path.read_bytes().replace(b'"steps":20', b'"steps": 2'))
    with pytest.raises(PrivacyLogError, match=r"line 2 .* not as a node writes it"):
        PrivacyLog.open(path, OWNER)


def test_a_line_is_on_the_disk_when_it_is_promised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bytes] = []
    path = tmp_path / "privacy.jsonl"
    monkeypatch.setattr(os, "fsync", lambda _: synced.append(path.read_bytes() if path.exists() else b""))
    log = PrivacyLog.open(path, OWNER)
    log.charge(spending(1))
    assert synced[-1] == path.read_bytes() and synced[-1].endswith(b"\n")
