"""What an auditor and the members hand each other in a dispute: permits as TOML, and answers that the auditor opens."""

from functools import cache

import msgspec
import tomli_w
from fuzzing import Target
from masked_federation import MaskedFederation
from nacl.public import PrivateKey

from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.messages import Commitment, Lock, Roster, encode
from folkmoot.protocol.sealing import seal
from folkmoot.protocol.secure.permit import (
    Answer,
    Permit,
    check_crowd,
    check_permit,
    check_round,
    open_answer,
    parse_permit,
    verify_answer,
    verify_permit,
)
from folkmoot.protocol.secure.verify import MaskedRound
from folkmoot.protocol.toml import ConfigError

AUDITOR = PrivateKey(b"\x05" * 32)


@cache
def masked_round() -> MaskedRound:
    """A finished round of four members in secure mode."""
    made = MaskedFederation()
    made.add_masked_round()
    record = made.masked_rounds[0].record
    roster, lock = record.roster.body, record.opening.locks[0].body
    assert isinstance(roster, Roster) and isinstance(lock, Lock)
    bodies = (signed.body for signed in record.commitments)
    commitments = {body.member: body for body in bodies if isinstance(body, Commitment)}
    return MaskedRound(made.federation, roster, record.opening.survivors, commitments, lock)


@cache
def permit() -> Permit:
    """That names one member of it."""
    round_ = masked_round()
    return Permit(
        federation=round_.federation.id.hex(),
        round=1,
        roster=round_.survivors.roster.hex(),
        auditor=bytes(AUDITOR.public_key).hex(),
        members=("bob",),
        reason="its updates grow from round to round",
    )


def read(data: bytes) -> None:
    """The first byte says what the rest is: a permit, or what is in a sealed answer."""
    kind, rest = data[:1], data[1:]
    if kind == b"a":
        sealed = seal(rest, bytes(AUDITOR.public_key), bytes(32))
        verify_answer(open_answer(sealed, bytes(AUDITOR)), permit(), masked_round())
    elif kind == b"p":
        asked = parse_permit(rest.decode("utf-8", "replace"))
        check_permit(asked, masked_round().federation)
        check_round(asked, masked_round())
        check_crowd(masked_round(), [asked, permit()])
        verify_permit(asked, {"alice": b"", "bob": bytes(64), "": rest}, masked_round().federation)


def seeds() -> list[bytes]:
    """A permit, and answers to it that are well-formed."""
    text = tomli_w.dumps(msgspec.to_builtins(permit())).encode()
    answers = [Answer(permit().digest, 0, seeds) for seeds in ((), ((1, bytes(16)),))]
    return [b"p" + text, *(b"a" + encode(answer) for answer in answers)]


TARGET = Target("permit", read, (ConfigError, RemoteProtocolError), seeds)
