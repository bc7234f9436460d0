"""Messages: decoded strictly, and what is well-formed is taken in by a round machine at four places of a round."""

from functools import cache
from typing import Any

import msgspec
from fuzzing import Target
from small_federation import Driver, SmallFederation

from folkmoot.protocol.effects import Send
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.events import FrameReceived
from folkmoot.protocol.journal import Entry
from folkmoot.protocol.messages import Frame, Signed, decode_frame, encode
from folkmoot.protocol.signing import FakeSigner
from folkmoot.testnet.sample_messages import SAMPLES

TOWN = SmallFederation(4)
ME = next(member for member in TOWN.members if member != TOWN.proposer())
OTHERS = [member for member in TOWN.members if member != ME]
ROSTER = TOWN.roster()
ALL = TOWN.survivors(ROSTER)


@cache
def journals() -> list[list[Entry]]:
    """What a node wrote down up to: nothing, trained, the exchange, the ballot."""
    node = Driver(TOWN, ME)
    node.boot()
    kept = [[], list(node.journal)]
    node.train()
    kept.append(list(node.journal))
    for frame in (ROSTER, *(TOWN.commitment(member, ROSTER) for member in OTHERS)):
        node.hear(frame, 1)
    kept.append(list(node.journal))
    for frame in (TOWN.propose(ALL), TOWN.certificate(ALL, members=OTHERS), TOWN.enter(1, 1)):
        node.hear(frame, 1)
    kept.append(list(node.journal))
    return kept


def read(data: bytes) -> None:
    """As it is, and with the signatures that the members who sign there would have made: they may lie."""
    frame = decode_frame(data)
    assert encode(frame) == data
    for said in (frame, signed_again(frame)):
        for journal in journals():
            _take_in(said, journal)


def _take_in(frame: Frame, journal: list[Entry]) -> None:
    """Whatever the machine wants to say in answer can be said."""
    node = Driver(TOWN, ME)
    if journal:
        node.machine.restore(journal, 0.0)
    node.boot()
    for sender in (None, 1):
        for effect in node.handle(FrameReceived(sender, frame)):
            if isinstance(effect, Send):
                decode_frame(encode(effect.frame))


def signed_again(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(signed_again, value))
    if not isinstance(value, msgspec.Struct):
        return value
    fields = {name: signed_again(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, Signed):
        fields["signature"] = FakeSigner(value.member).sign(fields["body"])
    return type(value)(**fields)


def seeds() -> list[bytes]:
    """One of every kind, and those of this federation."""
    ours = [ROSTER, TOWN.propose(ALL), TOWN.certificate(ALL), TOWN.opening(ALL), TOWN.enter(1, 1)]
    ours += [TOWN.ready(1), TOWN.commitment(1, ROSTER), TOWN.vote(1, ALL), TOWN.lock(1, ALL)]
    ours += [TOWN.receipt(1, ROSTER, OTHERS), TOWN.final(TOWN.statement(ALL))]
    return [encode(frame) for frame in (*SAMPLES.values(), *ours)]


TARGET = Target("message", read, (RemoteProtocolError,), seeds)
