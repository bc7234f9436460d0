"""Real daemons whose chain is down: at their first start, in the middle, and at a restart."""

import os
import signal
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from daemons import Daemons, founded

from folkmoot.ledger.reader import LedgerReader
from folkmoot.node.keys import public_keys
from folkmoot.testnet.home import Plan
from folkmoot.testnet.processes import Child

pytestmark = pytest.mark.integration

PLAN = Plan(nodes=3, rounds=30, example="breast-cancer")


class Chain:
    """The federation's chain, stopped and started on its port."""

    def __init__(self, daemons: Daemons) -> None:
        self._daemons = daemons
        self._child = daemons.chain

    def stop(self) -> None:
        self._child.ref.signal(signal.SIGKILL)
        self._child.wait(10)

    def start(self) -> None:
        home, port = self._daemons.home, urlsplit(self._daemons.testnet.rpc).port
        journal = home.chain / "journal.sqlite"
        command = [
            sys.executable,
            "-m",
            "folkmoot.testnet.chain",
            "--port",
            str(port),
            "--journal",
            str(journal),
        ]
        for name in self._daemons.plan.names:
            command += ["--fund", public_keys(home.node(name).keys).gas_key]
        self._child = Child.start("chain", command, home.logs / "chain-again.log")
        self._daemons.adopt(self._child)


def test_a_ledger_that_comes_and_goes(tmp_path: Path) -> None:
    with founded(tmp_path / "testnet", PLAN) as daemons:
        chain, names = Chain(daemons), PLAN.names
        chain.stop()
        children = [daemons.start(name) for name in names]
        daemons.wait(lambda: all(_phase(daemons, name) == "waiting for the ledger" for name in names))
        reasons = [status.ledger.reason for status in map(daemons.status, names) if status is not None]
        assert all("does not answer" in reason for reason in reasons)
        assert not any(daemons.node(name).address.exists() for name in names)

        chain.start()
        daemons.wait(lambda: all(_height(daemons, name) >= 2 for name in names))
        chain.stop()
        for child in children:
            os.kill(child.ref.pid, signal.SIGTERM)
        assert [child.wait(30) for child in children] == [0, 0, 0]
        before = {name: _rounds(daemons, name) for name in names}

        for name in names:
            daemons.start(name)
        daemons.wait(lambda: all(_rounds(daemons, name) >= before[name] + 2 for name in names))
        for name in names:
            status = daemons.status(name)
            assert status is not None and status.ledger.state == "unreachable"
            assert (
                status.ledger.backlog == status.ledger.pending > 0
                and "does not answer" in status.ledger.reason
            )

        chain.start()
        daemons.wait(daemons.are_done)
        ledger = LedgerReader([daemons.testnet.rpc], bytes.fromhex(daemons.testnet.contract[2:]))
        assert [record.statement.round for record in ledger.records(1)] == list(range(1, PLAN.rounds + 1))


def _phase(daemons: Daemons, name: str) -> str:
    status = daemons.status(name)
    return status.phase if status is not None else ""


def _height(daemons: Daemons, name: str) -> int:
    status = daemons.status(name)
    return status.ledger.height if status is not None else 0


def _rounds(daemons: Daemons, name: str) -> int:
    status = daemons.status(name)
    return status.rounds if status is not None else 0
