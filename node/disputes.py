"""A member's part in a dispute: draft a permit, sign it, and give an auditor the pair seeds that it allows.

Done offline, on the home of a node that is stopped: what a node answered is journalled before it leaves (PROTOCOL
section 2, rule 10), and only one process may write the journal.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from nacl.signing import SigningKey

from folkmoot.ledger.audit import round_checks, secure_checks
from folkmoot.ledger.audit.round_checks import Case, Frame
from folkmoot.ledger.audit.sources import Source
from folkmoot.ledger.permit_files import SignedPermit
from folkmoot.ledger.signing import KeyVerifier
from folkmoot.node.charters import load_timeline
from folkmoot.node.config import Home, load_config
from folkmoot.node.keys import load_identity
from folkmoot.node.store import PERMITTED, Journal
from folkmoot.protocol.certificates import Federation
from folkmoot.protocol.errors import FolkmootError
from folkmoot.protocol.messages import Ready
from folkmoot.protocol.record import decode_record
from folkmoot.protocol.secure.masks import public_key
from folkmoot.protocol.secure.permit import (
    Permit,
    check_crowd,
    check_permit,
    check_round,
    compute_answer,
    seal_answer,
    sign_permit,
    verify_permit,
)
from folkmoot.protocol.secure.verify import MaskedRound
from folkmoot.protocol.typed_data import Domain
from folkmoot.protocol.types import MemberId, Round


class DisputeError(FolkmootError):
    """This home cannot take part in that dispute; the message says why."""


@dataclass(frozen=True, slots=True)
class Party:
    """A member at its home, in a dispute about one round: under its charter, with the keys of then."""

    home: Home
    federation: Federation
    me: MemberId
    contract: bytes
    identity: SigningKey

    @classmethod
    def at(cls, home: Home, number: Round) -> "Party":
        """In a dispute about round `number`; raises `FolkmootError` where charter, node.toml or keys do not fit."""
        config, federation = load_config(home), load_timeline(home).federation_at(number)
        me = federation.charter.find_member(config.name)
        if me is None:
            raise DisputeError(
                f"the charter of round {number} has no member {config.name!r}: its members decide"
            )
        identity = load_identity(home.keys, federation.charter.members[me])
        return cls(home, federation, me, bytes.fromhex(config.ledger.contract[2:]), identity)

    @property
    def name(self) -> str:
        """What the member is called."""
        return self.federation.charter.members[self.me].name

    # --- permits ----------------------------------------------------------------------------------------------------

    def draft(self, number: Round, auditor: str, members: Sequence[str], reason: str) -> Permit:
        """A permit for a round in this home's archive. Raises `Reject` for one that nobody could answer."""
        charter = self.federation.charter
        named = sorted({charter.member_named(name) for name in members})
        permit = Permit(
            federation=self.federation.id.hex(),
            round=number,
            roster=self._round(number).survivors.roster.hex(),
            auditor=auditor,
            members=tuple(charter.members[member].name for member in named),
            reason=reason,
        )
        self.check(permit)
        return permit

    def check(self, permit: Permit, others: Sequence[Permit] = ()) -> MaskedRound:
        """Hold a permit, together with others for its round, against what was opened in it; raises `Reject`."""
        check_permit(permit, self.federation)
        round_ = self._round(permit.round)
        check_round(permit, round_)
        check_crowd(round_, [*others, permit])
        return round_

    def sign(self, permit: Permit) -> bytes:
        """This member's signature. Raises as `check`."""
        self.check(permit)
        return sign_permit(permit, self.identity)

    # --- answers ----------------------------------------------------------------------------------------------------

    def answer(self, signed: SignedPermit) -> bytes:
        """What this member owes the auditor, sealed; that it was given is in the journal when this returns.

        Refused (`Reject`, `DisputeError`): a permit without a quorum's signatures, one that with all that were answered
        before would leave too few updates hidden, and one for an epoch whose secret is erased. Raises `StoreError` if
        the node is running.
        """
        permit = signed.permit
        verify_permit(permit, signed.signatures, self.federation)
        with Journal.open(self.home.store) as journal:
            earlier = [
                msgspec.msgpack.decode(row, type=Permit)
                for row in journal.entries_of(permit.round, PERMITTED)
            ]
            round_ = self.check(permit, earlier)
            secret = journal.epoch_secret(self.federation.charter.epoch_of(permit.round))
            if secret is None:
                raise DisputeError(
                    f"the mask secret of round {permit.round}'s epoch is erased: nothing about it can be shown any more"
                )
            keys = _mask_keys(round_)
            if keys.get(self.me) != public_key(secret):
                raise DisputeError(f"{self.home.store}: its mask secret is not that of round {permit.round}")
            answer = compute_answer(permit, round_, secret, self.me, keys)
            if permit not in earlier:
                journal.append([(permit.round, PERMITTED, msgspec.msgpack.encode(permit))])
        return seal_answer(answer, permit)

    # --- the round --------------------------------------------------------------------------------------------------

    def _round(self, number: Round) -> MaskedRound:
        """What was opened in a round, from this home's own record of it, held to the rules all the same."""
        if not self.federation.charter.is_secure:
            raise DisputeError(
                "open mode has no masks: charters name the auditors to whom payloads are sealed"
            )
        source = Source.of_home(self.home.path)
        data = source.record(number)
        if data is None:
            raise DisputeError(
                f"{self.home.archive}: no record of round {number}: this node did not finish that round itself"
            )
        case = Case(number, f"round {number}", decode_record(data))
        domain = Domain(self.federation.charter.ledger.chain_id, self.contract)
        frame = Frame(self.federation, KeyVerifier(self.federation, domain), [source], {})
        round_checks.check_roster(case, frame)
        round_checks.check_opening(case, frame)
        secure_checks.check_commitments(case, frame)
        return secure_checks.masked_round(case, frame)


def _mask_keys(round_: MaskedRound) -> dict[MemberId, bytes]:
    bodies = ((signed.member, signed.body) for signed in round_.roster.readies)
    return {member: body.mask_key for member, body in bodies if isinstance(body, Ready)}


def write_answer(path: Path, sealed: bytes) -> None:
    """Put a sealed answer where it can be sent from; raises `DisputeError`."""
    try:
        path.write_bytes(sealed)
    except OSError as error:
        raise DisputeError(f"{path}: cannot be written: {error.strerror}") from error
