"""Every place where bytes of others come in: seeds, what fuzzing once found, and some changes of either.

`tests/fuzz/run.py` is for hours of this; what it finds lies in `tests/fuzz/findings` and is tried here for ever.
"""

import os
import random
import resource

import fuzzing
import pytest
from fuzzing import FINDINGS, TARGETS, Finding, Target, load
from mutating import mutated

from folkmoot.node.status_file import rss_mb

CHANGES = 150


@pytest.mark.parametrize("name", TARGETS)
def test_good_input_and_former_findings_are_read_or_refused(name: str) -> None:
    target = load(name)
    for data in target.known():
        target.try_input(data)


@pytest.mark.parametrize("name", TARGETS)
def test_changed_input_is_read_or_refused(name: str) -> None:
    target, rng = load(name), random.Random(name)
    known = list(target.known())
    for _ in range(CHANGES):
        data = rng.choice(known)
        for _ in range(rng.randint(1, 3)):
            data = (rng.random() < 0.6 and mutated(data, rng)) or _bytes_changed(data, rng)
        target.try_input(data[: target.max_bytes])


def _bytes_changed(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(rng.randint(0, 4)) + data[at + rng.randint(0, 4) :]


def test_every_finding_belongs_to_a_target() -> None:
    assert {path.parent.name for path in FINDINGS.glob("*/*")} <= set(TARGETS)


def test_an_undocumented_error_and_a_slow_or_greedy_reader_are_findings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fuzzing, "SECONDS", 0.01)
    monkeypatch.setattr(fuzzing, "MEGABYTES", 16)

    def target(read: object) -> Target:
        return Target("made", read, (ValueError,), lambda: [])  # type: ignore[arg-type]

    def spin(data: bytes) -> None:
        sum(range(2_000_000))

    held: list[bytes] = []
    target(int).try_input(b"x")
    with pytest.raises(KeyError):
        target({}.__getitem__).try_input(b"x")
    with pytest.raises(Finding, match="bytes took"):
        target(spin).try_input(b"x")
    peak = int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    now = int(rss_mb(os.getpid()) * 1e6)
    monkeypatch.setattr(fuzzing, "SECONDS", 10)
    with pytest.raises(Finding, match="MB"):
        target(lambda data: held.append(b"x" * (peak - now + (64 << 20)))).try_input(b"x")
