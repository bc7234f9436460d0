"""Two thousand federations, all of it drawn from the seed: size, mode, faults, liars. Every rule holds in each of them.

`Simulation` raises if a rule is broken: a round opened twice, something said that the journal lacks, somebody honest
accused, a secret given away, a height that is never recorded, models, ledger, disks or archives that disagree.
"""

from collections import Counter
from dataclasses import fields

import pytest
from click.testing import CliRunner

from folkmoot.protocol.charter import max_faults
from folkmoot.testnet.simulation.batch import run_seed
from folkmoot.testnet.simulation.cli import simulate
from folkmoot.testnet.simulation.faults import LIES, Faults
from folkmoot.testnet.simulation.setting import draw

SEEDS = 2_000
SLICE = 25
"""Seeds of one test, so that they spread over the machine's cores."""


@pytest.mark.parametrize("first", range(0, SEEDS, SLICE))
def test_every_rule_holds_in_every_federation(first: int) -> None:
    for seed in range(first, first + SLICE):
        outcome = run_seed(seed)
        assert outcome.failure is None, outcome.failure


@pytest.mark.nightly
@pytest.mark.parametrize("first", range(0, 10_000, SLICE))
def test_and_in_larger_and_longer_ones(first: int) -> None:
    for seed in range(first, first + SLICE):
        outcome = run_seed(seed, long=True)
        assert outcome.failure is None, outcome.failure


def test_everything_is_drawn() -> None:
    """Each kind of fault and lie, alone and with others, in both modes; never more than f that cannot be counted on."""
    settings = [draw(seed) for seed in range(SEEDS)]
    for one in settings:
        assert len(one.faults.lost) <= max_faults(one.members)
    drawn = Counter(
        (field.name, one.secure)
        for one in settings
        for field in fields(Faults)
        if getattr(one.faults, field.name) != field.default
    )
    for field in fields(Faults):
        assert drawn[field.name, True] >= 5, field.name
        if field.name not in ("wrong_sums", "wrong_prints", "bad_shares", "odd_seeds"):
            assert drawn[field.name, False] >= 15, field.name
    assert sum(len(one.faults.liars) > 1 and one.faults.coordinated for one in settings) >= 10
    assert sum(any(getattr(one.faults, lie) for lie in LIES) for one in settings) >= SEEDS / 4


def test_many_seeds_at_once() -> None:
    result = CliRunner().invoke(simulate, ["--seed", "5", "--count", "3", "--jobs", "2"])
    assert result.exit_code == 0, result.output
    assert result.output.startswith("3 runs, 0 failed: ")


def test_a_trace_can_be_read() -> None:
    result = CliRunner().invoke(simulate, ["--seed", "3", "--members", "4", "--trace"])
    assert result.exit_code == 0, result.output
    for words in ("<- 1: Vote 1.0 ", "-> ", "journal voted", "ROUND 1 DONE, model ", "timer attempt 1.0 in "):
        assert words in result.output, words
    assert result.output.splitlines()[-1].startswith("every rule held")
