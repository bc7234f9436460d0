"""The embedded chain as a process: what it says, how it ends, comes back and bears bad requests."""

import signal
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import urllib3
from real_chains import CHAIN_ID, FOUNDING, GAS_KEY, EmbeddedChain, record_rounds

from folkmoot.ledger.errors import LedgerUnavailable
from folkmoot.ledger.evm import EvmLedger, deploy

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedChain]:
    process = EmbeddedChain(tmp_path_factory.mktemp("chain"))
    yield process
    assert process.stop(signal.SIGINT) == 0


def test_the_chain_says_what_it_is(chain: EmbeddedChain) -> None:
    assert "development, not evidence" in chain.banner
    assert "development, not evidence" in str(rpc(chain.url, "web3_clientVersion")["result"])


def test_a_dead_and_a_silent_rpc_are_unavailable(tmp_path: Path) -> None:
    chain = EmbeddedChain(tmp_path)
    deployed = deploy([chain.url], GAS_KEY, FOUNDING)
    ledger = EvmLedger([chain.url], deployed.contract, timeout=1.0)
    assert ledger.head().height == 0
    chain.process.send_signal(signal.SIGSTOP)
    with pytest.raises(LedgerUnavailable, match="no answer in time"):
        ledger.head()
    chain.process.send_signal(signal.SIGCONT)
    assert ledger.head().height == 0
    chain.process.kill()
    chain.process.wait(timeout=10)
    with pytest.raises(LedgerUnavailable, match=r"127\.0\.0\.1:\d+ does not answer") as caught:
        ledger.head()
    assert caught.value.exit_code == 5
    chain.stop()


def test_a_journalled_chain_comes_back_the_same(tmp_path: Path) -> None:
    options = ("--journal", str(tmp_path / "chain.sqlite"))
    chain = EmbeddedChain(tmp_path, *options)
    deployed = deploy([chain.url], GAS_KEY, FOUNDING)
    ledger = EvmLedger([chain.url], deployed.contract, GAS_KEY)
    record_rounds(ledger, deployed.contract, 2)
    before = ledger.records(1)
    chain.process.kill()
    chain.stop()
    chain = EmbeddedChain(tmp_path, *options)
    again = EvmLedger([chain.url], deployed.contract, GAS_KEY)
    assert again.records(1) == before
    record_rounds(again, deployed.contract, 1)
    assert again.head().height == 3
    assert chain.stop() == 0


def rpc(url: str, method: str, *params: object) -> dict[str, object]:
    return post(url, msgspec.json.encode({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}))


def post(url: str, body: bytes) -> dict[str, object]:
    reply = urllib3.request("POST", url, body=body, timeout=5)
    return msgspec.json.decode(reply.data, type=dict[str, object])


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", -32700),
        (b"\xff{", -32700),
        (b"[" * 100_000, -32700),
        (b"[]", -32600),
        (b"7", -32600),
        (b'{"id":1,"method":7}', -32600),
        (b'{"id":1,"method":"eth_mine"}', -32601),
        (b'{"id":1,"method":"eth_call"}', -32602),
        (b'{"id":1,"method":"eth_call","params":[7]}', -32602),
        (b'{"id":1,"method":"eth_call","params":[{"to":"0x01"}]}', -32602),
        (b'{"id":1,"method":"eth_getLogs","params":[{"fromBlock":"zz"}]}', -32602),
        (b'{"id":1,"method":"eth_sendRawTransaction","params":["0x02c0"]}', -32602),
        (b'{"id":1,"method":"eth_getBalance","params":["0x' + b"00" * 20 + b'","0xffff"]}', -32000),
    ],
)
def test_bad_requests_get_errors(chain: EmbeddedChain, body: bytes, code: int) -> None:
    answer = post(chain.url, body)
    assert answer["error"]["code"] == code  # type: ignore[index]
    assert rpc(chain.url, "eth_chainId")["result"] == hex(CHAIN_ID)
