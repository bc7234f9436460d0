"""What an RPC shows: events, calls in transactions, lists, RLP, headers, trie proofs and shown ledgers in JSON."""

import msgspec
from fuzzing import Target

from folkmoot.ledger.audit import rlp, trie
from folkmoot.ledger.audit.headers import encode_header, read_header
from folkmoot.ledger.calldata import decode_call, encode_call
from folkmoot.ledger.calls import Amend, Checkpoint, Finalize
from folkmoot.ledger.codec import (
    AMENDED_TOPIC,
    ATTESTED_TOPIC,
    FINALIZED_TOPIC,
    WORD,
    decode_addresses,
    decode_amended,
    decode_attested,
    decode_finalized,
    recover_signers,
)
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.governance import Amendment
from folkmoot.protocol.messages import Statement
from folkmoot.protocol.typed_data import Domain, keccak256, struct_hash

FEDERATION = bytes([7]) * 32
DOMAIN = Domain(31337, bytes(20))
TOPICS = [FINALIZED_TOPIC, ATTESTED_TOPIC, AMENDED_TOPIC]


def read(data: bytes) -> None:
    """The first byte says what the rest is taken for."""
    kind, rest = data[:1], data[1:]
    match kind:
        case b"e":
            _read_events(rest)
        case b"c":
            call = decode_call(rest)
            if isinstance(call, Finalize):
                recover_signers(DOMAIN, struct_hash(call.statement), call.signatures)
        case b"a":
            decode_addresses(rest)
        case b"r":
            rlp.decode(rest)
            read_header(rest)
        case b"t":
            trie.prove(keccak256(rest), b"key", [rest])
        case b"h":
            _read_block(rest)


def _read_events(data: bytes) -> None:
    topics = [data[at : at + WORD] for at in range(1, 1 + 3 * WORD, WORD)]
    which, rest = data[:1] or b"\0", data[1 + 3 * WORD :]
    topics.insert(0, TOPICS[which[0] % 3])
    match which[0] % 3:
        case 0:
            decode_finalized(FEDERATION, topics, rest)
        case 1:
            decode_attested(topics, rest)
        case 2:
            decode_amended(FEDERATION, topics, rest)


def _read_block(data: bytes) -> None:
    try:
        block = msgspec.json.decode(data, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return  # web3 reads the JSON; what comes out of it is a table
    read_header(encode_header(block))


def seeds() -> list[bytes]:
    """Calls, events and a header as they should be."""
    mark = [bytes([number]) * 32 for number in range(8)]
    statement = Statement(FEDERATION, 1, *mark[:6])
    amendment = Amendment(FEDERATION, 1, *mark[:3], 2**20, 60, (mark[4],))
    signature = bytes(range(64))
    calls = [Finalize(statement, (signature,) * 3), Checkpoint((statement,) * 2, (signature,)),
             Amend(amendment, (signature,))]  # fmt: skip
    hashes = ("parentHash", "sha3Uncles", "stateRoot", "transactionsRoot", "receiptsRoot", "mixHash")
    header = dict.fromkeys(hashes, "0x" + "01" * 32)
    header |= dict.fromkeys(("difficulty", "number", "gasLimit", "gasUsed", "timestamp"), "0x1")
    header |= {
        "miner": "0x" + "02" * 20,
        "logsBloom": "0x" + "00" * 256,
        "extraData": "0x",
        "nonce": "0x" + "00" * 8,
    }
    one = (1).to_bytes(32, "big")
    return [
        *(b"c" + encode_call(call) for call in calls),
        *(b"e" + bytes([which]) + one * 3 + bytes(6 * WORD) for which in range(3)),
        b"e\x02" + one * 3 + one * 5 + (6 * WORD).to_bytes(32, "big") + one * 2,
        b"a" + WORD.to_bytes(32, "big") + one + one,
        b"r" + encode_header(header),
        b"t" + rlp.encode([b"\x20", b"value"]),
        b"h" + msgspec.json.encode(header),
    ]


TARGET = Target("ledger", read, (RemoteProtocolError,), seeds)
