"""What `testnet chaos` will do and when, drawn from a seed before anything is done."""

import random
from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias

import msgspec

Kind: TypeAlias = Literal["kill", "pause", "cut", "silence", "slow"]

DIRECT: tuple[Kind, ...] = ("kill", "pause")
SHAPED: tuple[Kind, ...] = ("kill", "pause", "cut", "silence", "slow")

HOLD_SECONDS = (3.0, 15.0)
QUIET_SECONDS = (3.0, 10.0)
DELAY_SECONDS = (0.02, 0.2)
RATE = (1.25e6, 12.5e6)
"""Bytes a second: 10 to 100 Mbit/s."""


class Disturbance(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong for a while. `at` counts seconds from the beginning.

    `nodes`: who is killed, frozen or slow, or one side of a partition. `delay` (seconds) and `rate` (bytes a second)
    are a slow line's.
    """

    at: float
    seconds: float
    kind: Kind
    nodes: tuple[str, ...]
    delay: float = 0.0
    rate: float | None = None

    def __str__(self) -> str:
        what = {
            "kill": "{} killed",
            "pause": "{} frozen",
            "cut": "{} cut off from the others",
            "silence": "nothing crosses between {} and the others",
            "slow": f"{{}} slow ({self.delay * 1000:.0f} ms, {(self.rate or 0) * 8 / 1e6:.0f} Mbit/s)",
        }[self.kind]
        return f"{what.format(', '.join(self.nodes))} for {self.seconds:.1f} s"


def draw(seed: int, names: Sequence[str], seconds: float, *, shaped: bool) -> list[Disturbance]:
    """Disturbances, one after another with quiet between them, that are all over within `seconds`.

    As many nodes at a time are killed or frozen as the rules allow to be faulty, (n - 1) // 3, but at least one; a
    partition may leave no quorum anywhere.
    """
    rng = random.Random(seed)
    return list(_draw(rng, names, seconds, SHAPED if shaped and len(names) > 1 else DIRECT))


def _draw(
    rng: random.Random, names: Sequence[str], seconds: float, kinds: Sequence[Kind]
) -> Iterator[Disturbance]:
    now = rng.uniform(*QUIET_SECONDS)
    while True:
        kind, hold = rng.choice(kinds), rng.uniform(*HOLD_SECONDS)
        most = {"cut": len(names) - 1, "silence": len(names) - 1, "slow": 1}.get(
            kind, max(1, (len(names) - 1) // 3)
        )
        nodes = tuple(sorted(rng.sample(names, rng.randint(1, most))))
        delay, rate = rng.uniform(*DELAY_SECONDS), rng.uniform(*RATE)
        if now + hold > seconds:
            return
        if kind == "slow":
            yield Disturbance(at=now, seconds=hold, kind=kind, nodes=nodes, delay=delay, rate=rate)
        else:
            yield Disturbance(at=now, seconds=hold, kind=kind, nodes=nodes)
        now += hold + rng.uniform(*QUIET_SECONDS)
