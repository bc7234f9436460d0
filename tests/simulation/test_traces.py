"""A failing run is read by people: what it says, and how its trace is folded."""

import pytest

from folkmoot.protocol.rounds import Rounds
from folkmoot.testnet.simulation.faults import Faults
from folkmoot.testnet.simulation.federation import Simulation, Violation
from folkmoot.testnet.simulation.folding import SHOWN, Folding


def fold(*lines: str) -> list[str]:
    folded: list[str] = []
    folding = Folding(folded.append)
    for line in lines:
        folding.take(line)
    folding.end()
    return [" ".join(line.split()) for line in folded]


def test_what_is_said_in_one_breath_stands_on_one_line() -> None:
    said = [f"1.000  0a  -> 1+2: Commitment 4 of {one}" for one in (0, 1, 2)]
    assert fold(*said, "1.000  0a  -> 1+2: Roster 4.0 of 0") == [
        "1.000 0a -> 1+2: Commitment 4 of 0+1+2; Roster 4.0 of 0"
    ]
    assert len(fold(*said, "1.500  0a  -> 1+2: Hello round=4")) == 2, "another moment"
    assert len(fold(*said, "1.000  0a  -> 1: Hello round=4")) == 2, "to others"


def test_what_something_follows_from_stands_alone() -> None:
    heard = [f"1.00{one}  0a  <- {one}: Vote 4.0 6080519f of {one}" for one in (1, 2, 3)]
    assert fold(*heard, "1.003  0a  journal locked (Lock 4.0 6080519f of 0)") == [
        "1.003 0a <- 1: Vote 4.0 6080519f of 1; 2: Vote 4.0 6080519f of 2 (since 1.001)",
        "1.003 0a <- 3: Vote 4.0 6080519f of 3",
        "1.003 0a journal locked (Lock 4.0 6080519f of 0)",
    ]
    assert fold("1.000  0a  <- 1: Hello round=1", "1.100  1a  timer grace 1.0 in 2.00 s")[0].endswith(
        "in 2.00 s"
    )
    assert fold("1.000  0a  <- 1: Hello round=1", "1.100  0a  <- Trained round=1") == [
        "1.000 0a <- 1: Hello round=1",
        "1.100 0a <- Trained round=1",
    ]


def test_repetitions_are_counted_and_long_lines_are_cut() -> None:
    assert fold(*["1.000  0a  -> 1: Hello round=4"] * 3) == ["1.000 0a -> 1: Hello round=4 (x3)"]
    many = fold(*(f"1.000  0a  -> 1: Vote {one}.0" for one in range(SHOWN + 3)))
    assert len(many) == 1 and many[0].endswith("; and 3 more")


def test_a_broken_rule_is_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Rounds, "sitting_out", property(lambda self: False))
    faults = Faults(until=8.0, ledger=0.2, finality=1, undone=1, restored=(0, 1, 2))
    with pytest.raises(Violation) as caught:
        for seed in range(400):
            Simulation(seed, 4, 6, faults).run(600.0)
    said, _, replay = str(caught.value).partition("\n")
    assert "says two things in one place: " in said and "(they differ in " in said
    assert "b'" not in said and len(said) < 300
    assert replay.startswith("replay: folkmoot simulate --seed ")
