"""An RPC that passes everything on to an honest one, and lies where a test tells it to."""

import json
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Lie = Callable[[dict[str, Any], Any], Any]
"""(request, honest reply) -> reply."""


class LyingRpc(ThreadingHTTPServer):
    """In front of the RPC at `honest`."""

    daemon_threads = True

    def __init__(self, honest: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.honest = honest
        self.lie: Lie = lambda request, reply: reply

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def answer(self, body: bytes) -> bytes:
        asked = urllib.request.Request(self.honest, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(asked, timeout=20) as reply:
            return json.dumps(self.lie(json.loads(body), json.load(reply))).encode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    server: LyingRpc

    def do_POST(self) -> None:
        content = self.server.answer(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def lying(honest: str) -> Iterator[LyingRpc]:
    """A lying RPC while the block runs."""
    server = LyingRpc(honest)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def answers(method: str, change: Callable[[Any], Any]) -> Lie:
    """Changes the result of one method."""

    def lie(request: dict[str, Any], reply: Any) -> Any:
        if request["method"] == method and reply.get("result") is not None:
            reply["result"] = change(reply["result"])
        return reply

    return lie


def refuses(method: str) -> Lie:
    """Serves everything but one method."""
    refusal = {"jsonrpc": "2.0", "id": 1, "error": {"code": -32601, "message": "Method not found"}}
    return lambda request, reply: refusal if request["method"] == method else reply


def all_of(*lies: Lie) -> Lie:
    """One lie after the other."""

    def lie(request: dict[str, Any], reply: Any) -> Any:
        for one in lies:
            reply = one(request, reply)
        return reply

    return lie
