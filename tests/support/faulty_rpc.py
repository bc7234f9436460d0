"""An HTTP server that speaks JSON-RPC of a real chain (`DevChain`), and misbehaves on demand.

Same calls, same blocks: two chains that share their first blocks make a reorganisation.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec

from folkmoot.ledger import evm
from folkmoot.ledger.audit_key import AuditKey
from folkmoot.ledger.calldata import encode_call, encode_deployment
from folkmoot.ledger.calls import Finalize
from folkmoot.ledger.identity import Founding
from folkmoot.protocol.charter import federation_id
from folkmoot.protocol.messages import Statement
from folkmoot.protocol.typed_data import Domain, keccak256, signing_digest, struct_hash
from folkmoot.testnet.chain import JsonRpc
from folkmoot.testnet.devchain import DevChain

GAS_KEY = bytes(31) + b"\x07"
CHAIN_ID, START = 99, 1_700_000_000
CHARTER = keccak256(b"charter")
KEYS = sorted((AuditKey(keccak256(b"key %d" % index)) for index in range(4)), key=lambda key: key.address)
FOUNDING = Founding(CHARTER, tuple(key.address for key in KEYS), lead=5)

Edit = Callable[[dict[str, Any], Any], Any]
"""(request, honest reply) -> reply."""


class Front(ThreadingHTTPServer):
    """JSON-RPC of `chain`, through `edit`; counts requests by method.

    What `instead` answers to a request never reaches the chain.
    """

    daemon_threads = True

    def __init__(self, chain: "Chain | None" = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.chain = chain or Chain()
        self.edit: Edit = lambda request, reply: reply
        self.instead: Callable[[dict[str, Any]], Any] = lambda request: None
        self.raw: bytes | None = None
        self.status = 200
        self.counts: dict[str, int] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/secret-key"

    def answer(self, body: bytes) -> bytes:
        request = msgspec.json.decode(body)
        self.counts[request["method"]] = self.counts.get(request["method"], 0) + 1
        if (own := self.instead(request)) is not None:
            return msgspec.json.encode(own)
        reply = msgspec.json.decode(JsonRpc(self.chain.devchain, None).answer(body))
        return self.raw if self.raw is not None else msgspec.json.encode(self.edit(request, reply))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    server: Front

    def do_POST(self) -> None:
        content = self.server.answer(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


class Chain:
    """A chain with the contract on it; same calls, same blocks."""

    def __init__(
        self,
        founding: Founding = FOUNDING,
        funded: Sequence[bytes] = (),
    ) -> None:
        payer = evm._web3().eth.account.from_key(GAS_KEY)
        self.devchain = DevChain(CHAIN_ID, [bytes.fromhex(payer.address[2:]), *funded], START)
        self._payer = payer
        self._nonce = 0
        self._send(None, encode_deployment(founding))
        receipt = self.devchain.receipt(self.devchain.block("latest")["transactions"][0])  # type: ignore[index]
        assert receipt is not None
        self.contract = bytes.fromhex(receipt["contractAddress"][2:])
        self.head = federation_id(CHARTER, CHAIN_ID, self.contract)
        self.round = 0

    def record(self, salt: bytes = b"") -> Statement:
        self.round += 1
        federation = federation_id(CHARTER, CHAIN_ID, self.contract)
        fields = [keccak256(b"%d %d" % (self.round, field) + salt) for field in range(4)]
        body = Statement(federation, self.round, self.head, CHARTER, *fields)
        signed = signing_digest(Domain(CHAIN_ID, self.contract), body)
        call = Finalize(body, tuple(key.sign(signed) for key in KEYS[:3]))
        self._send(self.contract, encode_call(call))
        self.head = struct_hash(body)
        return body

    def fund(self, address: bytes) -> None:
        """Give an account an ether."""
        self._send(address, b"", 10**18)

    def _send(self, to: bytes | None, data: bytes, value: int = 0) -> None:
        fields: dict[str, Any] = {
            "chainId": CHAIN_ID,
            "nonce": self._nonce,
            "gas": 6_000_000,
            "data": data,
            "value": value,
        }
        fields |= {"maxFeePerGas": 10**10, "maxPriorityFeePerGas": 0} | ({"to": to} if to else {})
        self._nonce += 1
        raw = bytes(self._payer.sign_transaction(fields).raw_transaction)
        self.devchain.mine(raw, START + self._nonce)


@contextmanager
def serving(front: Front) -> Iterator[Front]:
    """Answers while the block runs."""
    thread = threading.Thread(target=front.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield front
    finally:
        front.shutdown()
        front.server_close()
        thread.join()


def final_is(front: "Front", depth: int) -> Edit:
    """The block `depth` below the last is the finalized one."""

    def edit(request: dict[str, Any], reply: Any) -> Any:
        if request["params"][:1] == ["finalized"]:
            number = int(reply["result"]["number"], 16)
            reply["result"] = front.chain.devchain.block(hex(max(0, number - depth)))
        return reply

    return edit


def failing(method: str, code: int = -32005) -> Edit:
    def edit(request: dict[str, Any], reply: Any) -> Any:
        return {"error": {"code": code, "message": "no"}} if request["method"] == method else reply

    return edit
