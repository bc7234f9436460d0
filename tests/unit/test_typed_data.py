"""EIP-712 hashing, against an implementation that is not ours."""

from typing import Any

import msgspec
import pytest
from eth_account.messages import encode_typed_data
from eth_utils import keccak
from msgspec.structs import asdict

from folkmoot.protocol import governance, messages, typed_data
from folkmoot.protocol.errors import LocalProtocolError, RemoteProtocolError
from folkmoot.protocol.typed_data import TYPES, Domain, signing_digest, struct_hash

DOMAIN = Domain(chain_id=31337, contract=bytes(range(20)))


def parsed(type_string: str) -> tuple[str, list[dict[str, str]]]:
    name, _, inside = type_string[:-1].partition("(")
    fields = [member.split(" ") for member in inside.split(",")]
    return name, [{"type": kind, "name": field} for kind, field in fields]


def struct_named(name: str) -> type[msgspec.Struct]:
    found: type[msgspec.Struct] = getattr(messages, name, None) or getattr(governance, name)
    return found


def example(name: str, fields: list[dict[str, str]]) -> msgspec.Struct:
    values: dict[str, Any] = {}
    for place, field in enumerate(fields, start=1):
        word = bytes([place]) * 32
        others = {"bytes32[]": (word, bytes(32)), "bytes": word[:17]}
        values[field["name"]] = (
            place * 1001 if field["type"].startswith("uint") else others.get(field["type"], word)
        )
    return struct_named(name)(**values)


@pytest.mark.parametrize("type_string", TYPES, ids=lambda text: text.partition("(")[0])
def test_digest_is_that_of_eth_account(type_string: str) -> None:
    name, fields = parsed(type_string)
    obj = example(name, fields)
    theirs = encode_typed_data(
        full_message={
            "types": {
                "EIP712Domain": [
                    {"name": "name", "type": "string"},
                    {"name": "version", "type": "string"},
                    {"name": "chainId", "type": "uint256"},
                    {"name": "verifyingContract", "type": "address"},
                ],
                name: fields,
            },
            "primaryType": name,
            "domain": {
                "name": "Folkmoot",
                "version": "1",
                "chainId": DOMAIN.chain_id,
                "verifyingContract": "0x" + DOMAIN.contract.hex(),
            },
            "message": {
                key: list(value) if isinstance(value, tuple) else value for key, value in asdict(obj).items()
            },
        }
    )
    assert struct_hash(obj) == theirs.body
    assert typed_data.domain_separator(DOMAIN) == theirs.header
    assert signing_digest(DOMAIN, obj) == keccak(b"\x19" + theirs.version + theirs.header + theirs.body)


@pytest.mark.parametrize("type_string", TYPES, ids=lambda text: text.partition("(")[0])
def test_type_string_names_the_fields_of_the_message_in_order(type_string: str) -> None:
    name, fields = parsed(type_string)
    assert struct_named(name).__struct_fields__ == tuple(field["name"] for field in fields)


def test_keccak_is_not_sha3() -> None:
    assert (
        typed_data.keccak256(b"").hex() == "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"
    )


def test_a_field_that_does_not_fit_is_the_senders_fault() -> None:
    good = messages.Vote(federation=bytes(32), round=1, attempt=0, survivors=bytes(32))
    for change in (
        {"federation": bytes(31)},
        {"federation": "0" * 32},
        {"round": 2**64},
        {"round": -1},
        {"round": True},
        {"attempt": 2**32},
        {"survivors": 7},
    ):
        with pytest.raises(RemoteProtocolError, match="Vote"):
            struct_hash(msgspec.structs.replace(good, **change))


def test_a_class_without_a_type_is_our_fault() -> None:
    with pytest.raises(LocalProtocolError, match="Enter"):
        struct_hash(messages.Enter(round=1, attempt=0))


def test_an_impossible_domain_is_our_fault() -> None:
    vote = messages.Vote(federation=bytes(32), round=1, attempt=0, survivors=bytes(32))
    for domain in (Domain(-1, bytes(20)), Domain(2**256, bytes(20)), Domain(1, bytes(19))):
        with pytest.raises(LocalProtocolError):
            signing_digest(domain, vote)


def test_chain_and_contract_change_the_digest() -> None:
    vote = messages.Vote(federation=bytes(32), round=1, attempt=0, survivors=bytes(32))
    digests = {
        signing_digest(domain, vote)
        for domain in (DOMAIN, Domain(1, DOMAIN.contract), Domain(DOMAIN.chain_id, bytes(20)))
    }
    assert len(digests) == 3
