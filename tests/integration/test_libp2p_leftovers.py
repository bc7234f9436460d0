"""What is left of connections that have ended: nothing, however often members lose and find each other."""

import gc
from pathlib import Path
from typing import TypeVar

import pytest
import trio
from libp2p.pubsub.rpc_queue import RpcQueue
from libp2p.stream_muxer.yamux.yamux import Yamux
from libp2p_peers import Peer, federation, until

pytestmark = pytest.mark.integration

T = TypeVar("T")

MEETINGS = 8


async def part_and_meet(peers: list[Peer]) -> None:
    """Both sides dial at once, as after a partition: two connections come about together."""
    one, two = peers
    await one.network._transport.disconnect(two.member)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.network._transport.connect, two.member)
        nursery.start_soon(two.network._transport.connect, one.member)
    await until(lambda: all(peer.network.peers() for peer in peers))


async def until_announcements_arrive(peer: Peer, other: Peer) -> None:
    """One that is said while the stream for it is being opened is lost."""
    with trio.fail_after(10):
        while not other.messages("gossip"):
            await peer.network.publish(b"news")
            await trio.sleep(0.2)


def alive(kind: type[T]) -> list[T]:
    gc.collect()
    return [one for one in gc.get_objects() if type(one) is kind]


async def test_members_that_meet_again_and_again_leave_nothing_behind(tmp_path: Path) -> None:
    """One stream for announcements at each end, and no connection but those that stand."""
    async with federation(tmp_path, 0, 1) as peers:
        for _ in range(MEETINGS):
            await part_and_meet(peers)
        for peer, other in (peers, reversed(peers)):
            await until_announcements_arrive(peer, other)
        await until(lambda: len(alive(RpcQueue)) <= 2, seconds=5)
        await until(lambda: not any(connection.is_closed for connection in alive(Yamux)), seconds=5)
