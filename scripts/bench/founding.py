"""Found a federation on real tables as docs/founding.md tells it, and see what it gained.

    .venv/bin/python scripts/bench/founding.py NORTH.csv SOUTH.csv EAST.csv --target COLUMN [--rounds N] ...

Each file (CSV, Parquet, JSON or SQLite) is one organisation's: it gets a home, keys, a node and its own held-out 20 %
of the rows, by their hash. Everything is done with the commands of the guide; words after `--` go to `charter new`.
The table compares the shared model, each organisation's trained alone and one on all rows in one place, all from the
same starting weights and for as many epochs, and all measured on the same rows: those held out by all together.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfile
from statistics import mean

import numpy as np
import safetensors.numpy

from folkmoot.node.charter_files import read_charter
from folkmoot.node.config import Home, load_config
from folkmoot.node.model_file import read_model
from folkmoot.node.train import local
from folkmoot.testnet import baselines
from folkmoot.testnet.examples import Rows
from folkmoot.testnet.home import NAMES
from folkmoot.testnet.processes import Child, stop_children

MEASURES = ("accuracy", "auc", "log_loss", "brier", "ece", "rmse", "mae")
SECONDS = 1800.0
"""How long all rounds together may take."""


@dataclass(frozen=True)
class Organisation:
    """One founder: its name, the file with its rows, and the home of its node."""

    name: str
    rows: Path
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        """Where the passphrase of its keys stands."""
        return {"FOLKMOOT_PASSPHRASE_FILE": str(self.home.with_suffix(".passphrase"))}


def folkmoot(*words: object, environment: dict[str, str] | None = None) -> str:
    """What one command of the guide prints; ends the program with its complaint where it fails."""
    command = [sys.executable, "-m", "folkmoot.node.cli", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(environment or {})})
    if done.returncode != 0:
        sys.exit(f"folkmoot {' '.join(map(str, words[:2]))}: {done.stdout}{done.stderr}")
    return done.stdout


def make_homes(founders: Sequence[Organisation]) -> list[str]:
    """Steps 1 and 2 of the guide: a home with keys for each, its rows in it; the accounts that pay."""
    accounts = []
    for one in founders:
        Path(one.environment["FOLKMOOT_PASSPHRASE_FILE"]).write_text(os.urandom(18).hex() + "\n")
        others = [f"--bootstrap=../{other.name}/address" for other in founders if other is not one]
        query = f"SELECT * FROM 'rows{one.rows.suffix}'"
        told = folkmoot(
            "init", one.home, "--name", one.name, *others, "--query", query, environment=one.environment
        )
        copyfile(one.rows, one.home / f"rows{one.rows.suffix}")
        accounts += [line.split()[2] for line in told.splitlines() if line.startswith("gas key")]
    return accounts


def start_chain(folder: Path, accounts: Sequence[str]) -> tuple[Child, str]:
    """Step 3: the chain and its URL, once it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = folder / "chain.log"
    command = [
        sys.executable,
        "-m",
        "folkmoot.node.cli",
        "ledger",
        "dev",
        "--port",
        str(port),
        "--fund",
        *accounts,
    ]
    chain = Child.start("chain", command, log)
    while "embedded chain" not in log.read_text():
        if chain.poll() is not None:
            sys.exit(chain.why_it_ended())
        time.sleep(0.1)
    return chain, f"http://127.0.0.1:{port}"


def agree(founders: Sequence[Organisation], folder: Path, rpc: str, terms: Sequence[str]) -> str:
    """Steps 4 to 6: the charter, drawn up, signed by all and on the chain; the contract's address."""
    charter = folder / "charter.toml"
    members = [word for one in founders for word in ("--member", str(one.home / "member.toml"))]
    folkmoot("charter", "new", "--out", charter, *members, "--rpc", rpc, *terms)
    for one in founders:
        folkmoot("charter", "sign", "--home", one.home, "--charter", charter)
    for one in founders:
        for other in founders:
            if other is not one:
                copyfile(
                    one.home / "charter.sig" / f"{one.name}.sig",
                    other.home / "charter.sig" / f"{one.name}.sig",
                )
    folkmoot("charter", "check", "--home", founders[0].home, "--model")
    folkmoot(
        "ledger", "deploy", "--home", founders[0].home, "--rpc", rpc, environment=founders[0].environment
    )
    contract = load_config(Home(founders[0].home)).ledger.contract
    for one in founders[1:]:
        folkmoot("ledger", "use", "--home", one.home, "--rpc", rpc, "--contract", contract)
    return contract


def start_nodes(founders: Sequence[Organisation]) -> list[Child]:
    """Step 7: look at the data, run the nodes."""
    for one in founders:
        told = folkmoot("data", "check", "--home", one.home, environment={"COLUMNS": "200"}).splitlines()
        print(f"{one.name}: {told[0]}")
        print("".join(f"    {line}\n" for line in told if line.startswith("note: ")), end="")
    command = [sys.executable, "-m", "folkmoot.node.cli", "run", "--home"]
    return [
        Child.start(
            one.name, [*command, str(one.home)], one.home.with_suffix(".log"), environment=one.environment
        )
        for one in founders
    ]


def wait_for_rounds(founders: Sequence[Organisation], nodes: Sequence[Child], rounds: int) -> None:
    """Until every node has done the charter's last round and the ledger records it."""
    deadline = time.monotonic() + SECONDS
    for one in founders:
        while not _is_done(Home(one.home).status, rounds):
            for node in nodes:
                if node.poll() is not None:
                    sys.exit(node.why_it_ended())
            if time.monotonic() > deadline:
                sys.exit(f"{one.name} has not done {rounds} rounds after {SECONDS:.0f} s")
            time.sleep(0.2)


def _is_done(status: Path, rounds: int) -> bool:
    if not status.is_file():
        return False
    seen = json.loads(status.read_text())
    return bool(seen["phase"] == "done" and seen["ledger"]["height"] == rounds)


def compare(founders: Sequence[Organisation], model: Path, rounds: int) -> None:
    """Print what the exported model, those trained alone and the pooled one come to on the rows held out by all."""
    local.limit_threads(1)
    charter = read_charter(Home(founders[0].home))
    parts = [_prepared(one) for one in founders]
    task = baselines.Founded(
        kind=charter.model.kind,
        layers=charter.model.layers,
        training=charter.training,
        data=charter.data,
        source=None,
        shares=tuple(train for train, _ in parts),
        test=Rows(
            np.concatenate([test.x for _, test in parts]), np.concatenate([test.y for _, test in parts])
        ),
    )
    names = [one.name for one in founders]
    others = baselines.compute(task, names, rounds, charter.training.seed)
    shared = baselines.measure(task, read_model(model)[1])
    measures = [name for name in MEASURES if name in shared]
    print(
        f"\nmeasured on the {len(task.test.y):,} rows that all held out; trained on {len(task.train.y):,}\n"
    )
    print("| | rows to train on | " + " | ".join(measures) + " |")
    print("|---|---" + "|---" * len(measures) + "|")
    every = {name: mean(one[name] for one in others.alone) for name in measures}
    for label, rows, found in (
        ("shared model", "", shared),
        ("alone, mean", "", every),
        *(
            (f"alone, {name}", len(part.y), one)
            for name, (part, _), one in zip(names, parts, others.alone, strict=True)
        ),
        ("all rows in one place", len(task.train.y), others.pooled),
    ):
        print(f"| {label} | {rows} | " + " | ".join(f"{found[name]:.4f}" for name in measures) + " |")


def _prepared(one: Organisation) -> tuple[Rows, Rows]:
    """An organisation's encoded rows, as its node wrote them: to train on, and held out."""
    home = Home(one.home)
    data = load_config(home).data
    train, test = (safetensors.numpy.load_file(home.resolve(file)) for file in (data.train, data.test))
    return Rows(train["x"], train["y"]), Rows(test["x"], test["y"])


def main(options: argparse.Namespace) -> None:
    """Found, run, audit, take the model out, compare."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        founders = [
            Organisation(who, rows.resolve(), folder / who)
            for who, rows in zip(NAMES, options.rows, strict=False)
        ]
        terms = ["--schema-from", str(options.schema_from or options.rows[0]), "--target", options.target]
        terms += ["--rounds", str(options.rounds), *options.terms]
        running: list[Child] = []
        try:
            chain, rpc = start_chain(folder, make_homes(founders))
            running.append(chain)
            contract = agree(founders, folder, rpc, terms)
            nodes = start_nodes(founders)
            running = [*nodes, chain]
            wait_for_rounds(founders, nodes, options.rounds)
            homes = [f"--home={one.home}" for one in founders]
            print(folkmoot("audit", "--rpc", rpc, "--contract", contract, *homes).splitlines()[-1])
        finally:
            stop_children(running)
        model = folder / "model.safetensors"
        folkmoot("export", "--home", founders[0].home, "--round", options.rounds, "--out", model)
        compare(founders, model, options.rounds)


def arguments() -> argparse.Namespace:
    """The command line; `terms` are the words for `charter new`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", type=Path, nargs="+", help="one file for each organisation, two to ten")
    parser.add_argument("--target", required=True, help="the column to predict")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument(
        "--schema-from", type=Path, help="propose the schema from this file; else from the first"
    )
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    options = parser.parse_args(words[:end])
    options.terms = words[end + 1 :]
    if not 2 <= len(options.rows) <= len(NAMES):
        parser.error(f"give two to {len(NAMES)} files")
    return options


if __name__ == "__main__":
    main(arguments())
