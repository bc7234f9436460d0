"""Rows become numbers by what the charter declares, or the first value that does not fit is named."""

from decimal import Decimal

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot.protocol.errors import CharterError
from folkmoot.protocol.rows import encode, encode_inputs
from folkmoot.protocol.schema import Column, DataError, Schema, check_schema
from folkmoot.protocol.toml import ConfigError, decode_toml

AGE = Column(name="age", kind="number", center="40", scale="10")
PLAN = Column(name="plan", kind="category", categories=("No", "Yes", "No phone"))


def schema(*columns: Column, **changes: object) -> Schema:
    terms = Schema(task="binary", target="left", classes=("No", "Yes"), columns=columns or (AGE,))
    return msgspec.structs.replace(terms, **changes)


def changed(column: Column, **changes: object) -> Column:
    return msgspec.structs.replace(column, **changes)


def inputs(column: Column, values: list[object]) -> list[list[float]]:
    x, _ = encode_inputs(schema(column), {column.name: values})
    assert x.dtype == np.float32
    return [[float(value) for value in row] for row in x]


def test_numbers_are_centered_and_scaled() -> None:
    assert inputs(AGE, [50, 40.0, "35", Decimal("41.5"), " 60 "]) == [
        [1],
        [0],
        [-0.5],
        [np.float32(0.15)],
        [2],
    ]


def test_a_category_takes_one_place_for_each_value() -> None:
    assert inputs(PLAN, ["Yes", "No", " No phone "]) == [[0, 1, 0], [1, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize("value", [True, "Yes"])
def test_a_boolean_is_the_only_category_of_that_meaning(value: object) -> None:
    assert inputs(PLAN, [value]) == [[0, 1, 0]]


@pytest.mark.parametrize("value", [4, 4.0, "4", "4.0", Decimal("4.00")])
def test_a_number_is_the_only_category_of_that_meaning(value: object) -> None:
    assert inputs(Column(name="cp", kind="category", categories=("1", "4")), [value]) == [[0, 1]]


def test_true_is_not_the_category_one() -> None:
    with pytest.raises(DataError, match="row 2, column 'cp': True is none of the charter's categories"):
        inputs(Column(name="cp", kind="category", categories=("1", "4")), [1, True])


def test_categories_that_mean_the_same_number_are_told_apart_by_their_text() -> None:
    codes = Column(name="code", kind="category", categories=("1", "01"))
    assert inputs(codes, ["01", "1"]) == [[0, 1], [1, 0]]
    with pytest.raises(DataError):
        inputs(codes, [1])


@pytest.mark.parametrize("blank", [None, "", "  ", "?", "na", "N/A", "null", float("nan")])
def test_missing_values_are_filled_and_indicated(blank: object) -> None:
    assert inputs(changed(AGE, missing="fill"), [blank]) == [[0]]
    assert inputs(changed(AGE, missing="indicate"), [blank, 50]) == [[0, 1], [1, 0]]
    assert inputs(changed(PLAN, missing="fill"), [blank]) == [[0, 0, 0]]
    assert inputs(changed(PLAN, missing="indicate", other=True), [blank]) == [[0, 0, 0, 0, 1]]
    for column in (AGE, PLAN):
        with pytest.raises(DataError, match=r"row 1, column '.*': no value, and the charter allows none"):
            inputs(column, [blank])


def test_a_blank_that_is_a_declared_category_is_one() -> None:
    assert inputs(Column(name="alley", kind="category", categories=("NA", "Paved")), ["NA"]) == [[1, 0]]


def test_unknown_values_have_a_place_only_where_one_is_declared() -> None:
    assert inputs(changed(PLAN, other=True), ["Weekly", "No"]) == [[0, 0, 0, 1], [1, 0, 0, 0]]
    with pytest.raises(DataError, match=r"row 2, column 'plan': 'Weekly' is none of .*\(No, Yes, No phone\)"):
        inputs(PLAN, ["No", "Weekly"])


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("abc", "'abc' is not a number"),
        ([1], r"\[1\] is not a number"),
        ("inf", "too large"),
        (1e300, "too large"),
    ],
)
def test_a_number_that_is_none_is_named(value: object, what: str) -> None:
    with pytest.raises(DataError, match=f"row 1002, column 'age': .*{what}"):
        encode(schema(), {"age": [1, value], "left": ["No", "No"]}, first_row=1001)


def test_a_column_that_is_not_there_is_missing_in_every_row() -> None:
    x, missing = encode_inputs(schema(AGE, changed(PLAN, missing="fill")), {"age": [40, 50]})
    assert x.tolist() == [[0, 0, 0, 0], [1, 0, 0, 0]]
    assert missing == {"age": 0, "plan": 2}
    with pytest.raises(DataError, match=r"no column 'plan'.*is it 'Plan'"):
        encode_inputs(schema(AGE, PLAN), {"age": [40], "Plan": ["No"]})


def test_rows_without_a_target_are_left_out_and_counted() -> None:
    encoded = encode(schema(), {"age": [40, 50, 60], "left": [False, None, "Yes"]})
    assert encoded.x.tolist() == [[0], [2]]
    assert encoded.y.tolist() == [0, 1] and encoded.y.dtype == np.int64
    assert encoded.without_target == 1


def test_a_class_that_the_charter_does_not_know_is_named() -> None:
    with pytest.raises(DataError, match="row 1, column 'left': 'Maybe' is none of the charter's classes"):
        encode(schema(), {"age": [40], "left": ["Maybe"]})
    with pytest.raises(DataError, match="no target column 'left'; is it 'Left'"):
        encode(schema(), {"age": [40], "Left": ["No"]})


def test_the_target_of_a_regression_is_scaled() -> None:
    terms = schema(task="regression", classes=(), center="100", scale="20")
    encoded = encode(terms, {"age": [40, 40], "left": ["120", 90]})
    assert encoded.y.dtype == np.float32
    assert encoded.y.tolist() == [1, -0.5]
    assert (terms.outputs, schema().outputs) == (1, 2)


@given(st.lists(st.sampled_from([None, "Yes", "No", "No phone", True, "?"])), st.integers(0, 20))
def test_batches_give_what_all_rows_give(values: list[object], cut: int) -> None:
    terms = schema(changed(PLAN, missing="indicate"))
    whole, _ = encode_inputs(terms, {"plan": values})
    parts = [encode_inputs(terms, {"plan": part})[0] for part in (values[:cut], values[cut:])]
    assert np.array_equal(np.concatenate(parts), whole)
    assert (whole.sum(axis=1) == 1).all()


@pytest.mark.parametrize(
    ("terms", "what"),
    [
        (schema(AGE, AGE), "name each column once"),
        (schema(changed(AGE, name="left")), "cannot be an input"),
        (schema(classes=("No",)), "binary task has two"),
        (schema(task="regression"), "regression task has no"),
        (schema(changed(AGE, scale="0")), "above 0"),
        (schema(changed(AGE, categories=("a",))), "number has no categories"),
        (schema(changed(PLAN, categories=())), "declare its categories"),
        (schema(changed(PLAN, categories=("a", "a"))), "declared twice"),
        (schema(changed(PLAN, scale="2")), "no center or scale"),
        (schema(task="regression", classes=(), scale="-1"), "above 0"),
    ],
)
def test_a_schema_that_contradicts_itself_is_refused(terms: Schema, what: str) -> None:
    with pytest.raises(CharterError, match=what):
        check_schema(terms)
    check_schema(schema(AGE, PLAN))


def test_a_mistyped_key_of_a_column_is_explained() -> None:
    text = 'task = "regression"\ntarget = "y"\n[[columns]]\nname = "a"\nkind = "number"\ncentre = "1"'
    with pytest.raises(ConfigError, match=r"unknown key 'columns\[0\].centre'; did you mean 'center'"):
        decode_toml(text, Schema, "charter.toml")
