"""Check 30: privacy logs against what READYs said and against the budget, by another accountant than the members'."""

import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from audited_federation import CHEAP, CONTRACT, NAMES, AuditedFederation, text_of

from folkmoot.ledger.audit import accountant
from folkmoot.ledger.audit.bundle import open_bundle, write_bundle
from folkmoot.ledger.audit.checks import audit, run_audit
from folkmoot.ledger.audit.report import AuditReport, Check
from folkmoot.ledger.audit.shown import ShownLedger
from folkmoot.ledger.audit.sources import Source
from folkmoot.node.config import Home
from folkmoot.node.train.accounting import epsilon_of
from folkmoot.protocol.charter_tables import Privacy
from folkmoot.protocol.privacy import Cost, Log

PRIVACY = Privacy(mechanism="records", epsilon="2", noise="0.8")
DEAR = Cost(sample_rate=0.2, noise=0.8, steps=20)


def made(privacy: Privacy = PRIVACY, rounds: int = 3) -> AuditedFederation:
    federation = AuditedFederation(privacy=privacy)
    for _ in range(rounds):
        federation.add_round()
    return federation


def overspent() -> AuditedFederation:
    """In its third round bob takes far more rows in, as if there were no budget."""
    federation = AuditedFederation(privacy=PRIVACY)
    federation.cost_of = lambda name, round_: DEAR if (name, round_) == ("bob", 3) else CHEAP
    for _ in range(3):
        federation.add_round()
    return federation


def homes(federation: AuditedFederation, path: Path, members: tuple[str, ...] = NAMES) -> Iterator[Home]:
    for name in members:
        yield federation.write_home(path / name, NAMES.index(name))


def audited(federation: AuditedFederation, given: Iterator[Home]) -> AuditReport:
    sources = [Source.of_home(home.path) for home in given]
    return run_audit(federation.ledger(), sources, contract=CONTRACT)


def check(federation: AuditedFederation, given: Iterator[Home]) -> Check:
    return audited(federation, given).check("privacy")


def changed(home: Home, log: Log, **fields: object) -> None:
    """The home's log with its last line otherwise, and a chain that fits."""
    *before, last = log.lines
    again = Log.begin(log.owner)
    for spending in [line.spending for line in before] + [msgspec.structs.replace(last.spending, **fields)]:
        again = again.add(spending)
    home.privacy_log.write_bytes(text_of(again))


def test_logs_that_fit_pass_and_say_what_was_spent(tmp_path: Path) -> None:
    federation = made()
    found = check(federation, homes(federation, tmp_path))
    assert (found.status, found.number) == ("PASS", 30)
    assert "12 updates" in found.detail and "bob spent epsilon" in found.detail


def test_a_round_beyond_the_budget_fails_and_is_named(tmp_path: Path) -> None:
    federation = overspent()
    report = audited(federation, homes(federation, tmp_path))
    found = report.check("privacy")
    assert found.status == "FAIL" and report.exit_code == 1
    assert "round 3: bob went on beyond its privacy budget" in found.detail
    assert "rounds 1 to 3" in found.detail and "the charter allows 2" in found.detail
    assert [row.status for row in report.rounds] == ["PASS", "PASS", "FAIL"]
    (finding,) = [one for one in report.findings if one.check == "privacy"]
    assert (finding.round, finding.member) == (3, "bob")


def test_a_line_that_is_left_out_or_changed_afterwards_is_seen(tmp_path: Path) -> None:
    federation = overspent()
    log = federation.logs["bob"]
    (home,) = homes(federation, tmp_path / "cheaper", ("bob",))
    changed(home, log, cost=CHEAP)
    found = check(federation, iter([home]))
    assert found.status == "FAIL" and "round 3: bob: its READY commits to another privacy log" in found.detail

    (home,) = homes(federation, tmp_path / "shorter", ("bob",))
    home.privacy_log.write_bytes(b"".join(text_of(log).splitlines(keepends=True)[:-1]))
    assert "round 3: bob" in check(federation, iter([home])).detail

    (home,) = homes(federation, tmp_path / "garbled", ("bob",))
    home.privacy_log.write_bytes(text_of(log).replace(b'"steps":20', b'"steps":"20"'))
    assert "cannot be read" in check(federation, iter([home])).detail


@pytest.mark.parametrize(
    ("terms", "text"),
    [
        ({"noise": "2"}, "rounds 1-3: bob: it added noise of 1.5, the charter asks for 2"),
        ({"delta": "0.000000001"}, "come to epsilon 2.204 at delta 0.000000001, the charter allows 2"),
    ],
)
def test_noise_and_delta_are_the_charters(tmp_path: Path, terms: dict[str, str], text: str) -> None:
    federation = made(msgspec.structs.replace(PRIVACY, **terms))
    found = check(federation, homes(federation, tmp_path, ("bob",)))
    assert found.status == "FAIL" and text in found.detail


def test_each_window_has_its_own_budget(tmp_path: Path) -> None:
    """The same six updates are too many for one budget, and few enough for one in every three rounds."""
    dear = Cost(sample_rate=0.1, noise=0.9, steps=20)
    spent = [accountant.epsilon_of([dear] * rounds, 1e-5) for rounds in (3, 6)]
    epsilon = f"{sum(spent) / 2:.3f}"
    found = []
    for window in (0, 3):
        federation = AuditedFederation(
            privacy=Privacy(mechanism="records", epsilon=epsilon, noise="0.5", window=window)
        )
        federation.cost_of = lambda name, round_: dear
        for _ in range(6):
            federation.add_round()
        found.append(check(federation, homes(federation, tmp_path / str(window), ("bob",))).status)
    assert found == ["FAIL", "PASS"]


def test_whose_log_was_not_given_is_told(tmp_path: Path) -> None:
    federation = made()
    found = check(federation, homes(federation, tmp_path, ("bob",)))
    assert found.status == "PASS" and "not those of alice, carol, dave" in found.detail
    (home,) = homes(federation, tmp_path / "none", ("bob",))
    home.privacy_log.unlink()
    assert check(federation, iter([home])).status == "SKIPPED"
    plain = AuditedFederation()
    plain.add_round()
    assert "no privacy budget" in check(plain, homes(plain, tmp_path / "plain", ("bob",))).detail


def test_without_the_other_accountant_nothing_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accountant._epsilon.cache_clear()
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    federation = made()
    found = check(federation, homes(federation, tmp_path, ("bob",)))
    assert found.status == "INCONCLUSIVE" and "folkmoot[privacy]" in found.detail


def test_a_bundle_holds_the_logs(tmp_path: Path) -> None:
    federation = overspent()
    sources = [Source.of_home(home.path) for home in homes(federation, tmp_path)]
    first = audit([federation.ledger()], sources, contract=CONTRACT)
    bundle, charter = tmp_path / "bundle.zip", sources[0].charter()
    shown = [ShownLedger.of_view(view) for view in first.views]
    write_bundle(bundle, shown, sources, charter, contract=CONTRACT, development=True)
    (tmp_path / "unpacked").mkdir()
    opened = open_bundle(bundle, tmp_path / "unpacked")
    again = audit(opened.ledgers, opened.sources, contract=CONTRACT, charter=opened.charter)
    assert again.report.check("privacy") == first.report.check("privacy")


@pytest.mark.parametrize(
    "cost",
    [
        Cost(sample_rate=0.0393, noise=1.079, steps=127),
        Cost(sample_rate=0.01, noise=1.0, steps=1000),
        Cost(sample_rate=0.05, noise=2.9, steps=500),
        Cost(sample_rate=1.0, noise=12.0, steps=60),
    ],
)
def test_the_two_accountants_agree_within_a_percent(cost: Cost) -> None:
    theirs = accountant.epsilon_of([cost], 1e-5)
    ours = epsilon_of([cost], theirs, 1e-5)
    assert abs(ours - theirs) <= accountant.TOLERANCE * theirs
