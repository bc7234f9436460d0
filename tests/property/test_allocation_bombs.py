"""Small inputs that claim to be large: refused, and memory grows with the bytes that are there, not with the claim."""

import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from folkmoot.ledger.audit import rlp
from folkmoot.ledger.audit.shown import decode_shown
from folkmoot.ledger.calldata import decode_call, encode_call
from folkmoot.ledger.calls import Finalize
from folkmoot.ledger.codec import WORD
from folkmoot.node.model_file import read_model
from folkmoot.node.network.bulk import decode_request
from folkmoot.node.network.control import FrameDecoder
from folkmoot.protocol.charter_rules import decode_charter, parse_charter
from folkmoot.protocol.codec import VectorDecoder, codec_named
from folkmoot.protocol.errors import FolkmootError
from folkmoot.protocol.messages import MAX_FRAME, Statement, decode_frame
from folkmoot.protocol.record import decode_record
from folkmoot.protocol.ring import CHUNK_VALUES

MEGABYTES = 8
"""More than any refusal below takes; one chunk of float64 values is 2 MB."""

CLAIMS = {
    "array of 2^32-1": b"\xdd" + b"\xff" * 4,
    "map of 2^32-1": b"\xdf" + b"\xff" * 4,
    "bytes of 2^32-1": b"\xc6" + b"\xff" * 4,
    "text of 2^32-1": b"\xdb" + b"\xff" * 4,
    "nested a hundred thousand deep": b"\x91" * 100_000,
    "arrays within arrays": (b"\xdd" + b"\xff" * 4) * 1000,
}
MSGPACK = [decode_frame, decode_charter, decode_record]


def refuse_cheaply(read: Callable[[], object]) -> None:
    """`read` refuses with one of our errors, and never holds much."""
    tracemalloc.start()
    try:
        with pytest.raises(FolkmootError):
            read()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MEGABYTES * 1e6


@pytest.mark.parametrize("claim", CLAIMS)
@pytest.mark.parametrize("read", MSGPACK)
def test_msgpack_that_claims_more_than_is_there(read: Callable[[bytes], object], claim: str) -> None:
    for tag in (b"", b"\x98\xa5ready", b"\x94\xa6signed\x00", b"\x97\xb2folkmoot/v1/record"):
        refuse_cheaply(lambda tag=tag: read(tag + CLAIMS[claim]))


def test_a_charter_with_more_members_than_any_federation() -> None:
    member = '[[members]]\nname = "m%d"\npeer_id = "p%d"\nidentity_key = "%064x"\nsealing_key = "%064x"\n'
    text = "".join((member + 'audit_key = "0x%040x"\n') % ((at,) * 5) for at in range(400))
    refuse_cheaply(lambda: parse_charter(text))


def test_a_control_frame_that_claims_four_gigabytes() -> None:
    refuse_cheaply(lambda: FrameDecoder().feed(struct.pack(">I", 2**32 - 1)))
    refuse_cheaply(lambda: decode_request(b"\xff" * 41))
    refuse_cheaply(lambda: decode_frame(bytes(MAX_FRAME + 1)))


@pytest.mark.parametrize("name", ["f32", "bf16", "int8", "int4", "int2", "top3", "top1"])
@pytest.mark.parametrize("bits", [0x7F80_0000, 0xFF80_0000, 0x7FC0_0000, 0xFFFF_FFFF])
def test_updates_that_are_cut_short_or_hold_no_numbers(name: str, bits: int) -> None:
    """Infinities and NaN; and a whole chunk asked of a few bytes."""
    refuse_cheaply(
        lambda: VectorDecoder(codec_named(name), [b"\x00" * 7]).read(np.empty(CHUNK_VALUES, dtype=np.float64))
    )
    codec = codec_named(name)
    size = codec.encoded_size(64)
    data = (struct.pack(">I", bits) * size)[:size]
    out = np.empty(64)
    try:
        codec.decode(data, out)
    except FolkmootError:
        return
    assert np.isfinite(out).all()


def test_rlp_and_calldata_that_point_far_away() -> None:
    for data in (b"\xbf" + b"\xff" * 8, b"\xff" * 9, b"\xf8" * 100_000, b"\xc1" * 100_000):
        refuse_cheaply(lambda data=data: rlp.decode(data))
    statement = Statement(*[bytes(32), 1, *[bytes(32)] * 6])
    good = encode_call(Finalize(statement, (bytes(64),)))
    for word in (2**32 - 1, 2**64 - 1, 2**256 - 1):
        for at in range(4, len(good), WORD):
            bad = good[:at] + word.to_bytes(WORD, "big") + good[at + WORD :]
            try:
                decode_call(bad)
            except FolkmootError:
                continue


def test_json_nested_too_deep() -> None:
    refuse_cheaply(lambda: decode_shown(b"[" * 100_000))
    refuse_cheaply(lambda: decode_shown(b'{"a":' * 100_000))


@pytest.mark.parametrize("shape", ["[1099511627776]", "[4294967295,4294967295]", "[-1]", "[]"])
def test_a_model_whose_header_claims_a_terabyte(tmp_path: Path, shape: str) -> None:
    header = b'{"w":{"dtype":"F32","shape":%s,"data_offsets":[0,4]}}' % shape.encode()
    path = tmp_path / "model"
    for length in (len(header), 2**63, 2**64 - 1, 100_000_001):
        path.write_bytes(struct.pack("<Q", length) + header + bytes(4))
        refuse_cheaply(lambda: read_model(path))
