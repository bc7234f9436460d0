"""Reading the contract's words: agreement with web3's encoder, and strictness."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from web3 import Web3

from folkmoot.ledger import codec
from folkmoot.ledger.build import contract_build, expected_code_hash
from folkmoot.ledger.calldata import decode_call, encode_call
from folkmoot.ledger.calls import Finalize
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.messages import Statement
from folkmoot.protocol.typed_data import keccak256

CONTRACT: Any = Web3().eth.contract(abi=contract_build().abi)

words = st.binary(min_size=32, max_size=32)
statements = st.builds(Statement, words, st.integers(0, 2**63 - 1), words, words, words, words, words, words)
signature_lists = st.lists(st.binary(min_size=64, max_size=64), max_size=31)


def encode(statement: Statement, signatures: list[bytes]) -> bytes:
    fields = tuple(getattr(statement, name) for name in statement.__struct_fields__)
    pairs = [(signature[:32], signature[32:]) for signature in signatures]
    return bytes.fromhex(CONTRACT.encode_abi("finalize", args=[fields, pairs])[2:])


@given(statements, signature_lists)
def test_input_written_by_web3_is_read_back(statement: Statement, signatures: list[bytes]) -> None:
    call = Finalize(statement, tuple(signatures))
    assert encode_call(call) == encode(statement, signatures)
    assert decode_call(encode(statement, signatures)) == call


@given(statements, signature_lists, st.data())
def test_damaged_input_raises_only_remote_errors(
    statement: Statement, signatures: list[bytes], data: st.DataObject
) -> None:
    call = bytearray(encode(statement, signatures))
    for _ in range(data.draw(st.integers(1, 4))):
        call[data.draw(st.integers(0, len(call) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(call[: data.draw(st.integers(0, len(call)))])
    try:
        decoded = decode_call(cut)
    except RemoteProtocolError:
        return
    assert isinstance(decoded, Finalize)
    assert all(len(signature) == 64 for signature in decoded.signatures)


@given(statements, words, st.binary(min_size=20, max_size=20))
def test_events_are_read(statement: Statement, digest: bytes, submitter: bytes) -> None:
    topics = [codec.FINALIZED_TOPIC, statement.round.to_bytes(32, "big"), digest, statement.model]
    parts = [statement.previous, statement.config, statement.base, statement.survivors, statement.archive]
    data = b"".join([*parts, submitter.rjust(32, b"\0")])
    assert codec.decode_finalized(statement.federation, topics, data) == (statement, digest, submitter)
    for bad_topics, bad_data in (
        (topics[:3], data),
        ([digest, *topics[1:]], data),
        (topics, data[:-32]),
        (topics, b""),
    ):
        with pytest.raises(RemoteProtocolError):
            codec.decode_finalized(statement.federation, bad_topics, bad_data)
    with pytest.raises(RemoteProtocolError):
        codec.decode_finalized(statement.federation, [topics[0], b"\xff" * 32, *topics[2:]], data)
    with pytest.raises(RemoteProtocolError):
        codec.decode_finalized(statement.federation, topics, data[:-32] + b"\xff" * 32)


def test_the_topic_is_the_abis() -> None:
    events = {item["name"]: item["inputs"] for item in contract_build().abi if item["type"] == "event"}
    for name, topic in (
        ("Finalized", codec.FINALIZED_TOPIC),
        ("Attested", codec.ATTESTED_TOPIC),
        ("Amended", codec.AMENDED_TOPIC),
    ):
        types = ",".join(field["type"] for field in events[name])
        assert keccak256(f"{name}({types})".encode()) == topic


def test_address_lists() -> None:
    head = (32).to_bytes(32, "big")
    two = b"\x01" * 20, b"\x02" * 20
    body = b"".join(address.rjust(32, b"\0") for address in two)
    assert codec.decode_addresses(head + (2).to_bytes(32, "big") + body) == two
    assert codec.decode_addresses(head + bytes(32)) == ()
    for bad in (
        b"",
        head,
        head + (3).to_bytes(32, "big") + body,
        body,
        head + (2).to_bytes(32, "big") + b"\xff" * 64,
    ):
        with pytest.raises(RemoteProtocolError):
            codec.decode_addresses(bad)


def test_the_shipped_build() -> None:
    build = contract_build()
    assert build.compiler == "vyper 0.4.3"
    assert len(expected_code_hash()) == 32
    for name in ("finalize", "head", "height", "quorum", "attesters", "federation", "charter_digest"):
        assert len(build.selector(name)) == 4
    with pytest.raises(KeyError):
        build.selector("mint")
