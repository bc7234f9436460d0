"""A small JSON-RPC client for Ethereum nodes, for polling twice a second for months.

web3's provider costs 8 ms of CPU for each call and a second to import (measured); this is one POST on a kept
connection. Several URLs are one service: what fails at one is asked of the next. A URL is checked before its first use
and again after each failure, so that a fail-over cannot change the record under our feet.
"""

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias
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


Ask: TypeAlias = Callable[..., Any]
"""(method, *parameters) -> result, at one URL. Raises `RpcError`."""

Check: TypeAlias = Callable[[str, Ask], None]
"""(name of a URL, how to ask it): raises `WrongLedger` if it is not to be used."""


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


def _names(urls: Sequence[str]) -> list[str]:
    """What the URLs are called, each differently: a path or a user part often holds an API key and is never shown."""
    names: list[str] = []
    for url in urls:
        scheme, host, port = _split(url)
        name = f"{scheme}://{host}" + (f":{port}" if port else "")
        before = sum(one.partition(" ")[0] == name for one in names)
        names.append(f"{name} ({before + 1})" if before else name)
    return names


class _Endpoint:
    """One URL with its kept connections."""

    def __init__(self, url: str, name: str) -> None:
        scheme, host, _ = _split(url)
        self._url = url
        self.name = name
        self.is_checked = False
        self.refused: WrongLedger | None = None
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

    def __init__(self, urls: Sequence[str], timeout: float, check: Check | None = None) -> None:
        """`timeout` is in seconds and holds for one call, its retries included.

        A URL that `check` refuses is not used again; only when none is left does a call raise `WrongLedger`. Without
        `check` all URLs must show one chain id, and one that does not is an error at once.
        """
        if not urls:
            raise LedgerUnavailable("no RPC URL is set; name one in ledger.rpc")
        self._endpoints = [_Endpoint(url, name) for url, name in zip(urls, _names(urls), strict=True)]
        self._timeout = timeout
        self._check = check
        self._preferred = 0
        self._chain_id: int | None = None

    @property
    def names(self) -> str:
        """The URLs without what may be secret in them."""
        return ", ".join(endpoint.name for endpoint in self._endpoints)

    def call(self, method: str, *params: object) -> Any:
        """The result of one call. Raises `RpcError`, `LedgerUnavailable` when every URL failed, or `WrongLedger`.

        A failed call is made again, with jittered pauses: every method used here can be repeated safely (a raw
        transaction too, its bytes being the same).
        """
        deadline = time.monotonic() + self._timeout
        failures = {one.name: str(one.refused) for one in self._endpoints if one.refused is not None}
        for attempt in range(_TRIES):
            usable = self._usable()
            for untried in range(len(usable), 0, -1):
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                endpoint = self._endpoints[self._preferred]
                try:
                    # A share of the time each, so that one that hangs does not use up the others'.
                    return self._ask(endpoint, left / untried, method, params)
                except _Failed as error:
                    failures[endpoint.name] = str(error)
                    self.use_next()
            pause = _BACKOFF * 2**attempt * random.uniform(0.5, 1.5)
            if attempt == _TRIES - 1 or time.monotonic() + pause >= deadline:
                break
            time.sleep(pause)
        raise LedgerUnavailable(
            f"the ledger's RPC at {self.names} does not answer ({_summary(failures)}); check ledger.rpc and that the "
            "chain runs"
        )

    def each(self) -> list[tuple[str, Ask]]:
        """Every URL by name, and how to ask it alone; a silent one raises `LedgerUnavailable`."""
        return [(endpoint.name, partial(self._ask_alone, endpoint)) for endpoint in self._endpoints]

    def use_next(self) -> None:
        """Ask another URL first from now on, if there is one."""
        for _ in self._endpoints:
            self._preferred = (self._preferred + 1) % len(self._endpoints)
            if self._endpoints[self._preferred].refused is None:
                return

    @contextmanager
    def usable_answers(self) -> Iterator[None]:
        """An error where none may be, or an answer that makes no sense, becomes `LedgerUnavailable`.

        The next call goes to another URL.
        """
        try:
            yield
        except (RpcError, RemoteProtocolError) as error:
            self.use_next()
            raise LedgerUnavailable(
                f"the ledger's RPC at {self.names} gave no usable answer: {error}"
            ) from error

    def _usable(self) -> list[_Endpoint]:
        """The URLs that were not refused; raises the first one's refusal if there are none."""
        usable = [endpoint for endpoint in self._endpoints if endpoint.refused is None]
        if not usable:
            raise next(endpoint.refused for endpoint in self._endpoints if endpoint.refused is not None)
        return usable

    def _ask_alone(self, endpoint: _Endpoint, method: str, *params: object) -> Any:
        if endpoint.refused is not None:
            raise endpoint.refused
        try:
            return self._ask(endpoint, self._timeout / len(self._endpoints), method, params)
        except _Failed as error:
            raise LedgerUnavailable(
                f"{endpoint.name} does not answer ({endpoint.refused or error})"
            ) from error

    def _ask(self, endpoint: _Endpoint, timeout: float, method: str, params: Sequence[object]) -> Any:
        try:
            if not endpoint.is_checked:
                self._admit(endpoint, partial(_exchange, endpoint, timeout))
            return _exchange(endpoint, timeout, method, *params)
        except _Failed:
            endpoint.is_checked = False  # behind the same URL there may be another node when it answers again
            raise

    def _admit(self, endpoint: _Endpoint, ask: Ask) -> None:
        """Check a URL before it is used."""
        try:
            if self._check is None:
                self._check_chain(endpoint, to_int(ask("eth_chainId")))
            else:
                self._check(endpoint.name, ask)
        except (RpcError, RemoteProtocolError) as error:
            raise _Failed(f"no usable answer: {error}") from error
        except WrongLedger as error:
            if self._check is None:
                raise
            endpoint.refused = error
            raise _Failed(str(error)) from error
        endpoint.is_checked = True

    def _check_chain(self, endpoint: _Endpoint, found: int) -> None:
        if self._chain_id is None:
            self._chain_id = found
        if found != self._chain_id:
            raise WrongLedger(f"the chain id at {endpoint.name}", self._chain_id, found, "correct ledger.rpc")


def _summary(failures: Mapping[str, str]) -> str:
    """Why each URL failed; in one word where all failed for one reason."""
    reasons = set(failures.values())
    if len(reasons) > 1:
        return "; ".join(f"{name}: {reason}" for name, reason in failures.items())
    return reasons.pop() if reasons else "timeout"


def _exchange(endpoint: _Endpoint, timeout: float, method: str, *params: object) -> Any:
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
