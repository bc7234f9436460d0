"""Attempts that cross: who hears when of an attempt's votes and locks, all of them at once or none.

Messages lost one by one hardly ever let two quorums form that do not know of each other. So here a member hears of all
votes of an attempt, in whatever frame, at once, or of none of them until some later moment; and so with locks. Then
some act on a certificate, later attempts go on without, and it turns up afterwards.
"""

import random

from folkmoot.protocol.messages import Certificate, Frame, Lock, Opening, Propose, Signed, Statement, Vote
from folkmoot.protocol.types import Attempt, Round
from folkmoot.testnet.simulation.faults import Faults
from folkmoot.testnet.simulation.node import Node

AT_ONCE: dict[type, float] = {Vote: 0.5, Lock: 0.1, Statement: 0.0}
"""How often somebody hears of them without delay. Attestations would end the round."""


class Crossing:
    """Draws the moments."""

    def __init__(self, faults: Faults, rng: random.Random) -> None:
        self._faults, self._random = faults, rng
        self._from: dict[tuple[str, type, Round, Attempt], float] = {}

    def holds_back(self, receiver: Node, frame: Frame, now: float) -> bool:
        """Whether this frame does not get there: it will be said again."""
        if now >= self._faults.until:
            return False
        match _body(frame):
            case Vote(round=round_, attempt=attempt) | Lock(round=round_, attempt=attempt) as body:
                return now < self._begin(receiver, type(body), round_, attempt, now)
            case Statement(round=round_):
                return now < self._begin(receiver, Statement, round_, 0, now)
            case _:
                return False

    def _begin(self, receiver: Node, kind: type, round_: Round, attempt: Attempt, now: float) -> float:
        key = (receiver.name, kind, round_, attempt)
        if key not in self._from:
            at_once = self._random.random() < AT_ONCE[kind]
            self._from[key] = now + (0.0 if at_once else self._random.uniform(0.0, self._faults.crossing))
        return self._from[key]


def _body(frame: Frame) -> object:
    """What a frame tells of: the votes or locks that it carries."""
    match frame:
        case Signed(body=body):
            return body
        case Certificate(votes=several) | Propose(certificate=Certificate(votes=several)):
            return several[0].body
        case Opening(locks=several):
            return several[0].body
        case _:
            return None
