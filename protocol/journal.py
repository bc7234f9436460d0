"""What a node writes down before it acts on it, so that after a crash it repeats itself byte for byte.

PROTOCOL section 2, rule 10. Replaying the entries of the rounds still open rebuilds the machine.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, TypeAlias

import msgspec

from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.errors import LocalProtocolError
from folkmoot.protocol.fork import Fork
from folkmoot.protocol.messages import (
    Certificate,
    Few,
    Final,
    Opening,
    Propose,
    Seeds,
    Shares,
    Signed,
    SurvivorSet,
    Unmasking,
    encode,
)
from folkmoot.protocol.types import Attempt, Digest, Round


class _Entry(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of all entries."""


class Began(_Entry, frozen=True, tag="began"):
    """A round was begun on this base, after this statement."""

    round: Round
    base: BlobRef
    previous: Digest


class Entered(_Entry, frozen=True, tag="entered"):
    """The attempts before this one were given up."""

    round: Round
    attempt: Attempt


class Said(_Entry, frozen=True, tag="said"):
    """A READY, a commitment, a masked sum or a fingerprint was signed: the same bytes go out again after a restart."""

    signed: Signed


class RosterTaken(_Entry, frozen=True, tag="roster-taken"):
    """The roster of an attempt was accepted (or, by its proposer, named)."""

    roster: Signed


class ShareTaken(_Entry, frozen=True, tag="share-taken"):
    """Secure mode: a member's share of its self-mask came, and is good."""

    share: Signed


class Gathered(_Entry, frozen=True, tag="gathered"):
    """Secure mode: these sums are here and checked; goes with a lock."""

    round: Round
    survivors: Digest
    unmasking: Unmasking


class Released(_Entry, frozen=True, tag="released"):
    """Secure mode: seeds of members left out, or shares of survivors' self-masks, leave this node."""

    roster: Digest
    frame: Seeds | Shares


class Proposed(_Entry, frozen=True, tag="proposed"):
    """A survivor set was proposed."""

    propose: Propose


class Voted(_Entry, frozen=True, tag="voted"):
    """A vote, with the survivors' commitments (whose payloads are held) that it rests on."""

    vote: Signed
    survivors: SurvivorSet
    commitments: Annotated[tuple[Signed, ...], Few]


class Locked(_Entry, frozen=True, tag="locked"):
    """A lock, with the certificate that it rests on and (open mode) the model that the sums give."""

    lock: Signed
    certificate: Certificate
    model: BlobRef | None


class Attested(_Entry, frozen=True, tag="attested"):
    """The round was opened and its model computed; the statement signed, unless I am no attester."""

    opening: Opening
    certificate: Certificate
    roster: Signed
    commitments: Annotated[tuple[Signed, ...], Few]
    model: BlobRef
    attestation: Signed | None
    unmasking: Unmasking | None = None


class Adopted(_Entry, frozen=True, tag="adopted"):
    """A finished round was learnt from others, with its model."""

    final: Final


class SatOut(_Entry, frozen=True, tag="sat-out"):
    """Signatures of mine turned up that the journal lacks: nothing is signed through this round."""

    through: Round


class RolledBack(_Entry, frozen=True, tag="rolled-back"):
    """The final record has another history from a round on: mine was given up from there.

    `base` is the model that the ledger's round starts from. Nothing is signed through the last round in which I may
    have signed for the history that was given up.
    """

    fork: Fork
    base: BlobRef
    through: Round


Entry: TypeAlias = (
    Began
    | Entered
    | Said
    | RosterTaken
    | ShareTaken
    | Proposed
    | Voted
    | Gathered
    | Released
    | Locked
    | Attested
    | Adopted
    | SatOut
    | RolledBack
)


def own_signed(entry: Entry) -> Signed | None:
    """What an entry says was signed: by this node, but for a roster, which is its proposer's."""
    match entry:
        case Said(signed=signed) | Voted(vote=signed) | Locked(lock=signed) | RosterTaken(roster=signed):
            return signed
        case Proposed(propose=propose):
            return propose.proposal
        case Attested(attestation=attestation):
            return attestation
        case _:
            return None


def last_shared(entries: Iterable[Entry], recorded: Mapping[Round, Digest]) -> Round:
    """The last round with whose statement (by round: its digest) a journal went on as well; 0 if none."""
    begun = (entry for entry in entries if isinstance(entry, Began))
    return max((one.round - 1 for one in begun if recorded.get(one.round - 1) == one.previous), default=0)


_decoder: msgspec.msgpack.Decoder[Entry] = msgspec.msgpack.Decoder(Entry)


def encode_entry(entry: Entry) -> bytes:
    """The bytes of one journal row."""
    return encode(entry)


def entry_kind(entry: Entry) -> str:
    """The row's kind, for people who read the journal."""
    return entry_tag(type(entry))


def entry_tag(entry: type[_Entry]) -> str:
    """The kind of rows of one class of entries."""
    return str(entry.__struct_config__.tag)


def decode_entry(data: bytes) -> Entry:
    """Read a row back; raises `LocalProtocolError` if it is none of ours."""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LocalProtocolError(f"the journal holds a row that is not an entry: {error}") from error
