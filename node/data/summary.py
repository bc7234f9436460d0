"""What a member's prepared rows come to: for the operator's eyes, and in HOME/data/summary.json."""

import msgspec


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """The rows to train on, or those held out. `classes` counts rows by class; a regression's is empty."""

    rows: int
    classes: dict[str, int]


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What the rows of data.query hold. `rows` counts them all, `without_target` those that are of no use; `train` and
    `test` count what is trained on and held out, be it by the holdout or by data.test_query.

    `missing` has every column of the schema, also those that are not there (`absent`). `ignored` are columns that the
    schema does not name; `warnings` what an operator should look at.
    """

    task: str
    target: str
    features: int
    train: Part
    test: Part
    rows: int
    without_target: int
    missing: dict[str, int]
    absent: tuple[str, ...]
    ignored: tuple[str, ...]
    warnings: tuple[str, ...]
