"""RFC 6962 trees: the published vectors, and what a verifier must refuse."""

from hashlib import sha256

import pytest

from folkmoot.protocol import merkle
from folkmoot.protocol.errors import LocalProtocolError, RemoteProtocolError

# The inputs and roots of the reference implementation (google/certificate-transparency, merkle_tree_test).
INPUTS = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
LEAVES = [merkle.leaf_hash(data) for data in INPUTS]


def recursive_root(leaves: list[bytes]) -> bytes:
    """The definition in RFC 6962, 2.1, word for word."""
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    return sha256(b"\x01" + recursive_root(leaves[:split]) + recursive_root(leaves[split:])).digest()


def test_empty_tree_is_the_hash_of_nothing() -> None:
    assert merkle.root([]) == sha256(b"").digest()


@pytest.mark.parametrize("size", range(1, 9))
def test_published_roots(size: int) -> None:
    assert merkle.root(LEAVES[:size]).hex() == ROOTS[size - 1]


def test_published_inclusion_proof() -> None:
    # Leaf 5 of 8 in the reference tests (counted from 0).
    assert [entry.hex() for entry in merkle.inclusion_proof(LEAVES, 5)] == [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]


def test_level_by_level_is_the_recursive_definition() -> None:
    leaves = [merkle.leaf_hash(bytes([i])) for i in range(70)]
    for size in range(1, 71):
        assert merkle.root(leaves[:size]) == recursive_root(leaves[:size])


def test_every_leaf_of_every_small_tree_has_a_proof() -> None:
    for size in range(1, 9):
        for index in range(size):
            proof = merkle.inclusion_proof(LEAVES[:size], index)
            merkle.verify_inclusion(LEAVES[index], index, size, proof, merkle.root(LEAVES[:size]))


def test_a_proof_is_for_one_place_only() -> None:
    proof, tree = merkle.inclusion_proof(LEAVES, 3), merkle.root(LEAVES)
    for index in range(8):
        if index != 3:
            with pytest.raises(RemoteProtocolError):
                merkle.verify_inclusion(LEAVES[3], index, 8, proof, tree)


def test_a_wrong_root_names_expected_and_calculated() -> None:
    proof = merkle.inclusion_proof(LEAVES, 0)
    with pytest.raises(RemoteProtocolError, match=rf"expected root {'00' * 32}, calculated {ROOTS[7]}"):
        merkle.verify_inclusion(LEAVES[0], 0, 8, proof, bytes(32))


def test_malformed_proofs_are_refused() -> None:
    proof, tree = merkle.inclusion_proof(LEAVES, 0), merkle.root(LEAVES)
    bad = [
        (-1, 8, proof),
        (8, 8, proof),
        (0, 0, []),
        (0, 8, proof[:-1]),
        (0, 8, [*proof, bytes(32)]),
        (0, 8, [*proof[:-1], proof[-1][:31]]),
    ]
    for index, size, path in bad:
        with pytest.raises(RemoteProtocolError):
            merkle.verify_inclusion(LEAVES[0], index, size, path, tree)


def test_proving_a_leaf_that_is_not_there_is_our_fault() -> None:
    for index in (-1, 8):
        with pytest.raises(LocalProtocolError):
            merkle.inclusion_proof(LEAVES, index)


def test_a_node_cannot_be_passed_off_as_a_leaf() -> None:
    assert merkle.leaf_hash(LEAVES[0] + LEAVES[1]) != merkle.node_hash(LEAVES[0], LEAVES[1])


def test_a_tree_of_many_leaves_needs_no_deep_stack() -> None:
    leaves = [merkle.leaf_hash(i.to_bytes(4, "big")) for i in range(20_001)]
    proof = merkle.inclusion_proof(leaves, 20_000)
    merkle.verify_inclusion(leaves[-1], 20_000, 20_001, proof, merkle.root(leaves))
