"""`folkmoot predict`: rows of a file in, the same rows with predictions out, or the first difference to the schema."""

import csv
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from click.testing import CliRunner

from folkmoot.node.cli.model import predict
from folkmoot.node.data.source import Source, quote_text
from folkmoot.node.model_file import ModelCard, write_model
from folkmoot.node.train import models
from folkmoot.node.train.custom import CustomSource
from folkmoot.node.train.source import source_digest
from folkmoot.protocol.blob import ref_of
from folkmoot.protocol.charter_tables import Model
from folkmoot.protocol.errors import FolkmootError
from folkmoot.protocol.schema import Column, Schema

COLUMNS = (
    Column(name="age", kind="number", center="40", scale="10"),
    Column(name="plan", kind="category", categories=("basic", "gold"), missing="fill"),
)
CHURN = Schema(task="binary", target="churn", classes=("No", "Yes"), columns=COLUMNS)
PRICE = Schema(task="regression", target="price", columns=COLUMNS, center="200", scale="100")
ROWS = "id,age,plan,churn\n7,50,gold,\n3,30,,Yes\n9,40,basic,No\n"


def exported(folder: Path, data: Schema | None, layers: tuple[int, ...], **terms: str) -> Path:
    """A model file whose weights are 1, 2, 3, ... tenths."""
    source = CustomSource(terms["source"], folder / "acme.py") if terms else None
    kind = "custom" if terms else "logistic"
    layout = models.layout(models.build(kind, layers, source))
    vector = np.arange(1, sum(tensor.size for tensor in layout) + 1, dtype=np.float32) / 10
    model = Model(kind=kind, layers=layers, initial="0" * 64, tensors=layout, **terms)
    digest = ref_of(vector.tobytes()).root.hex()
    card = ModelCard(
        name="acme",
        federation="ab" * 32,
        charter="cd" * 32,
        round=4,
        model=digest,
        statement="ef" * 32,
        architecture=model,
        data=data,
    )
    path = folder / "model.safetensors"
    write_model(path, card, vector)
    return path


def predicted(folder: Path, data: Path, out: str = "out.parquet", *words: str) -> list[dict[str, str]]:
    done = CliRunner().invoke(
        predict,
        [
            "--model",
            str(folder / "model.safetensors"),
            "--data",
            str(data),
            "--out",
            str(folder / out),
            *words,
        ],
    )
    if done.exception:
        raise done.exception
    with Source(folder) as source:
        rows = f"SELECT * FROM {quote_text(str(folder / out))}"
        names = list(source.types(quote_text(str(folder / out))))
        return [dict(zip(names, row, strict=True)) for row in source.ask(rows)]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    path.write_text(ROWS)
    return path


def test_classes_come_by_name_with_their_chances_beside_the_rows(tmp_path: Path, rows: Path) -> None:
    exported(tmp_path, CHURN, (3, 2))
    found = predicted(tmp_path, rows)
    assert [row["id"] for row in found] == ["7", "3", "9"]
    # Inputs are (age - 40) / 10, is basic, is gold; the weights of No are .1 .2 .3 +.7, of Yes .4 .5 .6 +.8.
    no, yes = 0.1 * 1 + 0.3 + 0.7, 0.4 * 1 + 0.6 + 0.8
    assert found[0]["prediction"] == "Yes"
    assert found[0]["probability_Yes"] == pytest.approx(1 / (1 + np.exp(no - yes)), rel=1e-6)
    assert [row["probability_Yes"] + row["probability_No"] for row in found] == pytest.approx([1, 1, 1])
    assert [row["prediction"] for row in found] == ["Yes", "No", "Yes"]


def test_one_output_gives_both_chances(tmp_path: Path, rows: Path) -> None:
    exported(tmp_path, CHURN, (3, 1))
    found = predicted(tmp_path, rows)
    assert found[2]["probability_Yes"] == pytest.approx(1 / (1 + np.exp(-0.6)), rel=1e-6)
    assert found[2]["prediction"] == "Yes"


def test_a_regression_predicts_in_the_targets_own_units(tmp_path: Path, rows: Path) -> None:
    exported(tmp_path, PRICE, (3, 1))
    found = predicted(tmp_path, rows)
    assert [row["prediction"] for row in found] == pytest.approx([280, 230, 260], rel=1e-6)
    assert "probability" not in " ".join(found[0])


def test_a_model_without_schema_takes_encoded_rows(tmp_path: Path, rows: Path) -> None:
    exported(tmp_path, None, (3, 2))
    data = tmp_path / "x.safetensors"
    safetensors.numpy.save_file({"x": np.eye(3, dtype=np.float32)}, data)
    found = predicted(tmp_path, data)
    assert [row["prediction"] for row in found] == ["1", "1", "1"]
    assert set(found[0]) == {"prediction", "probability_0", "probability_1"}
    with pytest.raises(FolkmootError, match="takes a safetensors file with x"):
        predicted(tmp_path, rows)
    safetensors.numpy.save_file({"x": np.eye(4, dtype=np.float32)}, data)
    with pytest.raises(
        FolkmootError, match=r"holds x float32 \[4, 4\]; the model takes x float32 \[rows, 3\]"
    ):
        predicted(tmp_path, data)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("price,town\n1,Bern\n", "none of the model's columns is there: it has price, town, the model was"),
        ("plan\ngold\n", "no column 'age'"),
        ("age,plan\nold,gold\n", "row 1, column 'age': 'old' is not a number"),
        (
            "age,plan\n50,gold\n51,silver\n",
            "row 2, column 'plan': 'silver' is none of the charter's categories",
        ),
        ("age,plan,prediction\n50,gold,x\n", "has a column 'prediction' already"),
        ("age,plan\n", "no rows"),
    ],
)
def test_a_file_of_another_schema_is_refused_at_the_first_difference(
    tmp_path: Path, rows: Path, text: str, message: str
) -> None:
    exported(tmp_path, CHURN, (3, 2))
    rows.write_text(text)
    with pytest.raises(FolkmootError, match=message):
        predicted(tmp_path, rows)
    assert not (tmp_path / "out.parquet").exists()


def test_a_column_that_may_be_missing_is_told(tmp_path: Path, rows: Path) -> None:
    exported(tmp_path, CHURN, (3, 2))
    rows.write_text("age\n50\n")
    words = [
        "--model",
        str(tmp_path / "model.safetensors"),
        "--data",
        str(rows),
        "--out",
        str(tmp_path / "o.csv"),
    ]
    done = CliRunner().invoke(predict, words)
    assert "column 'plan' is not in" in done.output
    assert "1 rows, prediction, probability_No, probability_Yes" in done.output


def test_another_kind_of_output_is_refused(tmp_path: Path, rows: Path) -> None:
    exported(tmp_path, CHURN, (3, 2))
    with pytest.raises(FolkmootError, match=r"give a name that ends in \.csv or \.parquet"):
        predicted(tmp_path, rows, "out.xlsx")


def test_a_custom_model_needs_the_source_that_it_was_trained_with(tmp_path: Path, rows: Path) -> None:
    source = tmp_path / "acme.py"
    source.write_text(
        "from torch import nn\ndef build(features, outputs):\n    return nn.Linear(features, outputs)\n"
    )
    exported(tmp_path, CHURN, (3, 2), source="acme:build", source_digest=source_digest(source))
    assert len(predicted(tmp_path, rows, "out.parquet", "--source", str(tmp_path))) == 3
    source.write_text(source.read_text() + "\n")
    with pytest.raises(FolkmootError, match="not the source of the charter's model 'acme:build'"):
        predicted(tmp_path, rows, "out.parquet", "--source", str(tmp_path))


def test_predictions_are_the_modules_own(tmp_path: Path) -> None:
    exported(tmp_path, None, (3, 2))
    x = np.random.default_rng(0).standard_normal((3000, 3)).astype(np.float32)
    data = tmp_path / "x.safetensors"
    safetensors.numpy.save_file({"x": x}, data)
    module = models.build("logistic", (3, 2))
    models.load_vector(module, np.arange(1, 9, dtype=np.float32) / 10)
    with torch.no_grad():
        chances = torch.softmax(module(torch.from_numpy(x)), dim=1)[:, 1].numpy()
    found = predicted(tmp_path, data, "out.parquet")
    assert [row["probability_1"] for row in found] == pytest.approx(chances.tolist(), rel=1e-5)


def test_csv_in_is_csv_out_word_for_word(tmp_path: Path, rows: Path) -> None:
    exported(tmp_path, CHURN, (3, 2))
    predicted(tmp_path, rows, "out.csv")
    with rows.open() as before, (tmp_path / "out.csv").open() as after:
        given, made = list(csv.DictReader(before)), list(csv.DictReader(after))
    assert [{name: row[name] for name in given[0]} for row in made] == given
    assert list(made[0]) == ["id", "age", "plan", "churn", "prediction", "probability_No", "probability_Yes"]
    assert [row["prediction"] for row in made] == ["Yes", "No", "Yes"]
