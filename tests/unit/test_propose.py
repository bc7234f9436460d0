"""A schema proposed from a file: what is learnt from, what is left out, and that it is said."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import duckdb
import numpy as np
import pytest
import sklearn

from folkmoot.node.data.propose import propose_schema
from folkmoot.node.data.source import Source
from folkmoot.protocol.rows import encode
from folkmoot.protocol.schema import Column, DataError, Schema, Task

HEADER = "id,plan,partner,senior,charge,when,empty,same,left"
PLANS = ("Monthly", "Yearly", '"No, thanks"')
ROWS = [
    f"c-{n:03d},{PLANS[n % 3]},{'Yes' if n % 2 else 'No'},{n % 2},{'' if n == 7 else n * 1.5},"
    f"2024-01-{n % 28 + 1:02d},,x,{'Yes' if n % 5 else 'No'}"
    for n in range(40)
]


def table(tmp_path: Path, rows: Sequence[str] = ROWS, header: str = HEADER, name: str = "rows.csv") -> Path:
    path = tmp_path / name
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def breast_cancer(tmp_path: Path) -> Path:
    """Scikit-learn's file, with a line of names."""
    file = Path(sklearn.__file__).parent / "datasets" / "data" / "breast_cancer.csv"
    names = ",".join([*(f"measure{n}" for n in range(30)), "benign"])
    return table(tmp_path, file.read_text().splitlines()[1:], names, "tumours.csv")


def by_name(schema: Schema) -> dict[str, Column]:
    return {column.name: column for column in schema.columns}


def test_columns_are_what_they_look_like(tmp_path: Path) -> None:
    schema, notes = propose_schema(table(tmp_path), "left")
    assert (schema.task, schema.classes) == ("binary", ("No", "Yes"))
    columns = by_name(schema)
    assert list(columns) == ["plan", "partner", "senior", "charge"]
    assert columns["plan"].categories == ("Monthly", "No, thanks", "Yearly")
    assert columns["partner"].categories == ("No", "Yes")
    assert columns["senior"] == Column(name="senior", kind="number", center="0.5", scale="0.5")
    charge = columns["charge"]
    assert (charge.kind, charge.missing) == ("number", "indicate")
    assert float(charge.center) == pytest.approx(29.7, abs=0.2)
    assert float(charge.scale) == pytest.approx(17.4, abs=0.1)
    said = "\n".join(notes)
    assert "id: differs in 40 of 40 rows, as an identifier does: left out" in said
    assert "when: is of type DATE: left out" in said
    assert "empty: has no value in any row: left out" in said
    assert "same: has the same value in every row that has one: left out" in said
    assert "charge: 1 of 40 values are missing" in said


def test_rows_fit_the_schema_that_they_proposed(tmp_path: Path) -> None:
    path = table(tmp_path)
    schema, _ = propose_schema(path, "left")
    with Source(tmp_path) as source:
        (batch,) = source.batches("FROM 'rows.csv'", "query")
    encoded = encode(schema, batch.columns)
    assert encoded.x.shape == (40, schema.features)
    assert encoded.y.sum() == 32
    assert abs(encoded.x.mean(axis=0)[-2]) < 0.01


def test_numbers_stored_as_text_with_blanks_are_numbers(tmp_path: Path) -> None:
    rows = [f'"{" " if n % 10 == 0 else n * 1.25}",{n % 2}' for n in range(30)]
    schema, notes = propose_schema(table(tmp_path, rows, "total,y"), "y")
    assert schema.columns[0].kind == "number"
    assert schema.columns[0].missing == "indicate"
    assert notes == ["total: 3 of 30 values are missing; the model is told where"]


@pytest.mark.parametrize("kind", ["parquet", "json", "sqlite"])
def test_every_kind_of_file_gives_the_same_schema(tmp_path: Path, kind: str) -> None:
    rows = [f"{n * 0.5},{'ab'[n % 2]},{'no' if n % 3 else 'so'}" for n in range(30)]
    path = table(tmp_path, rows, "size,kind,y")
    other = tmp_path / f"rows.{kind}"
    if kind == "sqlite":
        with closing(sqlite3.connect(other)) as database, database:
            database.execute("CREATE TABLE plants (size REAL, kind TEXT, y TEXT)")
            database.executemany("INSERT INTO plants VALUES (?, ?, ?)", [row.split(",") for row in rows])
    else:
        duckdb.sql(f"COPY (FROM '{path}') TO '{other}'")
    assert propose_schema(other, "y") == propose_schema(path, "y")


@pytest.mark.parametrize(
    ("values", "task", "expected", "classes"),
    [
        ([0, 1], None, "binary", ("0", "1")),
        (["b", "a"], None, "binary", ("a", "b")),
        ([1, 2, 10], None, "multiclass", ("1", "2", "10")),
        (["x", "y", "z"], None, "multiclass", ("x", "y", "z")),
        (range(21), None, "regression", ()),
        (["0", "0.0", "1", "?"], None, "binary", ("0", "1")),
        ([0.5, 1, 1.5], None, "multiclass", ("0.5", "1", "1.5")),
        ([1, 2, 10], "regression", "regression", ()),
    ],
)
def test_the_task_follows_from_the_target(
    tmp_path: Path, values: Sequence[object], task: Task | None, expected: str, classes: tuple[str, ...]
) -> None:
    rows = [f"{n % 7 + 0.5},{values[n % len(values)]}" for n in range(63)]
    schema, _ = propose_schema(table(tmp_path, rows, "x,y"), "y", task)
    assert (schema.task, schema.classes) == (expected, classes)
    assert (schema.scale != "1") == (expected == "regression")


def test_measures_are_numbers_with_short_constants_however_much_they_differ(tmp_path: Path) -> None:
    schema, notes = propose_schema(breast_cancer(tmp_path), "benign")
    assert (schema.task, len(schema.columns), notes) == ("binary", 30, [])
    assert all(len(column.center) <= 8 and len(column.scale) <= 8 for column in schema.columns)
    with Source(tmp_path) as source:
        (batch,) = source.batches("FROM 'tumours.csv'", "query")
    x = encode(schema, batch.columns).x.astype(np.float64)
    assert np.abs(x.mean(axis=0)).max() < 0.01
    assert np.abs(x.std(axis=0) - 1).max() < 0.01


def test_every_column_may_be_missing_where_that_is_asked_for(tmp_path: Path) -> None:
    schema, _ = propose_schema(table(tmp_path), "left", allow_missing=True)
    assert {column.missing for column in schema.columns} == {"indicate"}


def test_rows_without_a_target_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [f"{n},{'' if n < 3 else n % 2}" for n in range(10)]
    schema, notes = propose_schema(table(tmp_path, rows, "x,y"), "y")
    assert notes[0] == "3 of 10 rows have no 'y': left out"
    assert schema.columns[0].center == "6"


@pytest.mark.parametrize(
    ("rows", "target", "task", "what"),
    [
        (["1,0", "2,1"], "Y", None, "no column 'Y'; did you mean 'y'"),
        (["1,0", "2,1"], "churned", None, "no column 'churned'; there are x, y"),
        (["1,yes", "2,yes"], "y", None, "'y' is 'yes' in every row"),
        (["1,5", "2,5"], "y", "regression", "'y' is '5' in every row"),
        (["1,", "2,"], "y", None, "'y' has no value in any of 2 rows"),
        ([], "y", None, "no rows"),
        (["1,a", "2,b", "3,a"], "y", "regression", "'a', which is no number"),
        (["1,a", "2,b", "3,c"], "y", "binary", "3 classes; a binary task has two"),
        (["1,a", "1,b", "1,a"], "y", None, "no column is left to learn from: x: has the same value"),
        ([f"1,name{n}" for n in range(50)], "y", None, "50 values in 50 rows: those are no classes"),
        (["1,2024-01-01", "2,2024-01-02"], "y", None, "'y' is of type DATE: neither classes nor a number"),
    ],
)
def test_what_cannot_be_learnt_is_refused(
    tmp_path: Path, rows: list[str], target: str, task: Task | None, what: str
) -> None:
    with pytest.raises(DataError, match=what):
        propose_schema(table(tmp_path, rows, "x,y"), target, task)


def test_text_with_too_many_values_is_left_out(tmp_path: Path) -> None:
    rows = [f"{'x' if n % 3 else n}{n % 150},{n % 2},{n % 4}" for n in range(400)]
    _, notes = propose_schema(table(tmp_path, rows, "word,y,code"), "y")
    assert notes[0].startswith("word: is text with ")
    assert (
        notes[1]
        == "code: 4 different whole numbers: taken as a number; if they are codes, declare it a category"
    )


def test_numbers_that_are_codes_are_declared_categories(tmp_path: Path) -> None:
    rows = [f"{'?' if n == 9 else n % 3 + 1.0},{n * 1.5},{'ab'[n % 2]}" for n in range(60)]
    path = table(tmp_path, rows, "code,size,y")
    schema, notes = propose_schema(path, "y", categories=["code"])
    code, size = schema.columns
    assert code == Column(name="code", kind="category", categories=("1", "2", "3"), missing="indicate")
    assert size.kind == "number"
    assert notes == ["code: 1 of 60 values are missing; the model is told where"]
    encoded = encode(schema, {"code": ["1.0", 2, 3.0, "?"], "size": [0, 0, 0, 0], "y": list("abab")})
    assert encoded.x[:, :4].tolist() == np.eye(4).tolist()


@pytest.mark.parametrize(
    ("column", "what"),
    [
        ("cod", "no column 'cod'; did you mean 'code'"),
        ("y", "the target 'y' is no column to learn from"),
    ],
)
def test_a_category_must_be_a_column_to_learn_from(tmp_path: Path, column: str, what: str) -> None:
    rows = [f"{n % 3},{n % 2}" for n in range(30)]
    with pytest.raises(DataError, match=what):
        propose_schema(table(tmp_path, rows, "code,y"), "y", categories=[column])


def test_codes_with_too_many_values_are_left_out(tmp_path: Path) -> None:
    rows = [f"{n % 150},{n},{n % 7 + 0.5},{n % 2}" for n in range(400)]
    schema, notes = propose_schema(table(tmp_path, rows, "code,id,x,y"), "y", categories=["code", "id"])
    assert [column.name for column in schema.columns] == ["x"]
    assert notes == [
        "code: is a category with 150 different values, more than 100 categories: left out",
        "id: differs in 400 of 400 rows, as an identifier does: left out",
    ]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing\.csv: no such file"):
        propose_schema(tmp_path / "nothing.csv", "y")
