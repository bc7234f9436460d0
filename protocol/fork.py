"""When the ledger's final record and this node's own rounds are two histories: finding out, and the proof of it.

PROTOCOL section 2, rule 11. At most f faulty members cannot bring it about: two statements of one round need two
quorums of attesters, which share an honest one. With more, or on a chain that was undone deeper than it ever should be,
the ledger decides, for it is what everybody sees.
"""

from itertools import pairwise
from typing import Annotated

import msgspec

from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.messages import Few, Signed, Statement, encode
from folkmoot.protocol.record import MAX_RECORD, RoundRecord
from folkmoot.protocol.typed_data import struct_hash
from folkmoot.protocol.types import Digest, Round

REMEMBERED = 64
"""Heights of the final record that are remembered until this node's own rounds reach them."""


class RecordedRound(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A round as the ledger has it, with the attestations that the transaction shows (none inside a checkpoint)."""

    statement: Statement
    attestations: Annotated[tuple[Signed, ...], Few]


class Fork(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="folkmoot/v1/fork"):
    """Two histories that part in one round: what this node held, and what the ledger has.

    `held` is the digest of the statement that this node built on. `record` is what it has under that one, with the
    attestations so far; None where it had learnt the round from others.
    """

    held: Digest
    record: RoundRecord | None
    recorded: RecordedRound

    @property
    def round(self) -> Round:
        """The first round in which they differ."""
        return self.recorded.statement.round


_decoder = msgspec.msgpack.Decoder(Fork)


def encode_fork(fork: Fork) -> bytes:
    """The canonical bytes, as kept in the archive."""
    return encode(fork)


def decode_fork(data: bytes) -> Fork:
    """Strictly parse a fork's proof; raises `RemoteProtocolError`."""
    if len(data) > MAX_RECORD:
        raise RemoteProtocolError(f"fork of {len(data)} bytes, the limit is {MAX_RECORD}")
    try:
        fork = _decoder.decode(data)
        canonical = encode(fork) == data
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteProtocolError(f"undecodable fork: {error}") from error
    if not canonical:
        raise RemoteProtocolError("fork is not in canonical form")
    return fork


class Branch:
    """The statements that a node builds on, held against the final record. A digest stands for all rounds before it."""

    def __init__(self) -> None:
        self._held: dict[Round, Digest] = {}
        self._final: dict[Round, Digest] = {}
        self._recorded: Round = 0
        self.confirmed: Round = 0
        """The newest round of which it is certain that the final record has it as this node has."""
        self.abandoned: set[Digest] = set()
        """Statements of the history that was given up, and those that continue it."""

    def hold(self, round_: Round, statement: Digest) -> None:
        """This node builds on that statement now."""
        if round_ > self.confirmed:
            self._held[round_] = statement

    def held_at(self, round_: Round) -> Digest | None:
        """The statement of that round which this node built on, if it is remembered."""
        return self._held.get(round_)

    def note_final(self, height: Round, statement: Digest) -> None:
        """The final record ends with that statement."""
        self._final[height] = statement
        self._recorded = max(self._recorded, height)
        if statement in self.abandoned:  # an RPC had told otherwise: what was refused for that is no longer
            self.abandoned.clear()
        while len(self._final) > REMEMBERED:
            del self._final[min(self._final)]

    def find_contradiction(self) -> tuple[Round, Round] | None:
        """The rounds in one of which the two part, first and last; None where they agree as far as both are known."""
        common = self._held.keys() & self._final.keys()
        if not common:
            return None
        newest = max(common)
        if any(self._held[round_] != self._final[round_] for round_ in common):
            return min(self._held), newest
        self.confirm(newest)
        return None

    def confirm(self, newest: Round) -> None:
        """Up to there the final record has what this node has."""
        self.confirmed = newest
        self._held = {round_: one for round_, one in self._held.items() if round_ >= newest}
        self._final = {round_: one for round_, one in self._final.items() if round_ >= newest}

    def find_passed(self) -> tuple[Round, Round] | None:
        """The rounds that the record has passed without its being clear whether it has them as this node has."""
        newest = max(self._held, default=0)
        is_passed = self.confirmed < newest <= self._recorded
        return (min(self._held), newest) if is_passed else None

    def note_read(self, recorded: tuple[RecordedRound, ...]) -> None:
        """The ledger has shown its rounds: if it has what this node has, that is certain now."""
        if recorded and is_chain(recorded):
            last = recorded[-1].statement
            if self._held.get(last.round) == struct_hash(last):
                self.confirm(last.round)

    def find_fork(self, recorded: tuple[RecordedRound, ...]) -> RecordedRound | None:
        """The first round that the ledger has otherwise; None if `recorded` is not what was asked for, or agrees."""
        if not recorded or not is_chain(recorded):
            return None
        last = recorded[-1].statement
        passed, final = self.find_passed(), self._final.get(last.round)
        if final != struct_hash(last) and (final is not None or passed is None or passed[1] != last.round):
            return None
        for one in recorded:
            held = self._held.get(one.statement.round)
            if held is not None and held != struct_hash(one.statement):
                return one
        return None

    def give_up(self, round_: Round) -> frozenset[Digest]:
        """Forget what was built from that round on; returns its statements."""
        lost = {held for number, held in self._held.items() if number >= round_}
        self._held = {number: held for number, held in self._held.items() if number < round_}
        self.abandoned |= lost
        return frozenset(lost)

    def refuses(self, statement: Statement) -> bool:
        """Whether a round that others show is not in the record's history, as far as one can tell."""
        digest, recorded = struct_hash(statement), self._final.get(statement.round)
        if recorded is not None:
            return digest != recorded
        before = self._final.get(statement.round - 1)
        strays = statement.previous in self.abandoned if before is None else statement.previous != before
        if strays:
            self.abandoned.add(digest)
        return digest in self.abandoned


def is_chain(recorded: tuple[RecordedRound, ...]) -> bool:
    """Whether each statement continues the one before it."""
    return all(
        later.statement.previous == struct_hash(earlier.statement) for earlier, later in pairwise(recorded)
    )
