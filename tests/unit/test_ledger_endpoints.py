"""Several RPC endpoints: used in turn, checked before use, compared; and what was final stays so."""

from collections.abc import Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any, cast

import pytest
from faulty_rpc import CHAIN_ID, Chain, Front, failing, final_is, serving
from msgspec.structs import replace

from folkmoot.ledger.audit.charters import finality_depth
from folkmoot.ledger.audit.rpc_record import RpcRecord
from folkmoot.ledger.audit.sources import SignedCharter
from folkmoot.ledger.errors import LedgerDisagrees, LedgerReorganised, LedgerUnavailable, WrongLedger
from folkmoot.ledger.port import FinalBlock
from folkmoot.ledger.reader import LedgerReader
from folkmoot.node.config import LedgerConfig
from folkmoot.node.daemon import _ledger
from folkmoot.node.opening import Node
from folkmoot.testnet.simulation.node import simulated_charter

DEAD = "http://127.0.0.1:9"


@pytest.fixture
def fronts() -> Iterator[list[Front]]:
    with ExitStack() as stack:
        yield [stack.enter_context(serving(Front())) for _ in range(2)]


def reader(*fronts: Front, urls: tuple[str, ...] = (), chain_id: int | None = CHAIN_ID) -> LedgerReader:
    contract = fronts[0].chain.contract
    return LedgerReader([*(front.url for front in fronts), *urls], contract, timeout=2.0, chain_id=chain_id)


def result(method: str, value: object) -> Any:
    return lambda request, reply: {"result": value} if request["method"] == method else reply


def record_on_both(fronts: list[Front], rounds: int = 1) -> None:
    for front in fronts:
        for _ in range(rounds):
            front.chain.record()


# --- used in turn ------------------------------------------------------------------------------------------


def test_one_that_fails_is_not_waited_for_again(fronts: list[Front]) -> None:
    one, other = fronts
    ledger = reader(*fronts)
    assert ledger.head().height == 0 and not other.counts
    one.status = 503
    for _ in range(3):
        assert ledger.head().height == 0
    assert one.counts["eth_getBlockByNumber"] <= 4
    one.status, other.status = 200, 503
    assert ledger.head().height == 0


def test_one_that_answers_nonsense_is_left_too(fronts: list[Front]) -> None:
    ledger = reader(*fronts)
    fronts[0].edit = result("eth_getBlockByNumber", 7)
    with pytest.raises(LedgerUnavailable, match="no usable answer"):
        ledger.head()
    assert ledger.head().height == 0


@pytest.mark.parametrize(
    ("lie", "says"),
    [
        (result("eth_chainId", "0x5"), "chain id at http://127.0.0.1:.* should be 99 but is 5"),
        (result("eth_getCode", "0x"), "is empty"),
        (result("eth_getCode", "0x6001"), "hash of the code"),
    ],
)
def test_one_of_another_chain_or_contract_is_refused_and_said(
    fronts: list[Front], lie: Any, says: str
) -> None:
    """The charter says which chain and code are meant, so the right one can be told from the wrong one."""
    wrong, right = fronts
    wrong.edit = lie
    ledger = reader(*fronts)
    assert ledger.head().height == 0
    (note,) = ledger.compare()
    assert wrong.url.rpartition("/")[0] in note and "wrong ledger" in note
    right.status = 503
    with pytest.raises(LedgerUnavailable, match=r"wrong ledger: .*; http.*: HTTP status 503"):
        ledger.head()
    right.status = 200
    right.edit = lie
    with pytest.raises(WrongLedger, match=says) as caught:
        for _ in range(2):
            reader(*fronts).head()
    assert caught.value.exit_code == 2


def test_one_that_is_another_chain_after_an_outage_is_noticed(fronts: list[Front]) -> None:
    ledger = reader(fronts[0])
    assert ledger.head().height == 0
    fronts[0].status = 503
    with pytest.raises(LedgerUnavailable):
        ledger.head()
    fronts[0].status = 200
    fronts[0].edit = result("eth_chainId", "0x1")
    with pytest.raises(WrongLedger, match="should be 99 but is 1"):
        ledger.head()


def test_urls_of_one_host_are_told_apart(fronts: list[Front]) -> None:
    fronts[0].status = 503
    with pytest.raises(LedgerUnavailable) as caught:
        reader(fronts[0], urls=(fronts[0].url + "2",)).head()
    assert f"{fronts[0].server_port} (2)" in str(caught.value)
    assert "secret" not in str(caught.value)


# --- compared ------------------------------------------------------------------------------------------


def test_endpoints_that_agree_have_nothing_to_say(fronts: list[Front]) -> None:
    record_on_both(fronts, 2)
    assert reader(*fronts).compare() == ()
    assert reader(fronts[0]).compare() == ()


def test_one_that_is_a_little_behind_agrees(fronts: list[Front]) -> None:
    record_on_both(fronts)
    fronts[1].chain.record()
    assert reader(*fronts).compare() == ()


def test_a_silent_one_is_said(fronts: list[Front]) -> None:
    (note,) = reader(*fronts, urls=(DEAD,)).compare()
    assert DEAD in note and "connection refused" in note


def test_one_far_behind_is_said(fronts: list[Front], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("folkmoot.ledger.compare.BEHIND", 1)
    for _ in range(3):
        fronts[0].chain.record()
    (note,) = reader(*fronts).compare()
    assert note.endswith("3 blocks behind")


def test_one_that_forgot_the_state_still_shows_the_hash(fronts: list[Front]) -> None:
    record_on_both(fronts)
    fronts[1].edit = failing("eth_call")
    assert reader(*fronts).compare() == ()
    fronts[0].chain.record(b"x")
    fronts[1].chain.record(b"y")
    with pytest.raises(LedgerDisagrees):
        reader(*fronts).compare()


@pytest.mark.parametrize("lie", ["fork", "height", "head"])
def test_different_histories_are_refused(fronts: list[Front], lie: str) -> None:
    record_on_both(fronts)
    if lie == "fork":
        for salt, front in zip((b"x", b"y"), fronts, strict=True):
            front.chain.record(salt)
    else:
        fronts[1].edit = result("eth_call", "0x" + _position(height=lie == "height").hex())
        fronts[0].chain.record()
        fronts[1].chain.record()
    with pytest.raises(
        LedgerDisagrees, match=r"disagree on the ledger: .* shows block 3 .*; .* shows block 3"
    ):
        reader(*fronts).compare()


def _position(height: bool) -> bytes:
    """One round more than there are, or another head."""
    return (3 if height else 2).to_bytes(32, "big") + b"\x01" * 32 + bytes(31) + b"\x01" + bytes(64)


# --- what was final ------------------------------------------------------------------------------------------


def test_a_reorganisation_below_finality_is_noticed(fronts: list[Front]) -> None:
    front = fronts[0]
    front.chain.record(b"here")
    ledger = reader(front)
    before = ledger.head()
    forked = Chain()
    for _ in range(3):
        forked.record(b"there")
    front.chain = forked
    with pytest.raises(LedgerReorganised, match="block 2 was 0x") as caught:
        ledger.head()
    assert caught.value.exit_code == 4
    again = reader(front)
    again.expect(before.final)  # as an earlier life wrote it down
    with pytest.raises(LedgerReorganised):
        again.head()


def test_a_reorganisation_above_finality_is_none_of_ours(fronts: list[Front]) -> None:
    front = fronts[0]
    front.edit = final_is(front, 1)
    front.chain.record()
    front.chain.record(b"here")
    ledger = reader(front)
    assert (ledger.head().height, ledger.head().finalized_height) == (2, 1)
    forked = Chain()
    for salt in (b"", b"there", b""):
        forked.record(salt)
    front.chain = forked
    assert (ledger.head().height, ledger.head().finalized_height) == (3, 2)


def test_one_endpoint_alone_cannot_undo_what_was_final(fronts: list[Front]) -> None:
    record_on_both(fronts)
    ledger = reader(*fronts)
    assert ledger.head().height == 1
    fronts[0].chain = Chain()
    for _ in range(2):
        fronts[0].chain.record(b"forged")
    with pytest.raises(LedgerDisagrees, match=f"but {fronts[1].url.rpartition('/')[0]} still has that block"):
        ledger.head()


def test_one_that_is_behind_is_left_for_another(fronts: list[Front]) -> None:
    record_on_both(fronts)
    fronts[0].chain.record()
    ledger = reader(*fronts)
    assert ledger.head().height == 2
    fronts[0].status = 503
    with pytest.raises(LedgerUnavailable, match="behind: it shows block 2, but block 3 was final before"):
        ledger.head()
    fronts[0].status = 200
    assert ledger.head().height == 2


def test_a_tag_that_is_known_is_not_replaced_by_a_depth(fronts: list[Front]) -> None:
    """Else one refused question would make blocks final that the chain does not call so."""
    front = fronts[0]
    front.edit = final_is(front, 1)
    front.chain.record()
    ledger = reader(front)
    assert ledger.head().finalized_height == 0
    front.chain.record()
    front.edit = lambda request, reply: (
        {"error": {"code": -32005, "message": "rate limit"}}
        if request["params"][:1] == ["finalized"]
        else reply
    )
    with pytest.raises(LedgerUnavailable, match="rate limit"):
        ledger.head()


@pytest.mark.parametrize("depth", [1, 3])
def test_where_the_chain_has_no_tag_the_charters_depth_counts(fronts: list[Front], depth: int) -> None:
    """For the node's ledger and the auditor's view."""
    front = fronts[0]
    front.edit = lambda request, reply: (
        {"error": {"code": -32602, "message": "invalid block tag"}}
        if request["params"][:1] == ["finalized"]
        else reply
    )
    charter = simulated_charter(4, 9)
    charter = replace(charter, ledger=replace(charter.ledger, chain_id=CHAIN_ID, finality_depth=depth))
    config = SimpleNamespace(
        ledger=LedgerConfig(rpc=(front.url,), contract=f"0x{front.chain.contract.hex()}")
    )
    keys = SimpleNamespace(gas=bytes([1]) * 32)
    node = SimpleNamespace(config=config, contract=front.chain.contract, keys=keys, charter=charter)
    given = SignedCharter(
        replace(charter, ledger=replace(charter.ledger, finality_depth=1)), {}, "", (charter,)
    )
    asked = finality_depth(given, [])
    views = [
        _ledger(cast(Node, node)),
        RpcRecord(front.url, front.chain.contract, timeout=2.0, finality_depth=asked),
    ]
    for height in range(1, 6):
        front.chain.record()
        assert [view.head().finalized_height for view in views] == [max(0, height - depth)] * 2


def test_an_older_final_block_is_not_gone_back_to(fronts: list[Front]) -> None:
    record_on_both(fronts)
    ledger = reader(fronts[0])
    final = ledger.head().final
    ledger.expect(FinalBlock(0, bytes(32)))
    fronts[0].chain.record()
    assert ledger.head().final.number == final.number + 1


def test_a_node_without_old_states_is_read_by_its_events(fronts: list[Front]) -> None:
    """On a second layer what is final is thousands of blocks old, and most nodes keep a hundred states."""
    front, depth = fronts[0], 2
    last = final_is(front, depth)

    def edit(request: dict[str, Any], reply: Any) -> Any:
        if request["method"] == "eth_call" and request["params"][1] not in (
            "latest",
            hex(front.chain.devchain.height),
        ):
            return {"error": {"code": -32000, "message": "missing trie node"}}
        return last(request, reply)

    front.edit = edit
    ledger = LedgerReader([front.url], front.chain.contract, timeout=2.0, chain_id=CHAIN_ID, span=2)
    assert ledger.head().finalized_height == 0
    for height in range(1, 8):
        front.chain.record()
        assert (ledger.head().height, ledger.head().finalized_height) == (height, max(0, height - depth))
    for _ in range(7):
        front.chain.fund(bytes(20))
    assert ledger.head().finalized_height == 7
    fresh = LedgerReader([front.url], front.chain.contract, timeout=2.0, chain_id=CHAIN_ID, span=2)
    assert fresh.head().finalized_height == 7
