"""A wrong value is answered with what may stand in its place."""

import pytest

from folkmoot.node.charter_draft import build_charter, parse_assignments
from folkmoot.protocol.allowed import describe_allowed
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.toml import ConfigError


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("secrecy.ring", "one of 8, 16, 32"),
        ("averaging.error_feedback", "true or false"),
        ("averaging.exponent_min", "a whole number from -126 to 127"),
        ("schedule.rounds", "a whole number of at least 1"),
        ("schedule.attempt_min", "a number from 0 to 86400"),
        ("training.lr", 'a decimal not below 0, such as "0.05"'),
        ("members[2].name", "up to 32 small letters, digits and dashes, with no dash first"),
        ("model.layers", "a list of at least 2, each a whole number of at least 1"),
        ("data.task", "one of binary, multiclass, regression"),
        ("training", "a table of epochs, steps, batch, "),
        ("nothing.here", ""),
        ("name.deeper", ""),
    ],
)
def test_what_may_stand_in_a_place(path: str, allowed: str) -> None:
    assert describe_allowed(Charter, path).startswith(allowed)
    assert bool(describe_allowed(Charter, path)) is bool(allowed)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("averaging.codec=int5", "'averaging.codec': must be one of bf16, f32, int2, .*, not \"int5\"$"),
        ("training.lr=fast", "'training.lr': must be a decimal .*, not \"fast\"$"),
        ("training.learning_rate=1", "unknown key 'training.learning_rate'; known keys here: alpha, batch"),
    ],
)
def test_a_term_on_the_command_line_that_cannot_be(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_charter((), 1, {"name": "trial", **parse_assignments([assignment])})
