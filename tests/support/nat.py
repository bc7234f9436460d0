"""Hosts behind NAT on one machine: network namespaces, joined by virtual cables. Needs root, iproute2 and iptables.

public hosts (198.51.100.N) ── bridge ── routers (masquerade) ── private hosts, all of them 10.1.0.2
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

PRIVATE = "10.1.0.2"

FORWARD = """
import sys
import trio

async def serve(near, connect):
    async def pass_on(source, target, scope):
        try:
            async for data in source:
                await target.send_all(data)
        except trio.BrokenResourceError:
            pass
        scope.cancel()

    far = await connect()
    async with near, far, trio.open_nursery() as nursery:
        nursery.start_soon(pass_on, near, far, nursery.cancel_scope)
        nursery.start_soon(pass_on, far, near, nursery.cancel_scope)

async def main(way, path, port):
    if way == "in":
        async def connect():
            return await trio.open_unix_socket(path)
        await trio.serve_tcp(lambda near: serve(near, connect), port, host="127.0.0.1")
    else:
        async def connect():
            return await trio.open_tcp_stream("127.0.0.1", port)
        sock = trio.socket.socket(trio.socket.AF_UNIX)
        await sock.bind(path)
        sock.listen()
        await trio.serve_listeners(lambda near: serve(near, connect), [trio.SocketListener(sock)])

trio.run(main, sys.argv[1], sys.argv[2], int(sys.argv[3]))
"""
"""A loopback port of this machine, offered in a namespace: through a Unix socket, which knows no namespaces."""


def problem() -> str:
    """Why this machine cannot do it; empty if it can."""
    if os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("iptables") is None:
        return "needs root, iproute2 and iptables"
    name = f"fm{os.getpid()}-try"
    try:
        _ip("netns", "add", name)
        _in(name, "iptables", "-t", "nat", "-L", "-n")
        _in(name, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
    except subprocess.CalledProcessError as error:
        return f"this machine allows no network namespaces with NAT: {error.stderr.strip()}"
    finally:
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return ""


@contextmanager
def hosts(public: Sequence[str], private: Sequence[str]) -> Iterator[dict[str, tuple[str, str]]]:
    """Of each host its namespace and the address that it has there."""
    mark = f"fm{os.getpid()}"
    middle = f"{mark}-net"
    made, found = [middle], {}
    try:
        _add(middle)
        _in(middle, "ip", "link", "add", "br0", "type", "bridge")
        _in(middle, "ip", "link", "set", "br0", "up")
        for number, name in enumerate([*public, *private], start=1):
            space, address = f"{mark}-{name}", f"198.51.100.{number}"
            made.append(space)
            _add(space)
            if name in public:
                _plug(space, "up0", address, middle, number)
                found[name] = (space, address)
            else:
                router = f"{mark}-r{number}"
                made.append(router)
                _add_router(router, address, middle, number, space)
                found[name] = (space, PRIVATE)
        yield found
    finally:
        for space in made:
            subprocess.run(["ip", "netns", "del", space], capture_output=True, check=False)


def within(space: str, command: Sequence[str]) -> list[str]:
    """`command`, to be run in a namespace; it keeps its process id."""
    return ["ip", "netns", "exec", space, *command]


def forwarders(space: str | None, path: str, port: int) -> list[str]:
    """The command of the forwarder in a namespace, or (None) of the one outside."""
    command = [sys.executable, "-c", FORWARD, "in" if space else "out", path, str(port)]
    return within(space, command) if space else command


def _add_router(router: str, address: str, middle: str, number: int, space: str) -> None:
    _add(router)
    _plug(router, "up0", address, middle, number)
    _ip("link", "add", "lan0", "netns", router, "type", "veth", "peer", "name", "up0", "netns", space)
    for where, device, own in ((router, "lan0", "10.1.0.1"), (space, "up0", PRIVATE)):
        _in(where, "ip", "addr", "add", f"{own}/24", "dev", device)
        _in(where, "ip", "link", "set", device, "up")
    _in(space, "ip", "route", "add", "default", "via", "10.1.0.1")
    _in(router, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
    _in(router, "iptables", "-t", "nat", "-A", "POSTROUTING", "-o", "up0", "-j", "MASQUERADE")
    established = ["-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED", "-j", "ACCEPT"]
    _in(router, "iptables", "-A", "FORWARD", "-i", "up0", *established)
    _in(router, "iptables", "-A", "FORWARD", "-i", "up0", "-j", "DROP")


def _plug(space: str, device: str, address: str, middle: str, number: int) -> None:
    port = f"p{number}"
    _ip("link", "add", device, "netns", space, "type", "veth", "peer", "name", port, "netns", middle)
    _in(middle, "ip", "link", "set", port, "master", "br0")
    _in(middle, "ip", "link", "set", port, "up")
    _in(space, "ip", "addr", "add", f"{address}/24", "dev", device)
    _in(space, "ip", "link", "set", device, "up")


def _add(space: str) -> None:
    _ip("netns", "add", space)
    _in(space, "ip", "link", "set", "lo", "up")


def _in(space: str, *command: str) -> None:
    subprocess.run(within(space, command), check=True, capture_output=True, text=True)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
