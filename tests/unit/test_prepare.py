"""From a member's query to the files that its trainer reads, and every way in which that can fail."""

import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
import safetensors.numpy
from click.testing import CliRunner

from folkmoot.node.charter_files import render_charter
from folkmoot.node.cli.data import data as data_command
from folkmoot.node.config import DataConfig, Home, LedgerConfig, NodeConfig, render_config
from folkmoot.node.data import source
from folkmoot.node.data.child import prepare_data
from folkmoot.node.data.prepare import Rows, held_out, prepare
from folkmoot.node.data.summary import Summary
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.charter_tables import LedgerTerms, Member, Model, Schedule, Tensor
from folkmoot.protocol.schema import Column, DataError, Schema

SCHEMA = Schema(
    task="binary",
    target="left",
    classes=("No", "Yes"),
    columns=(
        Column(name="age", kind="number", center="50", scale="25"),
        Column(name="plan", kind="category", categories=("Monthly", "Yearly"), missing="indicate"),
    ),
)
QUERY = "SELECT * FROM 'rows.csv'"


def make_home(tmp_path: Path, rows: list[str], schema: Schema | None = SCHEMA, **data: object) -> Home:
    home = Home(tmp_path)
    (tmp_path / "rows.csv").write_text("\n".join(["id,age,plan,left", *rows]) + "\n")
    keys = {"identity_key": "ab" * 32, "sealing_key": "cd" * 32, "audit_key": "0x" + "ef" * 20}
    width = schema.features if schema else 1
    charter = Charter(
        name="test",
        model=Model(
            kind="logistic",
            layers=(width, 2),
            initial="00" * 32,
            tensors=(Tensor(name="0.weight", shape=(2, width)),),
        ),
        data=schema,
        schedule=Schedule(rounds=1),
        ledger=LedgerTerms(chain_id=1, code_hash="00" * 32),
        members=(Member(name="alice", peer_id="p", **keys),),
    )
    home.charter.write_text(render_charter(charter))
    settings = msgspec.convert({"query": QUERY, **data}, DataConfig)
    ledger = LedgerConfig(rpc=("http://127.0.0.1:1",), contract="0x" + "00" * 20)
    home.config.write_text(render_config(NodeConfig(name="alice", ledger=ledger, data=settings)))
    return home


ROWS = [f"{n},{20 + n},{('Monthly', 'Yearly', '')[n % 3]},{'Yes' if n % 4 else 'No'}" for n in range(60)]


def test_rows_are_encoded_split_and_counted(tmp_path: Path) -> None:
    home = make_home(tmp_path, [*ROWS, "60,33,Monthly,"])
    summary = prepare(home)
    train = safetensors.numpy.load_file(tmp_path / "data" / "train.safetensors")
    test = safetensors.numpy.load_file(tmp_path / "data" / "test.safetensors")
    assert train["x"].dtype == np.float32 and train["y"].dtype == np.int64
    assert train["x"].shape == (summary.train.rows, 4) and test["x"].shape == (summary.test.rows, 4)
    assert summary.train.rows + summary.test.rows == 60
    assert 4 <= summary.test.rows <= 22
    ages = np.concatenate([train["x"][:, 0], test["x"][:, 0]]) * 25 + 50
    assert sorted(ages.round().astype(int)) == list(range(20, 80))
    assert (summary.without_target, summary.missing, summary.ignored) == (1, {"age": 0, "plan": 20}, ("id",))
    assert sum(part.classes["No"] for part in (summary.train, summary.test)) == 15
    assert msgspec.json.decode(home.data_summary.read_bytes(), type=Summary) == summary


def test_the_split_depends_on_each_row_alone(tmp_path: Path) -> None:
    x = np.arange(3000, dtype=np.float32).reshape(1000, 3)
    rows = Rows(x, np.arange(1000) % 2)
    out = held_out(rows, 0.2)
    assert 0.15 < out.mean() < 0.25
    order = np.random.default_rng(0).permutation(1000)
    assert np.array_equal(held_out(Rows(x[order], rows.y[order]), 0.2), out[order])
    assert not held_out(rows, 0).any()
    assert (held_out(rows, 0.1) <= out).all()


def test_a_test_query_replaces_the_holdout(tmp_path: Path) -> None:
    query = {"query": f"{QUERY} WHERE id < 50", "test_query": f"{QUERY} WHERE id >= 50"}
    summary = prepare(make_home(tmp_path, ROWS, **query))
    assert (summary.train.rows, summary.test.rows) == (50, 10)


def test_without_a_holdout_an_older_test_file_goes(tmp_path: Path) -> None:
    prepare(make_home(tmp_path, ROWS))
    assert prepare(make_home(tmp_path, ROWS, holdout=0)).test.rows == 0
    assert not (tmp_path / "data" / "test.safetensors").exists()


def test_many_batches_are_one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = prepare(make_home(tmp_path, ROWS))
    before = (tmp_path / "data" / "train.safetensors").read_bytes()
    monkeypatch.setattr(source, "BATCH", 7)
    assert prepare(make_home(tmp_path, ROWS)) == whole
    assert (tmp_path / "data" / "train.safetensors").read_bytes() == before


def test_a_column_that_is_not_there_is_all_missing_and_said(tmp_path: Path) -> None:
    summary = prepare(make_home(tmp_path, ROWS, query="SELECT age, \"left\" FROM 'rows.csv'"))
    assert summary.absent == ("plan",)
    assert summary.missing["plan"] == 60
    assert summary.warnings == ("column 'plan' is not there: it counts as missing in every row",)


def test_columns_and_targets_that_teach_nothing_are_said(tmp_path: Path) -> None:
    summary = prepare(make_home(tmp_path, [f"{n},30,,Yes" for n in range(9)], holdout=0))
    assert summary.warnings == (
        "column 'age' has the same value in every row",
        "column 'plan' has no value in any row",
        "the target 'left' is Yes in every row to train on",
    )


@pytest.mark.parametrize(
    ("rows", "changes", "what"),
    [
        (
            ["1,30,Weekly,No"],
            {},
            "data.query: row 1, column 'plan': 'Weekly' is none of the charter's categories",
        ),
        (["1,30,Yearly,No", "2,,Yearly,No"], {}, "data.query: row 2, column 'age': no value"),
        (["1,thirty,Yearly,No"], {}, "data.query: row 1, column 'age': 'thirty' is not a number"),
        (["1,30,Yearly,Perhaps"], {}, "row 1, column 'left': 'Perhaps' is none of the charter's classes"),
        ([], {}, "data.query: gives no rows"),
        (["1,30,Yearly,"], {}, "data.query: gives no rows to train on"),
        (ROWS, {"query": "SELECT agee FROM 'rows.csv'"}, 'data.query: Binder Error: .*"agee" not found'),
        (
            ROWS,
            {"query": "SELECT * FROM 'row.csv'"},
            'data.query: .*No files found that match the pattern "row.csv"',
        ),
        (ROWS, {"query": "SELEC 1"}, 'Parser Error: syntax error at or near "SELEC"'),
        (ROWS, {"query": f"{QUERY}; {QUERY}"}, "data.query: it must be one SELECT"),
        (ROWS, {"query": "DROP TABLE rows"}, "data.query: it must be one SELECT"),
        (ROWS, {"query": "SELECT age, age FROM 'rows.csv'"}, "data.query: two columns are called 'age'"),
        (
            ROWS,
            {"test_query": "SELECT age FROM 'rows.csv'"},
            "data.test_query: the rows have no target column 'left'",
        ),
        (ROWS, {"query": None}, "has no data.query"),
    ],
)
def test_a_node_whose_rows_do_not_fit_says_why(
    tmp_path: Path, rows: list[str], changes: dict[str, object], what: str
) -> None:
    home = make_home(tmp_path, rows, **changes)
    with pytest.raises(DataError, match=what):
        prepare(home)
    assert not (tmp_path / "data").exists()


def test_a_charter_without_a_schema_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="declares no data schema"):
        prepare(make_home(tmp_path, ROWS, schema=None))


def test_the_daemon_prepares_in_a_process_of_its_own(tmp_path: Path) -> None:
    prepare_data(make_home(tmp_path, ROWS))
    assert (tmp_path / "data" / "train.safetensors").is_file()
    with pytest.raises(
        DataError, match=r"^data.query: row 1, column 'plan': 'Weekly' is none of [^\n]*$"
    ) as error:
        prepare_data(make_home(tmp_path, ["1,30,Weekly,No"]))
    assert error.value.exit_code == 2


def test_the_daemon_itself_imports_no_database() -> None:
    script = "import sys, folkmoot.node.daemon; sys.exit('duckdb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == 0


def test_check_shows_counts_missing_values_and_classes(tmp_path: Path) -> None:
    home = make_home(tmp_path, [*ROWS, "60,33,Monthly,"])
    shown = CliRunner().invoke(data_command, ["check", "--home", str(home.path)], catch_exceptions=False)
    for text in ("61 rows", "1 without 'left'", "not in the schema: id", "plan", "20"):
        assert text in shown.output
    as_json = CliRunner().invoke(data_command, ["check", "--home", str(home.path), "--json"])
    summary = msgspec.json.decode(as_json.output, type=Summary)
    assert summary.missing == {"age": 0, "plan": 20}
    assert not (tmp_path / "data").exists()
    broken = make_home(tmp_path, ["1,30,Weekly,No"])
    result = CliRunner().invoke(data_command, ["check", "--home", str(broken.path)])
    assert isinstance(result.exception, DataError)


@pytest.mark.parametrize("name", ["table.db", "sub folder/it's.sqlite"])
def test_sqlite_tables_are_read_without_an_extension(tmp_path: Path, name: str) -> None:
    import sqlite3
    from contextlib import closing

    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE one (a INTEGER, b REAL, c TEXT)")
        database.executemany("INSERT INTO one VALUES (?, ?, ?)", [(1, 2, "x"), (None, 0.5, None)])
    with source.Source(tmp_path) as opened:
        (batch,) = opened.batches(f"SELECT * FROM {source.quote_text(name)}", "query")
    assert batch.columns == {"a": [1, None], "b": [2, 0.5], "c": ["x", None]}
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE two (z)")
    with source.Source(tmp_path) as opened:
        (batch,) = opened.batches(f"SELECT c FROM {source.quote_name(name)}.one WHERE a = 1", "query")
        assert batch.columns == {"c": ["x"]}
        with pytest.raises(DataError, match="query: "):
            list(opened.batches(f"SELECT * FROM {source.quote_text(name)}", "query"))
    path.write_bytes(b"not a database, whatever its name says" * 50)
    with source.Source(tmp_path) as opened, pytest.raises(DataError, match="cannot be read as SQLite"):
        list(opened.batches(f"SELECT * FROM {source.quote_text(name)}", "query"))
