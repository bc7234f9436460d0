"""The network's behaviour over the memory transport, in virtual time."""

import os
import random
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from folkmoot.node.network import memory, serving
from folkmoot.node.network.conduct import FAULTS, Allowance
from folkmoot.node.network.memory import Faults, MemoryHub
from folkmoot.node.network.peer_network import EVENTS, PeerNetwork
from folkmoot.node.network.port import (
    MAX_ANNOUNCEMENT,
    MAX_MESSAGE,
    FetchError,
    Inbound,
    NetworkEvent,
    PeerDown,
    PeerUp,
)
from folkmoot.protocol import blob, merkle
from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.errors import LocalProtocolError


class Peer:
    """A running network that notes its events and serves blobs."""

    def __init__(self, network: PeerNetwork, blobs: dict[bytes, Path]) -> None:
        self.network = network
        self.blobs = blobs
        self.events: list[NetworkEvent] = []

    async def note(self) -> None:
        async for event in self.network.events:
            self.events.append(event)

    def control(self) -> list[tuple[int, bytes]]:
        return [(e.member, e.data) for e in self.events if isinstance(e, Inbound) and e.via == "control"]

    def gossip(self) -> list[tuple[int, bytes]]:
        return [(e.member, e.data) for e in self.events if isinstance(e, Inbound) and e.via == "gossip"]


class Federation:
    """Members of a hub, to be used as a context manager."""

    def __init__(self, members: int, faults: Faults | None = None, seed: int = 1) -> None:
        self.hub = MemoryHub(members, seed, faults)
        self.served: list[tuple[bytes, int]] = []
        self._stack = AsyncExitStack()
        self._size = members
        self._running: dict[int, trio.CancelScope] = {}

    async def __aenter__(self) -> list[Peer]:
        self.nursery = await self._stack.enter_async_context(trio.open_nursery())
        self._stack.callback(self.nursery.cancel_scope.cancel)
        return [await self.start(member) for member in range(self._size)]

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def start(self, member: int) -> Peer:
        peer: Peer = await self.nursery.start(self._run, member)
        return peer

    def crash(self, member: int) -> None:
        self._running.pop(member).cancel()

    async def _run(self, member: int, task_status: trio.TaskStatus[Peer]) -> None:
        blobs: dict[bytes, Path] = {}
        with trio.CancelScope() as self._running[member]:
            async with self.hub.open(
                member, blobs.get, lambda root, to: self.served.append((root, to))
            ) as network:
                peer = Peer(network, blobs)
                task_status.started(peer)
                await peer.note()


async def until(condition: Callable[[], object], seconds: float = 60) -> None:
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - any condition, in virtual time
            await trio.sleep(0.05)


async def all_up(peers: list[Peer]) -> None:
    await until(lambda: all(len(peer.network.peers()) == len(peers) - 1 for peer in peers))


async def test_everybody_meets_and_messages_arrive_in_order(autojump_clock: MockClock) -> None:
    async with Federation(5) as peers:
        await all_up(peers)
        for number in range(200):
            for target in range(1, 5):
                await peers[0].network.send(target, b"%d" % number)
        await peers[1].network.send(0, bytes(MAX_MESSAGE))
        await until(lambda: all(len(peer.control()) == 200 for peer in peers[1:]) and peers[0].control())
        for peer in peers[1:]:
            assert peer.control() == [(0, b"%d" % number) for number in range(200)]
        assert peers[0].control() == [(1, bytes(MAX_MESSAGE))]
        assert peers[0].events[:4].count(PeerUp(1)) == 1


async def test_announcements_reach_everybody_but_the_announcer(autojump_clock: MockClock) -> None:
    async with Federation(4) as peers:
        await all_up(peers)
        await peers[2].network.publish(b"news")
        await until(lambda: all(peer.gossip() == [(2, b"news")] for peer in peers if peer is not peers[2]))
        await trio.sleep(10)
        assert peers[2].gossip() == []


async def test_faulty_gossip_loses_doubles_and_reorders(autojump_clock: MockClock) -> None:
    faults = Faults(latency=(0.01, 1.0), gossip_loss=0.3, gossip_duplicate=0.3)
    async with Federation(2, faults, seed=7) as peers:
        await all_up(peers)
        for number in range(100):
            await peers[0].network.publish(b"%02d" % number)
        await trio.sleep(5)
        heard = [data for _, data in peers[1].gossip()]
    assert 50 < len(set(heard)) < 90
    assert len(heard) > len(set(heard))
    assert heard != sorted(heard)


async def test_a_crashed_peer_is_down_at_once_and_up_again_after_its_return(
    autojump_clock: MockClock,
) -> None:
    federation = Federation(3)
    async with federation as peers:
        await all_up(peers)
        federation.crash(2)
        await until(lambda: all(2 not in peer.network.peers() for peer in peers[:2]), seconds=1)
        assert [type(event) for event in peers[0].events[-1:]] == [PeerDown]
        await trio.sleep(30)
        peers[2] = await federation.start(2)
        await until(lambda: len(peers[2].network.peers()) == 2, seconds=6)
        await all_up(peers)
        assert peers[0].events[-1] == PeerUp(2)
        await peers[0].network.send(2, b"again")
        await until(lambda: peers[2].control() == [(0, b"again")])


@pytest.mark.parametrize("member", range(3))
async def test_who_returns_after_hours_is_up_at_once_whatever_its_id(
    autojump_clock: MockClock, member: int
) -> None:
    federation = Federation(3)
    async with federation as peers:
        await all_up(peers)
        federation.crash(member)
        await trio.sleep(7200)  # by now the others call seldom
        peers[member] = await federation.start(member)
        await until(lambda: len(peers[member].network.peers()) == 2, seconds=0.5)
        await until(lambda: all(len(peer.network.peers()) == 2 for peer in peers), seconds=0.1)


async def test_a_partition_is_noticed_in_five_seconds_and_heals(autojump_clock: MockClock) -> None:
    federation = Federation(4)
    async with federation as peers:
        await all_up(peers)
        started = trio.current_time()
        federation.hub.partition({0, 1}, {2, 3})
        await until(lambda: peers[0].network.peers() == {1})
        assert 3.9 < trio.current_time() - started < 5.5
        downs = {event for event in peers[0].events if isinstance(event, PeerDown)}
        assert downs == {PeerDown(2, "silent for 5 s"), PeerDown(3, "silent for 5 s")}
        await peers[0].network.send(2, b"lost")
        assert sum(peers[0].network.stats.dropped.values()) == 1
        await trio.sleep(60)
        federation.hub.partition()
        healed = trio.current_time()
        await all_up(peers)
        assert trio.current_time() - healed < 8


async def test_a_short_partition_loses_nothing(autojump_clock: MockClock) -> None:
    federation = Federation(2)
    async with federation as peers:
        await all_up(peers)
        federation.hub.partition({0}, {1})
        await peers[0].network.send(1, b"patience")
        await trio.sleep(3)
        assert peers[1].control() == []
        federation.hub.partition()
        await until(lambda: peers[1].control() == [(0, b"patience")])
        assert not any(isinstance(event, PeerDown) for peer in peers for event in peer.events)


async def test_streams_that_break_all_the_time_are_told_in_pairs(autojump_clock: MockClock) -> None:
    """PeerUp and PeerDown alternate, and whatever comes in comes in between."""
    federation = Federation(3, Faults(stream_break=0.02), seed=3)
    async with federation as peers:
        await trio.sleep(600)
        federation.hub.faults.stream_break = 0
        await all_up(peers)
    for peer in peers:
        for other in range(3):
            kinds = [
                type(event) for event in peer.events if event.member == other and type(event) is not Inbound
            ]
            assert kinds == [PeerUp, PeerDown] * (len(kinds) // 2) + [PeerUp] * (len(kinds) % 2)
        assert sum(isinstance(event, PeerDown) for event in peer.events) > 5


async def test_a_full_event_channel_holds_control_back_and_drops_old_announcements(
    autojump_clock: MockClock,
) -> None:
    hub = MemoryHub(2, seed=1)
    async with AsyncExitStack() as stack:
        talker, sleeper = [
            await stack.enter_async_context(hub.open(member, lambda _: None, lambda *_: None))
            for member in range(2)
        ]
        await until(lambda: talker.peers() and sleeper.peers())
        for number in range(2 * EVENTS):
            await talker.send(1, b"%d" % number)
        await trio.sleep(1)
        for number in range(200):
            await talker.publish(number.to_bytes(2, "big") + bytes(MAX_ANNOUNCEMENT - 2))
            await trio.sleep(0.1)
        await trio.sleep(60)
        assert talker.peers() == {1}
        assert sleeper.stats.dropped["announcement"] > 100
        control, gossip = 0, []
        with trio.move_on_after(10):
            async for event in sleeper.events:
                if isinstance(event, Inbound) and event.via == "control":
                    assert event.data == b"%d" % control
                    control += 1
                elif isinstance(event, Inbound):
                    gossip.append(event.data[:2])
        assert control == 2 * EVENTS
        assert len(gossip) + sleeper.stats.dropped["announcement"] == 200
        assert len(gossip) > 60 and len(set(gossip)) == len(gossip)


async def test_requests_that_this_node_must_not_make(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with Federation(2) as peers:
        network = peers[0].network
        for data in [b"", bytes(MAX_MESSAGE + 1)]:
            with pytest.raises(LocalProtocolError):
                await network.send(1, data)
        for member in [0, 2, -1]:
            with pytest.raises(LocalProtocolError):
                await network.send(member, b"x")
            with pytest.raises(LocalProtocolError):
                await network.fetch(BlobRef(merkle.EMPTY_ROOT, 0), member, tmp_path / "blob")
        for data in [b"", bytes(MAX_ANNOUNCEMENT + 1)]:
            with pytest.raises(LocalProtocolError):
                await network.publish(data)


@pytest.mark.parametrize("size", [0, 1, blob.CHUNK, 5 * blob.CHUNK + 7])
async def test_blobs_arrive_whole(autojump_clock: MockClock, tmp_path: Path, size: int) -> None:
    data = random.Random(size).randbytes(size)
    federation = Federation(2)
    progress: list[tuple[int, int]] = []
    async with federation as peers:
        ref = _hold(peers[1], tmp_path / "held", data)
        await peers[0].network.fetch(ref, 1, tmp_path / "got", lambda *done: progress.append(done))
    assert (tmp_path / "got").read_bytes() == data
    assert federation.served == ([(ref.root, 0)] if size else [])
    assert not size or progress[-1] == (size, size)


async def test_a_fetch_goes_on_where_it_was_interrupted(autojump_clock: MockClock, tmp_path: Path) -> None:
    data = random.Random(5).randbytes(12 * blob.CHUNK)
    federation = Federation(2, Faults(bytes_per_second=1e6))
    async with federation as peers:
        ref = _hold(peers[1], tmp_path / "held", data)
        with trio.move_on_after(7):
            await peers[0].network.fetch(ref, 1, tmp_path / "got")
        assert not (tmp_path / "got").exists()
        before = peers[1].network.stats.bytes_sent
        await peers[0].network.fetch(ref, 1, tmp_path / "got")
        assert peers[1].network.stats.bytes_sent - before < 8 * blob.CHUNK
    assert (tmp_path / "got").read_bytes() == data


async def test_a_small_blob_costs_a_long_line_two_round_trips_one_of_them_for_the_stream(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "PIPE_BYTES", 8 * blob.CHUNK)
    data = random.Random(5).randbytes(3 * blob.CHUNK)
    federation = Federation(2, Faults(latency=(1.0, 1.0)))
    async with federation as peers:
        ref = _hold(peers[1], tmp_path / "held", data)
        began = trio.current_time()
        await peers[0].network.fetch(ref, 1, tmp_path / "got")
        assert trio.current_time() - began == pytest.approx(4)
    assert (tmp_path / "got").read_bytes() == data


async def test_a_slow_fetch_is_never_cut_short_but_a_stalled_one_is(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    data = random.Random(6).randbytes(3 * blob.CHUNK)
    federation = Federation(2, Faults(bytes_per_second=2e5))
    async with federation as peers:
        ref = _hold(peers[1], tmp_path / "held", data)
        (tmp_path / "again").mkdir()
        await peers[0].network.fetch(ref, 1, tmp_path / "got")
        assert trio.current_time() > 15
        federation.nursery.start_soon(_partition_after, federation, 3)
        assert await _reason(peers[0], ref, tmp_path / "again") == ("stalled", None)


async def test_what_is_not_held_damaged_or_unreachable_is_nobody_s_fault(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    federation = Federation(2)
    data = random.Random(7).randbytes(2 * blob.CHUNK)
    async with federation as peers:
        ref = _hold(peers[1], tmp_path / "held", data)
        missing = blob.ref_of(b"something else")
        assert await _reason(peers[0], missing, tmp_path) == ("not held", None)
        (tmp_path / "held").write_bytes(bytes(len(data)))
        assert await _reason(peers[0], ref, tmp_path) == ("not held", None)
        assert not (tmp_path / "held").exists()
        assert await _reason(peers[0], ref, tmp_path) == ("not held", None)
        federation.crash(1)
        await trio.sleep(1)
        assert await _reason(peers[0], ref, tmp_path) == ("unreachable", None)


@pytest.mark.parametrize("size", [1000, 2 * blob.CHUNK + 1])
async def test_what_is_damaged_is_noticed_before_it_is_sent(
    autojump_clock: MockClock, tmp_path: Path, size: int
) -> None:
    """Also when its hashes were asked for while it was whole."""
    data = random.Random(9).randbytes(size)
    async with Federation(2) as peers:
        ref = _hold(peers[1], tmp_path / "held", data)
        await peers[0].network.fetch(ref, 1, tmp_path / "once")
        with (tmp_path / "held").open("r+b") as file:
            file.seek(size // 2)
            file.write(b"damaged")
        reason, blame = await _reason(peers[0], ref, tmp_path)
        assert reason != "faulty" and blame is None
        assert not (tmp_path / "held").exists()


@pytest.mark.parametrize("lie", ["other bytes", "shorter", "longer"])
async def test_a_server_that_lies_is_blamed(
    autojump_clock: MockClock, tmp_path: Path, lie: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "_read_chunk", lambda file, length, *_: os.pread(file, length, 0))
    data = random.Random(8).randbytes(1000)
    async with Federation(2) as peers:
        ref = _hold(peers[1], tmp_path / "held", data)
        served = {"other bytes": bytes(1000), "shorter": data[:-1], "longer": data + b"x"}[lie]
        (tmp_path / "held").write_bytes(served)
        assert await _reason(peers[0], ref, tmp_path) == ("faulty", 1)
        assert not (tmp_path / "got").exists()


def _hold(peer: Peer, path: Path, data: bytes) -> BlobRef:
    path.write_bytes(data)
    ref = blob.ref_of(data)
    peer.blobs[ref.root] = path
    return ref


async def _reason(peer: Peer, ref: BlobRef, folder: Path) -> tuple[str, int | None]:
    with pytest.raises(FetchError) as caught:
        await peer.network.fetch(ref, 1, folder / "got")
    return caught.value.reason, caught.value.blame


async def _partition_after(federation: Federation, seconds: float) -> None:
    await trio.sleep(seconds)
    federation.hub.partition({0}, {1})


# --- conduct --------------------------------------------------------------------------------------------------------


async def test_who_breaks_rules_is_shut_out_for_a_growing_while_and_comes_back(
    autojump_clock: MockClock,
) -> None:
    async with Federation(3) as peers:
        await all_up(peers)
        victim = peers[0].network
        for time, seconds in [(1, 5), (2, 10), (3, 20)]:
            began = trio.current_time()
            for _ in range(FAULTS + 1):
                victim.blame(2, "bad frame")
            [one] = victim.shut_out()
            assert (one.member, one.reason, one.times) == (2, "bad frame", time)
            assert one.until == began + seconds
            await until(lambda: victim.peers() == {1} and peers[2].network.peers() == {1})
            await trio.sleep_until(one.until - 0.1)
            assert victim.peers() == {1}
            with pytest.raises(FetchError, match="shut out"):
                await victim.fetch(BlobRef(bytes(32), 1), 2, Path("/nowhere"))
            await until(lambda: victim.peers() == {1, 2}, seconds=20)
        assert victim.shut_out() == []
        assert PeerDown(2, "shut out: it broke rules") in peers[0].events


@pytest.mark.parametrize("loss", [0.02, 0.3])
async def test_nobody_is_shut_out_for_what_the_link_does(
    autojump_clock: MockClock, tmp_path: Path, loss: float
) -> None:
    faults = Faults(
        latency=(0.01, 2), bytes_per_second=2e5, stream_break=loss, gossip_loss=loss, gossip_duplicate=loss
    )
    async with Federation(4, faults, seed=3) as peers:
        held = tmp_path / "held"
        held.write_bytes(bytes(3000))
        ref = blob.ref_of(bytes(3000))
        peers[1].blobs[ref.root] = held
        for number in range(40):
            for one in peers:
                for other in {0, 1, 2, 3} - {peers.index(one)}:
                    await one.network.send(other, bytes(1 + number * 50))
                await one.network.publish(bytes(100))
            peers[number % 4].network._transport.crash()  # type: ignore[attr-defined]
            with suppress(FetchError):
                await peers[0].network.fetch(ref, 1, tmp_path / f"{number}")
            await trio.sleep(2)
        assert [peer.network.shut_out() for peer in peers] == [[]] * 4
        assert not any(peer.network.stats.refused for peer in peers)


async def test_announcements_and_questions_have_an_allowance(autojump_clock: MockClock) -> None:
    async with Federation(3) as peers:
        await all_up(peers)
        allowance = Allowance()
        for _ in range(3000):
            await peers[2].network.publish(b"news")
        await trio.sleep(1)
        refused = peers[0].network.stats.refused
        assert len(peers[0].gossip()) <= allowance.announcements.burst + 3 * allowance.announcements.rate
        assert len(peers[0].gossip()) + refused["announcement beyond the allowance"] == 3000
        asked = [peers[0].network.may_ask(2) for _ in range(100)]
        assert asked.count(True) == allowance.questions.burst
        assert peers[0].network.may_ask(1)
        await trio.sleep(5)
        assert peers[0].network.may_ask(2)
        assert peers[0].network.shut_out() == []


async def test_a_flood_of_messages_waits_and_is_nobody_elses_loss(autojump_clock: MockClock) -> None:
    async with Federation(3) as peers:
        await all_up(peers)
        limit, began = Allowance().messages, trio.current_time()
        for _ in range(6_000):
            await peers[2].network.send(0, b"x")
        await peers[1].network.send(0, b"honest")
        await until(lambda: (1, b"honest") in peers[0].control(), seconds=1)
        await until(lambda: len(peers[0].control()) == 6_001)
        assert trio.current_time() - began >= (6_000 - limit.burst) / limit.rate - 1
        assert peers[0].network.shut_out() == []
