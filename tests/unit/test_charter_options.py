"""Options of a charter that do not go together are refused, with the reason."""

import msgspec
import pytest
from audited_federation import AuditedFederation

from folkmoot.protocol.charter import Charter
from folkmoot.protocol.charter_options import check_options, describe_learning
from folkmoot.protocol.errors import CharterError


def changed(**tables: dict[str, object]) -> Charter:
    charter = AuditedFederation().charter
    parts = {name: msgspec.structs.replace(getattr(charter, name), **table) for name, table in tables.items()}
    return msgspec.structs.replace(charter, **parts)


@pytest.mark.parametrize(
    ("tables", "text"),
    [
        ({"averaging": {"robust": "nnm", "mode": "secure"}}, "robust rules compare single updates"),
        ({"averaging": {"robust": "nnm"}, "training": {"correction": "feddyn"}}, "feddyn"),
        ({"averaging": {"robust": "nnm"}, "training": {"correction": "scaffold"}}, "scaffold"),
        ({"averaging": {"robust": "nnm", "faults": 2}}, "half of them or more"),
    ],
)
def test_what_does_not_combine_is_refused(tables: dict[str, dict[str, object]], text: str) -> None:
    with pytest.raises(CharterError, match=text):
        check_options(changed(**tables), "charter.toml")


def test_a_robust_rule_is_told_in_words() -> None:
    (line,) = [
        line for line in describe_learning(changed(averaging={"robust": "trimmed-mean"})) if "trimmed" in line
    ]
    assert "the 1 smallest and largest are left out" in line
