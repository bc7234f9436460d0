"""Where members say that they are: decoded strictly, and checked as a directory does."""

from fuzzing import Target
from nacl.signing import SigningKey

from folkmoot.protocol.addresses import (
    Addresses,
    SignedAddresses,
    decode_addresses,
    sign_addresses,
    verify_addresses,
)
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.messages import encode

FEDERATION = bytes([7]) * 32
KEY = SigningKey(bytes(range(32)))
PLACES = ("/ip4/192.0.2.7/tcp/4001", "/ip6/2001:db8::1/tcp/1", "/dns4/node.example/tcp/65535")


def read(data: bytes) -> None:
    """As it is, and signed by the one member whose key is here: it may lie."""
    found = decode_addresses(data)
    assert encode(found) == data
    if found.body.identity == bytes(KEY.verify_key):
        found = sign_addresses(KEY, FEDERATION, found.body)
    verify_addresses(found, FEDERATION)


def seeds() -> list[bytes]:
    """None, some, and a circuit."""
    lists = [(), PLACES, ("/p2p/12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5/p2p-circuit",)]
    bodies = [
        Addresses(bytes(KEY.verify_key), number, places, relay=bool(places))
        for number, places in enumerate(lists, 1)
    ]
    return [encode(SignedAddresses(body, bytes(64))) for body in bodies]


TARGET = Target("addresses", read, (RemoteProtocolError,), seeds)
