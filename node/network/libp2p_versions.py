"""Which versions of Folkmoot's protocols two members speak, and what is said if they have none in common.

A version stands in the name of a stream's protocol; whoever opens one offers all that it speaks, and multistream takes
the first that the other speaks too. If there is none, both tell each other what they speak, on a stream whose protocol
has no version: one byte of how many, then u16be each, newest first.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Sequence

import trio
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.peer.id import ID

from folkmoot.node.network.libp2p_streams import Libp2pStream
from folkmoot.node.network.streams import Purpose, StreamBroken, read_exactly

log = logging.getLogger(__name__)

SPOKEN = (1,)
"""The versions that this program speaks, newest first."""

VERSIONS = TProtocol("/folkmoot/versions")
MAX_VERSIONS = 16
TELL_SECONDS = 5.0

_U16 = struct.Struct(">H")

OnOther = Callable[[ID, str], None]
"""Told of a peer with whom there is no version in common, and in words why."""


def protocols(purpose: Purpose, versions: Sequence[int]) -> list[TProtocol]:
    """The names of a purpose's protocol, in the order of `versions`."""
    return [TProtocol(f"/folkmoot/{purpose}/{version}") for version in versions]


class VersionExchange:
    """Asks and answers what is spoken."""

    def __init__(self, host: BasicHost, versions: Sequence[int], on_other: OnOther) -> None:
        self._host = host
        self._versions = versions
        self._on_other = on_other

    async def ask(self, peer: ID) -> None:
        """After a stream was refused: find out whether that is because of its version."""
        with trio.move_on_after(TELL_SECONDS):
            try:
                stream = Libp2pStream(await self._host.new_stream(peer, [VERSIONS]))
            except Exception as error:  # libp2p documents no closed list
                log.debug("asking %s for its versions: %r", peer, error)
                return
            await self._compare(peer, stream)

    async def answer(self, stream: INetStream) -> None:
        """A peer asks: it has found none in common."""
        with trio.move_on_after(TELL_SECONDS):
            await self._compare(stream.muxed_conn.peer_id, Libp2pStream(stream))

    async def _compare(self, peer: ID, stream: Libp2pStream) -> None:
        mine = b"".join(map(_U16.pack, self._versions))
        try:
            await stream.write(bytes([len(self._versions)]) + mine)
            (count,) = await read_exactly(stream, 1, TELL_SECONDS)
            data = await read_exactly(stream, min(count, MAX_VERSIONS) * _U16.size, TELL_SECONDS)
            await stream.close()
        except (StreamBroken, trio.TooSlowError) as error:
            log.debug("asking %s for its versions: %r", peer, error)
            await stream.reset()
            return
        theirs = [version for (version,) in _U16.iter_unpack(data)]
        if theirs and not set(theirs) & set(self._versions):
            self._on_other(peer, describe(theirs, self._versions))


def describe(theirs: Sequence[int], mine: Sequence[int]) -> str:
    """What is wrong, and what to do."""
    who = "upgrade this node" if max(theirs) > max(mine) else "it has to be upgraded"
    return f"it speaks folkmoot/{max(theirs)}, this node folkmoot/{max(mine)}: {who}"
