"""EIP-712: hashing and signing of what may have to be shown on the chain.

Specification: https://eips.ethereum.org/EIPS/eip-712. The contract computes the same hashes in its own
language, so the type strings below are fixed for ever. Used are atomic types (`bytesN`, `uintN`), arrays of
them and `bytes`: each is one 32-byte word. This is the only file that uses Keccak-256.
"""

import re
from functools import lru_cache

import msgspec
from Crypto.Hash import keccak

from folkmoot.protocol.errors import LocalProtocolError, RemoteProtocolError

TYPES = (
    "Statement(bytes32 federation,uint64 round,bytes32 previous,bytes32 config,bytes32 base,"
    "bytes32 survivors,bytes32 model,bytes32 archive)",
    "Commitment(bytes32 federation,uint64 round,bytes32 roster,uint32 member,"
    "bytes32 root,uint64 size,bytes32 key,bytes32[] shards,bytes32[] shares,bytes32[] seeds)",
    "Proposal(bytes32 federation,uint64 round,uint32 attempt,bytes32 survivors,bytes32 omitted)",
    "Vote(bytes32 federation,uint64 round,uint32 attempt,bytes32 survivors)",
    "Lock(bytes32 federation,uint64 round,uint32 attempt,bytes32 survivors,bytes32 sums)",
    "Sum(bytes32 federation,uint64 round,bytes32 survivors,uint32 shard,bytes32 root,uint64 size)",
    "Fingerprint(bytes32 federation,uint64 round,uint32 attempt,bytes32 survivors,bytes32 sums,bytes values)",
    "Amendment(bytes32 federation,uint64 number,bytes32 previous,bytes32 charter,bytes32 blob,"
    "uint64 size,uint64 effective,bytes32[] changes)",
)
"""Every struct that can be signed, as EIP-712 writes it.

A struct of `messages.py` or `governance.py` has the same name and fields.
"""

DOMAIN_NAME = "Folkmoot"
DOMAIN_VERSION = "1"
_DOMAIN_TYPE = b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"


def keccak256(data: bytes) -> bytes:
    """Keccak-256 as Ethereum uses it (not the padding of NIST SHA3-256)."""
    return keccak.new(digest_bits=256, data=data).digest()


class Domain(msgspec.Struct, frozen=True):
    """The ledger that a signature is for: chain id (uint256) and contract address (20 bytes)."""

    chain_id: int
    contract: bytes


def domain_separator(domain: Domain) -> bytes:
    """EIP-712 `domainSeparator` of name "Folkmoot", version "1".

    Raises LocalProtocolError on an impossible domain.
    """
    if not 0 <= domain.chain_id < 2**256 or len(domain.contract) != 20:
        raise LocalProtocolError(
            f"no such ledger: chain id {domain.chain_id}, contract 0x{domain.contract.hex()}"
        )
    return _separator(domain)


def struct_hash(obj: object) -> bytes:
    """EIP-712 `hashStruct` of an object whose class is in `TYPES`; raises as `encode_words`."""
    words = encode_words(obj)
    return keccak256(_LAYOUTS[type(obj).__name__].type_hash + b"".join(words))


def encode_words(obj: object) -> tuple[bytes, ...]:
    """EIP-712 `encodeData`: one word of 32 bytes for each field.

    Raises LocalProtocolError for a class that is not in `TYPES`, and RemoteProtocolError for a field that does not fit
    its type (objects come from peers).
    """
    name = type(obj).__name__
    layout = _LAYOUTS.get(name)
    if layout is None:
        raise LocalProtocolError(f"{name} is not signed as typed data: known are {', '.join(_LAYOUTS)}")
    return tuple(_word(kind, getattr(obj, field), f"{name}.{field}") for kind, field in layout.fields)


def signing_digest(domain: Domain, obj: object) -> bytes:
    """The 32 bytes that the audit key signs for an object of `TYPES`."""
    return signing_digest_of(domain, struct_hash(obj))


def signing_digest_of(domain: Domain, struct: bytes) -> bytes:
    """The same from a struct hash: keccak256(0x19 0x01 || domain separator || struct hash)."""
    return keccak256(b"\x19\x01" + domain_separator(domain) + struct)


class _Layout(msgspec.Struct, frozen=True):
    """A parsed type string: its hash and its (type, name) pairs."""

    type_hash: bytes
    fields: tuple[tuple[str, str], ...]


def _parse(type_string: str) -> tuple[str, _Layout]:
    name, _, inside = type_string.rstrip(")").partition("(")
    fields = tuple((kind, field) for kind, field in (member.split(" ") for member in inside.split(",")))
    return name, _Layout(keccak256(type_string.encode()), fields)


def _word(kind: str, value: object, where: str) -> bytes:
    """One value as the 32-byte word of EIP-712 `encodeData`."""
    if kind.endswith("[]") and isinstance(value, tuple):
        return keccak256(b"".join(_word(kind.removesuffix("[]"), one, where) for one in value))
    if kind == "bytes" and isinstance(value, bytes):
        return keccak256(value)
    match = re.fullmatch(r"(bytes|uint)(\d+)", kind)
    if match is None:
        raise LocalProtocolError(f"{where}: type {kind} is not one of bytesN, uintN, arrays of them, bytes")
    size = int(match[2])
    if match[1] == "bytes" and isinstance(value, bytes) and len(value) == size:
        return value.ljust(32, b"\x00")
    if match[1] == "uint" and type(value) is int and 0 <= value < 1 << size:
        return value.to_bytes(32, "big")
    raise RemoteProtocolError(f"{where} is not a {kind}: {value!r}")


@lru_cache(maxsize=16)
def _separator(domain: Domain) -> bytes:
    return keccak256(
        keccak256(_DOMAIN_TYPE)
        + keccak256(DOMAIN_NAME.encode())
        + keccak256(DOMAIN_VERSION.encode())
        + domain.chain_id.to_bytes(32, "big")
        + domain.contract.rjust(32, b"\x00")
    )


_LAYOUTS = dict(_parse(type_string) for type_string in TYPES)
