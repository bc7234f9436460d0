"""One node of a small federation, brought to some point of round 1 by hand."""

from small_federation import MODEL, SUMS, Driver, SmallFederation

from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.effects import (
    Effect,
    Persist,
)
from folkmoot.protocol.events import (
    Aggregated,
    Encoded,
    PayloadArrived,
    Timer,
    TimerFired,
)
from folkmoot.protocol.journal import own_signed
from folkmoot.protocol.messages import (
    Commitment,
    Propose,
    Roster,
    Signed,
    SurvivorSet,
    body_digest,
    roster_digest,
)
from folkmoot.testnet.simulation.node import PARAMETERS

town = SmallFederation(4)
PROPOSER = town.proposer()
# Who proposes next is the last of the others.
ME, OTHER, LAST = sorted(set(town.members) - {PROPOSER}, key=lambda member: member == town.proposer(1))
ROSTER = town.roster()
assert isinstance(ROSTER.body, Roster)
DIGEST = roster_digest(PROPOSER, ROSTER.body)
ALL = town.survivors(ROSTER)
FINAL = town.final(town.statement(ALL))
NEW_MODEL = BlobRef(MODEL, 4 * PARAMETERS)


def start(me: int = ME, place: SmallFederation = town) -> Driver:
    node = Driver(place, me)
    node.boot()
    node.train()
    return node


def hear_ready(node: Driver, *members: int) -> list[Effect]:
    return [effect for member in members for effect in node.hear(node.town.ready(member))]


def encoded(node: Driver) -> list[Effect]:
    body = town.commitment(node.me, ROSTER).body
    assert isinstance(body, Commitment)
    return node.handle(Encoded(1, DIGEST, BlobRef(body.root, body.size), body.key))


def commit(node: Driver, *members: int) -> list[Effect]:
    return [effect for member in members for effect in node.hear(town.commitment(member, ROSTER))]


def arrive(node: Driver, *members: int) -> list[Effect]:
    names = (body_digest(town.commitment(member, ROSTER).body) for member in members)
    return [effect for name in names for effect in node.handle(PayloadArrived(1, DIGEST, name))]


def others(node: Driver) -> list[int]:
    return [member for member in town.members if member != node.me]


def in_exchange(me: int = ME) -> Driver:
    """Holds every payload of the roster; nothing proposed."""
    node = start(me)
    hear_ready(node, *others(node))
    if me != PROPOSER:
        node.hear(ROSTER)
    encoded(node)
    commit(node, *others(node))
    arrive(node, *others(node))
    return node


def aggregated(node: Driver, survivors: SurvivorSet = ALL) -> list[Effect]:
    return node.handle(Aggregated(1, survivors.digest, SUMS, NEW_MODEL))


def voted() -> Driver:
    node = in_exchange()
    node.hear(town.propose(ALL), PROPOSER)
    return node


def locked() -> Driver:
    node = voted()
    aggregated(node)
    for member in (PROPOSER, OTHER):
        node.hear(town.vote(member, ALL))
    return node


def decide(node: Driver) -> list[Effect]:
    return [effect for member in (PROPOSER, OTHER) for effect in node.hear(town.lock(member, ALL))]


def fire(node: Driver, kind: str, attempt: int = 0, after: float = 10.0, round_: int = 1) -> list[Effect]:
    return node.handle(TimerFired(Timer(kind, round_, attempt)), after)  # type: ignore[arg-type]


def position(effects: list[Effect], matches: type[Effect], holding: Signed) -> int:
    def holds(effect: Effect) -> bool:
        if isinstance(effect, Persist):
            return any(own_signed(entry) == holding for entry in effect.entries)
        frame = getattr(effect, "frame", None)
        return holding == (frame.proposal if isinstance(frame, Propose) else frame)

    return next(at for at, one in enumerate(effects) if isinstance(one, matches) and holds(one))
