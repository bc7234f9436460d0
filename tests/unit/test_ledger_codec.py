"""Reading the contract's words and events, strictly."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot.ledger import codec
from folkmoot.ledger.build import contract_build, expected_code_hash
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.governance import Amendment
from folkmoot.protocol.messages import Statement
from folkmoot.protocol.typed_data import keccak256

words = st.binary(min_size=32, max_size=32)
statements = st.builds(Statement, words, st.integers(0, 2**63 - 1), words, words, words, words, words, words)


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


@given(words, words, words, words, words, st.binary(min_size=20, max_size=20), st.lists(words, max_size=64))
def test_amendments_are_read(
    federation: bytes,
    digest: bytes,
    charter: bytes,
    previous: bytes,
    blob: bytes,
    submitter: bytes,
    changes: list[bytes],
) -> None:
    amendment = Amendment(federation, 7, previous, charter, blob, 5000, 60, tuple(changes))
    topics = [codec.AMENDED_TOPIC, (7).to_bytes(32, "big"), digest, charter]
    numbers = [number.to_bytes(32, "big") for number in (5000, 60, 192, len(changes))]
    head = [previous, blob, *numbers[:2], submitter.rjust(32, b"\0"), *numbers[2:]]
    data = b"".join([*head, *changes])
    assert codec.decode_amended(federation, topics, data) == (amendment, digest, submitter)
    for bad_topics, bad_data in (
        (topics[:3], data),
        (topics, data[:192]),
        (topics, data + bytes(32)),
        (topics, data[:-1]),
    ):
        with pytest.raises(RemoteProtocolError):
            codec.decode_amended(federation, bad_topics, bad_data)


@given(words, words, words, st.binary(min_size=20, max_size=20))
def test_attestations_are_read(digest: bytes, r: bytes, vs: bytes, attester: bytes) -> None:
    topics = [codec.ATTESTED_TOPIC, bytes(32), digest, attester.rjust(32, b"\0")]
    assert codec.decode_attested(topics, r + vs) == (digest, attester, r + vs)
    for bad_topics, bad_data in ((topics[:3], r + vs), (topics, r), ([digest, *topics[1:]], r + vs)):
        with pytest.raises(RemoteProtocolError):
            codec.decode_attested(bad_topics, bad_data)


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
