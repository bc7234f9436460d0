"""Disputes: who may look at single updates of a round, and what they are given for it. PROTOCOL section 4.

A *permit* names the members whose updates of one decided round an auditor may open, and a quorum signs it. Each other
survivor then gives the auditor the seed that it had with each named member, sealed to the auditor's key. With the
self-masks, which the round's opening released, that takes every mask off the named members' vectors, and none off the
others': what they have among themselves is never given out. So at least `k_min` survivors of a round and group must
stay unnamed, over all permits that a node ever answered for the round and whoever the auditor was: two auditors may
know each other. The named members are not asked, because what they could give is known from both ends: a member that
gave away its own seeds would be opened without the consent of those who count.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from folkmoot.protocol.certificates import Federation
from folkmoot.protocol.charter import Charter, crowd
from folkmoot.protocol.charter_tables import Hex32, Name
from folkmoot.protocol.errors import Reject, RemoteProtocolError
from folkmoot.protocol.hashing import digest
from folkmoot.protocol.messages import Bytes16, Bytes32, Few, Uint32, encode
from folkmoot.protocol.sealing import seal, unseal
from folkmoot.protocol.secure.dealing import bound_seed
from folkmoot.protocol.secure.masks import pair_seed, seed_commitment
from folkmoot.protocol.secure.verify import MaskedRound
from folkmoot.protocol.toml import decode_toml
from folkmoot.protocol.types import Digest, MemberId

MAX_ANSWER = 16 * 1024
"""Bytes of the largest answer that is read; 16 members need about 0.5 kB."""


class Permit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a quorum agrees to: `auditor` (an X25519 public key) may open the updates of `members` in one round.

    `members` are names, in the charter's order; `roster` is that of the set that was opened. All hex in lower case.
    """

    format: Literal["folkmoot/v1/permit"] = "folkmoot/v1/permit"
    federation: Hex32
    round: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    roster: Hex32
    group: Literal[0] = 0
    auditor: Hex32
    members: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=256)]
    reason: Annotated[str, Meta(min_length=1, max_length=1024)]

    @property
    def digest(self) -> Digest:
        """What members sign, and answers name."""
        return digest(self.format, msgspec.msgpack.encode(self))


class Answer(
    msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="folkmoot/v1/answer"
):
    """The seeds that `member` had with each named member (itself excepted), ascending by those."""

    permit: Bytes32
    member: Uint32
    seeds: Annotated[tuple[tuple[Uint32, Bytes16], ...], Few]

    def __repr__(self) -> str:
        return f"Answer(member={self.member}, of={[member for member, _ in self.seeds]})"


# --- permits ------------------------------------------------------------------------------------------------


def parse_permit(text: str, source: str = "permit.toml") -> Permit:
    """Read a permit from TOML text; raises `ConfigError` naming `source`."""
    return decode_toml(text, Permit, source)


def sign_permit(permit: Permit, key: SigningKey) -> bytes:
    """A member's 64-byte Ed25519 signature, by its identity key."""
    return key.sign(_signed_text(permit)).signature


def _signed_text(permit: Permit) -> bytes:
    return b"folkmoot/v1/permit-signature\n" + permit.digest


def verify_permit(permit: Permit, signatures: Mapping[str, bytes], federation: Federation) -> None:
    """Check that a quorum signed it, `signatures` by member name; raises `Reject`."""
    charter = federation.charter
    check_permit(permit, federation)
    # [REJECT] A quorum of the charter's members signed it; a bad signature counts for nothing
    good = [
        member
        for member in charter.members
        if _is_signed(permit, member.identity_key, signatures.get(member.name, b""))
    ]
    if len(good) < charter.quorum:
        raise Reject(
            f"permit signed by {len(good)} of {len(charter.members)} members, {charter.quorum} are needed"
        )


def _is_signed(permit: Permit, key: str, signature: bytes) -> bool:
    try:
        VerifyKey(bytes.fromhex(key)).verify(_signed_text(permit), signature)
    except (BadSignatureError, ValueError):
        return False
    return True


def check_permit(permit: Permit, federation: Federation) -> None:
    """Check what a permit says, but for its signatures and its round; raises `Reject`."""
    # [REJECT] It is of this federation, which has masks to take off
    if permit.federation != federation.id.hex():
        raise Reject(f"permit of federation {permit.federation}, this one is {federation.id.hex()}")
    if not federation.charter.is_secure:
        raise Reject("permit in open mode: charters name the auditors to whom payloads are sealed")
    # [REJECT] It names members of the charter, each once, in their order
    names = [member.name for member in federation.charter.members]
    if list(permit.members) != [name for name in names if name in permit.members]:
        raise Reject(
            f"permit for {', '.join(permit.members)}: name members once each, in the charter's order"
        )


def named_members(permit: Permit, charter: Charter) -> tuple[MemberId, ...]:
    """Those whose updates are to be opened, ascending; of a permit that passed `check_permit`."""
    return tuple(charter.member_named(name) for name in permit.members)


def check_round(permit: Permit, round_: MaskedRound) -> None:
    """Check a permit against the (verified) round that it is for; raises `Reject`."""
    survivors, charter = round_.survivors, round_.federation.charter
    # [REJECT] It is for the roster that was opened in that round
    if (permit.round, permit.roster) != (survivors.round, survivors.roster.hex()):
        raise Reject(
            f"permit for roster {permit.roster[:16]} of round {permit.round}: opened was "
            f"{survivors.roster.hex()[:16]} of round {survivors.round}"
        )
    # [REJECT] It names survivors: the self-masks of others are never released, their vectors never opened
    absent = [
        charter.members[one].name for one in named_members(permit, charter) if one not in round_.members
    ]
    if absent:
        raise Reject(f"permit for {', '.join(absent)}: not in the sum of round {permit.round}")


def check_crowd(round_: MaskedRound, permits: Iterable[Permit]) -> None:
    """Raise `Reject` unless `k_min` survivors of the round are named in none of `permits`, whoever the auditors are."""
    charter = round_.federation.charter
    opened = {member for permit in permits for member in named_members(permit, charter)}
    for group in round_.circles.groups:
        staying = set(group.members).intersection(round_.members)
        hidden, k_min = len(staying - opened), crowd(len(group.members), charter.secrecy.k_min)
        # [REJECT] Those that stay hidden are a crowd: from the sum the auditor can take off all that it knows
        if opened & staying and hidden < k_min:
            whose = f" of group {group.number}" if len(round_.circles.groups.groups) > 1 else ""
            raise Reject(
                f"with all permits for round {round_.survivors.round} only {hidden} of {len(staying)} updates{whose} "
                f"would stay hidden, k_min is {k_min}"
            )


# --- answers ------------------------------------------------------------------------------------------------


def compute_answer(
    permit: Permit, round_: MaskedRound, secret: bytes, me: MemberId, keys: Mapping[MemberId, bytes]
) -> Answer:
    """What I owe the auditor: my seeds with the named members, never the secret that they derive from.

    `secret` is my X25519 secret of the round's epoch, `keys` the mask keys in the roster. The caller has checked the
    permit. Raises `Reject` if I have nothing to answer.
    """
    others = _named_with(permit, round_, me)
    # [REJECT] Only survivors have seeds that are needed; those with members left out were released with the round
    if me not in round_.members or not others:
        raise Reject(f"nothing to answer: member {me} has no pair seed that this permit asks for")
    seeds = (
        (other, pair_seed(round_.circles.context(me), secret, me, other, keys[other])) for other in others
    )
    return Answer(permit.digest, me, tuple(seeds))


def _named_with(permit: Permit, round_: MaskedRound, member: MemberId) -> list[MemberId]:
    """The named members with whom this survivor shares masks."""
    circle = round_.circles.circle(member)
    named = named_members(permit, round_.federation.charter)
    return [other for other in named if other != member and other in circle]


def seal_answer(answer: Answer, permit: Permit) -> bytes:
    """The answer as only the auditor can read it (libsodium's sealed box).

    The ephemeral key is derived, as that of content keys: the seeds in it cannot be guessed. Raises
    LocalProtocolError if the auditor's key is none.
    """
    recipient, plaintext = bytes.fromhex(permit.auditor), encode(answer)
    ephemeral = digest("folkmoot/v1/answer-seal", recipient, plaintext)
    return seal(plaintext, recipient, ephemeral)


_decoder = msgspec.msgpack.Decoder(Answer)


def open_answer(sealed: bytes, secret: bytes) -> Answer:
    """Read an answer with the auditor's X25519 secret. Raises `RemoteProtocolError`; see `verify_answer`."""
    if len(sealed) > MAX_ANSWER:
        raise RemoteProtocolError(f"answer of {len(sealed)} bytes, the limit is {MAX_ANSWER}")
    plaintext = unseal(sealed, secret)
    try:
        answer = _decoder.decode(plaintext)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RemoteProtocolError(f"undecodable answer: {error}") from error
    if encode(answer) != plaintext:
        raise RemoteProtocolError("answer is not in canonical form")
    return answer


def verify_answer(answer: Answer, permit: Permit, round_: MaskedRound) -> None:
    """Check an answer against the permit and the commitment of who gave it; raises `Reject`."""
    member, circles = answer.member, round_.circles
    # [REJECT] It is to this permit, from a survivor, on exactly the named members
    if answer.permit != permit.digest:
        raise Reject(f"answer of member {member} to another permit")
    if member not in round_.members:
        raise Reject(f"answer of member {member}, who is no survivor")
    if [other for other, _ in answer.seeds] != _named_with(permit, round_, member):
        raise Reject(f"answer of member {member} on other members than those named")
    # [REJECT] Each seed is the one that it committed to
    for other, seed in answer.seeds:
        low, high = sorted((member, other))
        bound = bound_seed(circles, round_.commitments[member], other)
        if seed_commitment(circles.context(member), low, high, seed) != bound:
            raise Reject(
                f"answer of member {member}: its seed with member {other} is not the one committed to"
            )
