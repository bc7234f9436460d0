"""What a round costs on the wire, by the charter alone: bytes of updates and sums; messages are little beside them."""

from folkmoot.protocol.charter import Charter
from folkmoot.protocol.codec import codec_named
from folkmoot.protocol.sealing import payload_size
from folkmoot.protocol.secure.dealing import shard_layout


def payload_bytes(charter: Charter) -> int:
    """Bytes of one member's update in open mode, sealed to all."""
    plain = codec_named(charter.averaging.codec).encoded_size(charter.update_values)
    return payload_size(len(charter.members) + len(charter.auditors), plain)


def upload_bytes(charter: Charter) -> int:
    """What a member whose update counts sends in a round's one attempt, at most, if each other asks it itself."""
    if not charter.is_secure:
        return payload_bytes(charter) * (len(charter.members) - 1)
    # My shards to those who sum them, and my part of the sums to everybody.
    layout, others = shard_layout(charter), max(charter.group_sizes) - 1
    shards = layout.size * layout.value_bytes
    sums = max(layout.sum_bytes(shard) for shard in range(layout.shards))
    return shards + sums * max(others, len(charter.members) - 1)
