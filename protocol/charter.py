"""The charter: what all members signed before anything ran.

Read from `charter.toml`, hashed over its canonical encoding (so that comments and spacing do not matter) and signed by
every member's identity key in a detached file. Network addresses and the contract's address are not in it.
"""

from collections.abc import Mapping
from typing import Literal

from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from folkmoot.protocol.canonical import encode_terms
from folkmoot.protocol.charter_tables import (
    BLOCK,
    COARSE_CODECS,
    FRAGMENT_PIECE,
    MAX_GROUP,
    MAX_PIECES,
    MIN_GROUP,
    Auditor,
    Averaging,
    LedgerTerms,
    Member,
    Model,
    Name,
    Privacy,
    Schedule,
    Secrecy,
    Table,
    Training,
)
from folkmoot.protocol.errors import CharterError
from folkmoot.protocol.hashing import digest
from folkmoot.protocol.schema import Schema
from folkmoot.protocol.types import Digest, MemberId, Round

STATES: Mapping[str, int] = {"fedavg": 0, "fedavgm": 1, "nesterov": 1, "fedadam": 2, "fedyogi": 2}
"""Vectors as long as the model that an outer rule keeps from round to round."""


class Charter(Table, frozen=True, kw_only=True):
    """The signed agreement of a federation. Members are indexed by their place here (`MemberId`).

    Without `data` every member brings encoded rows; with it, rows of these columns. A default, of any table, is never
    changed and only added: charters that were signed do not say it (`canonical.py`).
    """

    format: Literal["folkmoot/v1/charter"] = "folkmoot/v1/charter"
    name: Name
    model: Model
    data: Schema | None = None
    schedule: Schedule
    ledger: LedgerTerms
    training: Training = Training()
    averaging: Averaging = Averaging()
    secrecy: Secrecy = Secrecy()
    privacy: Privacy = Privacy()
    members: tuple[Member, ...]
    auditors: tuple[Auditor, ...] = ()

    @property
    def encoded(self) -> bytes:
        """The canonical bytes, as members fetch an amended charter from each other."""
        return encode_terms(self)

    @property
    def digest(self) -> Digest:
        """What founders sign, attesters amend, and the contract stores: `config` of the rounds under this charter."""
        return digest(self.format, self.encoded)

    @property
    def faults(self) -> int:
        """f, the members that may be lost or lying at once: floor((m-1)/3). PROTOCOL section 1."""
        return max_faults(len(self.members))

    @property
    def quorum(self) -> int:
        """Q = floor((m+f)/2)+1: any two quorums share an honest member. Never taken over a roster."""
        return quorum(len(self.members))

    @property
    def is_secure(self) -> bool:
        """Whether updates are masked, so that nobody sees a single one."""
        return self.averaging.mode == "secure"

    @property
    def is_private(self) -> bool:
        """Whether noise hides what an update tells of single rows."""
        return self.privacy.mechanism != "none"

    def claimed_examples(self, rows: int) -> int:
        """From what an update's weight is computed. Where rows are to stay hidden it does not depend on them."""
        return self.averaging.weight_cap if self.is_private else rows

    @property
    def has_feedback(self) -> bool:
        """Whether what writing an update down lost of it is added to the member's next one."""
        if self.is_secure:
            return self.secrecy.ring == 8
        return self.averaging.error_feedback or self.averaging.codec in COARSE_CODECS

    @property
    def has_controls(self) -> bool:
        """Whether control variates (SCAFFOLD) travel behind an update's values, and the mean of all is kept."""
        return self.training.correction == "scaffold"

    @property
    def update_sizes(self) -> tuple[int, ...]:
        """Length of each piece of what a member sends that has a scale exponent of its own: a tensor or, where the
        model travels in fragments, an even part of one. The same in every round.
        """
        if self.averaging.fragments == 1:
            return self.model.sizes * (2 if self.has_controls else 1)
        values = self.fragment_values
        piece = max(FRAGMENT_PIECE, -(-values // MAX_PIECES // BLOCK) * BLOCK)
        return tuple(min(piece, values - at) for at in range(0, values, piece))

    @property
    def fragment_values(self) -> int:
        """Length of a fragment of the shared values; zeros fill the last one up to it. A multiple of 64."""
        blocks = -(-self.model.shared_values // BLOCK)
        return BLOCK * -(-blocks // self.averaging.fragments)

    def fragment(self, round_: Round) -> tuple[int, int] | None:
        """(start, stop) of the shared values that travel in a round, in turn; None if all do."""
        count = self.averaging.fragments
        if count == 1:
            return None
        start = (round_ - 1) % count * self.fragment_values
        return start, min(start + self.fragment_values, self.model.shared_values)

    @property
    def update_values(self) -> int:
        """Length of what a member sends."""
        return sum(self.update_sizes)

    @property
    def snapshot_values(self) -> int:
        """Length of what a model's digest is over: shared values, then the outer rule's state (`outer.py`)."""
        return self.model.shared_values * (1 + STATES[self.averaging.rule] + self.has_controls)

    @property
    def group_sizes(self) -> tuple[int, ...]:
        """Members of each group that shares masks, as even as can be; in open mode everybody is in one."""
        members = len(self.members)
        if not self.is_secure:
            return (members,)
        count = max(members // (self.secrecy.group_size or MAX_GROUP), -(-members // MAX_GROUP))
        return tuple(members * (at + 1) // count - members * at // count for at in range(count))

    @property
    def sums_by_group(self) -> bool:
        """Whether secure mode opens not one sum but one for each group, so that a robust rule can compare them."""
        return self.is_secure and self.averaging.robust != "none"

    @property
    def most_summed(self) -> int:
        """Members of the largest sum."""
        return max(self.group_sizes) if self.sums_by_group else len(self.members)

    def epoch_of(self, round_: Round) -> int:
        """The epoch, from 0, whose mask keys `round_` uses."""
        return (round_ - 1) // self.secrecy.epoch

    @property
    def attesters(self) -> tuple[MemberId, ...]:
        """Members whose signatures count on the ledger."""
        return tuple(index for index, member in enumerate(self.members) if member.attester)

    @property
    def attester_quorum(self) -> int:
        """k, the attestations that the contract asks for."""
        return quorum(len(self.attesters))

    def find_member(self, name: str) -> MemberId | None:
        """The index of the member called `name`, None if there is none."""
        return next((index for index, member in enumerate(self.members) if member.name == name), None)

    def member_named(self, name: str) -> MemberId:
        """The index of the member called `name`; raises `CharterError`."""
        index = self.find_member(name)
        if index is not None:
            return index
        known = ", ".join(member.name for member in self.members)
        raise CharterError(f"the charter of {self.name!r} has no member {name!r}; its members are {known}")


def max_faults(members: int) -> int:
    """f for `members` members (or attesters)."""
    return (members - 1) // 3


def quorum(members: int) -> int:
    """Q for `members` members (or k for as many attesters)."""
    return (members + max_faults(members)) // 2 + 1


def crowd(members: int, k_min: int = 0) -> int:
    """Updates of a group of so many that must at least be hidden in a sum, so that f colluders still see a crowd.

    `k_min`: what the charter says, 0 for the default max(3, f + 2). PROTOCOL section 4.
    """
    return k_min or max(3, max_faults(members) + 2)


def shares_to_open(members: int, threshold: int = 0) -> int:
    """t, the shares that open a self-mask in a group of so many: f colluders have too few, Q voters without f enough.

    `threshold`: what the charter says, 0 for the default Q - f. PROTOCOL section 4.
    """
    return threshold or quorum(members) - max_faults(members)


def default_mode(members: int) -> Literal["open", "secure"]:
    """What a draft for so many members proposes: secure mode where it takes them."""
    return "secure" if members >= MIN_GROUP else "open"


def _signed_text(charter: Charter) -> bytes:
    return b"folkmoot/v1/charter-signature\n" + charter.digest


def sign_charter(charter: Charter, key: SigningKey) -> bytes:
    """A member's 64-byte Ed25519 signature on the charter."""
    return key.sign(_signed_text(charter)).signature


def verify_charter(charter: Charter, signatures: Mapping[str, bytes]) -> None:
    """Raise `CharterError` unless every member (by name) signed exactly this charter."""
    for member in charter.members:
        signature = signatures.get(member.name)
        if signature is None:
            raise CharterError(f"charter {charter.name!r}: {member.name} has not signed it")
        try:
            VerifyKey(bytes.fromhex(member.identity_key)).verify(_signed_text(charter), signature)
        except (BadSignatureError, ValueError) as error:
            raise CharterError(
                f"charter {charter.name!r}: the signature of {member.name} does not fit; "
                "was the charter changed after signing?"
            ) from error


def federation_id(charter_digest: Digest, chain_id: int, contract: bytes) -> Digest:
    """H(founding charter, chain id, contract address): constant for ever. PROTOCOL section 1."""
    return digest("folkmoot/v1/federation", charter_digest, chain_id.to_bytes(32, "big"), contract)
