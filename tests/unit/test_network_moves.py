"""Members that say all the time that they have moved make nobody dial all the time."""

from typing import cast

import trio
from libp2p.peer.id import ID

from folkmoot.node.network.directory import Directory
from folkmoot.node.network.libp2p_dialling import MOVES, dial_the_moved

LIAR, HONEST = ID(b"liar"), ID(b"honest")


class Moving:
    """A directory in which members move."""

    def __init__(self) -> None:
        self.changed = trio.Event()
        self.places = {str(LIAR): 0, str(HONEST): 0}

    def addresses(self, peer: str) -> tuple[str, ...]:
        return (f"/ip4/192.0.2.1/tcp/{self.places[peer]}",)

    async def move(self, peer: ID) -> None:
        self.places[str(peer)] += 1
        self.changed.set()
        self.changed = trio.Event()
        await trio.testing.wait_all_tasks_blocked()


async def test_new_addresses_are_dialled_at_once_but_not_again_and_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    directory, dialled = Moving(), list[int]()
    rate, burst = MOVES
    async with trio.open_nursery() as nursery:
        members = {LIAR: 0, HONEST: 1}
        nursery.start_soon(dial_the_moved, members, cast(Directory, directory), dialled.append)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(100):
            await directory.move(LIAR)
        assert dialled.count(0) == burst
        await directory.move(HONEST)
        assert dialled.count(1) == 2
        await trio.sleep(1 / rate)
        await directory.move(LIAR)
        assert dialled.count(0) == burst + 1
        nursery.cancel_scope.cancel()
