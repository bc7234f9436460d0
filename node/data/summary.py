"""What a member's prepared rows come to: for the operator's eyes, and in HOME/data/summary.json."""

import msgspec


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """The rows to train on, or those held out. `classes` counts rows by class; a regression's is empty."""

    rows: int
    classes: dict[str, int]


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """Counts over all rows that were read. `missing` has every column of the schema, also those that are not there.

    `ignored` are columns that the schema does not name; `warnings` what an operator should look at.
    """

    task: str
    target: str
    features: int
    train: Part
    test: Part
    without_target: int
    missing: dict[str, int]
    absent: tuple[str, ...]
    ignored: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def rows(self) -> int:
        """All rows that were read."""
        return self.train.rows + self.test.rows + self.without_target
