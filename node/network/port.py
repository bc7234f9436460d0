"""The port through which a node talks to its peers; `memory.py` and `libp2p_transport.py` stand behind it.

Three ways to move bytes, each with its own promise:

- `send`: small messages to one member, in order, over one long-lived stream; lost only when the peer goes down.
- `publish`: an announcement to everybody, at most once; whoever needs it to arrive announces it again.
- `fetch`: a blob by digest from one member, checked chunk by chunk; what was fetched already is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

import trio

from folkmoot.node.network.conduct import ShutOut
from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.errors import FolkmootError
from folkmoot.protocol.types import Digest, MemberId

MAX_MESSAGE = 256 * 1024
"""Bytes of the largest control message; a longer frame is the peer's fault."""

MAX_ANNOUNCEMENT = 64 * 1024
"""Bytes of the largest gossip announcement."""


@dataclass(frozen=True, slots=True)
class Inbound:
    """Bytes from a member, whose name the transport has checked.

    `member` is the peer itself for `control` and the signed origin (not the forwarder) for `gossip`.
    """

    member: MemberId
    data: bytes
    via: Literal["control", "gossip"]


@dataclass(frozen=True, slots=True)
class PeerUp:
    """A member answers on its control stream; whatever it may have missed is to be sent again."""

    member: MemberId


@dataclass(frozen=True, slots=True)
class PeerDown:
    """A member's control stream is gone; what was sent and not answered may be lost."""

    member: MemberId
    reason: str


@dataclass(frozen=True, slots=True)
class PeerSilent:
    """Heartbeats of a member are missing: it may be gone, or slow. Only of members that are up."""

    member: MemberId


@dataclass(frozen=True, slots=True)
class PeerHeard:
    """A member that was silent says something again."""

    member: MemberId


NetworkEvent: TypeAlias = Inbound | PeerUp | PeerDown | PeerSilent | PeerHeard

Progress: TypeAlias = Callable[[int, int], None]
"""Called with (bytes verified and on disk, bytes in all) while a fetch goes on."""

Locate: TypeAlias = Callable[[Digest], Path | None]
"""Where the blob of a root lies on disk, or None if it is not held. Must answer quickly."""

OnServed: TypeAlias = Callable[[Digest, MemberId], None]
"""Called once the last chunk of a blob has been sent to a member."""


class NetworkError(FolkmootError):
    """The network cannot start or go on here: a port in use, an address that cannot be read."""


FetchReason: TypeAlias = Literal["not held", "unreachable", "stalled", "busy", "faulty", "disk"]


class FetchError(FolkmootError):
    """A blob did not arrive. `blame` names the member that broke a rule, None if nobody did."""

    def __init__(self, ref: BlobRef, member: MemberId, reason: FetchReason, detail: str) -> None:
        super().__init__(f"blob {ref} from member {member}: {reason}: {detail}")
        self.reason = reason
        self.blame: MemberId | None = member if reason == "faulty" else None


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a member is not connected: what the last try to reach it came to, and when (Unix seconds)."""

    tried: float
    error: str


@dataclass(frozen=True, slots=True)
class View:
    """How a member sees this node: asked at `at` (Unix seconds), and whether it answered."""

    at: float
    answered: bool = False
    seen_as: str = ""
    """The IP address from which this node comes to it; empty through a relay."""
    reached: tuple[str, ...] = ()
    """Which of the announced addresses led to this node."""
    clock_offset: float = 0.0
    """Seconds by which its clock is ahead, give or take the time that the question took."""


@dataclass(slots=True)
class Stats:
    """Counters since the start.

    `bytes_*` count what crosses the sockets (encryption included, TCP headers not) where the transport can tell;
    `refused` counts peers' faults by kind, `dropped` what this node let go of (a full queue, a peer that is down).
    """

    bytes_sent: int = 0
    bytes_received: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)


class Network(Protocol):
    """What the engine sees of its peers."""

    @property
    def events(self) -> trio.MemoryReceiveChannel[NetworkEvent]:
        """Everything that comes in, for one consumer. Full: control streams wait, old announcements are dropped."""

    @property
    def stats(self) -> Stats:
        """Live counters."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """Multiaddrs with `/p2p/` under which others can reach this node."""

    def peers(self) -> frozenset[MemberId]:
        """The members that are up now."""

    def troubles(self) -> Mapping[MemberId, Trouble]:
        """Of members that could not be reached when that was last tried."""

    def shut_out(self) -> list[ShutOut]:
        """The members that are left alone for breaking rules; times are trio's."""

    def may_ask(self, member: MemberId) -> bool:
        """Whether a question of a few bytes with a long answer is to be answered once more. Asked once for each."""

    def blame(self, member: MemberId, reason: str) -> None:
        """What a member sent broke a rule that no honest one breaks; often enough, and it is shut out."""

    def announced(self) -> tuple[str, ...]:
        """The addresses that others are told, without `/p2p/PEER`; through a relay as `/p2p/RELAY/p2p-circuit`."""

    def views(self) -> Mapping[MemberId, View]:
        """How members saw this node when they were last asked."""

    async def send(self, member: MemberId, data: bytes) -> None:
        """Queue `data` for a member; never waits for the peer. Dropped and counted while the member is down.

        Raises LocalProtocolError for an empty or too long message and for someone who is not another member.
        """

    async def publish(self, data: bytes) -> None:
        """Announce `data` to everybody who is connected, once. Raises LocalProtocolError if empty or too long."""

    async def fetch(
        self, ref: BlobRef, member: MemberId, destination: Path, on_progress: Progress | None = None
    ) -> None:
        """Pull a blob from a member into `destination`, which appears whole and checked or not at all.

        A `.partial` file beside it keeps verified chunks for the next try. One fetch per destination at a time.
        Raises FetchError.
        """
