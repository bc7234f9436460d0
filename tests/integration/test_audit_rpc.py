"""The audit against a real EVM node (anvil): what is proven, and every way in which an RPC may lie about it."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from anvil import call, running_anvil
from audited_federation import AuditedFederation
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lying_rpc import Lie, LyingRpc, all_of, answers, lying, refuses

from folkmoot.ledger.audit import Audited, AuditReport, Source, audit
from folkmoot.ledger.audit.memory import Remembered
from folkmoot.ledger.audit.rpc_record import RpcRecord
from folkmoot.ledger.audit_key import AuditKey
from folkmoot.ledger.build import contract_build
from folkmoot.ledger.evm import EvmLedger, deploy
from folkmoot.ledger.identity import founding_of

pytestmark = pytest.mark.integration

GAS_KEY = bytes(31) + b"\x09"
CHAIN_ID = 31_337


@pytest.fixture(scope="module")
def anvil() -> Iterator[str]:
    with running_anvil(CHAIN_ID) as url:
        call(url, "anvil_setBalance", f"0x{AuditKey(GAS_KEY).address.hex()}", hex(10**20))
        yield url


@pytest.fixture(scope="module")
def federation(anvil: str) -> AuditedFederation:
    made = AuditedFederation(chain_id=CHAIN_ID)
    contract = deploy([anvil], GAS_KEY, founding_of(made.charter)).contract
    made.settle(contract, CHAIN_ID)
    for _ in range(3):
        made.add_round()
    made.record_on(EvmLedger([anvil], contract, GAS_KEY))
    return made


@pytest.fixture(scope="module")
def home(federation: AuditedFederation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return federation.write_home(tmp_path_factory.mktemp("homes") / "alice").path


@pytest.fixture
def rpc(anvil: str) -> Iterator[LyingRpc]:
    with lying(anvil) as server:
        yield server


def run(federation: AuditedFederation, *urls: str, home: Path | None = None, **options: Any) -> Audited:
    ledgers = [RpcRecord(url, federation.contract, timeout=5.0) for url in urls]
    sources = [Source.of_home(home)] if home else []
    return audit(ledgers, sources, contract=federation.contract, **options)


def found(report: AuditReport) -> dict[str, str]:
    return {
        check.id: check.status.value for check in report.checks if check.status not in ("PASS", "SKIPPED")
    }


def test_an_honest_node_proves_what_it_shows(federation: AuditedFederation, anvil: str, home: Path) -> None:
    report = run(federation, anvil, anvil, home=home, development=True).report
    assert found(report) == {}
    for id_ in ("agreement", "headers", "proof"):
        assert report.check(id_).status == "PASS", report.check(id_)
    assert report.subject.height == 3 and report.subject.block_time is not None
    assert report.subject.block_hash in report.check("headers").detail


def test_an_old_block_is_no_answer(federation: AuditedFederation, anvil: str) -> None:
    """A lone RPC could show it to hide what came later; on a development chain blocks come when they are asked for."""
    soon = time.time() + 60
    report = run(federation, anvil, oldest=soon).report
    assert (report.check("headers").status, report.exit_code) == ("INCONCLUSIVE", 3)
    assert "it is behind, or hides what came later" in report.check("headers").detail
    assert run(federation, anvil, oldest=soon, development=True).report.check("headers").status == "PASS"
    assert run(federation, anvil, oldest=time.time() - 86_400).report.check("headers").status == "PASS"


# --- an RPC that lies -------------------------------------------------------------------------------------------------


def selector(name: str) -> str:
    return f"0x{contract_build().selector(name).hex()}"


def view(name: str, change: Callable[[str], str]) -> Lie:
    """Another answer of one of the contract's views."""

    def lie(request: dict[str, Any], reply: Any) -> Any:
        if request["method"] == "eth_call" and request["params"][0]["data"].startswith(selector(name)):
            reply["result"] = change(reply["result"])
        return reply

    return lie


def word(value: int) -> str:
    return f"0x{value:064x}"


def without_last(logs: list[Any]) -> list[Any]:
    return logs[:-1]


def with_changed_data(logs: list[Any]) -> list[Any]:
    if logs:
        logs[0]["data"] = "0x" + "11" * 32 + logs[0]["data"][66:]
    return logs


def with_field(name: str, value: object) -> Callable[[Any], Any]:
    return lambda result: {**result, name: value}


def node_changed(proof: dict[str, Any]) -> dict[str, Any]:
    nodes = proof["accountProof"]
    return {**proof, "accountProof": [*nodes[:-1], nodes[-1][:-2] + "00"]}


def word_changed(proof: dict[str, Any]) -> dict[str, Any]:
    """A proof of one slot in the place of another."""
    first, second, *rest = proof["storageProof"]
    return {**proof, "storageProof": [second, first, *rest]}


def without_storage(proof: dict[str, Any]) -> dict[str, Any]:
    return {**proof, "storageProof": [{**slot, "proof": []} for slot in proof["storageProof"]]}


def position(place: int, value: str) -> Lie:
    """Another word of what the contract says of its position: height, head, config, amendments, governance head."""

    def lie(request: dict[str, Any], reply: Any) -> Any:
        if request["method"] == "eth_call" and request["params"][0]["data"].startswith(selector("position")):
            answer = reply["result"][2:]  # nothing, in blocks before the deployment
            if answer:
                reply["result"] = "0x" + answer[: 64 * place] + value[2:] + answer[64 * (place + 1) :]
        return reply

    return lie


def earlier(federation: AuditedFederation) -> Lie:
    """Where the record stood before its last round."""
    return all_of(position(0, word(2)), position(1, f"0x{federation.rounds[2].statement.previous.hex()}"))


def one_founder_less(answer: str) -> str:
    words = [answer[2 + at : 66 + at] for at in range(0, len(answer) - 2, 64)]
    return "0x" + words[0] + f"{int(words[1], 16) - 1:064x}" + "".join(words[2:-1])


LIES: dict[str, tuple[Callable[[AuditedFederation], Lie], dict[str, str]]] = {
    "head": (lambda f: position(1, word(7)), {"hash-chain": "FAIL", "proof": "FAIL"}),
    "height": (lambda f: position(0, word(9)), {"rounds": "FAIL", "proof": "FAIL"}),
    "a head and height of before": (earlier, {"proof": "FAIL"}),
    "hidden rounds": (
        lambda f: all_of(earlier(f), answers("eth_getLogs", without_last)),
        {"proof": "FAIL"},
    ),
    "charter in force": (lambda f: position(2, word(5)), {"amendments": "FAIL", "proof": "FAIL"}),
    "number of amendments": (lambda f: position(3, word(1)), {"amendments": "FAIL", "proof": "FAIL"}),
    "governance head": (lambda f: position(4, word(5)), {"amendments": "FAIL", "proof": "FAIL"}),
    "attesters": (lambda f: view("founders", one_founder_less), {"charter": "FAIL", "proof": "FAIL"}),
    "lead": (lambda f: view("lead", lambda _: word(1)), {"charter": "FAIL", "proof": "FAIL"}),
    "members": (lambda f: view("founding_members", lambda _: word(1)), {"charter": "FAIL", "proof": "FAIL"}),
    "hidden event": (lambda f: answers("eth_getLogs", without_last), {"rounds": "FAIL"}),
    "changed event": (lambda f: answers("eth_getLogs", with_changed_data), {"ledger": "UNREACHABLE"}),
    "charter": (lambda f: view("charter_digest", lambda _: word(5)), {"ledger": "UNREACHABLE"}),
    "code": (lambda f: answers("eth_getCode", lambda code: code + "00"), {"code-hash": "FAIL"}),
    "another chain": (
        lambda f: answers("eth_chainId", lambda _: "0x1"),
        {"ledger": "UNREACHABLE"},
    ),
    "block hash": (
        lambda f: answers("eth_getBlockByNumber", with_field("hash", word(3))),
        {"headers": "FAIL"},
    ),
    "state root": (
        lambda f: answers("eth_getBlockByNumber", with_field("stateRoot", word(3))),
        {"headers": "FAIL", "proof": "FAIL"},
    ),
    "block number": (
        lambda f: answers(
            "eth_getBlockByNumber",
            lambda block: {**block, "number": hex(max(0, int(block["number"], 16) - 1))},
        ),
        {"headers": "FAIL"},
    ),
    "proof with a changed node": (lambda f: answers("eth_getProof", node_changed), {"proof": "FAIL"}),
    "proof of another word": (lambda f: answers("eth_getProof", word_changed), {"proof": "FAIL"}),
    "proof without nodes": (lambda f: answers("eth_getProof", without_storage), {"proof": "FAIL"}),
    "no proofs": (lambda f: refuses("eth_getProof"), {"proof": "INCONCLUSIVE"}),
    "proof that is none": (lambda f: answers("eth_getProof", lambda _: [1]), {"ledger": "UNREACHABLE"}),
    "header without a field": (
        lambda f: answers("eth_getBlockByNumber", lambda block: {**block, "mixHash": None}),
        {"ledger": "UNREACHABLE"},
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_a_lie_is_found(federation: AuditedFederation, rpc: LyingRpc, home: Path, name: str) -> None:
    lie, expected = LIES[name]
    rpc.lie = lie(federation)
    audited = run(federation, rpc.url, home=home)
    told = found(audited.report)
    assert told.pop("finality", "INCONCLUSIVE") == "INCONCLUSIVE"  # anvil calls blocks final late
    assert expected.items() <= told.items(), audited.report.findings
    assert audited.report.exit_code in (1, 3, 5)
    if "FAIL" in expected.values():
        assert audited.report.exit_code == 1 and audited.memory is None


@pytest.mark.parametrize("name", ["hidden rounds", "head", "charter", "another chain"])
def test_an_honest_rpc_beside_it_shows_the_lie(
    federation: AuditedFederation, anvil: str, rpc: LyingRpc, name: str
) -> None:
    rpc.lie = LIES[name][0](federation)
    report = run(federation, anvil, rpc.url).report
    assert report.exit_code in (1, 5)
    assert any(finding.where.startswith("RPC") or "RPC 2" in finding.what for finding in report.findings)


METHODS = (
    *(
        "eth_chainId",
        "eth_getCode",
        "eth_call",
        "eth_getBlockByNumber",
        "eth_getLogs",
        "eth_getTransactionByHash",
    ),
    *("eth_getTransactionReceipt", "eth_getProof", "eth_blockNumber", "web3_clientVersion"),
)
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-1, 2**70), st.text(max_size=4), st.just([]), st.just({}), st.just([{}]),
    st.sampled_from(["0x", "0x0", "0xff", "0x" + "ff" * 20, "0x" + "ff" * 32, "0x" + "00" * 64, "0xzz"]),
)  # fmt: skip


def put_somewhere(random: Random, value: Any, odd: Any) -> Any:
    """`value` with something in it, however deep, replaced by `odd`."""
    if not isinstance(value, dict | list) or not value or random.random() < 0.3:
        return odd
    name = random.choice(sorted(value) if isinstance(value, dict) else range(len(value)))
    value[name] = put_somewhere(random, value[name], odd)
    return value


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(method=st.sampled_from(METHODS), odd=ODD, seed=st.integers(0, 2**32))
def test_no_answer_crashes_the_audit(
    federation: AuditedFederation, rpc: LyingRpc, method: str, odd: Any, seed: int
) -> None:
    random = Random(seed)
    rpc.lie = answers(method, lambda result: put_somewhere(random, result, odd))
    assert run(federation, rpc.url).report.exit_code in (0, 1, 3, 5)


# --- what was verified before -----------------------------------------------------------------------------------------


def test_a_rewritten_history_is_told_with_both_heads() -> None:
    """Another node of the same chain id, contract and charter, on which other statements were recorded."""
    heads: list[Audited] = []
    remembered: list[Remembered] = []
    for first in (0, 1):
        with running_anvil(CHAIN_ID) as url:
            call(url, "anvil_setBalance", f"0x{AuditKey(GAS_KEY).address.hex()}", hex(10**20))
            made = AuditedFederation(chain_id=CHAIN_ID)
            terms = made.charter
            made.settle(deploy([url], GAS_KEY, founding_of(terms)).contract, CHAIN_ID)
            made.add_round(survivors=(0, 1, 2, 3) if first else (0, 1, 3))
            made.add_round()
            made.record_on(EvmLedger([url], made.contract, GAS_KEY))
            call(url, "anvil_mine", "0x5")
            heads.append(run(made, url, recall=lambda _: remembered[-1] if remembered else None))
            memory = heads[-1].memory
            if memory is not None:
                remembered.append(memory)
    assert heads[0].report.check("memory").status == "SKIPPED"
    check = heads[1].report.check("memory")
    assert (check.status, heads[1].report.exit_code) == ("MISBEHAVIOUR", 4), check
    fork = next(one for one in heads[1].report.findings if one.what.startswith("fork: round 2"))
    assert fork.proof is not None
    both = (fork.proof["remembered"]["shown"], fork.proof["shown"])
    assert all(len(head["signatures"]) == 3 for head in both)
    assert both[0]["digest"] != both[1]["digest"]
    assert heads[1].memory is None
