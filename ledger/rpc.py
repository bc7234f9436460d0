"""A small JSON-RPC client for Ethereum nodes, for polling twice a second for months.

web3's provider costs 8 ms of CPU for each call and a second to import (measured); this is one POST on a kept
connection. Several URLs are one service: what fails at one is asked of the next.
"""

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import msgspec
import urllib3

from folkmoot.ledger.answers import to_int
from folkmoot.ledger.errors import LedgerUnavailable, WrongLedger
from folkmoot.protocol.errors import FolkmootError, RemoteProtocolError

MAX_REPLY = 32 * 1024 * 1024
"""Bytes of the largest reply that is read."""

_TRIES = 3
_BACKOFF = 0.1
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_HEADERS = {"Content-Type": "application/json", "Accept": "application/json"}


class RpcError(Exception):
    """The node answered, with an error. Internal to `ledger/`: adapters turn it into what it means."""

    def __init__(self, code: int, message: str, data: object = None) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code
        self.message = message
        self.data = data


class _ErrorObject(msgspec.Struct):
    code: int
    message: str
    data: Any = None


class _Reply(msgspec.Struct):
    result: Any = None
    error: _ErrorObject | None = None


class _Failed(Exception):
    """No usable answer from one URL; the text says why."""


class BadRpcUrl(FolkmootError):
    """What was given as an RPC end point is no URL of one."""

    exit_code = 2


def _split(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port of an RPC URL; raises `BadRpcUrl`."""
    try:
        parts = urlsplit(url)
        scheme, host, port = parts.scheme, parts.hostname, parts.port
    except ValueError:  # a bracket left open, a port beyond 65535
        scheme, host, port = "", None, None
    if scheme not in ("http", "https") or not host:
        raise BadRpcUrl(f"not an RPC URL: {url!r}; expected http://host:port or https://host/path")
    return scheme, host, port


class _Endpoint:
    """One URL with its kept connections."""

    def __init__(self, url: str) -> None:
        scheme, host, port = _split(url)
        self._url = url
        # A path or a user part often holds the operator's API key: never shown.
        self.name = f"{scheme}://{host}" + (f":{port}" if port else "")
        self.chain_checked = False
        proxy = None if _direct(host) else getproxies().get(scheme)
        options: dict[str, Any] = {"maxsize": 4, "headers": _HEADERS}
        self._pool = urllib3.ProxyManager(proxy, **options) if proxy else urllib3.PoolManager(**options)

    def post(self, body: bytes, timeout: float) -> bytes:
        """The reply's body; raises `_Failed`. `timeout` holds for the whole exchange."""
        deadline = time.monotonic() + timeout
        try:
            reply = self._pool.request(
                "POST",
                self._url,
                body=body,
                timeout=timeout,
                retries=False,
                redirect=False,
                preload_content=False,
            )
            with reply:
                content = b"".join(self._chunks(reply, deadline))
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise _Failed(_explain(error)) from error
        if reply.status == 429 or reply.status >= 500:
            raise _Failed(f"HTTP status {reply.status}")
        return content

    @staticmethod
    def _chunks(reply: urllib3.BaseHTTPResponse, deadline: float) -> Iterator[bytes]:
        """The body piece by piece: a server that drips can hold us no longer than the deadline."""
        size = 0
        while chunk := reply.read1(65_536):
            size += len(chunk)
            if size > MAX_REPLY:
                raise _Failed(f"a reply of more than {MAX_REPLY} bytes")
            if time.monotonic() > deadline:
                raise _Failed("the reply took too long")
            yield chunk
        reply.release_conn()


class RpcClient:
    """Calls methods of one chain through one or several URLs. Thread-safe."""

    def __init__(self, urls: Sequence[str], timeout: float) -> None:
        """`timeout` is in seconds and holds for one call, its retries included."""
        if not urls:
            raise LedgerUnavailable("no RPC URL is set; name one in ledger.rpc")
        self._endpoints = [_Endpoint(url) for url in urls]
        self._timeout = timeout
        self._preferred = 0
        self._chain_id: int | None = None

    @property
    def names(self) -> str:
        """The URLs without what may be secret in them."""
        return ", ".join(endpoint.name for endpoint in self._endpoints)

    def call(self, method: str, *params: object) -> Any:
        """The result of one call. Raises `RpcError`, or `LedgerUnavailable` when every URL failed.

        A failed call is made again, with jittered pauses: every method used here can be repeated safely (a raw
        transaction too, its bytes being the same).
        """
        started = time.monotonic()
        failure = "timeout"
        for attempt in range(_TRIES):
            for _ in self._endpoints:
                left = self._timeout - (time.monotonic() - started)
                if left <= 0:
                    break
                endpoint = self._endpoints[self._preferred]
                try:
                    return self._ask(endpoint, left, method, params)
                except _Failed as error:
                    failure = str(error)
                    self._preferred = (self._preferred + 1) % len(self._endpoints)
            pause = _BACKOFF * 2**attempt * random.uniform(0.5, 1.5)
            if attempt == _TRIES - 1 or time.monotonic() - started + pause >= self._timeout:
                break
            time.sleep(pause)
        raise LedgerUnavailable(
            f"the ledger's RPC at {self.names} does not answer ({failure}); check ledger.rpc and that the chain runs"
        )

    @contextmanager
    def usable_answers(self) -> Iterator[None]:
        """An error where none may be, or an answer that makes no sense, becomes `LedgerUnavailable`."""
        try:
            yield
        except (RpcError, RemoteProtocolError) as error:
            raise LedgerUnavailable(
                f"the ledger's RPC at {self.names} gave no usable answer: {error}"
            ) from error

    def _ask(self, endpoint: _Endpoint, timeout: float, method: str, params: Sequence[object]) -> Any:
        if not endpoint.chain_checked:
            self._check_chain(endpoint, to_int(_exchange(endpoint, timeout, "eth_chainId", ())))
        return _exchange(endpoint, timeout, method, params)

    def _check_chain(self, endpoint: _Endpoint, found: int) -> None:
        """All URLs must show one chain, or a fail-over would change the record under our feet."""
        if self._chain_id is None:
            self._chain_id = found
        if found != self._chain_id:
            raise WrongLedger(f"the chain id at {endpoint.name}", self._chain_id, found, "correct ledger.rpc")
        endpoint.chain_checked = True


def _exchange(endpoint: _Endpoint, timeout: float, method: str, params: Sequence[object]) -> Any:
    body = msgspec.json.encode({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
    content = endpoint.post(body, timeout)
    try:
        reply = msgspec.json.decode(content, type=_Reply)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _Failed("the reply is not JSON-RPC") from error
    if reply.error is not None:
        raise RpcError(reply.error.code, reply.error.message[:500], reply.error.data)
    return reply.result


def _direct(host: str) -> bool:
    return host in _LOOPBACK or bool(proxy_bypass(host))


def _explain(error: Exception) -> str:
    if isinstance(error, urllib3.exceptions.NewConnectionError):
        return "connection refused or no such host"
    if isinstance(error, urllib3.exceptions.TimeoutError):
        return "no answer in time"
    return type(error).__name__
