"""The guide to founding a federation, run word for word: every `sh` block of docs/founding.md, in order."""

import csv
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from folkmoot.node.model_file import read_model

pytestmark = pytest.mark.integration

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "founding.md"
NAMES = ("alice", "bob", "carol", "dave")
ROUNDS = 3
LIMIT = 300.0


def guide_script() -> str:
    """Its blocks as one script that stops at the first failure, and takes everything down that it started."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 8
    return "set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n" + "\n".join(blocks)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_guide_founds_a_federation_that_learns_and_passes_its_audit(tmp_path: Path) -> None:
    programs = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}", "PORT": str(free_port())}
    environment.pop("FOLKMOOT_PASSPHRASE", None)
    with subprocess.Popen(
        ["bash", "-c", guide_script()],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as guide:
        try:
            output, _ = guide.communicate(timeout=LIMIT)
        finally:
            guide.terminate()
    logs = "".join(f"\n--- {path.name}\n{path.read_text()}" for path in sorted(tmp_path.glob("*.log")))
    assert guide.returncode == 0, output + logs
    assert "audit: PASS" in output
    statuses = [json.loads((tmp_path / name / "status.json").read_bytes()) for name in NAMES]
    assert [status["rounds"] for status in statuses] == [ROUNDS] * len(NAMES)
    assert len({status["model_digest"] for status in statuses}) == 1
    card, _ = read_model(tmp_path / "hospitals.safetensors")
    assert (card.round, card.model) == (ROUNDS, statuses[0]["model_digest"])
    with (tmp_path / "predicted.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    right = sum(row["prediction"] == row["diagnosis"] for row in rows)
    assert right > 0.8 * len(rows) > 0
