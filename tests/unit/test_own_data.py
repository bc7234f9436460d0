"""The user's own rows in a testnet: held out, dealt and described once, then read by every node as its own."""

from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

import duckdb
import pytest

from folkmoot.protocol.schema import DataError
from folkmoot.testnet.home import HELD_OUT_ROWS, OWN_ROWS, OwnData
from folkmoot.testnet.own_data import OwnTask, deal

# A clinic without the lab never records the value; some rows of the others lack it as well.
ROWS = [
    (
        n,
        "abcd"[n * n % 7 % 4],
        n % 50 + 0.5,
        None if n * n % 7 == 2 or n % 10 == 0 else n % 13,
        "no" if n % 3 else "so",
    )
    for n in range(400)
]
HEADER = "patient,clinic,age,lab,ill"


def write_csv(tmp_path: Path, rows: list[tuple[object, ...]] = ROWS) -> Path:
    lines = [",".join("" if value is None else str(value) for value in row) for row in rows]
    path = tmp_path / "Clinic rows (1).csv"
    path.write_text("\n".join([HEADER, *lines]) + "\n")
    return path


def deal_to(tmp_path: Path, nodes: int = 3, **changes: Any) -> tuple[OwnTask, list[Path]]:
    own = OwnData(file=str(write_csv(tmp_path)), target="ill", **changes)
    task = deal(own, nodes, tmp_path / "rows")
    folders = [tmp_path / str(node) for node in range(nodes)]
    task.write_data(folders)
    return task, folders


def patients(path: Path) -> list[int]:
    return [row[0] for row in duckdb.sql(f"SELECT patient FROM '{path}'").fetchall()]


@pytest.mark.parametrize("split_by", ["iid", "clinic"])
def test_every_row_is_dealt_or_held_out_once(tmp_path: Path, split_by: str) -> None:
    _, folders = deal_to(tmp_path, split_by=split_by)
    held_out = patients(folders[0] / HELD_OUT_ROWS)
    dealt = [patients(folder / OWN_ROWS) for folder in folders]
    assert sorted(chain(held_out, *dealt)) == list(range(400))
    assert 50 <= len(held_out) <= 110
    assert all(patients(folder / HELD_OUT_ROWS) == held_out for folder in folders)


def test_even_shares_differ_by_one_row_at_most(tmp_path: Path) -> None:
    _, folders = deal_to(tmp_path)
    sizes = [len(patients(folder / OWN_ROWS)) for folder in folders]
    assert max(sizes) - min(sizes) <= 1


def test_values_go_whole_to_the_node_with_the_fewest_rows(tmp_path: Path) -> None:
    task, folders = deal_to(tmp_path, split_by="clinic")
    clinics = [
        {row[0] for row in duckdb.sql(f"SELECT clinic FROM '{folder / OWN_ROWS}'").fetchall()}
        for folder in folders
    ]
    assert sorted(chain(*clinics)) == ["a", "b", "c"]
    sizes = [len(patients(folder / OWN_ROWS)) for folder in folders]
    assert sizes == sorted(sizes, reverse=True)
    assert any(note.startswith("clinic by node: ") for note in task.notes)


def test_more_values_than_nodes_are_dealt_by_size(tmp_path: Path) -> None:
    _, folders = deal_to(tmp_path, nodes=2, split_by="clinic")
    sizes = Counter(ROWS[patient][1] for folder in folders for patient in patients(folder / OWN_ROWS))
    largest = max(sizes.values())
    assert max(len(patients(folder / OWN_ROWS)) for folder in folders) in (
        largest,
        sum(sizes.values()) - largest,
    )


def test_who_is_held_out_depends_on_the_row_alone(tmp_path: Path) -> None:
    _, folders = deal_to(tmp_path)
    before = set(patients(folders[0] / HELD_OUT_ROWS))
    own = OwnData(file=str(write_csv(tmp_path, ROWS[:200][::-1])), target="ill")
    deal(own, 2, tmp_path / "again")
    assert set(patients(tmp_path / "again" / HELD_OUT_ROWS)) == {
        patient for patient in before if patient < 200
    }


def test_the_schema_is_of_the_rows_to_train_on(tmp_path: Path) -> None:
    task, folders = deal_to(tmp_path, leave_out=("clinic",))
    assert (task.data.task, task.data.classes) == ("binary", ("no", "so"))
    assert [column.name for column in task.data.columns] == ["age", "lab"]
    assert (task.kind, task.layers) == ("logistic", (3, 2))
    assert any(note.startswith("patient: differs in") for note in task.notes)
    mean = duckdb.sql(
        f"SELECT avg(age) FROM read_parquet({[str(one / OWN_ROWS) for one in folders]})"
    ).fetchall()
    assert float(task.data.columns[0].center) == pytest.approx(mean[0][0], abs=0.1)
    assert task.name == "clinic-rows-1"


def test_a_node_has_no_column_of_which_it_has_no_value(tmp_path: Path) -> None:
    _, folders = deal_to(tmp_path, split_by="clinic")
    found = {}
    for folder in folders:
        relation = duckdb.sql(f"FROM '{folder / OWN_ROWS}'")
        found[relation.fetchall()[0][1]] = relation.columns
    assert found["c"] == ["patient", "clinic", "age", "ill"]
    assert found["a"] == found["b"] == HEADER.split(",")


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"split_by": "Clinic"}, "no column 'Clinic' to split by; there are patient, clinic"),
        ({"split_by": "ill", "nodes": 4}, "'ill' has 2 values for 4 nodes: give --nodes 2 or less"),
        ({"leave_out": ("labs",)}, "no column 'labs'; did you mean 'lab'"),
        ({"task": "regression"}, "is no number to predict"),
        ({"nodes": 399}, "the file has too few rows: none is left for node"),
    ],
)
def test_what_cannot_be_dealt_is_refused(tmp_path: Path, changes: dict[str, Any], what: str) -> None:
    with pytest.raises(DataError, match=what):
        deal_to(tmp_path, **changes)
