"""anvil, a real EVM node, in a process of its own: what the embedded chain cannot do (state proofs, reorganisations).

`npm i --prefix .tools @foundry-rs/anvil@1.7.1` installs it. Without it tests are skipped, under CI=true they fail.
"""

import json
import os
import re
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_PLACE = Path(__file__).parents[2] / ".tools" / "node_modules" / "@foundry-rs"


def anvil_binary() -> Path:
    """The platform's program; skips the test (under CI=true: fails it) if it is not installed."""
    found = next(_PLACE.glob("anvil-*/bin/anvil"), None)
    if found is None:
        say = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        say("anvil is not installed: npm i --prefix .tools @foundry-rs/anvil@1.7.1")
    return found


@contextmanager
def running_anvil(chain_id: int, *arguments: str) -> Iterator[str]:
    """Its URL while the block runs."""
    command = [str(anvil_binary()), "--port", "0", "--chain-id", str(chain_id), *arguments]
    # A file, not a pipe: it logs every call, and a full pipe would stop it.
    with (
        tempfile.NamedTemporaryFile() as log,
        subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT) as process,
    ):
        try:
            yield f"http://127.0.0.1:{_port(process, Path(log.name))}"
        finally:
            process.terminate()
            process.wait(timeout=20)


def call(url: str, method: str, *params: object) -> Any:
    """One JSON-RPC call; raises `RuntimeError` with the node's error."""
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as reply:
        answer = json.load(reply)
    if "error" in answer:
        raise RuntimeError(answer["error"])
    return answer["result"]


def _port(process: "subprocess.Popen[bytes]", log: Path) -> int:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if match := re.search(r"Listening on .*:(\d+)", log.read_text()):
            return int(match[1])
        time.sleep(0.02)
    raise TimeoutError(f"anvil did not say where it listens within 60 s:\n{log.read_text()}")
