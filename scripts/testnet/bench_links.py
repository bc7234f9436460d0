"""The links of `folkmoot bench round`: loopback as it is, or every node's line with a delay and a rate.

Slow lines run through the testnet's relay, and plain TCP is then measured through the same one.
"""

from collections.abc import Sequence

import msgspec

from folkmoot.testnet import relay_link
from folkmoot.testnet.home import TestnetHome
from folkmoot.testnet.processes import Child
from folkmoot.testnet.relay import HOST
from folkmoot.testnet.shaping import Slow


class Lines(msgspec.Struct, frozen=True, kw_only=True):
    """How every node's line is, each way: seconds added to all that crosses it, bytes a second (None: any)."""

    delay: float = 0.0
    rate: float | None = None

    @property
    def are_shaped(self) -> bool:
        """Whether a relay is needed."""
        return self != Lines()


def bootstrap(home: TestnetHome, name: str, names: Sequence[str], lines: Lines) -> tuple[str, ...]:
    """The files in which a node finds the addresses of the others."""
    if lines.are_shaped:
        return (str(home.relay_addresses(name)),)
    return tuple(f"../{other}/address" for other in names if other != name)


def start(home: TestnetHome, names: Sequence[str], lines: Lines) -> Child:
    """Start the relay between founded nodes and make all lines slow; raises `TestnetError`."""
    relay = relay_link.start_relay(home, names)
    relay_link.await_relay(home, relay)
    for name in names:
        relay_link.tell(home, Slow(name, lines.delay, lines.rate))
    return relay


def reroute(home: TestnetHome, names: Sequence[str], ports: Sequence[int]) -> list[list[int]]:
    """Put processes that listen on these ports in the nodes' places: where each of them finds the others."""
    for name, port in zip(names, ports, strict=True):
        home.node(name).address.write_text(f"/ip4/{HOST}/tcp/{port}\n", encoding="ascii")
    addresses = (home.relay_addresses(name).read_text(encoding="ascii").split() for name in names)
    return [[int(address.split("/")[4]) for address in found] for found in addresses]


def direct(ports: Sequence[int]) -> list[list[int]]:
    """The same without a relay: every one finds the others where they are."""
    return [[*ports[:index], *ports[index + 1 :]] for index in range(len(ports))]
