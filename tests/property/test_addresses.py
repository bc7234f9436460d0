"""Signed addresses: only a member's own newest word counts, and nothing that a peer sends does more than be refused."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from nacl.signing import SigningKey

from folkmoot.node.network.directory import Directory
from folkmoot.protocol.addresses import (
    MAX_ADDRESSES,
    MAX_SIGNED,
    Addresses,
    SignedAddresses,
    check_address,
    decode_addresses,
    is_loopback,
    relay_of,
    sign_addresses,
    verify_addresses,
)
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.messages import encode

FEDERATION = b"\xfe" * 32
KEYS = [SigningKey(bytes([mark]) * 32) for mark in (1, 2, 3)]
NAMES = {bytes(key.verify_key): f"peer{index}" for index, key in enumerate(KEYS)}
HERE = "/ip4/192.0.2.7/tcp/4001"

hosts = st.one_of(
    st.ip_addresses(v=4).map(lambda ip: f"/ip4/{ip}"),
    st.ip_addresses(v=6).map(lambda ip: f"/ip6/{ip}"),
    st.just("/dns4/node.example.org"),
)
anything = st.one_of(
    st.text(max_size=40), st.builds(lambda host, port: f"{host}/tcp/{port}", hosts, st.integers())
)


def word(who: int, sequence: int, *addresses: str) -> SignedAddresses:
    return sign_addresses(KEYS[who], FEDERATION, Addresses(bytes(KEYS[who].verify_key), sequence, addresses))


def directory(me: int = 0, path: Path | None = None, federation: bytes = FEDERATION) -> Directory:
    return Directory(federation, KEYS[me], NAMES, path)


@pytest.mark.parametrize(
    "address",
    [
        HERE,
        "/ip4/10.0.0.9/tcp/1",
        "/ip6/2001:db8::1/tcp/65535",
        "/dns/a.example/tcp/4001",
        "/ip4/127.0.0.1/tcp/9",
    ],
)
def test_addresses_are_taken(address: str) -> None:
    check_address(address)
    assert is_loopback(address) == ("127." in address)


def test_a_circuit_names_its_relay() -> None:
    check_address("/p2p/12D3KooWReLay/p2p-circuit")
    assert relay_of("/p2p/12D3KooWReLay/p2p-circuit") == "12D3KooWReLay"
    assert relay_of(HERE) is None


@pytest.mark.parametrize(
    "address",
    [
        "", "/ip4/192.0.2.7", "/ip4/192.0.2.7/tcp/0", "/ip4/192.0.2.7/tcp/65536", "/ip4/192.0.2.7/tcp/04001",
        "/ip4/192.0.2.7/udp/4001", f"{HERE}/p2p/12D3KooWx", "/ip4/0.0.0.0/tcp/1", "/ip6/::/tcp/1",
        "/ip4/169.254.169.254/tcp/80", "/ip6/fe80::1/tcp/1", "/ip4/224.0.0.1/tcp/1", "/ip4/255.255.255.255/tcp/1",
        "/ip6/::ffff:0.0.0.0/tcp/1", "/ip4/::1/tcp/1", "/ip4/192.0.2.007/tcp/1", "/ip6/2001:DB8::1/tcp/1",
        "/dns/exa mple/tcp/1", "/dns/-x/tcp/1", "/dns/" + 254 * "a" + "/tcp/1", "/p2p/x y/p2p-circuit",
        "/dns4/127.0.0.1/tcp/1", "/dns/0x7f.1/tcp/1", "/dns4/2130706433/tcp/1", "/dns4/127.1./tcp/1",
        "/ip6/2001:db8::1%eth0/tcp/1", "/ip4/192.0.2.7/tcp/1\u0663",
    ],
)  # fmt: skip
def test_what_no_other_host_could_mean_is_refused(address: str) -> None:
    with pytest.raises(RemoteProtocolError):
        check_address(address)
    with pytest.raises(RemoteProtocolError):
        verify_addresses(word(1, 1, address), FEDERATION)


@given(st.lists(anything, max_size=MAX_ADDRESSES + 2), st.integers(-1, 2**63))
def test_a_word_is_taken_back_as_it_was_or_refused(addresses: list[str], sequence: int) -> None:
    data = encode(word(1, sequence, *addresses))
    try:
        signed = decode_addresses(data)
        verify_addresses(signed, FEDERATION)
    except RemoteProtocolError:
        return
    assert encode(signed) == data
    assert len(data) <= MAX_SIGNED and 1 <= sequence < 2**63
    for address in addresses:
        check_address(address)


@given(st.binary(max_size=MAX_SIGNED + 10))
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_addresses(data)


def test_huge_and_changed_words_are_refused() -> None:
    signed = word(1, 1, HERE)
    with pytest.raises(RemoteProtocolError, match="limit"):
        decode_addresses(encode(signed) + bytes(MAX_SIGNED))
    for changed in (
        replace(signed, signature=bytes(64)),
        replace(signed, body=replace(signed.body, sequence=2)),
        replace(signed, body=replace(signed.body, identity=bytes(KEYS[2].verify_key))),
        replace(signed, body=replace(signed.body, addresses=(HERE, HERE))),
        replace(signed, body=replace(signed.body, identity=bytes(32))),
    ):
        with pytest.raises(RemoteProtocolError):
            verify_addresses(changed, FEDERATION)
    with pytest.raises(RemoteProtocolError):
        verify_addresses(signed, bytes(32))  # another federation's


@given(st.lists(st.tuples(st.integers(1, 2), st.integers(1, 5)), max_size=30))
def test_in_whatever_order_words_come_the_newest_counts(heard: list[tuple[int, int]]) -> None:
    mine = directory(me=0)
    for who, sequence in heard:
        mine.take("peer2", [encode(word(who, sequence, f"/ip4/192.0.2.{who + 1}/tcp/{sequence}"))])
    for who in (1, 2):
        newest = max((sequence for one, sequence in heard if one == who), default=0)
        said = mine.addresses(f"peer{who}")
        assert said == ((f"/ip4/192.0.2.{who + 1}/tcp/{newest}",) if newest else ())


def test_a_peer_that_breaks_a_rule_loses_nothing_that_came_before() -> None:
    mine = directory()
    bad = replace(word(2, 1, HERE), signature=bytes(64))
    with pytest.raises(RemoteProtocolError):
        mine.take("peer1", [encode(word(1, 1, HERE)), encode(bad)])
    assert mine.addresses("peer1") == (HERE,) and mine.addresses("peer2") == ()


def test_strangers_are_not_kept_until_they_are_admitted() -> None:
    stranger = SigningKey(b"\x09" * 32)
    key = bytes(stranger.verify_key)
    said = encode(sign_addresses(stranger, FEDERATION, Addresses(key, 1, (HERE,))))
    mine = directory()
    assert mine.take("peer1", [said]) == 0 and mine.addresses("newcomer") == ()
    mine.admit({key: "newcomer"})
    assert mine.knows("newcomer")
    assert mine.take("peer1", [said]) == 1 and mine.addresses("newcomer") == (HERE,)


def test_made_up_identities_take_no_memory() -> None:
    mine = directory()
    said = encode(replace(word(1, 1, HERE), body=Addresses(bytes(32), 1, (HERE,))))
    assert mine.take("peer1", [said]) == 0
    assert not mine._told.get("peer1")


def test_the_number_grows_over_restarts_and_only_with_news(tmp_path: Path) -> None:
    path = tmp_path / "known"
    directory(path=path).announce([HERE])
    again = directory(path=path)
    again.announce([HERE])
    assert [one.body.sequence for one in again.untold("peer1")] == [1]
    again.announce(["/ip4/192.0.2.7/tcp/4002"])
    assert [one.body.sequence for one in directory(path=path).untold("peer1")] == [2]


@pytest.mark.parametrize("before", [True, False])
def test_a_node_that_has_forgotten_its_number_goes_beyond_what_others_remember(before: bool) -> None:
    mine, remembered = directory(), encode(word(0, 7, "/ip4/192.0.2.9/tcp/1"))
    if before:
        mine.announce([HERE])
    mine.take("peer1", [remembered])
    mine.announce([HERE])
    (said,) = mine.untold("peer1")
    assert (said.body.sequence, said.body.addresses) == (8, (HERE,))
    assert mine.take("peer1", [remembered]) == 0


def test_what_is_kept_survives_and_damage_costs_only_the_damaged(tmp_path: Path) -> None:
    path = tmp_path / "known"
    mine = directory(path=path)
    mine.take("peer1", [encode(word(1, 3, HERE)), encode(word(2, 4, HERE))])
    path.write_bytes(path.read_bytes().replace(b"4001", b"4002", 1))
    again = directory(path=path)
    assert sorted([again.addresses("peer1"), again.addresses("peer2")]) == [(), (HERE,)]
    path.write_bytes(b"\x00nonsense")
    assert directory(path=path).untold("peer1") == []
    assert directory(federation=bytes(32), path=path).addresses("peer1") == ()


def test_each_peer_is_told_once_what_it_did_not_say_itself() -> None:
    mine = directory()
    mine.announce([HERE])
    mine.take("peer1", [encode(word(1, 1, HERE))])
    (own,) = mine.untold("peer1")
    assert own.body.identity == bytes(KEYS[0].verify_key)
    assert len(mine.untold("peer2")) == 2
    mine.told("peer2", mine.untold("peer2"))
    assert mine.untold("peer2") == []
    mine.take("peer1", [encode(word(1, 2, HERE))])
    assert [one.body.sequence for one in mine.untold("peer2")] == [2]
    mine.forget_telling("peer2")
    assert len(mine.untold("peer2")) == 2


def test_the_vectors_hold() -> None:
    vectors = json.loads((Path(__file__).parent.parent / "vectors" / "addresses.json").read_text())
    federation = bytes.fromhex(vectors["federation"])
    for case in vectors["cases"]:
        data = bytes.fromhex(case["bytes"])
        if case["problem"]:
            with pytest.raises(RemoteProtocolError):
                verify_addresses(decode_addresses(data), federation)
        else:
            verify_addresses(decode_addresses(data), federation)
