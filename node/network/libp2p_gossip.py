"""GossipSub for announcements, as py-libp2p 0.8.1 does not have it by itself.

A malformed message ends no process, origins and forwarders have allowances, what was said long ago is no news, and a
peer that is met again over another connection is neither forgotten nor kept twice.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable

import trio
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub

from folkmoot.node.network.conduct import Allowance, Bucket
from folkmoot.node.network.port import MAX_ANNOUNCEMENT
from folkmoot.node.network.refusals import Refusals

TOPIC = "folkmoot/v1/announce"
MESH = TProtocol("/meshsub/1.1.0")

MAX_PUBSUB_FRAME = 256 * 1024
OUT_OF_ORDER = 64
"""Messages by which an announcement may come late and still be new."""
ROOM = 16
ROOM_SECONDS = 0.2


class SafePubsub(Pubsub):
    """Pubsub that survives a malformed message: the one subclass of libp2p, because there is no other hook."""

    refusals: Refusals
    deliver: Callable[[rpc_pb2.Message], None]
    may_announce: Callable[[ID], bool]
    forwarded: defaultdict[ID, Bucket]
    meeting: defaultdict[ID, trio.Lock]

    async def _handle_new_peer(self, peer_id: ID) -> None:
        """Open the stream to a peer, one at a time.

        libp2p does so for each connection. Of two that come about together, as when both sides dial, it forgot the
        first stream, and for ever kept its task, its queue and, once that had died, its connection.
        """
        async with self.meeting[peer_id]:
            await super()._handle_new_peer(peer_id)
        self.connection_ended(peer_id)  # or it did while the stream was being opened

    def _forget_all_subscriptions(self, peer_id: ID) -> None:
        """Only of a peer that is gone.

        When a stream of an older connection ended, libp2p forgot what the peer had said on the newer one, which it does
        not say again: no announcement went to it any more.
        """
        if not self._peer_is_connected(peer_id):
            super()._forget_all_subscriptions(peer_id)

    def connection_ended(self, peer_id: ID) -> None:
        """Open another stream to a peer if the one that it had went with a connection, and it has others.

        libp2p would find out with the next message, and lose that.
        """
        stream = self.peers.get(peer_id)
        if stream is not None and stream.muxed_conn.is_closed:
            self._handle_dead_peer(peer_id)

    async def push_msg(self, msg_forwarder: ID, msg: rpc_pb2.Message) -> None:
        """Validate and spread one message; errors are the forwarder's.

        Nobody who keeps to the origins' allowances passes on more than all of them together.
        """
        if not self.forwarded[msg_forwarder].take(1, trio.current_time()):
            return self.refusals.blame("flood of announcements", msg_forwarder)
        try:
            await super().push_msg(msg_forwarder, msg)
        except Exception as error:  # an undecodable key, for one, would end the process
            self.refusals.blame("announcement", msg_forwarder, repr(error))

    def notify_subscriptions(self, publish_message: rpc_pb2.Message) -> None:
        """Hand a valid message on at once: a subscription's own queue drops what finds 32 waiting."""
        self.deliver(publish_message)

    async def wait_for_room(self) -> None:
        """Wait, for a moment at most, until a message for every peer finds room: a queue of 32 drops the rest."""
        with trio.move_on_after(ROOM_SECONDS):
            while any(len(queue) >= ROOM for queue in self.peer_queues.values()):  # noqa: ASYNC110 - no event
                await trio.sleep(0.005)


class Freshness:
    """Tells an origin's new messages from old ones, which anybody can say again once libp2p has forgotten them.

    Origins number their messages upwards. Old ones do not use up the origin's allowance, but a tenth beside it: some
    come late, and a clock that was set back makes all numbers of the next life small.
    """

    def __init__(self) -> None:
        self._newest: defaultdict[bytes, int] = defaultdict(int)
        own = Allowance().announcements
        self._old = defaultdict[bytes, Bucket](lambda: Bucket(own.rate / 10, own.burst / 10))

    def is_news(self, message: rpc_pb2.Message) -> bool:
        """Whether a member's (well signed) message is new, or one of its last few, which may come in another order."""
        number = int.from_bytes(message.seqno, "big")
        is_news = number > self._newest[message.from_id] - OUT_OF_ORDER
        self._newest[message.from_id] = max(number, self._newest[message.from_id])
        return is_news

    def may_repeat(self, message: rpc_pb2.Message) -> bool:
        """Whether one more of its old messages may pass."""
        return self._old[message.from_id].take(1, trio.current_time())


def make_pubsub(
    host: BasicHost, is_member: Callable[[ID], bool], refusals: Refusals
) -> tuple[SafePubsub, GossipSub]:
    """Gossip for announcements with the parameters that were measured to lose nothing among up to 16 members."""
    router = GossipSub(
        [MESH],
        degree=16,
        degree_low=8,
        degree_high=128,
        heartbeat_interval=1,
        heartbeat_initial_delay=0.2,
        prune_back_off=5,
        adaptive_gossip_enabled=False,  # it would slow the heartbeat down to a minute
        eclipse_protection_enabled=False,  # members are known; several may share an address
        max_messages_per_topic_per_second=200.0,
    )
    pubsub = SafePubsub(host, router, max_inbound_rpc_size=MAX_PUBSUB_FRAME, allowed_topics={TOPIC})
    pubsub.refusals = refusals
    pubsub.meeting = defaultdict(trio.Lock)
    pubsub.forwarded = defaultdict(lambda: _forwarder_bucket(len(refusals.members)))
    # Its own start value, whole seconds, repeats numbers after a restart; peers then drop our messages as seen.
    pubsub.counter = time.time_ns()

    fresh = Freshness()

    def is_acceptable(forwarder: ID, message: rpc_pb2.Message) -> bool:
        if len(message.data) > MAX_ANNOUNCEMENT:
            refusals.blame("announcement", forwarder, "too long")
        elif not is_member(ID(message.from_id)):
            refusals.count("announcement", forwarder, "by a stranger")  # whom another charter may name
        elif fresh.is_news(message):
            return pubsub.may_announce(ID(message.from_id))
        else:
            return fresh.may_repeat(message)
        return False

    pubsub.set_topic_validator(TOPIC, is_acceptable, is_async_validator=False)
    return pubsub, router


def _forwarder_bucket(members: int) -> Bucket:
    """What all of so many origins may announce, and half as much again: an honest forwarder never comes up to it."""
    own = Allowance().announcements
    return Bucket(1.5 * members * own.rate, 1.5 * members * own.burst)
