"""What members say of how they see this node, before anybody believes it."""

import math

import msgspec
import pytest
import trio
from libp2p.peer.id import ID

from folkmoot.node.network.libp2p_views import DIAL_SECONDS, Views, decode_answer
from folkmoot.protocol.errors import RemoteProtocolError

HERE = "/ip4/192.0.2.7/tcp/4001"


@pytest.mark.parametrize("seen_as", ["", "192.0.2.1", "2001:db8::1", "fe80::1%eth0"])
def test_a_view_is_taken(seen_as: str) -> None:
    answer = decode_answer(msgspec.msgpack.encode((1.8e9, seen_as, (HERE,))))
    assert (answer.clock, answer.seen_as, answer.reached) == (1.8e9, seen_as, (HERE,))


@pytest.mark.parametrize(
    ("clock", "seen_as", "reached"),
    [
        (math.nan, "", ()),  # would be null in status.json, which nobody could read any more
        (math.inf, "", ()),
        (-1.0, "", ()),
        (1e300, "", ()),
        (1.8e9, "\x1b[2J", ()),
        (1.8e9, "fe80::1%\x1b[2J", ()),
        (1.8e9, "", ("\x1b]0;title\x07",)),
    ],
)
def test_what_would_break_the_status_or_a_terminal_is_refused(
    clock: float, seen_as: str, reached: tuple[str, ...]
) -> None:
    with pytest.raises((ValueError, RemoteProtocolError)):
        decode_answer(msgspec.msgpack.encode((clock, seen_as, reached)))


class Answerer(Views):
    """Whose dials take the given seconds; those that take none find the port closed, those of 0.1 s find the peer."""

    def __init__(self, dials: dict[str, float]) -> None:
        self._dials = dials

    async def _leads_to(self, peer: ID, address: str) -> bool:
        await trio.sleep(self._dials[address])
        return self._dials[address] == 0.1

    async def seconds(self, reached: list[str]) -> float:
        began = trio.current_time()
        assert await self._find_reached(ID(b"peer"), list(self._dials)) == reached
        return trio.current_time() - began


async def test_how_long_an_answer_takes_does_not_tell_closed_ports_from_silent_ones(
    autojump_clock: trio.testing.MockClock,
) -> None:
    for dials in ({"a": 0.0}, {"a": DIAL_SECONDS}, {"a": 0.0, "b": DIAL_SECONDS, "c": 0.0}):
        assert await Answerer(dials).seconds([]) == pytest.approx(DIAL_SECONDS)
    assert await Answerer({"a": 0.1, "b": 0.0, "c": 0.1}).seconds(["a", "c"]) == pytest.approx(DIAL_SECONDS)
    assert await Answerer({"a": 0.1, "b": 0.1}).seconds(["a", "b"]) == pytest.approx(0.1)
