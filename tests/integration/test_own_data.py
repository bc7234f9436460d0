"""A file of one's own, from `folkmoot testnet run --data` to a shared model, and a node whose rows do not fit."""

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import mean

import msgspec
import numpy as np
import pytest

from folkmoot.node.charter_files import load_charter
from folkmoot.node.cli import main
from folkmoot.node.config import load_config, render_config
from folkmoot.node.passphrase import FILE_VARIABLE
from folkmoot.testnet.home import TestnetHome

pytestmark = pytest.mark.integration

SITES = ("north", "south", "west")
LIMIT = 240.0


def write_clinics(path: Path) -> None:
    """Three clinics: one sees mostly the ill, one mostly the healthy, and the last has no lab."""
    draw = np.random.default_rng(7)
    lines = ["patient,clinic,age,dose,lab,smoker,ill"]
    for patient in range(900):
        age, dose, lab = draw.normal(50, 12), draw.normal(3, 1), draw.normal(100, 20)
        smoker = draw.random() < 0.4
        ill = (age - 50) / 12 + (dose - 3) + (lab - 100) / 20 + 0.8 * smoker + draw.normal(0, 0.7) > 0.2
        clinic = SITES[2] if draw.random() < 0.34 else SITES[int(draw.random() < (0.93 if ill else 0.07))]
        shown = "" if clinic == "west" else f"{lab:.1f}"
        lines.append(
            f"P{patient:04d},{clinic},{age:.1f},{dose:.2f},{shown},{'Yes' if smoker else 'No'},{'Yes' if ill else 'No'}"
        )
    path.write_text("\n".join(lines) + "\n")


def folkmoot(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "folkmoot.node.cli", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=LIMIT, env={**os.environ, **environment}
    )


def test_clinics_with_different_patients_share_a_model(tmp_path: Path) -> None:
    write_clinics(tmp_path / "clinics.csv")
    home = TestnetHome(tmp_path / "testnet")
    rows = ["--data", str(tmp_path / "clinics.csv"), "--target", "ill", "--split-by", "clinic"]
    options = [*rows, "--leave-out", "clinic", "--nodes", "3", "--rounds", "5", "--home", str(home.path)]
    ran = folkmoot("testnet", "run", *options)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "note: patient: differs in " in ran.stdout
    report = json.loads(home.report.read_text())
    assert report["audit"]["status"] == "PASS"
    shared = report["nodes"][0]["metrics"]
    for measure in ("accuracy", "auc"):
        assert shared[measure] > mean(node["alone_metrics"][measure] for node in report["nodes"])
    assert shared["auc"] > 0.85

    charter = load_charter(home.node("alice"))
    assert charter.data is not None
    assert charter.data.classes == ("No", "Yes")
    assert [column.name for column in charter.data.columns] == ["age", "dose", "lab", "smoker"]
    absent = [
        json.loads(home.node(name).data_summary.read_text())["absent"] for name in ("alice", "bob", "carol")
    ]
    assert sorted(absent) == [[], [], ["lab"]]
    check_that_a_misfit_stays_out(home)


def check_that_a_misfit_stays_out(home: TestnetHome) -> None:
    node = home.node("bob")
    config = load_config(node)
    smoker = "CASE WHEN dose > 5 THEN 'Maybe' ELSE smoker::VARCHAR END AS smoker"
    query = f"SELECT * REPLACE ({smoker}) FROM 'data/rows.parquet'"
    data = msgspec.structs.replace(config.data, query=query)
    node.config.write_text(render_config(msgspec.structs.replace(config, data=data)))
    ran = folkmoot("run", "--home", str(node.path), **{FILE_VARIABLE: str(home.passphrase("bob"))})
    assert ran.returncode == 2
    line = ran.stderr.strip()
    assert "\n" not in line
    assert line.startswith("Error: data.query: row ") and ", column 'smoker': " in line


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--target", "sick"], "no column 'sick'; there are patient, clinic"),
        (["--target", "ill", "--split-by", "clinic", "--nodes", "4"], "give --nodes 3 or less"),
        (["--target", "clinic", "--task", "binary"], "3 classes; a binary task has two"),
        ([], "--data needs --target"),
    ],
)
def test_what_cannot_be_learnt_is_said_at_once_and_leaves_nothing(
    tmp_path: Path, options: list[str], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_clinics(tmp_path / "clinics.csv")
    place = ["--home", str(tmp_path / "testnet")]
    with pytest.raises(SystemExit) as left:
        main(["testnet", "run", "--data", str(tmp_path / "clinics.csv"), *options, *place])
    assert left.value.code == 2
    assert what in capsys.readouterr().err
    assert not (tmp_path / "testnet").exists()
