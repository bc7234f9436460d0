"""What members say of how they see this node, before anybody believes it."""

import math

import msgspec
import pytest

from folkmoot.node.network.libp2p_views import decode_answer
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
