"""What a run is made of, all of it drawn from one seed."""

import random
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from folkmoot.protocol.charter import max_faults, quorum
from folkmoot.protocol.charter_tables import MAX_GROUP, MIN_GROUP, RobustRule
from folkmoot.protocol.types import MemberId
from folkmoot.testnet.simulation.faults import CHANGES, LIES, Faults, format_faults

SECURE_ONLY = ("wrong_sums", "wrong_prints", "bad_shares", "odd_seeds")

REAL_KEYS_EVERY = 50
"""One seed of so many signs with real keys."""

IMPAIRED, UNDONE = 0.12, 0.04
"""How often somebody's disk goes back in time or its budget is spent; how often final blocks are undone."""

AMENDED = 0.12
"""How often the charter changes."""

SIZES = (1, 2, 3, 3, *(4,) * 12, *(5,) * 4, 6, 7, 7)
LONG_SIZES = (*SIZES, 7, 8, 9, 10, 10, 13, 16)
"""Most members a federation may have: most runs are small, for most faults of the rules show among four."""


@dataclass(frozen=True)
class Setting:
    """One federation, how long it runs and what goes wrong."""

    seed: int
    members: int = 4
    rounds: int = 3
    secure: bool = False
    group_size: int = 0
    robust: RobustRule = "none"
    max_ahead: int = 50
    faults: Faults = field(default_factory=Faults)

    @property
    def real_keys(self) -> bool:
        """Whether signatures are real."""
        return self.seed % REAL_KEYS_EVERY == REAL_KEYS_EVERY - 1

    @property
    def may_fork(self) -> bool:
        """Whether more members forget what they signed than may be faulty: then there may be two histories."""
        forgetful = self.faults.doubted if self.faults.undone and self.faults.restored else ()
        return len(forgetful) > max_faults(self.members)

    @property
    def command(self) -> str:
        """What replays the run."""
        for long in (False, True):
            if self == draw(self.seed, long):
                return f"folkmoot simulate --seed {self.seed}" + (" --long" if long else "") + " --trace"
        mode = "secure" if self.secure else "open"
        return (
            f"folkmoot simulate --seed {self.seed} --members {self.members} --rounds {self.rounds} --mode {mode} "
            f"--group-size {self.group_size} --robust {self.robust} --max-ahead {self.max_ahead} "
            f"--faults '{format_faults(self.faults)}' --trace"
        )


def draw(seed: int, long: bool = False) -> Setting:
    """The setting of a seed: size, mode and up to f faulty members, and a few kinds of faults of everything else.

    `long`: more rounds, larger federations, more of everything.
    """
    rng = random.Random(f"setting {seed} {long}")
    members = rng.choice(LONG_SIZES if long else SIZES)
    secure = MIN_GROUP <= members <= MAX_GROUP and rng.random() < (0.4 if members <= 5 else 0.2)
    rounds = rng.randint(3, 12) if long else rng.randint(2, 4)
    max_ahead = rng.choice((1, 2, 50, 50))
    changes = _draw_changes(rng, 3 if long else 2) if rng.random() < AMENDED else {}
    if changes:  # they take `max_ahead` rounds and more to come into force
        rounds, max_ahead = rounds + 3, rng.choice((1, 1, 2, 3))
    return Setting(
        seed=seed,
        members=members,
        rounds=rounds,
        secure=secure,
        max_ahead=max_ahead,
        faults=_draw_faults(rng, members, rounds, secure, changes),
    )


def _draw_changes(rng: random.Random, most: int) -> dict[str, Any]:
    """So many of each kind."""
    chosen = (rng.choice(CHANGES) for _ in range(rng.randint(1, most)))
    return dict(Counter(chosen))


def _draw_faults(
    rng: random.Random, members: int, rounds: int, secure: bool, changes: dict[str, Any]
) -> Faults:
    def sometimes(chance: float, value: float) -> float:
        return value if rng.random() < chance else 0

    def several(chance: float, most: int) -> int:
        return rng.randint(1, most) if rng.random() < chance else 0

    lost = rng.sample(range(members), rng.randint(0, max_faults(members)))
    lies, dead = _draw_lies(rng, lost, secure)
    finality = rng.choice((0, 0, 1, 3))
    faults = Faults(
        until=round(rounds * rng.uniform(3.0, 10.0), 1),
        loss=sometimes(0.4, rng.choice((0.02, 0.1, 0.2))),
        duplicate=sometimes(0.3, 0.2),
        replay=sometimes(0.2, 0.1),
        latency=(0.005, rng.choice((*(0.02, 0.1, 0.3, 1.0) * 5, 6.0))),
        bandwidth=sometimes(0.2, rng.choice((20_000.0, 200_000.0))),
        crossing=sometimes(0.1, 60.0),
        partitions=several(0.25, 3),
        crashes=several(0.4, 5),
        broken_off=several(0.4, 6),
        freezes=several(0.25, 3),
        fit_failure=sometimes(0.2, 0.2),
        slow=tuple(rng.sample(range(members), 1)) if rng.random() < 0.15 else (),
        skew=sometimes(0.3, 0.1),
        dead=tuple(dead),
        ledger=rng.choice((0.2, 1.0, 5.0)),
        finality=finality,
        reorgs=several(0.5, 3) if finality else 0,
        outages=several(0.25, 3),
        coordinated=len(lost) > 1 and rng.random() < 0.7,
        **changes,
        **lies,
    )
    return (_draw_joiners if changes else _draw_disks)(rng, members, secure, faults)


def _draw_joiners(rng: random.Random, members: int, secure: bool, faults: Faults) -> Faults:
    """Who joins may lie from its first word on, and is one of those that may fail."""
    if not faults.joins or len(faults.lost) >= max_faults(members) or rng.random() < 0.5:
        return faults
    lies, _ = _draw_lies(rng, [members], secure)
    told: dict[str, Any] = {lie: (*getattr(faults, lie), *liars) for lie, liars in lies.items()}
    return replace(faults, **told)


def _draw_disks(rng: random.Random, members: int, secure: bool, faults: Faults) -> Faults:
    """Rarely somebody's disk, or the chain, goes back in time. Who is out for that is one of those that may fail."""
    chance, others = rng.random(), sorted(set(range(members)) - faults.lost)
    if chance < IMPAIRED and len(faults.lost) < max_faults(members):
        return replace(faults, **{rng.choice(("emptied", "outdated", "spent")): (rng.choice(others),)})  # type: ignore[arg-type]
    if IMPAIRED <= chance < IMPAIRED + UNDONE:
        faults = replace(faults, undone=1, finality=rng.choice((1, 3)))
        if rng.random() < 0.6:
            nobody: dict[str, Any] = dict.fromkeys(("dead", *LIES), ())
            several = rng.randint(quorum(members), max(members - 1, quorum(members)))
            restored = tuple(sorted(rng.sample(range(members), several)))
            return replace(faults, restored=restored, coordinated=False, **nobody)
    return faults


def _draw_lies(
    rng: random.Random, lost: list[MemberId], secure: bool
) -> tuple[dict[str, Any], list[MemberId]]:
    """Some of those that may fail only die; the others tell one lie or several."""
    possible = [lie for lie in LIES if secure or lie not in SECURE_ONLY]
    lies: dict[str, tuple[MemberId, ...]] = {}
    dead = []
    for member in lost:
        if rng.random() < 0.25:
            dead.append(member)
            continue
        for lie in rng.sample(possible, rng.choice((1, 1, 1, 2, 3))):
            lies[lie] = (*lies.get(lie, ()), member)
    return lies, dead
