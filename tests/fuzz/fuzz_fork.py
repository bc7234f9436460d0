"""Claims that the ledger has another history: proofs as archives hold them, and what a machine makes of them."""

from functools import cache

from fuzz_message import signed_again
from fuzzing import Target
from msgspec.structs import replace
from one_node import ALL, Driver, decide, locked, town

from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.events import HeadAdvanced, RecordRead
from folkmoot.protocol.fork import Fork, RecordedRound, decode_fork, encode_fork
from folkmoot.protocol.journal import Entry
from folkmoot.protocol.typed_data import struct_hash

OURS = town.statement(ALL)
THEIRS = replace(OURS, model=bytes([7]) * 32)


@cache
def journal() -> list[Entry]:
    """What a node wrote down that finished round 1."""
    node = locked()
    decide(node)
    return list(node.journal)


def read(data: bytes) -> None:
    """As it is, and with the signatures that the members would have made: a quorum may lie."""
    fork = decode_fork(data)
    assert encode_fork(fork) == data
    for recorded in (fork.recorded, signed_again(fork.recorded)):
        _show(recorded)


def _show(recorded: RecordedRound) -> None:
    """The node's own ledger says so. It gives up what a quorum of attesters contradicts, and nothing else."""
    node = Driver(town, locked().me)
    node.machine.restore(journal(), 0.0)
    node.boot()
    node.handle(HeadAdvanced(recorded.statement.round, struct_hash(recorded.statement)))
    node.handle(RecordRead((recorded,)))
    signers = {signed.member for signed in recorded.attestations}
    assert node.machine.completed == 1 or len(signers) >= town.charter.quorum


def seeds() -> list[bytes]:
    """With and without this node's own record, under a quorum and under nobody."""
    attested = tuple(town.sign(member, THEIRS) for member in range(3))
    node = locked()
    decide(node)
    forks = [Fork(struct_hash(OURS), None, RecordedRound(THEIRS, signed)) for signed in ((), attested)]
    return [encode_fork(fork) for fork in forks]


TARGET = Target("fork", read, (RemoteProtocolError,), seeds)
