"""`python -m folkmoot.testnet.relay HOME NAME...`: all links of a testnet, which can be slow, silent or cut.

For each node A and other node B there is a port on which A, and nobody else, finds B: so every connection is known to
belong to one pair. It needs no rights: bytes are read, held back and written again. What crosses is not looked at.
"""

import os
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import msgspec
import trio

from folkmoot.node.charter_files import load_member
from folkmoot.testnet.home import TestnetHome
from folkmoot.testnet.processes import TestnetError
from folkmoot.testnet.shaping import Conditions, Order

HOST = "127.0.0.1"
CHUNK = 64 * 1024
IN_FLIGHT = 64
"""Chunks on their way at once in one direction of a connection, as a TCP window bounds them: 4 MiB."""

RECEIVE_BUFFER = 256 * 1024
"""What the kernel may take from a node before we read it: more would be a queue of seconds before a slow line."""

MAX_ORDER = 64 * 1024


class Relay:
    """The links of the nodes called `names`; `home` says where each listens."""

    def __init__(self, home: TestnetHome, names: Sequence[str]) -> None:
        self._home = home
        self._names = names
        self._conditions = Conditions(names)
        self._changed = trio.Event()
        self._open: dict[trio.CancelScope, tuple[str, str]] = {}

    async def run(self) -> None:
        """Relay for ever. The addresses are written down before orders are taken, so who can order can also call."""
        async with trio.open_nursery() as nursery:
            for source in self._names:
                others = [name for name in self._names if name != source]
                addresses = [await nursery.start(self._listen, source, target) for target in others]
                _replace(self._home.relay_addresses(source), "".join(f"{one}\n" for one in addresses))
            await trio.serve_listeners(self._take_order, [_listen_at(self._home.relay_socket.name)])

    async def _listen(
        self, source: str, target: str, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve the port on which `source` finds `target`; says its address."""
        (listener,) = await trio.open_tcp_listeners(0, host=HOST)
        listener.socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, RECEIVE_BUFFER)
        port, peer = listener.socket.getsockname()[1], load_member(self._home.node(target)).peer_id
        task_status.started(f"/ip4/{HOST}/tcp/{port}/p2p/{peer}")
        await trio.serve_listeners(partial(self._connect, source, target), [listener])

    async def _connect(self, source: str, target: str, caller: trio.SocketStream) -> None:
        """Carry one connection until it ends or is cut."""
        with trio.CancelScope() as scope:
            self._open[scope] = (source, target)
            try:
                await self._until_passable(source, target)
                if self._conditions.is_cut(source, target):
                    return
                async with await self._dial(target) as called, trio.open_nursery() as nursery:
                    nursery.start_soon(self._carry, source, target, caller, called, nursery.cancel_scope)
                    nursery.start_soon(self._carry, target, source, called, caller, nursery.cancel_scope)
            except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # one end is gone, and soon the other
            finally:
                del self._open[scope]
                with trio.CancelScope(shield=True):
                    await trio.aclose_forcefully(caller)

    async def _dial(self, target: str) -> trio.SocketStream:
        """Raises OSError if the node does not listen."""
        address = self._home.node(target).address.read_text(encoding="ascii").split()[0]
        _, _, host, _, port, *_ = address.split("/")
        return await trio.open_tcp_stream(host, int(port))

    async def _carry(
        self,
        source: str,
        target: str,
        reader: trio.SocketStream,
        writer: trio.SocketStream,
        end: trio.CancelScope,
    ) -> None:
        """Carry one direction; when it ends, and all has arrived, the connection does."""
        entrance, exit_ = trio.open_memory_channel[tuple[float, bytes]](IN_FLIGHT)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send, source, target, reader, entrance)
            async with exit_:
                async for due, data in exit_:
                    await trio.sleep_until(due)
                    await self._until_passable(source, target)
                    await writer.send_all(data)
        end.cancel()

    async def _send(
        self,
        source: str,
        target: str,
        reader: trio.SocketStream,
        entrance: trio.MemorySendChannel[tuple[float, bytes]],
    ) -> None:
        """Take bytes as fast as the lines allow; so a slow line makes its sender wait, as TCP does."""
        async with entrance:
            while data := await reader.receive_some(CHUNK):
                crossed = self._conditions.cross(source, target, len(data), trio.current_time())
                await trio.sleep_until(crossed)
                await entrance.send((crossed + self._conditions.delay(source, target), data))

    async def _until_passable(self, source: str, target: str) -> None:
        while self._conditions.is_stalled(source, target):
            await self._changed.wait()

    async def _take_order(self, stream: trio.SocketStream) -> None:
        """One order, one answer: empty if it was carried out, else what is wrong with it."""
        async with stream:
            with suppress(trio.BrokenResourceError):
                data = await _read_all(stream)
                try:
                    self._obey(msgspec.json.decode(data, type=Order))
                except (TestnetError, msgspec.DecodeError) as error:
                    await stream.send_all(str(error).encode())

    def _obey(self, order: Order) -> None:
        self._conditions.apply(order)
        self._changed.set()
        self._changed = trio.Event()
        for scope, (source, target) in self._open.items():
            if self._conditions.is_cut(source, target):
                scope.cancel()


async def _read_all(stream: trio.SocketStream) -> bytes:
    data = bytearray()
    async for piece in stream:
        data += piece
        if len(data) > MAX_ORDER:
            break
    return bytes(data)


def _listen_at(name: str) -> trio.SocketListener:
    """Listen on a Unix socket in the current directory; it appears when it can be connected to."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{name}.new")
        listener.listen()
        Path(f"{name}.new").rename(name)
        return trio.SocketListener(trio.socket.from_stdlib_socket(listener.dup()))


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    new = path.with_suffix(".part")
    new.write_text(text, encoding="ascii")
    new.replace(path)


def main(arguments: Sequence[str]) -> int:
    """Relay between the named nodes of the home that is the first argument; the exit status."""
    home, names = TestnetHome(Path(arguments[0])), arguments[1:]
    os.umask(0o077)
    os.chdir(home.path)  # the address of a Unix socket has room for about 100 characters only
    trio.run(Relay(home, names).run)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
