"""Seeded schedules: whatever is lost, repeated, late, cut off, broken off or told two ways, every rule holds.

`Simulation` raises `Violation` if a round is opened twice, if an honest node says what its journal lacks, says two
things, blames or holds evidence against an honest one, or if the federation does not finish. The message ends with the
command that replays the run.
"""

import shlex
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from click.testing import CliRunner

from folkmoot.protocol.messages import Commitment, Roster
from folkmoot.testnet.simulation.cli import simulate
from folkmoot.testnet.simulation.faults import Faults, format_faults, parse_faults
from folkmoot.testnet.simulation.federation import Simulation, Violation

LIMIT = 1200.0
"""Virtual seconds: faults end after 60, and time-outs have grown by then."""


@dataclass(frozen=True)
class Family:
    name: str
    members: int
    seeds: int
    faults: Callable[[int], Faults]
    max_ahead: int = 50


SLOW = (0.005, 1.0)
USUAL = (0.005, 0.3)

FAMILIES = [
    Family("plain", 4, 10, lambda seed: Faults()),
    Family("one-member", 1, 20, lambda seed: Faults(crashes=3, broken_off=3)),
    Family("losses", 4, 40, lambda seed: Faults(loss=0.2, duplicate=0.2, latency=SLOW)),
    Family("crashes", 4, 30, lambda seed: Faults(loss=0.05, duplicate=0.1, latency=USUAL, crashes=5)),
    Family("broken-off", 4, 60, lambda seed: Faults(until=30, loss=0.05, latency=USUAL, broken_off=10)),
    Family("partitions", 4, 30, lambda seed: Faults(latency=USUAL, partitions=4, fit_failure=0.2)),
    Family("two-faced", 4, 40, lambda seed: Faults(loss=0.05, latency=USUAL, two_faced=(seed % 4,))),
    Family("dead", 4, 40, lambda seed: Faults(loss=0.1, latency=(0.005, 0.5), dead=(seed % 4,))),
    Family(
        "liar-goes-silent",
        4,
        40,
        lambda seed: Faults(loss=0.1, latency=(0.005, 0.5), two_faced=(seed % 4,), dead=(seed % 4,)),
    ),
    Family("slow-ledger", 4, 10, lambda seed: Faults(loss=0.1, crashes=2, ledger=7.0), max_ahead=1),
    Family("three", 3, 30, lambda seed: Faults(loss=0.05, latency=USUAL, crashes=4, broken_off=3)),
    Family(
        "five",
        5,
        20,
        lambda seed: Faults(loss=0.1, latency=USUAL, crashes=3, broken_off=3, partitions=2),
    ),
    Family("seven", 7, 8, lambda seed: Faults(loss=0.05, latency=USUAL, crashes=4, two_faced=(seed % 7,))),
    Family(
        "seven-two-faults",
        7,
        8,
        lambda seed: Faults(loss=0.05, latency=USUAL, dead=(seed % 7,), two_faced=((seed + 1) % 7,)),
    ),
    Family("seven-two-liars", 7, 6, lambda seed: Faults(latency=USUAL, two_faced=(seed % 7, (seed + 3) % 7))),
]


def run_family(family: Family, seed: int) -> Simulation:
    simulation = Simulation(seed, family.members, 3, family.faults(seed), family.max_ahead)
    simulation.run(LIMIT)
    return simulation


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: str(family.name))
def test_every_rule_holds_in_every_schedule(family: Family) -> None:
    for seed in range(family.seeds):
        run_family(family, seed)


def test_a_two_faced_member_is_convicted_in_most_runs() -> None:
    """That nobody else ever is, the simulation itself holds."""
    convicted, kinds = 0, set()
    for seed in range(24):
        simulation = Simulation(seed, faults=Faults(loss=0.05, latency=USUAL, two_faced=(seed % 4,)))
        simulation.run(LIMIT)
        evidence = [held for node in simulation.honest for held in node.evidence]
        assert {held.member for held in evidence} <= {seed % 4}
        convicted += bool(evidence)
        kinds |= {type(held.evidence.first.body) for held in evidence}
    assert convicted >= 14  # in a quarter of the runs all the honest see the same face
    assert kinds >= {Roster, Commitment}


def test_a_run_is_a_function_of_its_seed() -> None:
    faults = Faults(loss=0.1, crashes=2, broken_off=2, partitions=1, two_faced=(1,))
    traces: list[list[str]] = [[], []]
    for trace in traces:
        Simulation(7, faults=faults, trace=trace.append).run(LIMIT)
    assert traces[0] == traces[1] and len(traces[0]) > 100


def test_faults_are_written_as_they_are_read() -> None:
    faults = Faults(
        until=30, loss=0.1, latency=SLOW, crashes=2, two_faced=(0, 3), ledger=7.5, coordinated=True
    )
    assert parse_faults(format_faults(faults)) == faults
    assert parse_faults("") == Faults()


def test_a_failing_seed_says_how_to_replay_it() -> None:
    simulation = Simulation(3, 5, 2, Faults(loss=0.25, two_faced=(1,)))
    with pytest.raises(Violation) as caught:
        simulation.run(limit=0.5)
    command = str(caught.value).partition("replay: ")[2]
    assert command.startswith("folkmoot simulate --seed 3 --members 5 ") and command.endswith(" --trace")
    result = CliRunner().invoke(simulate, shlex.split(command)[2:])
    assert result.exit_code == 0, result.output
    assert "every rule held: 2 rounds in" in result.output


def test_the_command_refuses_unknown_faults() -> None:
    result = CliRunner().invoke(simulate, ["--members", "4", "--faults", "lsos=0.1"])
    assert result.exit_code != 0


@pytest.mark.parametrize("secure", [False, True])
def test_rounds_go_on_without_members_whose_budget_is_spent(secure: bool) -> None:
    for seed in range(3):
        faults = Faults(loss=0.1, latency=USUAL, crashes=2, spent=(seed,))
        Simulation(seed, 4, 5, faults, secure=secure).run(LIMIT)
