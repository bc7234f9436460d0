"""Streams of control frames and of bulk requests and answers, cut anywhere."""

from fuzzing import Target

from folkmoot.node.network import bulk
from folkmoot.node.network.control import FrameDecoder, encode_frame
from folkmoot.node.network.port import MAX_MESSAGE
from folkmoot.protocol import merkle
from folkmoot.protocol.blob import CHUNK, BlobRef
from folkmoot.protocol.errors import RemoteProtocolError

LEAVES = [merkle.leaf_hash(bytes([number])) for number in range(3)]
REF = BlobRef(merkle.root(LEAVES), 3 * CHUNK)


def read(data: bytes) -> None:
    """The first byte says what the rest is taken for."""
    kind, rest = data[:1], data[1:]
    match kind:
        case b"f":
            cut = rest[0] if rest else 1
            decoder = FrameDecoder()
            pieces = [rest[at : at + max(1, cut)] for at in range(1, len(rest), max(1, cut))]
            messages = [message for piece in pieces for message in decoder.feed(piece)]
            assert all(0 < len(message) <= MAX_MESSAGE for message in messages)
            whole = b"".join(map(encode_frame, messages))
            assert len(whole) <= len(rest)
        case b"r":
            assert bulk.encode_request(bulk.decode_request(rest)) == rest
        case b"l":
            assert bulk.decode_leaves(REF, rest) == LEAVES


def seeds() -> list[bytes]:
    """Good ones of each kind."""
    root = REF.root
    frames = b"".join(map(encode_frame, [b"", b"one", bytes(300)]))
    requests = [bulk.LeavesRequest(root), bulk.ChunksRequest(root, 1, 4)]
    return [b"f\x01" + frames, b"f\x50" + frames, *(b"r" + bulk.encode_request(one) for one in requests),
            b"l" + b"".join(LEAVES)]  # fmt: skip


TARGET = Target("control", read, (RemoteProtocolError,), seeds)
