"""The embedded chain: one process that serves `DevChain` over HTTP JSON-RPC on the loopback. Development, not evidence.

    python -m folkmoot.testnet.chain --address-file FILE [--port 0] [--chain-id N] [--fund ADDRESS]... [--journal FILE]

The real URL is written to the address file when the chain answers. With a journal, transactions are kept and executed
again at the next start: the same chain, to the block hashes. SIGINT and SIGTERM end it cleanly.
"""

import argparse
import os
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec

from folkmoot.ledger.answers import to_bytes, to_hex
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.testnet.chains import DEFAULT_CHAIN_ID
from folkmoot.testnet.devchain import LABEL, ChainError, DevChain

_MAX_BODY = 2 * 1024 * 1024
_MAX_BATCH = 100
_VERSION = f"folkmoot-embedded/1 ({LABEL})"


class Journal:
    """Genesis and transactions in SQLite, so that a chain can be built again."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS genesis (chain_id INTEGER, funded TEXT, timestamp INTEGER)"
        )
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS block (number INTEGER PRIMARY KEY, timestamp INTEGER, raw BLOB)"
        )

    def open_chain(self, chain_id: int, funded: Sequence[bytes]) -> DevChain:
        """The journalled chain, or a new one; exits if the journal is of a chain with another genesis."""
        addresses = " ".join(sorted(address.hex() for address in funded))
        genesis = self._db.execute("SELECT chain_id, funded, timestamp FROM genesis").fetchone()
        if genesis is None:
            genesis = (chain_id, addresses, int(time.time()))
            self._db.execute("INSERT INTO genesis VALUES (?, ?, ?)", genesis)
        if genesis[:2] != (chain_id, addresses):
            sys.exit(
                "chain: the journal is of a chain with another id or other funded accounts; remove it, or use those"
            )
        chain = DevChain(chain_id, funded, genesis[2])
        for timestamp, raw in self._db.execute("SELECT timestamp, raw FROM block ORDER BY number"):
            chain.mine(raw, timestamp)
        return chain

    def append(self, number: int, timestamp: int, raw: bytes) -> None:
        """Keep a transaction that block `number` holds."""
        self._db.execute("INSERT INTO block VALUES (?, ?, ?)", (number, timestamp, raw))

    def close(self) -> None:
        """Close the file."""
        self._db.close()


class JsonRpc:
    """Answers JSON-RPC 2.0 requests about one chain, one at a time."""

    def __init__(self, chain: DevChain, journal: Journal | None) -> None:
        self._chain = chain
        self._journal = journal
        self._lock = threading.Lock()
        self._methods: dict[str, Callable[..., Any]] = {
            "web3_clientVersion": lambda: _VERSION,
            "net_version": lambda: str(chain.chain_id),
            "eth_chainId": lambda: hex(chain.chain_id),
            "eth_syncing": lambda: False,
            "eth_accounts": lambda: [],
            "eth_blockNumber": lambda: hex(chain.height),
            "eth_getBlockByNumber": chain.block,
            "eth_getBlockByHash": chain.block,
            "eth_getTransactionByHash": chain.transaction,
            "eth_getTransactionReceipt": chain.receipt,
            "eth_getLogs": chain.logs,
            "eth_gasPrice": lambda: hex(chain.base_fee()),
            "eth_maxPriorityFeePerGas": lambda: "0x0",
            "eth_getTransactionCount": lambda address, tag="latest": hex(
                chain.nonce(to_bytes(address, 20), tag)
            ),
            "eth_getBalance": lambda address, tag="latest": hex(chain.balance(to_bytes(address, 20), tag)),
            "eth_getCode": lambda address, tag="latest": to_hex(chain.code(to_bytes(address, 20), tag)),
            "eth_getStorageAt": lambda address, slot, tag="latest": (
                f"0x{chain.storage(to_bytes(address, 20), int(slot, 16), tag):064x}"
            ),
            "eth_call": lambda query, tag="latest": to_hex(chain.call(query, tag)),
            "eth_estimateGas": lambda query, tag="latest": hex(chain.estimate_gas(query, tag)),
            "eth_sendRawTransaction": self._send,
        }

    def answer(self, body: bytes) -> bytes:
        """The reply to a request or a batch of them; whatever the body, a JSON-RPC reply."""
        try:
            request = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return msgspec.json.encode(_error(None, -32700, "the request is not JSON"))
        if isinstance(request, list) and 0 < len(request) <= _MAX_BATCH:
            return msgspec.json.encode([self._one(item) for item in request])
        return msgspec.json.encode(self._one(request))

    def _one(self, request: object) -> dict[str, Any]:
        if not isinstance(request, dict) or not isinstance(request.get("method"), str):
            return _error(None, -32600, "not a JSON-RPC request, or a batch of too many")
        name, params = request.get("id"), request.get("params") or []
        method = self._methods.get(request["method"])
        if method is None:
            return _error(name, -32601, f"the embedded chain has no method {request['method'][:80]}")
        if not isinstance(params, list):
            return _error(name, -32602, "params must be a list")
        try:
            with self._lock:
                return {"jsonrpc": "2.0", "id": name, "result": method(*params)}
        except ChainError as error:
            return _error(name, error.code, error.message, error.data)
        except (RemoteProtocolError, TypeError, ValueError, AttributeError, KeyError, OverflowError) as error:
            return _error(name, -32602, f"invalid params: {error}")
        except Exception as error:  # py-evm may raise anything on hostile calls: tell the caller, live on
            return _error(name, -32603, f"internal error: {type(error).__name__}: {error}")

    def _send(self, raw: str) -> str:
        transaction, timestamp = to_bytes(raw), self._chain.next_timestamp()
        name = self._chain.mine(transaction, timestamp)
        if self._journal is not None:
            self._journal.append(self._chain.height, timestamp, transaction)
        return name


def _error(name: object, code: int, message: str, data: str | None = None) -> dict[str, Any]:
    error: dict[str, Any] = {"code": code, "message": message}
    if data is not None:
        error["data"] = data
    return {"jsonrpc": "2.0", "id": name if isinstance(name, int | str) else None, "error": error}


class Server(ThreadingHTTPServer):
    """A thread for each connection; clients keep theirs."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int, rpc: JsonRpc) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.rpc = rpc

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no event."""


class Handler(BaseHTTPRequestHandler):
    """POST is JSON-RPC; GET says what this is."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: Server

    def do_POST(self) -> None:
        """Answer one request or batch."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > _MAX_BODY:
            self.close_connection = True
            self._reply(
                413, msgspec.json.encode(_error(None, -32600, f"a body of 0 to {_MAX_BODY} bytes, please"))
            )
            return
        self._reply(200, self.server.rpc.answer(self.rfile.read(int(length))))

    def do_GET(self) -> None:
        """For whoever opens the URL in a browser."""
        self._reply(200, f"{_VERSION}: POST JSON-RPC here\n".encode(), "text/plain")

    def _reply(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Polls twice a second are not worth a line."""


def serve(
    port: int, address_file: Path | None, chain_id: int, funded: Sequence[bytes], journal: Path | None
) -> None:
    """Serve until SIGINT or SIGTERM."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    kept = Journal(journal) if journal else None
    chain = kept.open_chain(chain_id, funded) if kept else DevChain(chain_id, funded, int(time.time()))
    server = Server(port, JsonRpc(chain, kept))
    url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    if address_file is not None:
        _write_atomically(address_file, url + "\n")
    print(f"embedded chain {chain_id} at {url}, block {chain.height}: {LABEL}", flush=True)
    stop.wait()
    server.shutdown()
    server.server_close()
    if kept is not None:
        kept.close()


def _write_atomically(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)


def _address(text: str) -> bytes:
    try:
        return to_bytes(text, 20)
    except RemoteProtocolError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not an address (0x and 40 hex digits)") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; see the module's text."""
    parser = argparse.ArgumentParser(
        prog="python -m folkmoot.testnet.chain", description=f"Embedded chain: {LABEL}."
    )
    parser.add_argument("--port", type=int, default=0, help="TCP port on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--address-file", type=Path, help="where to write the URL once the chain answers")
    parser.add_argument(
        "--chain-id", type=int, default=DEFAULT_CHAIN_ID, help="EIP-155 id (default: %(default)s)"
    )
    parser.add_argument(
        "--fund", type=_address, action="append", default=[], metavar="ADDRESS", help="give it ether"
    )
    parser.add_argument("--journal", type=Path, help="SQLite file that keeps the chain between starts")
    given = parser.parse_args(arguments)
    try:
        serve(given.port, given.address_file, given.chain_id, given.fund, given.journal)
    except (OSError, sqlite3.Error) as error:
        print(f"chain: cannot serve on port {given.port}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
