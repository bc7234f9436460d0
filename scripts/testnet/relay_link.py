"""The relay's other end: start the process through which shaped links run, and give it orders."""

import contextlib
import socket
import sys
from collections.abc import Sequence

import msgspec

from folkmoot.testnet.home import TestnetHome, read_testnet
from folkmoot.testnet.processes import Child, TestnetError, wait_until
from folkmoot.testnet.shaping import Order

START_SECONDS = 60.0
ANSWER_SECONDS = 10.0


def start_relay(home: TestnetHome, names: Sequence[str]) -> Child:
    """Start the relay between founded nodes; `await_relay` waits until they can call."""
    home.relay_socket.unlink(missing_ok=True)
    command = [sys.executable, "-m", "folkmoot.testnet.relay", str(home.path), *names]
    return Child.start("relay", command, home.logs / "relay.log")


def await_relay(home: TestnetHome, relay: Child) -> None:
    """Wait until the relay takes connections and orders; raises `TestnetError` if it ends or takes too long."""
    wait_until(lambda: home.relay_socket.exists() or relay.poll() is not None, START_SECONDS)
    if relay.exit_code is not None:
        raise TestnetError(relay.why_it_ended())
    if not home.relay_socket.exists():
        raise TestnetError(f"relay: not ready after {START_SECONDS:.0f} s: see {relay.ref.log}")


def give(home: TestnetHome, order: Order) -> None:
    """Have the relay carry out `order`; it has when this returns. Raises `TestnetError` if it cannot."""
    testnet = read_testnet(home)
    if testnet.plan.links != "shaped":
        raise TestnetError(
            f"{home.path}: its nodes are connected directly: start a testnet with "
            "'folkmoot testnet up --links shaped' to cut or slow down its links"
        )
    if testnet.process("relay") is None:
        raise TestnetError(f"{home.path}: the testnet is down: start it with 'folkmoot testnet up'")
    tell(home, order)


def tell(home: TestnetHome, order: Order) -> None:
    """The same, for a relay that is known to run."""
    try:
        answer = _ask(home, msgspec.json.encode(order))
    except OSError as error:
        raise TestnetError(f"relay: does not take orders ({error}): see {home.logs / 'relay.log'}") from error
    if answer:
        raise TestnetError(f"relay: {answer}")


def _ask(home: TestnetHome, request: bytes) -> str:
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(ANSWER_SECONDS)
        with contextlib.chdir(
            home.path
        ):  # the address of a Unix socket has room for about 100 characters only
            link.connect(home.relay_socket.name)
        link.sendall(request)
        link.shutdown(socket.SHUT_WR)
        with link.makefile("r", encoding="utf-8") as answer:
            return answer.read()
