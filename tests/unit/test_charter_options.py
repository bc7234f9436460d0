"""Options of a charter that do not go together are refused, with the reason."""

import msgspec
import pytest
from audited_federation import AuditedFederation
from masked_federation import MaskedFederation

from folkmoot.protocol.charter import Charter
from folkmoot.protocol.charter_options import check_options, describe_learning
from folkmoot.protocol.charter_tables import Averaging
from folkmoot.protocol.errors import CharterError


def changed(**tables: dict[str, object]) -> Charter:
    charter = AuditedFederation().charter
    parts = {name: msgspec.structs.replace(getattr(charter, name), **table) for name, table in tables.items()}
    return msgspec.structs.replace(charter, **parts)


@pytest.mark.parametrize(
    ("tables", "text"),
    [
        (
            {"averaging": {"robust": "nnm", "mode": "secure"}},
            "compares the means of groups, of which there are 1",
        ),
        ({"averaging": {"robust": "nnm"}, "training": {"correction": "feddyn"}}, "feddyn"),
        ({"averaging": {"robust": "nnm"}, "training": {"correction": "scaffold"}}, "scaffold"),
        ({"averaging": {"robust": "nnm", "faults": 2}}, "half of them or more"),
    ],
)
def test_what_does_not_combine_is_refused(tables: dict[str, dict[str, object]], text: str) -> None:
    with pytest.raises(CharterError, match=text):
        check_options(changed(**tables), "charter.toml")


def test_across_groups_it_is_told_that_everybody_sees_their_means() -> None:
    names = tuple(f"member-{number}" for number in range(12))
    made = MaskedFederation(names=names, group_size=3, averaging=Averaging(mode="secure", robust="nnm"))
    check_options(made.charter, "charter.toml")
    (line,) = [line for line in describe_learning(made.charter) if "nnm" in line]
    assert "the 1 smallest and largest go" in line  # of four groups, though f is 3
    assert "means of 4 groups" in line and "hidden among 3 and not among 12" in line


def test_a_robust_rule_is_told_in_words() -> None:
    (line,) = [
        line for line in describe_learning(changed(averaging={"robust": "trimmed-mean"})) if "trimmed" in line
    ]
    assert "the 1 smallest and largest are left out" in line
