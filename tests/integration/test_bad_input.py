"""What an operator may get wrong: `folkmoot run` ends with one line that says what to do, before it meets anybody."""

import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import safetensors.numpy
from daemons import LIMIT, Daemons, founded
from nacl.signing import SigningKey

from folkmoot.ledger.build import expected_code_hash
from folkmoot.ledger.evm import EvmLedger, deploy
from folkmoot.ledger.identity import founding_of
from folkmoot.node import cli, daemon
from folkmoot.node.charter_files import load_charter, signature_path, write_charter
from folkmoot.node.config import Home
from folkmoot.node.keys import GAS, IDENTITY, unlock
from folkmoot.node.passphrase import FILE_VARIABLE, VARIABLE
from folkmoot.node.status_file import read_status
from folkmoot.node.store import Journal
from folkmoot.protocol.charter import Charter, sign_charter
from folkmoot.testnet.home import Plan

pytestmark = pytest.mark.integration

USAGE, FAILED = 2, 1


@pytest.fixture(scope="module")
def daemons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemons]:
    plan = Plan(nodes=2, rounds=3, example="breast-cancer")
    with founded(tmp_path_factory.mktemp("bad") / "testnet", plan) as daemons:
        yield daemons


class Rpc(http.server.BaseHTTPRequestHandler):
    """A JSON-RPC server that answers as the test says."""

    answers: dict[str, Any]
    asked: list[str]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(body["method"])
        answer = self.answers.get(body["method"])
        reply = answer if isinstance(answer, bytes) else json.dumps({"id": 1, "result": answer}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def rpc(answers: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """The URL of such a server, and the methods that it was asked for."""
    handler = type("Handler", (Rpc,), {"answers": answers, "asked": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", handler.asked  # type: ignore[attr-defined]
        finally:
            server.shutdown()
            thread.join()


class Case:
    """A copy of Alice's home, to be spoilt, and the run on it."""

    def __init__(
        self,
        daemons: Daemons,
        path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        shutil.copytree(daemons.node("alice").path, path)
        self.home = Home(path)
        self.daemons = daemons
        self._capfd = capfd
        monkeypatch.setenv(FILE_VARIABLE, str(daemons.home.passphrase("alice")))
        # Real ones wait ten seconds for an RPC.
        monkeypatch.setattr(daemon, "EvmLedger", partial(EvmLedger, timeout=1.0))

    def set(self, key: str, value: str) -> None:
        """Replace the line of a key in node.toml."""
        text = self.home.config.read_text()
        assert f"\n{key} = " in text
        self.home.config.write_text(re.sub(rf"(?m)^{key} = .*$", lambda _: f"{key} = {value}", text))

    def use_own_trainer(self) -> None:
        """The built-in trainer, whose data is checked before the start."""
        text = self.home.config.read_text()
        self.home.config.write_text(re.sub(r"(?m)^command = .*\n", "", text))

    def refused(self, code: int, *parts: str) -> str:
        """Run; one line on stderr that holds all `parts`, this exit code, and nobody was met. Returns the line."""
        self._capfd.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.main(["run", "--home", str(self.home.path)])
        lines = [line for line in self._capfd.readouterr().err.splitlines() if not is_log(line)]
        assert len(lines) == 1, lines
        for part in ("Error: ", *parts):
            assert part in lines[0]
        assert caught.value.code == code
        assert not self.home.address.exists()
        log = self.home.logs / "node.log"
        assert not log.exists() or "listening" not in log.read_text()
        return lines[0]

    def waits(self, *parts: str) -> str:
        """Run until it says why it waits for the ledger, which holds all `parts`; stop it. Returns what it said."""
        self.home.status.unlink(missing_ok=True)
        self._capfd.readouterr()
        said: list[str] = []
        thread = threading.Thread(target=self._stop_when_it_waits, args=(said,))
        thread.start()
        with pytest.raises(SystemExit) as caught:
            cli.main(["run", "--home", str(self.home.path)])
        thread.join()
        assert caught.value.code == 0 and said, self._capfd.readouterr().err
        for part in parts:
            assert part in said[0]
        assert not self.home.address.exists()
        return said[0] + self._capfd.readouterr().err + (self.home.logs / "node.log").read_text()

    def _stop_when_it_waits(self, said: list[str]) -> None:
        deadline = time.monotonic() + LIMIT
        while not said and time.monotonic() < deadline:
            status = read_status(self.home.status)
            if status is not None and status.phase == "waiting for the ledger":
                said.append(status.ledger.reason)
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    def refused_locally(self, code: int, *parts: str) -> str:
        """The same, and not even the ledger was asked."""
        with rpc({}) as (url, asked):
            if self.home.config.exists() and "\nrpc = " in self.home.config.read_text():
                self.set("rpc", f'["{url}"]')
            line = self.refused(code, *parts)
            assert asked == []
        return line


def is_log(line: str) -> bool:
    return re.match(r"\S*\d{4}-\d\d-\d\dT", line) is not None


@pytest.fixture
def case(
    daemons: Daemons, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Case:
    return Case(daemons, tmp_path / "alice", monkeypatch, capfd)


# --- files that the operator writes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "replacement", "parts"),
    [
        (
            "listen",
            "lisen = '/ip4/127.0.0.1/tcp/0'",
            ["unknown key 'network.lisen'", "did you mean 'listen'?"],
        ),
        ("threads", "threads = 'two'", ["'trainer.threads'", "a whole number from 1 to 1024", '"two"']),
        ("timeout", "timeout = -1", ["'trainer.timeout'"]),
        ("contract", "contract = '0x12'", ["'ledger.contract'"]),
        ("contract", "", ["'ledger.contract' is missing"]),
        ("level", "level = 'loud'", ["'log.level'"]),
        ("level", "level = ", ["not valid TOML", "line"]),
    ],
)
def test_node_toml(case: Case, key: str, replacement: str, parts: list[str]) -> None:
    text = case.home.config.read_text()
    case.home.config.write_text(re.sub(rf"(?m)^{key} = .*$", replacement, text))
    case.refused_locally(USAGE, str(case.home.config), *parts)


def test_no_node_toml(case: Case) -> None:
    case.home.config.unlink()
    case.refused_locally(USAGE, str(case.home.config), "--home")


def test_a_name_that_is_no_member(case: Case) -> None:
    case.set("name", '"mallory"')
    case.refused_locally(USAGE, "no member 'mallory'", "alice, bob")


@pytest.mark.parametrize(
    ("listen", "part"),
    [
        ("/ip4/127.0.0.1/udp/0", "/tcp/PORT"),
        ("/ip4/300.0.0.1/tcp/0", "no multiaddr"),
        ("/ip4/192.0.2.1/tcp/0", ""),
    ],
)
def test_an_address_that_cannot_be_listened_on(case: Case, listen: str, part: str) -> None:
    case.set("listen", f'"{listen}"')
    case.refused(FAILED, "listen", part)


def test_a_port_in_use(case: Case) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        case.set("listen", f'"/ip4/127.0.0.1/tcp/{port}"')
        case.refused(FAILED, f"port {port}", "in use", "another port")


# --- the charter ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "parts"),
    [
        ("rounds = 3", "round = 3", ["unknown key 'schedule.round'", "did you mean 'rounds'?"]),
        ("rounds = 3", "rounds = 'three'", ["'schedule.rounds'", "a whole number of at least 1", '"three"']),
        ("rounds = 3", "rounds = 4", ["changed after signing", "every member sign"]),
        ("grace_min = 2.0", "grace_min = 90.0", ["grace_min is above grace_max"]),
        ('format = "folkmoot/v1/charter"', 'format = "folkmoot/v2/charter"', ["'format'"]),
    ],
)
def test_charter_toml(case: Case, before: str, after: str, parts: list[str]) -> None:
    text = case.home.charter.read_text()
    assert before in text
    case.home.charter.write_text(text.replace(before, after, 1))
    case.refused_locally(USAGE, str(case.home.charter), *parts)


def test_no_charter(case: Case) -> None:
    case.home.charter.unlink()
    case.refused_locally(USAGE, str(case.home.charter), "from another member")


def test_a_charter_that_is_not_signed_by_all(case: Case) -> None:
    signature_path(case.home, "bob").unlink()
    case.refused_locally(USAGE, "bob has not signed")


@pytest.mark.parametrize("signature", ["00" * 64, "no hex"])
def test_a_signature_that_does_not_fit(case: Case, signature: str) -> None:
    signature_path(case.home, "bob").write_text(signature)
    case.refused_locally(USAGE, "bob")


# --- the ledger -----------------------------------------------------------------------------------------------------


def sign_by_all(case: Case, charter: Charter) -> None:
    """Make `charter` the one of the case's home."""
    signatures = {}
    for name in case.daemons.plan.names:
        seed = bytes.fromhex((case.daemons.node(name).keys / IDENTITY).read_text())
        signatures[name] = sign_charter(charter, SigningKey(seed))
    write_charter(case.home, charter, signatures)


def test_a_contract_of_another_charter(case: Case) -> None:
    charter = load_charter(case.home)
    passphrase = case.daemons.home.passphrase("alice").read_text().strip()
    (gas_key,) = unlock([case.home.keys / GAS], passphrase)
    other_founding = msgspec.structs.replace(founding_of(charter), charter=bytes(32))
    other = deploy([case.daemons.testnet.rpc], gas_key, other_founding).contract
    case.set("contract", f'"0x{other.hex()}"')
    case.refused(USAGE, "charter digest", charter.digest.hex(), "another federation")


def test_a_charter_for_another_code(case: Case) -> None:
    charter = load_charter(case.home)
    terms = msgspec.structs.replace(charter.ledger, code_hash="ab" * 32)
    sign_by_all(case, msgspec.structs.replace(charter, ledger=terms))
    case.refused(USAGE, "code hash", "ab" * 32, expected_code_hash().hex())


def test_a_charter_for_another_chain(case: Case) -> None:
    charter = load_charter(case.home)
    terms = msgspec.structs.replace(charter.ledger, chain_id=1)
    sign_by_all(case, msgspec.structs.replace(charter, ledger=terms))
    case.refused(USAGE, "chain id", "should be 1 ", "ledger.rpc")


def test_a_contract_address_without_code(case: Case) -> None:
    case.set("contract", '"0x00000000000000000000000000000000000000ff"')
    case.refused(USAGE, "empty", "ledger.contract")


def test_a_contract_with_other_code(case: Case) -> None:
    with rpc({"eth_chainId": hex(load_charter(case.home).ledger.chain_id), "eth_getCode": "0x6001"}) as (
        url,
        _,
    ):
        case.set("rpc", f'["{url}"]')
        case.refused(USAGE, "code", expected_code_hash().hex(), "ledger.contract")


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_an_rpc_that_refuses_connections(case: Case) -> None:
    port = closed_port()
    case.set("rpc", f'["http://127.0.0.1:{port}"]')
    case.waits(f"http://127.0.0.1:{port}", "connection refused", "ledger.rpc")


def test_an_rpc_that_says_nothing(case: Case) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        case.set("rpc", f'["http://127.0.0.1:{silent.getsockname()[1]}"]')
        case.waits("no answer in time", "ledger.rpc")


def test_an_rpc_that_talks_something_else(case: Case) -> None:
    with rpc({"eth_chainId": b"<html>hello</html>"}) as (url, _):
        case.set("rpc", f'["{url}"]')
        case.waits(url, "not JSON-RPC")


def test_the_key_in_an_rpc_url_is_not_shown(case: Case) -> None:
    case.set("rpc", f'["http://127.0.0.1:{closed_port()}/v3/SECRET-API-KEY"]')
    assert "SECRET" not in case.waits("connection refused")


def test_a_wrong_end_point_beside_the_right_one(case: Case) -> None:
    """An RPC of a wrong chain is not used, and that is said; only if there is no other does it end the node."""
    with rpc({"eth_chainId": "0x1"}) as (url, _):
        case.set("rpc", f'["http://127.0.0.1:{closed_port()}", "{url}"]')
        case.waits("connection refused", url, "wrong ledger: the chain id")
        case.set("rpc", f'["{url}"]')
        case.refused(USAGE, "chain id", "should be", "ledger.rpc")


# --- journal, keys, model, data -------------------------------------------------------------------------------------


def test_a_missing_journal_is_not_made_anew(case: Case) -> None:
    case.home.store.unlink()
    case.refused_locally(FAILED, str(case.home.store), "journal is missing", "folkmoot repair")
    assert not case.home.store.exists()


def test_a_damaged_journal(case: Case) -> None:
    case.home.store.write_bytes(b"not a database" * 1000)
    case.refused_locally(FAILED, str(case.home.store), "damaged", "folkmoot repair")


def test_the_journal_of_another_federation(case: Case) -> None:
    with Journal.open(case.home.store) as journal:
        journal.bind(bytes(32), bytes(32))
    case.refused_locally(FAILED, str(case.home.store), "belongs to federation")


def test_a_home_whose_node_runs_already(case: Case) -> None:
    case.home.status.write_text("the running node's")
    with Journal.open(case.home.store):
        case.refused_locally(FAILED, str(case.home.store), "is this node running?")
    assert case.home.status.read_text() == "the running node's"


def test_keys_of_another_member(case: Case) -> None:
    shutil.rmtree(case.home.keys)
    shutil.copytree(case.daemons.node("bob").keys, case.home.keys)
    case.refused_locally(USAGE, str(case.home.keys), "alice")


def test_a_missing_key(case: Case) -> None:
    (case.home.keys / IDENTITY).unlink()
    case.refused_locally(USAGE, str(case.home.keys / IDENTITY), "restore it")


def test_a_key_that_others_can_read(case: Case) -> None:
    (case.home.keys / IDENTITY).chmod(0o644)
    case.refused_locally(USAGE, "chmod 600")


def test_a_wrong_passphrase(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FILE_VARIABLE)
    monkeypatch.setenv(VARIABLE, "guess")
    assert "guess" not in case.refused_locally(USAGE, "wrong passphrase")


def test_no_passphrase(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FILE_VARIABLE)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False)
    case.refused_locally(USAGE, FILE_VARIABLE, VARIABLE)


def test_a_passphrase_file_that_is_not_there(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FILE_VARIABLE, "/nowhere/passphrase")
    case.refused_locally(USAGE, "/nowhere/passphrase", FILE_VARIABLE)


def without_model(case: Case) -> None:
    shutil.rmtree(case.home.models)


def garbled_model(case: Case) -> None:
    without_model(case)
    case.home.models.mkdir()
    case.home.initial_model.write_bytes(b"garbled")


def other_weights(case: Case) -> None:
    tensors = safetensors.numpy.load_file(case.home.initial_model)
    without_model(case)
    case.home.models.mkdir()
    safetensors.numpy.save_file({name: piece + 1 for name, piece in tensors.items()}, case.home.initial_model)


def other_shape(case: Case) -> None:
    without_model(case)
    case.home.models.mkdir()
    safetensors.numpy.save_file({"x": np.zeros(3, np.float32)}, case.home.initial_model)


@pytest.mark.parametrize("spoil", [garbled_model, other_weights, other_shape])
def test_starting_weights(case: Case, spoil: Callable[[Case], None]) -> None:
    """Other ones are refused; who has none gets them from other members (test_kept_vectors.py)."""
    spoil(case)
    case.refused_locally(USAGE, str(case.home.initial_model))


X, Y = np.zeros((5, 30), np.float32), np.zeros(5, np.int64)


@pytest.mark.parametrize(
    ("tensors", "part"),
    [
        ({"x": X}, "it must hold 'x' and 'y'"),
        ({"x": X[:, :29].copy(), "y": Y}, "F32 [rows, 30]"),
        ({"x": X.astype(np.float64), "y": Y}, "F32 [rows, 30]"),
        ({"x": X[:0], "y": Y[:0]}, "at least one row"),
        ({"x": X, "y": Y[:4].copy()}, "one class for each row"),
        ({"x": X, "y": Y.astype(np.float32)}, "I64"),
        (None, "not a safetensors file"),
    ],
)
@pytest.mark.parametrize("name", ["train", "test"])
def test_data_that_the_model_cannot_take(
    case: Case, name: str, tensors: dict[str, Any] | None, part: str
) -> None:
    case.use_own_trainer()
    path = case.home.path / "data" / f"{name}.safetensors"
    if tensors is None:
        path.write_bytes(b"1,2,3\n4,5,6\n")
    else:
        safetensors.numpy.save_file(tensors, path)
    case.refused_locally(USAGE, str(path), part)


def test_no_data(case: Case) -> None:
    case.use_own_trainer()
    path = case.home.path / "data" / "train.safetensors"
    path.unlink()
    case.refused_locally(USAGE, str(path), "data.train")


# --- as a process ---------------------------------------------------------------------------------------------------


def test_a_refused_start_leaves_no_process_and_no_traceback(daemons: Daemons, tmp_path: Path) -> None:
    """After the trainer was started: it must end too, and the status says that nothing runs."""
    shutil.copytree(daemons.node("alice").path, home := tmp_path / "alice")
    text = Home(home).config.read_text()
    text = re.sub(r"(?m)^command = .*\n", "", text)
    with rpc({"eth_chainId": "0x1"}) as (url, _):
        Home(home).config.write_text(re.sub(r"(?m)^rpc = .*$", f'rpc = ["{url}"]', text))
        ran = daemons.run("alice", Home(home))
    assert ran.returncode == USAGE
    assert [line for line in ran.stderr.splitlines() if not is_log(line)] == [ran.stderr.splitlines()[-1]]
    assert "Traceback" not in ran.stderr and ran.stdout == ""
    assert json.loads(Home(home).status.read_text())["phase"] == "stopped"
    assert children_of(home) == []


def children_of(home: Path) -> list[str]:
    """Processes that name this home."""
    listed = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    return [
        line for line in listed.splitlines() if str(home) in line and str(os.getpid()) not in line.split()
    ]
