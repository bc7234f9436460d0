"""Rows of a journal, which a disk may have damaged in ways that no checksum of SQLite sees."""

from fuzz_fork import journal
from fuzz_message import journals
from fuzzing import Target

from folkmoot.protocol.errors import LocalProtocolError
from folkmoot.protocol.journal import decode_entry, encode_entry, entry_kind, last_shared, own_signed


def read(data: bytes) -> None:
    """It is an entry, or it is refused; what is an entry can be written again and told of."""
    entry = decode_entry(data)
    assert decode_entry(encode_entry(entry)) == entry
    assert entry_kind(entry)
    own_signed(entry)
    last_shared([entry], {})


def seeds() -> list[bytes]:
    """All that nodes wrote down up to some point of a round, and at its end."""
    entries = [entry for written in (*journals(), journal()) for entry in written]
    return list(dict.fromkeys(map(encode_entry, entries)))


TARGET = Target("journal", read, (LocalProtocolError,), seeds, max_bytes=1 << 14)
