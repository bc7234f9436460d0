"""How others see this node: whether they can call it, from which address it comes, and what time they have.

A member asks another on `/folkmoot/view/1`; the answer is `u16be length || msgpack View`. To answer, a node dials the
addresses that the asker has announced, and no others, up to the handshake that shows that it is the asker who listens
there: what else may listen at an address is told to nobody. Nor does the time that an answer takes: where an address
leads nowhere, a refusal takes no time and a silence all, so then every answer comes after the whole time.
"""

from __future__ import annotations

import ipaddress
import logging
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import msgspec
import trio
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from msgspec import Meta
from multiaddr import Multiaddr

from folkmoot.node.network.addresses import is_usable, resolve
from folkmoot.node.network.directory import Directory
from folkmoot.node.network.libp2p_streams import Libp2pStream
from folkmoot.node.network.port import View
from folkmoot.node.network.streams import StreamBroken, read_exactly
from folkmoot.protocol.addresses import MAX_ADDRESS, MAX_ADDRESSES, check_address, is_loopback, relay_of
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.types import MemberId

log = logging.getLogger(__name__)

VIEW = TProtocol("/folkmoot/view/1")

FIRST_SECONDS = 3.0
AGAIN_SECONDS = 300.0
"""How long a view holds; peers are asked again then."""
ASKED_AT_ONCE = 3
DIAL_SECONDS = 3.0
ANSWER_SECONDS = DIAL_SECONDS + 5.0
LEAST_PAUSE = 30.0
"""Seconds between two answers to one member."""
MAX_ANSWER = 4096
_LATEST = 2.0**40

_U16 = struct.Struct(">H")


class _Answer(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What is sent: Unix time, the asker's IP address ("" through a relay), and which of its addresses lead to it."""

    clock: float
    seen_as: Annotated[str, Meta(max_length=64)]
    reached: Annotated[
        tuple[Annotated[str, Meta(max_length=MAX_ADDRESS)], ...], Meta(max_length=MAX_ADDRESSES)
    ]


_decoder = msgspec.msgpack.Decoder(_Answer)


class Views:
    """Asks now and then, and answers."""

    def __init__(
        self,
        host: BasicHost,
        swarm: Swarm,
        members: Mapping[ID, MemberId],
        directory: Directory,
        same_host: bool,
    ) -> None:
        """`same_host`: whether loopback addresses are worth dialling."""
        self._host = host
        self._swarm = swarm
        self._members = members
        self._directory = directory
        self._same_host = same_host
        self._answered: dict[ID, float] = {}
        self.latest: dict[MemberId, View] = {}

    def listen(self) -> None:
        """Answer members from now on."""
        self._host.set_stream_handler(VIEW, self._answer)

    async def run(self, is_connected: Callable[[ID], bool]) -> None:
        """Ask, for ever."""
        while True:
            await trio.sleep(FIRST_SECONDS)
            connected = [peer for peer in self._members if is_connected(peer)]
            old = sorted(connected, key=lambda peer: self._age(self._members[peer]), reverse=True)
            for peer in old[:ASKED_AT_ONCE]:
                if self._age(self._members[peer]) > AGAIN_SECONDS:
                    await self._ask(peer)

    def _age(self, member: MemberId) -> float:
        view = self.latest.get(member)
        # A clock that was set back must not make a view young for hours.
        return abs(time.time() - view.at) if view is not None else float("inf")

    async def _ask(self, peer: ID) -> None:
        member, began = self._members[peer], time.time()
        view = View(at=began)  # if it does not answer it is not asked again at once
        with trio.move_on_after(ANSWER_SECONDS):
            try:
                stream = Libp2pStream(await self._host.new_stream(peer, [VIEW]))
                try:
                    answer = await _read(stream)
                finally:
                    await stream.reset()
                view = View(began, True, answer.seen_as, answer.reached, answer.clock - began)
            except Exception as error:  # libp2p documents no closed list
                log.debug("asking %s for its view: %r", peer, error)
        self.latest[member] = view

    async def _answer(self, asked: INetStream) -> None:
        peer, stream, clock = asked.muxed_conn.peer_id, Libp2pStream(asked), time.time()
        if peer not in self._members or trio.current_time() < self._answered.get(peer, 0.0):
            return await stream.reset()
        self._answered[peer] = trio.current_time() + LEAST_PAUSE
        reached = await self._find_reached(peer, self._directory.addresses(str(peer)))
        data = msgspec.msgpack.encode(_Answer(clock, _address_of(asked), tuple(reached)))
        try:
            await stream.write(_U16.pack(len(data)) + data)
        except StreamBroken as error:
            log.debug("telling %s our view: %s", peer, error)
        await stream.close()

    async def _find_reached(self, peer: ID, announced: Sequence[str]) -> list[str]:
        """Which of the addresses lead to the peer, in their order; if not all do, after `DIAL_SECONDS`."""
        reached = set[str]()

        async def look(address: str) -> None:
            if await self._leads_to(peer, address):
                reached.add(address)

        end = trio.current_time() + DIAL_SECONDS
        async with trio.open_nursery() as nursery:
            for address in announced:
                nursery.start_soon(look, address)
        if len(reached) < len(announced):
            await trio.sleep_until(end)
        return [address for address in announced if address in reached]

    async def _leads_to(self, peer: ID, address: str) -> bool:
        if relay_of(address) is not None or (is_loopback(address) and not self._same_host):
            return False
        with trio.move_on_after(DIAL_SECONDS):
            try:
                for place in await resolve(f"{address}/p2p/{peer}"):
                    if is_usable(place, self._same_host) and await self._shows(peer, place):
                        return True
            except (OSError, UnicodeError) as error:
                log.debug("resolving %s: %s", address, error)
        return False

    async def _shows(self, peer: ID, place: str) -> bool:
        """Whether the peer's identity stands behind an address; the connection ends with the handshake."""
        target = Multiaddr(place)
        transport = self._swarm.transport_manager.transport_for_dialing(target)
        if transport is None:
            return False
        try:
            raw = await transport.dial(target)
            try:
                await self._swarm.upgrader.upgrade_security(raw, True, peer)
            finally:
                await raw.close()
        except Exception as error:  # as above
            log.debug("looking whether %s is at %s: %r", peer, place, error)
            return False
        return True


async def _read(stream: Libp2pStream) -> _Answer:
    (length,) = _U16.unpack(await read_exactly(stream, _U16.size, ANSWER_SECONDS))
    if length > MAX_ANSWER:
        raise StreamBroken(f"a view of {length} bytes")
    return decode_answer(await read_exactly(stream, length, ANSWER_SECONDS))


def decode_answer(data: bytes) -> _Answer:
    """Raises `ValueError` or `RemoteProtocolError` for what is no view: people read it, and status.json holds it."""
    answer = _decoder.decode(data)
    # [REJECT] The time is one; NaN would make the status file unreadable
    if not 0 <= answer.clock < _LATEST:
        raise RemoteProtocolError(f"a view with the time {answer.clock}")
    # [REJECT] Addresses are addresses, and no codes for a terminal
    if answer.seen_as:
        ipaddress.ip_address(answer.seen_as.partition("%")[0])
    if not answer.seen_as.isprintable():
        raise RemoteProtocolError("a view with an address that cannot be printed")
    for address in answer.reached:
        check_address(address)
    return answer


def _address_of(stream: INetStream) -> str:
    """The IP address from which a stream's peer comes; empty if that is not known, as through a relay."""
    address = stream.get_remote_address()
    return address[0] if address is not None else ""
