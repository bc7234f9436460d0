"""Stand-in for a process that the fork server runs: `python -I -S launch.py SOCKET ENTRY ARGUMENT...`.

Hands its standard streams to the server, waits, and ends as the forked process did; if this one is killed,
the server kills that one. Whoever starts it need not know that there is a server. Standard library only: it
starts in 20 ms.
"""

import json
import os
import signal
import socket
import sys
import time

CONNECT_SECONDS = 30.0


def main() -> int:
    """Run one entry; its exit status."""
    try:
        server = connect(sys.argv[1])
    except OSError as error:
        print(f"no fork server at {sys.argv[1]}: {error}", file=sys.stderr)
        return 1
    socket.send_fds(server, [json.dumps(sys.argv[2:]).encode() + b"\n"], [0, 1, 2])
    # Ours must not keep the pipes open after the forked process has closed its own.
    empty = os.open(os.devnull, os.O_RDWR)
    os.dup2(empty, 0)
    os.dup2(empty, 1)
    answer = server.recv(64)
    if not answer:
        print("the fork server ended", file=sys.stderr)
        return 1
    status = int(answer)
    if status < 0:
        if -status != signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
        signal.pause()
    return status


def connect(path: str) -> socket.socket:
    """Connect to the server's socket, which may be about to appear."""
    folder, name = os.path.split(path)
    os.chdir(folder)  # the address of such a socket has room for about 100 characters only
    deadline = time.monotonic() + CONNECT_SECONDS
    server = socket.socket(socket.AF_UNIX)
    while True:
        try:
            server.connect(name)
            return server
        except (FileNotFoundError, ConnectionRefusedError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


if __name__ == "__main__":
    sys.exit(main())
