"""The wire: golden bytes, and strict reading of everything else. (`test_vectors.py` holds the files to the code.)"""

import json
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace
from small_federation import SmallFederation, mark

from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.messages import (
    MAX_FRAME,
    Enter,
    Frame,
    Hello,
    Ready,
    Roster,
    Signed,
    body_digest,
    decode_frame,
    encode,
    roster_digest,
    round_of,
)
from folkmoot.protocol.signing import identity_preimage
from folkmoot.testnet.sample_messages import ROSTER, SAMPLES

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "messages.json").read_text())
GOLDEN = {vector["name"]: bytes.fromhex(vector["bytes"]) for vector in VECTORS["frames"]}

town = SmallFederation(4)


@pytest.mark.parametrize("name", SAMPLES)
def test_golden_bytes_decode_to_the_sample_and_back(name: str) -> None:
    assert decode_frame(GOLDEN[name]) == SAMPLES[name]
    assert encode(SAMPLES[name]) == GOLDEN[name]


def test_there_is_a_sample_of_every_frame_and_every_body() -> None:
    frames = {type(frame) for frame in SAMPLES.values()}
    assert frames == set(Frame.__args__)
    bodies = {type(frame.body).__name__ for frame in SAMPLES.values() if isinstance(frame, Signed)}
    assert bodies | {"Proposal"} == {kind.__name__ for kind in Signed.__annotations__["body"].__args__}


def test_frames_without_a_body_are_arrays_that_begin_with_their_kind() -> None:
    assert encode(Hello(3, 1, 2)) == b"\x94\xa5hello\x03\x01\x02"
    assert msgspec.msgpack.decode(GOLDEN["recall"]) == ["recall"]


# --- strict reading -----------------------------------------------------------------------------------------------

HELLO = encode(Hello(3, 1, 2))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc0",
        HELLO[:-1],
        HELLO + b"\x00",
        b"\x95" + HELLO[1:] + b"\x00",  # one field too many
        b"\x93" + HELLO[1:-1],  # one too few
        HELLO.replace(b"hello", b"hullo"),
        b"\x94\xa5hello\xcc\x03\x01\x02",  # 3 in two bytes
        b"\x94\xa5hello\xff\x01\x02",  # -1
        b"\x94\xa5hello\xcf\x80\x00\x00\x00\x00\x00\x00\x00\x01\x02",  # 2^63
        b"\x94\xd9\x05hello\x03\x01\x02",  # a longer string header
        b"\xdc\x00\x04" + HELLO[1:],  # a longer array header
        b"\x94\xc4\x05hello\x03\x01\x02",  # bytes for a string
        b"\x94\xa5hello\x03\x01\xcb\x40\x00\x00\x00\x00\x00\x00\x00",  # 2.0
        b"\x94\xa5hello\x03\x01\xc3",  # true
        b"\x84" + HELLO[1:],  # a map
        b"\xff" * 64,
    ],
)
def test_anything_else_than_the_canonical_form_is_refused(data: bytes) -> None:
    assert decode_frame(HELLO) == Hello(3, 1, 2)
    with pytest.raises(RemoteProtocolError):
        decode_frame(data)


@pytest.mark.parametrize("name", SAMPLES)
def test_no_prefix_of_a_frame_is_a_frame(name: str) -> None:
    data = GOLDEN[name]
    for end in range(len(data)):
        with pytest.raises(RemoteProtocolError):
            decode_frame(data[:end])


def test_digests_and_signatures_have_one_length() -> None:
    vote = town.vote(1, town.survivors(town.roster()))
    for wrong in (
        replace(vote, signature=bytes(63)),
        replace(vote, signature=bytes(65)),
        town.vote(1, town.survivors(town.roster()), federation=bytes(31)),
    ):
        with pytest.raises(RemoteProtocolError, match="length"):
            decode_frame(encode(wrong))


def test_too_large_a_frame_is_refused_unread() -> None:
    with pytest.raises(RemoteProtocolError, match=f"the limit is {MAX_FRAME}"):
        decode_frame(bytes(MAX_FRAME + 1))


def test_too_many_of_anything_are_refused() -> None:
    body = SAMPLES["receipt"].body  # type: ignore[union-attr]
    with pytest.raises(RemoteProtocolError):
        decode_frame(encode(town.sign(1, replace(body, held=(mark(1),) * 257))))


def nested_roster(depth: int) -> bytes:
    """Rosters of rosters, which no constructor makes."""
    inner = GOLDEN["roster"]
    body = msgspec.msgpack.decode(inner)
    for _ in range(depth):
        outer = msgspec.msgpack.decode(inner)
        outer[2][4] = [body]
        body = outer
    return msgspec.msgpack.encode(body)


@pytest.mark.parametrize("depth", [1, 2, 50, 200])
def test_rosters_do_not_hold_rosters(depth: int) -> None:
    """What can be nested without end makes some later encoder run out of stack, out of reach of a handler."""
    assert decode_frame(nested_roster(0)) == SAMPLES["roster"]
    with pytest.raises(RemoteProtocolError):
        decode_frame(nested_roster(depth))
    with pytest.raises(ValueError, match="READYs only"):
        replace(ROSTER, readies=(town.enter(1, 2),))


# --- names --------------------------------------------------------------------------------------------------------


def test_a_roster_is_named_with_its_proposer() -> None:
    assert roster_digest(1, ROSTER) != roster_digest(2, ROSTER)
    assert roster_digest(1, ROSTER) != roster_digest(1, replace(ROSTER, attempt=2))
    assert roster_digest(1, ROSTER).hex() == VECTORS["roster_digest"]["digest"]


def test_bodies_of_different_kinds_never_share_a_digest() -> None:
    assert body_digest(Enter(1, 2)) != body_digest(Roster(1, 2, mark(1), (), b""))


def test_what_the_identity_key_signs_begins_with_kind_and_federation() -> None:
    ready = SAMPLES["ready"]
    assert isinstance(ready, Signed) and isinstance(ready.body, Ready)
    preimage = identity_preimage(mark(1), ready.body)
    assert preimage == b"folkmoot/v1/ready\n" + mark(1) + encode(ready.body)


@pytest.mark.parametrize("name", SAMPLES)
def test_the_round_of_a_frame(name: str) -> None:
    expected = {"recall": 0, "evidence": 0, "key wanted": 0, "key shared": 0, "recalled": 1}.get(name, 2)
    assert round_of(SAMPLES[name]) == expected


def test_a_final_without_attestations_is_of_no_round() -> None:
    final = replace(SAMPLES["final"], attestations=())
    assert round_of(final) == 0
