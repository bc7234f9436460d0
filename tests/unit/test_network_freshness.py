"""Old announcements, said again by a liar, do not use up what their origin may say."""

from libp2p.pubsub.pb import rpc_pb2

from folkmoot.node.network.conduct import Allowance
from folkmoot.node.network.libp2p_gossip import OUT_OF_ORDER, Freshness


def message(number: int, origin: bytes = b"honest") -> rpc_pb2.Message:
    return rpc_pb2.Message(from_id=origin, seqno=number.to_bytes(8, "big"))


async def test_replayed_announcements_are_no_news_and_pass_seldom(autojump_clock: object) -> None:
    fresh, own = Freshness(), Allowance().announcements
    assert all([fresh.is_news(message(number)) for number in range(1, 1001)])  # noqa: C419
    assert fresh.is_news(message(1001 - OUT_OF_ORDER))  # another way was longer
    replayed = [message(number) for number in range(1, 1001 - OUT_OF_ORDER)]
    assert not any(fresh.is_news(one) for one in replayed)
    assert sum(fresh.may_repeat(one) for one in replayed) == own.burst // 10
    assert fresh.is_news(message(1001)) and fresh.is_news(message(1, b"another"))
