"""What members say that break the rules with their frames. (Lies about payloads and sums: the workshops.)

A liar runs the honest machine; what leaves it passes through here. Two-faced members are two machines, see `links`.
"""

import random
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from typing import Protocol

from msgspec.structs import replace

from folkmoot.protocol.effects import Effect, Gossip, Send
from folkmoot.protocol.messages import (
    Body,
    Commitment,
    Declined,
    Enter,
    Fingerprint,
    Frame,
    Hello,
    Lock,
    Omission,
    Proposal,
    Propose,
    Ready,
    Recall,
    Recalled,
    Receipt,
    Roster,
    Share,
    Signed,
    Statement,
    Sum,
    Vote,
)
from folkmoot.protocol.signing import Signer
from folkmoot.protocol.types import MemberId
from folkmoot.protocol.validation import omitted_digest
from folkmoot.testnet.simulation.charters import Charters
from folkmoot.testnet.simulation.faults import Faults
from folkmoot.testnet.simulation.node import Node, name_of

OFTEN = 0.3
"""How often a liar contradicts itself, where it could."""

RARELY = 0.05
"""How often it floods, forges or repeats, for each effect of its machine."""

BURST = 10
"""Frames of a flood."""

REMEMBERED = 200
"""Frames that a stale liar keeps to repeat them later."""


class Surroundings(Protocol):
    """What liars need of the simulation around them."""

    charters: Charters
    faults: Faults
    now: float
    random: random.Random

    def signer(self, node: Node) -> Signer:
        """A member's own."""
        ...


class Liars:
    """Turns what a liar's machine says into what is said."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._faults = around.faults
        self._random = around.random
        self._heard: deque[Frame] = deque(maxlen=REMEMBERED)
        self._begs_at: dict[Node, float] = defaultdict(float)
        people = around.charters.founding.members
        self._victim = next((one for one in range(len(people)) if one not in self._faults.lost), -1)

    def is_deaf_to(self, node: Node, frame: Frame) -> bool:
        """A biased member does not hear that its victim is ready, nor what it committed to: so it leaves it out."""
        if node.person not in self._faults.biased or not isinstance(frame, Signed) or node.era is None:
            return False
        return frame.member == node.era.ids.get(self._victim) and isinstance(frame.body, Ready | Commitment)

    def hear(self, node: Node, frame: Frame) -> Iterator[Effect]:
        """A liar remembers what it may repeat, and says at once what it has to say to that."""
        if node.person in self._faults.stale:
            self._heard.append(frame)
        if node.person not in self._faults.agreeing or not isinstance(frame, Signed):
            return
        others = frame.member in self._everybody(node)
        if others and isinstance(frame.body, Vote | Lock):
            yield Send((frame.member,), self._sign(node, frame.body))

    def speak(self, node: Node, effect: Effect) -> Iterator[Effect]:
        """What is carried out instead of the effect."""
        if not isinstance(effect, Send | Gossip):
            yield effect
            return
        me, faults = node.person, self._faults
        if me in faults.contradicting and (other := self._another_set(node, effect.frame)) is not None:
            everybody = self._everybody(node)
            some = frozenset(self._random.sample(everybody, self._random.randint(0, len(everybody))))
            yield Send(tuple(one for one in everybody if one not in some), effect.frame)
            yield Send(tuple(sorted(some)), other)
        elif me in faults.boasting:
            frame = self._boast(effect.frame)
            yield Send(effect.members, frame) if isinstance(effect, Send) else Gossip(frame)
        elif not (me in faults.silent and _proposes(effect.frame, node.member)):
            yield effect
        if me in faults.contradicting:
            yield from self._contradict(node, effect)
        for liars, say in (
            (faults.flooding, self._flood),
            (faults.stale, self._repeat),
            (faults.forging, self._forge),
            (faults.begging, self._beg),
        ):
            if me in liars and self._random.random() < RARELY:
                yield from (Send(self._everybody(node), frame) for frame in say(node, effect.frame))

    def _everybody(self, me: Node) -> tuple[MemberId, ...]:
        return tuple(one for one in range(len(me.charter.members)) if one != me.member)

    # --- two things in one place ----------------------------------------------------------------------------

    def _contradict(self, me: Node, effect: Send | Gossip) -> Iterable[Effect]:
        signed = effect.frame
        if not isinstance(signed, Signed) or signed.member != me.member or self._random.random() > OFTEN:
            return
        if (other := self._another(signed.body)) is not None:
            some = self._everybody(me)
            chosen = self._random.sample(some, self._random.randint(0, len(some)))
            yield Send(tuple(sorted(chosen)), self._sign(me, other))

    def _another_set(self, me: Node, frame: Frame) -> Propose | None:
        """For some a proposal that leaves out one more member, while the rest is shown the true one."""
        if (
            not isinstance(frame, Propose)
            or frame.proposal.member != me.member
            or frame.certificate is not None
        ):
            return None
        survivors, proposal = frame.survivors.survivors, frame.proposal.body
        if len(survivors) < 3 or not isinstance(proposal, Proposal) or self._random.random() > OFTEN:
            return None
        chosen = replace(frame.survivors, survivors=survivors[1:])
        omitted = (*frame.omitted, Omission(survivors[0].member, me.member))
        ordered = tuple(sorted(omitted, key=lambda omission: omission.member))
        body = replace(proposal, survivors=chosen.digest, omitted=omitted_digest(ordered))
        return Propose(self._sign(me, body), chosen, ordered, None)

    def _another(self, body: Body) -> Body | None:
        """The same in the same slot, and not the same."""
        odd = name_of(b"another", self._random.randbytes(4))
        match body:
            case Vote():
                return replace(body, survivors=odd)
            case Lock():
                return replace(body, **{self._random.choice(("survivors", "sums")): odd})
            case Commitment() | Sum():
                return replace(body, root=odd)
            case Fingerprint():
                return replace(body, sums=odd)
            case Statement():
                return replace(body, model=odd)
            case Roster() if len(body.readies) > 1:
                return replace(body, readies=body.readies[1:])
            case Ready():
                return replace(body, report=odd)
            case Declined():
                return replace(body, base=odd)
            case Enter():
                return replace(body, attempt=body.attempt + 1)
            case Receipt():
                return replace(body, held=(odd,))
            case Share():
                return replace(body, value=odd[:31] + b"\0")
            case _:
                return None

    # --- noise ----------------------------------------------------------------------------------------------

    def _flood(self, me: Node, frame: Frame) -> Iterable[Frame]:
        """Well signed and of no use; a frame that is known, again and again."""
        federation, odd = self._around.charters.id, name_of(b"flood", self._random.randbytes(4))
        round_ = self._random.randint(1, 5)
        attempt = self._random.choice((0, 1, 2**31))
        bodies: tuple[Body, ...] = (
            Enter(round_, attempt),
            Vote(federation, round_, attempt, odd),
            Lock(federation, round_, attempt, odd, odd),
            Receipt(round_, attempt, odd, (odd,)),
            Ready(round_, odd, b"\0", odd, odd, odd, 1, ()),
        )
        yield from (self._sign(me, body) for body in bodies)
        yield from [frame] * BURST

    def _repeat(self, me: Node, frame: Frame) -> Iterable[Frame]:
        """What anybody said earlier: in this attempt, or in a round that is long over."""
        yield from self._random.choices(list(self._heard), k=3) if self._heard else ()

    def _forge(self, me: Node, frame: Frame) -> Iterable[Frame]:
        """The same in somebody else's name."""
        if isinstance(frame, Signed):
            yield replace(frame, member=self._random.choice(self._everybody(me)))

    def _beg(self, me: Node, frame: Frame) -> Iterable[Frame]:
        """As if it were new here, and had lost its journal. Two who beg each other without end get nowhere."""
        if self._around.now >= self._begs_at[me]:
            self._begs_at[me] = self._around.now + 1.0
            several: tuple[Frame, ...] = (Hello(1, 0, 0), Recall())
            yield from several * BURST

    def _boast(self, frame: Frame) -> Frame:
        """Further than it is: by a little, by as much as is believed, or beyond all bounds."""
        further = self._random.choice((1, self._around.charters.founding.schedule.max_ahead, 2**40))
        match frame:
            case Recalled(round=round_):
                return Recalled(round_ + further, ())
            case Hello(round=round_, attempt=attempt, final=final):
                return Hello(round_ + further, attempt, final + further)
            case _:
                return frame

    def _sign(self, me: Node, body: Body) -> Signed:
        return Signed(me.member, body, self._around.signer(me).sign(body))


def _proposes(frame: Frame, me: MemberId) -> bool:
    return isinstance(frame, Propose) or (
        isinstance(frame, Signed) and frame.member == me and isinstance(frame.body, Roster)
    )
