"""A run for people: one line for everything that reaches a node, and everything that it does."""

from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.effects import (
    Accuse,
    Blame,
    Effect,
    Gossip,
    Persist,
    Promote,
    Record,
    RecordEvidence,
    Send,
    StartTimer,
)
from folkmoot.protocol.events import Event, FrameReceived, TimerFired
from folkmoot.protocol.journal import Entry, entry_kind, own_signed
from folkmoot.protocol.messages import (
    Certificate,
    Evidence,
    Final,
    Frame,
    Opening,
    Propose,
    Seeds,
    Shares,
    Signed,
    SurvivorSet,
)
from folkmoot.protocol.types import DIGEST_SIZE, Digest

SHOWN = 4
"""Bytes of a digest that are shown."""


def describe_event(event: Event) -> str:
    """What came."""
    if isinstance(event, FrameReceived):
        sender = "gossip" if event.sender is None else str(event.sender)
        return f"<- {sender}: {describe_frame(event.frame)}"
    if isinstance(event, TimerFired):
        return f"<- timer {event.timer.kind} {event.timer.round}.{event.timer.attempt}"
    return f"<- {_words(event)}"


def describe_effect(effect: Effect) -> str | None:
    """What is done; None for what needs no line."""
    match effect:
        case Send(members=members, frame=frame):
            return f"-> {'+'.join(map(str, members))}: {describe_frame(frame)}"
        case Gossip(frame=frame):
            return f"-> gossip: {describe_frame(frame)}"
        case Persist(entries=entries):
            return f"journal {', '.join(map(_entry, entries))}"
        case StartTimer(timer=timer, delay=delay):
            return f"timer {timer.kind} {timer.round}.{timer.attempt} in {delay:.2f} s"
        case Promote(round=round_, model=model, participants=members):
            return f"ROUND {round_} DONE, model {_short(model.root)}, of {'+'.join(map(str, members)) or 'others'}"
        case Record(statement=statement, turn=turn):
            return f"record round {statement.round}, turn {turn}"
        case RecordEvidence(member=member, evidence=evidence):
            return f"EVIDENCE against {member}: {describe_frame(evidence)}"
        case Accuse(member=member, kind=kind, reason=reason):
            return f"ACCUSES {member} of a {kind}: {reason}"
        case Blame(member=member, kind=kind, reason=reason):
            return f"blames {member} for a {kind}: {reason}"
        case _:
            return f"asks for {_words(effect)}"


def describe_frame(frame: Frame) -> str:
    """A frame in a few words."""
    match frame:
        case Signed(member=member, body=body):
            return f"{_body(body)} of {member}"
        case Propose(proposal=proposal, survivors=survivors, certificate=certificate):
            again = ", certified" if certificate else ""
            members = "+".join(str(one.member) for one in survivors.survivors)
            return (
                f"{_body(proposal.body)} of {proposal.member}: {_short(survivors.digest)} = {members}{again}"
            )
        case Certificate(survivors=survivors, votes=several) | Opening(survivors=survivors, locks=several):
            return f"{_body(several[0].body, type(frame).__name__)} {_short(survivors.digest)}"
        case Final(attestations=(first, *_)):
            return f"Final {_body(first.body)}"
        case Evidence(first=first, second=second):
            return f"Evidence {_body(first.body)} and {_body(second.body)} of {first.member}"
        case Seeds(round=round_, member=member) | Shares(round=round_, member=member):
            return f"{type(frame).__name__} {round_} of {member}"
        case _:
            return _words(frame)


def _body(body: object, name: str | None = None) -> str:
    numbers = [str(getattr(body, key)) for key in ("round", "attempt") if hasattr(body, key)]
    digests = [_short(getattr(body, key)) for key in ("survivors", "sums", "model") if hasattr(body, key)]
    return " ".join([name or type(body).__name__, ".".join(numbers), *digests])


def _short(digest: Digest) -> str:
    return digest[:SHOWN].hex()


def _entry(entry: Entry) -> str:
    """Its kind, and what it says was signed."""
    signed = own_signed(entry)
    return entry_kind(entry) + (f" ({describe_frame(signed)})" if signed is not None else "")


def _words(thing: object) -> str:
    """The name, and what of it can be said in a word."""
    names: tuple[str, ...] = getattr(thing, "__struct_fields__", getattr(thing, "__slots__", ()))
    words = ((name, _word(getattr(thing, name))) for name in names)
    return " ".join((type(thing).__name__, *(f"{name}={word}" for name, word in words if word)))


def _word(value: object) -> str:
    match value:
        case int():
            return str(value)
        case bytes() if len(value) == DIGEST_SIZE:
            return _short(value)
        case BlobRef(root=root):
            return _short(root)
        case SurvivorSet():
            return _short(value.digest)
        case Signed():
            return f"[{describe_frame(value)}]"
        case _:
            return ""
