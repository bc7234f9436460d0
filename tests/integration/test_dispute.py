"""A dispute among real homes: what daemons left behind lets an auditor open one update, and no second."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from nacl.public import PrivateKey

from folkmoot.node.config import Home, load_config

pytestmark = pytest.mark.integration

AUDITOR = PrivateKey(b"\x05" * 32)


def folkmoot(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "folkmoot.node.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


def well(*arguments: object) -> str:
    done = folkmoot(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_auditor_opens_one_update_of_a_finished_federation(tmp_path: Path) -> None:
    well("testnet", "run", "--nodes", 4, "--rounds", 1, "--mode", "secure", "--home", tmp_path / "tn")
    homes = {name: tmp_path / "tn" / "nodes" / name for name in ("alice", "bob", "carol", "dave")}
    contract = load_config(Home(homes["alice"])).ledger.contract
    own, permit = tmp_path / "notary", tmp_path / "permit.toml"
    (own / "keys").mkdir(parents=True)
    (own / "keys" / "sealing.key").write_text(bytes(AUDITOR).hex())

    def draft(name: str, out: Path) -> None:
        key = bytes(AUDITOR.public_key).hex()
        terms = ("--round", 1, "--auditor", key, "--member", name, "--reason", "a test", "--out", out)
        well("dispute", "permit", "--home", homes["alice"], *terms)
        for signer in ("alice", "carol", "dave"):
            well("dispute", "sign", "--home", homes[signer], "--permit", out)

    draft("bob", permit)
    answers: list[object] = []
    for name in ("alice", "carol", "dave"):
        out = tmp_path / f"{name}.answer"
        well("dispute", "answer", "--home", homes[name], "--permit", permit, "--out", out)
        answers += ["--answers", out]
    given = ("--contract", contract, "--permit", permit, "--home", own, "--home", homes["bob"])
    report = json.loads(well("audit", "dispute", *given, *answers, "--json"))
    assert {check["status"] for check in report["checks"]} == {"PASS"}
    (update,) = report["updates"]
    assert update["member"] == "bob" and 1 <= update["weight"] <= 255
    assert all(tensor["norm"] > 0 and 0 < tensor["largest"] <= 1 for tensor in update["tensors"])

    draft("carol", tmp_path / "second.toml")
    refused = folkmoot(
        *("dispute", "answer", "--home", homes["alice"], "--permit", tmp_path / "second.toml"),
        *("--out", tmp_path / "second.answer"),
    )
    assert (refused.returncode, (tmp_path / "second.answer").exists()) == (1, False)
    assert "only 2 of 4 updates would stay hidden" in refused.stderr
