"""Many seeds, on all cores."""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

from folkmoot.testnet.simulation.federation import Simulation, Violation
from folkmoot.testnet.simulation.setting import draw

LIMIT = 3600.0
"""Virtual seconds for a drawn run: faults end after two minutes at most, and time-outs have grown by then."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one seed."""

    seed: int
    rounds: int
    seconds: float
    """Virtual ones."""
    messages: int
    failure: str | None = None


def run_seed(seed: int, long: bool = False) -> Outcome:
    """Run the setting of a seed; whatever goes wrong is in the outcome."""
    setting = draw(seed, long)
    simulation = Simulation.of(setting)
    failure = None
    try:
        simulation.run(LIMIT)
    except Violation as violation:
        failure = str(violation)
    except Exception as error:  # a machine that raises is a finding like any other
        failure = f"{type(error).__name__}: {error}\nreplay: {setting.command}"
    return Outcome(seed, setting.rounds, simulation.now, simulation.delivered, failure)


def run_seeds(seeds: Iterable[int], long: bool = False, jobs: int | None = None) -> Iterator[Outcome]:
    """All of them, in order, `jobs` at a time (default: one for each core)."""
    jobs = jobs or os.cpu_count() or 1
    if jobs == 1:
        yield from (run_seed(seed, long) for seed in seeds)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(partial(run_seed, long=long), seeds, chunksize=5)
