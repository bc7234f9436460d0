"""The door: whoever wants in gets in while others stand in it, and the crowd pays with its own places."""

import pytest
import trio

from folkmoot.node.network.gate import FAILURES, REMEMBERED, CrowdedOutError, Gate


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


async def test_an_address_whose_handshakes_fail_waits_and_no_other_does(
    autojump_clock: trio.testing.MockClock,
) -> None:
    gate = Gate()
    rate, burst = FAILURES
    for _ in range(int(burst + 10 * rate)):
        gate.failed("192.0.2.1")
    for address, seconds in (("192.0.2.1", 10), ("192.0.2.2", 0)):
        began = trio.current_time()
        await gate.await_turn(address)
        assert trio.current_time() - began == pytest.approx(seconds)
    await gate.await_turn("192.0.2.1")
    assert trio.current_time() == pytest.approx(began), "the debt is paid once"


async def test_the_addresses_of_one_ipv6_network_count_as_one(autojump_clock: trio.testing.MockClock) -> None:
    gate, began = Gate(), trio.current_time()
    for number in range(200):
        gate.failed(f"2001:db8::{number:x}")
    await gate.await_turn("2001:db8:0:1::1")
    assert trio.current_time() == began
    await gate.await_turn("2001:db8::ffff%eth0")
    assert trio.current_time() - began > 20


async def test_made_up_addresses_fill_no_memory() -> None:
    gate = Gate()
    for number in range(3 * REMEMBERED):
        gate.failed(f"10.0.{number // 256}.{number % 256}")
    assert len(gate._failures) == REMEMBERED
