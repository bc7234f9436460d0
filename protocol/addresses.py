"""Where a member can be reached, in its own words: signed, so that anybody may hand it on.

The newest word counts: a member numbers what it says, and the number only grows. A member is named by its identity key
and not by its index, so that its word outlives a change of the charter. What is not its own (replayed older, another
federation's, another signer's) is refused here; whether to believe an address is up to who dials: the handshake shows
who answers.
"""

import ipaddress
import re
from typing import Annotated

import msgspec
from msgspec import Meta
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.messages import Bytes32, Bytes64, encode
from folkmoot.protocol.types import Digest

MAX_ADDRESSES = 8
"""Addresses that one member may announce."""

MAX_ADDRESS = 256
"""Characters of the longest address."""

MAX_SIGNED = 2560
"""Bytes of the largest signed announcement: what is longer is refused before it is parsed."""

_ADDRESS = re.compile(r"/(ip4|ip6|dns|dns4|dns6)/([^/\s]+)/tcp/(0|[1-9][0-9]{0,4})")
_CIRCUIT = re.compile(r"/p2p/([1-9A-HJ-NP-Za-km-z]{1,128})/p2p-circuit")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}")
_NUMBER = re.compile(r"(.*\.)?([0-9]+|0[xX][0-9A-Fa-f]*)\.?")
"""What resolvers take for an IPv4 address, however it is written."""


class Addresses(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="addresses"):
    """Here I can be reached, best first; nothing of what I said under a smaller `sequence` holds any more.

    Each address is `/ip4|ip6|dns|dns4|dns6/HOST/tcp/PORT`, or `/p2p/PEER/p2p-circuit`: through that member.
    """

    identity: Bytes32
    """The public identity key of the member that is meant, and that signs."""
    sequence: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    addresses: Annotated[
        tuple[Annotated[str, Meta(max_length=MAX_ADDRESS)], ...], Meta(max_length=MAX_ADDRESSES)
    ]
    relay: bool = False
    """Whether the member passes on what others send each other through it."""


class SignedAddresses(
    msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="signed-addresses"
):
    """A member's word with its Ed25519 signature."""

    body: Addresses
    signature: Bytes64


_decoder = msgspec.msgpack.Decoder(SignedAddresses)


def addresses_preimage(federation: Digest, body: Addresses) -> bytes:
    """What the identity key signs: type line, federation, body."""
    return b"folkmoot/v1/addresses\n" + federation + encode(body)


def sign_addresses(key: SigningKey, federation: Digest, body: Addresses) -> SignedAddresses:
    """The same bytes for the same body: Ed25519 is deterministic."""
    return SignedAddresses(body, key.sign(addresses_preimage(federation, body)).signature)


def verify_addresses(signed: SignedAddresses, federation: Digest) -> None:
    """Raise `RemoteProtocolError` unless all addresses are usable ones and the named identity has signed them."""
    body = signed.body
    # [REJECT] Each address is one, and named once
    for address in body.addresses:
        check_address(address)
    if len(set(body.addresses)) != len(body.addresses):
        raise RemoteProtocolError("an address is announced twice")
    # [REJECT] It is the member's own word, for this federation
    try:
        VerifyKey(body.identity).verify(addresses_preimage(federation, body), signed.signature)
    except (BadSignatureError, ValueError) as error:
        raise RemoteProtocolError("addresses that the member they belong to has not signed") from error


def decode_addresses(data: bytes) -> SignedAddresses:
    """Strictly parse one member's word; raises `RemoteProtocolError` on what `encode` would not have written."""
    if len(data) > MAX_SIGNED:
        raise RemoteProtocolError(f"announced addresses of {len(data)} bytes, the limit is {MAX_SIGNED}")
    try:
        signed = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RemoteProtocolError(f"undecodable addresses: {error}") from error
    if encode(signed) != data:
        raise RemoteProtocolError("announced addresses are not in canonical form")
    return signed


def check_address(address: str) -> None:
    """Raise `RemoteProtocolError` for what is no address, or one that no other host could mean."""
    if relay_of(address) is not None:
        return
    match = _ADDRESS.fullmatch(address)
    if match is None or not 0 < int(match[3]) <= 65_535:
        raise RemoteProtocolError(f"{address!r} is no address like /ip4/192.0.2.7/tcp/4001")
    kind, host = match[1], match[2]
    if kind.startswith("dns"):
        if _NAME.fullmatch(host) is None or _NUMBER.fullmatch(host) is not None:
            raise RemoteProtocolError(f"{address!r}: {host!r} is no host's name")
    else:
        _check_ip(address, host, 4 if kind == "ip4" else 6)


def _check_ip(address: str, host: str, version: int) -> None:
    try:
        ip = ipaddress.ip_address(host)
    except ValueError as error:
        raise RemoteProtocolError(f"{address!r}: {host!r} is no IP address") from error
    if ip.version != version or str(ip) != host:
        raise RemoteProtocolError(f"{address!r}: write the IP address as {ip} and of the kind that is named")
    inner = getattr(ip, "ipv4_mapped", None) or ip
    if (
        inner.is_unspecified
        or inner.is_multicast
        or inner.is_link_local
        or "%" in host
        or (version == 4 and inner.is_reserved)
    ):
        raise RemoteProtocolError(f"{address!r}: {host} means something else on every host")


def relay_of(address: str) -> str | None:
    """The peer id of the member through which a circuit address leads; None of any other address."""
    match = _CIRCUIT.fullmatch(address)
    return match[1] if match else None


def is_loopback(address: str) -> bool:
    """Whether an address leads back to the host that dials it."""
    match = _ADDRESS.fullmatch(address)
    if match is None or match[1].startswith("dns"):
        return match is not None and match[2].rstrip(".").lower() == "localhost"
    ip = ipaddress.ip_address(match[2])
    return (getattr(ip, "ipv4_mapped", None) or ip).is_loopback
