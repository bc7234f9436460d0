"""Control frames and sessions: order, heartbeat, limits."""

import random

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from folkmoot.node.network.conduct import Allowance
from folkmoot.node.network.control import (
    LOST_AFTER_SECONDS,
    QUEUE_BYTES,
    ControlSession,
    FrameDecoder,
    SessionEnd,
    encode_frame,
)
from folkmoot.node.network.port import MAX_MESSAGE
from folkmoot.node.network.queues import BoundedQueue
from folkmoot.node.network.streams import StreamBroken
from folkmoot.protocol.errors import RemoteProtocolError


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=20), st.randoms(use_true_random=False))
def test_frames_survive_any_cut_of_the_stream(messages: list[bytes], rng: random.Random) -> None:
    stream = b"".join(encode_frame(message) + encode_frame(b"") for message in messages)
    decoder = FrameDecoder()
    received: list[bytes] = []
    while stream:
        cut = rng.randint(1, 64)
        received += decoder.feed(stream[:cut])
        stream = stream[cut:]
    assert received == messages


@given(st.binary(max_size=2000))
def test_garbage_raises_nothing_but_the_peer_s_fault(garbage: bytes) -> None:
    try:
        for message in FrameDecoder().feed(garbage):
            assert 0 < len(message) <= MAX_MESSAGE
    except RemoteProtocolError:
        pass


def test_the_largest_message_passes_and_one_byte_more_does_not() -> None:
    assert FrameDecoder().feed(encode_frame(bytes(MAX_MESSAGE))) == [bytes(MAX_MESSAGE)]
    with pytest.raises(RemoteProtocolError, match="262145 bytes"):
        FrameDecoder().feed(encode_frame(bytes(MAX_MESSAGE + 1))[:4])


class Wire:
    """A stream whose far end the test holds."""

    def __init__(self) -> None:
        self.to_session, self._inward = trio.open_memory_channel[bytes](100)
        self._outward, self.from_session = trio.open_memory_channel[bytes](10_000)
        self.can_write = trio.Event()
        self.can_write.set()

    async def read(self, limit: int) -> bytes:
        try:
            return await self._inward.receive()
        except trio.EndOfChannel:
            return b""
        except trio.ClosedResourceError as error:
            raise StreamBroken("cut") from error

    async def write(self, data: bytes) -> None:
        await self.can_write.wait()
        await self._outward.send(data)

    async def close(self) -> None:
        await self._outward.aclose()

    async def reset(self) -> None:
        await self._inward.aclose()


class Talk:
    """A session, what it has told, and its end."""

    def __init__(self) -> None:
        self.wire = Wire()
        self.session = ControlSession(self.wire, Allowance())
        self.told: list[str | bytes] = []
        self.end: SessionEnd | None = None
        self.can_deliver = trio.Event()
        self.can_deliver.set()

    async def run(self) -> None:
        self.end = await self.session.run(self._up, self._deliver, self._silent)

    async def _silent(self, is_silent: bool) -> None:
        self.told.append("silent" if is_silent else "heard")

    async def _up(self) -> None:
        self.told.append("up")

    async def _deliver(self, data: bytes) -> None:
        await self.can_deliver.wait()
        self.told.append(data)


async def test_the_peer_is_up_once_it_has_spoken_and_lost_when_it_is_silent(
    autojump_clock: MockClock,
) -> None:
    talk = Talk()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk.run)
        await trio.sleep(1)
        assert talk.told == []
        await talk.wire.to_session.send(encode_frame(b""))
        await trio.sleep(1)
        assert talk.told == ["up"]
        for _ in range(20):
            await talk.wire.to_session.send(encode_frame(b""))
            await trio.sleep(LOST_AFTER_SECONDS - 0.5)
        assert talk.end is None
    assert talk.end == SessionEnd("silent for 5 s")


async def test_two_missing_heartbeats_are_told_and_what_comes_then(autojump_clock: MockClock) -> None:
    talk = Talk()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk.run)
        for pause, told in ((1.9, []), (1.9, []), (2.1, ["silent"]), (0.5, ["heard"]), (4.0, ["silent"])):
            talk.told.clear()
            await talk.wire.to_session.send(encode_frame(b""))
            await trio.sleep(pause)
            assert [one for one in talk.told if one != "up"] == told
        nursery.cancel_scope.cancel()


async def test_a_silent_session_sends_a_heartbeat_each_second(autojump_clock: MockClock) -> None:
    talk = Talk()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk.run)
        await trio.sleep(4.5)
        nursery.cancel_scope.cancel()
    assert talk.wire.from_session.statistics().current_buffer_used == 5


async def test_messages_before_the_end_are_delivered_even_to_a_slow_consumer(
    autojump_clock: MockClock,
) -> None:
    talk = Talk()
    talk.can_deliver = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk.run)
        for number in range(50):
            await talk.wire.to_session.send(encode_frame(b"%d" % number))
        await talk.wire.to_session.aclose()
        await trio.sleep(20)
        talk.can_deliver.set()
    assert talk.told == ["up", *(b"%d" % number for number in range(50))]
    assert talk.end == SessionEnd("closed by the peer")


async def test_a_consumer_that_is_slow_does_not_make_the_peer_look_silent(autojump_clock: MockClock) -> None:
    talk = Talk()
    talk.can_deliver = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk.run)
        frame = encode_frame(bytes(MAX_MESSAGE))
        for _ in range(QUEUE_BYTES // MAX_MESSAGE + 5):
            await talk.wire.to_session.send(frame)
        await trio.sleep(60)
        assert talk.end is None
        talk.can_deliver.set()
        await trio.sleep(1)
        assert len(talk.told) == 1 + QUEUE_BYTES // MAX_MESSAGE + 5
        nursery.cancel_scope.cancel()


async def test_what_waits_from_one_peer_is_bounded_in_memory_however_short_its_messages_are(
    autojump_clock: MockClock,
) -> None:
    talk = Talk()
    talk.can_deliver = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk.run)
        with trio.move_on_after(60):
            while True:
                await talk.wire.to_session.send(encode_frame(b"x") * 10_000)
        assert len(talk.session._inbox) <= QUEUE_BYTES // 128
        nursery.cancel_scope.cancel()


async def test_an_oversized_frame_is_the_peer_s_fault(autojump_clock: MockClock) -> None:
    talk = Talk()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk.run)
        await talk.wire.to_session.send(b"\xff\xff\xff\xff")
    assert talk.end is not None and talk.end.faulty


async def test_a_peer_that_takes_nothing_fills_its_queue_and_is_let_go(autojump_clock: MockClock) -> None:
    talk = Talk()
    talk.wire.can_write = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk.run)
        await trio.sleep(0.1)
        while talk.session.offer(bytes(MAX_MESSAGE)):
            pass
    assert talk.end == SessionEnd("too slow: its queue is full")


async def test_a_queue_waits_refuses_or_drops_the_oldest_when_full() -> None:
    queue = BoundedQueue[bytes](10, len)
    assert queue.offer(b"12345") and queue.offer(b"6789")
    assert not queue.offer(b"ab")
    assert queue.force(b"abcdef") == 1
    assert queue.take() == b"6789"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(queue.put, b"longer than the bound")
        await trio.testing.wait_all_tasks_blocked()
        assert len(queue) == 1
        assert queue.take() == b"abcdef"
    queue.close()
    assert await queue.wait() and queue.take() == b"longer than the bound"
    assert not await queue.wait()
