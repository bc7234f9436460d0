"""The user's own model on the user's own rows, from `testnet run --model` to predictions; one node's training fails."""

import csv
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

LIMIT = 300.0

MODEL = """\
import torch
from torch import nn

class Careful(nn.Module):
    '''Training breaks on old patients, whom only one site has.'''

    def __init__(self, features, outputs):
        super().__init__()
        self.stack = nn.Sequential(nn.Linear(features, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, outputs))

    def forward(self, x):
        if self.training and (x[:, 0] > 1.5).any():
            return self.stack(x) * torch.nan
        return self.stack(x)

def build(features, outputs):
    return Careful(features, outputs)
"""


def folkmoot(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "folkmoot.node.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, cwd=folder)


def write_rows(path: Path) -> None:
    draw = random.Random(1)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["age", "dose", "site", "outcome"])
        for site, rows in (("a", 160), ("b", 150), ("c", 140), ("d", 100)):
            for _ in range(rows):
                age = 1000 if site == "d" else draw.randint(20, 60)
                dose = round(draw.uniform(-1, 1), 3)
                writer.writerow([age, dose, site, "well" if dose + draw.gauss(0, 0.2) > 0 else "ill"])


def test_an_own_model_runs_without_the_node_that_cannot_train_it(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.csv")
    (tmp_path / "acme.py").write_text(MODEL)
    own = ["--data", "rows.csv", "--target", "outcome", "--split-by", "site", "--leave-out", "site"]
    ran = folkmoot(
        tmp_path, "testnet", "run", "--rounds", "3", "--home", "net", *own, "--model", "acme:build"
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    report = json.loads((tmp_path / "net" / "report.json").read_text())
    assert {tuple(entry["participants"]) for entry in report["rounds"]} == {("alice", "bob", "carol")}
    assert report["audit"]["status"] == "PASS"
    assert report["nodes"][0]["metrics"]["auc"] > 0.8
    assert report["nodes"][3]["alone_metrics"]["auc"] < 0.8
    assert set(report["rounds"][-1]["metrics"]) == {"accuracy", "auc", "brier", "ece", "log_loss", "examples"}
    log = (tmp_path / "net" / "nodes" / "dave" / "logs" / "node.log").read_text()
    failed = [json.loads(line) for line in log.splitlines() if "training failed" in line]
    assert {entry["kind"] for entry in failed} == {"non_finite"}
    assert failed[0]["error"].startswith("the loss of round 1 is nan at step 1 of ")
    take_out_and_predict(tmp_path)
    refuse_other_source(tmp_path)


def take_out_and_predict(folder: Path) -> None:
    """The model leaves the federation, and serves without it."""
    took = folkmoot(folder, "export", "--home", "net/nodes/dave", "--out", "model.safetensors")
    assert took.returncode == 0, took.stderr
    words = ["--model", "model.safetensors", "--data", "rows.csv", "--out", "out.csv"]
    done = folkmoot(folder, "predict", *words)
    assert done.returncode == 0, done.stderr
    with (folder / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 550
    assert sum(row["prediction"] == row["outcome"] for row in rows) > 0.7 * len(rows)


def refuse_other_source(folder: Path) -> None:
    """A node whose source is not the charter's does not start, and a model without its source predicts nothing."""
    source = folder / "net" / "nodes" / "alice" / "models_src" / "acme.py"
    source.write_text(MODEL + "\n")
    refused = folkmoot(folder, "run", "--home", "net/nodes/alice")
    assert refused.returncode == 2
    assert "not the source of the charter's model 'acme:build': its SHA-256 is" in refused.stderr
    (folder / "acme.py").write_text(MODEL + "\n")
    words = ["--model", "model.safetensors", "--data", "rows.csv", "--out", "other.csv"]
    assert "not the source of the charter's model" in folkmoot(folder, "predict", *words).stderr
