"""What the archive keeps of a round besides its payloads: enough for an outsider to check it."""

from typing import Annotated

import msgspec

from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.messages import Certificate, Few, Opening, Signed, Unmasking, encode

MAX_RECORD = 16 * 1024 * 1024
"""Bytes of the largest record that is read (256 members need about 0.5 MB)."""


class RoundRecord(
    msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="folkmoot/v1/record"
):
    """Roster, survivors' commitments (ascending by member), certificate, opening, attestations and the model's name.

    In secure mode also what takes the masks off.
    """

    roster: Signed
    commitments: Annotated[tuple[Signed, ...], Few]
    certificate: Certificate
    opening: Opening
    attestations: Annotated[tuple[Signed, ...], Few]
    model: BlobRef
    unmasking: Unmasking | None = None


_decoder = msgspec.msgpack.Decoder(RoundRecord)


def encode_record(record: RoundRecord) -> bytes:
    """The canonical bytes, as kept in the archive."""
    return encode(record)


def decode_record(data: bytes) -> RoundRecord:
    """Strictly parse a record; raises `RemoteProtocolError`."""
    if len(data) > MAX_RECORD:
        raise RemoteProtocolError(f"record of {len(data)} bytes, the limit is {MAX_RECORD}")
    try:
        record = _decoder.decode(data)
        canonical = encode(record) == data
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteProtocolError(f"undecodable round record: {error}") from error
    if not canonical:
        raise RemoteProtocolError("round record is not in canonical form")
    return record
