"""Whatever bytes a peer sends: refused with a typed error, or read; and whatever is read: taken in without raising."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from msgspec.structs import replace
from small_federation import BASE, Driver, SmallFederation, mark

from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.effects import Effect, Send
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.events import FrameReceived, Timer, TimerFired
from folkmoot.protocol.messages import (
    MAX_FRAME,
    Certificate,
    Commitment,
    Enter,
    Evidence,
    Final,
    Frame,
    Hello,
    KeyWanted,
    Lock,
    Omission,
    Opening,
    Proposal,
    Propose,
    Ready,
    Recall,
    Recalled,
    Receipt,
    Roster,
    Signed,
    Statement,
    Survivor,
    SurvivorSet,
    Vote,
    body_digest,
    decode_frame,
    encode,
)
from folkmoot.testnet.sample_messages import SAMPLES

town = SmallFederation(4)
OURS = town.federation.id
ROSTER = town.roster()
ALL = town.survivors(ROSTER)


# --- bytes --------------------------------------------------------------------------------------------------------


def read(data: bytes) -> None:
    """The one thing that may happen besides `RemoteProtocolError`."""
    try:
        frame = decode_frame(data)
    except RemoteProtocolError:
        return
    assert encode(frame) == data


@given(st.binary(max_size=300))
def test_noise_is_refused(data: bytes) -> None:
    read(data)


@pytest.mark.parametrize("name", SAMPLES)
@given(data=st.data())
def test_mutated_frames_are_refused_or_canonical(name: str, data: st.DataObject) -> None:
    original = bytearray(encode(SAMPLES[name]))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(original) - 1))
        match data.draw(st.sampled_from(["change", "insert", "remove", "double"])):
            case "change":
                original[at] = data.draw(st.integers(0, 255))
            case "insert":
                original[at:at] = data.draw(st.binary(min_size=1, max_size=4))
            case "remove" if len(original) > 1:
                del original[at]
            case _:
                original[at:at] = original[at : at + 8]
    read(bytes(original))


# --- frames -------------------------------------------------------------------------------------------------------
# Mostly of this round and federation, and well signed: what is off at first sight gets nowhere.

numbers = st.sampled_from([0, 1, 2, 3, 63, 64, 65, 2**31, 2**32 - 1])
rounds = st.sampled_from([1, 1, 1, 1, 0, 2, 3, 2**63 - 1])
attempts = st.sampled_from([0, 0, 0, 1, 1, 2, 64, 65, 2**32 - 1])
signers = st.sampled_from([0, 1, 2, 3, 1, 2, 3, 4, 2**32 - 1])
digests = st.sampled_from(
    [
        BASE,
        OURS,
        town.charter.digest,
        ALL.digest,
        ALL.roster,
        *(body_digest(town.commitment(member, ROSTER).body) for member in town.members),
        mark(1),
    ]
)
federations = st.sampled_from([OURS, OURS, OURS, mark(1)])
bases = st.sampled_from([BASE, BASE, BASE, mark(1)])
sizes = st.sampled_from([0, 1, 2**63 - 1])
scales = st.sampled_from([b"\x00", b"\x01", b"\x10", b"\xff", b"", b"\x00\x00", bytes(4096)])

readies = st.builds(
    Ready, rounds, bases, scales, digests, digests, digests, st.sampled_from([0, 1, 2**63 - 1]),
    st.sampled_from([(), (("examples", 1.0),), (("accuracy", float("nan")), ("examples", 1.0)), (("x", 0.0),)]),
)  # fmt: skip
votes = st.builds(Vote, federations, rounds, attempts, digests)
locks = st.builds(Lock, federations, rounds, attempts, digests, digests)
statements = st.builds(Statement, federations, rounds, digests, digests, bases, digests, digests, digests)


@st.composite
def signed(draw: st.DrawFn, bodies: st.SearchStrategy[Any], signer: int | None = None) -> Signed:
    member = draw(signers) if signer is None else signer
    made = town.sign(member, draw(bodies))
    return made if draw(st.integers(0, 9)) else replace(made, signature=bytes(64))


@st.composite
def rosters(draw: st.DrawFn) -> Roster:
    if draw(st.booleans()):
        body = town.roster(draw(st.sampled_from([None, [0, 1, 2], [1, 2, 3]])), draw(attempts)).body
        assert isinstance(body, Roster)
        return body
    chosen = tuple(draw(st.lists(signed(readies), max_size=5)))
    return Roster(draw(rounds), draw(attempts), draw(bases), chosen, draw(scales))


survivor_sets = st.one_of(
    st.just(ALL),
    st.sampled_from([town.survivors(ROSTER, [0, 1, 2]), town.survivors(town.roster(attempt=1))]),
    st.builds(
        SurvivorSet, rounds, bases, digests, digests, digests,
        st.lists(st.builds(Survivor, signers, digests), max_size=5).map(tuple),
    ),
)  # fmt: skip
commitments = st.builds(Commitment, federations, rounds, digests, signers, digests, sizes, digests)
receipts = st.builds(Receipt, rounds, attempts, digests, st.lists(digests, max_size=6).map(tuple))
proposals = st.builds(Proposal, federations, rounds, attempts, digests, digests)
enters = st.builds(Enter, rounds, attempts)
one_body = st.one_of(readies, rosters(), commitments, receipts, proposals, votes, locks, statements, enters)
omissions = st.lists(st.builds(Omission, signers, signers), max_size=3).map(tuple)


@st.composite
def several(draw: st.DrawFn, bodies: st.SearchStrategy[Any]) -> tuple[Signed, ...]:
    """Signatures of several members, often on one body and enough of them."""
    members = draw(st.sampled_from([(), (0,), (0, 1, 2), (1, 2, 3), (0, 1, 2, 3), (1, 1, 2), (0, 1, 9)]))
    body = draw(bodies)
    if draw(st.integers(0, 4)):
        return tuple(town.sign(member, body) for member in members)
    return tuple(draw(signed(st.one_of(bodies, one_body), member)) for member in members)


@st.composite
def certificates(draw: st.DrawFn) -> Certificate:
    survivors = draw(survivor_sets)
    fitting = st.builds(Vote, st.just(OURS), st.just(survivors.round), attempts, st.just(survivors.digest))
    return Certificate(survivors, draw(several(st.one_of(fitting, fitting, votes))))


@st.composite
def openings(draw: st.DrawFn) -> Opening:
    survivors = draw(survivor_sets)
    fitting = st.builds(
        Lock, st.just(OURS), st.just(survivors.round), attempts, st.just(survivors.digest), digests
    )
    return Opening(survivors, draw(several(st.one_of(fitting, fitting, locks))))


@st.composite
def proposes(draw: st.DrawFn) -> Propose:
    survivors, attempt = draw(survivor_sets), draw(attempts)
    omitted, certificate = draw(omissions), draw(st.one_of(st.none(), certificates()))
    if draw(st.booleans()):
        return town.propose(survivors, attempt, omitted, certificate)
    return Propose(draw(signed(st.one_of(proposals, one_body))), survivors, omitted, certificate)


@st.composite
def finals(draw: st.DrawFn) -> Final:
    statement = draw(statements)
    if draw(st.booleans()):
        statement = replace(statement, config=town.charter.digest, federation=OURS)
    model = BlobRef(statement.model, draw(st.sampled_from([32, 32, 0, 2**62])))
    return Final(draw(several(st.just(statement))), model)


any_frame: st.SearchStrategy[Frame] = st.one_of(
    signed(one_body),
    certificates(),
    openings(),
    proposes(),
    finals(),
    st.builds(Hello, rounds, attempts, rounds),
    st.builds(Recall),
    st.builds(Recalled, rounds, several(one_body)),
    st.builds(Evidence, signed(one_body), signed(one_body)),
    st.builds(KeyWanted, digests),
)


ME = next(member for member in town.members if member != town.proposer())
OTHERS = [member for member in town.members if member != ME]


def newcomer() -> Driver:
    """Still asking what it signed."""
    return Driver(town, ME)


def trained() -> Driver:
    """Ready, with nothing else known."""
    node = Driver(town, ME)
    node.boot()
    node.train()
    return node


def in_exchange() -> Driver:
    """With a roster and everybody's commitment."""
    node = trained()
    for frame in (ROSTER, *(town.commitment(member, ROSTER) for member in OTHERS)):
        node.hear(frame, 1)
    return node


def in_ballot() -> Driver:
    """With a proposal, a certificate, and in a later attempt."""
    node = in_exchange()
    for frame in (
        town.propose(ALL),
        town.certificate(ALL, members=OTHERS),
        town.enter(1, 1),
        town.enter(2, 1),
    ):
        node.hear(frame, 1)
    assert node.machine.current.attempt == 1
    return node


def feed(node: Driver, sender: int | None, frame: Frame) -> list[Effect]:
    return node.handle(FrameReceived(sender, decode_frame(encode(frame))))


@pytest.mark.parametrize("start", [newcomer, trained, in_exchange, in_ballot])
@given(
    heard=st.lists(st.tuples(st.sampled_from([None, 1, 2, 3]), any_frame), min_size=1, max_size=12),
)
@example(heard=[(1, Final((), BlobRef(BASE, 32)))])
@example(heard=[(None, Certificate(ALL, ())), (1, Opening(ALL, ()))])
def test_no_frame_from_anybody_makes_the_machine_raise(
    start: Callable[[], Driver], heard: list[tuple[int | None, Frame]]
) -> None:
    node = start()
    for sender, frame in heard:
        assume(len(encode(frame)) <= MAX_FRAME)
        effects = feed(node, sender, frame)
        for kind in ("grace", "exchange", "attempt", "announce"):
            timer = Timer(kind, 1, node.machine.current.attempt)
            effects += node.handle(TimerFired(timer))
        for effect in effects:
            if isinstance(effect, Send):
                decode_frame(encode(effect.frame))
