"""Calls as transactions carry them: agreement with web3's encoder, and strictness."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from web3 import Web3

from folkmoot.ledger.build import contract_build
from folkmoot.ledger.calldata import (
    decode_call,
    encode_call,
    encode_deployment,
    encode_enrolment,
)
from folkmoot.ledger.calls import REPORTED, Amend, Attest, Call, Checkpoint, Finalize, Report
from folkmoot.ledger.identity import Founding
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.governance import Amendment
from folkmoot.protocol.messages import Lock, Signed, Statement, Vote
from folkmoot.protocol.typed_data import TYPES, encode_words

CONTRACT: Any = Web3().eth.contract(abi=contract_build().abi, bytecode=contract_build().creation_code)

words = st.binary(min_size=32, max_size=32)
numbers = st.integers(0, 2**63 - 1)
statements = st.builds(Statement, words, numbers, words, words, words, words, words, words)
signatures = st.binary(min_size=64, max_size=64)
quorums = st.lists(signatures, max_size=31).map(tuple)
amendments = st.builds(
    Amendment, words, numbers, words, words, words, numbers, numbers, st.lists(words, max_size=64).map(tuple)
)
votes = st.builds(Vote, words, numbers, st.integers(0, 2**32 - 1), words)
locks = st.builds(Lock, words, numbers, st.integers(0, 2**32 - 1), words, words)
readable = st.one_of(
    st.builds(Finalize, statements, quorums),
    st.builds(Checkpoint, st.lists(statements, max_size=32).map(tuple), quorums),
    st.builds(Amend, amendments, quorums),
)
attests = st.builds(Attest, statements, signatures)
reports = st.one_of(
    *(
        st.builds(
            Report,
            st.builds(Signed, st.just(0), bodies, signatures),
            st.builds(Signed, st.just(0), bodies, signatures),
        )
        for bodies in (votes, locks, statements)
    )
)


def by_web3(call: Call) -> bytes:
    """The same, by an encoder that is not ours."""
    name = type(call).__name__.lower()
    return bytes.fromhex(CONTRACT.encode_abi(name, args=_arguments(call))[2:])


def _arguments(call: Call) -> list[Any]:
    match call:
        case Finalize(statement, signed):
            return [msgspec.structs.astuple(statement), _pairs(signed)]
        case Attest(statement, signature):
            return [msgspec.structs.astuple(statement), *_pairs((signature,))]
        case Checkpoint(several, signed):
            return [[msgspec.structs.astuple(one) for one in several], _pairs(signed)]
        case Amend(amendment, signed):
            return [msgspec.structs.astuple(amendment), _pairs(signed)]
        case Report(first, second):
            kind = REPORTED.index(type(first.body).__name__)
            bodies = [list(encode_words(one.body)) for one in (first, second)]
            return [kind, *bodies, *_pairs((first.signature, second.signature))]


def _pairs(signed: tuple[bytes, ...]) -> list[tuple[bytes, bytes]]:
    return [(one[:32], one[32:]) for one in signed]


@given(st.one_of(readable, attests, reports))
def test_calls_are_written_as_web3_writes_them(call: Call) -> None:
    assert encode_call(call) == by_web3(call)


@given(readable)
def test_what_was_called_is_read_back(call: Call) -> None:
    assert decode_call(encode_call(call)) == call


@given(attests)
def test_of_an_attestation_the_events_tell_all(call: Attest) -> None:
    assert decode_call(encode_call(call)) is None


@given(readable, st.data())
def test_damaged_input_raises_only_remote_errors(call: Call, data: st.DataObject) -> None:
    damaged = bytearray(encode_call(call))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(damaged[: data.draw(st.integers(0, len(damaged)))])
    try:
        read = decode_call(cut)
    except RemoteProtocolError:
        return
    assert read is None or all(len(signature) == 64 for signature in read.signatures)


def test_another_call_is_not_read() -> None:
    for data in (b"", bytes(4), contract_build().selector("report") + bytes(320)):
        with pytest.raises(RemoteProtocolError, match="not a call"):
            decode_call(data)


def test_the_founding_is_written_as_web3_writes_it() -> None:
    attesters, others = (tuple(bytes([start + one]) * 20 for one in range(3)) for start in (1, 10))
    founding = Founding(bytes(32), attesters, 50, others)
    expected = CONTRACT.constructor(bytes(32), list(attesters), 3, 50).data_in_transaction
    assert encode_deployment(founding) == bytes.fromhex(expected[2:])
    enrolment = CONTRACT.encode_abi("enrol", args=[list(others)])
    assert encode_enrolment(others) == bytes.fromhex(enrolment[2:])


def test_every_type_that_can_be_reported_is_known() -> None:
    assert set(REPORTED) | {"Amendment"} == {text.partition("(")[0] for text in TYPES}
