"""RLP, trie proofs and block headers, against independent implementations."""

from pathlib import Path
from typing import Any

import pytest
import rlp as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from trie import HexaryTrie
from vyper.compiler import compile_code

from folkmoot.ledger import build
from folkmoot.ledger.audit import rlp, trie
from folkmoot.ledger.audit.headers import encode_header, read_header
from folkmoot.ledger.audit.state import MEMBERS_SLOT, SLOTS
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.typed_data import keccak256
from folkmoot.testnet.devchain import DevChain

short = st.binary(max_size=80)
items = st.recursive(short, lambda inner: st.lists(inner, max_size=4), max_leaves=12)


@given(items)
def test_decodes_what_others_encode(item: Any) -> None:
    assert rlp.decode(reference.encode(item)) == item


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_encodes_as_others_do(item: list[bytes]) -> None:
    assert rlp.encode(item) == reference.encode(item)


@given(st.binary(max_size=60))
def test_takes_no_more_than_others_do(data: bytes) -> None:
    """Whatever decodes is the one encoding of what comes out."""
    try:
        item = rlp.decode(data)
    except RemoteProtocolError:
        return
    assert reference.encode(item) == data


@pytest.mark.parametrize(
    "data", ["8101", "b800", "b80161", "83aa", "f800", "b90010", "", "c0" * 2, "c1" * 20]
)
def test_refuses(data: str) -> None:
    with pytest.raises(RemoteProtocolError):
        rlp.decode(bytes.fromhex(data))


@settings(max_examples=60)
@given(
    st.dictionaries(
        st.binary(min_size=1, max_size=4), st.binary(min_size=1, max_size=70), min_size=1, max_size=40
    )
)
def test_proves_what_is_there_and_what_is_not(values: dict[bytes, bytes]) -> None:
    tree = HexaryTrie({})
    for key, value in values.items():
        tree[keccak256(key)] = value
    for key in [*values, b"not there at all"]:
        proof = [reference.encode(node) for node in tree.get_proof(keccak256(key))]
        assert trie.prove(tree.root_hash, key, proof) == values.get(key)
        for place in range(len(proof)):
            damaged = [*proof[:place], proof[place][:-1] + bytes([proof[place][-1] ^ 1]), *proof[place + 1 :]]
            with pytest.raises(RemoteProtocolError):
                trie.prove(tree.root_hash, key, damaged)
            with pytest.raises(RemoteProtocolError):
                trie.prove(tree.root_hash, key, proof[:place] + proof[place + 1 :])


def test_empty_trie_has_nothing() -> None:
    assert trie.prove(trie.EMPTY_ROOT, b"key", []) is None


def test_headers_hash_to_what_the_chain_says() -> None:
    chain = DevChain(7, [bytes(19) + b"\x01"], 1_700_000_000)
    block = chain.block("latest")
    assert block is not None
    header = read_header(encode_header(block))
    assert (f"0x{header.hash.hex()}", hex(header.number)) == (block["hash"], block["number"])
    changed = read_header(encode_header({**block, "gasUsed": "0x1"}))
    assert changed.hash != header.hash


MAINNET_1 = {
    "difficulty": "0x3ff800000", "extraData": "0x476574682f76312e302e302f6c696e75782f676f312e342e32",
    "gasLimit": "0x1388", "gasUsed": "0x0", "logsBloom": "0x" + "00" * 256,
    "miner": "0x05a56e2d52c817161883f50c441c3228cfe54d9f",
    "mixHash": "0x969b900de27b6ac6a67742365dd65f55a0526c41fd18e1b16f1a1215c2e66f59", "nonce": "0x539bd4979fef1ec4",
    "number": "0x1", "parentHash": "0xd4e56740f876aef8c010b86a40d5f56745a118d0906a34e69aec8c0db1cb8fa3",
    "receiptsRoot": "0x56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421",
    "sha3Uncles": "0x1dcc4de8dec75d7aab85b567b6ccd41ad312451b948a7413f0a142fd40d49347",
    "stateRoot": "0xd67e4d450343046425ae4271474353857ab860dbc0a1dde64b41b5cd3a532bf3", "timestamp": "0x55ba4224",
    "transactionsRoot": "0x56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421",
}  # fmt: skip


def test_first_block_of_ethereum() -> None:
    """Before every fork: the fifteen fields."""
    hashed = "88e96d4537bea4d9c05d12549907b32561d3bf31f45aae734cdc119f13406cb6"
    assert read_header(encode_header(MAINNET_1)).hash.hex() == hashed


def test_slots_are_where_the_compiler_puts_them() -> None:
    source = (Path(build.__file__).parent / "contract" / "RoundLedger.vy").read_text()
    layout = compile_code(source, output_formats=["layout"])["layout"]["storage_layout"]
    assert {name: layout[name]["slot"] for name in SLOTS} == SLOTS
    assert layout["_members"]["slot"] == MEMBERS_SLOT
