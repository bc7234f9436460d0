"""Members on the same local network find each other by multicast DNS, where `network.mdns` asks for it.

As libp2p says it: a service `_p2p._udp.local.` with a random name, and TXT entries `dnsaddr=ADDRESS`. What is heard is
a hint that anybody on the network could give: kept for members only, a few of each, local addresses only; who answers
there the handshake shows. What is said tells the local network this node's peer id and port.
"""

from __future__ import annotations

import ipaddress
import logging
import secrets
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager

import ifaddr
import trio
from zeroconf import BadTypeInNameException, ServiceBrowser, ServiceInfo, ServiceListener, Zeroconf

from folkmoot.node.network.addresses import peer_id_of
from folkmoot.protocol.addresses import check_address
from folkmoot.protocol.errors import RemoteProtocolError

log = logging.getLogger(__name__)

SERVICE = "_p2p._udp.local."
MAX_FOUND = 4
"""Addresses kept of each member; the newest win."""
ASK_MILLISECONDS = 2000
_TXT_BYTES = 255


class LocalPeers(ServiceListener):
    """Where members were heard on the local network. Its methods are called by zeroconf's threads."""

    def __init__(self, peers: Collection[str]) -> None:
        self._peers = frozenset(peers)
        self._found: dict[str, tuple[str, ...]] = {}

    def addresses(self, peer: str) -> tuple[str, ...]:
        """Without `/p2p/PEER`, the newest first."""
        return self._found.get(peer, ())

    def hear(self, text: str) -> None:
        """Take one multiaddr in, if it is of use."""
        peer = peer_id_of(text)
        address = text.removesuffix(f"/p2p/{peer}")
        if peer is not None and peer in self._peers and _is_local(address):
            others = (known for known in self.addresses(peer) if known != address)
            self._found[peer] = (address, *others)[:MAX_FOUND]

    def add_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        """Somebody is there: ask for its addresses."""
        info = zc.get_service_info(type_, name, ASK_MILLISECONDS)
        text = info.text if info is not None and info.text is not None else b""
        for entry in _entries(text):
            self.hear(entry.removeprefix("dnsaddr="))

    def update_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        """It has other addresses now."""
        self.add_service(zc, type_, name)

    def remove_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        """What is known of it costs nothing: a dial at most."""


@asynccontextmanager
async def local_discovery(found: LocalPeers, own: Sequence[str], port: int) -> AsyncIterator[None]:
    """Say the addresses `own` (with `/p2p/PEER`), and listen, while the block runs.

    A machine without multicast goes on without: a line in the log says so.
    """
    try:
        service = await trio.to_thread.run_sync(_begin, found, own, port)
    except (OSError, BadTypeInNameException) as error:
        log.warning("nobody is found by multicast DNS: %s", error)
        yield
        return
    try:
        yield
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 3):
            await trio.to_thread.run_sync(service.close, abandon_on_cancel=True)


def _begin(found: LocalPeers, own: Sequence[str], port: int) -> Zeroconf:
    service = Zeroconf()
    text = b"".join(_entry(f"dnsaddr={address}") for address in own)
    name = f"{secrets.token_hex(16)}.{SERVICE}"
    try:
        info = ServiceInfo(
            SERVICE,
            name,
            port=port,
            properties=text,
            server=f"{name[:32]}.local.",
            parsed_addresses=[address.split("/")[2] for address in own],
        )
        service.register_service(info)
        ServiceBrowser(service, SERVICE, listener=found)
    except BaseException:
        service.close()
        raise
    return service


def _entry(text: str) -> bytes:
    data = text.encode()[:_TXT_BYTES]
    return bytes([len(data)]) + data


def _entries(text: bytes) -> list[str]:
    """The strings of a TXT record; what is cut off at the end is left out."""
    entries, at = [], 0
    while at < len(text):
        length = text[at]
        entries.append(text[at + 1 : at + 1 + length].decode("ascii", "replace"))
        at += 1 + length
    return entries


def spelled_out(listening: Sequence[str]) -> list[str]:
    """Listening addresses; those of all interfaces (0.0.0.0, ::) as the interfaces' own IP addresses."""
    spelled: list[str] = []
    for address in listening:
        _, kind, host, rest = address.split("/", 3)
        if ipaddress.ip_address(host).is_unspecified:
            spelled += [f"/{kind}/{one}/{rest}" for one in _own_ips(4 if kind == "ip4" else 6)]
        else:
            spelled.append(address)
    return spelled


def _own_ips(version: int) -> list[str]:
    ips = (ip.ip for adapter in ifaddr.get_adapters() for ip in adapter.ips)
    texts = (one if isinstance(one, str) else one[0] for one in ips)
    parsed = (ipaddress.ip_address(text.partition("%")[0]) for text in texts)
    return [str(ip) for ip in parsed if ip.version == version and not (ip.is_loopback or ip.is_link_local)]


def _is_local(address: str) -> bool:
    """Whether an address can be one of this network's."""
    try:
        check_address(address)
        return not ipaddress.ip_address(address.split("/")[2]).is_global
    except (RemoteProtocolError, ValueError):
        return False
