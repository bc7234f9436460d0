"""The door: whoever wants in gets in while others stand in it, and the crowd pays with its own places."""

import trio

from folkmoot.node.network.gate import CrowdedOutError, Gate


async def stand(gate: Gate, address: str, gone: list[str]) -> None:
    try:
        with gate.handshake(address):
            await trio.sleep_forever()
    except CrowdedOutError:
        gone.append(address)


async def test_the_oldest_of_the_most_crowded_address_goes(autojump_clock: trio.testing.MockClock) -> None:
    gate, gone = Gate(4), list[str]()
    async with trio.open_nursery() as nursery:
        for address in ["a", "b", "b", "c"]:
            nursery.start_soon(stand, gate, address, gone)
            await trio.sleep(1)
        assert (len(gate), gone) == (4, [])
        with gate.handshake("d"):
            await trio.sleep(1)
            assert gone == ["b"]
        assert len(gate) == 3
        nursery.cancel_scope.cancel()
    assert (len(gate), gone) == (0, ["b"])


async def test_a_flood_from_one_address_does_not_disturb_a_handshake_from_another(
    autojump_clock: trio.testing.MockClock,
) -> None:
    gate, gone = Gate(8), list[str]()
    async with trio.open_nursery() as nursery:
        with gate.handshake("member"):
            for _ in range(1000):
                nursery.start_soon(stand, gate, "crowd", gone)
                await trio.sleep(0.001)
        assert gone == ["crowd"] * (1000 - 7)
        nursery.cancel_scope.cancel()


async def test_one_who_is_through_leaves_the_place_at_once() -> None:
    gate = Gate(1)
    for _ in range(3):
        with gate.handshake("a"):
            pass
    assert len(gate) == 0


async def test_an_error_of_the_handshake_passes_through() -> None:
    gate = Gate(1)
    try:
        with gate.handshake("a"):
            raise OSError("garbage")
    except OSError:
        assert len(gate) == 0
    else:
        raise AssertionError("the error is gone")
