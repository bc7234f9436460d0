"""Checks 24 and 25: what an RPC says of the contract, proven by the chain instead of believed.

A block's hash is that of its header; the header holds the root of all state; a proof leads from there to the contract's
code and to each word of its storage. So one block hash stands for all of it, and that can be compared with what others
say: a second RPC, a block explorer, a node of one's own. The records need no proof of their own: the head, which is
proven, is the last link of their hash chain.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import msgspec

from folkmoot.ledger.audit import rlp, trie
from folkmoot.ledger.audit.governance import Roles
from folkmoot.ledger.audit.headers import Header, read_header
from folkmoot.ledger.audit.report import Status, Tally
from folkmoot.ledger.port import LedgerHead, LedgerIdentity
from folkmoot.protocol.charter import federation_id, quorum
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.typed_data import keccak256
from folkmoot.protocol.types import Digest

if TYPE_CHECKING:
    from folkmoot.ledger.audit.ledger_checks import LedgerView

SLOTS = {
    "head": 0,
    "governance_head": 1,
    "config": 2,
    "federation": 3,
    "charter_digest": 4,
    "founding_members": 5,
    "founded_at": 6,
    "lead": 7,
    "_position": 8,
    "_governance": 9,
}
"""Where the contract's variables lie (`vyper -f layout`; a test holds the two together)."""

MEMBERS_SLOT = 10
_U64 = 2**64 - 1
_ROLE_BEFORE, _ROLE_AFTER, _FLAG = 64, 66, 1 << 68


def slot_of(name: str) -> bytes:
    """The storage key of a variable in `SLOTS`, or of the word of a member, who is named "0x" and its address."""
    if not name.startswith("0x"):
        return SLOTS[name].to_bytes(32, "big")
    return keccak256(MEMBERS_SLOT.to_bytes(32, "big") + bytes.fromhex(name[2:]).rjust(32, b"\0"))


class BlockShown(msgspec.Struct, frozen=True):
    """A block as an RPC shows it: the hash it claims, and the RLP of the header."""

    hash: Digest
    header: bytes


class StateProof(msgspec.Struct, frozen=True):
    """What an RPC gives to prove the contract's state: the block that was read, the final block, and trie nodes.

    `account` leads from the block's state root to the contract, `slots` (by name: `slot_of`) on to its storage.
    """

    latest: BlockShown
    final: BlockShown
    account: tuple[bytes, ...]
    slots: dict[str, tuple[bytes, ...]]


class Unproven(msgspec.Struct, frozen=True):
    """There is no proof, and why; the blocks may be there all the same."""

    reason: str
    latest: BlockShown | None = None
    final: BlockShown | None = None


@runtime_checkable
class Provable(Protocol):
    """A public record that can prove what it shows."""

    def prove(self, head: LedgerHead, members: Iterable[bytes]) -> StateProof | Unproven:
        """The proof for the block of `head`, and for these members; raises errors of `folkmoot.ledger.errors`."""
        ...

    def block_hash(self, number: int) -> Digest | None:
        """The hash of a block, recomputed; None if it cannot be had."""
        ...


def check_headers(view: "LedgerView", oldest: float | None, tally: Tally) -> None:
    """(24) The hashes of the block that was read and of the final one are those of their headers.

    A block that was made before `oldest` (Unix seconds; None: it may be of any age) may have been shown to hide what
    came later.
    """
    proof, head = view.proof, view.head
    if proof is None or proof.latest is None or proof.final is None:
        tally.add(Status.SKIPPED, proof.reason if proof else "this ledger has no block headers")
        return
    try:
        latest = _read("the block that was read", proof.latest, head.block)
        final = _read("the final block", proof.final, head.final.number)
    except RemoteProtocolError as error:
        tally.add(Status.FAIL, f"{view.name}: {error}", where=view.name)
        return
    if final.hash != head.final.hash:
        problem = f"{view.name}: the final block {final.number} was shown with two hashes"
        tally.add(Status.FAIL, problem, where=view.name)
    if final.number == latest.number and final.hash != latest.hash:
        problem = f"{view.name}: block {latest.number} was shown with two hashes"
        tally.add(Status.FAIL, problem, where=view.name)
    if oldest is not None and latest.timestamp < oldest:
        tally.add(
            Status.INCONCLUSIVE,
            f"{view.name}: its newest block, {latest.number}, was made at {_time(latest.timestamp)}: it is behind, or "
            "hides what came later. Ask another RPC, or allow for it (--max-age)",
            where=view.name,
        )
    tally.add_pass()
    tally.remark(
        f"block {latest.number} is 0x{latest.hash.hex()}, made at {_time(latest.timestamp)}; final: {final.number}"
    )


def check_proof(view: "LedgerView", roles: Roles, development: bool, tally: Tally) -> None:
    """(25) Code, heads, charters, quorum and what every member is are in the state of the block that was read."""
    proof = view.proof
    if proof is None:
        tally.add(Status.SKIPPED, "this ledger has no state proofs")
        return
    if isinstance(proof, Unproven):
        # An RPC that lies would rather say nothing, so silence is no pass; a development chain proves nothing anyway.
        status = Status.SKIPPED if development else Status.INCONCLUSIVE
        tally.add(status, f"{view.name}: {proof.reason}", where=view.name)
        return
    names = [*SLOTS, *(f"0x{address.hex()}" for address in roles.last)]
    try:
        words = _prove(read_header(proof.latest.header), view.identity, proof, names)
    except RemoteProtocolError as error:
        tally.add(Status.FAIL, f"{view.name}: {error}", where=view.name)
        return
    told = _differences(view, roles, words)
    for problem in told:
        tally.add(Status.FAIL, f"{view.name}: {problem}", where=view.name)
    tally.add_pass(len(words))


def _differences(view: "LedgerView", roles: Roles, words: Mapping[str, int]) -> Iterator[str]:
    """Where the chain's state is not what the RPC said."""
    identity, head = view.identity, view.head
    federation = federation_id(identity.charter_digest, identity.chain_id, identity.contract)
    next_round = head.height + 1
    position = words["_position"]
    said = {
        "head": (words["head"], int.from_bytes(head.digest, "big")),
        "governance head": (words["governance_head"], int.from_bytes(head.governance, "big")),
        "charter in force": (words["config"], int.from_bytes(head.config, "big")),
        "federation": (words["federation"], int.from_bytes(federation, "big")),
        "founding charter": (words["charter_digest"], int.from_bytes(identity.charter_digest, "big")),
        "list of founding members": (words["founding_members"], int.from_bytes(identity.members, "big")),
        "block of deployment": (words["founded_at"], identity.founded_at),
        "lead": (words["lead"], identity.lead),
        "height": (position & _U64, head.height),
        "quorum": (position >> 128 & 255, quorum(len(roles.at(next_round).attesters))),
        "number of members to be enrolled": (position >> 136, 0),
        "number of amendments": (words["_governance"] & _U64, head.amendments),
    }
    for name, (found, expected) in said.items():
        if found != expected:
            yield f"the chain's state has another {name} than was shown"
    reported = {report.member for report in view.reports}
    for address, role in roles.last.items():
        word = words[f"0x{address.hex()}"]
        if word >> _ROLE_AFTER & 3 != role:
            yield f"the chain's state has another role of 0x{address.hex()} than was shown"
        if bool(word & _FLAG) != (address in reported):
            yield f"0x{address.hex()} is flagged in the chain's state, but no report of it was shown, or the reverse"


def _read(what: str, shown: BlockShown, number: int) -> Header:
    header = read_header(shown.header)
    if header.hash != shown.hash:
        raise RemoteProtocolError(
            f"{what} is shown as 0x{shown.hash.hex()}, but its header hashes to 0x{header.hash.hex()}"
        )
    if header.number != number:
        raise RemoteProtocolError(f"{what} is number {number}, but its header says {header.number}")
    return header


def _prove(
    header: Header, identity: LedgerIdentity, proof: StateProof, names: Iterable[str]
) -> dict[str, int]:
    """The words of storage that the proof shows, by name."""
    account = trie.prove(header.state_root, identity.contract, proof.account)
    fields = rlp.decode(account) if account is not None else None
    if not isinstance(fields, list) or len(fields) != 4 or not isinstance(fields[2], bytes):
        raise RemoteProtocolError("the chain's state has no contract at the address")
    if fields[3] != identity.code_hash:
        raise RemoteProtocolError("the chain's state has other code at the address than was shown")
    root = fields[2]
    return {name: _word(root, slot_of(name), proof.slots.get(name, ())) for name in names}


def _word(storage_root: Digest, slot: bytes, nodes: tuple[bytes, ...]) -> int:
    value = trie.prove(storage_root, slot, nodes)
    return 0 if value is None else rlp.decode_int(rlp.decode(value))


def _time(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return f"{seconds} s after 1970"
