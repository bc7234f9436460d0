"""The audit of all that the contract can record: checkpoints, single attestations, amendments and reports, on anvil."""

from collections.abc import Iterator

import msgspec
import pytest
from anvil import call, running_anvil
from audited_federation import AuditedFederation, record, removal
from lying_rpc import answers, lying

from folkmoot.ledger.audit import AuditReport, audit
from folkmoot.ledger.audit.ledger_checks import read_view
from folkmoot.ledger.audit.report import Tally
from folkmoot.ledger.audit.rpc_record import RpcRecord
from folkmoot.ledger.audit.shown import ShownLedger, decode_shown, encode_shown
from folkmoot.ledger.audit_key import AuditKey
from folkmoot.ledger.calls import Attest, Checkpoint, Report
from folkmoot.ledger.evm import EvmLedger, deploy
from folkmoot.ledger.identity import founding_of
from folkmoot.protocol.charter_tables import Schedule
from folkmoot.protocol.messages import Vote
from folkmoot.protocol.typed_data import keccak256

pytestmark = pytest.mark.integration

GAS_KEY = bytes(31) + b"\x09"
CHAIN_ID = 31_337


@pytest.fixture(scope="module")
def chain() -> Iterator[tuple[str, AuditedFederation]]:
    """Four rounds, each recorded in another way, an amendment and a report."""
    with running_anvil(CHAIN_ID) as url:
        call(url, "anvil_setBalance", f"0x{AuditKey(GAS_KEY).address.hex()}", hex(10**20))
        made = AuditedFederation(chain_id=CHAIN_ID, schedule=Schedule(rounds=200))
        made.settle(deploy([url], GAS_KEY, founding_of(made.charter)).contract, CHAIN_ID)
        one, two, three, four = (made.add_round() for _ in range(4))
        ledger = EvmLedger([url], made.contract, GAS_KEY)
        record(ledger, one.finalize)
        record(ledger, Checkpoint((two.statement, three.statement), tuple(three.signatures)))
        for signature in four.signatures:
            record(ledger, Attest(four.statement, signature))
        record(ledger, removal(made, "dave", made.charter.schedule.max_ahead + 5)[0])
        votes = [made.say(1, Vote(made.federation.id, 2, 0, bytes([value]) * 32)) for value in (1, 2)]
        record(ledger, Report(*votes))
        yield url, made


def run(url: str, federation: AuditedFederation) -> AuditReport:
    return audit([RpcRecord(url, federation.contract)], contract=federation.contract, development=True).report


def test_everything_is_understood_and_proven(chain: tuple[str, AuditedFederation]) -> None:
    report = run(*chain)
    wrong = {check.id: check for check in report.checks if check.status not in ("PASS", "SKIPPED")}
    assert list(wrong) == ["reports"], wrong
    assert report.check("proof").detail.startswith("14 words")
    assert report.check("amendments").detail == "1 amendments"
    assert [row.signatures for row in report.rounds] == [3, 3, 3, 3]
    (finding,) = report.findings
    assert (finding.status, finding.round, report.exit_code) == ("MISBEHAVIOUR", 2, 4)
    assert finding.proof is not None and len(finding.proof["signatures"]) == 2


def test_a_file_of_it_says_the_same(chain: tuple[str, AuditedFederation]) -> None:
    url, federation = chain
    view = read_view(RpcRecord(url, federation.contract), "RPC 1", Tally("ledger"), Tally("code-hash"))
    assert view is not None
    file = encode_shown(ShownLedger.of_view(view))
    again = audit(
        [decode_shown(file)], contract=federation.contract, development=True, names=["RPC 1"]
    ).report
    assert msgspec.to_builtins(again) == msgspec.to_builtins(run(*chain))


@pytest.mark.parametrize("topic", ["Amended", "Equivocated"])
def test_hidden_amendments_and_reports_are_found(chain: tuple[str, AuditedFederation], topic: str) -> None:
    """The contract's state has the head of the one and the flag of the other."""
    url, federation = chain
    topics = {
        "Amended": b"Amended(uint64,bytes32,bytes32,bytes32,bytes32,uint64,uint64,address,bytes32[])",
        "Equivocated": b"Equivocated(address,uint256,bytes32[],bytes32[],address)",
    }
    hidden = f"0x{keccak256(topics[topic]).hex()}"
    with lying(url) as rpc:
        rpc.lie = answers("eth_getLogs", lambda logs: [log for log in logs if log["topics"][0] != hidden])
        report = run(rpc.url, federation)
    assert report.check("amendments" if topic == "Amended" else "proof").status == "FAIL", report.findings
