"""Checks 24 and 25: what an RPC says of the contract, proven by the chain instead of believed.

A block's hash is that of its header; the header holds the root of all state; a proof leads from there to the contract's
code and to each word of its storage. So one block hash stands for all of it, and that can be compared with what others
say: a second RPC, a block explorer, a node of one's own. The records need no proof of their own: the head, which is
proven, is the last link of their hash chain.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Protocol, runtime_checkable

import msgspec

from folkmoot.ledger.audit import rlp, trie
from folkmoot.ledger.audit.headers import Header, read_header
from folkmoot.ledger.audit.report import Status, Tally
from folkmoot.ledger.port import LedgerHead, LedgerIdentity
from folkmoot.protocol.charter import federation_id
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.types import Digest

SLOTS = {"head": 0, "federation": 1, "charter_digest": 2, "founded_at": 3, "_position": 4}
"""Where the contract's variables lie (`vyper -f layout`; a test holds the two together)."""


class BlockShown(msgspec.Struct, frozen=True):
    """A block as an RPC shows it: the hash it claims, and the RLP of the header."""

    hash: Digest
    header: bytes


class StateProof(msgspec.Struct, frozen=True):
    """What an RPC gives to prove the contract's state: the block that was read, the final block, and trie nodes.

    `account` leads from the block's state root to the contract, `slots` (by name) on to words of its storage.
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

    def prove(self, head: LedgerHead) -> StateProof | Unproven:
        """The proof for the block of `head`; raises errors of `folkmoot.ledger.errors`."""
        ...

    def block_hash(self, number: int) -> Digest | None:
        """The hash of a block, recomputed; None if it cannot be had."""
        ...


def check_headers(proof: StateProof | Unproven | None, head: LedgerHead, tally: Tally) -> None:
    """(24) The hashes of the block that was read and of the final one are those of their headers."""
    if proof is None or proof.latest is None or proof.final is None:
        tally.add(Status.SKIPPED, proof.reason if proof else "this ledger has no block headers")
        return
    try:
        latest = _read("the block that was read", proof.latest, head.block)
        final = _read("the final block", proof.final, head.final.number)
    except RemoteProtocolError as error:
        tally.add(Status.FAIL, str(error))
        return
    if final.hash != head.final.hash:
        tally.add(Status.FAIL, f"the final block {final.number} was shown with two hashes")
    if final.number == latest.number and final.hash != latest.hash:
        tally.add(Status.FAIL, f"block {latest.number} was shown with two hashes")
    tally.add_pass()
    tally.remark(
        f"block {latest.number} is 0x{latest.hash.hex()}, made at {_time(latest.timestamp)}; final: {final.number}"
    )


def check_proof(
    proof: StateProof | Unproven | None,
    identity: LedgerIdentity,
    head: LedgerHead,
    development: bool,
    tally: Tally,
) -> None:
    """(25) Code, head, height, quorum, charter and federation are in the state of the block that was read."""
    if proof is None:
        tally.add(Status.SKIPPED, "this ledger has no state proofs")
        return
    if isinstance(proof, Unproven):
        # An RPC that lies would rather say nothing, so silence is no pass; a development chain proves nothing anyway.
        tally.add(Status.SKIPPED if development else Status.INCONCLUSIVE, proof.reason)
        return
    try:
        header = read_header(proof.latest.header)
        words = _prove(header, identity.contract, identity.code_hash, proof)
    except RemoteProtocolError as error:
        tally.add(Status.FAIL, str(error))
        return
    for name, expected in expected_words(identity, head).items():
        if words[name] != expected:
            tally.add(
                Status.FAIL,
                f"the chain's state has another {name.strip('_')} than the RPC said: 0x{words[name]:064x}",
            )
    tally.add_pass(len(words))


def expected_words(identity: LedgerIdentity, head: LedgerHead) -> dict[str, int]:
    """What the contract's storage holds if all is as it was said, by the names of `SLOTS`."""
    federation = federation_id(identity.charter_digest, identity.chain_id, identity.contract)
    return {
        "head": int.from_bytes(head.digest, "big"),
        "federation": int.from_bytes(federation, "big"),
        "charter_digest": int.from_bytes(identity.charter_digest, "big"),
        "founded_at": identity.founded_at,
        "_position": identity.quorum << 64 | head.height,
    }


def _read(what: str, shown: BlockShown, number: int) -> Header:
    header = read_header(shown.header)
    if header.hash != shown.hash:
        raise RemoteProtocolError(
            f"{what} is shown as 0x{shown.hash.hex()}, but its header hashes to 0x{header.hash.hex()}"
        )
    if header.number != number:
        raise RemoteProtocolError(f"{what} is number {number}, but its header says {header.number}")
    return header


def _prove(header: Header, contract: bytes, code_hash: Digest, proof: StateProof) -> Mapping[str, int]:
    """The words of storage that the proof shows, by name."""
    account = trie.prove(header.state_root, contract, proof.account)
    fields = rlp.decode(account) if account is not None else None
    if not isinstance(fields, list) or len(fields) != 4:
        raise RemoteProtocolError("the chain's state has no contract at the address")
    _, _, storage_root, code = fields
    if code != code_hash:
        raise RemoteProtocolError("the chain's state has other code at the address than the RPC showed")
    if not isinstance(storage_root, bytes):
        raise RemoteProtocolError("the chain's state has no contract at the address")
    return {name: _word(storage_root, slot, proof.slots.get(name, ())) for name, slot in SLOTS.items()}


def _word(storage_root: Digest, slot: int, nodes: tuple[bytes, ...]) -> int:
    value = trie.prove(storage_root, slot.to_bytes(32, "big"), nodes)
    return 0 if value is None else rlp.decode_int(rlp.decode(value))


def _time(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return f"{seconds} s after 1970"
